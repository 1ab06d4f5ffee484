"""Structures and columns to files: what is written is read back, by this package and by ASE, and nothing is half written."""

import os

import numpy as np
import pytest

from glassjax import io
from glassjax.io import writers

TRICLINIC = [[6.0, 0.3, 0.1], [1.0, 7.0, -0.2], [0.5, 1.5, 8.0]]


def silica(count=4):
    from ase import Atoms

    rng = np.random.default_rng(count)
    return Atoms("SiO2" * count, scaled_positions=rng.random((3 * count, 3)), cell=TRICLINIC, pbc=True)


def distances(atoms):
    return np.sort(atoms.get_all_distances(mic=True), axis=None)


@pytest.mark.parametrize("name", ["a.extxyz", "a.cif", "a.data", "a.lmp", "a.rmc6f"])
def test_round_trip(tmp_path, name):
    """Cell volume, species and every minimum-image distance survive; the cell itself where the format does not turn it."""
    atoms = silica()
    assert io.write_structures(tmp_path / name, atoms) == [tmp_path / name]
    (back,) = (io.to_atoms(s) for s in io.read_structures(tmp_path / name))
    assert sorted(back.get_chemical_symbols()) == sorted(atoms.get_chemical_symbols()) and back.pbc.all()
    np.testing.assert_allclose(back.cell.cellpar(), atoms.cell.cellpar(), rtol=2e-6)
    np.testing.assert_allclose(distances(back), distances(atoms), atol=2e-5)  # Structure holds float32
    assert os.listdir(tmp_path) == [name]


def test_lammps_triclinic_through_ase(tmp_path):
    """ASE's reader, told the types, finds a lower triangular cell and the same geometry to the digits written."""
    from ase.io import read

    atoms = silica()
    io.write_structures(tmp_path / "a.data", atoms)
    text = (tmp_path / "a.data").read_text()
    assert text.startswith("# Si O\n") and "xy xz yz" in text and "Masses" in text and "Atoms # atomic" in text
    back = read(tmp_path / "a.data", format="lammps-data", Z_of_type={1: 14, 2: 8})
    assert back.get_chemical_symbols() == atoms.get_chemical_symbols()
    assert np.allclose(np.triu(back.cell[:], 1), 0)
    np.testing.assert_allclose(back.cell.cellpar(), atoms.cell.cellpar(), rtol=1e-12)
    np.testing.assert_allclose(back.get_all_distances(mic=True), atoms.get_all_distances(mic=True), atol=1e-10)


def test_several_structures(tmp_path):
    silicon = silica(1)[:1]
    frames = [silica(), io.from_atoms(silicon), silica(2)]
    assert io.write_structures(tmp_path / "all.extxyz", frames) == [tmp_path / "all.extxyz"]
    assert [len(s.species) for s in io.read_structures(tmp_path / "all.extxyz")] == [12, 1, 6]
    for suffix in (".cif", ".data", ".rmc6f"):
        names = io.write_structures(tmp_path / f"b{suffix}", frames)
        assert [path.name for path in names] == [f"b_000{i}{suffix}" for i in (1, 2, 3)]
        assert [len(s.species) for s in io.read_structures(names)] == [12, 1, 6]
    assert io.write_structures(tmp_path / "c.txt", silica(), format="extxyz")[0].exists()


def test_rmc6f_text_and_variants(tmp_path):
    atoms = silica()
    path = io.write_structures(tmp_path / "a.rmc6f", atoms)[0]
    back = io.read_rmc6f(path)
    order = np.argsort(atoms.numbers != 14, kind="stable")  # the atoms of one type together
    np.testing.assert_array_equal(back.numbers, atoms.numbers[order])
    np.testing.assert_allclose(back.get_scaled_positions(), atoms.get_scaled_positions()[order], atol=1e-9)
    np.testing.assert_allclose(back.cell[:], atoms.cell[:], atol=1e-9)
    text = path.read_text()
    assert text.startswith("(Version 6f format configuration file)\n") and "Number of each atom type:   4 8" in text
    path.write_text("\r\n".join(line.replace("[1]", "") for line in text.splitlines()))
    np.testing.assert_allclose(io.read_rmc6f(path).positions, back.positions)
    lines = text.splitlines()
    at = lines.index("Lattice vectors (Ang):")
    path.write_text("\n".join(lines[:at] + lines[at + 4 :]))
    np.testing.assert_allclose(io.read_rmc6f(path).cell.cellpar(), atoms.cell.cellpar(), atol=1e-6)


BROKEN = {
    "no atoms": (lambda text: text[: text.index("Atoms (")], "got no atoms or no cell"),
    "truncated": (lambda text: text[: text.rindex("\n", 0, -1)], "got 11 atoms; needs 12"),
    "bad element": (lambda text: text.replace(" Si  [1]", " Qq  [1]", 1), r"line \d+: got .*chemical symbol"),
    "bad coordinate": (lambda text: text.replace("[1]  0.", "[1]  x.", 1), r"line \d+: got coordinates"),
    "bad cell": (lambda text: text.replace("Lattice vectors (Ang):\n", "Lattice vectors (Ang):\nabc\n"), "cell that cannot be read"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_rmc6f(tmp_path, case):
    change, match = BROKEN[case]
    path = io.write_structures(tmp_path / "a.rmc6f", silica())[0]
    path.write_text(change(path.read_text()))
    with pytest.raises(ValueError, match=match):
        io.read_structures(path)


LAMMPS = "{}\n\n2 atoms\n2 atom types\n\n0 5 xlo xhi\n0 5 ylo yhi\n0 5 zlo zhi\n{}\nAtoms # atomic\n\n1 1 0 0 0\n2 2 1.6 0 0\n"


@pytest.mark.parametrize(
    ("first", "masses", "types"),
    [
        ("LAMMPS data file", "\nMasses\n\n1 28.06 # Si\n2 1.0 # O\n", None),
        ("LAMMPS data file", "\nMasses\n\n1 28.06\n2 15.9994\n", None),
        ("# Si O", "", None),
        ("LAMMPS data file", "\nAtom Type Labels\n\n1 Si\n2 O\n", None),
        ("LAMMPS data file", "\nMasses\n\n1 1.0\n2 1.0\n", {1: "Si", 2: "O"}),
    ],
)
def test_lammps_types(tmp_path, first, masses, types):
    path = tmp_path / "a.lmp"
    path.write_text(LAMMPS.format(first, masses))
    (s,) = io.read_structures(path, types=types)
    assert s.elements == ("Si", "O") and list(np.asarray(s.species)) == [0, 1]


def test_lammps_without_elements_is_refused(tmp_path):
    path = tmp_path / "a.data"
    path.write_text(LAMMPS.format("LAMMPS data file", "\nMasses\n\n1 1.0\n2 1.0\n"))
    with pytest.raises(ValueError, match=r'types \[1, 2\] without an element.*pass types=\{1: "Si"'):
        io.read_structures(path)
    with pytest.raises(ValueError, match="needs chemical symbols"):
        io.read_structures(path, types={1: "Si", 2: "Ox"})


def test_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = io.write_structures(tmp_path / "b_0001.rmc6f", silica())[0]
    before = path.read_text()
    real, calls = writers._rmc6f, []

    def fails_second(atoms):
        calls.append(1)
        if len(calls) == 2:
            raise OSError("disk full")
        return real(atoms)

    monkeypatch.setattr(writers, "_rmc6f", fails_second)
    with pytest.raises(OSError, match="disk full"):
        io.write_structures(tmp_path / "b.rmc6f", [silica(2), silica(3)])
    assert os.listdir(tmp_path) == ["b_0001.rmc6f"] and path.read_text() == before


def test_refusals(tmp_path):
    from ase import Atoms

    with pytest.raises(ValueError, match=r"got suffix '.abc'; needs one of .extxyz"):
        io.write_structures(tmp_path / "a.abc", silica())
    with pytest.raises(ValueError, match="got format='pdb'"):
        io.write_structures(tmp_path / "a.cif", silica(), format="pdb")
    with pytest.raises(ValueError, match="got no structure"):
        io.write_structures(tmp_path / "a.cif", [])
    with pytest.raises(ValueError, match="got a str as structure 0"):
        io.write_structures(tmp_path / "a.cif", ["SiO2"])
    with pytest.raises(ValueError, match="structure 0: got no periodic cell"):
        io.write_structures(tmp_path / "a.data", Atoms("Si"))
    assert not os.listdir(tmp_path)


def test_columns_round_trip(tmp_path):
    q = np.linspace(0.5, 20, 40)
    path = io.write_columns(tmp_path / "fit.dat", {"Q(1/A)": q, "S(Q)": 1 + np.sin(q) / q, "fit": np.cos(q)}, header=["S(Q) of a-Si, neutron"])
    assert path.read_text().startswith("# S(Q) of a-Si, neutron\n# Q(1/A)  S(Q)  fit\n")
    measured = io.read_measured(path, columns=(0, 1))
    np.testing.assert_allclose(measured.y, 1 + np.sin(q) / q, rtol=1e-8)
    assert (measured.facts.axis, measured.facts.unit, measured.facts.function) == ("Q", "1/A", "S")


@pytest.mark.parametrize(
    ("columns", "header", "match"),
    [
        ({"r": [1, 2], "g": [1]}, [], "columns of shapes"),
        ({}, [], "columns of shapes"),
        ({"r (A)": [1]}, [], "names without blanks"),
        ({"r": [1]}, "text", "sequence of single lines"),
        ({"r": [1]}, ["a\nb"], "sequence of single lines"),
    ],
)
def test_bad_columns(tmp_path, columns, header, match):
    with pytest.raises(ValueError, match=match):
        io.write_columns(tmp_path / "fit.dat", columns, header=header)
    assert not os.listdir(tmp_path)
