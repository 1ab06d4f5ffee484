"""How well one ensemble reproduces another: error, diversity and their difference dED per modality and feature (GLASS, SI section 2.6).

For the curves f of one feature (a pair, a triplet, an element, or the total) of one modality, on the points of its axis:

    norm      = max |f_reference| over all reference replicas and all points of that feature
    diversity = mean over the points of the population standard deviation over the reference replicas / norm
    error     = mean over the points of |mean over generated replicas - mean over reference replicas| / norm
    dED       = error - diversity

dED <= 0: the generated mean is no farther from the reference than its replicas are from each other. The diversity of the generated replicas
(same norm) over that of the reference tells a collapsed ensemble (below `COLLAPSED`) from one as varied as the reference; for this ratio both
deviations are freed of the bias of few normally distributed replicas. A modality's numbers are the means over its features. The error of n perfect
replicas against m of the reference is not 0 but falls as sqrt(1 / n + 1 / m). Uncertainties are jackknife standard errors (one replica left out at a
time; too large rather than too small for few replicas, B. Efron and C. Stein, Ann. Stat. 9, 586 (1981)): of the error from the generated replicas,
of the ratio from those of both ensembles.
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
      without: errors and generated diversities without each generated replica in turn, and diversities of the reference without each of its own.
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
    without: tuple[tuple[float, ...], tuple[float, ...], tuple[float, ...]]

    @property
    def ded(self) -> float:
        """dED = error - diversity; at most 0 is the goal."""
        return self.error - self.diversity

    @property
    def diversity_ratio(self) -> float | None:
        """Generated diversity over the reference's, without the bias of few replicas; None where either has one replica, or the reference none."""
        return _ratio(self.generated_diversity, self.diversity, self.replicas)

    @property
    def ratio_uncertainty(self) -> float | None:
        """Of `diversity_ratio`, from the replicas of both ensembles, by the jackknife; None where either has fewer than three."""
        return _ratio_uncertainty(self.diversity_ratio, *self.without[1:])

    def to_dict(self) -> dict:
        """All numbers by name."""
        facts = {k: v for k, v in dataclasses.asdict(self).items() if k != "without"}
        return facts | dict(ded=self.ded, diversity_ratio=self.diversity_ratio, ratio_uncertainty=self.ratio_uncertainty)


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
        """{modality: error, diversity, generated_diversity, ded (means over its features), diversity_ratio (of the means), and the uncertainties}."""
        found = {}
        for name in dict.fromkeys(row.modality for row in self.rows):
            rows = [row for row in self.rows if row.modality == name]
            one = {key: float(np.mean([getattr(r, key) for r in rows])) for key in ("error", "diversity", "generated_diversity", "ded")}
            ratio = _ratio(one["generated_diversity"], one["diversity"], rows[0].replicas)
            errors, ours, theirs = (np.mean([row.without[i] for row in rows], axis=0) for i in range(3))
            doubt = dict(uncertainty=_jackknife(errors), ratio_uncertainty=_ratio_uncertainty(ratio, ours, theirs))
            found[name] = one | dict(diversity_ratio=ratio) | doubt
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
        head = f"{'modality':<13} {'feature':<12} {'error':>8} {'+-':>7} {'diversity':>10} {'dED':>9} {'ratio':>6} {'+-':>5}"
        lines, means = [head], self.modalities()
        for name, mean in means.items():
            rows = [row for row in self.rows if row.modality == name]
            lines += [_line(name, row.feature, row.to_dict()) for row in rows]
            if len(rows) > 1:
                lines.append(_line(name, "mean", mean))
        return "\n".join(lines)


def share_seen(n: int) -> float:
    """Expected population standard deviation of ``n`` normal numbers over the true one: sqrt(2 / n) Gamma(n / 2) / Gamma((n - 1) / 2)."""
    return math.sqrt(2.0 / n) * math.exp(math.lgamma(n / 2) - math.lgamma((n - 1) / 2))


def _ratio(ours: float, theirs: float, replicas: tuple[int, int]) -> float | None:
    """Ratio of two population deviations of so many replicas each, without bias."""
    if min(replicas) < 2 or not theirs > 0:
        return None
    return ours / share_seen(replicas[0]) * share_seen(replicas[1]) / theirs


def _jackknife(without) -> float | None:
    """Standard error of a number from its values without each replica in turn; None for one replica."""
    n = len(without)
    if n < 2:
        return None
    without = np.asarray(without)
    return float(np.sqrt((n - 1) / n * np.sum((without - without.mean()) ** 2)))


def _ratio_uncertainty(ratio: float | None, *without) -> float | None:
    """Standard error of a ratio of diversities from both without each replica in turn; None for fewer than three replicas: two have one deviation."""
    if ratio is None or min(map(len, without)) < 3 or not min(np.mean(one) for one in without) > 0:
        return None
    return ratio * math.hypot(*(_jackknife(one) / float(np.mean(one)) for one in without))


def _line(modality: str, feature: str, numbers: dict) -> str:
    doubt, ratio, spread = (numbers[key] for key in ("uncertainty", "diversity_ratio", "ratio_uncertainty"))
    note = "" if ratio is None or ratio >= COLLAPSED else "  varies too little"
    error = f"{numbers['error']:8.4f} {'' if doubt is None else f'{doubt:.4f}':>7}"
    ratios = f"{'-' if ratio is None else f'{ratio:.2f}':>6} {'' if spread is None else f'{spread:.2f}':>5}"
    return f"{modality:<13} {feature:<12} {error} {numbers['diversity']:10.4f} {numbers['ded']:+9.4f} {ratios}{note}".rstrip()


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
    mean = want.mean(axis=0)
    errors = tuple(float(np.abs(rest.mean(axis=0) - mean).mean() / norm) for rest in _left_out(got))
    spreads = [tuple(float(rest.std(axis=0).mean() / norm) for rest in _left_out(values)) for values in (got, want)]
    return Row(
        modality=modality,
        feature=feature,
        points=got.shape[1],
        norm=norm,
        error=float(np.abs(got.mean(axis=0) - mean).mean() / norm),
        uncertainty=_jackknife(errors),
        diversity=float(want.std(axis=0).mean() / norm),
        generated_diversity=float(got.std(axis=0).mean() / norm),
        replicas=(len(got), len(want)),
        without=(errors, *spreads),
    )


def _left_out(values: np.ndarray):
    """``values`` [n, points] without each of their n replicas in turn; nothing of a single one."""
    return [np.delete(values, i, axis=0) for i in range(len(values))] if len(values) > 1 else []


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
