"""Named sampling protocols: every default of the inversion in one frozen record, and the stages built from it."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from glassjax import noise
from glassjax.contacts import keep_apart
from glassjax.guidance import posterior
from glassjax.nuisance import Density
from glassjax.priors.prior import LINEAR_MOST
from glassjax.replica import Stage
from glassjax.samplers import breathe, predictor_corrector, probability_flow, reverse_sde, veto
from glassjax.targets import Target

LADDERS = {"geometric": noise.geometric, "linear": noise.linear, "karras": noise.karras}
KNOWN_SCALE = 0.9  # of the shortest distance met in training
SAMPLERS = ("reverse-sde", "probability-flow")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Protocol:
    """How to sample. `protocol` builds and validates it; `stages` turns it into what `sample` runs.

    Attributes:
      name: of the protocol it started from.
      sampler: "reverse-sde" or "probability-flow".
      ancestral: exact one-step variance of the reverse SDE, see `reverse_sde`.
      corrections: Langevin steps after each step, see `predictor_corrector`.
      correction_size: of those steps, in units of sigma^2.
      correction_window: A, noise levels between which they are taken.
      ladder: "geometric", "linear" or "karras".
      steps: steps of the ladder, the last one to zero noise included; restarts come on top.
      sigma_max: A, where the ladder starts.
      sigma_min: A, where it ends (before the last step).
      finish: take a last step to zero noise.
      restarts: cycles of re-noising and denoising at the end.
      restart_sigma: A, where a cycle starts.
      second_sigma: A, or None; with a value, the ladder runs with the prior alone, and once more from here with the data (the paper's two stages).
      method: of guidance, "pseudo-inverse" or "gradient".
      strength: of guidance, see `posterior`; None for its default.
      prior_width: A, of the pseudo-inverse.
      packing_scale: starting structures keep atoms apart by this times the minimum distance.
      apart_margin: A, or None; `keep_apart` acts below minimum distance + margin.
      veto_margin: A, or None; `veto` acts below minimum distance + margin.
      veto_below: A, noise level below which the veto acts.
      density_gain: share of an inferred change of density taken per step, see `breathe`.
      density_window: A, noise levels between which the cell moves: below, atoms no longer rearrange, and a cell that went on moving would make up
        for bond lengths in which data and prior differ.
    """

    name: str = "default"
    sampler: str = "reverse-sde"
    ancestral: bool = True
    corrections: int = 7
    correction_size: float = 1.0
    correction_window: tuple[float, float] = (0.08, 0.8)
    ladder: str = "geometric"
    steps: int = 150
    sigma_max: float = 1.6
    sigma_min: float = 0.03
    finish: bool = True
    restarts: int = 0
    restart_sigma: float = 0.4
    second_sigma: float | None = None
    method: str = "pseudo-inverse"
    strength: float | None = None
    prior_width: float = 0.5
    packing_scale: float = 0.75
    apart_margin: float | None = 0.1
    veto_margin: float | None = 0.05
    veto_below: float = 0.12
    density_gain: float = 0.15
    density_window: tuple[float, float] = (0.15, 1.0)


PROTOCOLS = {
    "default": Protocol(),
    # GLASS (Guo and Schwalbe-Koda, arXiv:2603.23210): prior alone over t = 1 to 0.001, then guided from t = 0.6 on the same grid
    "two-stage": Protocol(
        name="two-stage",
        ancestral=False,
        corrections=0,
        ladder="linear",
        steps=1000,
        sigma_max=0.8,
        sigma_min=0.0008,
        finish=False,
        second_sigma=0.48,
        apart_margin=None,
    ),
}


def protocol(name: str | Protocol = "default", **changes) -> Protocol:
    """A protocol by name with some of its fields changed.

    Args:
      name: "default", "two-stage", or a `Protocol` to start from.
      **changes: fields of `Protocol`; a change to None is a change.

    Raises:
      ValueError: unknown name, field, ladder or sampler, or numbers out of range.
    """
    if isinstance(name, str) and name not in PROTOCOLS:
        raise ValueError(f"got protocol {name!r}; needs one of {', '.join(PROTOCOLS)}")
    known = [f.name for f in dataclasses.fields(Protocol)]
    unknown = sorted(set(changes) - set(known))
    if unknown:
        raise ValueError(f"got unknown protocol setting {', '.join(unknown)}; needs some of {', '.join(known)}")
    made = dataclasses.replace(PROTOCOLS[name] if isinstance(name, str) else name, **changes)
    numbers = [n for n in known if isinstance(getattr(Protocol, n), int | float) and not isinstance(getattr(Protocol, n), bool)]
    for name_of in [*numbers, "strength", "restart_sigma", "prior_width"]:
        value = getattr(made, name_of)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0):
            raise ValueError(f"got {name_of} = {value!r}; needs a number that is not negative")
    for name_of in ("strength", "prior_width", "sigma_min", "restart_sigma"):
        if getattr(made, name_of) is not None and not getattr(made, name_of) > 0:
            raise ValueError(f"got {name_of} = {getattr(made, name_of)}; needs a positive number")
    if made.sampler not in SAMPLERS:
        raise ValueError(f"got sampler {made.sampler!r}; needs one of {', '.join(SAMPLERS)}")
    if made.ladder not in LADDERS:
        raise ValueError(f"got ladder {made.ladder!r}; needs one of {', '.join(LADDERS)}")
    if made.method not in ("pseudo-inverse", "gradient"):
        raise ValueError(f"got method {made.method!r}; needs 'pseudo-inverse' or 'gradient'")
    if isinstance(made.steps, bool) or int(made.steps) != made.steps or made.steps < 2:
        raise ValueError(f"got steps = {made.steps}; needs a whole number of at least 2")
    if made.second_sigma is not None and not made.sigma_min < made.second_sigma <= made.sigma_max:
        raise ValueError(f"got second_sigma = {made.second_sigma} A; needs a level between {made.sigma_min} and {made.sigma_max} A")
    ladders(made)
    return made


def ladders(protocol: Protocol) -> list[np.ndarray]:
    """Noise ladders [steps, 2] of each stage, A."""
    rungs = protocol.steps - int(protocol.finish)
    first = LADDERS[protocol.ladder](rungs, sigma_max=protocol.sigma_max, sigma_min=protocol.sigma_min)
    if protocol.second_sigma is None:
        last, before = first, []
    else:
        # the same grid again: only the part below the second start
        last, before = first[first[:, 0] <= protocol.second_sigma * (1 + 1e-6)], [first]
        if not len(last):
            raise ValueError(f"no step of the ladder starts below second_sigma = {protocol.second_sigma} A; take more steps")
    if protocol.restarts:
        last = noise.restart(last, sigma=protocol.restart_sigma, cycles=protocol.restarts)
    return [*before, noise.finish(last) if protocol.finish else last]


def known_distances(card: Mapping) -> dict[tuple[str, str], float]:
    """``shortest_distance`` of a prior's model card, A, by pair of elements: what `minimum_distances` takes as ``known``."""
    return {tuple(pair.split("-")): value for pair, value in card.get("shortest_distance", {}).items()}


def beyond_training(card: Mapping, plan: Protocol) -> str | None:
    """What to say where the ladder begins at more noise than a prior was trained on by its model card; None where it does not, or the card is mute.

    What a score gives there is extrapolated: structures may stay as disordered as they began.
    """
    training = card.get("training", {})
    most = LINEAR_MOST if training.get("levels") == "linear" else training.get("sigma_max")
    if most is None or plan.sigma_max <= most * (1 + 1e-6):
        return None
    return (
        f"the prior was trained on noise up to {most:g} A and sampling begins at {plan.sigma_max:g} A, where it extrapolates; check the structures, "
        f"begin lower (in Python plan=protocol(sigma_max={most:g}), in a run.toml protocol = {{ sigma_max = {most:g} }}), "
        f"or train to {plan.sigma_max:g} A (glassjax train --sigma-max)"
    )


def minimum_distances(
    elements: Sequence[str],
    values: float | Mapping[tuple[str, str], float] | None = None,
    *,
    known: Mapping[tuple[str, str], float] | None = None,
    scale: float = 0.9,
) -> dict[tuple[str, str], float]:
    """Minimum distance of each pair of elements, A.

    ``values`` where given; else 0.9 x the shortest distance that the prior was trained on, where ``known`` says it (``shortest_distance`` of its
    card, the median over its cells); else ``scale`` x the sum of covalent radii (Cordero 2008, as in ASE).

    Raises:
      ValueError: a value is negative or names an element that is not there.
    """
    from ase.data import atomic_numbers, covalent_radii

    pairs = list(itertools.combinations_with_replacement(elements, 2))
    radius = {e: float(covalent_radii[atomic_numbers[e]]) for e in elements}
    limits = {(a, b): round(scale * (radius[a] + radius[b]), 2) for a, b in pairs}
    trained = {} if known is None else known
    limits |= {pair: round(KNOWN_SCALE * trained[p], 2) for pair in pairs for p in (pair, pair[::-1]) if p in trained}
    if values is None:
        return limits
    given = values if isinstance(values, Mapping) else dict.fromkeys(pairs, values)
    for (a, b), value in given.items():
        pair = (a, b) if (a, b) in limits else (b, a)
        if pair not in limits:
            raise ValueError(f"got a minimum distance for {a}-{b}; needs pairs of {', '.join(elements)}")
        if not 0 <= float(value) < 10:
            raise ValueError(f"got a minimum distance of {value} A for {a}-{b}; needs 0 to 10 A")
        limits[pair] = float(value)
    return limits


def stages(
    prior,
    targets: Sequence[Target] = (),
    *,
    elements: Sequence[str],
    protocol: Protocol | None = None,
    minimum_distance: float | Mapping[tuple[str, str], float] | None = None,
    density: Density | None = None,
    restraints: Sequence[Callable] = (),
) -> list[Stage]:
    """The stages that `sample` runs: the prior, guided by the targets, kept apart, sampled down the protocol's ladders.

    Args:
      prior: a score.
      targets: data; none to sample the prior alone.
      elements: species order of the structures.
      protocol: by default ``Protocol()``.
      minimum_distance: see `minimum_distances`.
      density: infer the number density with this prior.
      restraints: functions (score, elements) -> score, such as `settings.Restrain`; they act on the last stage.

    Raises:
      ValueError: a density to infer without targets.
    """
    if density is not None and not targets:
        raise ValueError("got a density to infer without a target; needs data that tell it; pass targets, or a fixed density")
    plan = PROTOCOLS["default"] if protocol is None else protocol
    limits = minimum_distances(elements, minimum_distance)

    def apart(score):
        if plan.apart_margin is None:
            return score
        return keep_apart(score, {pair: value + plan.apart_margin for pair, value in limits.items()}, elements)

    sampler = reverse_sde(ancestral=plan.ancestral) if plan.sampler == "reverse-sde" else probability_flow()
    if plan.corrections:
        sampler = predictor_corrector(sampler, corrections=plan.corrections, size=plan.correction_size, window=tuple(plan.correction_window))
    if plan.veto_margin is not None:
        sampler = veto(sampler, {pair: value + plan.veto_margin for pair, value in limits.items()}, elements, below=plan.veto_below)
    guided = prior
    if targets:
        guided = posterior(prior, targets, strength=plan.strength, method=plan.method, prior_width=plan.prior_width, density=density)
    for restrain in restraints:
        guided = restrain(guided, elements)
    parts = ladders(plan)
    if len(parts) == 2 and not targets:
        parts = parts[:1]
    scores = [apart(prior)] * (len(parts) - 1) + [apart(guided)]
    samplers = [sampler] * len(parts)
    if density is not None:
        samplers[-1] = breathe(sampler, density, gain=plan.density_gain, window=tuple(plan.density_window))
    return [Stage(score=score, sampler=how, ladder=ladder) for score, how, ladder in zip(scores, samplers, parts, strict=True)]
