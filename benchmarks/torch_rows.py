"""What run.py measures of the PyTorch reference: training, unguided and guided step, inversion; eager, near pairs only, compiled, batched."""

from __future__ import annotations

import time

import numpy as np

SIGMA, STRENGTH = (0.3, 0.299), 3000.0  # A; weight of the guidance for g(r) of silicon in the paper


def measure(arguments, prior, quantity: str, replicas: int, atoms: int, code: str) -> dict:
    """One row of grid.py by PyTorch on two threads or what torch finds, in float32; on CUDA where torch has it."""
    import torch

    prior, remark = prior
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if quantity == "inversion":
        return _inversion(arguments, prior, remark, replicas, atoms, code, device)
    import grid

    cell = grid.packing(atoms)
    positions = torch.tensor(np.asarray(cell.positions))[None].repeat(replicas, 1, 1).to(device)
    wait = torch.cuda.synchronize if device == "cuda" else (lambda: None)
    made = _sampler(prior, cell, code, device, guided=quantity == "guided")
    if quantity == "training":
        call = _training_step(made, positions)
    else:
        noise = torch.randn(positions.shape, generator=torch.Generator().manual_seed(0)).to(positions)
        call = lambda: made.step(positions, *SIGMA, noise)  # noqa: E731
    spent = []
    while len(spent) < 4 or sum(spent[2:]) < arguments.seconds:  # the second call may still warm up
        begun = time.perf_counter()
        call()
        wait()
        spent.append(time.perf_counter() - begun)
    median = float(np.median(spent[2:]))
    return dict(compile_s=max(spent[0] - median, 0.0), run_s=median / replicas, note=f"per step per replica, torch {torch.__version__} on {device}")


def _sampler(prior, cell, code: str, device: str, guided: bool, data=None):
    import torch
    from torch_reference import convert, sampler, spectra

    box = torch.tensor(np.asarray(cell.cell)).to(device)
    guidance = None
    if guided:
        near = code != "torch-eager"
        observable = spectra.PairDistribution(np.linspace(0.08, 8.0, 100), box, len(cell.positions), near=near)
        own = observable(torch.tensor(np.asarray(cell.positions)).to(device)[None])[0] if data is None else torch.as_tensor(data).to(box)
        guidance = sampler.Guidance([(observable, own)], STRENGTH)
    network = convert.from_prior(prior).to(device)
    made = sampler.ReverseSDE(network, torch.tensor(np.asarray(cell.species)).long().to(device), box, guidance)
    if code != "torch-compiled":
        return made
    works, reason = sampler.inductor_works()
    if not works:
        raise RuntimeError(reason)
    return made.compiled()


def _training_step(made, positions):
    """Denoising loss, gradient and Adam update of a batch at one noise level."""
    import torch
    from torch_reference.graph import radius_graph

    network = made.network.train().requires_grad_(True)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    species, sigma = made.species.repeat(positions.shape[0]), torch.tensor(SIGMA[0]).to(positions)

    def step():
        noise = torch.randn_like(positions)
        edges = radius_graph(positions + sigma * noise, made.cell, network.cutoff, made.shifts)
        score = network(species, *edges, sigma).reshape(positions.shape)
        loss = ((sigma * score + noise) ** 2).sum(-1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def _inversion(arguments, prior, remark: str, replicas: int, atoms: int, code: str, device: str) -> dict:
    """The two-stage protocol of the paper from uniform random positions, one replica after another."""
    import grid
    import torch
    from torch_reference import sampler

    from glassjax.observables import pair_distribution
    from glassjax.structure import structure

    cell = grid.target_cell(atoms)
    data = np.array(grid.goal_of(cell).data)
    free, guided = (_sampler(prior, cell, code, device, guided=g, data=data) for g in (False, True))
    generator, box = torch.Generator().manual_seed(0), np.asarray(cell.cell)
    observable, found = pair_distribution(np.linspace(0.08, 8.0, 100), ["Si"]).fit(cell), []
    begun = time.perf_counter()
    for _ in range(replicas):
        start = torch.rand((1, atoms, 3), generator=generator) @ torch.tensor(box)
        end = sampler.two_stage(free, guided, start.to(device), steps=(arguments.torch_steps,) * 2, generator=generator)
        found.append(structure(end[0].cpu().numpy(), box, ["Si"] * atoms))
    seconds = (time.perf_counter() - begun) / replicas
    error = float(np.mean([np.abs(np.asarray(observable(s)) - data).mean() for s in found]))
    made = dict(run_s=seconds, note=f"per structure, {arguments.torch_steps} + {arguments.torch_steps} steps, torch {torch.__version__} on {device}")
    return made | dict(quality=error, quality_of=f"mean |dg| of a replica, {remark}", coordination=grid._four(found), target=grid._four([cell]))
