"""Seconds per guided step per replica, same MeshGraphNet weights in PyTorch and glassjax: `python -m benchmarks.torch_reference [--help]`.

Run it from the repository's root on an idle machine (`taskset -c 0` gives both sides one core; ``--threads`` binds PyTorch alone). Time before the
first result beyond one step (compilation) stands apart.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

import numpy as np
import torch

from . import convert, sampler, spectra

VARIANTS = ("eager all pairs", "eager", "compiled", "batched", "batched compiled", "glassjax", "glassjax batched")
SIGMA = (0.3, 0.299)  # A


def parse(arguments=None):
    """Options of the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.torch_reference", description=__doc__.splitlines()[0])
    parser.add_argument("--atoms", type=int, default=216, help="8 m^3 atoms of diamond silicon, displaced by 0.2 A")
    parser.add_argument("--width", type=int, default=200, help="of the network, untrained weights (the paper's: 200)")
    parser.add_argument("--blocks", type=int, default=5)
    parser.add_argument("--checkpoint", help="of a MeshGraphNet, instead of untrained weights")
    parser.add_argument("--rmax", type=float, default=8.0, help="A, of g(r)")
    parser.add_argument("--bins", type=int, default=100)
    parser.add_argument("--replicas", type=int, default=8, help="of the batched variants")
    parser.add_argument("--repeats", type=int, default=5, help="steps timed; the median counts")
    parser.add_argument("--strength", type=float, default=3000.0)
    parser.add_argument("--threads", type=int, help="of PyTorch")
    parser.add_argument("--device", default="cpu", help="of PyTorch: cpu or cuda")
    parser.add_argument("--out", help="file for the times as JSON")
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=VARIANTS, metavar="NAME", help=", ".join(VARIANTS))
    return parser.parse_args(arguments)


def silicon(atoms: int, replicas: int):
    """(displaced structures, clean structure) of diamond silicon."""
    from ase.build import bulk

    from glassjax.structure import structure

    cells = round((atoms / 8) ** (1 / 3))
    if 8 * cells**3 != atoms:
        raise ValueError(f"got {atoms} atoms; needs 8 m^3, such as 64, 216 or 512")
    clean = bulk("Si", cubic=True).repeat(cells)
    rng, cell = np.random.default_rng(0), clean.cell.array
    displaced = [clean.positions + 0.2 * rng.normal(size=(atoms, 3)) for _ in range(replicas)]
    return [structure(p, cell, ["Si"] * atoms) for p in displaced], structure(clean.positions, cell, ["Si"] * atoms)


def prior_of(options, example):
    """A glassjax prior: a checkpoint's, or the network of the options with untrained weights."""
    import jax

    from glassjax.neighbors import build, neighbor_spec
    from glassjax.priors.meshgraphnet import MeshGraphNet
    from glassjax.priors.prior import Prior, load_prior

    if options.checkpoint:
        return load_prior(options.checkpoint)
    network = MeshGraphNet(elements=1, width=options.width, blocks=options.blocks)
    packed = build(example, neighbor_spec(example, network.cutoff)).to_jraph(example.species, jax.numpy.float32(0.5))
    return Prior(params=jax.jit(network.init)(jax.random.key(0), packed)["params"], network=network, elements=example.elements)


def time_calls(call, repeats: int, wait) -> tuple[float, float]:
    """(median seconds of a call, seconds of the first beyond that); ``wait`` blocks until a result is there."""
    spent = []
    for _ in range(repeats + 2):  # the second call may still warm up
        begun = time.perf_counter()
        wait(call())
        spent.append(time.perf_counter() - begun)
    median = statistics.median(spent[2:])
    return median, max(spent[0] - median, 0.0)


def time_torch(options, name: str, prior, structures, clean) -> tuple[float, float]:
    """(seconds per step per replica, seconds of compilation) of one PyTorch variant."""
    kind = dict(dtype=torch.float32, device=options.device)
    replicas = options.replicas if "batched" in name else 1
    positions = torch.stack([torch.tensor(np.asarray(s.positions)) for s in structures[:replicas]]).to(**kind)
    cell = torch.tensor(np.asarray(clean.cell)).to(**kind)
    near = name != "eager all pairs"
    observable = spectra.PairDistribution(np.linspace(options.rmax / options.bins, options.rmax, options.bins), cell, options.atoms, near=near)
    data = observable(torch.tensor(np.asarray(clean.positions)).to(**kind)[None])[0]
    network = convert.from_prior(prior).to(options.device)
    species = torch.tensor(np.asarray(clean.species)).long().to(options.device)
    made = sampler.ReverseSDE(network, species, cell, sampler.Guidance([(observable, data)], options.strength))
    made = made.compiled() if "compiled" in name else made
    noise = torch.randn(positions.shape, generator=torch.Generator().manual_seed(0)).to(positions)
    wait = (lambda _: torch.cuda.synchronize()) if options.device != "cpu" else (lambda _: None)
    seconds, compiling = time_calls(lambda: made.step(positions, *SIGMA, noise), options.repeats, wait)
    return seconds / replicas, compiling


def time_glassjax(options, name: str, prior, structures, clean) -> tuple[float, float]:
    """The same of glassjax: its gradient guidance and Euler-Maruyama step, one compiled program per batch."""
    import jax
    import jax.numpy as jnp

    from glassjax.guidance import posterior
    from glassjax.replica import Stage, advance, start
    from glassjax.samplers import reverse_sde
    from glassjax.structure import stack
    from glassjax.targets import target

    replicas = options.replicas if "batched" in name else 1
    r = np.linspace(options.rmax / options.bins, options.rmax, options.bins)
    unit = target(r, np.ones(len(r)), clean.symbols, function="g", number_density=0.05, width=0.15)
    data = np.asarray(unit.fit(clean).observable.fit(clean)(clean))
    aim = target(r, data, clean.symbols, function="g", number_density=0.05, width=0.15)
    score = posterior(prior, aim, method="gradient", strength=options.strength).fit(structures[0])
    stage = Stage(score=score, sampler=reverse_sde(ancestral=False), ladder=jnp.asarray([SIGMA], jnp.float32))
    states = jax.vmap(start, in_axes=(None, 0, 0))(jax.random.key(0), jnp.arange(replicas), stack(structures[:replicas]))
    states = type(states)(structure=states.structure, sigma=states.sigma + SIGMA[0], key=states.key, step=states.step)
    step = jax.jit(jax.vmap(advance, in_axes=(0, None)))
    seconds, compiling = time_calls(lambda: step(states, stage)[0].structure.positions, options.repeats, jax.block_until_ready)
    if not bool(jnp.isfinite(step(states, stage)[0].structure.positions).all()):
        raise RuntimeError("glassjax's neighbour lists overflowed: these times are not of a valid step")
    return seconds / replicas, compiling


def main(arguments=None) -> dict[str, tuple[float, float]]:
    """Print a table; returns {variant: (seconds per step per replica, seconds of compilation)}."""
    options = parse(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    structures, clean = silicon(options.atoms, max(options.replicas, 1))
    prior, found = prior_of(options, structures[0]), {}
    size = f"{options.atoms} atoms, {options.bins} bins to {options.rmax:g} A, batches of {options.replicas}"
    print(f"{size}; torch {torch.__version__} on {options.device} with {torch.get_num_threads()} threads")
    print(f"{'variant':20s} {'s / step / replica':>18s} {'compile s':>10s}")
    for name in options.variants:
        works, reason = sampler.inductor_works() if name.endswith("compiled") else (True, "")
        if not works:
            print(f"{name:20s} not measured: {reason}")
            continue
        run = time_glassjax if name.startswith("glassjax") else time_torch
        found[name] = run(options, name, prior, structures, clean)
        print(f"{name:20s} {found[name][0]:18.5f} {found[name][1]:10.2f}", flush=True)
    if options.out:
        rows = {name: dict(seconds_per_step_per_replica=seconds, compile_seconds=compiling) for name, (seconds, compiling) in found.items()}
        record = dict(options=vars(options), torch=torch.__version__, threads=torch.get_num_threads(), rows=rows)
        Path(options.out).write_text(json.dumps(record, indent=1) + "\n")
    return found


if __name__ == "__main__":
    main()
