"""Scores and samplers: conformance, exact solutions, the closed form of the guidance, ladders, ensembles."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ase.neighborlist import neighbor_list
from tiny import random_parameters

import glassjax.guidance as guidance
from glassjax import contacts, noise, segments
from glassjax import samplers as sm
from glassjax import structure as st
from glassjax._pytree import frozen, static
from glassjax.contacts import keep_apart
from glassjax.ensemble import sample
from glassjax.io.atoms import to_atoms
from glassjax.neighbors import build, grow, neighbor_spec
from glassjax.observables import histogram
from glassjax.priors.equivariant import EquivariantNetwork
from glassjax.priors.prior import Prior
from glassjax.replica import Stage, run
from glassjax.targets import target

TRICLINIC = np.array([[7.0, 0.3, -0.2], [2.0, 7.5, 0.4], [-2.0, 1.5, 7.2]])
ELEMENTS = ("Si", "O")
R, Q = np.linspace(1.0, 4.5, 24), np.linspace(1.0, 9.0, 20)


@frozen
class Repulsion:
    """A cheap score with every symmetry: atoms push each other, and it meets capacities as a prior does."""

    reach: float = static(default=3.0)
    spec: object = static(default=None)

    def fit(self, s):
        return dataclasses.replace(self, spec=neighbor_spec(s, self.reach, margin=14.0))

    def grown(self, info):
        return dataclasses.replace(self, spec=grow(self.spec, info["needed"]))

    def __call__(self, s, sigma):
        graph = build(s, self.spec)
        push = jnp.where(graph.mask, jnp.exp(-(graph.distances**2) / 2), 0.0)[..., None] * graph.displacements
        kind = 1.0 + s.species.astype(push.dtype)[:, None]
        return -0.3 * kind * jnp.sum(push, axis=1) / (sigma + 0.5), {"needed": graph.needed}


@frozen
class Gaussian:
    """The exact score of noise on independent Gaussians of standard deviation ``spread`` around ``centre``: no neighbours, no info."""

    centre: jax.Array
    spread: jax.Array

    def fit(self, s):
        return self

    def grown(self, info):
        return self

    def __call__(self, s, sigma):
        return -(s.positions - self.centre) / (self.spread**2 + sigma**2), {}


def mixture(n=16, seed=0, minimum_distance=1.4):
    symbols = [ELEMENTS[i % 2] for i in range(n)]
    return st.random_packing(seed, symbols, cell=TRICLINIC, minimum_distance=minimum_distance, elements=ELEMENTS)


def targets():
    composition, density = ["Si", "O"], 16 / abs(np.linalg.det(TRICLINIC))
    g = target(R, 1 + 0.3 * np.sin(3 * R), composition, function="g", number_density=density, weights="neutron")
    s = target(Q, 1 + 0.2 * np.cos(2 * Q), composition, function="S", number_density=density, weights="xray", rmax=5.0, name="S")
    return g, s


def network_prior(s):
    network = EquivariantNetwork(elements=2, channels=8, steerable=4, blocks=1, radial=8, cutoff=3.5)
    return Prior(params=random_parameters(network, s, 3), network=network, elements=ELEMENTS)


SCORES = {
    "posterior, pseudo-inverse": lambda s: guidance.posterior(Repulsion(), targets()),
    "posterior, gradient": lambda s: guidance.posterior(Repulsion(), targets()[0], method="gradient", strength=0.3),
    "posterior of a network": lambda s: guidance.posterior(network_prior(s), targets()[0]),
    "keep_apart": lambda s: keep_apart(Repulsion(), {("Si", "Si"): 2.2, ("Si", "O"): 1.9, ("O", "O"): 2.1}, ELEMENTS),
    "keep_apart of a posterior": lambda s: keep_apart(guidance.posterior(Repulsion(), targets()[1]), 2.0, ELEMENTS),
}
SAMPLERS = {
    "reverse SDE": lambda: sm.reverse_sde(ancestral=False),
    "ancestral": lambda: sm.reverse_sde(),
    "probability flow": lambda: sm.probability_flow(),
    "predictor-corrector": lambda: sm.predictor_corrector(corrections=2),
    "veto": lambda: sm.veto(sm.reverse_sde(), 1.3, ELEMENTS, below=1.0),
}


def turn(seed):
    q, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    return q * np.sign(np.linalg.det(q))


# --- conformance ------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SCORES)
def test_score_conformance(x64, quick_compile, name):
    """jit = eager, vmap = loop, one trace, translation, rotation, reflection, permutation, lattice wrap, empty slots (priors: test_priors)."""
    s = mixture()
    score = SCORES[name](s).fit(s)
    score = score.grown({k: np.array([48, 700, 0]) for k in ("needed", "needed_pairs", "needed_contacts")})  # room for every variant below
    traces = []

    @jax.jit
    def compiled(s, sigma):
        traces.append(1)
        return score(s, sigma)[0]

    sigma = jnp.float64(0.3)
    base = np.asarray(compiled(s, sigma))
    scale = np.abs(base).max()
    assert base.shape == (16, 3) and np.isfinite(base).all() and scale > 1e-3

    def close(other, expected=base):
        np.testing.assert_allclose(compiled(other, sigma), expected, atol=2e-7 * scale)  # Cholesky of a stiff system costs digits

    rng = np.random.default_rng(1)
    close(dataclasses.replace(s, positions=s.positions + jnp.array([[5.3, -2.7, 14.1]])))
    close(dataclasses.replace(s, positions=s.positions + rng.integers(-2, 3, s.positions.shape) @ np.asarray(s.cell)))
    close(st.wrap(s))
    order = rng.permutation(16)
    close(dataclasses.replace(s, positions=s.positions[order], species=s.species[order]), base[order])
    for matrix in (turn(1), -turn(2)):
        close(dataclasses.replace(s, positions=s.positions @ matrix, cell=s.cell @ matrix), base @ matrix)
    compiled(s, jnp.float64(0.7))
    assert len(traces) == 1
    np.testing.assert_allclose(score(s, sigma)[0], base, atol=2e-7 * scale)
    batch = [s, mixture(seed=1)]
    loop = np.stack([compiled(one, sigma) for one in batch])
    np.testing.assert_allclose(jax.jit(jax.vmap(lambda one: score(one, sigma)[0]))(st.stack(batch)), loop, atol=2e-7 * np.abs(loop).max())
    padded = dataclasses.replace(
        s, positions=jnp.concatenate([s.positions, jnp.ones((2, 3))]), species=jnp.concatenate([s.species, jnp.full(2, -1, jnp.int32)])
    )
    both = np.asarray(compiled(padded, sigma))
    np.testing.assert_allclose(both[:16], base, atol=2e-7 * scale)
    np.testing.assert_array_equal(both[16:], 0.0)


@pytest.mark.parametrize("name", SAMPLERS)
def test_sampler_conformance(x64, quick_compile, name):
    """jit = eager, vmap = loop, one trace, translation and lattice wrap for equal noise; rotation and permutation where there is none."""
    s = mixture()
    score = Repulsion().fit(s).grown({"needed": np.array([48, 700, 0])})
    sampler = SAMPLERS[name]().fit(s)
    traces = []

    @jax.jit
    def compiled(key, s, sigma, following):
        traces.append(1)
        return sampler.step(key, sampler.init(key, s), score, sigma, following)[0].positions

    key, levels = jax.random.key(0), (jnp.float64(0.5), jnp.float64(0.4))
    base = np.asarray(compiled(key, s, *levels))
    assert np.isfinite(base).all() and np.abs(base - np.asarray(s.positions)).max() > 1e-3
    np.testing.assert_allclose(sampler.step(key, s, score, *levels)[0].positions, base, atol=1e-9)
    shift = np.array([[5.3, -2.7, 14.1]])
    np.testing.assert_allclose(compiled(key, dataclasses.replace(s, positions=s.positions + shift), *levels), base + shift, atol=1e-9)
    lattice = np.random.default_rng(1).integers(-2, 3, s.positions.shape) @ np.asarray(s.cell)
    np.testing.assert_allclose(compiled(key, dataclasses.replace(s, positions=s.positions + lattice), *levels), base + lattice, atol=1e-9)
    other = mixture(seed=1)
    keys = jax.random.split(jax.random.key(2), 2)
    loop = [compiled(k, one, *levels) for k, one in zip(keys, (s, other), strict=True)]
    mapped = jax.jit(jax.vmap(lambda k, one: sampler.step(k, one, score, *levels)[0].positions))(keys, st.stack([s, other]))
    np.testing.assert_allclose(mapped, np.stack(loop), atol=1e-9)
    last = compiled(key, s, levels[1], jnp.float64(0.0))  # a step to zero noise is finite and, for all of them, without noise
    assert np.isfinite(last).all()
    np.testing.assert_allclose(last, compiled(jax.random.key(9), s, levels[1], jnp.float64(0.0)), atol=1e-12)
    assert len(traces) == 1
    if name == "probability flow":
        matrix, order = turn(3), np.random.default_rng(2).permutation(16)
        turned = dataclasses.replace(s, positions=s.positions @ matrix, cell=s.cell @ matrix)
        np.testing.assert_allclose(compiled(key, turned, *levels), base @ matrix, atol=1e-9)
        mixed = dataclasses.replace(s, positions=s.positions[order], species=s.species[order])
        np.testing.assert_allclose(compiled(key, mixed, *levels), base[order], atol=1e-9)
    else:
        assert np.abs(np.asarray(compiled(jax.random.key(9), s, *levels)) - base).max() > 1e-2


def test_empty_slots_do_not_move():
    s = dataclasses.replace(mixture(), species=mixture().species.at[3].set(-1))
    score = Repulsion().fit(s)
    for make in SAMPLERS.values():
        end, _ = run(jax.random.key(0), s, [Stage(score=score, sampler=make().fit(s), ladder=noise.linear(2))])
        np.testing.assert_array_equal(end.positions[3], s.positions[3])


# --- exact solutions --------------------------------------------------------------------------------------------------------------------------


def cloud(n, spread, seed=0):
    """Atoms spread by the target's standard deviation around centres in a cell that matters to none of them."""
    rng = np.random.default_rng(seed)
    centre = rng.uniform(20.0, 80.0, size=(n, 3))
    s = st.structure(centre + spread * rng.normal(size=(n, 3)), np.diag([100.0] * 3), ["Ar"] * n)
    return s, Gaussian(centre=jnp.asarray(centre, s.positions.dtype), spread=jnp.asarray(spread, s.positions.dtype)), centre


@pytest.mark.parametrize("name", ["reverse SDE", "ancestral", "predictor-corrector"])
@pytest.mark.parametrize("shape", ["geometric", "linear"])
def test_exact_score_gives_the_exact_variance(x64, name, shape):
    """Harmonic wells of spread u: after denoising to s_min the variance is u^2 + s_min^2."""
    u, low = 0.2, 0.02
    s, score, centre = cloud(5000, u)
    ladder = {"geometric": noise.geometric, "linear": noise.linear}[shape](300, sigma_max=1.0, sigma_min=low)
    end, _ = jax.jit(lambda k, s: run(k, s, [Stage(score=score, sampler=SAMPLERS[name](), ladder=ladder)]))(jax.random.key(1), s)
    d = np.asarray(end.positions) - centre
    error = np.sqrt(2 / d.size)
    assert abs(d.mean()) < 5 * u / np.sqrt(d.size)
    assert d.var() / (u**2 + low**2) == pytest.approx(1.0, abs=4 * error + 0.015)  # 0.015: finite steps
    kurtosis = np.mean(d**4) / d.var() ** 2
    assert kurtosis == pytest.approx(3.0, abs=5 * np.sqrt(24 / d.size))


@pytest.mark.parametrize("size", [0.3, 1.0])
@pytest.mark.parametrize("u", [0.05, 0.2, 1.0])
def test_corrections_keep_the_exact_variance(x64, size, u):
    """Harmonic wells, tight and loose ones: u^2 + sigma^2 stays, however long the steps are, but for what the first step of a level takes; by the
    closed form of the linear recursion after 1, 2 and 40 steps."""
    sigma = 0.2
    s, score, centre = cloud(100000, np.sqrt(u**2 + sigma**2))
    score = dataclasses.replace(score, spread=jnp.float64(u))
    still = sm.probability_flow()  # between equal levels it does not move
    exact, c = u**2 + sigma**2, size * sigma**2 / (u**2 + sigma**2)
    expected = (1 - c) ** 2 * exact + 2 * size * sigma**2  # the first step: independent noise
    assert expected == pytest.approx(exact * (1 + c**2))
    for steps in range(1, 41):
        if steps > 1:  # the others share half of their noise with the one before: covariance sqrt(e / 2)^2
            expected = (1 - c) ** 2 * expected + 2 * (1 - c) * size * sigma**2 / 2 + size * sigma**2
        if steps == 4:
            assert expected == pytest.approx(exact, rel=0.012)
        if steps in (1, 2, 40):
            sampler = sm.predictor_corrector(still, corrections=steps, size=size)
            end, _ = jax.jit(lambda k, s, sampler=sampler: sampler.step(k, s, score, jnp.float64(sigma), jnp.float64(sigma)))(jax.random.key(0), s)
            d = np.asarray(end.positions) - centre
            assert d.var() == pytest.approx(expected, rel=5 * np.sqrt(2 / d.size))
    # what is too much falls by (1 - c)^2 per step
    assert expected / exact - 1 == pytest.approx((1 - c) ** 78 * c**2, abs=1e-9)


def test_variance_of_each_step_is_as_published(x64):
    """One step from exact noise, both forms of the reverse SDE, against the variance that their definitions give."""
    u, a, b = 0.3, 0.5, 0.35
    s, score, centre = cloud(20000, np.sqrt(u**2 + a**2))
    score = dataclasses.replace(score, spread=jnp.float64(u))
    for ancestral, noise_variance in ((False, a**2 - b**2), (True, (a**2 - b**2) * b**2 / a**2)):
        end, _ = sm.reverse_sde(ancestral=ancestral).step(jax.random.key(0), s, score, jnp.float64(a), jnp.float64(b))
        d = np.asarray(end.positions) - centre
        shrink = 1 - (a**2 - b**2) / (u**2 + a**2)
        assert d.var() == pytest.approx(shrink**2 * (u**2 + a**2) + noise_variance, rel=5 * np.sqrt(2 / d.size))


def test_probability_flow_is_exact_and_second_order(x64):
    """x - x0 shrinks by sqrt((u^2 + s_min^2) / (u^2 + s_max^2)), atom by atom; the error falls fourfold with twice the steps."""
    u, high, low = 0.2, 1.0, 0.02
    s, score, centre = cloud(50, np.sqrt(u**2 + high**2))
    score = dataclasses.replace(score, spread=jnp.float64(u))
    expected = (np.asarray(s.positions) - centre) * np.sqrt((u**2 + low**2) / (u**2 + high**2))
    errors = []
    for steps in (20, 40, 80):
        x = s
        for a, b in noise.geometric(steps, sigma_max=high, sigma_min=low).astype(float):
            x, _ = sm.probability_flow().step(None, x, score, jnp.float64(a), jnp.float64(b))
        errors.append(np.abs(np.asarray(x.positions) - centre - expected).max())
    assert errors[2] < 1e-3 * np.abs(expected).max() * 5
    assert 3.0 < errors[0] / errors[1] < 5.5 and 3.3 < errors[1] / errors[2] < 4.8


def test_a_step_to_zero_is_tweedie(x64):
    u, a = 0.3, 0.4
    s, score, centre = cloud(20, 0.5)
    score = dataclasses.replace(score, spread=jnp.float64(u))
    x = np.asarray(s.positions)
    expected = x - a**2 * (x - centre) / (u**2 + a**2)
    for sampler in (sm.reverse_sde(), sm.reverse_sde(ancestral=False), sm.probability_flow(), sm.predictor_corrector()):
        end, _ = sampler.step(jax.random.key(0), s, score, jnp.float64(a), jnp.float64(0.0))
        np.testing.assert_allclose(end.positions, expected, atol=1e-9)


# --- ladders ----------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [noise.linear, noise.geometric, noise.karras])
def test_ladders_descend_without_gaps(make):
    ladder = make(40, sigma_max=1.5, sigma_min=0.02)
    assert ladder.shape == (40, 2) and ladder.dtype == np.float32
    assert ladder[0, 0] == pytest.approx(1.5, rel=1e-6) and ladder[-1, 1] == pytest.approx(0.02, rel=1e-5)
    np.testing.assert_array_equal(ladder[1:, 0], ladder[:-1, 1])
    assert (ladder[:, 0] > ladder[:, 1]).all()
    levels = np.append(ladder[:, 0], ladder[-1, 1]).astype(float)
    even = {"linear": levels, "geometric": np.log(levels), "karras": levels ** (1 / 7)}[make.__name__]
    np.testing.assert_allclose(np.diff(even), np.diff(even).mean(), rtol=2e-3)


def test_published_ladder_and_limits():
    ladder = noise.linear(512)
    np.testing.assert_allclose(ladder[[0, -1], [0, 1]], [0.8, 0.0008], rtol=1e-6)  # sigma = 0.8 A t, t 1.0 -> 0.001
    assert noise.linear(1, sigma_max=1.0, sigma_min=0.0).tolist() == [[1.0, 0.0]]
    one = noise.karras(5, sigma_max=1.0, sigma_min=0.0, exponent=1.0)
    np.testing.assert_allclose(one, noise.linear(5, sigma_max=1.0, sigma_min=0.0), atol=1e-7)
    assert noise.finish(ladder)[-1].tolist() == [ladder[-1, 1], 0.0] and len(noise.finish(ladder)) == 513


def test_restart_ladder():
    ladder = noise.linear(10, sigma_max=1.0, sigma_min=0.0)
    cycled = noise.restart(ladder, sigma=0.3, cycles=2)
    assert len(cycled) == 10 + 2 * 3
    for start in (10, 13):
        np.testing.assert_allclose(cycled[start : start + 3], [[0.3, 0.2], [0.2, 0.1], [0.1, 0.0]], atol=1e-6)
    np.testing.assert_array_equal(noise.restart(ladder, sigma=0.3, cycles=0), ladder)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: noise.linear(0), "at least 1"),
        (lambda: noise.linear(5, sigma_max=0.1, sigma_min=0.2), "sigma_max > sigma_min"),
        (lambda: noise.karras(5, sigma_max=0.5, sigma_min=-0.1), "sigma_min >= 0"),
        (lambda: noise.geometric(5, sigma_min=0.0), "sigma_min > 0"),
        (lambda: noise.restart(noise.linear(5), sigma=0.3, cycles=-1), "cycles"),
        (lambda: noise.restart(noise.linear(5, sigma_max=0.8, sigma_min=0.4), sigma=0.3, cycles=1), "0.3 A"),
        (lambda: sm.predictor_corrector(corrections=0), "correction"),
        (lambda: sm.predictor_corrector(size=2.0), "size"),
        (lambda: guidance.posterior(Repulsion(), []), "no target"),
        (lambda: guidance.posterior(Repulsion(), targets()[0], method="magic"), "method"),
        (lambda: guidance.posterior(Repulsion(), targets()[0], method="gradient"), "strength"),
        (lambda: keep_apart(Repulsion(), {("Si", "C"): 2.0}, ELEMENTS), "C"),
        (lambda: sm.veto(sm.reverse_sde(), {("Si", "C"): 2.0}, ELEMENTS), "C"),
        (lambda: sample(jax.random.key(0), [], mixture(), replicas=0), "at least 1"),
        (lambda: sample(jax.random.key(0), [], [mixture()] * 3, replicas=2), "3 starting structures for 2"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_missing_noise_is_added(x64):
    """The first step and every restart bring the structure to the level they start from, and no farther.

    With a flat score the flow does not move, so the variance is what was added: s_max^2, then s_r^2 - s_end^2 per cycle.
    """
    s, score, centre = cloud(20000, 1e-6)
    flat = dataclasses.replace(score, spread=jnp.float64(1e9))
    ladder = noise.restart(noise.linear(10, sigma_max=1.0, sigma_min=0.1), sigma=0.6, cycles=2)
    begin = ladder[10, 0]
    end, _ = run(jax.random.key(0), s, [Stage(score=flat, sampler=sm.probability_flow(), ladder=ladder)])
    d = np.asarray(end.positions) - centre
    assert d.var() == pytest.approx(1.0 + 2 * (begin**2 - 0.1**2), rel=5 * np.sqrt(2 / d.size))
    # a second stage continues from the level of the first: nothing is added below it
    two = [Stage(score=flat, sampler=sm.probability_flow(), ladder=noise.linear(3, sigma_max=a, sigma_min=b)) for a, b in ((1.0, 0.5), (0.5, 0.1))]
    d = np.asarray(run(jax.random.key(0), s, two)[0].positions) - centre
    assert d.var() == pytest.approx(1.0, rel=5 * np.sqrt(2 / d.size))


# --- guidance ---------------------------------------------------------------------------------------------------------------------------------


def closed_form(score, s, sigma, strength=1.0, prior_width=0.5):
    """The pseudo-inverse push from the formula, with dense Jacobians by automatic differentiation of the observables."""
    base = np.asarray(score.score(s, sigma)[0])
    estimate = dataclasses.replace(s, positions=s.positions + sigma**2 * base)
    jacobian, residual, variance = [], [], []
    for t in score.targets:
        observable = t.observable.fit(s, margin=14.0)
        curve = lambda p, o=observable: o(dataclasses.replace(estimate, positions=p))  # noqa: E731
        jacobian.append(np.asarray(jax.jit(jax.jacrev(curve))(estimate.positions)).reshape(len(t.data), -1))
        residual.append(np.asarray(t.data - curve(estimate.positions)))
        variance.append(np.asarray(t.uncertainty) ** 2)
    j, y, c = np.concatenate(jacobian), np.concatenate(residual), np.diag(np.concatenate(variance)) / strength
    r2 = sigma**2 / (1 + sigma**2 / prior_width**2)
    return base, (r2 / sigma**2) * (j.T @ np.linalg.solve(c + r2 * j @ j.T, y)).reshape(-1, 3)


def larger(seed=0):
    """Enough atoms for the data to leave most directions free, as in every real cell."""
    return st.random_packing(seed, [ELEMENTS[i % 2] for i in range(64)], number_density=0.05, minimum_distance=1.6, elements=ELEMENTS)


@pytest.mark.parametrize(("strength", "sigma"), [(1.0, 0.3), (0.01, 0.8), (1.0, 0.02)])
def test_pseudo_inverse_equals_the_closed_form(x64, quick_compile, monkeypatch, strength, sigma):
    """On a fine grid: J J^T is summed on the nodes nearest to the pairs, J^T itself is exact."""
    monkeypatch.setattr(histogram, "STEP", 0.004)
    s = larger()
    score = guidance.posterior(Repulsion(), targets(), strength=strength).fit(s)
    base, expected = closed_form(score, s, sigma, strength)
    got = np.asarray(score(s, jnp.float64(sigma))[0]) - base
    assert np.linalg.norm(got - expected) < 0.05 * np.linalg.norm(expected)


def test_pseudo_inverse_converges_to_the_closed_form(x64, quick_compile, monkeypatch):
    """On the grid of the package the push points the same way and is as strong; the difference vanishes with the grid."""
    s, errors = larger(), []
    for step in (histogram.STEP, histogram.STEP / 4):
        monkeypatch.setattr(histogram, "STEP", step)
        score = guidance.posterior(Repulsion(), targets()).fit(s)
        base, expected = closed_form(score, s, 0.3)
        got = np.asarray(score(s, jnp.float64(0.3))[0]) - base
        errors.append(np.linalg.norm(got - expected) / np.linalg.norm(expected))
        assert np.vdot(got, expected) > 0.97 * np.linalg.norm(got) * np.linalg.norm(expected)
        assert np.linalg.norm(got) == pytest.approx(np.linalg.norm(expected), rel=0.1)
    assert errors[1] < 0.5 * errors[0]


def test_gradient_method_equals_automatic_differentiation(x64, quick_compile):
    """-(w / sum_c n_c) d/dx0 sum_c n_c^2 for two targets, n_c the norm of a residual times the root of the target's weight."""
    s, sigma, w = mixture(), 0.3, 0.7
    weighted = [dataclasses.replace(t, weight=jnp.asarray(k)) for t, k in zip(targets(), (1.0, 2.5), strict=True)]
    score = guidance.posterior(Repulsion(), weighted, method="gradient", strength=w).fit(s)
    base = score.score(s, sigma)[0]
    fitted = [t.fit(s, margin=14.0) for t in score.targets]
    estimate = s.positions + sigma**2 * base

    def norms(p):
        return jnp.stack([jnp.sqrt(t.weight) * jnp.linalg.norm(t.data - t.observable(dataclasses.replace(s, positions=p))) for t in fitted])

    expected = -w / jnp.sum(norms(estimate)) * jax.jit(jax.grad(lambda p: jnp.sum(norms(p) ** 2)))(estimate)
    got = score(s, jnp.float64(sigma))[0] - base
    np.testing.assert_allclose(got, expected, atol=1e-5 * float(jnp.abs(expected).max()))  # S counts a few pairs just beyond its window


def test_guidance_goes_downhill_and_vanishes_at_the_truth(x64, quick_compile):
    """Data of the structure itself leave it alone; data of another one are approached by each step along the push."""
    s, other = mixture(), mixture(seed=1)
    g = targets()[0]
    observable = g.observable.fit(s, margin=14.0)
    for method, strength in (("pseudo-inverse", 1.0), ("gradient", 2.0)):
        quiet = dataclasses.replace(Repulsion(), reach=0.5)  # no neighbour: a zero prior
        truth = guidance.posterior(quiet, dataclasses.replace(g, data=observable(s)), method=method, strength=strength).fit(s)
        np.testing.assert_allclose(truth(s, jnp.float64(0.2))[0], 0.0, atol=1e-6)
        score = guidance.posterior(quiet, dataclasses.replace(g, data=observable(other)), method=method, strength=strength).fit(s)
        step = jax.jit(lambda x, score=score: score(x, jnp.float64(0.2)))
        x, misfit = s, []
        for _ in range(8):
            push, info = step(x)
            misfit.append(float(info["r_factor"][0]))
            x = dataclasses.replace(x, positions=x.positions + 0.3 * 0.2**2 * push)
        assert misfit[-1] < 0.8 * misfit[0]
        model, data = np.asarray(observable(s)), np.asarray(observable(other))
        assert misfit[0] == pytest.approx(np.sqrt(np.sum((data - model) ** 2) / np.sum((data - 1) ** 2)), rel=1e-9)


def shortest(s):
    return neighbor_list("d", to_atoms(s), 3.0).min()


def test_keep_apart_parts_overlapping_estimates(x64):
    """A pair at 1.2 A under a limit of 2.0: one denoising step at low noise puts it at 2.0; others do not move."""
    s = st.structure([[5.0, 5, 5], [5.0, 5.0, 6.2], [1.0, 1, 1]], np.diag([10.0] * 3), ["Si", "O", "Si"], ELEMENTS)
    score = keep_apart(dataclasses.replace(Repulsion(), reach=0.5), {("Si", "O"): 2.0, ("Si", "Si"): 9.9 / 3}, ELEMENTS, fade=1e6).fit(s)
    push = np.asarray(score(s, jnp.float64(0.05))[0])
    np.testing.assert_allclose(0.05**2 * push, [[0, 0, -0.4], [0, 0, 0.4], [0, 0, 0]], atol=1e-6)
    end, _ = sm.reverse_sde().step(jax.random.key(0), s, score, jnp.float64(0.05), jnp.float64(0.0))
    assert shortest(end) == pytest.approx(2.0, abs=1e-6)
    faded = keep_apart(dataclasses.replace(Repulsion(), reach=0.5), 2.0, ELEMENTS, fade=0.1).fit(s)
    np.testing.assert_allclose(faded(s, jnp.float64(0.3))[0][0, 2], -0.4 / 0.09 / (1 + 3.0**4), rtol=1e-5)


@pytest.mark.parametrize("shift", [[0, 0, 0], [7.2, 6.5, 7.0]])
def test_keep_apart_parts_a_crowd(x64, shift):
    """Four atoms too close to each other and a fifth that one of them is pushed to, in the middle of the cell and across its corner: one round
    leaves overlaps, several part them; their centre stays."""
    places = np.array([[4.0, 5, 5], [5.3, 5, 5], [6.7, 5, 5], [5.0, 6.2, 5], [8.8, 5, 5]]) + shift
    s = st.structure(places % 12.0, np.diag([12.0] * 3), ["Si", "Si", "O", "Si", "Si"], ELEMENTS)
    limits, ends = {("Si", "Si"): 2.0, ("Si", "O"): 1.9, ("O", "O"): 1.0}, []
    for rounds in (1, 6, 60):
        score = keep_apart(dataclasses.replace(Repulsion(), reach=0.5), limits, ELEMENTS, fade=1e6, rounds=rounds).fit(s)
        push = 0.05**2 * np.asarray(score(s, jnp.float64(0.05))[0])
        np.testing.assert_allclose(push.sum(axis=0), 0, atol=1e-9)
        end = (places + push) % 12.0
        away = np.array([[np.linalg.norm((a - b + 6.0) % 12.0 - 6.0) for a in end] for b in end])
        needed = np.where((np.array(list("SSOSS"))[:, None] == "O") ^ (np.array(list("SSOSS"))[None] == "O"), 1.9, 2.0)
        ends.append((away - needed)[~np.eye(5, dtype=bool)].min())
    assert ends[0] < ends[1] - 0.05 and ends[1] > -0.1 and ends[2] == pytest.approx(0.0, abs=0.01)
    with pytest.raises(ValueError, match="rounds is 0"):
        keep_apart(Repulsion(), 2.0, ELEMENTS, rounds=0)


def test_veto_keeps_pairs_apart(x64):
    """Noise that would bring atoms together is refused, per pair of species; without the veto it does."""
    s = mixture(minimum_distance=1.5)
    limits = {("Si", "Si"): 1.5, ("Si", "O"): 1.45, ("O", "O"): 1.4}
    free = dataclasses.replace(Repulsion(), reach=0.5).fit(s)
    free = free.grown({"needed": np.array([16, 300, 0])})

    def walk(sampler):
        step = jax.jit(lambda k, x: sampler.step(k, x, free, jnp.float64(0.5), jnp.float64(0.45))[0])
        x, worst = s, []
        for i in range(12):
            x = step(jax.random.key(i), x)
            i_, j_, d = neighbor_list("ijd", to_atoms(x), 3.0)
            kinds = np.asarray(x.species)
            bound = np.array(
                [limits[tuple(sorted((ELEMENTS[kinds[a]], ELEMENTS[kinds[b]]), key=ELEMENTS.index))] for a, b in zip(i_, j_, strict=True)]
            )
            worst.append((d - bound).min())
        return min(worst), np.abs(np.asarray(x.positions - s.positions)).max()

    kept, moved = walk(sm.veto(sm.reverse_sde(ancestral=False), limits, ELEMENTS, below=1.0, rounds=10).fit(s))
    assert kept >= -1e-6 and moved > 0.3
    assert walk(sm.reverse_sde(ancestral=False))[0] < -0.1
    assert walk(sm.veto(sm.reverse_sde(ancestral=False), limits, ELEMENTS, below=0.1, rounds=10).fit(s))[0] < -0.1  # too noisy to veto


# --- ensembles --------------------------------------------------------------------------------------------------------------------------------


def stages(s, steps=6):
    score = keep_apart(guidance.posterior(network_prior(s), targets()[0]), 1.5, ELEMENTS)
    return [Stage(score=score, sampler=sm.veto(sm.reverse_sde(), 1.3, ELEMENTS), ladder=noise.geometric(steps, sigma_max=0.5, sigma_min=0.05))]


def cheap(s):
    """The same with a score that compiles at once."""
    return [dataclasses.replace(g, score=keep_apart(guidance.posterior(Repulsion(), targets()[0]), 1.5, ELEMENTS)) for g in stages(s)]


def positions(ensemble):
    return np.stack([np.asarray(s.positions) for s in ensemble.structures])


@pytest.fixture(scope="module")
def four():
    s = mixture()
    return s, sample(jax.random.key(7), stages(s), s, replicas=4, chunk=2, segment=3)


def test_replicas_differ_and_are_reproducible(four):
    s, ensemble = four
    x = positions(ensemble)
    assert ensemble.status == ["ok"] * 4 and np.isfinite(x).all()
    for i in range(4):
        for j in range(i):
            assert np.sqrt(np.mean((x[i] - x[j]) ** 2)) > 0.1
    np.testing.assert_array_equal(positions(sample(jax.random.key(7), stages(s), s, replicas=4, chunk=2, segment=3)), x)
    assert np.abs(positions(sample(jax.random.key(8), stages(s), s, replicas=[0, 1], chunk=2, segment=3)) - x[:2]).max() > 0.1


def test_replica_alone_is_replica_among_others(four):
    """Bit for bit on a CPU, whatever the company and the chunks."""
    s, ensemble = four
    x = positions(ensemble)
    for replicas, chunk in (([3, 1], 2), ([2], 1), ([0, 3, 1], 3)):
        np.testing.assert_array_equal(positions(sample(jax.random.key(7), stages(s), s, replicas=replicas, chunk=chunk, segment=3)), x[replicas])


def test_other_shapes_give_the_same_structures_but_for_rounding(x64, monkeypatch):
    """A chunk of one, `run`, and lists that start too small, overflow, grow and repeat: the same random numbers, the same structures.

    In 64 bits: with 16 atoms and stiff data, rounding grows along the trajectory, and in 32 bits it becomes visible.
    """
    s = mixture()
    reference = sample(jax.random.key(7), cheap(s), s, replicas=4, chunk=2, segment=3)
    x = positions(reference)
    alone = sample(jax.random.key(7), cheap(s), s, replicas=[3], chunk=2, segment=6)
    assert alone.replicas == [3]
    np.testing.assert_allclose(positions(alone)[0], x[3], atol=1e-5)
    fitted = [dataclasses.replace(g, score=g.score.fit(s), sampler=g.sampler.fit(s)) for g in cheap(s)]
    end, infos = jax.jit(lambda k, s: run(k, s, fitted, replica=2))(jax.random.key(7), s)
    np.testing.assert_allclose(end.positions, x[2], atol=1e-5)
    assert infos[0]["r_factor"].shape == (6, 1) and reference.r_factor.shape == (4, 6, 1)
    honest, calls = neighbor_spec, []

    def stingy(structure, cutoff, **options):
        calls.append(cutoff)
        return dataclasses.replace(honest(structure, cutoff, **options), capacity=3, edges=16)

    for module in (guidance, contacts, sm):
        monkeypatch.setattr(module, "neighbor_spec", stingy)
    grown = sample(jax.random.key(7), cheap(s), s, replicas=4, chunk=2, segment=3)
    assert len(set(calls)) == 3 and grown.status == ["ok"] * 4
    np.testing.assert_allclose(positions(grown), x, atol=1e-5)


def test_interrupted_and_resumed_is_the_same(four, tmp_path):
    s, ensemble = four

    class Killed(Exception):
        pass

    for after in (1, 2, 3):

        def cut(progress, after=after):
            if progress["done"] >= 3 * after:
                raise Killed

        options = dict(replicas=4, chunk=2, segment=3, checkpoint=tmp_path / str(after))
        with pytest.raises(Killed):
            sample(jax.random.key(7), stages(s), s, report=cut, **options)
        resumed = sample(jax.random.key(7), stages(s), s, resume=True, **options)
        np.testing.assert_array_equal(positions(resumed), positions(ensemble))
        np.testing.assert_array_equal(resumed.r_factor, ensemble.r_factor)
        with pytest.raises(ValueError, match="other inputs"):
            sample(jax.random.key(8), stages(s), s, resume=True, **options)


def test_a_full_disk_is_reported_and_nothing_is_lost(four, tmp_path, monkeypatch):
    s, ensemble = four

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("glassjax.checkpoint.write_arrays", full)
    with pytest.warns(UserWarning, match="No space left on device.*goes on without") as found:
        kept = sample(jax.random.key(7), stages(s), s, replicas=4, chunk=2, segment=3, checkpoint=tmp_path / "full")
    assert len(found) == 1
    np.testing.assert_array_equal(positions(kept), positions(ensemble))


@pytest.fixture
def together(monkeypatch):
    """Batches as one program, as on a GPU."""
    monkeypatch.setattr(segments, "in_lanes", lambda devices: False)


def test_states_are_donated_and_a_segment_that_overflowed_is_repeated(x64, together, monkeypatch):
    """A batch's memory becomes that of its result; what has to be repeated starts from the host's copy, with the same random numbers."""
    s = mixture()
    reference = sample(jax.random.key(7), cheap(s), s, replicas=2, chunk=2, segment=3)
    honest, asked = neighbor_spec, []

    def stingy(structure, cutoff, **options):
        return dataclasses.replace(honest(structure, cutoff, **options), capacity=3, edges=16)

    for module in (guidance, contacts, sm):
        monkeypatch.setattr(module, "neighbor_spec", stingy)
    compiled = segments.compiled

    def watched(devices, state, stage):
        program = compiled(devices, state, stage)

        def call(state, stage):
            asked.append(jax.tree.leaves(state))
            return program(state, stage)

        call.memory_analysis = program.memory_analysis
        return call

    monkeypatch.setattr(segments, "compiled", watched)
    grown = sample(jax.random.key(7), cheap(s), s, replicas=2, chunk=2, segment=3)
    assert len(asked) > 2  # two segments, and what was repeated
    assert all(any(leaf.is_deleted() for leaf in leaves) for leaves in asked)
    np.testing.assert_allclose(positions(grown), positions(reference), atol=1e-5)


def test_one_program_for_a_batch_or_one_for_each(x64, monkeypatch):
    """The same structures but for rounding; the last of the batches is padded. In 64 bits, because rounding grows."""
    s = mixture()
    each = sample(jax.random.key(7), cheap(s), s, replicas=3, chunk=2, segment=3)
    monkeypatch.setattr(segments, "in_lanes", lambda devices: False)
    batches = sample(jax.random.key(7), cheap(s), s, replicas=3, chunk=2, segment=3)
    np.testing.assert_allclose(positions(batches), positions(each), atol=1e-5)


def short_of_memory(monkeypatch, how, fails_from):
    """Let memory suffice for two replicas and a half, or programs of ``fails_from`` replicas fail; returns the sizes of programs."""
    compiled, needed, sizes = segments.compiled, segments.memory.needed, []

    def watched(devices, state, stage):
        program, count = compiled(devices, state, stage), state.step.size
        sizes.append(count)
        if how == "predicted":
            monkeypatch.setattr(segments.memory, "free", lambda devices: 2.5 * needed(program) / count)
        if how == "predicted" or count < fails_from:
            return program

        def fails(*_):
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 1 bytes.")

        fails.memory_analysis = program.memory_analysis
        return fails

    monkeypatch.setattr(segments, "compiled", watched)
    return sizes


@pytest.mark.parametrize("how", ["predicted", "allocation fails"])
def test_memory_that_is_short_takes_fewer_replicas(how, four, tmp_path, together, monkeypatch):
    """Half of the replicas at a time: the structures that two at a time give, and what was finished is not made again."""
    s = four[0]
    ensemble = sample(jax.random.key(7), stages(s), s, replicas=4, chunk=2, segment=3)
    sizes = short_of_memory(monkeypatch, how, fails_from=4)
    with pytest.warns(UserWarning, match="4 replicas at a time need .* GiB .*; taking 2$"):
        found = sample(jax.random.key(7), stages(s), s, replicas=4, chunk=4, segment=3, checkpoint=tmp_path / "c")
    assert sizes[0] == 4 and set(sizes[1:]) == {2} and found.status == ["ok"] * 4
    np.testing.assert_allclose(positions(found), positions(ensemble), atol=1e-4)
    again = sample(jax.random.key(7), stages(s), s, replicas=4, chunk=4, segment=3, checkpoint=tmp_path / "c", resume=True)
    np.testing.assert_array_equal(positions(again), positions(found))


def test_memory_that_is_short_takes_fewer_lanes(four, monkeypatch):
    """On a CPU fewer replicas run side by side and the structures are the same to the last bit; no room for one is an error that says its need."""
    s, ensemble = four
    monkeypatch.setattr(segments, "cores", lambda: 4)
    with monkeypatch.context() as context:
        short_of_memory(context, "predicted", fails_from=1)
        with pytest.warns(UserWarning, match="4 replicas at a time need .* GiB .*; taking 2$"):
            found = sample(jax.random.key(7), stages(s), s, replicas=4, chunk=4, segment=3)
    np.testing.assert_array_equal(positions(found), positions(ensemble))
    short_of_memory(monkeypatch, "allocation fails", fails_from=1)
    with pytest.warns(UserWarning, match="taking [12]$"), pytest.raises(RuntimeError, match="memory ran out at .* GiB per replica"):
        sample(jax.random.key(7), stages(s), s, replicas=4, chunk=4, segment=3)


def test_devices_with_memory_of_their_own_take_what_fits(four, together, monkeypatch):
    s = four[0]
    ensemble = sample(jax.random.key(7), stages(s), s, replicas=4, chunk=4, segment=3)
    monkeypatch.setattr(segments, "default_chunk", lambda *_: 1)
    monkeypatch.setattr(segments.memory, "separate", lambda devices: True)
    seen = []
    found = sample(jax.random.key(7), stages(s), s, replicas=4, segment=3, report=lambda progress: seen.append(progress["chunks"]))
    assert set(seen) == {1}  # all four at a time, after one program for one
    np.testing.assert_allclose(positions(found), positions(ensemble), atol=1e-4)
    with monkeypatch.context() as tight:
        tight.setattr(segments.memory, "free", lambda devices: 0.0)
        assert sample(jax.random.key(7), stages(s), s, replicas=2, segment=3).status == ["ok", "ok"]


def test_processes_without_a_folder_are_refused(four):
    with pytest.raises(ValueError, match="2 processes and no checkpoint folder"):
        sample(jax.random.key(7), stages(four[0]), four[0], replicas=4, place=(0, 2))


def test_a_diverged_replica_is_reported_and_the_others_kept():
    s = mixture()
    bad = dataclasses.replace(s, positions=s.positions.at[0, 0].set(jnp.nan))
    plan = [Stage(score=Repulsion(), sampler=sm.reverse_sde(), ladder=noise.linear(4))]
    ensemble = sample(jax.random.key(0), plan, [s, bad, s], chunk=2, replicas=3)
    assert ensemble.status == ["ok", "diverged", "ok"] and ensemble.good() == [0, 2]
    assert len(ensemble.to_atoms()) == 2
    with pytest.raises(RuntimeError, match="replica 1 diverged"):
        sample(jax.random.key(0), plan, [s, bad, s], chunk=2, replicas=3, throw=True)
