"""From files to targets: what is identified, taken from headers, masked, refused and recorded; and a run of several targets from TOML."""

import json

import numpy as np
import pytest
from test_identify import DENSITY, GUDRUN, SQUARE, functions, rows, write
from tiny import allow_rank_promotion, packing, write_prior, write_target  # noqa: F401

from glassjax import read_target
from glassjax.cli import main
from glassjax.fourier import to_real_space, to_reciprocal
from glassjax.observables.angle import angle_distribution
from glassjax.observables.coordination import coordination_distribution
from glassjax.preparation import check_target
from glassjax.report import curve

LABELS = {"g": "# r(A) g(r)\n", "G": "# r(A) G(r)\n", "S": "# Q(1/A) S(Q)\n"}
SILICA, SILICON = ["Si", "O", "O"], ["Si"]


def read(tmp_path, of, head=None, symbols=SILICA, name="curve.dat", change=None, columns=(), step=3, **options):
    """Target and record of a file that holds the function ``of``, its y changed by ``change`` (x, y)."""
    x, y = (a[::step] for a in functions()[of])
    y = y if change is None else change(x, y)
    head = LABELS.get(of, "") if head is None else head
    path = write(tmp_path, head + rows(x, y, *[column(x) for column in columns]), name)
    return read_target(path, symbols=symbols, number_density=DENSITY, **options)


# --- what the file says -----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("function", ["g", "G", "S"])
def test_columns_are_identified(tmp_path, function):
    target, record = read(tmp_path, function, symbols=SILICON, step=2)
    assert target.observable.function == record["function"] == function and f"identified as {function}" in record["notes"]
    x, y = functions()[function]
    if function != "S":
        at = np.asarray(target.observable.x)  # 0.02 A is denser than the width resolves: thinned
        assert len(at) < len(x) / 4
        np.testing.assert_allclose(target.data, np.interp(at, x[::2], y[::2]), rtol=1e-5, atol=1e-6)
    assert len(record["sha256"]) == 64 and record["points_in_file"] == len(x[::2]) and record["uncertainty"] == "default"


def test_gudrun_is_identified_weighted_and_centred(tmp_path):
    """Left bin edges, barn per steradian and atom, neutrons: nothing needs to be said."""
    x, y = functions()["F_keen"]
    path = write(tmp_path, GUDRUN + rows(x - 0.025, y, 0.01 + 0 * x), "silica.mint01")
    target, record = read_target(path, symbols=SILICA, number_density=DENSITY, rmax=8.0)
    assert record["function"] == "F_keen" and record["weights"] == "neutron" and record["uncertainty"] == "the file's column"
    assert any("half a bin" in note for note in record["notes"])
    assert target.observable.weights == "neutron" and float(target.data.min()) < -0.8 * SQUARE
    # model and data are seen through one window in r: here by other transforms, on other points
    at = np.asarray(target.observable.x)
    assert at[0] == pytest.approx(0.05) and at[-1] == pytest.approx(25.0)
    r = np.arange(1, 1601) * 0.005
    g = to_real_space(x, 1 + y / SQUARE, r, number_density=DENSITY)
    seen = SQUARE * (to_reciprocal(r, g, at, number_density=DENSITY, rmax=8.0) - 1)
    np.testing.assert_allclose(target.data, seen, atol=2e-3 * SQUARE)


MANTID = "# 500\n# Comment: neutron, Qmax=31.414, Qdamp=0.017659, Qbroad= 0.0191822\n"


def test_the_header_names_radiation_and_resolution(tmp_path):
    target, record = read(tmp_path, "G", MANTID, name="curve.gr")
    assert record["weights"] == target.observable.weights == "neutron" and record["function"] == "G"
    assert record["options"] == dict(qmax=31.414, qdamp=0.017659, qbroad=0.0191822)
    assert sum("from the header" in note for note in record["notes"]) == 3
    assert "Qdamp 0.017659" in target.observable.convention and "width 0.05" in target.observable.convention  # 3.79 / 31.4 / 2.355
    other, record = read(tmp_path, "G", MANTID, name="curve.gr", qdamp=0.03, width=0.1)
    assert record["options"]["qdamp"] == 0.03 and "Qdamp 0.03," in other.observable.convention
    free, record = read(tmp_path, "G", MANTID, name="curve.gr", qdamp="infer", scale="infer")
    assert record["inferred"] == ["scale", "qdamp"] and "Qdamp 0," in free.observable.convention
    # of one element neither g nor G depends on the radiation
    assert read(tmp_path, "g", MANTID, name="curve.gr", symbols=SILICON)[0].observable.weights == "number"


@pytest.mark.parametrize("uncertain", ["all", "some", "none"])
def test_zero_errors_are_no_infinite_weights(tmp_path, uncertain):
    def column(x):
        return np.where(x < {"all": 0.0, "some": 3.0, "none": 99.0}[uncertain], 0.0, 0.01 + 0.001 * x) * (uncertain != "none")

    target, record = read(tmp_path, "g", symbols=SILICON, columns=[column], function="g")
    x, found = np.asarray(target.observable.x), np.asarray(target.uncertainty)
    points = functions()["g"][0][::3]
    if uncertain == "none":
        assert record["uncertainty"] == "default" and (found == np.float32(0.02)).all() and any("absent" in n for n in record["notes"])
    else:
        largest = (0.01 + 0.001 * points).max()
        whole = np.where((points < 3) & (uncertain == "some"), largest, 0.01 + 0.001 * points)
        np.testing.assert_allclose(found, np.interp(x, points, whole), rtol=1e-5)


# --- ranges and artefacts ---------------------------------------------------------------------------------------------------------------------


def test_ranges_and_masks(tmp_path):
    target, record = read(tmp_path, "g", symbols=SILICON, rmin=1.0, rmax=8.0, mask=[[2.0, 2.1], [5.0, 6.0]], weight=0.5)
    x = np.asarray(target.observable.x)
    assert x[0] >= 1.0 and x[-1] <= 8.0 and not (((x > 2.0) & (x < 2.1)) | ((x > 5.0) & (x < 6.0))).any()
    assert record["points_used"] == len(x) and record["mask"] == [[2.0, 2.1], [5.0, 6.0]] and float(target.weight) == 0.5
    with pytest.raises(ValueError, match="widen the range or mask less"):
        read(tmp_path, "g", symbols=SILICON, rmin=1.0, rmax=8.0, mask=[[0.9, 8.0]])


def broken(x, y):
    """Ripples below the first peak and a spike."""
    y = y + np.where(x < 1.5, 0.4 * np.cos(9 * x), 0.0) + 1e-3 * np.random.default_rng(0).normal(size=len(x))
    y[np.searchsorted(x, 8.0)] += 1.0
    return y


def test_artefacts_are_reported_and_masked(tmp_path):
    plain, record = read(tmp_path, "g", symbols=SILICON, change=broken, function="g")
    assert len(record["artefacts"]) == 2 and "first peak" in record["artefacts"][0] and "8" in record["artefacts"][1]
    masked, record = read(tmp_path, "g", symbols=SILICON, change=broken, function="g", artefacts="mask")
    x = np.asarray(masked.observable.x)
    assert (
        len(record["mask"]) == 2
        and x[0] > 1.4
        and len(x) < len(plain.data) - 5
        and np.abs(np.asarray(masked.data)[np.abs(x - 8.0).argmin()] - 1.0) < 0.2
    )
    assert read(tmp_path, "g", symbols=SILICON, function="g")[1]["artefacts"] == []


def test_uncertainty_from_the_noise(tmp_path):
    noisy = lambda x, y: y + 0.03 * np.random.default_rng(1).normal(size=len(x))  # noqa: E731
    target, record = read(tmp_path, "S", symbols=SILICON, change=noisy, function="S", uncertainty="noise")
    np.testing.assert_allclose(target.uncertainty, 0.03, rtol=0.2)
    assert record["uncertainty"].startswith("estimated")
    with pytest.raises(ValueError, match="neighbouring points"):
        read(tmp_path, "g", symbols=SILICON, change=noisy, function="g", uncertainty="noise")


def test_angles_of_diffraction_become_q(tmp_path):
    """2theta needs a wavelength; an .xye that does not say what its first column is is not guessed at."""
    q, y = (a[::8] for a in functions()["S"])
    q, y = q[q < 7.5], y[q < 7.5]
    angle = np.degrees(2 * np.arcsin(q * 1.54 / (4 * np.pi)))
    options = dict(symbols=SILICON, number_density=DENSITY, function="S", rmax=6.0)
    told, record = read_target(write(tmp_path, "# 2theta S\n" + rows(angle, y)), wavelength=1.54, **options)
    plain, _ = read_target(write(tmp_path, "# Q S\n" + rows(q, y)), **options)
    np.testing.assert_allclose(told.data, plain.data, atol=2e-4)
    assert any("2theta turned into Q" in note for note in record["notes"])
    with pytest.raises(ValueError, match="pass wavelength"):
        read_target(write(tmp_path, "# 2theta S\n" + rows(angle, y)), **options)
    with pytest.raises(ValueError, match="Q or 2theta; pass axis"):
        read_target(write(tmp_path, rows(q, y), "curve.xye"), **options)
    with pytest.raises(ValueError, match="header calls the first column"):
        read_target(write(tmp_path, "# Q S\n" + rows(q, y)), axis="2theta", **options)


# --- angles and coordination ------------------------------------------------------------------------------------------------------------------


def test_local_targets(tmp_path):
    angles, numbers, s = np.linspace(20, 175, 32), np.arange(9.0), packing()
    options = dict(symbols=SILICON, number_density=DENSITY, cutoff=3.0)
    path = write(tmp_path, rows(angles, curve(angle_distribution(angles, SILICON, cutoff=3.0, width=0.15), s)))
    target, record = read_target(path, function="ADF", width=0.15, xmin=60.0, mask=[[80.0, 90.0]], **options)
    assert target.observable.function == record["function"] == "ADF" and record["artefacts"] == []
    x = np.asarray(target.observable.x)
    assert x[0] == 60.0 and not ((x > 80) & (x < 90)).any()
    np.testing.assert_allclose(curve(target.observable, s), target.data, atol=1e-5)
    path = write(tmp_path, rows(numbers, curve(coordination_distribution(("Si", "Si"), numbers, SILICON, cutoff=3.0), s)))
    target, record = read_target(path, function="coordination distribution", partial="Si-Si", **(options | {"cutoff": {"Si-Si": 3.0}}))
    np.testing.assert_allclose(curve(target.observable, s), target.data, atol=1e-5)
    for function, more, expected in (
        ("ADF", dict(cutoff=None), "cutoff"),
        ("coordination distribution", {}, "partial"),
        ("ADF", dict(qmax=3.0), "qmax"),
    ):
        with pytest.raises(ValueError, match=expected):
            read_target(path, function=function, **options | more)


# --- bad input --------------------------------------------------------------------------------------------------------------------------------

BAD = {
    "open": (("g", ""), {}, 'needs --function; .*pass function="g" or "S"'),
    "radiation": (("G", MANTID), dict(weights="xray", name="curve.gr"), "header says neutron"),
    "no weights": (("g",), {}, "needs weights"),
    "typo": (("g",), dict(widht=0.1), "did you mean width"),
    "Q(S-1) as F_keen": (("Q(S-1)",), dict(function="F_keen", weights="neutron", step=1), r"pass --function Q\(S-1\)"),
    "F_keen as Q(S-1)": (("F_keen",), dict(function="Q(S-1)", weights="neutron", step=1), "pass --function F_keen"),
    "G as g": (("G",), dict(function="g", weights="neutron"), "--function G"),
    "another composition": (("F_keen",), dict(function="F_keen", weights="neutron", symbols=["Ni"], step=1), "composition"),
    "another density": (("G",), dict(function="G", weights="number", change=lambda x, y: 3 * y), "density"),
    "2theta": (("S", "# 2theta(deg) S\n"), dict(function="S", weights="neutron", step=1), "2theta"),
    "1/nm": (("S",), dict(function="S", weights="neutron", step=1, change=None, scale_x=10), "1/nm"),
    "window of g": (("g",), dict(function="g", weights="number", window="lorch"), "got window with function g"),
    "artefacts": (("g",), dict(function="g", weights="number", artefacts="remove"), "report"),
    "uncertainty": (("g",), dict(function="g", weights="number", uncertainty="guess"), "noise"),
    "weight": (("g",), dict(function="g", weights="number", weight=-2.0), "weight -2"),
    "partial": (("g",), dict(function="g", partial="Si"), "2 elements"),
    "isotope": (("g",), dict(function="g", weights="neutron", isotopes={"Si": "99Si"}), "99Si"),
    "function": (("g",), dict(function="h", weights="neutron"), "needs one of"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input(tmp_path, case):
    given, options, message = BAD[case]
    options = dict(options)
    if options.pop("scale_x", None):
        x, y = functions()["S"]
        path = write(tmp_path, rows(10 * x, y))
        with pytest.raises(ValueError, match=message):
            read_target(path, symbols=SILICA, number_density=DENSITY, function="S", weights="neutron")
        return
    with pytest.raises(ValueError, match=message):
        read(tmp_path, *given, **options)


def test_reach_beyond_the_images(tmp_path):
    target, _ = read(tmp_path, "S", symbols=SILICON, function="S", rmax=30.0, step=1)
    with pytest.raises(ValueError, match="twice the smallest height"):
        check_target(target, packing())


# --- a whole run ------------------------------------------------------------------------------------------------------------------------------

TOML = """
composition = "Si"
atoms = 32
density = 2.3
prior = "prior.npz"
replicas = 2
steps = 10
chunk = 2
out = "result"
[[target]]
file = "adf.dat"
function = "ADF"
cutoff = 3.0
width = 0.15
[[target]]
file = "g.dat"
function = "g"
uncertainty = 0.05
scale = "infer"
mask = [[0.0, 1.0]]
[[restraint]]
kind = "coordination"
pair = "Si-Si"
high = 4.0
cutoff = 2.9
"""


def test_two_targets_and_a_restraint_from_toml(tmp_path, capsys, quick_compile):
    angles = np.linspace(20, 175, 32)
    write_prior(tmp_path / "prior.npz")
    write_target(tmp_path / "g.dat")
    write(tmp_path, rows(angles, curve(angle_distribution(angles, SILICON, cutoff=3.0, width=0.15), packing())), "adf.dat")
    run = write(tmp_path, TOML, "run.toml")
    assert main(["invert", str(run)]) == 0
    shown = capsys.readouterr()
    assert "share = " in shown.err and "R ADF" in shown.out
    record = json.loads((tmp_path / "result" / "run.json").read_text())
    for row in record["replicas"]:
        assert row["status"] == "ok" and row["share_ADF"] + row["share_g"] == pytest.approx(1.0, abs=1e-5)
        assert all(np.isfinite(row[f"{key}_{name}"]) for key in ("chi_squared", "r_factor") for name in ("ADF", "g"))
    adf, g = record["inputs"]["targets"]
    assert (adf["function"], g["function"]) == ("ADF", "g") and adf["options"]["cutoff"] == 3.0 and g["mask"] == [[0.0, 1.0]]
    assert list(record["inferred"]) == ["scale of g"] and g["inferred"] == ["scale"]
    assert record["inputs"]["restraints"] == [dict(kind="coordination", pair="Si-Si", high=4.0, cutoff=2.9)]
    assert (tmp_path / "result" / "fit_ADF.csv").exists() and (tmp_path / "result" / "fit_g.csv").exists()
