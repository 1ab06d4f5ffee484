"""Scale, background, damping and density: closed forms, gradients, recovery of what the data were made with, and the cell that follows."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import ZeroScore, allow_rank_promotion, packing, tiny_prior  # noqa: F401

from glassjax import guidance, inversion, nuisance, samplers, settings
from glassjax import structure as st
from glassjax._pytree import frozen
from glassjax.inversion import invert
from glassjax.report import curve
from glassjax.targets import target

pytestmark = pytest.mark.usefixtures("quick_compile")

ELEMENTS, RHO, ATOMS = ("Si", "O"), 0.06, 48
R, Q, ANGLES = np.linspace(0.5, 8.0, 60), np.linspace(1.0, 12.0, 40), np.linspace(10.0, 175.0, 34)
SMALL = dict(number_density=RHO, weights="neutron")


@pytest.fixture(scope="module")
def silica():
    symbols = [ELEMENTS[min(i % 3, 1)] for i in range(ATOMS)]
    return st.random_packing(0, symbols, number_density=RHO, minimum_distance=1.4, elements=ELEMENTS)


# --- the model --------------------------------------------------------------------------------------------------------------------------------


def test_displacement_damps_about_the_level(x64):
    """y = a + k (l + exp(-Q^2 B / 8 pi^2) (f - l) - a): a scale moves the self term of an intensity, its displacement does not."""
    q = np.linspace(0.5, 12.0, 40)
    terms = nuisance.nuisance(q, scale="infer", displacement=dict(start=0.5))
    assert terms.names == ("scale", "displacement") and terms.inferred == ["scale", "displacement"]
    f, level, anchor, values = jnp.asarray(3 + np.sin(q)), 3 * jnp.ones(40), jnp.zeros(40), jnp.array([1.1, 0.8])
    damping = np.exp(-(q**2) * 0.8 / (8 * np.pi**2))
    apply = lambda v: terms.apply(jnp.asarray(q), f, level, anchor, v)  # noqa: E731
    np.testing.assert_allclose(apply(values), 1.1 * (3 + damping * np.sin(q)), rtol=1e-12)
    jacobian, h = jax.jacfwd(apply)(values), 1e-6
    for k in range(2):
        step = h * np.eye(2)[k]
        np.testing.assert_allclose(jacobian[:, k], (apply(values + step) - apply(values - step)) / (2 * h), atol=1e-7)


@pytest.mark.parametrize("seen", [None, np.cumsum])
def test_closed_form_and_gradients(x64, seen):
    """y = a + k exp(-(q x)^2 / 2) (f - a) + sum c_n P_n, its derivatives with the curve and with every parameter against differences."""
    x = np.linspace(0.5, 12.0, 40)
    terms = nuisance.nuisance(x, scale="infer", qdamp=dict(start=0.05), background=2, seen=seen)
    assert terms.names == ("scale", "qdamp", "background_0", "background_1", "background_2") and terms.inferred == list(terms.names)
    f, anchor, values = jnp.asarray(1 + np.sin(x)), jnp.ones(40), jnp.array([1.2, 0.07, 0.3, -0.2, 0.1])
    t = 2 * (x - x[0]) / (x[-1] - x[0]) - 1
    basis = [np.ones(40), t, 0.5 * (3 * t**2 - 1)]
    ground = sum(c * (b if seen is None else seen(b)) for c, b in zip((0.3, -0.2, 0.1), basis, strict=True))
    expected = 1 + 1.2 * np.exp(-0.5 * (0.07 * x) ** 2) * np.sin(x) + ground
    np.testing.assert_allclose(terms.apply(jnp.asarray(x), f, anchor, anchor, values), expected, rtol=1e-12)
    apply = lambda v: terms.apply(jnp.asarray(x), f, anchor, anchor, v)  # noqa: E731
    jacobian, h = jax.jacfwd(apply)(values), 1e-6
    for k in range(5):
        step = h * np.eye(5)[k]
        np.testing.assert_allclose(jacobian[:, k], (apply(values + step) - apply(values - step)) / (2 * h), atol=1e-7)
    change = jax.jvp(lambda f: terms.apply(jnp.asarray(x), f, anchor, anchor, values), (f,), (jnp.cos(f),))[1]
    np.testing.assert_allclose(change, terms.factor(jnp.asarray(x), values) * jnp.cos(f), rtol=1e-12)


def test_without_terms_the_curve_is_the_model():
    terms = nuisance.nuisance(R)
    f = jnp.asarray(np.sin(R), jnp.float32)
    assert terms.names == () and terms.inferred == [] and terms.apply(jnp.asarray(R), f, f, f, terms.start) is f
    fixed = nuisance.nuisance(R, scale=0.8)
    assert fixed.names == ("scale",) and fixed.inferred == [] and float(fixed.deviation[0]) == 0.0
    np.testing.assert_allclose(fixed.apply(jnp.asarray(R), f, 0 * f, 0 * f, fixed.start), 0.8 * f, rtol=1e-6)


# --- inference --------------------------------------------------------------------------------------------------------------------------------


def bump(x):
    """A background that Legendre polynomials of order 1 hold."""
    return 0.05 + 0.02 * (2 * (x - x[0]) / (x[-1] - x[0]) - 1)


def three(silica, scale=1.0, qdamp=0.03, other=1.0, bounds=(0.5, 2.0)):
    """Angles first, then g and S: data of the structure itself, changed by known parameters."""
    adf = target(ANGLES, 0 * ANGLES, ELEMENTS_OF, function="ADF", number_density=RHO, cutoff=2.6, triplet="O-Si-O", width=0.2)
    options = dict(scale=dict(bounds=bounds), qdamp="infer", background=1, uncertainty=1e-3)
    g = target(R, 1 + np.sin(R), ELEMENTS_OF, function="g", **SMALL, **options)
    s = target(Q, 1 + np.sin(Q), ELEMENTS_OF, function="S", **SMALL, scale="infer", rmax=6.0, uncertainty=2e-3, name="S")
    of = {t.name: jnp.asarray(curve(t.observable, silica)) for t in (adf, g, s)}
    model = g.model(of["g"], jnp.array([scale, qdamp, 0.05, 0.02]))
    second = 1 + other * (of["S"] - 1)
    return [dataclasses.replace(t, data=y) for t, y in ((adf, of["ADF"]), (g, model), (s, second))]


ELEMENTS_OF = {"Si": 1, "O": 2}


@jax.jit
def called(score, s, sigma):
    return score(s, sigma)


def infer(silica, targets, **options):
    score = guidance.posterior(ZeroScore(), targets, **options).fit(silica)
    push, info = called(score, silica, jnp.float32(1e-3))
    return np.asarray(push), {k: np.asarray(v) for k, v in info.items()}


@pytest.mark.parametrize(("scale", "qdamp", "other"), [(0.85, 0.045, 1.1), (1.2, 0.02, 0.9)])
def test_parameters_come_back(silica, scale, qdamp, other):
    """From data of the structure itself; numbers and fits stand in the user's order, though pair functions are computed first."""
    targets = three(silica, scale, qdamp, other)
    push, info = infer(silica, targets)
    found, error = info["nuisance"], info["nuisance_deviation"]
    np.testing.assert_allclose(found[[0, 2, 3, 4]], (scale, 0.05, 0.02, other), atol=1e-3)
    assert found[1] == pytest.approx(qdamp, abs=2e-3) and (error > 0).all() and error[0] < 1e-3 and error[1] < 5e-3
    assert info["r_factor"].max() < 2e-3 and info["chi_squared"].max() < 0.1 and info["share"].sum() == pytest.approx(1.0)
    # the angles alone were wrong: theirs is the first number, and the push is theirs
    wrong = [dataclasses.replace(targets[0], data=targets[0].data * 1.5), *targets[1:]]
    more, info = infer(silica, wrong)
    assert info["r_factor"][0] > 0.3 > 0.01 > info["r_factor"][1:].max() and info["share"][0] > 0.5
    assert np.linalg.norm(more) > 10 * np.linalg.norm(push)


def test_bounds_hold(silica):
    """A scale of 1.3 with an upper bound of 1.1 stays at 1.1, and one that is fixed stays where it is."""
    _, info = infer(silica, three(silica, scale=1.3, bounds=(0.9, 1.1)))
    assert info["nuisance"][0] == np.float32(1.1) and info["r_factor"][1] > 0.05
    targets = three(silica, scale=1.3)
    terms = targets[1].nuisance
    fixed = dataclasses.replace(terms, deviation=terms.deviation.at[0].set(0.0))
    _, info = infer(silica, [targets[0], dataclasses.replace(targets[1], nuisance=fixed), targets[2]])
    assert info["nuisance"][0] == 1.0 and info["nuisance_deviation"][0] == 0.0


@pytest.mark.parametrize("stretch", [1.01, 0.99])
def test_density_change_of_a_scaled_structure(silica, stretch):
    """Data of the structure stretched by 1 %: the logarithm of the density differs by -3 ln(stretch); within its bounds."""
    larger = samplers.scaled(silica, RHO, RHO / stretch**3)
    g = target(R, 1 + np.sin(R), ELEMENTS_OF, function="g", **SMALL, uncertainty=0.005)
    s = target(Q, 1 + np.sin(Q), ELEMENTS_OF, function="F_keen", **SMALL, rmax=6.0, uncertainty=0.005)
    made = [dataclasses.replace(t, data=jnp.asarray(curve(t.observable, larger))) for t in (s, g)]
    _, info = infer(silica, made, density=nuisance.density(RHO))
    assert info["density_change"] == pytest.approx(-3 * np.log(stretch), rel=0.1) and 0 < info["density_deviation"] < 0.01
    _, info = infer(silica, made, density=nuisance.density(RHO, dict(bounds=(0.99 * RHO, 1.005 * RHO))))
    assert info["density_change"] == pytest.approx(np.log(0.99 if stretch > 1 else 1.005), abs=1e-5)


# --- the cell ---------------------------------------------------------------------------------------------------------------------------------


@frozen
class Told(ZeroScore):
    """A score of zero that says how the density should change."""

    change: jax.Array

    def __call__(self, s, sigma):
        return jnp.zeros_like(s.positions), {"density_change": self.change, "density_deviation": jnp.float32(0.02)}


@pytest.mark.parametrize(
    ("change", "sigma", "expected"),
    [(0.01, 0.3, 0.002), (-0.04, 0.3, -0.008), (9.0, 0.3, 0.01), (-9.0, 0.3, -0.01), (0.01, 0.01, 0.0), (0.01, 2.0, 0.0)],
)
def test_breathe_scales_cell_and_positions(silica, change, sigma, expected):
    """A fifth of the change (at most 5 %) per step, inside the window; fractional coordinates stay."""
    wide = samplers.breathe(samplers.probability_flow(), nuisance.density(RHO), gain=0.2)
    end, info = wide.step(jax.random.key(0), silica, Told(change=jnp.float32(change)), jnp.float32(1.1 * sigma), jnp.float32(sigma))
    assert float(jnp.log(st.number_density(end) / RHO)) == pytest.approx(expected, abs=2e-6)
    assert float(info["number_density"]) == pytest.approx(RHO * np.exp(expected), rel=1e-6)
    # what is known of the density is told only while it moves
    np.testing.assert_allclose(info["density_deviation"], 0.02 if expected else np.nan, rtol=1e-6)
    before, after = (st.fractional(s.positions, s.cell) for s in (silica, end))
    np.testing.assert_allclose(after, before, atol=1e-6)
    narrow = samplers.breathe(samplers.probability_flow(), nuisance.density(RHO, dict(bounds=(0.9995 * RHO, 1.0005 * RHO))))
    end, _ = narrow.step(jax.random.key(0), silica, Told(change=jnp.float32(change)), jnp.float32(1.1 * sigma), jnp.float32(sigma))
    assert abs(float(st.number_density(end)) / RHO - 1) < 5.1e-4
    assert float(st.number_density(narrow.densest(silica))) == pytest.approx(1.0005 * RHO, rel=1e-5)


def test_ensemble_with_an_inferred_density(tmp_path, monkeypatch):
    """Killed and resumed it is the same to the last bit; every replica has a cell of its own; the record says what was inferred."""
    monkeypatch.setattr(inversion, "_segment", lambda steps: 5)
    cell = packing()
    rho = float(st.number_density(cell))
    g = target(R, curve_of(cell), {"Si": 1}, function="g", number_density=rho, scale="infer", background=0, uncertainty=0.05)
    options = dict(composition="Si", atoms=32, number_density=rho, infer_density=dict(bounds=(0.9 * rho, 1.1 * rho)), prior=tiny_prior())
    options |= dict(replicas=2, chunk=2, steps=10, seed=3)

    class Killed(Exception):
        pass

    def cut(progress):
        if progress["done"] >= 5:
            raise Killed

    whole = invert(g, **options, out=tmp_path / "whole")
    with pytest.raises(Killed):
        invert(g, **options, out=tmp_path / "cut", report=cut)
    again = invert(g, **options, out=tmp_path / "cut", resume=True)
    for a, b in zip(whole.structures, again.structures, strict=True):
        np.testing.assert_array_equal(a.positions, b.positions)
        np.testing.assert_array_equal(a.cell, b.cell)
    found = [float(st.number_density(s)) for s in whole.structures]
    assert len(found) == 2 and found[0] != found[1] and all(0.9 * rho <= f <= 1.1 * rho and abs(f / rho - 1) > 1e-4 for f in found)
    np.testing.assert_allclose(whole.ensemble.last("number_density"), found, rtol=1e-5)
    record = json.loads((tmp_path / "whole" / "run.json").read_text())
    density, scale = record["inferred"]["number density"], record["inferred"]["scale of g"]
    assert density["mean"] == pytest.approx(np.mean(found), rel=1e-5) and density["spread"] == pytest.approx(np.std(found, ddof=1), rel=1e-3)
    assert density["uncertainty"] > 0 and 0.5 <= scale["mean"] <= 2.0 and "background_0 of g" in record["inferred"]
    assert record["infer_density"]["low"] == pytest.approx(0.9 * rho)


def curve_of(cell):
    from glassjax.observables import pair_distribution

    return curve(pair_distribution(R, ["Si"]), cell)


# --- bad input --------------------------------------------------------------------------------------------------------------------------------

X = dict(composition=["Si"], number_density=0.05, function="g")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: nuisance.density(0.05, dict(bounds=(0.06, 0.07))), "exclude its start"),
        (lambda: nuisance.density(0.05, dict(bounds=(0.06, 0.04))), "ascending"),
        (lambda: nuisance.density(0.05, dict(bound=(0.04, 0.06))), "bound;"),
        (lambda: nuisance.density(0.05, dict(deviation=0.0)), "positive"),
        (lambda: nuisance.density(0.05, 3), "infer_density = 3"),
        (lambda: nuisance.nuisance(R, scale=dict(start=3.0)), "exclude its start"),
        (lambda: nuisance.nuisance(R, scale=dict(value=3.0)), "value"),
        (lambda: nuisance.nuisance(R, scale="guess"), "infer"),
        (lambda: nuisance.nuisance(R, scale=0.0), "positive"),
        (lambda: nuisance.nuisance(R, scale=True), "number"),
        (lambda: nuisance.nuisance(R, qdamp=-0.1), "positive"),
        (lambda: nuisance.nuisance(R, qdamp=dict(deviation=-1)), "deviation"),
        (lambda: nuisance.nuisance(R, background=7), "from 0"),
        (lambda: nuisance.nuisance(R, background=dict(order=1, bounds=(0, 1))), "order and deviation"),
        (lambda: target(R, np.sin(R), **X, weight=-1.0), "weight -1"),
        (lambda: target(R, np.sin(R), **X, uncertainty=-0.1), "positive"),
        (lambda: target(Q, 1 + np.sin(Q), **X | dict(function="S"), qdamp="infer"), "qdamp"),
        (lambda: target(R, np.sin(R), **X | dict(function="T"), weights="neutron", qdamp="infer"), "qdamp"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (dict(kind="coordination", pair="Si-O", target=4.0), "without cutoff"),
        (dict(kind="distance-window", pair="Si-O", low=1.5), "without high, count"),
        (dict(kind="coordination", pair="Si-O", target=4.0, cutoff=2.2, count=4), "count"),
        (dict(kind="magnetic", pair="Si-O"), "magnetic"),
    ],
)
def test_bad_restraints(given, message):
    run = settings.RunSettings(restraint=[settings.RestraintSettings(**given)])
    with pytest.raises(ValueError, match=message):
        settings.invert_options(run)
