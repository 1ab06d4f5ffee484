"""Soft coordination numbers and their distribution, and what every observable of bonds shares: gathering gradients, a smooth bond cutoff.

n_i = sum over neighbours j of w(r_ij), with w the quintic switch of `switch_weight`: 1 in a bond, 1/2 at the cutoff, exactly 0 beyond.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from glassjax import neighbors
from glassjax._pytree import frozen, replace, static
from glassjax.neighbors import Graph, NeighborSpec, build
from glassjax.observables.listed import Listed
from glassjax.observables.weights import fractions_of
from glassjax.structure import Structure


def switch_weight(r, cutoff, switch: float):
    """Weight of a bond of length r and its derivative dw/dr (1/A), both of r's shape.

    w = 1 - t^3 (10 - 15 t + 6 t^2), t = (r - cutoff) / switch + 1/2 held to [0, 1]: twice differentiable, 1 below cutoff - switch/2, 1/2 at the
    cutoff, 0 beyond cutoff + switch/2. ``switch`` = 0 is the step r < cutoff, with derivative 0. A cutoff of 0 makes no bond.
    """
    if switch == 0:
        return jnp.where(r < cutoff, 1.0, 0.0).astype(r.dtype), jnp.zeros_like(r)
    t = jnp.clip((r - cutoff) / switch + 0.5, 0.0, 1.0)
    weight = 1.0 - t**3 * (10.0 - 15.0 * t + 6.0 * t**2)
    slope = -30.0 / switch * (t * (1.0 - t)) ** 2
    return jnp.where(cutoff > 0, weight, 0.0), jnp.where(cutoff > 0, slope, 0.0)


def check_switch(cutoffs, switch: float) -> float:
    """Farthest bond that counts, A, of ``cutoffs`` (0 means no bond) with this switch (host); refuses what makes no sense."""
    cutoffs = np.asarray(cutoffs, dtype=float)
    if not np.isfinite(cutoffs).all() or (cutoffs < 0).any() or not (cutoffs > 0).any():
        raise ValueError(f"cutoff is {cutoffs.tolist()}; needs a positive length in angstrom for at least one pair of elements")
    if not 0 <= switch < 2 * cutoffs[cutoffs > 0].min():
        raise ValueError(f"switch is {switch} A; needs a length from 0 to less than twice the cutoff ({cutoffs[cutoffs > 0].min()} A)")
    return float(cutoffs.max() + switch / 2)


def pair_indices(pair, elements: Sequence[str]) -> tuple[int, int]:
    """Indices (a, b) of "Si-O" or ("Si", "O"), centre first; None stands for every element and gives (-1, -1)."""
    if pair is None:
        return -1, -1
    names = tuple(pair.split("-")) if isinstance(pair, str) else tuple(pair)
    if len(names) != 2 or any(name not in elements for name in names):
        raise ValueError(f"pair {'-'.join(map(str, names))} needs two elements, centre first, from {', '.join(elements)}")
    return elements.index(names[0]), elements.index(names[1])


def member(species, index: int):
    """Which species are element ``index``; -1 stands for every filled slot."""
    return species >= 0 if index < 0 else species == index


def same_elements(observable, structure: Structure):
    """Refuse a structure whose elements are others, or in another order."""
    if structure.elements != observable.elements:
        got, needs = ", ".join(structure.elements), ", ".join(observable.elements)
        raise ValueError(f"the structure has elements {got}; the observable needs {needs}, in this order")


def lengths(displacements):
    """Distances [n, k], A, with gradient 0 (not NaN) for coincident atoms."""
    return jnp.sqrt(jnp.maximum(jnp.sum(displacements**2, axis=-1), 1e-12))


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def _gathered(positions, cell, species, elements, spec):
    return build(Structure(positions=positions, cell=cell, species=species, elements=elements), spec)


def _gathered_forward(positions, cell, species, elements, spec):
    graph = _gathered(positions, cell, species, elements, spec)
    return graph, (positions, cell, graph)


def _gathered_backward(elements, spec, residual, cotangent):
    positions, cell, graph = residual
    unit = graph.displacements / jnp.maximum(graph.distances, 1e-3)[..., None]
    push = cotangent.displacements + cotangent.distances[..., None] * unit
    push = jnp.where(graph.mask[..., None], push, 0.0)
    # positions are Cartesian, so the cell acts only through the lattice shift of each image
    shift = jnp.round((graph.displacements - positions[graph.neighbors] + positions[:, None]) @ jnp.linalg.inv(cell))
    return onto_atoms(graph, push), jnp.einsum("nka,nkb->ab", jnp.where(graph.mask[..., None], shift, 0.0), push), None


_gathered.defvjp(_gathered_forward, _gathered_backward)


def gathered_graph(structure: Structure, spec: NeighborSpec) -> Graph:
    """`neighbors.build`, with a gradient (in positions and cell) that gathers along the ways back instead of scattering."""
    return _gathered(structure.positions, structure.cell, structure.species, structure.elements, spec)


def onto_atoms(graph: Graph, push: jax.Array) -> jax.Array:
    """d/d positions [n, 3, ...] from ``push`` [n, k, 3, ...] = d/d displacement of each directed edge, zero in empty slots."""
    back = push[graph.neighbors, graph.reverse_slots()]
    back = jnp.where(graph.mask.reshape(graph.mask.shape + (1,) * (push.ndim - 2)), back, 0.0)
    return jnp.sum(back - push, axis=1)


def strain_of(graph: Graph, push: jax.Array) -> jax.Array:
    """d/d ln L [...] at fixed fractional coordinates from ``push`` [n, k, 3, ...]: sum over directed edges of push . displacement."""
    return jnp.einsum("nkc...,nkc->...", push, jnp.where(graph.mask[..., None], graph.displacements, 0.0))


def bonded(graph: Graph, near: jax.Array, capacity: int | None) -> Graph:
    """The graph of the edges in ``near`` [n, k] (symmetric), in ``capacity`` slots; every displacement NaN if an atom has more."""
    if capacity is None or graph.neighbors.shape[1] <= capacity:
        return graph
    slots, mask, degree = neighbors.compact(near & graph.mask, capacity)
    index = jnp.where(mask, jnp.take_along_axis(graph.neighbors, slots, axis=1), jnp.arange(slots.shape[0], dtype=jnp.int32)[:, None])
    d = jnp.take_along_axis(graph.displacements, slots[..., None], axis=1)
    d = jnp.where(mask[..., None], d, jnp.array([graph.cutoff, 0.0, 0.0], d.dtype))
    fits = (jnp.max(degree) <= capacity) & ~jnp.isnan(graph.displacements).any()
    d = jnp.where(fits, d, jnp.nan)
    needed = jnp.stack([jnp.max(degree), jnp.sum(degree), graph.needed[2]]).astype(jnp.int32)
    return replace(graph, neighbors=index, displacements=d, distances=jnp.sqrt(jnp.sum(d**2, axis=-1)), mask=mask, needed=needed)


def soft_numbers(structure: Structure, graph: Graph, pair: tuple[int, int], cutoff, switch: float):
    """Soft coordination of one pair of elements (a, b).

    Returns:
      (numbers [n], slopes [n, k], there [n, k], back [n, k]): sum of w over b neighbours (0 for atoms that are not a); dw/dr of every edge;
      whether the edge counts for atom i, and whether it counts for its neighbour.
    """
    a, b = pair
    species = jnp.where(graph.mask, structure.species[graph.neighbors], -1)
    there = graph.mask & member(structure.species, a)[:, None] & member(species, b)
    back = graph.mask & member(structure.species, b)[:, None] & member(species, a)
    weight, slope = switch_weight(lengths(graph.displacements), cutoff, switch)
    return jnp.sum(jnp.where(there, weight, 0.0), axis=1), slope, there, back


@frozen
class Coordination(Listed):
    """Soft coordination per pair of elements, or its distribution: ``observable(structure) -> [m]``.

    Attributes:
      x: [m] index of the pair, or the coordination number n.
      cutoffs: [p] A, where a bond counts half, per pair.
      width: of the distribution in n (not used by the mean).
      pairs: indices (centre, neighbour) per pair, -1 for every element (static).
      switch: A, width of the switch (static).
      function: "coordination" or "coordination distribution" (static).
      elements: species order (static).
      rmax: A, the farthest neighbour that counts (static).
      convention: one line for the record (static).
      spec: neighbour list out to ``rmax`` (static).
    """

    x: jax.Array
    cutoffs: jax.Array
    width: jax.Array
    pairs: tuple[tuple[int, int], ...] = static()
    switch: float = static()
    function: str = static()
    elements: tuple[str, ...] = static()
    rmax: float = static()
    convention: str = static(default="")
    spec: NeighborSpec | None = static(default=None)

    def __call__(self, structure: Structure) -> jax.Array:
        """The curve [m]; NaN if the neighbour list overflowed."""
        same_elements(self, structure)
        graph = gathered_graph(structure, self.listed(structure))
        return self._curve(structure, self.numbers(structure, graph)[0])[0]

    def numbers(self, structure: Structure, graph: Graph):
        """(n_i [n, p], slopes, there, back [n, k, p]), see `soft_numbers`; NaN where the graph overflowed."""
        parts = [soft_numbers(structure, graph, pair, self.cutoffs[i], self.switch) for i, pair in enumerate(self.pairs)]
        return tuple(jnp.stack(column, axis=-1) for column in zip(*parts, strict=True))

    def _curve(self, structure: Structure, numbers):
        """(curve [m], its derivative with respect to each atom's number [n, m])."""
        chosen = jnp.stack([member(structure.species, a) for a, _ in self.pairs], axis=-1).astype(numbers.dtype)
        share = chosen / jnp.maximum(jnp.sum(chosen, axis=0, keepdims=True), 1.0)
        if self.function == "coordination":
            return jnp.sum(share * numbers, axis=0), share
        gap = self.x[None] - numbers
        part = jax.nn.softmax(-0.5 * (gap / self.width) ** 2, axis=1)
        slope = part * (gap - jnp.sum(part * gap, axis=1, keepdims=True)) / self.width**2
        return jnp.sum(share * part, axis=0), share * slope

    def linearize(self, structure: Structure, graph: Graph) -> tuple[jax.Array, jax.Array, jax.Array]:
        """The curve and its exact derivatives from a graph that reaches at least ``rmax``.

        Returns:
          (curve [m], d curve / d positions [n, 3, m], d curve / d ln L at fixed fractional coordinates [m]); NaN where the graph overflowed.
        """
        same_elements(self, structure)
        graph = bonded(graph, graph.distances < self.rmax, None if self.spec is None else self.spec.capacity)
        numbers, slopes, there, back = self.numbers(structure, graph)
        curve, share = self._curve(structure, numbers)
        unit = graph.displacements / lengths(graph.displacements)[..., None]
        # an edge is met twice: its derivative counts for atom i, and once more for the neighbour that counts i
        own = slopes * there * share[:, None]
        both = own + slopes * back * share[graph.neighbors]
        stretch = jnp.sum(own * lengths(graph.displacements)[..., None], axis=(0, 1))
        return curve, -jnp.einsum("nkc,nkm->ncm", unit, both), stretch


def _observable(x, pairs, names, cutoffs, switch, width, function, elements) -> Coordination:
    reach = check_switch(cutoffs, switch)
    kind = jnp.result_type(float)
    return Coordination(
        x=jnp.asarray(x, kind),
        cutoffs=jnp.asarray(cutoffs, kind),
        width=jnp.asarray(width, kind),
        pairs=pairs,
        switch=float(switch),
        function=function,
        elements=elements,
        rmax=reach,
        convention=f"{function} of {', '.join(names)}; cutoff {', '.join(f'{c:g}' for c in cutoffs)} A, quintic switch {switch:g} A wide about it",
    )


def _label(pair) -> str:
    return "all" if pair is None else pair if isinstance(pair, str) else "-".join(map(str, pair))


def coordination_number(composition, pairs, *, cutoff, switch: float = 0.3) -> Coordination:
    """Mean soft coordination number of each pair: n_ab = 1/N_a sum over i in a of sum over b neighbours j of w(r_ij) (`switch_weight`).

    Args:
      composition: symbols per atom, or a mapping element -> amount; gives the order of the elements.
      pairs: sequence of "Si-O" or ("Si", "O"), centre first; None in it stands for all atoms about all atoms.
      cutoff: A, one number, or one per pair.
      switch: A, width of the switch about the cutoff; 0 counts r < cutoff (and has no gradient).

    Raises:
      ValueError: no pair, an unknown element, cutoffs that do not fit the pairs or are not positive, a switch wider than twice the cutoff.
    """
    elements, pairs = tuple(fractions_of(composition)), (pairs,) if pairs is None or isinstance(pairs, str) else tuple(pairs)
    cutoffs = np.asarray(cutoff, dtype=float)
    if not pairs or cutoffs.shape not in ((), (len(pairs),)) or not (cutoffs > 0).all():
        raise ValueError(f"{len(pairs)} pairs and cutoff {cutoff}; needs at least one pair, and one positive cutoff or one per pair")
    indices = tuple(pair_indices(p, elements) for p in pairs)
    cutoffs = np.broadcast_to(cutoffs, len(pairs))
    return _observable(np.arange(len(pairs)), indices, [_label(p) for p in pairs], cutoffs, switch, 1.0, "coordination", elements)


def coordination_distribution(pair, counts, composition, *, cutoff: float, switch: float = 0.3, width: float = 0.35) -> Coordination:
    """Share of atoms with coordination n: p(n) = mean over atoms i of a of G(n - n_i) / sum over ``counts`` m of G(m - n_i).

    G is a Gaussian of standard deviation ``width``, n_i the soft number. Every atom counts once, so p sums to 1; an atom at an integer gives 0.967 to
    it and 0.016 to each neighbour at the default width. Numbers beyond the ends of ``counts`` fall on the ends.

    Args:
      pair: "Si-O" or ("Si", "O"), centre first; None for all atoms about all atoms.
      counts: [m] ascending coordination numbers, usually 0, 1, ..., nmax.
      composition: symbols per atom, or a mapping element -> amount; gives the order of the elements.
      cutoff: A.
      switch: A, see `coordination_number`.
      width: in n.

    Raises:
      ValueError: counts not ascending, an unknown element, width, cutoff or switch out of range.
    """
    elements, counts = tuple(fractions_of(composition)), np.asarray(counts, dtype=float)
    if counts.ndim != 1 or len(counts) < 2 or not (np.diff(counts) > 0).all() or counts[0] < 0:
        raise ValueError(f"counts are {counts.tolist()}; needs at least two ascending numbers from 0 up, for example range(9)")
    if not (width > 0 and math.isfinite(width)):
        raise ValueError(f"width is {width}; needs a positive number of neighbours (0.35 parts the integers)")
    return _observable(counts, (pair_indices(pair, elements),), [_label(pair)], [float(cutoff)], switch, width, "coordination distribution", elements)
