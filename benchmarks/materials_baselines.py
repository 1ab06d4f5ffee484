"""The baselines of the benchmark over five materials: what finds structures for a g(r) without glassjax's default guidance or without a prior.

    gradient_only         Adam on the misfit of the same differentiable g(r) from a random packing, no prior
    published_guidance    the paper's guidance, network and two stages of 512 steps, through `glassjax.invert`

Two more are elsewhere: reverse Monte Carlo in `materials_rmc`, and the prior unguided, which is `glassjax.generate`. Each takes a
`materials_reference.Condition`; targets are total, number-weighted g(r) of Gaussian width 0.15 A.
"""

from __future__ import annotations

import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from materials_reference import Condition
from materials_starts import Distances, limits_of, starting_cell

import glassjax
from glassjax._pytree import frozen, replace
from glassjax.neighbors import build
from glassjax.observables import histogram
from glassjax.observables.pair import PairObservable
from glassjax.preparation import check_target
from glassjax.priors.meshgraphnet import MeshGraphNet
from glassjax.report import curve
from glassjax.structure import Structure

APART = 0.05  # A, noise level at which contacts are parted: far below the 0.4 A where `keep_apart` fades
SEGMENT = 50  # steps of Adam between looks at the neighbour lists
SECOND_SIGMA = 0.48  # A, t = 0.6
SECOND_SEED = 500_000


@frozen
class _NoPrior:
    """A score of zero: the denoised estimate of `keep_apart` is the structure itself."""

    def fit(self, structure):
        return self

    def grown(self, info):
        return self

    def __call__(self, structure, sigma):
        return jnp.zeros_like(structure.positions), {}


def _loss(positions, structure: Structure, targets):
    """Sum of the targets' losses, and what their neighbour lists needed [targets, 3]."""
    structure, total, needed = replace(structure, positions=positions), 0.0, []
    for one in targets:
        if isinstance(one.observable, PairObservable):
            counts, listed = histogram.pair_histogram(structure, one.observable.spec, one.observable.points)
            curve = one.observable.from_histogram(structure, counts)
        else:
            curve, listed = one.observable(structure), one.observable.needed(structure, build(structure, one.observable.spec))
        total = total + 0.5 * one.weight * jnp.sum(((one.data - one.model(curve)) / one.uncertainty) ** 2)
        needed.append(listed)
    return total, jnp.stack(needed)


@jax.jit
def _descend(structure: Structure, state, targets, apart, rates):
    """A step of Adam for each of ``rates`` (A), each followed by half the way out of every contact.

    Returns positions, Adam's state, and per step the loss, what the targets' lists needed and what the contacts' needed.
    """
    optimiser = optax.scale_by_adam()

    def step(carry, rate):
        positions, state = carry
        (value, needed), slope = jax.value_and_grad(_loss, has_aux=True)(positions, structure, targets)
        update, state = optimiser.update(slope, state)
        moved = replace(structure, positions=positions - rate * update)
        push, info = apart(moved, APART)
        return (moved.positions + APART**2 * push, state), (value, needed, info["needed_contacts"])

    (positions, state), found = jax.lax.scan(step, (structure.positions, state), rates)
    return positions, state, found


def gradient_only(condition: Condition, target, *, steps: int = 2000, rate: float = 0.05, seed: int = 0, minimum_distances: Distances | None = None):
    """Descend the misfit sum_k ((y_k - F_k(x)) / u_k)^2 / 2 of one or several targets from a random packing with Adam, without a prior.

    The rate falls from ``rate`` to 0 as a half cosine. After every step `glassjax.keep_apart` around a score of zero moves pairs nearer than
    the minimum distance apart, so the limits hold but for what the last step did. No noise: one start, one structure.

    Args:
      condition: symbols and density.
      target: a `glassjax.Target`, or several.
      steps: of Adam.
      rate: A, of the first steps: about the largest move of a coordinate.
      seed: of the packing.
      minimum_distances: A per pair of elements; by default `glassjax.minimum_distances`.

    Returns:
      ``ase.Atoms`` and a dict: steps, seconds (compilation included), loss_start, loss and r_factor per target (of the structure returned),
      shortest, A.

    Raises:
      ValueError: no target, targets of other elements, or steps or a rate that are not positive.
    """
    targets = (target,) if isinstance(target, glassjax.Target) else tuple(target)
    if not targets:
        raise ValueError("got no target; needs at least one: without data and without a prior nothing is left to descend")
    if not (isinstance(steps, int) and steps > 0 and rate > 0):
        raise ValueError(f"got steps = {steps} and rate = {rate}; needs a positive whole number and a positive length in A")
    limits = limits_of(condition, minimum_distances)
    start = starting_cell(condition, seed=seed, minimum_distances=limits)
    for one in targets:
        check_target(one, start)
    targets = tuple(one.fit(start) for one in targets)
    apart = glassjax.keep_apart(_NoPrior(), limits, start.elements).fit(start)
    rates = jnp.asarray(0.5 * rate * (1 + np.cos(np.pi * np.arange(steps) / steps)), jnp.float32)
    structure, state, losses, done, begun = start, optax.scale_by_adam().init(start.positions), [], 0, time.perf_counter()
    while done < steps:
        some = rates[done : done + SEGMENT]
        positions, following, (values, needed, contacts) = _descend(structure, state, targets, apart, some)
        larger = tuple(_grown(one, needed[:, k]) for k, one in enumerate(targets))
        wider = apart.grown(dict(needed_contacts=contacts))
        if any(a.observable.spec != b.observable.spec for a, b in zip(larger, targets, strict=True)) or wider.spec != apart.spec:
            targets, apart = larger, wider  # a list overflowed: these steps once more
            continue
        structure, state, done = replace(structure, positions=positions), following, done + len(some)
        losses.append(np.asarray(values))
    structure = glassjax.wrap(structure)
    curves = [curve(one.observable, structure) for one in targets]
    record = dict(
        steps=steps,
        seconds=time.perf_counter() - begun,
        loss_start=float(losses[0][0]),
        loss=float(
            sum(0.5 * one.weight * np.sum(((one.data - one.model(c)) / one.uncertainty) ** 2) for one, c in zip(targets, curves, strict=True))
        ),
        r_factor=[float(glassjax.r_factor(one, one.model(c))) for one, c in zip(targets, curves, strict=True)],
        shortest=glassjax.shortest_distance(structure),
    )
    return glassjax.to_atoms(structure), record


def _grown(target, needed):
    return replace(target, observable=target.observable.grown(needed))


def published_guidance(
    condition: Condition,
    target,
    *,
    prior,
    strength: float = 3000.0,
    steps: int = 512,
    replicas: int = 10,
    seed: int = 0,
    minimum_distances: Distances | None = None,
    **options,
):
    """The paper's inversion: its guidance, its network, its two stages (GLASS, arXiv:2603.23210).

    The prior alone from sigma = 0.8 to 0.0008 A in ``steps`` equal steps, then guided from 0.48 A in as many, Euler and Maruyama, by
    s_guide = -(w / sum_c n_c) dL/dx0 with L = sum_c n_c^2, n_c = |y_c - F_c(x0)| (`glassjax.posterior`, "gradient"). Two calls: `glassjax.generate`
    makes the starts of `glassjax.invert`; replicas that the first lets diverge are left out of the second.

    Args:
      condition: symbols and density.
      target: a `glassjax.Target`, or several.
      prior: file of a MeshGraphNet prior, or a `glassjax.Prior`.
      strength: w; it depends on the units of the data, 3000 for g(r) of silicon in the paper.
      steps: of each stage.
      replicas: how many.
      seed: of the first stage; the second takes seed + 500,000, so that its noise is another.
      minimum_distances: A per pair of elements; by default what `glassjax.invert` takes.
      **options: of both calls (chunk, report, ...).

    Returns:
      The `glassjax.Inversion` of the second stage.

    Raises:
      ValueError: a prior of another network, or no replica left after the first stage.
    """
    prior = glassjax.load_prior(prior) if isinstance(prior, str | Path) else prior
    if not isinstance(prior.network, MeshGraphNet):
        raise ValueError(f"got a prior with {type(prior.network).__name__}; needs a MeshGraphNet, the paper's: train one with --network meshgraphnet")
    common = dict(prior=prior, minimum_distance=minimum_distances, symbols=list(condition.symbols)) | options
    alone = glassjax.protocol("two-stage", second_sigma=None, steps=steps)
    first = glassjax.generate(density=condition.density, replicas=replicas, seed=seed, plan=alone, **common)
    good = [int(i) for i in first.ensemble.good()]
    if not good:
        raise ValueError("got no replica that the prior alone brings to the end; needs one; look at the prior with `glassjax generate`")
    guided = glassjax.protocol(alone, sigma_max=SECOND_SIGMA, method="gradient", strength=strength)
    return glassjax.invert(
        target,
        density=condition.density,
        replicas=good,
        seed=seed + SECOND_SEED,
        plan=guided,
        init=[first.ensemble.structures[i] for i in good],
        **common,
    )
