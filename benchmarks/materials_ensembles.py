"""Ensembles of the benchmark over five materials, by every method, kept as they are made.

Methods:

    prior                  the unguided prior
    joint, joint-g         the prior that is trained on all materials, alone and guided by g(r)
    g, XRD, ND, ADF, EXAFS the default protocol guided by that curve, the mean over the reference replicas
    XANES                  the same, of carbon: the C K edge by the shipped surrogate, for reference and generated structures alike
    rmc-random, rmc-liquid reverse Monte Carlo on g(r) (materials_rmc)
    gradient               descent on the misfit of g(r), no prior
    published              the paper's guidance on g(r): its normalised gradient, its two stages, with the network of a prior given

One rule for all materials: the default protocol of ``glassjax.invert``, and more strength where that is far from the data (`materials_sampling`);
priors are trained at one condition each. What led to it: ``benchmarks/materials_tried.md``. A guided replica follows the mean curve plus what the
curve of one structure of the prior alone (of another seed) departs from the mean of those: a cell of a few hundred atoms fluctuates about the curve
of a large sample, and replicas that all follow one curve are too much alike. The fluctuations sum to zero, and are made larger by what the prior's
own replicas vary less than the reference's at the condition of its training (`materials_targets.amplitude`), those of g(r) by
`materials_sampling.WIDER` too, because replicas follow part of them only; ``amplitude`` in the facts is the product. So the diversity of the curve
that guides, and of those that follow from it, is put in; whether an ensemble has collapsed is judged by angles, partials and absorption.
``--one-curve`` does without.

Seconds are per structure: of glassjax without compilation (``compilation``) and without the prior's own ensemble (``seconds_free``, made once per
condition); of "gradient" and "published" with compilation; of reverse Monte Carlo the moves of one on a core of its own, without the start.
"published" takes the weight that the paper has for silicon, 3000, for all.
"""

from __future__ import annotations

import json
import time
import zlib
from pathlib import Path

import materials_pack
import numpy as np
from materials_reference import Condition
from materials_sampling import WIDER, ruled, sampled, usual
from materials_targets import amplitude, structures_of, targets

import glassjax

MADE = 3  # version of what the rule does not say (3: noise of the corrections; cutoffs of bonds): ensembles of others are made again
OTHER_SEED = 700_000  # of guided replicas, so that their noise is not that of the prior's own
GUIDED = ("g", "XRD", "ND", "ADF", "EXAFS", "XANES")
RMC = ("rmc-random", "rmc-liquid")
JOINT = {"joint": "prior", "joint-g": "g"}  # by the joint prior
METHODS = ("prior", *GUIDED, *JOINT, *RMC, "gradient", "published")
RULED = ("prior", *GUIDED, *JOINT)  # made by the rule


def make(
    method: str,
    condition: Condition,
    frames,
    out: Path,
    *,
    prior,
    replicas: int,
    seed: int = 0,
    steps: int | None = None,
    fluctuate: bool = True,
    trained: tuple[Condition, list] | None = None,
    **limits,
) -> dict:
    """Make one ensemble unless ``out`` holds it, as `ensemble_file` and its facts beside it; the facts.

    One of fewer replicas, a shorter budget, another prior, another rule or, where it is guided, other reference cells than asked for now is made
    again.
    ``trained``: condition and reference cells of the prior's training, to which fluctuations are adjusted and by which a fit is judged.
    """
    from glassjax.archive import write_whole
    from glassjax.io.atoms import to_atoms

    cells, plain = ensemble_file(out, condition.material, method, condition.label), JOINT.get(method, method)
    record = cells.with_name(f"{condition.label}.json")
    asked = dict(made=MADE, density=condition.density, seed=seed, steps=steps, prior=mark(prior) if method not in (*RMC, "gradient") else None)
    asked |= dict(fluctuate=fluctuate, trained=marks_of(trained[1]) if trained else None) if plain in GUIDED else {}
    asked |= dict(plan=ruled(plain)) if method in RULED else {}
    asked |= (dict(reference=marks_of(frames)) if plain != "prior" else {}) | limits
    if record.exists() and cells.exists():
        known = json.loads(record.read_text())
        if _covers(known["asked"], asked | dict(replicas=replicas)):
            return known
    asked["replicas"] = replicas
    free, larger, near = None, 1.0, None

    def unguided(condition, frames):
        name = "joint" if method in JOINT else "prior"
        facts = make(name, condition, frames, out, prior=prior, replicas=replicas, seed=seed, steps=steps)
        return facts, structures_of(materials_pack.read(ensemble_file(out, condition.material, name, condition.label)))

    if plain in GUIDED and trained is not None:
        near = usual(plain, trained[0], structures_of(trained[1]))
    if plain in GUIDED and fluctuate:
        larger = WIDER.get(plain, 1.0)
        if trained is not None:
            larger *= amplitude(plain, trained[0], structures_of(trained[1]), unguided(*trained)[1])
        alone, free = unguided(condition, frames)
    begun = time.monotonic()
    if method in RULED:
        how = dict(prior=prior, replicas=replicas, seed=seed + (0 if free is None else OTHER_SEED), steps=steps)
        structures, facts = sampled(plain, condition, frames, **how, free=free, larger=larger, near=near)
        facts |= {} if free is None else dict(seconds_free=alone["seconds"], amplitude=round(larger, 3))
    else:
        structures, facts = _baseline(method, condition, frames, prior=prior, replicas=replicas, seed=seed, **limits)
    facts |= dict(asked=asked, wall=time.monotonic() - begun, material=condition.material, condition=condition.label, method=method)
    record.unlink(missing_ok=True)
    materials_pack.write([to_atoms(s) for s in structures], cells, facts=lambda frame: {})
    write_whole(record, json.dumps(facts, indent=1).encode())
    return facts


def _covers(known: dict, asked: dict) -> bool:
    """Whether an ensemble that was asked for by ``known`` serves for ``asked``: the same, with as many replicas and seconds of budget or more."""
    least = {name: asked[name] for name in ("replicas", "seconds") if asked.get(name)}
    return known | least == asked and all((known.get(name) or 0.0) >= value for name, value in least.items())


def marks_of(frames) -> list[str]:
    """What tells reference cells apart: the seed, and a checksum of elements, cell and positions."""

    def checksum(frame):
        parts = (frame.numbers.astype(np.int32), np.round(frame.cell.array, 5), np.round(frame.positions, 3))
        return zlib.crc32(b"".join(part.tobytes() for part in parts))

    return [f"{frame.info['seed']}:{checksum(frame):08x}" for frame in frames]


def ensemble_file(folder: Path, material: str, method: str, label: str) -> Path:
    """Where the structures of one ensemble are."""
    return folder / material / method / f"{label}.extxyz.gz"


def mark(prior) -> str:
    """What tells one prior from another: a hash of its parameters, whatever its card says, or its name."""
    import hashlib

    from glassjax.priors.prior import flatten

    if not Path(str(prior)).exists():
        return str(prior)
    digest = hashlib.sha256()
    for name, values in sorted(flatten(glassjax.load_prior(prior).params).items()):
        digest.update(name.encode() + values.tobytes())
    return digest.hexdigest()[:16]


def _baseline(method: str, condition: Condition, frames, *, prior, replicas: int, seed: int, seconds=None, moves=None, ensembles=None, steps=2000):
    """Ensembles without glassjax's prior and guidance (``ensembles``: what the budget is the time of, which is only recorded)."""
    import materials_baselines as baselines
    from materials_rmc import reverse_monte_carlo
    from materials_starts import closest_distances

    goal, closest = targets("g", condition, structures_of(frames))[0], closest_distances(frames)
    if method == "published":
        begun = time.monotonic()
        result = baselines.published_guidance(condition, goal, prior=prior, replicas=replicas, seed=seed, minimum_distances=closest)
        return result.structures, dict(seconds=(time.monotonic() - begun) / replicas, r_factor=result.ensemble.last("r_factor").mean(axis=0).tolist())
    jobs = [dict(seed=seed + replica, minimum_distances=closest) for replica in range(replicas)]
    if method == "gradient":
        found = [baselines.gradient_only(condition, goal, steps=steps, **options) for options in jobs]
    else:
        limits = dict(start=method.removeprefix("rmc-"), seconds=seconds, moves=moves)
        found = _side_by_side(reverse_monte_carlo, (condition, goal.observable.x, np.asarray(goal.data)), [options | limits for options in jobs])
    made, records = [glassjax.from_atoms(atoms) for atoms, _ in found], [record for _, record in found]
    facts = dict(seconds=float(np.mean([r["seconds"] for r in records])), r_factor=[float(np.mean([np.mean(r["r_factor"]) for r in records]))])
    return made, facts | {key: float(np.mean([r[key] for r in records])) for key in ("moves", "accepted") if key in records[0]}


def _side_by_side(function, arguments: tuple, jobs: list[dict]) -> list:
    """function(*arguments, **job) of every job, each on a core of its own, as the replicas of glassjax have one."""
    import concurrent.futures
    import multiprocessing

    from glassjax.segments import cores

    with concurrent.futures.ProcessPoolExecutor(min(cores(), len(jobs)), multiprocessing.get_context("spawn")) as pool:
        return [future.result() for future in [pool.submit(function, *arguments, **job) for job in jobs]]
