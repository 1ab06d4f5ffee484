"""Two reverse Monte Carlo codes beside each other: fullrmc, which the paper used, and PyPI's reverse-monte-carlo, which the benchmark uses.

Amorphous silicon at 2.5 g/cm3 with the target, minimum distance and random starts of the row ``rmc-random`` of ``materials.py table``. Both get the
same bins of g(r) out to half the cell and the same number of moves of one atom by up to 0.2 A, and take a move if chi^2 does not grow: what fullrmc
does by default. A third row anneals as the benchmark does, with as many moves. fullrmc 4.1 builds and runs only on Python 3.9 with old packages, so
this file is run in two environments::

    python benchmarks/fullrmc_check.py start --out /tmp/rmc                      # environment of glassjax with [bench]
    python3.9 -m venv v39
    v39/bin/pip install "setuptools<65" wheel "cython<3" "numpy<1.24"
    v39/bin/pip install --no-build-isolation fullrmc==4.1.0
    v39/bin/python benchmarks/fullrmc_check.py fullrmc --out /tmp/rmc             # eleven minutes a structure; has no seed
    python benchmarks/fullrmc_check.py compare --out /tmp/rmc

fullrmc counts N (N - 1) ordered pairs where g(r) has N^2, so its target is N / (N - 1) times as high, and its own chi^2 (N / (N - 1))^2 times.
reverse-monte-carlo scales its curve to the target before chi^2 is taken (see ``materials_rmc``); all chi^2 that are shown are without a scale.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np

MATERIAL, LABEL = "silicon", "2.5"
STEP = 0.2  # A, the largest; fullrmc's default
SHOWN = 10  # values of chi^2 along a run


def _arguments(arguments=None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", choices=("start", "fullrmc", "compare"))
    parser.add_argument("--out", type=Path, required=True, help="folder of what the parts pass on")
    parser.add_argument("--moves", type=int, default=1_000_000, help="tried in every run, by default a million")
    parser.add_argument("--replicas", type=int, default=2, help="of the part start: structures, by default 2")
    parser.add_argument("--results", type=Path, help="of the part compare", default=Path(__file__).parent / "results" / "fullrmc.json")
    options = parser.parse_args(arguments)
    if options.moves < SHOWN or options.replicas < 1:
        parser.error(f"got {options.moves} moves and {options.replicas} replicas; needs at least {SHOWN} moves and one replica")
    return options


def _given(path: Path, part: str):
    if not path.exists():
        raise FileNotFoundError(f"got no {path}; needs what the part '{part}' writes; run that first, with the same --out")
    return np.load(path)


def _parts(moves: int) -> list[int]:
    """The moves in `SHOWN` parts of about equal length, after each of which chi^2 is taken."""
    return np.diff(np.linspace(0, moves, SHOWN + 1).astype(int)).tolist()


def start(out: Path, replicas: int) -> None:
    """Write what every run begins from, ``start.npz``: positions [replicas, n, 3], length, edges [m + 1], nearest (A) and target [m] (g in bins)."""
    from materials_rmc import half_cell_bins, unbroadened
    from materials_starts import closest_distances, starting_cell
    from materials_table import conditions_of
    from materials_targets import structures_of, targets

    condition, frames = conditions_of(MATERIAL, [LABEL])[0]
    goal, limits = targets("g", condition, structures_of(frames))[0], closest_distances(frames)
    begins = [starting_cell(condition, "random", seed=seed, minimum_distances=limits) for seed in range(replicas)]
    length = float(begins[0].cell[0, 0])
    edges = half_cell_bins(length, goal.observable.x[-1])
    nearest = min(limits.values())
    target, _ = unbroadened(goal.observable.x, goal.data, len(begins[0].symbols) / length**3, edges, nearest=nearest)
    out.mkdir(parents=True, exist_ok=True)
    positions = np.round(np.stack([np.asarray(b.positions, float) for b in begins]) % length, 3)  # as many digits as fullrmc's files have
    np.savez(out / "start.npz", positions=positions, length=length, edges=edges, target=target, nearest=nearest)


def fullrmc(out: Path, moves: int) -> None:
    """Run fullrmc from every start and write ``fullrmc_REPLICA.npz``: start and positions [n, 3] (A), target [m] and facts (JSON).

    Needs numpy and fullrmc only.

    Raises:
      FileNotFoundError: no ``start.npz``.
    """
    given = _given(out / "start.npz", "start")
    from fullrmc.Constraints.DistanceConstraints import InterMolecularDistanceConstraint
    from fullrmc.Constraints.PairCorrelationConstraints import PairCorrelationConstraint
    from fullrmc.Engine import Engine
    from fullrmc.Generators.Translations import TranslationGenerator
    from fullrmc.Globals import LOGGER

    LOGGER.set_minimum_level(sys.maxsize, stdoutFlag=True, fileFlag=True)
    edges, length, atoms = given["edges"], float(given["length"]), given["positions"].shape[1]
    data = np.column_stack([0.5 * (edges[1:] + edges[:-1]), given["target"] * atoms / (atoms - 1)]).astype(np.float32)  # centres of bins
    for replica, begin in enumerate(given["positions"]):
        cell = out / f"start_{replica}.pdb"
        lines = [
            f"ATOM  {i:5d}  SI  SI  {i:5d}    {x:8.3f}{y:8.3f}{z:8.3f}  1.00  0.00          SI" for i, (x, y, z) in enumerate(begin.tolist(), start=1)
        ]
        cell.write_text("\n".join(lines) + "\nEND\n")
        engine = Engine(path=None)
        engine.set_pdb(str(cell), boundaryConditions=length, elements=["Si"] * atoms, moleculesIndex=list(range(atoms)), moleculesName=["Si"] * atoms)
        curve = PairCorrelationConstraint(experimentalData=data, weighting="atomicNumber")
        engine.add_constraints([curve, InterMolecularDistanceConstraint(defaultDistance=float(given["nearest"]))])
        engine.set_groups_as_atoms()
        for group in engine.groups:
            group.set_move_generator(TranslationGenerator(group=group, amplitude=STEP))
        engine.save(str(out / f"engine_{replica}.rmc"))  # it does not run unsaved
        engine.initialize_used_constraints()
        own, begun = [float(curve.standardError)], time.perf_counter()
        for ahead in _parts(moves):
            engine.run(numberOfSteps=ahead, saveFrequency=10**9, restartPdb=None)
            own.append(float(curve.standardError))
            print(replica, own[-1], flush=True)
        facts = dict(
            moves=moves, accepted=int(engine.accepted), seconds=time.perf_counter() - begun, chi2=[c * ((atoms - 1) / atoms) ** 2 for c in own]
        )
        made = np.asarray(engine.realCoordinates, float)
        np.savez(out / f"fullrmc_{replica}.npz", start=begin, target=given["target"], positions=made, facts=json.dumps(facts))


def downhill(begin, edges, target, nearest: float, moves: int, seed: int):
    """reverse-monte-carlo where a move of up to `STEP` is taken if chi^2 does not grow.

    Args:
      begin: structure of silicon.
      edges, target: [m + 1] A, and g [m] in these bins.
      nearest: minimum distance, A.
      moves: tried.
      seed: of the moves.

    Returns:
      positions [n, 3], A; facts: accepted moves, seconds, chi^2 at the start and after every tenth of the moves.

    Raises:
      ImportError: without reverse-monte-carlo.
    """
    from materials_rmc import import_rmc, rmc_engine

    rmc, draws = import_rmc(), np.random.default_rng(seed)
    engine = rmc_engine(begin, edges, target, limits={("Si", "Si"): nearest}, seed=seed)
    chi2, begun = [_chi2(begin, edges, target)], time.perf_counter()
    for ahead in _parts(moves):
        first, second = (int(n) for n in draws.integers(2**31, size=2))
        engine.set_sampler(rmc.GreedySampler(), seed=first)
        engine.build_atomic_groups(0.0, STEP, seed=second)
        engine.run(ahead)
        chi2.append(_chi2(_structure(np.array(engine.structure.coordinates), begin), edges, target))
    facts = dict(accepted=int(engine.steps_accepted), seconds=time.perf_counter() - begun, chi2=chi2)
    return np.array(engine.structure.coordinates), facts


def _structure(positions, begin):
    import jax.numpy as jnp

    from glassjax._pytree import replace

    return replace(begin, positions=jnp.asarray(positions, begin.positions.dtype))


def _chi2(structure, edges, target) -> float:
    from materials_rmc import histogram_of

    return float(np.sum((histogram_of(structure, edges) - target) ** 2))


def compare(out: Path, moves: int, results: Path) -> dict:
    """Run the other code from the same starts, and write what all structures are like to ``results``; what it wrote.

    Raises:
      FileNotFoundError: a part has not been run.
      ValueError: fullrmc was run with other moves, from other starts or on another target.
    """
    import ase
    from materials_rmc import fit_of, reverse_monte_carlo
    from materials_table import conditions_of, local, metrics
    from materials_targets import structures_of, targets

    import glassjax

    given = _given(out / "start.npz", "start")
    theirs = [_given(out / f"fullrmc_{replica}.npz", "fullrmc") for replica in range(len(given["positions"]))]
    for one, begin in zip(theirs, given["positions"], strict=True):
        same = np.array_equal(one["start"], begin) and np.array_equal(one["target"], given["target"])
        if not same or json.loads(str(one["facts"]))["moves"] != moves:
            raise ValueError(
                f"got fullrmc's structures of other moves, starts or target; needs {moves} moves from {out / 'start.npz'}; run that part again"
            )
    condition, frames = conditions_of(MATERIAL, [LABEL])[0]
    goal = targets("g", condition, structures_of(frames))[0]
    x, g = np.asarray(goal.observable.x), np.asarray(goal.data)
    length, edges, target, nearest = float(given["length"]), given["edges"], given["target"], float(given["nearest"])

    def atoms_of(positions):
        return ase.Atoms(list(condition.symbols), positions, cell=[length] * 3, pbc=True)

    found = {"fullrmc, downhill": [], "reverse-monte-carlo, downhill": [], "reverse-monte-carlo, annealed": []}
    for replica, (positions, other) in enumerate(zip(given["positions"], theirs, strict=True)):
        begin = glassjax.from_atoms(atoms_of(positions))
        found["fullrmc, downhill"].append((atoms_of(other["positions"]), json.loads(str(other["facts"]))))
        made, facts = downhill(begin, edges, target, nearest, moves, replica)
        found["reverse-monte-carlo, downhill"].append((atoms_of(made), facts))
        made, facts = reverse_monte_carlo(condition, x, g, start=begin, moves=moves, seed=replica, minimum_distances={("Si", "Si"): nearest})
        found["reverse-monte-carlo, annealed"].append((made, facts | dict(chi2=[facts["chi2_start"], facts["chi2"]])))
    rows = {}
    for name, runs in found.items():
        structures, facts = [glassjax.from_atoms(atoms) for atoms, _ in runs], [about for _, about in runs]
        fits = [fit_of(structure, x, g) for structure in structures]
        compared = metrics(condition, structures, structures_of(frames), ["PDF", "ADF", "EXAFS"])["modalities"]
        rows[name] = dict(
            chi2=[about["chi2"] for about in facts],
            chi2_at_the_end=[_chi2(structure, edges, target) for structure in structures],
            accepted=[about["accepted"] / moves for about in facts],
            moves_per_second=[moves / about["seconds"] for about in facts],
            **{key: [fit[key] for fit in fits] for key in ("r_factor", "mean_abs_dg", "shortest")},
            error={modality: one["error"] for modality, one in compared.items()},
            local=local(MATERIAL, [atoms for atoms, _ in runs]),
        )
        print(name, json.dumps(rows[name]), flush=True)
    made = dict(moves=moves, step=STEP, nearest=nearest, reference=local(MATERIAL, frames), rows=rows)
    results.write_text(json.dumps(made, indent=1) + "\n")
    return made


def main(arguments=None) -> None:
    """Run one part."""
    options = _arguments(arguments)
    if options.part == "start":
        start(options.out, options.replicas)
    elif options.part == "fullrmc":
        fullrmc(options.out, options.moves)
    else:
        compare(options.out, options.moves, options.results)


if __name__ == "__main__":
    main()
