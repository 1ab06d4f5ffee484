"""What a measurement adds to the structure's curve: scale, background, damping; and the number density that nobody measured.

y(x) = anchor + scale (f'(x) - anchor) + sum_k c_k B_k(x),   f' = level + d(x) (f - level),
d = exp(-(qdamp r)^2 / 2), exp(-Q^2 B / 8 pi^2) or, of chi(k), exp(-2 k^2 sigma^2) with sigma^2 = mean_square

f is the observable, level what it is without pairs (1 for g and S, <b^2> for I, else 0), anchor what a wrong normalisation leaves in place (1 for g
and S, else 0), B_k Legendre polynomials over the range of the data. The displacement B, or sigma^2, is the motion that one static structure lacks.
For absorption the scale is S0^2 (chi) or the edge step (mu), and an energy shift e0 (eV) moves the curve: f gains (e0 - start) (dx/dE0) df/dx,
first order about the start that the observable itself has; for k^w chi(k), df/dx is k^w dchi/dk.
Each parameter has a Gaussian prior (start, deviation) and bounds; deviation 0 means fixed. `guidance.posterior` infers them at every step.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from glassjax._pytree import frozen, static

# start, deviation, bounds where a term is inferred without more being said
DEFAULTS = {
    "scale": (1.0, 0.1, (0.5, 2.0)),
    "qdamp": (0.03, 0.02, (0.0, 0.2)),
    "displacement": (0.2, 0.2, (0.0, 5.0)),
    "mean_square": (0.003, 0.003, (0.0, 0.05)),
    "e0": (0.0, 1.5, (-3.0, 3.0)),
    "density": (None, 0.1, (0.8, 1.25)),
}


@frozen
class Nuisance:
    """Nuisance parameters of one target; see the module.

    Attributes:
      start: [p] prior mean.
      deviation: [p] prior standard deviation; 0 where fixed.
      low: [p] lower bound.
      high: [p] upper bound.
      basis: [m, b] background functions.
      moves: [m] dx/dE0, by how much x of the model's curve moves with the energy shift.
      names: [p] "scale", "e0", "qdamp", "displacement" or "mean_square", "background_0", ...; the last b are the background's (static).
      kweight: w of k^w chi(k) (static).
    """

    start: jax.Array
    deviation: jax.Array
    low: jax.Array
    high: jax.Array
    basis: jax.Array
    moves: jax.Array
    names: tuple[str, ...] = static(default=())
    kweight: float = static(default=0.0)

    @property
    def inferred(self) -> list[str]:
        """Names of the parameters that are not fixed (host)."""
        return [n for n, d in zip(self.names, np.asarray(self.deviation), strict=True) if d > 0]

    def damping(self, x: jax.Array, values: jax.Array) -> jax.Array:
        """d(x) [m] at parameter ``values`` [p]."""
        if "qdamp" in self.names:
            return jnp.exp(-0.5 * (values[self.names.index("qdamp")] * x) ** 2)
        if "displacement" in self.names:
            return jnp.exp(-values[self.names.index("displacement")] * x**2 / (8 * math.pi**2))
        if "mean_square" in self.names:
            return jnp.exp(-2.0 * values[self.names.index("mean_square")] * x**2)
        return jnp.ones_like(x)

    def factor(self, x: jax.Array, values: jax.Array) -> jax.Array:
        """d y / d f [m] at parameter ``values`` [p]."""
        damping = self.damping(x, values)
        return damping * values[self.names.index("scale")] if "scale" in self.names else damping

    def apply(self, x: jax.Array, f: jax.Array, level: jax.Array, anchor: jax.Array, values: jax.Array) -> jax.Array:
        """y [m] from the observable's curve f [m]."""
        if not self.names:
            return f
        terms = self.basis.shape[1]
        if "e0" in self.names:
            place = self.names.index("e0")
            slope = jnp.gradient(f, x)
            if self.kweight:
                slope = slope - self.kweight * f / x
            f = f + (values[place] - self.start[place]) * self.moves * slope
        scale = values[self.names.index("scale")] if "scale" in self.names else 1.0
        y = anchor + scale * (level + self.damping(x, values) * (f - level) - anchor)
        return y + self.basis @ values[len(self.names) - terms :] if terms else y


@frozen
class Density:
    """The number density as an inferred parameter of the whole run.

    Attributes:
      start: atoms/A^3, prior mean.
      deviation: prior standard deviation of its logarithm.
      low: atoms/A^3.
      high: atoms/A^3.
    """

    start: jax.Array
    deviation: jax.Array
    low: jax.Array
    high: jax.Array


def term(name: str, value) -> tuple[float, float, float, float]:
    """(start, deviation, low, high) from what a user writes: a number (fixed), "infer", or a mapping with start, deviation, bounds.

    Raises:
      ValueError: something else, unknown keys, a deviation that is not positive, or bounds that exclude the start.
    """
    start, deviation, bounds = DEFAULTS[name]
    if isinstance(value, bool) or not isinstance(value, int | float | str | Mapping):
        raise ValueError(f"got {name} = {value!r}; needs a number, 'infer', or a table with start, deviation and bounds")
    if isinstance(value, int | float):
        if not math.isfinite(value) or (value < 0 and name != "e0") or (name == "scale" and value == 0):
            raise ValueError(f"got {name} = {value}; needs a {'finite' if name == 'e0' else 'positive'} number")
        return float(value), 0.0, float(value), float(value)
    if isinstance(value, str):
        if value != "infer":
            raise ValueError(f"got {name} = {value!r}; needs a number, 'infer', or a table with start, deviation and bounds")
        value = {}
    unknown = sorted(set(value) - {"start", "deviation", "bounds"})
    if unknown:
        raise ValueError(f"got {name} with {', '.join(unknown)}; needs start, deviation and bounds; remove the others")
    start, deviation, bounds = value.get("start", start), value.get("deviation", deviation), value.get("bounds", bounds)
    if len(bounds) != 2 or not bounds[0] < bounds[1] or not (bounds[0] >= 0 or name == "e0"):
        raise ValueError(f"got {name} bounds {list(bounds)}; needs two ascending numbers{'' if name == 'e0' else ' that are not negative'}")
    if not bounds[0] <= start <= bounds[1]:
        raise ValueError(f"got {name} bounds {bounds[0]:g} to {bounds[1]:g}, which exclude its start {start:g}; widen them or move the start")
    if not deviation > 0:
        raise ValueError(f"got {name} deviation {deviation}; needs a positive number; give a plain number to fix it")
    return float(start), float(deviation), float(bounds[0]), float(bounds[1])


def nuisance(
    x, *, scale=1.0, qdamp=None, displacement=None, mean_square=None, e0=None, moves=None, kweight=0.0, background=None, size: float = 1.0, seen=None
) -> Nuisance:
    """Nuisance terms of a target.

    Args:
      x: [m] of the data.
      scale: number (fixed), "infer", or {start, deviation, bounds}.
      qdamp: the same, 1/A, of a function of r; None for none.
      displacement: the same, B in A^2, of a function of Q; None for none.
      mean_square: the same, sigma^2 in A^2, of chi(k); None for none.
      e0: the same, eV, about the start that the observable has; None for none.
      moves: [m] dx/dE0 of that shift.
      kweight: w of k^w chi(k), which the shift does not change.
      background: None; the order of a polynomial (0 a constant); or {order, deviation}.
      size: of the data, sets the default deviation of the background, which is as large.
      seen: function [m] -> [m] that shows what the observable's window makes of a background; by default nothing.

    Raises:
      ValueError: see `term`; an order outside 0 to 6.
    """
    x = np.asarray(x, dtype=float)
    names, rows = [], []
    if isinstance(scale, bool) or scale != 1.0:
        names, rows = ["scale"], [term("scale", scale)]
    for name, value in (("e0", e0), ("qdamp", qdamp), ("displacement", displacement), ("mean_square", mean_square)):
        if value is not None:
            names.append(name)
            rows.append(term(name, value))
    basis = np.zeros((len(x), 0))
    if background is not None:
        options = background if isinstance(background, Mapping) else {"order": background}
        order, deviation = options.get("order", 0), options.get("deviation", size)
        strange = sorted(set(options) - {"order", "deviation"})
        if strange or isinstance(order, bool) or order != int(order) or not 0 <= order <= 6 or not deviation > 0:
            raise ValueError(f"got background = {background!r}; needs an order from 0 (a constant) to 6, or a table with order and deviation")
        t = 2 * (x - x[0]) / (x[-1] - x[0]) - 1
        basis = np.polynomial.legendre.legvander(t, int(order))
        if seen is not None:
            basis = np.stack([seen(column) for column in basis.T], axis=1)
        names += [f"background_{k}" for k in range(int(order) + 1)]
        rows += [(0.0, float(deviation), -math.inf, math.inf)] * (int(order) + 1)
    table = np.array(rows).reshape(-1, 4).T
    kind = jnp.result_type(float)
    arrays = dict(zip(("start", "deviation", "low", "high"), (jnp.asarray(row, kind) for row in table), strict=True))
    moved = np.zeros(len(x)) if moves is None else moves
    return Nuisance(**arrays, basis=jnp.asarray(basis, kind), moves=jnp.asarray(moved, kind), names=tuple(names), kweight=float(kweight))


def density(start: float, options=True) -> Density:
    """An inferred number density: ``start`` (atoms/A^3) and True, or {deviation (of its logarithm), bounds (atoms/A^3)}.

    Raises:
      ValueError: see `term`; bounds that exclude the start.
    """
    table = {} if options is True or options == "infer" else options
    if not isinstance(table, Mapping):
        raise ValueError(f"got infer_density = {options!r}; needs true, or a table with deviation and bounds")
    _, _, (low, high) = DEFAULTS["density"]
    mean, deviation, low, high = term("density", {"start": start, "bounds": (low * start, high * start)} | dict(table))
    kind = jnp.result_type(float)
    return Density(**{k: jnp.asarray(v, kind) for k, v in dict(start=mean, deviation=deviation, low=low, high=high).items()})
