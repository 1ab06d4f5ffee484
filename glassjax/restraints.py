"""Restraints on the bonds of the denoised estimate: a score in, a score out (coordination numbers, windows of distances)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from glassjax._pytree import frozen, replace, static
from glassjax.neighbors import NeighborSpec, build, grow, neighbor_spec
from glassjax.observables.coordination import check_switch, lengths, member, pair_indices, soft_numbers
from glassjax.structure import Structure

PRIOR_WIDTH = 0.5  # A, s0 in r_t^2 = sigma^2 / (1 + sigma^2 / s0^2), as in `guidance.posterior`
RELAXATION = 0.5  # neighbouring atoms correct the same bonds; half steps do not overshoot


@frozen
class CoordinationRestraint:
    """See `coordination_restraint`.

    Attributes:
      score: the score to restrain.
      low, high: numbers of neighbours allowed, -inf and inf where open.
      cutoff: A, where a bond counts half.
      uncertainty: of the numbers.
      fade: A.
      pair: indices (centre, neighbour), -1 for every element (static).
      switch: A, width of the switch (static).
      reach: A, the farthest neighbour that counts (static).
      name: ends the key of ``info`` (static).
      spec: neighbour list out to ``reach`` (static).
    """

    score: object
    low: jax.Array
    high: jax.Array
    cutoff: jax.Array
    uncertainty: jax.Array
    fade: jax.Array
    pair: tuple[int, int] = static()
    switch: float = static()
    reach: float = static()
    name: str = static()
    spec: NeighborSpec | None = static(default=None)

    def fit(self, structure: Structure) -> CoordinationRestraint:
        """The same score with neighbour lists for structures like this one."""
        return replace(self, score=self.score.fit(structure), spec=neighbor_spec(structure, self.reach))

    def grown(self, info: dict) -> CoordinationRestraint:
        """The same score with capacities that suffice for what ``info`` reported."""
        return replace(self, score=self.score.grown(info), spec=grow(self.spec, info[f"needed_{self.name}"]))

    def __call__(self, structure: Structure, sigma):
        """Restrained score [n, 3]; info adds ``needed_<name>``."""
        score, info = self.score(structure, sigma)
        estimate = replace(structure, positions=structure.positions + sigma**2 * score)
        graph = build(estimate, neighbor_spec(structure, self.reach) if self.spec is None else self.spec)
        numbers, slopes, there, back = soft_numbers(estimate, graph, self.pair, self.cutoff, self.switch)
        slopes = jnp.where(graph.mask, slopes, 0.0)
        unit = graph.displacements / lengths(graph.displacements)[..., None]
        own = jnp.where(there, slopes, 0.0)[..., None] * unit
        # |grad n_i|^2: every neighbour once, and the centre by their sum
        steepness = jnp.sum(own**2, axis=(1, 2)) + jnp.sum(jnp.sum(own, axis=1) ** 2, axis=-1)
        missing = jnp.clip(numbers, self.low, self.high) - numbers
        missing = jnp.where(member(structure.species, self.pair[0]), missing, 0.0)
        spread = sigma**2 / (1.0 + (sigma / PRIOR_WIDTH) ** 2)
        step = missing / (self.uncertainty**2 + spread * steepness)
        # an edge belongs to the number of atom i and, on its way back, to the neighbour's
        pull = slopes * (jnp.where(there, step[:, None], 0.0) + jnp.where(back, step[graph.neighbors], 0.0))
        weight = RELAXATION / (1.0 + (sigma / self.fade) ** 4)
        push = -weight * spread / sigma**2 * jnp.sum(pull[..., None] * unit, axis=1)
        return score + push, info | {f"needed_{self.name}": graph.needed}


def coordination_restraint(
    score,
    pair,
    elements: Sequence[str],
    *,
    low: float | None = None,
    target: float | None = None,
    high: float | None = None,
    cutoff: float,
    switch: float = 0.8,
    uncertainty: float = 0.2,
    fade: float = 0.4,
    name: str | None = None,
) -> CoordinationRestraint:
    """A score that draws the coordination number of every atom to a number, or into a range.

    n_i = sum of w(r_ij) over b neighbours of atom i of a, in the denoised estimate (`coordination.switch_weight`); d_i what it lacks (or 0).
    Adds  w(sigma)/2 (r_t^2 / sigma^2) sum_i grad n_i d_i / (u^2 + r_t^2 |grad n_i|^2), the diagonal form of the pseudo-inverse guidance of
    `guidance.posterior`, with r_t^2 = sigma^2 / (1 + sigma^2 / 0.25 A^2) and w = 1 / (1 + (sigma / fade)^4): estimates at high noise are means,
    not atoms. Only neighbours inside the switch move: an atom that lacks one and has none there is not seen (take a wider switch, or draw its
    nearest neighbours in with `distance_window`).

    Args:
      score: the score to restrain.
      pair: "Si-O" or ("Si", "O"), the atom that is counted for first; None for all atoms about all atoms.
      elements: species order of the structures.
      low: least number of neighbours.
      target: the number, instead of ``low`` and ``high``.
      high: largest number.
      cutoff: A, where a bond counts half.
      switch: A; a bond fades from cutoff - switch/2 to cutoff + switch/2.
      uncertainty: u, of the numbers.
      fade: A.
      name: ends the key ``needed_<name>`` of ``info``; by default from the pair. Two restraints of one score need two names.

    Raises:
      ValueError: unknown elements, no or contradicting numbers, a value out of range, or a name taken by the wrapped score.
    """
    elements = tuple(elements)
    if (target is None) == (low is None and high is None):
        raise ValueError(f"low is {low}, target is {target}, high is {high}; needs a target, or a low or a high end or both")
    low, high = (target, target) if target is not None else (-math.inf if low is None else low, math.inf if high is None else high)
    _in_order(low if low > -math.inf else 0.0, high, "neighbours")
    _positive(cutoff=cutoff, switch=switch, uncertainty=uncertainty, fade=fade)
    kind = jnp.result_type(float)
    return CoordinationRestraint(
        score=score,
        low=jnp.asarray(low, kind),
        high=jnp.asarray(high, kind),
        cutoff=jnp.asarray(cutoff, kind),
        uncertainty=jnp.asarray(uncertainty, kind),
        fade=jnp.asarray(fade, kind),
        pair=pair_indices(pair, elements),
        switch=float(switch),
        reach=check_switch(cutoff, switch),
        name=_free_name(score, "coordination", pair, name),
    )


@frozen
class DistanceWindow:
    """See `distance_window`.

    Attributes:
      score: the score to restrain.
      low, high: the window, A.
      fade: A.
      pair: indices (centre, neighbour), -1 for every element (static).
      count: neighbours per centre (static).
      reach: A, how far neighbours are looked for (static).
      name: ends the key of ``info`` (static).
      spec: neighbour list out to ``reach`` (static).
    """

    score: object
    low: jax.Array
    high: jax.Array
    fade: jax.Array
    pair: tuple[int, int] = static()
    count: int = static()
    reach: float = static()
    name: str = static()
    spec: NeighborSpec | None = static(default=None)

    def fit(self, structure: Structure) -> DistanceWindow:
        """The same score with neighbour lists for structures like this one."""
        return replace(self, score=self.score.fit(structure), spec=neighbor_spec(structure, self.reach))

    def grown(self, info: dict) -> DistanceWindow:
        """The same score with capacities that suffice for what ``info`` reported."""
        return replace(self, score=self.score.grown(info), spec=grow(self.spec, info[f"needed_{self.name}"]))

    def __call__(self, structure: Structure, sigma):
        """Restrained score [n, 3]; info adds ``needed_<name>``."""
        score, info = self.score(structure, sigma)
        estimate = replace(structure, positions=structure.positions + sigma**2 * score)
        graph = build(estimate, neighbor_spec(structure, self.reach) if self.spec is None else self.spec)
        missing = jnp.clip(graph.distances, self.low, self.high) - graph.distances
        missing = jnp.where(self.chosen(estimate, graph), missing, 0.0)
        unit = graph.displacements / lengths(graph.displacements)[..., None]
        weight = RELAXATION / (1.0 + (sigma / self.fade) ** 4)
        push = -0.5 * weight / sigma**2 * jnp.sum(missing[..., None] * unit, axis=1)
        return score + push, info | {f"needed_{self.name}": graph.needed}

    def chosen(self, structure: Structure, graph) -> jax.Array:
        """[n, k] edges between a centre and one of its ``count`` nearest neighbours, seen from either end."""
        a, b = self.pair
        species = jnp.where(graph.mask, structure.species[graph.neighbors], -1)
        there = graph.mask & member(structure.species, a)[:, None] & member(species, b)
        back = graph.mask & member(structure.species, b)[:, None] & member(species, a)
        count = min(self.count, graph.mask.shape[1])
        # a hair's breadth of room, so that both ends of a pair agree whatever the rounding
        farthest = (1.0 + 1e-5) * jnp.sort(jnp.where(there, graph.distances, jnp.inf), axis=1)[:, count - 1]
        return (there & (graph.distances <= farthest[:, None])) | (back & (graph.distances <= farthest[graph.neighbors]))


def distance_window(
    score,
    pair,
    elements: Sequence[str],
    *,
    low: float,
    high: float,
    count: int,
    reach: float | None = None,
    fade: float = 0.4,
    name: str | None = None,
) -> DistanceWindow:
    """A score that draws the ``count`` nearest b neighbours of every atom of a into a window of distances.

    Adds  (1 / sigma^2) w(sigma)/2 sum_j (r - clip(r, low, high)) / 2 u_ij  to both ends of each such pair of the denoised estimate, with
    w = 1 / (1 + (sigma / fade)^4): estimates at high noise are means, not atoms. Farther neighbours are left alone (`contacts.keep_apart`).

    Args:
      score: the score to restrain.
      pair: "Si-O" or ("Si", "O"), the centre first; None for all atoms about all atoms.
      elements: species order of the structures.
      low: A.
      high: A.
      count: neighbours per centre.
      reach: A, how far neighbours are looked for (fewer than ``count`` inside it: those are drawn in); by default 1.5 times ``high``.
      fade: A.
      name: ends the key ``needed_<name>`` of ``info``; by default from the pair. Two restraints of one score need two names.

    Raises:
      ValueError: unknown elements, a window out of order, a count below 1, a value out of range, or a name taken by the wrapped score.
    """
    elements = tuple(elements)
    _in_order(low, high, "angstrom")
    reach = 1.5 * high if reach is None else reach
    _positive(high=high, reach=reach, fade=fade)
    if reach < high:
        raise ValueError(f"reach is {reach} A and high is {high} A; neighbours beyond the window are drawn in only inside the reach: raise it")
    if int(count) != count or count < 1:
        raise ValueError(f"count is {count}; needs a whole number of neighbours, 1 or more")
    kind = jnp.result_type(float)
    return DistanceWindow(
        score=score,
        low=jnp.asarray(low, kind),
        high=jnp.asarray(high, kind),
        fade=jnp.asarray(fade, kind),
        pair=pair_indices(pair, elements),
        count=int(count),
        reach=float(reach),
        name=_free_name(score, "distance", pair, name),
    )


def _in_order(low: float, high: float, unit: str):
    if not 0 <= low <= high:
        raise ValueError(f"low is {low} and high is {high} {unit}; needs 0 <= low <= high")


def _positive(**values):
    for name, value in values.items():
        if not (value > 0 and math.isfinite(value)):
            raise ValueError(f"{name} is {value}; needs a positive finite number")


def _free_name(score, kind: str, pair, name: str | None) -> str:
    """``name``, or one made of the pair; refused if a restraint inside ``score`` has it."""
    if name is None:
        names = ["all"] if pair is None else pair.split("-") if isinstance(pair, str) else pair
        name = "_".join([kind, *map(str, names)])
    inner = score
    while inner is not None:
        if getattr(inner, "name", None) == name or (name in ("contacts", "pairs", "veto")):
            raise ValueError(f"the name {name!r} is taken; pass another name, for its neighbour list to be reported under a key of its own")
        inner = getattr(inner, "score", None)
    return name
