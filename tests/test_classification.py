"""The linear probe, and the fractions of labels that it is given."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from cmlr_utils.data.files import CourseError
from cmlr_utils.evaluation.classification import label_fraction, linear_probe


def separable(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Features whose first five carry one label each, among noise, on very different scales."""
    rng = np.random.default_rng(seed)
    labels = (rng.random((n, 5)) < 0.3).astype(float)
    features = rng.normal(size=(n, 20))
    features[:, :5] += 3 * labels
    return features * 10.0 ** np.arange(-10, 10), labels


def test_a_probe_finds_what_the_features_carry():
    features, labels = separable(300, 0)
    test_features, test_labels = separable(200, 1)
    scores = linear_probe(features, labels, test_features)
    assert scores.shape == (200, 5)
    assert min(roc_auc_score(test_labels[:, k], scores[:, k]) for k in range(5)) > 0.95


def test_a_probe_finds_nothing_in_noise():
    features, labels = separable(300, 0)
    _, test_labels = separable(400, 1)
    scores = linear_probe(features, labels, np.random.default_rng(2).normal(size=(400, 20)))
    assert all(abs(roc_auc_score(test_labels[:, k], scores[:, k]) - 0.5) < 0.12 for k in range(5))


@pytest.mark.parametrize("only", [0.0, 1.0])
def test_labels_that_are_all_alike_are_named(only):
    features, labels = separable(50, 0)
    labels[:, 3] = only
    with pytest.raises(CourseError, match="labels of edema are all alike"):
        linear_probe(features, labels, features)


def rare_labels() -> np.ndarray:
    rng = np.random.default_rng(0)
    return (rng.random((1_000, 5)) < [0.1, 0.1, 0.004, 0.01, 0.05]).astype(float)


@pytest.mark.parametrize("fraction", [0.01, 0.1, 0.5, 1.0])
def test_a_fraction_has_its_size_and_at_least_two_positives_of_each(fraction):
    labels = rare_labels()
    chosen = label_fraction(labels, fraction)
    assert len(set(chosen)) == len(chosen) and np.all(np.diff(chosen) > 0)
    assert fraction * 1_000 <= len(chosen) <= fraction * 1_000 + 10
    assert (labels[chosen].sum(0) >= 2).all()


def test_smaller_fractions_lie_in_larger_ones():
    drawn = [set(label_fraction(rare_labels(), fraction)) for fraction in (0.01, 0.1, 0.5, 1)]
    assert drawn[0] < drawn[1] < drawn[2] < drawn[3]


def test_the_seed_decides():
    labels = rare_labels()
    assert (label_fraction(labels, 0.1) == label_fraction(labels, 0.1)).all()
    assert set(label_fraction(labels, 0.1)) != set(label_fraction(labels, 0.1, seed=1))


@pytest.mark.parametrize("fraction", [0, -0.1, 1.1])
def test_a_fraction_out_of_range_is_named(fraction):
    with pytest.raises(CourseError, match=f"fraction={fraction}"):
        label_fraction(rare_labels(), fraction)
