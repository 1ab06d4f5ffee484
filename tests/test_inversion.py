"""`invert` end to end on a tiny untrained prior: reproducible, resumable, tolerant of a replica that diverges."""

import dataclasses
import json
import warnings
from pathlib import Path

import ase.io
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import ATOMS, DENSITY, RHO, allow_rank_promotion, packing, tiny_prior, write_target  # noqa: F401

from glassjax import analysis, generate, inversion, invert, protocol, read_target, to_atoms
from glassjax._pytree import replace
from glassjax.protocols import ladders, minimum_distances


@pytest.fixture(scope="module")
def prior():
    return tiny_prior()


@pytest.fixture(scope="module")
def target(tmp_path_factory):
    path = write_target(tmp_path_factory.mktemp("target") / "g.dat")
    return read_target(path, function="g", symbols=["Si"], number_density=RHO)[0]


def options(prior, **changes):
    return dict(composition="Si", atoms=ATOMS, density=DENSITY, prior=prior, replicas=2, steps=12, chunk=1) | changes


def positions(result):
    return np.stack([np.asarray(s.positions) for s in result.ensemble.structures])


def test_replica_alone_is_replica_among_others(prior, target):
    together = positions(invert(target, **options(prior, replicas=5)))
    alone = positions(invert(target, **options(prior, replicas=[3])))
    assert np.array_equal(together[3], alone[0])
    # other chunk shapes are other programs: equal to rounding, which vetoes amplify for single atoms
    free = [positions(generate(**options(prior, replicas=3, chunk=chunk))) for chunk in (1, 3)]
    assert np.median(np.abs(free[0] - free[1])) < 1e-3


def test_seed_decides_and_replicas_differ(prior, target):
    first = invert(target, **options(prior))
    again, other = invert(target, **options(prior)), invert(target, **options(prior, seed=1))
    assert np.array_equal(positions(first), positions(again)) and not np.allclose(positions(first), positions(other))
    a, b = first.structures
    assert analysis.matching_fraction(a, b) < 0.5
    shifted = replace(a, positions=a.positions + jnp.array([[1.0, 2.0, 3.0]]))
    assert analysis.matching_fraction(a, shifted) == 1.0


@pytest.mark.parametrize(("training", "most"), [(dict(levels="log-uniform", sigma_max=1.2), "1.2"), (dict(levels="linear", sigma_max=1.6), "0.8")])
def test_a_prior_trained_to_less_noise_than_sampling_begins_at_is_told_of(prior, target, training, most):
    trained = replace(prior, card=json.dumps(dict(training=training)))
    with pytest.warns(UserWarning, match=f"trained on noise up to {most} A and sampling begins at 1.6 A") as told:
        found = invert(target, **options(trained, replicas=1))
        generate(**options(trained, replicas=1))
    assert [one.filename for one in told if "was trained on noise" in str(one.message)] == [__file__] * 2  # who called, not where it is said
    assert found.record["warnings"][0].startswith(f"the prior was trained on noise up to {most} A")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        invert(target, **options(trained, replicas=1, plan=protocol(sigma_max=float(most))))
        generate(**options(trained, replicas=1, plan=protocol("two-stage")))
        invert(target, **options(replace(prior, card=json.dumps(dict(training=dict(sigma_max=1.6)))), replicas=1))
        invert(target, **options(prior, replicas=1))  # a card that does not say


class Killed(Exception):
    pass


@pytest.mark.parametrize("after", [1, 5, 8])
def test_kill_and_resume(prior, target, tmp_path, after):
    many = options(prior, steps=35)  # five segments per replica
    whole = positions(invert(target, **many))
    calls = []

    def kill(state):
        calls.append(state["done"])
        if len(calls) == after:
            raise Killed

    same = many | dict(out=tmp_path / "cut")
    with pytest.raises(Killed):
        invert(target, **same, report=kill)
    with pytest.raises(ValueError, match="--resume"):
        invert(target, **same)
    resumed = invert(target, **same, resume=True)
    assert np.array_equal(positions(resumed), whole)
    with pytest.raises(ValueError, match="other inputs"):
        invert(target, **same | dict(seed=7), resume=True)
    with pytest.raises(ValueError, match="other inputs"):
        invert(target, **same | dict(plan=protocol(corrections=1)), resume=True)
    (tmp_path / "cut" / "checkpoint" / "finished_0.npz").write_bytes(b"PK\x03\x04 cut short")
    with pytest.raises(ValueError, match="corrupted"):
        invert(target, **same, resume=True)


def test_diverged_replica_is_reported_and_the_others_kept(prior, target, tmp_path, monkeypatch):
    healthy = inversion.starting_structures

    def one_sick(*args, **kwargs):
        starts = healthy(*args, **kwargs)
        starts[1] = replace(starts[1], positions=starts[1].positions * jnp.nan)
        return starts

    clean = positions(invert(target, **options(prior, replicas=3, chunk=3)))
    monkeypatch.setattr(inversion, "starting_structures", one_sick)
    result = invert(target, **options(prior, replicas=3, chunk=3, out=tmp_path / "out"))
    assert result.ensemble.status == ["ok", "diverged", "ok"]
    assert np.array_equal(positions(result)[[0, 2]], clean[[0, 2]])
    frames = ase.io.read(tmp_path / "out" / "ensemble.extxyz", ":")
    assert [int(f.info["replica"]) for f in frames] == [0, 2]
    rows = json.loads((tmp_path / "out" / "run.json").read_text())["replicas"]
    assert [row["status"] for row in rows] == ["ok", "diverged", "ok"]
    with pytest.raises(RuntimeError, match="replica 1 diverged"):
        invert(target, **options(prior, replicas=3, chunk=3, throw=True))


def test_result_object(prior, target, tmp_path):
    result = invert(target, **options(prior))
    atoms = result.to_atoms()
    assert len(atoms) == 2 and atoms[1].info["replica"] == 1 and np.isfinite(atoms[0].info["r_factor_g"])
    assert atoms[0].info["number_density"] == pytest.approx(RHO, rel=1e-5)
    assert (result.save(tmp_path / "out") / "fit_g.csv").exists()
    assert len(result.plot().axes) == 2


def test_init(prior, tmp_path):
    start = packing()
    given = generate(init=start, prior=prior, replicas=2, steps=6, chunk=1)
    ase.io.write(tmp_path / "start.extxyz", to_atoms(start))
    read = generate(**options(prior, init=tmp_path / "start.extxyz", steps=6))
    assert np.allclose(positions(given), positions(read), atol=1e-3)
    with pytest.raises(ValueError, match="within 1 %"):
        generate(**options(prior, init=start, density=2.5))
    with pytest.raises(ValueError, match="needs 24 Si"):
        generate(**options(prior, init=start, atoms=24))
    with pytest.raises(ValueError, match="one for all or one each"):
        generate(**options(prior, init=[start] * 3))


def test_two_stages_and_two_targets(prior, target, tmp_path):
    from glassjax import structure_factor
    from glassjax import target as make_target
    from glassjax.report import curve

    q = np.linspace(1, 15, 50)
    second = make_target(q, curve(structure_factor(q, ["Si"]), packing(atoms=216)), ["Si"], function="S", number_density=RHO)
    result = invert([target, second], **options(prior, plan="two-stage", steps=10, out=tmp_path / "out"))
    assert result.ensemble.r_factor.shape == (2, len(ladders(protocol("two-stage", steps=10))[1]), 2)
    assert {"fit_g.csv", "fit_S.csv"} <= {p.name for p in (tmp_path / "out").iterdir()}


def test_targets_of_other_elements_are_refused(prior, target):
    other = dataclasses.replace(target, observable=dataclasses.replace(target.observable, elements=("Ge",)))
    with pytest.raises(ValueError, match="target g is for Ge"):
        invert(other, **options(prior))


def test_protocol():
    assert ladders(protocol(steps=20))[0].shape == (20, 2) and ladders(protocol(steps=20))[0][-1, 1] == 0
    first, second = ladders(protocol("two-stage", steps=100))
    assert first[0, 0] == np.float32(0.8) and second[0, 0] <= np.float32(0.48) and first[-1, 1] == second[-1, 1] == np.float32(0.0008)
    with pytest.raises(ValueError, match="unknown protocol setting sigma"):
        protocol(sigma=1.0)
    with pytest.raises(ValueError, match="sampler"):
        protocol(sampler="magic")
    for wrong in (dict(strength=-1.0), dict(prior_width=0.0), dict(corrections="x"), dict(sigma_max=float("nan"))):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            protocol(**wrong)


def test_minimum_distances():
    assert minimum_distances(("Si",)) == {("Si", "Si"): 2.0}
    made = minimum_distances(("Si", "O"), {("O", "Si"): 1.4})
    assert made["Si", "O"] == 1.4 and set(made) == {("Si", "Si"), ("Si", "O"), ("O", "O")}
    with pytest.raises(ValueError, match="Ge"):
        minimum_distances(("Si",), {("Ge", "Si"): 2.0})


def test_local_order_of_diamond():
    import ase.build

    from glassjax import from_atoms

    cell = from_atoms(ase.build.bulk("Si", "diamond", a=5.431, cubic=True))
    assert analysis.shortest_distance(cell) == pytest.approx(5.431 * np.sqrt(3) / 4, abs=1e-4)
    assert analysis.coordination_fractions(cell, 2.85) == {4: 1.0}
    angles = analysis.bond_angles(cell, 2.85)
    assert len(angles) == 8 * 6 and angles == pytest.approx(109.4712, abs=1e-2)


def test_results_go_elsewhere_when_the_disk_is_full(tmp_path, monkeypatch):
    """The first folder refuses; the error names the one that holds the results."""
    from glassjax import inversion

    class Result:
        def save(self, folder):
            if folder == tmp_path / "full":
                raise OSError(28, "No space left on device")
            (folder / "run.json").write_text("{}")

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(OSError, match="No space left on device.*they are in (.*) instead") as error:
        inversion._save(Result(), tmp_path / "full")
    rescue = str(error.value).split("they are in ")[1].split(" instead")[0]
    assert (Path(rescue) / "run.json").exists()
