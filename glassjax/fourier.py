"""Fourier transforms between Faber-Ziman S(Q) and g(r), their termination windows, and the width that those give a sharp peak.

Everything here works on host arrays in float64.
"""

from __future__ import annotations

import numpy as np

from glassjax.conversions import checked_curve, checked_density

__all__ = ["fwhm_of", "termination_window", "to_real_space", "to_reciprocal", "width_of"]

_FIRST_ZERO = 4.493409457909064  # of sin x - x cos x, x > 0
_FWHM = {"none": 3.7909885340679628, "lorch": 5.4366490114920305, "soper-barney": 5.706913810661491}  # times 1 / qmax
_BLOCK = 4_000_000  # entries of the largest kernel matrix held at once


def _three_j1(x: np.ndarray) -> np.ndarray:
    """3 (sin x - x cos x) / x^3 -> 1 at x = 0; its series below 0.05 (error below 1e-13)."""
    small = np.abs(x) < 0.05
    safe = np.where(small, 1.0, x)
    return np.where(small, 1 - x**2 / 10 + x**4 / 280 - x**6 / 15120, 3 * (np.sin(safe) - safe * np.cos(safe)) / safe**3)


def termination_window(q, qmax: float, kind: str, *, delta: float | None = None) -> np.ndarray:
    """W(Q) that multiplies Q (S - 1) before a transform to r, zero beyond qmax; W(0) = 1.

    "none": 1. "lorch": sin(pi Q/qmax) / (pi Q/qmax) (E. Lorch, J. Phys. C 2, 229 (1969)). "soper-barney": 3 (sin x - x cos x) / x^3 with
    x = Q delta (A. K. Soper and E. R. Barney, J. Appl. Cryst. 44, 714 (2011)): g(r) averaged over a sphere of radius delta (A), by
    default 4.4934/qmax, so that W vanishes at qmax. q: [m] and qmax in 1/A. Returns [m]. Raises ValueError for anything else.
    """
    q = np.asarray(q, dtype=float)
    if not (np.isfinite(qmax) and qmax > 0):
        raise ValueError(f"got qmax {qmax!r}; needs a positive number in 1/A; pass the last Q of the data")
    if kind not in _FWHM:
        raise ValueError(f"got window {kind!r}; needs {', '.join(map(repr, _FWHM))}; pass one of them")
    if delta is not None and (kind != "soper-barney" or not delta > 0):
        raise ValueError(f'got delta {delta!r} with window {kind!r}; needs a positive width in A, with "soper-barney" only; leave delta out')
    if kind == "none":
        window = np.ones(q.shape)
    elif kind == "lorch":
        window = np.sinc(q / qmax)
    else:
        window = _three_j1(q * (_FIRST_ZERO / qmax if delta is None else delta))
    return np.where(q <= qmax, window, 0.0)


def to_real_space(q, s, r, *, number_density: float, qmax: float | None = None, window: str = "none", bins: bool = False) -> np.ndarray:
    """g(r) = 1 + 1/(2 pi^2 rho0 r) int_0^qmax Q (S - 1) W(Q) sin(Qr) dQ of Faber-Ziman S(Q).

    q: [m] in 1/A; s: [m], S(Q) -> 1; r: [n] in A, r = 0 allowed; number_density in atoms/A^3; qmax in 1/A, by default the end of the
    data; window: a kind of `termination_window`. The integral is a trapezoid, with S held at its first value below the first Q
    (Q (S - 1) linear to 0). With `bins`, q are the centres of even bins in which (S - 1) W is constant, integrated exactly, which damps
    g - 1 by sin(x)/x, x = r dQ/2 (1 % at r dQ = 0.5). Returns [n]. Raises ValueError for data it cannot transform.
    """
    q, s = checked_curve(q, s, "s", points=2)
    kernel = _sine_transform(q, s - 1.0, r, qmax, bins, lambda nodes, end: termination_window(nodes, end, window))
    return 1.0 + kernel / (2 * np.pi**2 * checked_density(number_density))


def to_reciprocal(r, g, q, *, number_density: float, rmax: float | None = None, window: str = "cosine") -> np.ndarray:
    """S(Q) = 1 + (4 pi rho0 / Q) int_0^rmax r (g - 1) W(r) sin(Qr) dr of g(r).

    r: [m] in A; g: [m], g(r) -> 1; q: [n] in 1/A, 0 allowed; number_density in atoms/A^3; rmax in A, by default the end of the data;
    window: "cosine" (1 to 0.7 rmax, then a half cosine), "lorch" sin(pi r/rmax) / (pi r/rmax) or "none". Trapezoid, with g held at its
    first value below the first r. Returns [n]. Raises ValueError for data it cannot transform.
    """
    r, g = checked_curve(r, g, "g", points=2)
    windows = {
        "cosine": lambda nodes, end: 0.5 * (1 + np.cos(np.pi * np.clip((nodes / end - 0.7) / 0.3, 0.0, 1.0))),
        "lorch": lambda nodes, end: np.sinc(nodes / end),
        "none": lambda nodes, end: np.ones(len(nodes)),
    }
    if window not in windows:
        raise ValueError(f"got window {window!r}; needs {', '.join(map(repr, windows))}; pass one of them")
    return 1.0 + 4 * np.pi * checked_density(number_density) * _sine_transform(r, g - 1.0, q, rmax, False, windows[window])


def _sine_transform(x: np.ndarray, h: np.ndarray, y, end: float | None, bins: bool, window) -> np.ndarray:
    """int_0^end x h(x) W(x) sin(xy) / y dx, [n]; int_0^a x sin(xy) / y dx = a^3 j1(ay) / (ay) covers the piece below x[0] and the bins."""
    y = np.atleast_1d(np.asarray(y, dtype=float))
    if y.ndim != 1 or not np.isfinite(y).all() or (y < 0).any():
        raise ValueError(f"got {y.shape} output points, some negative or not finite; needs [n] values >= 0; pass r in A or Q in 1/A")
    steps = np.diff(x)
    if bins and np.ptp(steps) > 0.01 * steps.mean():
        raise ValueError(f"got steps from {steps.min():g} to {steps.max():g} with bins=True; needs even bins, within 1 %; pass bins=False")
    last = x[-1] + (0.5 * steps[-1] if bins else 0.0)
    end = last if end is None else float(end)
    if not x[0] < end <= last * (1 + 1e-9):
        raise ValueError(f"got an upper limit of {end:g}; needs one within the data, above {x[0]:g} and up to {last:g}; cut the limit")
    if bins:
        edges = np.minimum(np.concatenate([[0.0], x[:-1] + steps / 2, [last]]), end)
        middle = np.concatenate([x[:1], (edges[1:-1] + edges[2:]) / 2])
        values = h * window(np.minimum(middle, end), end)
        nodes, factors = edges, edges**3 / 3 * np.concatenate([[0.0], values - np.concatenate([values[1:], [0.0]])])
    else:
        nodes = np.concatenate([x[x < end], [end]])
        h = np.interp(nodes, x, h) * window(nodes, end)
        gaps = np.diff(nodes)
        factors = 0.5 * nodes**2 * h * (np.concatenate([[0.0], gaps]) + np.concatenate([gaps, [0.0]]))
    kernel = _three_j1 if bins else (lambda xy: np.sinc(xy / np.pi))
    block = max(1, _BLOCK // len(nodes))
    result = np.concatenate([kernel(np.outer(y[i : i + block], nodes)) @ factors for i in range(0, len(y), block)])
    return result if bins else result + h[0] * x[0] ** 3 / 3 * _three_j1(x[0] * y)


def fwhm_of(qmax: float, window: str) -> float:
    """Full width at half maximum (A) of what the transform to qmax (1/A) makes of a sharp peak in G(r): the Fourier transform of the window.

    3.791/qmax for "none", 5.437/qmax for "lorch", 5.707/qmax for "soper-barney" with its default delta. Raises ValueError for others.
    """
    termination_window(0.0, qmax, window)  # refuses what is not a window
    return _FWHM[window] / float(qmax)


def width_of(qmax: float, window: str) -> float:
    """Standard deviation (A) of the Gaussian with the width of `fwhm_of`: FWHM / (2 sqrt(2 ln 2))."""
    return fwhm_of(qmax, window) / (2 * np.sqrt(2 * np.log(2)))
