"""Noise estimates against known noise; spikes, ripples and negative densities put in by hand, and none found where none were."""

import numpy as np
import pytest

from glassjax import artefacts as af

Q = np.arange(0.3, 20, 0.05)
R = np.arange(0.02, 10, 0.02)
RHO, SQUARE = 0.05, 0.3


def liquid(q):
    """A smooth S(Q) of four damped shells."""
    shells = zip((4, 12, 12, 24), (2.35, 3.8, 4.5, 5.9), strict=True)
    return 1 + sum(n * np.sinc(q * d / np.pi) * np.exp(-0.5 * 0.08**2 * d * q**2) for n, d in shells)


def glass(r, ripple=0.0, qmax=20.0):
    """g(r): 0 below 1.9 A but for ripples of a transform cut at qmax, a first peak at 2.35 A, 1 at large r."""
    step = 0.5 * (1 + np.tanh((r - 3.3) / 0.3))
    return step + 4.0 * np.exp(-0.5 * ((r - 2.35) / 0.12) ** 2) + ripple * np.sin(qmax * r) / r


@pytest.mark.parametrize("order", [4, 6])
@pytest.mark.parametrize("even", [True, False])
def test_noise_is_known_within_15_percent(order, even):
    rng = np.random.default_rng(order)
    x = np.linspace(0.3, 30, 1500) if even else np.sort(rng.uniform(0.3, 30, 1500))
    for scale in (1e-4, 0.01, 0.1):
        y = liquid(x) + scale * rng.normal(size=len(x))
        assert af.estimate_noise(x, y, order=order) == pytest.approx(scale, rel=0.15)
    y[::150] += 5.0  # ten spikes hardly count
    assert af.estimate_noise(x, y, order=order) == pytest.approx(scale, rel=0.15)


def test_noise_that_grows_with_q():
    rng = np.random.default_rng(3)
    x = np.linspace(0.3, 30, 3000)
    truth = 0.002 * (1 + x)
    found = af.estimate_noise(x, liquid(x) + truth * rng.normal(size=len(x)), window=301)
    assert found.shape == x.shape
    np.testing.assert_allclose(np.mean(found / truth), 1, atol=0.05)
    assert np.abs(found / truth - 1)[150:-150].max() < 0.3  # 300 points each
    assert af.estimate_noise(x, liquid(x)) < 1e-6  # no noise, no estimate
    assert (af.estimate_noise(x, x, window=10**6) == af.estimate_noise(x, x)).all()


def test_no_false_alarms():
    """200 noisy curves, even and growing noise; smooth curves; peaks sampled with 5 points and more."""
    rng = np.random.default_rng(0)
    for i in range(200):
        noise = 0.02 * (1 + (i % 3) * Q / 10)
        assert not af.find_artefacts(Q, liquid(Q * rng.uniform(0.9, 1.1)) + noise * rng.normal(size=len(Q)), "S")
    for x in (Q, Q[::2], np.arange(0.3, 20, 0.01)):
        assert not af.find_artefacts(x, liquid(x), "S")
    for noise, width in ((0.0, 1.0), (1e-4, 1.25), (0.02, 1.0), (0.1, 1.5)):  # widths (standard deviation) in steps: 5 points above 5-16 %
        for _ in range(10):
            y = 1 + noise * rng.normal(size=len(Q))
            for centre in np.arange(1, 19, 1.5) + rng.uniform(0, 0.7, 12):
                y += rng.uniform(0.2, 8) * np.exp(-0.5 * ((Q - centre) / (0.05 * width)) ** 2)
            assert not af.find_artefacts(Q, y, "S")


@pytest.mark.parametrize(("points", "height"), [(1, 0.4), (1, -0.4), (2, 0.8), (3, 1.6)])
@pytest.mark.parametrize("noise", [0.0, 0.02])
def test_spikes_are_found_where_they_are(points, height, noise):
    rng = np.random.default_rng(5)
    found = 0
    for place in range(10, len(Q) - 20, 19):
        y = liquid(Q) + noise * rng.normal(size=len(Q))
        y[place : place + points] += height
        spikes = af.find_artefacts(Q, y, "S")
        for spike in spikes:
            assert spike.kind == "spike" and (spike.low, spike.high) == (Q[place], Q[place + points - 1])
            assert spike.size == pytest.approx(abs(height), abs=0.12 + 5 * noise)
        found += len(spikes)
        assert (af.mask_of(Q, spikes)).sum() == len(Q) - points * len(spikes)
    assert found >= 18  # of 20


def test_ripples_below_the_first_peak():
    """The rms of 0.5 sin(20 r)/r below the foot, in every function; none without ripples, and none in noise alone."""
    slope = 4 * np.pi * RHO * R
    rng = np.random.default_rng(1)
    constants = {"number_density": RHO, "mean_square": SQUARE}
    intervals = []
    for ripple, noise in ((0.5, 0.0), (0.0, 0.0), (0.0, 0.02)):
        g = glass(R, ripple) + noise * rng.normal(size=len(R)) / R
        scales = {"g": 1.0, "G": slope, "G_keen": SQUARE, "D": SQUARE * slope, "T": SQUARE * slope, "RDF": slope * R}
        for name, scale in scales.items():
            level = 0.0 if name in ("g", "T", "RDF") else scale
            kinds = {a.kind: a for a in af.find_artefacts(R, scale * g - level, name, **constants)}
            if ripple == 0:
                assert not kinds
                continue
            ripples = kinds["low-r ripples"]
            intervals.append((ripples.low, ripples.high))
            below = R <= ripples.high
            assert ripples.size == pytest.approx(np.sqrt(np.mean((scale * np.ones(len(R)) * g)[below] ** 2)), rel=1e-9)
    assert len(set(intervals)) == 1 and intervals[0][0] == R[0] and 1.8 < intervals[0][1] < 2.1
    for ripple in (0.5, 5.0):  # the larger ones look like a first peak, unless the shortest distance is said
        found = af.find_artefacts(R, glass(R, ripple), "g", shortest=1.5)
        assert [a.high for a in found if a.kind == "low-r ripples"] == [pytest.approx(1.48)]


def test_negative_g_after_the_first_peak():
    dip = 0.4 * np.exp(-0.5 * ((R - 2.85) / 0.05) ** 2)
    found = af.find_artefacts(R, glass(R) - dip, "g")
    assert [a.kind for a in found] == ["negative g"]
    assert found[0].low > 2.6 and found[0].high < 3.1 and found[0].size == pytest.approx(0.4, abs=0.06)
    upside_down = 2 * (0.5 * (1 + np.tanh((R - 3.3) / 0.3))) - glass(R)  # a first peak of negative weight is real
    assert not af.find_artefacts(R, upside_down, "g")


def test_measured_silica(data_folder):
    """The measured F_keen(Q) has no spike; one put in is found."""
    q, f, error = np.loadtxt(data_folder / "silica" / "sio2_nimrod_fq.mint01")[1:-2].T
    assert not af.find_artefacts(q + 0.025, f, "F_keen")
    f[500] += 0.1
    (spike,) = af.find_artefacts(q + 0.025, f, "F_keen")
    assert spike.low == q[500] + 0.025 and spike.size == pytest.approx(0.1, rel=0.1)


def test_keep_ranges():
    x = np.arange(20.0)
    keep = af.keep_ranges(x, xmin=2, xmax=15, masked_intervals=[(4, 5.5), (9.5, 10)])
    assert set(x[keep]) == {2, 3, 6, 7, 8, 9, 11, 12, 13, 14, 15}
    assert af.keep_ranges(x).all()
    assert af.mask_of(x, []).all()
    for change, message in (
        ({"xmin": 5, "xmax": 2}, "xmin < xmax"),
        ({"xmin": -1}, "xmin < xmax"),
        ({"masked_intervals": [(3, 2)]}, "low < high"),
        ({"masked_intervals": [(-1, 2)]}, "low < high"),
        ({"masked_intervals": [(1, np.nan)]}, "low < high"),
        ({"xmax": 9, "masked_intervals": [(0, 6)]}, r"3 of 20 points \(10 in the range, 7 of them masked\).*at least 5"),
    ):
        with pytest.raises(ValueError, match=message):
            af.keep_ranges(x, **change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"function": "F(Q)"}, "function 'F"),
        ({"function": "G"}, "number_density None"),
        ({"function": "D", "number_density": 0.05}, "mean_square None"),
        ({"function": "S", "shortest": 1.5}, "shortest with S"),
        ({"shortest": 100}, "shortest 100 A"),
        ({"y": R[1:]}, "matching"),
        ({"x": R[::-1]}, "ascending"),
        ({"x": R[:8], "y": R[:8]}, "m >= 16"),
    ],
)
def test_find_artefacts_refuses(change, message):
    with pytest.raises(ValueError, match=message):
        af.find_artefacts(**({"x": R, "y": glass(R), "function": "g"} | change))


@pytest.mark.parametrize(("change", "message"), [({"order": 9}, "order 9"), ({"window": 4}, "window 4")])
def test_estimate_noise_refuses(change, message):
    with pytest.raises(ValueError, match=message):
        af.estimate_noise(R, R, **change)
