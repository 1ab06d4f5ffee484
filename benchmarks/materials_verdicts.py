"""What the table over five materials shows, in words: what `python benchmarks/materials.py figures` prints."""

from __future__ import annotations

import numpy as np
from materials_ensembles import JOINT, RMC, RULED
from materials_priors import JOINT as JOINT_PRIOR
from materials_reference import MATERIALS, TRAINED_AT
from materials_sampling import ruled

EASY, HARD = ("PDF", "XRD", "ND"), ("ADF", "partial PDF", "EXAFS", "XANES")
# the numbers of local order that must come out where the prior was trained: within twice the spread of the reference's replicas
KEY = {"silicon": ("4-fold %",), "carbon": ("4-fold %",), "silica": ("SiO4 %",), "cu-zr": ("n(Cu-Cu)", "n(Cu-Zr)", "n(Zr-Cu)", "n(Zr-Zr)")}
SHARE = {EASY: 0.9, HARD: 0.7}
WORDS = {True: "reached", False: "MISSED"}
WORST, MARGIN, RATIO = 0.02, -0.15, 0.7


def current(table: dict) -> dict:
    """The rows made by the rule of now: ensembles of the prior and guided ones by another, or with its steps or fluctuations changed, and reverse
    Monte Carlo with a budget other than the time of ten ensembles are left out."""

    def kept(method: str, row: dict) -> bool:
        asked = row["facts"]["asked"]
        if method in RMC:
            return asked.get("ensembles") == 10
        if method not in RULED:
            return True
        return asked.get("plan") == ruled(JOINT.get(method, method)) and asked.get("steps") is None and asked.get("fluctuate", True)

    rows = {m: {method: {c: r for c, r in found.items() if kept(method, r)} for method, found in ms.items()} for m, ms in table.items()}
    return {m: {method: found for method, found in ms.items() if found} for m, ms in rows.items() if any(ms.values())}


def of_other_priors(table: dict, marks: dict[str, str]) -> list[str]:
    """Ensembles, as "material method condition", of another prior than the one of ``marks``: of each material, of "joint", and of "published
    MATERIAL"."""

    def name(material: str, method: str) -> str:
        return JOINT_PRIOR if method in JOINT else f"published {material}" if method == "published" else material

    rows = [(m, method, c, r) for m, ms in table.items() for method in (*RULED, "published") for c, r in ms.get(method, {}).items()]
    return [f"{m} {method} {c}" for m, method, c, row in rows if marks.get(name(m, method)) != row["facts"]["asked"].get("prior")]


def verdicts(table: dict) -> list[str]:
    """A line per material and method: shares of cells with dED <= 0, worst, mean error, least diversity, shortest distances, cost."""
    lines = []
    for material, methods in table.items():
        for method, found in methods.items():
            easy, hard = (list(cells({material: methods}, method, names).values()) for names in (EASY, HARD))
            error = mean_error({material: methods}, material, method, list(found))
            ratio = cells({material: methods}, method, HARD, "diversity_ratio").values()
            margin = min(c["shortest"]["margin"] for c in found.values())
            seconds = np.mean([c["facts"]["seconds"] for c in found.values()])
            share = [100 * float(np.mean(np.array(one) <= 0)) for one in (easy, hard)]
            lines.append(
                f"{material:9} {method:10} {len(found):2} conditions  {', '.join(EASY)}: {share[0]:3.0f} % <= 0, worst {max(easy):+.4f}  "
                f"{', '.join(HARD)}: {share[1]:3.0f} %, worst {max(hard):+.4f}  mean error {error:.4f}  "
                f"diversity x {min(ratio, default=float('nan')):.2f}  shortest {margin:+.2f} A  {seconds:.1f} s"
            )
    return lines


def cells(table: dict, method: str, names, number: str = "ded") -> dict[tuple[str, str, str], float]:
    """{(material, condition, modality): a number of the row's modality} of one method; without those that have none."""
    found = {(m, c): row["modalities"] for m, methods in table.items() for c, row in methods.get(method, {}).items()}
    numbers = {(*place, n): rows[n].get(number) for place, rows in found.items() for n in names if n in rows}
    return {place: value for place, value in numbers.items() if value is not None}


def misses(table: dict, method: str = "g") -> list[str]:
    """A line per entry of the guided ensembles with dED above 0, largest first, then one per entry that varies too little, least first; with their
    jackknife uncertainties where the rows have them."""
    ded, ded_doubt, ratio, ratio_doubt = (
        cells(table, method, (*EASY, *HARD), number) for number in ("ded", "ded_uncertainty", "diversity_ratio", "ratio_uncertainty")
    )
    above = sorted((place for place in ded if ded[place] > 0), key=ded.get, reverse=True)
    below = sorted((place for place in ratio if ratio[place] < RATIO), key=ratio.get)
    lines = [("above 0", place, f"{ded[place]:+.4f}", f" +- {ded_doubt[place]:.4f}" if place in ded_doubt else "") for place in above]
    lines += [(f"below {RATIO}", place, f"{ratio[place]:.2f}", f" +- {ratio_doubt[place]:.2f}" if place in ratio_doubt else "") for place in below]
    return [f"{what}: {material:9} {label:10} {modality:12} {value}{doubt}" for what, (material, label, modality), value, doubt in lines]


def mean_error(table: dict, material: str, method: str, labels, without=()) -> float:
    """Mean error of a method over all modalities (coordination, dihedral and q6 too) of some conditions but XANES and those in ``without``; NaN where
    a condition, or all, are missing.

    XANES is of a surrogate, which gives any number (up to 20,000 times the reference) of structures far from what it was trained on, as some of
    carbon by descent and reverse Monte Carlo are.
    """
    found = table[material].get(method, {})
    if not labels or not set(labels) <= set(found):
        return float("nan")
    errors = [one["error"] for label in labels for name, one in found[label]["modalities"].items() if name not in ("XANES", *without)]
    return float(np.mean(errors or [np.nan]))


def checks(table: dict, method: str = "g") -> list[str]:
    """A line per check of the benchmark, of ensembles guided by g(r): of the conditions that are there, whose number comes first."""
    made = {m: len(methods.get(method, {})) for m, methods in table.items()}
    lines = [f"conditions made: {', '.join(f'{m} {made.get(m, 0)} of {len(group)}' for m, group in MATERIALS.items())}"]
    for names in (EASY, HARD):
        values = np.array(list(cells(table, method, names).values()))
        if len(values):
            share, worst = float(np.mean(values <= 0)), float(values.max())
            good = share >= SHARE[names] and (names != EASY or worst <= WORST)
            lines.append(f"{WORDS[good]}: {', '.join(names)}: {100 * share:.0f} % of {len(values)} cells with dED <= 0, worst {worst:+.4f}")
    for material, methods in table.items():
        rows = methods.get(method, {})
        if not rows:
            continue
        margin = min(row["shortest"]["margin"] for row in rows.values())
        lines.append(f"{WORDS[margin >= MARGIN]}: {material}: shortest distance {margin:+.2f} A from the reference's")
        for other in (m for m in ("prior", "rmc-random", "rmc-liquid", "gradient", "published") if m in methods):
            both = [label for label in rows if label in methods[other]]
            ours, theirs = (mean_error(table, material, m, both) for m in (method, other))
            lines.append(f"{WORDS[ours < theirs]}: {material}: mean error {ours:.4f}, {other} {theirs:.4f} ({len(both)} conditions)")
        if both := [label for label in rows if label in methods.get("joint-g", {})]:
            ours, theirs = (mean_error(table, material, m, both) for m in (method, "joint-g"))
            lines.append(f"{material}: mean error {ours:.4f}, by the joint prior {theirs:.4f} ({len(both)} conditions)")
        trained = rows.get(TRAINED_AT[material])
        for key in KEY.get(material, ()) if trained else ():
            (ours, _), (theirs, spread) = trained["local"]["generated"][key], trained["local"]["reference"][key]
            good = abs(ours - theirs) <= 2 * spread
            lines.append(f"{WORDS[good]}: {material} {TRAINED_AT[material]}: {key} {ours:.2f}, reference {theirs:.2f} +- {spread:.2f}")
        for names in (EASY, HARD):
            ratios = cells({material: methods}, method, names, "diversity_ratio")
            if ratios:
                least, share = min(ratios, key=ratios.get), float(np.mean([value >= RATIO for value in ratios.values()]))
                found = f"least {ratios[least]:.2f} ({', '.join(least[1:])}), mean {np.mean(list(ratios.values())):.2f}"
                text = f"{100 * share:.0f} % of {len(ratios)} at {RATIO} of the reference's or more, {found}"
                lines.append(f"{WORDS[share == 1]}: {material}: diversity of {', '.join(names)}: {text}")
    return lines
