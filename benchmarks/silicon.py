"""The acceptance table of amorphous silicon: the shipped protocol (`glassjax.invert` with its defaults) against cells it has not seen.

python benchmarks/silicon.py --targets CELL.extxyz [CELL.extxyz@3 ...] [--prior NAME|FILE] [--replicas 8] [--out silicon.json]
    inverts the g(r) of each cell (0.08 to 8 A, 100 points, width 0.15 A) and compares every replica with the cell;
python benchmarks/silicon.py --experiment [FILE] [--atoms 216|1000]
    inverts the measured S(Q) of Laaziri et al., PRL 82, 3460 (1999), at 0.0489 atoms per A^3;
--smoke runs either with 2 replicas of a few steps, to see that it works.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from pathlib import Path

import numpy as np

CUTOFF = 2.85  # A, first coordination shell
EXPERIMENT = Path(__file__).parents[2] / "shared" / "data" / "silicon" / "laaziri1999_sq.dat"
EXPERIMENT_DENSITY = 0.0489  # atoms per A^3, Laaziri et al.
LIMITS = dict(mean_abs_dg=0.015, four_coordinated=0.05, shortest_distance=2.0)


def radii() -> np.ndarray:
    """100 points up to 8 A."""
    return np.linspace(0.08, 8.0, 100)


def read_cell(name: str):
    """Frame 0 of a file, or frame k of FILE@k; in smoke mode without a file, a shaken diamond cell of 64 atoms."""
    if name == "diamond":
        import run

        return run.silicon(64)[1]
    from ase.io import read

    from glassjax.io import from_atoms

    return from_atoms(read(name) if "@" in name else read(name, index=0))


def ticker(label: str):
    """A progress callable that prints a line every 30 s."""
    last = [time.monotonic()]

    def report(progress: dict) -> None:
        if time.monotonic() - last[0] > 30:
            last[0] = time.monotonic()
            print(f"  {label}: step {progress['done']} of {progress['total']}, {progress['left']:.0f} s left", file=sys.stderr, flush=True)

    return report


def run_inversion(goal, arguments, *, atoms: int, number_density: float, label: str):
    """`invert` with the shipped defaults, except what the command line asks for."""
    from glassjax.inversion import invert

    steps = 8 if arguments.smoke else arguments.steps
    replicas, chunk = (2, 1) if arguments.smoke else (arguments.replicas, arguments.chunk)
    options = dict(prior=arguments.prior, replicas=replicas, seed=arguments.seed, chunk=chunk)
    place = dict(composition="Si", atoms=atoms, number_density=number_density)
    return invert(goal, **place, **options, steps=steps, report=ticker(label))


def timing(result) -> dict:
    """Seconds per replica and per step of one replica, and the peak memory of this process so far."""
    seconds, count = result.ensemble.seconds, len(result.ensemble.replicas)
    return dict(
        seconds=seconds["total"],
        seconds_per_replica=seconds["total"] / count,
        seconds_per_step_per_replica=seconds["per_step_per_replica"],
        steps=int(seconds["steps"]),
        peak_memory_mib=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        status=result.ensemble.status,
    )


def describe(structure) -> dict:
    """Local order inside 2.85 A."""
    from glassjax.analysis import local_order

    order = local_order(structure, CUTOFF)
    return dict(
        four_coordinated=order["coordination"].get("4", 0.0),
        mean_coordination=order["mean_coordination"],
        shortest_distance=order["shortest_distance"],
        angle_mean=order["angle_mean"],
        angle_deviation=order["angle_deviation"],
    )


def cell_row(name: str, arguments) -> dict:
    """Invert the g(r) of one cell and compare."""
    from glassjax.elements import mass_density
    from glassjax.observables import pair_distribution
    from glassjax.report import curve
    from glassjax.structure import number_density
    from glassjax.targets import target

    cell = read_cell(name)
    rho = float(number_density(cell))
    observable = pair_distribution(radii(), ["Si"])
    data = curve(observable, cell)
    goal = target(radii(), data, ["Si"], function="g", number_density=rho)
    atoms = arguments.atoms or len(cell.species)
    result = run_inversion(goal, arguments, atoms=atoms, number_density=rho, label=name)
    rows = []
    for structure in result.structures:
        difference = np.abs(curve(observable, structure) - data).mean()
        rows.append(describe(structure) | dict(mean_abs_dg=float(difference)))
    reference = describe(cell)
    row = dict(kind="cell", target=name, atoms=atoms, density=mass_density(["Si"], rho), reference=reference, replicas=rows) | timing(result)
    return row | dict(verdict=verdict(rows, reference, row["status"]))


def verdict(rows: list[dict], reference: dict, status: list[str]) -> dict:
    """What issue 2 asks of every replica (|dg|, shortest distance) and of their mean (four-coordinated fraction)."""
    if not rows:
        return dict(mean_abs_dg=False, four_coordinated=False, shortest_distance=False, all_finished=False)
    fraction = np.mean([r["four_coordinated"] for r in rows])
    return dict(
        mean_abs_dg=max(r["mean_abs_dg"] for r in rows) <= LIMITS["mean_abs_dg"],
        four_coordinated=bool(abs(fraction - reference["four_coordinated"]) <= LIMITS["four_coordinated"]),
        shortest_distance=min(r["shortest_distance"] for r in rows) >= LIMITS["shortest_distance"],
        all_finished=all(s == "ok" for s in status),
    )


def first_minimum(structures) -> float:
    """Position of the minimum of the ensemble's g(r) between the first two shells of silicon (2.5 to 3.4 A), width 0.05 A."""
    from glassjax.observables import pair_distribution
    from glassjax.report import curve

    r = np.linspace(2.0, 4.0, 201)
    observable = pair_distribution(r, ["Si"], width=0.05)
    mean = np.mean([curve(observable, s) for s in structures], axis=0)
    inside = (r >= 2.5) & (r <= 3.4)
    lowest = mean[inside].min()
    return float(r[inside][mean[inside] <= lowest + 0.01].mean())


def experiment_row(arguments) -> dict:
    """Invert the measured S(Q), guided on S(Q) directly."""
    from glassjax.analysis import coordination_numbers
    from glassjax.measurements import read_target
    from glassjax.report import curve
    from glassjax.targets import r_factor

    atoms = arguments.atoms or (64 if arguments.smoke else 216)
    goal, record = read_target(
        arguments.experiment, function="S", symbols=["Si"] * atoms, number_density=EXPERIMENT_DENSITY, repeated="mean", qmin=arguments.qmin
    )
    result = run_inversion(goal, arguments, atoms=atoms, number_density=EXPERIMENT_DENSITY, label="experiment")
    edge = first_minimum(result.structures) if result.structures else None
    rows = []
    for structure in result.structures:
        model = curve(goal.observable, structure)
        within = float(coordination_numbers(structure, edge).mean())
        rows.append(describe(structure) | dict(r_factor=float(r_factor(goal, model)), mean_coordination_first_minimum=within))
    source = dict(target=str(arguments.experiment), record=record, convention=goal.observable.convention)
    return dict(kind="experiment", atoms=atoms, first_minimum=edge, replicas=rows) | source | timing(result)


def show(row: dict) -> None:
    """Print one row of the table, a line per replica."""
    experiment = row["kind"] == "experiment"
    print(f"\n{row['target']}: {row['atoms']} atoms" + ("" if experiment else f", {row['density']:.2f} g/cm3"))
    head = ["R-factor", f"count<{row['first_minimum']:.2f}"] if experiment and row["replicas"] else ["mean|dg|", "4-coord"]
    keys = ["r_factor", "mean_coordination_first_minimum"] if experiment else ["mean_abs_dg", "four_coordinated"]
    keys += ["mean_coordination", "shortest_distance", "angle_mean", "angle_deviation"]
    print(f"{'replica':>9s} " + " ".join(f"{h:>11s}" for h in (*head, "count<2.85", "shortest A", "angle", "deviation")))
    lines = list(enumerate(row["replicas"]))
    if row["replicas"]:
        lines.append(("mean", {k: np.mean([r[k] for r in row["replicas"] if r[k] is not None]) for k in keys}))
    if not experiment:
        lines.append(("target", row["reference"]))
    for name, values in lines:
        print(f"{name!s:>9s} " + " ".join(f"{values[k]:11.4f}" if values.get(k) is not None else f"{'':11s}" for k in keys))
    print(
        f"  {row['seconds']:.1f} s in all (compilation included), {row['seconds_per_replica']:.1f} s per replica, "
        f"{row['seconds_per_step_per_replica']:.4f} s per step per replica ({row['steps']} steps), peak memory {row['peak_memory_mib']:.0f} MiB"
    )
    bad = [s for s in row["status"] if s != "ok"]
    if bad:
        print(f"  {len(bad)} replicas diverged")
    if not experiment:
        print("  " + ", ".join(f"{name} {'reached' if ok else 'MISSED'}" for name, ok in row["verdict"].items()))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prior", default="silicon", help="shipped name or file")
    parser.add_argument("--targets", nargs="+", default=[], metavar="FILE", help="structure files, frame 0, or FILE@k")
    parser.add_argument("--experiment", nargs="?", const=EXPERIMENT, type=Path, metavar="FILE", help="S(Q) file (default %(const)s)")
    parser.add_argument("--qmin", type=float, help="lower end of the fitted range of S(Q), 1/A")
    parser.add_argument("--replicas", type=int, default=8)
    parser.add_argument("--atoms", type=int, help="of the replicas (default: as the target cell; 216 for the experiment)")
    parser.add_argument("--steps", type=int, help="default: the protocol's")
    parser.add_argument("--chunk", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, metavar="JSON")
    parser.add_argument("--smoke", action="store_true")
    arguments = parser.parse_args()
    if not arguments.targets and not arguments.experiment:
        if not arguments.smoke:
            parser.error("needs --targets or --experiment")
        arguments.targets = ["diamond"]
    import jax

    record = dict(prior=str(arguments.prior), device=jax.devices()[0].device_kind, jax=jax.__version__, smoke=arguments.smoke, rows=[])
    jobs = [lambda name=name: cell_row(name, arguments) for name in arguments.targets]
    if arguments.experiment:
        jobs.append(lambda: experiment_row(arguments))
    for job in jobs:
        record["rows"].append(job())
        show(record["rows"][-1])
        if arguments.out:  # after every row, so that an interrupted run keeps what it has
            arguments.out.parent.mkdir(parents=True, exist_ok=True)
            arguments.out.write_text(json.dumps(record, indent=1, default=str) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
