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


class EquivariantBody(nn.Module):
    """Message passing that makes scalars and steerable features of each atom; networks add what they read from them.

    Attributes:
      elements: number of species.
      channels: width C of the scalars.
      steerable: channels K of each steerable feature.
      lmax: highest angular degree (1, 2 or 3).
      blocks: number of message-passing blocks.
      cutoff: A.
      radial: number of radial functions.
    """

    elements: int
    channels: int = 64
    steerable: int = 16
    lmax: int = 2
    blocks: int = 3
    cutoff: float = 5.0
    radial: int = 20

    equivariant = True

    def _describe(self, graph: jraph.GraphsTuple):
        """(h [n, C], x, a list of [n, 2l + 1, K], (unit, radial, angular, weight) of the edges) of a graph with ``globals`` = sigma."""
        sigma = graph.globals
        distances = graph.edges["distances"]
        # an empty slot sits at the cutoff, where the envelope is zero; overlapping atoms keep a finite direction
        unit = graph.edges["displacements"] / jnp.maximum(distances, 1e-3)[:, None]
        weight = (features.envelope(distances, self.cutoff) * graph.edges["mask"])[:, None]
        angular = features.spherical_harmonics(unit, self.lmax)
        radial = features.radial_basis(distances, self.cutoff, self.radial)

        level = features.gaussian_features(0.25 * jnp.log(sigma), self.channels)
        level = nn.silu(nn.Dense(self.channels)(level))
        h = nn.Embed(self.elements, self.channels)(jnp.maximum(graph.nodes["species"], 0)) + nn.Dense(self.channels)(level)[None]
        x = None
        for _ in range(self.blocks):
            h, x = self._block(graph, h, x, level, radial, angular, weight)
        return h, x, (unit, radial, angular, weight)

    def _edges(self, graph, h, x, radial, angular):
        """Hidden edge features [e, C]: node projections are gathered after the matrix product, not before."""
        norm = nn.LayerNorm()(h)
        total = features.receive(nn.Dense(self.channels)(norm), graph)
        total = total + features.send(nn.Dense(self.channels, use_bias=False)(norm), graph)
        total = total + features.EdgeDense(self.channels, use_bias=False)(radial)
        if x is not None:
            parts = [end(part, graph) for end in (features.receive, features.send) for part in x]
            angles = [jnp.sum(y[..., None] * part, axis=1) for y, part in zip([*angular, *angular], parts, strict=True)]
            total = total + features.EdgeDense(self.channels, use_bias=False)(jnp.concatenate(angles, axis=-1))
        return nn.silu(total)

    def _block(self, graph, h, x, level, radial, angular, weight):
        k, c = self.steerable, self.channels
        hidden = self._edges(graph, h, x, radial, angular)
        message = features.EdgeDense(c + k * self.lmax)(hidden) * weight
        scalars = features.aggregate(message[:, :c], graph)
        mixed = []
        for index, y in enumerate(angular):
            gates = message[:, c + index * k : c + (index + 1) * k]
            steer = 0.2 * features.aggregate(y[..., None] * gates[:, None], graph)
            mixed.append(nn.Dense(k, use_bias=False)(steer if x is None else steer + x[index]))
        norms = [jnp.sum(part**2, axis=1) for part in mixed]
        inputs = jnp.concatenate([nn.LayerNorm()(h), nn.Dense(c)(0.2 * scalars), *norms], axis=-1)
        inner = nn.silu(nn.Dense(2 * c)(inputs) + nn.Dense(2 * c)(level)[None])
        out = nn.Dense(c + k * self.lmax)(inner)
        gated = [part * (1.0 + out[:, None, c + index * k : c + (index + 1) * k]) for index, part in enumerate(mixed)]
        return h + out[:, :c], gated


class EquivariantNetwork(EquivariantBody):
    """Score network, equivariant under rotation, reflection, translation and permutation; attributes as `EquivariantBody`, and

    Attributes:
      floor: A; the score is out / sqrt(sigma^2 + floor^2), because thermal motion bounds it at low noise.
    """

    floor: float = 0.1

    @nn.compact
    def __call__(self, graph: jraph.GraphsTuple) -> jax.Array:
        """Score [n, 3] in 1/A of a graph as `Graph.to_jraph` makes it, with ``globals`` = sigma."""
        h, x, (unit, radial, angular, weight) = self._describe(graph)
        hidden = self._edges(graph, h, x, radial, angular)
        push = features.EdgeDense(1 + self.steerable)(hidden) * weight
        carried = jnp.sum(push[:, None, 1:] * features.send(x[0], graph), axis=-1)
        force = features.aggregate(push[:, :1] * unit + carried, graph)
        gate = nn.Dense(self.steerable)(nn.silu(nn.Dense(self.channels)(h)))
        force = force + jnp.sum(gate[:, None] * x[0], axis=-1)
        return force / jnp.sqrt(graph.globals**2 + self.floor**2)
