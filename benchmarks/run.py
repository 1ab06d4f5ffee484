"""Speed, memory and quality: `python benchmarks/run.py [--rows PATTERN ...]`, `python benchmarks/run.py compare OLD.json [NEW.json]`.

It measures the glassjax that Python finds: install it (`pip install -e ".[test]"`), or set PYTHONPATH to the repository's root. Every row runs in a
process of its own, so that its peak memory is its own. Compilation is timed apart from running. Where a peer is named, the same quantity is computed
by it in the same process and `ratio` is peer time / our time; `quality` says how good the result is, by one definition for glassjax and its peer.

Rows of parts stand below; those of whole steps, trainings and inversions, ours and PyTorch's, are made by grid.py (`--rows 'guided/*/8x216/*'`;
`--list` names all). Every row is written as soon as it is there, beside the rows that the file holds already.
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

import flops
import grid

HERE = Path(__file__).parent
DENSITY = 0.0499  # atoms per A^3, crystalline silicon
COLUMNS = ("row", "compile_s", "run_s", "peer_s", "ratio", "memory_mib", "gflop_per_s", "share_of_matmul_rate", "quality", "quality_of")
DEFAULT = (
    "pair_histogram*",
    "score_*",
    "training/*/8x216/glassjax",
    "training/*/1x216/torch-near",
    "unguided/*/1x216/*",
    "guided/*/1x216/*",
    "guided/*/8x216/*",
    "guided/*/1x1000/glassjax",
    "guided/*/1x5000/glassjax",
    "guided/equivariant/1x17576/glassjax",
    "inversion/equivariant/8x216/glassjax",
    "ensemble/equivariant/64x216/glassjax",
)


def timed(function, *arguments, seconds: float = 1.0):
    """(result, compile seconds, median run seconds) of a function of arrays, compiled here."""
    import jax
    import numpy as np

    begun = time.perf_counter()
    compiled = jax.jit(function).lower(*arguments).compile()
    compile_seconds = time.perf_counter() - begun
    result = jax.block_until_ready(compiled(*arguments))
    spent = []
    while sum(spent) < seconds or len(spent) < 3:
        begun = time.perf_counter()
        jax.block_until_ready(compiled(*arguments))
        spent.append(time.perf_counter() - begun)
    return result, compile_seconds, float(np.median(spent))


def timed_host(function, *arguments, repeats: int = 3):
    """(result, median seconds) of a host function, after one warm-up."""
    import numpy as np

    result, spent = function(*arguments), []
    for _ in range(repeats):
        begun = time.perf_counter()
        function(*arguments)
        spent.append(time.perf_counter() - begun)
    return result, float(np.median(spent))


def silicon(atoms: int, *, displacement: float = 0.2, seed: int = 0):
    """Diamond silicon with Gaussian displacements (A): a cell of 8 m^3 atoms whose neighbour counts are those of the glass."""
    import numpy as np

    from glassjax.structure import structure

    cells = round((atoms / 8) ** (1 / 3))
    if 8 * cells**3 != atoms:
        raise ValueError(f"got {atoms} atoms; a cubic diamond cell needs 8 m^3: 216 or 1000")
    basis = np.array([[0, 0, 0], [0, 2, 2], [2, 0, 2], [2, 2, 0], [1, 1, 1], [1, 3, 3], [3, 1, 3], [3, 3, 1]]) / 4
    corner = np.stack(np.meshgrid(*[np.arange(cells)] * 3, indexing="ij"), axis=-1).reshape(-1, 1, 3)
    edge = (8 / DENSITY) ** (1 / 3)
    clean = ((corner + basis) * edge).reshape(-1, 3)
    noisy = clean + displacement * np.random.default_rng(seed).normal(size=clean.shape)
    make = lambda positions: structure(positions, np.eye(3) * edge * cells, ["Si"] * atoms)  # noqa: E731
    return make(clean), make(noisy)


def radii():
    """The grid of issue 2: 100 points up to 8 A."""
    import numpy as np

    return np.linspace(0.08, 8.0, 100)


def row_histogram(arguments, atoms: int, gradient: bool) -> dict:
    """g(r) of one cell, alone or with the gradient of a weighted sum of its points, against another code."""
    import jax
    import numpy as np
    import peers

    from glassjax._pytree import replace
    from glassjax.observables import pair_distribution

    cell, r = silicon(atoms)[1], radii()
    observable = pair_distribution(r, ["Si"]).fit(cell)
    if not gradient:
        ours, compile_s, run_s = timed(observable, cell)
        _, peer_s = timed_host(peers.distribution, cell, r)
        error, measure = np.abs(np.asarray(ours) - peers.exact(cell, r))[r > 1.0].max(), "max |dg| from the exact sum, r > 1 A"
    else:
        weights = np.random.default_rng(1).normal(size=len(r)) * (r > 1.0)

        def objective(positions):
            return observable(replace(cell, positions=positions)) @ weights.astype(np.float32)

        (_, ours), compile_s, run_s = timed(jax.value_and_grad(objective), cell.positions)
        (_, peer), peer_s = timed_host(peers.gradient, cell, r, weights)
        error, measure = np.abs(np.asarray(ours) - peer).max() / np.abs(peer).max(), "max relative error of the gradient"
    name = peers.name_of(cell)
    measured = dict(compile_s=compile_s, run_s=run_s, peer_s=peer_s, ratio=peer_s / run_s, peer=name)
    return measured | dict(quality=float(error), quality_of=f"{measure}; peer {name}")


def row_score(arguments, atoms: int) -> dict:
    """One evaluation of the prior. Quality: distance from the clean cell after denoising over before, at sigma 0.2 A (below 1 is better)."""
    import numpy as np

    clean, noisy = silicon(atoms)
    prior, remark = grid.prior_of(arguments, "equivariant")
    (score, _), compile_s, run_s = timed(prior.fit(noisy), noisy, np.float32(0.2))
    before = np.asarray(noisy.positions - clean.positions)
    after = before + 0.2**2 * np.asarray(score)
    ratio = float(np.sqrt((after**2).mean() / (before**2).mean()))
    return dict(compile_s=compile_s, run_s=run_s, quality=ratio, quality_of=f"error after / before, {remark}")


ROWS = {
    f"{name}_{atoms}": (function, (atoms, *more))
    for name, function, more in (
        ("pair_histogram", row_histogram, (False,)),
        ("pair_histogram_gradient", row_histogram, (True,)),
        ("score", row_score, ()),
    )
    for atoms in (216, 1000)
} | {name: (grid.measure, arguments) for name, arguments in grid.names().items()}


def run_one(arguments) -> None:
    """Run one row in this process and print it as JSON."""
    import jax

    function, more = ROWS[arguments.one]
    result = function(arguments, *more)
    after = result.pop("after", dict)
    result |= dict(row=arguments.one, memory_mib=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    device = jax.devices()[0]
    result |= dict(device=device.device_kind, jax=jax.__version__)
    statistics = device.memory_stats() or {}
    if "torch" in arguments.one:
        import torch

        statistics = {"peak_bytes_in_use": torch.cuda.max_memory_allocated()} if torch.cuda.is_available() else {}
    if "peak_bytes_in_use" in statistics:
        result["device_memory_mib"] = statistics["peak_bytes_in_use"] / 2**20
    result |= after()  # this and the next take memory of their own
    if "gflop" in result:
        result["gflop_per_s"] = result["gflop"] / result["run_s"]
        rate = flops.matmul_rate() / 1e9
        result |= dict(matmul_gflop_per_s=rate, share_of_matmul_rate=result["gflop_per_s"] / rate)
    print("ROW " + json.dumps(result))


def run_apart(name: str, arguments) -> dict:
    """One row in a process of its own."""
    command = [sys.executable, str(Path(__file__).resolve()), "--one", name]
    for option in ("prior", "meshgraphnet", "seconds", "steps", "singles", "torch_steps", "rmax"):
        if getattr(arguments, option) is not None:
            command += [f"--{option.replace('_', '-')}", str(getattr(arguments, option))]
    done = subprocess.run(command, capture_output=True, text=True)
    lines = [line for line in done.stdout.splitlines() if line.startswith("ROW ")]
    if done.returncode or not lines:
        return dict(row=name, error=done.stderr.strip().splitlines()[-1] if done.stderr.strip() else f"exit status {done.returncode}")
    return json.loads(lines[-1][4:])


def show(value) -> str:
    """A cell of the table."""
    return "" if value is None else f"{value:.3g}" if isinstance(value, float) else str(value)


def line(row: dict) -> str:
    """A row of the table."""
    if "error" in row:
        return f"{row['row']:42s} failed: {row['error']}"
    cells = [show(row.get(c)) for c in COLUMNS[1:-1]]
    return f"{row['row']:42s} " + " ".join(f"{c:>10s}" for c in cells) + f"  {row.get('quality_of', '')}"


def compare(old: Path, new: Path) -> None:
    """Print new / old for time, compilation and memory of the rows that both files hold."""
    before, after = ({r["row"]: r for r in json.loads(p.read_text())["rows"]} for p in (old, new))
    print(f"{'new / old':42s} " + " ".join(f"{c:>10s}" for c in ("run_s", "compile_s", "memory_mib", "quality")))
    for name in (n for n in after if n in before):
        pairs = [(after[name].get(c), before[name].get(c)) for c in ("run_s", "compile_s", "memory_mib", "quality")]
        print(f"{name:42s} " + " ".join(f"{a / b:10.2f}" if a is not None and b else f"{'':10s}" for a, b in pairs))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", nargs="*", help="nothing to run, or: compare OLD.json [NEW.json]")
    parser.add_argument("--rows", nargs="+", default=DEFAULT, metavar="PATTERN", help=f"shell patterns, see --list (default {' '.join(DEFAULT)})")
    parser.add_argument("--list", action="store_true", help="name all rows and stop")
    parser.add_argument("--prior", default="silicon", help="shipped name or file (default silicon); '' for random parameters")
    parser.add_argument("--meshgraphnet", metavar="FILE", help="prior with a MeshGraphNet (default: the published size, untrained)")
    parser.add_argument("--seconds", type=float, default=3.0, help="to repeat a step for, the median counts (default 3)")
    parser.add_argument("--steps", type=int, help="of the ladder of an inversion (default: the protocol's)")
    parser.add_argument("--singles", type=int, default=16, help="single replicas that an ensemble is compared with (default 16)")
    parser.add_argument("--torch-steps", type=int, default=512, help="of each of the two stages of PyTorch's inversion (default 512)")
    parser.add_argument("--rmax", type=float, default=8.0, help="A, of the g(r) that guides steps of glassjax (default 8)")
    parser.add_argument("--host", default=platform.node() or "host", help="name of the result file")
    parser.add_argument("--out", type=Path, help="result file (default benchmarks/results/<host>.json)")
    parser.add_argument("--one", choices=ROWS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    out = arguments.out or HERE / "results" / f"{arguments.host}.json"
    if arguments.list:
        print("\n".join(ROWS))
        return 0
    if arguments.one:
        run_one(arguments)
        return 0
    if arguments.command:
        if arguments.command[0] != "compare" or not 2 <= len(arguments.command) <= 3:
            parser.error("needs: compare OLD.json [NEW.json]")
        compare(Path(arguments.command[1]), Path(arguments.command[2]) if len(arguments.command) == 3 else out)
        return 0
    names = [n for n in ROWS if any(fnmatch.fnmatch(n, p) for p in arguments.rows)]
    if not names:
        parser.error(f"no row matches {' '.join(arguments.rows)}; --list names all {len(ROWS)}")
    print(f"{'row':42s} " + " ".join(f"{c:>10s}" for c in COLUMNS[1:-1]))
    out.parent.mkdir(parents=True, exist_ok=True)
    record = dict(host=arguments.host, processor=processor(), cores=os.cpu_count(), python=platform.python_version())
    rows, made = {row["row"]: row for row in json.loads(out.read_text())["rows"]} if out.exists() else {}, []
    for name in names:
        made.append(run_apart(name, arguments))
        print(line(made[-1]), flush=True)
        rows[name] = made[-1]
        out.write_text(json.dumps(record | dict(rows=list(rows.values())), indent=1) + "\n")
    print(f"wrote {out}")
    return 1 if any("error" in r for r in made) else 0


def processor() -> str:
    """Model of the processor."""
    try:
        return next(line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


if __name__ == "__main__":
    sys.exit(main())
