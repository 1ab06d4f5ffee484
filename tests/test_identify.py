"""Headers of each layout, what reading does to the numbers, and which function a file is found to hold."""

from functools import cache

import numpy as np
import pytest

from glassjax import elements, io
from glassjax.io.identify import neutron_squares

DENSITY = 0.05
SQUARE = 0.2758  # <b>^2 of SiO2 in barn
R = np.arange(1, 1501) * 0.01
Q = np.arange(1, 501) * 0.05


@cache
def shells():
    """g(r) on R: three Gaussian shells on a background that switches on at 5 A."""
    g = 1 / (1 + np.exp(-(R - 5.0) / 0.15))
    for distance, count, width in ((2.35, 4, 0.1), (3.8, 12, 0.3), (4.6, 8, 0.3)):
        g = g + count * np.exp(-0.5 * ((R - distance) / width) ** 2) / (width * np.sqrt(2 * np.pi)) / (4 * np.pi * DENSITY * R**2)
    return g


@cache
def hard_spheres():
    """S(Q) on Q of the Percus-Yevick hard-sphere fluid, 2.5 A across (Wertheim 1963): g = 0 inside, so the sum rule holds exactly."""
    eta = np.pi / 6 * DENSITY * 2.5**3
    alpha, beta = (1 + 2 * eta) ** 2 / (1 - eta) ** 4, -6 * eta * (1 + eta / 2) ** 2 / (1 - eta) ** 4
    s = np.linspace(0, 1, 2001)
    inside = -(s**2) * np.sinc(s * Q[:, None] * 2.5 / np.pi) * (alpha + beta * s + eta * alpha / 2 * s**3)
    return 1 / (1 - DENSITY * 4 * np.pi * 2.5**3 * np.trapezoid(inside, s, axis=1))


def functions():
    """{function: (x, y)} of one solid in r and one fluid in Q."""
    line = 4 * np.pi * DENSITY * R
    g, s = shells(), hard_spheres()
    real = {"g": g, "G": line * (g - 1), "G_keen": SQUARE * (g - 1), "D": SQUARE * line * (g - 1), "T": SQUARE * line * g, "RDF": line * R * g}
    wave = {"S": s, "F_keen": SQUARE * (s - 1), "Q(S-1)": Q * (s - 1), "I": 40 * s + 300 * np.exp(-((Q / 6) ** 2))}
    return {name: (R, y) for name, y in real.items()} | {name: (Q, y) for name, y in wave.items()}


def rows(x, y, *more):
    return "".join(" ".join(f"{value:.7g}" for value in row) + "\n" for row in zip(x, y, *more, strict=True))


def write(tmp_path, text, name="curve.dat", encoding="utf-8"):
    path = tmp_path / name
    path.write_bytes(text.encode(encoding))
    return path


DATA = "0.5 1 .1\n1.0 2 .1\n1.5 3 .1\n2.0 4 .1\n2.5 5 .1\n"
DATA2, DATA4 = DATA.replace(" .1\n", "\n"), DATA.replace(" .1", " 0 .1")
GUDRUN = "# NIMROD1.mint01\n# SiO2\n#  1  6\n#  10\n#\n#\n# spec.bad\n# groups\n# 6\n# -1\n# 20.0\n" + "# 0.0 1.5 0.0\n" * 3
X3 = "# xPDFsuite Configuration #\n[PDF]\nmode = {}\nwavelength = 0.1\ncomposition = SiO2\nqmaxinst = 26\nqmax = 24.0\nqmin = 0.5\n"
X3 += "rpoly = 0.9\noutputtype = {}\n#### start data\n#S 1\n{}\n"
FQ = r"#L Q($\AA^{-1}$)  F($\AA^{-1}$)"
GR = r"#L r($\AA$)  G($\AA^{-2}$)"
X2 = "##### General_Setting\ntitle=1 user=x\n#### Sample\ncomposition=Si O2 Qmax=20.5 Qmin=0.3 wavelength=0.2\n#L r(A) G(r) d_r d_Gr\n"
MANTID = "# 5\n# Comment: neutron, Qmax=31.414, Qdamp=0.017659, Qbroad= 0.0191822\n"
FIT2D = "run 12\n{}\nIntensity\n      5\n"
HEADERS = {
    "xray gr": (X3.format("xray", "gr", GR) + DATA2, "a.gr", dict(layout="pdfgetx3", function="G", axis="r", unit="A", radiation="xray", qmax=24.0)),
    "fq": (X3.format("neutron", "fq", FQ) + DATA2, "a.fq", dict(function="Q(S-1)", axis="Q", unit="1/A", radiation="neutron", rpoly=0.9, qmin=0.5)),
    "sq": (X3.format("xray", "sq", "#L Q S") + DATA2, "a.sq", dict(function="S", composition="SiO2", wavelength=0.1, qdamp=None)),
    "outputtype": (X3.format("xray", "iq", "") + DATA2, "a.iq", dict(function="I", axis="Q")),
    "pdfgetx2": (X2 + DATA4, "a.gr", dict(layout="pdfgetx2", function="G", qmax=20.5, qmin=0.3, composition="Si O2", wavelength=0.2, error_column=3)),
    "pdfgetn": (
        "##### start data\n#O0 rmin\n#S 1 - PDF from PDFgetN\n#L r G(r) dr dG(r)\n" + DATA4,
        "a",
        dict(layout="pdfgetn", radiation="neutron"),
    ),
    "mantid": (MANTID + DATA2, "a.gr", dict(layout="mantid", count=5, qmax=31.414, qdamp=0.017659, qbroad=0.0191822, radiation="neutron", axis="r")),
    "gudrun": (GUDRUN + DATA, "a.mint01", dict(layout="gudrun", function="F_keen", left_edges=True, axis="Q", unit="1/A", error_column=2)),
    "renamed gudrun": (GUDRUN + DATA, "a.dat", dict(layout="gudrun", function=None, left_edges=True)),
    "rmcprofile": ("5\nsilica, F(Q)\n" + DATA, "a.dat", dict(layout="rmcprofile", function="F_keen", axis="Q", count=5, skip=2)),
    "stog, blank title": ("  5\n\n" + DATA2, "a.dat", dict(layout="rmcprofile", function=None, count=5)),
    "title of numbers": ("5\n300 1.5 .2\n" + DATA, "a.dat", dict(layout="rmcprofile", count=5, skip=2)),
    "no title": ("5\n" + DATA, "a.dat", dict(count=5, skip=1)),
    "pystog": ("5\n# Q S(Q) err\n" + DATA, "a.dat", dict(layout="pystog", function="S", axis="Q")),
    "pystog keen": ("5\n# r GK(r)\n" + DATA2, "a.dat", dict(layout="pystog", function="G_keen", axis="r")),
    "xye": (DATA, "a.xye", dict(layout="xye", function="I", axis=None, error_column=2)),
    "xye label": ("# 2theta I sigma\n" + DATA, "a.xye", dict(axis="2theta", unit="deg", function="I")),
    "fit2d": (FIT2D.format("2-Theta Angle (Degrees)") + DATA2, "a.chi", dict(layout="fit2d", axis="2theta", function="I", count=5, skip=4)),
    "fit2d nm": (FIT2D.format("Q (nm^-1)") + DATA2, "a.chi", dict(axis="Q", unit="1/nm")),
    "chi_Q": ("# chi_Q chi_I\n" + DATA2, "a.chi", dict(layout="fit2d", axis="Q", function="I")),
    "pyfai": ("# --> q_nm^-1  I  sigma\n" + DATA, "a.dat", dict(axis="Q", unit="1/nm", function="I")),
    "named": ("# r g(r)\n" + DATA2, "a.dat", dict(layout="columns", axis="r", function="g", radiation=None)),
    "nm": ("r (nm), G(r) (nm^-2)\n" + DATA2, "a.csv", dict(axis="r", unit="nm", function="G", y_unit="nm")),
    "ambiguous F": ("# Q(1/A) F(Q)\n" + DATA2, "a.dat", dict(axis="Q", unit="1/A", function=None)),
    "S-1": ("# Q S(Q)-1\n" + DATA2, "a.dat", dict(axis="Q", function=None)),
    "Q[S-1]": ("# Q  Q[S(Q)-1]\n" + DATA2, "a.dat", dict(axis="Q", function="Q(S-1)")),
}


@pytest.mark.parametrize("case", HEADERS)
def test_headers(tmp_path, case):
    """Each layout's header is understood, and the same five points are read from under it (half a bin on for Gudrun)."""
    text, name, expected = HEADERS[case]
    facts = io.read_header(text, name)
    assert {key: getattr(facts, key) for key in expected} == expected
    measured = io.read_measured(write(tmp_path, text, name))
    assert measured.facts == facts
    np.testing.assert_allclose(measured.y if facts.unit != "nm" else 100 * measured.y, [1, 2, 3, 4, 5])
    scale = {"nm": 10, "1/nm": 0.1}.get(facts.unit, 1)
    np.testing.assert_allclose(measured.x, scale * (np.arange(1, 6) * 0.5 + 0.25 * facts.left_edges))


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16", "utf-8-sig"])
def test_encodings_line_ends_and_exponents(tmp_path, encoding):
    text = ("# r(Å)\tG(r)\n" + DATA.replace(" ", ",\t").replace("\t.1", "1.0D-01")).replace("\n", "\r\n")
    measured = io.read_measured(write(tmp_path, text, encoding=encoding))
    np.testing.assert_allclose(measured.uncertainty, 0.1)
    assert (measured.facts.axis, measured.facts.unit, measured.facts.function) == ("r", "A", "G")


def test_what_reading_does_is_noted(tmp_path):
    body = "0.0 0 0\n" + DATA + "3.0 0 0\n"
    measured = io.read_measured(write(tmp_path, GUDRUN + body, "a.int01"))
    np.testing.assert_allclose(measured.x, [0.75, 1.25, 1.75, 2.25, 2.75])
    assert [note.split(":")[0] for note in measured.notes] == [
        "half a bin added",
        "1 leading rows of zeros dropped",
        "1 trailing rows of zeros dropped",
    ]
    plain = io.read_measured(write(tmp_path, GUDRUN + body, "a.int01"), layout="columns")
    np.testing.assert_allclose(plain.x, np.arange(7) * 0.5)
    assert plain.notes == ("2 of 7 errors are zero: kept as 0",) and plain.uncertainty[0] == 0
    empty = io.read_measured(write(tmp_path, DATA.replace(".1", "0")))
    assert empty.uncertainty is None and empty.notes == ("error column is all zero: absent",)
    assert io.read_measured(write(tmp_path, "# 9\n" + DATA)).notes == ("the header says 9 points, the file holds 5",)
    with pytest.raises(ValueError, match=r"got 3 columns \(r, gOO, gOH\).*say which"):
        io.read_measured(write(tmp_path, "# r gOO gOH\n" + DATA))
    with pytest.raises(ValueError, match="got layout='gudrum'; needs one of pdfgetx3"):
        io.read_measured(write(tmp_path, DATA), layout="gudrum")


@pytest.mark.parametrize("head", ["7\ntitle\n", "7\n# Q S(Q)\n", "7\n\n", FIT2D.format("Q").replace("5", "7"), "4\n300 1.5 .2\n"])
def test_count_that_disagrees(tmp_path, head):
    with pytest.raises(ValueError, match=r"got [56] lines of data under a header that says [74] .*restore the missing lines or correct the count"):
        io.read_measured(write(tmp_path, head + DATA))


@pytest.mark.parametrize(("true", "claim"), [(a, b) for a, (x, _) in functions().items() for b, (z, _) in functions().items() if x is z])
def test_each_function_against_each(tmp_path, true, claim):
    """A curve passes as itself; as another function it is refused, but for G and D (a scale apart) and for a positive S as an intensity."""
    x, y = functions()[true]
    measured = io.read_measured(write(tmp_path, rows(x, y)))
    if claim == true or (true, claim) in {("G", "D"), ("D", "G"), ("S", "I")}:
        io.check_function(measured, claim)
        return
    with pytest.raises(ValueError, match=r"curve.dat: got .*; needs .*; .*(pass --function|convert|normalise)"):
        io.check_function(measured, claim)


@pytest.mark.parametrize(("name", "square"), [("G", None), ("D", SQUARE), ("T", SQUARE), ("RDF", None), ("G_keen", SQUARE), ("F_keen", SQUARE)])
def test_absolute_scale(tmp_path, name, square):
    x, y = functions()[name]
    io.check_function(io.read_measured(write(tmp_path, rows(x, y))), name, DENSITY, square)
    with pytest.raises(ValueError, match="check the (density|composition)"):
        io.check_function(io.read_measured(write(tmp_path, rows(x, y / 3))), name, DENSITY, square)


def test_wrong_axis_is_refused(tmp_path):
    s = hard_spheres()
    nm = write(tmp_path, rows(10 * Q, s))
    for name, y in (("S", s), ("F_keen", s - 1), ("Q(S-1)", 10 * Q * (s - 1)), ("I", 50 * s)):
        measured = io.read_measured(write(tmp_path, rows(10 * Q, y), "nm.dat"))
        with pytest.raises(ValueError, match=r"first peak at x = 2\d.*ends at 250.*in 1/nm, divide x by 10 or label the column"):
            io.check_function(measured, name)
    with pytest.raises(ValueError, match="1/nm"):
        io.identify(nm)
    angle = np.arange(5, 120, 0.1)
    counts = 30 + 900 * np.exp(-(((angle - 21.5) / 4) ** 2)) + 100 * np.exp(-angle / 20)
    for header, claims in (("", ("I",)), ("# 2theta I\n", ("I", "S"))):
        for claim in claims:
            with pytest.raises(ValueError, match="2theta.*convert x to Q"):
                io.check_function(io.read_measured(write(tmp_path, header + rows(angle, counts))), claim)
    found = io.identify(write(tmp_path, "# 2theta I\n" + rows(angle, counts)))
    assert (found.function, found.axis, found.unit) == ("I", "2theta", "deg") and "convert x to Q" in found.advice[0]
    for name in ("g", "G", "G_keen", "D", "T", "RDF"):
        measured = io.read_measured(write(tmp_path, rows(R / 10, functions()[name][1])))
        with pytest.raises(ValueError, match="looks like r in nm: multiply r by 10"):
            io.check_function(measured, name)


def test_nm_that_is_labelled_is_converted(tmp_path):
    measured = io.read_measured(write(tmp_path, "# r(nm) G(r)\n" + rows(R / 10, 100 * functions()["G"][1])))
    np.testing.assert_allclose(measured.x, R, rtol=1e-6)
    io.check_function(measured, "G", DENSITY)
    assert measured.notes == ("nm converted to A", "G divided by 100: nm^-2 converted to A^-2")
    found = io.identify(write(tmp_path, "# Q(1/nm) S(Q)\n" + rows(10 * Q, hard_spheres())), composition="Si", number_density=DENSITY)
    assert found.function == "S" and found.unit == "1/nm" and found.qmax == pytest.approx(25.0)


@pytest.mark.parametrize("true", list(functions()))
def test_identify_each(tmp_path, true):
    """Under a bare axis label each function is found by its limits, on scale; G and D are told apart by their slope."""
    x, y = functions()[true]
    label = "# r(A) y\n" if x is R else "# Q(1/A) y\n"
    found = io.identify(write(tmp_path, label + rows(x, y)), composition="SiO2", number_density=DENSITY)
    assert found.function == true and found.candidates[true] == ""
    assert all(ok for *_, ok in found.checks) and (found.checks or true == "I")
    assert found.points == len(x) and not found.has_errors
    for name, value, expected, _ in found.checks:
        if "sum rule" in name:  # the Lorch window and Q <= 25 leave a few per cent
            assert value == pytest.approx(expected, rel=0.1)
    assert f'pass function="{true}"' in found.advice


def test_header_that_lies(tmp_path):
    found = io.identify(write(tmp_path, "# r g(r)\n" + rows(*functions()["G"])))
    assert found.function == "G" and any("header says g, the data are G" in note for note in found.notes)
    assert "looks like G(r)" in found.candidates["g"]
    found = io.identify(write(tmp_path, "# Q S(Q)\n" + rows(*functions()["Q(S-1)"])))
    assert found.function == "Q(S-1)"


def test_not_on_an_absolute_scale(tmp_path):
    """Nickel, 0.0914 atoms/A^3: a G(r) of slope -0.24 where -4 pi rho0 = -1.15."""
    found = io.identify(write(tmp_path, GR + "\n" + rows(R, 0.24 / 0.628 * functions()["G"][1])), composition="Ni", number_density=0.0914)
    assert found.function == "G"
    ((name, value, expected, ok),) = found.checks
    assert value == pytest.approx(-0.24, rel=0.01) and expected == pytest.approx(-1.149, rel=1e-3) and not ok
    assert "not on an absolute scale (factor 0.21" in found.text() and "NOT MET" in found.text()


def test_open_and_hopeless(tmp_path):
    found = io.identify(write(tmp_path, rows(R[60:], shells()[60:] + 0.01)))
    assert found.function is None and found.axis is None and 'pass function="g" or "S"' in found.advice[0]
    with pytest.raises(ValueError, match=r"got a curve that no function fits \(g: .*G, D, G_keen: a mean level of -1.8.*check the column"):
        io.identify(write(tmp_path, "# r g(r)\n" + rows(R, shells() - 3 + np.sin(R))))
    found = io.identify(write(tmp_path, rows(*functions()["I"]), "a.xye"))
    assert (found.function, found.axis, found.layout) == ("I", None, "xye") and "2theta in degrees" in found.advice[0]
    with pytest.raises(ValueError, match="got composition"):
        io.identify(write(tmp_path, rows(R, shells())), composition="Si(O2)")
    with pytest.raises(ValueError, match="got number_density=-1"):
        io.identify(write(tmp_path, rows(R, shells())), number_density=-1)


def test_neutron_squares():
    mean, square = neutron_squares("SiO2")
    assert mean == pytest.approx(0.2758, abs=1e-4) and square == pytest.approx((4.1491**2 + 2 * 5.803**2) / 300)
    assert neutron_squares({"Si": 1, "O": 2}) == (mean, square)
    assert neutron_squares("D2O")[0] == pytest.approx((2 * elements.neutron_length("D") + 5.803) ** 2 / 900)
    assert neutron_squares({"H": 1, "D": 1})[0] == pytest.approx(neutron_squares({"H": 1, "D": 1})[1])


@pytest.mark.parametrize(
    ("name", "composition", "density", "function", "level", "rule"),
    [
        ("silica/sio2_nimrod_fq.mint01", "SiO2", 0.0662, "F_keen", 0.2, 0.03),
        ("water/SLS18502-D2O.mint01", "D2O", 0.1003, "F_keen", 0.1, 0.03),
        ("water/SLS18498-H2O.mint01", "H2O", 0.1003, "F_keen", 0.3, None),
        ("silicon/laaziri1999_sq.dat", "Si", 0.0489, "S", None, 0.05),
    ],
)
def test_measured_files(data_folder, name, composition, density, function, level, rule):
    """Experiments obey their limits: F(0) = -sum c b^2 (level: relative tolerance) and the sum rule for rho0 (rule)."""
    found = io.identify(data_folder / name, composition=composition, number_density=density)
    assert found.function == function and found.radiation == ("neutron" if function == "F_keen" else "xray")
    checks = {"rule" if "sum rule" in what else "level": (value, expected) for what, value, expected, _ in found.checks}
    for key, tolerance in (("level", level), ("rule", rule)):
        assert (key in checks) == (tolerance is not None)
        assert tolerance is None or checks[key][0] == pytest.approx(checks[key][1], rel=tolerance)
    edges = [note for note in found.notes if "half a bin added" in note]
    assert bool(edges) == (function == "F_keen") and len(found.text().splitlines()) >= 8
