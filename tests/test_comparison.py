"""Error, diversity and dED against their formulas and closed forms; what cannot be compared is refused; the command prints and writes it all."""

import json

import ase.io
import jax
import numpy as np
import pytest
from ase.build import bulk

import glassjax
from glassjax import comparison_command
from glassjax.analysis import bond_cutoffs, compare, modalities
from glassjax.analysis.curve_sets import Curves, CurveSet, curves
from glassjax.analysis.summary import local_summary, mean_and_spread
from glassjax.cli import main

CHEAP = ["ADF", "coordination", "dihedral", "q4"]


def shaken(deviation=0.1, seed=0, symbols=None, a=5.431, n=2):
    atoms = bulk("Si", "diamond", a=a, cubic=True).repeat((n, 1, 1))
    atoms.positions += np.random.default_rng(seed).normal(scale=deviation, size=atoms.positions.shape)
    if symbols:
        atoms.symbols[:] = symbols * (len(atoms) // len(symbols))
    return glassjax.from_atoms(atoms)


def ensemble(count=3, first=0, **options):
    return [shaken(seed=first + i, **options) for i in range(count)]


def made(values, x=None, modality="PDF", feature="total", **changes):
    """A `CurveSet` of one feature from rows."""
    values = np.asarray(values, dtype=float)
    x = np.arange(values.shape[1], dtype=float) if x is None else np.asarray(x)
    facts = dict(replicas=len(values), counts={"Si": 8}, volume=160.0, cutoffs={("Si", "Si"): 2.85}, surrogates=[]) | changes
    return CurveSet({modality: {feature: Curves(x, values)}}, **facts)


def test_the_formulas_by_hand():
    # norm 4 (of a replica, not of the mean); mean (1, 2); deviations 1 and 2; generated mean (2, 2), deviations 1 and 0
    found = compare(made([[2, 2], [3, 2], [1, 2]]), made([[0, 0], [2, 4]]))
    (row,) = found.rows
    assert (row.norm, row.points) == (4, 2)
    assert row.diversity == pytest.approx((1 + 2) / 2 / 4)
    assert row.error == pytest.approx((1 + 0) / 2 / 4)
    assert row.ded == pytest.approx(1 / 8 - 3 / 8) and found.ded == {"PDF": pytest.approx(-0.25)}
    assert row.generated_diversity == pytest.approx(np.sqrt(2 / 3) / 2 / 4)
    # of three replicas the population deviation is 0.7236 of the true one on average, of two 0.5642
    assert row.diversity_ratio == pytest.approx(np.sqrt(2 / 3) / 3 * 0.56419 / 0.72360, rel=1e-4)
    # the jackknife of a mean is its standard error: here |mean - reference| is linear in the first column
    assert row.uncertainty == pytest.approx(np.std([2, 3, 1], ddof=1) / np.sqrt(3) / 2 / 4)
    assert "varies too little" in found.table()


def test_negative_curves_count_by_their_size_and_noise_by_its_level():
    (row,) = compare(made([[-1.0, 0.0]]), made([[-4.0, 1.0], [-2.0, 1.0]])).rows
    assert row.norm == 4 and row.error == pytest.approx((2 + 1) / 2 / 4) and row.uncertainty is None
    assert row.diversity == pytest.approx(1 / 2 / 4)
    rng = np.random.default_rng(0)
    reference, generated = 10 + rng.normal(size=(2, 40, 2000))
    (row,) = compare(made(generated), made(reference)).rows
    assert row.diversity * row.norm == pytest.approx(1, rel=0.03)
    assert row.error * row.norm == pytest.approx(np.sqrt(2 / np.pi) * np.sqrt(2 / 40), rel=0.05)  # two means of 40
    assert row.diversity_ratio == pytest.approx(1, abs=0.03) and row.ded < 0


def test_one_reference_has_no_diversity_and_a_curve_that_nobody_has_no_row():
    (row,) = compare(made([[1.0, 3.0]]), made([[1.0, 2.0]])).rows
    assert row.diversity == 0 and row.diversity_ratio is None and row.ded == row.error == pytest.approx(0.25)
    assert compare(made([[0.0, 0.0]]), made([[0.0, 0.0]])).rows == ()
    (row,) = compare(made([[0.0, 5.0]]), made([[0.0, 0.0]])).rows  # only generated: scaled by itself
    assert row.norm == 5 and row.ded == pytest.approx(0.5)


def test_names_are_matched_and_ring_sizes_cut():
    ours = made([[0.5, 0.5], [0.3, 0.7]], x=["<0 0 12 0>", "<9 9 9 9>"], modality="Voronoi")
    theirs = made([[0.6, 0.4]], x=["<0 0 12 0>", "<0 6 0 8>"], modality="Voronoi")
    (row,) = compare(ours, theirs).rows
    assert row.points == 2 and row.error == pytest.approx((0.2 + 0.4) / 2 / 0.6)
    (row,) = compare(made([[1.0, 2.0, 3.0]], modality="rings"), made([[1.0, 2.0]], modality="rings")).rows
    assert row.points == 2 and row.error == 0


def test_identical_ensembles_have_no_error_in_any_modality(quick_compile):
    pytest.importorskip("matscipy")
    frames = ensemble(2)
    reference = curves(frames)
    assert list(reference) == [m for m in modalities.MODALITIES if m not in ("partial PDF", "XANES")]
    found = compare(reference, reference)
    assert {row.modality for row in found.rows} == set(reference)
    for row in found.rows:
        assert row.error == 0 and row.ded == -row.diversity and row.generated_diversity == row.diversity
        assert row.diversity > 0 or row.modality in ("coordination", "rings"), row
    told = local_summary(frames, reference)
    assert {"rings of 6 atoms, per atom", "coordination", "shortest distance (A)", "bond angle (degrees)"} <= told.keys()
    assert told["shortest distance (A)"] == pytest.approx([glassjax.shortest_distance(s) for s in frames], abs=1e-4)
    assert told["coordination"] == pytest.approx([4, 4]) and told["rings of 6 atoms, per atom"] == pytest.approx([2, 2])
    assert any(name.startswith("share of <") for name in told)
    json.dumps(found.to_dict())


def test_curves_are_those_of_the_observables_and_integrate_to_one(quick_compile):
    frames = ensemble(2)
    found = curves(frames, [*CHEAP, "Voronoi"], cutoffs=2.85)
    for modality, feature, scale in (("ADF", "Si-Si-Si", np.pi / 180), ("dihedral", "total", np.pi / 180), ("q4", "total", 1.0)):
        one = found[modality][feature]
        assert np.trapezoid(one.values, one.x * scale, axis=1) == pytest.approx([1, 1], abs=2e-3)
    shares = found["coordination"]["total"]
    assert shares.values.sum(axis=1) == pytest.approx([1, 1]) and shares.x[shares.values.argmax(axis=1)].tolist() == [4, 4]
    assert found["Voronoi"]["total"].values.sum(axis=1) == pytest.approx([1, 1])
    spectra = curves(frames, ["PDF"])["PDF"]["total"]
    observable = glassjax.pair_distribution(np.linspace(0.08, 8, 100), ["Si"], width=0.15).fit(frames[1])
    np.testing.assert_allclose(spectra.values[1], jax.jit(observable)(frames[1]), atol=2e-3)


def test_features_per_pair_triplet_and_element_in_alphabetical_order():
    frames = [shaken(symbols=["Si", "C"], a=4.36), shaken(symbols=["Si", "C"], a=4.36, seed=1)]
    found = curves(frames, [*CHEAP, "Voronoi"])
    assert list(found.counts.items()) == [("C", 8), ("Si", 8)]
    assert set(found.cutoffs) == {("C", "C"), ("C", "Si"), ("Si", "Si")}
    assert list(found["ADF"]) == ["C-C-C", "C-C-Si", "Si-C-Si", "C-Si-C", "C-Si-Si", "Si-Si-Si"]
    assert set(found["coordination"]) == {"total", "C-C", "C-Si", "Si-C", "Si-Si"}
    assert set(found["dihedral"]) == {"total", "C-C", "C-Si", "Si-Si"}
    assert set(found["q4"]) == set(found["Voronoi"]) == {"total", "C", "Si"}
    turned = [glassjax.from_atoms(glassjax.to_atoms(s), elements=("Si", "C")) for s in frames]  # another order of elements, the same ensemble
    assert all(row.error == pytest.approx(0, abs=1e-6) for row in compare(turned, found).rows)
    order = modalities.edges_with_tables(("O", "Si"))
    assert order == ["O", "Si"] and modalities.edges_with_tables(("Ge",)) == []


def test_a_mean_over_features_is_the_modality():
    frames = [shaken(symbols=["Si", "C"], a=4.36, seed=i) for i in range(4)]
    found = compare(frames[:2], frames[2:], ["coordination", "q4"])
    for name, mean in found.modalities().items():
        rows = [row for row in found.rows if row.modality == name]
        assert len(rows) > 1 and mean["ded"] == pytest.approx(np.mean([row.ded for row in rows])) == found.ded[name]
        assert f"{name:<13} mean" in found.table()


def test_a_collapsed_and_a_wrong_ensemble_are_told():
    reference = curves(ensemble(6, deviation=0.15), ["ADF", "q4"], cutoffs=3.2)
    good = compare(ensemble(6, first=50, deviation=0.15), reference)
    copies = compare([shaken(0.15, seed=99)] * 6, reference)
    wrong = compare(ensemble(6, first=50, deviation=0.4), reference)
    for name in reference:
        assert good.modalities()[name]["diversity_ratio"] > 0.7 and copies.modalities()[name]["diversity_ratio"] == pytest.approx(0, abs=1e-6)
        assert good.ded[name] < 0.2 * wrong.ded[name] and wrong.ded[name] > 0


def empty():
    one = shaken()
    return glassjax.Structure(positions=one.positions, cell=one.cell, species=np.full(16, -1, np.int32), elements=("Si",))


BAD = {
    "other elements": (lambda: compare(ensemble(1), [shaken(symbols=["Ge"], a=5.431)]), "needs the same elements"),
    "other numbers": (lambda: compare(ensemble(1), [shaken(n=3)]), "same_cell=False"),
    "other volume": (lambda: compare(ensemble(1), [shaken(a=6.0)]), "within 5%"),
    "no frames": (lambda: compare([], ensemble(1)), "at least one"),
    "one structure": (lambda: curves(shaken()), "a list"),
    "empty frame": (lambda: curves([shaken(), empty()]), "frame 1 without atoms"),
    "mixed compositions": (lambda: curves([shaken(), shaken(symbols=["Ge"])]), "one composition"),
    "unknown modality": (lambda: curves(ensemble(1), ["colour"]), "needs some of PDF"),
    "XANES alone": (lambda: curves(ensemble(1), ["XANES"]), "without a surrogate"),
    "no table": (lambda: curves([shaken(symbols=["Ge"])], ["EXAFS"]), "no scattering table"),
    "cutoff": (lambda: curves(ensemble(1), ["ADF"], cutoffs=-1.0), "positive length"),
    "missing modality": (lambda: compare(made([[1.0]]), made([[1.0]]), ["ADF"]), "without ADF"),
    "two cutoffs": (lambda: compare(made([[1.0]]), made([[1.0]], cutoffs={("Si", "Si"): 2.0})), "one set of cutoffs"),
    "not finite": (lambda: compare(made([[np.nan]]), made([[1.0]])), "not finite"),
    "other axes": (lambda: compare(made([[1.0, 2.0]]), made([[1.0, 2.0]], x=[0.0, 2.0])), "same axis"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_compared_is_refused(case):
    call, says = BAD[case]
    with pytest.raises(ValueError, match=says):
        call()


def test_other_sizes_are_compared_on_request():
    assert compare(ensemble(2), [shaken(n=3, seed=7)], ["coordination"], same_cell=False).rows[0].error == 0


def test_mean_and_spread():
    assert mean_and_spread(np.array([1.0, 3.0, np.nan])) == (2.0, pytest.approx(np.sqrt(2)))
    assert mean_and_spread(np.array([1.0])) == (1.0, None)
    assert np.isnan(mean_and_spread(np.array([np.nan]))[0])


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compare")
    for name, first in (("reference", 0), ("ensemble", 10)):
        frames = [glassjax.to_atoms(s) for s in ensemble(2, first=first, deviation=0.12, symbols=["Si", "C"], a=4.36)]
        ase.io.write(folder / f"{name}.extxyz", frames)
    (folder / "run").mkdir()
    (folder / "run" / "ensemble.extxyz").write_text((folder / "ensemble.extxyz").read_text())
    (folder / "unfinished").mkdir()
    ase.io.write(folder / "other.extxyz", bulk("Ge", "diamond", a=5.66, cubic=True))
    ase.io.write(folder / "large.extxyz", [glassjax.to_atoms(shaken(symbols=["Si", "C"], a=4.36, n=3))])
    (folder / "empty.extxyz").write_text("0\n\n")
    return folder


def test_the_command_prints_and_writes_every_number(place, capsys):
    options = ["--modalities", "ADF", "coordination", "Voronoi", "--cutoff", "C-Si=2.4", "Si-Si=2.6"]
    assert main(["compare", str(place / "run"), str(place / "reference.extxyz"), *options, "--out", str(place / "o.json")]) == 0
    text = capsys.readouterr().out
    for word in ("2 structures against 2 of C8 Si8", "C-Si 2.4", "dED", "C-Si-C", "Warren-Cowley C-Si", "shortest distance (A)", "+-", "share of <"):
        assert word in text, word
    told = json.loads((place / "o.json").read_text())
    assert told["replicas"] == dict(generated=2, reference=2) and told["cutoffs"] == {"C-C": 0.0, "C-Si": 2.4, "Si-Si": 2.6}
    rows = {(row["modality"], row["feature"]): row for row in told["rows"]}
    assert rows["ADF", "C-Si-C"]["ded"] == pytest.approx(rows["ADF", "C-Si-C"]["error"] - rows["ADF", "C-Si-C"]["diversity"])
    assert told["local_order"]["coordination C-Si"]["reference"]["mean"] == pytest.approx(4)
    assert (
        main(["compare", *[str(place / f"{n}.extxyz") for n in ("ensemble", "reference")], "--modalities", "q6", "--out", str(place / "o.csv")]) == 0
    )
    lines = (place / "o.csv").read_text().splitlines()
    assert lines[0].startswith("modality,feature,points,norm,error") and lines[1].startswith("q6,total,51,")
    assert any(line.startswith("Warren-Cowley Si-C,") for line in lines)


BAD_COMMANDS = {
    "no file": (["nowhere.xyz", "reference.extxyz"], "no such file"),
    "unfinished run": (["unfinished", "reference.extxyz"], "without ensemble.extxyz"),
    "other elements": (["other.extxyz", "reference.extxyz"], "same elements"),
    "other cell": (["large.extxyz", "reference.extxyz"], "--any-cell"),
    "no atoms": (["empty.extxyz", "reference.extxyz"], "empty.extxyz"),
    "cutoff": (["ensemble.extxyz", "reference.extxyz", "--cutoff", "C+Si"], "Si-O=2.2"),
    "cutoff of another element": (["ensemble.extxyz", "reference.extxyz", "--cutoff", "O-O=2.2"], "not among C, Si"),
    "suffix": (["ensemble.extxyz", "reference.extxyz", "--out", "o.txt"], ".json or .csv"),
    "XANES": (["ensemble.extxyz", "reference.extxyz", "--modalities", "XANES"], "surrogate"),
}


@pytest.mark.parametrize("case", BAD_COMMANDS)
def test_bad_commands_give_one_line(case, place, capsys, monkeypatch):
    words, says = BAD_COMMANDS[case]
    monkeypatch.chdir(place)
    assert main(["compare", *words]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("glassjax: error: ") and captured.err.count("\n") == 1 and says in captured.err
    assert not captured.out


def test_names_of_the_command_are_those_of_the_module():
    assert comparison_command.MODALITIES == modalities.MODALITIES
    assert bond_cutoffs(("Si",)) == {("Si", "Si"): pytest.approx(2.85, abs=0.01)}


def test_xanes_is_the_mean_of_the_surrogates_sites(quick_compile):
    atoms = bulk("C", "diamond", a=3.57, cubic=True)
    atoms.positions += np.random.default_rng(0).normal(scale=0.05, size=atoms.positions.shape)
    frame, surrogate = glassjax.from_atoms(atoms), glassjax.load_surrogate("carbon-xanes")
    one = curves([frame, frame], ["XANES"], surrogate="carbon-xanes")["XANES"]["C:K"]
    spec = glassjax.neighbor_spec(frame, surrogate.cutoff, margin=12.0)
    sites, _ = jax.jit(lambda s: surrogate.sites(s, spec))(frame)
    np.testing.assert_allclose(one.values, np.stack([np.asarray(sites).mean(axis=0)] * 2), atol=1e-3 * float(np.abs(sites).max()))
    np.testing.assert_allclose(one.x, surrogate.x)


def test_ratio_of_diversities_has_no_bias_of_few_replicas():
    """Equally varied ensembles of 3 and 12 replicas: the ratio of population deviations is 0.79 on average, the one reported 1."""
    rng, plain, ratios = np.random.default_rng(0), [], []
    for _ in range(40):
        ours, theirs = (rng.normal(size=(n, 50)) + 5.0 for n in (3, 12))
        row = compare(made(ours), made(theirs)).rows[0]
        plain.append(row.generated_diversity / row.diversity)
        ratios.append(row.diversity_ratio)
    assert np.mean(plain) == pytest.approx(0.724 / 0.936, abs=0.02)
    assert np.mean(ratios) == pytest.approx(1.0, abs=0.02)
    assert compare(made(ours[:1]), made(theirs)).rows[0].diversity_ratio is None


def test_the_uncertainty_of_the_ratio_is_what_other_ensembles_would_scatter():
    """Jackknife against the closed form of one normal number, sqrt(1 / 2n + 1 / 2m), and against ratios of many ensembles."""
    rng = np.random.default_rng(0)
    one = lambda n, points=1: made(rng.normal(size=(n, points)) + 9.0)  # noqa: E731
    expected = np.sqrt(1 / (2 * 99) + 1 / (2 * 199))
    found = [compare(one(100), one(200)).rows[0] for _ in range(40)]
    assert np.mean([row.ratio_uncertainty / row.diversity_ratio for row in found]) == pytest.approx(expected, rel=0.03)
    few = [compare(one(8, 6), one(5, 6)) for _ in range(300)]
    scatter = np.std([found.rows[0].diversity_ratio for found in few])
    # of few replicas the jackknife is on average too large rather than too small (Efron and Stein)
    assert scatter < np.sqrt(np.mean([found.rows[0].ratio_uncertainty ** 2 for found in few])) < 1.4 * scatter
    assert few[0].modalities()["PDF"]["ratio_uncertainty"] == few[0].rows[0].ratio_uncertainty
    assert f"{few[0].rows[0].ratio_uncertainty:.2f}" in few[0].table().splitlines()[1]
    for n, m in ((2, 5), (5, 2)):
        assert compare(one(n, 6), one(m, 6)).rows[0].ratio_uncertainty is None  # two replicas have one deviation


def test_the_uncertainty_of_ded_counts_both_ensembles():
    """Against the scatter of dED over many ensembles, where the reference has few replicas and so most of the doubt; and None for two replicas."""
    rng = np.random.default_rng(2)
    one = lambda n: made(rng.normal(size=(n, 40)) + 50.0)  # noqa: E731
    found = [compare(one(20), one(5)).rows[0] for _ in range(200)]
    scatter = np.std([row.ded * row.norm for row in found])
    assert scatter < np.sqrt(np.mean([(row.ded_uncertainty * row.norm) ** 2 for row in found])) < 1.5 * scatter
    assert np.sqrt(np.mean([(row.uncertainty * row.norm) ** 2 for row in found])) < 0.7 * scatter  # of the error, from the generated ones alone
    means = compare(one(4), one(5)).modalities()["PDF"]
    assert means["ded_uncertainty"] > means["uncertainty"] > 0
    row = compare(one(2), one(5)).rows[0]
    assert row.uncertainty is None and row.ded_uncertainty is None


def test_the_uncertainty_of_a_modality_counts_its_features_together():
    """Two features of the same replicas: equal ones give the same uncertainty, those whose errors go opposite ways a smaller one."""
    values = 5.0 + np.random.default_rng(1).normal(size=(6, 1))
    reference = np.array([[0.0], [2.0], [1.0]])

    def two(first, second):
        one = made(first)
        one["PDF"]["other"] = Curves(np.arange(1.0), second)
        return one

    alike = compare(two(values, values), two(reference, reference))
    assert alike.modalities()["PDF"]["uncertainty"] == pytest.approx(alike.rows[0].uncertainty)
    assert alike.modalities()["PDF"]["ratio_uncertainty"] == pytest.approx(alike.rows[0].ratio_uncertainty)
    opposite = compare(two(values, values), two(reference, 20.0 + reference)).modalities()["PDF"]  # above the one reference, below the other
    assert opposite["uncertainty"] == pytest.approx((1 / 2 - 1 / 22) / 2 * np.std(values, ddof=1) / np.sqrt(6))
