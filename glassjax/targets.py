"""A target: an observable, the data it should give, and how far the data can be trusted."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np

from glassjax._pytree import frozen, replace, static
from glassjax.observables import pair
from glassjax.structure import Structure

# Default uncertainty of a point: what two good instruments, or two short simulations of one glass, disagree by.
DEFAULT_UNCERTAINTY = {"g": 0.02, "S": 0.02}


@frozen
class Target:
    """Measured data and the observable that models them.

    Attributes:
      observable: a `PairObservable` whose ``x`` are the data's.
      data: [m].
      uncertainty: [m] standard deviation of each point, positive.
      reference: [m] the featureless level that R-factors are taken from: 1 for g and S, 0 for G.
      name: file-name friendly (static).
    """

    observable: pair.PairObservable
    data: jax.Array
    uncertainty: jax.Array
    reference: jax.Array
    name: str = static(default="target")

    def fit(self, structure: Structure, **options) -> Target:
        """The same target with neighbour lists for structures like this one."""
        return replace(self, observable=self.observable.fit(structure, **options))


def residual(target: Target, structure: Structure) -> jax.Array:
    """data - model [m]."""
    return target.data - target.observable(structure)


def loss(target: Target, structure: Structure) -> jax.Array:
    """Half the sum of squared residuals over uncertainty (minus log likelihood up to a constant)."""
    return 0.5 * jnp.sum((residual(target, structure) / target.uncertainty) ** 2)


def r_factor(target: Target, model: jax.Array) -> jax.Array:
    """R = sqrt(sum (data - model)^2 / sum (data - level)^2), level 1 for g and S, 0 for G (Egami and Billinge, Underneath the Bragg Peaks)."""
    return jnp.sqrt(jnp.sum((target.data - model) ** 2) / jnp.sum((target.data - target.reference) ** 2))


def independent_points(target: Target, qmax: float | None = None) -> float:
    """N_ind = range x conjugate range / pi: (rmax - rmin) Qmax / pi; for g and G, Qmax is pi over the point spacing when not given."""
    x = np.asarray(target.observable.x)
    if target.observable.function == "S":
        return float((x[-1] - x[0]) * target.observable.rmax / math.pi)
    if qmax is None:
        qmax = math.pi / float(np.min(np.diff(x)))
    return float((x[-1] - x[0]) * qmax / math.pi)


def _window(x, y, uncertainty, low, high):
    keep = np.ones(len(x), bool)
    if low is not None:
        keep &= x >= low - 1e-9
    if high is not None:
        keep &= x <= high + 1e-9
    if keep.sum() < 5:
        raise ValueError(
            f"the range {low} to {high} keeps {keep.sum()} of {len(x)} points (data run from {x[0]:.3f} to {x[-1]:.3f}); needs at least 5"
        )
    return x[keep], y[keep], None if uncertainty is None else uncertainty[keep]


def _thinned(q: np.ndarray, rmax: float) -> np.ndarray:
    """The data's own Q, or an even grid of spacing pi / (2 rmax) where they are denser: a curve windowed at rmax holds no finer detail."""
    spacing = math.pi / (2 * rmax)
    if np.median(np.diff(q)) >= 0.8 * spacing:
        return q
    return np.linspace(q[0], q[-1], math.ceil((q[-1] - q[0]) / spacing) + 1)


def target(
    x,
    y,
    composition,
    *,
    function: str,
    number_density: float,
    weights: str | None = None,
    uncertainty=None,
    xmin: float | None = None,
    xmax: float | None = None,
    width: float = 0.15,
    rmax: float = 10.0,
    window: str = "cosine",
    partial: tuple[str, str] | None = None,
    name: str | None = None,
) -> Target:
    """Build a target from columns of data.

    Args:
      x: [m] r in A, or Q in 1/A.
      y: [m] g(r), G(r) in 1/A^2, or S(Q).
      composition: symbols per atom, or a mapping element -> amount.
      function: "g", "G" or "S".
      number_density: atoms per A^3.
      weights: "number", "neutron", "xray" (S only) or "Z"; by default "number" for one element, else it must be said. For one element all agree.
      uncertainty: standard deviation, one number or [m]; by default 0.02 of g or S, and 0.02 x 4 pi rho0 r of G.
      xmin: lower end of the range to fit.
      xmax: upper end of the range to fit.
      width: Gaussian broadening of g and G, A.
      rmax: farthest pair that S(Q) counts, A; data are passed through the same real-space window, and brought to a spacing of pi / (2 rmax)
        where they are denser (a windowed curve holds no finer detail; uncertainties are interpolated, not reduced).
      window: that window.
      partial: a pair of elements when the data are one partial.
      name: of the target in files.

    Raises:
      ValueError: unknown function, weights missing for a mixture, an empty range, or uncertainties that are not positive.
    """
    x, y = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    if not np.isfinite(x).all() or not np.isfinite(y).all() or x.shape != y.shape or x.ndim != 1:
        raise ValueError(f"x has shape {x.shape} and y {y.shape}; needs two columns of finite numbers of equal length")
    if uncertainty is not None:
        uncertainty = np.broadcast_to(np.asarray(uncertainty, dtype=float), x.shape)
        if not (np.isfinite(uncertainty).all() and (uncertainty > 0).all()):
            raise ValueError("uncertainties must be positive and finite; remove the column, or pass one number, if they are not known")
    if weights is None:
        if len(pair.fractions_of(composition)) > 1 and partial is None:
            raise ValueError(f"a mixture of {', '.join(pair.fractions_of(composition))} needs weights: 'neutron', 'xray', 'number' or 'Z'")
        weights = "number"
    positive = x > 0  # x = 0 carries no information in g and G, and S(0) is no diffraction
    x, y = x[positive], y[positive]
    uncertainty = None if uncertainty is None else uncertainty[positive]
    if function in ("g", "G"):
        x, y, uncertainty = _window(x, y, uncertainty, xmin, xmax)
        observable = pair.pair_distribution(x, composition, function=function, weights=weights, width=width, partial=partial)
        if uncertainty is None:
            scale = 1.0 if function == "g" else 4 * math.pi * number_density * x
            uncertainty = DEFAULT_UNCERTAINTY["g"] * scale * np.ones(len(x))
    elif function == "S":
        points = _thinned(x, rmax)
        y = pair.windowed_data(x, y, rmax, window, points=points)
        uncertainty = None if uncertainty is None else np.interp(points, x, uncertainty)
        x, y, uncertainty = _window(points, y, uncertainty, xmin, xmax)
        observable = pair.structure_factor(x, composition, weights=weights, rmax=rmax, window=window, partial=partial)
        if uncertainty is None:
            uncertainty = np.full(len(x), DEFAULT_UNCERTAINTY["S"])
    else:
        raise ValueError(f"function is {function!r}; needs 'g', 'G' or 'S'")
    kind = jnp.result_type(float)
    level = np.zeros(len(x)) if function == "G" else np.ones(len(x))
    arrays = [jnp.asarray(a, kind) for a in (y, uncertainty, level)]
    label = function if name is None else name
    return Target(observable=observable, data=arrays[0], uncertainty=arrays[1], reference=arrays[2], name=label)
