"""A prior: a trained score network with what it needs to be used, and its checkpoint file."""

from __future__ import annotations

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from glassjax._pytree import frozen, replace, static
from glassjax.archive import CorruptedArchive, read_arrays, write_arrays
from glassjax.neighbors import NeighborSpec, build, grow, neighbor_spec
from glassjax.priors.features import shortened
from glassjax.structure import Structure

FORMAT = "glassjax-prior-1"
LINEAR_MOST = 0.8  # A, the largest noise of priors trained on "linear" levels, as published
LARGEST = 5.0  # of |sigma s| of an atom
MARGIN = 3.0  # of the neighbour list, see `neighbor_spec`: atoms that a prior moves stay farther apart than those of a gas


@frozen
class Prior:
    """A score: ``prior(structure, sigma) -> (score [n, 3] in 1/A, info)``.

    Attributes:
      params: network parameters.
      network: flax module (static).
      elements: species order of the network (static).
      spec: neighbour list at the network's cutoff (static); see `Prior.fit`.
      card: JSON text with the training record (static).
    """

    params: dict
    network: object = static()
    elements: tuple[str, ...] = static()
    spec: NeighborSpec | None = static(default=None)
    card: str = static(default="{}")

    def fit(self, structure: Structure, **options) -> Prior:
        """The same prior with a neighbour list for structures like this one (options: `neighbor_spec`).

        Raises:
          ValueError: an element of the structure is not in the prior.
        """
        require_elements(self, structure.elements)
        return replace(self, spec=neighbor_spec(structure, self.network.cutoff, **dict(margin=MARGIN) | options))

    def grown(self, info: dict) -> Prior:
        """The same prior with capacities that suffice for what ``info`` reported."""
        needed = np.asarray(info["needed"]).reshape(-1, 3)
        # edges in rows need no packed list
        return replace(self, spec=grow(self.spec, needed * np.array([[1, 0, 1]]) if self.network.in_rows else needed))

    def __call__(self, structure: Structure, sigma) -> tuple[jax.Array, dict]:
        """Score at noise level ``sigma`` (A), zero in empty slots; info: ``needed`` of the neighbour list.

        -sigma s is the mean of the unit noise that an atom may have got, so one longer than ``LARGEST`` is an error of a network far from what it was
        trained on: it is shortened to that, since larger ones feed themselves and end in NaN.
        """
        spec = neighbor_spec(structure, self.network.cutoff, margin=MARGIN) if self.spec is None else self.spec
        graph = build(structure, spec)
        order = jnp.array([self.elements.index(e) for e in structure.elements], jnp.int32)
        species = jnp.where(structure.species >= 0, order[structure.species], -1)
        packed = graph.to_jraph(species, jnp.asarray(sigma, structure.positions.dtype), rows=self.network.in_rows)
        score = self.network.apply({"params": self.params}, packed)
        score = shortened(score, LARGEST / sigma)
        # a list that overflowed made every distance NaN; atoms without an edge in it must not look right
        score = jnp.where(jnp.isnan(packed.edges["distances"][0]), jnp.nan, score)
        return jnp.where((structure.species >= 0)[:, None], score, 0.0), {"needed": graph.needed}


def require_elements(prior: Prior, elements) -> None:
    """Raise ``ValueError`` if the prior does not know one of ``elements``."""
    missing = [e for e in elements if e not in prior.elements]
    if missing:
        raise ValueError(
            f"element {', '.join(missing)} is not in the prior, which knows {', '.join(prior.elements)}; "
            "choose another --prior or train one with `glassjax train`"
        )


def networks() -> dict[str, type]:
    """The score networks by the name that a checkpoint stores."""
    from glassjax.priors.equivariant import EquivariantNetwork
    from glassjax.priors.meshgraphnet import MeshGraphNet

    return {"equivariant": EquivariantNetwork, "meshgraphnet": MeshGraphNet}


def describe_network(network) -> dict:
    """Name and options of a network as plain JSON."""
    name = next(name for name, cls in networks().items() if type(network) is cls)
    skip = {"parent", "name"}
    return {"name": name, "options": {k: getattr(network, k) for k in network.__dataclass_fields__ if k not in skip}}


def make_network(description: dict):
    """The inverse of `describe_network`; unknown names raise ``ValueError``."""
    known = networks()
    if description["name"] not in known:
        raise ValueError(f"unknown network {description['name']!r}; needs one of {', '.join(known)}")
    return known[description["name"]](**description["options"])


def flatten(tree, prefix: str = "") -> dict[str, np.ndarray]:
    """Nested dicts of arrays as one flat dict with "/" in the names."""
    flat = {}
    for key, value in tree.items():
        name = f"{prefix}{key}"
        flat |= flatten(value, name + "/") if isinstance(value, dict) else {name: np.asarray(value)}
    return flat


def unflatten(flat) -> dict:
    """The inverse of `flatten`."""
    tree: dict = {}
    for name, value in flat.items():
        *path, last = name.split("/")
        node = tree
        for part in path:
            node = node.setdefault(part, {})
        node[last] = value
    return tree


def read_checkpoint(path) -> tuple[dict, dict[str, np.ndarray]]:
    """Header and arrays of a prior, a surrogate or a training's state.

    Raises:
      FileNotFoundError: no such file.
      ValueError: not such a file, truncated or corrupted.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"no checkpoint {path}; needs a file written by `glassjax train`, or the name of a shipped prior")
    try:
        return read_arrays(path)
    except CorruptedArchive as error:
        raise ValueError(f"checkpoint {path} is corrupted or no glassjax file ({error}); train it again or fetch a fresh copy") from error


def shipped_files(folder: Path) -> dict[str, Path]:
    """Names and files of the checkpoints in the ``shipped`` folder beside a module."""
    return {p.stem: p for p in sorted((folder / "shipped").glob("*.npz"))}


def read_trained(name_or_path, shipped: dict[str, Path], *, kind: str, form: str, make):
    """(header, arrays, network) of a shipped checkpoint by name, or of one from a file; ``make`` builds the network from its description.

    Raises:
      FileNotFoundError: neither a shipped name nor a file; the names are listed.
      ValueError: the file is corrupted, of another format than ``form``, or of another version of the network.
    """
    path = shipped.get(str(name_or_path), Path(name_or_path))
    if not Path(path).is_file():
        raise FileNotFoundError(f"got no {kind} {str(name_or_path)!r}; needs a file or one of {', '.join(shipped) or '(none shipped)'}")
    header, arrays = read_checkpoint(path)
    if header.get("format") != form:
        raise ValueError(f"got {path} of format {header.get('format')!r}; needs {form!r}, as written by save_{kind}")
    try:
        return header, arrays, make(header["network"])
    except TypeError as error:
        raise ValueError(f"{path} was written for another version of the network ({error}); train it again") from error


def save_prior(prior: Prior, path) -> None:
    """Write a prior as one compressed file (network, elements, card and float32 parameters)."""
    header = dict(format=FORMAT, network=describe_network(prior.network), elements=list(prior.elements), card=json.loads(prior.card))
    write_arrays(path, header, flatten(jax.device_get(prior.params)))


def shipped_priors() -> dict[str, Path]:
    """Names and files of the priors that come with the package."""
    return shipped_files(Path(__file__).parent)


def load_prior(name_or_path) -> Prior:
    """A shipped prior by name, or one from a file; raises as `read_trained`."""
    header, arrays, network = read_trained(name_or_path, shipped_priors(), kind="prior", form=FORMAT, make=make_network)
    params = jax.tree.map(jnp.asarray, unflatten(arrays))
    return Prior(params=params, network=network, elements=tuple(header["elements"]), card=json.dumps(header["card"]))
