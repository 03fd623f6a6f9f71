"""The losses against a plain slow loop in float64, and what a loss must do whatever it is given."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings, strategies as st

from cmlr_utils.models.losses import global_loss, local_loss, pool_words, word_region_cosine

EXACT = dict(rtol=0, atol=1e-10)


def loop_pair(regions, words, *, attention_temperature, word_temperature, compete, average):
    """GLoRIA's score of one image and one text, word by word: regions [D, R], words [D, N], all of which count."""
    dots = [[words[:, n] @ regions[:, r] for r in range(regions.shape[1])] for n in range(words.shape[1])]
    if compete:
        for r in range(regions.shape[1]):
            total = sum(torch.exp(dots[n][r]) for n in range(words.shape[1]))
            for n, value in enumerate([torch.exp(dots[n][r]) / total for n in range(words.shape[1])]):
                dots[n][r] = value
    attention, total_score = [], 0.0
    for n in range(words.shape[1]):
        weights = torch.stack([torch.exp(dots[n][r] / attention_temperature) for r in range(regions.shape[1])])
        weights = weights / weights.sum()
        context = sum(weights[r] * regions[:, r] for r in range(regions.shape[1]))
        cosine = words[:, n] @ context / (words[:, n].norm() * context.norm())
        total_score = total_score + torch.exp(cosine / word_temperature)
        attention.append(weights)
    return torch.log(total_score / words.shape[1] if average else total_score), torch.stack(attention)


def loop_contrast(similarity, temperature, ignored=None):
    """Cross-entropy of every row and of every column with its diagonal, one at a time."""
    size = len(similarity)

    def direction(score, is_ignored):
        losses = []
        for i in range(size):
            kept = [j for j in range(size) if j == i or not is_ignored(i, j)]
            denominator = sum(torch.exp(score(i, j) / temperature) for j in kept)
            losses.append(torch.log(denominator) - score(i, i) / temperature)
        return sum(losses) / size

    marked = (lambda i, j: False) if ignored is None else (lambda i, j: bool(ignored[i, j]))
    return (
        direction(lambda i, j: similarity[i, j], marked),
        direction(lambda i, j: similarity[j, i], lambda i, j: marked(j, i)),
    )


def loop_local_loss(image_local, words, mask, *, temperature=0.1, false_negatives=None, **options):
    options = {"attention_temperature": 0.25, "word_temperature": 0.2, "compete": True, "average": False} | options
    size = len(words)
    scores = [
        [loop_pair(image_local[i].flatten(1), words[t][:, mask[t]], **options)[0] for t in range(size)]
        for i in range(size)
    ]
    return loop_contrast(torch.stack([torch.stack(row) for row in scores]), temperature, false_negatives)


def random_batch(seed=0, batch=4, width=6, height=2, columns=3, num_words=5):
    """A batch in float64 whose texts have random lengths, at least one word each."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    mask = torch.rand(batch, num_words, generator=generator) < 0.6
    mask[torch.arange(batch), torch.randint(num_words, (batch,), generator=generator)] = True
    return (
        normal(batch, width, height, columns).requires_grad_(),
        normal(batch, width, num_words).requires_grad_(),
        mask,
    )


def gradients(losses, *inputs):
    return torch.autograd.grad(losses[0] + 2 * losses[1], inputs)  # weighted, so that the two cannot change places


VARIANTS = [(True, False), (False, False), (True, True), (False, True)]


@pytest.mark.parametrize("words_compete, average_words", VARIANTS)
def test_local_loss_equals_the_loop_in_value_and_gradient(words_compete, average_words):
    image_local, words, mask = random_batch()
    ours = local_loss(image_local, words, mask, words_compete=words_compete, average_words=average_words)
    loop = loop_local_loss(image_local, words, mask, compete=words_compete, average=average_words)
    torch.testing.assert_close(ours[:2], loop, **EXACT)
    torch.testing.assert_close(gradients(ours, image_local, words), gradients(loop, image_local, words), **EXACT)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    batch=st.integers(1, 4),
    width=st.integers(1, 5),
    height=st.integers(1, 3),
    columns=st.integers(1, 3),
    num_words=st.integers(1, 5),
    temperatures=st.tuples(*[st.floats(0.05, 2)] * 3),
    variant=st.sampled_from(VARIANTS),
)
def test_local_loss_equals_the_loop_at_any_size(seed, batch, width, height, columns, num_words, temperatures, variant):
    image_local, words, mask = random_batch(seed, batch, width, height, columns, num_words)
    names = ("attention_temperature", "word_temperature", "temperature")
    temperatures = dict(zip(names, temperatures, strict=True))
    ours = local_loss(image_local, words, mask, words_compete=variant[0], average_words=variant[1], **temperatures)
    loop = loop_local_loss(image_local, words, mask, compete=variant[0], average=variant[1], **temperatures)
    torch.testing.assert_close(ours[:2], loop, rtol=1e-9, atol=1e-10)


def test_similarity_and_attention_equal_the_loop():
    image_local, words, mask = random_batch(1)
    ours = local_loss(image_local, words, mask)
    options = dict(attention_temperature=0.25, word_temperature=0.2, compete=True, average=False)
    for i in range(4):
        for t in range(4):
            score, attention = loop_pair(image_local[i].flatten(1), words[t][:, mask[t]], **options)
            torch.testing.assert_close(ours.similarity[i, t], score, **EXACT)
            if i == t:
                torch.testing.assert_close(ours.attention[i][mask[i]].flatten(1), attention, **EXACT)
    assert ours.attention.shape == (4, 5, 2, 3) and (ours.attention[~mask] == 0).all()
    torch.testing.assert_close(ours.attention[mask].sum((1, 2)), torch.ones(int(mask.sum()), dtype=torch.float64))


def test_global_loss_equals_the_loop_in_value_and_gradient():
    image, text = (torch.randn(5, 7, dtype=torch.float64, requires_grad=True) for _ in range(2))
    cosine = torch.stack([torch.stack([a @ b / (a.norm() * b.norm()) for b in text]) for a in image])
    ours, loop = global_loss(image, text, 0.3), loop_contrast(cosine, 0.3)
    torch.testing.assert_close(ours, loop, **EXACT)
    torch.testing.assert_close(gradients(ours, image, text), gradients(loop, image, text), **EXACT)


def test_global_loss_knows_its_two_directions():
    image, text = torch.eye(3), torch.eye(3)[[0, 0, 2]]  # text 1 says what text 0 says
    image_to_text, text_to_image = global_loss(image, text, 0.01)
    assert image_to_text > 0.2 and text_to_image > 30  # image 1 finds no text; text 1 finds image 0 instead of its own


def test_gradcheck():
    image_local, words, mask = random_batch(2, batch=2, width=3, height=2, columns=2, num_words=3)
    temperature = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda v, w, t: local_loss(v, w, mask, temperature=t)[:3], (image_local, words, temperature)
    )
    image, text = (torch.randn(3, 4, dtype=torch.float64, requires_grad=True) for _ in range(2))
    assert torch.autograd.gradcheck(global_loss, (image, text, temperature))


@pytest.mark.parametrize("words_compete, average_words", VARIANTS)
def test_padding_changes_nothing(words_compete, average_words):
    image_local, words, mask = random_batch(3)
    options = dict(words_compete=words_compete, average_words=average_words)
    padded = torch.cat([words, 100 * torch.randn(4, 6, 7, dtype=torch.float64)], dim=2)
    more = torch.cat([mask, torch.zeros(4, 7, dtype=torch.bool)], dim=1)
    before, after = local_loss(image_local, words, mask, **options), local_loss(image_local, padded, more, **options)
    torch.testing.assert_close(after[:3], before[:3], **EXACT)
    torch.testing.assert_close(after.attention[:, :5], before.attention, **EXACT)
    gradient = gradients(before, words)[0]
    torch.testing.assert_close(gradients(after, words)[0], gradient, **EXACT)
    assert (gradient.transpose(1, 2)[~mask] == 0).all()


def test_the_order_of_pairs_words_and_regions_does_not_matter():
    image_local, words, mask = random_batch(4)
    before = local_loss(image_local, words, mask)
    pairs, word_order, regions = torch.randperm(4), torch.randperm(5), torch.randperm(6)
    shuffled = image_local[pairs].flatten(2)[..., regions].unflatten(2, (2, 3))
    after = local_loss(shuffled, words[pairs][..., word_order], mask[pairs][:, word_order])
    torch.testing.assert_close(after[:2], before[:2], **EXACT)
    torch.testing.assert_close(after.similarity, before.similarity[pairs][:, pairs], **EXACT)


def test_images_and_texts_may_differ_in_number():
    image_local, words, mask = random_batch(5)
    cosine, attention = word_region_cosine(image_local, words[:3], mask[:3])
    assert cosine.shape == (4, 3, 5) and attention.shape == (4, 3, 5, 6)
    whole, _ = word_region_cosine(image_local, words, mask)
    torch.testing.assert_close(cosine, whole[:, :3], **EXACT)


def test_a_long_text_gains_by_its_length_only_in_the_published_sum():
    cosine, mask = torch.full((1, 2, 4), 0.5), torch.tensor([[True] * 4, [True, False, False, False]])
    torch.testing.assert_close(pool_words(cosine, mask, 0.2), torch.tensor([[2.5 + math.log(4), 2.5]]))
    torch.testing.assert_close(pool_words(cosine, mask, 0.2, average=True), torch.full((1, 2), 2.5))


def test_false_negatives_leave_the_denominator_and_the_diagonal_stays():
    image_local, words, mask = random_batch(6)
    image, text = image_local.mean((2, 3)), words.mean(2)
    ignored = torch.zeros(4, 4, dtype=torch.bool)
    ignored[0, 1] = ignored[2, 0] = ignored[3, 3] = True
    cosine = torch.nn.functional.cosine_similarity(image[:, None], text[None], dim=-1)
    torch.testing.assert_close(
        global_loss(image, text, false_negatives=ignored), loop_contrast(cosine, 0.1, ignored), **EXACT
    )
    ours = local_loss(image_local, words, mask, false_negatives=ignored)
    loop = loop_local_loss(image_local, words, mask, false_negatives=ignored)
    torch.testing.assert_close(ours[:2], loop, **EXACT)
    torch.testing.assert_close(gradients(ours, image_local, words), gradients(loop, image_local, words), **EXACT)


def test_a_batch_of_false_negatives_alone_costs_nothing():
    image, text = torch.randn(2, 3, 4)
    assert sum(global_loss(image, text, false_negatives=torch.ones(3, 3, dtype=torch.bool))) == 0


@pytest.mark.parametrize("scale", [0, 1e-12, 1e-4, 1e3, 1e6])
@pytest.mark.parametrize("words_compete", [True, False])
def test_extreme_features_give_finite_losses_and_gradients(scale, words_compete):
    image_local, words, mask = random_batch(7)
    image_local = (scale * image_local).float().detach().requires_grad_()
    words = (scale * words).float().detach().requires_grad_()
    for losses, inputs in (
        (local_loss(image_local, words, mask, words_compete=words_compete), (image_local, words)),
        (global_loss(image_local[:, :, 0, 0], words[:, :, 0]), (image_local, words)),
    ):
        assert all(loss.isfinite() for loss in losses[:2])
        assert all(gradient.isfinite().all() for gradient in gradients(losses, *inputs))


@pytest.mark.parametrize("temperature", [0, -0.1, math.nan, torch.tensor(0.0)])
def test_a_temperature_that_is_not_above_zero_is_refused(temperature):
    image_local, words, mask = random_batch()
    with pytest.raises(ValueError, match="temperature must be above 0"):
        global_loss(image_local[:, :, 0, 0], words[:, :, 0], temperature)
    with pytest.raises(ValueError, match="temperature must be above 0"):
        local_loss(image_local, words, mask, temperature=temperature)
    for name in ("word_temperature", "attention_temperature"):
        with pytest.raises(ValueError, match=f"{name} must be above 0"):
            local_loss(image_local, words, mask, **{name: temperature})


def test_a_text_without_words_is_named():
    image_local, words, mask = random_batch()
    mask[2] = False
    with pytest.raises(ValueError, match="no word of text 2"):
        local_loss(image_local, words, mask)


@pytest.mark.parametrize(
    "image_local, words, mask",
    [
        ((4, 6, 6), (4, 6, 5), (4, 5)),
        ((4, 6, 2, 3), (4, 6), (4, 5)),
        ((4, 6, 2, 3), (4, 7, 5), (4, 5)),
        ((4, 6, 2, 3), (3, 6, 5), (3, 5)),
        ((4, 6, 2, 3), (4, 6, 5), (4, 6)),
        ((4, 6, 2, 3), (4, 6, 5), (5,)),
    ],
)
def test_shapes_that_do_not_fit_are_refused(image_local, words, mask):
    with pytest.raises(ValueError, match=r"must be .*\[B"):
        local_loss(torch.zeros(image_local), torch.zeros(words), torch.ones(mask, dtype=torch.bool))


def test_other_shapes_and_types_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"\[B, D\].*\[3, 4\] and \[2, 4\]"):
        global_loss(torch.zeros(3, 4), torch.zeros(2, 4))
    with pytest.raises(ValueError, match="bool"):
        local_loss(torch.zeros(1, 2, 1, 1), torch.zeros(1, 2, 3), torch.ones(1, 3))
    with pytest.raises(ValueError, match=r"false_negatives must be \[3, 3\]; got \[3, 2\]"):
        global_loss(torch.ones(3, 4), torch.ones(3, 4), false_negatives=torch.zeros(3, 2, dtype=torch.bool))
