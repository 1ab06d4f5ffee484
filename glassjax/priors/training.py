"""Train a prior: optax, exponential moving average, resumable checkpoints, a wall-clock budget, data parallel over the devices of all processes."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax

from glassjax._pytree import replace
from glassjax.neighbors import build, grow
from glassjax.priors import trainer
from glassjax.priors.cells import pad, shortest_distances, training_spec
from glassjax.priors.loss import denoising_loss
from glassjax.priors.prior import LINEAR_MOST, Prior, describe_network, flatten, load_prior, save_prior, unflatten
from glassjax.structure import Structure

LASTING = ("levels", "sigma_min", "sigma_max", "floor", "strain")  # what a training that goes on must not change: the card states it for all steps
LEVELS = (0.05, 0.1, 0.2, 0.4, 0.7)  # A, at which priors are evaluated
BANDS = (0.0, 0.1, 0.3, 0.7, 10.0)  # A, noise levels between the columns of the learning curve


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """How to train.

    Attributes:
      minutes: wall-clock budget over all sessions of this training.
      steps: stop after so many steps, or None.
      batch: cells per step (a multiple of the number of devices).
      learning_rate: peak, Adam.
      levels: "log-uniform" noise levels between the two below, or "linear" (uniform t, sigma = 0.8 A t, as published).
      sigma_min: A, the smallest of log-uniform levels.
      sigma_max: A, the largest; sampling begins at 1.6 A by default, and a prior knows nothing of more noise than it was trained on.
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


def _levels(options: TrainingOptions, key, count):
    """Stratified noise levels [count] (one per cell of the batch) and their loss weights."""
    u = (jnp.arange(count) + jax.random.uniform(key, (count,))) / count
    if options.levels == "linear":
        return LINEAR_MOST * (1e-3 + u * (0.999 - 1e-3)), jnp.ones(count)
    low, high = math.log(options.sigma_min), math.log(options.sigma_max)
    sigma = jnp.exp(low + u * (high - low))
    weight = jnp.minimum(4.0, (sigma**2 + options.floor**2) / sigma**2)
    return sigma, weight


def _scaled(key, structure: Structure, strain: float) -> Structure:
    """The structure with cell and positions scaled by a random factor."""
    factor = jnp.exp(strain * jax.random.uniform(jax.random.fold_in(key, 1), minval=-1.0, maxval=1.0))
    return replace(structure, positions=structure.positions * factor, cell=structure.cell * factor)


def _batches(options: TrainingOptions, count: int):
    """draw(key) -> a batch of noise keys, cells and noise levels."""

    def draw(key):
        pick, level, noise = jax.random.split(key, 3)
        index = jax.random.randint(pick, (options.batch,), 0, count)
        sigma, weight = _levels(options, level, options.batch)
        return dict(keys=jax.random.split(noise, options.batch), index=index, sigma=sigma, weight=weight)

    return draw


def _batch_loss(network, options: TrainingOptions, cells, spec):
    """loss(params, batch) -> (weighted mean, (loss per cell [batch], needed))."""

    def loss(params, batch):
        chosen = jax.tree.map(lambda leaf: leaf[batch["index"]], cells)
        if options.strain:
            chosen = jax.vmap(_scaled, in_axes=(0, 0, None))(batch["keys"], chosen, options.strain)
        found, needed = jax.vmap(lambda k, s, level: denoising_loss(k, network, params, s, level, spec))(batch["keys"], chosen, batch["sigma"])
        return jnp.mean(batch["weight"] * found), (found, needed)

    return loss


def train(
    structures: Sequence[Structure],
    *,
    out,
    network,
    elements: tuple[str, ...],
    options: TrainingOptions | None = None,
    start: Prior | None = None,
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
      start: a prior of the same kind of network to begin from, of any elements and cutoff (see `transferred`); random parameters without one.
      resume: continue from ``silicon.train.npz`` if it is there.
      record: extra facts for the model card.
      report: optional callable ``(step, seconds, losses)``.

    Returns:
      The trained `Prior` (moving-average parameters).

    Raises:
      ValueError: no structures, a strain outside 0 to 0.2, a negative floor or rate, noise levels out of order, an element not in ``elements``, a
        ``start`` of another network, a batch that the devices cannot share, or a loss that is not finite.
    """
    options = options or TrainingOptions()
    out = Path(out)
    if not structures:
        raise ValueError("no training structures; needs at least one cell")
    if not 0 <= options.strain <= 0.2:
        raise ValueError(f"got strain = {options.strain}; needs 0 to 0.2 (0.03 scales cells by up to 3 %)")
    if not 0 < options.learning_rate < math.inf:
        raise ValueError(f"got learning_rate = {options.learning_rate}; needs a positive number such as 0.002")
    if not 0 <= options.floor < math.inf:
        raise ValueError(f"got floor = {options.floor} A; needs 0 (all noise levels count alike) or a length such as 0.1")
    if options.levels != "linear":
        trainer.check_levels(options)
    mesh = trainer.device_mesh(options.batch)
    cells = pad(structures, elements)
    least = math.exp(-options.strain)
    densest = [replace(s, positions=s.positions * least, cell=s.cell * least) for s in structures]
    spec = training_spec(densest, network.cutoff)
    optimizer = optax.chain(optax.clip_by_global_norm(10.0), optax.scale_by_adam())
    first = jax.tree.map(lambda leaf: leaf[0], cells)
    params = network.init(jax.random.key(options.seed), build(first, spec).to_jraph(first.species, jnp.float32(0.5)))["params"]
    if start is not None:
        params = transferred(start, params, network, tuple(elements))
    card = dict({} if record is None else record) | dict(
        shortest_distance=shortest_distances(structures, typical=True),
        training=dataclasses.asdict(options),
        cells=len(structures),
        atoms=int(cells.positions.shape[1]),
    )

    def write(state, elapsed, losses):
        save_prior(_prior(state, network, elements, card, elapsed, losses), out)

    trainer.optimise(
        lambda spec: _batch_loss(network, options, cells, spec),
        _batches(options, len(structures)),
        trainer.initial_state(params, optimizer),
        optimizer=optimizer,
        options=options,
        mesh=mesh,
        spec=spec,
        out=out,
        header=dict(network=describe_network(network), elements=list(elements)) | {name: getattr(options, name) for name in LASTING},
        write=write,
        bands=BANDS,
        resume=resume,
        report=report,
    )
    return load_prior(out)


def transferred(start: Prior, params: dict, network, elements: tuple[str, ...]) -> dict:
    """The parameters of ``start`` as the first ones of ``network`` for ``elements``, in place of the random ``params``.

    Elements that ``start`` knows keep their rows of the species embedding; the others get the mean of its rows plus their random one. A prior of
    one material so lends its geometry to another: what changes most between them is the length and the number of bonds.

    Raises:
      ValueError: ``start`` is of another network (its elements and cutoff may differ).
    """
    mine, its = describe_network(network), describe_network(start.network)
    differing = {"elements", "cutoff"}
    facts = [(d["name"], {k: v for k, v in d["options"].items() if k not in differing}) for d in (mine, its)]
    if facts[0] != facts[1]:
        raise ValueError(f"got a prior to start from with the network {its}; needs {mine}, but for elements and cutoff; take the same, or no start")
    if mine["name"] != "equivariant" and start.elements != elements:
        raise ValueError(f"got a {its['name']} of {', '.join(start.elements)} to start from; needs one of {', '.join(elements)}: it has no embedding")
    fresh, known = flatten(params), flatten(start.params)
    for name, value in known.items():
        if name.split("/")[-1] == "embedding":  # one row per species
            rows = [value[start.elements.index(e)] if e in start.elements else value.mean(0) + fresh[name][i] for i, e in enumerate(elements)]
            value = np.stack(rows)
        fresh[name] = value
    return jax.tree.map(jnp.asarray, unflatten(fresh))


def denoising_losses(
    prior: Prior, structures: Sequence[Structure], *, levels=LEVELS, draws: int = 2, seed: int = 0
) -> dict[float, tuple[float, float]]:
    """How well a prior knows structures: mean over atoms of |sigma s + eps|^2, 3 for none, at some noise levels.

    Where its training cells have lower losses than others it knows them by heart: more frames (`glassjax.melt_quench.thermal_frames`) or cells then
    do more than a longer training. The noise of a structure depends on ``seed``, its place and the size of the largest alone, so that priors are
    compared with the same.

    Args:
      prior: `Prior`.
      structures: clean cells; sizes may differ.
      levels: sigma, A.
      draws: of noise for each structure.
      seed: of the noise.

    Returns:
      {sigma: (mean over structures and draws, its standard error from structure to structure)}; NaN for the error of a single one. Frames of one
      cell are not independent: their standard error is too small.

    Raises:
      ValueError: no structures, elements that the prior does not know, no levels or draws, or a level that is not a positive number.
    """
    levels = tuple(levels)
    if not structures or draws < 1 or not levels or not all(0 < level < math.inf for level in levels):
        raise ValueError(
            f"got {len(structures)} structures, {draws} draws, levels {levels}; needs at least one of each, and levels above 0 A; correct them"
        )
    cells, spec, base = pad(structures, prior.elements), training_spec(structures, prior.network.cutoff), jax.random.key(seed)
    places = [(i, jax.random.fold_in(jax.random.fold_in(base, i), j)) for i in range(len(structures)) for j in range(draws)]

    def loss(spec, key, i, sigma):
        return denoising_loss(key, prior.network, prior.params, jax.tree.map(lambda leaf: leaf[i], cells), sigma, spec)

    one, found = jax.jit(loss, static_argnums=0), {}
    for level in levels:
        while True:
            values, needed = zip(*(one(spec, key, i, jnp.float32(level)) for i, key in places), strict=True)
            larger = grow(spec, jnp.stack(needed))
            if larger == spec:
                break
            spec = larger
        values = np.array(values, dtype=float).reshape(-1, draws).mean(axis=1)
        found[float(level)] = (float(values.mean()), float(values.std(ddof=1) / math.sqrt(len(values))) if len(values) > 1 else math.nan)
    return found


def _prior(state, network, elements, card, elapsed, losses) -> Prior:
    card = dict(card) | dict(steps=int(state["step"]), seconds=round(elapsed, 1), final_losses=losses, jax=jax.__version__)
    card["device"] = jax.devices()[0].device_kind
    return replace(Prior(params=state["ema"], network=network, elements=tuple(elements)), card=json.dumps(card))
