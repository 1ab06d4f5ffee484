"""Does a curve behave as the function it is said to be? Judged by its level, sign, slope and growth in the limits, not by its header."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from .measured import Measured

__all__ = ["FUNCTIONS", "below_first_peak", "check_function", "low_q", "slope_to_zero"]

FUNCTIONS = {
    "g": "g(r), which is 0 at small r and 1 at large r",
    "G": "G(r) = 4 pi rho0 r (g - 1), which oscillates about 0 at large r",
    "G_keen": "Keen's G(r) = sum c_i c_j b_i b_j (g_ij - 1), which is -<b>^2 at small r and 0 at large r",
    "D": "D(r) = 4 pi rho0 r G_keen, which oscillates about 0 at large r",
    "T": "T(r) = D(r) + 4 pi rho0 r <b>^2, which is 0 at small r and grows as r",
    "RDF": "RDF = 4 pi rho0 r^2 g, which is 0 at small r and grows as r^2",
    "S": "S(Q), which is 1 at large Q",
    "F_keen": "Keen's F(Q) = <b>^2 (S - 1), which is finite at small Q and 0 at large Q",
    "Q(S-1)": "Q (S(Q) - 1), which goes to 0 as Q at small Q and oscillates about 0",
    "I": "an intensity, which is positive",
}
REAL = ("g", "G", "G_keen", "D", "T", "RDF")


def check_function(measured: Measured, function: str, number_density: float | None = None, mean_square: float | None = None) -> None:
    """Raise ValueError when the limits of a curve contradict the function claimed for it; return None otherwise.

    function: one of FUNCTIONS: "g", "G", "G_keen", "D", "T", "RDF" of r (A), or "S", "F_keen", "Q(S-1)", "I" of Q (1/A); their limits are
    those of Keen, J. Appl. Cryst. 34, 172 (2001). number_density (atoms/A^3): the slope of G below the first peak must be -4 pi rho0, and
    the level of RDF 4 pi rho0 r^2, within a factor of 2. mean_square: <b>^2 in barn, for the same of G_keen, D and T; F_keen may be deeper at
    small Q than -<b>^2 (its limit is -sum c b^2 + <b>^2 S_NN(0)) but not shallower by more than 2.5. Also refused: an axis that the header
    calls another one, 2theta or 1/nm given as 1/A, and nm given as A. Only a clear contradiction raises: noise, ripples and a range cut at
    both ends pass.
    """
    if function not in FUNCTIONS:
        raise ValueError(f"got function {function!r}; needs one of {', '.join(FUNCTIONS)}; pass one of them")
    _check_axis(measured, function)
    (_check_unit_r if function in REAL else _check_unit_q)(measured, function)
    if function == "g":
        _check_g(measured)
    elif function in ("G", "D"):
        _check_big_g(measured, function, number_density, mean_square)
    elif function == "G_keen":
        _check_g_keen(measured, mean_square)
    elif function in ("T", "RDF"):
        _check_growing(measured, function, number_density, mean_square)
    elif function == "S":
        _check_s(measured)
    elif function == "I":
        _check_intensity(measured)
    else:
        _check_interference(measured, function, mean_square)


def _refuse(measured: Measured, function: str, found: str, do: str):
    raise ValueError(f"{measured.path}: got {found}; needs {FUNCTIONS[function]}; {do}")


def _check_axis(measured: Measured, function: str) -> None:
    axis = measured.facts.axis
    if axis == "2theta":
        do = "convert x to Q = (4 pi / wavelength) sin(2theta / 2)" + ("" if function in ("S", "I") else "; an intensity is --function I")
        _refuse(measured, function, "a header that calls the first column 2theta (degrees)", do)
    if axis is not None and (axis == "r") != (function in REAL):
        do = "--function S, F_keen, Q(S-1) or I" if axis == "Q" else "--function g or --function G (or G_keen, D, T, RDF)"
        _refuse(measured, function, f"a header that calls the first column {axis}", f"pass {do}")


def _check_unit_q(measured: Measured, function: str) -> None:
    """The first sharp peak of condensed matter lies below about 4 1/A; one beyond 9 is in other units."""
    x, y = measured.x, measured.y
    if x[-1] <= 15 or x[0] > 9 or measured.facts.left_edges:
        return
    keep = (x > 0) & (x <= max(0.6 * x[-1], 40.0))
    level = np.median(y[x > x[-1] / 2]) if function in ("S", "I") else 0.0
    height = (y[keep] - level) / (x[keep] if function == "Q(S-1)" else 1.0)
    if not np.any(height > 0):
        return
    peak = x[keep][np.argmax(height > 0.5 * height.max())]
    if peak > 9:
        found = f"a first peak at x = {peak:.3g} on an axis that ends at {x[-1]:.4g}, where the first peak in Q lies below 4 1/A"
        do = 'in 1/nm, divide x by 10 or label the column "Q(1/nm)"; in degrees 2theta, convert x to Q = (4 pi / wavelength) sin(2theta / 2)'
        _refuse(measured, function, found, do)


def _check_unit_r(measured: Measured, function: str) -> None:
    """No two atoms are closer than 0.6 A: where the highest peak lies at 0.07-0.42 and little is left beyond 1, r is in nm.

    And nearest neighbours are closer than 9 A: a first peak beyond, on an axis that begins below 3, is in other units (or is Q).
    """
    x, y = measured.x, measured.y
    if function not in ("T", "RDF") and x[0] < 3 and x[-1] > 18:
        near = x <= 0.6 * x[-1]
        height = y[near] - (1.0 if function == "g" else 0.0)
        first = x[near][np.argmax(height > 0.5 * height.max())]
        if height.max() > 0 and first > 9:
            found = f"a first peak at x = {first:.3g}, where nearest neighbours in r lie at 0.7 to 4 A"
            _refuse(measured, function, found, "divide r in pm by 100; were x Q in 1/nm, divide it by 10 and pass --function S")
    shape = {"g": x * (y - 1), "G_keen": x * y, "RDF": y / np.where(x > 0, x, 1.0)}.get(function, y)
    if function in ("T", "RDF"):
        shape = shape - x * (x @ shape) / (x @ x)
    top = np.argmax(shape)
    beyond = np.abs(shape[x > 1.0])
    if x[-1] <= 12 and 0.07 <= x[top] <= 0.42 and shape[top] > 0 and (beyond.size == 0 or beyond.max() < 0.5 * shape[top]):
        found = f"the highest peak at r = {x[top]:.3g} and little beyond r = 1, where no atoms are closer than 0.6 A"
        _refuse(measured, function, found, 'this looks like r in nm: multiply r by 10 (and divide G by 100), or label the column "r(nm)"')


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


def below_first_peak(measured: Measured) -> np.ndarray | None:
    """Mask [m] of the points below the first peak in r, or None where they are too few (5 points over 0.5 A, from 1 A or lower)."""
    x, y = measured.x, measured.y
    peak = x[np.argmax(y > 0.3 * y.max())] if y.max() > 0 else x[0]
    keep = (x > 0) & (x < 0.8 * peak)
    return keep if keep.sum() >= 5 and np.ptp(x[keep]) >= 0.5 and x[keep][0] <= 1.0 else None


def low_q(measured: Measured) -> np.ndarray | None:
    """Mask [m] of the points well below the first peak in Q, or None where they are too few (5 points, over a factor of 3 in Q)."""
    x, y = measured.x, measured.y
    peak = x[np.argmax(y > 0.3 * y.max())] if y.max() > 0 else x[0]
    keep = (x > 0) & (x < 0.6 * peak)
    return keep if keep.sum() >= 5 and x[keep][-1] > 3 * x[keep][0] else None


def slope_to_zero(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Slope of the line through the origin, and the share of sum y^2 that it leaves (0.25 for a constant from 0 on)."""
    slope = float(x @ y / (x @ x))
    total = float(np.sum(y**2))
    return slope, float(np.sum((y - slope * x) ** 2)) / total if total > 0 else 1.0


def _flat(y: np.ndarray, share: float) -> bool:
    return bool(y.mean() < 0 and y.std() < share * abs(y.mean()))


def _check_g(measured: Measured) -> None:
    level, negative = _tail(measured)
    past = measured.x >= 1.5  # beyond the ripples at small r
    if (negative > 0.25 and level < 0.5) or (past.sum() >= 5 and _negative_share(measured.x[past], measured.y[past]) > 0.2):
        _refuse(measured, "g", f"a curve that looks like G(r): it oscillates about 0 at large r (mean {level:.2g})", "pass --function G")
    if measured.x[-1] >= 6 and not 0.5 < level < 1.6:
        kind = "4 pi rho0 r^2 g or T(r), which keep growing, or " if level > 1.6 else "a function that goes to 0, such as g - 1, or "
        _refuse(measured, "g", f"a mean level of {level:.3g} at large r", f"this looks like {kind}a curve on another scale: convert it to g(r)")
    low = below_first_peak(measured)
    if low is not None:
        mean, spread = measured.y[low].mean(), measured.y[low].std()
        if abs(mean) > 0.5 and spread < abs(mean):
            _refuse(measured, "g", f"a mean of {mean:.3g} below the first peak", "convert the curve to g(r), or cut the range there")


def _refuse_negative(measured: Measured, function: str, level: float, negative: float) -> None:
    if negative > 0.95 and -level > 0.3 * np.abs(measured.y).max() and np.ptp(measured.x) >= 2.5:
        _refuse(measured, function, f"a mean level of {level:.3g} over the upper half, negative throughout", "check the column and the background")


def _refuse_level(measured: Measured, function: str) -> None:
    """Refuse what does not oscillate about 0 at large r, as G, D and G_keen do."""
    level, negative = _tail(measured)
    _refuse_negative(measured, function, level, negative)
    if not (negative < 0.1 and level > 0.02 * np.abs(measured.y).max() and np.ptp(measured.x) >= 2.5):
        return
    if 0.5 < level < 1.6:
        found = f"a curve that looks like g(r): its level at large r is {level:.3g} and it does not oscillate about 0"
        _refuse(measured, function, found, "pass --function g")
    found = f"a mean level of {level:.3g} at large r"
    _refuse(measured, function, found, "this looks like T(r) or 4 pi rho0 r^2 g, which keep growing: pass --function T or RDF, or convert it")


def _check_big_g(measured: Measured, function: str, number_density, mean_square) -> None:
    _refuse_level(measured, function)
    low = below_first_peak(measured)
    if low is None:
        return
    r, y = measured.x[low], measured.y[low]
    if _flat(y, 0.1) and r[-1] > 3 * r[0]:
        found = f"a constant level of {y.mean():.3g} below the first peak, as g(r) - 1 or Keen's G(r) has"
        do = "pass --function G_keen, or convert it: g(r) = 1 + that curve / its depth, then pass --function g"
        _refuse(measured, function, found, do)
    slope, left = slope_to_zero(r, y)
    scale = 1.0 if function == "G" else mean_square
    if number_density is None or scale is None or left >= 0.25:
        return
    expected = -4 * np.pi * number_density * scale
    if not 0.5 <= slope / expected <= 2:
        unit, times = ("1/A^2", "") if function == "G" else ("barn/A^2", f" and <b>^2 = {scale:.4g} barn")
        found = f"a slope of {slope:.3g} {unit} below the first peak, where number density {number_density:g} atoms/A^3{times} asks for "
        found += f"{expected:.3g}"
        _refuse(measured, function, found, f"check the density (the slope says {-slope / (4 * np.pi * scale):.3g}) or scale the data")


def _check_g_keen(measured: Measured, mean_square) -> None:
    _refuse_level(measured, "G_keen")
    low = below_first_peak(measured)
    if low is None:
        return
    r, y = measured.x[low], measured.y[low]
    slope, left = slope_to_zero(r, y)
    if slope < 0 and left < 0.1 and r[-1] > 3 * r[0]:
        found = f"a line through 0 of slope {slope:.3g} below the first peak, as G(r) and D(r) have"
        _refuse(measured, "G_keen", found, "pass --function G (or D, for barn/A^2)")
    if mean_square is not None and _flat(y, 0.5) and not 0.5 <= -y.mean() / mean_square <= 2:
        found = f"a floor of {y.mean():.3g} below the first peak, where <b>^2 = {mean_square:.4g} barn asks for {-mean_square:.4g}"
        _refuse(measured, "G_keen", found, "check the composition, or scale the data (100 fm^2 are 1 barn)")


def _check_growing(measured: Measured, function: str, number_density, mean_square) -> None:
    x, y = measured.x, measured.y
    level, negative = _tail(measured)
    if negative > 0.25:
        _refuse(measured, function, f"a curve that oscillates about 0 at large r (mean {level:.2g})", "pass --function G (or D, or G_keen)")
    middle, upper = (x >= (x[0] + x[-1]) / 2) & (x < (x[0] + 3 * x[-1]) / 4), x >= (x[0] + 3 * x[-1]) / 4
    if x[-1] < 6 or min(middle.sum(), upper.sum()) < 5 or y[middle].mean() <= 0 or y[upper].mean() <= 0:
        return
    power = float(np.log(y[upper].mean() / y[middle].mean()) / np.log(x[upper].mean() / x[middle].mean()))
    low, high = (0.4, 1.6) if function == "T" else (1.4, np.inf)
    if not low < power < high:
        found = f"a curve that grows as r^{power:.1f} at large r (mean {level:.3g})"
        _refuse(measured, function, found, f"pass --function {'g' if power <= 0.4 else 'T' if function == 'RDF' else 'RDF'}")
    scale = mean_square if function == "T" else 1.0
    if number_density is None or scale is None:
        return
    shape = 4 * np.pi * number_density * scale * x ** (1 if function == "T" else 2)
    ratio = float(y[upper].mean() / shape[upper].mean())
    if not 0.5 <= ratio <= 2:
        found = f"a level at large r that is {ratio:.3g} times what number density {number_density:g} atoms/A^3 asks for"
        _refuse(measured, function, found, "check the density and the composition, or scale the data")


def _check_s(measured: Measured) -> None:
    level, _ = _tail(measured)
    low, high = (0.6, 1.5) if measured.x[-1] >= 6 else (0.3, 2.5)
    if low < level < high:
        return
    if level <= low and abs(level) < 0.4:
        found = f"a level of {level:.2g} at large Q: it looks like S(Q) - 1, Q (S - 1) or Keen's F(Q)"
        do = "convert it with S = 1 + (S - 1), S = 1 + [Q (S - 1)]/Q or S = 1 + F/<b>^2, then pass --function S; or pass --function F_keen or Q(S-1)"
        _refuse(measured, "S", found, do)
    do = "normalise it (divide an intensity by <f(Q)>^2 or <b>^2), pass --function I for an intensity, or check the column"
    _refuse(measured, "S", f"a level of {level:.3g} at large Q", do)


def _check_intensity(measured: Measured) -> None:
    negative = _negative_share(measured.x, measured.y)
    if negative > 0.1:
        found = f"a curve that is negative over {negative:.0%} of its area"
        _refuse(measured, "I", found, "pass --function F_keen or Q(S-1), or undo the background that was subtracted")


def _check_interference(measured: Measured, function: str, mean_square) -> None:
    """F_keen and Q (S - 1): both about 0 at large Q; at small Q the one is flat, the other a line through 0."""
    level, negative = _tail(measured)
    _refuse_negative(measured, function, level, negative)
    if negative < 0.1 and level > 0.05 * np.abs(measured.y).max():
        kind, do = ("S(Q)", "S") if 0.6 < level < 1.5 else ("an intensity", "I")
        found = f"a curve that looks like {kind}: its level at large Q is {level:.3g} and it does not oscillate about 0"
        _refuse(measured, function, found, f"pass --function {do}")
    low = low_q(measured)
    if low is None:
        return _check_decay(measured, function)
    q, y = measured.x[low], measured.y[low]
    slope, left = slope_to_zero(q, y)
    if function == "F_keen" and slope < 0 and left < 0.1:
        _refuse(measured, function, f"a line through 0 of slope {slope:.3g} at small Q, as Q (S - 1) has", "pass --function Q(S-1)")
    if function == "Q(S-1)" and _flat(y, 0.25):
        found = f"a constant level of {y.mean():.3g} at small Q, as S - 1 and Keen's F(Q) have"
        _refuse(measured, function, found, "pass --function F_keen (barn/sr/atom), or multiply S - 1 by Q")
    if function == "F_keen" and mean_square is not None and _flat(y, 0.25) and -y.mean() < 0.4 * mean_square:
        found = f"a level of {y.mean():.3g} at small Q, where <b>^2 = {mean_square:.4g} barn asks for {-mean_square:.4g} or deeper"
        _refuse(measured, function, found, "check the composition, or scale the data")


def _check_decay(measured: Measured, function: str) -> None:
    """Without data at small Q: an F_keen whose smooth oscillations grow with Q is Q (S - 1)."""
    x, y = measured.x, measured.y
    upper = x > (x[0] + x[-1]) / 2
    if function != "F_keen" or x[-1] < 8 or min(upper.sum(), (~upper).sum()) < 10:
        return
    smooth = float(np.sum(y[upper][1:] * y[upper][:-1]) / max(np.sum(y[upper] ** 2), 1e-30))
    ratio = float(np.sqrt(np.mean(y[upper] ** 2) / max(np.mean(y[~upper] ** 2), 1e-30)))
    if ratio > 1 and smooth > 0.8:
        _refuse(measured, function, f"oscillations that grow with Q (by {ratio:.2g} from the lower to the upper half)", "pass --function Q(S-1)")
