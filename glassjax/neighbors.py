"""Neighbour lists of periodic cells in one dense layout, built inside jit from static capacities.

`NeighborSpec` is everything static: cutoff, slots per atom, the lattice images that can be in range, and whether candidates come from all
pairs or from a jax-md cell list. `build` is stateless, so it runs under jit, scan and vmap. If an atom has more neighbours than slots the
displacements become NaN and ``Graph.needed`` says how many slots the host must allow (`grow`): nothing is truncated silently.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np

from glassjax._pytree import frozen, static
from glassjax.compaction import compact
from glassjax.images import images_in_range, side_of
from glassjax.structure import Structure, fractional, heights, number_of_atoms

CELL_LIST_FROM = 2000  # atoms; all pairs are faster below (measured by benchmarks/run.py)


@dataclasses.dataclass(frozen=True, kw_only=True)
class NeighborSpec:
    """Static description of a neighbour list (hashable; compile-time constant).

    Attributes:
      cutoff: A.
      capacity: neighbour slots per atom.
      edges: slots of the packed edge list of a whole structure (`Graph.to_jraph`), about half of atoms x capacity.
      shifts: lattice images that can lie inside the cutoff, relative to the minimum image in fractional coordinates and by its side: with f the
        fractional difference of the minimum image, image t is f_b - t_b along axis b where f_b >= 0, and f_b + t_b where f_b < 0. An image on the
        near side of the cell (t_b = 1) is so told from one on the far side (t_b = -1), which is out of range in cells wider than the cutoff.
      grid: cells per axis of the cell list, or None for all pairs.
      cell_capacity: atoms per cell of the cell list.
    """

    cutoff: float
    capacity: int
    edges: int
    shifts: tuple[tuple[int, int, int], ...] = ((0, 0, 0),)
    grid: tuple[int, int, int] | None = None
    cell_capacity: int = 0


@frozen
class Graph:
    """Directed neighbour graph, dense: atom i's neighbours fill row i in slots 0..degree(i)-1.

    Attributes:
      neighbors: [n, k] int32 index of the neighbour (own index in an empty slot).
      displacements: [n, k, 3] from atom i to its neighbour's image, A.
      distances: [n, k] A (the cutoff in an empty slot).
      mask: [n, k] bool, filled slots.
      needed: int32 [3], the largest number of neighbours, the number of edges and the largest cell occupancy met.
      edges: slots of the packed edge list (static).
      cutoff: A (static).
      ordered: every row ascends in the neighbour's index, each met once (static).
    """

    neighbors: jax.Array
    displacements: jax.Array
    distances: jax.Array
    mask: jax.Array
    needed: jax.Array
    edges: int = static()
    cutoff: float = static()
    ordered: bool = static()

    def reverse_slots(self) -> jax.Array:
        """[n, k] slot, in the neighbour's row, of the way back (0 in an empty slot)."""
        if self.ordered:  # rows ascend and no pair is met twice: the slot is a rank
            smaller = (self.neighbors[self.neighbors] < jnp.arange(self.neighbors.shape[0])[:, None, None]) & self.mask[self.neighbors]
            return jnp.sum(smaller, axis=-1, dtype=jnp.int32)
        back = jax.lax.stop_gradient(self.displacements)[self.neighbors]
        owner = self.neighbors[self.neighbors] == jnp.arange(self.neighbors.shape[0])[:, None, None]
        gap = jnp.sum((back + jax.lax.stop_gradient(self.displacements)[:, :, None]) ** 2, axis=-1)
        return jnp.argmin(jnp.where(owner & self.mask[self.neighbors], gap, jnp.inf), axis=-1).astype(jnp.int32)

    def to_jraph(self, species, sigma=None, *, reverse: bool = False, rows: bool = False):
        """The same graph as a `jraph.GraphsTuple`.

        An edge runs from the neighbour (sender) to atom i (receiver). The edge list is packed, ordered by receiver with unused slots at the end, or,
        with ``rows``, keeps the layout of this graph: row i holds the k slots of atom i, used or not.

        Args:
          species: [n] int32.
          sigma: noise level, A; becomes ``globals``.
          reverse: add ``outgoing``, which lets gradients gather instead of scatter (for training).
          rows: see above; such nodes hold ``filled`` [n, k] (the mask) instead of ``incoming``.

        Returns:
          GraphsTuple whose ``edges`` hold ``displacements`` [e, 3], ``distances`` [e] and ``mask`` [e], and whose ``nodes`` hold ``species`` [n],
          ``incoming`` [n, k] and, if asked, ``outgoing`` [n, k]: the edges that end and start at each node, -1 where there is none.
        """
        n, k = self.neighbors.shape
        if rows:
            nodes = dict(species=species, filled=self.mask)
            if reverse:
                nodes["outgoing"] = jnp.where(self.mask, self.neighbors * k + self.reverse_slots(), -1)
            edges = dict(displacements=self.displacements.reshape(n * k, 3), distances=self.distances.reshape(n * k), mask=self.mask.reshape(n * k))
            return _graphs_tuple(nodes, edges, self.neighbors.reshape(n * k), jnp.repeat(jnp.arange(n, dtype=jnp.int32), k), sigma)
        degree = jnp.sum(self.mask, axis=1, dtype=jnp.int32)
        ends = jnp.cumsum(degree)
        first, total = ends - degree, ends[-1]
        edge = jnp.arange(self.edges, dtype=jnp.int32)
        receivers = jnp.minimum(jnp.searchsorted(ends, edge, side="right", method="scan_unrolled"), n - 1).astype(jnp.int32)
        slot = jnp.clip(edge - first[receivers], 0, k - 1)
        mask = edge < total
        fits = total <= self.edges
        chosen = receivers * k + slot
        senders = jnp.where(mask, self.neighbors.reshape(-1)[chosen], receivers)
        displacements = jnp.where(fits, self.displacements.reshape(n * k, 3)[chosen], jnp.nan)
        distances = jnp.where(fits, jnp.where(mask, self.distances.reshape(-1)[chosen], self.cutoff), jnp.nan)
        nodes = dict(species=species, incoming=jnp.where(self.mask, first[:, None] + jnp.arange(k, dtype=jnp.int32)[None], -1))
        if reverse:
            nodes["outgoing"] = jnp.where(self.mask, first[self.neighbors] + self.reverse_slots(), -1)
        return _graphs_tuple(nodes, dict(displacements=displacements, distances=distances, mask=mask), senders, receivers, sigma)


def _graphs_tuple(nodes: dict, edges: dict, senders, receivers, sigma):
    import jraph

    counts = dict(n_node=jnp.array([nodes["species"].shape[0]]), n_edge=jnp.array([senders.shape[0]]))
    return jraph.GraphsTuple(nodes=nodes, edges=edges, senders=senders, receivers=receivers, globals=sigma, **counts)


def neighbor_spec(
    structure: Structure, cutoff: float, *, capacity: int | None = None, margin: float = 4.0, cell_list: bool | None = None
) -> NeighborSpec:
    """A `NeighborSpec` for structures like this one (host).

    Args:
      structure: gives the cell, the number of atoms and the density.
      cutoff: A; may exceed the inscribed radius: the images in range are included.
      capacity: slots per atom; by default estimated from the density with ``margin`` and room for fluctuations.
      margin: room above the mean number of neighbours, in units of its square root (Poisson).
      cell_list: force a jax-md cell list (True) or all pairs (False); by default chosen by size.

    Raises:
      ValueError: the cutoff is not positive, or a cell list is asked for in a cell less than three cutoffs wide.
    """
    if not cutoff > 0:
        raise ValueError(f"cutoff is {cutoff}; needs a positive length in angstrom")
    cell = np.asarray(structure.cell, dtype=float)
    n = structure.positions.shape[-2]
    mean = 4 / 3 * math.pi * cutoff**3 * float(number_of_atoms(structure)) / abs(np.linalg.det(cell))
    if capacity is None:
        capacity = _round_up(mean + margin * math.sqrt(mean) + 3, 4)
    edges = _round_up(1.08 * n * mean + 64, 64)
    grid = tuple(int(h // cutoff) for h in heights(cell))
    if cell_list is None:
        cell_list = n >= CELL_LIST_FROM and min(grid) >= 3
    if not cell_list:
        shifts = images_in_range(cell, cutoff)
        capacity = min(capacity, n * len(shifts))
        return NeighborSpec(cutoff=float(cutoff), capacity=capacity, edges=min(edges, n * capacity), shifts=shifts)
    if min(grid) < 3:
        raise ValueError(f"the cell is {heights(cell).min():.2f} A high; a cell list for cutoff {cutoff} A needs {3 * cutoff:.2f} A: use all pairs")
    occupancy = n / math.prod(grid)
    slots = _round_up(1.5 * occupancy + 4 * math.sqrt(occupancy) + 4, 4)
    return NeighborSpec(cutoff=float(cutoff), capacity=capacity, edges=edges, grid=grid, cell_capacity=slots)


def grow(spec: NeighborSpec, needed) -> NeighborSpec:
    """The spec with capacities raised to what ``Graph.needed`` reported (the maximum over a batch), or the same spec if it suffices."""
    most, edges, occupancy = np.asarray(needed).reshape(-1, 3).max(axis=0)
    if edges > spec.edges:
        spec = dataclasses.replace(spec, edges=_round_up(1.05 * edges, 64))
    if most > spec.capacity:
        spec = dataclasses.replace(spec, capacity=_round_up(1.1 * most, 4))
    if spec.grid is not None and occupancy > spec.cell_capacity:
        spec = dataclasses.replace(spec, cell_capacity=_round_up(1.1 * occupancy, 4))
    return spec


def build(structure: Structure, spec: NeighborSpec) -> Graph:
    """The neighbour graph of one structure; gradients flow through ``displacements`` and ``distances``.

    On overflow every displacement is NaN and ``needed`` tells the capacity to grow to.
    """
    candidates, shift_index, occupancy = _candidates(structure, spec)
    fractions = fractional(jax.lax.stop_gradient(structure.positions), jax.lax.stop_gradient(structure.cell))
    fx, fy, fz = (fractions[:, a] for a in range(3))
    cell = structure.cell
    # per component, never an [n, n, 3] array
    f = [(axis[candidates] if candidates.ndim == 2 else axis[None, :]) - axis[:, None] for axis in (fx, fy, fz)]
    f = [c - jnp.round(c) for c in f]
    sides = [side_of(c) for c in f] if len(spec.shifts) > 1 else f
    hits, owners = [], jnp.arange(fractions.shape[0])[:, None]
    filled = structure.species >= 0
    other = filled[candidates] if candidates.ndim == 2 else filled[None, :]
    partner = candidates if candidates.ndim == 2 else candidates[None, :]
    valid = filled[:, None] & other & (shift_index >= 0)
    fixed = jax.lax.stop_gradient(cell)
    for shift in spec.shifts:
        g = [c - t * side if t else c for c, t, side in zip(f, shift, sides, strict=True)]
        d = [sum(g[b] * fixed[b, a] for b in range(3)) for a in range(3)]
        near = (d[0] ** 2 + d[1] ** 2 + d[2] ** 2 < spec.cutoff**2) & valid
        hits.append(near & (partner != owners) if shift == (0, 0, 0) else near)
    near = jnp.concatenate(hits, axis=1)
    slots, mask, degree = compact(near, spec.capacity)
    most, total = jnp.max(degree), jnp.sum(degree)
    width = f[0].shape[1]
    column, which = slots % width, slots // width
    neighbors = jnp.take_along_axis(candidates, column, axis=1) if candidates.ndim == 2 else column
    neighbors = jnp.where(mask, neighbors, owners)
    table = np.array(spec.shifts)
    own, shifted = structure.positions, len(table) > 1
    # per component: arrays of [n, k, 3] are several times slower to make
    raw = [axis[neighbors] - axis[:, None] for axis in (fx, fy, fz)]
    lattice = [-jnp.round(c) for c in raw]
    if shifted:
        lattice = [m - jnp.asarray(table[:, b], cell.dtype)[which] * side_of(c + m) for b, (c, m) in enumerate(zip(raw, lattice, strict=True))]
    d = [own[:, a][neighbors] - own[:, a, None] + sum(m * cell[b, a] for b, m in enumerate(lattice)) for a in range(3)]
    ordered = spec.grid is None and len(spec.shifts) == 1
    needed = jnp.stack([most, total, occupancy]).astype(jnp.int32)
    fits = (most <= spec.capacity) & ((occupancy <= spec.cell_capacity) if spec.grid is not None else True)
    d = [jnp.where(fits, jnp.where(mask, one, spec.cutoff if a == 0 else 0.0), jnp.nan) for a, one in enumerate(d)]
    distances = jnp.sqrt(d[0] ** 2 + d[1] ** 2 + d[2] ** 2)
    displacements = jnp.stack(d, axis=-1)
    return Graph(
        neighbors=neighbors,
        displacements=displacements,
        distances=distances,
        mask=mask,
        needed=needed,
        edges=spec.edges,
        cutoff=spec.cutoff,
        ordered=ordered,
    )


def _candidates(structure: Structure, spec: NeighborSpec):
    """Candidate columns: [n] (all atoms, shared by the rows) or [n, m] from the cell list, with -1 flags for empty slots."""
    n = structure.positions.shape[0]
    if spec.grid is None:
        return jnp.arange(n, dtype=jnp.int32), jnp.zeros((1, 1), jnp.int32), jnp.zeros((), jnp.int32)
    fractions = fractional(jax.lax.stop_gradient(structure.positions), jax.lax.stop_gradient(structure.cell))
    cells_per_axis = jnp.asarray([spec.grid], fractions.dtype)
    scaled = (fractions - jnp.floor(fractions)) * cells_per_axis
    scaled = jnp.where(scaled >= cells_per_axis, 0.0, scaled)
    with jax.numpy_rank_promotion("allow"):  # jax-md relies on it
        cells = _cell_list(spec.grid).update(scaled, spec.cell_capacity)
    buffer = cells.id_buffer.reshape(*_buffer_shape(spec))
    # jax-md stores cells as [z, y, x, slot]; neighbours of each cell by rolling the whole buffer, then one row gather per atom
    rolled = [jnp.roll(buffer, shift, axis=(0, 1, 2)) for shift in itertools.product((-1, 0, 1), repeat=3)]
    around = jnp.concatenate(rolled, axis=-1)
    index = scaled.astype(jnp.int32)
    rows = around[index[:, 2], index[:, 1], index[:, 0]]
    gx, gy, gz = spec.grid
    flat = (index[:, 2] * gy + index[:, 1]) * gx + index[:, 0]
    occupancy = jnp.max(jnp.zeros(gx * gy * gz, jnp.int32).at[flat].add(1))
    return jnp.minimum(rows, n - 1), jnp.where(rows < n, 0, -1), occupancy


def _buffer_shape(spec: NeighborSpec):
    gx, gy, gz = spec.grid
    return gz, gy, gx, spec.cell_capacity


@functools.lru_cache(maxsize=16)
def _cell_list(grid: tuple[int, int, int]):
    from jax_md import partition

    return partition.cell_list(np.array(grid, dtype=float), 1.0)


def _round_up(value: float, multiple: int) -> int:
    return int(multiple * math.ceil(value / multiple))
