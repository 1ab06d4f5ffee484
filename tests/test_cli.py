"""The command line: bad input gives one clear line before any long work; good input gives the files that were promised."""

import json
import subprocess
import sys

import ase.io
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


def test_train(place, tmp_path, capsys):
    from tiny import packing

    from glassjax import to_atoms

    ase.io.write(tmp_path / "cells.extxyz", [to_atoms(packing(seed)) for seed in (1, 2)])
    train = ["train", str(tmp_path / "cells.extxyz"), "--steps", "2", "--batch", "1", "--out"]
    assert "npz" in error_of(capsys, *train, tmp_path / "prior.bin")
    assert "no such file" in error_of(capsys, "train", "nowhere.xyz", "--out", tmp_path / "prior.npz")
    assert "Ge" in error_of(capsys, *train, tmp_path / "prior.npz", "--elements", "Ge")

    out = tmp_path / "prior.npz"
    assert main([*train, str(out)]) == 0
    assert out.exists() and out.with_suffix(".csv").exists() and out.with_suffix(".png").exists()
    assert glassjax.load_prior(out).elements == ("Si",)
    capsys.readouterr()
    assert "--resume" in error_of(capsys, *train, out)


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
