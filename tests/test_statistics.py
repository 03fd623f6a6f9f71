"""AUCs against scikit-learn, and their intervals against a plain bootstrap."""

from __future__ import annotations

import json

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from cmlr_utils.data.files import CourseError
from cmlr_utils.evaluation import statistics
from cmlr_utils.evaluation.statistics import as_json, aucs


def study_scores(n: int = 120, classes: int = 5, patients: int = 50, ties: bool = True, seed: int = 0):
    rng = np.random.default_rng(seed)
    labels = (rng.random((n, classes)) < 0.3).astype(float)
    scores = labels + rng.normal(0, 1.2, (n, classes))
    return labels, np.round(scores, 1) if ties else scores, rng.integers(0, patients, n).astype(str)


@pytest.mark.parametrize("ties", [True, False])
@pytest.mark.parametrize("seed", range(4))
def test_values_equal_scikit_learns(ties, seed):
    labels, scores, patients = study_scores(ties=ties, seed=seed)
    per_class, average = aucs(labels, scores, patients)
    expected = [roc_auc_score(labels[:, k], scores[:, k]) for k in range(5)]
    assert [auc.value for auc in per_class] == pytest.approx(expected, abs=1e-12)
    assert average.value == pytest.approx(np.mean(expected), abs=1e-12)
    assert [auc.positives for auc in per_class] == labels.sum(0).tolist()
    assert all(auc.positives + auc.negatives == 120 for auc in per_class)
    assert average.positives == labels.sum() and average.positives + average.negatives == 600


def test_intervals_equal_a_plain_bootstrap_over_patients(monkeypatch):
    """The same draws, each made into a list of images and scored by scikit-learn."""
    monkeypatch.setattr(statistics, "RESAMPLES", 200)
    labels, scores, patients = study_scores(n=60, classes=2, patients=20)
    names = np.unique(patients)
    draws = np.random.default_rng(statistics.SEED).multinomial(len(names), np.full(len(names), 1 / len(names)), 200)
    samples = []
    for draw in draws:
        images = [
            i for name, times in zip(names, draw, strict=True) for i in np.flatnonzero(patients == name).repeat(times)
        ]
        samples.append([roc_auc_score(labels[images, k], scores[images, k]) for k in range(2)])
    per_class, average = aucs(labels, scores, patients)
    for k in range(2):
        bounds = np.percentile(np.array(samples)[:, k], (2.5, 97.5))
        assert (per_class[k].low, per_class[k].high) == pytest.approx(tuple(bounds), abs=1e-12)
    bounds = np.percentile(np.mean(samples, axis=1), (2.5, 97.5))
    assert (average.low, average.high) == pytest.approx(tuple(bounds), abs=1e-12)


def test_an_interval_has_the_width_that_theory_gives():
    """Hanley and McNeil's standard error (Radiology 1982) for one image per patient."""
    rng = np.random.default_rng(1)
    labels = np.repeat([1.0, 0.0], [40, 160])[:, None]
    scores = rng.normal(size=(200, 1)) + labels
    _, auc = aucs(labels, scores, np.arange(200))
    a, n, m = auc.value, 40, 160
    variance = (a * (1 - a) + (n - 1) * (a / (2 - a) - a**2) + (m - 1) * (2 * a**2 / (1 + a) - a**2)) / (n * m)
    assert auc.high - auc.low == pytest.approx(2 * 1.96 * variance**0.5, rel=0.15)
    assert auc.low < auc.value < auc.high


def test_many_images_of_one_patient_do_not_narrow_the_interval():
    labels, scores, _ = study_scores(n=40, ties=False)
    _, once = aucs(labels, scores, np.arange(40))
    _, five_times = aucs(np.tile(labels, (5, 1)), np.tile(scores, (5, 1)), np.tile(np.arange(40), 5))
    assert (five_times.value, five_times.low, five_times.high) == pytest.approx((once.value, once.low, once.high))
    _, as_if_independent = aucs(np.tile(labels, (5, 1)), np.tile(scores, (5, 1)), np.arange(200))
    assert as_if_independent.high - as_if_independent.low < 0.6 * (once.high - once.low)


def test_the_same_numbers_every_time():
    assert aucs(*study_scores()) == aucs(*study_scores())


@pytest.mark.parametrize("only", [0.0, 1.0])
def test_a_class_with_one_kind_of_label_gets_none_and_stays_out_of_the_average(only):
    labels, scores, patients = study_scores()
    labels[:, 2] = only
    per_class, average = aucs(labels, scores, patients)
    assert per_class[2] is None and all(per_class[k] for k in (0, 1, 3, 4))
    assert average.value == pytest.approx(np.mean([per_class[k].value for k in (0, 1, 3, 4)]))


def test_a_single_positive_still_has_an_interval():
    labels = np.zeros((30, 1))
    labels[4] = 1
    _, auc = aucs(labels, np.arange(30.0)[:, None], np.arange(30))
    assert np.isfinite([auc.value, auc.low, auc.high]).all() and auc.positives == 1


def test_perfect_useless_and_reversed_scores():
    labels = np.tile([1.0, 0.0], 20)[:, None]
    for scores, value in ((labels, 1), (np.zeros_like(labels), 0.5), (-labels, 0)):
        _, auc = aucs(labels, scores, np.arange(40))
        assert (auc.value, auc.low, auc.high) == (value, value, value)


@pytest.mark.parametrize(
    "labels, scores, patients, why",
    [
        (np.zeros((4, 2)), np.zeros((4, 3)), np.zeros(4), "do not fit together"),
        (np.zeros((4, 2)), np.zeros((4, 2)), np.zeros(3), "do not fit together"),
        (np.array([[0.0], [np.nan]]), np.zeros((2, 1)), np.zeros(2), "labels of 0 or 1"),
        (np.array([[0.0], [-1]]), np.zeros((2, 1)), np.zeros(2), "labels of 0 or 1"),
        (np.array([[0.0], [1]]), np.array([[0], [np.nan]]), np.zeros(2), "finite scores"),
        (np.zeros((3, 2)), np.zeros((3, 2)), np.zeros(3), "No class has both"),
    ],
)
def test_what_cannot_be_scored_is_said(labels, scores, patients, why):
    with pytest.raises(CourseError, match=why):
        aucs(labels, scores, patients)


def test_results_are_plain_numbers_under_their_names():
    labels, scores, patients = study_scores()
    labels[:, 1] = 0
    named = json.loads(json.dumps(as_json(*aucs(labels, scores, patients))))
    assert list(named) == ["atelectasis", "cardiomegaly", "consolidation", "edema", "pleural effusion", "average"]
    assert named["cardiomegaly"] is None and set(named["edema"]) == {"value", "low", "high", "positives", "negatives"}
