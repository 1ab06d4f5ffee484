"""One pair pass: distances deposited on a fine radial grid per ordered pair of species, with a hand-written gradient.

H_ab(m) = sum over i in a, j in b, images included, of B((r_ij - m h) / h), where B is the cubic B-spline: four weights per pair, O(1). Any pair
sum  sum_ij phi(r_ij)  is then a dot product of H_ab with the spline coefficients of phi (`spline_coefficients`), exact for every function the
spline can represent and O(h^4) otherwise. The gradient gathers spline derivatives at each pair; nothing is scattered.

Small structures go through a neighbour list. From `STREAM_FROM` atoms pairs are streamed instead: atom i meets atom i + o (mod n) for o = 0..n/2,
each pair once, in blocks of offsets, so that no array of n x neighbours is ever made; it is exact, needs no capacity and cannot overflow.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np

from glassjax.images import side_of
from glassjax.neighbors import Graph, NeighborSpec, build
from glassjax.structure import Structure, fractional

STEP = 0.005  # A, spacing of the fine grid: sin(30 r / A) between nodes is right to 1e-6
STREAM_FROM = 256  # atoms; below, and in cells wide enough for a cell list from STREAM_UPTO atoms on, pairs come from a neighbour list
STREAM_UPTO = 7000  # atoms with a cell list; more are listed, at a cost that grows with their number and not its square
STREAM_PAIRS = 65536  # pairs per block


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


def streams(atoms: int, spec: NeighborSpec) -> bool:
    """Whether pairs are streamed instead of listed."""
    return atoms >= STREAM_FROM and (spec.grid is None or atoms < STREAM_UPTO)


def _offsets(structure: Structure, spec: NeighborSpec):
    """(fractions [3, n + reach], species [n + reach], both periodic in n; blocks of (first offset, weights [per], image [3]); n)."""
    n = structure.positions.shape[0]
    per = max(1, min(STREAM_PAIRS // n, n // 2 + 1, 8))
    start = np.arange(0, n // 2 + 1, per)
    offset = start[:, None] + np.arange(per)
    # the atom with its own images, and the opposite atom of an even ring, are met twice
    weights = np.where(offset > n // 2, 0.0, np.where((offset == 0) | (2 * offset == n), 0.5, 1.0))
    shifts = np.array(spec.shifts)
    around = np.arange(start[-1] + per + n) % n
    fractions = fractional(structure.positions, structure.cell)
    kind = fractions.dtype
    steps = (
        jnp.asarray(np.repeat(start, len(shifts)), jnp.int32),
        jnp.asarray(np.repeat(weights, len(shifts), axis=0), kind),
        jnp.asarray(np.tile(shifts, (len(start), 1)), kind),
    )
    return fractions.T[:, around], structure.species[around], steps, n


def _windows(row: jax.Array, per: int) -> jax.Array:
    """row[k : k + n] for k < per, of row [n + per]: [per, n]."""
    return jnp.stack([row[k : row.shape[0] - per + k] for k in range(per)])


def _overlap(rows: jax.Array) -> jax.Array:
    """Sum over k of rows[k] moved to k : k + n, the transpose of `_windows`: [n + per] of [per, n]."""
    per = rows.shape[0]
    return sum(jnp.pad(rows[k], (k, per - k)) for k in range(per))


def _block(fractions, species, cell, n: int, step, reach: float, kinds: int, imaged: bool):
    """Pairs (i, i + offset) of one block [per, n]: lattice and displacement per component, distance, weight (0 beyond ``reach``), pair type.

    Other images than the minimum one only if ``imaged``: they cost a comparison per pair.
    """
    start, weights, shift = step
    per = weights.shape[0]
    rows = jax.lax.dynamic_slice_in_dim(fractions, start, n + per, axis=1)
    other = _windows(jax.lax.dynamic_slice_in_dim(species, start, n + per), per)
    raw = [_windows(row, per) - mine[None, :n] for row, mine in zip(rows, fractions, strict=True)]
    lattice = [-jnp.round(f) for f in raw]
    if imaged:
        lattice = [m - shift[a] * side_of(f + m) for a, (f, m) in enumerate(zip(raw, lattice, strict=True))]
    f = [x + y for x, y in zip(raw, lattice, strict=True)]
    d = [sum(f[b] * cell[b, a] for b in range(3)) for a in range(3)]
    square = d[0] ** 2 + d[1] ** 2 + d[2] ** 2
    itself = (start + jnp.arange(per) == 0) & jnp.all(shift == 0)
    near = (square < reach**2) & (other >= 0) & (species[None, :n] >= 0) & ~itself[:, None]
    r = jnp.sqrt(jnp.where(near, square, 1.0))
    kind = jnp.maximum(species[None, :n], 0) * kinds + jnp.maximum(other, 0)
    return lattice, d, r, jnp.where(near, weights[:, None], 0.0), kind


def _place(r, kind, points: int):
    """Row of each pair in a table of ``points`` intervals per pair type, the first at -h, and the place inside the interval, 0 to 1."""
    scaled = r / STEP
    base = jnp.floor(scaled)
    return kind * points + base.astype(jnp.int32), scaled - base


def _reach(spec: NeighborSpec, points: int) -> float:
    """The farthest pair that a grid of ``points`` nodes holds."""
    return min(spec.cutoff, (points - 2) * STEP)


def stream_deposit(structure: Structure, spec: NeighborSpec, points: int) -> jax.Array:
    """The same histogram [e * e, points] as `deposit`, from streamed pairs."""
    e = len(structure.elements)
    fractions, species, steps, n = _offsets(structure, spec)

    def step(table, given):
        _, _, r, weight, kind = _block(fractions, species, structure.cell, n, given, _reach(spec, points), e, len(spec.shifts) > 1)
        row, _ = _place(r, kind, points)
        shares = jnp.stack([weight * w for w in _weights(r)[1]], axis=-1)
        # one scatter of four neighbouring numbers per pair
        return table.at[row.reshape(-1)].add(shares.reshape(-1, 4)), None

    table, _ = jax.lax.scan(step, jnp.zeros((e * e * points, 4), fractions.dtype), steps)
    table = table.reshape(e, e, points, 4)
    # the share o of the interval at m belongs to node m - 1 + o
    nodes = sum(jnp.pad(table[..., o], ((0, 0), (0, 0), (o, 3 - o))) for o in range(4))[..., 1 : points + 1]
    return (nodes + nodes.swapaxes(0, 1)).reshape(e * e, points)


def stream_back(structure: Structure, spec: NeighborSpec, cotangent: jax.Array) -> tuple[jax.Array, jax.Array]:
    """dL/d positions [n, 3] and dL/d cell [3, 3] from ``cotangent`` = dL/dH [e * e, points], with pairs streamed again."""
    kinds, points = cotangent.shape
    e = len(structure.elements)
    both = cotangent + cotangent.reshape(e, e, points).swapaxes(0, 1).reshape(kinds, points)
    padded = jnp.pad(both, ((0, 0), (1, 2)))
    c = [padded[:, o : o + points] for o in range(4)]
    # slope in an interval, a quadratic in the place t: one gather of three numbers per pair
    table = jnp.stack([c[2] - c[0], 2 * (c[0] - 2 * c[1] + c[2]), c[3] - c[0] + 3 * (c[1] - c[2])], axis=-1).reshape(-1, 3) / (2 * STEP)
    fractions, species, steps, n = _offsets(structure, spec)
    per = steps[1].shape[1]

    def step(carry, given):
        force, strain = carry
        lattice, d, r, weight, kind = _block(fractions, species, structure.cell, n, given, _reach(spec, points), e, len(spec.shifts) > 1)
        row, t = _place(r, kind, points)
        a = table[row]
        pull = (a[..., 0] + t * (a[..., 1] + t * a[..., 2])) * weight / jnp.maximum(r, 1e-6)
        push = [jnp.where(weight > 0, pull, 0.0) * x for x in d]
        strain = strain + jnp.stack([jnp.stack([jnp.sum(x * p) for p in push]) for x in lattice])
        theirs = jnp.stack([_overlap(p) for p in push]) + jax.lax.dynamic_slice_in_dim(force, given[0], n + per, axis=1)
        force = jax.lax.dynamic_update_slice_in_dim(force, theirs, given[0], axis=1)
        return (force.at[:, :n].add(-jnp.stack([jnp.sum(p, axis=0) for p in push])), strain), None

    start = (jnp.zeros(fractions.shape, fractions.dtype), jnp.zeros((3, 3), fractions.dtype))
    (force, strain), _ = jax.lax.scan(step, start, steps)
    laps = -(-force.shape[1] // n)
    force = jnp.pad(force, ((0, 0), (0, laps * n - force.shape[1])))
    return jnp.sum(force.reshape(3, laps, n), axis=1).T, strain


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4, 5))
def _histogram(positions, cell, species, elements, spec, points):
    return _forward(positions, cell, species, elements, spec, points)[0]


def _forward(positions, cell, species, elements, spec, points):
    structure = Structure(positions=positions, cell=cell, species=species, elements=elements)
    if streams(positions.shape[0], spec):
        return (stream_deposit(structure, spec, points), jnp.zeros(3, jnp.int32)), (structure, None)
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
    if graph is None:
        return *stream_back(structure, spec, cotangents[0]), None
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
      (H [e * e, points], needed): H[a * e + b] sums over ordered pairs; differentiable in positions and cell. ``needed`` is `Graph.needed`, zero
      where pairs are streamed.
    """
    return _histogram(structure.positions, structure.cell, structure.species, structure.elements, spec, points)
