"""What a run needs before it starts: composition, density, starting structures and a folder, each checked with a message that says what to do."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from glassjax.archive import prove_writable
from glassjax.elements import check_density, parse_composition
from glassjax.structure import Structure, heights, random_packing
from glassjax.structure import number_density as density_of
from glassjax.targets import Target

FEWEST_ATOMS = 8
IMAGES = 2.0  # the farthest pair may be this many times the smallest height of the cell
CLOSE_PACKED = 0.74
PACKING_SEEDS = 1000  # replica r starts from random_packing(seed + 1000 r)
DENSITY_TOLERANCE = 0.01


def starting_structures(symbols, number_density, numbers, *, seed, init=None, limits=0.0, scale: float = 1.0) -> list[Structure]:
    """One start per replica number: random packings from seed + 1000 x number, or the frames of ``init``.

    Raises:
      ValueError: impossible packing; or ``init`` has another composition, density (beyond 1 %), cell or number of frames.
    """
    elements = tuple(dict.fromkeys(symbols))
    if init is None:
        loose = {pair: scale * value for pair, value in limits.items()} if isinstance(limits, Mapping) else scale * limits
        options = dict(number_density=number_density, minimum_distance=loose, elements=elements)
        return [random_packing(seed + PACKING_SEEDS * n, symbols, **options) for n in numbers]
    frames = read_init(init, elements)
    if len(frames) not in (1, len(numbers)):
        raise ValueError(f"got {len(frames)} frames in init for {len(numbers)} replicas; needs one for all or one each; change --replicas")
    for index, frame in enumerate(frames):
        if sorted(frame.symbols) != sorted(symbols):
            raise ValueError(
                f"got frame {index} of init with {_count(frame.symbols)}; needs {_count(symbols)}; change the composition, the atoms or the file"
            )
        found = float(density_of(frame))
        if abs(found / number_density - 1) > DENSITY_TOLERANCE:
            raise ValueError(
                f"got frame {index} of init at {found:.5g} atoms/A^3; needs the density that was asked for, {number_density:.5g}, within 1 %; "
                "leave composition, atoms and density out to take the file's, or rescale the cell"
            )
        if not np.allclose(frame.cell, frames[0].cell, atol=1e-4):
            raise ValueError(f"got frame {index} of init with another cell than frame 0; needs one cell for all; run them one by one")
    return frames * len(numbers) if len(frames) == 1 else frames


def check_target(target: Target, structure: Structure) -> None:
    """Raise ``ValueError`` if the target is of other elements, or reaches farther than twice the smallest height of the cell."""
    if target.observable.elements != structure.elements:
        raise ValueError(
            f"target {target.name} is for {', '.join(target.observable.elements)}; needs {', '.join(structure.elements)} in this order; "
            "build it with the composition of the structure"
        )
    check_reach(target.observable.rmax, structure, f"target {target.name}")


def check_reach(rmax: float, structure: Structure, what: str) -> None:
    """Raise ``ValueError`` if ``what`` counts pairs farther apart (``rmax``, A) than periodic images of this cell can serve."""
    height = float(heights(structure.cell).min())
    if rmax > IMAGES * height:
        atoms = len(structure.species) * (rmax / (IMAGES * height)) ** 3
        raise ValueError(
            f"{what} counts pairs out to {rmax:.1f} A; needs at most {IMAGES * height:.1f} A, twice the smallest height of the cell: "
            f"lower --rmax, or take at least {math.ceil(atoms)} atoms"
        )


def prepare_folder(out, *, resume: bool) -> Path:
    """Make the output folder and prove that it can be written.

    Raises:
      ValueError: it holds results or a checkpoint and ``resume`` is not asked for, or it is a file.
      PermissionError: it cannot be written.
    """
    folder = Path(out)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"got {folder} as --out, which is a file; needs a folder; name another one")
    if not resume and any((folder / name).exists() for name in ("run.json", "ensemble.extxyz", "checkpoint")):
        raise ValueError(f"{folder} already holds a run; needs a new folder: pass --resume to continue that run, or another --out")
    try:
        prove_writable(folder)
    except OSError as error:
        raise PermissionError(f"cannot write to {folder} ({error.strerror}); needs a writable folder; pass another --out") from error
    return folder


def replica_numbers(replicas) -> list[int]:
    """Replica numbers from their count or a list; raises ``ValueError`` for none, negative or repeated ones."""
    numbers = list(range(replicas)) if isinstance(replicas, int) else [int(r) for r in replicas]
    if not numbers or min(numbers) < 0 or len(set(numbers)) < len(numbers):
        raise ValueError(f"got replicas = {replicas}; needs at least 1, or distinct numbers from 0")
    return numbers


def choose_symbols(composition, atoms, symbols, init) -> list[str]:
    """Chemical symbol per atom from a formula and a number, from symbols, or from ``init``; raises ``ValueError`` if they clash or are too few."""
    if symbols is not None and (composition is not None or atoms is not None):
        raise ValueError("got symbols together with composition or atoms; needs one or the other; leave one out")
    if symbols is None and composition is None and init is not None:
        symbols = read_init(init, None)[0].symbols
        if atoms is not None and atoms != len(symbols):
            raise ValueError(f"got atoms = {atoms} and an init of {len(symbols)}; needs one number; leave --atoms out")
    if symbols is None:
        if composition is None or atoms is None:
            raise ValueError("got no composition or no number of atoms; needs both; pass --composition and --atoms")
        symbols = parse_composition(composition, atoms)
    if len(symbols) < FEWEST_ATOMS:
        raise ValueError(f"got {len(symbols)} atoms; needs at least {FEWEST_ATOMS} for a periodic cell with neighbours; raise --atoms")
    return list(symbols)


def choose_density(symbols, number_density, density, init) -> float:
    """Atoms per A^3 from one of the two densities, or from ``init``; raises ``ValueError`` as `check_density`."""
    if number_density is None and density is None and init is not None:
        return float(density_of(read_init(init, None)[0]))
    return check_density(symbols, number_density, mass_density=density)


def read_init(init, elements) -> list[Structure]:
    """Frames of ``init``: a file, one structure or several."""
    from glassjax.io.atoms import read_structures

    if isinstance(init, Structure):
        return [init]
    return read_structures(init, elements) if isinstance(init, str | Path) else list(init)


def _count(symbols) -> str:
    return " ".join(f"{symbols.count(e)} {e}" for e in sorted(set(symbols)))


def check_packing(symbols, number_density, limits) -> None:
    """Raise ``ValueError`` if spheres of the minimum distance fill more of the cell than the densest packing."""
    spheres = sum(math.pi / 6 * limits[s, s] ** 3 for s in symbols) / len(symbols)
    if number_density * spheres > CLOSE_PACKED:
        raise ValueError(
            f"spheres of the minimum distance would fill {number_density * spheres:.0%} of the cell; needs less than {CLOSE_PACKED:.0%}, "
            "the densest packing: lower the density or the minimum distance"
        )
