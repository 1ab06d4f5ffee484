"""Silica glass from a measured neutron F(Q), read as the diffractometer wrote it, with scale and number density inferred.

    python benchmarks/silica.py [--prior silica] [--atoms 648] [--replicas 4] [--density 2.05] [--data ../shared/data] [--out DIR]

The data (NIMROD, F_keen to 50 1/A, distributed with Dissolve, GPL-3) are not shipped; see ../shared/data/README.md. The density given is the start,
7 % below the measured 2.20 g/cm3. What comes out is compared with what is known of silica glass, none of which the run is told.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np

import glassjax
from glassjax.elements import mass_density
from glassjax.measurements import read_target
from glassjax.report import curve, fit_curves
from glassjax.targets import chi_squared, r_factor

HERE = Path(__file__).parent
REACH = 1.95  # A, of a bond: where the counts of the measured g(r) end too
CUTOFF = {("Si", "O"): REACH}


def peak(structure) -> float:
    """Where g_SiO(r), with a width of 0.05 A, is largest, A."""
    r = np.arange(1.3, 2.0, 0.002)
    return float(r[curve(glassjax.pair_distribution(r, structure.symbols, partial=("Si", "O"), width=0.05), structure).argmax()])


def describe(structure) -> dict:
    """Density, bond length, coordination and angles of one structure."""
    from ase.neighborlist import neighbor_list

    atoms = glassjax.to_atoms(structure)
    symbols = np.array(atoms.get_chemical_symbols())
    i, j, d, vectors = neighbor_list("ijdD", atoms, CUTOFF)
    silicon = symbols[i] == "Si"
    found = dict(
        density=mass_density(structure.symbols, float(glassjax.number_density(structure))),
        bond_peak=peak(structure),
        bond_median=float(np.median(d[silicon])),
        bond_deviation=float(d[silicon].std()),
        silicon_coordination=float(silicon.sum() / (symbols == "Si").sum()),
        oxygen_coordination=float((~silicon).sum() / (symbols == "O").sum()),
        four_coordinated=100 * float(np.mean(np.bincount(i[silicon], minlength=len(symbols))[symbols == "Si"] == 4)),
        shortest=glassjax.shortest_distance(structure),
    )
    for centre, name in (("Si", "O-Si-O"), ("O", "Si-O-Si")):
        angles = []
        for atom in np.flatnonzero(symbols == centre):
            legs = vectors[i == atom] / d[i == atom][:, None]
            angles += list(np.degrees(np.arccos(np.clip((legs @ legs.T)[np.triu_indices(len(legs), 1)], -1, 1))))
        found[name], found[f"{name} deviation"] = float(np.mean(angles)), float(np.std(angles))
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--prior", default="silica")
    parser.add_argument("--atoms", type=int, default=648)
    parser.add_argument("--replicas", type=int, default=4)
    parser.add_argument("--chunk", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--density", type=float, default=2.05, help="start, g/cm3")
    parser.add_argument("--qmax", type=float, default=30.0)
    parser.add_argument(
        "--uncertainty", type=float, default=0.001, help="barn/sr/atom, 0.4 %% of <b>^2; the file's own is the counting error, several times smaller"
    )
    parser.add_argument("--steps", type=int, default=None)
    parser.add_argument("--data", default=HERE.parents[1] / "shared" / "data")
    parser.add_argument("--out", default=None)
    parser.add_argument("--results", default=HERE / "results" / "silica.json")
    arguments = parser.parse_args()
    file = Path(arguments.data) / "silica" / "sio2_nimrod_fq.mint01"
    symbols = glassjax.parse_composition("SiO2", arguments.atoms)
    density = glassjax.check_density(symbols, mass_density=arguments.density)
    options = dict(weights="neutron", scale="infer", displacement="infer", qmin=0.4, qmax=arguments.qmax, uncertainty=arguments.uncertainty)
    target, facts = read_target(file, symbols=symbols, number_density=density, **options)
    print(
        f"{file.name}: {facts['function']}; {'; '.join(facts['notes'])}; {facts['points_used']} points, {facts['independent_points']:.0f} independent"
    )
    started = time.monotonic()
    result = glassjax.invert(
        target,
        composition="SiO2",
        atoms=arguments.atoms,
        number_density=density,
        infer_density=True,
        prior=arguments.prior,
        replicas=arguments.replicas,
        chunk=arguments.chunk,
        seed=arguments.seed,
        steps=arguments.steps,
        out=arguments.out,
        inputs=dict(targets=[facts]),
    )
    rows = [describe(s) for s in result.structures]
    models = fit_curves(result.ensemble, result.targets)[0]
    for row, model, values in zip(rows, models, result.ensemble.last("nuisance"), strict=True):
        row |= dict(r_factor=float(r_factor(target, model)), chi_squared=float(chi_squared(target, model)))
        row |= dict(zip(target.nuisance.names, map(float, values), strict=True))
    seconds = time.monotonic() - started
    summary = {key: dict(mean=float(np.mean([r[key] for r in rows])), spread=float(np.std([r[key] for r in rows], ddof=1))) for key in rows[0]}
    for key, value in summary.items():
        print(f"{key:22} {value['mean']:9.4f} +- {value['spread']:.4f}")
    print(f"{seconds:.0f} s")
    settings = {key: str(value) if isinstance(value, Path) else value for key, value in vars(arguments).items()}
    Path(arguments.results).write_text(
        json.dumps(dict(settings=settings, facts=facts, summary=summary, rows=rows, seconds=seconds), indent=1, default=str)
    )


if __name__ == "__main__":
    main()
