"""Grounding: what attention points at, and the mirrored twins, with models whose answers are known."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from cmlr_utils.data.files import CourseError
from cmlr_utils.evaluation.grounding import (
    HIT_SHARE,
    constant_point,
    finding_masks,
    mask_share,
    pointing,
    side_test,
    word_attention,
)


def square_masks() -> np.ndarray:
    """Three masks [3, 8, 8]: the upper left cell of 2 x 2, a quarter of it, and nothing."""
    masks = np.zeros((3, 8, 8), bool)
    masks[0, :4, :4], masks[1, :2, :2] = True, True
    return masks


def test_the_share_of_a_cell_equals_a_count():
    masks = np.random.default_rng(0).random((3, 12, 12)) < 0.4
    share = mask_share(masks, 3, 4)
    for n in range(3):
        for row in range(3):
            for column in range(4):
                cell = masks[n, 4 * row : 4 * row + 4, 3 * column : 3 * column + 3]
                assert share[n, row, column] == pytest.approx(cell.sum() / 12)


def test_a_peak_hits_where_more_than_a_quarter_of_its_cell_is_finding():
    attention = torch.zeros(3, 2, 2)
    attention[:, 0, 0] = 1
    assert HIT_SHARE == 0.25
    assert pointing(attention, square_masks()).tolist() == [True, False, False]
    assert not pointing(attention.flip(2), square_masks()).any()


def test_the_constant_point_is_chosen_on_training_masks_only():
    training = np.zeros((4, 8, 8), bool)
    training[:3, 4:, :4], training[3, :4, :4] = True, True
    assert constant_point(training, square_masks(), 2, 2).tolist() == [False, False, False]
    assert constant_point(training[3:], square_masks(), 2, 2).tolist() == [True, False, False]


def test_masks_of_one_finding_in_the_order_of_the_studies(small_set):
    studies = small_set.split("test")
    masks = finding_masks(studies, 4)
    assert masks.dtype == bool and masks.shape == (len(studies), 64, 64)
    assert (masks.any((1, 2)) == (studies.labels[:, 4] == 1)).all()


def test_attention_of_a_word_is_that_of_its_place_in_the_text(model, small_set):
    images = model.encode_images(small_set.images[:3])
    text = "no left pleural effusion, but edema."
    all_words = model.attention(images, model.encode_texts([text]))[:, 0]
    for place, word in enumerate(["no", "left", "pleural", "effusion", ",", "but", "edema"]):
        torch.testing.assert_close(word_attention(model, images, text, word), all_words[:, place])
    attention = word_attention(model, images, text, "edema")
    assert attention.shape == (3, 4, 4)
    torch.testing.assert_close(attention.sum((1, 2)), torch.ones(3))


def test_a_word_that_the_text_has_not_is_named(model, small_set):
    images = model.encode_images(small_set.images[:1])
    with pytest.raises(CourseError, match="'small effusion.' has no word 'edema'; its words are small, effusion, ."):
        word_attention(model, images, "small effusion.", "edema")


class Looker:
    """A model that looks where the film is brightest (or always left) and scores the film's mean grey."""

    def __init__(self, constant: bool = False) -> None:
        self.constant = constant

    def words_of(self, text):
        return text.removesuffix(".").split() + ["."]

    def encode_texts(self, texts):
        return texts

    def encode_images(self, films):
        return torch.from_numpy(films).float()

    def global_similarity(self, films, texts):
        return films.mean((1, 2))[:, None] * (0 if self.constant else 1)

    def attention(self, films, texts):
        looked = torch.zeros_like(films) if self.constant else films
        looked = looked.unfold(1, 4, 4).unfold(2, 4, 4).mean((3, 4))
        if self.constant:
            looked[:, 0, 0] = 1
        return looked[:, None, None].expand(-1, 1, 3, -1, -1)


class Films(SimpleNamespace):
    def __len__(self) -> int:
        return len(self.images)


def films_of(*columns: int | None) -> Films:
    """One film for each column: a bright block there, or none at all."""
    images = np.zeros((len(columns), 16, 16), np.uint8)
    for film, column in zip(images, columns, strict=True):
        if column is not None:
            film[4:8, column : column + 4] = 200
    return Films(images=images)


@pytest.mark.parametrize(
    "left, right, right_side, above",
    [
        ((12, 8), (0, 4), 1.0, 1.0),  # the patient's left is the picture's right
        ((0, 4), (12, 8), 0.0, 1.0),
        ((12, 0), (0, 4), 0.75, 1.0),
        ((12, None), (0, 4), 0.75, 0.75),
    ],
)
def test_the_side_test_counts_sides_and_rises(left, right, right_side, above):
    result = side_test(Looker(), films_of(*left), films_of(*right), films_of(None, None), "pleural effusion")
    assert result == {"right side": right_side, "above its twin": above, "n": 4}


def test_a_model_that_always_looks_left_and_never_rises_gains_nothing():
    result = side_test(Looker(constant=True), films_of(12, 8), films_of(0, 4), films_of(None, None), "pleural effusion")
    assert result == {"right side": 0.5, "above its twin": 0.0, "n": 4}
