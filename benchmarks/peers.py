"""The broadened g(r) and its gradient without glassjax: freud's neighbour list where the cell allows it, else ASE's, and numpy (float64)."""

from __future__ import annotations

import numpy as np

WIDTH = 0.15  # A
REACH = 8.0 + 5 * WIDTH  # A, the farthest pair that touches r = 8 A
FINE = 0.0025  # A, spacing of the tables


def name_of(cell) -> str:
    """Which neighbour list `pairs` uses: freud refuses a reach beyond half the cell."""
    try:
        import freud  # noqa: F401
    except ImportError:
        return "ase + numpy"
    edges = np.asarray(cell.cell, float)
    return "freud + numpy" if 2 * REACH < edges[0, 0] else "ase + numpy"


def pairs(cell):
    """Ordered pairs of a cubic cell within the reach: (i, distances, directions from i to j)."""
    if name_of(cell).startswith("freud"):
        import freud

        box = freud.box.Box.cube(float(cell.cell[0, 0]))
        points = box.wrap(np.asarray(cell.positions))
        found = freud.locality.AABBQuery(box, points).query(points, dict(r_max=REACH, exclude_ii=True)).toNeighborList()
        vectors = found.vectors.astype(float)
        distances = np.linalg.norm(vectors, axis=1)
        return np.asarray(found.query_point_indices), distances, vectors / distances[:, None]
    from ase.neighborlist import neighbor_list

    from glassjax.io import to_atoms

    i, distances, vectors = neighbor_list("idD", to_atoms(cell), REACH)
    return i, distances, vectors / distances[:, None]


def _scale(cell, r):
    n, volume = len(cell.species), abs(np.linalg.det(np.asarray(cell.cell, float)))
    return volume / (4 * np.pi * r**2 * n**2)


def distribution(cell, r):
    """g(r): counts on the fine grid, then a matrix of Gaussians."""
    _, distances, _ = pairs(cell)
    edges = np.arange(0, REACH + FINE, FINE)
    counts, _ = np.histogram(distances, edges)
    middle = edges[:-1] + FINE / 2
    gauss = np.exp(-0.5 * ((r[:, None] - middle) / WIDTH) ** 2) / (np.sqrt(2 * np.pi) * WIDTH)
    return _scale(cell, r) * (gauss @ counts)


def exact(cell, r):
    """g(r) as the plain sum of Gaussians over pairs: the reference for both codes."""
    _, distances, _ = pairs(cell)
    gauss = np.array([np.exp(-0.5 * ((x - distances) / WIDTH) ** 2).sum() for x in r]) / (np.sqrt(2 * np.pi) * WIDTH)
    return _scale(cell, r) * gauss


def gradient(cell, r, weights):
    """(w . g, its gradient [n, 3]): value and slope of the pair function are tabulated and interpolated at every pair."""
    i, distances, unit = pairs(cell)
    table = np.arange(0, REACH + FINE, FINE)
    offset = r[:, None] - table
    gauss = (weights * _scale(cell, r))[:, None] * np.exp(-0.5 * (offset / WIDTH) ** 2) / (np.sqrt(2 * np.pi) * WIDTH)
    value, slope = gauss.sum(axis=0), (gauss * offset / WIDTH**2).sum(axis=0)
    push = np.interp(distances, table, slope)[:, None] * unit
    total = -2 * np.stack([np.bincount(i, push[:, a], len(cell.species)) for a in range(3)], axis=1)
    return float(np.interp(distances, table, value).sum()), total
