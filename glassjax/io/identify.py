"""Which function does a measured file hold? Header words and limits together, with a check of its scale."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..elements import neutron_length
from .limits import FUNCTIONS, REAL, below_first_peak, check_function, low_q, slope_to_zero
from .measured import Measured, read_measured

__all__ = ["Identification", "identify", "neutron_squares"]

_ORDER = ("g", "RDF", "T", "G", "D", "G_keen", "S", "F_keen", "Q(S-1)", "I")  # the first that no limit excludes is taken
_BARN = ("G_keen", "D", "T", "F_keen")
_SCALE = (0.75, 1.33)  # found / expected, for a curve on an absolute scale
_ASK_ANGLE = "say whether x is Q in 1/A, or 2theta in degrees: then convert it to Q = (4 pi / wavelength) sin(2theta / 2)"
_LOOSE = (0.5, 2.0)  # the same at small Q, where compressibility, small-angle and inelastic scattering add to the limit


@dataclass(frozen=True)
class Identification:
    """What a measured file holds.

    function: a name of `glassjax.io.limits.FUNCTIONS`, or None where the file leaves it open; radiation: "neutron", "xray" or None;
    axis: "r", "Q", "2theta" or None; unit: of the axis in the file; qmin, qmax (1/A), qdamp, qbroad (1/A): from the header, and for
    curves of Q from the range; layout; points, xmin, xmax (A, 1/A or degrees), has_errors: the curve as read. candidates: {function: why
    it is excluded, or ""}. checks: (name, found, expected, ok) each. notes: what was done and seen; advice: what to pass.
    """

    path: Path
    function: str | None
    radiation: str | None
    axis: str | None
    unit: str | None
    qmin: float | None
    qmax: float | None
    qdamp: float | None
    qbroad: float | None
    layout: str
    points: int
    xmin: float
    xmax: float
    has_errors: bool
    candidates: Mapping[str, str]
    checks: tuple[tuple[str, float, float, bool], ...]
    notes: tuple[str, ...]
    advice: tuple[str, ...]

    def text(self) -> str:
        """The lines a person reads."""
        name = "open" if self.function is None else FUNCTIONS[self.function].split(", which")[0]
        unit = {"r": " A", "Q": " 1/A", "2theta": " deg", None: ""}[self.axis]
        rows = [
            ("file", str(self.path)),
            ("function", name if self.function in (None, "g", "I") or name.startswith(self.function) else f"{self.function}: {name}"),
            ("radiation", "not said" if self.radiation is None else self.radiation),
            ("range", f"{'x' if self.axis is None else self.axis} {self.xmin:.4g} to {self.xmax:.4g}{unit}, {self.points} points"),
            ("errors", "yes" if self.has_errors else "no"),
            ("layout", self.layout),
        ]
        rows += [(key, f"{getattr(self, key):g}") for key in ("qmin", "qmax", "qdamp", "qbroad") if getattr(self, key) is not None]
        rows += [("check", f"{what}: {found:.4g}, expected {expected:.4g}, {'ok' if ok else 'NOT MET'}") for what, found, expected, ok in self.checks]
        rows += [("note", note) for note in self.notes] + [("do", advice) for advice in self.advice]
        return "\n".join(f"{key:<10} {value}" for key, value in rows)


def identify(
    path, *, composition: str | Mapping[str, float] | None = None, number_density: float | None = None, columns: tuple[int, ...] | None = None
) -> Identification:
    """Say which function a measured file holds, from its header and from its limits, and check its scale.

    Where words and data disagree the data decide, and a note says so. composition: a formula ("SiO2", D for deuterium) or {element:
    amount}; number_density: atoms/A^3; with them the scale is checked: the slope -4 pi rho0 of G at r -> 0, the floor -<b>^2 of G_keen, the
    limit -sum c b^2 of F_keen at Q -> 0 (up to its compressibility term), and int Q^2 (S - 1) dQ = -2 pi^2 rho0 as the low-r slope of the
    Lorch-windowed transform. columns: as for `read_measured`; repeated x are averaged.

    Raises FileNotFoundError, or ValueError for what `read_measured` refuses, and for data that no function fits, naming why each is out.
    """
    if number_density is not None and not number_density > 0:
        raise ValueError(f"got number_density={number_density!r}; needs a positive number of atoms/A^3; correct it")
    squares = None if composition is None else neutron_squares(composition)
    measured = read_measured(path, columns=columns, repeated="mean")
    facts, notes, advice = measured.facts, list(measured.notes), []
    if any("repeated points" in note for note in notes):
        advice.append('read it with repeated="mean"')
    if facts.axis == "2theta" or (facts.axis is None and facts.layout == "xye"):
        said = facts.axis == "2theta"
        why = "the header calls the first column 2theta" if said else "an .xye file holds an intensity"
        notes += [] if said else ["an .xye file mostly holds 2theta, but its header does not say"]
        advice.append("convert x to Q = (4 pi / wavelength) sin(2theta / 2) before use" if said else _ASK_ANGLE)
        return _identification(measured, "I", facts.axis, facts.radiation, dict.fromkeys(FUNCTIONS, why) | {"I": ""}, (), notes, advice)
    candidates = {name: _why_not(measured, name) for name in FUNCTIONS}
    function, axis = _choose(measured, candidates, squares, number_density, notes, advice)
    radiation = facts.radiation
    if function in _BARN and radiation is None:
        radiation = "neutron"
        notes.append(f"{function} is in barn: neutron taken")
    if facts.unit is None and axis is not None:
        notes.append(f"no unit in the header: {'A' if axis == 'r' else '1/A'} taken, which the peaks allow")
    checks = [] if function is None else _checks(measured, function, radiation, squares, number_density, advice)
    return _identification(measured, function, axis, radiation, candidates, checks, notes, advice)


def neutron_squares(composition: str | Mapping[str, float]) -> tuple[float, float]:
    """(<b>^2, <b^2>) in barn of a formula ("SiO2", "D2O") or {element: amount}: (sum c b)^2 / 100 and sum c b^2 / 100, b in fm.

    H and D of one composition count as one element with their mean length, as where they exchange.
    Raises ValueError for a formula that cannot be read, an amount that is not positive, or an element without a scattering length.
    """
    if isinstance(composition, str):
        if not re.fullmatch(r"(?:[A-Z][a-z]?(?:\d+(?:\.\d*)?|\.\d+)?\s*)+", composition.strip()):
            raise ValueError(f'got composition {composition!r}; needs symbols with amounts, such as "SiO2" or "D2O"; write no brackets')
        pairs = [(symbol, float(amount) if amount else 1.0) for symbol, amount in re.findall(r"([A-Z][a-z]?)([\d.]*)", composition)]
    else:
        pairs = [(symbol, float(amount)) for symbol, amount in composition.items()]
    if not pairs or not all(amount > 0 for _, amount in pairs):
        raise ValueError(f"got composition {composition!r}; needs positive amounts; leave elements without atoms out")
    merged: dict[str, list] = {}  # H and D exchange: random on one site, their mean length counts in <b^2>
    for symbol, amount in pairs:
        merged.setdefault("H" if symbol == "D" else symbol, []).append((amount, amount * neutron_length(symbol)))
    amounts, weighted = np.array([np.sum(parts, axis=0) for parts in merged.values()]).T
    fractions, lengths = amounts / amounts.sum(), weighted / amounts
    return float((fractions @ lengths) ** 2 / 100), float(fractions @ lengths**2 / 100)


def _identification(measured: Measured, function, axis, radiation, candidates, checks, notes, advice) -> Identification:
    facts, x = measured.facts, measured.x
    wave = axis == "Q"
    return Identification(
        path=measured.path,
        function=function,
        radiation=radiation,
        axis=axis,
        unit=facts.unit,
        qmin=float(x[0]) if facts.qmin is None and wave else facts.qmin,
        qmax=float(x[-1]) if facts.qmax is None and wave else facts.qmax,
        qdamp=facts.qdamp,
        qbroad=facts.qbroad,
        layout=facts.layout,
        points=len(x),
        xmin=float(x[0]),
        xmax=float(x[-1]),
        has_errors=measured.uncertainty is not None,
        candidates=candidates,
        checks=tuple(checks),
        notes=tuple(notes),
        advice=tuple(advice),
    )


def _why_not(measured: Measured, function: str) -> str:
    """Why the limits exclude a function: "found; what to do", or ""."""
    try:
        check_function(measured, function)
    except ValueError as error:
        found, _, do = re.fullmatch(r"(.*?); (needs .*?); (.*)", str(error).removeprefix(f"{measured.path}: got "), re.DOTALL).groups()
        return f"{found}; {do}"
    return ""


def _refuse_all(measured: Measured, candidates: Mapping[str, str]):
    """Raise for a curve that nothing fits: for its unit where the peaks lie wrong, else with the reason against each function."""
    named = [name for name in _ORDER if "the first column" not in candidates[name]]
    units = [candidates[name] for name in named[::-1] if re.match("a first peak at|the highest peak at", candidates[name])]
    if units:
        got, _, do = units[0].partition("; ")
        raise ValueError(f"{measured.path}: got {got}; needs r in A or Q in 1/A; {do}")
    reasons: dict[str, list[str]] = {}
    for name in named:
        reasons.setdefault(candidates[name].partition("; ")[0], []).append(name)
    got = "; ".join(f"{', '.join(names)}: {found}" for found, names in reasons.items())
    do = "check the column (columns=), the unit of the axis, and the scale and background of the curve"
    raise ValueError(f"{measured.path}: got a curve that no function fits ({got}); needs one of {', '.join(named)}; {do}")


def _choose(measured: Measured, candidates: Mapping[str, str], squares, number_density, notes: list, advice: list):
    """(function or None, axis or None); appends to notes and advice. Raises ValueError when nothing fits."""
    facts = measured.facts
    fits = [name for name in _ORDER if not candidates[name]]
    said = facts.function
    if not fits:
        _refuse_all(measured, candidates)
    real = {name in REAL for name in fits}
    if facts.axis is None and len(real) == 2 and not measured.y[:5].any() and measured.x[np.argmax(measured.y != 0)] >= 0.5:
        notes.append("exact zeros from the first point to x >= 0.5: a function of r")
        fits, real = [name for name in fits if name in REAL], {True}
    if facts.axis is None and said is None and len(real) == 2:
        notes.append(f"the header names no axis and the limits allow {', '.join(fits)}")
        advice.append("say what the file holds: pass function=" + " or ".join(f'"{name}"' for name in fits))
        return None, None
    function = said if said in fits else fits[0]
    if said is not None and said not in fits:
        notes.append(f"the header says {said}, the data are {function}: {candidates[said].split(';')[0]}")
    if function in ("G", "D") and {"G", "D"} <= set(fits) and squares is not None and number_density is not None:
        function = _by_scale(measured, function, squares[0], number_density, notes)
    twins = [name for name in fits if name != function and (name in REAL) == (function in REAL) and {name, function} != {"S", "I"}]
    if twins and said is None:
        notes.append(f"the limits allow {', '.join(twins)} too" + ("; only the scale tells G from D" if {"G", "D"} <= {function, *twins} else ""))
    if facts.axis is None and function == "I":
        advice += ['pass function="I"', _ASK_ANGLE]
        return "I", None
    axis = facts.axis if facts.axis is not None else ("r" if function in REAL else "Q")
    if facts.axis is None:
        notes.append(f"the header names no axis: {axis} taken, from the function")
    advice.append(f'pass function="{function}"')
    return function, axis


def _by_scale(measured: Measured, function: str, mean_square: float, number_density: float, notes: list) -> str:
    """Of G and D, whose limits are alike, the one whose slope below the first peak is on an absolute scale; else the one given."""
    low = below_first_peak(measured)
    if low is None:
        return function
    slope, _ = slope_to_zero(measured.x[low], measured.y[low])
    ratios = {"G": slope / (-4 * np.pi * number_density), "D": slope / (-4 * np.pi * number_density * mean_square)}
    right = [name for name, ratio in ratios.items() if _SCALE[0] <= ratio <= _SCALE[1]]
    if len(right) == 1 and right[0] != function:
        notes.append(f"the slope {slope:.3g} below the first peak is that of {right[0]}, not of {function}")
        return right[0]
    return function


def _checks(measured: Measured, function: str, radiation, squares, number_density, advice: list) -> list:
    """(name, found, expected, ok) for the limits that the composition and the density fix; appends to advice."""
    y = measured.y
    if function in _BARN and (squares is None or radiation == "xray"):
        return []
    scale = squares[0] if function in _BARN else 1.0
    rows = []
    if function == "G_keen" and (low := below_first_peak(measured)) is not None:
        rows.append(("floor at small r, barn", float(y[low].mean()), -scale))
    if function == "g" and (low := below_first_peak(measured)) is not None:
        found = float(y[low].mean())
        return [("level below the first peak", found, 0.0, abs(found) < 0.25)]
    if function == "F_keen" and (low := low_q(measured)) is not None:
        rows.append(("level at small Q against -<b^2>, barn/sr", float(y[low].mean()), -squares[1]))
    if number_density is not None and not (function in _BARN and squares[0] < 0.1 * squares[1]):  # else <b>^2 is a small difference
        rows += _density_rows(measured, function, -4 * np.pi * number_density * scale)
    checks = []
    for name, found, expected in (row for row in rows if np.isfinite(row[1])):
        low, high = _LOOSE if "small Q" in name else _SCALE
        checks.append((name, found, expected, bool(low <= found / expected <= high)))
        if not checks[-1][3]:
            advice.append(f"not on an absolute scale (factor {found / expected:.2g}, from the {name}): check density and composition, or fit a scale")
    return checks


def _density_rows(measured: Measured, function: str, slope: float) -> list:
    """(name, found, expected) of what the density fixes; slope: -4 pi rho0, times <b>^2 for functions in barn."""
    x, y = measured.x, measured.y
    if function in ("G", "D") and (low := below_first_peak(measured)) is not None:
        return [(f"slope of {function} at r -> 0", slope_to_zero(x[low], y[low])[0], slope)]
    if function in ("S", "F_keen", "Q(S-1)"):
        return [("slope at r -> 0 of the transform (sum rule)", _transform_slope(x, y, function), slope)]
    if function in ("T", "RDF"):
        upper = x >= (x[0] + x[-1]) / 2
        shape = -slope * x[upper] ** (1 if function == "T" else 2)
        return [("mean level over the upper half", float(y[upper].mean()), float(shape.mean()))]
    return []


def _transform_slope(x: np.ndarray, y: np.ndarray, function: str) -> float:
    """Slope (through 0, between 0.3 A and 0.7 of the first peak) of (2/pi) int Q i(Q) W(Q) sin(Qr) dQ; W = Lorch; nan without a peak.

    i = S - 1, F_keen or Q (S - 1) / Q; the integrand is taken to go to 0 as Q below the first point.
    """
    reduced = x * (y - 1) if function == "S" else (x * y if function == "F_keen" else y)
    q, reduced = (np.concatenate([[0.0], x]), np.concatenate([[0.0], reduced])) if x[0] > 0 else (x, reduced)
    r = np.arange(0.02, 6.0, 0.02)
    integrand = reduced * np.sinc(q / q[-1]) * np.sin(r[:, None] * q)
    curve = 2 / np.pi * np.trapezoid(integrand, q, axis=1)
    past = r > 0.6
    peak = r[past][np.argmax(curve[past] > 0.5 * curve[past].max())] if curve[past].max() > 0 else 0.0
    keep = (r >= 0.3) & (r <= 0.7 * peak)
    return slope_to_zero(r[keep], curve[keep])[0] if keep.sum() >= 5 else float("nan")
