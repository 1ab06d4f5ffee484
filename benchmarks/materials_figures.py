"""Heat maps and spectra of the table over five materials: what `python benchmarks/materials.py figures` draws."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from materials_ensembles import ensemble_file, mark
from materials_priors import JOINT, prior_file, published_file
from materials_reference import MATERIALS, TRAINED_AT
from materials_summary import NAMES, markdown, summaries, where_trained
from materials_targets import structures_of
from materials_verdicts import checks, current, misses, of_other_priors, verdicts

SHOWN = ("PDF", "XRD", "ND", "ADF", "partial PDF", "EXAFS", "XANES", "coordination", "dihedral", "q6")
LIMIT = 0.05  # of the colours
SPECTRA = ("PDF", "XRD", "ND", "ADF", "EXAFS")
COLOURS = {
    "g": "tab:red",
    "prior": "tab:blue",
    "rmc-random": "tab:green",
    "rmc-liquid": "tab:olive",
    "gradient": "tab:brown",
    "published": "tab:purple",
    "joint": "tab:cyan",
    "joint-g": "tab:orange",
}


def _coloured(axis, values):
    """dED as colours, with 1000 dED in every cell; the image."""
    image = axis.imshow(values, cmap="RdBu_r", vmin=-LIMIT, vmax=LIMIT, aspect="auto")
    for i, j in np.ndindex(values.shape):
        if np.isfinite(values[i, j]):
            shade = "white" if abs(values[i, j]) > 0.7 * LIMIT else "black"
            axis.text(j, i, f"{1000 * values[i, j]:.0f}" if values[i, j] < 1 else ">999", ha="center", va="center", fontsize=6, color=shade)
    return image


def heat_maps(table: dict, methods):
    """A matplotlib figure: per method (rows) and material (columns) dED of modality x condition, the training condition outlined.

    Of the methods that were made at more than the condition of a training, else None; `method_maps` has the others.
    """
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    methods = [one for one in methods if any(set(found.get(one, {})) - {TRAINED_AT[m]} for m, found in table.items())]
    materials = [m for m in MATERIALS if any(table.get(m, {}).get(one) for one in methods)]
    if not materials:
        return None
    widths = [max(4, len({label for method in methods for label in table[m].get(method, {})})) for m in materials]
    figure = Figure(figsize=(3.2 + 0.36 * sum(widths), 0.7 + 2.3 * len(methods)), layout="constrained")
    axes = figure.subplots(len(methods), len(materials), squeeze=False, width_ratios=widths)
    image = None
    for line, method in enumerate(methods):
        for column, material in enumerate(materials):
            axis, found = axes[line, column], table[material].get(method, {})
            if not found:
                axis.set_axis_off()
                continue
            labels = [c.label for c in MATERIALS[material] if any(c.label in table[material].get(m, {}) for m in methods)]
            names = [n for n in SHOWN if any(n in one["modalities"] for one in found.values())]
            values = np.array([[found.get(one, {}).get("modalities", {}).get(n, {}).get("ded", np.nan) for one in labels] for n in names])
            image = _coloured(axis, values)
            axis.set_xticks(range(len(labels)), labels, rotation=60, fontsize=6, ha="right", rotation_mode="anchor")
            axis.set_yticks(range(len(names)), names if column == 0 or len(names) != len(axes[line, 0].get_yticks()) else [], fontsize=6)
            if TRAINED_AT[material] in labels:
                axis.add_patch(Rectangle((labels.index(TRAINED_AT[material]) - 0.5, -0.5), 1, len(names), fill=False, lw=1.8))
            axis.set_title(f"{material}: {method}", fontsize=8)
    if image is not None:
        figure.colorbar(image, ax=axes, label="dED (numbers: 1000 dED)", shrink=0.6, aspect=60, pad=0.01, extend="both")
    return figure


def method_maps(table: dict, methods):
    """A matplotlib figure: dED of method x modality where each material's prior was trained; None where nothing was made there."""
    from matplotlib.figure import Figure

    found = where_trained(table)
    made = [method for method in methods if any(method in rows for rows in found.values())]
    if not made:
        return None
    names = {m: [n for n in SHOWN if any(n in row["modalities"] for row in rows.values())] for m, rows in found.items()}
    figure = Figure(figsize=(3.5 + 0.33 * sum(map(len, names.values())), 1.4 + 0.24 * len(made)), layout="constrained")
    axes = figure.subplots(1, len(found), squeeze=False, width_ratios=[len(one) for one in names.values()])[0]
    for axis, (material, rows) in zip(axes, found.items(), strict=True):
        values = [[rows.get(method, {}).get("modalities", {}).get(n, {}).get("ded", np.nan) for n in names[material]] for method in made]
        image = _coloured(axis, np.array(values))
        axis.set_xticks(range(len(names[material])), names[material], rotation=60, fontsize=6, ha="right", rotation_mode="anchor")
        axis.set_yticks(range(len(made)), [NAMES[method] for method in made] if axis is axes[0] else [], fontsize=6)
        axis.set_title(f"{material} {TRAINED_AT[material]}", fontsize=8)
    figure.colorbar(image, ax=axes, label="dED (numbers: 1000 dED)", extend="both")
    return figure


def spectra(ensembles: Path, table: dict, methods):
    """A matplotlib figure: mean curves of the ``methods`` over the reference's mean and twice its spread (grey).

    A row for each material's first, training and last condition; of a modality with several features the first one. None where there is nothing.
    """
    import materials_check
    import materials_pack
    import materials_table
    from matplotlib.figure import Figure

    from glassjax.analysis.comparison import curves

    chosen = []
    for material in (m for m in MATERIALS if m in table):
        packed = [pair for pair in materials_table.conditions_of(material) if any(pair[0].label in table[material].get(m, {}) for m in methods)]
        wanted = {packed[0][0].label, TRAINED_AT[material], packed[-1][0].label} if packed else set()
        chosen += [(material, condition.label, frames) for condition, frames in packed if condition.label in wanted]
    if not chosen:
        return None
    figure = Figure(figsize=(13, 1.7 * len(chosen) + 0.5), layout="constrained")
    axes = figure.subplots(len(chosen), len(SPECTRA), squeeze=False)
    for line, (material, label, frames) in enumerate(chosen):
        options = dict(modalities=list(SPECTRA), cutoffs=materials_check.BONDS[material])
        shown = {"reference": curves(structures_of(frames), **options)}
        for method in methods:
            cells = ensemble_file(ensembles, material, method, label)
            if label in table[material].get(method, {}) and cells.exists():
                shown[method] = curves(structures_of(materials_pack.read(cells)), **options)
        for axis, modality in zip(axes[line], SPECTRA, strict=True):
            there = shown["reference"].get(modality, {})  # an angle that nothing makes, such as O-O-O, is no curve to show
            feature = max(there, key=lambda f: (f == "total", np.abs(there[f].values).max() > 0, -list(there).index(f)), default=None)
            if feature is None:
                axis.set_axis_off()
                continue
            for name, found in shown.items():
                one = found[modality][feature]
                mean, spread = one.values.mean(axis=0), one.values.std(axis=0, ddof=1) if len(one.values) > 1 else 0.0
                if name == "reference":
                    axis.fill_between(one.x, mean - 2 * spread, mean + 2 * spread, color="0.8", lw=0)
                style = "-" if name in ("reference", "g") else "--"
                axis.plot(one.x, mean, color=COLOURS.get(name, "black"), lw=0.9, ls=style, label=name)
            axis.set_title(f"{material} {label}: {modality} {'' if feature == 'total' else feature}", fontsize=7)
            axis.tick_params(labelsize=6)
    named = {line.get_label(): line for axis in axes.ravel() for line in axis.get_lines()}
    axes[0, 0].legend(named.values(), named.keys(), fontsize=6, frameon=False)
    return figure


def draw(results: Path, methods, picture: Path, ensembles: Path | None = None) -> int:
    """Print verdicts, checks and misses; write the table, the heat maps and, where the ``ensembles`` are at hand, the spectra beside them."""
    every = json.loads(results.read_text())
    table = current(every)
    old = sum(len(found) - len(table.get(m, {}).get(method, {})) for m, methods_of in every.items() for method, found in methods_of.items())
    if old:
        print(f"{old} ensembles by another rule than that of now are left out; `python benchmarks/materials.py table` makes them again")
    marks = {name: mark(prior_file(name)) for name in (*MATERIALS, JOINT) if prior_file(name).exists()}
    marks |= {f"published {name}": mark(published_file(name)) for name in MATERIALS if published_file(name).exists()}
    if others := of_other_priors(table, marks):
        print(f"of other priors than those of {prior_file(JOINT).parent} ({len(others)}): {', '.join(others)}")
    print("\n".join([*verdicts(table), "", *checks(table), "", *misses(table)]))
    if not table:
        return 0
    picture.with_suffix(".md").write_text(f"{summaries(table)}\n{markdown(table)}")
    keep(heat_maps(table, methods), picture)
    keep(method_maps(table, methods), picture.with_stem(f"{picture.stem}_methods"))
    if ensembles is not None and ensembles.is_dir():
        keep(
            spectra(ensembles, table, [m for m in ("prior", "rmc-random", "g") if m in methods]),
            picture.with_stem(f"{picture.stem}_spectra"),
            dpi=110,
        )
    return 0


def keep(figure, path: Path, dpi: int = 130) -> None:
    """Write a figure and say so; nothing where there is none."""
    if figure is not None:
        figure.savefig(path, dpi=dpi)
        print(f"wrote {path}")
