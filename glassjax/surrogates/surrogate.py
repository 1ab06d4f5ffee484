"""A surrogate: an ensemble of trained spectrum networks with what it needs to be used, and its file.

Members differ in initialisation, data order and the cells that they were trained on. Where a structure leaves what they were trained on they
disagree, and the standard deviation between them is the measure of that.
"""

from __future__ import annotations

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from glassjax._pytree import frozen, static
from glassjax.archive import write_arrays
from glassjax.neighbors import NeighborSpec, build, neighbor_spec
from glassjax.priors.prior import flatten, read_trained, shipped_files, unflatten
from glassjax.structure import Structure
from glassjax.surrogates.networks import describe_network, make_network

FORMAT = "glassjax-surrogate-1"
KINDS = {"xanes": "mu(E)", "exafs": "chi(k)"}


@frozen
class Surrogate:
    """Spectra of the absorbing atoms of a structure by an ensemble of networks.

    Attributes:
      params: network parameters, every leaf with a leading axis over the members.
      mean: [points] mean spectrum of the training sites.
      basis: [p, points] principal directions of the training spectra times their standard deviation, the largest first.
      x: [points] energy (eV or index of the point) or k (1/A).
      scale: disagreement at which an atom counts half in the guidance, in the spectrum's unit.
      sigma: noise level that the networks are told for a structure without noise, the smallest of the training, A.
      network: flax module of one member (static).
      elements: species order of the networks (static).
      absorber: element whose spectra these are (static).
      edge: absorption edge, "K" (static).
      kind: "xanes" or "exafs" (static).
      unit: of x, "eV", "1/A" or "index" (static).
      card: JSON text with the training record and the errors on held-out cells (static).
    """

    params: dict
    mean: jax.Array
    basis: jax.Array
    x: jax.Array
    scale: jax.Array
    sigma: jax.Array
    network: object = static()
    elements: tuple[str, ...] = static()
    absorber: str = static()
    edge: str = static(default="K")
    kind: str = static(default="xanes")
    unit: str = static(default="index")
    card: str = static(default="{}")

    @property
    def members(self) -> int:
        """Number of networks."""
        return jax.tree.leaves(self.params)[0].shape[0]

    @property
    def cutoff(self) -> float:
        """Reach of one message, A."""
        return self.network.cutoff

    def sites(self, structure: Structure, spec: NeighborSpec | None = None) -> tuple[jax.Array, jax.Array]:
        """(spectra [n, points], disagreement [n]): the mean over the members, and the rms over the points of their standard deviation.

        Zero for atoms that do not absorb; NaN if the neighbour list overflowed. Raises ValueError for elements that it was not trained on.
        """
        spec = neighbor_spec(structure, self.cutoff) if spec is None else spec
        species = self.species_of(structure)
        packed = build(structure, spec).to_jraph(species, self.sigma.astype(structure.positions.dtype), rows=self.network.in_rows)
        members = self.decode(self.outputs(packed))
        absorbs = species == self.elements.index(self.absorber)
        return jnp.where(absorbs[:, None], jnp.mean(members, axis=0), 0.0), jnp.where(absorbs, disagreement(members), 0.0)

    def species_of(self, structure: Structure) -> jax.Array:
        """Species [n] in the order of the networks, -1 in empty slots; raises ValueError for an element that they do not know."""
        missing = [e for e in structure.elements if e not in self.elements]
        if missing:
            raise ValueError(
                f"got element {', '.join(missing)}; the surrogate knows {', '.join(self.elements)}; choose another or train one with "
                "`glassjax train-surrogate`"
            )
        order = jnp.array([self.elements.index(e) for e in structure.elements], jnp.int32)
        return jnp.where(structure.species >= 0, order[structure.species], -1)

    def outputs(self, packed) -> jax.Array:
        """What the members' networks make [members, n, p] of a graph as `Graph.to_jraph` makes it."""
        return apply_members(self.network, self.params, packed)

    def decode(self, outputs: jax.Array) -> jax.Array:
        """Spectra [..., points] of network outputs [..., p]."""
        return decode(self.network, self.mean, self.basis, outputs)


def apply_members(network, params, packed) -> jax.Array:
    """Outputs [members, n, p] of networks whose parameters are stacked on a leading axis."""
    return jax.vmap(lambda one: network.apply({"params": one}, packed))(params)


def decode(network, mean: jax.Array, basis: jax.Array, outputs: jax.Array) -> jax.Array:
    """Spectra [..., points]: mean + outputs @ basis for coefficients, mean + rms deviation x outputs for points."""
    lifted = mean.reshape(*(1,) * (outputs.ndim - 1), -1)
    if network.principal:
        return lifted + outputs @ basis
    return lifted + jnp.sqrt(jnp.sum(basis**2) / basis.shape[1]) * outputs


def disagreement(members: jax.Array) -> jax.Array:
    """Rms over the points of the standard deviation between the members [n] of spectra [members, n, points]; 0 for one member."""
    gap = members - jnp.mean(members, axis=0, keepdims=True)
    return jnp.sqrt(jnp.sum(gap**2, axis=(0, 2)) / (max(1, members.shape[0] - 1) * members.shape[2]))


def save_surrogate(surrogate: Surrogate, path) -> None:
    """Write a surrogate as one compressed file."""
    header = {name: getattr(surrogate, name) for name in ("absorber", "edge", "kind", "unit")}
    header |= dict(format=FORMAT, network=describe_network(surrogate.network), elements=list(surrogate.elements), card=json.loads(surrogate.card))
    arrays = {name: np.asarray(getattr(surrogate, name)) for name in ("mean", "basis", "x", "scale", "sigma")}
    write_arrays(path, header, arrays | flatten(jax.device_get(surrogate.params), "params/"))


def shipped_surrogates() -> dict[str, Path]:
    """Names and files of the surrogates that come with the package."""
    return shipped_files(Path(__file__).parent)


def load_surrogate(name_or_path) -> Surrogate:
    """A shipped surrogate by name, or one from a file; raises as `read_trained`."""
    header, arrays, network = read_trained(name_or_path, shipped_surrogates(), kind="surrogate", form=FORMAT, make=make_network)
    tree = jax.tree.map(jnp.asarray, unflatten(arrays))
    names = {name: header[name] for name in ("absorber", "edge", "kind", "unit")}
    return Surrogate(network=network, elements=tuple(header["elements"]), card=json.dumps(header["card"]), **names, **tree)
