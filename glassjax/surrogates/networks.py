"""Networks from a structure to one spectrum per atom, on the bodies of the score networks."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import jraph

from glassjax.priors.equivariant import EquivariantBody
from glassjax.priors.meshgraphnet import MLP, MeshGraphBody


class InvariantNetwork(EquivariantBody):
    """Coefficients of each atom's spectrum, invariant under rotation, reflection and translation; attributes as `EquivariantBody`, and

    Attributes:
      outputs: number p of coefficients per atom (of principal components of the training spectra).
    """

    outputs: int = 24

    principal = True

    @nn.compact
    def __call__(self, graph: jraph.GraphsTuple) -> jax.Array:
        """Coefficients [n, p], about unit variance, of a graph as `Graph.to_jraph` makes it, with ``globals`` = sigma."""
        h, x, _ = self._describe(graph)
        norms = [jnp.sum(part**2, axis=1) for part in x]
        hidden = nn.Dense(2 * self.channels)(jnp.concatenate([nn.LayerNorm()(h), *norms], axis=-1))
        return nn.Dense(self.outputs)(nn.silu(hidden))


class SpecNet(MeshGraphBody):
    """The spectrum network of GLASS, MeshGraphNet with a decoder to the points of a spectrum; attributes as `MeshGraphBody`, and

    Attributes:
      outputs: number of points per atom (published: 100 for XANES, 400 for EXAFS).
    """

    outputs: int = 100

    principal = False

    @nn.compact
    def __call__(self, graph: jraph.GraphsTuple) -> jax.Array:
        """Points [n, p], about unit variance, of a graph as `Graph.to_jraph` makes it, with ``globals`` = sigma."""
        return MLP((self.width, self.outputs), norm=False)(self._describe(graph))


def networks() -> dict[str, type]:
    """The spectrum networks by the name that a file stores."""
    return {"invariant": InvariantNetwork, "specnet": SpecNet}


def describe_network(network) -> dict:
    """Name and options of a network as plain JSON."""
    name = next(name for name, cls in networks().items() if type(network) is cls)
    return {"name": name, "options": {k: getattr(network, k) for k in network.__dataclass_fields__ if k not in ("parent", "name")}}


def make_network(description: dict):
    """The inverse of `describe_network`; unknown names raise ``ValueError``."""
    known = networks()
    if description["name"] not in known:
        raise ValueError(f"got network {description['name']!r}; needs one of {', '.join(known)}; train it again with one of these")
    return known[description["name"]](**description["options"])
