"""Bonds of one periodic structure as a host list, images included; what rings, dihedral angles, chemical order and partial coordination share."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from glassjax.structure import Structure, pair_matrix


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bonds:
    """Directed bonds, sorted by the first atom; each bond is met once from either end.

    Attributes:
      first: [b] atom that the bond starts at.
      second: [b] atom whose image it ends at.
      vectors: [b, 3] from first to second, A.
      lengths: [b] A.
      shifts: [b, 3] lattice translation of the second atom.
      species: [n] index into ``elements`` of each atom; empty slots of the structure are left out.
      cell: [3, 3] rows, A.
      elements: chemical symbols.
    """

    first: np.ndarray
    second: np.ndarray
    vectors: np.ndarray
    lengths: np.ndarray
    shifts: np.ndarray
    species: np.ndarray
    cell: np.ndarray
    elements: tuple[str, ...]

    def numbers(self) -> np.ndarray:
        """Coordination number of each atom by element of the neighbour [n, e]."""
        counts = np.zeros((len(self.species), len(self.elements)), int)
        np.add.at(counts, (self.first, self.species[self.second]), 1)
        return counts


def check_cutoffs(cutoff, elements) -> np.ndarray:
    """Bond cutoffs [e, e], A, from one number or a mapping of pairs (pairs left out do not bond); refuses what makes no bond."""
    limits = pair_matrix(cutoff, elements)
    if not (np.isfinite(limits).all() and (limits >= 0).all() and limits.max() > 0):
        raise ValueError(f"got cutoff {cutoff}; needs a positive length in angstrom, one or per pair of elements; correct it")
    return limits


def bonds(structure: Structure, cutoff: float | Mapping[tuple[str, str], float]) -> Bonds:
    """All bonds shorter than ``cutoff`` (A, one or per pair of elements), by ASE's neighbour list.

    Raises:
      ValueError: a cutoff that is not positive or names another element, no atoms, positions that are not finite.
    """
    from ase.neighborlist import primitive_neighbor_list

    limits = check_cutoffs(cutoff, structure.elements)
    species = np.asarray(structure.species)
    positions = np.asarray(structure.positions, dtype=float)[species >= 0]
    species = species[species >= 0]
    if not len(species) or not np.isfinite(positions).all():
        raise ValueError(f"got {len(species)} atoms, or positions that are not finite; needs atoms at finite positions; leave the structure out")
    cell = np.asarray(structure.cell, dtype=float)
    first, second, vectors, shifts = primitive_neighbor_list("ijDS", (True, True, True), cell, positions, float(limits.max()))
    lengths = np.linalg.norm(vectors, axis=1)
    near = np.flatnonzero(lengths < limits[species[first], species[second]])
    near = near[np.argsort(first[near], kind="stable")]
    return Bonds(
        first=first[near],
        second=second[near],
        vectors=vectors[near],
        lengths=lengths[near],
        shifts=shifts[near],
        species=species,
        cell=cell,
        elements=structure.elements,
    )
