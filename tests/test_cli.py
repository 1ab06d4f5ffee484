"""The command line: bad input gives one clear line before any long work; good input gives the files that were promised."""

import json
import subprocess
import sys

import ase.io
import jax
import numpy as np
import pytest
from tiny import allow_rank_promotion, write_prior, write_target  # noqa: F401

import glassjax
from glassjax import inversion
from glassjax.cli import main


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli")
    write_prior(folder / "prior.npz")
    write_target(folder / "g.dat")
    write_target(folder / "big_g.dat", function="G")
    write_target(folder / "far.dat", rmax=25.0)
    return folder


@pytest.fixture
def no_work(monkeypatch):
    def fail(*_, **__):
        raise AssertionError("the error came after the work had started")

    monkeypatch.setattr(inversion, "sample", fail)


def error_of(capsys, *arguments) -> str:
    code = main([str(a) for a in arguments])
    captured = capsys.readouterr()
    assert code == 2, captured
    assert captured.err.startswith("glassjax: error: ") and captured.err.count("\n") == 1
    return captured.err


def arguments(place, out, **changes):
    """Arguments of a small inversion; a change to None leaves the option out."""
    options = dict(function="g", composition="Si", atoms=32, density=2.3, prior=place / "prior.npz", replicas=2, steps=10, chunk=2, out=out)
    options |= changes
    file = options.pop("file", place / "g.dat")
    flat = [x for key, value in options.items() if value is not None for x in (f"--{key.replace('_', '-')}", value)]
    return ["invert", file, *flat]


FILES = {
    "words": ("alpha beta\ngamma delta\n", "no line of numbers"),
    "one column": ("1\n2\n3\n4\n5\n6\n", "one column"),
    "unsorted": ("1 1\n3 1\n2 1\n4 1\n5 1\n6 1\n", "increasing"),
    "repeated": ("1 1\n2 1\n2 1\n4 1\n5 1\n6 1\n", "again"),
    "nan": ("1 1\nnan 1\n3 1\n4 1\n5 1\n6 1\n", "NaN"),
}


@pytest.mark.parametrize("case", FILES)
def test_bad_files(case, place, tmp_path, capsys, no_work):
    text, expected = FILES[case]
    (tmp_path / "bad.dat").write_text(text)
    assert expected in error_of(capsys, *arguments(place, tmp_path / "out", file=tmp_path / "bad.dat"))
    assert not (tmp_path / "out").exists()


BAD = {
    "missing file": (dict(file="nowhere.dat"), "no such file"),
    "no function": (dict(function=None), "--function"),
    "no density": (dict(density=None), "--density"),
    "both densities": (dict(number_density=0.0489), "both"),
    "number density as g/cm3": (dict(density=0.0489), "--number-density"),
    "g/cm3 as number density": (dict(density=None, number_density=2.3), "--density"),
    "element not in the prior": (dict(composition="Ge", density=5.0), "not in the prior"),
    "no such element": (dict(composition="Xx"), "Xx"),
    "too few atoms": (dict(atoms=4), "at least 8"),
    "no atoms": (dict(atoms=None), "--atoms"),
    "atoms that do not divide": (dict(composition="SiO2", atoms=32), "multiple of 3"),
    "impossible distance": (dict(minimum_distance=4.0), "minimum distance"),
    "impossible density": (dict(density=11.0), "fill"),
    "no replicas": (dict(replicas=0), "at least 1"),
    "no such prior": (dict(prior="granite"), "granite"),
    "no such protocol": (dict(protocol="magic"), "two-stage"),
    "window with g": (dict(window="cosine"), "window"),
    "empty range": (dict(rmin=5.9), "at least 5"),
    "negative uncertainty": (dict(uncertainty=-0.1), "positive"),
    "gradient without strength": (dict(method="gradient"), "strength"),
    "no out": (dict(out=None), "--out"),
    "init missing": (dict(init="nowhere.xyz"), "no such file"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_options(case, place, tmp_path, capsys, no_work):
    changes, expected = BAD[case]
    assert expected in error_of(capsys, *arguments(place, **dict(out=tmp_path / "out") | changes))


def test_function_that_contradicts_the_limits(place, tmp_path, capsys, no_work):
    assert "--function G" in error_of(capsys, *arguments(place, tmp_path / "out", file=place / "big_g.dat"))
    assert "--function g" in error_of(capsys, *arguments(place, tmp_path / "out", function="G"))


def test_rmax_beyond_the_cell(place, tmp_path, capsys, no_work):
    assert "--rmax" in error_of(capsys, *arguments(place, tmp_path / "out", file=place / "far.dat"))


def test_corrupted_prior(place, tmp_path, capsys, no_work):
    content = (place / "prior.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(content[: len(content) // 2])
    assert "corrupted" in error_of(capsys, *arguments(place, tmp_path / "out", prior=tmp_path / "cut.npz"))


def test_unwritable_out(place, tmp_path, capsys, no_work):
    (tmp_path / "file").write_text("in the way")
    assert "cannot write" in error_of(capsys, *arguments(place, tmp_path / "file" / "out"))
    assert "is a file" in error_of(capsys, *arguments(place, tmp_path / "file"))


def test_out_that_holds_a_run(place, tmp_path, capsys, no_work):
    (tmp_path / "run.json").write_text("{}")
    assert "--resume" in error_of(capsys, *arguments(place, tmp_path))


TOML = """
composition = "Si"
atoms = 32
density = 2.3
prior = "prior.npz"
replicas = 2
steps = 10
chunk = 2
{extra}
[[target]]
file = "g.dat"
function = "g"
{more}
"""


@pytest.mark.parametrize("extra, more, expected", [("replica = 3", "", "replicas"), ("", "widht = 0.1", "width"), ("seed = 'a'", "", "seed")])
def test_toml_keys(extra, more, expected, place, tmp_path, capsys, no_work):
    run = place / "bad.toml"
    run.write_text(TOML.format(extra=extra, more=more))
    assert expected in error_of(capsys, "invert", run, "--out", tmp_path / "out")


def test_toml_protocol_keys(place, tmp_path, capsys, no_work):
    run = place / "bad.toml"
    run.write_text(TOML.format(extra="[protocol]\nsigma = 3", more=""))
    assert "sigma_max" in error_of(capsys, "invert", run, "--out", tmp_path / "out")


def test_run_writes_everything_and_toml_agrees(place, tmp_path, capsys):
    assert main([str(a) for a in arguments(place, tmp_path / "a")]) == 0
    shown = capsys.readouterr()
    assert "100 %" in shown.err and "R = " in shown.err and "results in" in shown.out
    frames = ase.io.read(tmp_path / "a" / "ensemble.extxyz", ":")
    assert [int(f.info["replica"]) for f in frames] == [0, 1] and {"seed", "number_density", "r_factor_g"} <= set(frames[0].info)
    record = json.loads((tmp_path / "a" / "run.json").read_text())
    assert len(record["inputs"]["targets"][0]["sha256"]) == 64 and len(record["prior"]["sha256"]) == 64
    assert {"conventions", "tables", "versions", "timings", "seed", "protocol", "device"} <= set(record)
    assert [row["status"] for row in record["replicas"]] == ["ok", "ok"]
    lines = (tmp_path / "a" / "fit_g.csv").read_text().splitlines()
    head = next(line for line in lines if not line.startswith("#"))
    assert head == "x,data,uncertainty,model_mean,model_spread,replica_0,replica_1"
    table = np.loadtxt(tmp_path / "a" / "fit_g.csv", delimiter=",", skiprows=lines.index(head) + 1)
    assert np.isfinite(table).all() and np.allclose(table[:, 3], table[:, 5:].mean(axis=1), atol=1e-5)
    assert (tmp_path / "a" / "fit.png").read_bytes().startswith(b"\x89PNG")

    run = place / "run.toml"
    run.write_text(TOML.format(extra="", more=""))
    assert main(["invert", str(run), "--out", str(tmp_path / "b")]) == 0
    assert (tmp_path / "a" / "ensemble.extxyz").read_bytes() == (tmp_path / "b" / "ensemble.extxyz").read_bytes()
    # a finished run resumed gives the same once more
    assert main(["invert", str(run), "--out", str(tmp_path / "b"), "--resume"]) == 0
    assert (tmp_path / "a" / "ensemble.extxyz").read_bytes() == (tmp_path / "b" / "ensemble.extxyz").read_bytes()


def test_generate_and_spectra(place, tmp_path, capsys):
    out = tmp_path / "free"
    options = f"--composition Si --atoms 32 --density 2.3 --prior {place / 'prior.npz'} --replicas 2 --steps 10 --chunk 2".split()
    assert main(["generate", *options, "--out", str(out)]) == 0
    assert (out / "ensemble.extxyz").exists() and not (out / "fit.png").exists()
    for function, extra in (("g", ["--rmax", "6"]), ("S", ["--rmax", "8", "--qmax", "15"])):
        table = tmp_path / f"{function}.csv"
        assert main(["spectra", str(out / "ensemble.extxyz"), "--function", function, *extra, "--out", str(table)]) == 0
        values = np.loadtxt(table, delimiter=",", skiprows=4)
        assert values.shape[1] == 4 and np.isfinite(values).all() and table.with_suffix(".png").exists()
    capsys.readouterr()
    assert "--rmax" in error_of(capsys, "spectra", out / "ensemble.extxyz", "--function", "g", "--rmax", "40", "--out", tmp_path / "x.csv")


def write_germanium(folder):
    ase.io.write(folder / "germanium.extxyz", ase.Atoms("Ge2", [[0, 0, 0], [2.4, 0, 0]], cell=[9.0] * 3, pbc=True))
    return folder / "germanium.extxyz"


def test_train(place, tmp_path, capsys):
    from tiny import packing

    from glassjax import to_atoms
    from glassjax.io.atoms import read_structures
    from glassjax.priors.training import denoising_losses

    ase.io.write(tmp_path / "cells.extxyz", [to_atoms(packing(seed)) for seed in (1, 2)])
    train = ["train", str(tmp_path / "cells.extxyz"), "--steps", "2", "--batch", "1", "--out"]
    assert "npz" in error_of(capsys, *train, tmp_path / "prior.bin")
    assert "no such file" in error_of(capsys, "train", "nowhere.xyz", "--out", tmp_path / "prior.npz")
    assert "Ge" in error_of(capsys, *train, tmp_path / "prior.npz", "--elements", "Ge")

    out = tmp_path / "prior.npz"
    assert "needs 0 < sigma_min < sigma_max" in error_of(capsys, *train, out, "--sigma-min", "2")
    assert main([*train, str(out), "--floor", "0", "--learning-rate", "0.001", "--sigma-min", "0.1", "--sigma-max", "0.3"]) == 0
    settings = json.loads(glassjax.load_prior(out).card)["training"]
    assert (settings["floor"], settings["learning_rate"]) == (0, 0.001)
    assert (settings["sigma_min"], settings["sigma_max"]) == (0.1, 0.3)
    assert out.exists() and out.with_suffix(".csv").exists() and out.with_suffix(".png").exists()
    assert glassjax.load_prior(out).elements == ("Si",)
    capsys.readouterr()
    assert "--resume" in error_of(capsys, *train, out)

    assert "got no prior 'nowhere'" in error_of(capsys, *train, tmp_path / "next.npz", "--start", "nowhere")
    train[train.index("--steps") + 1] = "0"  # what it begins from, unchanged
    ase.io.write(tmp_path / "others.extxyz", [to_atoms(packing(seed)) for seed in (3, 4)])
    assert "Ge" in error_of(capsys, *train, tmp_path / "next.npz", "--validation", write_germanium(tmp_path))
    assert not (tmp_path / "next.npz").exists()
    judged, others = tmp_path / "judged.npz", str(tmp_path / "others.extxyz")
    assert "to validate on; needs cells that are not" in error_of(capsys, *train, judged, "--validation", tmp_path / "cells.extxyz")
    ase.io.write(tmp_path / "small.extxyz", to_atoms(packing(3, atoms=24)))
    assert "other numbers of atoms" in error_of(capsys, *train, judged, "--validation", tmp_path / "small.extxyz")
    assert main([*train, str(judged), "--start", str(out), "--validation", others]) == 0
    said, facts = capsys.readouterr().out, json.loads(glassjax.load_prior(judged).card)["validation"]
    assert "losses of 2 training cells and 2 others" in said and list(facts["losses"]) == ["0.05", "0.1", "0.2", "0.4", "0.7"]
    assert facts["cells"] == [2, 2] and facts["files"][0]["file"] == others
    for name, file in (("training", tmp_path / "cells.extxyz"), ("validation", others)):
        value, error = denoising_losses(glassjax.load_prior(judged), read_structures(file))[0.4]
        assert facts["losses"]["0.4"][name] == round(value, 4) and f"{value:.3f} +- {error:.3f}" in said
    assert main([*train, str(tmp_path / "next.npz"), "--start", str(out)]) == 0
    begun, ended = glassjax.load_prior(tmp_path / "next.npz"), glassjax.load_prior(out)
    assert json.loads(begun.card)["start"] == dict(prior="prior.npz", steps=2)
    jax.tree.map(np.testing.assert_array_equal, begun.params, ended.params)


def test_melt_quench_errors(tmp_path, capsys):
    out = tmp_path / "cells.extxyz"
    assert "number density" in error_of(capsys, "melt-quench", "Si", "--density", "0.05", "--out", out)
    assert "potential" in error_of(capsys, "melt-quench", "Ge", "--density", "5", "--out", out)
    assert "rate" in error_of(capsys, "melt-quench", "Si", "--density", "2.3", "--rate", "-1", "--out", out)


def test_version_and_cheap_import():
    code = (
        "import sys, glassjax, glassjax.cli\n"
        "heavy = {'jax', 'jax_md', 'ase', 'matplotlib', 'flax', 'numpy'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    shown = subprocess.run([sys.executable, "-m", "glassjax", "--version"], check=True, capture_output=True, text=True)
    assert shown.stdout.strip() == f"glassjax {glassjax.__version__}"


def test_version_is_the_package_s():
    import tomllib
    from pathlib import Path

    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())
    assert project["project"]["version"] == glassjax.__version__


def test_flat_names_exist_and_hide_no_module():
    from pathlib import Path

    modules = {p.stem for p in Path(glassjax.__file__).parent.iterdir()}
    for name in glassjax.__all__:
        assert getattr(glassjax, name) is not None and name not in modules


# --- identify, spectra, convert ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
def silica(tmp_path):
    """Two frames of 24 atoms of silica."""
    from glassjax import random_packing, to_atoms

    symbols = [("Si", "O", "O")[i % 3] for i in range(24)]
    frames = [random_packing(seed, symbols, number_density=0.06, minimum_distance=1.4, elements=("Si", "O")) for seed in (0, 1)]
    ase.io.write(tmp_path / "silica.extxyz", [to_atoms(s) for s in frames])
    return tmp_path / "silica.extxyz", frames


def test_choices_are_the_library_s():
    """Repeated in cli.py because --help must not load JAX."""
    from glassjax import cli, targets
    from glassjax.observables import pair, real_space, reciprocal, weights

    assert cli.WEIGHTS == weights.WEIGHTS and cli.TERMINATIONS == tuple(real_space.TERMINATIONS)
    assert cli.TARGETS == targets.FUNCTIONS and set(cli.COMPUTED) == {*targets.FUNCTIONS, *pair.PARTIAL_ONLY}
    for window in cli.WINDOWS:
        assert reciprocal.window_function(np.array([0.0]), 5.0, window)[0] == 1.0


def test_spectra_of_a_mixture(silica, tmp_path, capsys, quick_compile):
    """Several functions and every partial of two frames, from one pass: tables that say what they hold, and one picture."""
    from glassjax.observables import pair_distribution, structure_factor
    from glassjax.report import curve

    path, frames = silica
    out = tmp_path / "curves.csv"
    asked = "--function g S S_CC --partials --rmax 6 --qmax 12 --points 40".split()
    asked += ["--out", str(out)]
    assert main(["spectra", str(path), *asked]) == 0
    names = [f"{f}_{p}" for f in "gS" for p in ("Si-Si", "Si-O", "O-O")] + ["S_CC"]
    files = {name: next(f for f in tmp_path.iterdir() if f.suffix == ".csv" and f.stem.lower() == f"curves_{name}".lower()) for name in names}
    assert len(list(tmp_path.glob("*.csv"))) == len(names) and out.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    for name, file in files.items():
        lines = file.read_text().splitlines()
        assert lines[0].startswith(f"# {name.replace('_', ' ', 1) if name != 'S_CC' else name}: ") and lines[3] == "x,mean,frame_0,frame_1"
        table = np.loadtxt(file, delimiter=",", skiprows=4)
        assert table.shape == (40, 4) and np.isfinite(table).all()
        np.testing.assert_allclose(table[:, 1], table[:, 2:].mean(axis=1), rtol=1e-5, atol=1e-6)
    assert "-> 1; Si-O; Gaussian width 0.15 A" in files["g_Si-O"].read_text() and "window cosine to 6.0 A" in files["S_O-O"].read_text()
    composition = {"Si": 1, "O": 2}
    for name, one in (
        ("g_Si-O", pair_distribution(np.linspace(0.08, 6.0, 40), composition, partial=("Si", "O"))),
        ("S_CC", structure_factor(np.linspace(0.5, 12.0, 40), composition, function="S_CC", rmax=6.0)),
    ):
        table = np.loadtxt(files[name], delimiter=",", skiprows=4)
        np.testing.assert_allclose(table[:, 3], curve(one, frames[1]), rtol=1e-4, atol=1e-4)
    angles = tmp_path / "angles.csv"
    assert main(["spectra", str(path), "--function", "ADF", "--triplet", "O-Si-O", "--cutoff", "2.4", "--out", str(angles)]) == 0
    table = np.loadtxt(angles, delimiter=",", skiprows=4)
    np.testing.assert_allclose(np.trapezoid(table[:, 2:], np.radians(table[:, 0]), axis=0), 1.0, atol=0.01)
    assert angles.read_text().startswith("# ADF O-Si-O")
    capsys.readouterr()
    assert "--weights" in error_of(capsys, "spectra", path, "--function", "g", "--out", out)
    assert "Si-O" in error_of(capsys, "spectra", path, "--function", "g", "--partial", "SiO", "--out", out)


def test_identify(place, tmp_path, capsys):
    values = np.loadtxt(place / "g.dat")
    labelled = tmp_path / "labelled.dat"
    np.savetxt(labelled, values, header="neutron Qmax=25.0\nr(A) g(r)")
    assert main(["identify", str(labelled), "--composition", "Si", "--number-density", "0.0493"]) == 0
    shown = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert shown["function"].startswith("g(r)") and shown["radiation"] == "neutron" and shown["qmax"] == "25" and "60 points" in shown["range"]
    assert main(["identify", str(place / "g.dat")]) == 0
    assert 'pass function="g"' in capsys.readouterr().out
    assert "no such file" in error_of(capsys, "identify", "nowhere.dat")
    assert "number_density" in error_of(capsys, "identify", labelled, "--number-density", "-1")


@pytest.mark.parametrize("suffix", [".cif", ".data", ".rmc6f", ".extxyz"])
def test_convert(suffix, silica, tmp_path, capsys):
    path, frames = silica
    assert main(["convert", str(path), "--out", str(tmp_path / f"out{suffix}")]) == 0
    written = [tmp_path / name for name in ([f"out{suffix}"] if suffix == ".extxyz" else [f"out_000{i}{suffix}" for i in (1, 2)])]
    assert capsys.readouterr().out.strip() == f"written: {', '.join(map(str, written))}"
    if suffix == ".rmc6f":
        text = written[1].read_text()
        assert text.startswith("(Version 6f format configuration file)") and "24" in text
        return
    options = dict(format="lammps-data", Z_of_type={1: 14, 2: 8}, units="metal", atom_style="atomic") if suffix == ".data" else {}
    read = ase.io.read(written[-1], index=-1, **options)
    assert sorted(read.get_chemical_symbols()) == sorted(frames[1].symbols)
    assert read.get_volume() == pytest.approx(24 / 0.06, rel=1e-4)
    expected = np.sort(np.asarray(to_distances(frames[1])))
    np.testing.assert_allclose(np.sort(read.get_all_distances(mic=True), axis=None), expected, atol=1e-3)


def to_distances(s):
    from glassjax import to_atoms

    return to_atoms(s).get_all_distances(mic=True).ravel()
