"""Conversions between the functions that total scattering is reported as, and Fourier transforms between S(Q) and g(r).

Definitions follow D. A. Keen, J. Appl. Cryst. 34, 172 (2001). Everything here works on host arrays in float64.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from glassjax import elements

__all__ = [
    "closest_approach",
    "convert",
    "fwhm_of",
    "mean_square_of",
    "self_square_of",
    "termination_window",
    "to_real_space",
    "to_reciprocal",
    "width_of",
]


class _Form(NamedTuple):
    """y = scale * h + level, with h = g - 1 or S - 1 and scale = (4 pi rho0)^density mean_square^weight x^power."""

    density: int
    weight: int
    power: int
    level: str | None  # "scale": level = scale (the curve is 0 where h = -1); "self": level = <b^2>; None: 0


_REAL = {
    "g": _Form(0, 0, 0, "scale"),
    "G": _Form(1, 0, 1, None),
    "G_keen": _Form(0, 1, 0, None),
    "D": _Form(1, 1, 1, None),
    "T": _Form(1, 1, 1, "scale"),
    "RDF": _Form(1, 0, 2, "scale"),
}
_RECIPROCAL = {
    "S": _Form(0, 0, 0, "scale"),
    "F_keen": _Form(0, 1, 0, None),
    "Q(S-1)": _Form(0, 0, 1, None),
    "I": _Form(0, 1, 0, "self"),
}
_FORMS = _REAL | _RECIPROCAL
_SYMBOL = {"number_density": "4 pi rho0", "mean_square": "<b>^2", "self_square": "<b^2>"}
_FIRST_ZERO = 4.493409457909064  # of sin x - x cos x, x > 0
_FWHM = {"none": 3.7909885340679628, "lorch": 5.4366490114920305, "soper-barney": 5.706913810661491}  # times 1 / qmax
_BLOCK = 4_000_000  # entries of the largest kernel matrix held at once


def convert(
    x, y, source: str, target: str, *, number_density: float | None = None, mean_square=None, self_square=None, uncertainty=None
) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
    """One function of the same variable as another, point by point.

    Real space, with g = total g(r) -> 1: G = 4 pi rho0 r (g - 1); G_keen = <b>^2 (g - 1); D = 4 pi rho0 r G_keen;
    T = D + 4 pi rho0 r <b>^2; RDF = 4 pi rho0 r^2 g. Reciprocal space, with Faber-Ziman S(Q) -> 1: F_keen = <b>^2 (S - 1);
    Q(S-1); I = <b^2> + <b>^2 (S - 1), the intensity per atom without thermal damping.

    Args:
      x: [m], r in A or Q in 1/A, not negative; positive where the conversion divides by it.
      y: [m], the values of `source`.
      source, target: "g", "G", "G_keen", "D", "T", "RDF"; or "S", "F_keen", "Q(S-1)", "I".
      number_density: rho0, atoms/A^3; needed where one of the pair holds it and the other does not.
      mean_square: <b>^2 in the unit of G_keen, D, T, F_keen and I (barn in this package), a number, or [m] for <f(Q)>^2 of X-rays.
      self_square: <b^2> in that unit, a number or [m]; for "I" only.
      uncertainty: [m], standard error of y, or None.

    Returns the values of `target`, [m] float64; with an uncertainty, (values, uncertainty).

    Raises ValueError: an unknown name, r space to Q space, a missing or implausible constant, arrays that do not match, division by x = 0.
    """
    have, want = _forms(source, target)
    x, y = _curve(x, y)
    columns = [] if source in _REAL else [x.shape]  # shapes that <b>^2 and <b^2> may have besides a number
    constants = {
        "number_density": _constant("number_density", number_density, []),
        "mean_square": _constant("mean_square", mean_square, columns),
        "self_square": _constant("self_square", self_square, columns),
    }
    power = want.power - have.power
    if power < 0 and x[0] == 0:
        raise ValueError(f"got a point at x = 0; needs x > 0, because {source} to {target} divides by it; drop that point")
    ratio = _scale(_Form(want.density - have.density, want.weight - have.weight, power, None), x, constants, f"{source} to {target}")
    result = y * ratio + _shift(source, target, x, ratio, constants)
    if uncertainty is None:
        return result
    return result, _curve(x, uncertainty, "uncertainty")[1] * np.abs(ratio)


def _forms(source: str, target: str) -> tuple[_Form, _Form]:
    for role, name in (("source", source), ("target", target)):
        if name not in _FORMS:
            hint = '; a bare "F(Q)" is F_keen or Q(S-1): say which' if str(name).upper().startswith("F") else "; pass one of them"
            raise ValueError(f"got {role} {name!r}; needs one of {', '.join(_FORMS)}{hint}")
    if (source in _REAL) != (target in _REAL):
        do = "convert to S, then use to_real_space" if target in _REAL else "convert to g, then use to_reciprocal"
        raise ValueError(f"got {source} to {target}, which is a Fourier transform; needs two functions of the same variable; {do}")
    return _FORMS[source], _FORMS[target]


def _curve(x, y, name: str = "y", points: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """x and y as float64 [m]; refused unless finite, of equal length, x not negative and ascending."""
    x, y = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    if x.ndim != 1 or x.shape != y.shape or len(x) < points:
        raise ValueError(f"got x of shape {x.shape} and {name} of shape {y.shape}; needs two [m] arrays, m >= {points}; pass matching columns")
    if not (np.isfinite(x).all() and np.isfinite(y).all()) or x[0] < 0 or (np.diff(x) <= 0).any():
        raise ValueError(f"got x from {x[0]:g} to {x[-1]:g} with {name}; needs finite numbers, x >= 0 and ascending; sort, drop bad and equal points")
    return x, y


def _constant(name: str, value, columns: list) -> np.ndarray | None:
    """A positive constant as a float64 array, a number or one of the shapes in `columns`; None where it is absent."""
    if value is None:
        return None
    value = np.asarray(value, dtype=float)
    if value.shape not in [(), *columns]:
        raise ValueError(f"got {name} of shape {value.shape}; needs a number{'' if not columns else f' or shape {columns[0]}'}; pass that")
    if not (np.isfinite(value).all() and (value > 0).all()):
        raise ValueError(f"got {name} down to {value.min():g}; needs finite positive values; check its sign and unit")
    return value


def _needed(constants: dict, name: str, what: str) -> np.ndarray:
    if constants[name] is None:
        do = "the sample's, in atoms/A^3" if name == "number_density" else f"{name}_of(composition, weights)"
        raise ValueError(f"got no {name}; needs it for {what}, which depends on {_SYMBOL[name]}; pass {do}")
    return constants[name]


def _scale(form: _Form, x: np.ndarray, constants: dict, what: str) -> np.ndarray:
    scale = np.ones(len(x))
    for name, exponent, factor in (("number_density", form.density, 4 * np.pi), ("mean_square", form.weight, 1.0)):
        if exponent:
            scale = scale * (factor * _needed(constants, name, what)) ** float(exponent)
    return scale * x ** float(form.power)


def _shift(source: str, target: str, x: np.ndarray, ratio: np.ndarray, constants: dict) -> np.ndarray:
    """What is added after y * ratio: the target's level less the source's, both in the target's unit."""
    have, want, what = _FORMS[source], _FORMS[target], f"{source} to {target}"
    shift = np.zeros(len(x))
    if (have.level == "scale") != (want.level == "scale"):
        shift = shift + (1.0 if want.level == "scale" else -1.0) * _scale(want, x, constants, what)
    if (have.level == "self") != (want.level == "self"):
        shift = shift + _needed(constants, "self_square", what) * (1.0 if want.level == "self" else -ratio)
    return shift


def mean_square_of(composition: Mapping[str, float] | str, weights: str, q=None) -> float | np.ndarray:
    """<b>^2 = (sum c_i b_i)^2 per atom: barn (1 barn = 100 fm^2) for neutrons, electrons^2 for X-rays and "Z", 1 for "number".

    composition: {element: amount} or a formula such as "SiO2"; amounts are normalised. "D" is an element of its own, so {"H": 0.5,
    "D": 1.5, "O": 1} is a mixture. weights: "neutron" (Sears 1992), "xray" (f(Q), Waasmaier & Kirfel 1995), "Z" or "number".
    q: [nq] in 1/A, needed by "xray". Returns a float, or [nq] where q is given. Raises ValueError for what cannot be read.
    """
    fractions, lengths = _scatterers(composition, weights, q)
    return (fractions @ lengths) ** 2


def self_square_of(composition: Mapping[str, float] | str, weights: str, q=None) -> float | np.ndarray:
    """<b^2> = sum c_i b_i^2 per atom, coherent lengths only (no incoherent part). Arguments, units and errors of `mean_square_of`."""
    fractions, lengths = _scatterers(composition, weights, q)
    return fractions @ lengths**2


def _scatterers(composition, weights: str, q) -> tuple[np.ndarray, np.ndarray]:
    """Fractions [e] and scattering amplitudes [e] or [e, nq] (sqrt(barn) = 10 fm, electrons, or 1)."""
    tables = {"neutron": elements.neutron_length, "Z": elements.atomic_number, "number": lambda symbol: elements.atomic_number(symbol) ** 0}
    if weights != "xray" and weights not in tables:
        raise ValueError(f'got weights {weights!r}; needs "neutron", "xray", "Z" or "number"; pass one of them')
    if weights == "xray" and q is None:
        raise ValueError('got weights "xray" without q; needs the Q values (1/A) at which to take f(Q); pass q, or weights "Z" for f = Z')
    amounts = _amounts(composition)
    fractions = np.array(list(amounts.values())) / sum(amounts.values())
    if weights == "xray":
        return fractions, np.array([elements.xray_form_factor(symbol, q) for symbol in amounts])
    lengths = np.array([float(tables[weights](symbol)) for symbol in amounts]) / (10.0 if weights == "neutron" else 1.0)
    return fractions, lengths if q is None else np.multiply.outer(lengths, np.ones(np.shape(q)))


def _amounts(composition) -> dict[str, float]:
    amounts: dict[str, float] = {}
    if isinstance(composition, str):
        if not re.fullmatch(r"(?:[A-Z][a-z]?(?:\d+(?:\.\d*)?|\.\d+)?)+", composition.strip()):
            raise ValueError(f'got composition {composition!r}; needs a formula such as "SiO2"; write no brackets, or pass {{element: amount}}')
        for symbol, amount in re.findall(r"([A-Z][a-z]?)([\d.]*)", composition.strip()):
            amounts[symbol] = amounts.get(symbol, 0.0) + (float(amount) if amount else 1.0)
    else:
        amounts = {symbol: float(amount) for symbol, amount in dict(composition).items()}
    values = np.array(list(amounts.values()))
    if not len(values) or not np.isfinite(values).all() or values.min() < 0 or values.sum() <= 0:
        raise ValueError(f"got composition {composition!r}; needs finite amounts >= 0 that do not all vanish; check it")
    return amounts


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
    q, s = _curve(q, s, "s", points=2)
    kernel = _sine_transform(q, s - 1.0, r, qmax, bins, lambda nodes, end: termination_window(nodes, end, window))
    return 1.0 + kernel / (2 * np.pi**2 * _density(number_density))


def to_reciprocal(r, g, q, *, number_density: float, rmax: float | None = None, window: str = "cosine") -> np.ndarray:
    """S(Q) = 1 + (4 pi rho0 / Q) int_0^rmax r (g - 1) W(r) sin(Qr) dr of g(r).

    r: [m] in A; g: [m], g(r) -> 1; q: [n] in 1/A, 0 allowed; number_density in atoms/A^3; rmax in A, by default the end of the data;
    window: "cosine" (1 to 0.7 rmax, then a half cosine), "lorch" sin(pi r/rmax) / (pi r/rmax) or "none". Trapezoid, with g held at its
    first value below the first r. Returns [n]. Raises ValueError for data it cannot transform.
    """
    r, g = _curve(r, g, "g", points=2)
    windows = {
        "cosine": lambda nodes, end: 0.5 * (1 + np.cos(np.pi * np.clip((nodes / end - 0.7) / 0.3, 0.0, 1.0))),
        "lorch": lambda nodes, end: np.sinc(nodes / end),
        "none": lambda nodes, end: np.ones(len(nodes)),
    }
    if window not in windows:
        raise ValueError(f"got window {window!r}; needs {', '.join(map(repr, windows))}; pass one of them")
    return 1.0 + 4 * np.pi * _density(number_density) * _sine_transform(r, g - 1.0, q, rmax, False, windows[window])


def _density(value) -> np.ndarray:
    return _needed({"number_density": _constant("number_density", value, [])}, "number_density", "the transform")


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


def closest_approach(r, g, *, level: float = 0.05) -> float:
    """The r (A) at which g(r) first reaches ``level``, by linear interpolation: the distance of closest approach that data of one element allow.

    Meant as ``minimum_distance`` of what is modelled, as reverse Monte Carlo takes its cut-offs from the data. Resolution makes g(r) rise before the
    shortest distance (for a width of 0.15 A by 0.2 A in silicon, 0.3 A in carbon), thermal tails of few pairs come after. In a mixture a rare pair
    may be nearer than what shows in the total: take a partial g(r).

    Args:
      r: [m] A, ascending.
      g: [m] g(r) of one element, or a partial one, 0 at small r.
      level: where the rise is taken to begin, positive; above the ripples of a Fourier transform.

    Raises:
      ValueError: a level that is not positive; data that begin at it or above it, or never reach it: then they do not tell.
    """
    r, g = _curve(r, g, "g")
    if not level > 0:
        raise ValueError(f"got level = {level}; needs a positive number, such as 0.05")
    above = g >= level
    if above[0]:
        raise ValueError(f"got g = {g[0]:.3g} at the first r, {r[0]:.3g} A; needs a g(r) that begins below {level}; pass data from smaller r on")
    if not above.any():
        raise ValueError(f"got g up to {g.max():.3g}; needs a g(r) that rises to {level}; pass g itself, and data to larger r")
    first = int(np.argmax(above))
    return float(np.interp(level, g[first - 1 : first + 1], r[first - 1 : first + 1]))
