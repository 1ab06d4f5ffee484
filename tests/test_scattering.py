"""Every pair function: conversions of each other, closed forms, direct sums, an independent transform, symmetries and gradients."""

import dataclasses
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ase.neighborlist import neighbor_list

from glassjax import structure as st
from glassjax.conversions import convert, mean_square_of, self_square_of
from glassjax.elements import neutron_length, xray_form_factor
from glassjax.io.atoms import from_atoms, to_atoms
from glassjax.neighbors import build, neighbor_spec
from glassjax.observables import histogram, jacobian, pair_distribution, structure_factor
from glassjax.observables.angle import angle_distribution
from glassjax.observables.pair import PARTIAL_ONLY, REAL_SPACE, RECIPROCAL, grid_points
from glassjax.observables.weights import fractions_of, isotope_mean, mean_square
from glassjax.spectra import compute_spectra

pytestmark = pytest.mark.usefixtures("quick_compile")

ELEMENTS, SILICA = ("Si", "O"), {"Si": 1, "O": 2}
PAIRS = (("Si", "Si"), ("Si", "O"), ("O", "O"))
CELL = np.array([[8.0, 0.3, -0.2], [2.5, 8.5, 0.4], [-3.0, 2.0, 9.0]])
R, Q = np.linspace(0.1, 6.0, 60), np.linspace(0.6, 20.0, 80)
RMAX, REACH = 7.0, 10.0  # A: of functions of Q, and of the one pair pass that feeds every test
BARN = 0.01  # per fm^2


def silica(n=30, cell=CELL, seed=0):
    return st.random_packing(seed, [ELEMENTS[min(i % 3, 1)] for i in range(n)], cell=cell, minimum_distance=1.2, elements=ELEMENTS)


def density_of(s):
    return s.positions.shape[0] / abs(np.linalg.det(np.asarray(s.cell)))


_histogram = jax.jit(histogram.pair_histogram, static_argnums=(1, 2))


@cache
def counted():
    """The structure of most tests and its pair histogram, float64 (for tests with the fixture ``x64``)."""
    s = silica()
    return s, _histogram(s, neighbor_spec(s, REACH, margin=10.0), grid_points(REACH))[0]


def real(function="g", r=R, **options):
    s, counts = counted()
    return np.asarray(pair_distribution(r, SILICA, function=function, **options).from_histogram(s, counts))


def wave(function="S", q=Q, **options):
    s, counts = counted()
    return np.asarray(structure_factor(q, SILICA, function=function, rmax=RMAX, **options).from_histogram(s, counts))


# --- definitions ------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("qdamp", [0.0, 0.08])
@pytest.mark.parametrize("weights", ["number", "neutron", "Z"])
def test_real_space_functions_are_conversions_of_g(x64, weights, qdamp):
    constants = dict(number_density=density_of(counted()[0]), mean_square=mean_square_of(SILICA, weights))
    g = real(weights=weights, qdamp=qdamp)
    assert np.abs(g - 1).max() > 0.5
    for function in REAL_SPACE:
        expected = convert(R, g, "g", function, **constants)
        np.testing.assert_allclose(real(function, weights=weights, qdamp=qdamp), expected, atol=1e-10 * np.abs(expected).max())


@pytest.mark.parametrize("weights", ["number", "neutron", "Z", "xray"])
def test_reciprocal_functions_are_conversions_of_s(x64, weights):
    constants = dict(mean_square=mean_square_of(SILICA, weights, Q), self_square=self_square_of(SILICA, weights, Q))
    s = wave(weights=weights)
    for function in RECIPROCAL:
        expected = convert(Q, s, "S", function, **constants)
        np.testing.assert_allclose(wave(function, weights=weights), expected, atol=1e-10 * np.abs(expected).max())
    b = 1.5
    damped = constants["self_square"] + np.exp(-(Q**2) * b / (8 * np.pi**2)) * constants["mean_square"] * (s - 1)
    np.testing.assert_allclose(wave("I", weights=weights, displacement=b), damped, rtol=1e-9)


def test_floors_and_slopes_below_the_first_pair(x64):
    """g = 0: G = -4 pi rho0 r, G_keen = -<b>^2, D = <b>^2 G, T = RDF = 0."""
    s, _ = counted()
    r = np.linspace(0.01, 0.5, 9)
    square = (np.array([1, 2]) / 3 @ np.array([4.1491, 5.803])) ** 2 * BARN
    assert square == pytest.approx(0.2758, abs=5e-5)  # PHYSICS.md
    line = -4 * np.pi * density_of(s) * r
    expected = dict(g=0 * r, G=line, G_keen=-square + 0 * r, D=square * line, T=0 * r, RDF=0 * r)
    for function in REAL_SPACE:
        np.testing.assert_allclose(real(function, r, weights="neutron", width=0.05), expected[function], atol=1e-6)


def test_argon_numbers(x64):
    """PHYSICS.md, from Keen (2001): rho0 0.02138, <b>^2 3.644 fm^2; no pair lies below r = 0.075 A, so none is needed."""
    s = st.structure([[0.0, 0.0, 0.0]], np.diag([1 / 0.02138, 1.0, 1.0]), ["Ar"])

    def at(make, function, x):
        o = make(np.array([x, x + 0.01]), ["Ar"], function=function, weights="neutron")
        return o, float(o.from_histogram(s, jnp.zeros((1, o.points)))[0])

    assert at(pair_distribution, "G", 0.075)[1] == pytest.approx(-0.020150, abs=5e-7)
    assert at(pair_distribution, "G_keen", 0.075)[1] / BARN == pytest.approx(-3.644, abs=5e-4)
    (f, level), (one, unit) = at(structure_factor, "F_keen", 0.02), at(structure_factor, "S", 0.02)
    assert level / (unit - 1) / BARN * 0.246037 == pytest.approx(0.896560, abs=2e-4)
    np.testing.assert_allclose(f.rows * 0.246037 / BARN, one.rows * 0.896560, atol=2e-4)


@pytest.mark.parametrize("edge", [30.0, 60.0])
def test_dimer_less_the_mean_density(x64, edge):
    """S - 1 = sinc(Qd) - 4 pi rho0 (sin QR - QR cos QR) / Q^3, R = rmax with a sharp window; two ordered pairs over two atoms give the factor 1."""
    d, rmax = 2.2, 6.0
    s = st.structure([[1.0, 2.0, 0.5], [1.0 + d / 3, 2.0 - 2 * d / 3, 0.5 + 2 * d / 3 - edge]], np.diag([edge] * 3), ["Si", "Si"])
    counts = _histogram(s, neighbor_spec(s, rmax), grid_points(rmax))[0]
    hole = 4 * np.pi * 2 / edge**3 * (np.sin(Q * rmax) - Q * rmax * np.cos(Q * rmax)) / Q**3
    reduced = np.sinc(Q * d / np.pi) - hole
    b, damping = neutron_length("Si") ** 2 * BARN, np.exp(-(Q**2) / (8 * np.pi**2))
    expected = {"S": 1 + reduced, "F_keen": b * reduced, "Q(S-1)": Q * reduced, "I": b * (1 + damping * reduced)}
    for function, y in expected.items():
        extra = dict(displacement=1.0) if function == "I" else {}
        o = structure_factor(Q, ["Si"], function=function, weights="neutron", rmax=rmax, window="none", **extra)
        np.testing.assert_allclose(o.from_histogram(s, counts), y, atol=2e-5 * (20.0 if function == "Q(S-1)" else 1.0))


def test_partials_sum_to_every_total(x64):
    c, b = np.array([1, 2]) / 3, np.array([4.1491, 5.803])
    cc = {("Si", "Si"): c[0] ** 2, ("Si", "O"): 2 * c[0] * c[1], ("O", "O"): c[1] ** 2}
    bb = {("Si", "Si"): b[0] ** 2, ("Si", "O"): b[0] * b[1], ("O", "O"): b[1] ** 2}
    square = (c @ b) ** 2
    w = {p: cc[p] * bb[p] / square for p in PAIRS}
    for function in ("g", "G", "RDF"):
        total = sum(w[p] * real(function, partial=p) for p in PAIRS)
        np.testing.assert_allclose(real(function, weights="neutron"), total, rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(real(function, partial=("O", "Si")), real(function, partial=("Si", "O")), rtol=1e-12)
    # the weights sum to one, so G_keen, D and T follow from the partial g without more
    partial = {p: real(partial=p) for p in PAIRS}
    line = 4 * np.pi * density_of(counted()[0]) * R
    keen = BARN * sum(cc[p] * bb[p] * (partial[p] - 1) for p in PAIRS)
    for function, total in (("G_keen", keen), ("D", line * keen), ("T", line * BARN * sum(cc[p] * bb[p] * partial[p] for p in PAIRS))):
        np.testing.assert_allclose(real(function, weights="neutron"), total, atol=1e-10)
    a = {p: wave(partial=p) for p in PAIRS}
    np.testing.assert_allclose(wave("Q(S-1)", weights="neutron"), sum(w[p] * wave("Q(S-1)", partial=p) for p in PAIRS), atol=1e-9)
    f = {e: xray_form_factor(e, Q) for e in ELEMENTS}
    np.testing.assert_allclose(wave("F_keen", weights="xray"), sum(cc[p] * f[p[0]] * f[p[1]] * (a[p] - 1) for p in PAIRS), atol=1e-8)


def test_ashcroft_langreth_and_bhatia_thornton(x64):
    """Their definitions from A_ab, and that both add up to the same intensity, for lengths that differ in sign too."""
    a11, a12, a22 = (wave(partial=p) for p in PAIRS)
    c1, c2 = 1 / 3, 2 / 3
    al = {p: wave("S_AL", partial=p) for p in PAIRS}
    np.testing.assert_allclose(al["Si", "Si"], 1 + c1 * (a11 - 1), atol=1e-10)
    np.testing.assert_allclose(al["O", "O"], 1 + c2 * (a22 - 1), atol=1e-10)
    np.testing.assert_allclose(al["Si", "O"], np.sqrt(c1 * c2) * (a12 - 1), atol=1e-10)
    nn, nc, cc = (wave(f) for f in PARTIAL_ONLY[1:])
    np.testing.assert_allclose(nn, c1**2 * a11 + c2**2 * a22 + 2 * c1 * c2 * a12, atol=1e-10)
    np.testing.assert_allclose(nc, c1 * c2 * (c1 * (a11 - a12) - c2 * (a22 - a12)), atol=1e-10)
    np.testing.assert_allclose(cc, c1 * c2 * (1 + c1 * c2 * (a11 + a22 - 2 * a12)), atol=1e-10)
    f1, f2 = (xray_form_factor(e, Q) for e in ELEMENTS)
    mean, step = c1 * f1 + c2 * f2, f1 - f2
    np.testing.assert_allclose(wave("I", weights="xray"), mean**2 * nn + 2 * mean * step * nc + step**2 * cc, rtol=1e-9)
    langreth = c1 * f1**2 * al["Si", "Si"] + c2 * f2**2 * al["O", "O"] + 2 * np.sqrt(c1 * c2) * f1 * f2 * al["Si", "O"]
    np.testing.assert_allclose(wave("I", weights="xray"), langreth, rtol=1e-9)


def test_levels_at_large_q(x64):
    """The mean over Q = 30 to 39, where what is left of each pair is an oscillation of 1 / Q."""
    q = np.linspace(30.0, 39.0, 400)
    c, b = np.array([1, 2]) / 3, np.array([4.1491, 5.803])
    levels = {"S": 1.0, "F_keen": 0.0, "I": c @ b**2 * BARN, "S_NN": 1.0, "S_NC": 0.0, "S_CC": c[0] * c[1]}
    for function, level in levels.items():
        size = np.ptp(wave(function, np.linspace(1, 10, 50), weights="neutron"))
        assert wave(function, q, weights="neutron").mean() == pytest.approx(level, abs=0.01 * size)
    for pair, level in zip(PAIRS, (1.0, 0.0, 1.0), strict=True):
        assert wave("S_AL", q, partial=pair).mean() == pytest.approx(level, abs=0.01)


# --- isotopes and amounts ---------------------------------------------------------------------------------------------------------------------


def test_isotopes():
    assert isotope_mean("Ni", "62Ni") == pytest.approx(-8.7) and isotope_mean("H", "D") == pytest.approx(6.671)
    share = 6.671 / (6.671 + 3.739)
    assert isotope_mean("H", {"H": share, "D": 1 - share}) == pytest.approx(0.0, abs=1e-3)  # null water
    half = isotope_mean("Ni", {"62Ni": 1, "Ni": 1})
    assert half == pytest.approx((10.3 - 8.7) / 2)
    # H and D that exchange share one site: their mean length counts
    water = {"H": 2, "O": 1}
    mixed = mean_square(fractions_of(water), "neutron", isotopes={"H": {"H": 1, "D": 3}})
    assert mixed == pytest.approx(((2 * (-3.739 + 3 * 6.671) / 4 + 5.803) / 3) ** 2 * BARN)
    for make, x, function in ((pair_distribution, R, "G_keen"), (structure_factor, Q, "F_keen")):
        natural, other = (make(x, ["Ni"], function=function, weights="neutron", isotopes=i) for i in (None, {"Ni": "62Ni"}))
        np.testing.assert_allclose(other.rows, natural.rows * (8.7 / 10.3) ** 2, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("composition", "options", "message"),
    [
        (["Ni"], dict(isotopes={"Ni": "99Ni"}), "99Ni"),
        (["Ni"], dict(isotopes={"Ni": "D"}), "isotopes of Ni"),
        (["Ni"], dict(isotopes={"H": "D"}), "isotopes of H"),
        (["Ni"], dict(isotopes={"Ni": {"62Ni": -1.0, "Ni": 2.0}}), "not negative"),
        (["Ni"], dict(isotopes={"Ni": "62Ni"}, weights="Z"), "isotopes with Z"),
        ({"Si": 1, "O": -2}, {}, "not negative"),
        ({"Si": 0, "O": 0}, {}, "not all zero"),
        ({}, {}, "not all zero"),
        (["Si", "O"], dict(partial=("Si", "O"), function="D"), "partial of D"),
        (["Si"], dict(termination="hann", qmax=20.0), "termination"),
        (["Si"], dict(termination="sharp"), "qmax"),
        (["Si"], dict(qmax=10.0, qmin=12.0), "qmin"),
        (["Si"], dict(qdamp=-0.1), "qdamp"),
        (["Si", "O"], dict(weights="xray", function="g"), "qmax"),
    ],
)
def test_bad_real_space(composition, options, message):
    with pytest.raises(ValueError, match=message):
        pair_distribution(R, composition, **dict(weights="neutron") | options)


@pytest.mark.parametrize(
    ("composition", "options", "message"),
    [
        (["Si", "O"], dict(function="S_AL"), "pair"),
        (["Si"], dict(function="S_NN"), "exactly two"),
        (["Si", "O"], dict(function="I", partial=("Si", "O")), "partial of I"),
        (["Si", "O"], dict(function="S_NN", displacement=1.0), "displacement"),
        (["Si"], dict(qdamp=-0.1), "qdamp"),
        (["Si"], dict(function="g"), "structure_factor makes"),
        (["Si", "O"], dict(function="S_AL", partial=("Si", "C")), "not in"),
    ],
)
def test_bad_reciprocal(composition, options, message):
    with pytest.raises(ValueError, match=message):
        structure_factor(Q, composition, **options)


# --- direct sums ------------------------------------------------------------------------------------------------------------------------------


def pair_distances(reach):
    s = counted()[0]
    i, j, d = neighbor_list("ijd", to_atoms(s), reach)
    species = np.asarray(s.species)
    return species[i], species[j], d


@pytest.mark.parametrize("weights", ["xray", "neutron"])
def test_intensity_is_a_debye_sum(x64, weights):
    """I = sum c f^2 + D(Q) [sum_{i != j} f_i f_j W(r) sinc(Qr) / N - 4 pi rho0 <f>^2 int r^2 W sinc(Qr) dr]: the mean density in the same window."""
    s, _ = counted()
    b, q = 1.5, np.linspace(0.5, 12.0, 40)
    f = np.stack([xray_form_factor(e, q) if weights == "xray" else neutron_length(e) / 10 * np.ones(len(q)) for e in ELEMENTS])
    a, z, d = pair_distances(RMAX)
    window = lambda r: np.where(r < 0.7 * RMAX, 1.0, 0.5 * (1 + np.cos(np.pi * (r / RMAX - 0.7) / 0.3)))  # noqa: E731
    terms = np.sinc(np.outer(q, d) / np.pi) * window(d)
    pairs = sum(f[u] * f[v] * terms[:, (a == u) & (z == v)].sum(axis=1) for u in (0, 1) for v in (0, 1)) / 30
    fine = (np.arange(20000) + 0.5) * RMAX / 20000
    mean, own = (f[0] + 2 * f[1]) / 3, (f[0] ** 2 + 2 * f[1] ** 2) / 3
    hole = 4 * np.pi * density_of(s) * np.sum(fine**2 * window(fine) * np.sinc(np.outer(q, fine) / np.pi), axis=1) * RMAX / 20000
    expected = own + np.exp(-(q**2) * b / (8 * np.pi**2)) * (pairs - mean**2 * hole)
    np.testing.assert_allclose(wave("I", q, weights=weights, displacement=b), expected, atol=2e-4 * own.max())


@pytest.mark.parametrize(("qdamp", "qbroad"), [(0.05, 0.0), (0.0, 0.06), (0.05, 0.06)])
def test_resolution_against_direct_sums(x64, qdamp, qbroad):
    """G = exp(-(qdamp r)^2 / 2) [sum N(r; d, w(d)) / (N r) - 4 pi rho0 r], w = width sqrt(1 + (qbroad d)^2)."""
    s, width = counted()[0], 0.12
    _, _, d = pair_distances(9.0)
    spread = width * np.sqrt(1 + (qbroad * d) ** 2)
    gauss = np.exp(-0.5 * ((R[:, None] - d) / spread) ** 2) / (np.sqrt(2 * np.pi) * spread)
    expected = np.exp(-0.5 * (qdamp * R) ** 2) * (gauss.sum(axis=1) / (30 * R) - 4 * np.pi * density_of(s) * R)
    got = real("G", width=width, qdamp=qdamp, qbroad=qbroad)
    np.testing.assert_allclose(got, expected, atol=1e-4 * np.abs(expected).max())
    # in Q the same envelope acts on pairs
    undamped, damped = (structure_factor(Q, SILICA, rmax=RMAX, qdamp=x).rows for x in (0.0, qdamp))
    node = 300
    assert np.abs(damped[0, :, node] - undamped[0, :, node] * np.exp(-0.5 * (qdamp * node * histogram.STEP) ** 2)).max() < 1e-3


WINDOWS = {
    "sharp": lambda t: np.ones_like(t),
    "lorch": lambda t: np.sinc(t),
    "soper-barney": lambda t: 3 * (np.sin(4.493409458 * t) - 4.493409458 * t * np.cos(4.493409458 * t)) / (4.493409458 * t) ** 3,
}


def transformed(r, qmin, qmax, termination, weights, qdamp, far=40.0, width=0.07):
    """G(r) from the distances: broadened and damped G_ab to ``far``, sine transform to Q, weights and window there, and back (numpy, midpoints)."""
    fine, q = (np.arange(int(far / 0.02)) + 0.5) * 0.02, qmin + (np.arange(1200) + 0.5) * (qmax - qmin) / 1200
    s, (a, z, d) = counted()[0], pair_distances(far + 0.4)
    density = density_of(s)
    f = np.stack([{"xray": xray_form_factor(e, q), "neutron": neutron_length(e) * np.ones(len(q))}[weights] for e in ELEMENTS]) / 3 * [[1.0], [2.0]]
    taper = np.exp(-0.5 * (qdamp * fine) ** 2) * 0.5 * (1 + np.cos(np.pi * np.clip((fine - 0.7 * far) / (0.3 * far), 0, 1)))
    nodes = np.arange(int(far / 0.005) + 1) * 0.005
    kernel = np.exp(-0.5 * ((fine[:, None] - nodes) / width) ** 2) / (np.sqrt(2 * np.pi) * width)
    sine = np.sin(np.outer(q, fine)) * 0.02
    total = 0.0
    for u, v in ((0, 0), (0, 1), (1, 1)):
        chosen = d[((a == u) & (z == v)) | ((a == v) & (z == u))]
        share = (1 / 3, 2 / 3)
        hist, _ = np.histogram(chosen, np.append(nodes - 0.0025, far + 0.0025))
        both = 1.0 if u == v else 2.0
        reduced = kernel @ hist / (30 * share[u] * share[v] * fine) / both - 4 * np.pi * density * fine
        total = total + both * f[u] * f[v] / f.sum(axis=0) ** 2 * (sine @ (taper * reduced))
    return 2 / np.pi * np.sin(np.outer(r, q)) @ (total * WINDOWS[termination](q / qmax)) * (qmax - qmin) / 1200


@pytest.mark.parametrize(
    ("termination", "weights", "qmin", "tolerance"),
    [("sharp", "xray", 0.0, 0.04), ("lorch", "neutron", 0.0, 0.02), ("soper-barney", "neutron", 0.0, 0.02), ("soper-barney", "neutron", 0.8, 0.1)],
)
def test_termination_against_an_independent_transform(x64, termination, weights, qmin, tolerance):
    """In units of the largest |G|. Pairs count to four ripples (and pi / Qmin) beyond the last point: a few percent, most of it where Qmin is cut."""
    r, qmax, qdamp = np.linspace(0.3, 4.0, 38), 16.0, 0.1
    expected = transformed(r, qmin, qmax, termination, weights, qdamp)
    got = real("G", r, weights=weights, termination=termination, qmin=qmin, qmax=qmax, qdamp=qdamp)
    plain = real("G", r, weights="neutron", width=0.07, qdamp=qdamp)
    assert np.abs(plain - expected).max() > 0.2 * np.abs(expected).max()  # the window matters
    np.testing.assert_allclose(got, expected, atol=tolerance * np.abs(expected).max())
    line = 4 * np.pi * density_of(counted()[0]) * r
    g, t = (real(f, r, weights=weights, termination=termination, qmin=qmin, qmax=qmax, qdamp=qdamp) for f in ("g", "RDF"))
    np.testing.assert_allclose(g, 1 + got / line, atol=1e-9)
    np.testing.assert_allclose(t, r * (line + got), atol=1e-9)


# --- symmetries -------------------------------------------------------------------------------------------------------------------------------


def test_one_lattice_many_cells(x64):
    """An orthorhombic cell, the same lattice in other vectors, turned, wrapped elsewhere and doubled: equal curves, all from `compute_spectra`."""
    s = silica(24, cell=np.diag([6.0, 6.6, 7.4]))
    turn, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))
    skew = dataclasses.replace(s, cell=jnp.array([[1.0, 0, 0], [1, 1, 0], [0, -1, 1]]) @ s.cell)
    turned = dataclasses.replace(s, positions=s.positions @ turn + 1.7, cell=s.cell @ turn)
    double = from_atoms(to_atoms(s).repeat((1, 2, 1)), elements=ELEMENTS)
    observables = [
        pair_distribution(R, SILICA, function="T", weights="neutron"),
        structure_factor(Q, SILICA, function="I", weights="xray", rmax=6.0),
        angle_distribution(np.linspace(0, 180, 46), SILICA, triplet="O-Si-O", cutoff=2.6),
    ]
    for curves in compute_spectra([s, skew, turned, double], observables):
        assert np.isfinite(curves).all() and np.ptp(curves[0]) > 0
        np.testing.assert_allclose(curves, np.tile(curves[:1], (4, 1)), atol=1e-8 * np.abs(curves[0]).max())


# --- gradients --------------------------------------------------------------------------------------------------------------------------------


def everything():
    """An observable of every function."""
    r, q = np.linspace(0.9, 5.0, 24), np.linspace(0.8, 15.0, 24)
    made = [pair_distribution(r, SILICA, function=f, weights="neutron", qdamp=0.05, qbroad=0.02) for f in REAL_SPACE]
    made += [pair_distribution(r, SILICA, function="G", weights="xray", qmax=15.0)]
    made += [structure_factor(q, SILICA, function=f, weights="xray", rmax=5.5) for f in RECIPROCAL]
    return made + [structure_factor(q, SILICA, function=f, rmax=5.5, partial=("Si", "O") if f == "S_AL" else None) for f in PARTIAL_ONLY]


def test_gradients_of_every_function(x64, monkeypatch):
    """Positions, cell and strain against central differences; the Jacobian of the shared pass, which reads slopes up to 2.5 mA off, against them."""
    made, s = everything(), silica(18, cell=0.85 * CELL)
    reach = max(o.rmax for o in made)
    spec, points = neighbor_spec(s, reach, margin=14.0), grid_points(reach)
    rng = np.random.default_rng(1)
    columns = [rng.normal(size=24) for _ in made]  # one random combination of the points of each function

    def contracted(made, p, c):
        here = dataclasses.replace(s, positions=p, cell=c)
        counts, _ = histogram.pair_histogram(here, spec, points)
        return jnp.stack([o.from_histogram(here, counts) @ w for o, w in zip(made, columns, strict=True)])

    value, gradient = (jax.tree_util.Partial(jax.jit(f), made) for f in (contracted, jax.jacrev(contracted, argnums=(1, 2))))
    by_positions, by_cell = (np.asarray(g) for g in gradient(s.positions, s.cell))
    h, p, c = 1e-4, np.asarray(s.positions), np.asarray(s.cell)
    for v, e in ((rng.normal(size=(18, 3)) / 5, np.zeros((3, 3))), (np.zeros((18, 3)), rng.normal(size=(3, 3)) / 5), (p, c)):
        found = np.einsum("knc,nc->k", by_positions, v) + np.einsum("kab,ab->k", by_cell, e)
        expected = np.asarray(value(p + h * v, c + h * e) - value(p - h * v, c - h * e)) / (2 * h)
        size = np.sqrt(np.sum(by_positions**2, axis=(1, 2)) * max(np.sum(v**2), 1) + np.sum(by_cell**2, axis=(1, 2)) * np.sum(e**2))
        np.testing.assert_allclose(found / size, expected / size, atol=2e-4)
    strained = expected  # the last direction was the uniform strain

    # what the guidance uses: slopes are read from a grid, so at most STEP / (2 REFINE) = 2.5 mA off, 1.4 mA rms; at Q = 15 1/A that is 2 %
    linearize = jax.jit(lambda rows, observables, s: rows.linearize(s, build(s, spec), observables))

    def read(chosen):
        observables = [made[k] for k in chosen]
        rows = jacobian.pair_rows(observables)
        curves, dense, strain = linearize(rows, observables, s)
        errors = []
        for place, k in enumerate(chosen):
            part, size = slice(24 * place, 24 * (place + 1)), np.linalg.norm(by_positions[k])
            np.testing.assert_allclose(float(curves[place] @ columns[k]), values[k], rtol=1e-6)
            difference = np.asarray(dense[..., part] @ columns[k]) - by_positions[k]
            errors.append((np.linalg.norm(difference) / size, abs(float(strain[part] @ columns[k]) - strained[k]) / size))
        return np.array(errors).T

    values = np.asarray(value(p, c))
    dense, strain = read(range(len(made)))
    assert dense.max() < 0.03 and strain.max() < 0.08  # the strain sums over 18 atoms and 8 A what the norm takes per atom
    monkeypatch.setattr(jacobian, "REFINE", 64)
    dense, strain = read([1, 4, 8, 13])
    assert dense.max() < 0.03 / 12 and strain.max() < 0.08 / 12
