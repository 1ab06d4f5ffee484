"""How glassjax makes an ensemble of the benchmark over five materials: one rule for all of them.

``RULE``, the default protocol of ``glassjax.invert``. Where that stays far from the data, the ensemble is made again with more strength: where the
R-factor of what guides is more than ``FAR`` times what reference cells depart from their own mean at the condition of the prior's training. That
is no larger than cells of this size fluctuate, so nobody would be content with twice as much. Then the strength is four times as large, at most
sixteen times, and atoms come no nearer than g(r) says where it guides (`glassjax.closest_approach`), because the prior's own distances need not
hold where the prior does not. The ensemble that fits best counts, with the time of all. Nothing of this looks at what an ensemble is judged by.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import json
import time

import numpy as np
from materials_reference import Condition
from materials_targets import fluctuating, r_factors, structures_of, targets

import glassjax
from glassjax.segments import cores

RULE = glassjax.protocol("default")
FAR = 2.0
STRENGTHS = (1.0, 4.0, 16.0)


def ruled(plain: str) -> dict:
    """What of the rule bears on a method: of the unguided prior nothing that only guides."""
    skip = ("strength", "method", "prior_width", "density_gain", "density_window") if plain == "prior" else ()
    found = {key: list(value) if isinstance(value, tuple) else value for key, value in dataclasses.asdict(RULE).items() if key not in skip}
    return found if plain == "prior" else found | dict(strengths=list(STRENGTHS), far=FAR)


def usual(method: str, condition: Condition, references) -> list[float]:
    """What cells of this size depart from their own mean: the R-factor of each target, the mean over reference cells of the training condition."""
    return r_factors(targets(method, condition, references), references)


def sampled(
    method: str,
    condition: Condition,
    frames,
    *,
    prior,
    replicas: int,
    seed: int,
    steps: int | None = None,
    free=None,
    larger: float = 1.0,
    near: list[float] | None = None,
):
    """(structures, facts) of one ensemble by glassjax.

    Args:
      method: "prior" (alone) or what guides.
      condition: what is made.
      frames: its reference cells.
      prior: of `glassjax.invert`.
      replicas, seed, steps: of the ensemble; ``steps`` of the ladder, by default the rule's.
      free: an ensemble of the prior alone: each replica is guided by targets that fluctuate as those do; None to guide all by the same.
      larger: times so much.
      near: R-factor of each target that is `usual`; None to be content with any.

    Raises:
      RuntimeError: no replica came to the end.
    """
    structures = structures_of(frames)
    plan = glassjax.protocol(RULE, **{} if steps is None else dict(steps=steps))
    common = dict(symbols=list(condition.symbols), number_density=float(glassjax.number_density(structures[0])), prior=prior, seed=seed)
    if method == "prior":
        return _timed(condition, method, replicas, lambda: [glassjax.generate(**common, replicas=replicas, plan=plan)])
    goals = targets(method, condition, structures)
    own = [goals] * replicas if free is None else fluctuating(method, condition, goals, free, replicas, larger)
    tries = []
    for strength in STRENGTHS:
        how = common | dict(plan=glassjax.protocol(plan, strength=strength))
        if tries and method == "g":
            how["minimum_distance"] = nearest(goals[0], prior)
        made, facts = _timed(condition, method, replicas, lambda how=how: _each(own, how))
        tries.append((made, facts | dict(r_factor=r_factors(goals, made), strength=strength)))
        if near is None or far(tries[-1][1]["r_factor"], near) <= FAR:
            break
    made, facts = min(tries, key=lambda one: np.mean(one[1]["r_factor"]))
    return made, facts | {key: sum(one[key] for _, one in tries) for key in ("seconds", "compilation")}


def far(found: list[float], near: list[float]) -> float:
    """How many times what is usual R-factors are, the mean over the targets."""
    return float(np.mean(np.array(found) / np.array(near)))


def nearest(goal, prior) -> dict[tuple[str, str], float]:
    """Minimum distances, A: the prior's, or where g(r) says that there are none so near, the data's."""
    card = json.loads(getattr(glassjax.load_prior(prior) if isinstance(prior, str) else prior, "card", "{}"))
    known = {tuple(pair.split("-")): value for pair, value in card.get("shortest_distance", {}).items()}
    approach = glassjax.closest_approach(goal.observable.x, goal.data)
    return {pair: max(limit, approach) for pair, limit in glassjax.minimum_distances(goal.observable.elements, known=known).items()}


def _each(own, how: dict) -> list:
    """Results of replicas that have targets of their own, side by side."""
    first = glassjax.invert(own[0], **how, replicas=[0])  # compiles for all
    with concurrent.futures.ThreadPoolExecutor(cores()) as pool:
        return [first, *pool.map(lambda i: glassjax.invert(own[i], **how, replicas=[i]), range(1, len(own)))]


def _timed(condition: Condition, method: str, replicas: int, work):
    """Structures of the results that ``work`` gives, and what they cost."""
    begun = time.monotonic()
    results = work()
    wall, compilation = time.monotonic() - begun, results[0].ensemble.seconds["compilation"] or 0.0
    kept = [one for result in results for one in result.structures]
    if not kept:
        raise RuntimeError(f"all replicas of {condition.material} {condition.label} by {method} diverged; look at the prior with `glassjax generate`")
    seconds = (wall - compilation) / replicas
    facts = dict(seconds=seconds, seconds_per_step=seconds / results[0].ensemble.seconds["steps"], compilation=compilation, cores=cores())
    return kept, facts | dict(diverged=replicas - len(kept), r_factor=None)
