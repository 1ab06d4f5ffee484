"""Speed and memory of the spectra: `python benchmarks/spectra.py [--rows PATTERN ...]`, written to benchmarks/results/spectra.json.

A spectrum's value and the gradient of a sum of squares with respect to positions, float32, in one jitted call: of g(r), S(Q), X-ray and neutron
intensity together from one pair pass, of g(r) alone, and of the bond angles. Every row runs in a process of its own, so that its peak memory is its
own; compilation is timed apart. ``run_s`` is the fastest of the repeats, ``median_s`` their median (the machine may be busy) and ``cpu_s`` the least
processor time of one call, all threads together. ``quality`` compares with another way to the same number, in float64.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import os
import platform
import resource
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
R_STEP = 0.08  # A, 100 points to 8 A, width 0.15 A: the published benchmark
FORCED_X64 = "x64"
COLUMNS = ("row", "target", "run_s", "median_s", "cpu_s", "compile_s", "peak_mib", "quality", "quality_of")


def repeated(call, seconds: float = 2.0, least: int = 5) -> dict:
    """Fastest and median wall-clock seconds and least processor seconds of a host call, after one warm-up."""
    call()
    wall, processor = [], []
    while sum(wall) < seconds or len(wall) < least:
        begun, worked = time.perf_counter(), time.process_time()
        call()
        wall.append(time.perf_counter() - begun)
        processor.append(time.process_time() - worked)
    return dict(run_s=min(wall), median_s=sorted(wall)[len(wall) // 2], cpu_s=min(processor), repeats=len(wall))


def compiled(function, *arguments) -> tuple:
    """(compiled function, its compile seconds)."""
    import jax

    begun = time.perf_counter()
    ready = jax.jit(function).lower(*arguments).compile()
    return ready, time.perf_counter() - begun


def silicon(atoms: int, displacement: float = 0.2):
    """Diamond silicon with Gaussian displacements (A), near ``atoms`` atoms: a x b x c cubes of 8, as cubic as may be, at the crystal's density."""
    import numpy as np

    from glassjax.structure import structure

    cubes = atoms // 8
    sides = min(
        ((a, b, cubes // a // b) for a in range(1, cubes + 1) for b in range(1, cubes // a + 1) if cubes % (a * b) == 0),
        key=lambda s: max(s) / min(s),
    )
    basis = np.array([[0, 0, 0], [0, 2, 2], [2, 0, 2], [2, 2, 0], [1, 1, 1], [1, 3, 3], [3, 1, 3], [3, 3, 1]]) / 4
    corner = np.stack(np.meshgrid(*map(np.arange, sides), indexing="ij"), axis=-1).reshape(-1, 1, 3)
    edge = (8 / 0.0499) ** (1 / 3)
    clean = ((corner + basis) * edge).reshape(-1, 3)
    noisy = clean + displacement * np.random.default_rng(0).normal(size=clean.shape)
    return structure(noisy, np.diag(sides) * edge, ["Si"] * len(noisy))


def observables(rmax: float, names=("g", "S", "xray", "neutron")):
    """Those of the published benchmark: g(r) to 8 A (or ``rmax``, when all reach the same), S(Q) and intensities at Q = 1, 1.1, ..., 11 1/A."""
    import numpy as np

    from glassjax.observables import pair_distribution, structure_factor

    r = np.arange(1, 101) * min(R_STEP, (rmax - 0.75) / 100)
    q = np.arange(1.0, 11.05, 0.1)
    makers = dict(
        g=lambda: pair_distribution(r, ["Si"]),
        S=lambda: structure_factor(q, ["Si"], rmax=rmax),
        xray=lambda: structure_factor(q, ["Si"], function="I", weights="xray", rmax=rmax, displacement=1.5),
        neutron=lambda: structure_factor(q, ["Si"], function="I", weights="neutron", rmax=rmax, displacement=1.5),
    )
    return [makers[name]() for name in names]


def joint_loss(cell, parts):
    """(function of positions: sum of squares of all curves from one histogram, positions)."""
    import jax.numpy as jnp

    from glassjax._pytree import replace
    from glassjax.neighbors import neighbor_spec
    from glassjax.observables.histogram import pair_histogram

    spec, points = neighbor_spec(cell, max(o.rmax for o in parts), margin=2.0), max(o.points for o in parts)

    def loss(positions):
        moved = replace(cell, positions=positions)
        counts, _ = pair_histogram(moved, spec, points)
        return sum(jnp.sum(o.from_histogram(moved, counts) ** 2) for o in parts)

    return loss, spec
