"""A tiny untrained prior and a target for tests that need the whole path but no physics."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from glassjax._pytree import frozen
from glassjax.neighbors import build, neighbor_spec
from glassjax.observables import pair_distribution
from glassjax.priors.prior import Prior, make_network, save_prior
from glassjax.report import curve
from glassjax.structure import random_packing

ATOMS, DENSITY, RHO = 32, 2.3, 0.04931786986927748
NETWORK = dict(name="equivariant", options=dict(elements=1, channels=8, steerable=4, blocks=1, radial=8, cutoff=4.0))


@frozen
class ZeroScore:
    """A score of zero: the denoised estimate is the structure itself."""

    def fit(self, s):
        return self

    def grown(self, info):
        return self

    def __call__(self, s, sigma):
        return jnp.zeros_like(s.positions), {}


def packing(seed=5, atoms=ATOMS):
    return random_packing(seed, ["Si"] * atoms, number_density=RHO, minimum_distance=2.1)


def random_parameters(network, s, seed=0):
    """Parameters of a network drawn with numpy, because compiling an initialisation takes seconds; scales and biases are moved from 1 and 0."""
    spec, rng = neighbor_spec(s, network.cutoff, margin=14.0), np.random.default_rng(seed)
    shapes = jax.eval_shape(lambda one: network.init(jax.random.key(0), build(one, spec).to_jraph(one.species, jnp.float32(0.5))), s)["params"]

    def draw(path, leaf):
        noise, name = rng.normal(size=leaf.shape), path[-1].key
        return jnp.asarray(noise / np.sqrt(leaf.shape[0]) if name not in ("scale", "bias") else (name == "scale") + 0.1 * noise, leaf.dtype)

    return jax.tree_util.tree_map_with_path(draw, shapes)


def tiny_prior() -> Prior:
    network, cell = make_network(NETWORK), packing()
    # small parameters give a small score: an untrained one of full size throws atoms about
    params = jax.tree.map(lambda leaf: 0.3 * leaf, random_parameters(network, cell))
    return Prior(params=params, network=network, elements=("Si",))


def write_prior(path):
    save_prior(tiny_prior(), path)
    return path


def write_target(path, function="g", rmax=6.0, scale=1.0):
    r = np.linspace(0.1, rmax, 60)
    y = curve(pair_distribution(r, ["Si"], function=function), packing(atoms=216)) * scale
    np.savetxt(path, np.column_stack([r, y]), header="measured by nobody")
    return path


@pytest.fixture(autouse=True, scope="module")
def allow_rank_promotion():
    """flax and the networks rely on rank promotion; the tests of the kernels refuse it."""
    with jax.numpy_rank_promotion("allow"):
        yield
