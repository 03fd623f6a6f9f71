"""Supervised diagnosis: a linear probe on what the image encoder has learned."""

from __future__ import annotations

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from cmlr_utils.data.files import CourseError
from cmlr_utils.data.mesh import PATHOLOGIES

REGULARISATION = 0.01  # scikit-learn's C: small, because positives are few and features many
FOLDS = 5


def linear_probe(features: np.ndarray, labels: np.ndarray, test_features: np.ndarray) -> np.ndarray:
    """Fit one logistic regression for each pathology on frozen features, and score the test radiographs.

    features [n, F], labels [n, 5] of 0 and 1, test_features [m, F]. Returns decision scores [m, 5].
    Raises CourseError naming a pathology without positives or negatives among the training labels.
    """
    scores = []
    for name, present in zip(PATHOLOGIES, labels.T, strict=True):
        if len(np.unique(present)) < 2:
            raise CourseError(
                f"The training labels of {name} are all alike: a probe needs studies with and without it."
            )
        scores.append(new_probe().fit(features, present).decision_function(test_features))
    return np.stack(scores, axis=1)


def new_probe() -> Pipeline:
    return make_pipeline(StandardScaler(), LogisticRegression(C=REGULARISATION, class_weight="balanced", max_iter=500))


def cross_validated_probe(features: np.ndarray, labels: np.ndarray, patients: np.ndarray) -> np.ndarray:
    """Score every radiograph by a linear probe fitted on the other patients', in five folds with a fixed seed.

    features [n, F], labels [n, 5] of 0 and 1, patients [n]; for a set that is too small to be parted once and for all.
    Returns decision scores [n, 5]. Raises CourseError naming a pathology with too few patients on either side.
    """
    scores = []
    for name, present in zip(PATHOLOGIES, labels.T, strict=True):
        if min(len(np.unique(patients[present == value])) for value in (0, 1)) < 2:
            raise CourseError(
                f"{name} needs two patients with it and two without: a probe is tested on other patients."
            )
        folds = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=0)
        scores.append(
            cross_val_predict(new_probe(), features, present, groups=patients, cv=folds, method="decision_function")
        )
    return np.stack(scores, axis=1)


def label_fraction(labels: np.ndarray, fraction: float, seed: int = 0) -> np.ndarray:
    """Indices of a random `fraction` of the training studies that keeps at least two positives of each pathology.

    labels [n, 5] of 0 and 1; 0 < fraction <= 1. What is drawn at a small fraction is also in every larger one.
    """
    if not 0 < fraction <= 1:
        raise CourseError(f"fraction={fraction} must be above 0 and at most 1.")
    order = np.random.default_rng(seed).permutation(len(labels))
    first_positives = {int(i) for present in labels.T for i in order[present[order] == 1][:2]}
    return np.array(sorted(first_positives | set(order[: round(fraction * len(labels))].tolist())))
