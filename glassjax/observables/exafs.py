"""EXAFS of a structure: the EXAFS equation over explicit pairs, as a linear map of the pair histograms, with amplitudes and phases fitted to FEFF.

chi(k) = S0^2 / N_a sum over absorbers i, sum_j |F_b(k, r_ij)| / (k r_ij^2) exp(-2 r_ij / lambda(k)) sin(2 k r_ij + arg F_b) exp(-2 k^2 sigma^2)

(Rehr and Albers, Rev. Mod. Phys. 72, 621 (2000)); F and lambda from `scattering_tables`. The average over absorbers is taken before any
transform. A sum over pairs of a function of r is a `PairObservable`, so EXAFS shares the pair pass with g(r), S(Q) and the rest. Multiple scattering
(paths of three and four legs over two atoms) is a sum over triangles instead, in `multiple_scattering`.
"""

from __future__ import annotations

import numpy as np

from glassjax.absorption import fourier_operator
from glassjax.observables import histogram
from glassjax.observables.pair import PairObservable, grid_points, observable
from glassjax.observables.weights import fractions_of
from glassjax.scattering_tables import ScatteringTable, find_table, shifted, wavenumbers_within

TAPER = 0.5  # A, over which pairs fade out before rmax
KSTEP = 0.05  # 1/A, grid of chi(k) below a transform


def parse_edge(edge: str, elements=None) -> tuple[str, str]:
    """("Si", "K") from "Si:K", or "K" where there is one element.

    Raises:
      ValueError: no absorber named among several elements, or another form.
    """
    name, _, level = edge.rpartition(":")
    if not name and elements is not None and len(elements) == 1:
        name = elements[0]
    if not name or not level:
        raise ValueError(f"got edge {edge!r}; needs absorber and edge such as 'Si:K'; name both")
    return name, level


def fade(r, rmax: float, taper: float):
    """1 below rmax - taper, a half cosine to 0 at rmax; a step for taper 0."""
    r = np.asarray(r, dtype=float)
    if not taper:
        return (r < rmax).astype(float)
    return np.where(r < rmax, 0.5 * (1 + np.cos(np.pi * np.clip((r - rmax + taper) / taper, 0.0, 1.0))), 0.0)


def single_rows(k, table: ScatteringTable, elements, fractions, number_density, *, s02, e0_shift, mean_square, rmax, taper, back_reach=0.0):
    """Values [e * e, m, nodes] at the radial nodes of chi(k) per pair, weighted by 1 / c_absorber; nonzero for pairs that start at the absorber."""
    nodes = histogram.grid(grid_points(rmax))
    r = np.maximum(nodes, histogram.STEP)
    at = shifted(k, e0_shift)
    damping = s02 * np.exp(-2.0 * at**2 * mean_square)[:, None] / at[:, None]
    rows = np.zeros((len(elements), len(elements), len(k), len(nodes)))
    a = elements.index(table.absorber)
    for b, element in enumerate(elements):
        floor = np.maximum(r, table.shortest[element])  # closer pairs than any seen count with the amplitude of the closest
        f = table.amplitude(at, r, element, number_density)
        curve = np.imag(f * np.exp(2j * at[:, None] * r[None])) / floor**2 * fade(nodes, rmax, taper)
        if back_reach and element in table.back:
            g = table.back_amplitude(at, r, element)
            curve = curve + np.imag(g * np.exp(4j * at[:, None] * r[None])) / (2 * floor) ** 2 * fade(2 * nodes, back_reach, taper)
        rows[a, b] = damping * curve / fractions[table.absorber]
    return rows.reshape(-1, len(k), len(nodes))


def exafs(
    k,
    composition,
    *,
    edge: str,
    number_density: float,
    kweight: float = 0,
    s02: float = 1.0,
    e0_shift: float = 0.0,
    mean_square: float = 0.0,
    rmax: float | None = None,
    taper: float = TAPER,
    table: str | ScatteringTable | None = None,
    transform: dict | None = None,
    back_reach: float = 0.0,
) -> PairObservable:
    """k^w chi(k), or its Fourier transform, averaged over the absorbers of one element; single scattering.

    Args:
      k: [m] ascending, positive, 1/A, of the data (k = 0 at the data's E0); with ``transform``, r in A.
      composition: symbols per atom, or a mapping element -> amount.
      edge: absorber and edge, such as "Si:K".
      number_density: atoms/A^3, which the potentials follow.
      kweight: w; without a transform the curve is k^w chi(k).
      s02: amplitude reduction S0^2.
      e0_shift: eV, E0 of FEFF (its Fermi level) minus E0 of the data.
      mean_square: sigma^2, A^2, thermal mean square of a path's half length that a static structure lacks; damps by exp(-2 k^2 sigma^2).
      rmax: A, farthest pair (half path length); by default the table's reach.
      taper: A, over which pairs fade before rmax; 0 for a step, as FEFF's RPATH.
      table: file or `ScatteringTable`; by default the shipped one of the material.
      transform: {kmin, kmax, kweight, dk, window[, first, last of the data, 1/A]}: the curve
        is [Re chi(R), Im chi(R)] (2m points) as `absorption.fourier_operator`.
      back_reach: A; > 0 adds the paths a-j-a-j-a with 2 r below it (`multiple_scattering` sets it).

    Raises:
      ValueError: no table for the edge, k outside it, rmax beyond it, or numbers that cannot be.
    """
    x = np.asarray(k, dtype=float)
    fractions = fractions_of(composition)
    elements = tuple(fractions)
    absorber, level = parse_edge(edge, elements)
    found = table if isinstance(table, ScatteringTable) else find_table(elements, absorber, level, table)
    if x.ndim != 1 or len(x) < 2 or not (np.diff(x) > 0).all():
        raise ValueError(f"got {'r' if transform else 'k'} of shape {x.shape}; needs one ascending column")
    reach = found.reach if rmax is None else float(rmax)
    if not 0 < reach <= found.reach + 1e-6:
        raise ValueError(f"got rmax = {reach:g} A; the table of {edge} serves up to {found.reach:g} A; lower rmax, or make a longer table")
    if reach <= min(found.shortest.values()):
        raise ValueError(f"got rmax = {reach:g} A; an absorber of {edge} has no neighbour inside that cutoff; raise rmax")
    if not (s02 > 0 and mean_square >= 0 and taper >= 0):
        raise ValueError(f"got s02 = {s02}, mean_square = {mean_square}, taper = {taper}; needs a positive s02 and the others not negative")
    grid = x if transform is None else transform_grid(transform)
    window = None if transform is None else {n: v for n, v in transform.items() if n not in ("first", "last")}
    wavenumbers_within(grid, found)
    options = dict(s02=s02, e0_shift=e0_shift, mean_square=mean_square, rmax=reach, taper=taper, back_reach=back_reach)
    values = single_rows(grid, found, elements, fractions, number_density, **options)
    if transform is None:
        values, function = values * (grid**kweight)[None, :, None], "chi(k)"
        points, text = x, f"k^{kweight:g} chi(k)"
    else:
        operator = fourier_operator(grid, x, **window)
        values = np.einsum("rk,pkn->prn", np.concatenate([operator.real, operator.imag]), values)
        points, function = np.concatenate([x, x]), "chi(R)"
        text = f"Re and Im of chi(R), {', '.join(f'{n} {v}' for n, v in window.items())}"
    text += f" of {edge}, FEFF8L amplitudes in {'-'.join(found.elements)}, pairs to {reach:g} A (taper {taper:g} A), S0^2 {s02:g}"
    text += f", E0 shift {e0_shift:g} eV, sigma^2 {mean_square:g} A^2"
    zero = np.zeros(len(points))
    return observable(points, histogram.spline_coefficients(values), zero, zero, 0, function, "number", fractions, reach, text)


def transform_grid(transform: dict) -> np.ndarray:
    """k [m] of a transform: larch's grid over the window and its sills, where the data are."""
    sill = transform.get("dk", 1.0)
    low = max(KSTEP, transform["kmin"] - sill, transform.get("first", 0.0))
    high = min(transform["kmax"] + sill, transform.get("last", np.inf))
    return np.arange(np.ceil(low / KSTEP - 1e-9), np.floor(high / KSTEP + 1e-9) + 1) * KSTEP
