"""The score network of GLASS: MeshGraphNet (Pfaff et al., ICLR 2021) with noise-level features, on jraph graphs.

Not equivariant: it is trained with random rotations. PHYSICS.md section 1 has the layer list; at width 200, 5 blocks and one species it
has 2,014,203 parameters.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import jraph

from glassjax.priors import features


class MLP(nn.Module):
    """Linear layers of the given widths with SiLU between them, then a layer norm if asked.

    Attributes:
      widths: output width of each linear layer.
      norm: end with a LayerNorm.
    """

    widths: tuple[int, ...]
    norm: bool = True

    @nn.compact
    def __call__(self, x):
        """Apply to the last axis."""
        for index, width in enumerate(self.widths):
            x = nn.Dense(width)(nn.silu(x) if index else x)
        return nn.LayerNorm(epsilon=1e-5)(x) if self.norm else x


class MeshGraphBody(nn.Module):
    """Encoder and message passing of GLASS; networks add a decoder.

    Attributes:
      elements: number of species.
      width: hidden width d.
      blocks: number of unshared message-passing blocks.
      cutoff: A.
    """

    elements: int
    width: int = 200
    blocks: int = 5
    cutoff: float = 5.0

    equivariant = False

    def _describe(self, graph: jraph.GraphsTuple) -> jax.Array:
        """Features [n, d] of the atoms of a graph with ``globals`` = sigma."""
        d, sigma = self.width, graph.globals
        mask = graph.edges["mask"][:, None]
        distances = jnp.where(graph.edges["mask"], graph.edges["distances"], self.cutoff)
        lengths = jnp.concatenate([graph.edges["displacements"], distances[:, None]], axis=-1)
        h = MLP((d, d))(jax.nn.one_hot(graph.nodes["species"], self.elements, dtype=lengths.dtype))
        edge = MLP((d, d))(lengths)
        # sigma(t) = k t with k = 0.8 A: the network sees t
        h = h + MLP((d, d))(features.gaussian_features(sigma / 0.8, d))[None]
        for _ in range(self.blocks):
            received = features.receive(h, graph)
            edge = edge + MLP((d, d, d))(jnp.concatenate([features.send(h, graph), received, edge], axis=-1))
            inbox = features.aggregate(jnp.where(mask, edge, 0.0), graph)
            h = h + MLP((d, d, d))(jnp.concatenate([h, inbox], axis=-1))
        return h


class MeshGraphNet(MeshGraphBody):
    """Score network of GLASS; attributes as `MeshGraphBody`."""

    @nn.compact
    def __call__(self, graph: jraph.GraphsTuple) -> jax.Array:
        """Score [n, 3] in 1/A of a graph as `Graph.to_jraph` makes it, with ``globals`` = sigma."""
        return MLP((self.width, 3), norm=False)(self._describe(graph)) / graph.globals
