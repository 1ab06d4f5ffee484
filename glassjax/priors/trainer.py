"""The training loop that score networks and spectrum surrogates share: moving average, learning curve, resumable state, budget, data parallel."""

from __future__ import annotations

import concurrent.futures
import csv
import json
import math
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax

from glassjax import distributed
from glassjax.archive import write_arrays
from glassjax.neighbors import grow
from glassjax.priors.prior import flatten, read_checkpoint, unflatten


def device_mesh(batch: int):
    """One axis over the devices of all processes; raises ``ValueError`` for a batch that they cannot share."""
    devices = jax.local_devices() if distributed.place()[1] == 1 else jax.devices()
    if batch % len(devices):
        raise ValueError(f"batch is {batch}; needs a multiple of the {len(devices)} devices")
    return jax.sharding.Mesh(np.array(devices), ("batch",))


def check_levels(options) -> None:
    """Raise ``ValueError`` for noise levels ``sigma_min``, ``sigma_max`` (A) that are out of order, not positive or not finite."""
    if not 0 < options.sigma_min < options.sigma_max < math.inf:
        raise ValueError(
            f"got noise levels {options.sigma_min} to {options.sigma_max} A; needs 0 < sigma_min < sigma_max, both finite; such as 0.03 and 1.6"
        )


def initial_state(params, optimizer) -> dict:
    """State of a training that has not begun."""
    return dict(params=params, ema=params, opt=optimizer.init(params), step=jnp.int32(0))


def _step_function(loss, draw, optimizer, options, mesh):
    """step(state, learning_rate) -> (state, losses [batch, ...], sigma of the same shape, needed).

    One compiled program on accelerators; on one CPU device the cells of a batch go side by side through a program of one cell, which is faster and
    takes the memory of as many cells as there are cores.
    """
    devices, gradients = mesh.devices.size, jax.value_and_grad(loss, has_aux=True)

    def drawn(state):
        return draw(jax.random.fold_in(jax.random.key(options.seed), state["step"]))

    def moved(state, gradient, rate):
        updates, opt = optimizer.update(gradient, state["opt"], state["params"])
        params = optax.apply_updates(state["params"], jax.tree.map(lambda u: -rate * u, updates))
        count = state["step"]
        decay = jnp.minimum(options.decay, (1.0 + count) / (10.0 + count))
        ema = jax.tree.map(lambda a, b: decay * a + (1 - decay) * b, state["ema"], params)
        return state | dict(params=params, ema=ema, opt=opt, step=count + 1)

    if distributed.place()[1] == 1 and distributed.in_lanes(tuple(mesh.devices.flat)):
        return _side_by_side(gradients, drawn, moved)

    def sharded(params, batch):
        (_, (losses, needed)), gradient = gradients(params, batch)
        if devices > 1:
            gradient = jax.lax.pmean(gradient, "batch")
        return gradient, losses, needed

    if devices > 1:
        P = jax.sharding.PartitionSpec
        sharded = jax.shard_map(sharded, mesh=mesh, in_specs=(P(), P("batch")), out_specs=(P(), P("batch"), P("batch")), check_vma=False)

    def step(state, rate):
        batch = drawn(state)
        gradient, losses, needed = sharded(state["params"], batch)
        return moved(state, gradient, rate), losses, batch["sigma"], needed

    # every process needs all of the losses, and a state that it can write
    return jax.jit(step) if distributed.place()[1] == 1 else jax.jit(step, out_shardings=_everywhere(mesh))


def _side_by_side(gradients, drawn, moved):
    """The step of `_step_function` with one program per cell; the mean of the cells' gradients is that of the batch."""

    @jax.jit
    def draw(state):
        batch = drawn(state)
        return batch, [jax.tree.map(lambda leaf, i=i: leaf[i : i + 1], batch) for i in range(len(batch["sigma"]))]

    one, pool = jax.jit(gradients), concurrent.futures.ThreadPoolExecutor(distributed.cores())
    finish = jax.jit(lambda state, found, rate: moved(state, jax.tree.map(lambda *parts: sum(parts) / len(parts), *found), rate))
    programs = []

    def step(state, rate):
        batch, cells = draw(state)
        if not programs:
            programs.append(one.lower(state["params"], cells[0]).compile())
        found = list(pool.map(lambda cell: jax.block_until_ready(programs[0](state["params"], cell)), cells))
        losses, needed = (np.concatenate([np.asarray(aux[i]) for (_, aux), _ in found]) for i in (0, 1))
        return finish(state, [gradient for _, gradient in found], rate), losses, batch["sigma"], needed

    return step


def _everywhere(mesh):
    """Whole copies on every device."""
    return jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())


def _rate(options, step: int, elapsed: float) -> float:
    """Warm-up over 100 steps, then a cosine to 1 % over the budget of steps if there is one, else of time."""
    progress = elapsed / (60 * options.minutes)
    if options.steps:
        progress = step / options.steps
    return options.learning_rate * min(1.0, (step + 1) / 100) * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, progress))))


def save_state(path, state, elapsed: float, header: dict) -> None:
    """Write all that a training continues from."""
    arrays = {}
    for name in state.keys() - {"opt", "step"}:
        arrays |= flatten(jax.device_get(state[name]), f"{name}/")
    arrays |= {f"opt/{i}": np.asarray(leaf) for i, leaf in enumerate(jax.tree.leaves(jax.device_get(state["opt"])))}
    write_arrays(path, header | dict(step=int(state["step"]), elapsed=elapsed), arrays)


def load_state(path, template: dict, header: dict) -> tuple[dict, float]:
    """(state, seconds spent) of a training of the same ``header``, which names elements and network; raises ``ValueError`` for another one.

    What the header of an older state does not have is not compared."""
    found, arrays = read_checkpoint(path)
    if found.get("elements") != list(header["elements"]):
        raise ValueError(f"{path} was trained for {found.get('elements')}; got {list(header['elements'])}: pass the same --elements, or start afresh")
    if found.get("network") != json.loads(json.dumps(header["network"])):
        raise ValueError(f"{path} holds another network ({found.get('network')}); pass the same options, or start afresh without --resume")
    for name in header.keys() - {"elements", "network"}:
        if name in found and found[name] != json.loads(json.dumps(header[name])):
            raise ValueError(f"{path} was trained with {name} = {found.get(name)}; got {header[name]}; pass the same options, or start afresh")
    tree = unflatten(arrays)
    leaves = [jnp.asarray(tree["opt"][str(i)]) for i in range(len(tree["opt"]))]
    state = {name: tree[name] for name in template.keys() - {"opt", "step"}}
    state |= dict(opt=jax.tree.unflatten(jax.tree.structure(template["opt"]), leaves), step=jnp.int32(found["step"]))
    return jax.tree.map(jnp.asarray, state), found["elapsed"]


def optimise(make_loss, draw, state, *, optimizer, options, mesh, spec, out, header, write, bands, resume=False, report=None, review=None):
    """Train until the budget is spent; the state goes to ``out``.train.npz, the learning curve to ``out``.csv.

    Args:
      make_loss: spec -> loss, where loss(params, batch) -> (value, (losses [batch, ...], needed [batch, 3])).
      draw: key -> batch, a dict of arrays that share their first axis; its ``sigma`` (A) sorts the losses into bands.
      state: `initial_state`, with more trees of arrays under other names if ``review`` needs them.
      optimizer: optax transformation; the learning rate is applied here.
      options: minutes, steps, learning_rate, decay, seed and checkpoint_every as in `training.TrainingOptions`.
      mesh: `device_mesh`.
      spec: neighbour list of the batches; it grows when one overflows.
      out: path of the result, ending in .npz.
      header: elements, network and whatever else must be the same to resume.
      write: ``(state, seconds, losses)`` called at every checkpoint and at the end.
      bands: noise levels (A) between the columns of the learning curve.
      resume: continue from ``out``.train.npz if it is there.
      report: optional callable ``(step, seconds, losses)``.
      review: optional callable state -> state after every step, for early stopping.

    Returns:
      (state, seconds).

    Raises:
      ValueError: another training in ``out``.train.npz, or a loss that is not finite.
    """
    path, elapsed = Path(out).with_suffix(".train.npz"), 0.0
    if resume and path.exists():
        state, elapsed = load_state(path, state, header)
    process, processes = distributed.place()
    if processes > 1:
        state = jax.device_put(jax.device_get(state), _everywhere(mesh))
    step = _step_function(make_loss(spec), draw, optimizer, options, mesh)
    curve = Curve(Path(out).with_suffix(".csv"), int(state["step"]), bands, writes=process == 0)
    started = saved = time.monotonic()
    base = elapsed
    while elapsed < 60 * options.minutes and (options.steps is None or int(state["step"]) < options.steps):
        rate = _rate(options, int(state["step"]), elapsed)
        new, losses, sigma, needed = jax.block_until_ready(step(state, np.float32(rate)))
        if not np.isfinite(np.asarray(losses)).all():
            larger = grow(spec, needed)
            if larger == spec:
                raise ValueError(
                    f"the loss became {float(jnp.mean(losses))} at step {int(state['step'])}; resume with a lower learning rate (--learning-rate)"
                )
            spec = larger
            step = _step_function(make_loss(spec), draw, optimizer, options, mesh)
            continue
        state = new if review is None else review(new)
        now = time.monotonic()
        elapsed = distributed.agreed(base + now - started)
        row = curve.add(int(state["step"]), elapsed, rate, np.asarray(losses), np.asarray(sigma))
        if report and row and process == 0:
            report(int(state["step"]), elapsed, row)
        if now - saved > options.checkpoint_every and process == 0:
            saved = now
            save_state(path, state, elapsed, header)
            write(state, elapsed, curve.last)
    if process == 0:
        save_state(path, state, elapsed, header)
        write(state, elapsed, curve.last)
    distributed.agreed(0.0)  # nobody reads what is not written yet
    return state, elapsed


class Curve:
    """Learning curve: mean loss per band of noise over windows of 50 steps, appended to a CSV file."""

    def __init__(self, path, done: int, bands, window: int = 50, writes: bool = True):
        self.path, self.window, self.bands, self.rows, self.last, self.writes = Path(path), window, tuple(bands), [], {}, writes
        self.names = [f"loss_{a}_{b}" for a, b in zip(self.bands[:-1], self.bands[1:], strict=True)]
        if not writes:
            return
        kept = []
        if done and self.path.exists():  # rows written after the checkpoint that is resumed come again
            with open(self.path, newline="") as handle:
                kept = [row for row in list(csv.reader(handle))[1:] if int(row[0]) <= done]
        with open(self.path, "w", newline="") as handle:
            csv.writer(handle).writerows([["step", "seconds", "learning_rate", *self.names], *kept])

    def add(self, step, seconds, rate, loss, sigma):
        """Collect one step; every ``window`` steps write a row and return it."""
        self.rows.append((loss.ravel(), sigma.ravel()))
        if step % self.window:
            return None
        losses, sigmas = np.concatenate([r[0] for r in self.rows]), np.concatenate([r[1] for r in self.rows])
        self.rows = []
        band = np.digitize(sigmas, self.bands) - 1
        self.last = {n: round(float(losses[band == i].mean()), 4) if (band == i).any() else None for i, n in enumerate(self.names)}
        if not self.writes:
            return self.last
        with open(self.path, "a", newline="") as handle:
            csv.writer(handle).writerow([step, round(seconds, 1), rate, *self.last.values()])
        return self.last
