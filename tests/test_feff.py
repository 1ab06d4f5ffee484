"""FEFF: inputs from periodic surroundings, the programs' results against the EXAFS equation, caching, failures, and every bad input."""

import argparse
import dataclasses
import sys

import numpy as np
import pytest

from glassjax import feff, label_command, labelling
from glassjax.feff import LabelSettings, find_feff, path_chi, read_chi, read_mu, read_path, run_site, write_input
from glassjax.labelling import label, load_labels, save_labels
from glassjax.structure import structure

DIAMOND = 5.431  # A, silicon
FRACTIONS = np.array([[0, 0, 0], [0, 2, 2], [2, 0, 2], [2, 2, 0], [1, 1, 1], [1, 3, 3], [3, 1, 3], [3, 3, 1]]) / 4
SMALL = LabelSettings(element="Si", reach=4.0)


def diamond(shift=(), symbols=("Si",) * 8):
    """The cubic cell of diamond silicon; ``shift`` moves the first atoms, A."""
    positions = FRACTIONS * DIAMOND
    positions[: len(shift)] += np.array(shift).reshape(-1, 3)
    return structure(positions, [DIAMOND] * 3, list(symbols))


@pytest.fixture(scope="module")
def feff8l():
    try:
        found = find_feff()
    except FileNotFoundError as error:
        pytest.skip(str(error))
    if not found.modular:
        pytest.skip("GLASSJAX_FEFF names another FEFF")
    return found


@pytest.fixture(scope="module")
def site(feff8l):
    """One site of a distorted cell, with its paths."""
    return run_site(feff8l, diamond([[0.1, -0.05, 0.2]]), 0, LabelSettings(element="Si", reach=5.0), paths=True)


FAKE = """#!{python}
import numpy as np, sys
from pathlib import Path
Path("{log}").open("a").write("run ")
text = Path("feff.inp").read_text()
if "C\\n" in text.partition("ATOMS")[0]:
    print("a warning: the fake FEFF", "does not like carbon")
    sys.exit(3)
start = 1830.0 + float(text.partition("ATOMS")[2].split()[4])
e = np.linspace(0, 50, 101)
rows = np.column_stack([start + e, e, np.sqrt(e / 3.81), np.arctan(e - 10), e, e])
np.savetxt("xmu.dat", rows, header="fake\\n Mu=-1.5E+00 kf=2")
"""


@pytest.fixture
def fake(tmp_path):
    """A program that stands for a user's FEFF: mu(E) that starts at 1830 eV plus x of the first neighbour."""
    program = tmp_path / "myfeff"
    program.write_text(FAKE.format(python=sys.executable, log=tmp_path / "runs"))
    program.chmod(0o755)
    return find_feff(program), lambda: (tmp_path / "runs").read_text().count("run") if (tmp_path / "runs").exists() else 0


def cards(text):
    return {line.split()[0]: line.split()[1:] for line in text.partition("POTENTIALS")[0].splitlines()}


def atoms(text):
    return np.array([line.split() for line in text.partition("ATOMS\n")[2].splitlines()[:-1]], dtype=float)


def test_input_has_every_periodic_neighbour():
    text = write_input(diamond(), 3, LabelSettings(element="Si", reach=6.0, kmax=14.0))
    table = atoms(text)
    distances = np.linalg.norm(table[:, :3], axis=1)
    # shells of diamond: 4, 12, 12, 6, 12, 24, 16, 12 at sqrt(3, 8, 11, 16, 19, 24, 27, 32) a / 4; the cluster ends at 7.5 A
    shells = np.repeat(np.sqrt([0, 3, 8, 11, 16, 19, 24, 27]) * DIAMOND / 4, [1, 4, 12, 12, 6, 12, 24, 16])
    assert np.allclose(distances, shells, atol=2e-4)
    assert table[0, 3] == 0 and (table[1:, 3] == 1).all()
    assert cards(text)["RPATH"] == ["6.0000"] and cards(text)["EXAFS"] == ["20"] and "FMS" not in text


def test_one_atom_cell_and_neighbours_by_ase():
    from ase.neighborlist import neighbor_list

    from glassjax.io.atoms import to_atoms

    primitive = structure([[0.0, 0, 0], [1.3, 1.4, 1.2]], [[0, 2.7, 2.7], [2.7, 0, 2.7], [2.7, 2.7, 0.4]], ["Si", "O"])
    vectors, owners = feff.neighbourhood(primitive, 0, 7.0)
    i, j, d = neighbor_list("ijd", to_atoms(primitive), 7.0)
    assert len(vectors) == np.sum(i == 0)
    assert np.allclose(np.linalg.norm(vectors, axis=1), np.sort(d[i == 0]), atol=1e-4)
    assert np.array_equal(np.bincount(owners), np.bincount(j[i == 0]))


def test_equal_surroundings_give_equal_input():
    first = write_input(diamond(), 0, SMALL)
    assert all(write_input(diamond(), i, SMALL) == first for i in (1, 2, 3))
    moved = dataclasses.replace(diamond(), positions=diamond().positions + 20.0)
    assert write_input(moved, 0, SMALL) == first


def test_potentials_are_the_elements_of_the_cluster():
    mixed = diamond(symbols=["Si", "O", "O", "O", "Ge", "Ge", "Ge", "Ge"])
    text = write_input(mixed, 0, SMALL)
    lines = text.partition("POTENTIALS\n")[2].partition("ATOMS")[0].split("\n")[:-1]
    assert [line.split() for line in lines] == [["0", "14", "Si"], ["1", "8", "O"], ["2", "14", "Si"], ["3", "32", "Ge"]]  # in order of Z
    assert (atoms(text)[1:5, 3] == 3).all()


def test_paths_add_up_to_chi(site):
    total = sum(path_chi(path, site.k) for path in site.paths)
    seen = (site.k >= 3) & (site.k <= 12)
    assert np.abs(total - site.chi)[seen].max() < 0.01 * np.abs(site.chi[seen]).max()
    assert np.isfinite(total).all()


def test_paths_are_the_neighbours(site):
    vectors, _ = feff.neighbourhood(diamond([[0.1, -0.05, 0.2]]), 0, 5.0)
    found = np.repeat([p.reff for p in site.paths], [int(p.degeneracy) for p in site.paths])
    assert np.allclose(np.sort(found), np.linalg.norm(vectors, axis=1), atol=2e-3)
    for path in site.paths:
        assert path.legs == 2 and path.species == ["Si", "Si"]
        assert np.linalg.norm(path.positions[1]) == pytest.approx(path.reff, abs=2e-3)
        assert np.linalg.norm(path.positions[0]) < 1e-6


def test_far_end_of_the_formula():
    """A path of constant columns is a damped sine."""
    k = np.linspace(0.0, 10.0, 11)
    flat = {name: np.full(11, value) for name, value in dict(phase_centre=1.0, phase=0.5, magnitude=0.3, reduction=0.9, mean_free_path=8.0).items()}
    path = feff.FeffPath(legs=2, degeneracy=4.0, reff=2.35, positions=np.zeros((2, 3)), species=["Si", "Si"], k=k, momentum=k, **flat)
    assert path_chi(path, [5.0])[0] == pytest.approx(4 * 0.9 * 0.3 / (5 * 2.35**2) * np.exp(-4.7 / 8) * np.sin(5 * 4.7 + 1.5))
    with pytest.raises(ValueError, match="at most 10"):
        path_chi(path, [12.0])


def test_first_shell_distance(feff8l, site):
    """|Fourier transform| of k^2 chi peaks a few tenths of an angstrom below the bond length, as phase shifts make it."""
    r = np.arange(1.0, 4.0, 0.01)
    window = np.where((site.k > 3) & (site.k < 14), np.sin(np.pi * (site.k - 3) / 11) ** 2, 0.0)
    transform = np.abs(np.exp(2j * np.outer(r, site.k)) @ (site.chi * site.k**2 * window))
    assert r[transform.argmax()] == pytest.approx(2.35 - 0.4, abs=0.2)


def test_labels_are_cached_and_shared(feff8l, tmp_path, monkeypatch):
    frames = [diamond(), diamond([[0.1, 0.0, 0.0]])]
    steps = []
    options = dict(feff=feff8l, cache=tmp_path / "cache", workers=2)
    first = label(frames[0], SMALL, paths=True, out=tmp_path / "labels.npz", report=lambda *state: steps.append(state), **options)
    assert len(list((tmp_path / "cache").iterdir())) == 2 == steps[-1][0]  # eight sites of a crystal: two orientations
    assert not first.failures and first.chi[0].shape == (8, 400) and np.ptp(first.chi[0], axis=0).max() < 1e-4
    monkeypatch.setattr(labelling, "run_input", lambda *_, **__: pytest.fail("FEFF ran again"))
    again = label(frames[0], SMALL, **options)
    assert np.array_equal(again.chi[0], first.chi[0]) and again.paths is None
    with pytest.raises(pytest.fail.Exception, match="ran again"):
        label(frames, SMALL, **options)
    check_same(load_labels(tmp_path / "labels.npz"), first)


def check_same(one, other):
    assert one.settings == other.settings and one.program == other.program and one.failures == other.failures and one.notes == other.notes
    for a, b in zip(one.chi + one.sites + one.fermi_level, other.chi + other.sites + other.fermi_level, strict=True):
        assert np.array_equal(a, b, equal_nan=True)
    for a, b in zip(sum(one.paths, []), sum(other.paths, []), strict=True):
        assert len(a) == len(b)
        for p, q in zip(a, b, strict=True):
            assert p.species == q.species and p.reff == q.reff and np.array_equal(p.positions, q.positions)
            assert np.array_equal(path_chi(p), path_chi(q))


def test_a_failing_site_is_listed_and_the_rest_goes_on(feff8l, tmp_path):
    """Silicon on top of a carbon atom: FEFF gives up on it, and the silicon atoms far away are computed."""
    clash = [[0.0, 0, 0], [0.3, 0, 0], [0.0, 2.3, 0]]
    wide = structure([*clash, [9.0, 0, 0], [11.3, 0, 0]], [18.0] * 3, ["Si", "C", "O", "Si", "O"])
    labels = label([wide], SMALL, feff=feff8l, cache=tmp_path, workers=1, paths=True)
    assert [entry[:2] for entry in labels.failures] == [(0, 0)]
    assert "feff8l_pot wrote no pot.pad" in labels.failures[0][2] and "too big" in labels.failures[0][2]
    assert np.isnan(labels.chi[0][0]).all() and np.isfinite(labels.chi[0][1]).all()
    assert list(labels.sites[0]) == [0, 3] and labels.paths[0][0] == [] and len(labels.paths[0][1]) == 1
    assert len(list(tmp_path.iterdir())) == 1  # a failure is not kept
    save_labels(tmp_path / "labels.npz", labels)
    check_same(load_labels(tmp_path / "labels.npz"), labels)
    alone = structure(clash, [18.0] * 3, ["Si", "C", "O"])
    with pytest.raises(RuntimeError, match="all 1 sites.*too big"):
        label(alone, SMALL, feff=feff8l, cache=tmp_path)


def test_files_stay_where_asked_and_nothing_else_does(feff8l, tmp_path, monkeypatch):
    monkeypatch.setattr(feff.tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    kept = run_site(feff8l, diamond(), 0, dataclasses.replace(SMALL, kmax=12.0), folder=tmp_path / "kept")
    assert kept.k[-1] == 12.0 and kept.paths is None and np.array_equal(read_chi(tmp_path / "kept" / "chi.dat")[0][: len(kept.k)], kept.k)
    free = run_site(feff8l, diamond(), 0, dataclasses.replace(SMALL, kmax=12.0))
    assert np.array_equal(free.chi, kept.chi) and not list((tmp_path / "temporary").iterdir())
    assert read_path((tmp_path / "kept" / "feff0001.dat").read_text()).degeneracy == 4


XANES = dict(element="Si", kind="xanes", reach=4.0)


def test_xanes_by_a_users_program(fake, tmp_path, monkeypatch):
    program, runs = fake
    frames = [diamond([[0.1, 0.0, 0.0]]), diamond()]
    labels = label(frames, LabelSettings(**XANES), feff=program, cache=tmp_path / "cache", out=tmp_path / "labels.npz")
    ran = runs()
    assert ran == len(list((tmp_path / "cache").iterdir())) and labels.chi is None and labels.mu[1].shape == (8, len(labels.energy))
    for frame, own in enumerate(labels.mu):
        for atom, mu in zip(labels.sites[frame], own, strict=True):
            start = 1830.0 + atoms(write_input(frames[frame], int(atom), labels.settings))[1, 0]
            assert np.allclose(mu, np.arctan(labels.energy - start - 10), atol=0.02)
    assert labels.fermi_level[0][0] == -1.5
    monkeypatch.setenv("GLASSJAX_FEFF", str(program.programs[0]))
    again = label(frames, LabelSettings(**XANES), cache=tmp_path / "cache")
    assert runs() == ran and np.array_equal(again.mu[0], load_labels(tmp_path / "labels.npz").mu[0])


def test_cards_of_xanes():
    text = write_input(diamond(), 0, LabelSettings(**XANES, edge="K"))
    assert {key: cards(text)[key] for key in ("SCF", "FMS", "XANES", "CONTROL")} == dict(
        SCF=["5.0000"], FMS=["4.0000"], XANES=["8"], CONTROL=["1"] * 6
    )
    assert "EXAFS" not in cards(text)


def test_a_users_program_that_fails(fake, tmp_path):
    program, _ = fake
    mixed = diamond(symbols=["Si", "Si", "Si", "Si", "C", "Si", "Si", "Si"])
    with pytest.raises(feff.FeffError, match="status 3.*does not like carbon"):
        run_site(program, mixed, 0, LabelSettings(**XANES))
    with pytest.raises(feff.FeffError, match="wrote no chi.dat"):
        run_site(program, diamond(), 0, SMALL)


def test_broken_cache_is_computed_again(fake, tmp_path):
    program, runs = fake
    label(diamond(), LabelSettings(**XANES), feff=program, cache=tmp_path / "cache")
    before = runs()
    file = next((tmp_path / "cache").iterdir())
    file.write_bytes(file.read_bytes()[:100])
    label(diamond(), LabelSettings(**XANES), feff=program, cache=tmp_path / "cache")
    assert runs() == before + 1


BAD_SETTINGS = {
    "kind": (dict(kind="nexafs"), "exafs or xanes"),
    "element": (dict(element="Xx"), "element 'Xx'"),
    "edge unknown to FEFF": (dict(edge="Z9"), "edge 'Z9' of Si"),
    "edge that the element lacks": (dict(edge="N5"), "edge 'N5' of Si"),
    "reach": (dict(reach=-1.0), "reach -1.0"),
    "legs": (dict(legs=1), "1 legs"),
    "cluster inside the reach": (dict(reach=6.0, cluster=5.0), "cluster of 5.0 A"),
    "kmax": (dict(kmax=40.0), "at most 26"),
    "kmax of xanes": (dict(kind="xanes", kmax=20.0), "at most 10"),
}


@pytest.mark.parametrize("case", BAD_SETTINGS)
def test_bad_settings(case):
    changes, message = BAD_SETTINGS[case]
    with pytest.raises(ValueError, match=message):
        LabelSettings(**(dict(element="Si") | changes))


BAD_CALLS = {
    "no structures": (dict(structures=[]), "no structure"),
    "element not there": (dict(settings=LabelSettings(element="Ge")), "got no Ge in frame 0"),
    "element known but without atoms": (dict(structures=[structure([[0.0, 0, 0]], [5.0] * 3, ["O"], ["O", "Si"])]), "got no Si in frame 0"),
    "isolated absorber": (dict(structures=[structure([[0.0, 0, 0]], [12.0] * 3, ["Si"])]), "frame 0: got no neighbour of atom 0 within 4.0 A"),
    "paths of xanes": (dict(settings=LabelSettings(**XANES), paths=True), "needs exafs"),
    "workers": (dict(workers=0), "0 workers"),
    "name of the labels": (dict(out="labels.txt"), "ends in .npz"),
    "no such program": (dict(feff="/nowhere/feff"), "got /nowhere/feff as FEFF"),
    "folder without FEFF8L": (dict(feff="/"), "feff8l_rdinp"),
}


@pytest.mark.parametrize("case", BAD_CALLS)
def test_bad_calls(case, fake, tmp_path):
    changes, message = BAD_CALLS[case]
    options = dict(structures=[diamond()], settings=SMALL, feff=fake[0], cache=tmp_path / "cache") | changes
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        label(options.pop("structures"), options.pop("settings"), **options)
    assert fake[1]() == 0


def test_bad_sites_and_clusters(feff8l, tmp_path):
    with pytest.raises(ValueError, match="got site 8; needs the index of an atom of Si"):
        write_input(diamond(), 8, SMALL)
    with pytest.raises(ValueError, match="got site 1"):
        write_input(diamond(symbols=["Si", "O"] * 4), 1, SMALL)
    with pytest.raises(ValueError, match="FEFF8L needs at most 1000"):
        label(diamond(), dataclasses.replace(SMALL, reach=16.0), feff=feff8l, cache=tmp_path)


def test_xanes_refuses_feff8l(feff8l, tmp_path):
    """FEFF8L would ignore the cards of XANES and write an EXAFS without a word."""
    with pytest.raises(ValueError, match="EXAFS only.*GLASSJAX_FEFF"):
        label(diamond(), LabelSettings(**XANES), feff=feff8l, cache=tmp_path)
    with pytest.raises(ValueError, match="EXAFS only"):
        run_site(feff8l, diamond(), 0, LabelSettings(**XANES))


def test_without_feff(monkeypatch):
    monkeypatch.delenv("GLASSJAX_FEFF", raising=False)
    monkeypatch.setattr(feff.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(FileNotFoundError, match=r"glassjax\[xas\].*GLASSJAX_FEFF"):
        find_feff()


@pytest.mark.parametrize("reader", [read_path, read_chi, read_mu, load_labels])
def test_bad_files(reader, tmp_path):
    (tmp_path / "bad.dat").write_text("# nothing\n1 2 3 4\n1 nan 3 4\n")
    with pytest.raises(ValueError, match="bad.dat: got"):
        reader(tmp_path / "bad.dat")
    with pytest.raises(FileNotFoundError):
        reader(tmp_path / "nowhere.dat")


def command(tmp_path, **changes):
    options = dict(structures=[str(tmp_path / "cells.extxyz")], edge="Si:K", kind="exafs", reach=4.0, out=str(tmp_path / "made" / "labels.npz"))
    rest = dict(legs=None, cluster=None, kmax=None, scf=None, feff=None, workers=1, cache=str(tmp_path / "cache"), paths=False)
    return argparse.Namespace(**(options | rest | changes))


def test_command(fake, tmp_path, capsys):
    from glassjax.io.writers import write_structures

    write_structures(tmp_path / "cells.extxyz", [diamond(), diamond([[0.1, 0.0, 0.0]])])
    assert label_command.label(command(tmp_path, kind="xanes", feff=str(fake[0].programs[0]))) == 0
    assert "16 sites in 2 frames; labels in" in capsys.readouterr().out
    labels = load_labels(tmp_path / "made" / "labels.npz")
    table = np.loadtxt(tmp_path / "made" / "labels.csv", delimiter=",", skiprows=2)
    assert np.allclose(table[:, 1], np.concatenate(labels.mu).mean(axis=0), atol=1e-6)
    with pytest.raises(ValueError, match="write it as Si:K"):
        label_command.label(command(tmp_path, edge="Si"))
