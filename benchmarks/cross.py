"""Which measurement fixes what: invert amorphous silicon guided by one curve at a time and compare all the others.

    python benchmarks/cross.py [--replicas 4] [--rows g G S XRD ND ADF g+ADF EXAFS g+EXAFS] [--surrogate FILE] [--out benchmarks/results/cross.json]

"EXAFS" is k^2 chi(k), 3 to 12 1/A, by the analytic sum over pairs; "learned" the same data guided through a surrogate (benchmarks/absorption.py
trains one).

Target: a melt-quenched cell that the prior has not seen (2.5 g/cm3, benchmarks/data/silicon_targets.extxyz.gz@1). The curves that guide are
computed from that cell as a measurement would give them (reciprocal ones from pairs out to 30 A, then seen through the model's window like any
file). An entry is the mean over replicas of the mean absolute difference to the target's own curve, in per cent of its largest value. "prior" is
the same protocol without data.
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
R, Q, ANGLES = np.linspace(0.08, 8.0, 100), np.arange(1.0, 11.05, 0.1), np.linspace(0.0, 180.0, 91)
CUTOFF, DISPLACEMENT = 2.85, 1.5
K = np.arange(3.0, 12.01, 0.05)
ROWS = ("prior", "g", "G", "S", "XRD", "ND", "ADF", "g+ADF", "EXAFS", "g+EXAFS")


def observables(rmax: float = 10.0, density: float = 0.05) -> dict:
    """Every curve that is compared."""
    silicon = ["Si"]
    intensity = dict(function="I", rmax=rmax, displacement=DISPLACEMENT)
    return {
        "g": glassjax.pair_distribution(R, silicon),
        "G": glassjax.pair_distribution(R, silicon, function="G"),
        "S": glassjax.structure_factor(np.arange(1.0, 20.0, 0.1), silicon, rmax=rmax),
        "XRD": glassjax.structure_factor(Q, silicon, weights="xray", **intensity),
        "ND": glassjax.structure_factor(Q, silicon, weights="neutron", **intensity),
        "ADF": glassjax.angle_distribution(ANGLES, silicon, cutoff=CUTOFF),
        "EXAFS": glassjax.exafs(K, silicon, edge="Si:K", number_density=density, kweight=2),
    }


def made_target(name: str, cell, surrogate=None):
    """The target of one row, from what a measurement of the cell would show."""
    density = float(glassjax.number_density(cell))
    if name in ("EXAFS", "learned"):
        chi = compute_spectra([cell], [glassjax.exafs(K, ["Si"], edge="Si:K", number_density=density)])[0][0]
        options = dict(function="chi(k)", edge="Si:K", kmin=3.0, kmax=12.0, number_density=density, name=name)
        return glassjax.absorption_target(K, chi, ["Si"], **options, surrogate=surrogate if name == "learned" else None)
    x = observables()[name].x
    y = compute_spectra([cell], [observables(30.0)[name]])[0][0]
    options = dict(number_density=density, name=name)
    if name in ("g", "G"):
        return target(x, y, ["Si"], function=name, **options)
    if name == "S":
        return target(x, y, ["Si"], function="S", **options)
    if name == "ADF":
        return target(x, y, ["Si"], function="ADF", cutoff=CUTOFF, **options)
    weights = "xray" if name == "XRD" else "neutron"
    return target(x, y, ["Si"], function="I", weights=weights, displacement=DISPLACEMENT, **options)


def four_coordinated(structures) -> float:
    """Per cent of atoms with four neighbours inside the cutoff."""
    return 100 * float(np.mean([np.mean(glassjax.coordination_numbers(s, CUTOFF) == 4) for s in structures]))


def run(name: str, cell, arguments) -> dict:
    """One row: the inversion, and every error of it."""
    density, started = float(glassjax.number_density(cell)), time.monotonic()
    common = dict(
        composition="Si", atoms=len(cell.species), number_density=density, prior="silicon", replicas=arguments.replicas, seed=arguments.seed
    )
    if name == "prior":
        result = glassjax.generate(**common)
    else:
        result = glassjax.invert([made_target(part, cell, arguments.surrogate) for part in name.split("+")], **common)
    made = observables(density=density)
    reference, curves = compute_spectra([cell], list(made.values())), compute_spectra(result.structures, list(made.values()))
    errors = {}
    for key, want, got in zip(made, reference, curves, strict=True):
        errors[key] = 100 * float(np.abs(got - want).mean() / np.abs(want).max())
    last, shortest = result.ensemble.last("r_factor"), min(glassjax.shortest_distance(s) for s in result.structures)
    return dict(
        errors=errors,
        four_coordinated=four_coordinated(result.structures),
        shortest=float(shortest),
        r_factor=None if last is None else last.mean(axis=0).tolist(),
        seconds=time.monotonic() - started,
        replicas=len(result.structures),
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--replicas", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rows", nargs="+", default=ROWS, choices=(*ROWS, "learned"))
    parser.add_argument("--surrogate", help="of silicon's EXAFS, for the row 'learned'")
    parser.add_argument("--out", default=HERE / "results" / "cross.json")
    arguments = parser.parse_args()
    cell = glassjax.from_atoms(ase.io.read(HERE / "data" / "silicon_targets.extxyz.gz", index="1"))
    out = Path(arguments.out)
    done = json.loads(out.read_text()) if out.exists() else {}
    done["target four-coordinated"] = four_coordinated([cell])
    for name in arguments.rows:
        done[name] = run(name, cell, arguments)
        out.write_text(json.dumps(done, indent=1))
        row = done[name]
        ratios = "-" if row["r_factor"] is None else ", ".join(f"{v:.3f}" for v in row["r_factor"])
        print(
            f"{name:6} R {ratios:14} four-coordinated {row['four_coordinated']:5.1f} %  shortest {row['shortest']:.2f} A  {row['seconds']:4.0f} s   ",
            end="",
        )
        print("  ".join(f"{key} {value:.2f}" for key, value in row["errors"].items()), flush=True)


if __name__ == "__main__":
    main()
