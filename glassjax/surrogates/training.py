"""Train a surrogate: an ensemble of networks on site spectra of noisy copies of cells, by the loop of the priors."""

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

from glassjax.neighbors import build
from glassjax.priors import trainer
from glassjax.priors.cells import pad, training_spec
from glassjax.structure import Structure, number_density
from glassjax.surrogates.loss import principal_components, spectrum_loss
from glassjax.surrogates.networks import InvariantNetwork, SpecNet, describe_network
from glassjax.surrogates.surrogate import KINDS, Surrogate, apply_members, decode, disagreement, load_surrogate, save_surrogate

BANDS = (0.0, 0.02, 0.1, 0.3, 10.0)  # A, noise levels between the columns of the learning curve


@dataclasses.dataclass(frozen=True, kw_only=True)
class SurrogateOptions:
    """How to train a surrogate.

    Attributes:
      minutes: wall-clock budget over all sessions of this training.
      steps: stop after so many steps, or None.
      members: number of networks.
      batch: cells per step and member (a multiple of the number of devices).
      learning_rate: peak, Adam.
      weight_decay: of the parameters, per unit of learning rate (AdamW).
      sigma_min: A, the smallest noise level.
      sigma_max: A, the largest; levels are log-uniform between them (published: up to 0.8 A).
      folds: the cells are dealt, in order of density, into so many folds; member m leaves fold m out and is judged on it.
      review_every: steps between judgements; the moving average that did best on the fold left out is kept.
      decay: of the moving average, warmed up as (1 + step) / (10 + step).
      seed: of initialisation, cells and noise.
      checkpoint_every: seconds between checkpoints.
    """

    minutes: float = 40.0
    steps: int | None = None
    members: int = 3
    batch: int = 1
    learning_rate: float = 2e-3
    weight_decay: float = 1e-2
    sigma_min: float = 0.005
    sigma_max: float = 0.8
    folds: int = 5
    review_every: int = 100
    decay: float = 0.998
    seed: int = 0
    checkpoint_every: float = 60.0


def folds_of(structures: Sequence[Structure], folds: int) -> np.ndarray:
    """Fold of each cell: dealt in turn in order of number density, so that every fold spans the densities."""
    order = np.argsort([float(number_density(s)) for s in structures], kind="stable")
    fold = np.empty(len(structures), int)
    fold[order] = np.arange(len(structures)) % folds
    return fold


def _batches(options: SurrogateOptions, kept: np.ndarray, count: int):
    """draw(key) -> noise keys, cells and levels [batch, members]; member m draws from the cells ``kept[m]`` [members, k]."""

    def draw(key):
        pick, level, noise = jax.random.split(key, 3)
        shape = (options.batch, options.members)
        place = jax.random.randint(pick, shape, 0, jnp.asarray(count))
        index = jnp.asarray(kept)[jnp.arange(options.members)[None], place]
        # stratified over the batch, so that every step sees all noise levels
        low, high = math.log(options.sigma_min), math.log(options.sigma_max)
        u = (jnp.arange(options.batch)[:, None] + jax.random.uniform(level, shape)) / options.batch
        keys = jax.random.split(noise, shape)
        return dict(keys=keys, index=index, sigma=jnp.exp(low + u * (high - low)))

    return draw


def _optimizer(options: SurrogateOptions):
    """AdamW with clipped gradients, for each member on its own."""
    one = optax.chain(optax.clip_by_global_norm(1.0), optax.scale_by_adam(), optax.add_decayed_weights(options.weight_decay))
    return optax.GradientTransformation(jax.vmap(one.init), jax.vmap(one.update))


class _Problem:
    """Cells, labels and folds of one training, and the functions that the loop calls."""

    def __init__(self, structures, labels, network, elements, absorber, options, relabel):
        self.network, self.options, self.relabel = network, options, relabel
        self.cells = pad(structures, elements)
        most = self.cells.positions.shape[1]
        self.labels = jnp.stack([jnp.pad(jnp.asarray(y, jnp.float32), ((0, most - len(y)), (0, 0))) for y in labels])
        self.chosen = self.cells.species == elements.index(absorber)
        sites = np.asarray(self.labels)[np.asarray(self.chosen)]
        mean, basis = principal_components(sites)
        if network.principal:
            self.network = network.clone(outputs=len(basis))
        else:
            self.network = network.clone(outputs=len(mean))
        self.mean, self.basis = jnp.asarray(mean, jnp.float32), jnp.asarray(basis, jnp.float32)
        self.fold = folds_of(structures, options.folds)
        self.spec = training_spec(structures, network.cutoff)
        left = [np.flatnonzero(self.fold == m % options.folds) for m in range(options.members)]
        self.out = np.stack([np.resize(cells, max(map(len, left))) for cells in left])
        kept = [np.setdiff1d(np.arange(len(structures)), cells) for cells in left]
        self.kept = np.stack([np.resize(cells, max(map(len, kept))) for cells in kept])
        self.kept_count = np.array([[len(cells) for cells in kept]])
        self._judge = jax.jit(self._judgement)
        self._spread = jax.jit(self._disagreement)

    def make_loss(self, spec):
        """loss(params, batch) of the loop; every member has its own cells and noise."""
        cells, labels, chosen = self.cells, self.labels, self.chosen

        def one(params, key, index, sigma):
            s = jax.tree.map(lambda leaf: leaf[index], cells)
            return spectrum_loss(
                key, self.network, params, s, labels[index], sigma, spec, mean=self.mean, basis=self.basis, chosen=chosen[index], relabel=self.relabel
            )

        members = jax.vmap(one)  # over the members
        batched = jax.vmap(members, in_axes=(None, 0, 0, 0))

        def loss(params, batch):
            found, needed = batched(params, batch["keys"], batch["index"], batch["sigma"])
            return jnp.sum(jnp.mean(found, axis=0)), (found, needed)

        return loss

    def initial(self):
        """State before the first step."""
        first = jax.tree.map(lambda leaf: leaf[0], self.cells)
        packed = build(first, self.spec).to_jraph(first.species, jnp.float32(0.5))
        keys = jax.random.split(jax.random.key(self.options.seed), self.options.members)
        params = jax.jit(jax.vmap(lambda key: self.network.init(key, packed)["params"]))(keys)
        best = dict(params=params, loss=jnp.full(self.options.members, jnp.inf))
        return trainer.initial_state(params, _optimizer(self.options)) | dict(best=best)

    def _judgement(self, params):
        """Error [members] at the smallest noise level on the cells that each member leaves out: mean over sites of the mean absolute error."""

        def one(member, cells):
            def cell(total, index):
                s = jax.tree.map(lambda leaf: leaf[index], self.cells)
                packed = build(s, self.spec).to_jraph(s.species, jnp.float32(self.options.sigma_min), rows=self.network.in_rows)
                found = decode(self.network, self.mean, self.basis, self.network.apply({"params": member}, packed))
                error = jnp.mean(jnp.abs(found - self.labels[index]), axis=1)
                return total + jnp.sum(jnp.where(self.chosen[index], error, 0.0)) / jnp.sum(self.chosen[index]), None

            return jax.lax.scan(cell, jnp.float32(0.0), cells)[0] / len(cells)

        return jax.vmap(one)(params, jnp.asarray(self.out))

    def _disagreement(self, params, index):
        """Rms deviation [n] between the members in one cell at the smallest noise level."""
        s = jax.tree.map(lambda leaf: leaf[index], self.cells)
        packed = build(s, self.spec).to_jraph(s.species, jnp.float32(self.options.sigma_min), rows=self.network.in_rows)
        return disagreement(decode(self.network, self.mean, self.basis, apply_members(self.network, params, packed)))

    def scale(self, params) -> float:
        """Twice the median disagreement in the cells that at least one member leaves out."""
        gaps = [np.asarray(self._spread(params, index))[np.asarray(self.chosen[index])] for index in np.unique(self.out)]
        found = 2.0 * float(np.median(np.concatenate(gaps)))
        return found if found > 0 else 1.0

    def review(self, state):
        """Keep, per member, the moving average that did best on the cells left out."""
        if int(state["step"]) % self.options.review_every:
            return state
        loss, best = self._judge(state["ema"]), state["best"]
        better = loss < best["loss"]
        params = jax.tree.map(lambda a, b: jnp.where(better.reshape(-1, *[1] * (a.ndim - 1)), a, b), state["ema"], best["params"])
        return state | dict(best=dict(params=params, loss=jnp.where(better, loss, best["loss"])))


def _check(structures, labels, elements, absorber, kind, options, x):
    """Raise ``ValueError`` for what cannot be trained on."""
    if not structures:
        raise ValueError("got no training structures; needs at least two cells")
    if len(labels) != len(structures):
        raise ValueError(f"got {len(labels)} sets of spectra for {len(structures)} cells; needs one per cell, in the same order")
    for index, (s, y) in enumerate(zip(structures, labels, strict=True)):
        if np.ndim(y) != 2 or np.shape(y) != (s.positions.shape[0], len(x)):
            raise ValueError(f"got spectra of shape {np.shape(y)} for cell {index}; needs [{s.positions.shape[0]} atoms, {len(x)} points]")
        if not np.isfinite(np.asarray(y)).all():
            raise ValueError(f"got NaN or infinity in the spectra of cell {index}; needs finite numbers; leave that cell out")
    if absorber not in elements:
        raise ValueError(f"got absorber {absorber!r}; needs one of {', '.join(elements)}")
    if kind not in KINDS:
        raise ValueError(f"got kind {kind!r}; needs {' or '.join(KINDS)}")
    trainer.check_levels(options)
    if not 2 <= options.folds <= len(structures):
        raise ValueError(f"got {options.folds} folds of {len(structures)} cells; needs 2 up to the number of cells")


def train_surrogate(
    structures: Sequence[Structure],
    labels,
    *,
    out,
    elements: tuple[str, ...],
    absorber: str,
    network=None,
    kind: str = "xanes",
    edge: str = "K",
    x=None,
    unit: str = "index",
    options: SurrogateOptions | None = None,
    relabel=None,
    resume: bool = False,
    record: dict | None = None,
    report=None,
) -> Surrogate:
    """Train a surrogate on cells with site spectra and write it to ``out``.

    Beside ``out`` (say ``carbon.npz``) go ``carbon.train.npz`` (what ``resume`` continues from, exactly) and ``carbon.csv`` (the learning curve).

    Args:
      structures: training cells; sizes may differ.
      labels: per cell, spectra [n, points] of its atoms (rows of atoms that do not absorb are not used).
      out: path of the surrogate, ending in .npz.
      elements: species order of the networks.
      absorber: element whose spectra these are.
      network: flax spectrum network; its number of outputs is set here.
      kind: "xanes" or "exafs".
      edge: absorption edge.
      x: [points] of the spectra; by default their index.
      unit: of x.
      options: see `SurrogateOptions`.
      relabel: see `spectrum_loss`.
      resume: continue from ``carbon.train.npz`` if it is there.
      record: extra facts for the card.
      report: optional callable ``(step, seconds, losses)``.

    Raises:
      ValueError: cells and spectra that do not fit, an unknown absorber or kind, options out of range, a loss that is not finite.
    """
    options = SurrogateOptions() if options is None else options
    x = np.arange(np.shape(labels[0])[-1]) if x is None and len(labels) else np.asarray(x if x is not None else [], dtype=float)
    _check(structures, labels, elements, absorber, kind, options, x)
    problem = _Problem(structures, labels, default_network(elements) if network is None else network, elements, absorber, options, relabel)

    def write(state, elapsed, losses):
        facts = dict({} if record is None else record) | dict(training=dataclasses.asdict(options), cells=len(structures))
        facts |= dict(steps=int(state["step"]), seconds=round(elapsed, 1), final_losses=losses, jax=jax.__version__)
        facts["left_out_error"] = [float(v) for v in state["best"]["loss"]] if np.isfinite(state["best"]["loss"]).all() else None
        save_surrogate(_surrogate(problem, state, x, facts, elements=elements, absorber=absorber, edge=edge, kind=kind, unit=unit), out)

    trainer.optimise(
        problem.make_loss,
        _batches(options, problem.kept, problem.kept_count),
        problem.initial(),
        optimizer=_optimizer(options),
        options=options,
        mesh=trainer.device_mesh(options.batch),
        spec=problem.spec,
        out=Path(out),
        header=dict(network=describe_network(problem.network), elements=list(elements), members=options.members, folds=options.folds),
        write=write,
        bands=BANDS,
        resume=resume,
        report=report,
        review=problem.review,
    )
    return load_surrogate(out)


def _surrogate(problem, state, x, facts, **names) -> Surrogate:
    """The surrogate of a state: the best members, and the scale of their disagreement on cells that one of them has not seen."""
    judged = np.isfinite(np.asarray(state["best"]["loss"]))
    params = jax.tree.map(lambda a, b: jnp.where(judged.reshape(-1, *[1] * (a.ndim - 1)), a, b), state["best"]["params"], state["ema"])
    scale = problem.scale(params)
    return Surrogate(
        params=params,
        mean=problem.mean,
        basis=problem.basis,
        x=jnp.asarray(x, jnp.float32),
        scale=jnp.float32(scale),
        sigma=jnp.float32(problem.options.sigma_min),
        network=problem.network,
        card=json.dumps(facts | dict(scale=scale)),
        **names,
    )


def default_network(elements: tuple[str, ...], name: str = "invariant", cutoff: float = 4.0):
    """The network that is trained unless another is given: small, because guidance calls it hundreds of times."""
    if name == "specnet":
        return SpecNet(elements=len(elements), cutoff=cutoff)
    return InvariantNetwork(elements=len(elements), channels=48, steerable=8, blocks=2, cutoff=cutoff, radial=20)
