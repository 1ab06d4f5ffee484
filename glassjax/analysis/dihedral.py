"""Dihedral angles of chains of three bonds."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from glassjax.analysis.bonds import Bonds, bonds
from glassjax.structure import Structure

STRAIGHT = 1e-3  # sine of a bond angle below which a chain has no dihedral angle


def dihedral_angles(structure: Structure, cutoff: float | Mapping[tuple[str, str], float]) -> tuple[np.ndarray, np.ndarray]:
    """Dihedral angles of all chains a-b-c-d of bonds, each once, without sign.

    The angle between the planes (a, b, c) and (b, c, d): 0 when a and d are on one side (cis), 180 degrees when opposite (trans); diamond has 60 and
    180. Left out are straight chains, and a = d of the same image (a triangle).

    Returns:
      (angles [m] in degrees from 0 to 180, elements [m, 2] of the middle atoms b and c as indices, the smaller first).
    """
    return _dihedrals(bonds(structure, cutoff))


def _dihedrals(network: Bonds):
    starts = np.searchsorted(network.first, np.arange(len(network.species) + 1))
    # each bond once: by the pair of atoms, and by its vector where an atom meets its own image
    forward = (network.first < network.second) | ((network.first == network.second) & _positive(network.vectors))
    angles, kinds = [np.zeros(0)], [np.zeros((0, 2), int)]
    for bond in np.flatnonzero(forward):
        b, c, axis = network.first[bond], network.second[bond], network.vectors[bond]
        before = network.vectors[starts[b] : starts[b + 1]]
        after = network.vectors[starts[c] : starts[c + 1]]
        before = before[np.linalg.norm(before - axis, axis=1) > 1e-6]
        after = after[np.linalg.norm(after + axis, axis=1) > 1e-6]
        unit = axis / network.lengths[bond]
        u, w = before - np.outer(before @ unit, unit), after - np.outer(after @ unit, unit)
        length = np.linalg.norm(u, axis=1)[:, None], np.linalg.norm(w, axis=1)[None]
        apart = np.linalg.norm(before[:, None] - axis - after[None], axis=-1)
        bent = length[0] > STRAIGHT * np.linalg.norm(before, axis=1)[:, None]
        good = bent & (length[1] > STRAIGHT * np.linalg.norm(after, axis=1)[None]) & (apart > 1e-6)
        cosine = (u @ w.T)[good] / (length[0] * length[1])[good]
        angles.append(np.degrees(np.arccos(np.clip(cosine, -1.0, 1.0))))
        kinds.append(np.tile(np.sort(network.species[[b, c]]), (len(cosine), 1)))
    return np.concatenate(angles), np.concatenate(kinds)


def _positive(vectors: np.ndarray) -> np.ndarray:
    """Whether the first component that is not zero is positive."""
    signs = np.sign(np.where(np.abs(vectors) < 1e-9, 0.0, vectors))
    return (signs @ np.array([9.0, 3.0, 1.0])) > 0
