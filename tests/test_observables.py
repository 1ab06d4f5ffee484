"""Pair observables against direct sums, an independent code, limits, sum rules, symmetries and finite differences."""

import dataclasses

import freud
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ase.build import bulk
from ase.neighborlist import neighbor_list

from glassjax import structure as st
from glassjax.elements import neutron_length, xray_form_factor
from glassjax.io.atoms import from_atoms, to_atoms
from glassjax.observables import histogram, pair, pair_distribution, reciprocal, structure_factor

R = np.linspace(0.8, 6.0, 66)
Q = np.linspace(0.6, 20.0, 80)
pytestmark = pytest.mark.usefixtures("quick_compile")

TRICLINIC = np.array([[8.0, 0.3, -0.2], [2.5, 8.5, 0.4], [-3.0, 2.0, 9.0]])
ELEMENTS = ("Si", "O")


def mixture(n=30, cell=TRICLINIC, seed=0):
    """A packing of silicon and oxygen, one to two."""
    return st.random_packing(seed, [ELEMENTS[min(i % 3, 1)] for i in range(n)], cell=cell, minimum_distance=1.2, elements=ELEMENTS)


def distances(s, rmax):
    i, j, d = neighbor_list("ijd", to_atoms(s), rmax)
    species = np.asarray(s.species)
    return species[i], species[j], d


def direct_partials(s, r, width):
    """g_ab(r) by a direct sum over ordered pairs."""
    volume, species = abs(np.linalg.det(np.asarray(s.cell))), np.asarray(s.species)
    a, b, d = distances(s, r[-1] + 6 * width)
    gauss = np.exp(-0.5 * ((r[:, None] - d) / width) ** 2) / (np.sqrt(2 * np.pi) * width)
    count = [np.sum(species == k) for k in range(len(s.elements))]
    return {
        (x, y): volume / (4 * np.pi * r**2 * count[x] * count[y]) * gauss[:, (a == x) & (b == y)].sum(axis=1)
        for x in range(len(count))
        for y in range(len(count))
    }


def direct_structure_factor(s, q, amplitude, rmax, window):
    """S - 1 = (1 / N <b>^2) sum b_i b_j W(d) sinc(Qd) - 4 pi rho0 int r^2 W sinc(Qr) dr; amplitude [e] or [e, m]."""
    species, n = np.asarray(s.species), s.positions.shape[0]
    density = n / abs(np.linalg.det(np.asarray(s.cell)))
    b = np.broadcast_to(np.asarray(amplitude).reshape(len(s.elements), -1), (len(s.elements), len(q)))
    mean = np.mean([b[k] for k in species], axis=0)
    x, y, d = distances(s, rmax)
    terms = np.sin(np.outer(q, d)) / np.outer(q, d) * window(d)
    pairs = sum(b[u] * b[v] * terms[:, (x == u) & (y == v)].sum(axis=1) for u in range(len(s.elements)) for v in range(len(s.elements))) / (
        n * mean**2
    )
    fine = (np.arange(20000) + 0.5) * rmax / 20000
    hole = 4 * np.pi * density * np.sum(fine * window(fine) * np.sin(np.outer(q, fine)), axis=1) * (rmax / 20000) / q
    return 1 + pairs - hole


def cosine(rmax):
    return lambda r: np.where(r < 0.7 * rmax, 1.0, 0.5 * (1 + np.cos(np.pi * (r / rmax - 0.7) / 0.3)))


def lorch(rmax):
    return lambda r: np.sin(np.pi * r / rmax) / (np.pi * r / rmax)


_counts = jax.jit(histogram.pair_histogram, static_argnums=(1, 2))


def curve(observable, s, **options):
    fitted = observable.fit(s, **{"margin": 14.0} | options)
    return np.asarray(fitted.from_histogram(s, _counts(s, fitted.spec, fitted.points)[0]))


OBSERVABLES = {
    "g": lambda: pair_distribution(R, [*"Si O O".split()], weights="number"),
    "G neutron": lambda: pair_distribution(R, [*"Si O O".split()], function="G", weights="neutron"),
    "g partial": lambda: pair_distribution(R, [*"Si O O".split()], partial=("Si", "O")),
    "S neutron": lambda: structure_factor(Q, [*"Si O O".split()], weights="neutron", rmax=6.0),
    "S xray": lambda: structure_factor(Q, [*"Si O O".split()], weights="xray", rmax=6.0),
}


# --- limits -----------------------------------------------------------------------------------------------------------------------------------


def test_ideal_gas_gives_one():
    """g = (1 + (width / r)^2) (1 - 1/N) within counting errors, and S = 1."""
    n, edge, width = 1000, 20.0, 0.15
    rng = np.random.default_rng(0)
    r = np.arange(1.0, 7.0, 0.5)
    g_sum, s_sum, q = 0.0, 0.0, np.arange(2.0, 10.0, 0.5)
    g = pair_distribution(r, ["Ar"], width=width)
    s_of_q = structure_factor(q, ["Ar"], rmax=7.0)
    first = st.structure(rng.uniform(size=(n, 3)) * edge, np.diag([edge] * 3), ["Ar"] * n)
    functions = [jax.jit(o.fit(first, margin=8.0).__call__) for o in (g, s_of_q)]
    repeats = 4
    for _ in range(repeats):
        s = dataclasses.replace(first, positions=jnp.asarray(rng.uniform(size=(n, 3)) * edge, jnp.float32))
        g_sum, s_sum = g_sum + np.asarray(functions[0](s)), s_sum + np.asarray(functions[1](s))
    expected = (1 + (width / r) ** 2) * (1 - 1 / n)
    pairs = repeats * 0.5 * n * (n / edge**3) * 4 * np.pi * r**2 * 2 * np.sqrt(np.pi) * width  # met by one point, effectively
    z = (g_sum / repeats - expected) * np.sqrt(pairs)
    assert np.abs(z).max() < 4.0 and np.sqrt(np.mean(z**2)) < 1.6
    weight = pairs / pairs.sum()
    assert np.sum(weight * g_sum / repeats) == pytest.approx(np.sum(weight * expected), abs=4 / np.sqrt(pairs.sum()))
    assert np.mean(s_sum / repeats) == pytest.approx(1.0, abs=0.03)


def test_dimer_is_a_sinc():
    """S - 1 = b_a b_b / <b>^2 sinc(Qd) for a dimer, but for the mean density of the cell."""
    d, edge, rmax = 2.2, 60.0, 8.0
    positions = [[1.0, 2.0, 0.5], [1.0 + d / 3, 2.0 - 2 * d / 3, 0.5 + 2 * d / 3 - edge]]
    hole = 4 / 3 * np.pi * rmax**3 * 2 / edge**3
    one = st.structure(positions, np.diag([edge] * 3), ["Si", "Si"])
    np.testing.assert_allclose(curve(structure_factor(Q, ["Si"], rmax=rmax), one) - 1, np.sinc(Q * d / np.pi), atol=1.1 * hole)
    two = st.structure(positions, np.diag([edge] * 3), ["Si", "O"])
    a, b = neutron_length("Si"), neutron_length("O")
    expected = a * b / ((a + b) / 2) ** 2 * np.sinc(Q * d / np.pi)
    np.testing.assert_allclose(curve(structure_factor(Q, ["Si", "O"], weights="neutron", rmax=rmax), two) - 1, expected, atol=1.1 * hole)
    density, r = 2 / edge**3, np.linspace(1.0, 3.5, 501)
    g = curve(pair_distribution(r, ["Si"], width=0.1), one)
    shell = 4 * np.pi * density * r**2 * g
    assert np.trapezoid(shell, r) == pytest.approx(1.0, abs=1e-4)
    assert np.trapezoid(shell * r, r) == pytest.approx(d, abs=1e-3)
    assert np.sqrt(np.trapezoid(shell * (r - d) ** 2, r)) == pytest.approx(0.1, abs=1e-3)


def test_slope_of_big_g_at_the_origin():
    s = mixture()
    r = np.array([0.02, 0.05, 0.1, 0.2])
    density = 30 / abs(np.linalg.det(TRICLINIC))
    for weights in ("number", "neutron", "Z"):
        got = curve(pair_distribution(r, st_symbols(s), function="G", weights=weights, width=0.05), s)
        np.testing.assert_allclose(got, -4 * np.pi * density * r, rtol=1e-4)


def st_symbols(s):
    return [s.elements[k] for k in np.asarray(s.species)]


def test_structure_factor_tends_to_one():
    s = mixture()
    q = np.linspace(1.0, 39.0, 600)
    for weights in ("number", "neutron", "xray"):
        value = curve(structure_factor(q, st_symbols(s), weights=weights, rmax=6.0), s) - 1
        assert abs(value[-200:].mean()) < 0.01
        # each pair's sinc falls as 1/Q
        assert np.abs(value[q > 30]).max() < np.abs(value[(q > 1) & (q < 10)]).max() / 2


# --- values -----------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [0.05, 0.15])
def test_partials_agree_with_direct_sums(x64, width):
    s = mixture()
    direct = direct_partials(s, R, width)
    for (a, b), expected in direct.items():
        got = curve(pair_distribution(R, st_symbols(s), width=width, partial=(ELEMENTS[a], ELEMENTS[b])), s)
        # cubic splines on 0.02 A: error of order (h / width)^4
        np.testing.assert_allclose(got, expected, atol=2 * (0.02 / width) ** 4 / 100 * expected.max())


@pytest.mark.parametrize("weights", ["number", "neutron", "Z"])
def test_partials_sum_to_the_total(x64, weights):
    s = mixture()
    c = np.array([1 / 3, 2 / 3])
    b = {"number": np.ones(2), "neutron": np.array([4.1491, 5.803]), "Z": np.array([14.0, 8.0])}[weights]
    w = np.outer(c * b, c * b) / (c @ b) ** 2
    partial = {(i, j): curve(pair_distribution(R, st_symbols(s), partial=(ELEMENTS[i], ELEMENTS[j])), s) for i in range(2) for j in range(2)}
    expected = 1 + sum(w[k] * (partial[k] - 1) for k in partial)
    np.testing.assert_allclose(curve(pair_distribution(R, st_symbols(s), weights=weights), s), expected, rtol=1e-9)
    np.testing.assert_allclose(partial[0, 1], partial[1, 0], rtol=1e-12)
    density = 30 / abs(np.linalg.det(TRICLINIC))
    big = curve(pair_distribution(R, st_symbols(s), function="G", weights=weights), s)
    np.testing.assert_allclose(big, 4 * np.pi * density * R * (expected - 1), atol=1e-9)


@pytest.mark.parametrize(("weights", "window"), [("number", "cosine"), ("neutron", "lorch"), ("xray", "cosine"), ("Z", "cosine")])
def test_structure_factor_agrees_with_direct_sums(x64, weights, window):
    s = mixture()
    amplitude = {
        "number": np.ones(2),
        "neutron": np.array([4.1491, 5.803]),
        "Z": np.array([14.0, 8.0]),
        "xray": np.stack([xray_form_factor(e, Q) for e in ELEMENTS]),
    }[weights]
    expected = direct_structure_factor(s, Q, amplitude, 7.0, {"cosine": cosine, "lorch": lorch}[window](7.0))
    got = curve(structure_factor(Q, st_symbols(s), weights=weights, rmax=7.0, window=window), s)
    np.testing.assert_allclose(got, expected, atol=2e-4)


def test_structure_factor_partials_sum_to_the_total(x64):
    s = mixture()
    parts = {(a, b): curve(structure_factor(Q, st_symbols(s), partial=(a, b), rmax=6.0), s) for a in ELEMENTS for b in ELEMENTS if a >= b}
    parts["O", "Si"] = parts["Si", "O"]
    c, f = np.array([1 / 3, 2 / 3]), np.stack([xray_form_factor(e, Q) for e in ELEMENTS])
    mean = c @ f
    expected = 1 + sum(c[i] * c[j] * f[i] * f[j] / mean**2 * (parts[ELEMENTS[i], ELEMENTS[j]] - 1) for i in range(2) for j in range(2))
    np.testing.assert_allclose(curve(structure_factor(Q, st_symbols(s), weights="xray", rmax=6.0), s), expected, atol=1e-9)


def test_weights_are_immaterial_for_one_element(x64):
    s = st.random_packing(1, ["Si"] * 20, cell=TRICLINIC, minimum_distance=1.5)
    curves = [curve(structure_factor(Q, ["Si"], weights=w, rmax=6.0), s) for w in ("number", "neutron", "xray", "Z")]
    for other in curves[1:]:
        np.testing.assert_allclose(other, curves[0], rtol=1e-9)


def freud_box(s):
    cell = np.asarray(s.cell, dtype=float)
    assert np.allclose(cell, np.tril(cell))
    return freud.box.Box.from_matrix(cell.T)


def test_agrees_with_freud():
    """g averaged over broad bins, and the running coordination number in a gap, against freud.density.RDF."""
    rng = np.random.default_rng(2)
    n, edge = 800, 17.0
    s = st.structure(rng.uniform(size=(n, 3)) * edge, np.diag([edge] * 3), ["Ar"] * n)
    rdf = freud.density.RDF(bins=12, r_max=7.2)
    rdf.compute(system=(freud_box(s), np.asarray(s.positions) - edge / 2))
    r = np.arange(0.01, 7.2, 0.02)
    density = n / edge**3
    shell = 4 * np.pi * density * r**2 * curve(pair_distribution(r, ["Ar"], width=0.03), s)
    mine = shell.reshape(12, -1).sum(axis=1) * 0.02
    edges = np.asarray(rdf.bin_edges)
    theirs = np.asarray(rdf.rdf) * density * 4 / 3 * np.pi * np.diff(edges**3)
    # pairs that the Gaussian carries across an edge: about density 4 pi r^2 width n / sqrt(2 pi) each way, as a random walk
    spread = np.sqrt(2 * density * 4 * np.pi * edges[1:] ** 2 * 0.03 / n) * 3
    assert (np.abs(mine - theirs) < spread + 0.01).all()

    rng = np.random.default_rng(3)
    atoms = bulk("Si", "diamond", a=5.43, cubic=True).repeat(3)
    atoms.positions += rng.normal(scale=0.08, size=atoms.positions.shape)
    s = from_atoms(atoms)
    rdf = freud.density.RDF(bins=240, r_max=7.2)
    rdf.compute(system=(freud_box(s), np.asarray(s.positions) - atoms.cell.lengths() / 2))
    r = np.arange(1.5, 3.0, 0.01)
    g = curve(pair_distribution(r, ["Si"], width=0.05), s)
    count = np.trapezoid(4 * np.pi * len(atoms) / atoms.get_volume() * r**2 * g, r)
    assert count == pytest.approx(float(np.interp(3.0, rdf.bin_edges[1:], rdf.n_r)), abs=2e-3)
    assert count == pytest.approx(4.0, abs=0.02)


def test_structure_factor_transforms_back(x64):
    """The sine transform of Q (S - 1), damped, is G broadened: the first shell's place, area and shape."""
    rng = np.random.default_rng(3)
    atoms = bulk("Si", "diamond", a=5.43, cubic=True).repeat(2)
    atoms.positions += rng.normal(scale=0.1, size=atoms.positions.shape)
    s = from_atoms(atoms)
    q = np.arange(0.05, 39.0, 0.05)
    width, density = 0.1, len(atoms) / atoms.get_volume()
    s_of_q = curve(structure_factor(q, ["Si"], rmax=12.0), s)
    r = np.linspace(1.0, 7.0, 301)
    integrand = q * (s_of_q - 1) * np.exp(-0.5 * (width * q) ** 2)
    back = 2 / np.pi * np.trapezoid(integrand * np.sin(np.outer(r, q)), q, axis=1)
    _, _, d = distances(s, 9.0)
    gauss = np.exp(-0.5 * ((r[:, None] - d) / width) ** 2) / (np.sqrt(2 * np.pi) * width)
    expected = (gauss / d).sum(axis=1) / len(atoms) - 4 * np.pi * density * r
    np.testing.assert_allclose(back, expected, atol=0.01 * np.abs(expected).max())
    # pair_distribution divides by r, not d: they differ by (r - d) / d inside a peak
    mine = curve(pair_distribution(r, ["Si"], function="G", width=width), s)
    np.testing.assert_allclose(back, mine, atol=0.06 * np.abs(mine).max())
    shell = (r > 1.7) & (r < 3.1)
    both = [np.trapezoid((y * r + 4 * np.pi * density * r**2)[shell], r[shell]) for y in (back, mine)]
    assert both[0] == pytest.approx(4.0, abs=0.03) and both[1] == pytest.approx(4.0, abs=0.01)


def test_windowed_data_sees_what_the_model_sees(x64):
    """Data that hold far pairs, passed through the window, are the model's curve with that window; a second pass changes nothing inside."""
    rng = np.random.default_rng(4)
    atoms = bulk("Si", "diamond", a=5.43, cubic=True).repeat(2)
    atoms.positions += rng.normal(scale=0.15, size=atoms.positions.shape)
    s = from_atoms(atoms)
    q = np.arange(0.05, 30.0, 0.05)
    far = curve(structure_factor(q, ["Si"], rmax=15.0), s)
    near = curve(structure_factor(q, ["Si"], rmax=8.0), s)
    inside = (q > 0.5) & (q < 25)
    scale = np.abs(near - 1)[inside].max()
    assert np.abs(far - near)[inside].max() > 0.2 * scale  # the window matters
    seen = reciprocal.windowed_data(q, far, 8.0)
    assert np.abs(seen - near)[inside].max() < 0.02 * scale
    assert np.sqrt(np.mean((seen - near)[inside] ** 2)) < 0.005 * scale
    # the window is one up to 0.7 rmax, so what lies there passes unchanged
    again = reciprocal.windowed_data(q, near, 8.0 / 0.7)
    assert np.abs(again - near)[inside].max() < 0.02 * scale


# --- symmetries and invariances ---------------------------------------------------------------------------------------------------------------


def rotation(seed):
    q, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    return q * np.sign(np.linalg.det(q))


@pytest.mark.parametrize("name", OBSERVABLES)
def test_conformance(x64, name):
    """jit = eager, vmap = loop, one trace, translation, rotation, mirror, permutation, wrap, another cell of the lattice, supercell."""
    observable = OBSERVABLES[name]()
    s = mixture(n=18, cell=0.85 * TRICLINIC)
    fitted = observable.fit(s, margin=16.0)
    traces = []

    @jax.jit
    def compiled(s):
        traces.append(1)
        return fitted(s)

    base = np.asarray(compiled(s))
    assert np.isfinite(base).all() and base.shape == observable.x.shape
    close = lambda other: np.testing.assert_allclose(other, base, atol=1e-9 * np.abs(base).max())  # noqa: E731
    close(fitted(s))
    rng = np.random.default_rng(0)
    close(compiled(dataclasses.replace(s, positions=s.positions + jnp.array([[1.3, -2.7, 14.1]]))))
    close(compiled(dataclasses.replace(s, positions=s.positions + rng.integers(-2, 3, s.positions.shape) @ np.asarray(s.cell))))
    close(compiled(st.wrap(s)))
    order = rng.permutation(18)
    close(compiled(dataclasses.replace(s, positions=s.positions[order], species=s.species[order])))
    for turn in (rotation(1), -rotation(2)):
        close(compiled(dataclasses.replace(s, positions=s.positions @ turn, cell=s.cell @ turn)))
    others = [mixture(n=18, cell=0.85 * TRICLINIC, seed=k) for k in (1, 2)]
    loop = [compiled(other) for other in others]
    assert len(traces) == 1
    np.testing.assert_allclose(jax.jit(jax.vmap(fitted))(st.stack(others)), np.stack(loop), atol=1e-9 * np.abs(base).max())
    same_lattice = dataclasses.replace(s, cell=jnp.array([[1.0, 0, 0], [2, 1, 0], [-1, 1, 1]]) @ s.cell)
    close(curve(observable, same_lattice))
    close(curve(observable, from_atoms(to_atoms(s).repeat((2, 1, 1)), elements=ELEMENTS)))


def test_empty_slots_do_not_count(x64):
    s = mixture()
    padded = dataclasses.replace(
        s, positions=jnp.concatenate([s.positions, jnp.zeros((5, 3))]), species=jnp.concatenate([s.species, jnp.full(5, -1, jnp.int32)])
    )
    for make in (OBSERVABLES["g partial"], OBSERVABLES["S neutron"]):
        np.testing.assert_allclose(curve(make(), padded), curve(make(), s), atol=1e-10)


# --- gradients --------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", OBSERVABLES)
def test_gradients_by_finite_differences(x64, name):
    """Positions and cell (at fixed Cartesian positions), each component of a few atoms and random directions."""
    s = mixture(n=18, cell=0.85 * TRICLINIC)
    observable = OBSERVABLES[name]().fit(s, margin=16.0)
    weight = jnp.asarray(np.random.default_rng(1).normal(size=len(observable.x)))
    value = jax.jit(lambda p, c: jnp.vdot(weight, observable(dataclasses.replace(s, positions=p, cell=c))))
    gradients = jax.jit(jax.grad(value, argnums=(0, 1)))(s.positions, s.cell)
    h = 1e-4
    directions = [(0, np.eye(54)[k].reshape(18, 3)) for k in (0, 1, 2, 33)] + [(1, np.eye(9)[k].reshape(3, 3)) for k in range(9)]
    directions.append((0, np.random.default_rng(2).normal(size=(18, 3)) / 5))
    scale = [float(jnp.abs(g).max()) for g in gradients]
    for which, v in directions:
        ends = [value(*(x + sign * h * v if i == which else x for i, x in enumerate((s.positions, s.cell)))) for sign in (1, -1)]
        assert float(jnp.vdot(gradients[which], v)) == pytest.approx(float(ends[0] - ends[1]) / (2 * h), abs=2e-4 * scale[which])


def test_affine_strain_moves_everything(x64):
    """The gradient at fixed fractional coordinates follows by the chain rule from those in positions and cell."""
    s = mixture(n=18, cell=0.85 * TRICLINIC)
    observable = OBSERVABLES["S neutron"]().fit(s, margin=16.0)
    weight = jnp.asarray(np.random.default_rng(1).normal(size=len(observable.x)))

    @jax.jit
    def strained(e):
        deformation = jnp.eye(3) + e
        return jnp.vdot(weight, observable(dataclasses.replace(s, positions=s.positions @ deformation, cell=s.cell @ deformation)))

    gradient, h = jax.grad(strained)(jnp.zeros((3, 3))), 1e-5
    for k in range(9):
        v = jnp.eye(9)[k].reshape(3, 3)
        assert float(gradient.reshape(-1)[k]) == pytest.approx(
            float(strained(h * v) - strained(-h * v)) / (2 * h), abs=2e-4 * float(jnp.abs(gradient).max())
        )
    # a rotation changes nothing: the gradient is symmetric
    np.testing.assert_allclose(gradient, gradient.T, atol=1e-8 * float(jnp.abs(gradient).max()))


# --- the shared pass --------------------------------------------------------------------------------------------------------------------------


def test_one_pass_feeds_all(x64):
    s = mixture()
    observables = [make() for make in OBSERVABLES.values()]
    points = max(o.points for o in observables) + 7
    counts, _ = _counts(s, dataclasses.replace(observables[0], rmax=9.0).fit(s, margin=14.0).spec, points)
    for o in observables:
        expected = curve(o, s)
        # a Gaussian is cut at 5 widths, where it is 4e-6 of its height: pairs beyond that count in the longer grid's last nodes
        np.testing.assert_allclose(o.from_histogram(s, counts), expected, atol=1e-6)
        np.testing.assert_allclose(pair.with_points(o, points).from_histogram(s, counts), o.from_histogram(s, counts), rtol=1e-12)
    with pytest.raises(ValueError, match="shorten"):
        pair.with_points(observables[0], 10)


def test_elements_in_another_order_are_refused():
    """Rows are per pair of species: another order would weight the wrong pairs."""
    observable = pair_distribution(R, {"O": 2, "Si": 1}, weights="neutron")
    with pytest.raises(ValueError, match="in this order"):
        curve(observable, mixture())


def test_overflow_is_nan():
    s = mixture()
    assert np.isnan(curve(OBSERVABLES["g"](), s, capacity=4)).all()


def test_spline_coefficients_interpolate():
    """sum_m c_m B((r - m h) / h) gives the values back at the nodes: c_{m-1}/6 + 4 c_m/6 + c_{m+1}/6."""
    values = np.sin(np.linspace(0, 3, 60))
    c = histogram.spline_coefficients(values)
    np.testing.assert_allclose((c[:-2] + 4 * c[1:-1] + c[2:]) / 6, values[1:-1], atol=1e-12)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: pair_distribution(R, ["Si"], function="F"), "function"),
        (lambda: pair_distribution(R[::-1], ["Si"]), "ascending"),
        (lambda: pair_distribution(R, ["Si"], width=0.01), "width"),
        (lambda: pair_distribution(R, ["Si", "O"], weights="xray"), "depend on Q"),
        (lambda: pair_distribution(R, ["Si", "O"], weights="mass"), "weights"),
        (lambda: pair_distribution(R, ["Si", "O"], partial=("Si", "C")), "not in"),
        (lambda: structure_factor(np.linspace(0.0, 5.0, 9), ["Si"]), "positive"),
        (lambda: structure_factor(np.linspace(1.0, 200.0, 9), ["Si"]), "157"),
        (lambda: structure_factor(Q, ["Si"], window="hann"), "window"),
        (lambda: structure_factor(Q, {"H": neutron_length("D"), "D": -neutron_length("H")}, weights="neutron"), "vanishes"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
