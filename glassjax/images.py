"""Lattice images of a pair of atoms, told by the side of the minimum image (`glassjax.neighbors.NeighborSpec.shifts`)."""

from __future__ import annotations

import itertools
import math

import jax.numpy as jnp
import numpy as np

from glassjax.structure import heights


def side_of(f):
    """1 where a fractional difference is not negative, else -1."""
    return jnp.where(f < 0, -1.0, 1.0).astype(f.dtype)


def images_in_range(cell, cutoff: float) -> tuple[tuple[int, int, int], ...]:
    """Lattice images t (`NeighborSpec.shifts`) that some pair of atoms has within ``cutoff`` (host): with signs s_b = 1 or -1 and f in [0, 1/2]^3,
    |sum_b s_b (f_b - t_b) a_b| < cutoff for the rows a_b of ``cell``. The minimum image comes first.
    """
    cell = np.asarray(cell, dtype=float)
    high = heights(cell)
    reach = [math.floor(cutoff / h + 0.5) for h in high]
    signs = [(1.0, *rest) for rest in itertools.product((1.0, -1.0), repeat=2)]  # the other four are their inverses
    found = []
    for shift in itertools.product(*[range(-m, m + 1) for m in reach]):
        if any(max(t - 0.5, -t) * h >= cutoff for t, h in zip(shift, high, strict=True)):
            continue  # too far along one axis alone
        if any(_closest(cell * np.array(side)[:, None], shift) < cutoff for side in signs):
            found.append(shift)
    found.sort(key=lambda t: sum(c * c for c in t))
    return tuple(found)


def _closest(cell: np.ndarray, shift) -> float:
    """min |(f - t) cell| for f in [0, 1/2]^3."""
    from scipy.optimize import lsq_linear

    lower = -np.array(shift, dtype=float)
    square = cell @ cell.T
    if np.abs(square - np.diag(np.diag(square))).max() < 1e-9 * np.diag(square).min():
        return float(np.linalg.norm(np.clip(0.0, lower, lower + 0.5) * np.sqrt(np.diag(square))))
    return float(np.linalg.norm(lsq_linear(cell.T, np.zeros(3), bounds=(lower, lower + 0.5)).x @ cell))
