"""The default score network: E(3)-equivariant message passing with explicit angles.

Each atom carries scalars h [C] and steerable features X [(l, m), K] for l = 1..lmax. On every edge the contractions Y_l(u_ij) . X_i and
Y_l(u_ij) . X_j are scalars that hold the bond angles at both ends, so each message sees three- and four-body geometry at pair cost (the idea of
runtime geometry in ViSNet, Wang et al., Nat. Commun. 15, 313 (2024), on top of PaiNN, Schuett et al., ICML 2021).
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import jraph

from glassjax.priors import features


class EquivariantNetwork(nn.Module):
    """Score network, equivariant under rotation, reflection, translation and permutation.

    Attributes:
      elements: number of species.
      channels: width C of the scalars.
      steerable: channels K of each steerable feature.
      lmax: highest angular degree (1, 2 or 3).
      blocks: number of message-passing blocks.
      cutoff: A.
      radial: number of radial functions.
      floor: A; the score is out / sqrt(sigma^2 + floor^2), because thermal motion bounds it at low noise.
    """

    elements: int
    channels: int = 64
    steerable: int = 16
    lmax: int = 2
    blocks: int = 3
    cutoff: float = 5.0
    radial: int = 20
    floor: float = 0.1

    equivariant = True

    @nn.compact
    def __call__(self, graph: jraph.GraphsTuple, *, dense: bool = False) -> jax.Array:
        """Score [n, 3] in 1/A of a graph with ``nodes`` = species [n], ``globals`` = sigma and the edges of `Graph.to_jraph`."""
        sigma = graph.globals
        distances = graph.edges["distances"]
        # an empty slot sits at the cutoff, where the envelope is zero; overlapping atoms keep a finite direction
        unit = graph.edges["displacements"] / jnp.maximum(distances, 1e-3)[:, None]
        weight = (features.envelope(distances, self.cutoff) * graph.edges["mask"])[:, None]
        angular = features.spherical_harmonics(unit, self.lmax)
        radial = features.radial_basis(distances, self.cutoff, self.radial)

        level = features.gaussian_features(0.25 * jnp.log(sigma), self.channels)
        level = nn.silu(nn.Dense(self.channels)(level))
        h = nn.Embed(self.elements, self.channels)(jnp.maximum(graph.nodes, 0)) + nn.Dense(self.channels)(level)
        x = None
        for _ in range(self.blocks):
            h, x = self._block(graph, h, x, level, radial, angular, weight, dense)

        hidden = self._edges(graph, h, x, radial, angular, dense)
        push = nn.Dense(1 + self.steerable)(hidden) * weight
        carried = jnp.einsum("ek,eak->ea", push[:, 1:], x[graph.senders, :3])
        force = features.aggregate(push[:, :1] * unit + carried, graph, dense=dense)
        gate = nn.Dense(self.steerable)(nn.silu(nn.Dense(self.channels)(h)))
        force = force + jnp.einsum("nk,nak->na", gate, x[:, :3])
        return force / jnp.sqrt(sigma**2 + self.floor**2)

    def _edges(self, graph, h, x, radial, angular, dense):
        """Hidden edge features [e, C]: node projections are gathered after the matrix product, not before."""
        norm = nn.LayerNorm()(h)
        total = features.receive(nn.Dense(self.channels)(norm), graph, dense=dense)
        total = total + nn.Dense(self.channels, use_bias=False)(norm)[graph.senders] + nn.Dense(self.channels, use_bias=False)(radial)
        if x is not None:
            angles = []
            for part in (features.receive(x, graph, dense=dense), x[graph.senders]):
                start = 0
                for degree in range(1, self.lmax + 1):
                    stop = start + 2 * degree + 1
                    angles.append(jnp.einsum("em,emk->ek", angular[:, start:stop], part[:, start:stop]))
                    start = stop
            total = total + nn.Dense(self.channels, use_bias=False)(jnp.concatenate(angles, axis=-1))
        return nn.silu(total)

    def _block(self, graph, h, x, level, radial, angular, weight, dense):
        k, degrees = self.steerable, range(1, self.lmax + 1)
        hidden = self._edges(graph, h, x, radial, angular, dense)
        message = nn.Dense(self.channels + k * self.lmax)(hidden) * weight
        repeats = jnp.array([degree - 1 for degree in degrees for _ in range(2 * degree + 1)])
        gates = message[:, self.channels :].reshape(-1, self.lmax, k)[:, repeats]
        scalars = features.aggregate(message[:, : self.channels], graph, dense=dense)
        steer = features.aggregate(angular[:, :, None] * gates, graph, dense=dense) * 0.2
        mixed = self._mix(steer if x is None else steer + x)
        norms, start = [], 0
        for degree in degrees:
            stop = start + 2 * degree + 1
            norms.append(jnp.sum(mixed[:, start:stop] ** 2, axis=1))
            start = stop
        inputs = jnp.concatenate([nn.LayerNorm()(h), nn.Dense(self.channels)(0.2 * scalars), *norms], axis=-1)
        inner = nn.silu(nn.Dense(2 * self.channels)(inputs) + nn.Dense(2 * self.channels)(level))
        out = nn.Dense(self.channels + k * self.lmax)(inner)
        gate = out[:, self.channels :].reshape(-1, self.lmax, k)[:, repeats]
        return h + out[:, : self.channels], mixed * (1.0 + gate)

    def _mix(self, x):
        """Mix the channels of each degree linearly."""
        parts, start = [], 0
        for degree in range(1, self.lmax + 1):
            stop = start + 2 * degree + 1
            parts.append(nn.Dense(self.steerable, use_bias=False)(x[:, start:stop]))
            start = stop
        return jnp.concatenate(parts, axis=1)
