"""Targets of X-ray absorption: k^w chi(k), its Fourier transform chi(R), and mu(E) through a learned surrogate."""

from __future__ import annotations

import json
import math

import jax.numpy as jnp
import numpy as np

from glassjax import nuisance as terms
from glassjax._pytree import replace
from glassjax.absorption import fourier_operator
from glassjax.artefacts import keep_ranges
from glassjax.observables.exafs import exafs, parse_edge
from glassjax.observables.multiple_scattering import multiple_scattering
from glassjax.observables.weights import fractions_of
from glassjax.scattering_tables import HBAR2_OVER_2M, ScatteringTable, align_edge, find_table
from glassjax.surrogates.observable import spectrum
from glassjax.surrogates.surrogate import Surrogate, load_surrogate
from glassjax.targets import Target

ABSORPTION = ("chi(k)", "chi(R)", "mu(E)")
SHARE = 0.02  # default uncertainty, of the largest value: what two careful measurements differ by
STEP = 0.05  # 1/A, to which denser data are brought


def absorption_target(
    x,
    y,
    composition,
    *,
    function: str,
    number_density: float,
    edge: str,
    kmin: float | None = None,
    kmax: float | None = None,
    kweight: float = 2,
    window: str = "hanning",
    dk: float = 1.0,
    rmin: float = 1.0,
    rmax: float | None = None,
    xmin: float | None = None,
    xmax: float | None = None,
    mask=(),
    uncertainty=None,
    weight: float = 1.0,
    s02=1.0,
    e0_shift=0.0,
    mean_square=0.0,
    background=None,
    multiple: bool | float = False,
    taper: float | None = None,
    table=None,
    surrogate=None,
    name: str | None = None,
) -> Target:
    """Build a target from an absorption curve.

    Args:
      x: [m] k in 1/A of the data (0 at their E0), or the energy axis of the surrogate for "mu(E)".
      y: [m] chi(k), not weighted; or normalised mu(E).
      composition: symbols per atom, or a mapping element -> amount.
      function: "chi(k)" (fitted as k^w chi), "chi(R)" (real and imaginary part of the transform over the window), or "mu(E)".
      number_density: atoms/A^3.
      edge: absorber and edge, such as "Si:K".
      kmin: 1/A, first k (or where the window opens); by default 3.
      kmax: 1/A, last k (or where the window closes); by default the data's end, at most 14.
      kweight: w.
      window: of the transform, by larch's names; with dk, 1/A.
      rmin: A, of "chi(R)".
      rmax: A, farthest pair of "chi(k)" (default: the table's reach); end of the fitted range of "chi(R)" (default 4; pairs count 1 A farther).
      xmin: of "mu(E)".
      xmax: of "mu(E)".
      mask: intervals of x to leave out.
      uncertainty: of what is fitted (k^w chi, chi(R) or mu), a number; by default 0.02 of its largest value.
      weight: multiplies 1 / uncertainty^2.
      s02: S0^2 (edge step for "mu(E)"): a number (fixed), "infer", or {start, deviation, bounds}.
      e0_shift: eV, E0 of the model minus E0 of the data: a number, "infer" (its start found by `align_edge`), or {start, deviation, bounds}; for
        "chi(R)" fixed, or found by `align_edge`. Of a surrogate in the unit of its axis.
      mean_square: sigma^2 of chi(k), A^2: the same three forms.
      background: order of an inferred polynomial, or {order, deviation}.
      multiple: add multiple scattering ("chi(k)" only): True, or its longest half path, A.
      taper: A, over which pairs fade before rmax.
      table: scattering table, or its file.
      surrogate: a `Surrogate`, its name or file: for "mu(E)"; for "chi(k)" instead of the tables.
      name: of the target in files.

    Raises:
      ValueError: unknown function, a range beyond the data, an absorber that is not there, no table, terms that cannot be inferred.
    """
    x, y = _columns(x, y, function, weight)
    if function == "mu(E)":
        return _spectrum_target(x, y, composition, edge, surrogate, xmin, xmax, mask, uncertainty, weight, s02, e0_shift, background, name)
    if surrogate is not None:
        if function != "chi(k)" or (e0_shift, mean_square) != (0.0, 0.0) or multiple:
            raise ValueError("got a surrogate with chi(R), multiple or inferred terms of the EXAFS equation; needs chi(k) alone; leave one out")
        low, high = _range(x, 3.0 if kmin is None else kmin, min(14.0, float(x[-1])) if kmax is None else kmax)
        observable, data, grid = _learned(x, y, composition, edge, surrogate, low, high, kweight, mask)
        independent = 2 * (high - low) * (observable.rmax - 1.0) / math.pi
        return _finished(observable, grid, data, independent, uncertainty, weight, background, dict(scale=s02), function if name is None else name)
    elements = tuple(fractions_of(composition))
    absorber, level = parse_edge(edge, elements)
    found = table if isinstance(table, ScatteringTable) else find_table(elements, absorber, level, table)
    reach = found.reach if rmax is None or function == "chi(R)" else rmax
    if number_density * 4 / 3 * math.pi * reach**3 < 1:
        raise ValueError(
            f"got a density of {number_density:g} atoms/A^3 and pairs to {reach:g} A; an absorber has no neighbour inside that cutoff; raise rmax, "
            "or check the density"
        )
    low, high = _range(x, 3.0 if kmin is None else kmin, min(14.0, float(x[-1])) if kmax is None else kmax)
    shift, scale, square = _starts(x, y, found, low, high, kweight, e0_shift, s02, mean_square)
    common = dict(edge=edge, number_density=number_density, table=found, e0_shift=shift)
    if taper is not None:
        common["taper"] = taper
    given = dict(e0_shift=e0_shift, mean_square=mean_square)
    if function == "chi(R)":
        for label, value in given.items():
            if not isinstance(value, int | float) and value != "infer":
                raise ValueError(f"got {label} = {value!r} with chi(R); needs a number, or 'infer' to find it in chi(k) before; or fit chi(k)")
        if multiple or mask:
            raise ValueError("got multiple or mask with chi(R); needs chi(k) for either; leave them out, or fit chi(k)")
        options = dict(kmin=low, kmax=high, kweight=kweight, dk=dk, window=window)
        r = _transform_range(rmin, 4.0 if rmax is None else rmax, high)
        observable, data, grid, independent = _of_distance(x, y, composition, r, options, square, given, common)
        free = dict(scale=scale)
    else:
        data, grid = _weighted(x, y, low, high, kweight, mask)
        kind = multiple_scattering if multiple else exafs
        if multiple and multiple is not True:
            common["reach"] = float(multiple)
        observable = kind(grid, composition, kweight=kweight, rmax=rmax, **common)
        independent = 2 * (high - low) * (observable.rmax - 1.0) / math.pi
        free = dict(scale=scale, moves=-1.0 / (2 * HBAR2_OVER_2M * grid), kweight=kweight) | _inferred(shift, square, **given)
    return _finished(observable, grid, data, independent, uncertainty, weight, background, free, function if name is None else name)


def _columns(x, y, function, weight):
    x, y = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    if function not in ABSORPTION:
        raise ValueError(f"function is {function!r}; needs one of {', '.join(ABSORPTION)}")
    if x.ndim != 1 or x.shape != y.shape or len(x) < 8 or not (np.diff(x) > 0).all() or not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise ValueError(f"got columns of shape {x.shape} and {y.shape}; needs at least 8 finite points each, ascending in the first")
    if not (math.isfinite(weight) and weight > 0):
        raise ValueError(f"got weight {weight}; needs a positive number; leave the target out instead of giving it none")
    return x, y


def _range(k, low, high) -> tuple[float, float]:
    if not low < high or low < k[0] - 1e-6 or high > k[-1] + 1e-6:
        raise ValueError(f"got kmin {low:g} and kmax {high:g} 1/A; the data run from {k[0]:g} to {k[-1]:g}; needs a range inside; pass kmin and kmax")
    return float(low), float(high)


def _starts(k, chi, table, low, high, kweight, e0_shift, s02, mean_square):
    """Energy shift that the observable is built with, and the starts of S0^2 and sigma^2."""
    if isinstance(e0_shift, str) and e0_shift != "infer":
        raise ValueError(f"got e0_shift = {e0_shift!r}; needs a number, 'infer', or a table with start, deviation and bounds")
    shift = None if e0_shift == "infer" else float(e0_shift.get("start", 0.0)) if isinstance(e0_shift, dict) else float(e0_shift)
    found = (0.0 if shift is None else shift, 1.0, 0.003)
    if "infer" in (e0_shift, s02, mean_square):
        found = align_edge(k, chi, table, kmin=low, kmax=high, kweight=kweight, shift=shift)
    # S0^2 lies between 0.7 and 1.05 in all but a few materials; a fit to the table's own structures may be off by their order
    scale = dict(start=0.9, deviation=0.1, bounds=(0.25, 2.0)) if s02 == "infer" else s02
    return found[0], scale, max(found[2], 1e-3)


def _about(value, start, reach: float = 0.0):
    """A nuisance term with the start that alignment found, where none was given, and bounds ``reach`` to either side of it."""
    table = {} if value == "infer" else value
    if not isinstance(table, dict):
        return table
    low, high = table.get("bounds", (start - reach, start + reach) if reach else (-math.inf, math.inf))
    return dict(start=min(max(start, low), high)) | (dict(bounds=(low, high)) if reach else {}) | table


def _weighted(k, chi, low, high, kweight, mask):
    """k^w chi [m] and its k, inside the range, no denser than `STEP`."""
    grid = k
    if np.median(np.diff(k)) < 0.9 * STEP:
        from scipy.interpolate import CubicSpline

        grid = np.arange(math.ceil(low / STEP - 1e-6), math.floor(high / STEP + 1e-6) + 1) * STEP
        chi = CubicSpline(k, chi)(grid)
    keep = keep_ranges(grid, xmin=low, xmax=high, masked_intervals=mask) & (grid > 0)
    return (chi * grid**kweight)[keep], grid[keep]


def _inferred(shift, square, *, e0_shift, mean_square) -> dict:
    """The nuisance terms of E0 and sigma^2 of chi(k), with the starts that alignment found; None for what is fixed."""
    e0 = _about(e0_shift, shift, 3.0) if isinstance(e0_shift, dict) or e0_shift == "infer" else None
    return dict(e0=e0, mean_square=None if isinstance(mean_square, int | float) and mean_square == 0 else _about(mean_square, square))


def _of_distance(k, chi, composition, r, options, square, given, common):
    """Observable, data, R and independent points of chi(R), by the transform with ``options``."""
    reach = min(common["table"].reach, float(r[-1]) + 1.0)
    fixed = square if given["mean_square"] == "infer" else given["mean_square"]
    transform = options | dict(first=float(k[0]), last=float(k[-1]))
    observable = exafs(r, composition, rmax=reach, transform=transform, mean_square=fixed, **common)
    independent = 2 * (options["kmax"] - options["kmin"]) * (r[-1] - r[0]) / math.pi
    return observable, _transformed(k, chi, r, options), np.concatenate([r, r]), independent


def _transform_range(low, high, kmax):
    """R [m] of a transform, A, spaced by half of pi / (2 kmax)."""
    if not 0 < low < high:
        raise ValueError(f"got rmin {low:g} and rmax {high:g} A for chi(R); needs 0 < rmin < rmax; correct them")
    return np.linspace(low, high, math.ceil((high - low) * 4 * kmax / math.pi) + 1)


def _transformed(k, chi, r, options):
    """Re and Im [2m] of chi(R) of the data, through the operator that the model passes."""
    seen = fourier_operator(k, r, **options) @ chi
    return np.concatenate([seen.real, seen.imag])


def _spectrum_target(x, y, composition, edge, surrogate, xmin, xmax, mask, uncertainty, weight, scale, e0_shift, background, name):
    """The target of mu(E)."""
    if surrogate is None:
        raise ValueError("got mu(E) without a surrogate; needs a trained network that predicts it; pass surrogate (name or file), or guide on chi(k)")
    model, elements = _surrogate(surrogate, composition, edge, "xanes")
    keep = keep_ranges(x, xmin=xmin, xmax=xmax, masked_intervals=mask)
    grid, data = x[keep], y[keep]
    axis = np.asarray(model.x, dtype=float)
    if not len(grid) or grid[0] < axis[0] - 1e-6 or grid[-1] > axis[-1] + 1e-6:
        raise ValueError(
            f"got mu(E) from {x[0]:g} to {x[-1]:g}; the surrogate gives {axis[0]:g} to {axis[-1]:g}; needs a range inside it; pass xmin and xmax"
        )
    start = float(e0_shift.get("start", 0.0)) if isinstance(e0_shift, dict) else float(e0_shift) if isinstance(e0_shift, int | float) else 0.0
    observable = replace(spectrum(model, x=np.clip(grid - start, axis[0], axis[-1]), elements=elements), x=jnp.asarray(grid, jnp.result_type(float)))
    free = dict(scale=scale, e0=None if isinstance(e0_shift, int | float) and e0_shift == 0 else e0_shift, moves=-np.ones(len(grid)))
    return _finished(observable, grid, data, float(len(grid)) / 4, uncertainty, weight, background, free, "mu(E)" if name is None else name)


def _surrogate(surrogate, composition, edge, kind):
    """The surrogate and the elements of the structures, checked against the edge and kind that are asked for."""
    model = surrogate if isinstance(surrogate, Surrogate) else load_surrogate(surrogate)
    elements = tuple(fractions_of(composition))
    absorber, level = parse_edge(edge, elements)
    if (model.absorber, model.edge, model.kind) != (absorber, level, kind):
        raise ValueError(
            f"got edge {edge}, {kind}, with a surrogate of {model.absorber}:{model.edge}, {model.kind}; needs the same; choose another surrogate"
        )
    return model, elements


def _learned(x, y, composition, edge, surrogate, low, high, kweight, mask):
    """Observable, data and k of k^w chi(k) by a surrogate (trained on k^v chi, v in its card)."""
    model, elements = _surrogate(surrogate, composition, edge, "exafs")
    data, grid = _weighted(x, y, low, high, kweight, mask)
    observable = spectrum(model, x=grid, elements=elements)
    weight = jnp.asarray(grid ** (kweight - json.loads(model.card).get("kweight", 0)), observable.rows.dtype)
    return replace(observable, rows=observable.rows * weight[:, None]), data, grid


def _finished(observable, grid, data, independent, uncertainty, weight, background, free, name) -> Target:
    size = float(np.abs(data).max())
    if not size > 0:
        raise ValueError("got data that are zero throughout; needs a curve; check the column and the range")
    error = SHARE * size if uncertainty is None else np.asarray(uncertainty, dtype=float)
    if error.ndim if isinstance(error, np.ndarray) else 0:
        raise ValueError(
            "got a column of uncertainties of an absorption target; needs one number, of what is fitted (k^w chi, chi(R) or mu); pass it"
        )
    if not error > 0:
        raise ValueError(f"got uncertainty {error}; needs a positive number")
    kind = jnp.result_type(float)
    zero = jnp.zeros(len(data), kind)
    moves = free.pop("moves", None)
    shown = terms.nuisance(grid, background=background, size=size, moves=moves, **{n: v for n, v in free.items() if v is not None})
    return Target(
        observable=observable,
        data=jnp.asarray(data, kind),
        uncertainty=jnp.full(len(data), float(error), kind),
        reference=zero,
        anchor=zero,
        nuisance=shown,
        weight=jnp.asarray(weight, kind),
        independent=float(min(independent, len(data))),
        name=name,
    )
