"""The table of the benchmark over five materials: targets, resumable ensembles, what is kept of them, verdicts and heat maps."""

import json
import sys
import types
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import materials  # noqa: E402
import materials_ensembles as ensembles  # noqa: E402
import materials_figures as figures  # noqa: E402
import materials_pack as packing  # noqa: E402
import materials_priors as priors  # noqa: E402
import materials_reference as reference  # noqa: E402
import materials_sampling as sampling  # noqa: E402
import materials_summary as summary  # noqa: E402
import materials_table as table  # noqa: E402
import materials_targets  # noqa: E402
import materials_verdicts as verdicts  # noqa: E402
import tiny  # noqa: E402
from tiny import allow_rank_promotion  # noqa: E402, F401

import glassjax  # noqa: E402
from glassjax.analysis.modalities import R  # noqa: E402
from glassjax.io.atoms import to_atoms  # noqa: E402
from glassjax.structure import random_packing  # noqa: E402

SMALL = reference.Condition(material="silicon", label="2.5", symbols=("Si",) * 32, density=2.3, seed=1)


@pytest.fixture(scope="module")
def frames():
    made = []
    for seed in range(4):
        atoms = to_atoms(random_packing(seed, list(SMALL.symbols), number_density=tiny.RHO, minimum_distance=2.1))
        atoms.info.update(seed=seed, condition="2.5", material="silicon")
        made.append(atoms)
    return made


@pytest.fixture(scope="module")
def prior():
    return tiny.tiny_prior()


@pytest.mark.parametrize("method", ["g", "XRD", "ADF", "EXAFS"])
def test_targets_are_means_over_the_reference(method, frames):
    structures = materials_targets.structures_of(frames)
    both = materials_targets.targets(method, SMALL, structures)
    parts = [materials_targets.targets(method, SMALL, [one]) for one in structures]
    assert len(both) == 1
    mean = np.mean([np.asarray(part[0].data) for part in parts], axis=0)
    np.testing.assert_allclose(both[0].data, mean, atol=2e-5 * np.abs(mean).max())
    spread = np.std([np.asarray(part[0].data) for part in parts], axis=0).max()
    assert spread > 0.02 * np.abs(mean).max()  # the parts differ, so the mean is not any of them


@pytest.mark.parametrize("method", ["g", "XRD", "ND", "ADF", "EXAFS"])
def test_target_of_a_structure_is_met_by_it(method, frames):
    """Data and model are one function in one unit: the structure itself fits."""
    (structure,) = materials_targets.structures_of(frames[:1])
    goal = materials_targets.targets(method, SMALL, [structure])[0].fit(structure)
    model, data = np.asarray(goal.model(goal.observable(structure))), np.asarray(goal.data)
    assert np.abs(model - data).mean() < 2e-3 * np.abs(data).max()
    assert sampling.r_factors([goal], [structure])[0] < 0.01


def test_xanes_of_carbon_guides_and_is_compared():
    few = reference.Condition(material="carbon", label="2.5", symbols=("C",) * 16, density=2.5, seed=1)
    frame = to_atoms(random_packing(0, list(few.symbols), number_density=0.125, minimum_distance=1.4))
    (structure,) = materials_targets.structures_of([frame])
    goal = materials_targets.targets("XANES", few, [structure])[0].fit(structure)
    assert goal.observable.function == "mu(E)" and sampling.r_factors([goal], [structure])[0] < 0.005
    assert "XANES" in table.modalities_of("carbon") and "XANES" not in table.modalities_of("silicon")
    with pytest.raises(ValueError, match="got XANES of silicon; needs a surrogate, which carbon has"):
        materials_targets.targets("XANES", SMALL, [structure])


@pytest.mark.parametrize("method", ["g", "XRD", "ND", "ADF", "EXAFS"])
def test_targets_of_two_elements(method):
    """Total g(r) is number-weighted; one target per edge."""
    pair = reference.Condition(material="silica", label="100Kps", symbols=("Si",) * 8 + ("O",) * 16, density=2.2, seed=1)
    frame = to_atoms(random_packing(0, list(pair.symbols), number_density=0.066, minimum_distance=1.5))
    (structure,) = materials_targets.structures_of([frame])
    goals = [goal.fit(structure) for goal in materials_targets.targets(method, pair, [structure])]
    assert len(goals) == (2 if method == "EXAFS" else 1)
    if method == "g":

        def partial(a, b):
            return np.asarray(glassjax.pair_distribution(R, list(pair.symbols), partial=(a, b)).fit(structure)(structure))

        total = partial("Si", "Si") / 9 + 4 / 9 * partial("Si", "O") + 4 / 9 * partial("O", "O")
        np.testing.assert_allclose(goals[0].data, total, atol=1e-3 * total.max())


def test_ensembles_are_kept_and_made_again_when_asked_otherwise(frames, prior, tmp_path, monkeypatch):
    calls, largest = [], []

    def sampled(method, condition, frames, *, prior, replicas, seed, steps, free, larger=1.0, near=None):
        calls.append((method, replicas))
        largest.append(larger)
        return materials_targets.structures_of(frames)[:replicas], dict(seconds=1.0, r_factor=None)

    monkeypatch.setattr(ensembles, "sampled", sampled)
    common = dict(prior="silicon", seed=3, fluctuate=False)
    first = ensembles.make("g", SMALL, frames, tmp_path, replicas=2, **common)
    assert ensembles.make("g", SMALL, frames, tmp_path, replicas=2, **common) == first and calls == [("g", 2)]
    kept = packing.read(ensembles.ensemble_file(tmp_path, "silicon", "g", "2.5"))
    assert len(kept) == 2 and np.abs(kept[1].positions - frames[1].positions % frames[1].cell[0, 0]).max() < 6e-4
    ensembles.make("g", SMALL, frames, tmp_path, replicas=3, **common)
    ensembles.make("g", SMALL, frames[:3], tmp_path, replicas=3, **common)
    ensembles.make("prior", SMALL, frames[:3], tmp_path, replicas=3, **common)
    assert calls == [("g", 2), ("g", 3), ("g", 3), ("prior", 3)]
    ensembles.make("g", SMALL, frames[:3], tmp_path, replicas=2, **common)  # more than asked for are good enough
    assert len(packing.read(ensembles.ensemble_file(tmp_path, "silicon", "g", "2.5"))) == 3 and len(calls) == 4
    # the prior alone knows nothing of the reference; another rule of guidance does not concern it
    ensembles.make("prior", SMALL, frames, tmp_path, replicas=3, **common)
    monkeypatch.setattr(sampling, "RULE", glassjax.protocol(sampling.RULE, strength=3.0))  # which multiplies the strengths
    ensembles.make("prior", SMALL, frames, tmp_path, replicas=3, **common)
    ensembles.make("g", SMALL, frames[:3], tmp_path, replicas=3, **common)
    assert calls[4:] == [("g", 3)]
    ensembles.make("joint-g", SMALL, frames, tmp_path, replicas=3, **common | dict(fluctuate=True))
    assert calls[5:] == [("prior", 3), ("g", 3)] and ensembles.ensemble_file(tmp_path, "silicon", "joint", "2.5").exists()
    # the same seeds, other cells; and what fluctuations are adjusted to
    other = [frame.copy() for frame in frames]
    other[0].positions[0] += 0.01
    monkeypatch.setattr(ensembles, "amplitude", lambda *_: 1.7)
    monkeypatch.setattr(ensembles, "usual", lambda *_: [0.5])
    for cells in (frames, other):
        facts = ensembles.make("g", SMALL, frames, tmp_path, replicas=3, trained=(SMALL, cells), **common | dict(fluctuate=True))
        assert facts["amplitude"] == pytest.approx(sampling.WIDER["g"] * 1.7, abs=1e-3) and largest[-1] == pytest.approx(sampling.WIDER["g"] * 1.7)
    assert calls[7:] == [("g", 3), ("g", 3)]
    assert largest[:-2] == [1.0] * 6 + [sampling.WIDER["g"]]  # the last that of joint-g, which fluctuates
    ensembles.make("ND", SMALL, frames, tmp_path, replicas=3, trained=(SMALL, frames), **common | dict(fluctuate=True))
    assert largest[-1] == 1.7  # g(r) alone is enlarged
    assert "wider" not in sampling.ruled("ND") and sampling.ruled("g")["wider"] == sampling.WIDER["g"]


@pytest.mark.parametrize("fluctuating", [False, True])
def test_guided_ensemble_is_sampled_and_timed(frames, prior, fluctuating):
    free = materials_targets.structures_of(frames) if fluctuating else None
    structures, facts = sampling.sampled("g", SMALL, frames, prior=prior, replicas=2, seed=0, steps=12, free=free)
    assert len(structures) == 2 - facts["diverged"] and facts["seconds"] > 0
    assert len(facts["r_factor"]) == 1


def test_what_does_not_fit_is_made_again_with_more_strength(frames, monkeypatch):
    """Until R is no more than twice what is usual; the best counts, with the time of all; then atoms come no nearer than g(r) says."""
    asked, found = [], {1.0: 0.9, 4.0: 0.5, 16.0: 0.7}

    lost = {}

    def timed(condition, method, replicas, work):
        return work(), dict(seconds=1.0, seconds_per_step=0.1, compilation=2.0, diverged=lost.get(asked[-1]["plan"].strength, 0))

    def guided(goals, own, replicas, how):
        asked.append(how)
        if lost.get(how["plan"].strength) == "all":
            raise RuntimeError("all replicas diverged")
        return [how["plan"].strength]

    monkeypatch.setattr(sampling, "_timed", timed)
    monkeypatch.setattr(sampling, "_guided", guided)
    monkeypatch.setattr(sampling, "r_factors", lambda goals, made: [found[made[0]]])
    common = dict(prior="silicon", replicas=2, seed=0)
    made, facts = sampling.sampled("g", SMALL, frames, **common, near=[0.3])
    assert made == [4.0] and facts["strength"] == 4.0 and facts["seconds"] == 2.0 and len(asked) == 2
    made, facts = sampling.sampled("g", SMALL, frames, **common, near=[0.2])
    assert made == [4.0] and facts["seconds"] == 3.0 and facts["compilation"] == 6.0 and facts["r_factor"] == [0.5]
    assert [("minimum_distance" in how) for how in asked[-3:]] == [False, True, True] and facts["usual"] == [0.2]
    assert [one["strength"] for one in facts["tries"]] == [1.0, 4.0, 16.0] and facts["seconds_per_step"] == pytest.approx(0.3)
    # a stronger one that loses replicas or fails does not count, and costs nothing that is there
    lost[4.0] = 1
    assert sampling.sampled("g", SMALL, frames, **common, near=[0.2])[0] == [16.0]
    lost[16.0] = "all"
    made, facts = sampling.sampled("g", SMALL, frames, **common, near=[0.2])
    assert made == [1.0] and "diverged" in facts["tries"][2]["failed"] and facts["r_factor"] == [0.9]
    lost[1.0] = "all"
    with pytest.raises(RuntimeError, match="diverged"):
        sampling.sampled("g", SMALL, frames, **common, near=[0.2])
    lost.clear()
    # other curves do not say how near atoms come, and a mixture's total does not for a rare pair
    asked.clear()
    sampling.sampled("XRD", SMALL, frames, **common, near=[0.2])
    assert len(asked) == 3 and not any("minimum_distance" in how for how in asked)
    asked.clear()
    for near in (None, [0.45]):
        assert sampling.sampled("g", SMALL, frames, **common, near=near)[0] == [1.0]
    assert "minimum_distance" not in asked[0] and len(asked) == 2
    # the cells are packed with 2.1 A between atoms; the prior's own distance is 2.0 A
    goal = materials_targets.targets("g", SMALL, materials_targets.structures_of(frames))[0]
    assert sampling.nearest(goal, "silicon")["Si", "Si"] == glassjax.minimum_distances(("Si",))["Si", "Si"] == 2.0
    shifted = types.SimpleNamespace(observable=types.SimpleNamespace(x=goal.observable.x + 1.0, elements=("Si",)), data=goal.data)
    assert sampling.nearest(shifted, "silicon")["Si", "Si"] == pytest.approx(
        1.0 + glassjax.closest_approach(goal.observable.x, goal.data, level=sampling.RISE)
    )
    assert sampling.far([0.2, 0.6], [0.1, 0.2]) == pytest.approx(2.5)


def test_what_is_usual_is_the_spread_of_the_cells(frames):
    structures = materials_targets.structures_of(frames)
    goal = materials_targets.targets("g", SMALL, structures)[0]
    own = [np.asarray(materials_targets.targets("g", SMALL, [one])[0].data) for one in structures]
    expected = np.mean([np.sqrt(np.sum((one - goal.data) ** 2) / np.sum((goal.data - 1) ** 2)) for one in own])
    assert sampling.usual("g", SMALL, structures) == pytest.approx([expected / np.sqrt(3 / 4)], rel=1e-3)
    assert sampling.usual("g", SMALL, structures[:1]) is None


def test_targets_fluctuate_about_the_mean(frames):
    """Each replica's own curve is that of a structure of the prior, moved so that their mean is the data."""
    free = materials_targets.structures_of(frames)
    goals = materials_targets.targets("g", SMALL, free[:2])
    odd = sampling.fluctuating("g", SMALL, goals, free[:2], 3)
    np.testing.assert_allclose(np.mean([m[0].data for m in odd], axis=0), goals[0].data, atol=1e-5)
    moved = sampling.fluctuating("g", SMALL, goals, free, 4)
    own = [np.asarray(materials_targets.targets("g", SMALL, [one])[0].data) for one in free]
    np.testing.assert_allclose(np.mean([m[0].data for m in moved], axis=0), goals[0].data, atol=1e-5)
    np.testing.assert_allclose(moved[1][0].data - moved[3][0].data, own[1] - own[3], atol=1e-5)
    assert np.abs(own[1] - own[3]).max() > 0.1


def test_fluctuations_are_made_as_large_as_those_of_the_reference(frames, monkeypatch):
    """At the condition of the training, without the bias of few replicas, by a factor of 1 to 2."""
    goals = materials_targets.targets("g", SMALL, materials_targets.structures_of(frames))
    once, twice = (sampling.fluctuating("g", SMALL, goals, materials_targets.structures_of(frames), 4, factor) for factor in (1.0, 2.0))
    np.testing.assert_allclose(twice[1][0].data - goals[0].data, 2 * (once[1][0].data - goals[0].data), atol=1e-5)
    monkeypatch.setattr("materials_targets.targets", lambda method, condition, some: [types.SimpleNamespace(data=np.array([some[0], 7.0]))])
    assert materials_targets.amplitude("g", SMALL, [1.0, -2.0, 4.0], [2.0, -4.0, 8.0]) == 1.0  # never less
    assert materials_targets.amplitude("g", SMALL, [1.5, -3.0, 6.0], [1.0, -2.0, 4.0]) == pytest.approx(1.5)
    assert materials_targets.amplitude("g", SMALL, [9.0, -9.0], [1.0, -1.0]) == 2.0  # never more
    # of the same normal distribution two show less of it than many: sqrt(1 / pi) and 1
    many = np.random.default_rng(0).normal(size=20000)
    two = np.array([1.0, -1.0]) * np.sqrt(1 / np.pi)
    assert materials_targets.amplitude("g", SMALL, 1.2 * many, two) == pytest.approx(1.2, rel=0.02)
    assert materials_targets.amplitude("g", SMALL, [1.0], [1.0, 2.0]) == 1.0


def test_row_of_an_ensemble_against_itself(frames):
    """Error 0, dED = -diversity, ratio 1; and what the reference has as local order, the generated has."""
    from glassjax.analysis.comparison import curves

    limits = table.materials_check.BONDS["silicon"]
    known = curves(materials_targets.structures_of(frames), ["PDF", "ADF"], cutoffs=limits)
    row = table.row(SMALL, frames, frames, dict(asked={}, seconds=1.0), known)
    for one in row["modalities"].values():
        assert one["error"] == pytest.approx(0, abs=1e-5) and one["ded"] == pytest.approx(-one["diversity"], abs=2e-5)
        assert one["diversity"] > 0 and one["diversity_ratio"] == pytest.approx(1, abs=1e-3)
    assert row["local"]["generated"] == row["local"]["reference"] and row["shortest"]["margin"] == 0
    closest = min(glassjax.shortest_distance(s) for s in materials_targets.structures_of(frames))
    assert row["shortest"]["reference"]["Si-Si"] == pytest.approx(closest, abs=1e-3)


def test_run_writes_and_resumes(frames, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(table, "conditions_of", lambda material, labels=None: [(SMALL, frames)])
    monkeypatch.setattr(table, "modalities_of", lambda material, every: ["PDF", "XRD", "ADF"])
    made, free_of = [], []

    def sampled(method, *_, replicas, free, **__):
        made.append(method)
        free_of.append(None if free is None else len(free))
        return materials_targets.structures_of(frames)[:replicas], dict(seconds=1.0, r_factor=None)

    monkeypatch.setattr(ensembles, "sampled", sampled)
    results = tmp_path / "r.json"
    options = dict(out=tmp_path / "t", results=results, prior_of=lambda material, method: "silicon", replicas=3)
    assert table.run(["silicon"], ["g"], **options) == 0
    assert table.run(["silicon"], ["prior", "g"], **options) == 0
    assert made == ["prior", "g"]  # the guided replicas follow fluctuations of the prior's
    found = json.loads(results.read_text())["silicon"]
    assert free_of == [None, 3]
    assert set(found) == {"g", "prior"} and found["g"]["2.5"]["modalities"]["PDF"]["ded"] < 0
    capsys.readouterr()
    assert figures.draw(results, ensembles.METHODS, tmp_path / "r.png") == 0
    said = capsys.readouterr().out
    assert "silicon   g           1 conditions  PDF, XRD, ND: 100 % <= 0" in said and "another rule" not in said
    assert (tmp_path / "r_methods.png").stat().st_size > 5000 and not (tmp_path / "r.png").exists()  # nothing but where the prior was trained
    rows = (tmp_path / "r.md").read_text().split("# All of it\n")[1].splitlines()[1:]
    assert rows[2].startswith("| material | condition | method | replicas (reference) | PDF | XRD | ADF | local")
    assert rows[4].startswith("| silicon | **2.5** | g | 3 (4) | -0.")
    # what was made by another rule is left out, and said to be
    for method in found:
        found[method]["2.5"]["facts"]["asked"]["plan"]["steps"] = 7
    results.write_text(json.dumps(dict(silicon=found)))
    assert figures.draw(results, ensembles.METHODS, tmp_path / "r.png", tmp_path / "t") == 0
    said = capsys.readouterr().out
    assert said.startswith("2 ensembles by another rule") and "spectra" not in said


def test_reverse_monte_carlo_gets_the_time_of_ten_ensembles():
    facts = dict(seconds=10.0, seconds_free=2.4, cores=2, asked=dict(replicas=4))
    assert table._budget(SMALL, {"g": {"2.5": dict(facts=facts)}}) == dict(seconds=270.0, moves=None, ensembles=10)  # 248 s, of two at a time
    assert table._budget(SMALL, {"g": {"2.5": dict(facts=facts | dict(asked=dict(replicas=1)))}})["seconds"] == 150.0
    assert table._budget(SMALL, {"g": {"2.5": dict(facts=facts)}}, seconds=5.0) == dict(seconds=5.0, moves=None)
    with pytest.raises(ValueError, match="got no budget and no ensemble of silicon 2.5 guided by g.r.; needs one"):
        table._budget(SMALL, {})


def test_an_ensemble_of_more_replicas_or_a_longer_budget_serves():
    known = dict(replicas=6, seconds=270.0, moves=None, seed=0)
    assert ensembles._covers(known, known) and ensembles._covers(known, known | dict(replicas=4, seconds=240.0))
    for other in (dict(replicas=8), dict(seconds=300.0), dict(moves=10), dict(seed=1)):
        assert not ensembles._covers(known, known | other)
    guided = dict(replicas=6, seed=0, prior="a")
    assert ensembles._covers(guided, guided | dict(replicas=2)) and not ensembles._covers(guided, guided | dict(prior="b"))
    assert not ensembles._covers(known | dict(seconds=None, moves=2000), known) and not ensembles._covers(
        known, known | dict(seconds=None, moves=2000)
    )


def test_reverse_monte_carlo_runs_side_by_side(frames, tmp_path):
    """As many structures as asked for, each from its own seed, the same as one at a time."""
    pytest.importorskip("rmc", reason="needs reverse-monte-carlo: pip install 'glassjax[bench]'")
    from materials_rmc import reverse_monte_carlo
    from materials_starts import closest_distances

    facts = ensembles.make("rmc-random", SMALL, frames, tmp_path, prior=None, replicas=2, seconds=None, moves=2000)
    made = packing.read(ensembles.ensemble_file(tmp_path, "silicon", "rmc-random", "2.5"))
    assert len(made) == 2 and facts["moves"] == 2000 and np.abs(made[0].positions - made[1].positions).max() > 0.1
    goal = materials_targets.targets("g", SMALL, materials_targets.structures_of(frames))[0]
    limits = closest_distances(frames)
    alone, _ = reverse_monte_carlo(SMALL, goal.observable.x, np.asarray(goal.data), moves=2000, seed=1, minimum_distances=limits)
    apart = alone.positions - made[1].positions
    side = alone.cell[0, 0]
    assert np.abs(apart - side * np.round(apart / side)).max() < 1e-3


def invented(ded, error, four, margin=0.0, ratio=0.9):
    modalities = {n: dict(ded=ded, error=error, diversity_ratio=ratio, ratio_uncertainty=0.04) for n in ("PDF", "XRD", "ND", "ADF")}
    return dict(
        modalities=modalities,
        local=dict(generated={"4-fold %": [four, 1.0]}, reference={"4-fold %": [95.0, 1.5]}),
        shortest=dict(margin=margin),
        facts=dict(seconds=1.0),
    )


def test_verdicts():
    rows = {"2.5": invented(-0.01, 0.01, 92.5), "3.5": invented(0.015, 0.05, 50.0, margin=-0.2, ratio=0.3)}
    made = {"silicon": {"g": rows, "prior": {"2.5": invented(0.02, 0.008, 91.0)}, "rmc-random": {"3.5": invented(0.1, 0.2, 10.0)}}}
    lines = verdicts.checks(made)
    assert lines[0] == "conditions made: silicon 2 of 5, carbon 0 of 5, silica 0 of 3, cu-zr 0 of 7, zr-ni-al 0 of 25"
    assert lines[1] == "MISSED: PDF, XRD, ND: 50 % of 6 cells with dED <= 0, worst +0.0150"
    assert lines[2] == "MISSED: ADF, partial PDF, EXAFS, XANES: 50 % of 2 cells with dED <= 0, worst +0.0150"
    assert "MISSED: silicon: shortest distance -0.20 A from the reference's" in lines
    assert "MISSED: silicon: mean error 0.0100, prior 0.0080 (1 conditions)" in lines  # the conditions that both have
    assert "reached: silicon: mean error 0.0500, rmc-random 0.2000 (1 conditions)" in lines
    assert "reached: silicon 2.5: 4-fold % 92.50, reference 95.00 +- 1.50" in lines
    for names, count in (("PDF, XRD, ND", 6), ("ADF, partial PDF, EXAFS, XANES", 2)):
        start = f"MISSED: silicon: diversity of {names}: 50 % of {count} at 0.7 of the reference's or more, least 0.30 (3.5, "
        assert any(line.startswith(start) and line.endswith(", mean 0.60") for line in lines)
    assert verdicts.misses(made)[0].split() == ["above", "0:", "silicon", "3.5", "PDF", "+0.0150"] and len(verdicts.misses(made)) == 8
    assert verdicts.misses(made)[4].split() == ["below", "0.7:", "silicon", "3.5", "PDF", "0.30", "+-", "0.04"]
    good = {"silicon": {"g": {"2.5": rows["2.5"]}}}
    assert all(line.startswith("reached") for line in verdicts.checks(good)[1:]) and not verdicts.misses(good)


def test_summaries():
    count = dict(replicas=dict(generated=4, reference=6))
    rows = {"2.5": invented(-0.01, 0.01, 92.5) | count, "3.5": invented(0.015, 0.05, 50.0, margin=-0.2) | count}
    rows["2.5"]["facts"] |= dict(seconds=11.25, seconds_free=7.4, seconds_per_step=0.075)
    carlo = invented(0.1, 0.2, 10.0) | dict(facts=dict(seconds=210.0, moves=21e6))
    carlo["modalities"]["EXAFS"] = dict(error=0.5, ded=0.4, diversity_ratio=None)
    alone = {"2.5": invented(0.02, 0.03, 91.0), "3.5": invented(0.02, 0.09, 91.0)}
    made = {"carbon": {"g": {"1.5": rows["3.5"]}}, "silicon": {"g": rows, "prior": alone, "rmc-random": {"2.5": carlo}}}
    lines = summary.summaries(made).splitlines()[2:]
    assert lines[2] == "| silicon | 2 of 5 | 4 | 3 of 6 | +0.0150 | 1 of 2 | +0.0150 | 0.0300 | 0.0600 | -0.20 |"  # in the order of the materials
    assert lines[3].startswith("| carbon | 1 of 5 | 4 | 0 of 3 |") and lines[3].endswith("| 0.0500 |  | -0.20 |")
    assert "| prior alone | 0.0300, 0.0300 (+0.0200) |" in lines and "| guided by g(r) | 0.0100, 0.0100 (-0.0100) |" in lines
    assert "| reverse Monte Carlo on g(r), random start | 0.2600, 0.2000 (+0.1000) |" in lines  # EXAFS apart
    wild = carlo | dict(modalities=carlo["modalities"] | {"XANES": dict(error=2e4, ded=2e4, diversity_ratio=None)})
    assert verdicts.mean_error({"silicon": {"g": {"2.5": wild}}}, "silicon", "g", ["2.5"]) == pytest.approx(0.26)  # no spectrum, but a surrogate lost
    assert "| silicon | 216 | 1.0 | 11.2 | 75 | 210 | 100000 |" in lines
    start = lines.index("| mean error, without EXAFS, elsewhere | silicon, 1 conditions | carbon, 1 conditions |")
    assert lines[start + 2 : start + 4] == ["| prior alone | 0.0900, 0.0900 |  |", "| guided by g(r) | 0.0500, 0.0500 | 0.0500, 0.0500 |"]
    there = {"g": rows, "prior": alone, "rmc-random": {}}
    made["silicon"] |= {m: found | {"3.0": invented(0.0, e, 95.0) | count} for (m, found), e in zip(there.items(), (0.02, 0.05, 0.2), strict=True)}
    shown = "| reverse Monte Carlo on g(r), random start | 0.2000, 0.2000 (1: g(r) 0.0200, 0.0200; alone 0.0500, 0.0500) |  |"
    assert shown in summary.summaries(made).splitlines()
    nowhere = {"silicon": {"g": rows, "ND": {"1.5": invented(0.0, 0.02, 95.0)}}}
    assert "| guided by ND | 0.0200, 0.0200 (1) |" in summary.summaries(nowhere).splitlines()  # g(r) was not made there
    assert not any("carbon" in line for line in lines[8:start] + lines[start + 1 :])  # nothing of it where its prior was trained


def test_maps_of_conditions_and_of_methods():
    rows = {"2.5": invented(-0.01, 0.01, 92.5), "3.5": invented(0.015, 0.05, 50.0)}
    made = {"silicon": {"g": rows, "rmc-random": {"2.5": rows["2.5"]}}, "carbon": {"g": {"1.5": rows["3.5"]}}}
    titles = [axis.get_title() for axis in figures.heat_maps(made, ensembles.METHODS).axes[:-1]]
    assert titles == ["silicon: g", "carbon: g"]  # reverse Monte Carlo was made at the training condition alone
    found = figures.method_maps(made, ensembles.METHODS)
    axis = found.axes[0]
    assert [label.get_text() for label in axis.get_yticklabels()] == ["guided by g(r)", "reverse Monte Carlo on g(r), random start"]
    assert [one.get_title() for one in found.axes[:-1]] == ["silicon 2.5"] and {one.get_text() for one in axis.texts} == {"-10"}
    assert figures.method_maps({"carbon": made["carbon"]}, ensembles.METHODS) is None
    assert figures.heat_maps({"silicon": {"g": {"2.5": rows["2.5"]}}}, ensembles.METHODS) is None


def test_rows_of_another_rule_are_left_out():
    plans = [sampling.ruled(method) for method in ("g", "prior")]
    rows = [dict(facts=dict(asked=dict(plan=plan))) for plan in (*plans, plans[0] | dict(steps=500), None)]
    odd = [dict(facts=dict(asked=dict(plan=plans[0], **one))) for one in (dict(steps=40), dict(fluctuate=False), dict(steps=None, fluctuate=True))]
    mixed = {"g": dict(zip("abcdefg", rows + odd, strict=True)), "gradient": {"a": rows[3]}, "prior": {"a": rows[1], "b": rows[3]}}
    budgets = {"a": dict(facts=dict(asked=dict(seconds=30.0))), "b": dict(facts=dict(asked=dict(seconds=270.0, ensembles=10)))}
    made = {"silicon": mixed | {"joint": {"a": rows[1]}, "rmc-random": budgets}, "carbon": {"g": {"a": rows[2]}}}
    kept = {"g": {"a": rows[0], "g": odd[2]}, "gradient": {"a": rows[3]}, "prior": {"a": rows[1]}, "joint": {"a": rows[1]}}
    assert verdicts.current(made) == {"silicon": kept | {"rmc-random": {"b": budgets["b"]}}}


def test_rows_of_another_prior_are_named():
    one, other = (dict(facts=dict(asked=dict(prior=mark))) for mark in "ab")
    made = {"silicon": {"g": {"2.0": one, "2.5": other}, "joint-g": {"2.0": other}, "rmc-random": {"2.5": dict(facts=dict(asked=dict(prior=None)))}}}
    assert verdicts.of_other_priors(made, {"silicon": "a", "joint": "b"}) == ["silicon g 2.5"]
    assert verdicts.of_other_priors(made, {"silicon": "a", "joint": "a"}) == ["silicon g 2.5", "silicon joint-g 2.0"]
    assert len(verdicts.of_other_priors(made, {})) == 3
    made = {"silicon": {"published": {"2.5": one}}}
    assert verdicts.of_other_priors(made, {"silicon": "b", "published silicon": "a"}) == []
    assert verdicts.of_other_priors(made, {"silicon": "a", "published silicon": "b"}) == ["silicon published 2.5"]


def test_a_failed_ensemble_does_not_end_the_table(frames, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(table, "conditions_of", lambda material, labels=None: [(SMALL, frames)])
    monkeypatch.setattr(table, "modalities_of", lambda material, every: ["PDF"])

    def sampled(method, *_, replicas, **__):
        if method == "g":
            raise RuntimeError("all diverged")
        return materials_targets.structures_of(frames)[:replicas], dict(seconds=1.0, r_factor=None)

    monkeypatch.setattr(ensembles, "sampled", sampled)
    options = dict(out=tmp_path / "t", results=tmp_path / "r.json", prior_of=lambda material, method: "silicon", replicas=3)
    assert table.run(["silicon"], ["g", "rmc-random", "prior"], **options) == 1
    said = capsys.readouterr().out
    assert "g          2.5        failed: all diverged" in said and "rmc-random 2.5        failed: got no budget" in said
    assert set(json.loads((tmp_path / "r.json").read_text())["silicon"]["prior"]) == {"2.5"}

    def unpacked(material, labels=None):
        raise FileNotFoundError("needs the packed cells")

    monkeypatch.setattr(table, "conditions_of", unpacked)
    assert table.run(["silicon"], ["prior"], **options) == 1 and "silicon   is passed over: needs the packed cells" in capsys.readouterr().out


def test_training_command(tmp_path):
    with pytest.raises(FileNotFoundError, match="training_carbon.extxyz.gz; needs cells to train on; run"):
        priors.command("carbon", 1.0, tmp_path, tmp_path)
    for name in reference.MATERIALS:
        packing.training_file(name, tmp_path).touch()
    work = tmp_path / "work"
    work.mkdir()
    make = lambda name: priors.command(name, 2.5, tmp_path, tmp_path, work=work)  # noqa: E731
    command = make("carbon")
    assert command[3:5] == ["train", str(tmp_path / "training_carbon.extxyz.gz")] and "--resume" not in command
    assert command[command.index("--minutes") + 1] == "2.5" and command[command.index("--out") + 1] == str(work / "carbon.npz")
    assert command[command.index("--start") + 1] == str(tmp_path / "silicon.npz")
    assert "--start" not in make("silicon")
    assert command[command.index("--floor") + 1] == "0" and "--learning-rate" not in command
    rated = make("zr-ni-al")
    assert rated[rated.index("--learning-rate") + 1] == "0.001"
    (tmp_path / "carbon.npz").touch()  # committed, without the state of its training
    assert make("carbon")[-2:] == ["--start", str(tmp_path / "carbon.npz")]
    fresh = priors.command("carbon", 2.5, tmp_path, tmp_path, work=work, fresh=True)
    assert fresh[-2:] == ["--start", str(tmp_path / "silicon.npz")]
    (work / "carbon.train.npz").touch()
    with pytest.raises(ValueError, match="got a training of carbon in .* that began from another prior than .*; remove the training"):
        make("carbon")
    (work / "carbon.begun").write_text(priors.digest(tmp_path / "carbon.npz"))
    assert make("carbon")[-1] == "--resume" and "--start" not in make("carbon")
    (tmp_path / "carbon.npz").write_text("the result of this training")
    (work / "carbon.npz").write_text("the result of this training")
    assert make("carbon")[-1] == "--resume"
    assert sum(one.endswith(".extxyz.gz") for one in make(priors.JOINT)) == 5


def test_a_trained_prior_is_put_where_it_is_used(tmp_path, monkeypatch):
    def run(command):
        out = Path(command[command.index("--out") + 1])
        out.write_text("new")
        out.with_suffix(".csv").write_text("curve")
        return types.SimpleNamespace(returncode=0)

    monkeypatch.setattr(priors.subprocess, "run", run)
    folder = tmp_path / "priors"
    assert priors.train(["silicon"], 1.0, folder, work=tmp_path / "work") == 0
    assert (folder / "silicon.npz").read_text() == "new" and (folder / "silicon.csv").read_text() == "curve"
    assert priors.begun("silicon", tmp_path / "work") is None  # there was none
    with pytest.raises(ValueError, match="needs two folders; pass another --work"):
        priors.train(["silicon"], 1.0, folder, work=folder)
    monkeypatch.setattr(priors.subprocess, "run", lambda command: types.SimpleNamespace(returncode=2))
    (folder / "silicon.npz").write_text("old")
    assert priors.train(["silicon"], 1.0, folder, work=tmp_path / "work") == 2 and (folder / "silicon.npz").read_text() == "old"


def test_train_passes_on_what_is_asked(tmp_path, monkeypatch):
    asked = {}
    monkeypatch.setattr(priors, "train", lambda names, minutes, **options: asked.update(options, names=names, minutes=minutes) or 0)
    where = ["--folder", str(tmp_path / "a"), "--work", str(tmp_path / "b")]
    assert materials.main(["train", "--only", "carbon", "joint", "--minutes", "3", "--batch", "7", "--fresh", *where]) == 0
    assert asked == dict(names=["carbon", "joint"], minutes=3.0, batch=7, fresh=True, folder=tmp_path / "a", work=tmp_path / "b")
    assert materials.main(["train", "--only", "carbon"]) == 0
    assert not asked["fresh"] and (asked["folder"], asked["work"]) == (priors.PRIORS, priors.WORK)


def test_the_short_form_is_of_training_conditions_and_kept_apart(tmp_path, monkeypatch, capsys):
    asked = []
    monkeypatch.setattr(table, "run", lambda names, methods, **options: asked.append(dict(options, names=names, methods=methods)) or 0)
    results = tmp_path / "r.json"
    results.write_text(json.dumps({"silicon": {"g": {"2.5": invented(-0.01, 0.01, 92.5) | dict(replicas=dict(generated=2))}}}))
    assert materials.main(["short", "--only", "silicon", "silica", "--results", str(results), "--ensembles", str(tmp_path)]) == 0
    assert [(one["names"], one["labels"]) for one in asked] == [(["silicon"], ["2.5"]), (["silica"], ["100Kps"])]
    assert all(one["methods"] == ["prior", "g"] and one["replicas"] == 2 and one["out"] == tmp_path for one in asked)
    assert "| silicon | 1 of 5 | 2 | 3 of 3 |" in capsys.readouterr().out and results.with_suffix(".png").stat().st_size > 5000
    assert materials.SHORT not in (materials.RESULTS.parent, materials.ENSEMBLES)
    assert materials.main(["short", "--only", "germanium"]) == 2


def test_tables_of_a_document_are_renewed():
    text = "# t\n\n| a | b |\n|---|---|\n| 1 | 2 |\n| 3 | 4 |\n\n| c |\n|---|\n| 5 |"
    document = "one\n\n| a | old |\n|---|---|\n| 9 | 9 |\n\ntwo\n| d |\n|---|\n| a |\n"
    assert summary.show_in(document, text) == "one\n\n| a | b |\n|---|---|\n| 1 | 2 |\n| 3 | 4 |\n\ntwo\n| d |\n|---|\n| a |\n"
    assert summary.show_in("no table", text) == "no table"


def test_the_documents_show_the_tables_of_the_results():
    """`materials.md` is what the rows give, and README.md and RESULTS.md show its summaries."""
    made = verdicts.current(json.loads(materials.RESULTS.read_text()))
    text = materials.RESULTS.with_suffix(".md").read_text()
    assert text == f"{summary.summaries(made)}\n{summary.markdown(made)}"
    for document, tables in zip(materials.DOCUMENTS, (4, 1), strict=True):
        shown = document.read_text()
        assert shown == summary.show_in(shown, text)
        assert sum(line.startswith(("| guided by g(r) | cond", "| mean error, without EXAFS", "| cost ")) for line in shown.split("\n")) == tables


def test_bad_input(tmp_path, capsys):
    assert materials.main(["table", "--only", "germanium", "--results", str(tmp_path / "r.json")]) == 2
    assert "got materials germanium" in capsys.readouterr().err
    assert materials.main(["table", "--only", "carbon", "--methods", "published", "--results", str(tmp_path / "r.json")]) == 2
    assert "meshgraphnet_carbon.npz for the method published" in capsys.readouterr().err
    assert type(glassjax.load_prior(priors.published_file("silicon")).network).__name__ == "MeshGraphNet"
    assert materials.main(["table", "--only", "silicon", "--prior", "nowhere.npz", "--results", str(tmp_path / "r.json")]) == 2
    assert "got no nowhere.npz; needs that prior; run" in capsys.readouterr().err
    with pytest.raises(ValueError, match="got conditions 9.9 of silicon; needs some of 1.5"):
        table.conditions_of("silicon", ["9.9"])
    assert materials.main(["figures", "--results", str(tmp_path / "none.json")]) == 2
