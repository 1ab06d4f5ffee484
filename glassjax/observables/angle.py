"""Bond-angle distribution: one linear map of the histogram of angles (`angle_histogram`).

The curve is R A / sum_m A_m with the histogram A. Rows of R are even about 0 and pi, so the derivative with respect to cos(theta) is finite for
collinear triplets.
"""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

from glassjax._pytree import frozen, static
from glassjax.neighbors import Graph, NeighborSpec
from glassjax.observables.angle_histogram import PADDING, deposit, derivatives, histogram
from glassjax.observables.coordination import bonded, check_switch, gathered_graph, same_elements
from glassjax.observables.listed import Listed
from glassjax.observables.weights import fractions_of
from glassjax.structure import Structure, pair_matrix


@frozen
class AngleDistribution(Listed):
    """See `angle_distribution`; ``observable(structure) -> [m]``.

    Time and memory go with the square of the list's capacity: one fitted to a glass (``fit(structure, margin=2)``) takes half of the time for a
    gradient that the default takes, which is made for a gas.

    Attributes:
      x: [m] angles, degrees.
      rows: [m, nodes] spline coefficients of the broadening, 1/rad.
      cutoffs: [e, e] bond cutoffs, A; 0 for pairs that do not bond.
      triplet: indices (end, centre, end), -1 for every element (static).
      switch: A, width of the switch about the cutoff (static).
      function: "ADF" (static).
      elements: species order (static).
      rmax: A, the farthest neighbour that counts (static).
      convention: one line for the record (static).
      spec: neighbour list out to ``rmax`` (static).
    """

    x: jax.Array
    rows: jax.Array
    cutoffs: jax.Array
    triplet: tuple[int, int, int] = static()
    switch: float = static()
    elements: tuple[str, ...] = static()
    rmax: float = static()
    function: str = static(default="ADF")
    convention: str = static(default="")
    spec: NeighborSpec | None = static(default=None)

    def __call__(self, structure: Structure) -> jax.Array:
        """The curve [m], 1/rad; zeros without any triplet; NaN if the neighbour list overflowed."""
        same_elements(self, structure)
        graph = gathered_graph(structure, self.listed(structure))
        counts = histogram(*self._legs(structure, graph), self.switch, self.rows.shape[1] - PADDING)
        return self._curve(counts)[0]

    def _curve(self, counts):
        """(curve [m], total weight of the triplets, or infinity where there is none)."""
        total = jnp.sum(counts)
        total = jnp.where(total < 1e-6, jnp.inf, total)  # NaN stays NaN
        return self.rows @ (counts / total), total

    def _legs(self, structure: Structure, graph: Graph):
        """(displacements [n, k, 3], cutoffs [n, k], and whether a neighbour may be the first or the second end [n, k])."""
        first, centre, second = self.triplet
        species = structure.species
        other = jnp.where(graph.mask, species[graph.neighbors], -1)
        inner = graph.mask & ((species >= 0) if centre < 0 else (species == centre))[:, None]
        ends = [inner & ((other >= 0) if end < 0 else (other == end)) for end in (first, second)]
        cutoff = jnp.where(inner, self.cutoffs[jnp.maximum(species, 0)[:, None], jnp.maximum(other, 0)], 0.0)
        return graph.displacements, cutoff, *ends

    def linearize(self, structure: Structure, graph: Graph) -> tuple[jax.Array, jax.Array, jax.Array]:
        """The curve and its exact derivatives from a graph that reaches at least ``rmax``.

        A graph that reaches farther is cut down to the bonds, in the capacity of ``spec``; build it with ``spec`` to have overflow reported.

        Returns:
          (curve [m], d curve / d positions [n, 3, m], d curve / d ln L at fixed fractional coordinates [m]); NaN where the graph overflowed.
        """
        same_elements(self, structure)
        graph = bonded(graph, graph.distances < self.rmax, None if self.spec is None else self.spec.capacity)
        legs = self._legs(structure, graph)
        curve, total = self._curve(deposit(legs, self.switch, self.rows.shape[1] - PADDING))
        # B-splines sum to 1: rows - curve holds the derivative of the normalisation too
        rows = (self.rows - curve[:, None]) / total
        jacobian, strain = derivatives(legs, graph.neighbors, self.switch, self.rows.shape[1] - PADDING)
        precise = functools.partial(jnp.einsum, precision="highest")  # large terms of either sign
        return curve, precise("inc,mn->icm", jacobian, rows), precise("mn,n->m", rows, strain)


def _even_rows(angles, width: float, intervals: int) -> np.ndarray:
    """Spline coefficients [m, intervals + 4] of Gaussians about ``angles`` (rad), reflected at 0 and pi (host, float64)."""
    nodes = np.arange(2 * intervals) * math.pi / intervals
    gap = np.remainder(angles[:, None] - nodes + math.pi, 2 * math.pi) - math.pi
    turns = 2 * math.pi * np.arange(-2, 3)[:, None, None]
    values = np.exp(-0.5 * ((gap + turns) / width) ** 2).sum(axis=0) / (math.sqrt(2 * math.pi) * width)
    values = values + np.roll(values[:, ::-1], 1, axis=1)
    damping = (2 + np.cos(np.arange(intervals + 1) * math.pi / intervals)) / 3  # periodic cubic spline
    coefficients = np.fft.irfft(np.fft.rfft(values) / damping, 2 * intervals)
    return coefficients[:, np.arange(-1, intervals + PADDING - 1) % (2 * intervals)]


def angle_distribution(angles, composition, *, cutoff, triplet=None, width: float = 0.1, switch: float = 0.0) -> AngleDistribution:
    """Distribution of the angle at a central atom between two of its bonded neighbours, 1/rad.

    p(x) = sum over triplets of w w' [G(x - theta) + mirror images at 0 and pi] / sum of w w', each angle once, with G a Gaussian of standard
    deviation ``width``: the integral over [0, pi] in radians is exactly 1 (mirror images keep what a Gaussian would lose beyond the ends). w is the
    bond's weight (`coordination.switch_weight`). No triplet gives zeros. Not divided by sin(theta): an ideal gas gives sin(x) / 2, not a constant.

    Args:
      angles: [m] ascending, degrees, from 0 to 180.
      composition: symbols per atom, or a mapping element -> amount; gives the order of the elements.
      cutoff: A, bond cutoff: one number, or a mapping of element pairs (pairs left out do not bond).
      triplet: "O-Si-O" or ("O", "Si", "O"), the centre in the middle; None for all.
      width: rad, at least 0.02.
      switch: A. 0 counts bonds r < cutoff (the published definition; a gradient does not see bonds form or break). For guidance use about 0.3: a bond
        then fades from cutoff - switch/2 to cutoff + switch/2.

    Raises:
      ValueError: angles out of order or range, unknown elements, width, cutoff or switch out of range.
    """
    degrees, elements = np.asarray(angles, dtype=float), tuple(fractions_of(composition))
    if degrees.ndim != 1 or len(degrees) < 2 or not (np.diff(degrees) > 0).all() or degrees[0] < 0 or degrees[-1] > 180:
        raise ValueError("angles must be one-dimensional and ascending, in degrees from 0 to 180")
    if not 0.02 <= width <= math.pi:
        raise ValueError(f"width is {width} rad; needs 0.02 to pi (0.1 is the usual one)")
    names = (None,) * 3 if triplet is None else tuple(triplet.split("-")) if isinstance(triplet, str) else tuple(triplet)
    if len(names) != 3 or (triplet is not None and any(name not in elements for name in names)):
        raise ValueError(f"triplet is {triplet!r}; needs three elements, the centre in the middle, from {', '.join(elements)}")
    cutoffs = pair_matrix(cutoff, elements)
    reach = check_switch(cutoffs, switch)
    kind = jnp.result_type(float)
    label = "all triplets" if triplet is None else "-".join(names)
    return AngleDistribution(
        x=jnp.asarray(degrees, kind),
        rows=jnp.asarray(_even_rows(np.radians(degrees), width, max(256, math.ceil(8 * math.pi / width))), kind),
        cutoffs=jnp.asarray(cutoffs, kind),
        triplet=tuple(-1 if triplet is None else elements.index(name) for name in names),
        switch=float(switch),
        elements=elements,
        rmax=reach,
        convention=f"ADF of {label}, 1/rad over [0, pi], x in degrees; Gaussian {width:g} rad; cutoff {cutoffs.max():g} A, switch {switch:g} A",
    )
