"""Local order of one structure, on the host: coordination, angles, the shortest distance, and whether two structures are copies."""

from __future__ import annotations

from collections.abc import Mapping

import jax
import numpy as np

from glassjax.neighbors import Graph, build, grow, neighbor_spec
from glassjax.structure import Structure, pair_matrix, volume

BOND_SCALE = 1.285  # bond cutoff over the sum of covalent radii: 2.85 A for Si-Si, the minimum after the first peak


_build = jax.jit(build, static_argnums=1)  # op by op it takes a second


def host_graph(structure: Structure, reach: float) -> Graph:
    """The neighbour graph out to ``reach`` (A), with capacities grown until everything fits."""
    spec = neighbor_spec(structure, reach)
    while True:
        graph = _build(structure, spec)
        larger = grow(spec, graph.needed)
        if larger.capacity == spec.capacity and larger.cell_capacity == spec.cell_capacity:
            return graph
        spec = larger


def bond_cutoffs(elements) -> dict[tuple[str, str], float]:
    """Default bond cutoff of each pair of elements, A: 1.285 x the sum of covalent radii (Cordero 2008, as in ASE)."""
    from ase.data import atomic_numbers, covalent_radii

    radius = {e: float(covalent_radii[atomic_numbers[e]]) for e in elements}
    return {(a, b): round(BOND_SCALE * (radius[a] + radius[b]), 2) for i, a in enumerate(elements) for b in elements[i:]}


def _bonded(structure: Structure, cutoff: float | Mapping[tuple[str, str], float]):
    """Graph and mask [n, k] of pairs closer than their cutoff."""
    limits = pair_matrix(cutoff, structure.elements)
    if not limits.max() > 0:
        raise ValueError(f"got cutoff {cutoff}; needs a positive length in angstrom")
    graph = host_graph(structure, float(limits.max()))
    species = np.maximum(np.asarray(structure.species), 0)
    limit = limits[species[:, None], species[np.asarray(graph.neighbors)]]
    return graph, np.asarray(graph.mask) & (np.asarray(graph.distances) < limit)


def coordination_numbers(structure: Structure, cutoff: float | Mapping[tuple[str, str], float]) -> np.ndarray:
    """Neighbours closer than ``cutoff`` (A, one or per pair of elements) of each atom [n]; empty slots are left out."""
    _, bonded = _bonded(structure, cutoff)
    return bonded.sum(axis=1)[np.asarray(structure.species) >= 0]


def coordination_fractions(structure: Structure, cutoff: float | Mapping[tuple[str, str], float]) -> dict[int, float]:
    """Fraction of atoms with each coordination number that occurs; sums to 1."""
    numbers, counts = np.unique(coordination_numbers(structure, cutoff), return_counts=True)
    return {int(n): float(c / counts.sum()) for n, c in zip(numbers, counts, strict=True)}


def shortest_distance(structure: Structure) -> float:
    """Distance of the closest pair, images included, A."""
    reach = float(volume(structure) / max(1, int((np.asarray(structure.species) >= 0).sum()))) ** (1 / 3)
    while True:
        graph = host_graph(structure, reach)
        mask = np.asarray(graph.mask)
        if mask.any():
            return float(np.asarray(graph.distances)[mask].min())
        reach *= 1.5


def bond_angles(structure: Structure, cutoff: float | Mapping[tuple[str, str], float]) -> np.ndarray:
    """All angles between two bonds of one atom [angles], degrees; each pair of bonds once."""
    graph, bonded = _bonded(structure, cutoff)
    unit = np.asarray(graph.displacements, dtype=float)
    unit = unit / np.maximum(np.linalg.norm(unit, axis=-1, keepdims=True), 1e-9)
    angles = [np.zeros(0)]
    for row, mask in zip(unit, bonded, strict=True):
        bonds = row[mask]
        cosines = (bonds @ bonds.T)[np.triu_indices(len(bonds), 1)]
        angles.append(np.degrees(np.arccos(np.clip(cosines, -1.0, 1.0))))
    return np.concatenate(angles)


def matching_fraction(first: Structure, second: Structure, *, tolerance: float = 0.3) -> float:
    """Largest fraction of atoms of ``first`` within ``tolerance`` (A) of a like atom of ``second`` over all translations that put one on another.

    1 for a translated copy; a few per cent for independent structures of one density. Both need the same cell; rotations are not tried.

    Raises:
      ValueError: the cells or elements differ.
    """
    if first.elements != second.elements or not np.allclose(first.cell, second.cell, atol=1e-3):
        raise ValueError("matching_fraction needs two structures of the same cell and elements")
    cell = np.asarray(first.cell, dtype=float)
    inverse = np.linalg.inv(cell)
    a, b = (np.asarray(s.positions, dtype=float) @ inverse for s in (first, second))
    kinds = np.asarray(first.species), np.asarray(second.species)
    like = kinds[0][:, None] == kinds[1][None, :]
    separation = a[:, None] - b[None, :]
    best = 0.0
    for partner in np.flatnonzero(kinds[1] == kinds[0][0]):
        moved = separation - separation[0, partner]
        distance = np.linalg.norm((moved - np.round(moved)) @ cell, axis=-1)
        best = max(best, float(((distance < tolerance) & like).any(axis=1).mean()))
    return best


def local_order(structure: Structure, cutoff: float | Mapping[tuple[str, str], float] | None = None) -> dict:
    """What a report says of one structure: shortest distance (A), mean coordination and its fractions, mean and deviation of the angle (degrees)."""
    limits = bond_cutoffs(structure.elements) if cutoff is None else cutoff
    numbers, angles = coordination_numbers(structure, limits), bond_angles(structure, limits)
    return dict(
        shortest_distance=shortest_distance(structure),
        mean_coordination=float(numbers.mean()),
        coordination={str(n): f for n, f in coordination_fractions(structure, limits).items()},
        angle_mean=float(angles.mean()) if len(angles) else None,
        angle_deviation=float(angles.std()) if len(angles) else None,
    )
