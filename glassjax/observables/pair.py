"""Pair observables: linear maps of the partial pair histograms. Definitions and normalisation: PHYSICS.md section 2, Keen (2001).

Every one is   y(x_k) = level_k + background_k rho0 + rho0^power / N  sum_ab sum_m rows[ab, k, m] H_ab[m],
with H from `histogram.pair_histogram`, N atoms and number density rho0 = N / V. `real_space` and `reciprocal` build them.
"""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp

from glassjax._pytree import frozen, static
from glassjax.neighbors import NeighborSpec
from glassjax.observables import histogram
from glassjax.observables.listed import Listed
from glassjax.structure import Structure, number_density, number_of_atoms

REAL_SPACE = ("g", "G", "G_keen", "D", "T", "RDF")
RECIPROCAL = ("S", "F_keen", "Q(S-1)", "I")
PARTIAL_ONLY = ("S_AL", "S_NN", "S_NC", "S_CC")


@frozen
class PairObservable(Listed):
    """A curve of one structure: ``observable(structure) -> [m]``.

    Attributes:
      x: [m] r in A or Q in 1/A.
      rows: [e * e, m, points] spline coefficients of the pair function per ordered pair of species.
      level: [m] what the curve is without pairs and without density.
      background: [m] factor of the number density.
      power: exponent of the number density in front of the pair sum (static).
      function: one of `REAL_SPACE`, `RECIPROCAL` or `PARTIAL_ONLY`, "chi(k)" or "chi(R)" (static).
      weights: weighting scheme (static).
      elements: species order (static).
      rmax: A, the farthest pair that counts (static).
      convention: one line for the record: formula and tables (static).
      spec: neighbour list out to ``rmax``, see `PairObservable.fit` (static).
    """

    x: jax.Array
    rows: jax.Array
    level: jax.Array
    background: jax.Array
    power: int = static()
    function: str = static()
    weights: str = static()
    elements: tuple[str, ...] = static()
    rmax: float = static()
    convention: str = static(default="")
    spec: NeighborSpec | None = static(default=None)

    @property
    def points(self) -> int:
        """Nodes of the radial grid."""
        return self.rows.shape[-1]

    def __call__(self, structure: Structure) -> jax.Array:
        """The curve [m] of one structure; NaN if the neighbour list overflowed."""
        counts, _ = histogram.pair_histogram(structure, self.listed(structure), self.points)
        return self.from_histogram(structure, counts)

    def from_histogram(self, structure: Structure, counts: jax.Array) -> jax.Array:
        """The curve [m] from H [e * e, points] of the same or a longer grid.

        Raises:
          ValueError: the structure's elements are others, or in another order (the rows would go to the wrong pairs).
        """
        if structure.elements != self.elements:
            raise ValueError(
                f"the structure has elements {', '.join(structure.elements)}; the observable needs {', '.join(self.elements)}, in this order"
            )
        density, atoms = number_density(structure), number_of_atoms(structure)
        pairs = jnp.einsum("pkm,pm->k", self.rows, counts[:, : self.points])
        return self.level + self.background * density + density**self.power / atoms * pairs


def grid_points(rmax: float) -> int:
    """Nodes of the radial grid that serves pairs out to ``rmax``."""
    return math.ceil(rmax / histogram.STEP) + 4


def observable(x, rows, level, background, power, function, weights, fractions, rmax, convention) -> PairObservable:
    """A `PairObservable` from host arrays."""
    kind = jnp.result_type(float)
    arrays = [jnp.asarray(a, kind) for a in (x, rows, level, background)]
    return PairObservable(
        x=arrays[0],
        rows=arrays[1],
        level=arrays[2],
        background=arrays[3],
        power=power,
        function=function,
        weights=weights,
        elements=tuple(fractions),
        rmax=float(rmax),
        convention=convention,
    )


def with_points(one: PairObservable, points: int) -> PairObservable:
    """The same observable on a longer grid (zero rows beyond its own reach), so that several share one pass."""
    missing = points - one.points
    if missing < 0:
        raise ValueError(f"the grid has {one.points} points; cannot shorten it to {points}")
    return dataclasses.replace(one, rows=jnp.pad(one.rows, ((0, 0), (0, 0), (0, missing))))
