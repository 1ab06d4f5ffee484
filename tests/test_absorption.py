"""X-ray absorption: wavenumbers, windows and transforms against closed forms and larch; readers against files written here."""

import gzip
import json

import numpy as np
import pytest

from glassjax.absorption import ETOK, WINDOWS, distance_grid, energy_of, fourier_operator, wavenumber, window, window_name
from glassjax.io.absorption import check_range, read_absorption, to_chi, to_normalised

E0 = 7112.0
K = 0.05 * np.arange(1, 301)


def fine_structure(k, distance=2.5):
    """chi(k) of one shell: 0.9 exp(-2 k^2 0.005) sin(2 k R) / (k R^2) 4."""
    return 3.6 / distance**2 / np.maximum(k, 0.5) * np.exp(-0.01 * k**2) * np.sin(2 * k * distance)


def absorption(x, e0=E0, step=1.0, line=(0.0, 0.0)):
    """mu(E): an edge with the fine structure above it, on a pre-edge line."""
    k = wavenumber(x, e0)
    edge = step * (0.5 + np.arctan((x - e0) / 1.0) / np.pi)
    return line[0] + line[1] * (x - e0) + edge + step * fine_structure(k) / (1 + np.exp((25 - (x - e0)) / 5))


ENERGY = np.concatenate([np.arange(-150, -20, 5.0), np.arange(-20, 30, 0.5), energy_of(np.arange(2.85, 14.0, 0.05), 0.0)]) + E0
RAW = absorption(ENERGY, step=0.6, line=(0.8, -3e-4))
NORMALISED = absorption(ENERGY)


def table(*columns):
    return "\n".join("  ".join(f"{value:.10g}" for value in row) for row in zip(*columns, strict=True)) + "\n"


@pytest.fixture
def write(tmp_path):
    def writer(name, text):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return writer


ARGUMENTS = {
    "label": "glass's Fe", "bkg_e0": "7112.0", "bkg_z": "Fe", "fft_edge": "k", "bkg_rbkg": "1.1", "bkg_kw": "2", "bkg_step": "0.6", "fft_kmin": "3",
    "fft_kmax": "12.5", "fft_dk": "1", "fft_kwindow": "kaiser-bessel", "fft_kw": "2", "bkg_eshift": "0", "is_xmu": "1", "is_nor": "0", "is_chi": "0",
    "titles": ["one; (two)", "it's"],
}  # fmt: skip


def perl_string(text):
    return "'" + str(text).replace("\\", "\\\\").replace("'", "\\'") + "'"


def perl_record(key, x, y, **changes):
    pairs = []
    for name, value in (ARGUMENTS | changes).items():
        quoted = "[" + ",".join(map(perl_string, value)) + "]" if isinstance(value, list) else perl_string(value)
        pairs.append(f"{perl_string(name)},{quoted}")
    arrays = "\n".join(f"@{name} = ({','.join(perl_string(f'{v:.10g}') for v in values)});" for name, values in (("x", x), ("y", y)))
    return f"$old_group = {perl_string(key)};\n@args = ({','.join(pairs)});\n{arrays}\n[record]   # create object\n\n"


def perl_project(*records):
    head = "# Athena project file -- Demeter version 0.9.20\n# This file created at 2015-02-04\n\n"
    return gzip.compress((head + "".join(records) + "@journal = {};\n\n1;\n").encode())


def json_project(**groups):
    content = {"_____header1": "# Athena project file -- Demeter version 0.9.26", "_____journal": ["nothing"]}
    for key, (x, y, changes) in groups.items():
        content[key] = {"args": ARGUMENTS | changes, "x": [f"{v:.10g}" for v in x], "y": [f"{v:.10g}" for v in y]}
    return json.dumps(content | {"_____order": list(groups)}, indent=1)


# --- wavenumber, windows, transform -------------------------------------------------------------------------------------------------------


def test_wavenumber_constant_and_inverse():
    constants = pytest.importorskip("scipy.constants")
    np.testing.assert_allclose(1 / ETOK, 1e20 * constants.hbar**2 / (2 * constants.m_e * constants.e), rtol=1e-8)
    np.testing.assert_allclose(wavenumber(energy_of(K, E0), E0), K, rtol=1e-10)
    assert (wavenumber([E0 - 30, E0], E0) == 0).all()


@pytest.mark.parametrize("kind", WINDOWS)
def test_windows_are_symmetric_and_bounded(kind):
    k = 0.05 * np.arange(401)
    values = window(k, 3.0, 13.0, dk=1.0, kind=kind)
    assert values.min() >= 0 and values.max() <= 1 + 1e-12
    np.testing.assert_allclose(values, values[::-1][80:].tolist() + [0] * 80 if kind != "gaussian" else values, atol=1e-9)
    np.testing.assert_allclose(values[160], 1, atol=1e-9)  # the middle
    if kind in ("hanning", "parzen"):
        np.testing.assert_allclose(values[[50, 60, 70]], [0, 0.5, 1], atol=1e-9)
    if kind == "welch":
        np.testing.assert_allclose(values[[50, 60, 70]], [0, 0.75, 1], atol=1e-9)


def test_window_names():
    assert [window_name(name) for name in ("Hanning", "kaiser", "Kaiser-Bessel ", "sin")] == ["hanning", "kaiser-bessel", "kaiser-bessel", "sine"]
    with pytest.raises(ValueError, match="needs one of hanning"):
        window_name("blackman")


@pytest.mark.parametrize("options", [{"kmin": 5.0, "kmax": 4.0}, {"kmin": 3.0, "kmax": 21.0}, {"kmin": 3.0, "kmax": 9.0, "dk": -1.0}])
def test_window_refuses_ranges(options):
    with pytest.raises(ValueError, match="needs"):
        window(0.05 * np.arange(401), **options)
    with pytest.raises(ValueError, match="uniform"):
        window(np.array([0.0, 1, 2, 4, 5]), 1.0, 3.0)


def test_transform_of_one_shell_peaks_at_its_distance():
    r = distance_grid(6.0)
    operator = fourier_operator(K, r, kmin=3, kmax=14, kweight=2)
    assert operator.shape == (len(r), len(K))
    for distance in (1.8, 2.5, 3.3):
        assert abs(r[np.argmax(np.abs(operator @ (np.sin(2 * K * distance) / K**2)))] - distance) < 0.02


def test_transform_is_the_sum_it_says():
    k, r = 0.05 * np.arange(301), np.array([0.0, 1.3, 2.71])
    chi = fine_structure(k)
    terms = chi * k**3 * window(k, 3.0, 12.0, dk=2.0, kind="parzen")
    expected = [0.05 / np.sqrt(np.pi) * np.sum(terms * np.exp(-2j * k * distance)) for distance in r]
    np.testing.assert_allclose(fourier_operator(k, r, kmin=3, kmax=12, kweight=3, dk=2, window="parzen") @ chi, expected, rtol=1e-10)


def test_transform_interpolates_any_grid():
    r = np.linspace(0, 6, 40)
    coarse = np.sort(np.random.default_rng(1).uniform(0.2, 15, 250))
    on_grid = np.interp(0.05 * np.arange(301), coarse, np.sin(coarse))
    np.testing.assert_allclose(
        fourier_operator(coarse, r, kmin=3, kmax=12) @ np.sin(coarse),
        fourier_operator(0.05 * np.arange(301), r, kmin=3, kmax=12) @ on_grid,
        atol=1e-4 * 144,
    )


def test_transform_refuses_ranges():
    with pytest.raises(ValueError, match="inside the data"):
        fourier_operator(K, [1.0], kmin=3, kmax=16)
    with pytest.raises(ValueError, match="31.42"):
        fourier_operator(K, [40.0], kmin=3, kmax=12)
    with pytest.raises(ValueError, match="ascending"):
        fourier_operator(K[::-1], [1.0], kmin=3, kmax=12)
    with pytest.raises(ValueError, match="at most"):
        distance_grid(40.0)


# --- text layouts -------------------------------------------------------------------------------------------------------------------------

XDI = "# XDI/1.0 GSE/1.0\n# Element.symbol: Fe\n# Element.edge: K\n# Sample.name: Fe glass\n"


def test_xdi_with_athena_fields(write):
    head = XDI + "# Column.1: energy eV\n# Column.2: mutrans\n# Column.3: i0\n# Athena.e0: 7112.0\n# Athena.rbkg: 1.2\n# Athena.bkg_kweight: 2\n"
    head += "# Athena.edge_step: 0.6\n# Athena.kweight: 3\n# Athena.window: hanning\n# Athena.k_range: 3.000 12.500\n# Athena.dk: 1.5\n#----\n"
    found = read_absorption(write("a.xdi", head + "# energy mutrans i0\n" + table(ENERGY, RAW, 1e5 + 0 * RAW)))
    assert (found.kind, found.element, found.edge, found.label) == ("mu", "Fe", "K", "Fe glass")
    assert (found.e0, found.rbkg, found.background_kweight, found.edge_step) == (7112, 1.2, 2, 0.6)
    assert (found.kmin, found.kmax, found.kweight, found.dk, found.window) == (3, 12.5, 3, 1.5, "hanning")
    np.testing.assert_allclose(found.y, RAW, rtol=1e-8)
    assert len(found.sha256) == 64


def test_xdi_named_after_its_sample(write):
    head = "# XDI/1.0 Demeter/0.9.26\n# Demeter.output_filetype: multicolumn normalized mu(E)\n# Column.1: energy eV\n# Column.2: {}\n"
    found = read_absorption(write("a.nor", head.format("merged-4") + "#---\n# energy merged-4\n" + table(ENERGY, NORMALISED)))
    assert found.kind == "normalised"
    path = write("b.nor", head.format("one") + "# Column.3: two\n#---\n" + table(ENERGY, NORMALISED, NORMALISED))
    with pytest.raises(ValueError, match=r"2 curves \(one, two\), not averaged"):
        read_absorption(path)


@pytest.mark.parametrize(("signal", "make"), [("itrans", lambda i0: i0 * np.exp(-RAW)), ("ifluor", lambda i0: i0 * RAW)])
def test_xdi_of_counts(write, signal, make):
    i0 = 1e5 + 100 * np.sin(ENERGY)
    path = write("a.xdi", XDI + f"# Column.1: energy eV\n# Column.2: i0\n# Column.3: {signal}\n#----\n" + table(ENERGY, i0, make(i0)))
    found = read_absorption(path)
    np.testing.assert_allclose(found.y, RAW, rtol=1e-6)
    assert found.kind == "mu" and any(signal in note for note in found.notes)


def test_unaveraged_detectors_are_refused(write):
    head = XDI + "# Column.1: energy eV\n# Column.2: i0\n# Column.3: ifluor1\n# Column.4: ifluor2\n#----\n"
    path = write("a.xdi", head + table(ENERGY, 1 + 0 * RAW, RAW, 1.1 * RAW))
    with pytest.raises(ValueError, match=r"2 curves \(ifluor1, ifluor2\), not averaged"):
        read_absorption(path)
    np.testing.assert_allclose(read_absorption(path, group="ifluor2").y, 1.1 * RAW, rtol=1e-8)


def test_scans_one_after_another_are_refused(write):
    path = write("a.xmu", "# energy xmu\n" + table(np.tile(ENERGY, 2), np.tile(RAW, 2)))
    with pytest.raises(ValueError, match="several scans"):
        read_absorption(path)


def test_descending_and_repeated_energies(write):
    x, y = np.concatenate([ENERGY, ENERGY[-1:]])[::-1], np.concatenate([RAW, RAW[-1:] + 0.02])[::-1]
    found = read_absorption(write("a.xmu", "# energy xmu\n" + table(x, y)))
    np.testing.assert_allclose(found.x, ENERGY)
    np.testing.assert_allclose(found.y[-1], RAW[-1] + 0.01, rtol=1e-6)
    assert any("reversed" in note for note in found.notes) and any("averaged" in note for note in found.notes)


def test_old_athena_header(write):
    head = "# Athena data file -- Athena version 0.8.056\n# Saving Fe as normalized mu(E)\n# .  Element=Fe   Edge=K\n# Background parameters\n"
    head += "# .  E0=7112.000  Eshift=0.000  Rbkg=1.000\n# .  Kweight=2.0  Edge step=0.976\n# .  Spline range: [ 0.000 : 275.984 ]\n"
    head += "# Foreward FT parameters\n# .  Kweight=3   Window=hanning   Phase correction=no\n# .  k-range: [ 2.000 : 11.511 ]   dk=1.00\n"
    head += "# Backward FT parameters\n# .  dR=0.00   Window=sine\n#------------------------\n#  energy norm bkg_norm\n"
    found = read_absorption(write("a.nor", head + table(ENERGY, NORMALISED, NORMALISED)))
    assert (found.kind, found.element, found.edge, found.e0, found.edge_step, found.rbkg) == ("normalised", "Fe", "K", 7112, 0.976, 1)
    assert (found.kmin, found.kmax, found.kweight, found.dk, found.window, found.background_kweight) == (2, 11.511, 3, 1, "hanning", 2)


def test_ifeffit_chi(write):
    head = "# data  : Fe 10k, e0=7100, with standard\n# e0 =  7112.61; pre-edge range =[   -50.0  -200.0]; edge step = 2.257\n"
    head += "# E0= 7110.0 NREG= 3\n#------\n#     k              chi(k)\n"
    found = read_absorption(write("fe10k.chi", head + table(K, fine_structure(K))))
    assert (found.kind, found.e0, found.edge_step, found.kmin, found.kweight, found.label) == ("chi", 7112.61, 2.257, None, None, "fe10k")
    np.testing.assert_allclose(found.y, fine_structure(K), rtol=1e-8)
    assert found.notes == ()


@pytest.mark.parametrize(
    ("head", "power"),
    [("# chi(k)*k^2 of a glass\n", 2), ("# k chik3\n", 3), ("#  k   k^1*chi\n", 1), ("# k-weighted: k**3*chi(k)\n# k chi\n", 3), ("# k kchi\n", 1)],
)
def test_weight_of_chi_is_taken_off(write, head, power):
    found = read_absorption(write("a.chi", head + table(K, K**power * fine_structure(K))))
    np.testing.assert_allclose(found.y, fine_structure(K), rtol=1e-7, atol=1e-12)
    assert any(f"k^{power}" in note for note in found.notes)


def test_growing_amplitude_is_noted(write):
    path = write("a.chi", "# k chi\n" + table(K, K**3 * fine_structure(K)))
    assert any("kpower" in note for note in read_absorption(path).notes)
    np.testing.assert_allclose(read_absorption(path, kpower=3).y, fine_structure(K), rtol=1e-7, atol=1e-12)


def test_athena_chi_export_has_the_plain_column(write):
    chi = fine_structure(K)
    text = "# XDI/1.0 Athena/0.9.24\n# Athena.e0: 7112\n#---\n# k chi chik chik2 chik3 win energy\n"
    found = read_absorption(write("a.chi", text + table(K, chi, K * chi, K**2 * chi, K**3 * chi, 0 * K, energy_of(K, E0))))
    np.testing.assert_allclose(found.y, chi, rtol=1e-8)
    assert found.e0 == 7112


def test_feff_outputs(write):
    k = np.concatenate([[-1.0, -0.5], 0.05 * np.arange(301)])
    chi = fine_structure(np.abs(k))
    omega = E0 + np.sign(k) * k**2 / ETOK
    head = "# Abs   Z=26 Rmt= 1.3 K  shell\n#  xsedge+50, used to normalize mu  1.3E-03\n#  omega    e    k    mu    mu0     chi     @#\n"
    path = write("xmu.dat", head + table(omega, omega - E0, k, 1 + chi, 1 + 0 * k, chi))
    mu, computed = read_absorption(path), read_absorption(path, group="chi")
    assert (mu.kind, mu.e0, computed.kind, len(computed.x)) == ("normalised", E0, "chi", 301)
    np.testing.assert_allclose(computed.y, chi[2:], rtol=1e-8, atol=1e-12)
    head = "# POT  SCF\n#       k          chi          mag           phase @#\n"
    found = read_absorption(write("chi.dat", head + table(K, fine_structure(K), np.abs(K), K)))
    assert found.kind == "chi" and found.e0 is None
    np.testing.assert_allclose(found.y, fine_structure(K), rtol=1e-8)


def test_diffraction_chi_is_refused(write):
    q = np.linspace(0.5, 20, 100)
    with pytest.raises(ValueError, match="diffraction"):
        read_absorption(write("a.chi", "image.tif\n2-Theta Angle (Degrees)\nIntensity\n     100\n" + table(q, 100 + q)))
    with pytest.raises(ValueError, match="diffraction"):
        read_absorption(write("b.chi", "image.tif\nQ (1/A)\nIntensity\n     100\n" + table(q, 100 + q)))


# --- what data say ------------------------------------------------------------------------------------------------------------------------


def test_kev_is_refused_and_declared_kev_read(write):
    path = write("a.xmu", "# energy xmu\n" + table(ENERGY / 1000, RAW))
    with pytest.raises(ValueError, match=r"Fe K edge at 7.11\d keV; needs eV; multiply them by 1000"):
        read_absorption(path)
    np.testing.assert_allclose(read_absorption(path, energy_unit="keV").x, ENERGY)
    declared = write("a.xdi", XDI + "# Column.1: energy keV\n# Column.2: mutrans\n#---\n" + table(ENERGY / 1000, RAW))
    np.testing.assert_allclose(read_absorption(declared).x, ENERGY)


def test_unlabelled_mu_is_raw_or_normalised_by_its_values(write):
    assert read_absorption(write("a.xmu", "# Fe\n" + table(ENERGY, RAW))).kind == "mu"
    assert read_absorption(write("b.xmu", "# Fe\n" + table(ENERGY, NORMALISED))).kind == "normalised"


def test_raw_mu_called_normalised_is_refused(write):
    with pytest.raises(ValueError, match="raw mu under the name normalised"):
        read_absorption(write("a.nor", "# energy norm\n" + table(ENERGY, RAW)))


def test_short_scan_is_believed(write):
    near = (ENERGY > E0 - 10) & (ENERGY < E0 + 60)
    found = read_absorption(write("a.nor", "# energy norm\n" + table(ENERGY[near], NORMALISED[near])))
    assert found.kind == "normalised" and any("too little" in note for note in found.notes)
    with pytest.raises(ValueError, match="on both sides"):
        read_absorption(write("b.nor", "# Fe\n" + table(ENERGY[near], NORMALISED[near])))


def test_curve_without_an_edge_is_refused(write):
    above = ENERGY > E0 + 10
    with pytest.raises(ValueError, match="no absorption edge"):
        read_absorption(write("a.xmu", "# energy mu\n" + table(ENERGY[above], fine_structure(wavenumber(ENERGY[above], E0)))))


# --- Athena projects ----------------------------------------------------------------------------------------------------------------------


def both(**changes):
    return {"perl.prj": perl_project(perl_record("abcde", ENERGY, RAW, **changes)), "json.prj": json_project(abcde=(ENERGY, RAW, changes))}


@pytest.mark.parametrize("name", ["perl.prj", "json.prj"])
def test_athena_project(write, name):
    found = read_absorption(write(name, both(bkg_eshift="1.5", bkg_e0="7113.5")[name]))
    assert (found.kind, found.label, found.element, found.edge, found.e0) == ("mu", "glass's Fe", "Fe", "K", 7113.5)
    assert (found.kmin, found.kmax, found.kweight, found.dk, found.window) == (3, 12.5, 2, 1, "kaiser-bessel")
    assert (found.rbkg, found.background_kweight, found.edge_step) == (1.1, 2, 0.6)
    np.testing.assert_allclose(found.x, ENERGY + 1.5)
    np.testing.assert_allclose(found.y, RAW, rtol=1e-8)


@pytest.mark.parametrize(("flag", "y"), [("is_nor", NORMALISED), ("is_xmudat", NORMALISED)])
def test_normalised_groups(write, flag, y):
    found = read_absorption(write("a.prj", perl_project(perl_record("a", ENERGY, y, **{flag: "1"}))))
    assert found.kind == "normalised"


def test_unknown_window_is_left_open(write):
    found = read_absorption(write("a.prj", perl_project(perl_record("a", ENERGY, RAW, fft_kwindow="blackman"))))
    assert found.window is None and any("'blackman'" in note for note in found.notes)


def test_several_groups_need_a_name(write):
    records = [perl_record("aaaaa", ENERGY, RAW, label="one"), perl_record("bbbbb", K, fine_structure(K), label="two", is_chi="1", is_xmu="0")]
    path = write("a.prj", perl_project(*records))
    with pytest.raises(ValueError, match=r"2 groups \('one', 'two'\); needs one; pass group="):
        read_absorption(path)
    with pytest.raises(ValueError, match="got group='three'; needs one of 'one', 'two'"):
        read_absorption(path, group="three")
    found = read_absorption(path, group="two")
    assert found.kind == "chi" and any("not a merge" in note for note in found.notes)
    np.testing.assert_allclose(found.y, fine_structure(K), rtol=1e-8)
    assert read_absorption(path, group="aaaaa").kind == "mu"  # by its key


def test_other_groups_and_damage_are_refused(write):
    with pytest.raises(ValueError, match="difference spectrum"):
        read_absorption(write("a.prj", perl_project(perl_record("a", ENERGY, RAW, is_diff="1"))))
    with pytest.raises(ValueError, match="ends inside a group|breaks off"):
        text = gzip.decompress(perl_project(perl_record("a", ENERGY, RAW)))
        read_absorption(write("b.prj", gzip.compress(text[: len(text) // 2])))
    with pytest.raises(ValueError, match="damaged gzip"):
        read_absorption(write("c.prj", perl_project(perl_record("a", ENERGY, RAW))[:900]))
    with pytest.raises(ValueError, match="breaks at line"):
        read_absorption(write("d.prj", json_project(a=(ENERGY, RAW, {}))[:900]))


# --- bad files ----------------------------------------------------------------------------------------------------------------------------


def test_bad_files(write, tmp_path):
    with pytest.raises(FileNotFoundError):
        read_absorption(tmp_path / "none.xdi")
    with pytest.raises(ValueError, match="empty"):
        read_absorption(write("a", "\n"))
    with pytest.raises(ValueError, match="directory"):
        read_absorption(tmp_path)
    with pytest.raises(ValueError, match="binary"):
        read_absorption(write("b", b"\0\1\2"))
    with pytest.raises(ValueError, match="no line of numbers"):
        read_absorption(write("c", "# energy mu\nnothing\n"))
    with pytest.raises(ValueError, match="line 3: got 1 columns"):
        read_absorption(write("d", "# energy mu\n7000 0.1\n7001\n"))
    with pytest.raises(ValueError, match="NaN"):
        read_absorption(write("e", "# energy mu\n7000 0.1\n7001 nan\n"))
    with pytest.raises(ValueError, match="got 2 points"):
        read_absorption(write("f", "# energy mu\n7000 0.1\n7001 0.2\n"))
    with pytest.raises(ValueError, match="without labels"):
        read_absorption(write("g", table(ENERGY, RAW, RAW)))
    with pytest.raises(ValueError, match="'angle' as the first column"):
        read_absorption(write("h", "# Column.1: angle degrees\n# Column.2: mutrans\n" + table(ENERGY, RAW)))
    with pytest.raises(ValueError, match="needs one of the columns xmu"):
        read_absorption(write("i", "# energy xmu\n" + table(ENERGY, RAW)), group="flat")
    with pytest.raises(ValueError, match="energy_unit"):
        read_absorption(tmp_path / "j", energy_unit="meV")


# --- alignment ----------------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def chi(write):
    head = "# Athena.e0: 7112\n# Athena.k_range: 3 17\n# Athena.kweight: 2\n# Athena.window: kaiser\n# Athena.dk: 1\n# k chi\n"
    return read_absorption(write("a.chi", head + table(K, fine_structure(K))))


def test_range_beyond_the_data(chi):
    with pytest.raises(ValueError, match=r"k-range 3 to 18 1/A; needs one inside the data, 0.05 to 15 1/A"):
        check_range(chi, 3, 18)
    with pytest.raises(ValueError, match="k-range 3 to 18"):
        to_chi(chi, kmax=18)
    with pytest.raises(ValueError, match="kmin < kmax"):
        check_range(chi, 5, 5)
    check_range(chi, 0, 15)


def test_range_of_the_file_is_cut_and_options_win(chi):
    found = to_chi(chi)
    assert (found.kmin, found.kmax, found.kweight, found.window) == (3, 15, 2, "kaiser-bessel")
    assert any("kmax of the file, 17, cut" in note for note in found.notes)
    found = to_chi(chi, kmin=4, kmax=12, kweight=3, window="Hanning", dk=2)
    assert (found.kmin, found.kmax, found.kweight, found.window, found.dk) == (4, 12, 3, "hanning", 2)


def test_another_edge_moves_k(chi):
    found = to_chi(chi, e0=7115.0)
    np.testing.assert_allclose(found.x**2, K[-len(found.x) :] ** 2 - 3 * ETOK, atol=1e-8)
    np.testing.assert_allclose(energy_of(found.x, 7115.0), energy_of(K[-len(found.x) :], 7112.0))


def test_chi_holds_no_edge_and_mu_needs_larch(chi, write, monkeypatch):
    with pytest.raises(ValueError, match="needs mu"):
        to_normalised(chi)
    monkeypatch.setitem(__import__("sys").modules, "larch", None)  # as where it is not installed
    raw = read_absorption(write("a.xmu", "# energy xmu\n" + table(ENERGY, RAW)))
    for convert in (to_normalised, to_chi):
        with pytest.raises(ImportError, match=r"raw mu.*pip install glassjax\[xas\]"):
            convert(raw)
    normalised = read_absorption(write("b.xmu", "# energy norm\n" + table(ENERGY, NORMALISED)))
    assert to_normalised(normalised) is normalised


# --- against larch ------------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def larch_xafs():
    return pytest.importorskip("larch.xafs", reason="xraylarch is not installed", exc_type=ImportError)


@pytest.mark.parametrize("kind", WINDOWS)
def test_window_and_transform_equal_larch(larch_xafs, kind):
    from larch import Group

    k, name = 0.05 * np.arange(401), "kaiser" if kind == "kaiser-bessel" else kind
    values = np.random.default_rng(0).normal(size=401)
    for kmin, kmax, dk, power in ((3, 12, 1, 2), (2.03, 13.37, 2.1, 3), (3, 12.3, 1, 1), (0.1, 20, 4, 2)):
        group = Group()
        larch_xafs.xftf(k, values, group=group, kmin=kmin, kmax=kmax, dk=dk, kweight=power, window=name, kstep=0.05)
        expected = larch_xafs.ftwindow(k, xmin=kmin, xmax=kmax, dx=dk, window=name)
        np.testing.assert_allclose(window(k, kmin, kmax, dk=dk, kind=kind), expected, atol=1e-12)
        np.testing.assert_allclose(distance_grid(10.0), group.r, rtol=1e-12)
        operator = fourier_operator(k, group.r, kmin=kmin, kmax=kmax, dk=dk, kweight=power, window=kind)
        np.testing.assert_allclose(operator @ values, group.chir, atol=1e-11 * np.abs(group.chir).max())


def test_raw_mu_through_larch_gives_the_fine_structure(larch_xafs, write):
    raw = read_absorption(write("perl.prj", both()["perl.prj"]))
    found = to_chi(raw)
    assert found.kind == "chi" and (found.kmin, found.kmax, found.kweight) == (3, 12.5, 2)
    inside = (found.x > 4) & (found.x < 12)
    expected = fine_structure(found.x[inside])
    difference = found.y[inside] - expected
    assert np.sqrt(np.mean((found.x[inside] ** 2 * difference) ** 2) / np.mean((found.x[inside] ** 2 * expected) ** 2)) < 0.03
    levels = to_normalised(raw)
    assert abs(levels.y[levels.x < E0 - 50].mean()) < 0.02 and abs(levels.edge_step - 0.6) < 0.05


def test_projects_equal_larch_reader(write):
    io = pytest.importorskip("larch.io.athena_project", reason="xraylarch is not installed", exc_type=ImportError)
    for name, content in both().items():
        path = write(name, content)
        project = io.AthenaProject(str(path))
        project.read(str(path), do_preedge=False)
        (group,) = project.groups.values()
        found = read_absorption(path)
        np.testing.assert_allclose(found.x, group.energy)
        np.testing.assert_allclose(found.y, group.mu)
        assert group.athena_params.fft.kmax == found.kmax
