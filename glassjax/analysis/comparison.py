"""How well one ensemble reproduces another: error, diversity and their difference dED per modality and feature (GLASS, SI section 2.6).

For the curves f of one feature (a pair, a triplet, an element, or the total) of one modality, on the points of its axis:

    norm      = max |f_reference| over all reference replicas and all points of that feature
    diversity = mean over the points of the population standard deviation over the reference replicas / norm
    error     = mean over the points of |mean over generated replicas - mean over reference replicas| / norm
    dED       = error - diversity

dED <= 0: the generated mean is no farther from the reference than its replicas are from each other. The diversity of the generated replicas
(same norm) over that of the reference tells a collapsed ensemble (below `COLLAPSED`) from one as varied as the reference; for this ratio both
deviations are freed of the bias of few normally distributed replicas. A modality's numbers are the means over its features. The error of n perfect
replicas against m of the reference is not 0 but falls as sqrt(1 / n + 1 / m).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from glassjax.analysis.curve_sets import Curves, CurveSet, checked, curves, formula, full_cutoffs

COLLAPSED = 0.7  # ratio of diversities below which an ensemble varies too little
NAMES = 20  # Voronoi indices that are compared, the most frequent of the reference
SAME_VOLUME = 0.05  # relative difference of volumes that is allowed


@dataclasses.dataclass(frozen=True)
class Row:
    """One feature of a comparison; `Comparison` says what the numbers are.

    Attributes:
      modality: such as "ADF".
      feature: such as "O-Si-O".
      points: of the axis.
      norm: in the unit of the curve.
      error: |mean - mean| / norm.
      uncertainty: of the error from the generated replicas alone, by the jackknife; None for one replica.
      diversity: of the reference.
      generated_diversity: the same of the generated ensemble.
      replicas: (generated, reference).
    """

    modality: str
    feature: str
    points: int
    norm: float
    error: float
    uncertainty: float | None
    diversity: float
    generated_diversity: float
    replicas: tuple[int, int]

    @property
    def ded(self) -> float:
        """dED = error - diversity; at most 0 is the goal."""
        return self.error - self.diversity

    @property
    def diversity_ratio(self) -> float | None:
        """Generated diversity over the reference's, without the bias of few replicas; None where either has one replica, or the reference none."""
        return _ratio(self.generated_diversity, self.diversity, self.replicas)

    def to_dict(self) -> dict:
        """All numbers by name."""
        return dataclasses.asdict(self) | dict(ded=self.ded, diversity_ratio=self.diversity_ratio)


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
        """{modality: error, diversity, generated_diversity, ded (means over its features), diversity_ratio (ratio of the means)}."""
        found = {}
        for name in dict.fromkeys(row.modality for row in self.rows):
            rows = [row for row in self.rows if row.modality == name]
            one = {key: float(np.mean([getattr(r, key) for r in rows])) for key in ("error", "diversity", "generated_diversity", "ded")}
            found[name] = one | dict(diversity_ratio=_ratio(one["generated_diversity"], one["diversity"], rows[0].replicas))
        return found

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
        head = f"{'modality':<13} {'feature':<12} {'error':>8} {'+-':>7} {'diversity':>10} {'dED':>9} {'ratio':>6}"
        lines, means = [head], self.modalities()
        for name, mean in means.items():
            rows = [row for row in self.rows if row.modality == name]
            for row in rows:
                lines.append(_line(name, row.feature, row.error, row.uncertainty, row.diversity, row.ded, row.diversity_ratio))
            if len(rows) > 1:
                lines.append(_line(name, "mean", mean["error"], None, mean["diversity"], mean["ded"], mean["diversity_ratio"]))
        return "\n".join(lines)


def share_seen(n: int) -> float:
    """Expected population standard deviation of ``n`` normal numbers over the true one: sqrt(2 / n) Gamma(n / 2) / Gamma((n - 1) / 2)."""
    return math.sqrt(2.0 / n) * math.exp(math.lgamma(n / 2) - math.lgamma((n - 1) / 2))


def _ratio(ours: float, theirs: float, replicas: tuple[int, int]) -> float | None:
    """Ratio of two population deviations of so many replicas each, without bias."""
    if min(replicas) < 2 or not theirs > 0:
        return None
    return ours / share_seen(replicas[0]) * share_seen(replicas[1]) / theirs


def _line(modality, feature, error, uncertainty, diversity, ded, ratio) -> str:
    doubt = f"{'':>7}" if uncertainty is None else f"{uncertainty:7.4f}"
    note = "" if ratio is None or ratio >= COLLAPSED else "  varies too little"
    return f"{modality:<13} {feature:<12} {error:8.4f} {doubt} {diversity:10.4f} {ded:+9.4f} {'-' if ratio is None else f'{ratio:.2f}':>6}{note}"


def compare(generated, reference, modalities: Sequence[str] | None = None, *, cutoffs=None, surrogate=None, same_cell: bool = True) -> Comparison:
    """Error, diversity and dED of ``generated`` against ``reference`` (definitions: this module's docstring).

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
            row = _row(modality, feature, ours[modality][feature], one)
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


def _row(modality: str, feature: str, ours: Curves, theirs: Curves) -> Row | None:
    got, want = _aligned(ours, theirs)
    if not (np.isfinite(got).all() and np.isfinite(want).all()):
        raise ValueError(f"got {modality} {feature} that is not finite; needs finite curves; check the structures for coincident atoms")
    norm = float(np.abs(want).max(initial=0.0))
    norm = float(np.abs(got).max(initial=0.0)) if norm == 0 else norm
    if norm == 0:
        return None
    error = np.abs(got.mean(axis=0) - want.mean(axis=0)).mean() / norm
    return Row(
        modality=modality,
        feature=feature,
        points=got.shape[1],
        norm=norm,
        error=float(error),
        uncertainty=_jackknife(got, want.mean(axis=0), norm),
        diversity=float(want.std(axis=0).mean() / norm),
        generated_diversity=float(got.std(axis=0).mean() / norm),
        replicas=(len(got), len(want)),
    )


def _jackknife(got: np.ndarray, mean: np.ndarray, norm: float) -> float | None:
    """Standard error of the error from leaving out one generated replica at a time."""
    n = len(got)
    if n < 2:
        return None
    without = (got.sum(axis=0) - got) / (n - 1)
    errors = np.abs(without - mean).mean(axis=1) / norm
    return float(np.sqrt((n - 1) / n * np.sum((errors - errors.mean()) ** 2)))


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
