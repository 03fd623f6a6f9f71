"""Retrieval: find the report of a radiograph, and the radiograph of a report."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

RANKS = (1, 5, 10)


def recall(similarity: np.ndarray, texts: Sequence[str]) -> dict[str, dict[str, float]]:
    """Recall at 1, 5 and 10 and the median rank, from image to report and from report to image.

    similarity [n images, n reports], pair i on the diagonal; texts are the n reports. Identical reports count
    as one: a radiograph has found its report if it found the same words, and a report its radiograph if it found any
    radiograph with these words.
    Whoever ties stands in the middle of those with the same score.
    `chance` is the recall at each rank of a random order.
    """
    reports, report_of = np.unique(np.asarray(texts), return_inverse=True)
    first = np.array([np.flatnonzero(report_of == r)[0] for r in range(len(reports))])
    scores = similarity[:, first]  # [n images, m reports]: identical texts have identical columns
    own = scores[np.arange(len(scores)), report_of]
    image_ranks = 1 + (scores > own[:, None]).sum(1) + ((scores == own[:, None]).sum(1) - 1) / 2
    is_own = report_of[:, None] == np.arange(len(reports))
    best_own = np.where(is_own, scores, -np.inf).max(0)
    text_ranks = 1 + (scores > best_own).sum(0) + ((scores == best_own) & ~is_own).sum(0) / 2
    copies = np.bincount(report_of)
    return {
        "image to report": summary(image_ranks, {k: k / len(reports) for k in RANKS}),
        "report to image": summary(text_ranks, {k: chance_of_any(copies, len(scores), k) for k in RANKS}),
    }


def summary(ranks: np.ndarray, chance: dict[int, float]) -> dict[str, float]:
    found = {f"R@{k}": float((ranks <= k).mean()) for k in RANKS}
    return {**found, "median rank": float(np.median(ranks)), "n": len(ranks)} | {
        f"chance R@{k}": min(1.0, chance[k]) for k in RANKS
    }


def chance_of_any(copies: np.ndarray, num_images: int, k: int) -> float:
    """The mean chance that k random images hold at least one of a report's `copies`."""
    missed = np.ones(len(copies))
    for drawn in range(k):
        missed *= np.clip((num_images - copies - drawn) / max(num_images - drawn, 1), 0, 1)
    return float((1 - missed).mean())
