"""Noise of measured curves, and what in them is no structure: ripples below the first peak, spikes, negative densities."""

from __future__ import annotations

from dataclasses import dataclass
from math import comb

import numpy as np

__all__ = ["Artefact", "estimate_noise", "find_artefacts", "keep_ranges", "mask_of"]

_POWER = {"g": 1, "G": 0, "G_keen": 1, "D": 0, "T": 0, "RDF": -1}  # x**power brings the curve to the shape of r g(r)
_RECIPROCAL = ("S", "F_keen", "Q(S-1)", "I")
_LEAST = 16  # points needed to judge a curve
_SPAN = 101  # points over which the noise is taken as even when spikes are looked for
_CLIPPED = 0.99694  # standard deviation of a unit Gaussian cut at 3.5
_FIRST_SHELL = (0.6, 5.0)  # A: the first peak of any condensed material lies here


@dataclass(frozen=True)
class Artefact:
    """Something in a curve that no structure makes.

    kind: "low-r ripples", "spike" or "negative g". low, high: the interval, A or 1/A, both ends included. size: in the curve's own unit,
    the rms about the theoretical floor (ripples), the height over the points around (spike), or the depth below the floor (negative g), > 0.
    text: a sentence for the report.
    """

    kind: str
    low: float
    high: float
    size: float
    text: str


def estimate_noise(x, y, *, window: int | None = None, order: int = 6) -> float | np.ndarray:
    """Standard deviation of the random error of a smooth curve, from its differences of high order.

    d_i = sum_j w_j y_(i+j), w the divided-difference weights of order + 1 neighbouring points scaled to sum w^2 = 1: polynomials below
    that order vanish, independent errors keep their variance. The spread is the median of |d| / 0.6745, then the rms inside 3.5 of it, so
    a few spikes or sharp peaks do not count. Errors that are correlated from point to point (a Fourier transform on a fine grid) are
    smooth and are not seen. A float; with `window` points, [m], the estimate in the window around each point.

    x, y: [m], ascending, m >= 16. Raises ValueError for arrays that do not match, window below 16 or order outside 1-8.
    """
    x, y = _curve(x, y)
    if not 1 <= order <= 8:
        raise ValueError(f"got order {order}; needs 1 to 8; leave it at 6")
    if window is not None and window < _LEAST:
        raise ValueError(f"got window {window}; needs at least {_LEAST} points to tell noise from shape; widen it")
    differences = np.abs(_differences(x, y, order))
    if window is None or window >= len(x):
        spread = _spread(differences[None])[0]
        return float(spread) if window is None else np.full(len(x), spread)
    width = max(window - order, 8)
    rolled = _spread(np.lib.stride_tricks.sliding_window_view(differences, width))
    first = np.arange(len(x)) - order // 2 - width // 2  # the window centred on each point, held inside the data at the ends
    return rolled[np.clip(first, 0, len(rolled) - 1)]


def _curve(x, y) -> tuple[np.ndarray, np.ndarray]:
    x, y = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    if x.ndim != 1 or x.shape != y.shape or len(x) < _LEAST:
        raise ValueError(f"got x of shape {x.shape} and y of shape {y.shape}; needs two [m] arrays, m >= {_LEAST}; pass matching columns")
    if not (np.isfinite(x).all() and np.isfinite(y).all()) or x[0] < 0 or (np.diff(x) <= 0).any():
        raise ValueError(f"got x from {x[0]:g} to {x[-1]:g} with y; needs finite numbers, x >= 0 and ascending; sort and drop bad points")
    return x, y


def _differences(x: np.ndarray, y: np.ndarray, order: int) -> np.ndarray:
    steps = np.diff(x)
    if np.ptp(steps) < 1e-3 * steps.mean():
        weights = np.array([(-1.0) ** j * comb(order, j) for j in range(order + 1)])[None]
    else:
        nodes = np.lib.stride_tricks.sliding_window_view(x, order + 1)
        gaps = (nodes[:, :, None] - nodes[:, None, :]) / steps.mean() + np.eye(order + 1)
        weights = 1.0 / np.prod(gaps, axis=2)
    weights = weights / np.linalg.norm(weights, axis=1, keepdims=True)
    return np.sum(np.lib.stride_tricks.sliding_window_view(y, order + 1) * weights, axis=1)


def _spread(sizes: np.ndarray) -> np.ndarray:
    """Robust standard deviation over the last axis of absolute values [n, k]: median, then twice the rms of what lies within 3.5 of it."""
    spread = np.median(sizes, axis=1) / 0.674490
    for _ in range(2):
        inside = sizes <= 3.5 * spread[:, None]
        spread = np.sqrt(np.sum(np.where(inside, sizes, 0.0) ** 2, axis=1) / np.maximum(inside.sum(axis=1), 1)) / _CLIPPED
    return spread


def find_artefacts(
    x, y, function: str, *, number_density: float | None = None, mean_square: float | None = None, shortest: float | None = None
) -> list[Artefact]:
    """What no structure can have made, in ascending order; nothing is changed (`mask_of` says what to keep).

    * Spikes, in any function: 1 to 3 neighbouring points off the cubic through the points around them by more than 6 standard deviations of
      the noise (9 for two points, 12 for three), while the points next to them are not: the flanks of a real peak are. The 5 points at
      either end are not judged, and what is below 0.6 % of the curve's standard deviation is let be.
    * Low-r ripples, in real space: below the first real peak the curve follows g = 0 (G = -4 pi rho0 r, G_keen = -<b>^2,
      D = -4 pi rho0 r <b>^2, T = RDF = 0). Reported where the rms about it, in units of r g(r), exceeds 3 times the noise and 1 % of the
      first peak. Real structure begins at `shortest` (A), or by default at the foot of the first peak of |r g(r)|, between 0.6 and
      5 A, that reaches 35 % of the largest (the first ripple of a sharp transform has 22 %): where ripples are larger, pass `shortest`.
    * Negative g, in real space beyond that point, by more than 6 times the noise and 2 % of the first peak; not looked for where the first
      peak itself is negative, as scattering lengths of mixed sign make it.

    x, y: [m], A or 1/A. function: "g", "G", "G_keen", "D", "T", "RDF", "S", "F_keen", "Q(S-1)" or "I". number_density (atoms/A^3): for G
    and D; mean_square (<b>^2, in y's unit): for G_keen and D. Raises ValueError for what is missing or unknown.
    """
    x, y = _curve(x, y)
    if function not in _POWER and function not in _RECIPROCAL:
        raise ValueError(f"got function {function!r}; needs one of {', '.join([*_POWER, *_RECIPROCAL])}; pass one of them")
    found = _spikes(x, y)
    if function in _POWER:
        found += _below_first_peak(x, y, function, number_density, mean_square, shortest)
    elif shortest is not None:
        raise ValueError(f"got shortest with {function}, a function of Q; needs one of {', '.join(_POWER)}; leave it out")
    return sorted(found, key=lambda artefact: artefact.low)


def _floor(x: np.ndarray, function: str, number_density: float | None, mean_square: float | None) -> np.ndarray:
    """What the function is where g = 0."""
    needs = {"G": ["number_density"], "G_keen": ["mean_square"], "D": ["number_density", "mean_square"]}
    given = {"number_density": number_density, "mean_square": mean_square}
    for name in needs.get(function, []):
        if given[name] is None or not given[name] > 0:
            raise ValueError(f"got {name} {given[name]!r}; needs a positive number, as {function} where g = 0 depends on it; pass {name}")
    if function in ("g", "T", "RDF"):
        return np.zeros(len(x))
    depth = 1.0 if function == "G" else mean_square
    return -depth * (np.ones(len(x)) if function == "G_keen" else 4 * np.pi * number_density * x)


def _below_first_peak(x, y, function: str, number_density, mean_square, shortest) -> list[Artefact]:
    """Ripples below the first real peak, and negative g beyond its foot. Judged on t = (y - floor) x**power, proportional to r g(r)."""
    excess = y - _floor(x, function, number_density, mean_square)
    inside = x > 0
    t = np.zeros(len(x))
    t[inside] = excess[inside] * x[inside] ** float(_POWER[function])
    if shortest is not None and not x[0] <= shortest <= x[-1]:
        raise ValueError(f"got shortest {shortest:g} A; needs a distance within the data, {x[0]:g} to {x[-1]:g} A; check its unit")
    foot, peak = _first_peak(x, t, *(_FIRST_SHELL if shortest is None else (shortest, max(_FIRST_SHELL[1], 2 * shortest))))
    if foot is None:
        return []
    start = foot if shortest is None else int(np.searchsorted(x, shortest))
    noise = estimate_noise(x, t)
    found = []
    low = slice(0, start)
    if start >= 3 and np.sqrt(np.mean(t[low] ** 2)) > max(3 * noise, 0.01 * abs(peak)):
        rms = float(np.sqrt(np.mean(excess[low] ** 2)))
        text = f"{function} differs from its floor (g = 0) by {rms:.3g} (rms) from {x[0]:.3g} to {x[start - 1]:.3g} A, below the first peak"
        found.append(Artefact("low-r ripples", float(x[0]), float(x[start - 1]), rms, text))
    if peak > 0:
        for first, last in _runs((t < 0) & (np.arange(len(x)) >= start)):
            if -t[first : last + 1].min() > max(6 * noise, 0.02 * peak):
                depth = float(-excess[first : last + 1].min())
                text = f"g is negative from {x[first]:.3g} to {x[last]:.3g} A: {function} falls {depth:.3g} below g = 0"
                found.append(Artefact("negative g", float(x[first]), float(x[last]), depth, text))
    return found


def _first_peak(x: np.ndarray, t: np.ndarray, low: float, high: float) -> tuple[int | None, float]:
    """(index of the foot of the first real peak between low and high, its height in t, negative if it points down); (None, 0) for none."""
    shell = np.flatnonzero((x >= low) & (x <= high))
    if len(shell) < 3 or not np.abs(t[shell]).max() > 0:
        return None, 0.0
    size = np.abs(t)
    top = shell[np.argmax(size[shell] >= 0.35 * size[shell].max())]
    while top + 1 < len(x) and size[top + 1] > size[top]:
        top += 1
    foot = top
    while foot > 0 and t[foot - 1] * np.sign(t[top]) > 0.05 * size[top]:
        foot -= 1
    return int(foot), float(t[top])


def _runs(flags: np.ndarray) -> list[tuple[int, int]]:
    """(first, last) index of every run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]]).astype(int)))
    return [(int(first), int(last) - 1) for first, last in edges.reshape(-1, 2)]


def _spikes(x: np.ndarray, y: np.ndarray) -> list[Artefact]:
    noise = np.maximum(estimate_noise(x, y, window=_SPAN), 1e-3 * np.std(y))
    found, taken = [], np.zeros(len(x), dtype=bool)
    for length in (1, 2, 3):
        for i in _isolated(x, y, noise, length):
            if not taken[i - 1 : i + length + 1].any():
                taken[i : i + length] = True
                beside = np.array([i - 2, i - 1, i + length, i + length + 1])
                cubic = np.polyfit(x[beside] - x[i], y[beside], 3)
                size = np.abs(y[i : i + length] - np.polyval(cubic, x[i : i + length] - x[i])).max()
                text = f"{length} point{'s' if length > 1 else ''} at {x[i]:.4g} {size:.3g} off the points around"
                found.append(Artefact("spike", float(x[i]), float(x[i + length - 1]), float(size), text))
    return found


def _isolated(x, y, noise, length: int) -> np.ndarray:
    """First indices of the runs of `length` points that stand off the cubic through four points on either side.

    Between the run and those points one flank on either side is left out of the fit and must lie on it, within a fraction of the height
    that the flanks of any peak of 5 points or more exceed.
    """
    flank, away = [-1, length], [*range(-5, -1), *range(length + 1, length + 5)]
    start = np.arange(5, len(x) - length - 4)
    if not len(start):
        return start
    centre, reach = x[start] + 0.5 * (x[start + length - 1] - x[start]), 0.5 * (x[start + length + 4] - x[start - 5])

    def powers(offsets):
        return ((x[start[:, None] + np.array(offsets)] - centre[:, None]) / reach[:, None])[..., None] ** np.arange(4.0)

    base = powers(away)
    inverse = np.linalg.solve(np.swapaxes(base, 1, 2) @ base, np.swapaxes(base, 1, 2))
    values = y[start[:, None] + np.array(away)]
    coefficients = inverse @ values[..., None]
    misfit = np.sqrt(np.sum((values - (base @ coefficients)[..., 0]) ** 2, axis=1) / (len(away) - 4))

    def deviations(offsets):
        design = powers(offsets)
        error = np.sqrt(1 + np.sum((design @ inverse) ** 2, axis=2))  # of point and fit together, in units of the noise
        return y[start[:, None] + np.array(offsets)] - (design @ coefficients)[..., 0], error

    off, error = deviations(list(range(length)))
    sign = np.sign(off[:, :1])
    height = (off * sign).min(axis=1)
    beside = deviations(flank)[0] * sign
    share = (0.3, 0.15, 0.1)[length - 1]
    accepted = (
        (off * sign > (3 + 3 * length) * noise[start, None] * error).all(axis=1)
        & (height > (3, 5, 6)[length - 1] * misfit)
        & (beside.mean(axis=1) < share * height)
        & (np.abs(beside) < np.maximum(0.3 * height, 3 * noise[start])[:, None]).all(axis=1)
    )
    return start[accepted]


def mask_of(x, artefacts: list[Artefact]) -> np.ndarray:
    """[m] bool, True where a point lies in none of the artefacts' intervals (ends included): what to keep."""
    x = np.asarray(x, dtype=float)
    keep = np.ones(x.shape, dtype=bool)
    for artefact in artefacts:
        keep &= (x < artefact.low) | (x > artefact.high)
    return keep


def keep_ranges(x, *, xmin: float | None = None, xmax: float | None = None, masked_intervals=()) -> np.ndarray:
    """[m] bool, True for xmin <= x <= xmax outside every (low, high) of masked_intervals, ends included.

    Raises ValueError for a negative, reversed or non-finite interval, and where fewer than 5 points are left, with the counts.
    """
    x = np.asarray(x, dtype=float)
    low, high = 0.0 if xmin is None else float(xmin), np.inf if xmax is None else float(xmax)
    if not 0 <= low < high:
        raise ValueError(f"got a range from {low:g} to {high:g}; needs 0 <= xmin < xmax; put the smaller first")
    keep = (x >= low) & (x <= high)
    in_range = int(keep.sum())
    for interval in masked_intervals:
        pair = np.asarray(interval, dtype=float)
        if pair.shape != (2,) or not (np.isfinite(pair).all() and 0 <= pair[0] < pair[1]):
            raise ValueError(f"got masked interval {interval!r}; needs (low, high) with 0 <= low < high; put the smaller first")
        keep &= (x < pair[0]) | (x > pair[1])
    if keep.sum() < 5:
        found = f"{int(keep.sum())} of {x.size} points ({in_range} in the range, {in_range - int(keep.sum())} of them masked)"
        raise ValueError(f"got a selection that leaves {found}; needs at least 5; widen the range or mask less")
    return keep
