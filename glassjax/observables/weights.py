"""How strongly each pair of elements counts: scattering amplitudes, concentrations, isotope mixtures, Faber-Ziman weights and partials (host)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from glassjax.elements import atomic_number, neutron_length, xray_form_factor

WEIGHTS = ("number", "neutron", "xray", "Z")
BARN = 0.01  # barn per fm^2


def fractions_of(composition) -> dict[str, float]:
    """Concentrations from a sequence of symbols or a mapping element -> amount; sums to 1. Raises ``ValueError`` for negative amounts or none."""
    if isinstance(composition, Mapping):
        amounts = {e: float(v) for e, v in composition.items()}
        if not amounts or min(amounts.values()) < 0 or not sum(amounts.values()) > 0:
            raise ValueError(f"got composition {amounts}; needs amounts that are not negative and not all zero; correct them")
        total = sum(amounts.values())
        return {e: v / total for e, v in amounts.items()}
    symbols = list(composition)
    return {e: symbols.count(e) / len(symbols) for e in dict.fromkeys(symbols)}


def isotope_mean(element: str, mixture) -> float:
    """Mean coherent length (fm) of an element in the sample: of one isotope ("D", "62Ni") or of a mixture {"H": 0.36, "D": 0.64}.

    Raises:
      ValueError: an isotope that is not in the table, of another element, or negative amounts.
    """
    parts = {mixture: 1.0} if isinstance(mixture, str) else dict(mixture)
    if not parts or min(parts.values()) < 0 or not sum(parts.values()) > 0:
        raise ValueError(f"got the isotope mixture {parts} for {element}; needs amounts that are not negative and not all zero; correct them")
    for name in parts:
        kind = "H" if name in ("D", "T") else "".join(c for c in name if c.isalpha())
        if kind != element:
            raise ValueError(f"got {name} among the isotopes of {element}; needs isotopes of {element}, such as '62Ni' or 'D'; correct the name")
    return sum(amount * neutron_length(name) for name, amount in parts.items()) / sum(parts.values())


def scattering_amplitudes(elements, weights: str, q: np.ndarray | None = None, isotopes: Mapping | None = None) -> np.ndarray:
    """Amplitude of each element: [e], or [e, m] at Q for "xray".

    ``number`` 1; ``neutron`` bound coherent length, fm (Sears 1992), with ``isotopes`` {element: isotope or mixture}; ``Z`` atomic number;
    ``xray`` f(Q) in electrons (Waasmaier-Kirfel), which needs ``q``.

    Raises:
      ValueError: unknown weights; X-rays without ``q``; isotopes without neutrons or of elements that are not there.
    """
    isotopes = {} if isotopes is None else isotopes
    if isotopes and weights != "neutron":
        raise ValueError(f"got isotopes with {weights} weights; needs weights='neutron', which alone tell isotopes apart; leave isotopes out")
    strangers = sorted(set(isotopes) - set(elements))
    if strangers:
        raise ValueError(f"got isotopes of {', '.join(strangers)}; needs elements among {', '.join(elements)}; correct the names")
    if weights == "number":
        return np.ones(len(elements))
    if weights == "neutron":
        return np.array([isotope_mean(e, isotopes[e]) if e in isotopes else neutron_length(e) for e in elements])
    if weights == "Z":
        return np.array([float(atomic_number(e)) for e in elements])
    if weights == "xray":
        if q is None:
            raise ValueError(
                "X-ray weights depend on Q and do not define a real-space function by themselves; pass qmax (the total is then the transform of the "
                "Q-dependent one), weights='Z' for the approximation, or guide on S(Q)"
            )
        return np.stack([xray_form_factor(e, q) for e in elements])
    raise ValueError(f"weights are {weights!r}; needs one of {', '.join(WEIGHTS)}")


def mean_square(fractions: Mapping[str, float], weights: str, q=None, isotopes=None) -> np.ndarray:
    """<b>^2: barn for neutrons, electrons^2 [m] for X-rays, Z^2, or 1."""
    b = scattering_amplitudes(list(fractions), weights, q, isotopes)
    return np.einsum("a,a...->...", np.array(list(fractions.values())), b) ** 2 * (BARN if weights == "neutron" else 1.0)


def self_square(fractions: Mapping[str, float], weights: str, q=None, isotopes=None) -> np.ndarray:
    """<b^2> = sum_a c_a b_a^2, in the units of `mean_square` (of an isotope mixture the mean length is squared: coherent scattering only)."""
    b = scattering_amplitudes(list(fractions), weights, q, isotopes)
    return np.einsum("a,a...->...", np.array(list(fractions.values())), b**2) * (BARN if weights == "neutron" else 1.0)


def partial_selector(elements, partial) -> np.ndarray:
    """[e, e] that picks one pair, both orders together; raises ``ValueError`` for elements that are not there."""
    a, b = partial
    if a not in elements or b not in elements:
        raise ValueError(f"partial {a}-{b} names an element that is not in {', '.join(elements)}")
    selector = np.zeros((len(elements),) * 2)
    selector[elements.index(a), elements.index(b)] += 0.5
    selector[elements.index(b), elements.index(a)] += 0.5
    return selector


def faber_ziman_weights(
    fractions: Mapping[str, float], weights: str, q: np.ndarray | None = None, partial=None, isotopes: Mapping | None = None
) -> np.ndarray:
    """w_ab = c_a c_b b_a b_b / <b>^2 [e, e] (or [e, e, m] for X-rays), or the selector of one ``partial`` pair.

    Raises:
      ValueError: the mean amplitude vanishes (a null-scattering mixture), or the partial's elements are not in the composition.
    """
    elements = list(fractions)
    if partial is not None:
        return partial_selector(elements, partial)
    product = amplitude_products(fractions, weights, q, isotopes)
    total = product.sum(axis=(0, 1))
    if np.any(np.abs(total) < 1e-12 * np.abs(product).sum(axis=(0, 1))):
        raise ValueError("the mean scattering amplitude vanishes, so the normalised total is undefined; use partials or F_keen")
    return product / total


def amplitude_products(fractions: Mapping[str, float], weights: str, q=None, isotopes=None) -> np.ndarray:
    """c_a c_b b_a b_b [e, e] (or [e, e, m]): barn for neutrons, electrons^2 for X-rays."""
    b = scattering_amplitudes(list(fractions), weights, q, isotopes)
    c = np.array(list(fractions.values()))
    cb = c[:, None] * b if b.ndim == 2 else c * b
    return np.einsum("a...,b...->ab...", cb, cb) * (BARN if weights == "neutron" else 1.0)
