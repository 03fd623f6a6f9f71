"""Zero-shot diagnosis: the prompts, the scores that they give, and what is left out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import zscore
from sklearn.metrics import roc_auc_score

from cmlr_utils.data.files import CourseError
from cmlr_utils.data.mesh import PATHOLOGIES
from cmlr_utils.data.studies import StudySet
from cmlr_utils.evaluation.zero_shot import read_prompts, standardised, zero_shot, zero_shot_aucs

CLASSES = (*PATHOLOGIES, "normal")
PROMPTS = {name: [f"{name}.", f"mild {name}."] for name in CLASSES}


def test_the_courses_prompts_name_their_pathology():
    prompts = read_prompts()
    assert tuple(prompts) == CLASSES
    for name in PATHOLOGIES:
        assert len(prompts[name]) == len(set(prompts[name])) >= 5
        assert any(name in prompt for prompt in prompts[name])
    everything = [prompt for texts in prompts.values() for prompt in texts]
    assert all(prompt == " ".join(prompt.split()).lower() and prompt.endswith(".") for prompt in everything)


def written(tmp_path, text: str):
    path = tmp_path / "prompts.yaml"
    path.write_text(text)
    return path


def test_prompts_are_all_combinations_and_the_extra_ones(tmp_path):
    entry = "{name: x, severities: ['', mild], locations: [left, right], extra: [an x.]}"
    prompts = read_prompts(written(tmp_path, "\n".join(f"{name}: {entry}" for name in CLASSES)))
    assert sorted(prompts["edema"]) == ["an x.", "left x.", "mild left x.", "mild right x.", "right x."]


@pytest.mark.parametrize(
    "text, why",
    [
        ("edema: [", "cannot be read"),
        ("[" * 5_000, "cannot be read"),
        ("atelectasis: {name: x, locations: left}", "have no list of texts for locations of atelectasis"),
        ("a: &a [x, x]\natelectasis: {name: x, locations: [*a]}", "have no list of texts for locations of atelectasis"),
        ("", "have no atelectasis"),
        ("- edema", "have no atelectasis"),
        ("atelectasis: {name: ''}", "have no atelectasis"),
        ("atelectasis: {severities: [mild]}", "have no atelectasis"),
        ("\n".join(f"{name}: {{name: x}}" for name in PATHOLOGIES), "have no normal"),
    ],
)
def test_prompts_that_do_not_fit_are_named(tmp_path, text, why):
    with pytest.raises(CourseError, match=rf"prompts\.yaml {why}|prompts\.yaml .*{why}"):
        read_prompts(written(tmp_path, text))


def test_missing_prompts_are_named(tmp_path):
    with pytest.raises(CourseError, match="no.yaml cannot be read"):
        read_prompts(tmp_path / "no.yaml")


def test_scores_equal_a_loop_over_prompts(model, small_set):
    images = model.encode_images(small_set.images[:20])

    def mean_similarity(name):
        texts = [model.encode_texts([prompt]) for prompt in PROMPTS[name]]
        by_global = np.mean([model.global_similarity(images, text)[:, 0].numpy() for text in texts], axis=0)
        return by_global, np.mean([model.local_similarity(images, text)[:, 0].numpy() for text in texts], axis=0)

    scores = zero_shot(model, images, PROMPTS)
    normal = mean_similarity("normal")
    for k, name in enumerate(PATHOLOGIES):
        by_global, by_local = mean_similarity(name)
        close = dict(rtol=1e-3, atol=1e-5)
        np.testing.assert_allclose(scores.by_global[:, k], by_global, **close)
        np.testing.assert_allclose(scores.by_local[:, k], by_local, **close)
        loose = dict(rtol=0, atol=0.02)  # a small spread magnifies rounding
        np.testing.assert_allclose(scores.both[:, k], zscore(by_global) + zscore(by_local), **loose)
        minus_normal = zscore(by_global - normal[0]) + zscore(by_local - normal[1])
        np.testing.assert_allclose(scores.both_minus_normal[:, k], minus_normal, **loose)


def test_a_pathology_is_standardised_by_itself():
    scores = np.random.default_rng(0).normal(3, 7, (2, 50, 5))
    np.testing.assert_allclose(standardised(scores), zscore(scores, axis=1))
    constant = np.full((2, 50, 5), 4.0)
    assert (standardised(constant) == 0).all()


def test_aucs_are_those_of_the_coded_studies(model, small_set):
    studies = small_set.split("test")
    uncoded = replace(studies[0], labels=np.full(5, np.nan, np.float32))
    changed = StudySet((uncoded, *studies.studies[1:]), studies.rows, studies.store, studies.source)
    results = zero_shot_aucs(model, changed)
    assert list(results) == ["global", "local", "global + local", "global + local, minus normal"]
    coded = studies.subset(range(1, len(studies)))
    scores = zero_shot(model, model.encode_images(coded.images)).named()
    for name, (per_class, average) in results.items():
        expected = [roc_auc_score(coded.labels[:, k], scores[name][:, k]) for k in range(5)]
        assert [auc.value for auc in per_class] == pytest.approx(expected, abs=1e-9)
        assert average.value == pytest.approx(np.mean(expected), abs=1e-9)
        assert per_class[0].positives + per_class[0].negatives == len(studies) - 1


class Informed:
    """A model to whom a film's first five grey values say what it shows: scoring must find that again."""

    def encode_images(self, films):
        return films

    def encode_texts(self, prompts):
        return prompts

    def global_similarity(self, films, prompts):
        import torch

        names = [next(k for k, name in enumerate(CLASSES) if name in prompt) for prompt in prompts]
        return torch.tensor([[float(film[0, k]) if k < 5 else 0.0 for k in names] for film in films])

    local_similarity = global_similarity


def test_each_pathology_is_scored_by_its_own_prompts(small_set):
    studies = small_set.split("test")
    films = np.zeros((len(studies), 64, 64), np.uint8)
    films[:, 0, :5] = 100 * studies.labels
    scores = zero_shot(Informed(), films, PROMPTS)
    for score in scores.named().values():
        assert [roc_auc_score(studies.labels[:, k], score[:, k]) for k in range(5)] == [1] * 5
