import hashlib
import os
from pathlib import Path

import numpy as np
import pytest

from glassjax import io

R = np.arange(1, 1001) * 0.01
DENSITY = 0.05


def shells(r):
    """g(r) of an amorphous solid: three Gaussian shells on a background that switches on at 5 A."""
    g = 1 / (1 + np.exp(-(r - 5.0) / 0.15))
    for distance, count, width in ((2.35, 4, 0.1), (3.8, 12, 0.3), (4.6, 8, 0.3)):
        peak = np.exp(-0.5 * ((r - distance) / width) ** 2) / (width * np.sqrt(2 * np.pi))
        g = g + count * peak / (4 * np.pi * DENSITY * r**2)
    return g


def big_g(r):
    return 4 * np.pi * DENSITY * r * (shells(r) - 1)


def structure_factor(q):
    return 1 + 1.2 * np.exp(-q / 6) * np.sin(2.35 * q) / (1 + 0.1 * q) - np.exp(-((q / 1.5) ** 2))


def write(tmp_path, text, name="curve.dat", encoding="utf-8"):
    path = tmp_path / name
    path.write_bytes(text.encode(encoding))
    return path


def curve(tmp_path, x, y, header="", name="curve.dat"):
    return io.read_measured(write(tmp_path, header + "".join(f"{a:.6g} {b:.8g}\n" for a, b in zip(x, y, strict=True)), name))


def data(relative):
    root = Path(os.environ.get("GLASSJAX_DATA", Path(__file__).resolve().parents[1] / ".." / "shared" / "data"))
    if not (root / relative).exists():
        pytest.skip(f"no {relative} under {root}; set GLASSJAX_DATA")
    return root / relative


ROWS2 = "0.1 1.0\n0.2 2.0\n0.3 3.0\n0.4 4.0\n0.5 5.0\n"
ROWS3 = "0.1 1.0 .1\n0.2 2.0 .2\n0.3 3.0 .3\n0.4 4.0 .4\n0.5 5.0 .5\n"
ROWS4 = "0.1 1.0 0 .1\n0.2 2.0 0 .2\n0.3 3.0 0 .3\n0.4 4.0 0 .4\n0.5 5.0 0 .5\n"
X3 = (
    "[DEFAULT]\n\nversion = pdfgetx3-2.1.1\n\n# input and output specifications\ndataformat = QA\ninputfile = run_12.chi\n"
    "[PDF]\nmode = xray\nwavelength = 0.1\nqmax = 24.0 1.0\n\n#### start data\n\n#S 1\n#L r($\\AA$)  G($\\AA^{-2}$)\n"
)
LAYOUTS = {
    "bare": (ROWS2, None),
    "three columns": (ROWS3, 0.1),
    "named columns": ("# r g(r)\n" + ROWS2, None),
    "csv with words": ("r,g,error\n" + ROWS3.replace(" ", ","), 0.1),
    "comma and blank": (ROWS3.replace(" ", ", "), 0.1),
    "semicolons": (ROWS3.replace(" ", ";"), 0.1),
    "tabs": ("\tr\tg\n" + ROWS2.replace(" ", "\t"), None),
    "leading blanks, blank lines": ("\n\n  " + ROWS2.replace("\n", "\n\n   "), None),
    "windows": (ROWS3.replace("\n", "\r\n"), 0.1),
    "old mac": (ROWS3.replace("\n", "\r"), 0.1),
    "no last line end": (ROWS3.rstrip(), 0.1),
    "byte order mark": ("\ufeff" + ROWS3, 0.1),
    "fortran": (ROWS2.replace(".0\n", ".0D+00\n"), None),
    "fortran without letter": (ROWS2.replace(".0\n", ".0+000\n"), None),
    "pdfgetx3": (X3 + ROWS2, None),
    "pdfgetx2": ("##### General_Setting\ntitle=1 user=x\n#L r(A) G(r) d_r d_Gr\n" + ROWS4, 0.1),
    "pdfgetn": ("##### start data\n#O0 rmin rmax\n#S 1 - PDF from PDFgetN\n#L r G(r) dr dG(r)\n" + ROWS4, 0.1),
    "pdfgetn without errors": ("##### start data\n#L r G(r) dr dG(r)\n" + ROWS2.replace("\n", " 0 0\n"), None),
    "all-zero errors": (ROWS2.replace("\n", " 0.0\n"), None),
    "mantid count": ("# 5000\n# Comment: neutron, Qmax=31.414, Qdamp=0.017659\n" + ROWS2, None),
    "rmcprofile": ("5\nSi glass, S(Q) at 300 K\n" + ROWS3, 0.1),
    "rmcprofile, blank title": ("          5\n\n" + ROWS3, 0.1),
    "fit2d": ("run 12\n2-Theta Angle (Degrees)\nIntensity\n      5\n" + ROWS2, None),
    "comment marks": ("# a\n! b\n; c\n' d\n% e\n" + ROWS2, None),
    "trailing comments": (ROWS2.replace("\n", " # note 1\n"), None),
    "comment inside": (ROWS2.replace("0.3", "# gap 1 2\n0.3"), None),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(tmp_path, layout):
    text, first = LAYOUTS[layout]
    path = write(tmp_path, text)
    measured = io.read_measured(path)
    np.testing.assert_allclose(measured.x, [0.1, 0.2, 0.3, 0.4, 0.5])
    np.testing.assert_allclose(measured.y, [1, 2, 3, 4, 5])
    if first is None:
        assert measured.uncertainty is None
    else:
        np.testing.assert_allclose(measured.uncertainty, [0.1, 0.2, 0.3, 0.4, 0.5])
    assert measured.path == path and measured.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_header_and_latin1(tmp_path):
    measured = io.read_measured(write(tmp_path, "# r (Å), Grenoble é\n" + ROWS2, encoding="latin-1"))
    assert measured.header == "# r (Å), Grenoble é"
    header = io.read_measured(write(tmp_path, X3 + ROWS2)).header
    assert "qmax = 24.0" in header and "#L r" in header


def test_measured_is_frozen(tmp_path):
    with pytest.raises(AttributeError):
        io.read_measured(write(tmp_path, ROWS2)).x = 1


BROKEN = {
    "empty": ("", "empty file"),
    "blank": (" \n\n", "empty file"),
    "words only": ("nothing\nhere\n", "no line of numbers"),
    "comments only": ("# 1 2\n# 3 4\n", "no line of numbers"),
    "binary": ("\0\1\2", "binary"),
    "one column": ("# g\n1\n2\n3\n4\n5\n", r"line 2: got one column"),
    "word in the data": (ROWS2.replace("3.0", "abc"), r"line 3: got '0.3 abc'; needs numbers from line 1"),
    "word after the first row": ("0.0 0.0\nbroken\n" + ROWS2, r"line 2: got 'broken'"),
    "overflowed fortran": (ROWS2.replace("3.0", "*****"), r"line 3: got"),
    "missing value": (ROWS3.replace(".3\n", "\n", 1), r"line 3: got 2 columns; needs 3"),
    "decimal commas": (ROWS2.replace(".", ","), r"line 1: got decimal commas"),
    "unsorted": ("# r g\n" + ROWS2.replace("0.3", "0.7"), r"line 5: got x = 0.4 after 0.7; needs x in increasing order"),
    "descending": ("\n".join(reversed(ROWS2.splitlines())), r"increasing order"),
    "repeated": (ROWS2.replace("0.3", "0.2"), r"line 3: got x = 0.2 again \(1 repeats\).*repeated=\"mean\""),
    "nan y": (ROWS2.replace("3.0", "nan"), r"line 3: got NaN or infinity"),
    "nan x": (ROWS2.replace("0.3", "NaN"), r"line 3: got NaN or infinity"),
    "infinity": (ROWS2.replace("3.0", "-inf"), r"line 3: got NaN or infinity"),
    "negative uncertainty": (ROWS3.replace(".3\n", "-.3\n"), r"line 3: got a negative uncertainty, -0.3"),
    "few points": ("0.1 1\n0.2 2\n0.3 3\n0.4 4\n", "got 4 points; needs at least 5"),
    "five columns": (ROWS2.replace("\n", " 1 2 3\n"), r"got 5 columns; needs x, y.*columns="),
    "four curves": ("# r gOO gOH gHH\n" + ROWS4, r"got 4 columns \(r, gOO, gOH, gHH\)"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_files(tmp_path, case):
    text, match = BROKEN[case]
    path = write(tmp_path, text)
    with pytest.raises(ValueError, match=match) as error:
        io.read_measured(path)
    assert str(path) in str(error.value)


def test_missing_file_and_directory(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file"):
        io.read_measured(tmp_path / "absent.dat")
    with pytest.raises(ValueError, match="got a directory"):
        io.read_measured(tmp_path)


def test_columns(tmp_path):
    path = write(tmp_path, "# r gOO gOH gHH\n" + ROWS4)
    np.testing.assert_allclose(io.read_measured(path, columns=(0, 3)).y, [0.1, 0.2, 0.3, 0.4, 0.5])
    assert io.read_measured(path, columns=(0, 1)).uncertainty is None
    for columns in ((0,), (0, 4), (0, 1, 2, 3), (0, -1)):
        with pytest.raises(ValueError, match="got columns"):
            io.read_measured(path, columns=columns)


def test_repeated_points_are_averaged_on_request(tmp_path):
    path = write(tmp_path, "0 1 .3\n1 2 .3\n1 4 .4\n2 5 .1\n3 6 .1\n4 7 .1\n")
    measured = io.read_measured(path, repeated="mean")
    np.testing.assert_allclose(measured.x, [0, 1, 2, 3, 4])
    np.testing.assert_allclose(measured.y, [1, 3, 5, 6, 7])
    np.testing.assert_allclose(measured.uncertainty, [0.3, 0.25, 0.1, 0.1, 0.1])
    with pytest.raises(ValueError, match="got repeated"):
        io.read_measured(path, repeated="yes")


WINDOWS = [(0.0, 10.0), (2.0, 8.0), (0.0, 8.0), (1.0, 5.0), (2.0, 6.0)]


@pytest.mark.parametrize(("low", "high"), WINDOWS)
@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_true_functions_pass(tmp_path, low, high, noise):
    r = R[(low <= R) & (high >= R)]
    error = noise * np.random.default_rng(0).normal(size=r.size)
    io.check_function(curve(tmp_path, r, shells(r) + error), "g")
    io.check_function(curve(tmp_path, r, big_g(r) + 3 * error), "G")
    io.check_function(curve(tmp_path, r, big_g(r) + 3 * error), "G", DENSITY)
    q = np.arange(0.5, 2 * high, 0.05)
    io.check_function(curve(tmp_path, q, structure_factor(q) + noise * np.sin(37 * q)), "S")


@pytest.mark.parametrize(("low", "high"), WINDOWS)
def test_swapped_functions_are_refused(tmp_path, low, high):
    r = R[(low <= R) & (high >= R)]
    with pytest.raises(ValueError, match=r"looks like G\(r\).*oscillates about 0.*--function G"):
        io.check_function(curve(tmp_path, r, big_g(r)), "g")
    with pytest.raises(ValueError, match=r"looks like g\(r\).*--function g"):
        io.check_function(curve(tmp_path, r, shells(r)), "G")


def test_neighbouring_functions_are_refused(tmp_path):
    rdf = 4 * np.pi * DENSITY * R**2 * shells(R)
    for claim in ("g", "G"):
        with pytest.raises(ValueError, match=r"looks like .*T\(r\)"):
            io.check_function(curve(tmp_path, R, rdf), claim)
        with pytest.raises(ValueError, match=r"looks like|constant level"):
            io.check_function(curve(tmp_path, R, shells(R) - 1), claim)
    q = np.arange(0.5, 20, 0.05)
    for wrong in (structure_factor(q) - 1, q * (structure_factor(q) - 1), 0.27 * (structure_factor(q) - 1)):
        with pytest.raises(ValueError, match=r"level of .* at large Q.*looks like S\(Q\) - 1"):
            io.check_function(curve(tmp_path, q, wrong), "S")
    with pytest.raises(ValueError, match="normalise it"):
        io.check_function(curve(tmp_path, q, 200 * structure_factor(q)), "S")


def test_slope_of_g_checks_the_density(tmp_path):
    measured = curve(tmp_path, R, big_g(R))
    io.check_function(measured, "G", 1.5 * DENSITY)
    for wrong in (3 * DENSITY, DENSITY / 3):
        with pytest.raises(ValueError, match=r"slope of -0.62.*the slope says 0.049|the slope says 0.05"):
            io.check_function(measured, "G", wrong)
    beyond = curve(tmp_path, R[R > 2], big_g(R[R > 2]))
    io.check_function(beyond, "G", 3 * DENSITY)


def test_axis_label_contradicts(tmp_path):
    q = np.arange(0.5, 20, 0.05)
    with pytest.raises(ValueError, match="calls the first column Q.*--function S"):
        io.check_function(curve(tmp_path, q, structure_factor(q), "# Q(1/A)  S(Q) experiment\n"), "g")
    with pytest.raises(ValueError, match="calls the first column r"):
        io.check_function(curve(tmp_path, R, shells(R), X3), "S")
    io.check_function(curve(tmp_path, R, big_g(R), "# Q range 0.5 to 24\n"), "G")
    io.check_function(curve(tmp_path, R, big_g(R), X3), "G")
    with pytest.raises(ValueError, match="got function 'F'"):
        io.check_function(curve(tmp_path, R, shells(R)), "F")


def test_amorphous_silicon_experiment():
    path = data("silicon/laaziri1999_sq.dat")
    with pytest.raises(ValueError, match='repeated="mean"'):
        io.read_measured(path)
    measured = io.read_measured(path, repeated="mean")
    assert len(measured.x) == 301 and measured.uncertainty is None
    io.check_function(measured, "S")
    with pytest.raises(ValueError, match="--function S"):
        io.check_function(measured, "g")


def test_noisy_transform_of_experiment(tmp_path):
    """g(r) and G(r) by a plain transform of the a-Si data, termination ripples and all, pass as themselves and not as each other."""
    measured = io.read_measured(data("silicon/laaziri1999_sq.dat"), repeated="mean")
    for rmin, rmax in ((0.02, 12.0), (2.0, 8.0), (0.02, 30.0)):
        r = np.arange(rmin, rmax, 0.02)
        kernel = measured.x * (measured.y - 1) * np.sin(r[:, None] * measured.x)
        transform = 2 / np.pi * np.trapezoid(kernel, measured.x, axis=1)
        g = 1 + transform / (4 * np.pi * 0.0489 * r)
        io.check_function(curve(tmp_path, r, transform), "G", 0.0489)
        io.check_function(curve(tmp_path, r, g), "g")
        with pytest.raises(ValueError, match="--function G"):
            io.check_function(curve(tmp_path, r, transform), "g")
        with pytest.raises(ValueError, match="--function g"):
            io.check_function(curve(tmp_path, r, g), "G")


@pytest.mark.parametrize("columns", [(0, 1, 2), (0, 3, 4), (0, 5, 6)])
def test_water_pair_distributions(tmp_path, columns):
    path = data("water/soper2013_water_gr.txt")
    with pytest.raises(ValueError, match="got 7 columns"):
        io.read_measured(path)
    measured = io.read_measured(path, columns=columns)
    io.check_function(measured, "g")
    with pytest.raises(ValueError, match="--function g"):
        io.check_function(measured, "G")
    keep = (measured.x >= 2) & (measured.x <= 8)
    io.check_function(curve(tmp_path, measured.x[keep], measured.y[keep]), "g")


@pytest.mark.parametrize("name", ["silica/sio2_nimrod_fq.mint01", "water/SLS18498-H2O.mint01", "water/SLS18502-D2O.mint01"])
def test_gudrun_interference_function_is_not_s(name):
    measured = io.read_measured(data(name))
    assert measured.uncertainty is not None and len(measured.x) > 990
    with pytest.raises(ValueError, match=r"Keen's F\(Q\).*S = 1 \+ F/<b>\^2"):
        io.check_function(measured, "S")


def silica(pbc=True, cell=(5.0, 6.0, 7.0)):
    from ase import Atoms

    return Atoms("SiO2", positions=[[0, 0, 0], [1.6, 0, 0], [0, 1.6, 0]], cell=cell, pbc=pbc)


def test_atoms_round_trip():
    atoms = silica(cell=[[5, 0, 0], [1, 6, 0], [0.5, 1, 7]])
    s = io.from_atoms(atoms)
    assert s.elements == ("Si", "O") and list(np.asarray(s.species)) == [0, 1, 1]
    back = io.to_atoms(s, info={"seed": 3})
    assert back.get_chemical_symbols() == ["Si", "O", "O"] and back.pbc.all() and back.info == {"seed": 3}
    np.testing.assert_allclose(back.positions, atoms.positions, atol=1e-6)
    np.testing.assert_allclose(back.cell[:], atoms.cell[:], atol=1e-6)
    assert io.from_atoms(atoms, elements=("O", "Si")).elements == ("O", "Si")
    assert io.to_atoms(s).info == {}


def test_empty_slots_are_left_out():
    from dataclasses import replace

    s = io.from_atoms(silica())
    padded = replace(s, species=np.array([0, -1, 1], dtype=np.int32))
    assert io.to_atoms(padded).get_chemical_symbols() == ["Si", "O"]
    with pytest.raises(ValueError, match="got a batch"):
        io.to_atoms(replace(s, species=np.zeros((2, 3), dtype=np.int32)))


def test_bad_atoms():
    from ase import Atoms

    with pytest.raises(ValueError, match="periodicity"):
        io.from_atoms(silica(pbc=(True, True, False)))
    with pytest.raises(ValueError, match="volume"):
        io.from_atoms(silica(cell=(5, 5, 0)))
    with pytest.raises(ValueError, match="got element O; needs elements among Si"):
        io.from_atoms(silica(), elements=("Si",))
    with pytest.raises(ValueError, match="no atoms"):
        io.from_atoms(Atoms(cell=(5, 5, 5), pbc=True))
    with pytest.raises(ValueError, match="without an element"):
        io.from_atoms(Atoms("X", cell=(5, 5, 5), pbc=True))
    atoms = silica()
    atoms.positions[1, 1] = np.nan
    with pytest.raises(ValueError, match="positions"):
        io.from_atoms(atoms)


def test_read_structures(tmp_path):
    from ase.io import write as ase_write

    oxide, silicon = silica(), silica()[:1]
    ase_write(tmp_path / "a.extxyz", [silicon, oxide])
    ase_write(tmp_path / "b.vasp", oxide)
    frames = io.read_structures([tmp_path / "a.extxyz", str(tmp_path / "b.vasp")])
    assert [len(f.species) for f in frames] == [1, 3, 3] and {f.elements for f in frames} == {("Si", "O")}
    assert len(io.read_structures(tmp_path / "a.extxyz")) == 2
    with pytest.raises(ValueError, match=r"a.extxyz, frame 1: got element O"):
        io.read_structures(tmp_path / "a.extxyz", elements=("Si",))


def test_read_structures_errors(tmp_path):
    from ase.io import write as ase_write

    with pytest.raises(FileNotFoundError, match="no such file"):
        io.read_structures(tmp_path / "absent.extxyz")
    with pytest.raises(ValueError, match="directory"):
        io.read_structures(tmp_path)
    with pytest.raises(ValueError, match="no file"):
        io.read_structures([])
    with pytest.raises(ValueError, match="ASE cannot read"):
        io.read_structures(write(tmp_path, "not a structure\n", "bad.extxyz"))
    with pytest.raises(ValueError, match="ASE cannot read|no frame"):
        io.read_structures(write(tmp_path, "", "empty.extxyz"))
    ase_write(tmp_path / "molecule.xyz", silica(pbc=False, cell=None))
    with pytest.raises(ValueError, match="molecule.xyz, frame 0: got a cell with periodicity"):
        io.read_structures(tmp_path / "molecule.xyz")
