"""Retrieval against a brute-force search, and chance against a simulation."""

from __future__ import annotations

import numpy as np
import pytest

from cmlr_utils.evaluation.retrieval import RANKS, recall

TEXTS = ["normal"] * 6 + ["effusion", "edema"] * 2 + [f"finding {i}" for i in range(12)]


def similarity_of(texts, seed: int = 0) -> np.ndarray:
    """Random scores with a hint of the truth; identical reports have identical columns."""
    rng = np.random.default_rng(seed)
    column = {text: rng.normal(size=len(texts)) for text in sorted(set(texts))}
    scores = np.stack([column[text] for text in texts], axis=1)
    return scores + np.array([[texts[i] == texts[j] for j in range(len(texts))] for i in range(len(texts))])


def brute_force(similarity, texts):
    """Rank by rank: sort, walk down, count until the first hit."""
    reports = sorted(set(texts))
    image_ranks, text_ranks = [], []
    for i in range(len(texts)):
        order = sorted(reports, key=lambda report: -similarity[i, texts.index(report)])
        image_ranks.append(1 + order.index(texts[i]))
    for report in reports:
        order = sorted(range(len(texts)), key=lambda i: -similarity[i, texts.index(report)])
        text_ranks.append(1 + next(place for place, i in enumerate(order) if texts[i] == report))
    return image_ranks, text_ranks


@pytest.mark.parametrize("seed", range(5))
def test_recall_equals_a_brute_force_search(seed):
    similarity = similarity_of(TEXTS, seed)
    results = recall(similarity, TEXTS)
    for direction, ranks in zip(("image to report", "report to image"), brute_force(similarity, TEXTS), strict=True):
        assert results[direction]["n"] == len(ranks)
        assert results[direction]["median rank"] == np.median(ranks)
        for k in RANKS:
            assert results[direction][f"R@{k}"] == pytest.approx(np.mean(np.array(ranks) <= k))


def test_chance_equals_a_simulation():
    rng = np.random.default_rng(0)
    results = recall(similarity_of(TEXTS), TEXTS)
    reports = sorted(set(TEXTS))
    found = {direction: dict.fromkeys(RANKS, 0.0) for direction in results}
    for _ in range(1_000):
        images, order = rng.permutation(len(TEXTS)), rng.permutation(len(reports))
        for k in RANKS:
            seen = {TEXTS[i] for i in images[:k]}
            found["report to image"][k] += np.mean([report in seen for report in reports]) / 1_000
            named = {reports[r] for r in order[:k]}
            found["image to report"][k] += np.mean([text in named for text in TEXTS]) / 1_000
    for direction, chances in found.items():
        for k in RANKS:
            assert results[direction][f"chance R@{k}"] == pytest.approx(chances[k], abs=0.03)


def test_a_perfect_order_finds_everything():
    same = np.array([[a == b for b in TEXTS] for a in TEXTS], float)
    for direction in recall(same, TEXTS).values():
        assert direction["R@1"] == 1 and direction["median rank"] == 1


def test_scores_that_are_all_alike_find_nothing():
    """A collapsed model must not look like a perfect one."""
    for direction in recall(np.zeros((22, 22)), TEXTS).values():
        assert direction["R@1"] <= 0.1 and direction["median rank"] > 5


def test_identical_reports_count_as_one():
    results = recall(similarity_of(TEXTS), TEXTS)
    assert results["image to report"]["n"] == 22 and results["report to image"]["n"] == 15


def test_fewer_reports_than_ranks_are_no_harm():
    results = recall(np.eye(2), ["a", "b"])
    assert all(direction["R@10"] == direction["chance R@10"] == 1 for direction in results.values())
