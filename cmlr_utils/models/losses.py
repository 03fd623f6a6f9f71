"""The global-local attention loss: which report belongs to which radiograph, asked twice.

The global loss compares one vector of each; the local loss lets every word look at the regions of the radiograph first
(GLoRIA: Huang et al., ICCV 2021, sections 3.3 and 3.4; trained on IU-RR in arXiv 2301.10951).

Shapes: B batch, D width, H x W the local map, R = H * W regions, N words.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

SMALL = 1e-8


class LocalLoss(NamedTuple):
    """What `local_loss` returns."""

    image_to_text: Tensor  # scalar
    text_to_image: Tensor  # scalar
    similarity: Tensor  # [B images, B texts], before the division by `temperature`
    attention: Tensor  # [B, N, H, W], each text over its own image; 0 for words outside the mask


def global_loss(
    image_global: Tensor,
    text_global: Tensor,
    temperature: float | Tensor = 0.1,
    *,
    false_negatives: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """InfoNCE over cosines: every radiograph picks its report out of the batch, every report its radiograph.

    image_global, text_global [B, D] of any length; row i of both belongs together. `false_negatives` [B, B] bool
    marks pairs (image, text) that must not count as negatives. Returns (image_to_text, text_to_image), two scalars.
    Raises ValueError if shapes or temperature do not fit.
    """
    if image_global.ndim != 2 or image_global.shape != text_global.shape:
        raise ValueError(f"image_global and text_global must both be [B, D]; got {shapes(image_global, text_global)}.")
    similarity = F.normalize(image_global, dim=-1) @ F.normalize(text_global, dim=-1).T  # [B images, B texts]
    return contrastive_loss(similarity, temperature, false_negatives)


def local_loss(
    image_local: Tensor,
    words: Tensor,
    word_mask: Tensor,
    *,
    attention_temperature: float = 0.25,
    word_temperature: float = 0.2,
    temperature: float | Tensor = 0.1,
    false_negatives: Tensor | None = None,
    words_compete: bool = True,
    average_words: bool = False,
) -> LocalLoss:
    """The local attention loss: each word attends to each image's regions, and pairs are scored by their words.

    image_local [B, D, H, W], words [B, D, N], word_mask [B, N] bool, True for words that count. The published loss is
    the default; `words_compete=False` leaves out its first softmax, over words, and `average_words=True` puts the mean
    where it has the sum, so that long reports gain nothing by their length. Temperatures divide: GLoRIA's multipliers
    4, 5 and 10 are 1/0.25, 1/0.2 and 1/0.1.
    Raises ValueError if shapes, the mask or a temperature do not fit.
    """
    check_local(image_local, words, word_mask)
    cosine, attention = word_region_cosine(
        image_local, words, word_mask, attention_temperature=attention_temperature, words_compete=words_compete
    )
    similarity = pool_words(cosine, word_mask, word_temperature, average=average_words)
    image_to_text, text_to_image = contrastive_loss(similarity, temperature, false_negatives)
    own = torch.arange(len(words), device=words.device)
    attention = attention[own, own].unflatten(-1, image_local.shape[-2:])  # [B, N, H, W]
    return LocalLoss(image_to_text, text_to_image, similarity, attention * word_mask[..., None, None])


def word_region_cosine(
    image_local: Tensor,
    words: Tensor,
    word_mask: Tensor,
    *,
    attention_temperature: float = 0.25,
    words_compete: bool = True,
) -> tuple[Tensor, Tensor]:
    """Let every word of every text attend to every image; compare it with what it saw.

    image_local [I, D, H, W], words [T, D, N], word_mask [T, N]; the numbers I of images and T of texts may differ.
    Returns cosine [I, T, N] between a word and its context, and attention [I, T, N, R], which sums to 1 over regions.

    The context c = sum_r a_r v_r is never built. Its product with the word is sum_r a_r (w . v_r), a sum over logits
    that are there already, and |c|^2 = a' G a with G = V' V, one [R, R] matrix per image.
    """
    if not attention_temperature > 0:
        raise ValueError(f"attention_temperature must be above 0; got {attention_temperature}.")
    regions = image_local.flatten(2)  # [I, D, R]
    logits = torch.einsum("tdn,idr->itnr", words, regions)
    attended = logits
    if words_compete:  # first softmax: in each region, the text's words compete
        attended = logits.masked_fill(~word_mask[None, :, :, None], torch.finfo(logits.dtype).min).softmax(dim=2)
    attention = (attended / attention_temperature).softmax(dim=-1)  # second softmax: each word's regions compete
    word_dot_context = (attention * logits).sum(-1)  # [I, T, N]
    gram = regions.transpose(1, 2) @ regions  # [I, R, R]
    flat = attention.flatten(1, 2)  # [I, T * N, R]
    context_norm = ((flat @ gram) * flat).sum(-1).clamp_min(SMALL**2).sqrt().view_as(word_dot_context)
    word_norm = words.norm(dim=1).clamp_min(SMALL)  # [T, N]
    return word_dot_context / (context_norm * word_norm), attention


def pool_words(cosine: Tensor, word_mask: Tensor, word_temperature: float = 0.2, *, average: bool = False) -> Tensor:
    """Score a text by its words: log sum_n exp(cosine_n / word_temperature), over words in the mask only.

    cosine [I, T, N], word_mask [T, N]. Returns [I, T]. `average=True` takes the mean of the exponentials instead.
    """
    if not word_temperature > 0:
        raise ValueError(f"word_temperature must be above 0; got {word_temperature}.")
    scores = (cosine / word_temperature).masked_fill(~word_mask, float("-inf")).logsumexp(-1)
    return scores - word_mask.sum(-1, dtype=scores.dtype).log() if average else scores


def contrastive_loss(
    similarity: Tensor, temperature: float | Tensor, false_negatives: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Symmetric cross-entropy over similarity [B images, B texts] whose diagonal holds the true pairs.

    Returns (image_to_text, text_to_image). Marked false negatives leave the denominator; the diagonal always stays.
    """
    if not torch.as_tensor(temperature > 0).all():
        raise ValueError(f"temperature must be above 0; got {temperature}.")
    logits = similarity / temperature
    pairs = torch.arange(len(logits), device=logits.device)
    if false_negatives is not None:
        if false_negatives.shape != logits.shape:
            raise ValueError(f"false_negatives must be {list(logits.shape)}; got {list(false_negatives.shape)}.")
        true_pairs = torch.eye(len(logits), dtype=torch.bool, device=logits.device)
        logits = logits.masked_fill(false_negatives & ~true_pairs, float("-inf"))
    return F.cross_entropy(logits, pairs), F.cross_entropy(logits.T, pairs)


def check_local(image_local: Tensor, words: Tensor, word_mask: Tensor) -> None:
    if image_local.ndim != 4 or words.ndim != 3 or image_local.shape[:2] != words.shape[:2]:
        raise ValueError(
            f"image_local must be [B, D, H, W] and words [B, D, N] with one B and D; got {shapes(image_local, words)}."
        )
    if word_mask.dtype != torch.bool or word_mask.shape != (words.shape[0], words.shape[2]):
        raise ValueError(f"word_mask must be bool [B, N]; got {word_mask.dtype} {list(word_mask.shape)}.")
    if not word_mask.any(-1).all():
        raise ValueError(
            f"word_mask keeps no word of text {int((~word_mask.any(-1)).nonzero()[0])}: every text needs one."
        )


def shapes(*tensors: Tensor) -> str:
    return " and ".join(str(list(tensor.shape)) for tensor in tensors)
