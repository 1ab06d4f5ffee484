"""Two reverse Monte Carlo codes beside each other: fullrmc, which the paper used, and PyPI's reverse-monte-carlo, which the benchmark uses.

Amorphous silicon at 2.5 g/cm3, the target and the random starts of the row ``rmc-random`` of ``materials.py table``; both get the same bins of g(r),
minimum distance, number of moves, and take a move if it does not worsen chi^2 (fullrmc's way by default; the benchmark's anneals, a third row).
fullrmc 4.1 builds and runs only on Python 3.9 with old packages, so the file is run in two environments and passes one file in between::

    python benchmarks/fullrmc_check.py start --out /tmp/rmc                      # environment of glassjax with [bench]
    python3.9 -m venv v39
    v39/bin/pip install "setuptools<65" wheel "cython<3" "numpy<1.24"
    v39/bin/pip install --no-build-isolation fullrmc==4.1.0
    v39/bin/python benchmarks/fullrmc_check.py fullrmc --out /tmp/rmc             # five minutes a structure
    python benchmarks/fullrmc_check.py compare --out /tmp/rmc

fullrmc counts N (N - 1) ordered pairs where g(r) has N^2, so its target is N / (N - 1) times as high.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

MATERIAL, LABEL = "silicon", "2.5"
CHUNK = 10  # moves per atom between changes of the step, as in materials_rmc
STEP = 0.2  # A, the first
ACCEPTANCE, STEPS = (0.3, 0.5), (0.05, 1.0)  # as in materials_rmc


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", choices=("start", "fullrmc", "compare"))
    parser.add_argument("--out", type=Path, required=True, help="folder of what the parts pass on")
    parser.add_argument("--moves", type=int, default=1_000_000, help="tried in every run, by default a million")
    parser.add_argument("--replicas", type=int, default=2, help="structures, by default 2")
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results" / "fullrmc.json")
    return parser.parse_args()


def _other_step(step: float, share: float) -> float:
    """The largest step after a chunk of which ``share`` was accepted, A."""
    if ACCEPTANCE[0] <= share <= ACCEPTANCE[1]:
        return step
    return float(np.clip(step * (1.25 if share > ACCEPTANCE[1] else 0.8), *STEPS))


def start(out: Path, replicas: int) -> None:
    """Write what every run begins from: positions, cell, bins, target and minimum distance."""
    from materials_rmc import half_cell_bins, unbroadened
    from materials_starts import closest_distances, starting_cell
    from materials_table import conditions_of
    from materials_targets import structures_of, targets

    condition, frames = conditions_of(MATERIAL, [LABEL])[0]
    goal, limits = targets("g", condition, structures_of(frames))[0], closest_distances(frames)
    begins = [starting_cell(condition, "random", seed=seed, minimum_distances=limits) for seed in range(replicas)]
    length = float(begins[0].cell[0, 0])
    edges = half_cell_bins(length, goal.observable.x[-1])
    binned, _ = unbroadened(goal.observable.x, goal.data, len(begins[0].symbols) / length**3, edges, nearest=min(limits.values()))
    out.mkdir(parents=True, exist_ok=True)
    np.savez(
        out / "start.npz",
        positions=np.stack([np.asarray(b.positions, float) for b in begins]) % length,
        length=length,
        edges=edges,
        target=binned,
        nearest=min(limits.values()),
    )


def fullrmc(out: Path, moves: int) -> None:
    """Run fullrmc from every start; only numpy and fullrmc are imported."""
    from fullrmc.Constraints.DistanceConstraints import InterMolecularDistanceConstraint
    from fullrmc.Constraints.PairCorrelationConstraints import PairCorrelationConstraint
    from fullrmc.Engine import Engine
    from fullrmc.Generators.Translations import TranslationGenerator
    from fullrmc.Globals import LOGGER

    LOGGER.set_minimum_level(sys.maxsize, stdoutFlag=True, fileFlag=True)
    given = np.load(out / "start.npz")
    edges, length, nearest = given["edges"], float(given["length"]), float(given["nearest"])
    atoms = given["positions"].shape[1]
    for replica in range(len(given["positions"])):
        cell = out / f"start_{replica}.pdb"
        lines = [
            "ATOM  {:5d}  SI  SI  {:5d}    {:8.3f}{:8.3f}{:8.3f}  1.00  0.00          SI".format(i + 1, i + 1, *p)
            for i, p in enumerate(given["positions"][replica])
        ]
        cell.write_text("\n".join(lines) + "\nEND\n")
        engine = Engine(path=None)
        engine.set_pdb(
            str(cell),
            boundaryConditions=length,
            elements=["Si"] * atoms,
            moleculesIndex=list(range(atoms)),
            moleculesName=["Si"] * atoms,
        )
        data = np.column_stack([0.5 * (edges[1:] + edges[:-1]), given["target"] * atoms / (atoms - 1)]).astype(np.float32)  # centres of bins
        curve = PairCorrelationConstraint(experimentalData=data, weighting="atomicNumber")
        apart = InterMolecularDistanceConstraint(defaultDistance=nearest)
        engine.add_constraints([curve, apart])
        engine.set_groups_as_atoms()
        movers = [TranslationGenerator(group=group, amplitude=STEP) for group in engine.groups]
        for mover in movers:
            mover.group.set_move_generator(mover)
        engine.save(tempfile.mkdtemp() + "/engine.rmc")  # it does not run unsaved
        engine.initialize_used_constraints()
        first, step, done, begun = float(curve.standardError), STEP, 0, time.perf_counter()
        while done < moves:
            for mover in movers:
                mover.set_amplitude(step)
            ahead, before = min(CHUNK * atoms, moves - done), engine.accepted
            engine.run(numberOfSteps=ahead, saveFrequency=10**9, restartPdb=None)
            done += ahead
            step = _other_step(step, (engine.accepted - before) / ahead)
            if done % (50 * CHUNK * atoms) == 0:
                print(replica, done, round(time.perf_counter() - begun), float(curve.standardError), step, flush=True)
        seconds = time.perf_counter() - begun
        facts = dict(moves=done, accepted=int(engine.accepted), seconds=seconds, chi2_start=first, chi2=float(curve.standardError), step=step)
        np.savez(out / f"fullrmc_{replica}.npz", positions=np.asarray(engine.realCoordinates, float), facts=json.dumps(facts))
        print(replica, facts, flush=True)


def greedy(begin, edges, target, nearest: float, moves: int, seed: int):
    """Positions [n, 3], accepted moves and seconds of reverse-monte-carlo where a move is taken if it does not worsen chi^2."""
    import rmc
    from materials_rmc import rmc_engine

    atoms = len(begin.symbols)
    engine = rmc_engine(begin, edges, target, limits={("Si", "Si"): nearest}, seed=seed)
    step, draws, done, begun = STEP, np.random.default_rng(seed), 0, time.perf_counter()
    while done < moves:
        first, second = (int(n) for n in draws.integers(2**31, size=2))
        engine.set_sampler(rmc.GreedySampler(), seed=first)
        engine.build_atomic_groups(0.0, step, seed=second)
        ahead, before = min(CHUNK * atoms, moves - done), engine.steps_accepted
        engine.run(ahead)
        done += ahead
        step = _other_step(step, (engine.steps_accepted - before) / ahead)
    return np.array(engine.structure.coordinates), int(engine.steps_accepted), time.perf_counter() - begun


def compare(out: Path, moves: int, results: Path) -> None:
    """Run the other code from the same starts and write what all structures are like."""
    import ase
    from materials_rmc import _fit_of, histogram_of, reverse_monte_carlo
    from materials_table import conditions_of, local, metrics
    from materials_targets import structures_of, targets

    import glassjax

    condition, frames = conditions_of(MATERIAL, [LABEL])[0]
    goal = targets("g", condition, structures_of(frames))[0]
    x, g = np.asarray(goal.observable.x), np.asarray(goal.data)
    given = np.load(out / "start.npz")
    length, edges, target, nearest = float(given["length"]), given["edges"], given["target"], float(given["nearest"])

    def atoms_of(positions):
        return ase.Atoms(list(condition.symbols), positions, cell=[length] * 3, pbc=True)

    found = {"fullrmc 4.1, downhill": [], "reverse-monte-carlo, downhill": [], "reverse-monte-carlo, annealed (the benchmark's)": []}
    by_fullrmc, downhill, annealed = found.values()
    for replica, positions in enumerate(given["positions"]):
        begin = glassjax.from_atoms(atoms_of(positions))
        theirs = np.load(out / f"fullrmc_{replica}.npz")
        facts = json.loads(str(theirs["facts"]))
        if facts["moves"] != moves:
            raise ValueError(f"got {facts['moves']} moves of fullrmc; needs {moves}; run both with the same --moves")
        by_fullrmc.append((atoms_of(theirs["positions"]), facts["accepted"], facts["seconds"]))
        made, accepted, seconds = greedy(begin, edges, target, nearest, moves, replica)
        downhill.append((atoms_of(made), accepted, seconds))
        made, facts = reverse_monte_carlo(condition, x, g, start=begin, moves=moves, seed=replica, minimum_distances={("Si", "Si"): nearest})
        annealed.append((made, facts["accepted"], facts["seconds"]))
    rows = {}
    for name, runs in found.items():
        structures = [glassjax.from_atoms(atoms) for atoms, _, _ in runs]
        errors = metrics(condition, structures, structures_of(frames), ["PDF", "ADF", "EXAFS"])["modalities"]
        fits = [_fit_of(structure, x, g) for structure in structures]
        rows[name] = dict(
            moves_per_second=[moves / seconds for _, _, seconds in runs],
            accepted=[accepted / moves for _, accepted, _ in runs],
            chi2=[float(np.sum((histogram_of(s, edges) - target) ** 2)) for s in structures],
            **{key: [fit[key] for fit in fits] for key in ("r_factor", "mean_abs_dg", "shortest")},
            error={modality: one["error"] for modality, one in errors.items()},
            local=local(MATERIAL, [atoms for atoms, _, _ in runs]),
        )
        print(name, json.dumps(rows[name]))
    results.write_text(json.dumps(dict(moves=moves, nearest=nearest, reference=local(MATERIAL, frames), rows=rows), indent=1) + "\n")


if __name__ == "__main__":
    arguments = _arguments()
    if arguments.part == "start":
        start(arguments.out, arguments.replicas)
    elif arguments.part == "fullrmc":
        fullrmc(arguments.out, arguments.moves)
    else:
        compare(arguments.out, arguments.moves, arguments.results)
