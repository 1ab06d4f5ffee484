"""Does an inferred density come back? Amorphous silicon, simulated curves, starts 8 % off on both sides.

    python benchmarks/density.py [--replicas 4] [--out benchmarks/results/density.json]

Target: the cell benchmarks/data/silicon_targets.extxyz.gz@1 (2.5 g/cm3, not in the prior's training set). F_keen has its scale inferred too; its data
are computed from pairs out to 30 A, as a measurement would give them.
"""

import argparse
import json
import time
from pathlib import Path

import ase.io
import numpy as np

import glassjax
from glassjax.spectra import compute_spectra
from glassjax.targets import target

HERE = Path(__file__).parent
CASES = (("g", 1.08, {}), ("g", 0.92, {}), ("G", 0.92, {}), ("S", 1.08, {}), ("F_keen", 0.92, {"scale": "infer"}))


def run(function: str, start: float, extra: dict, cell, arguments) -> dict:
    """One inversion from ``start`` times the true density."""
    truth = float(glassjax.number_density(cell))
    if function in ("g", "G"):
        made = glassjax.pair_distribution(np.linspace(0.08, 8.0, 100), ["Si"], function=function)
    else:
        made = glassjax.structure_factor(np.arange(0.3, 25.0, 0.05), ["Si"], function=function, weights="neutron", rmax=30.0)
    y = compute_spectra([cell], [made])[0][0]
    goal = target(made.x, y, ["Si"], function=function, number_density=start * truth, weights="neutron", **extra)
    begun = time.monotonic()
    options = dict(composition="Si", atoms=len(cell.species), number_density=start * truth, replicas=arguments.replicas, seed=arguments.seed)
    result = glassjax.invert(goal, infer_density=True, **options)
    ratios = np.array([float(glassjax.number_density(s)) / truth for s in result.structures])
    row = dict(function=function, start=start, ratios=ratios.tolist(), mean=float(ratios.mean()), worst=float(np.abs(ratios - 1).max()))
    row |= dict(r_factor=float(result.ensemble.last("r_factor").mean()), seconds=time.monotonic() - begun)
    if extra:
        row["scale"] = result.ensemble.last("nuisance")[:, 0].tolist()
    return row


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--replicas", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", default=HERE / "results" / "density.json")
    arguments = parser.parse_args()
    cell = glassjax.from_atoms(ase.io.read(HERE / "data" / "silicon_targets.extxyz.gz", index="1"))
    rows = []
    for case in CASES:
        rows.append(run(*case, cell, arguments))
        Path(arguments.out).write_text(json.dumps(rows, indent=1))
        row = rows[-1]
        print(f"{row['function']:7} start {row['start']:.2f}  density / truth {row['mean']:.4f} (worst off {100 * row['worst']:.2f} %)  ", end="")
        print(f"R {row['r_factor']:.3f}  scale {np.round(row.get('scale', []), 3)}  {row['seconds']:.0f} s", flush=True)


if __name__ == "__main__":
    main()
