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
DENSITY = 0.0499  # atoms per A^3
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
    """Silicon in a cube at the crystal's density: a diamond lattice of at least ``atoms`` sites, some left out, with Gaussian displacements (A)."""
    import numpy as np

    from glassjax.structure import structure

    rng, cubes = np.random.default_rng(0), int(np.ceil((atoms / 8 - 1e-9) ** (1 / 3) - 1e-9))
    basis = np.array([[0, 0, 0], [0, 2, 2], [2, 0, 2], [2, 2, 0], [1, 1, 1], [1, 3, 3], [3, 1, 3], [3, 3, 1]]) / 4
    corner = np.stack(np.meshgrid(*[np.arange(cubes)] * 3, indexing="ij"), axis=-1).reshape(-1, 1, 3)
    sites = (corner + basis).reshape(-1, 3) / cubes
    edge = (atoms / DENSITY) ** (1 / 3)
    chosen = sites[rng.permutation(len(sites))[:atoms]] * edge
    return structure(chosen + displacement * rng.normal(size=chosen.shape), np.eye(3) * edge, ["Si"] * atoms)


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


def check_gradient(cell, make_loss, gradient) -> float:
    """Largest relative difference of the directional derivatives along three random directions from float64 central differences."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    jax.config.update("jax_enable_x64", True)
    positions = jnp.asarray(np.asarray(cell.positions), jnp.float64)
    value, worst = jax.jit(make_loss()), 0.0
    for seed in range(3):
        direction = np.random.default_rng(seed).normal(size=positions.shape)
        step = 1e-4
        slope = float(value(positions + step * direction) - value(positions - step * direction)) / (2 * step)
        worst = max(worst, abs(float(np.vdot(np.asarray(gradient, float), direction)) - slope) / abs(slope))
    jax.config.update("jax_enable_x64", False)
    return worst


def doubled(cell):
    """The same structure in float64 (64-bit numbers enabled)."""
    import jax.numpy as jnp

    from glassjax._pytree import replace

    return replace(cell, positions=jnp.asarray(cell.positions, jnp.float64), cell=jnp.asarray(cell.cell, jnp.float64))


def row_spectra(atoms: int, rmax: float, names, target=None) -> dict:
    """Curves and gradient from one pair pass."""
    import jax

    cell = silicon(atoms)
    loss, spec = joint_loss(cell, observables(rmax, names))
    ready, compile_s = compiled(jax.value_and_grad(loss), cell.positions)
    times = repeated(lambda: jax.block_until_ready(ready(cell.positions)))
    peak = peak_mib()  # before the check in float64
    gradient = ready(cell.positions)[1]
    quality = check_gradient(cell, lambda: joint_loss(doubled(cell), observables(rmax, names))[0], gradient)
    note = "relative error of directional derivatives, against float64 central differences"
    return times | dict(compile_s=compile_s, peak_mib=peak, quality=quality, quality_of=note, target=target, atoms=atoms, rmax=rmax)


def row_angles(atoms: int, target) -> dict:
    """Bond angles to 3.5 A and gradient; the switch is on, so that the loss is differentiable."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from glassjax._pytree import replace
    from glassjax.observables.angle import angle_distribution

    cell = silicon(atoms)

    def make(structure):
        observable = angle_distribution(np.linspace(0, 180, 181), ["Si"], cutoff=3.5, switch=0.3).fit(structure, margin=2.0)
        return lambda positions: jnp.sum(observable(replace(structure, positions=positions)) ** 2)

    ready, compile_s = compiled(jax.value_and_grad(make(cell)), cell.positions)
    times = repeated(lambda: jax.block_until_ready(ready(cell.positions)))
    peak = peak_mib()
    quality = check_gradient(cell, lambda: make(doubled(cell)), ready(cell.positions)[1])
    note = "relative error of directional derivatives, against float64 central differences"
    return times | dict(compile_s=compile_s, peak_mib=peak, quality=quality, quality_of=note, target=target, atoms=atoms)


def row_angles_jacobian(atoms: int) -> dict:
    """Bond angles to 3.5 A and the derivative of every point with respect to every atom, which guidance by angles takes at each step."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from glassjax._pytree import replace
    from glassjax.neighbors import build
    from glassjax.observables.angle import angle_distribution

    cell = silicon(atoms)
    observable = angle_distribution(np.linspace(0, 180, 181), ["Si"], cutoff=3.5, switch=0.3).fit(cell, margin=2.0)
    ready, compile_s = compiled(lambda s: observable.linearize(s, build(s, observable.spec)), cell)
    times = repeated(lambda: jax.block_until_ready(ready(cell)))
    peak = peak_mib()
    weights = jnp.asarray(np.random.default_rng(0).normal(size=181), jnp.float32)
    expected = jax.jit(jax.grad(lambda p: weights @ observable(replace(cell, positions=p))))(cell.positions)
    quality = float(jnp.abs(ready(cell)[1] @ weights - expected).max() / jnp.abs(expected).max())
    note = "largest relative difference of the Jacobian along random weights from reverse differentiation"
    return times | dict(compile_s=compile_s, peak_mib=peak, quality=quality, quality_of=note, atoms=atoms)


def row_freud(atoms: int) -> dict:
    """Peer: g(r) forward, freud's neighbour list (both directions) and a numpy matrix of Gaussians (benchmarks/peers.py), no gradient."""
    import numpy as np
    import peers

    cell, r = silicon(atoms), np.arange(1, 101) * R_STEP
    times = repeated(lambda: peers.distribution(cell, r))
    error = np.abs(peers.distribution(cell, r) - peers.exact(cell, r))[r > 1].max()
    return times | dict(peak_mib=peak_mib(), quality=float(error), quality_of=f"max |dg| from the exact sum; {peers.name_of(cell)}")


def row_torch(atoms: int) -> dict:
    """Peer: g(r) forward and backward in PyTorch as first published: all pairs, minimum image, one Gaussian per pair and point."""
    import numpy as np
    import torch

    cell = silicon(atoms)
    edge, r, width = float(cell.cell[0, 0]), torch.arange(1, 101) * R_STEP, 0.15
    positions = torch.tensor(np.array(cell.positions), requires_grad=True)
    i, j = torch.triu_indices(atoms, atoms, 1)

    def curve():
        gap = positions[i] - positions[j]
        gap = gap - edge * torch.round(gap / edge)
        d = gap.norm(dim=1)
        d = d[d < 8.75]
        gauss = torch.exp(-0.5 * ((r[:, None] - d) / width) ** 2).sum(dim=1) / (np.sqrt(2 * np.pi) * width)
        return 2 * gauss * edge**3 / (4 * np.pi * r**2 * atoms**2)

    def call():
        positions.grad = None
        (curve() ** 2).sum().backward()

    import peers

    times = repeated(call, least=3)
    error = np.abs(curve().detach().numpy() - peers.exact(cell, r.numpy()))[r.numpy() > 1].max()
    return times | dict(peak_mib=peak_mib(), quality=float(error), quality_of="max |dg| from the exact sum; torch " + torch.__version__)


def row_debye(atoms: int) -> dict:
    """Peer: I(Q) forward of DebyeCalculator, of the bare cluster (all pairs, no images), X-rays, Q 1 to 11."""
    import numpy as np
    from debyecalculator import DebyeCalculator

    cell = silicon(atoms)
    one = DebyeCalculator(qmin=1.0, qmax=11.05, qstep=0.1, biso=1.5, device="cpu")
    given = (["Si"] * atoms, np.array(cell.positions))
    return repeated(lambda: one.iq(given)) | dict(peak_mib=peak_mib(), quality_of="another quantity: a cluster, values in tests/test_peers.py")


ALL = ("g", "S", "xray", "neutron")
ROWS = {
    "g_S_xray_neutron_1000_rmax12": lambda: row_spectra(1000, 12.0, ALL, "0.06 s"),
    "g_1000": lambda: row_spectra(1000, 8.75, ("g",)),
    "peer_g_freud_1000_forward": lambda: row_freud(1000),
    "peer_g_torch_1000": lambda: row_torch(1000),
    "peer_I_debyecalculator_1000_forward": lambda: row_debye(1000),
    "angles_1000": lambda: row_angles(1000, "0.05 s"),
    "angles_jacobian_1000": lambda: row_angles_jacobian(1000),
    "g_S_xray_neutron_5000_rmax20": lambda: row_spectra(5000, 20.0, ALL, "1500 MiB"),
    "g_S_xray_neutron_2500_rmax12": lambda: row_spectra(2500, 12.0, ALL),
    "g_S_xray_neutron_5000_rmax12": lambda: row_spectra(5000, 12.0, ALL),
    "g_S_xray_neutron_10000_rmax12": lambda: row_spectra(10000, 12.0, ALL),
}


def peak_mib() -> float:
    """Largest resident memory of this process so far, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def run_apart(name: str) -> dict:
    """One row in a process of its own."""
    done = subprocess.run([sys.executable, str(Path(__file__).resolve()), "--one", name], capture_output=True, text=True)
    lines = [line for line in done.stdout.splitlines() if line.startswith("ROW ")]
    if done.returncode or not lines:
        return dict(row=name, error=done.stderr.strip().splitlines()[-1] if done.stderr.strip() else f"exit status {done.returncode}")
    return dict(row=name) | json.loads(lines[-1][4:])


def show(value) -> str:
    """A cell of the table."""
    return "" if value is None else f"{value:.3g}" if isinstance(value, float) else str(value)


def processor() -> str:
    """Name of the processor."""
    listed = Path("/proc/cpuinfo")
    names = [line.split(":")[1].strip() for line in listed.read_text().splitlines() if line.startswith("model name")] if listed.exists() else []
    return names[0] if names else platform.machine()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="+", default=["*"], metavar="PATTERN", help=f"shell patterns of {', '.join(ROWS)}")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "spectra.json", help="result file")
    parser.add_argument("--one", choices=ROWS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print("ROW " + json.dumps(ROWS[arguments.one]()))
        return 0
    rows = []
    for name in (n for n in ROWS if any(fnmatch.fnmatch(n, p) for p in arguments.rows)):
        rows.append(run_apart(name))
        cells = [show(rows[-1].get(c)) for c in COLUMNS[1:]]
        print(f"{name:36s} " + (f"failed: {rows[-1]['error']}" if "error" in rows[-1] else " ".join(f"{c:>9s}" for c in cells)), flush=True)
    record = dict(processor=processor(), cores=os.cpu_count(), load=os.getloadavg()[0], python=platform.python_version())
    arguments.out.write_text(json.dumps(record | dict(rows=rows), indent=1) + "\n")
    print(f"wrote {arguments.out}")
    return 1 if any("error" in r for r in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
