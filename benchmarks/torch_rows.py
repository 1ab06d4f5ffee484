"""What run.py measures of the PyTorch reference: training, unguided and guided step, inversion; eager, near pairs only, compiled, batched."""

from __future__ import annotations

import time

import grid
import numpy as np
import run
import torch
from torch.utils.flop_counter import FlopCounterMode
from torch_reference import convert, sampler, spectra
from torch_reference.graph import radius_graph

STRENGTH = 3000.0  # weight of the guidance for g(r) of silicon in the paper


def measure(arguments, prior, quantity: str, replicas: int, atoms: int, code: str) -> dict:
    """One row of grid.py by PyTorch on the threads that torch takes, in float32; on CUDA where torch has it."""
    prior, remark = prior
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if quantity == "inversion":
        return _inversion(arguments, prior, remark, replicas, atoms, code, device)
    cell = grid.packing(atoms)
    begin = torch.tensor(np.asarray(cell.positions))[None].repeat(replicas, 1, 1).to(device)
    levels = grid.levels_of(atoms)
    drawn = [_draws(replicas, atoms, step).to(device) for step in range(len(levels))]

    def calls(code: str):
        made = _sampler(prior, cell, code, device, guided=quantity == "guided")
        return _training(made, begin) if quantity == "training" else _walk(made, begin, levels, drawn)

    call, wait = calls(code), torch.cuda.synchronize if device == "cuda" else (lambda: None)
    spent, results = [], []
    while len(spent) < max(4, len(levels)) or sum(spent[2:]) < arguments.seconds:  # the second call may still warm up
        begun = time.perf_counter()
        results.append(next(call))
        wait()
        spent.append(time.perf_counter() - begun)
    median = float(np.median(spent[2:]))

    def after() -> dict:
        if quantity == "training":
            quality = dict(quality=float(results[0]), quality_of=f"denoising loss at {grid.SIGMA} A, {remark}")
        else:
            quality = grid.quality_of_steps(_structures(results[len(levels) - 1], cell), cell, remark)
        return quality | dict(gflop=_gflop(lambda: next(calls(_plain(code)))) / replicas)

    note = f"per step per replica, torch {torch.__version__} on {device}"
    return dict(compile_s=max(spent[0] - median, 0.0), run_s=median / replicas, note=note, after=after)


def _draws(replicas: int, atoms: int, step: int):
    """Standard normal numbers [2, replicas, atoms, 3] that replicas of glassjax draw at a step, see `glassjax.replica.advance`: kick and noise."""
    import jax

    def one(replica):
        keys = jax.random.split(jax.random.fold_in(jax.random.fold_in(jax.random.key(0), replica), step))
        return jax.vmap(lambda key: jax.random.normal(key, (atoms, 3)))(keys)

    return torch.tensor(np.asarray(jax.vmap(one, out_axes=1)(np.arange(replicas))))


def _plain(code: str) -> str:
    """The form whose products are counted: the counter sees nothing inside compiled programs, which make the same."""
    return "torch-near" if code == "torch-compiled" else code


def _gflop(call) -> float:
    """Of the matrix products of a call, forward and backward."""
    with FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops() / 1e9


def _structures(positions, cell) -> list:
    """glassjax's structures of positions [replicas, n, 3] of silicon."""
    from glassjax.structure import structure

    return [structure(p, np.asarray(cell.cell), ["Si"] * len(p)) for p in positions.cpu().numpy()]


def _sampler(prior, cell, code: str, device: str, guided: bool):
    """The reference's sampler in one of its forms; data are the cell's own g(r)."""
    box, positions = (torch.tensor(np.asarray(a)).to(device) for a in (cell.cell, cell.positions))
    guidance = None
    if guided:
        observable = spectra.PairDistribution(run.radii(), box, len(positions), near=code != "torch-eager")
        guidance = sampler.Guidance([(observable, observable(positions[None])[0])], STRENGTH)
    network = convert.from_prior(prior).to(device)
    made = sampler.ReverseSDE(network, torch.tensor(np.asarray(cell.species)).long().to(device), box, guidance)
    if code != "torch-compiled":
        return made
    works, reason = sampler.inductor_works()
    if not works:
        raise RuntimeError(reason)
    return made.compiled()


def _walk(made, begin, levels, drawn):
    """Positions [replicas, n, 3] after each step down the levels, over and over from the same start and noise."""
    while True:
        positions = begin + float(levels[0, 0]) * drawn[0][0]
        for (sigma, following), (_, noise) in zip(levels, drawn, strict=True):
            positions = made.step(positions, sigma, following, noise)
            yield positions


def _training(made, begin):
    """Denoising loss before each Adam update on a batch [replicas, n, 3] at one noise level."""
    network = made.network.train().requires_grad_(True)
    optimizer, generator = torch.optim.Adam(network.parameters(), lr=1e-3), torch.Generator(begin.device).manual_seed(0)
    species, sigma = made.species.repeat(begin.shape[0]), torch.tensor(grid.SIGMA).to(begin)
    while True:
        noise = torch.randn(begin.shape, generator=generator, device=begin.device)
        edges = radius_graph(begin + sigma * noise, made.cell, network.cutoff, made.shifts)
        score = made.score_network(species, *edges, sigma).reshape(begin.shape)
        loss = ((sigma * score + noise) ** 2).sum(-1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield loss.detach()


def _inversion(arguments, prior, remark: str, replicas: int, atoms: int, code: str, device: str) -> dict:
    """The two-stage protocol of the paper from uniform random positions, one replica after another or all as one batch."""
    cell, steps = grid.target_cell(atoms), arguments.torch_steps
    free, guided = (_sampler(prior, cell, code, device, guided=g) for g in (False, True))
    generator, box, found = torch.Generator(device).manual_seed(0), torch.tensor(np.asarray(cell.cell)).to(device), []
    together = replicas if code == "torch-batched" else 1
    random = torch.rand((together, atoms, 3), generator=torch.Generator(device).manual_seed(1), device=device) @ box
    compiling = sum(_first(lambda one=one: one.step(random, grid.SIGMA, 0.0, None).cpu()) for one in (free, guided))
    begun = time.perf_counter()
    for _ in range(replicas // together):
        start = torch.rand((together, atoms, 3), generator=generator, device=device) @ box
        end = sampler.two_stage(free, guided, start, steps=(steps, steps), generator=generator)
        found += _structures(end, cell)
    seconds = (time.perf_counter() - begun) / replicas

    def after() -> dict:
        plain = [_sampler(prior, cell, _plain(code), device, guided=g) for g in (False, True)]
        gflop = sum(_gflop(lambda one=one: one.step(end, 0.01, 0.009, None)) for one in plain) * steps / together
        return grid.quality_of_inversion(found, cell, remark) | dict(gflop=gflop)

    note = f"per structure, {steps} + {steps} steps, torch {torch.__version__} on {device}; products counted at the last structure"
    return dict(compile_s=compiling, run_s=seconds, note=note, after=after)


def _first(call) -> float:
    """Seconds of the first call beyond those of a second."""
    times = [time.perf_counter()]
    for _ in range(2):
        call()
        times.append(time.perf_counter())
    return max(2 * times[1] - times[0] - times[2], 0.0)
