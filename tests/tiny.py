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


def tiny_prior() -> Prior:
    network, cell = make_network(NETWORK), packing()
    graph = build(cell, neighbor_spec(cell, network.cutoff)).to_jraph(cell.species, jnp.float32(0.5))
    # small parameters give a small score: an untrained one of full size throws atoms about
    params = jax.tree.map(lambda leaf: 0.3 * leaf, jax.jit(network.init)(jax.random.key(0), graph)["params"])
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
