"""Pair observables: linear maps of the partial pair histograms. Definitions and normalisation: PHYSICS.md section 2, Keen (2001).

Every one is   y(x_k) = level + background_k rho0 + rho0^power / N  sum_ab sum_m rows[ab, k, m] H_ab[m],
with H from `histogram.pair_histogram`, N atoms and number density rho0 = N / V.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from glassjax._pytree import frozen, replace, static
from glassjax.elements import atomic_number, neutron_length, xray_form_factor
from glassjax.neighbors import NeighborSpec, neighbor_spec
from glassjax.observables import histogram
from glassjax.structure import Structure, number_density, number_of_atoms

TAIL = 5.0  # a Gaussian is followed to this many widths beyond the last point


@frozen
class PairObservable:
    """A curve of one structure: ``observable(structure) -> [m]``.

    Attributes:
      x: [m] r in A or Q in 1/A.
      rows: [e * e, m, points] spline coefficients of the pair function per ordered pair of species.
      level: [m] what the curve is without pairs and without density.
      background: [m] factor of the number density.
      power: exponent of the number density in front of the pair sum (static).
      function: "g", "G" or "S" (static).
      weights: weighting scheme (static).
      elements: species order (static).
      rmax: A, the farthest pair that counts (static).
      convention: one line for the record: formula and tables (static).
      spec: neighbour list out to ``rmax``, see `PairObservable.fit` (static).
    """

    x: jax.Array
    rows: jax.Array
    level: jax.Array
    background: jax.Array
    power: int = static()
    function: str = static()
    weights: str = static()
    elements: tuple[str, ...] = static()
    rmax: float = static()
    convention: str = static(default="")
    spec: NeighborSpec | None = static(default=None)

    @property
    def points(self) -> int:
        """Nodes of the radial grid."""
        return self.rows.shape[-1]

    def fit(self, structure: Structure, **options) -> PairObservable:
        """The same observable with a neighbour list for structures like this one (options: `neighbor_spec`)."""
        return replace(self, spec=neighbor_spec(structure, self.rmax, **options))

    def __call__(self, structure: Structure) -> jax.Array:
        """The curve [m] of one structure; NaN if the neighbour list overflowed."""
        spec = neighbor_spec(structure, self.rmax) if self.spec is None else self.spec
        counts, _ = histogram.pair_histogram(structure, spec, self.points)
        return self.from_histogram(structure, counts)

    def from_histogram(self, structure: Structure, counts: jax.Array) -> jax.Array:
        """The curve [m] from H [e * e, points] of the same or a longer grid.

        Raises:
          ValueError: the structure's elements are others, or in another order (the rows would go to the wrong pairs).
        """
        if structure.elements != self.elements:
            raise ValueError(
                f"the structure has elements {', '.join(structure.elements)}; the observable needs {', '.join(self.elements)}, in this order"
            )
        density, atoms = number_density(structure), number_of_atoms(structure)
        pairs = jnp.einsum("pkm,pm->k", self.rows, counts[:, : self.points])
        return self.level + self.background * density + density**self.power / atoms * pairs


def fractions_of(composition) -> dict[str, float]:
    """Concentrations from a sequence of symbols or a mapping element -> amount; sums to 1."""
    if isinstance(composition, Mapping):
        total = float(sum(composition.values()))
        return {e: float(v) / total for e, v in composition.items()}
    symbols = list(composition)
    return {e: symbols.count(e) / len(symbols) for e in dict.fromkeys(symbols)}


def _grid_points(rmax: float) -> int:
    return math.ceil(rmax / histogram.STEP) + 4


def scattering_amplitudes(elements, weights: str, q: np.ndarray | None = None) -> np.ndarray:
    """Amplitude of each element: [e], or [e, m] at Q for "xray".

    ``number`` 1; ``neutron`` bound coherent length, fm (Sears 1992); ``Z`` atomic number; ``xray`` f(Q) (Waasmaier-Kirfel), which needs ``q``.
    """
    if weights == "number":
        return np.ones(len(elements))
    if weights == "neutron":
        return np.array([neutron_length(e) for e in elements])
    if weights == "Z":
        return np.array([float(atomic_number(e)) for e in elements])
    if weights == "xray":
        if q is None:
            raise ValueError(
                "X-ray weights depend on Q and do not define a real-space function; pass weights='Z' for the approximation, or guide on S(Q)"
            )
        return np.stack([xray_form_factor(e, q) for e in elements])
    raise ValueError(f"weights are {weights!r}; needs 'number', 'neutron', 'xray' or 'Z'")


def faber_ziman_weights(fractions: Mapping[str, float], weights: str, q: np.ndarray | None = None, partial=None) -> np.ndarray:
    """w_ab = c_a c_b b_a b_b / <b>^2 [e, e] (or [e, e, m] for X-rays), or the selector of one ``partial`` pair.

    Raises:
      ValueError: the mean amplitude vanishes (a null-scattering mixture), or the partial's elements are not in the composition.
    """
    elements = list(fractions)
    c = np.array(list(fractions.values()))
    if partial is not None:
        a, b = partial
        if a not in elements or b not in elements:
            raise ValueError(f"partial {a}-{b} names an element that is not in {', '.join(elements)}")
        selector = np.zeros((len(elements),) * 2)
        selector[elements.index(a), elements.index(b)] += 0.5
        selector[elements.index(b), elements.index(a)] += 0.5
        return selector
    b = scattering_amplitudes(elements, weights, q)
    cb = c[:, None] * b if b.ndim == 2 else c * b
    mean = cb.sum(axis=0)
    if np.any(np.abs(mean) < 1e-6 * np.abs(cb).sum(axis=0)):
        raise ValueError("the mean scattering amplitude vanishes, so the normalised total is undefined; use partials")
    return np.einsum("a...,b...->ab...", cb, cb) / mean**2


def pair_distribution(r, composition, *, function: str = "g", weights: str = "number", width: float = 0.15, partial=None) -> PairObservable:
    """Total or partial pair distribution function.

    g_ab(r) = V / (4 pi r^2 N_a N_b) sum over ordered pairs of N(r; d, width) -> 1; total g = 1 + sum_ab w_ab (g_ab - 1) with Faber-Ziman weights;
    G(r) = 4 pi rho0 r (g - 1), with slope -4 pi rho0 at r -> 0. An ideal gas gives g = 1 + (width / r)^2 (1 - 1/N for like pairs).

    Args:
      r: [m] ascending, A, positive.
      composition: symbols per atom, or a mapping element -> amount.
      function: "g" or "G".
      weights: "number", "neutron" or "Z".
      width: standard deviation of the Gaussian broadening, A. 3.79/Qmax is the FWHM that a plain transform resolves.
      partial: a pair of elements, for one g_ab instead of the total.

    Raises:
      ValueError: unknown function or weights, r not ascending and positive, width below the grid's resolution (0.03 A).
    """
    r = np.asarray(r, dtype=float)
    if function not in ("g", "G"):
        raise ValueError(f"function is {function!r}; pair_distribution makes 'g' or 'G'")
    if r.ndim != 1 or len(r) < 2 or not (np.diff(r) > 0).all() or r[0] < 0:
        raise ValueError("r must be one-dimensional, ascending and not negative, in angstrom")
    if width < 0.03:
        raise ValueError(f"width is {width} A; needs at least 0.03 A (the radial grid is {histogram.STEP} A)")
    r = np.maximum(r, 1e-3)
    fractions = fractions_of(composition)
    selector = faber_ziman_weights(fractions, weights, partial=partial)
    c = np.array(list(fractions.values()))
    rmax = float(r[-1] + TAIL * width)
    nodes = histogram.grid(_grid_points(rmax))
    gauss = np.exp(-0.5 * ((r[:, None] - nodes) / width) ** 2) / (math.sqrt(2 * math.pi) * width)
    gauss = histogram.spline_coefficients(gauss) / (4 * math.pi * r[:, None] ** 2)
    scale = selector / np.outer(c, c)
    rows = scale.reshape(-1, 1, 1) * gauss
    level, background, power = np.zeros(len(r)), np.zeros(len(r)), -1
    if function == "G":
        rows, power, background = rows * 4 * math.pi * r[:, None], 0, -4 * math.pi * r
    name = f"{partial[0]}-{partial[1]}" if partial else f"total, {weights} weights"
    formula = {"g": "g(r) -> 1", "G": "G(r) = 4 pi rho0 r (g(r) - 1), 1/A^2"}[function]
    return _observable(r, rows, level, background, power, function, weights, fractions, rmax, f"{formula}; {name}; Gaussian width {width} A")


def window_function(r: np.ndarray, rmax: float, window: str) -> np.ndarray:
    """Real-space window on [0, rmax]: "lorch" sin(pi r/rmax)/(pi r/rmax), "cosine" 1 to 0.7 rmax then a half cosine, or "none" (a step)."""
    inside = (r <= rmax).astype(float)
    if window == "none":
        return inside
    if window == "lorch":
        return np.sinc(r / rmax) * inside
    if window == "cosine":
        ramp = np.clip((r / rmax - 0.7) / 0.3, 0.0, 1.0)
        return 0.5 * (1 + np.cos(math.pi * ramp)) * inside
    raise ValueError(f"window is {window!r}; needs 'lorch', 'cosine' or 'none'")


def structure_factor(q, composition, *, weights: str = "number", rmax: float = 10.0, window: str = "cosine", partial=None) -> PairObservable:
    """Total or partial Faber-Ziman structure factor of pairs within ``rmax``.

    S(Q) = 1 + sum_ab w_ab (A_ab - 1),  A_ab - 1 = (4 pi rho0 / Q) int_0^rmax r (g_ab - 1) W(r) sin(Qr) dr -> 0 at large Q; pairs are not broadened.
    ``weights="xray"`` divides by <f(Q)>^2 at each Q. The window W is part of the observable: apply the same one to data with `windowed_data`.

    Args:
      q: [m] ascending, positive, 1/A.
      composition: symbols per atom, or a mapping element -> amount.
      weights: "number", "neutron", "xray" or "Z".
      rmax: A.
      window: "cosine", "lorch" or "none".
      partial: a pair of elements, for one A_ab.

    Raises:
      ValueError: unknown weights or window; Q not ascending and positive; Q beyond pi / (4 x grid step) = 39 1/A.
    """
    q = np.asarray(q, dtype=float)
    if q.ndim != 1 or len(q) < 2 or not (np.diff(q) > 0).all() or q[0] <= 0:
        raise ValueError("Q must be one-dimensional, ascending and positive, in 1/angstrom")
    limit = math.pi / (4 * histogram.STEP)
    if q[-1] > limit:
        raise ValueError(f"Q reaches {q[-1]:.1f} 1/A; the radial grid of {histogram.STEP} A serves up to {limit:.0f} 1/A: cut the data with qmax")
    fractions = fractions_of(composition)
    c = np.array(list(fractions.values()))
    selector = faber_ziman_weights(fractions, weights, q, partial)
    if selector.ndim == 2:
        selector = np.broadcast_to(selector[..., None], (*selector.shape, len(q)))
    nodes = histogram.grid(_grid_points(rmax))
    kernel = np.sinc(np.outer(q, nodes) / math.pi) * window_function(nodes, rmax, window)
    rows = (selector / np.outer(c, c)[..., None]).reshape(-1, len(q), 1) * histogram.spline_coefficients(kernel)
    fine = np.linspace(0.0, rmax, 4 * len(nodes))
    integrand = fine**2 * np.sinc(np.outer(q, fine) / math.pi) * window_function(fine, rmax, window)
    background = -4 * math.pi * np.trapezoid(integrand, fine, axis=1) * selector.sum(axis=(0, 1))
    name = f"{partial[0]}-{partial[1]}" if partial else f"total, {weights} weights"
    text = f"Faber-Ziman S(Q) -> 1; {name}; real-space window {window} to {rmax} A on model and data"
    return _observable(q, rows, np.ones(len(q)), background, 0, "S", weights, fractions, float(rmax), text)


def windowed_data(q, s, rmax: float, window: str = "cosine", points=None) -> np.ndarray:
    """Measured S(Q) seen through the real-space window of `structure_factor`: to r, times W(r), back to the same Q (or to ``points``).

    Q (S - 1) is transformed with the trapezoid rule on the given points (S is continued to Q = 0 by its first value), so the data keep their own
    Q range; W(r) then removes what the model does not compute.
    """
    q, s = np.asarray(q, dtype=float), np.asarray(s, dtype=float)
    full = np.concatenate([[0.0], q])
    reduced = full * (np.concatenate([[s[0]], s]) - 1.0)
    r = np.linspace(0.0, rmax, max(400, int(4 * rmax * q[-1] / math.pi)))
    g = 2 / math.pi * np.trapezoid(reduced * np.sin(np.outer(r, full)), full, axis=1)
    g = g * window_function(r, rmax, window)
    out = q if points is None else np.asarray(points, dtype=float)
    return 1.0 + np.trapezoid(g * np.sin(np.outer(out, r)), r, axis=1) / out


def _observable(x, rows, level, background, power, function, weights, fractions, rmax, convention) -> PairObservable:
    kind = jnp.result_type(float)
    arrays = [jnp.asarray(a, kind) for a in (x, rows, level, background)]
    return PairObservable(
        x=arrays[0],
        rows=arrays[1],
        level=arrays[2],
        background=arrays[3],
        power=power,
        function=function,
        weights=weights,
        elements=tuple(fractions),
        rmax=rmax,
        convention=convention,
    )


def total_of(partials: Mapping[tuple[str, str], np.ndarray], composition, weights: str = "number", q=None) -> np.ndarray:
    """1 + sum_ab w_ab (y_ab - 1) of partial curves keyed by both orders of each pair (host)."""
    fractions = fractions_of(composition)
    w = faber_ziman_weights(fractions, weights, q)
    elements = list(fractions)
    return 1.0 + sum(w[i, j] * (np.asarray(partials[a, b]) - 1.0) for i, a in enumerate(elements) for j, b in enumerate(elements))


def with_points(observable: PairObservable, points: int) -> PairObservable:
    """The same observable on a longer grid (zero rows beyond its own reach), so that several share one pass."""
    missing = points - observable.points
    if missing < 0:
        raise ValueError(f"the grid has {observable.points} points; cannot shorten it to {points}")
    return dataclasses.replace(observable, rows=jnp.pad(observable.rows, ((0, 0), (0, 0), (0, missing))))
