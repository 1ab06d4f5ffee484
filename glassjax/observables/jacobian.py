"""Pair functions with their Jacobian: curves, d curve / d positions and d curve / d strain of several observables from one pair pass."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from glassjax._pytree import frozen, static
from glassjax.neighbors import Graph
from glassjax.observables import histogram, pair
from glassjax.structure import Structure, number_density, number_of_atoms

REFINE = 1  # nodes of the slope table per node of the radial grid: a slope is read at most STEP / 2 = 0.0025 A from its pair
BLOCK = 64  # most atoms per block of the Jacobian
BLOCK_NUMBERS = 250_000  # slopes (neighbours x rows) of a block on a CPU, which so stay in cache: up to 2.5 times faster


@frozen
class PairRows:
    """See `pair_rows`.

    Attributes:
      slopes: [e * e * points * REFINE, m] derivatives of the pair functions on a fine grid, both directions of a pair together, per unit of the
        density factor.
      points: nodes of the shared radial grid (static).
      reach: farthest pair that counts, A (static).
    """

    slopes: jax.Array
    points: int = static()
    reach: float = static()

    def linearize(self, structure: Structure, graph: Graph, observables: Sequence[pair.PairObservable], *, strained: bool = True):
        """Curves, one per observable; Jacobian [n, 3, m] over all of them; strain [m] = d curve / d ln L at fixed fractional coordinates.

        Slopes are rounded to the fine grid (2.5 mA), in Jacobian and strain alike; ``strained=False`` leaves the strain zero.
        """
        counts = histogram.deposit(structure, graph, self.points)
        curves = [o.from_histogram(structure, counts) for o in observables]
        density, atoms = number_density(structure), number_of_atoms(structure)
        factor = jnp.concatenate([jnp.full(o.x.shape, density**o.power / atoms) for o in observables])
        jacobian, stretch = self._sweep(structure, graph, strained)
        background = jnp.concatenate([o.background for o in observables]) * density
        power = jnp.concatenate([jnp.full(o.x.shape, float(o.power)) for o in observables])
        pairs = jnp.concatenate([c - o.level for c, o in zip(curves, observables, strict=True)]) - background
        strain = factor * stretch - 3.0 * (background + power * pairs)
        return curves, jacobian * factor[None, None], strain if strained else jnp.zeros_like(strain)

    def _sweep(self, structure, graph, strained):
        """Jacobian [n, 3, m] and sum over pairs of r d/dr [m], both without the density factor, over blocks of atoms."""
        n, k = graph.neighbors.shape
        empty = self.points * REFINE - 1  # the last node, where every slope is zero
        node = jnp.clip(jnp.round(graph.distances * (REFINE / histogram.STEP)).astype(jnp.int32), 0, empty)
        index = jnp.where(graph.mask, histogram.pair_type(structure, graph) * self.points * REFINE + node, empty)
        inverse = 1.0 / jnp.maximum(graph.distances, 1e-6)
        unit = jnp.stack([graph.displacements[..., a] * inverse for a in range(3)], axis=1)  # [n, 3, k]: so is the product below fastest
        most = min(BLOCK, max(1, BLOCK_NUMBERS // (k * self.slopes.shape[1]))) if jax.default_backend() == "cpu" else BLOCK
        block = -(-n // -(-n // most))  # blocks of equal size
        short = -n % block
        index = jnp.pad(index, ((0, short), (0, 0)), constant_values=empty).reshape(-1, block, k)
        unit = jnp.pad(unit, ((0, short), (0, 0), (0, 0))).reshape(-1, block, 3, k)
        distances = jnp.pad(graph.distances, ((0, short), (0, 0))).reshape(-1, block, k)

        def part(total, given):
            rows, directions, lengths = given
            slopes = self.slopes[rows]
            # both directions of a pair are in the slopes, and the pair is met from both ends
            total = total + 0.5 * jnp.einsum("ik,ikm->m", lengths, slopes) if strained else total
            return total, -jnp.einsum("ick,ikm->icm", directions, slopes)

        stretch, blocks = jax.lax.scan(part, jnp.zeros(self.slopes.shape[1], unit.dtype), (index, unit, distances))
        return blocks.reshape(-1, 3, self.slopes.shape[1])[:n], stretch


def pair_rows(observables: Sequence[pair.PairObservable]) -> PairRows:
    """The pair functions of several observables of the same elements on one grid."""
    points = max(o.points for o in observables)
    rows = jnp.concatenate([pair.with_points(o, points).rows for o in observables], axis=1)
    e = len(observables[0].elements)
    slope = histogram.slope_table(rows, REFINE)
    both = slope + slope.reshape(e, e, *slope.shape[1:]).swapaxes(0, 1).reshape(slope.shape)
    return PairRows(slopes=both.swapaxes(1, 2).reshape(e * e * points * REFINE, -1), points=points, reach=max(o.rmax for o in observables))
