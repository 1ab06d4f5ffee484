"""Does a curve behave as the function it is said to be? Judged by its level, sign and slope in the limits, not by its header."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from .measured import Measured

__all__ = ["check_function"]

_NAMES = {
    "g": "g(r), which is 0 at small r and 1 at large r",
    "G": "G(r) = 4 pi rho0 r (g - 1), which oscillates about 0 at large r",
    "S": "S(Q), which is 1 at large Q",
}


def check_function(measured: Measured, function: str, number_density: float | None = None) -> None:
    """Raise ValueError when the limits of a curve contradict the function claimed for it; return None otherwise.

    function: "g" (g(r): 0 at small r, 1 at large r), "G" (G(r) = 4 pi rho0 r (g - 1): about 0 at large r, slope -4 pi rho0 at r -> 0)
    or "S" (S(Q): 1 at large Q). number_density (atoms/A^3): with "G", the slope below the first peak must be -4 pi rho0 within a
    factor of 2, where the data reach that low. Only a clear contradiction raises: noise, ripples and a range cut at both ends pass.
    """
    if function not in _NAMES:
        raise ValueError(f'got function {function!r}; needs "g", "G" or "S"; pass one of them')
    axis = _axis(measured.header)
    if axis and axis != ("Q" if function == "S" else "r"):
        do = "--function S" if axis == "Q" else "--function g or --function G"
        raise ValueError(f"{measured.path}: got a header that calls the first column {axis}; needs {_NAMES[function]}; pass {do}")
    {"g": _check_g, "G": _check_big_g, "S": _check_s}[function](measured, number_density)


def _axis(header: str) -> str | None:
    """The first column's label, "r" or "Q", if the last header line that is not numbers gives one."""
    lines = [line for line in header.splitlines() if re.search("[A-Za-z]", re.sub(r"(?i)\d[ed][-+]?\d", "", line))]
    label = r"(?:#L\s|[#!;'%\"\s])*([rQq])(?:[(_\[/]\S*)?[\s,;]+(?:\w*\(|[A-Za-z]\b)"  # r(A) G(r), Q S, r (A) g, ...: not "Q range 1-20"
    match = re.match(label, lines[-1]) if lines else None
    return None if match is None else ("r" if match[1] == "r" else "Q")


def _tail(measured: Measured) -> tuple[float, float]:
    """Mean level over the upper half of the range, and the share of the area there that is negative (0 to 1, 0.5 about zero)."""
    keep = measured.x >= (measured.x[0] + measured.x[-1]) / 2
    x, y = measured.x[keep], measured.y[keep]
    if len(x) < 3:
        return float(y.mean()), float(np.mean(y < 0))
    return float(np.trapezoid(y, x) / (x[-1] - x[0])), _negative_share(x, y)


def _negative_share(x: np.ndarray, y: np.ndarray) -> float:
    total = np.trapezoid(np.abs(y), x)
    return float(np.trapezoid(np.maximum(-y, 0), x) / total) if total > 0 else 0.5


def _below_first_peak(measured: Measured) -> np.ndarray | None:
    """Mask of the points below the first peak, or None where they are too few (5 points over 0.5 A, from 1 A or lower)."""
    x, y = measured.x, measured.y
    peak = x[np.argmax(y > 0.3 * y.max())] if y.max() > 0 else x[0]
    keep = (x > 0) & (x < 0.8 * peak)
    return keep if keep.sum() >= 5 and np.ptp(x[keep]) >= 0.5 and x[keep][0] <= 1.0 else None


def _refuse(measured: Measured, function: str, found: str, do: str):
    raise ValueError(f"{measured.path}: got {found}; needs {_NAMES[function]}; {do}")


def _check_g(measured: Measured, number_density) -> None:
    level, negative = _tail(measured)
    past = measured.x >= 1.5  # beyond the ripples at small r
    if (negative > 0.25 and level < 0.5) or (past.sum() >= 5 and _negative_share(measured.x[past], measured.y[past]) > 0.2):
        _refuse(measured, "g", f"a curve that looks like G(r): it oscillates about 0 at large r (mean {level:.2g})", "pass --function G")
    if measured.x[-1] >= 6 and not 0.5 < level < 1.6:
        kind = "4 pi rho0 r^2 g or T(r), which keep growing, or " if level > 1.6 else "a function that goes to 0, such as g - 1, or "
        _refuse(measured, "g", f"a mean level of {level:.3g} at large r", f"this looks like {kind}a curve on another scale: convert it to g(r)")
    low = _below_first_peak(measured)
    if low is not None:
        mean, spread = measured.y[low].mean(), measured.y[low].std()
        if abs(mean) > 0.5 and spread < abs(mean):
            _refuse(measured, "g", f"a mean of {mean:.3g} below the first peak", "convert the curve to g(r), or cut the range there")


def _check_big_g(measured: Measured, number_density) -> None:
    level, negative = _tail(measured)
    scale = np.abs(measured.y).max()
    if negative < 0.1 and level > 0.02 * scale and np.ptp(measured.x) >= 2.5:
        if 0.5 < level < 1.6:
            found = f"a curve that looks like g(r): its level at large r is {level:.3g} and it does not oscillate about 0"
            _refuse(measured, "G", found, "pass --function g")
        _refuse(measured, "G", f"a mean level of {level:.3g} at large r", "this looks like T(r) or 4 pi rho0 r^2 g, which keep growing: convert it")
    low = _below_first_peak(measured)
    if low is None:
        return
    r, y = measured.x[low], measured.y[low]
    if y.mean() < 0 and y.std() < 0.1 * abs(y.mean()) and r[-1] > 3 * r[0]:
        found = f"a constant level of {y.mean():.3g} below the first peak, as g(r) - 1 or Keen's G(r) has"
        _refuse(measured, "G", found, "convert it: g(r) = 1 + that curve / its depth, then pass --function g")
    slope = float(r @ y / (r @ r))
    straight = np.sum((y - slope * r) ** 2) < 0.25 * np.sum(y**2)
    if number_density is None or not straight:
        return
    expected = -4 * np.pi * number_density
    if not 0.5 <= slope / expected <= 2:
        found = f"a slope of {slope:.3g} 1/A^2 below the first peak, where number density {number_density:g} atoms/A^3 asks for {expected:.3g}"
        _refuse(measured, "G", found, f"check the density (the slope says {-slope / (4 * np.pi):.3g}) or scale the data")


def _check_s(measured: Measured, number_density) -> None:
    level, _ = _tail(measured)
    low, high = (0.6, 1.5) if measured.x[-1] >= 6 else (0.3, 2.5)
    if low < level < high:
        return
    if level <= low and abs(level) < 0.4:
        found = f"a level of {level:.2g} at large Q: it looks like S(Q) - 1, Q (S - 1) or Keen's F(Q)"
        do = "convert it with S = 1 + (S - 1), S = 1 + [Q (S - 1)]/Q or S = 1 + F/<b>^2, then pass --function S"
        _refuse(measured, "S", found, do)
    _refuse(measured, "S", f"a level of {level:.3g} at large Q", "normalise it (divide an intensity by <f(Q)>^2 or <b>^2) or check the column")
