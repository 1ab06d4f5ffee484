"""Local order of an ensemble in single numbers, each with its spread over the replicas."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from glassjax.analysis.bonds import bonds
from glassjax.analysis.curve_sets import CurveSet
from glassjax.analysis.local import shortest_distance
from glassjax.analysis.modalities import bond_angles_by_kind
from glassjax.analysis.order import partial_coordination, warren_cowley
from glassjax.structure import Structure

SHOWN = 8  # Voronoi indices


def local_summary(structures: Sequence[Structure], curves: CurveSet, like: CurveSet | None = None) -> dict[str, np.ndarray]:
    """{name and unit: [replicas]}: shortest distance of any pair, coordination, angles per element in the centre, Warren-Cowley parameters, and
    rings and Voronoi indices of ``curves``.

    Args:
      structures: an ensemble.
      curves: its curves, for bond cutoffs, rings and Voronoi indices.
      like: curves whose most frequent Voronoi indices are told; by default its own.

    NaN where a replica has no such number (no angle, an element without neighbours).
    """
    rows = [_scalars(one, curves.cutoffs) for one in structures]
    found = {name: np.array([row.get(name, np.nan) for row in rows]) for name in dict.fromkeys(name for row in rows for name in row)}
    if "rings" in curves:
        one = curves["rings"]["total"]
        found |= {f"rings of {size:g} atoms, per atom": one.values[:, i] for i, size in enumerate(one.x) if one.values[:, i].any()}
    told = curves if like is None else like
    if "Voronoi" in curves and "Voronoi" in told:
        one, other = curves["Voronoi"]["total"], told["Voronoi"]["total"]
        for name in other.x[np.argsort(-other.values.mean(axis=0), kind="stable")[:SHOWN]]:
            found[f"share of {name}"] = one.values[:, one.x == name].sum(axis=1)
    return found


def _scalars(structure: Structure, cutoffs) -> dict[str, float]:
    network = bonds(structure, cutoffs)
    numbers, (angles, of) = network.numbers().sum(axis=1), bond_angles_by_kind(network)
    found = {"shortest distance (A)": shortest_distance(structure), "coordination": float(numbers.mean())}
    kinds = np.unique(network.species)
    if len(kinds) > 1:
        found |= {f"coordination {a}-{b}": v for (a, b), v in partial_coordination(structure, cutoffs).items()}
    for centre in kinds if len(angles) else ():
        own, at = angles[of[:, 0] == centre], f" at {structure.elements[centre]}" if len(kinds) > 1 else ""
        if len(own):
            found |= {f"bond angle{at} (degrees)": float(own.mean()), f"its deviation{at} (degrees)": float(own.std())}
    if len(kinds) > 1:
        found |= {f"Warren-Cowley {a}-{b}": v for (a, b), v in warren_cowley(structure, cutoffs).items()}
    return found


def mean_and_spread(values: np.ndarray) -> tuple[float, float | None]:
    """Mean, and standard deviation (n - 1) over the replicas that have the number; None for fewer than two, NaN without any."""
    known = values[np.isfinite(values)]
    if not len(known):
        return float("nan"), None
    return float(known.mean()), float(known.std(ddof=1)) if len(known) > 1 else None
