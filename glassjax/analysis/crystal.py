"""How much of a structure is crystalline: atoms in cubic-diamond surroundings, by common-neighbour analysis of the second shell."""

from __future__ import annotations

import numpy as np

from glassjax.structure import Structure

BONDS, SECOND = 4, 12  # neighbours in the first and second shell of diamond
HALFWAY = (1 + np.sqrt(2)) / 2  # between first and second neighbours of the fcc lattice that second neighbours form
COMMON = (4, 2, 1)  # fcc: common neighbours of a pair, bonds among them, bonds of the longest chain


def diamond_atoms(structure: Structure, cutoff: float | None = None) -> np.ndarray:
    """Whether each atom has cubic-diamond surroundings [n] of bool; empty slots are left out.

    After Maras et al., Comput. Phys. Commun. 205, 13 (2016): the 4 nearest neighbours of an atom, and the 3 further nearest neighbours of each, are
    its first and second shell. Diamond has 12 different second neighbours, and they stand around the atom as the 12 neighbours of an fcc lattice do:
    each of the 12 shares with the atom 4 of the others, which have 2 bonds among them that do not touch (signature 421). Two second neighbours are
    bonded when closer than (1 + sqrt 2) / 2 of their mean distance from the atom. Species are not told apart: zinc blende counts as diamond.

    Args:
      structure: of any cell; images count.
      cutoff: A, a bond's greatest length: an atom with a longer one among those to its shells is not diamond. By default none, as published.

    Raises:
      ValueError: a cutoff that is not positive.
    """
    if cutoff is not None and not (np.isfinite(cutoff) and cutoff > 0):
        raise ValueError(f"got cutoff {cutoff}; needs a positive length in angstrom; leave it out to have none")
    positions = np.asarray(structure.positions, dtype=float)[np.asarray(structure.species) >= 0]
    cell = np.asarray(structure.cell, dtype=float)
    reach = 1.2 * (abs(np.linalg.det(cell)) / max(1, len(positions))) ** (1 / 3) if cutoff is None else float(cutoff)
    near, vectors, full = _nearest(positions, cell, reach)
    while cutoff is None and not full.all():
        reach *= 1.3
        near, vectors, full = _nearest(positions, cell, reach)
    found = np.zeros(len(full), bool)
    for atom in np.flatnonzero(full & full[near].all(axis=1)):
        shell = _second_shell(atom, near, vectors)
        found[atom] = shell is not None and _face_centred(shell)
    return found


def diamond_fraction(structure: Structure, cutoff: float | None = None) -> float:
    """Share of atoms with cubic-diamond surroundings, 0 to 1; see `diamond_atoms` for the method, arguments and errors."""
    return float(diamond_atoms(structure, cutoff).mean())


def _nearest(positions: np.ndarray, cell: np.ndarray, reach: float):
    """The 4 nearest neighbours [n, 4], their displacements [n, 4, 3], and which atoms have 4 within reach [n]."""
    from ase.neighborlist import primitive_neighbor_list

    first, second, vectors = primitive_neighbor_list("ijD", (True, True, True), cell, positions, reach)
    order = np.lexsort((np.linalg.norm(vectors, axis=1), first))
    counts = np.bincount(first, minlength=len(positions))
    full = counts >= BONDS
    rows = (np.cumsum(counts) - counts)[full, None] + np.arange(BONDS)
    near, shifts = np.zeros((len(positions), BONDS), int), np.zeros((len(positions), BONDS, 3))
    near[full], shifts[full] = second[order[rows]], vectors[order[rows]]
    return near, shifts, full


def _second_shell(atom: int, near: np.ndarray, vectors: np.ndarray) -> np.ndarray | None:
    """Positions [12, 3] of the second neighbours relative to the atom, or None if they are not 12 different places beyond the first shell."""
    reached = vectors[atom][:, None] + vectors[near[atom]]
    back = (near[near[atom]] == atom) & (np.linalg.norm(reached, axis=-1) < 1e-3)
    shell = reached[~back]
    if len(shell) != SECOND or not back.any(axis=1).all():
        return None
    apart = np.linalg.norm(shell[:, None] - np.concatenate([shell, vectors[atom]])[None], axis=-1)
    np.fill_diagonal(apart, np.inf)
    return None if (apart < 1e-3).any() else shell


def _face_centred(shell: np.ndarray) -> bool:
    """Whether all 12 points [12, 3] have the signature 421 with the origin."""
    limit = HALFWAY * np.linalg.norm(shell, axis=1).mean()
    bonded = np.linalg.norm(shell[:, None] - shell[None], axis=-1) < limit
    np.fill_diagonal(bonded, False)
    for row in bonded:
        common = np.flatnonzero(row)
        if len(common) != COMMON[0]:
            return False
        among = bonded[np.ix_(common, common)]
        if among.sum() != 2 * COMMON[1] or among.sum(axis=1).max() != COMMON[2]:
            return False
    return True
