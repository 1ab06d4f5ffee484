"""Real-space pair functions: g, G, G_keen, D, T and RDF, total or partial, broadened, damped and terminated as an instrument does."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from glassjax.fourier import termination_window, width_of
from glassjax.observables import histogram
from glassjax.observables.pair import REAL_SPACE, PairObservable, grid_points, observable
from glassjax.observables.weights import faber_ziman_weights, fractions_of, mean_square

TAIL = 5.0  # a Gaussian is followed to this many widths beyond the last point
RIPPLES = 4.0  # a terminated curve sees pairs this many ripples (2 pi / Qmax) beyond its last point
THERMAL_WIDTH = 0.07  # A, of a pair when the termination is modelled by itself
TERMINATIONS = {"sharp": "none", "lorch": "lorch", "soper-barney": "soper-barney"}
FORMULAS = {
    "g": "g(r) -> 1",
    "G": "G(r) = 4 pi rho0 r (g(r) - 1), 1/A^2",
    "G_keen": "G_keen(r) = <b>^2 (g(r) - 1), floor -<b>^2",
    "D": "D(r) = 4 pi rho0 r <b>^2 (g(r) - 1)",
    "T": "T(r) = 4 pi rho0 r <b>^2 g(r)",
    "RDF": "RDF(r) = 4 pi rho0 r^2 g(r), 1/A",
}


def pair_distribution(
    r,
    composition,
    *,
    function: str = "g",
    weights: str = "number",
    width: float | None = None,
    partial=None,
    isotopes: Mapping | None = None,
    qmax: float | None = None,
    qmin: float = 0.0,
    termination: str | None = None,
    qdamp: float = 0.0,
    qbroad: float = 0.0,
) -> PairObservable:
    """Total or partial pair function in real space.

    g_ab(r) = V / (4 pi r^2 N_a N_b) sum over ordered pairs of N(r; d, w(d)) -> 1; total g = 1 + sum_ab w_ab (g_ab - 1) with Faber-Ziman weights.
    The other functions follow from g as in Keen, J. Appl. Cryst. 34, 172 (2001): see `FORMULAS`; <b>^2 is in barn for neutrons. An ideal gas gives
    g = 1 + (width / r)^2 (1 - 1/N for like pairs).

    The instrument, in the order in which it acts: w(d) = width sqrt(1 + (qbroad d)^2) and the envelope exp(-(qdamp r)^2 / 2) on g - 1 (PDFgui's
    conventions); then, with ``termination``, G is taken to Q, multiplied by the window between ``qmin`` and ``qmax``, and taken back:
    G(r) = (2 / pi) int W(Q) sin(Qr) int G(r') sin(Qr') dr' dQ. X-ray weights depend on Q and enter there.

    Args:
      r: [m] ascending, A, not negative.
      composition: symbols per atom, or a mapping element -> amount.
      function: "g", "G", "G_keen", "D", "T" or "RDF".
      weights: "number", "neutron", "Z", or "xray", which needs ``qmax``.
      width: standard deviation of a pair's Gaussian, A. By default 0.15; the width that ``qmax`` resolves (FWHM 3.79 / Qmax) where that is known;
        or 0.07 where the termination is modelled by itself.
      partial: a pair of elements, for one g_ab instead of the total ("g", "G" or "RDF").
      isotopes: {element: isotope or mixture}, neutrons only.
      qmax: 1/A, highest Q of the measurement.
      qmin: 1/A, lowest.
      termination: None (the width stands for it), "sharp", "lorch" or "soper-barney"; X-ray weights take "sharp" by default.
      qdamp: 1/A.
      qbroad: 1/A.

    Raises:
      ValueError: unknown function, weights or termination; r not ascending; a width below the grid's resolution (0.03 A); a termination without Qmax.
    """
    r = np.asarray(r, dtype=float)
    if weights == "xray" and qmax is not None and termination is None and partial is None:
        termination = "sharp"
    width = _check(r, function, weights, width, partial, qmin, qmax, termination, qdamp, qbroad)
    r = np.maximum(r, 1e-3)
    fractions = fractions_of(composition)
    c = np.array(list(fractions.values()))
    reach = r[-1] + (RIPPLES * 2 * math.pi / qmax if termination else 0.0) + (min(6.0, math.pi / qmin) if termination and qmin > 0 else 0.0)
    rmax = float(reach + TAIL * width * math.sqrt(1 + (qbroad * reach) ** 2))
    nodes = histogram.grid(grid_points(rmax))
    if termination is None:
        selector = faber_ziman_weights(fractions, weights, partial=partial, isotopes=isotopes)
        kernel = _reduced(r, nodes, width, qdamp, qbroad)
        rows = (selector / np.outer(c, c)).reshape(-1, 1, 1) * histogram.spline_coefficients(kernel)
        background = -4 * math.pi * r * np.exp(-0.5 * (qdamp * r) ** 2)
    else:
        options = dict(qmin=qmin, qmax=qmax, window=TERMINATIONS[termination])
        fine = np.arange(1, math.ceil((rmax - TAIL * width) / 0.01) + 1) * 0.01
        kernel = _reduced(fine, nodes, width, qdamp, qbroad)
        smooth = -4 * math.pi * fine * np.exp(-0.5 * (qdamp * fine) ** 2)
        rows, background = _terminated(r, fine, kernel, smooth, fractions, weights, partial, isotopes, **options)
    level, power = np.zeros(len(r)), 0
    square = 1.0 if function in ("g", "G", "RDF") or partial else float(mean_square(fractions, weights, isotopes=isotopes))
    if function in ("g", "G_keen"):
        rows, level, background, power = rows / (4 * math.pi * r[:, None]), background / (4 * math.pi * r), np.zeros(len(r)), -1
        level = level + (1.0 if function == "g" else 0.0)
    elif function == "T":
        background = background + 4 * math.pi * r
    elif function == "RDF":
        rows, background = rows * r[:, None], r * background + 4 * math.pi * r**2
    name = f"{partial[0]}-{partial[1]}" if partial else f"total, {weights} weights"
    text = f"{FORMULAS[function]}; {name}; Gaussian width {width:.4g} A"
    text += f"; {termination} termination at Q {qmin:g}-{qmax:g} 1/A" if termination else ""
    text += f"; Qdamp {qdamp:g}, Qbroad {qbroad:g} 1/A" if qdamp or qbroad else ""
    return observable(r, rows * square, level * square, background * square, power, function, weights, fractions, rmax, text)


def _check(r, function, weights, width, partial, qmin, qmax, termination, qdamp, qbroad) -> float:
    """Validate the arguments of `pair_distribution`; returns the width."""
    if function not in REAL_SPACE:
        raise ValueError(f"function is {function!r}; pair_distribution makes {', '.join(REAL_SPACE)}")
    if partial is not None and function not in ("g", "G", "RDF"):
        raise ValueError(f"got a partial of {function}; needs 'g', 'G' or 'RDF', which have no scattering lengths in them")
    if weights == "xray" and function in ("G_keen", "D", "T"):
        raise ValueError(f"got {function} with X-ray weights; <f(Q)>^2 has no single value in r: needs 'g', 'G' or 'RDF', or weights='Z'")
    if r.ndim != 1 or len(r) < 2 or not (np.diff(r) > 0).all() or r[0] < 0:
        raise ValueError("r must be one-dimensional, ascending and not negative, in angstrom")
    if termination is not None and termination not in TERMINATIONS:
        raise ValueError(f"termination is {termination!r}; needs one of {', '.join(TERMINATIONS)}, or None")
    if termination is not None and qmax is None:
        raise ValueError(f"got termination {termination!r} without qmax; needs the highest Q of the measurement; pass qmax")
    if qmax is not None and not 0 <= qmin < qmax:
        raise ValueError(f"got qmin {qmin} and qmax {qmax}; needs 0 <= qmin < qmax, in 1/A")
    if not (qdamp >= 0 and qbroad >= 0):
        raise ValueError(f"got qdamp {qdamp} and qbroad {qbroad}; needs numbers that are not negative, in 1/A")
    if width is None:
        width = 0.15 if qmax is None else max(0.03, width_of(qmax, "none")) if termination is None else THERMAL_WIDTH
    if width < 0.03:
        raise ValueError(f"width is {width} A; needs at least 0.03 A (the radial grid is {histogram.STEP} A)")
    return float(width)


def _reduced(r, nodes, width, qdamp, qbroad) -> np.ndarray:
    """G(r) of one pair at each node [m, nodes]: N(r; d, w(d)) / r under the envelope."""
    spread = width * np.sqrt(1 + (qbroad * nodes) ** 2)
    gauss = np.exp(-0.5 * ((r[:, None] - nodes) / spread) ** 2) / (math.sqrt(2 * math.pi) * spread)
    return gauss / r[:, None] * np.exp(-0.5 * (qdamp * r[:, None]) ** 2)


def _terminated(r, fine, kernel, smooth, fractions, weights, partial, isotopes, *, qmin, qmax, window):
    """Rows [e * e, m, nodes] and background [m] of G seen between qmin and qmax. Gauss-Legendre in Q, trapezoid in r' (host, float64)."""
    count = int(1.2 * (r[-1] + fine[-1]) * (qmax - qmin) / math.pi) + 48
    t, w = np.polynomial.legendre.leggauss(count)
    q = 0.5 * (qmax - qmin) * t + 0.5 * (qmax + qmin)
    w = 0.5 * (qmax - qmin) * w * termination_window(q, qmax, window)
    ripple = 2 * math.pi / qmax
    ramp = 0.5 * (1 + np.cos(math.pi * np.clip((fine - fine[-1] + 2 * ripple) / (2 * ripple), 0, 1)))
    ahead = np.sin(np.outer(q, fine)) * (ramp * (fine[1] - fine[0]))
    back = 2 / math.pi * np.sin(np.outer(r, q)) * w
    c = np.array(list(fractions.values()))
    selector = faber_ziman_weights(fractions, weights, q, partial, isotopes)
    through = histogram.spline_coefficients(ahead @ kernel)
    if selector.ndim == 2:
        rows = (selector / np.outer(c, c)).reshape(-1, 1, 1) * (back @ through)
    else:
        rows = np.stack([(back * weight) @ through for weight in (selector / np.outer(c, c)[..., None]).reshape(-1, len(q))])
    return rows, back @ (ahead @ smooth)
