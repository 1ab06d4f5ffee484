"""Conversions between scattering functions and their Fourier transforms, against Keen's definitions, closed forms and measured silica."""

import itertools

import numpy as np
import pytest

from glassjax import conversions as cv
from glassjax import elements, fourier

REAL = ("g", "G", "G_keen", "D", "T", "RDF")
RECIPROCAL = ("S", "F_keen", "Q(S-1)", "I")
CONSTANTS = {"number_density": 0.0662, "mean_square": 0.2758, "self_square": 0.2819}
X = np.linspace(0.05, 20, 80)
RNG = np.random.default_rng(0)


@pytest.mark.parametrize("names", [REAL, RECIPROCAL])
def test_every_pair_round_trips_exactly_and_goes_through_g_or_s(names):
    base = 1 + RNG.normal(size=len(X))
    for source, target in itertools.product(names, names):
        y = cv.convert(X, base, names[0], source, **CONSTANTS)
        there, error = cv.convert(X, y, source, target, **CONSTANTS, uncertainty=np.full(len(X), 0.1))
        back, error_back = cv.convert(X, there, target, source, **CONSTANTS, uncertainty=error)
        scale = np.maximum(np.abs(y), 1)
        np.testing.assert_allclose(back / scale, y / scale, rtol=0, atol=1e-12)
        np.testing.assert_allclose(error_back, 0.1, rtol=1e-12)
        np.testing.assert_allclose(there, cv.convert(X, base, names[0], target, **CONSTANTS), rtol=1e-11, atol=1e-11)
        np.testing.assert_allclose(cv.convert(X, y + 0.1, source, target, **CONSTANTS) - there, error, rtol=1e-7, atol=1e-9)  # linear


def test_definitions_of_keen():
    rho, m, own = CONSTANTS.values()
    y = 1 + RNG.normal(size=len(X))
    slope = 4 * np.pi * rho * X
    real = {"G": slope * (y - 1), "G_keen": m * (y - 1), "D": slope * m * (y - 1), "T": slope * m * y, "RDF": slope * X * y}
    reciprocal = {"F_keen": m * (y - 1), "Q(S-1)": X * (y - 1), "I": own + m * (y - 1)}
    for name, expected in (real | reciprocal).items():
        np.testing.assert_allclose(cv.convert(X, y, "g" if name in real else "S", name, **CONSTANTS), expected, rtol=1e-12, atol=1e-13)


def test_argon_numbers():
    """PHYSICS.md section 4: <b>^2 = 3.644 fm^2, rho0 = 0.02138 atoms/A^3."""
    m = 3.644
    zero = {"source": "g", "number_density": 0.02138, "mean_square": m}
    assert cv.convert([0.075], [0.0], target="G", **zero)[0] == pytest.approx(-0.020150, abs=5e-7)
    assert cv.convert([0.075], [0.0], target="G_keen", **zero)[0] == -m
    assert cv.convert([0.02], [1.246037], "S", "F_keen", mean_square=m)[0] == pytest.approx(0.896560, abs=2e-6)  # S has 6 decimals
    assert cv.convert([0.02], [0.896560], "F_keen", "S", mean_square=m)[0] == pytest.approx(1.246037, abs=5e-7)


def test_only_what_is_needed_is_asked_for():
    y = np.ones(len(X))
    np.testing.assert_allclose(cv.convert(X, y, "G", "D", mean_square=2.0), 2.0)
    np.testing.assert_allclose(cv.convert(X, y, "F_keen", "I", self_square=3.0), 4.0)
    np.testing.assert_allclose(cv.convert(X, y, "S", "Q(S-1)"), 0.0)
    assert cv.convert([0.0, 1.0], [0.5, 0.5], "g", "G", number_density=0.1)[0] == 0.0
    factors = np.linspace(2, 1, len(X))
    np.testing.assert_allclose(cv.convert(X, y, "F_keen", "S", mean_square=factors), 1 + 1 / factors)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"target": "S"}, "Fourier.*to_reciprocal"),
        ({"source": "S", "target": "g"}, "Fourier.*to_real_space"),
        ({"target": "F(Q)"}, "F_keen or"),
        ({"source": "h"}, "source 'h'"),
        ({"target": "G"}, "no number_density.*g to G"),
        ({"target": "G_keen"}, "no mean_square.*mean_square_of"),
        ({"source": "S", "target": "I", "mean_square": 1.0}, "no self_square.*self_square_of"),
        ({"target": "G", "number_density": -0.1}, "positive"),
        ({"target": "G_keen", "mean_square": np.ones(len(X))}, "shape"),
        ({"source": "F_keen", "target": "S", "mean_square": np.ones(3)}, "shape"),
        ({"x": X - 0.05, "source": "RDF", "number_density": 0.1}, "x = 0"),
        ({"x": X[::-1]}, "ascending"),
        ({"y": X[1:]}, "matching"),
        ({"y": X * np.nan}, "finite"),
        ({"uncertainty": X[1:]}, "uncertainty"),
    ],
)
def test_convert_refuses(change, message):
    with pytest.raises(ValueError, match=message):
        cv.convert(**({"x": X, "y": X, "source": "g", "target": "g"} | change))


def test_mean_and_self_squares():
    assert cv.mean_square_of("SiO2", "neutron") == pytest.approx(0.2758, abs=5e-5)
    assert cv.mean_square_of({"Ar": 3}, "neutron") * 100 == pytest.approx(3.644, abs=5e-4)
    assert cv.mean_square_of({"Si": 0.5, "O": 1}, "Z") == pytest.approx((30 / 3) ** 2)
    assert cv.self_square_of("SiO2", "Z") == pytest.approx((14**2 + 2 * 8**2) / 3)
    assert cv.mean_square_of("SiO2", "number") == cv.self_square_of("SiO2", "number") == 1.0
    # half-deuterated water: H and D scatter apart; the mean is that of an average atom, the square is not
    lengths = np.array([elements.neutron_length(symbol) for symbol in "HDO"])
    mixture = {"H": 1, "D": 1, "O": 1}
    assert cv.mean_square_of(mixture, "neutron") == pytest.approx(np.mean(lengths) ** 2 / 100)
    assert cv.self_square_of(mixture, "neutron") == pytest.approx(np.mean(lengths**2) / 100)
    q = np.array([0.0, 5.0])
    f_si, f_o = np.array([13.9989, 7.2238]), np.array([7.9997, 3.0244])  # PHYSICS.md section 4
    np.testing.assert_allclose(cv.mean_square_of("SiO2", "xray", q), ((f_si + 2 * f_o) / 3) ** 2, rtol=3e-5)
    np.testing.assert_allclose(cv.self_square_of("SiO2", "xray", q), (f_si**2 + 2 * f_o**2) / 3, rtol=3e-5)
    np.testing.assert_array_equal(cv.mean_square_of("SiO2", "neutron", q), cv.mean_square_of("SiO2", "neutron"))
    assert cv.mean_square_of("SiO2", "neutron", q).shape == (2,) and np.ndim(cv.mean_square_of("SiO2", "Z", 5.0)) == 0
    for composition, weights, message in (("SiO2", "xray", "without q"), ("Si(O)", "Z", "brackets"), ({"Si": -1, "O": 2}, "Z", "amounts")):
        with pytest.raises(ValueError, match=message):
            cv.mean_square_of(composition, weights)
    with pytest.raises(ValueError, match="weights 'mass'"):
        cv.mean_square_of("Si", "mass")


def test_windows_and_their_widths():
    """Values in closed form; the width is that of the window's own cosine transform, found by quadrature."""
    from scipy.integrate import quad
    from scipy.optimize import brentq

    q = np.linspace(0, 25, 251)
    for kind in ("none", "lorch", "soper-barney"):
        window = fourier.termination_window(q, 20.0, kind)
        assert window[0] == 1 and (window[q > 20] == 0).all()
        assert window[200] == pytest.approx(1.0 if kind == "none" else 0.0, abs=1e-12)  # at qmax

        def kernel(x, kind=kind):
            return quad(lambda t: float(fourier.termination_window(t, 1.0, kind)) * np.cos(x * t), 0, 1)[0]

        half = brentq(lambda x, k=kernel: k(x) - 0.5 * k(0.0), 0.5, 5, xtol=1e-12)
        assert fourier.fwhm_of(20.0, kind) == pytest.approx(2 * half / 20, rel=1e-9)
    assert fourier.fwhm_of(1.0, "none") == pytest.approx(3.79, abs=5e-3) and fourier.fwhm_of(1.0, "lorch") == pytest.approx(5.44, abs=5e-3)
    assert fourier.width_of(20.0, "none") == pytest.approx(3.79099 / 20 / 2.354820, rel=1e-5)
    x = np.array([1e-3, 0.0499, 0.0501, 2.0])
    exact = [1 - x[0] ** 2 / 10, *(3 * (np.sin(x[1:]) - x[1:] * np.cos(x[1:])) / x[1:] ** 3)]
    np.testing.assert_allclose(fourier.termination_window(x, 10.0, "soper-barney", delta=1.0), exact, rtol=1e-11)
    for arguments, message in (((1.0, "hann"), "window 'hann'"), ((-1.0, "none"), "qmax"), ((np.inf, "lorch"), "qmax")):
        with pytest.raises(ValueError, match=message):
            fourier.termination_window(q, *arguments)
    with pytest.raises(ValueError, match="soper-barney"):
        fourier.termination_window(q, 20.0, "lorch", delta=0.1)


RHO = 0.05


def shell(r, q, d=2.0, width=0.15, count=4.0):
    """r (g - 1) and Q (S - 1) of a Gaussian pair, sin by sin: r (g-1) = A [n(r-d) - n(r+d)]  <->  Q (S-1) = 8 pi rho0 A sin(Qd) exp(-Q^2 w^2/2)."""
    amplitude = count / (4 * np.pi * RHO * d)
    normal = [np.exp(-0.5 * ((r - s * d) / width) ** 2) / (np.sqrt(2 * np.pi) * width) for s in (1, -1)]
    return 1 + amplitude * (normal[0] - normal[1]) / r, 1 + 4 * np.pi * RHO * amplitude * np.sin(q * d) * np.exp(-0.5 * (q * width) ** 2) / q


@pytest.mark.parametrize("bins", [False, True])
def test_transforms_of_a_gaussian_shell(bins):
    r, q = np.linspace(0.01, 12, 1200), (np.arange(1600) + 0.5) * 0.025
    g, s = shell(r, q)
    found = fourier.to_real_space(q, s, r, number_density=RHO, bins=bins)
    near = r < 4  # beyond, only the step in Q counts
    np.testing.assert_allclose(found[near], g[near], atol=1.5e-3 * g.max())
    np.testing.assert_allclose(fourier.to_reciprocal(r, g, q, number_density=RHO, window="none"), s, atol=1e-4 * s.max())
    assert np.isfinite(fourier.to_real_space(q, s, [0.0], number_density=RHO, bins=bins)).all()  # the limit r -> 0


def test_round_trip_and_limits():
    """S of a dimer-like shell inside rmax comes back; the low-Q piece and the bins are exact for what they assume."""
    r, q = np.linspace(0.0, 12, 2401)[1:], np.arange(1, 1600) * 0.025
    s = shell(r, q)[1]
    g = fourier.to_real_space(q, s, r, number_density=RHO)
    np.testing.assert_allclose(fourier.to_reciprocal(r, g, q, number_density=RHO, rmax=10, window="cosine"), s, atol=2e-3)
    # S - 1 = 1 up to qmax: the transform of a ball, 4 pi/3 qmax^3 3 j1(x)/x / (2 pi)^3 rho0, whatever the grid
    flat = np.arange(0.5, 10, 1.0)
    x = 10 * r
    ball = 1 + 10**3 * (np.sin(x) - x * np.cos(x)) / x**3 / (2 * np.pi**2 * RHO)
    np.testing.assert_allclose(fourier.to_real_space(flat, 2 * np.ones(10), r, number_density=RHO, bins=True), ball, rtol=1e-9, atol=1e-7)
    # a far shell on coarse points: the trapezoid is right, bins damp by sin(x)/x with x = r dQ / 2 = 0.4
    coarse, far = (np.arange(400) + 0.5) * 0.1, np.array([8.0])
    g, s = shell(far, coarse, d=8.0, count=30.0)
    for bins, damping in ((False, 1.0), (True, np.sin(0.4) / 0.4)):
        found = fourier.to_real_space(coarse, s, far, number_density=RHO, bins=bins)
        np.testing.assert_allclose(found - 1, damping * (g - 1), rtol=2e-3)
    cut = fourier.to_real_space(np.linspace(3, 20, 4000), 2 * np.ones(4000), r, number_density=RHO, qmax=10)
    np.testing.assert_allclose(cut, ball, atol=1e-4 * np.abs(ball).max())
    shorter = fourier.to_real_space(flat, 2 * np.ones(10), r, number_density=RHO, qmax=7.3, bins=True)
    x = 7.3 * r
    np.testing.assert_allclose(shorter, 1 + 7.3**3 * (np.sin(x) - x * np.cos(x)) / x**3 / (2 * np.pi**2 * RHO), rtol=1e-9, atol=1e-7)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"qmax": 30}, "upper limit of 30"),
        ({"number_density": 0}, "positive"),
        ({"window": "cosine"}, "window 'cosine'"),
        ({"q": X**2, "bins": True}, "even bins"),
        ({"r": [-1.0]}, "needs"),
        ({"s": X[1:]}, "matching"),
    ],
)
def test_transforms_refuse(change, message):
    with pytest.raises(ValueError, match=message):
        fourier.to_real_space(**({"q": X, "s": X, "r": X, "number_density": 0.05} | change))


def test_silica_of_nimrod(data_folder):
    """Measured F_keen(Q) of silica glass to g(r): the Si-O peak and its coordination number.

    g = sum_ij w_ij g_ij (the weights sum to 1) is 2 w_SiO g_SiO below the O-O distance; n = 4 pi rho0 c_O int r^2 g_SiO dr.
    """
    rows = np.loadtxt(data_folder / "silica" / "sio2_nimrod_fq.mint01")[1:]  # the first row is 0 0 0
    q, f = rows[:, 0] + 0.025, rows[:, 1]  # from left bin edges to centres
    s = cv.convert(q, f, "F_keen", "S", mean_square=0.2758)
    r = np.linspace(1.30, 1.95, 651)
    g = fourier.to_real_space(q, s, r, number_density=0.0662, bins=True)
    assert 1.60 <= r[np.argmax(g)] <= 1.61
    weight = 2 * (1 / 3) * (2 / 3) * 4.1491 * 5.803 / 27.58
    assert 3.78 <= 4 * np.pi * 0.0662 * (2 / 3) * np.trapezoid(r**2 * g / weight, r) <= 3.89


def test_silicon_of_laaziri(data_folder):
    """Measured S(Q) of amorphous silicon: first peak 2.34-2.36 A with n = 3.72-3.82, second 3.74-3.82 A."""
    q, first = np.unique((rows := np.loadtxt(data_folder / "silicon" / "laaziri1999_sq.dat"))[:, 0], return_index=True)
    r = np.linspace(1.5, 4.5, 1501)
    g = fourier.to_real_space(q, rows[first, 1], r, number_density=0.0489)
    assert 2.34 <= r[np.argmax(g)] <= 2.36
    first_peak = (r > 2.0) & (r < 2.8)
    assert 3.72 <= 4 * np.pi * 0.0489 * np.trapezoid((r**2 * g)[first_peak], r[first_peak]) <= 3.82
    second = r > 3.3
    assert 3.74 <= r[second][np.argmax(g[second])] <= 3.82


def test_closest_approach_of_a_crystal():
    """Diamond's nearest neighbours are at a sqrt(3) / 4; a g(r) broadened by 0.1 A rises less than 0.3 A before."""
    import ase.build

    import glassjax

    r, cell = np.arange(0.5, 6.0, 0.02), glassjax.from_atoms(ase.build.bulk("Si", "diamond", a=5.431, cubic=True))
    g = np.asarray(glassjax.pair_distribution(r, ["Si"], width=0.1).fit(cell)(cell))
    nearest = 5.431 * np.sqrt(3) / 4
    assert nearest - 0.35 < cv.closest_approach(r, g) < cv.closest_approach(r, g, level=1.0) < nearest
    assert cv.closest_approach([1.0, 2.0, 3.0], [0.0, 0.0, 0.2]) == pytest.approx(2.25)
    for x, y, level, message in (
        (r[r > 2.3], g[r > 2.3], 0.05, "begins below 0.05"),
        (r[r < 1.5], g[r < 1.5], 0.05, "rises to 0.05"),
        (r, g, 0.0, "level = 0"),
    ):
        with pytest.raises(ValueError, match=message):
            cv.closest_approach(x, y, level=level)
