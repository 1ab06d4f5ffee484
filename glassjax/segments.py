"""Some steps of a batch of replicas: one compiled program per batch on accelerators, one program per replica on the cores of a CPU."""

from __future__ import annotations

import concurrent.futures
import functools
import math
import warnings

import jax
import jax.numpy as jnp
import numpy as np

from glassjax import memory
from glassjax._pytree import replace
from glassjax.distributed import cores, in_lanes
from glassjax.replica import advance


@functools.cache
def shardings(devices: tuple):
    """Where the replicas go, one part to each device, and where what all need goes."""
    if len(devices) == 1:
        return [jax.sharding.SingleDeviceSharding(devices[0])] * 2
    mesh = jax.sharding.Mesh(np.array(devices), ("replicas",))
    return [jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(*axes)) for axes in (("replicas",), ())]


@functools.cache
def segment_on(devices: tuple, lanes: bool):
    """jit(states, stage) -> (states, info): `replica.advance` of a batch whose first axis is shared out over ``devices``, which exchange nothing;
    in lanes, of one replica. The states are donated: their memory becomes that of the result."""
    if lanes:
        return jax.jit(advance, donate_argnums=0)
    batch = jax.vmap(advance, in_axes=(0, None))
    if len(devices) == 1:
        return jax.jit(batch, donate_argnums=0)
    parts, whole = shardings(devices)
    mapped = jax.shard_map(batch, mesh=parts.mesh, in_specs=(parts.spec, whole.spec), out_specs=parts.spec, check_vma=False)
    return jax.jit(mapped, in_shardings=(parts, whole), out_shardings=parts, donate_argnums=0)


def kept(state):
    """A copy of states in the host's memory, to go on from once more: `restored` gives it back."""
    plain = replace(state, key=jax.random.key_data(state.key))
    return jax.tree.map(lambda leaf: np.array(leaf, copy=True), plain), jax.random.key_impl(state.key)


def restored(copy):
    """States from what `kept` gave."""
    plain, kind = copy
    return replace(jax.tree.map(jnp.asarray, plain), key=jax.random.wrap_key_data(plain.key, impl=kind))


_programs: dict = {}  # compiled segments, for this process


def compiled(devices: tuple, state, stage):
    """The segment compiled for arguments like these."""
    leaves, tree = jax.tree.flatten((state, stage))
    settings = jax.config.read("jax_disable_most_optimizations"), jax.config.jax_default_matmul_precision
    key = (devices, tree, *((leaf.shape, leaf.dtype) for leaf in leaves), *settings)
    if key not in _programs:
        _programs[key] = segment_on(devices, in_lanes(devices)).lower(state, stage).compile()
    return _programs[key]


class Runner:
    """Runs segments of batches where they fit in memory.

    Attributes:
      devices: that a batch is shared out over.
      most: replicas that there are for each device.
      growing: whether to ask for more replicas at a time where the first program says that they fit.
      lanes: replicas side by side on a CPU, 0 elsewhere.
    """

    def __init__(self, devices: tuple, most: int, growing: bool):
        self.devices, self.most, self.growing = devices, most, growing and memory.separate(devices)
        self.lanes = cores() if in_lanes(devices) else 0

    def __call__(self, state, stage, *, chunk: int, check: bool):
        """(states, info) of one segment of a batch of ``chunk`` replicas per device; memory is asked for at ``check`` only.

        ``state`` is used up (see `kept` for a copy), but in lanes.

        Raises:
          memory.Rechunk: with another chunk, if this does not fit, or if more would.
          RuntimeError: memory is short for a single replica.
        """
        if self.lanes:
            return self._side_by_side(state, stage, check)
        need = 0
        try:
            state = jax.device_put(state, shardings(self.devices)[0])
            program = compiled(self.devices, state, stage)
            need = memory.needed(program)
            if check:
                self._rechunk(chunk, need)
            return jax.block_until_ready(program(state, stage))
        except (jax.errors.JaxRuntimeError, MemoryError) as error:
            self._refuse(error, chunk, need)
            raise memory.Rechunk(self._warn(chunk, chunk // 2, need)) from error

    def _side_by_side(self, state, stage, check: bool):
        state = jax.device_put(state, shardings(self.devices)[0])
        while True:
            ones = [jax.tree.map(lambda leaf, i=i: leaf[i], state) for i in range(len(state.step))]  # used up by a call
            lanes, need = min(self.lanes, len(ones)), 0
            try:
                program = compiled(self.devices, ones[0], stage)
                need = memory.needed(program)
                fits = max(1, int(min(lanes, memory.free(self.devices) / max(need, 1)))) if check else lanes
                if fits < lanes:
                    self.lanes = lanes = self._warn(lanes, fits, lanes * need)
                with concurrent.futures.ThreadPoolExecutor(lanes) as pool:
                    made = list(pool.map(lambda one, program=program: jax.block_until_ready(program(one, stage)), ones))
                return jax.tree.map(lambda *leaves: jnp.stack(leaves), *made)
            except (jax.errors.JaxRuntimeError, MemoryError) as error:
                self._refuse(error, lanes, need)
                self.lanes = self._warn(lanes, lanes // 2, lanes * need)

    def _rechunk(self, chunk: int, need: int):
        """Raise `memory.Rechunk` where ``need`` (bytes of a call) is more than there is, or leaves room for more."""
        free = memory.free(self.devices)
        fits = max(1, int(min(chunk * free / max(need, 1), self.most)))
        if self.growing:
            self.growing = False
            if fits > chunk:
                raise memory.Rechunk(fits)
        if fits < min(chunk, self.most):
            raise memory.Rechunk(self._warn(chunk, fits, need))

    def _refuse(self, error: Exception, replicas: int, need: int):
        """Raise what is not a lack of memory, or one that no smaller number of replicas mends."""
        if not memory.exhausted(error):
            raise error
        if replicas == 1:
            raise RuntimeError(f"memory ran out at {need / 2**30:.2f} GiB per replica; needs fewer atoms or a shorter rmax") from error

    def _warn(self, replicas: int, fewer: int, need: int) -> int:
        free = memory.free(self.devices) / 2**30
        why = f"{replicas} replicas at a time need {need / 2**30:.2f} GiB per device and {free:.2f} are free; taking {fewer}"
        warnings.warn(why, stacklevel=2)
        return fewer


def default_chunk(replicas: int, devices: int, processes: int) -> int:
    """Replicas per device and checkpoint: at least four, a multiple of the cores, never so many that a device gets none.

    Several processes must come to the same number, whatever the cores of their hosts: four.
    """
    most = cores() * math.ceil(4 / cores()) if processes == 1 else 4
    return min(most, replicas, math.ceil(replicas / (devices * processes)))
