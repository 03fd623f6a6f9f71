"""Which studies, which words and which negatives enter a batch."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from cmlr_utils.training.sampling import draw_text, false_negatives, finding_sentences, sampling_weights


def test_rarer_findings_are_drawn_more_often():
    labels = np.zeros((2_000, 5), np.float32)
    for finding, number in enumerate((300, 350, 20, 40, 150)):
        start = [0, 300, 650, 670, 710][finding]
        labels[start : start + number, finding] = 1
    weights = sampling_weights(labels)
    assert weights.sum() == pytest.approx(1) and (weights > 0).all()
    normal, by_finding = weights[-1], [weights[start] for start in (0, 300, 650, 670, 710)]
    assert all(weight > normal for weight in by_finding)
    assert np.argsort(by_finding).tolist() in ([1, 0, 4, 3, 2], [1, 0, 4, 2, 3])  # the rarest two may share the limit
    assert max(by_finding) <= 6 / 0.5 * normal + 1e-12


def test_a_study_with_two_findings_counts_as_its_rarer_one():
    labels = np.zeros((500, 5), np.float32)
    labels[:100, 0], labels[99:103, 2] = 1, 1
    weights = sampling_weights(labels)
    assert weights[99] == weights[102] > weights[0]


def test_uncoded_counts_as_without_and_an_absent_finding_divides_by_nothing():
    labels = np.zeros((4, 5), np.float32)
    labels[1] = np.nan
    assert sampling_weights(labels).tolist() == [0.25] * 4


def test_finding_sentences_affirm_a_coded_finding(small_set):
    study = replace(
        small_set[0],
        labels=np.array([0, 0, 0, 0, 1], np.float32),
        findings="Small left effusion. No right effusion. Heart size is enlarged. Lungs without edema.",
        impression="Pleural fluid on the left.",
    )
    assert finding_sentences(study) == ["small left effusion.", "pleural fluid on the left."]
    assert finding_sentences(replace(study, labels=np.zeros(5, np.float32))) == []
    assert finding_sentences(replace(study, labels=np.full(5, np.nan, np.float32))) == []


def test_a_drawn_text_is_made_of_the_reports_sentences():
    sentences, with_finding = ["a.", "b.", "c.", "d."], ["b.", "d."]
    rng = np.random.default_rng(0)
    drawn = [tuple(draw_text(sentences, with_finding, rng).split()) for _ in range(500)]
    assert all(set(text) <= set(sentences) and len(set(text)) == len(text) >= 1 for text in drawn)
    only_findings = np.mean([set(text) == set(with_finding) for text in drawn])
    whole = np.mean([len(text) == 4 for text in drawn])
    assert 0.55 < only_findings < 0.75 and 0.15 < whole < 0.35
    assert {text for text in drawn if len(text) == 2} >= {("b.", "d."), ("d.", "b.")}


def test_a_report_of_one_sentence_is_drawn_as_it_is():
    rng = np.random.default_rng(0)
    assert {draw_text(["no edema."], [], rng) for _ in range(20)} == {"no edema."}


def test_the_same_text_and_two_normal_studies_are_no_negatives():
    texts, normal = ["a", "b", "a", "c", "d"], np.array([False, True, False, True, False])
    marked = false_negatives(texts, normal)
    expected = [
        [texts[i] == texts[j] or bool(normal[i] and normal[j]) for j in range(len(texts))] for i in range(len(texts))
    ]
    assert marked.tolist() == expected
