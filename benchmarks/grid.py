"""Rows of run.py: {training, unguided, guided, inversion} x networks x replicas x atoms x {glassjax, PyTorch}; ensembles against single replicas.

A row is named QUANTITY/NETWORK/REPLICASxATOMS/CODE. The cell is a random packing of silicon at its crystal's density; data are its own g(r), 100
points to 8 A. Steps of glassjax run as `sample` runs them (side by side on a CPU, as one batch on a GPU), those of PyTorch one by one or batched.

Quality, of the run that was timed, by the same code for all: of steps the mean |g(r) - data| of four structures after them, from the packing with
noise of 0.3 A down the same levels with the same random numbers (unguided the codes differ only by what keeps atoms apart in glassjax; so few steps
check them, and inversions tell how well data are met); of a training step the denoising loss at 0.3 A before it; of an inversion the mean
|g(r) - data| of its structures. `gflop` counts the matrix products of what was timed.
"""

from __future__ import annotations

import itertools
import time

QUANTITIES, NETWORKS = ("training", "unguided", "guided", "inversion"), ("equivariant", "meshgraphnet")
REPLICAS, ATOMS = (1, 8, 64, 256), (216, 1000, 5000, 17576)
CODES = ("glassjax", "torch-eager", "torch-near", "torch-compiled", "torch-batched")
DENSITY, SPACING = 0.0499, 1.6  # atoms per A^3; A, the packing's shortest distance
SIGMA, DROP, STEPS = 0.3, 0.001, 8  # A, noise that steps begin with, and that each takes away: what one of PyTorch's 512 does


def names() -> dict[str, tuple]:
    """Arguments of `measure` by the row's name. PyTorch has the MeshGraphNet only; only its batched form takes several replicas at a time."""
    rows = {}
    for quantity, network, replicas, atoms, code in itertools.product(QUANTITIES, NETWORKS, REPLICAS, ATOMS, CODES):
        alone = code.startswith("torch") and code != "torch-batched"
        if (code != "glassjax" and network == "equivariant") or (alone and replicas > 1) or (code == "torch-batched" and replicas == 1):
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
    """(prior, remark): a shipped one or a file's; where none is named, the default network with random parameters, which costs the same."""
    import jax

    from glassjax.neighbors import build, neighbor_spec
    from glassjax.priors.prior import Prior, load_prior, make_network

    name = arguments.prior if network == "equivariant" else arguments.meshgraphnet
    if name:
        return load_prior(name), name
    cell, body = packing(216), make_network(dict(name=network, options=dict(elements=1)))
    graph = build(cell, neighbor_spec(cell, body.cutoff)).to_jraph(cell.species, jax.numpy.float32(0.5))
    return Prior(params=jax.jit(body.init)(jax.random.key(0), graph)["params"], network=body, elements=("Si",)), "untrained"


def levels_of(atoms: int):
    """Noise levels [steps, 2] (from, to; A) of the steps that are timed: fewer in large cells."""
    from glassjax.noise import linear

    steps = STEPS if atoms <= 1000 else 2
    return linear(steps, sigma_max=SIGMA, sigma_min=SIGMA - steps * DROP)


def goal_of(cell, rmax: float = 8.0):
    """The target of a cell: its own g(r), 100 points to ``rmax`` (A)."""
    import numpy as np

    from glassjax.observables import pair_distribution
    from glassjax.targets import target

    r = np.linspace(rmax / 100, rmax, 100)
    data = np.asarray(pair_distribution(r, ["Si"]).fit(cell)(cell))
    return target(r, data, ["Si"], function="g", number_density=DENSITY)


def misfit(structures, data) -> float:
    """Mean |g(r) - data| over 100 points to 8 A and the structures, which have one number of atoms and one cell.

    Raises:
      RuntimeError: positions that are not finite, or atoms so crowded that the neighbour list overflows.
    """
    import jax
    import numpy as np
    import run

    from glassjax.observables import pair_distribution

    if not all(np.isfinite(np.asarray(s.positions)).all() for s in structures):
        raise RuntimeError("the positions are not finite")
    curve = jax.jit(pair_distribution(run.radii(), ["Si"]).fit(structures[0], margin=14.0))
    found = float(np.mean([np.abs(np.asarray(curve(s)) - np.asarray(data)).mean() for s in structures]))
    if not np.isfinite(found):
        raise RuntimeError("the atoms are so crowded that the neighbour list overflows")
    return found


def _stage(prior, cell, guided: bool, rmax: float = 8.0):
    import jax.numpy as jnp

    from glassjax._pytree import replace
    from glassjax.protocols import protocol, stages

    last = stages(prior, [goal_of(cell, rmax)] if guided else [], elements=("Si",), protocol=protocol(corrections=0))[-1]
    ladder = jnp.asarray(levels_of(len(cell.species)), jnp.float32)
    return replace(last, score=last.score.fit(cell), sampler=last.sampler.fit(cell), ladder=ladder)


def _gflop_of_step(stage, cell) -> float:
    """Of the matrix products of one step of one replica, the mean of the stage's."""
    import flops
    import jax

    from glassjax.replica import advance, start

    return flops.matmul_flops(advance, start(jax.random.key(0), 0, cell), stage) / len(stage.ladder) / 1e9


def _steps(arguments, prior, replicas: int, atoms: int, quantity: str) -> dict:
    """One step per replica (reverse SDE, veto; no Langevin correction), as `sample` runs a segment."""
    import jax
    import numpy as np

    from glassjax import segments
    from glassjax.replica import needed_of, start
    from glassjax.structure import stack

    prior, remark = prior
    cell = packing(atoms)
    stage = _stage(prior, cell, quantity == "guided", arguments.rmax)
    steps = len(stage.ladder)
    devices = (jax.devices()[0],)
    chunk = min(replicas, segments.default_chunk(replicas, 1, 1)) if segments.in_lanes(devices) else replicas
    states = jax.vmap(start, in_axes=(None, 0, 0))(jax.random.key(0), jax.numpy.arange(chunk), stack([cell] * chunk))
    runner, copy = segments.Runner(devices, chunk, False), segments.kept(states)
    while True:
        states = segments.restored(copy)  # a call uses them up
        begun = time.perf_counter()
        new, info = runner(states, stage, chunk=chunk, check=True)
        first = time.perf_counter() - begun
        grown = stage.grown(needed_of(info))
        if jax.tree.structure(grown) == jax.tree.structure(stage):
            break
        stage = grown
    spent = []
    while sum(spent) < arguments.seconds or len(spent) < 2:
        states = jax.block_until_ready(segments.restored(copy))
        begun = time.perf_counter()
        runner(states, stage, chunk=chunk, check=False)
        spent.append(time.perf_counter() - begun)
    median = float(np.median(spent))

    def after() -> dict:
        ends = [jax.tree.map(lambda leaf, i=i: leaf[i], new.structure) for i in range(chunk)]
        return quality_of_steps(ends, cell, remark) | dict(gflop=_gflop_of_step(stage, cell))

    return dict(compile_s=first - median, run_s=median / steps / chunk, chunk=chunk, note="per step per replica", after=after)


def quality_of_steps(ends, cell, remark: str) -> dict:
    """`misfit` after the steps of the first four replicas, which every code and machine runs, to the g(r) of the packing that they began from."""
    steps = len(levels_of(len(cell.species)))
    return dict(quality=misfit(ends[:4], goal_of(cell).data), quality_of=f"mean |dg| after {steps} steps, {remark}")


def _training(arguments, prior, replicas: int, atoms: int, quantity: str) -> dict:
    """Denoising loss, its gradient and the Adam update of one batch of ``replicas`` cells, per cell, as `training.train` runs them."""
    import flops as counting
    import jax
    import numpy as np
    import optax

    from glassjax.priors import trainer, training
    from glassjax.priors.cells import pad, training_spec

    prior, remark = prior
    cells, options = [packing(atoms)], training.TrainingOptions(batch=replicas)
    padded, spec = pad(cells, ("Si",)), training_spec(cells, prior.network.cutoff)
    loss, draw = training._batch_loss(prior.network, options, padded, spec), training._batches(options, 1)
    adam = optax.scale_by_adam()
    at_one_level = lambda key: draw(key) | dict(sigma=jax.numpy.full(replicas, SIGMA))  # noqa: E731
    step = trainer._step_function(loss, at_one_level, adam, options, trainer.device_mesh(replicas))
    state, rate = trainer.initial_state(prior.params, adam), np.float32(1e-3)
    spent, losses = [], None
    while len(spent) < 3 or sum(spent[1:]) < arguments.seconds:
        begun = time.perf_counter()
        _, found, *_ = jax.block_until_ready(step(state, rate))
        spent.append(time.perf_counter() - begun)
        losses = np.asarray(found)
    if not np.isfinite(losses).all():
        raise RuntimeError("the loss is not finite: a neighbour list overflowed")
    run_s = float(np.median(spent[1:]))
    batch = at_one_level(jax.random.key(0))
    gflop = counting.matmul_flops(jax.value_and_grad(loss, has_aux=True), prior.params, batch) / replicas / 1e9
    quality = dict(quality=float(losses.mean()), quality_of=f"denoising loss at {SIGMA} A, {remark}")
    return dict(compile_s=spent[0] - run_s, run_s=run_s / replicas, note="per step per cell", gflop=gflop) | quality


def _inversion(arguments, prior, replicas: int, atoms: int, quantity: str) -> dict:
    """The default protocol from packings to structures, compilation apart; target: `target_cell`."""
    import numpy as np

    from glassjax.inversion import invert

    prior, remark = prior
    cell = target_cell(atoms)
    goal = goal_of(cell)
    density = atoms / abs(float(np.linalg.det(np.asarray(cell.cell))))
    found = invert(goal, composition="Si", atoms=atoms, number_density=density, prior=prior, replicas=replicas, steps=arguments.steps)
    seconds = found.ensemble.seconds
    compiling = seconds["compilation"]
    if compiling is None:
        raise RuntimeError("no program ran twice; needs more steps to tell compilation from running")
    made = dict(compile_s=compiling, run_s=(seconds["total"] - compiling) / replicas, note="per structure")
    made["gflop"] = _gflop_of_step(_stage(prior, cell, True), cell) * _scores(arguments.steps)
    return made | quality_of_inversion(found.ensemble.structures, cell, remark)


def quality_of_inversion(structures, cell, remark: str) -> dict:
    """`misfit` to the g(r) of the target's cell, and the share of four-coordinated atoms beside the cell's."""
    error = misfit(structures, goal_of(cell).data)
    return dict(quality=error, quality_of=f"mean |dg| of a replica, {remark}", coordination=_four(structures), target=_four([cell]))


def _scores(steps: int | None) -> int:
    """How often the default protocol asks for a score: once per level, and once per correction at the levels that have one."""
    from glassjax.protocols import ladders, protocol

    plan = protocol(**({} if steps is None else dict(steps=steps)))
    (ladder,) = ladders(plan)
    low, high = plan.correction_window
    return len(ladder) + plan.corrections * int(((ladder[:, 1] >= low) & (ladder[:, 1] <= high)).sum())


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
    stage = _stage(prior, cell, True)
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
        gflop=_gflop_of_step(stage, cell),
    )


def _torch(arguments, quantity: str, replicas: int, atoms: int, code: str) -> dict:
    """The same of the PyTorch reference, see benchmarks/torch_reference."""
    from torch_rows import measure as measured

    return measured(arguments, prior_of(arguments, "meshgraphnet"), quantity, replicas, atoms, code)
