"""The text encoder: word pieces become words, and a vocabulary knows its training texts only."""

from __future__ import annotations

from dataclasses import replace

import huggingface_hub.constants
import pytest
import torch
from hypothesis import given, settings, strategies as st
from transformers import BertConfig, BertModel

from cmlr_utils.data.files import CourseError
from cmlr_utils.models.model import CrossModalModel
from cmlr_utils.models.presets import presets
from cmlr_utils.models.text_encoder import TextEncoder, load_bert, merge_word_pieces, tokenize, train_tokenizer

TEXTS = [
    "the heart is enlarged. no pleural effusion or pneumothorax.",
    "small left pleural effusion with bibasilar atelectasis.",
    "mild pulmonary edema. stable cardiomegaly.",
] * 5


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(TEXTS)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 4), st.integers(1, 9), st.integers(1, 5))
def test_merging_equals_a_loop(seed, batch, num_tokens, width):
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(batch, num_tokens, width, generator=generator, dtype=torch.float64)
    word_ids = torch.randint(-1, num_tokens, (batch, num_tokens), generator=generator)
    num_words = max(0, int(word_ids.max()) + 1)
    expected, counts = torch.zeros(batch, width, num_words, dtype=torch.float64), torch.zeros(batch, num_words)
    for b in range(batch):
        for t in range(num_tokens):
            if word_ids[b, t] >= 0:
                expected[b, :, word_ids[b, t]] += hidden[b, t]
                counts[b, word_ids[b, t]] += 1
    words, mask = merge_word_pieces(hidden, word_ids)
    torch.testing.assert_close(words, expected, rtol=0, atol=1e-12)
    assert (mask == (counts > 0)).all()


def test_merging_passes_gradients_to_every_piece_of_a_word_and_to_no_other():
    hidden = torch.zeros(1, 4, 2, requires_grad=True)
    words, _ = merge_word_pieces(hidden, torch.tensor([[-1, 0, 0, 1]]))
    words[0, :, 0].sum().backward()
    assert hidden.grad[0, :, 0].tolist() == [0, 1, 1, 0]


def test_merging_refuses_shapes_that_do_not_fit():
    with pytest.raises(ValueError, match=r"\[1, 4, 2\], \[1, 3\]"):
        merge_word_pieces(torch.zeros(1, 4, 2), torch.zeros(1, 3, dtype=torch.long))


def test_pieces_know_their_words(tokenizer):
    text = "Zygomatic effusion, LEFT-sided."  # an unseen word, which falls into pieces
    tokens = tokenize(tokenizer, [text, "edema"], 64)
    assert tokens.words == [["zygomatic", "effusion", ",", "left", "-", "sided", "."], ["edema"]]
    pieces = tokenizer.convert_ids_to_tokens(tokens.input_ids[0])
    for number, word in enumerate(tokens.words[0]):
        own = [piece for piece, owner in zip(pieces, tokens.word_ids[0], strict=True) if owner == number]
        assert "".join(piece.removeprefix("##") for piece in own) in (word, "[UNK]")
    assert (tokens.word_ids[1][tokens.attention_mask[1] == 0] == -1).all()
    assert pieces[0] == "[CLS]" and tokens.word_ids[0, 0] == -1


def test_function_words_and_punctuation_do_not_count(tokenizer):
    tokens = tokenize(tokenizer, ["There is an effusion of the left, or edema.", "no edema"], 64)
    counted = [word for word, counts in zip(tokens.words[0], tokens.content[0], strict=True) if counts]
    assert counted == ["there", "effusion", "left", "edema"]
    assert tokens.content[1].tolist() == [True, True] + [False] * 9  # "no" counts; the rest is padding


def test_long_texts_are_cut_off(tokenizer):
    tokens = tokenize(tokenizer, ["edema " * 100], 16)
    assert tokens.input_ids.shape == (1, 16) and tokens.words == [["edema"] * 14]


@pytest.mark.parametrize("text", ["", " ", "...", "of the and"])
def test_a_text_without_a_word_to_look_for_is_named(tokenizer, text):
    with pytest.raises(CourseError, match="has no word to look for"):
        tokenize(tokenizer, ["edema", text], 64)


def test_a_slow_tokenizer_is_refused():
    slow = type("SlowTokenizer", (), {"is_fast": False})()
    with pytest.raises(CourseError, match="SlowTokenizer .* use a fast tokenizer"):
        tokenize(slow, TEXTS, 64)


def test_the_vocabulary_is_learned_from_the_texts_given(tokenizer):
    assert {"effusion", "heart", "edema"} <= set(tokenizer.get_vocab())
    assert not {"nodule", "nod", "granuloma"} & set(tokenizer.get_vocab())
    assert "granuloma" in train_tokenizer([*TEXTS, "granuloma " * 9]).get_vocab()


def test_word_features_are_the_summed_layers_summed_over_pieces(tokenizer):
    """Against the same BERT, called by hand for one unpadded text."""
    torch.manual_seed(0)
    bert, _ = load_bert("tiny", tokenizer)
    encoder = TextEncoder(bert, 12, summed_layers=2).eval()
    tokens = tokenize(tokenizer, ["zygomatic edema.", "no pleural effusion or pneumothorax."], 64)
    with torch.no_grad():
        features = encoder(tokens)
        ids = tokens.input_ids[:1][tokens.attention_mask[:1] == 1][None]
        states = bert(input_ids=ids, output_hidden_states=True).hidden_states
        hidden = (states[-1] + states[-2])[0]
        owner = tokens.word_ids[0]
        for number in range(3):
            expected = encoder.to_words(hidden[[t for t in range(len(hidden)) if owner[t] == number]]).sum(0)
            torch.testing.assert_close(features.words[0, :, number], expected, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(features.text_global[0], encoder.to_global(hidden.mean(0)), rtol=1e-4, atol=1e-5)
    assert features.words.shape == (2, 12, 6) and features.word_mask.dtype == torch.bool


# Models from the Hub or a folder


@pytest.fixture
def bert_folder(tmp_path, tokenizer):
    """A small BERT as the Hub keeps one: config, weights and a fast tokenizer."""
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        num_hidden_layers=4,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
    )
    torch.manual_seed(3)
    BertModel(config).save_pretrained(tmp_path / "bert")
    tokenizer.save_pretrained(tmp_path / "bert")
    return tmp_path / "bert"


def test_a_bert_in_a_folder_loads_as_one_from_the_hub(bert_folder, tokenizer):
    preset = replace(presets["tiny"], text_model=str(bert_folder), summed_layers=4, width=8, image_size=64)
    model = CrossModalModel.untrained(preset, ["not used: the folder has its own vocabulary"])
    assert model.tokenizer.get_vocab() == tokenizer.get_vocab()
    saved = BertModel.from_pretrained(bert_folder).embeddings.word_embeddings.weight
    assert torch.equal(model.text_encoder.bert.embeddings.word_embeddings.weight, saved)
    features = model.encode_texts(["small effusion", "edema."])
    assert features.text_global.shape == (2, 8) and features.words.shape == (2, 8, 2)


def test_a_hub_name_offline_gives_one_sentence(monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(CourseError, match="someone/some-bert could not be loaded .*online.*preset tiny") as caught:
        load_bert("someone/some-bert")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("damage", ["weights", "tokenizer", "config"])
def test_a_damaged_folder_gives_one_sentence(bert_folder, damage):
    name = {"weights": "model.safetensors", "tokenizer": "tokenizer.json", "config": "config.json"}[damage]
    content = (bert_folder / name).read_bytes()
    (bert_folder / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(CourseError, match="bert could not be loaded"):
        load_bert(str(bert_folder))


def test_the_tiny_text_encoder_asks_for_a_tokenizer():
    with pytest.raises(CourseError, match="train_tokenizer"):
        load_bert("tiny")
