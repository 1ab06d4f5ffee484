"""Comparison of one ensemble with another, per modality and feature; `errors` has the formulas of error, diversity and dED."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from glassjax.analysis.curve_sets import Curves, CurveSet, checked, curves, formula, full_cutoffs
from glassjax.analysis.errors import Row, mean_of, row_of

COLLAPSED = 0.7  # ratio of diversities below which an ensemble varies too little
NAMES = 20  # Voronoi indices that are compared, the most frequent of the reference
SAME_VOLUME = 0.05  # relative difference of volumes that is allowed


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What `compare` found.

    Attributes:
      rows: one per modality and feature.
      generated: curves of the generated ensemble.
      reference: curves of the reference.
    """

    rows: tuple[Row, ...]
    generated: CurveSet
    reference: CurveSet

    def modalities(self) -> dict[str, dict]:
        """{modality: what `errors.mean_of` tells of its features}."""
        names = dict.fromkeys(row.modality for row in self.rows)
        return {name: mean_of([row for row in self.rows if row.modality == name]) for name in names}

    @property
    def ded(self) -> dict[str, float]:
        """dED of each modality, the mean over its features."""
        return {name: one["ded"] for name, one in self.modalities().items()}

    def to_dict(self) -> dict:
        """JSON-ready: numbers of replicas and atoms, bond cutoffs (A), rows and means per modality."""
        sizes = dict(generated=self.generated.replicas, reference=self.reference.replicas)
        return dict(
            replicas=sizes,
            atoms=dict(self.reference.counts),
            cutoffs={f"{a}-{b}": v for (a, b), v in self.reference.cutoffs.items()},
            rows=[row.to_dict() for row in self.rows],
            modalities=self.modalities(),
        )

    def table(self) -> str:
        """Text: a line per feature and, for several, the mean of the modality."""
        head = f"{'modality':<13} {'feature':<12} {'error':>8} {'+-':>7} {'diversity':>10} {'dED':>9} {'+-':>7} {'ratio':>6} {'+-':>5}"
        lines, means = [head], self.modalities()
        for name, mean in means.items():
            rows = [row for row in self.rows if row.modality == name]
            lines += [_line(name, row.feature, row.to_dict()) for row in rows]
            if len(rows) > 1:
                lines.append(_line(name, "mean", mean))
        return "\n".join(lines)


def _line(modality: str, feature: str, numbers: dict) -> str:
    ratio = numbers["diversity_ratio"]
    note = "" if ratio is None or ratio >= COLLAPSED else "  varies too little"
    doubt = {name: "" if numbers[name] is None else f"{numbers[name]:.4f}" for name in ("uncertainty", "ded_uncertainty")}
    spread = "" if numbers["ratio_uncertainty"] is None else f"{numbers['ratio_uncertainty']:.2f}"
    error = f"{numbers['error']:8.4f} {doubt['uncertainty']:>7} {numbers['diversity']:10.4f}"
    ratios = f"{'-' if ratio is None else f'{ratio:.2f}':>6} {spread:>5}"
    return f"{modality:<13} {feature:<12} {error} {numbers['ded']:+9.4f} {doubt['ded_uncertainty']:>7} {ratios}{note}".rstrip()


def compare(generated, reference, modalities: Sequence[str] | None = None, *, cutoffs=None, surrogate=None, same_cell: bool = True) -> Comparison:
    """Error, diversity and dED of ``generated`` against ``reference`` (definitions: `glassjax.analysis.errors`).

    Args:
      generated: structures, or their `curves`.
      reference: the same; from `curves` once, to compare several ensembles with it. Cutoffs and surrogates are then those of the curves.
      modalities: as `curves`; by default those of given curves.
      cutoffs: as `curves`; by default those of given curves.
      surrogate: as `curves`.
      same_cell: refuse ensembles of different numbers of atoms or of volumes that differ by more than 5 % (their diversities say different things).

    Features that neither ensemble has (no such triplet) are left out; those that only the generated one has are scaled by its own maximum. The 20
    Voronoi indices most frequent in the reference count, and rings of the sizes that both were searched for.

    Raises:
      ValueError: other elements, cells or cutoffs; modalities that given curves lack; and as `curves`.
    """
    known = next((one for one in (reference, generated) if isinstance(one, CurveSet)), None)
    if known is not None and surrogate is None:
        surrogate = known.surrogates
    if known is not None and cutoffs is None:
        cutoffs = known.cutoffs
    if known is not None and modalities is None:
        modalities = list(known)
    _same(_composition(generated), _composition(reference), same_cell)  # before the work
    options = dict(cutoffs=cutoffs, surrogate=surrogate)
    ours = generated if isinstance(generated, CurveSet) else curves(generated, modalities, **options)
    theirs = reference if isinstance(reference, CurveSet) else curves(reference, modalities, **options)
    wanted = list(ours) if modalities is None else [modalities] if isinstance(modalities, str) else list(modalities)
    for name, one in (("generated", ours), ("reference", theirs)):
        missing = [m for m in wanted if m not in one]
        if missing:
            raise ValueError(f"got {name} curves without {', '.join(missing)}; needs the same modalities of both; compute them with curves()")
    limits = theirs.cutoffs if cutoffs is None else full_cutoffs(cutoffs, tuple(theirs.counts))
    if any(one.cutoffs != limits for one in (ours, theirs)):
        raise ValueError(f"got curves of bond cutoffs {ours.cutoffs} and {theirs.cutoffs}; needs one set of cutoffs; compute both with it")
    rows = []
    for modality in wanted:
        for feature, one in theirs[modality].items():
            if feature not in ours[modality]:
                raise ValueError(f"got no {modality} {feature} of the generated ensemble; needs the features of the reference; compute both alike")
            row = row_of(modality, feature, *_aligned(ours[modality][feature], one))
            rows += [] if row is None else [row]
    return Comparison(tuple(rows), ours, theirs)


def _composition(one):
    if isinstance(one, CurveSet):
        return one.counts, one.volume
    return checked(one)[1:]


def _same(generated, reference, same_cell: bool) -> None:
    (ours, own), (theirs, volume) = generated, reference
    if set(ours) != set(theirs):
        raise ValueError(
            f"got an ensemble of {', '.join(ours)} and a reference of {', '.join(theirs)}; needs the same elements; choose another reference"
        )
    if not same_cell:
        return
    hint = "choose another reference, or pass same_cell=False (--any-cell) to compare all the same"
    if ours != theirs:
        raise ValueError(f"got cells of {formula(ours)} and a reference of {formula(theirs)}; needs the same atoms in a cell; {hint}")
    if abs(own / volume - 1) > SAME_VOLUME:
        raise ValueError(f"got cells of {own:.1f} A^3 and a reference of {volume:.1f} A^3; needs volumes within {SAME_VOLUME:.0%}; {hint}")


def _aligned(ours: Curves, theirs: Curves) -> tuple[np.ndarray, np.ndarray]:
    """Values of both on common points: the most frequent names of the reference, or the shorter of two axes that begin alike."""
    if theirs.x.dtype.kind in "US":
        chosen = np.argsort(-theirs.values.mean(axis=0), kind="stable")[:NAMES]
        names = list(ours.x)
        got = [ours.values[:, names.index(n)] if n in names else np.zeros(len(ours.values)) for n in theirs.x[chosen]]
        return np.stack(got, axis=1), theirs.values[:, chosen]
    points = min(len(ours.x), len(theirs.x))
    if not np.allclose(ours.x[:points], theirs.x[:points]):
        raise ValueError("got curves on different points; needs the same axis; compute both with curves()")
    return ours.values[:, :points], theirs.values[:, :points]
