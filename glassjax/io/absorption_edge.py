"""What X-ray absorption data themselves show: where the edge is, raw or normalised mu(E), energies in keV, k^n chi(k)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

__all__ = ["chi_notes", "in_electronvolt", "mu_kind"]

_LARGEST_KEV = 200
_EDGE_WINDOW = 30.0  # eV on each side of a point, over which a step is looked for


def in_electronvolt(x: np.ndarray, y: np.ndarray, unit: str | None, path: Path) -> tuple[np.ndarray, tuple[str, ...]]:
    """Energies in eV; those that look like keV, and are not declared as such, are refused."""
    if unit == "keV":
        if x[-1] > _LARGEST_KEV:
            raise ValueError(f"{path}: got energies up to {x[-1]:g} as keV; needs at most {_LARGEST_KEV} keV; leave energy_unit out")
        return x * 1000, ("energies converted from keV to eV",)
    if unit is None and x[-1] < _LARGEST_KEV:
        raise ValueError(
            f'{path}: got energies from {x[0]:g} to {x[-1]:g}{_edge_in_kev(x, y)}; needs eV; multiply them by 1000, or pass energy_unit="keV" '
            '("eV" where they are)'
        )
    return x, ()


def _edge_in_kev(x: np.ndarray, y: np.ndarray) -> str:
    """ ", with the Fe K edge at 7.112 keV" where an edge of an element is at the step of a curve whose energies are in keV."""
    from xraydb import guess_edge, xray_edge

    e0 = _find_edge(1000 * x, y)
    if e0 is None:
        return ", which look like keV"
    element, edge = guess_edge(e0)
    if abs(xray_edge(element, edge).energy - e0) > 0.01 * e0:
        return ", which look like keV"
    return f", with the {element} {edge} edge at {e0 / 1000:.4g} keV"


def _find_edge(x: np.ndarray, y: np.ndarray) -> float | None:
    """The energy of the steepest rise at the largest step between the means over 30 eV on both sides, or None where there is no such point."""
    total = np.concatenate([[0.0], np.cumsum(y)])
    low, high = np.searchsorted(x, x - _EDGE_WINDOW), np.searchsorted(x, x + _EDGE_WINDOW, side="right")
    here = np.arange(len(x))
    inside = (here - low >= 2) & (high - here - 1 >= 2)
    if not inside.any():
        return None
    with np.errstate(divide="ignore", invalid="ignore"):
        step = (total[high] - total[here + 1]) / (high - here - 1) - (total[here] - total[low]) / (here - low)
    centre = x[np.argmax(np.where(inside, step, -np.inf))]
    slope = np.where(np.abs(x - centre) <= _EDGE_WINDOW / 2, np.gradient(y, x), -np.inf)
    return float(x[np.argmax(slope)])


def _levels(x: np.ndarray, y: np.ndarray, e0: float) -> tuple[float, float, float] | None:
    """(pre-edge line at e0, post-edge line at e0, scatter about the post-edge line), or None where one side is missing."""
    found = []
    for side in ((x > e0 - 150) & (x < e0 - 15), (x > e0 + 15) & (x < e0 + 150)):
        if side.sum() < 3:
            return None
        found.append(np.polyfit(x[side] - e0, y[side], 1))
    return float(found[0][1]), float(found[1][1]), float(np.std(y[side] - np.polyval(found[1], x[side] - e0)))


def _rises(x: np.ndarray, y: np.ndarray, e0: float) -> bool:
    """Whether the mean above e0 exceeds the mean below it by 0.4 of the curve's whole range: too short a scan for lines on both sides."""
    below, above = y[x < e0], y[x > e0]
    return below.size > 0 and above.size > 0 and bool(above.mean() - below.mean() > 0.4 * np.ptp(y))


def mu_kind(x: np.ndarray, y: np.ndarray, kind: str, e0: float | None, path: Path) -> tuple[str, tuple[str, ...]]:
    """("mu" or "normalised", notes): what the file says, held against the data; where it says nothing, the data."""
    inside = e0 is not None and x[0] < e0 < x[-1]
    e0 = e0 if inside else _find_edge(x, y)
    levels = None if e0 is None else _levels(x, y, e0)
    if levels is None and kind != "open" and e0 is not None and _rises(x, y, e0):
        return kind, ("too little data on one side of the edge to check that it is what its label says",)
    if levels is None or levels[1] - levels[0] < 2 * levels[2]:
        raise ValueError(
            f"{path}: got no absorption edge with data on both sides in {x[0]:.1f} to {x[-1]:.1f} eV; needs mu(E) with its pre-edge; "
            "where the background is removed already, give chi(k) instead"
        )
    pre, post = levels[:2]
    seen = f"pre-edge {pre:.3g}, post-edge {post:.3g} at {e0:.1f} eV"
    if kind == "normalised" and not (abs(pre) < 0.15 and abs(post - 1) < 0.25):
        raise ValueError(f"{path}: got raw mu under the name normalised ({seen}); needs 0 and 1; call the column mu, or pass group= another one")
    looks = "normalised" if abs(pre) < 0.05 and abs(post - 1) < 0.1 else "mu"
    if kind == "open":
        return looks, (f"{'normalised' if looks == 'normalised' else 'raw'} by its {seen}",)
    return kind, (f"called raw, but looks normalised: {seen}",) if kind == "mu" and looks == "normalised" else ()


def chi_notes(x: np.ndarray, y: np.ndarray, path: Path) -> tuple[str, ...]:
    """Refuses what is not chi(k); notes an amplitude that grows with k as k^n chi(k) does."""
    if x[0] < 0 or x[-1] > 60:
        raise ValueError(f"{path}: got k from {x[0]:g} to {x[-1]:g}; needs wavenumbers from 0 to some 20 1/A; label the column energy if it is")
    upper = x > (3 + x[-1]) / 2
    lower = (x >= 3) & ~upper
    if lower.sum() < 3 or upper.sum() < 3:
        return ()
    low, high = np.sqrt(np.mean(y[lower] ** 2)), np.sqrt(np.mean(y[upper] ** 2))
    if high > low or np.abs(y[x >= 3]).max() > 1:
        return (f"its amplitude ({low:.3g}, then {high:.3g} at larger k) is that of k^n chi(k): pass kpower=n if it is",)
    return ()
