"""AUCs with their intervals."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cmlr_utils.data.files import CourseError
from cmlr_utils.data.mesh import PATHOLOGIES

RESAMPLES, SEED = 2_000, 0


@dataclass(frozen=True)
class Auc:
    """The area under a ROC curve, its 95 % interval, and how many it rests on."""

    value: float
    low: float
    high: float
    positives: int
    negatives: int

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def aucs(labels: np.ndarray, scores: np.ndarray, patients: np.ndarray) -> tuple[list[Auc | None], Auc]:
    """The AUC of each of K classes and their average, with 95 % percentile intervals from a bootstrap over patients.

    labels [n, K], 1 or 0; scores [n, K], higher means present; patients [n]. All images of a patient are drawn
    together, 2,000 times with a fixed seed, and the same draw serves all classes. A class without both positives and
    negatives gets None and stays out of the average, whose counts are sums over the other classes.
    Raises CourseError if shapes differ, a label is not coded, or no class can be scored.
    """
    if labels.shape != scores.shape or len(labels) != len(patients):
        raise CourseError(
            f"Labels {labels.shape}, scores {scores.shape} and {len(patients)} patients do not fit together."
        )
    if not np.isin(labels, (0, 1)).all() or not np.isfinite(scores).all():
        raise CourseError("AUCs need labels of 0 or 1 and finite scores: leave uncoded studies out first.")
    names, patient = np.unique(patients, return_inverse=True)
    rng = np.random.default_rng(SEED)
    draws = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=RESAMPLES)
    weights = draws[:, patient].astype(np.float64)  # [RESAMPLES, n]: how often each image was drawn
    per_class, samples = [], []
    for present, score in zip(labels.T == 1, scores.T, strict=True):
        if present.all() or not present.any():
            per_class.append(None)
            continue
        # 1 where a positive outranks a negative, 1/2 where they tie; an AUC is the mean of these
        wins = (score[present][:, None] > score[~present]) + 0.5 * (score[present][:, None] == score[~present])
        of_positives, of_negatives = weights[:, present], weights[:, ~present]
        pairs = of_positives.sum(1) * of_negatives.sum(1)
        sample = np.full(RESAMPLES, np.nan)
        drawn = pairs > 0
        sample[drawn] = ((of_positives[drawn] @ wins) * of_negatives[drawn]).sum(1) / pairs[drawn]
        samples.append(sample)
        per_class.append(summary(wins.mean(), sample, int(present.sum()), int((~present).sum())))
    scored = [auc for auc in per_class if auc]
    if not scored:
        raise CourseError("No class has both positives and negatives, so there is no AUC: use more studies.")
    average = summary(
        np.mean([auc.value for auc in scored]),
        np.mean(samples, axis=0),
        sum(auc.positives for auc in scored),
        sum(auc.negatives for auc in scored),
    )
    return per_class, average


def summary(value: float, sample: np.ndarray, positives: int, negatives: int) -> Auc:
    low, high = np.nanpercentile(sample, (2.5, 97.5))
    return Auc(float(value), float(low), float(high), positives, negatives)


def as_json(per_class: list[Auc | None], average: Auc) -> dict:
    """The AUCs as plain numbers under the names of the pathologies and "average"."""
    named = dict(zip((*PATHOLOGIES, "average"), (*per_class, average), strict=True))
    return {name: vars(auc) if auc else None for name, auc in named.items()}
