"""From data to an ensemble in one call: `invert`, and `generate` without data. Everything is checked before any long work starts."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import sys
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import jax
import numpy as np

from glassjax import distributed, nuisance
from glassjax.checkpoint import Checkpoint
from glassjax.ensemble import sample
from glassjax.preparation import (
    PACKING_SEEDS,
    check_packing,
    check_target,
    choose_density,
    choose_symbols,
    prepare_folder,
    replica_numbers,
    starting_structures,
)
from glassjax.priors.prior import Prior, load_prior, require_elements, shipped_priors
from glassjax.protocols import Protocol, beyond_training, known_distances, minimum_distances, protocol, stages
from glassjax.replica import Ensemble
from glassjax.samplers import scaled
from glassjax.structure import Structure
from glassjax.targets import Target


@dataclasses.dataclass
class Inversion:
    """What `invert` returns.

    Attributes:
      ensemble: the structures and their status.
      targets: what they were fitted to (empty from `generate`).
      record: inputs, protocol, seeds and timings, as ``run.json`` holds them.
    """

    ensemble: Ensemble
    targets: tuple[Target, ...]
    record: dict

    @property
    def structures(self) -> list[Structure]:
        """Structures of the replicas that did not diverge."""
        return [self.ensemble.structures[i] for i in self.ensemble.good()]

    def to_atoms(self) -> list:
        """ASE atoms of the good replicas, info: seed, replica, number density, R-factor per target."""
        from glassjax import report

        return self.ensemble.to_atoms(report.frame_info(self.ensemble, self.targets, self.record))

    def save(self, folder) -> Path:
        """Write ensemble.extxyz, fit_<target>.csv, fit.png and run.json to ``folder``."""
        from glassjax import report

        return report.save(self.ensemble, folder, self.targets, record=self.record)

    def plot(self):
        """A matplotlib figure of data, model and residual per target."""
        from glassjax import plots, report

        return plots.plot_fit(self.targets, report.fit_curves(self.ensemble, self.targets))


def invert(
    targets: Target | Sequence[Target],
    *,
    composition: str | None = None,
    atoms: int | None = None,
    symbols: Sequence[str] | None = None,
    number_density: float | None = None,
    density: float | None = None,
    infer_density: bool | Mapping = False,
    restraints: Sequence[Callable] = (),
    prior: str | Path | Prior = "silicon",
    replicas: int | Sequence[int] = 8,
    seed: int = 0,
    plan: str | Protocol = "default",
    steps: int | None = None,
    method: str | None = None,
    strength: float | None = None,
    init=None,
    minimum_distance: float | Mapping[tuple[str, str], float] | None = None,
    chunk: int | None = None,
    out=None,
    resume: bool = False,
    throw: bool = False,
    report=None,
    inputs: dict | None = None,
) -> Inversion:
    """Sample structures that have the prior's short-range order and give the targets' data.

    Args:
      targets: one target or several, from `target` or `read_target`.
      composition: formula such as "Si" or "Cu50Zr50", with ``atoms``; or give ``symbols``, or ``init``.
      atoms: number of atoms.
      symbols: chemical symbol per atom.
      number_density: atoms per A^3; or
      density: g/cm3. Exactly one of the two (``init`` alone also has one).
      infer_density: False; True; or {deviation (of the logarithm), bounds (atoms per A^3)}: the density then is a start, and the cell of every
        replica is scaled to what the data say.
      restraints: functions (score, elements) -> score that wrap `coordination_restraint` or `distance_window`.
      prior: name of a shipped prior, a file, or a `Prior`.
      replicas: how many, or their numbers. Replica i depends on ``seed`` and i alone.
      seed: of starting structures and noise.
      plan: protocol, by name or from `protocol`.
      steps: changes the protocol's.
      method: changes the protocol's guidance.
      strength: changes the protocol's; 1 is as strong as the data say.
      init: structure file (one frame for all replicas, or one each), or structures; by default random packings.
      minimum_distance: A, one number or one per pair; by default 0.9 x the shortest distance of the prior's
        training cells, or 0.9 x the sum of covalent radii where its card does not say.
      chunk: replicas per device and checkpoint; see `sample`.
      out: folder for results and checkpoints; None to keep nothing.
      resume: continue the run in ``out``.
      throw: raise when a replica diverges, instead of marking it.
      report: callable, called with a dict of progress (see `sample`).
      inputs: facts about the inputs for the record.

    Warns:
      UserWarning: the protocol begins at more noise than the prior's card says it was trained on.

    Raises:
      ValueError: inputs that cannot work; the message says what was got, what is needed and what to do.
      FileNotFoundError: no such prior or file.
      PermissionError: ``out`` cannot be written.
    """
    targets = (targets,) if isinstance(targets, Target) else tuple(targets)
    changes = dict(steps=steps, method=method, strength=strength)
    plan = protocol(plan, **{k: v for k, v in changes.items() if v is not None})
    numbers = replica_numbers(replicas)
    symbols = choose_symbols(composition, atoms, symbols, init)
    rho = choose_density(symbols, number_density, density, init)
    prior, prior_record = _prior(prior)
    elements = tuple(dict.fromkeys(symbols))
    require_elements(prior, elements)
    concern = beyond_training(prior_record["card"], plan)
    if concern is not None:
        warnings.warn(concern, stacklevel=_callers_level())
    limits = minimum_distances(elements, minimum_distance, known=known_distances(prior_record["card"]))
    for restrain in restraints:
        restrain(prior, elements)  # refuses what makes no sense before anything is built
    check_packing(symbols, rho, limits)
    starts = starting_structures(symbols, rho, numbers, seed=seed, init=init, limits=limits, scale=plan.packing_scale)
    free = nuisance.density(rho, infer_density) if infer_density else None
    for one in targets:
        check_target(one, starts[0] if free is None else scaled(starts[0], rho, float(free.high)))
    place = distributed.place()
    folder = None if out is None else _shared_folder(out, resume, place)
    todo = stages(prior, targets, elements=elements, protocol=plan, minimum_distance=limits, density=free, restraints=restraints)
    record = dict(
        command="invert" if targets else "generate",
        inputs=dict(inputs) if inputs else {},
        composition={e: symbols.count(e) for e in elements},
        atoms=len(symbols),
        number_density=rho,
        infer_density=None if free is None else {k: float(getattr(free, k)) for k in ("start", "deviation", "low", "high")},
        prior=prior_record,
        warnings=[] if concern is None else [concern],
        protocol=dataclasses.asdict(plan),
        minimum_distance={f"{a}-{b}": v for (a, b), v in limits.items()},
        seed=seed,
        packing_seeds=[seed + PACKING_SEEDS * n for n in numbers] if init is None else None,
        init=None if init is None else str(init) if isinstance(init, str | Path) else "structures given in Python",
        chunk=chunk,
        processes=place[1],
        resumed=bool(resume),
    )
    ensemble = sample(
        jax.random.key(seed),
        todo,
        starts,
        replicas=numbers,
        chunk=chunk,
        segment=_segment(sum(len(s.ladder) for s in todo)),
        checkpoint=None if folder is None else folder / "checkpoint",
        resume=resume,
        throw=throw,
        report=report if place[0] == 0 else None,
        place=place,
    )
    result = Inversion(ensemble=ensemble, targets=targets, record=record)
    if folder is not None:
        distributed.first(lambda: _save(result, folder))
    return result


def _callers_level() -> int:
    """``stacklevel`` of a warning of `invert` that names who called it or `generate`, not this file."""
    frame, level = sys._getframe(1), 1
    while frame.f_back is not None and frame.f_code.co_filename == __file__:
        frame, level = frame.f_back, level + 1
    return level


def _save(result: Inversion, folder: Path) -> None:
    """Write the results, or where the folder's disk is full or gone, write them elsewhere and say so."""
    try:
        result.save(folder)
    except OSError as error:
        rescue = Path(tempfile.mkdtemp(prefix="glassjax-"))
        try:
            result.save(rescue)
        except OSError as again:
            raise OSError(
                f"cannot write the results to {folder} ({error}), nor to {rescue} ({again}); free space and repeat with --resume"
            ) from again
        raise OSError(f"cannot write the results to {folder} ({error}); they are in {rescue} instead; move them there") from error


def _shared_folder(out, resume: bool, place: tuple[int, int]) -> Path:
    """The folder, made by process 0 before the others come to it."""
    distributed.first(lambda: Checkpoint.forget_failures(prepare_folder(out, resume=resume) / "checkpoint"))
    return prepare_folder(out, resume=True) if place[0] else Path(out)


def generate(**options) -> Inversion:
    """Sample the prior without data; the options are those of `invert`, without targets."""
    return invert((), **options)


def _prior(prior):
    """The prior and its record: name, hash of its file (or parameters) and card."""
    if isinstance(prior, str | Path):
        loaded = load_prior(prior)
        path = shipped_priors().get(str(prior), Path(prior))
        return loaded, dict(name=str(prior), sha256=hashlib.sha256(Path(path).read_bytes()).hexdigest(), card=json.loads(loaded.card))
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(prior):
        digest.update(np.asarray(leaf).tobytes())
    return prior, dict(name="given in Python", sha256=digest.hexdigest(), card=json.loads(getattr(prior, "card", "{}")))


def _segment(steps: int) -> int:
    """Steps per compiled call: the largest divisor up to 30, so that no odd remainder is compiled, or 25."""
    divisors = [d for d in range(5, 31) if steps % d == 0]
    return max(divisors) if divisors else 25
