"""Conversions between the functions that total scattering is reported as; `fourier` has the transforms between S(Q) and g(r).

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
    "mean_square_of",
    "self_square_of",
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
    x, y = checked_curve(x, y)
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
    return result, checked_curve(x, uncertainty, "uncertainty")[1] * np.abs(ratio)


def _forms(source: str, target: str) -> tuple[_Form, _Form]:
    for role, name in (("source", source), ("target", target)):
        if name not in _FORMS:
            hint = '; a bare "F(Q)" is F_keen or Q(S-1): say which' if str(name).upper().startswith("F") else "; pass one of them"
            raise ValueError(f"got {role} {name!r}; needs one of {', '.join(_FORMS)}{hint}")
    if (source in _REAL) != (target in _REAL):
        do = "convert to S, then use to_real_space" if target in _REAL else "convert to g, then use to_reciprocal"
        raise ValueError(f"got {source} to {target}, which is a Fourier transform; needs two functions of the same variable; {do}")
    return _FORMS[source], _FORMS[target]


def checked_curve(x, y, name: str = "y", points: int = 1) -> tuple[np.ndarray, np.ndarray]:
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


def checked_density(value) -> np.ndarray:
    """A number density (atoms/A^3) that a transform needs; ``ValueError`` where it is missing or not positive."""
    return _needed({"number_density": _constant("number_density", value, [])}, "number_density", "the transform")


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
    r, g = checked_curve(r, g, "g")
    if not level > 0:
        raise ValueError(f"got level = {level}; needs a positive number, such as 0.05")
    above = g >= level
    if above[0]:
        raise ValueError(f"got g = {g[0]:.3g} at the first r, {r[0]:.3g} A; needs a g(r) that begins below {level}; pass data from smaller r on")
    if not above.any():
        raise ValueError(f"got g up to {g.max():.3g}; needs a g(r) that rises to {level}; pass g itself, and data to larger r")
    first = int(np.argmax(above))
    return float(np.interp(level, g[first - 1 : first + 1], r[first - 1 : first + 1]))
