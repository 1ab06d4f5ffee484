"""Reciprocal-space pair functions: S, F_keen, Q(S - 1), intensity I, and Faber-Ziman, Ashcroft-Langreth and Bhatia-Thornton partials."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from glassjax.observables import histogram
from glassjax.observables.pair import PARTIAL_ONLY, RECIPROCAL, PairObservable, grid_points, observable
from glassjax.observables.weights import amplitude_products, faber_ziman_weights, fractions_of, mean_square, partial_selector, self_square

TAPER = 1.0  # A
QLIMIT = math.pi / (4 * histogram.STEP)  # 1/A, that the radial grid serves
FORMULAS = {
    "S": "Faber-Ziman S(Q) -> 1",
    "F_keen": "F_keen(Q) = <b>^2 (S - 1) -> 0",
    "Q(S-1)": "Q (S(Q) - 1), 1/A",
    "I": "I(Q) per atom = <b^2> + exp(-Q^2 B / 8 pi^2) <b>^2 (S - 1)",
    "S_AL": "Ashcroft-Langreth S_ab = delta_ab + (c_a c_b)^(1/2) (A_ab - 1)",
    "S_NN": "Bhatia-Thornton S_NN = 1 + sum_ab c_a c_b (A_ab - 1)",
    "S_NC": "Bhatia-Thornton S_NC = c_1 c_2 [c_1 (A_11 - A_12) - c_2 (A_22 - A_12)] -> 0",
    "S_CC": "Bhatia-Thornton S_CC = c_1 c_2 [1 + c_1 c_2 (A_11 + A_22 - 2 A_12)] -> c_1 c_2",
}


def window_function(r: np.ndarray, rmax: float, window: str) -> np.ndarray:
    """Real-space window on [0, rmax]: "lorch" sin(pi r/rmax)/(pi r/rmax), "cosine" 1 to 0.7 rmax then a half cosine, "taper" a half cosine over
    the last angstrom, or "none" (a step)."""
    inside = (r <= rmax).astype(float)
    if window == "none":
        return inside
    if window == "lorch":
        return np.sinc(r / rmax) * inside
    if window == "cosine":
        ramp = np.clip((r / rmax - 0.7) / 0.3, 0.0, 1.0)
        return 0.5 * (1 + np.cos(math.pi * ramp)) * inside
    if window == "taper":
        return 0.5 * (1 + np.cos(math.pi * np.clip((r - rmax + TAPER) / TAPER, 0.0, 1.0))) * inside
    raise ValueError(f"window is {window!r}; needs 'lorch', 'cosine', 'taper' or 'none'")


def structure_factor(
    q,
    composition,
    *,
    function: str = "S",
    weights: str = "number",
    rmax: float = 10.0,
    window: str = "cosine",
    partial=None,
    isotopes: Mapping | None = None,
    displacement: float = 0.0,
    qdamp: float = 0.0,
) -> PairObservable:
    """Total or partial structure factor, or intensity, of pairs within ``rmax``.

    S(Q) = 1 + sum_ab w_ab (A_ab - 1),  A_ab - 1 = (4 pi rho0 / Q) int_0^rmax r (g_ab - 1) W(r) sin(Qr) dr -> 0 at large Q; pairs are not broadened.
    ``weights="xray"`` divides by <f(Q)>^2 at each Q. The window W is part of the observable: apply the same one to data with `windowed_data`.
    The other functions are in `FORMULAS`; <b>^2 is in barn for neutrons and in electrons^2 for X-rays, and the mean density (small-angle scattering)
    is left out of I(Q).

    Args:
      q: [m] ascending, positive, 1/A.
      composition: symbols per atom, or a mapping element -> amount.
      function: "S", "F_keen", "Q(S-1)", "I"; "S_AL" with ``partial``; "S_NN", "S_NC", "S_CC" of a binary (first and second element).
      weights: "number", "neutron", "xray" or "Z".
      rmax: A.
      window: "cosine", "lorch", "taper" or "none".
      partial: a pair of elements, for one A_ab ("S") or one Ashcroft-Langreth partial ("S_AL").
      isotopes: {element: isotope or mixture}, neutrons only.
      displacement: isotropic displacement B, A^2: A_ab - 1 is multiplied by exp(-Q^2 B / 8 pi^2); the self term of "I" is not damped.
      qdamp: 1/A, resolution in Q: pairs count by exp(-(qdamp r)^2 / 2).

    Raises:
      ValueError: unknown function, weights or window; Q not ascending and positive; Q beyond pi / (4 x grid step) = 157 1/A.
    """
    q = np.asarray(q, dtype=float)
    fractions = fractions_of(composition)
    _check(q, function, partial, fractions, displacement, qdamp)
    c = np.array(list(fractions.values()))
    selector, level = _selection(q, function, fractions, weights, partial, isotopes, displacement)
    nodes = histogram.grid(grid_points(rmax))

    def kernel(r):
        return np.sinc(np.outer(q, r) / math.pi) * window_function(r, rmax, window) * np.exp(-0.5 * (qdamp * r) ** 2)

    rows = (selector / np.outer(c, c)[..., None]).reshape(-1, len(q), 1) * histogram.spline_coefficients(kernel(nodes))
    fine = np.linspace(0.0, rmax, 4 * len(nodes))
    background = -4 * math.pi * np.trapezoid(fine**2 * kernel(fine), fine, axis=1) * selector.sum(axis=(0, 1))
    name = f"{partial[0]}-{partial[1]}" if partial else f"total, {weights} weights" if function in RECIPROCAL else "-".join(fractions)
    text = f"{FORMULAS[function]}; {name}; real-space window {window} to {rmax} A on model and data"
    text += f"; B = {displacement:g} A^2" if displacement else ""
    text += f"; Q resolution {qdamp:g} 1/A" if qdamp else ""
    return observable(q, rows, level, background, 0, function, weights, fractions, rmax, text)


def _check(q, function, partial, fractions, displacement, qdamp) -> None:
    if function not in (*RECIPROCAL, *PARTIAL_ONLY):
        raise ValueError(f"function is {function!r}; structure_factor makes {', '.join((*RECIPROCAL, *PARTIAL_ONLY))}")
    if q.ndim != 1 or len(q) < 2 or not (np.diff(q) > 0).all() or q[0] <= 0:
        raise ValueError("Q must be one-dimensional, ascending and positive, in 1/angstrom")
    if q[-1] > QLIMIT:
        raise ValueError(f"Q reaches {q[-1]:.1f} 1/A; the radial grid of {histogram.STEP} A serves up to {QLIMIT:.0f} 1/A: cut the data with qmax")
    if partial is not None and function not in ("S", "Q(S-1)", "S_AL"):
        raise ValueError(f"got a partial of {function}; needs 'S' (A_ab), 'Q(S-1)' or 'S_AL'")
    if function == "S_AL" and partial is None:
        raise ValueError("got S_AL without a pair; needs one; pass partial=('Si', 'O')")
    if function in ("S_NN", "S_NC", "S_CC") and len(fractions) != 2:
        raise ValueError(f"got {function} of {len(fractions)} elements; Bhatia-Thornton partials need exactly two")
    if not (displacement >= 0 and qdamp >= 0):
        raise ValueError(f"got displacement {displacement} and qdamp {qdamp}; needs numbers that are not negative")
    if displacement and function not in RECIPROCAL:
        raise ValueError(f"got displacement {displacement} with {function}; needs one of {', '.join(RECIPROCAL)}; leave it out")


def _selection(q, function, fractions, weights, partial, isotopes, displacement):
    """Factors [e, e, m] of A_ab - 1, and the level [m]."""
    elements, c = list(fractions), np.array(list(fractions.values()))
    level = np.zeros(len(q))
    if function in ("S", "Q(S-1)"):
        selector = faber_ziman_weights(fractions, weights, q, partial, isotopes)
        level = level + (1.0 if function == "S" else 0.0)
    elif function in ("F_keen", "I"):
        selector = amplitude_products(fractions, weights, q, isotopes)
        if function == "I":
            level = level + self_square(fractions, weights, q, isotopes)
    elif function == "S_AL":
        a, b = (elements.index(p) if p in elements else -1 for p in partial)
        selector = partial_selector(elements, partial) * math.sqrt(c[a] * c[b])
        level = level + (1.0 if a == b else 0.0)
    else:
        x = c[0] * c[1]
        selector, base = {
            "S_NN": (np.outer(c, c), 1.0),
            "S_NC": (x * np.array([[c[0], (c[1] - c[0]) / 2], [(c[1] - c[0]) / 2, -c[1]]]), 0.0),
            "S_CC": (x**2 * np.array([[1.0, -1.0], [-1.0, 1.0]]), x),
        }[function]
        level = level + base
    selector = np.array(np.broadcast_to(selector[..., None] if selector.ndim == 2 else selector, (len(c), len(c), len(q))))
    if function == "Q(S-1)":
        selector = selector * q
    if function in RECIPROCAL and displacement:
        selector = selector * np.exp(-(q**2) * displacement / (8 * math.pi**2))
    return selector, level


def reduced_from(q, function: str, composition, *, weights: str = "number", isotopes=None):
    """Level [m] and factor [m] with  y = level + factor (S - 1)  for a total of ``function`` ("S", "F_keen", "Q(S-1)" or an undamped "I")."""
    q, fractions = np.asarray(q, dtype=float), fractions_of(composition)
    one = np.ones(len(q))
    if function == "S":
        return one, one
    if function == "Q(S-1)":
        return 0 * one, q
    square = mean_square(fractions, weights, q, isotopes) * one
    level = self_square(fractions, weights, q, isotopes) if function == "I" else 0.0
    return level * one, square


def window_operator(q, rmax: float, window: str = "cosine", points=None) -> np.ndarray:
    """Matrix [points, m] that takes S - 1 on the points q of a measurement to r, multiplies by W(r), and takes it back to ``points`` (default q).

    Trapezoid rule on the given points (S is continued to Q = 0 by its first value), so the result knows the data's own Q range.
    """
    q = np.asarray(q, dtype=float)
    out = q if points is None else np.asarray(points, dtype=float)
    full = np.concatenate([[0.0], q])
    step = np.diff(full)
    weight = 0.5 * (np.append(step, 0.0) + np.append(0.0, step))[1:] * q
    r = np.linspace(0.0, rmax, max(400, int(4 * rmax * q[-1] / math.pi)))
    there = np.sin(np.outer(r, q)) * weight * (2 / math.pi) * window_function(r, rmax, window)[:, None]
    ends = np.full(len(r), r[1] - r[0])
    ends[[0, -1]] *= 0.5
    return (np.sin(np.outer(out, r)) * ends) @ there / out[:, None]


def windowed_data(q, s, rmax: float, window: str = "cosine", points=None) -> np.ndarray:
    """Measured S(Q) seen through the real-space window of `structure_factor`, see `window_operator`."""
    return 1.0 + window_operator(q, rmax, window, points) @ (np.asarray(s, dtype=float) - 1.0)


def through(one: PairObservable, operator: np.ndarray, points, level, *, rmax: float, window: str) -> PairObservable:
    """The observable seen through a linear ``operator`` [points, m] on (y - level of ``one``), with another ``level`` [points]."""
    host = [np.asarray(a, dtype=float) for a in (one.rows, one.background)]
    rows = np.einsum("qm,pmg->pqg", operator, host[0])
    text = f"{one.convention.split('; real-space window')[0]}; real-space window {window} to {rmax} A on model and data, over the data's own Q range"
    fractions = dict.fromkeys(one.elements)
    return observable(points, rows, level, operator @ host[1], one.power, one.function, one.weights, fractions, one.rmax, text)
