"""The default score network: E(3)-equivariant message passing with explicit angles.

Each atom carries scalars h [C] and steerable features X [(l, m), K] for l = 1..lmax. On every edge the contractions Y_l(u_ij) . X_i and
Y_l(u_ij) . X_j are scalars that hold the bond angles at both ends, so each message sees three- and four-body geometry at pair cost (the idea of
runtime geometry in ViSNet, Wang et al., Nat. Commun. 15, 313 (2024), on top of PaiNN, Schuett et al., ICML 2021).
"""

from __future__ import annotations

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import jraph

from glassjax.priors import features


class Rows(NamedTuple):
    """The edges, k per row: those that end at an atom, or, in a graph that has no such layout, one.

    Attributes:
      senders: [r, k].
      angular: [r, k, (lmax + 1)^2 - 1] all Y_l of each edge's direction.
      radial: [r, k, radial] radial functions.
      weight: [r, k] smooth cutoff, zero in empty slots.
      outputs: [r, (lmax + 1)^2, k] 1 and ``angular``, times the weight.
    """

    senders: jax.Array
    angular: jax.Array
    radial: jax.Array
    weight: jax.Array
    outputs: jax.Array


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
    in_rows = True  # edges laid out by receiver, see `Graph.to_jraph`

    def _describe(self, graph: jraph.GraphsTuple):
        """(h [n, C], x, a list of [n, 2l + 1, K], `Rows`) of a graph with ``globals`` = sigma."""
        sigma, rows = graph.globals, self._rows(graph)
        count = jnp.concatenate([jnp.sum(rows.weight, axis=1, keepdims=True), jnp.sum(rows.weight[..., None] * rows.angular, axis=1)], axis=1)
        count = features.to_atoms(count, graph)
        level = features.gaussian_features(0.25 * jnp.log(sigma), self.channels)
        level = nn.silu(nn.Dense(self.channels)(level))
        h = nn.Embed(self.elements, self.channels)(jnp.maximum(graph.nodes["species"], 0)) + nn.Dense(self.channels)(level)[None]
        x = None
        for _ in range(self.blocks):
            h, x = self._block(graph, h, x, level, rows, count)
        return h, x, rows

    def _rows(self, graph: jraph.GraphsTuple) -> Rows:
        distances = features.edge_rows(graph.edges["distances"], graph)
        # an empty slot sits at the cutoff, where the envelope is zero; overlapping atoms keep a finite direction
        unit = features.edge_rows(graph.edges["displacements"], graph) / jnp.maximum(distances, 1e-3)[..., None]
        weight = features.envelope(distances, self.cutoff) * features.edge_rows(graph.edges["mask"], graph)
        angular = jnp.concatenate(features.spherical_harmonics(unit, self.lmax), axis=-1)
        outputs = jnp.concatenate([jnp.ones_like(weight)[..., None], angular], axis=-1) * weight[..., None]
        return Rows(
            senders=features.edge_rows(graph.senders, graph),
            angular=angular,
            radial=features.radial_basis(distances, self.cutoff, self.radial),
            weight=weight,
            outputs=outputs.swapaxes(1, 2),
        )

    def _hidden(self, graph, h, x):
        """(function, own): function(rows, own) -> hidden features [r, k, C] of the edges, from what their receivers' atoms have of their own.

        silu(a_i + b_j + W_r radial + W_a [Y_l . x_i, Y_l . x_j]): what depends on one end alone is multiplied per atom, not per edge.
        """
        norm, c, kind = nn.LayerNorm()(h), self.channels, h.dtype
        own = [nn.Dense(c)(norm)]
        other = nn.Dense(c, use_bias=False)(norm)
        radial, _ = features.EdgeDense(c, use_bias=False)(self.radial)
        if x is not None:
            k, width = self.steerable, self.steerable * self.lmax
            angles = features.EdgeDense(c, use_bias=False)(2 * width)[0].astype(kind)
            own.append(jnp.concatenate([part @ angles[i * k : (i + 1) * k] for i, part in enumerate(x)], axis=1))
            # each l in channels of its own: the sum over all m then gives [Y_l . x_j] in one loop over the edges, which XLA vectorises
            sides = [(i * k, width - (i + 1) * k) for i in range(self.lmax)]
            apart = jnp.concatenate([jnp.pad(part, ((0, 0), (0, 0), side)) for part, side in zip(x, sides, strict=True)], axis=1)

        def hidden(rows, own):
            flat = lambda one: one.reshape(-1, *one.shape[2:])  # noqa: E731
            total = features.matmul(flat(rows.radial), radial.astype(kind))
            if x is not None:
                total = total + flat(jnp.einsum("rkm,rmc->rkc", rows.angular, own[1], precision="highest"))
                dots = jnp.sum(flat(rows.angular)[..., None] * features.send(apart, flat(rows.senders), graph), axis=1)
                total = total + features.matmul(dots, angles[width:])
            total = total.reshape(*rows.weight.shape, c)
            return nn.silu(total + own[0][:, None] + features.send(other, rows.senders, graph))

        return hidden, features.to_rows(own, graph)

    def _block(self, graph, h, x, level, rows, count):
        k, c, lmax = self.steerable, self.channels, self.lmax
        hidden, own = self._hidden(graph, h, x)
        # messages are linear in the hidden features: these are summed first, and multiplied once per atom
        kernel, bias = (w.astype(h.dtype) for w in features.EdgeDense(c + k * lmax)(c))
        collect = lambda part: jnp.einsum("rmk,rkc->rmc", part[0].outputs, hidden(*part), precision="highest")  # noqa: E731
        collected = features.to_atoms(features.by_blocks(collect, (rows, own), graph), graph)
        scalars = collected[:, 0] @ kernel[:, :c] + count[:, :1] * bias[None, :c]
        mixed = []
        for degree in range(1, lmax + 1):
            index, which = degree - 1, slice(degree**2, (degree + 1) ** 2)
            gate = slice(c + index * k, c + (index + 1) * k)
            steer = 0.2 * (collected[:, which] @ kernel[:, gate] + count[:, which, None] * bias[None, None, gate])
            mixed.append(nn.Dense(k, use_bias=False)(steer if x is None else steer + x[index]))
        norms = [jnp.sum(part**2, axis=1) for part in mixed]
        inputs = jnp.concatenate([nn.LayerNorm()(h), nn.Dense(c)(0.2 * scalars), *norms], axis=-1)
        inner = nn.silu(nn.Dense(2 * c)(inputs) + nn.Dense(2 * c)(level)[None])
        out = nn.Dense(c + k * lmax)(inner)
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
        h, x, rows = self._describe(graph)
        hidden, own = self._hidden(graph, h, x)
        kernel, bias = (w.astype(h.dtype) for w in features.EdgeDense(1 + self.steerable)(self.channels))

        def pull(part):
            push = (features.matmul(hidden(*part), kernel) + bias[None, None]) * part[0].weight[..., None]
            carried = jnp.sum(push[:, :, None, 1:] * features.send(x[0], part[0].senders, graph), axis=-1)
            return jnp.sum(push[..., :1] * part[0].angular[..., :3] + carried, axis=1)

        force = features.to_atoms(features.by_blocks(pull, (rows, own), graph), graph)
        gate = nn.Dense(self.steerable)(nn.silu(nn.Dense(self.channels)(h)))
        force = force + jnp.sum(gate[:, None] * x[0], axis=-1)
        return force / jnp.sqrt(graph.globals**2 + self.floor**2)
