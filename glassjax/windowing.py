"""What data can tell: the finest grid that a curve of finite reach fills, and the real-space window that data and model of Q pass through alike."""

from __future__ import annotations

import math

import numpy as np

from glassjax.observables.reciprocal import reduced_from, structure_factor, through, window_operator


def resolved(r, width, qmax) -> float:
    """Highest Q that a function of r holds, 1/A: as measured, or what its width resolves; at most what its points can show."""
    if qmax is None:
        qmax = 3.79 / (2.3548 * (0.15 if width is None else width))
    return min(qmax, math.pi / float(np.median(np.diff(r))))


def thinned(x: np.ndarray, reach: float, share: float) -> np.ndarray:
    """The data's own x, or an even grid of spacing pi / (2 reach) where theirs is below that ``share`` of it.

    ``reach`` is the highest conjugate variable (rmax of a function of Q, Qmax of one of r): the curve holds no finer detail.
    """
    spacing = math.pi / (2 * reach)
    if np.median(np.diff(x)) >= share * spacing:
        return x
    return np.linspace(x[0], x[-1], math.ceil((x[-1] - x[0]) / spacing) + 1)


class Window:
    """The operator that lets model and data see the same pairs: y on the data's own Q, to r, through the window, back to a thinner grid.

    Attributes:
      x: [m] Q of the data, 1/A.
      points: [p] the thinner grid, 1/A.
      before: level and factor [m] with which y = level + factor (S - 1), on the data's Q.
      level: [p] the same on the thinner grid.
      factor: [p].
      matrix: [p, m], from y - before[0] to what is left of it above ``level``.
    """

    def __init__(self, x, composition, function, weights, isotopes, rmax, window):
        self.x, self.rmax, self.window = x, rmax, window
        self.points = thinned(x, rmax, 0.8)
        options = dict(weights=weights, isotopes=isotopes)
        self.before = reduced_from(x, function, composition, **options)
        self.level, self.factor = reduced_from(self.points, function, composition, **options)
        self.matrix = self.factor[:, None] * window_operator(x, rmax, window, self.points) / self.before[1]

    def __call__(self, y):
        """y [m] of the function -> what the window leaves of it [points]."""
        return self.level + self.matrix @ (y - self.before[0])

    def observable(self, keep, composition, **options):
        """The model's curve through the same operator, at the points to ``keep``; pairs are counted half an angstrom beyond the window."""
        whole = structure_factor(self.x, composition, rmax=self.rmax + 0.5, window="taper", **options)
        return through(whole, self.matrix[keep], self.points[keep], self.level[keep], rmax=self.rmax, window=self.window)
