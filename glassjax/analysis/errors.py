"""How well one ensemble reproduces another: error, diversity and their difference dED per modality and feature (GLASS, SI section 2.6).

For the curves f of one feature (a pair, a triplet, an element, or the total) of one modality, on the points of its axis:

    norm      = max |f_reference| over all reference replicas and all points of that feature
    diversity = mean over the points of the population standard deviation over the reference replicas / norm
    error     = mean over the points of |mean over generated replicas - mean over reference replicas| / norm
    dED       = error - diversity

dED <= 0: the generated mean is no farther from the reference than its replicas are from each other. The diversity of the generated replicas (same
norm) over that of the reference tells a collapsed ensemble (below `comparison.COLLAPSED`) from one as varied as the reference; for this ratio both
deviations are freed of the bias of few normally distributed replicas. A modality's numbers are the means over its features. The error of n perfect
replicas against m of the reference is not 0 but falls as sqrt(1 / n + 1 / m). Uncertainties are jackknife standard errors, one replica left out at a
time, of three replicas or more: of the error from the generated replicas, of dED and of the ratio from those of both ensembles. The jackknife's
variance is on average not too small (B. Efron and C. Stein, Ann. Stat. 9, 586 (1981)); in trials with few replicas it was too large by half.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np


class LeftOut(NamedTuple):
    """Error and diversity without each replica of one ensemble in turn, [replicas] each; empty for one replica.

    Without a generated replica, the diversity is that of the generated; without one of the reference, that of the reference.
    """

    errors: tuple[float, ...]
    diversities: tuple[float, ...]


@dataclasses.dataclass(frozen=True)
class Row:
    """One feature of a comparison; the formulas are above.

    Attributes:
      modality: such as "ADF".
      feature: such as "O-Si-O".
      points: of the axis.
      norm: in the unit of the curve.
      error: |mean - mean| / norm.
      diversity: of the reference.
      generated_diversity: the same of the generated ensemble.
      replicas: (generated, reference).
      without: what is left without single replicas, of (generated, reference).
    """

    modality: str
    feature: str
    points: int
    norm: float
    error: float
    diversity: float
    generated_diversity: float
    replicas: tuple[int, int]
    without: tuple[LeftOut, LeftOut]

    @property
    def uncertainty(self) -> float | None:
        """Of the error from the generated replicas alone, by the jackknife; None for fewer than three."""
        return _jackknife(self.without[0].errors)

    @property
    def ded(self) -> float:
        """dED = error - diversity; at most 0 is the goal."""
        return self.error - self.diversity

    @property
    def ded_uncertainty(self) -> float | None:
        """Of `ded`, from the replicas of both ensembles, by the jackknife; None where either has fewer than three."""
        return _ded_uncertainty(*self.without)

    @property
    def diversity_ratio(self) -> float | None:
        """Generated diversity over the reference's, without the bias of few replicas; None where either has one replica, or the reference none."""
        return _ratio(self.generated_diversity, self.diversity, self.replicas)

    @property
    def ratio_uncertainty(self) -> float | None:
        """Of `diversity_ratio`, from the replicas of both ensembles, by the jackknife; None where either has fewer than three."""
        return _ratio_uncertainty(self.diversity_ratio, *self.without)

    def to_dict(self) -> dict:
        """All numbers by name."""
        facts = {field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.name != "without"}
        return facts | {name: getattr(self, name) for name in ("uncertainty", "ded", "ded_uncertainty", "diversity_ratio", "ratio_uncertainty")}


def row_of(modality: str, feature: str, got: np.ndarray, want: np.ndarray) -> Row | None:
    """`Row` of one feature: generated and reference curves [replicas, points]; None where both vanish.

    Raises:
      ValueError: values that are not finite.
    """
    if not (np.isfinite(got).all() and np.isfinite(want).all()):
        raise ValueError(f"got {modality} {feature} that is not finite; needs finite curves; check the structures for coincident atoms")
    norm = float(np.abs(want).max(initial=0.0))
    norm = float(np.abs(got).max(initial=0.0)) if norm == 0 else norm
    if norm == 0:
        return None
    generated = LeftOut(tuple(_error(g, want) / norm for g in _left_out(got)), tuple(_spread(g) / norm for g in _left_out(got)))
    reference = LeftOut(tuple(_error(got, w) / norm for w in _left_out(want)), tuple(_spread(w) / norm for w in _left_out(want)))
    return Row(
        modality=modality,
        feature=feature,
        points=got.shape[1],
        norm=norm,
        error=_error(got, want) / norm,
        diversity=_spread(want) / norm,
        generated_diversity=_spread(got) / norm,
        replicas=(len(got), len(want)),
        without=(generated, reference),
    )


def _error(got: np.ndarray, want: np.ndarray) -> float:
    """Mean over the points of |mean - mean| of curves [replicas, points]."""
    return float(np.abs(got.mean(axis=0) - want.mean(axis=0)).mean())


def _spread(values: np.ndarray) -> float:
    """Mean over the points of the population standard deviation of curves [replicas, points]."""
    return float(values.std(axis=0).mean())


def _left_out(values: np.ndarray) -> Iterator[np.ndarray]:
    """``values`` [n, points] without each of their n replicas in turn, one at a time; nothing of a single one."""
    return (np.delete(values, i, axis=0) for i in range(len(values) if len(values) > 1 else 0))


def mean_of(rows: Sequence[Row]) -> dict:
    """Means over the features of one modality: error, diversity, generated_diversity, ded; diversity_ratio of the means; and the uncertainties."""
    means = {key: float(np.mean([getattr(row, key) for row in rows])) for key in ("error", "diversity", "generated_diversity", "ded")}
    ratio = _ratio(means["generated_diversity"], means["diversity"], rows[0].replicas)
    sides = [LeftOut(*np.mean([row.without[i] for row in rows], axis=0)) for i in range(2)]
    doubt = dict(
        uncertainty=_jackknife(sides[0].errors), ded_uncertainty=_ded_uncertainty(*sides), ratio_uncertainty=_ratio_uncertainty(ratio, *sides)
    )
    return means | dict(diversity_ratio=ratio) | doubt


def share_seen(n: int) -> float:
    """Expected population standard deviation of ``n`` normal numbers over the true one: sqrt(2 / n) Gamma(n / 2) / Gamma((n - 1) / 2)."""
    return math.sqrt(2.0 / n) * math.exp(math.lgamma(n / 2) - math.lgamma((n - 1) / 2))


def _ratio(ours: float, theirs: float, replicas: tuple[int, int]) -> float | None:
    """Ratio of two population deviations of so many replicas each, without bias."""
    if min(replicas) < 2 or not theirs > 0:
        return None
    return ours / share_seen(replicas[0]) * share_seen(replicas[1]) / theirs


def _jackknife(without) -> float | None:
    """Standard error of a number from its values without each replica in turn; None for fewer than three: of two replicas it may vanish by chance."""
    n = len(without)
    if n < 3:
        return None
    without = np.asarray(without)
    return float(np.sqrt((n - 1) / n * np.sum((without - without.mean()) ** 2)))


def _ded_uncertainty(generated: LeftOut, reference: LeftOut) -> float | None:
    """Standard error of error - diversity; a reference replica moves both."""
    parts = _jackknife(generated.errors), _jackknife(np.subtract(*reference))
    return None if None in parts else math.hypot(*parts)


def _ratio_uncertainty(ratio: float | None, generated: LeftOut, reference: LeftOut) -> float | None:
    """Standard error of a ratio of diversities: their relative errors, added in quadrature."""
    both = generated.diversities, reference.diversities
    if ratio is None or min(map(len, both)) < 3 or not min(np.mean(one) for one in both) > 0:
        return None
    return ratio * math.hypot(*(_jackknife(one) / float(np.mean(one)) for one in both))
