"""Which studies enter a batch, which words of their reports, and which pairs are no true negatives."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import torch

from cmlr_utils.data.reports import Study

NORMAL_WEIGHT, LARGEST_WEIGHT = 0.5, 6.0
FINDING_SENTENCE_CHANCE, SUBSET_CHANCE = 0.6, 0.5
FINDING_WORDS = (  # in the order of PATHOLOGIES
    r"atelecta",
    r"cardiomegaly|enlarge|heart size|cardiac silhouette",
    r"consolidat",
    r"edema",
    r"effusion|pleural fluid",
)
NEGATION = re.compile(r"\b(no|not|without|negative|clear|free|resolved|normal)\b")


def sampling_weights(labels: np.ndarray) -> np.ndarray:
    """The chance of each study to be drawn, float [n], sum 1: rare findings more often, studies without any less.

    labels float [n, 5]; NaN (not coded) counts as without. A finding's weight falls with the
    root of its frequency and is at most LARGEST_WEIGHT.
    """
    present = np.nan_to_num(labels) == 1
    frequency = np.maximum(present.sum(0), 1)
    per_finding = np.minimum(LARGEST_WEIGHT, 1.6 * np.sqrt(300 / frequency))
    weights = np.where(present, per_finding, NORMAL_WEIGHT).max(1)
    return weights / weights.sum()


def finding_sentences(study: Study) -> list[str]:
    """The sentences that affirm one of the study's own coded findings."""
    patterns = [pattern for pattern, label in zip(FINDING_WORDS, study.labels, strict=True) if label == 1]
    return [
        sentence
        for sentence in study.sentences
        if any(re.search(pattern, sentence) for pattern in patterns) and not NEGATION.search(sentence)
    ]


def draw_text(sentences: Sequence[str], with_finding: Sequence[str], rng: np.random.Generator) -> str:
    """A training text: the sentences that carry the findings, or a part of the report, or all of it, in random order.

    A short text leaves a finding less to hide behind; a prompt is short, too.
    """
    if with_finding and rng.random() < FINDING_SENTENCE_CHANCE:
        chosen = list(with_finding)
    else:
        chosen = list(sentences)
        if len(chosen) > 2 and rng.random() < SUBSET_CHANCE:
            chosen = list(rng.choice(chosen, max(1, int(np.ceil(len(chosen) * rng.uniform(0.4, 1)))), replace=False))
    return " ".join(rng.permutation(chosen))


def false_negatives(texts: Sequence[str], normal: np.ndarray) -> torch.Tensor:
    """Pairs of a batch that are no true negatives, bool [B, B]: the same text, or two normal studies.

    `normal` bool [B]. One normal report is as true of another normal radiograph as its own.
    """
    codes = np.unique(np.asarray(texts), return_inverse=True)[1]
    return torch.from_numpy((codes[:, None] == codes) | (normal[:, None] & normal))
