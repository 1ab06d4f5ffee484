"""What `glassjax compare` does: one ensemble against a reference."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np

from glassjax.commands import output_file

# repeated from analysis.modalities, because --help must not load JAX; a test compares them
MODALITIES = ("PDF", "partial PDF", "XRD", "ND", "EXAFS", "XANES", "ADF", "coordination", "dihedral", "q4", "q6", "rings", "Voronoi")


def add_arguments(command) -> None:
    """Options of the command."""
    command.add_argument("ensemble", metavar="ENSEMBLE", help="a structure file, every frame of it, or a run's folder (its ensemble.extxyz)")
    command.add_argument("reference", metavar="REFERENCE", help="the same, of the structures to compare with")
    command.add_argument("--modalities", nargs="+", choices=MODALITIES, metavar="NAME", help=f"of {', '.join(MODALITIES)} (default: all that apply)")
    command.add_argument("--cutoff", nargs="+", metavar="A|EL-EL=A", help="bond cutoff, one or per pair (default: 1.285 x the sum of covalent radii)")
    command.add_argument("--surrogate", nargs="+", metavar="NAME|FILE", help="of XANES")
    command.add_argument("--any-cell", action="store_true", help="compare ensembles of different numbers of atoms or volumes too")
    command.add_argument("--out", metavar="FILE", help="write all numbers: .json, or .csv with the local order as a second table below")


def compare(options) -> int:
    """Print error, diversity and dED per modality and feature, then the local order of both; write them where asked."""
    out = None if options.out is None else output_file(options.out, None)
    if out is not None and out.suffix.lower() not in (".json", ".csv"):
        raise ValueError(f"got {out} as --out; needs a name that ends in .json or .csv; rename it")
    ours, theirs = _frames(options.ensemble), _frames(options.reference)
    cutoffs = parse_cutoffs(options.cutoff)
    from glassjax.analysis.comparison import compare as run
    from glassjax.analysis.summary import local_summary, mean_and_spread
    from glassjax.archive import write_whole

    found = run(ours, theirs, options.modalities, cutoffs=cutoffs, surrogate=options.surrogate, same_cell=not options.any_cell)
    print(f"{len(ours)} structures against {len(theirs)} of {' '.join(f'{e}{n}' for e, n in found.reference.counts.items())}")
    print(f"bond cutoffs (A): {', '.join(f'{a}-{b} {v:g}' for (a, b), v in found.reference.cutoffs.items())}\n")
    print(found.table())
    print("error: of the means; diversity: spread of the reference's replicas; dED = error - diversity, at most 0 is the goal;")
    print("ratio: diversity of the ensemble over that of the reference; all in units of the reference's largest value;")
    print("+-: jackknife standard errors, of the error from the ensemble's replicas, of dED and of the ratio from those of both\n")
    sides = [local_summary(frames, one, found.reference) for frames, one in ((ours, found.generated), (theirs, found.reference))]
    summary = {name: [mean_and_spread(side.get(name, np.zeros(0))) for side in sides] for name in dict.fromkeys([*sides[1], *sides[0]])}
    width = max(len(name) for name in summary)
    print(f"{'local order':<{width}} {'ensemble':>18} {'reference':>18}")
    for name, (first, second) in summary.items():
        print(f"{name:<{width}} {_text(*first):>18} {_text(*second):>18}")
    if out is not None:
        write_whole(out, (_json if out.suffix.lower() == ".json" else _csv)(found, summary).encode())
        print(f"\nwritten: {out}")
    return 0


def _frames(name: str):
    from glassjax.io.atoms import read_structures

    path = Path(name)
    if path.is_dir():
        if not (path / "ensemble.extxyz").is_file():
            raise ValueError(f"got the folder {path} without ensemble.extxyz; needs the folder of a finished run, or a structure file; name one")
        path = path / "ensemble.extxyz"
    return read_structures(path)


def parse_cutoffs(words):
    """One number, {(a, b): A} from "Si-O=2.2" and the like, or None."""
    if not words:
        return None
    try:
        if len(words) == 1 and "=" not in words[0]:
            return float(words[0])
        found = {}
        for word in words:
            pair, value = word.split("=")
            a, b = pair.split("-")
            found[a, b] = float(value)
        return found
    except ValueError:
        raise ValueError(f"got --cutoff {' '.join(words)}; needs one length in angstrom, or one per pair such as Si-O=2.2 Si-Si=2.6") from None


def _text(mean: float, spread: float | None) -> str:
    if not np.isfinite(mean):
        return "-"
    return f"{mean:.3f}" if spread is None else f"{mean:.3f} +- {spread:.3f}"


def _json(found, summary) -> str:
    def told(pair):
        return dict(mean=pair[0] if np.isfinite(pair[0]) else None, deviation=pair[1])

    local = {name: dict(ensemble=told(first), reference=told(second)) for name, (first, second) in summary.items()}
    return json.dumps(found.to_dict() | dict(local_order=local), indent=1)


def _csv(found, summary) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = [n for n in found.rows[0].to_dict()] if found.rows else []
    writer.writerow(names)
    for row in found.rows:
        writer.writerow(["" if v is None else v for v in row.to_dict().values()])
    text.write("\n")
    writer.writerow(["local order", "ensemble", "deviation", "reference", "deviation"])
    for name, pairs in summary.items():
        writer.writerow([name, *["" if v is None else f"{v:.7g}" for pair in pairs for v in pair]])
    return text.getvalue()
