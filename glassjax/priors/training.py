"""Train a prior: optax, exponential moving average, resumable checkpoints, a wall-clock budget, data parallel over local devices."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
import time
from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax

from glassjax._pytree import replace
from glassjax.archive import write_arrays
from glassjax.neighbors import build, grow, neighbor_spec
from glassjax.priors.loss import denoising_loss
from glassjax.priors.prior import Prior, describe_network, flatten, read_checkpoint, save_prior, unflatten
from glassjax.structure import Structure


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """How to train.

    Attributes:
      minutes: wall-clock budget over all sessions of this training.
      steps: stop after so many steps, or None.
      batch: cells per step (a multiple of the number of devices).
      learning_rate: peak, Adam.
      levels: "log-uniform" noise levels between the two below, or "linear" (uniform t, sigma = 0.8 A t, as published).
      sigma_min: A.
      sigma_max: A.
      floor: A; levels below it get weight (sigma^2 + floor^2) / sigma^2, at most 4; 0 for the published unweighted loss.
      strain: cells are scaled by a random factor between exp(-strain) and exp(strain), all lengths together: the prior then knows the order of the
        material and not the bond length of its potential to the last percent, and leaves that, and the density, to the data.
      decay: of the moving average, warmed up as (1 + step) / (10 + step).
      seed: of initialisation, cells and noise.
      checkpoint_every: seconds between checkpoints.
    """

    minutes: float = 30.0
    steps: int | None = None
    batch: int = 4
    learning_rate: float = 2e-3
    levels: str = "log-uniform"
    sigma_min: float = 0.03
    sigma_max: float = 1.6
    floor: float = 0.1
    strain: float = 0.0
    decay: float = 0.999
    seed: int = 0
    checkpoint_every: float = 60.0


def pad(structures: Sequence[Structure], elements: tuple[str, ...]) -> Structure:
    """One batch of structures of any sizes: empty slots get species -1. Raises ``ValueError`` for elements not in ``elements``."""
    most = max(s.positions.shape[0] for s in structures)
    padded = []
    for s in structures:
        missing = set(s.elements) - set(elements)
        if missing:
            raise ValueError(f"training cell has {', '.join(sorted(missing))}; the prior is for {', '.join(elements)}")
        extra = most - s.positions.shape[0]
        order = np.array([elements.index(e) for e in s.elements], np.int32)
        species = np.concatenate([order[np.asarray(s.species)], np.full(extra, -1, np.int32)])
        positions = np.concatenate([np.asarray(s.positions), np.zeros((extra, 3), np.float32)])
        padded.append(Structure(positions=jnp.asarray(positions), cell=s.cell, species=jnp.asarray(species), elements=elements))
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *padded)


def training_spec(structures: Sequence[Structure], cutoff: float):
    """One `NeighborSpec` that serves every training cell: the union of their images and the largest capacities."""
    specs = [neighbor_spec(s, cutoff, cell_list=False) for s in structures]
    shifts = max((s.shifts for s in specs), key=len)
    if not all(set(s.shifts) <= set(shifts) for s in specs):
        shifts = tuple(dict.fromkeys(shift for s in specs for shift in s.shifts))
    capacity = max(s.capacity for s in specs)
    return dataclasses.replace(specs[0], capacity=capacity, edges=max(s.edges for s in specs), shifts=shifts)


def shortest_distances(structures: Sequence[Structure], reach: float = 4.0) -> dict[str, float]:
    """Shortest distance of each pair of elements, "A-B", over all structures, A; pairs farther apart than ``reach`` are left out."""
    found: dict[str, float] = {}
    for one in structures:
        graph = jax.jit(build, static_argnums=1)(one, neighbor_spec(one, reach, margin=12.0))
        distances, species = np.where(graph.mask, graph.distances, np.inf), np.asarray(one.species)
        for i, a in enumerate(one.elements):
            for j, b in enumerate(one.elements[i:], start=i):
                wanted = (species[:, None] == i) & (species[np.asarray(graph.neighbors)] == j)
                value = float(distances[wanted].min(initial=np.inf))
                if value < reach:
                    found[f"{a}-{b}"] = round(min(value, found.get(f"{a}-{b}", np.inf)), 3)
    return found


def _levels(options: TrainingOptions, key, count):
    """Stratified noise levels [count] (one per cell of the batch) and their loss weights."""
    u = (jnp.arange(count) + jax.random.uniform(key, (count,))) / count
    if options.levels == "linear":
        return 0.8 * (1e-3 + u * (0.999 - 1e-3)), jnp.ones(count)
    low, high = math.log(options.sigma_min), math.log(options.sigma_max)
    sigma = jnp.exp(low + u * (high - low))
    weight = jnp.minimum(4.0, (sigma**2 + options.floor**2) / sigma**2)
    return sigma, weight


def _scaled(key, structure: Structure, strain: float) -> Structure:
    """The structure with cell and positions scaled by a random factor."""
    factor = jnp.exp(strain * jax.random.uniform(jax.random.fold_in(key, 1), minval=-1.0, maxval=1.0))
    return replace(structure, positions=structure.positions * factor, cell=structure.cell * factor)


def _step_function(network, options, cells, spec, optimizer, mesh):
    """jit(state, learning_rate) -> (state, loss, per-level losses [batch], sigma [batch], needed)."""
    devices = mesh.devices.size

    def batch_loss(params, keys, index, sigma, weight):
        chosen = jax.tree.map(lambda leaf: leaf[index], cells)
        if options.strain:
            chosen = jax.vmap(_scaled, in_axes=(0, 0, None))(keys, chosen, options.strain)
        loss, needed = jax.vmap(lambda k, s, level: denoising_loss(k, network, params, s, level, spec))(keys, chosen, sigma)
        return jnp.mean(weight * loss), (loss, needed)

    def sharded(params, keys, index, sigma, weight):
        (_, (loss, needed)), gradient = jax.value_and_grad(batch_loss, has_aux=True)(params, keys, index, sigma, weight)
        if devices > 1:
            gradient = jax.lax.pmean(gradient, "batch")
        return gradient, loss, needed

    if devices > 1:
        P = jax.sharding.PartitionSpec
        sharded = jax.shard_map(
            sharded,
            mesh=mesh,
            in_specs=(P(), P("batch"), P("batch"), P("batch"), P("batch")),
            out_specs=(P(), P("batch"), P("batch")),
            check_vma=False,
        )

    def step(state, rate):
        key = jax.random.fold_in(jax.random.key(options.seed), state["step"])
        pick, level, noise = jax.random.split(key, 3)
        index = jax.random.randint(pick, (options.batch,), 0, cells.positions.shape[0])
        sigma, weight = _levels(options, level, options.batch)
        gradient, loss, needed = sharded(state["params"], jax.random.split(noise, options.batch), index, sigma, weight)
        updates, opt = optimizer.update(gradient, state["opt"], state["params"])
        params = optax.apply_updates(state["params"], jax.tree.map(lambda u: -rate * u, updates))
        count = state["step"]
        decay = jnp.minimum(options.decay, (1.0 + count) / (10.0 + count))
        ema = jax.tree.map(lambda a, b: decay * a + (1 - decay) * b, state["ema"], params)
        return dict(params=params, ema=ema, opt=opt, step=count + 1), loss, sigma, needed

    return jax.jit(step)


def _rate(options: TrainingOptions, step: int, elapsed: float) -> float:
    """Warm-up over 100 steps, then a cosine to 1 % over the budget of steps if there is one, else of time."""
    progress = elapsed / (60 * options.minutes)
    if options.steps:
        progress = step / options.steps
    return options.learning_rate * min(1.0, (step + 1) / 100) * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, progress))))


def _initial_state(network, cells, spec, optimizer, seed):
    first = jax.tree.map(lambda leaf: leaf[0], cells)
    params = network.init(jax.random.key(seed), build(first, spec).to_jraph(first.species, jnp.float32(0.5)))["params"]
    return dict(params=params, ema=params, opt=optimizer.init(params), step=jnp.int32(0))


def _save_state(path, state, elapsed, header):
    arrays = {f"params/{k}": v for k, v in flatten(jax.device_get(state["params"])).items()}
    arrays |= {f"ema/{k}": v for k, v in flatten(jax.device_get(state["ema"])).items()}
    arrays |= {f"opt/{i}": np.asarray(leaf) for i, leaf in enumerate(jax.tree.leaves(jax.device_get(state["opt"])))}
    write_arrays(path, header | dict(step=int(state["step"]), elapsed=elapsed), arrays)


def _load_state(path, template, network, elements):
    header, arrays = read_checkpoint(path)
    if header.get("elements") != list(elements):
        raise ValueError(f"{path} was trained for {header.get('elements')}; got {list(elements)}: pass the same --elements, or start afresh")
    if header.get("network") != json.loads(json.dumps(describe_network(network))):
        raise ValueError(f"{path} holds another network ({header.get('network')}); pass the same options, or start afresh without --resume")
    tree = unflatten(arrays)
    leaves = [jnp.asarray(tree["opt"][str(i)]) for i in range(len(tree["opt"]))]
    opt = jax.tree.unflatten(jax.tree.structure(template["opt"]), leaves)
    state = dict(params=tree["params"], ema=tree["ema"], opt=opt, step=jnp.int32(header["step"]))
    return jax.tree.map(jnp.asarray, state), header["elapsed"]


def train(
    structures: Sequence[Structure],
    *,
    out,
    network,
    elements: tuple[str, ...],
    options: TrainingOptions | None = None,
    resume: bool = False,
    record: dict | None = None,
    report=None,
) -> Prior:
    """Train a score network on clean cells and write the prior to ``out``.

    Beside ``out`` (say ``silicon.npz``) go ``silicon.train.npz`` (parameters, optimiser and step: what ``resume`` continues from, exactly) and
    ``silicon.csv`` (the learning curve: step, seconds, learning rate, and the loss in four bands of noise).

    Args:
      structures: training cells; sizes may differ.
      out: path of the prior, ending in .npz.
      network: flax score network.
      elements: its species order.
      options: see `TrainingOptions`.
      resume: continue from ``silicon.train.npz`` if it is there.
      record: extra facts for the model card.
      report: optional callable ``(step, seconds, losses)``.

    Returns:
      The trained `Prior` (moving-average parameters).

    Raises:
      ValueError: no structures, a strain outside 0 to 0.2, an element not in ``elements``, a batch that the devices cannot share, or a loss that is
        not finite.
    """
    options = options or TrainingOptions()
    out = Path(out)
    if not structures:
        raise ValueError("no training structures; needs at least one cell")
    if not 0 <= options.strain <= 0.2:
        raise ValueError(f"got strain = {options.strain}; needs 0 to 0.2 (0.03 scales cells by up to 3 %)")
    devices = jax.local_devices()
    if options.batch % len(devices):
        raise ValueError(f"batch is {options.batch}; needs a multiple of the {len(devices)} devices")
    mesh = jax.sharding.Mesh(np.array(devices), ("batch",))
    cells = pad(structures, elements)
    least = math.exp(-options.strain)
    densest = [replace(s, positions=s.positions * least, cell=s.cell * least) for s in structures]
    spec = training_spec(densest, network.cutoff)
    optimizer = optax.chain(optax.clip_by_global_norm(10.0), optax.scale_by_adam())
    state = _initial_state(network, cells, spec, optimizer, options.seed)
    state_path, curve_path = out.with_suffix(".train.npz"), out.with_suffix(".csv")
    elapsed, header = 0.0, dict(network=describe_network(network), elements=list(elements))
    if resume and state_path.exists():
        state, elapsed = _load_state(state_path, state, network, elements)
    card = dict({} if record is None else record) | dict(
        shortest_distance=shortest_distances(structures),
        training=dataclasses.asdict(options),
        cells=len(structures),
        atoms=int(cells.positions.shape[1]),
    )
    step = _step_function(network, options, cells, spec, optimizer, mesh)
    curve = _Curve(curve_path, int(state["step"]))
    started = saved = time.monotonic()
    base = elapsed
    while elapsed < 60 * options.minutes and (options.steps is None or int(state["step"]) < options.steps):
        rate = _rate(options, int(state["step"]), elapsed)
        new, loss, sigma, needed = jax.block_until_ready(step(state, jnp.float32(rate)))
        if not np.isfinite(np.asarray(loss)).all():
            larger = grow(spec, needed)
            if larger == spec:
                raise ValueError(f"the loss became {float(jnp.mean(loss))} at step {int(state['step'])}; resume with a lower learning_rate")
            spec = larger
            step = _step_function(network, options, cells, spec, optimizer, mesh)
            continue
        state = new
        now = time.monotonic()
        elapsed = base + now - started
        losses = curve.add(int(state["step"]), elapsed, rate, np.asarray(loss), np.asarray(sigma))
        if report and losses:
            report(int(state["step"]), elapsed, losses)
        if now - saved > options.checkpoint_every:
            saved = now
            _save_state(state_path, state, elapsed, header)
            save_prior(_prior(state, network, elements, card, elapsed, curve.last), out)
    _save_state(state_path, state, elapsed, header)
    prior = _prior(state, network, elements, card, elapsed, curve.last)
    save_prior(prior, out)
    return prior


def _prior(state, network, elements, card, elapsed, losses) -> Prior:
    card = dict(card) | dict(steps=int(state["step"]), seconds=round(elapsed, 1), final_losses=losses, jax=jax.__version__)
    card["device"] = jax.devices()[0].device_kind
    return replace(Prior(params=state["ema"], network=network, elements=tuple(elements)), card=json.dumps(card))


class _Curve:
    """Learning curve: mean loss per band of noise over windows of 50 steps, appended to a CSV file."""

    BANDS = (0.0, 0.1, 0.3, 0.7, 10.0)

    def __init__(self, path, done: int, window: int = 50):
        self.path, self.window, self.rows, self.last = Path(path), window, [], {}
        self.names = [f"loss_{a}_{b}" for a, b in zip(self.BANDS[:-1], self.BANDS[1:], strict=True)]
        kept = []
        if done and self.path.exists():  # rows written after the checkpoint that is resumed come again
            with open(self.path, newline="") as handle:
                kept = [row for row in list(csv.reader(handle))[1:] if int(row[0]) <= done]
        with open(self.path, "w", newline="") as handle:
            csv.writer(handle).writerows([["step", "seconds", "learning_rate", *self.names], *kept])

    def add(self, step, seconds, rate, loss, sigma):
        """Collect one step; every ``window`` steps write a row and return it."""
        self.rows.append((loss, sigma))
        if step % self.window:
            return None
        losses, sigmas = np.concatenate([r[0] for r in self.rows]), np.concatenate([r[1] for r in self.rows])
        self.rows = []
        band = np.digitize(sigmas, self.BANDS) - 1
        self.last = {n: round(float(losses[band == i].mean()), 4) if (band == i).any() else None for i, n in enumerate(self.names)}
        with open(self.path, "a", newline="") as handle:
            csv.writer(handle).writerow([step, round(seconds, 1), rate, *self.last.values()])
        return self.last
