"""Angles deposited on a fine grid with cubic B-spline weights, with hand-written derivatives.

A_m = sum over centres i, over pairs of bonded neighbours j < k, of w_ij w_ik B(theta_jik / h - m), h = pi / M: four weights per triplet, B the cubic
B-spline, w the weights of the bonds. The B-splines sum to 1, so sum_m A_m is the total weight of the triplets. A function of the angle is then a dot
product of A with its spline coefficients (`angle.AngleDistribution`). The gradient gathers; the full Jacobian is added up at the four nodes of every
angle.

Legs of n atoms to k neighbours: (displacements [n, k, 3], bond cutoffs [n, k], and whether a neighbour may be the first or the second end [n, k]).
"""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

from glassjax.observables.coordination import switch_weight

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


def deposit(legs, switch: float, intervals: int):
    """A [intervals + 4] of the legs of all atoms, bonds fading over ``switch`` (A), intervals = M; NaN where a displacement is.

    As `histogram`, without its hand-written gradient: for `derivatives`, which stands beside it.
    """
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


def derivatives(legs, neighbors, switch: float, intervals: int):
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
def histogram(displacements, cutoff, first, second, switch, intervals):
    """A [intervals + 4] of the legs, with a gradient by the displacements that gathers; NaN where a displacement is."""
    return deposit((displacements, cutoff, first, second), switch, intervals)


def _forward(displacements, cutoff, first, second, switch, intervals):
    legs = (displacements, cutoff, first, second)
    return deposit(legs, switch, intervals), legs


def _backward(switch, intervals, legs, cotangent):
    return _push(legs, cotangent, switch), None, None, None


histogram.defvjp(_forward, _backward)
