"""Shortest-path rings of the bond network (Franzblau, Phys. Rev. B 44, 4925 (1991)), counted by matscipy (extra ``analysis``)."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping

import numpy as np

from glassjax.analysis.bonds import Bonds, bonds
from glassjax.structure import Structure, heights

SMALLEST, LARGEST = 3, 12
OPEN, LARGEST_OPEN = 3.0, 20  # mean coordination below which every other atom only links two (silica, 10 Si), and what is searched there
CROWDED, LARGEST_CROWDED = 7.0, 5  # mean coordination beyond which the search explodes (metals), and what is searched there


def ring_counts(structure: Structure, cutoff: float | Mapping[tuple[str, str], float], largest: int = LARGEST) -> np.ndarray:
    """Shortest-path rings per atom of each size [largest + 1]; entry s is the number of rings of s atoms over the number of atoms.

    A ring is a closed path of bonds in which no two atoms have a shorter path between them than along it. Every ring counts once: diamond has 2
    six-membered rings per atom. Sizes count all atoms: silica's 6-rings of Si have 12. A cell in which a closed path of ``largest`` bonds could reach
    the atom's own image is repeated first, so that small cells give what large ones do.

    Args:
      structure: of any cell.
      cutoff: A, one or per pair of elements.
      largest: atoms of the largest ring looked for. The cost grows steeply with it in crowded networks (coordination above 7: use 5).

    Raises:
      ValueError: a bad cutoff, or ``largest`` below 3.
      ImportError: matscipy is not installed.
    """
    if largest < SMALLEST:
        raise ValueError(f"got largest = {largest}; needs a ring of at least {SMALLEST} atoms")
    ffi = require_matscipy()
    network = bonds(structure, cutoff)
    counts, atoms = np.zeros(largest + 1), len(network.species)
    if not len(network.first):
        return counts
    first, second, vectors, copies = _repeated(network, largest)
    # of an even greatest length matscipy returns one less, of any it may return one more
    found = ffi.find_sp_rings(first, second, vectors, ffi.distances_on_graph(first, second), largest + 1)[: largest + 1]
    counts[: len(found)] = found
    counts[:SMALLEST] = 0
    return counts / (atoms * copies)


def mean_coordination(structure: Structure, cutoff) -> float:
    """Bonds per atom, both ends counted."""
    network = bonds(structure, cutoff)
    return len(network.first) / len(network.species)


def installed() -> bool:
    """Whether matscipy is there."""
    return importlib.util.find_spec("matscipy") is not None


def require_matscipy():
    """matscipy's compiled functions; raises ``ImportError`` without it."""
    try:
        from matscipy import ffi
    except ImportError as error:
        raise ImportError(
            'ring statistics need matscipy, which is not installed; pip install "glassjax[analysis]", or leave the modality "rings" out'
        ) from error
    return ffi


def _repeated(network: Bonds, largest: int):
    """(first, second, vectors) of the bonds in a cell so large that no path of ``largest`` bonds ends at an image of its start, and the copies."""
    times = np.array([_times(network, axis, largest) for axis in range(3)])
    copies, atoms = int(times.prod()), len(network.species)
    home = np.stack(np.unravel_index(np.arange(copies), times), axis=1)
    ends = (home[:, None] + network.shifts[None]) % times
    first = (np.arange(copies)[:, None] * atoms + network.first[None]).reshape(-1)
    second = (np.ravel_multi_index(np.moveaxis(ends, -1, 0), times) * atoms + network.second[None]).reshape(-1)
    vectors = np.tile(network.vectors, (copies, 1))
    return first.astype(np.int32), second.astype(np.int32), vectors, copies


def _times(network: Bonds, axis: int, largest: int) -> int:
    """How often the cell must be repeated along ``axis`` so that a path of bonds to the own image takes more than ``largest``."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import dijkstra

    height = heights(network.cell)
    normal = np.linalg.inv(network.cell)[:, axis] * height[axis]
    bound = int(largest * np.abs(network.vectors @ normal).max() // height[axis]) + 1
    if bound == 1:
        return 1
    # the bound is pessimistic, because bonds of a path turn: count bonds to the atom's own images one and two cells on, in a ring of four cells
    atoms, ring = len(network.species), np.arange(4)[:, None]
    first = (ring * atoms + network.first[None]).reshape(-1)
    second = ((ring + network.shifts[None, :, axis]) % 4 * atoms + network.second[None]).reshape(-1)
    graph = coo_matrix((np.ones(len(first)), (first, second)), shape=(4 * atoms, 4 * atoms)).tocsr()
    found = dijkstra(graph, indices=np.arange(atoms), unweighted=True, limit=float(largest))
    for times in (1, 2):
        if not np.isfinite(found[np.arange(atoms), times * atoms + np.arange(atoms)]).any():
            return min(times, bound)
    return bound
