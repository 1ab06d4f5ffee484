"""The score network of GLASS: MeshGraphNet (Pfaff et al., ICLR 2021) with noise-level features, on jraph graphs.

Not equivariant: it is trained with random rotations. PHYSICS.md section 1 has the layer list; at width 200, 5 blocks and one species it
has 2,014,203 parameters.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import jraph
import numpy as np

from glassjax.priors import features


class Joined(nn.Module):
    """A linear layer of the concatenation of parts: sum_i spread_i(x_i W_i) + b, where ``spread_i`` brings rows of atoms to edges.

    A part of atoms is multiplied before it is brought to the edges, of which there are some thirty times more.

    Attributes:
      width: output width.
    """

    width: int

    @nn.compact
    def __call__(self, parts):
        """[(x_i [rows_i, in_i], spread_i or None), ...] -> [rows, width]."""
        ends = np.cumsum([x.shape[-1] for x, _ in parts])
        kernel = self.param("kernel", nn.linear.default_kernel_init, (int(ends[-1]), self.width), jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (self.width,), jnp.float32)
        total = bias.astype(parts[0][0].dtype)[None]
        for (x, spread), end in zip(parts, ends, strict=True):
            y = x @ kernel[end - x.shape[-1] : end].astype(x.dtype)
            total = total + (y if spread is None else spread(y))
        return total


class MLP(nn.Module):
    """Linear layers of the given widths with SiLU between them, then a layer norm if asked.

    Attributes:
      widths: output width of each linear layer.
      norm: end with a LayerNorm.
    """

    widths: tuple[int, ...]
    norm: bool = True

    @nn.compact
    def __call__(self, *parts):
        """Apply to the last axis of an array, or to the concatenation of several, see `Joined`."""
        x = Joined(self.widths[0], name="Dense_0")([one if isinstance(one, tuple) else (one, None) for one in parts])
        for index, width in enumerate(self.widths[1:], start=1):
            x = nn.Dense(width, name=f"Dense_{index}")(nn.silu(x))
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
    in_rows = False

    def _describe(self, graph: jraph.GraphsTuple) -> jax.Array:
        """Features [n, d] of the atoms of a graph with ``globals`` = sigma."""
        d, sigma = self.width, graph.globals
        mask = graph.edges["mask"][:, None]
        distances = jnp.where(graph.edges["mask"], graph.edges["distances"], self.cutoff)
        lengths = jnp.concatenate([graph.edges["displacements"], distances[:, None]], axis=-1)
        h = MLP((d, d))(jax.nn.one_hot(graph.nodes["species"], self.elements, dtype=lengths.dtype))
        edge = MLP((d, d))(lengths)
        # sigma(t) = k t with k = 0.8 A: the network sees t
        h = h + MLP((d, d))(features.gaussian_features(sigma / 0.8, d)[None])
        for _ in range(self.blocks):
            edge = edge + MLP((d, d, d))((h, lambda y: features.send(y, graph.senders, graph)), (h, lambda y: features.receive(y, graph)), edge)
            inbox = features.aggregate(jnp.where(mask, edge, 0.0), graph)
            h = h + MLP((d, d, d))(h, inbox)
        return h


class MeshGraphNet(MeshGraphBody):
    """Score network of GLASS; attributes as `MeshGraphBody`."""

    @nn.compact
    def __call__(self, graph: jraph.GraphsTuple) -> jax.Array:
        """Score [n, 3] in 1/A of a graph as `Graph.to_jraph` makes it, with ``globals`` = sigma."""
        return MLP((self.width, 3), norm=False)(self._describe(graph)) / graph.globals
