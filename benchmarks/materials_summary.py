"""The table over five materials as Markdown: summaries of it, which README.md and RESULTS.md show, and all of it."""

from __future__ import annotations

import numpy as np
from materials_ensembles import METHODS
from materials_reference import MATERIALS, TRAINED_AT
from materials_verdicts import EASY, HARD, KEY, cells, mean_error

NAMES = {
    "prior": "prior alone",
    **{name: f"guided by {name if name != 'g' else 'g(r)'}" for name in ("g", "XRD", "ND", "ADF", "EXAFS", "XANES")},
    "joint": "joint prior alone",
    "joint-g": "joint prior, guided by g(r)",
    "rmc-random": "reverse Monte Carlo on g(r), random start",
    "rmc-liquid": "reverse Monte Carlo on g(r), liquid start",
    "gradient": "descent on g(r), no prior",
    "published": "the paper's guidance and network, g(r)",
}


def summaries(table: dict) -> str:
    """Four tables: guided by g(r), a row per material; every method where the priors were trained, and elsewhere; what they cost."""
    tables = [_conditional(table), _methods(table), _elsewhere(table), _costs(table)]
    return "\n".join(["# The table over five materials, in short\n", *(line for one in tables for line in (*one, ""))])


def show_in(document: str, text: str) -> str:
    """``document`` with each of its tables replaced by the one of ``text`` whose heading begins with the same cell, where there is one."""
    lines, source = document.split("\n"), text.split("\n")
    tables = {source[start].split("|")[1]: source[start:stop] for start, stop in _tables(source)}
    for start, stop in reversed(_tables(lines)):
        lines[start:stop] = tables.get(lines[start].split("|")[1], lines[start:stop])
    return "\n".join(lines)


def _tables(lines) -> list[tuple[int, int]]:
    """First line, and the line after the last, of every table."""
    edges = [i for i in range(len(lines) + 1) if (i < len(lines) and lines[i].startswith("|")) != (i > 0 and lines[i - 1].startswith("|"))]
    return list(zip(edges[::2], edges[1::2], strict=True))


def _table(head, rows) -> list[str]:
    return [f"| {' | '.join(head)} |", "|---" * len(head) + "|", *(f"| {' | '.join(row)} |" for row in rows)]


def _conditional(table: dict, method: str = "g") -> list[str]:
    """Guided by g(r) and the prior alone, over all conditions of a material."""
    head = ["guided by g(r)", "conditions", "replicas", f"{', '.join(EASY)}: dED <= 0", "worst", f"{', '.join(HARD)}: dED <= 0", "worst"]
    head += ["mean error", "of the prior alone", "shortest less the reference's, A"]
    rows = []
    for material in (m for m in MATERIALS if m in table):
        methods = table[material]
        found = methods.get(method, {})
        if not found:
            continue
        counts = [row["replicas"]["generated"] for row in found.values()]
        line = [
            material,
            f"{len(found)} of {len(MATERIALS[material])}",
            f"{min(counts)}" if min(counts) == max(counts) else f"{min(counts)} to {max(counts)}",
        ]
        for names in (EASY, HARD):
            values = np.array(list(cells({material: methods}, method, names).values()))
            line += [f"{np.sum(values <= 0)} of {len(values)}", f"{values.max():+.4f}"]
        errors = [mean_error(table, material, one, list(found)) for one in (method, "prior")]
        margin = min(row["shortest"]["margin"] for row in found.values())
        rows.append([*line, *(_number(error) for error in errors), f"{margin:+.2f}"])
    return _table(head, rows)


def _number(value: float, form: str = ".4f") -> str:
    return "" if np.isnan(value) else f"{value:{form}}"


def where_trained(table: dict) -> dict[str, dict]:
    """{material: {method: row}} at the condition of the prior's training, of materials that have one, in their order."""
    rows = {m: {method: found[TRAINED_AT[m]] for method, found in table[m].items() if TRAINED_AT[m] in found} for m in MATERIALS if m in table}
    return {material: found for material, found in rows.items() if found}


def _both(table: dict, material: str, method: str, labels) -> str:
    """Mean error (`mean_error`), and without EXAFS, which in the alloys has the largest errors."""
    return ", ".join(_number(mean_error(table, material, method, labels, without)) for without in ((), ("EXAFS",)))


def _methods(table: dict) -> list[str]:
    """Mean errors, and in brackets dED of the angles, of every method where the prior was trained."""
    found = where_trained(table)

    def entry(material: str, method: str) -> str:
        if method not in found[material]:
            return ""
        angles = found[material][method]["modalities"].get("ADF")
        return _both(table, material, method, [TRAINED_AT[material]]) + (f" ({angles['ded']:+.4f})" if angles else "")

    head = ["mean error, without EXAFS (dED of angles) where the prior was trained", *(f"{m} {TRAINED_AT[m]}" for m in found)]
    made = [method for method in METHODS if any(method in rows for rows in found.values())]
    return _table(head, [[NAMES[method], *(entry(m, method) for m in found)] for method in made])


def _elsewhere(table: dict) -> list[str]:
    """The same errors over all conditions but that of the training; where those are not the ones of g(r), how many they are, and the errors of
    g(r) and of the prior alone at them."""
    places = {m: {method: sorted(set(rows) - {TRAINED_AT[m]}) for method, rows in table[m].items()} for m in MATERIALS if m in table}

    def entry(material: str, method: str) -> str:
        labels = places[material].get(method, [])
        if not labels:
            return ""
        if labels == places[material].get("g"):
            return _both(table, material, method, labels)
        known = {what: one for one, what in (("g", "g(r)"), ("prior", "alone")) if one != method and set(labels) <= set(table[material].get(one, {}))}
        there = "; ".join(f"{what} {_both(table, material, one, labels)}" for what, one in known.items())
        return f"{_both(table, material, method, labels)} ({len(labels)}{': ' if there else ''}{there})"

    made = [method for method in METHODS if any(found.get(method) for found in places.values())]
    counts = [f"{m}, {len(found.get('g', []))} conditions" for m, found in places.items()] if made else []
    return _table(["mean error, without EXAFS, elsewhere", *counts], [[NAMES[method], *(entry(m, method) for m in places)] for method in made])


def _costs(table: dict) -> list[str]:
    """Seconds per structure and per step of the ladder where the prior was trained, beside reverse Monte Carlo's."""
    head = ["cost where the prior was trained", "atoms", "prior alone, s/structure", "guided by g(r), s/structure more", "ms/step guided"]
    head += ["reverse Monte Carlo, s/structure given", "moves/s"]
    rows = []
    for material, found in where_trained(table).items():
        facts = {method: row["facts"] for method, row in found.items()}
        guided, alone = facts.get("g", {}), facts.get("prior", {})
        carlo = next((facts[m] for m in ("rmc-random", "rmc-liquid") if m in facts), {})
        atoms = len(next(c for c in MATERIALS[material] if c.label == TRAINED_AT[material]).symbols)
        values = [alone.get("seconds"), guided.get("seconds"), 1000 * guided.get("seconds_per_step", np.nan)]
        values += [carlo.get("seconds"), carlo["moves"] / carlo["seconds"] if "moves" in carlo else None]
        forms = (".1f", ".1f", ".0f", ".0f", ".0f")
        rows.append([material, str(atoms), *(_number(np.nan if v is None else v, f) for v, f in zip(values, forms, strict=True))])
    return _table(head, rows)


def markdown(table: dict) -> str:
    """The whole table as Markdown: dED of every modality per material, condition and method, and the numbers of local order; the training in bold."""
    names = [n for n in (*EASY, *HARD) if any(n in row["modalities"] for ms in table.values() for found in ms.values() for row in found.values())]
    head = ["material", "condition", "method", "replicas (reference)", *names, "local order (reference)", "shortest, A", "s/structure", "ms/step"]
    rows = []
    for material, methods in table.items():
        order = {c.label: i for i, c in enumerate(MATERIALS[material])}
        places = sorted({(order[label], label) for found in methods.values() for label in found})
        for _, label in places:
            shown = f"**{label}**" if label == TRAINED_AT[material] else label
            for method, found in methods.items():
                if label in found:
                    rows.append([material, shown, method, _count(found[label]), *_entries(material, found[label], names)])
    title = "# All of it\n\ndED of every ensemble, written by `python benchmarks/materials.py figures`.\n"
    return "\n".join([title, *_table(head, rows)]) + "\n"


def _count(row: dict) -> str:
    """Replicas that came to the end, of those asked for, and of the reference."""
    got, theirs, asked = row["replicas"]["generated"], row["replicas"]["reference"], row["facts"]["asked"]["replicas"]
    return f"{got}{'' if got == asked else f' of {asked}'} ({theirs})"


def _entries(material: str, row: dict, names) -> list[str]:
    values = [f"{row['modalities'][n]['ded']:+.4f}" if n in row["modalities"] else "" for n in names]
    ours, theirs = row["local"]["generated"], row["local"]["reference"]
    keys = [k for k in KEY.get(material, ("Z(Zr)", "Z(Ni)", "Z(Al)")) if k in ours and k in theirs]
    order = "; ".join(f"{k} {ours[k][0]:.1f} ({theirs[k][0]:.1f} ± {theirs[k][1]:.1f})" for k in keys)
    step = row["facts"].get("seconds_per_step")
    return [*values, order, f"{row['shortest']['margin']:+.2f}", f"{row['facts']['seconds']:.1f}", "" if step is None else f"{1000 * step:.0f}"]
