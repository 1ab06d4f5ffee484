"""Fit scattering tables to FEFF's paths; see `scattering_tables` for the functions that are fitted."""

from __future__ import annotations

import itertools

import numpy as np

from glassjax.scattering_tables import KGRID, KINDS, POWERS, ScatteringTable, path_terms, radial_terms


def fit_table(sites, *, absorber, edge, elements, reach, reach_multiple=0.0, card=None) -> ScatteringTable:
    """Fit tables to FEFF's paths.

    Args:
      sites: list of (number density of the structure, list of `io.feff.FeffPath`, whether they
        count in the mean chi(k): all single paths, structure not scaled).
      absorber: element.
      edge: "K", ...
      elements: of the material.
      reach: A, half length within which all single paths are there.
      reach_multiple: A, the same of paths of up to four legs; 0 if there are none.
      card: facts for the record.

    Raises:
      ValueError: an element without a path.
    """
    mean_density = float(np.mean([density for density, *_ in sites]))
    single, phases, shortest, back = {}, {}, {}, {}
    paths = [(density, path, _amplitude(path)) for density, found, _ in sites for path in found]
    free = np.mean([np.interp(KGRID, p.k, p.mean_free_path) for _, p, _ in paths], axis=0)
    for element in elements:
        own = [(d, p, f) for d, p, f in paths if p.legs == 2 and p.species[1] == element]
        if len(own) < 2 * POWERS:
            raise ValueError(
                f"got {len(own)} single paths from {absorber} to {element}; needs at least {2 * POWERS}; take more sites or a longer reach"
            )
        r = np.array([p.reff for _, p, _ in own])
        values = np.stack([f for _, _, f in own])
        shortest[element] = float(r.min())
        phases[element] = np.unwrap(np.angle(np.mean(values[r <= np.quantile(r, 0.25)], axis=0)))
        change = np.array([d / mean_density - 1.0 for d, _, _ in own])
        design = np.concatenate([radial_terms(r), change[:, None] * radial_terms(r)], axis=1)
        fitted = _least_squares(design, values * np.exp(-1j * phases[element]), 1.0 / r**2, ridge=1e-10)
        single[element] = fitted.reshape(2, POWERS, -1)
        twice = [(p, f) for _, p, f in paths if p.legs == 4 and len(_scatterers(p)) == 1 and _scatterers(p)[0][1] == element]
        if len(twice) >= POWERS:
            r = np.array([p.reff / 2 for p, _ in twice])
            back[element] = _least_squares(radial_terms(r), np.stack([f for _, f in twice]), 1.0 / r)
    chi = [sum(_chi(p) for p in found if p.legs == 2) for _, found, whole in sites if whole]
    return ScatteringTable(
        absorber=absorber,
        edge=edge,
        elements=tuple(sorted(elements)),
        k=KGRID,
        mean_free_path=free,
        number_density=mean_density,
        single=single,
        phases=phases,
        shortest=shortest,
        back=back if reach_multiple else {},
        double=_fit_double(paths, elements) if reach_multiple else {},
        mean_chi=np.mean(chi, axis=0),
        reach=float(reach),
        reach_multiple=float(reach_multiple),
        card={} if card is None else dict(card),
    )


def _amplitude(path):
    """F on KGRID of one path."""
    magnitude = np.interp(KGRID, path.k, path.magnitude * path.reduction)
    return magnitude * np.exp(1j * np.interp(KGRID, path.k, np.unwrap(path.phase_centre + path.phase)))


def _chi(path) -> np.ndarray:
    """chi on KGRID of one path, S0^2 = 1."""
    f = _amplitude(path)
    k = np.maximum(KGRID, 0.05)
    free = np.interp(KGRID, path.k, path.mean_free_path)
    return path.degeneracy * np.imag(f * np.exp(2j * KGRID * path.reff)) * np.exp(-2 * path.reff / free) / (k * path.reff**2)


def _scatterers(path) -> list[tuple[np.ndarray, str]]:
    """The distinct atoms of a path but the absorber, in the order met: (position, element)."""
    found: list = []
    for position, element in zip(path.positions, path.species, strict=True):
        if np.linalg.norm(position - path.positions[0]) > 1e-2 and not any(np.linalg.norm(position - p) < 1e-2 for p, _ in found):
            found.append((position, element))
    return found


def _kind(path) -> str | None:
    """Which of `KINDS` a path over two scatterers is."""
    home = [np.linalg.norm(p - path.positions[0]) < 1e-2 for p in path.positions]
    if path.legs == 3:
        return "triangle"
    return "bounce" if sum(home) == 2 else "through"


def _fit_double(paths, elements) -> dict:
    """Coefficients of paths over two scatterers by kind and elements."""
    rows: dict = {(kind, a, b): [] for kind in KINDS for a, b in itertools.product(elements, repeat=2)}
    for _, path, f in paths:
        atoms = _scatterers(path)
        if path.legs < 3 or len(atoms) != 2:
            continue
        kind = _kind(path)
        order = [(0, 1)] if kind == "through" else [(0, 1), (1, 0)]
        if kind == "through":  # a-j-k-j-a: j is met first and last
            middle = path.positions[list(np.linalg.norm(path.positions - path.positions[0], axis=1) > 1e-2).index(True)]
            order = [(0, 1)] if np.linalg.norm(atoms[0][0] - middle) < 1e-2 else [(1, 0)]
        for i, j in order:
            rows[kind, atoms[i][1], atoms[j][1]].append((path, atoms[i][0] - path.positions[0], atoms[j][0] - path.positions[0], f))
    made = {}
    for key, found in rows.items():
        if len(found) < 40:
            continue
        near, far, across = (np.array([np.linalg.norm(v) for v in vectors]) for vectors in _lengths(found))
        half, product, columns = path_terms(key[0], near, far, across)
        values = np.stack([f for *_, f in found])[:, ::2] * (product / half**2)[:, None]
        made[key] = _least_squares(np.stack(columns, axis=1), values, 1.0 / product, ridge=1e-4)
    return made


def _lengths(found):
    return [first for _, first, _, _ in found], [second for _, _, second, _ in found], [second - first for _, first, second, _ in found]


def _least_squares(design, values, weight, ridge: float = 1e-8) -> np.ndarray:
    """Weighted ridge regression [terms, n]; the ridge is relative to the mean square of each column."""
    scale = np.sqrt(np.mean((design * weight[:, None]) ** 2, axis=0))
    scale = np.where(scale > 1e-6 * scale.max(), scale, np.inf)  # a column without variation (one density only) gets no coefficient
    whitened = design * weight[:, None] / scale
    normal = whitened.T @ whitened + ridge * len(design) * np.eye(design.shape[1])
    return np.linalg.solve(normal, whitened.T @ (values * weight[:, None])) / scale[:, None]
