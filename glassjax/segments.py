"""Some steps of a batch of replicas as one compiled program, on one device or shared out over several."""

from __future__ import annotations

import functools

import jax
import numpy as np

from glassjax.replica import advance


@functools.cache
def shardings(devices: tuple):
    """Where the replicas go, one part to each device, and where what all need goes."""
    if len(devices) == 1:
        return [jax.sharding.SingleDeviceSharding(devices[0])] * 2
    mesh = jax.sharding.Mesh(np.array(devices), ("replicas",))
    return [jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(*axes)) for axes in (("replicas",), ())]


@functools.cache
def segment_on(devices: tuple):
    """jit(states, stage) -> (states, info): `replica.advance` of a batch whose first axis is shared out over ``devices``, which exchange nothing."""
    batch = jax.vmap(advance, in_axes=(0, None))
    if len(devices) == 1:
        return jax.jit(batch)
    parts, whole = shardings(devices)
    mapped = jax.shard_map(batch, mesh=parts.mesh, in_specs=(parts.spec, whole.spec), out_specs=parts.spec, check_vma=False)
    return jax.jit(mapped, in_shardings=(parts, whole), out_shardings=parts)


_programs: dict = {}  # compiled segments, for this process


def compiled(devices: tuple, state, stage):
    """The segment compiled for arguments like these."""
    leaves, tree = jax.tree.flatten((state, stage))
    settings = jax.config.read("jax_disable_most_optimizations"), jax.config.jax_default_matmul_precision
    key = (devices, tree, *((leaf.shape, leaf.dtype) for leaf in leaves), *settings)
    if key not in _programs:
        _programs[key] = segment_on(devices).lower(state, stage).compile()
    return _programs[key]
