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
from glassjax.observables.coordination import bonded, check_switch, gathered_graph, same_elements, switch_weight
from glassjax.observables.listed import Listed
from glassjax.observables.weights import fractions_of
from glassjax.structure import Structure, pair_matrix

BLOCK = 32  # atoms per block: bounds the memory of triplets
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


def _blocks(legs, *more):
    """The legs, and more arrays of indices of atoms, cut into blocks of atoms, the last one filled up with atoms that have no neighbour."""
    displacements, cutoff, first, second = legs
    n = cutoff.shape[0]
    block = min(BLOCK, n)

    def cut(array, fill):
        array = jnp.pad(array, ((0, -n % block),) + ((0, 0),) * (array.ndim - 1), constant_values=fill)
        return array.reshape(-1, block, *array.shape[1:])

    return (cut(displacements, 1.0), cut(cutoff, 0.0), cut(first, False), cut(second, False), *(cut(array, 0) for array in more))


def _onto(total, base, weights, amount):
    """``total`` [nodes] with ``amount`` [...] shared out by the four ``weights`` over the nodes from ``base`` [...] on."""
    for offset, share in enumerate(weights):
        total = total.at[(base + offset).reshape(-1)].add((amount * share).reshape(-1).astype(total.dtype))
    return total


def _deposit(legs, switch: float, intervals: int):
    """A [intervals + 4] of the legs of all atoms; NaN where a displacement is."""
    k = legs[1].shape[1]
    a, b = np.triu_indices(k, 1)

    def accumulate(total, part):
        _, _, weight, _, cosine, count = _triplets(part, switch)
        amount = jnp.where(count, weight[:, a] * weight[:, b], 0.0)
        base, weights, _ = _spline(cosine, intervals)
        return _onto(total, base, weights, amount), None

    total, _ = jax.lax.scan(accumulate, jnp.zeros(intervals + PADDING, legs[0].dtype), _blocks(legs))
    return jnp.where(jnp.isnan(legs[0]).any(), jnp.nan, total)


def _push(legs, column, switch: float):
    """d(column . A)/d displacement [n, k, 3] of every leg, for ``column`` [intervals + 4]."""
    n, k = legs[1].shape
    intervals = column.shape[0] - PADDING
    expand = _expansion(k)

    def spread(pairs):  # [b, P] -> [b, k, k], zero on the diagonal
        return jnp.pad(pairs, ((0, 0), (0, 1)))[:, expand]

    def step(_, part):
        unit, r, weight, slope, cosine, count = _triplets(part, switch)
        base, weights, slopes = _spline(cosine, intervals)
        around = [column[base + o] for o in range(4)]
        turn = sum(c * s for c, s in zip(around, slopes, strict=True)) * jnp.where(count, _bend(cosine), 0.0)
        bend = spread(turn) * weight[:, :, None] * weight[:, None, :]
        push = (jnp.einsum("iab,ibc->iac", bend, unit) - unit * jnp.sum(bend * spread(cosine), axis=2)[..., None]) / r[..., None]
        if switch > 0:
            value = sum(c * s for c, s in zip(around, weights, strict=True)) * count
            push = push + unit * (jnp.einsum("iab,ib->ia", spread(value), weight) * slope)[..., None]
        return None, push

    _, push = jax.lax.scan(step, None, _blocks(legs))
    return push.reshape(-1, k, 3)[:n]


def _bend(cosine):
    """d theta / d cos = -1 / sin, held where atoms stand in line: there the slope of an even function vanishes faster."""
    return -1.0 / jnp.sqrt(jnp.maximum((1.0 - cosine) * (1.0 + cosine), 1e-10))


def _add(total, rows, nodes, values):
    """``total`` [n, nodes, 3] with ``values`` [..., 4, 3] added at rows [...] and the four nodes from [...] on; beyond the last node nowhere.

    The dtypes may differ: a structure in single precision with an observable in double.
    """
    where = jnp.stack([rows, nodes], axis=-1).reshape(-1, 2)
    numbers = jax.lax.ScatterDimensionNumbers(update_window_dims=(1, 2), inserted_window_dims=(0,), scatter_dims_to_operand_dims=(0, 1))
    return jax.lax.scatter_add(total, where, values.reshape(-1, 4, 3).astype(total.dtype), numbers, mode="drop")


def _derivatives(legs, neighbors, switch: float, intervals: int):
    """(dA/d positions [n, nodes, 3], dA/d ln L [nodes]) of the legs to ``neighbors`` [n, k].

    Angles do not change with the size of the cell, bond weights do.
    """
    n, k = neighbors.shape
    a, b = np.triu_indices(k, 1)
    nodes = intervals + PADDING

    def accumulate(carry, part):
        total, strain = carry
        *block, ends, centres = part
        unit, r, weight, slope, cosine, count = _triplets(block, switch)
        near = r < block[1] + switch / 2
        count = count & near[:, a] & near[:, b]
        base, weights, slopes = _spline(cosine, intervals)
        turn = jnp.where(count, weight[:, a] * weight[:, b] * _bend(cosine), 0.0)
        bent, value = jnp.stack(slopes, axis=-1) * turn[..., None], jnp.stack(weights, axis=-1)

        def moved(one, other):  # [block, P, 4, 3], d/d displacement of the leg ``one``
            around = (unit[:, other] - cosine[..., None] * unit[:, one]) / r[:, one, None]
            push = bent[..., None] * around[..., None, :]
            if switch > 0:
                stretch = jnp.where(count, slope[:, one] * weight[:, other], 0.0)
                push = push + (value * stretch[..., None])[..., None] * unit[:, one, None, :]
            return push

        one, other, centre = moved(a, b), moved(b, a), jnp.broadcast_to(centres[:, None], base.shape)
        where = jnp.where(count, base, nodes)  # nowhere, so that most slots cost nothing
        for rows, values in ((ends[:, a], one), (ends[:, b], other), (centre, -one - other)):
            total = _add(total, rows, where, values)
        if switch > 0:
            longer = slope * r  # dw / d ln L
            amount = jnp.where(count, longer[:, a] * weight[:, b] + weight[:, a] * longer[:, b], 0.0)
            strain = _onto(strain, base, weights, amount)
        return (total, strain), None

    start = jnp.zeros((n, nodes, 3), legs[0].dtype), jnp.zeros(nodes, legs[0].dtype)
    return jax.lax.scan(accumulate, start, _blocks(legs, neighbors, jnp.arange(n, dtype=neighbors.dtype)))[0]


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def _histogram(displacements, cutoff, first, second, switch, intervals):
    return _deposit((displacements, cutoff, first, second), switch, intervals)


def _forward(displacements, cutoff, first, second, switch, intervals):
    legs = (displacements, cutoff, first, second)
    return _deposit(legs, switch, intervals), legs


def _backward(switch, intervals, legs, cotangent):
    return _push(legs, cotangent, switch), None, None, None


_histogram.defvjp(_forward, _backward)


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
        # B-splines sum to 1: rows - curve holds the derivative of the normalisation too
        rows = (self.rows - curve[:, None]) / total
        jacobian, strain = _derivatives(legs, graph.neighbors, self.switch, self.rows.shape[1] - PADDING)
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
