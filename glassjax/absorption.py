"""X-ray absorption: photoelectron wavenumber, the k-space windows and the Fourier transform chi(k) -> chi(R) by larch's conventions.

Definitions follow Ifeffit and its successor larch (M. Newville, J. Synchrotron Rad. 8, 322 (2001); J. Phys. Conf. Ser. 430, 012007 (2013)).
Everything here works on host arrays in float64.
"""

from __future__ import annotations

import numpy as np

__all__ = ["ETOK", "WINDOWS", "distance_grid", "energy_of", "fourier_operator", "wavenumber", "window", "window_name"]

ETOK = 1 / 3.809982111  # 2 m / hbar^2 in 1/(eV A^2), CODATA 2022
_SLACK = 0.05 * (1 + 1e-6)  # 1/A; chi(k) often begins one grid step above 0
WINDOWS = ("hanning", "kaiser-bessel", "parzen", "welch", "gaussian", "sine")


def wavenumber(energy, e0: float) -> np.ndarray:
    """k = sqrt((E - E0) / 3.80998 eV A^2) in 1/A, of photon energies in eV; 0 below the edge. Shape of `energy`."""
    return np.sqrt(np.maximum((np.asarray(energy, dtype=np.float64) - e0) * ETOK, 0))


def energy_of(k, e0: float) -> np.ndarray:
    """Photon energy E0 + 3.80998 eV A^2 k^2 in eV, of wavenumbers k in 1/A, not negative. Shape of `k`."""
    return e0 + np.asarray(k, dtype=np.float64) ** 2 / ETOK


def window_name(name: str) -> str:
    """The name of WINDOWS that `name` means: capitals do not matter, and three letters are enough ("Kaiser", "han").

    Raises ValueError for any other name.
    """
    for known in WINDOWS:
        if isinstance(name, str) and len(name.strip()) >= 3 and known.startswith(name.strip().lower()[:3]):
            return known
    raise ValueError(f"got window {name!r}; needs one of {', '.join(WINDOWS)}; pass one of them")


def window(k, kmin: float, kmax: float, *, dk: float = 1.0, kind: str = "hanning") -> np.ndarray:
    """Larch's window W(k), [m], on a uniform ascending grid k, [m], in 1/A.

    With a = kmin - dk/2, b = kmin + dk/2, c = kmax - dk/2, d = kmax + dk/2 (a and d no further than the grid), each moved down to a point of
    the grid: hanning, parzen and welch rise from 0 at a to 1 at b and fall from 1 at c to 0 at d, as sin^2(pi u/2), u and 1 - (1 - u)^2 (welch
    falls as 1 - u^2) of the fraction u. sine: sin(pi (d - k) / (d - a)). kaiser-bessel: (I0(dk s) - 1) / (I0(dk) - 1) with
    s^2 = 1 - ((2k - a - d) / (d - a))^2. gaussian: exp(-(k - (a + d)/2)^2 / (2 dk^2)), not cut off. Ifeffit's older kaiser-bessel is not offered.

    Raises ValueError: a grid that is not uniform, kmin >= kmax or outside the grid, a negative dk (or 0 where it sets the shape), a kind not in
    WINDOWS.
    """
    k = np.asarray(k, dtype=np.float64)
    steps = np.diff(k)
    if k.ndim != 1 or len(k) < 4 or not np.isfinite(k).all() or not steps.min() > 0 or np.ptp(steps) > 1e-6 * steps.max():
        raise ValueError(f"got k of shape {k.shape}; needs at least 4 points of one ascending, uniform grid in 1/A; interpolate onto such a grid")
    _check_range(k[0], k[-1], kmin, kmax, dk)
    return _weights(k, kmin, kmax, dk, kind)


def distance_grid(rmax: float = 10.0, *, kstep: float = 0.05, nfft: int = 2048) -> np.ndarray:
    """Larch's grid of R in A: multiples of pi / (nfft kstep) from 0 to rmax, which is at most pi / (2 kstep). Raises ValueError beyond that."""
    step = np.pi / (kstep * nfft)
    if not 0 < rmax <= step * nfft / 2:
        raise ValueError(f"got rmax={rmax}; needs a distance above 0 and at most pi / (2 kstep) = {step * nfft / 2:.4g} A; reduce it")
    return step * np.arange(int(min(nfft / 2, 1.01 + rmax / step)))


def fourier_operator(
    k, r, *, kmin: float, kmax: float, kweight: float = 2, dk: float = 1.0, window: str = "hanning", kstep: float = 0.05
) -> np.ndarray:
    """The matrix of larch's forward transform, complex [len(r), len(k)]: chi(R) = operator @ chi(k).

    chi(R) = kstep / sqrt(pi) sum_m chi(k_m) k_m^kweight W(k_m) exp(-2 i k_m R), with k_m = 0, kstep, 2 kstep, ... up to the end of k, and chi(k)
    interpolated linearly onto k_m (constant below its first point). Larch's code has this sign; its magnitude does not depend on it.

    Args:
      k: [m] 1/A, ascending, on any grid.
      r: [n] A, from 0 to pi / (2 kstep); `distance_grid` gives larch's own.
      kmin, kmax, dk: range and taper of the window, 1/A; kweight: power of k, not negative; window: one of WINDOWS; kstep: grid step, 1/A.

    Raises ValueError: k not ascending, r outside the range, kmin or kmax beyond the data, a negative kweight, an unknown window.
    """
    k, r = np.asarray(k, dtype=np.float64), np.asarray(r, dtype=np.float64)
    if k.ndim != 1 or len(k) < 4 or not np.isfinite(k).all() or k[0] < 0 or not (np.diff(k) > 0).all():
        raise ValueError(f"got k of shape {k.shape}; needs at least 4 ascending wavenumbers from 0 on, in 1/A; sort them")
    longest = np.pi / (2 * kstep)
    if r.ndim != 1 or len(r) == 0 or not (r >= 0).all() or not (r <= longest * (1 + 1e-9)).all():
        raise ValueError(f"got r of shape {r.shape}; needs distances from 0 to pi / (2 kstep) = {longest:.4g} A; shorten r or reduce kstep")
    if not kweight >= 0:
        raise ValueError(f"got kweight={kweight}; needs a power of at least 0; correct it")
    _check_range(k[0], k[-1], kmin, kmax, dk)
    count = int(1.01 + k[-1] / kstep)
    grid = kstep * np.arange(int(1.01 + max(k[-1], kmax + dk) / kstep))
    weights = (_weights(grid, kmin, kmax, dk, window) * grid**kweight)[:count] * kstep / np.sqrt(np.pi)
    return (np.exp(-2j * np.outer(r, grid[:count])) * weights) @ _interpolation(k, grid[:count])


def _interpolation(k: np.ndarray, grid: np.ndarray) -> np.ndarray:
    """[len(grid), len(k)]: linear interpolation from k onto grid, constant beyond both ends of k."""
    inside = np.clip(grid, k[0], k[-1])
    left = np.clip(np.searchsorted(k, inside, side="right") - 1, 0, len(k) - 2)
    fraction = (inside - k[left]) / (k[left + 1] - k[left])
    matrix = np.zeros((len(grid), len(k)))
    rows = np.arange(len(grid))
    matrix[rows, left] = 1 - fraction
    matrix[rows, left + 1] += fraction
    return matrix


def _check_range(first: float, last: float, kmin: float, kmax: float, dk: float) -> None:
    if not dk >= 0:
        raise ValueError(f"got dk={dk}; needs a taper of at least 0 1/A; correct it")
    if not kmin < kmax:
        raise ValueError(f"got kmin={kmin}, kmax={kmax}; needs kmin below kmax; correct them")
    if kmin < first - _SLACK or kmax > last + 1e-6:
        raise ValueError(f"got the range {kmin:g} to {kmax:g} 1/A; needs one inside the data, {first:.4g} to {last:.4g} 1/A; narrow it")


def _weights(k: np.ndarray, kmin: float, kmax: float, dk: float, kind: str) -> np.ndarray:
    """The window on a uniform grid. Its four corners are points of the grid, found with the rounding that larch uses."""
    kind = window_name(kind)
    if kind in ("kaiser-bessel", "gaussian") and dk == 0:
        raise ValueError(f"got dk=0 for the {kind} window; needs a positive one, which sets its shape; pass dk")
    step = (k[-1] - k[0]) / (len(k) - 1)
    eps = 1e-4 * step
    corners = np.array([max(k[0], kmin - dk / 2), kmin + dk / 2 + eps, kmax - dk / 2 - eps, min(k[-1], kmax + dk / 2)])
    a, b, c, d = np.clip(((corners - k[0] + eps) / step).astype(int), 0, len(k) - 1)
    a = max(0, b - 1) if a == b else a
    c = max(b, d - 1) if c == d else c
    start, top, fall, end = k[a], k[b] + eps * (a == b), k[c], k[d] + eps * (c == d)
    if kind in ("kaiser-bessel", "gaussian"):
        centre, half = (start + end) / 2, (end - start) / 2
        if kind == "gaussian":
            return np.exp(-((k - centre) ** 2) / (2 * dk**2))
        return (np.i0(dk * np.sqrt(np.maximum(1 - ((k - centre) / half) ** 2, 0))) - 1) / (np.i0(dk) - 1)
    weights = np.zeros(len(k))
    if kind == "sine":
        weights[a : d + 1] = np.sin(np.pi * (end - k[a : d + 1]) / (end - start))
        return weights
    rise, down = (k[a : b + 1] - start) / (top - start), (k[c : d + 1] - fall) / (end - fall)
    weights[b:c] = 1
    weights[a : b + 1] = {"hanning": np.sin(np.pi / 2 * rise) ** 2, "parzen": rise, "welch": 1 - (1 - rise) ** 2}[kind]
    weights[c : d + 1] = {"hanning": np.cos(np.pi / 2 * down) ** 2, "parzen": 1 - down, "welch": 1 - down**2}[kind]
    return weights
