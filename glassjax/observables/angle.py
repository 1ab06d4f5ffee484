"""Bond-angle distribution: angles deposited on a fine grid with cubic B-spline weights, then one linear map, with hand-written derivatives.

A_m = sum over centres i, over pairs of bonded neighbours j < k, of w_ij w_ik B(theta_jik / h - m), h = pi / M; the curve is R A / sum_m A_m. The
B-splines sum to 1, so sum_m A_m is the total weight of the triplets. Rows of R are even about 0 and pi, so the derivative with respect to
cos(theta) is finite for collinear triplets.
"""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

from glassjax._pytree import frozen, static
from glassjax.neighbors import Graph, NeighborSpec
from glassjax.observables.coordination import bonded, check_switch, gathered_graph, onto_atoms, same_elements, strain_of, switch_weight
from glassjax.observables.listed import Listed
from glassjax.observables.weights import fractions_of
from glassjax.structure import Structure, pair_matrix

BLOCK = 32  # atoms per block: bounds the memory of triplets
CHUNK = 32  # points of the curve per pass of the Jacobian: bounds the memory of its edges
PADDING = 4  # nodes beyond M intervals: one below 0, two above pi, and pi itself


def _spline(cosine, intervals: int):
    """First of four nodes (grid shifted by one, so never negative), four weights and their derivatives with respect to theta."""
    theta = jnp.arccos(cosine)
    scaled = jnp.clip(theta * (intervals / math.pi), 0.0, float(intervals))
    base = jnp.floor(scaled)
    t = scaled - base
    u = 1.0 - t
    weights = (u**3 / 6, (3 * t**3 - 6 * t**2 + 4) / 6, (3 * u**3 - 6 * u**2 + 4) / 6, t**3 / 6)
    h = 2 * math.pi / intervals
    slopes = (-(u**2) / h, (3 * t**2 - 4 * t) / h, (4 * u - 3 * u**2) / h, t**2 / h)
    return base.astype(jnp.int32), weights, slopes


def _triplets(part, switch: float):
    """Units [b, k, 3], lengths [b, k], bond weights and slopes [b, k], cosines [b, P] and which pairs of slots [b, P] count, of a block of atoms."""
    displacements, cutoff, first, second = part
    r = jnp.sqrt(jnp.sum(displacements**2, axis=-1))
    r = jnp.maximum(r, 1e-3)
    unit = displacements / r[..., None]
    weight, slope = switch_weight(r, cutoff, switch)
    k = r.shape[1]
    a, b = np.triu_indices(k, 1)
    cosine = jnp.clip(jnp.einsum("iac,ibc->iab", unit, unit).reshape(-1, k * k)[:, a * k + b], -1.0, 1.0)
    count = (first[:, :, None] & second[:, None, :]) | (second[:, :, None] & first[:, None, :])
    return unit, r, weight, slope, cosine, count.reshape(-1, k * k)[:, a * k + b]


def _expansion(k: int):
    """[k, k] index of the pair of slots (a, b), in either order, among the P pairs; P on the diagonal."""
    table = np.full((k, k), k * (k - 1) // 2, np.int32)
    a, b = np.triu_indices(k, 1)
    table[a, b] = table[b, a] = np.arange(len(a))
    return table


def _blocks(legs):
    """The legs cut into blocks of atoms, the last one filled up with atoms that have no neighbour."""
    displacements, cutoff, first, second = legs
    n = cutoff.shape[0]
    block = min(BLOCK, n)

    def cut(array, fill):
        array = jnp.pad(array, ((0, -n % block),) + ((0, 0),) * (array.ndim - 1), constant_values=fill)
        return array.reshape(-1, block, *array.shape[1:])

    return cut(displacements, 1.0), cut(cutoff, 0.0), cut(first, False), cut(second, False)


def _deposit(legs, switch: float, intervals: int):
    """A [intervals + 4] of the legs of all atoms; NaN where a displacement is."""
    k = legs[1].shape[1]
    a, b = np.triu_indices(k, 1)

    def accumulate(total, part):
        _, _, weight, _, cosine, count = _triplets(part, switch)
        amount = jnp.where(count, weight[:, a] * weight[:, b], 0.0)
        base, weights, _ = _spline(cosine, intervals)
        for offset, share in enumerate(weights):
            total = total.at[(base + offset).reshape(-1)].add((amount * share).reshape(-1))
        return total, None

    total, _ = jax.lax.scan(accumulate, jnp.zeros(intervals + PADDING, legs[0].dtype), _blocks(legs))
    return jnp.where(jnp.isnan(legs[0]).any(), jnp.nan, total)


def _push(legs, columns, switch: float):
    """d(columns . A)/d displacement [n, k, 3, m] of every leg, for ``columns`` [intervals + 4, m]."""
    n, k = legs[1].shape
    intervals = columns.shape[0] - PADDING
    expand = _expansion(k)

    def spread(pairs):  # [b, P, m] -> [b, k, k, m], zero on the diagonal
        return jnp.pad(pairs, ((0, 0), (0, 1), (0, 0)))[:, expand]

    def step(_, part):
        unit, r, weight, slope, cosine, count = _triplets(part, switch)
        base, weights, slopes = _spline(cosine, intervals)
        around = [columns[base + o] for o in range(4)]
        sine = jnp.sqrt(jnp.maximum((1.0 - cosine) * (1.0 + cosine), 1e-10))
        # d theta / d cos = -1 / sin; the slope of an even function vanishes at both ends faster than the guard acts
        turn = -sum(c * s[..., None] for c, s in zip(around, slopes, strict=True)) * jnp.where(count, 1.0 / sine, 0.0)[..., None]
        legs_weight = weight[:, :, None] * weight[:, None, :]
        bend = spread(turn) * legs_weight[..., None]
        along = jnp.sum(bend * spread(cosine[..., None]), axis=2)
        push = (jnp.einsum("iabm,ibc->iacm", bend, unit) - unit[..., None] * along[:, :, None]) / r[..., None, None]
        if switch > 0:
            value = sum(c * s[..., None] for c, s in zip(around, weights, strict=True)) * count[..., None]
            stretch = jnp.einsum("iabm,ib->iam", spread(value), weight) * slope[..., None]
            push = push + unit[..., None] * stretch[:, :, None]
        return None, push

    _, push = jax.lax.scan(step, None, _blocks(legs))
    return push.reshape(-1, k, 3, columns.shape[1])[:n]


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def _histogram(displacements, cutoff, first, second, switch, intervals):
    return _deposit((displacements, cutoff, first, second), switch, intervals)


def _forward(displacements, cutoff, first, second, switch, intervals):
    legs = (displacements, cutoff, first, second)
    return _deposit(legs, switch, intervals), legs


def _backward(switch, intervals, legs, cotangent):
    return _push(legs, cotangent[:, None], switch)[..., 0], None, None, None


_histogram.defvjp(_forward, _backward)


@frozen
class AngleDistribution(Listed):
    """See `angle_distribution`; ``observable(structure) -> [m]``.

    Time and memory go with the square of the list's capacity: one fitted to a glass (``fit(structure, margin=2)``) halves those of the default, made
    for a gas.

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
        counts = _histogram(*self._legs(structure, graph), self.switch, self.rows.shape[1] - PADDING)
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
        curve, total = self._curve(_deposit(legs, self.switch, self.rows.shape[1] - PADDING))
        m = len(curve)
        # B-splines sum to 1: rows - curve holds the derivative of the normalisation too
        rows = jnp.pad((self.rows - curve[:, None]) / total, ((0, -m % min(CHUNK, m)), (0, 0)))

        def derivative(part):
            push = _push(legs, part.T, self.switch)
            push = jnp.where(graph.mask[..., None, None], push, 0.0)
            return onto_atoms(graph, push), strain_of(graph, push)

        jacobian, strain = jax.lax.map(derivative, rows.reshape(-1, min(CHUNK, m), rows.shape[1]))
        jacobian = jnp.moveaxis(jacobian, 0, 2).reshape(*structure.positions.shape, -1)
        return curve, jacobian[..., :m], strain.reshape(-1)[:m]


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
