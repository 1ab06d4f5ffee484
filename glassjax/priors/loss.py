"""Denoising score matching: the loss of one noisy copy of one cell."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from glassjax._pytree import replace
from glassjax.neighbors import NeighborSpec, build
from glassjax.structure import Structure


def random_rotation(key) -> jax.Array:
    """A uniformly random rotation matrix [3, 3] (from a random unit quaternion)."""
    w, x, y, z = jax.random.normal(key, (4,))
    norm = jnp.sqrt(w * w + x * x + y * y + z * z)
    w, x, y, z = w / norm, x / norm, y / norm, z / norm
    return jnp.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )


def denoising_loss(key, network, params, structure: Structure, sigma, spec: NeighborSpec):
    """Mean over atoms of |sigma s + eps|^2, summed over xyz: 3 for a zero network (PHYSICS.md section 1).

    The graph is built on the noisy positions. For a network that is not equivariant the noisy structure is rotated at random first.

    Args:
      key: random key of the noise (and rotation).
      network: flax score network.
      params: its parameters.
      structure: clean structure.
      sigma: noise level, A.
      spec: neighbour list at the network's cutoff.

    Returns:
      (loss, needed): the loss, and what the neighbour list needed (int32 [3]).
    """
    noise_key, rotation_key = jax.random.split(key)
    noise = jax.random.normal(noise_key, structure.positions.shape, structure.positions.dtype)
    filled = structure.species >= 0
    graph = build(replace(structure, positions=structure.positions + sigma * noise), spec)
    if not network.equivariant:
        rotation = random_rotation(rotation_key).astype(noise.dtype)
        graph = replace(graph, displacements=graph.displacements @ rotation)
        noise = noise @ rotation
    score = network.apply({"params": params}, graph.to_jraph(structure.species, sigma, reverse=True, rows=network.in_rows))
    error = jnp.where(filled[:, None], sigma * score + noise, 0.0)
    return jnp.sum(error**2) / jnp.sum(filled), graph.needed
