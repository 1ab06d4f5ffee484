"""One pair pass: distances deposited on a fine radial grid per ordered pair of species, with a hand-written gradient.

H_ab(m) = sum over i in a, j in b, images included, of B((r_ij - m h) / h), where B is the cubic B-spline: four weights per pair, O(1). Any pair
sum  sum_ij phi(r_ij)  is then a dot product of H_ab with the spline coefficients of phi (`spline_coefficients`), exact for every function the
spline can represent and O(h^4) otherwise. The gradient gathers spline derivatives at each pair; nothing is scattered.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np

from glassjax.neighbors import Graph, NeighborSpec, build
from glassjax.structure import Structure

STEP = 0.02  # A, spacing of the fine grid


def grid(points: int) -> np.ndarray:
    """Nodes of the fine grid [points], A: 0, h, 2h, ..."""
    return STEP * np.arange(points)


def spline_coefficients(values: np.ndarray) -> np.ndarray:
    """Coefficients c with sum_m c_m B((r - m h)/h) equal to ``values`` at the nodes (last axis), natural ends (host, float64)."""
    from scipy.linalg import solve_banded

    values = np.asarray(values, dtype=float)
    n = values.shape[-1]
    bands = np.zeros((3, n))
    bands[0, 1:], bands[1], bands[2, :-1] = 1 / 6, 4 / 6, 1 / 6
    # linear extrapolation of the coefficients at both ends: c_{-1} = 2 c_0 - c_1
    bands[1, 0] = bands[1, -1] = 1.0
    bands[0, 1] = bands[2, -2] = 0.0
    return solve_banded((1, 1), bands, values.reshape(-1, n).T).T.reshape(values.shape)


def _weights(distances):
    """Index of the first of four nodes, the four weights and their derivatives with respect to r."""
    scaled = distances / STEP
    base = jnp.floor(scaled)
    t = scaled - base
    u = 1.0 - t
    weights = (u**3 / 6, (3 * t**3 - 6 * t**2 + 4) / 6, (3 * u**3 - 6 * u**2 + 4) / 6, t**3 / 6)
    slopes = (-(u**2) / (2 * STEP), (3 * t**2 - 4 * t) / (2 * STEP), (4 * u - 3 * u**2) / (2 * STEP), t**2 / (2 * STEP))
    return base.astype(jnp.int32) - 1, weights, slopes


def slope_table(rows: jax.Array, refine: int) -> jax.Array:
    """Derivatives d/dr of pair functions with spline coefficients ``rows`` [..., points], on a grid ``refine`` times denser [..., points * refine].

    Exact at its nodes; zero on the first interval and the last three, which hold no pair.
    """
    columns = []
    for part in range(refine):
        _, _, slopes = _weights(jnp.asarray((1 + part / refine) * STEP, rows.dtype))
        columns.append(sum(jnp.roll(rows, 1 - o, axis=-1) * s for o, s in enumerate(slopes)))
    table = jnp.stack(columns, axis=-1)
    table = table.at[..., :1, :].set(0.0).at[..., -3:, :].set(0.0)
    return table.reshape(*rows.shape[:-1], -1)


def pair_type(structure: Structure, graph: Graph):
    """Flat index a * e + b of each ordered pair [n, k]."""
    species = jnp.maximum(structure.species, 0)
    return species[:, None] * len(structure.elements) + species[graph.neighbors]


def deposit(structure: Structure, graph: Graph, points: int) -> jax.Array:
    """Histogram [e * e, points] of a graph; no gradient (see `pair_histogram`). NaN where the graph overflowed."""
    kinds = len(structure.elements) ** 2
    first, weights, _ = _weights(graph.distances)
    row = pair_type(structure, graph) * points
    # two nodes of padding on the left keep r < h in range; pairs beyond the grid and empty slots go to a spare bin
    inside = graph.mask & (first + 3 < points) & (first >= -1)
    total = jnp.zeros(kinds * points + 2, graph.distances.dtype)
    spare = kinds * points
    for offset, weight in enumerate(weights):
        node = first + offset
        index = jnp.where(inside & (node >= 0), row + node, spare)
        total = total.at[index.reshape(-1)].add(jnp.where(inside, weight, 0.0).reshape(-1))
    total = jnp.where(jnp.isnan(graph.distances).any(), jnp.nan, total)
    return total[:-2].reshape(kinds, points)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4, 5))
def _histogram(positions, cell, species, elements, spec, points):
    structure = Structure(positions=positions, cell=cell, species=species, elements=elements)
    graph = build(structure, spec)
    return deposit(structure, graph, points), graph.needed


def _forward(positions, cell, species, elements, spec, points):
    structure = Structure(positions=positions, cell=cell, species=species, elements=elements)
    graph = build(structure, spec)
    return (deposit(structure, graph, points), graph.needed), (structure, graph)


def pull_back(structure: Structure, graph: Graph, cotangent: jax.Array) -> jax.Array:
    """dL/dr of each directed pair [n, k] from ``cotangent`` = dL/dH [e * e, points], both directions of a pair together."""
    kinds, points = cotangent.shape
    e = len(structure.elements)
    both = cotangent + cotangent.reshape(e, e, points).swapaxes(0, 1).reshape(kinds, points)
    first, _, slopes = _weights(graph.distances)
    row = pair_type(structure, graph) * points
    inside = graph.mask & (first + 3 < points) & (first >= -1)
    flat = both.reshape(-1)
    slope = sum(jnp.where(inside & (first + o >= 0), flat[jnp.clip(row + first + o, 0, kinds * points - 1)] * w, 0.0) for o, w in enumerate(slopes))
    return slope


def _backward(elements, spec, points, residual, cotangents):
    structure, graph = residual
    slope = pull_back(structure, graph, cotangents[0])
    unit = graph.displacements / jnp.maximum(graph.distances, 1e-6)[..., None]
    push = slope[..., None] * unit
    # each pair is met twice, once from each end: the sum over one end's pairs is the whole derivative
    positions = -jnp.sum(push, axis=1)
    # positions are Cartesian, so the cell acts only through the lattice shift of each image
    direct = structure.positions[graph.neighbors] - structure.positions[:, None]
    shift = jnp.round((graph.displacements - direct) @ jnp.linalg.inv(structure.cell))
    cell = 0.5 * jnp.einsum("nka,nkb->ab", jnp.where(graph.mask[..., None], shift, 0.0), push)
    return positions, cell, None


_histogram.defvjp(_forward, _backward)


def pair_histogram(structure: Structure, spec: NeighborSpec, points: int) -> tuple[jax.Array, jax.Array]:
    """Partial pair histograms of one structure.

    Args:
      structure: the structure.
      spec: neighbour list whose cutoff reaches the grid's end (images beyond the inscribed radius included).
      points: nodes of the grid (static); the last three hold no pair.

    Returns:
      (H [e * e, points], needed): H[a * e + b] sums over ordered pairs; differentiable in positions and cell.
    """
    return _histogram(structure.positions, structure.cell, structure.species, structure.elements, spec, points)
