"""Grounding: does a word look at its finding? Asked of phantoms, where the answer is known."""

from __future__ import annotations

import numpy as np
import torch

from cmlr_utils.data.files import CourseError
from cmlr_utils.data.studies import StudySet
from cmlr_utils.models.image_encoder import ImageFeatures
from cmlr_utils.models.model import CrossModalModel

HIT_SHARE = 0.25  # of a cell of the local map that must lie in the mask for a hit


def word_attention(model: CrossModalModel, images: ImageFeatures, text: str, word: str) -> torch.Tensor:
    """Where one word of a text looks on each of n radiographs, [n, H, W], each summing to 1.

    Raises CourseError if the text does not hold the word.
    """
    words = model.words_of(text)
    if word not in words:
        raise CourseError(f"The text {text!r} has no word {word!r}; its words are {', '.join(words)}.")
    return model.attention(images, model.encode_texts([text]))[:, 0, words.index(word)]


def mask_share(masks: np.ndarray, height: int, width: int) -> np.ndarray:
    """The share of each cell of an H x W map that masks bool [n, S, S] cover, [n, H, W]; both divide S."""
    n, size, _ = masks.shape
    return masks.reshape(n, height, size // height, width, size // width).mean((2, 4))


def pointing(attention: torch.Tensor, masks: np.ndarray) -> np.ndarray:
    """Whether each attention's peak lies in its mask: attention [n, H, W], masks bool [n, S, S]; bool [n]."""
    share = mask_share(masks, *attention.shape[1:]).reshape(len(masks), -1)
    peak = attention.flatten(1).argmax(1).numpy()
    return share[np.arange(len(masks)), peak] > HIT_SHARE


def constant_point(training_masks: np.ndarray, masks: np.ndarray, height: int, width: int) -> np.ndarray:
    """The control: hits, bool [n], of the one cell that training masks cover most, whatever the radiograph shows."""
    cell = mask_share(training_masks, height, width).mean(0).argmax()
    return mask_share(masks, height, width).reshape(len(masks), -1)[:, cell] > HIT_SHARE


def finding_masks(studies: StudySet, finding: int) -> np.ndarray:
    """The masks of one finding for all studies, bool [n, S, S]."""
    return np.stack([studies.masks(i)[finding] for i in range(len(studies))])


def side_test(
    model: CrossModalModel, left: StudySet, right: StudySet, without: StudySet, name: str
) -> dict[str, float | int]:
    """Mirrored twins: does attention move with the finding, and does the score rise with it?

    The prompt "{name}." names no side. Returns the share of n phantoms, left and right ones together, whose attention
    peaks on the finding's side, and the share whose global score is above that of its twin without the finding; chance
    is 1/2 for both.
    """
    prompt = f"{name}."
    text = model.encode_texts([prompt])
    right_side, above_twin = [], []
    baseline = model.global_similarity(model.encode_images(without.images), text)[:, 0]
    for side, studies in (("left", left), ("right", right)):
        images = model.encode_images(studies.images)
        attention = word_attention(model, images, prompt, name.split()[-1])
        middle = attention.shape[-1] // 2
        # the patient's left is the picture's right
        leftness = attention[:, :, middle:].amax((1, 2)) - attention[:, :, :middle].amax((1, 2))
        right_side.append(leftness > 0 if side == "left" else leftness < 0)
        above_twin.append(model.global_similarity(images, text)[:, 0] > baseline)
    return {
        "right side": float(torch.cat(right_side).double().mean()),
        "above its twin": float(torch.cat(above_twin).double().mean()),
        "n": 2 * len(left),
    }
