"""Remake the training and target cells of the silicon prior: python benchmarks/silicon_cells.py --out FOLDER (resumable; 110 s a cell and core).

Every cell is a run of `glassjax.melt_quench`: 216 atoms, Tersoff silicon, 5000 K for 20 ps, cooled at 100 K/ps to 3000 K, at 10 K/ps to 1000 K and at
100 K/ps to 300 K; four frames 1 ps apart. ``--rate R`` makes the cells of the published protocol (50 ps at 5000 K, one rate) instead.
``--pack`` writes the two files under benchmarks/data from a folder that holds all cells, ``--subset D`` writes the training cells of one density.
"""

from __future__ import annotations

import argparse
import gzip
import io
import re
from pathlib import Path

from glassjax.melt_quench import Protocol, melt_quench, published

DATA = Path(__file__).parent / "data"
TRAINING = {2.0: (300, 301, 302, 310, 311, 312, 313), 2.3: (200, 201, 210, 211, 212), 2.5: (100, 101, 102, 110, 111, 112, 113)}
TARGETS = {2.0: (910, 911), 2.5: (900, 901), 3.0: (920, 921)}
SNAPSHOTS = 4


def make(folder: Path, protocol: Protocol, jobs) -> None:
    """Run every cell that the folder does not hold yet."""
    for density, seeds in jobs.items():
        for seed in seeds:
            melt_quench(["Si"] * 216, density, out=folder / f"si_{density}_{seed}.extxyz", seed=seed, protocol=protocol)
            print(f"{density} g/cm3, seed {seed}: done", flush=True)


def write_gz(frames, path: Path) -> None:
    """Frames with four decimals as gzipped extended XYZ, the same bytes for the same frames."""
    import ase.io

    text = io.StringIO()
    kept = []
    for frame in frames:
        copy = frame.copy()
        copy.info = {k: v for k, v in frame.info.items() if k in ("seed", "density_g_cm3", "energy_per_atom")}
        kept.append(copy)
    ase.io.write(text, kept, format="extxyz", columns=["symbols", "positions"])
    short = re.sub(r"(-?\d+\.\d{4})\d+(?=\s)", r"\1", text.getvalue())
    lines = [line if line.startswith("Lattice") else " ".join(line.split()) for line in short.split("\n")]
    with gzip.GzipFile(path, "wb", mtime=0) as handle:
        handle.write("\n".join(lines).encode())


def pack(folder: Path) -> None:
    """Write benchmarks/data/silicon_cells.extxyz.gz (all frames and a diamond cell) and silicon_targets.extxyz.gz (first frame of each target)."""
    import ase.build
    import ase.io

    frames = [f for d, seeds in TRAINING.items() for s in seeds for f in ase.io.read(folder / f"si_{d}_{s}.extxyz", ":")]
    write_gz([*frames, ase.build.bulk("Si", "diamond", a=5.432, cubic=True) * (3, 3, 3)], DATA / "silicon_cells.extxyz.gz")
    order = [(d, seeds[i]) for i in range(2) for d, seeds in TARGETS.items()]
    write_gz([ase.io.read(folder / f"si_{d}_{s}.extxyz", "0") for d, s in order], DATA / "silicon_targets.extxyz.gz")


def main() -> None:
    """Parse the command line and run."""
    import ase.io

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="folder of the cells, or the file of --subset")
    parser.add_argument("--rate", type=float, help="K/ps, for the published protocol")
    parser.add_argument("--only", choices=("training", "targets"), help="one half of the cells")
    parser.add_argument("--pack", action="store_true", help="pack the cells in --out into benchmarks/data")
    parser.add_argument("--subset", type=float, metavar="DENSITY", help="write the packed training cells of one density, g/cm3, to --out")
    options = parser.parse_args()
    if options.subset is not None:
        frames = ase.io.read(DATA / "silicon_cells.extxyz.gz", ":")
        ase.io.write(options.out, [f for f in frames if f.info.get("density_g_cm3") == options.subset], format="extxyz")
    elif options.pack:
        pack(options.out)
    else:
        protocol = Protocol(snapshots=SNAPSHOTS) if options.rate is None else published(options.rate)
        for name, jobs in (("training", TRAINING), ("targets", TARGETS)):
            if options.only in (None, name):
                make(options.out, protocol, jobs)


if __name__ == "__main__":
    main()
