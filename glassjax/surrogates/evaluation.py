"""Errors of a surrogate on cells whose site spectra are known."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import numpy as np

from glassjax.priors.cells import training_spec
from glassjax.structure import Structure
from glassjax.surrogates.surrogate import Surrogate


def evaluate(surrogate: Surrogate, structures: Sequence[Structure], labels) -> dict:
    """Errors of a surrogate on cells with known site spectra (host).

    Returns:
      ``cell_error``: per cell, the mean absolute error of the averaged curve over the maximum of the reference curve; ``site_error``: the median over
      the sites of the mean absolute error over the maximum of the site's curve; ``site_error_of_area``: the same over the mean of the site's curve;
      ``average_site_error``: of the cell's own averaged reference curve taken for every site, to compare; ``disagreement``: median;
      ``rank_correlation`` of disagreement and error over the sites (Spearman).
    """
    from scipy.stats import spearmanr

    cell, relative, area, plain, gaps, errors = [], [], [], [], [], []
    sites = jax.jit(lambda s, spec: surrogate.sites(s, spec), static_argnums=1)
    spec = training_spec(structures, surrogate.cutoff)
    for s, y in zip(structures, labels, strict=True):
        chosen = np.asarray(surrogate.species_of(s)) == surrogate.elements.index(surrogate.absorber)
        y = np.asarray(y, dtype=float)[chosen]
        found, gap = (np.asarray(a, dtype=float)[chosen] for a in sites(s, spec))
        error = np.abs(found - y).mean(axis=1)
        cell.append(np.abs(found.mean(axis=0) - y.mean(axis=0)).mean() / np.abs(y.mean(axis=0)).max())
        most, size = np.abs(y).max(axis=1), np.abs(y).mean(axis=1)
        relative.append(error / most)
        area.append(error / size)
        plain.append(np.abs(y.mean(axis=0, keepdims=True) - y).mean(axis=1) / most)
        gaps.append(gap)
        errors.append(error)
    rows = dict(site_error=relative, site_error_of_area=area, average_site_error=plain, disagreement=gaps)
    medians = {name: round(float(np.median(np.concatenate(values))), 5) for name, values in rows.items()}
    rank = spearmanr(np.concatenate(gaps), np.concatenate(errors)).statistic if surrogate.members > 1 else None
    return dict(cell_error=[round(float(c), 5) for c in cell], **medians, rank_correlation=None if rank is None else round(float(rank), 3))
