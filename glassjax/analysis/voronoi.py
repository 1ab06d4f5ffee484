"""Voronoi polyhedra of the atoms and their indices <n3, n4, n5, n6>, by Qhull on the cell with as many images as the polyhedra need."""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np

from glassjax.analysis.local import shortest_distance
from glassjax.structure import Structure, heights

SIDES = (3, 4, 5, 6)
COINCIDENT = 1e-3  # A


def voronoi_indices(structure: Structure, *, smallest_face: float = 0.0) -> np.ndarray:
    """Faces with 3, 4, 5 and 6 edges of each atom's Voronoi polyhedron [n, 4]; faces with 7 edges or more are in no column.

    <0, 0, 12, 0> is an icosahedron, <0, 6, 0, 8> bcc. Polyhedra are unweighted (elements of one size). Faces of a perfect close-packed crystal meet
    more than three to a corner, so the least displacement adds small faces there; a glass has no such corners.

    Args:
      structure: of any cell; images count; empty slots are left out.
      smallest_face: share of a polyhedron's surface below which a face is left out, 0 to 1 (edges of its neighbours are not joined).

    Raises:
      ValueError: fewer than one atom, positions that are not finite or coincide, or a share out of range.
    """
    if not 0 <= smallest_face < 1:
        raise ValueError(f"got smallest_face = {smallest_face}; needs a share of the surface, from 0 to less than 1")
    atoms, owner, corners, area = _faces(structure, areas=smallest_face > 0)
    surface = np.bincount(owner, weights=area, minlength=atoms)
    kept = area >= smallest_face * surface[owner]
    counts = np.zeros((atoms, len(SIDES)), int)
    for column, sides in enumerate(SIDES):
        counts[:, column] = np.bincount(owner[kept & (corners == sides)], minlength=atoms)
    return counts


def index_name(index) -> str:
    """ "<0 0 12 0>"."""
    return f"<{' '.join(str(int(n)) for n in index)}>"


def index_fractions(indices) -> dict[str, float]:
    """Share of atoms with each index [n, 4] that occurs, the most frequent first; sums to 1."""
    counts = Counter(map(index_name, indices))
    total = max(1, sum(counts.values()))
    return {name: count / total for name, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))}


def _faces(structure: Structure, areas: bool):
    """Atoms; owner, number of corners and area (0 unless ``areas``) of every face of every atom's polyhedron."""
    from scipy.spatial import QhullError, Voronoi

    cell, positions = _home(structure)
    atoms = len(positions)
    if atoms > 1 and (closest := shortest_distance(structure)) < COINCIDENT:
        raise ValueError(f"got two atoms {closest:.4f} A apart; needs atoms that do not coincide; relax or discard the structure")
    reach = 2.5 * (abs(np.linalg.det(cell)) / atoms) ** (1 / 3)
    while True:
        points = _with_images(positions, cell, reach)
        try:
            diagram = Voronoi(points)
        except QhullError as error:  # too few points, or in a plane
            if reach > 3 * np.linalg.norm(cell):
                raise ValueError(f"got positions without Voronoi polyhedra ({str(error).splitlines()[0]}); needs a cell of finite volume") from error
            reach *= 1.5
            continue
        needed = 2 * _farthest(diagram, atoms)  # an atom farther away than twice the farthest corner cuts nothing off
        if needed <= reach:
            break
        reach = min(1.01 * needed, 1.5 * reach)
    near = np.flatnonzero((diagram.ridge_points < atoms).any(axis=1))
    owner, corners, area = [], [], []
    for ridge in near:
        a, b = diagram.ridge_points[ridge]
        ring = diagram.ridge_vertices[ridge]
        size = _area(diagram.vertices[ring], points[b] - points[a]) if areas else 0.0
        for one in (a, b):
            if one < atoms:
                owner.append(one)
                corners.append(len(ring))
                area.append(size)
    return atoms, np.array(owner), np.array(corners), np.array(area)


def _home(structure: Structure):
    species = np.asarray(structure.species)
    positions = np.asarray(structure.positions, dtype=float)[species >= 0]
    cell = np.asarray(structure.cell, dtype=float)
    if not len(positions) or not np.isfinite(positions).all():
        raise ValueError(
            f"got {len(positions)} atoms{' at positions that are not finite' if len(positions) else ''}; needs atoms at finite positions"
        )
    fractions = positions @ np.linalg.inv(cell)
    return cell, (fractions - np.floor(fractions)) @ cell


def _with_images(positions, cell, reach: float) -> np.ndarray:
    """The atoms, then all their images within ``reach`` of the cell."""
    inverse, height = np.linalg.inv(cell), heights(cell)
    margin = reach / height
    most = np.ceil(margin).astype(int)
    points = [positions]
    for shift in itertools.product(*[range(-m, m + 1) for m in most]):
        if shift != (0, 0, 0):
            images = positions + np.array(shift, dtype=float) @ cell
            fractions = images @ inverse
            points.append(images[((fractions > -margin) & (fractions < 1 + margin)).all(axis=1)])
    return np.concatenate(points)


def _farthest(diagram, atoms: int) -> float:
    """Distance of the farthest corner of a home polyhedron from its atom, A; infinite where one is open."""
    most = 0.0
    for atom in range(atoms):
        region = diagram.regions[diagram.point_region[atom]]
        if not region or -1 in region:
            return np.inf
        most = max(most, np.linalg.norm(diagram.vertices[region] - diagram.points[atom], axis=1).max())
    return float(most)


def _area(corners: np.ndarray, normal: np.ndarray) -> float:
    """Area of a convex polygon whose corners are in order."""
    total = np.cross(corners, np.roll(corners, -1, axis=0)).sum(axis=0)
    return 0.5 * abs(float(total @ normal)) / float(np.linalg.norm(normal))
