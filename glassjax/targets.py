"""A target: an observable, the data it should give, how far the data can be trusted, and what the measurement added to them."""

from __future__ import annotations

import math
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from glassjax import nuisance as terms
from glassjax._pytree import frozen, replace, static
from glassjax.artefacts import keep_ranges
from glassjax.observables.angle import angle_distribution
from glassjax.observables.coordination import coordination_distribution
from glassjax.observables.pair import REAL_SPACE, RECIPROCAL
from glassjax.observables.real_space import pair_distribution
from glassjax.observables.reciprocal import QLIMIT
from glassjax.observables.weights import fractions_of, mean_square
from glassjax.structure import Structure
from glassjax.windowing import Window, resolved, thinned

# Default uncertainty of a point of g or S: what two good instruments, or two short simulations of one glass, disagree by.
DEFAULT_UNCERTAINTY = 0.02
FUNCTIONS = (*REAL_SPACE, *RECIPROCAL, "ADF", "coordination distribution")


@frozen
class Target:
    """Measured data and the observable that models them.

    Attributes:
      observable: a `PairObservable`, `AngleDistribution` or `CoordinationDistribution` whose ``x`` are the data's.
      data: [m].
      uncertainty: [m] standard deviation of each point, positive.
      reference: [m] the featureless level that R-factors are taken from: 1 for g and S, <b^2> for I, else 0.
      anchor: [m] what a scale leaves in place: 1 for g and S, else 0.
      nuisance: scale, damping and background, fixed or inferred.
      weight: multiplies 1 / uncertainty^2.
      independent: number of independent points (static).
      name: file-name friendly (static).
    """

    observable: object
    data: jax.Array
    uncertainty: jax.Array
    reference: jax.Array
    anchor: jax.Array
    nuisance: terms.Nuisance
    weight: jax.Array
    independent: float = static(default=0.0)
    name: str = static(default="target")

    def fit(self, structure: Structure, **options) -> Target:
        """The same target with neighbour lists for structures like this one."""
        return replace(self, observable=self.observable.fit(structure, **options))

    def model(self, curve: jax.Array, values: jax.Array | None = None) -> jax.Array:
        """What the measurement would show [m] of the observable's ``curve`` [m], with nuisance ``values`` [p] (by default their start)."""
        return self.nuisance.apply(self.observable.x, curve, self.reference, self.anchor, self.nuisance.start if values is None else values)


def residual(target: Target, structure: Structure, values: jax.Array | None = None) -> jax.Array:
    """data - model [m]."""
    return target.data - target.model(target.observable(structure), values)


def loss(target: Target, structure: Structure, values: jax.Array | None = None) -> jax.Array:
    """Half the weighted sum of squared residuals over uncertainty (minus log likelihood up to a constant)."""
    return 0.5 * target.weight * jnp.sum((residual(target, structure, values) / target.uncertainty) ** 2)


def r_factor(target: Target, model: jax.Array) -> jax.Array:
    """R = sqrt(sum (data - model)^2 / sum (data - reference)^2) (Egami and Billinge, Underneath the Bragg Peaks)."""
    return jnp.sqrt(jnp.sum((target.data - model) ** 2) / jnp.sum((target.data - target.reference) ** 2))


def chi_squared(target: Target, model: jax.Array) -> jax.Array:
    """chi^2 per independent point: the mean of (data - model)^2 / uncertainty^2, because neighbouring points repeat each other."""
    return jnp.mean(((target.data - model) / target.uncertainty) ** 2)


def _real_space(x, y, composition, function, number_density, weights, isotopes, instrument):
    """Observable of a real-space target, its default uncertainty [m] and its independent points."""
    observable = pair_distribution(x, composition, function=function, weights=weights, isotopes=isotopes, **instrument)
    fractions = fractions_of(composition)
    square = 1.0
    if function in ("G_keen", "D", "T"):
        square = float(mean_square(fractions, weights, isotopes=isotopes))
    shape = {"g": 1.0, "G_keen": 1.0, "RDF": 4 * math.pi * number_density * x**2}.get(function, 4 * math.pi * number_density * x)
    qmax = resolved(x, instrument["width"], instrument["qmax"])
    return observable, DEFAULT_UNCERTAINTY * square * shape * np.ones(len(x)), (x[-1] - x[0]) * qmax / math.pi


def _errors(uncertainty, x) -> np.ndarray | None:
    """Uncertainties [m] that are all positive: points without one (0) get the largest of the others, so that they do not count for infinity."""
    if uncertainty is None:
        return None
    uncertainty = np.array(np.broadcast_to(np.asarray(uncertainty, dtype=float), x.shape))
    if not np.isfinite(uncertainty).all() or (uncertainty < 0).any() or not (uncertainty > 0).any():
        raise ValueError("uncertainties must be positive and finite; remove the column, or pass one number, if they are not known")
    uncertainty[uncertainty == 0] = uncertainty.max()
    return uncertainty


def _columns(x, y, weight, function) -> tuple[np.ndarray, np.ndarray]:
    x, y = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    if not np.isfinite(x).all() or not np.isfinite(y).all() or x.shape != y.shape or x.ndim != 1:
        raise ValueError(f"x has shape {x.shape} and y {y.shape}; needs two columns of finite numbers of equal length")
    if function not in FUNCTIONS:
        raise ValueError(f"function is {function!r}; needs one of {', '.join(FUNCTIONS)}")
    if not (math.isfinite(weight) and weight > 0):
        raise ValueError(f"got weight {weight}; needs a positive number; leave the target out instead of giving it none")
    return x, y


def _usable(x, y, uncertainty, function, xmax):
    """Without what carries no information: x = 0 in g and G, S(0), and Q beyond what the radial grid serves where the fitted range ends below it."""
    keep = np.ones(len(x), bool)
    if function in (*REAL_SPACE, *RECIPROCAL):
        keep &= x > 0
    if function in RECIPROCAL and xmax is not None and xmax < QLIMIT < x[-1]:
        keep &= x <= QLIMIT
    return x[keep], y[keep], None if uncertainty is None else uncertainty[keep]


def _check_terms(function, qdamp, displacement) -> bool:
    """Whether qdamp is to be inferred; ``ValueError`` for terms that do not belong to the function."""
    inferred = qdamp is not None and not isinstance(qdamp, int | float)
    if inferred and function not in ("g", "G", "G_keen", "D"):
        raise ValueError(f"got qdamp = {qdamp!r} with {function}; it can be inferred from g, G, G_keen and D only; give a number")
    if function not in RECIPROCAL and not (isinstance(displacement, int | float) and displacement == 0):
        raise ValueError(f"got displacement = {displacement!r} with {function}; it belongs to functions of Q; use width, or leave it out")
    return inferred


def _weights(weights, composition, function, partial) -> str:
    """The weights of pairs: those given, or "number" where they do not matter."""
    mixture = len(fractions_of(composition)) > 1 and partial is None and function in (*REAL_SPACE, *RECIPROCAL)
    if weights is None and (mixture or function in ("G_keen", "D", "T", "F_keen", "I")):
        raise ValueError(f"{function} of {', '.join(fractions_of(composition))} needs weights: 'neutron', 'xray', 'number' or 'Z'; pass one of them")
    return "number" if weights is None else weights


def _window(x, composition, function, partial, weights, isotopes, rmax, window) -> Window | None:
    """The real-space window of a function of Q; None for others."""
    if function not in RECIPROCAL:
        return None
    if partial is None:
        return Window(x, composition, function, weights, isotopes, rmax, window)
    return Window(x, {"X": 1.0}, function, "number", None, rmax, window)


def _on_grid(x, y, uncertainty, seen: Window | None, mask, resolution: tuple | None):
    """Points, values and uncertainties [m] as they are compared: through the window, or no denser than the ``resolution`` (width, qmax) of a function
    of r tells."""
    spared = keep_ranges(x, xmin=None, xmax=None, masked_intervals=mask)
    y = np.interp(x, x[spared], y[spared])  # a spike must not reach the window's transform, or a thinner grid: a line bridges what is masked
    if seen is not None:
        grid, shown = seen.points, seen(y)
    else:
        grid = x if resolution is None else thinned(x, resolved(x, *resolution), 0.5)
        shown = np.interp(grid, x, y)
    return grid, shown, None if uncertainty is None else np.interp(grid, x, uncertainty)


def target(
    x,
    y,
    composition,
    *,
    function: str,
    number_density: float,
    weights: str | None = None,
    uncertainty=None,
    weight: float = 1.0,
    xmin: float | None = None,
    xmax: float | None = None,
    mask=(),
    width: float | None = None,
    rmax: float = 10.0,
    window: str = "cosine",
    qmin: float = 0.0,
    qmax: float | None = None,
    termination: str | None = None,
    qdamp=None,
    qbroad: float = 0.0,
    displacement=0.0,
    scale=1.0,
    background=None,
    partial: tuple[str, str] | None = None,
    isotopes: Mapping | None = None,
    cutoff=None,
    triplet: str | None = None,
    switch: float | None = None,
    name: str | None = None,
) -> Target:
    """Build a target from columns of data.

    Args:
      x: [m] r in A (thinned to pi / (2 Qmax) where more than twice as dense), Q in 1/A, angle in degrees, or coordination number.
      y: [m] values of ``function``.
      composition: symbols per atom, or a mapping element -> amount.
      function: "g", "G", "G_keen", "D", "T", "RDF"; "S", "F_keen", "Q(S-1)", "I"; "ADF" (density per radian); or "coordination distribution".
      number_density: atoms per A^3 (for the default uncertainty).
      weights: "number", "neutron", "xray" or "Z"; by default "number" for one element, else it must be said. Normalised functions of one
        element do not depend on it.
      uncertainty: standard deviation, one number or [m] (0 where unknown); by default 0.02 of g or S, and what that means for the other functions.
      weight: multiplies 1 / uncertainty^2.
      xmin: lower end of the range to fit.
      xmax: upper end of the range to fit.
      mask: intervals [(low, high), ...] of x to leave out (of a function of Q, bridged by a line in the transform through the window).
      width: Gaussian broadening of a real-space function, A, or of an ADF, rad; see `pair_distribution` for its default.
      rmax: farthest pair that a reciprocal function counts, A; data are passed through the same real-space window, and brought to a spacing of
        pi / (2 rmax) where they are denser (a windowed curve holds no finer detail; uncertainties are interpolated, not reduced).
      window: that window.
      qmin: 1/A, of the measurement behind a real-space function.
      qmax: 1/A, of the measurement behind a real-space function.
      termination: see `pair_distribution`.
      qdamp: 1/A: a number (fixed), or for real space "infer" or {start, deviation, bounds}.
      qbroad: 1/A.
      displacement: B of a function of Q, A^2: a number (fixed), "infer", or {start, deviation, bounds}: the thermal motion that one
        static structure lacks.
      scale: a number (fixed), "infer", or {start, deviation, bounds}.
      background: order of a polynomial, or {order, deviation}; inferred.
      partial: a pair of elements when the data are one partial; the pair of a coordination distribution.
      isotopes: {element: isotope or mixture}.
      cutoff: bond cutoff of angles or coordination, A, a number or a mapping of pairs.
      switch: A, over which a bond fades at its cutoff, see `angle_distribution`; by default 0 for angles, 0.3 for coordination.
      triplet: "O-Si-O", centre in the middle; None for all angles.
      name: of the target in files.

    Raises:
      ValueError: unknown function, weights missing for a mixture, an empty range, or numbers that cannot be.
    """
    x, y = _columns(x, y, weight, function)
    weights = _weights(weights, composition, function, partial)
    x, y, uncertainty = _usable(x, y, _errors(uncertainty, x), function, xmax)
    inferred_damping = _check_terms(function, qdamp, displacement)
    thermal = isinstance(displacement, int | float)
    fixed_damping = 0.0 if qdamp is None or inferred_damping else float(qdamp)
    seen = _window(x, composition, function, partial, weights, isotopes, rmax, window)
    grid, y, uncertainty = _on_grid(x, y, uncertainty, seen, mask, (width, qmax) if function in REAL_SPACE else None)
    keep = keep_ranges(grid, xmin=xmin, xmax=xmax, masked_intervals=mask)
    at, y, uncertainty = grid[keep], y[keep], None if uncertainty is None else uncertainty[keep]
    if function in REAL_SPACE:
        instrument = dict(width=width, partial=partial, qmin=qmin, qmax=qmax, termination=termination, qdamp=fixed_damping, qbroad=qbroad)
        observable, default, independent = _real_space(at, y, composition, function, number_density, weights, isotopes, instrument)
    elif function in RECIPROCAL:
        options = dict(
            function=function, weights=weights, partial=partial, isotopes=isotopes, displacement=displacement if thermal else 0.0, qdamp=fixed_damping
        )
        observable = seen.observable(keep, composition, **options)
        default, independent = DEFAULT_UNCERTAINTY * np.abs(seen.factor[keep]), (at[-1] - at[0]) * rmax / math.pi
    else:
        observable, default, independent = _local(at, y, composition, function, cutoff, switch, triplet, partial, width)
    anchor = np.ones(len(at)) if function in ("g", "S") else np.zeros(len(at))
    reference = seen.level[keep] if function == "I" else anchor
    spread = float(np.abs(y - reference).max())

    def background_seen(column):
        return (seen.matrix @ np.interp(x, at, column))[keep]

    shown = terms.nuisance(
        at,
        scale=scale,
        qdamp=qdamp if inferred_damping else None,
        displacement=None if thermal else displacement,
        background=background,
        size=spread,
        seen=None if seen is None else background_seen,
    )
    kind = jnp.result_type(float)
    arrays = dict(data=y, uncertainty=default if uncertainty is None else uncertainty, reference=reference, anchor=anchor, weight=weight)
    arrays = {key: jnp.asarray(value, kind) for key, value in arrays.items()}
    label = function if name is None else name
    return Target(observable=observable, nuisance=shown, independent=float(min(independent, len(at))), name=label, **arrays)


def _local(x, y, composition, function, cutoff, switch, triplet, partial, width):
    """Observable of an angular or coordination target, default uncertainty, independent points."""
    if cutoff is None:
        raise ValueError(f"got {function} without a bond cutoff; needs one in angstrom, or one per pair of elements; pass cutoff")
    if function == "ADF":
        spread = 0.1 if width is None else width
        observable = angle_distribution(x, composition, triplet=triplet, cutoff=cutoff, width=spread, switch=0.0 if switch is None else switch)
        return observable, DEFAULT_UNCERTAINTY * max(1.0, float(np.abs(y).max())) * np.ones(len(x)), np.radians(x[-1] - x[0]) / (2 * spread)
    if partial is None:
        raise ValueError("got a coordination distribution without its pair; needs one; pass partial=('Si', 'O')")
    if isinstance(cutoff, Mapping):
        found = [cutoff[p] for p in (tuple(partial), tuple(partial)[::-1]) if p in cutoff]
        if not found:
            raise ValueError(f"got cutoffs of {', '.join('-'.join(p) for p in cutoff)}; needs one of {'-'.join(partial)}; add it")
        cutoff = found[0]
    observable = coordination_distribution(partial, x, composition, cutoff=cutoff, switch=0.3 if switch is None else switch)
    return observable, DEFAULT_UNCERTAINTY * np.ones(len(x)), float(len(x))
