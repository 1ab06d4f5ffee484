"""Rows of run.py: {training, unguided, guided, inversion} x networks x replicas x atoms x {glassjax, PyTorch}; ensembles against single replicas.

A row is named QUANTITY/NETWORK/REPLICASxATOMS/CODE. The cell is a random packing of silicon at its crystal's density; data are its own g(r), 100
points to 8 A. Steps of glassjax run as `sample` runs them (side by side on a CPU, as one batch on a GPU), those of PyTorch one by one or batched.
"""

from __future__ import annotations

import itertools
import time

QUANTITIES, NETWORKS = ("training", "unguided", "guided", "inversion"), ("equivariant", "meshgraphnet")
REPLICAS, ATOMS = (1, 8, 64, 256), (216, 1000, 5000, 17576)
CODES = ("glassjax", "torch-eager", "torch-near", "torch-compiled", "torch-batched")
DENSITY, SPACING = 0.0499, 1.6  # atoms per A^3; A, the packing's shortest distance
STEPS = 8


def names() -> dict[str, tuple]:
    """Arguments of `measure` by the row's name. PyTorch has the MeshGraphNet only; only its batched form takes several replicas at a time."""
    rows = {}
    for quantity, network, replicas, atoms, code in itertools.product(QUANTITIES, NETWORKS, REPLICAS, ATOMS, CODES):
        alone = code.startswith("torch") and code != "torch-batched"
        if (code != "glassjax" and network == "equivariant") or (alone and replicas > 1) or (code == "torch-batched" and replicas == 1):
            continue
        if quantity in ("training", "inversion") and code not in ("glassjax", "torch-eager", "torch-near"):
            continue
        rows[f"{quantity}/{network}/{replicas}x{atoms}/{code}"] = (quantity, network, replicas, atoms, code)
    return rows | {f"ensemble/equivariant/{replicas}x216/glassjax": ("ensemble", "equivariant", replicas, 216, "glassjax") for replicas in (64, 256)}


def measure(arguments, quantity: str, network: str, replicas: int, atoms: int, code: str) -> dict:
    """One row: seconds per step and replica (per structure for an inversion), compilation apart, FLOP/s of matrix products, quality."""
    if code != "glassjax":
        return _torch(arguments, quantity, replicas, atoms, code)
    kinds = dict(training=_training, unguided=_steps, guided=_steps, inversion=_inversion, ensemble=_ensemble)
    return kinds[quantity](arguments, prior_of(arguments, network), replicas, atoms, quantity)


def packing(atoms: int, seed: int = 0):
    """A random packing of silicon."""
    from glassjax.structure import random_packing

    return random_packing(seed, ["Si"] * atoms, number_density=DENSITY, minimum_distance=SPACING)


def prior_of(arguments, network: str):
    """(prior, remark): the shipped one or a file's for the equivariant network; a MeshGraphNet of the published size from a file, or untrained."""
    import jax
    import run

    from glassjax.neighbors import build, neighbor_spec
    from glassjax.priors.meshgraphnet import MeshGraphNet
    from glassjax.priors.prior import Prior, load_prior

    if network == "equivariant":
        return run.prior_for(arguments.prior)
    if arguments.meshgraphnet:
        return load_prior(arguments.meshgraphnet), arguments.meshgraphnet
    cell, body = packing(216), MeshGraphNet(elements=1)
    graph = build(cell, neighbor_spec(cell, body.cutoff)).to_jraph(cell.species, jax.numpy.float32(0.5))
    return Prior(params=jax.jit(body.init)(jax.random.key(0), graph)["params"], network=body, elements=("Si",)), "untrained"


def goal_of(cell, rmax: float = 8.0):
    """The target of a cell: its own g(r), 100 points to ``rmax`` (A)."""
    import numpy as np

    from glassjax.observables import pair_distribution
    from glassjax.targets import target

    r = np.linspace(rmax / 100, rmax, 100)
    data = np.asarray(pair_distribution(r, ["Si"]).fit(cell)(cell))
    return target(r, data, ["Si"], function="g", number_density=DENSITY)


def _stage(prior, cell, guided: bool, steps: int, rmax: float = 8.0):
    import jax.numpy as jnp

    from glassjax._pytree import replace
    from glassjax.noise import geometric
    from glassjax.protocols import protocol, stages

    last = stages(prior, [goal_of(cell, rmax)] if guided else [], elements=("Si",), protocol=protocol(corrections=0))[-1]
    ladder = jnp.asarray(geometric(steps, sigma_max=0.3, sigma_min=0.2), jnp.float32)
    return replace(last, score=last.score.fit(cell), sampler=last.sampler.fit(cell), ladder=ladder)


def _rates(flops: float, seconds: float) -> dict:
    return dict(gflop=flops / 1e9, gflop_per_s=flops / seconds / 1e9)  # run.py measures the machine's rate, after it has read the memory


def _steps(arguments, prior, replicas: int, atoms: int, quantity: str) -> dict:
    """One step per replica (reverse SDE, veto; no Langevin correction), as `sample` runs a segment."""
    import flops as counting
    import jax
    import numpy as np

    from glassjax import segments
    from glassjax.replica import advance, needed_of, start
    from glassjax.structure import stack

    prior, remark = prior
    cell, steps = packing(atoms), STEPS if atoms <= 1000 else 2
    stage = _stage(prior, cell, quantity == "guided", steps, arguments.rmax)
    devices = (jax.devices()[0],)
    chunk = min(replicas, segments.default_chunk(replicas, 1, 1)) if segments.in_lanes(devices) else replicas
    states = jax.vmap(start, in_axes=(None, 0, 0))(jax.random.key(0), jax.numpy.arange(chunk), stack([cell] * chunk))
    runner = segments.Runner(devices, chunk, False)
    while True:
        begun = time.perf_counter()
        new, info = runner(states, stage, chunk=chunk, check=True)
        first = time.perf_counter() - begun
        grown = stage.grown(needed_of(info))
        if jax.tree.structure(grown) == jax.tree.structure(stage):
            break
        stage = grown
    spent = []
    while sum(spent) < arguments.seconds or len(spent) < 2:
        begun = time.perf_counter()
        runner(states, stage, chunk=chunk, check=False)
        spent.append(time.perf_counter() - begun)
    median = float(np.median(spent))
    one = jax.tree.map(lambda leaf: leaf[0], states)
    rates = _rates(counting.matmul_flops(advance, one, stage) / steps, median / steps / chunk)
    if not bool(np.isfinite(np.asarray(new.structure.positions)).all()):
        raise RuntimeError("the steps gave positions that are not finite")
    quality = dict(quality=float(np.nanmean(np.asarray(info["r_factor"])[:, -1])), quality_of=f"R-factor, {remark}") if quantity == "guided" else {}
    return dict(compile_s=first - median, run_s=median / steps / chunk, chunk=chunk, note="per step per replica") | rates | quality


def _training(arguments, prior, replicas: int, atoms: int, quantity: str) -> dict:
    """Denoising loss, its gradient and the Adam update of one batch of ``replicas`` cells, per cell."""
    import flops as counting
    import jax
    import optax
    import run

    from glassjax.priors import training

    prior, remark = prior
    cells, options = [packing(atoms)], training.TrainingOptions(batch=replicas)
    padded, spec = training.pad(cells, ("Si",)), training.training_spec(cells, prior.network.cutoff)
    batch, adam = training._batches(options, 1)(jax.random.key(0)), optax.adam(1e-3)
    loss = jax.value_and_grad(training._batch_loss(prior.network, options, padded, spec), has_aux=True)

    def step(params, state, batch):
        (_, (losses, _)), gradient = loss(params, batch)
        updates, state = adam.update(gradient, state)
        return optax.apply_updates(params, updates), state, losses

    given = prior.params, adam.init(prior.params), batch
    (_, _, losses), compile_s, run_s = run.timed(step, *given, seconds=arguments.seconds)
    if not bool(jax.numpy.isfinite(losses).all()):
        raise RuntimeError("the loss is not finite: a neighbour list overflowed")
    rates = _rates(counting.matmul_flops(step, *given) / replicas, run_s / replicas)
    quality = dict(quality=float(losses.mean()), quality_of=f"denoising loss on a packing, {remark}")
    return dict(compile_s=compile_s, run_s=run_s / replicas, note="per step per cell") | rates | quality


def _inversion(arguments, prior, replicas: int, atoms: int, quantity: str) -> dict:
    """The default protocol from packings to structures, compilation apart; target: `target_cell`."""
    import numpy as np

    from glassjax.inversion import invert
    from glassjax.observables import pair_distribution

    prior, remark = prior
    cell = target_cell(atoms)
    goal = goal_of(cell)
    density = atoms / abs(float(np.linalg.det(np.asarray(cell.cell))))
    found = invert(goal, composition="Si", atoms=atoms, number_density=density, prior=prior, replicas=replicas, steps=arguments.steps)
    seconds, observable = found.ensemble.seconds, pair_distribution(np.linspace(0.08, 8.0, 100), ["Si"]).fit(cell)
    curves = [np.asarray(observable(s)) for s in found.ensemble.structures]
    error = float(np.mean([np.abs(c - np.asarray(goal.data)).mean() for c in curves]))
    compiling = seconds["compilation"]
    if compiling is None:
        raise RuntimeError("no program ran twice; needs more steps to tell compilation from running")
    made = dict(compile_s=compiling, run_s=(seconds["total"] - compiling) / replicas, note="per structure")
    return made | dict(
        quality=error, quality_of=f"mean |dg| of a replica, {remark}", coordination=_four(found.ensemble.structures), target=_four([cell])
    )


def _four(structures) -> float:
    """Share of atoms with four neighbours inside 2.85 A."""
    import numpy as np

    from glassjax.analysis import coordination_numbers

    return float(np.mean([np.mean(np.asarray(coordination_numbers(s, 2.85)) == 4) for s in structures]))


def target_cell(atoms: int):
    """For 216 atoms a melt-quenched cell that no silicon prior was trained on, else the displaced crystal, or a packing where that has no cube."""
    from pathlib import Path

    import run

    from glassjax.io import read_structures

    if atoms == 216:
        return read_structures([Path(__file__).parent / "data" / "silicon_targets.extxyz.gz"])[1]
    return run.silicon(atoms)[1] if round((atoms / 8) ** (1 / 3)) ** 3 * 8 == atoms else packing(atoms)


def _ensemble(arguments, prior, replicas: int, atoms: int, quantity: str) -> dict:
    """``replicas`` together against as many calls with one, a shortened ladder; the peer is glassjax itself."""
    import jax
    import numpy as np

    from glassjax.ensemble import sample

    prior, remark = prior
    cell = packing(atoms)
    stage = _stage(prior, cell, True, STEPS)
    sample(jax.random.key(0), [stage], cell, replicas=1)
    sample(jax.random.key(0), [stage], cell, replicas=replicas)  # compiles; on a GPU also finds how many fit
    begun = time.perf_counter()
    alone = [sample(jax.random.key(0), [stage], cell, replicas=[i]) for i in range(min(replicas, arguments.singles))]
    each = (time.perf_counter() - begun) / len(alone)
    begun = time.perf_counter()
    together = sample(jax.random.key(0), [stage], cell, replicas=replicas)
    spent = (time.perf_counter() - begun) / replicas
    gap = max(np.abs(np.asarray(a.structures[0].positions) - np.asarray(b.positions)).max() for a, b in zip(alone, together.structures, strict=False))
    return dict(
        run_s=spent / STEPS,
        peer_s=each / STEPS,
        ratio=each / spent,
        peer=f"one replica at a time ({len(alone)} of them)",
        quality=float(gap),
        quality_of=f"largest difference of a coordinate (A), {remark}",
    )


def _torch(arguments, quantity: str, replicas: int, atoms: int, code: str) -> dict:
    """The same of the PyTorch reference, see benchmarks/torch_reference."""
    from torch_rows import measure as measured

    return measured(arguments, prior_of(arguments, "meshgraphnet"), quantity, replicas, atoms, code)
