"""Minimum distances as a score: wrap any score so that atoms of its denoised estimate part (`keep_apart`)."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from glassjax._pytree import frozen, replace, static
from glassjax.neighbors import NeighborSpec, build, grow, neighbor_spec
from glassjax.observables.coordination import lengths
from glassjax.structure import Structure, pair_matrix

REACH = 0.4  # A, beyond the longest minimum distance: who may come too close while others part


@frozen
class KeepApart:
    """See `keep_apart`."""

    score: object
    limits: jax.Array
    fade: jax.Array
    reach: float = static()
    rounds: int = static()
    spec: NeighborSpec | None = static(default=None)

    def fit(self, structure: Structure) -> KeepApart:
        """The same score with neighbour lists for structures like this one."""
        return replace(self, score=self.score.fit(structure), spec=neighbor_spec(structure, self.reach))

    def grown(self, info: dict) -> KeepApart:
        """The same score with capacities that suffice for what ``info`` reported."""
        return replace(self, score=self.score.grown(info), spec=grow(self.spec, info["needed_contacts"]))

    def __call__(self, structure: Structure, sigma):
        """Restrained score [n, 3]; info adds ``needed_contacts``."""
        score, info = self.score(structure, sigma)
        spec = neighbor_spec(structure, self.reach) if self.spec is None else self.spec
        graph = build(replace(structure, positions=structure.positions + sigma**2 * score), spec)
        species = jnp.maximum(structure.species, 0)
        limits = self.limits[species[:, None], species[graph.neighbors]]

        def part(_, moved):
            between = graph.displacements + moved[graph.neighbors] - moved[:, None]
            distances = lengths(between)
            overlap = jnp.maximum(limits - distances, 0.0) * graph.mask
            return moved - 0.5 * jnp.sum((overlap / jnp.maximum(distances, 1e-3))[..., None] * between, axis=1)

        apart = jax.lax.fori_loop(0, self.rounds, part, jnp.zeros_like(score))
        weight = 1.0 / (1.0 + (sigma / self.fade) ** 4)
        return score + weight * apart / sigma**2, info | {"needed_contacts": graph.needed}


def keep_apart(score, minimum_distance, elements, *, fade: float = 0.4, rounds: int = 6) -> KeepApart:
    """A score that parts atoms whose denoised estimates overlap: each of a pair at r < d_min moves by (d_min - r) / 2.

    Adds  w(sigma) d_i / sigma^2. Starting from d = 0, each of ``rounds`` rounds adds -sum_j (d_min - r_ij)_+ / 2 u_ij to d_i, with the distance r_ij
    and the unit vector u_ij from i to j taken at the estimate + d: one round parts a pair, and who has several neighbours too close is pushed from
    one to the other. Neighbours are listed once, out to 0.4 A beyond the longest d_min. w = 1 / (1 + (sigma / fade)^4): estimates at high noise
    are means, not atoms.

    Args:
      score: the score to restrain.
      minimum_distance: A, one number or a mapping of element pairs.
      elements: species order of the structures.
      fade: A.
      rounds: of pushing apart, at least 1.

    Raises:
      ValueError: no round, or elements that are not there.
    """
    if int(rounds) != rounds or rounds < 1:
        raise ValueError(f"rounds is {rounds}; needs a whole number of at least 1")
    limits = pair_matrix(minimum_distance, elements)
    return KeepApart(
        score=score, limits=jnp.asarray(limits, jnp.float32), fade=jnp.float32(fade), reach=float(max(limits.max(), 0.1)) + REACH, rounds=int(rounds)
    )
