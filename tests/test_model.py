"""The model as a whole: its scores, and a checkpoint that comes back equal or not at all."""

from __future__ import annotations

import json
import os
from dataclasses import replace

import numpy as np
import pytest
import torch

from cmlr_utils.data.files import CourseError, new_folder
from cmlr_utils.models.losses import local_loss
from cmlr_utils.models.model import CrossModalModel

PROMPTS = ["small left pleural effusion.", "the heart is enlarged.", "edema"]


@pytest.fixture
def saved(model, tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    model.save(folder)
    return folder


def films(number: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (number, 64, 64), dtype=np.uint8)


def test_a_saved_model_comes_back_equal(model, saved):
    loaded = CrossModalModel.load(saved, expected=model.preset)
    assert loaded.preset == model.preset and not loaded.training
    assert loaded.tokenizer.get_vocab() == model.tokenizer.get_vocab()
    weights = loaded.state_dict()
    assert weights.keys() == model.state_dict().keys()
    assert all(torch.equal(weights[name], tensor) for name, tensor in model.state_dict().items())
    images, texts = loaded.encode_images(films()), loaded.encode_texts(PROMPTS)
    assert torch.equal(images.image_local, model.encode_images(films()).image_local)
    assert torch.equal(texts.words, model.encode_texts(PROMPTS).words)


def test_another_preset_is_named_with_the_setting_that_differs(model, saved):
    with pytest.raises(CourseError, match=r"trained with width=16, not 512: use that preset, or remove .*model"):
        CrossModalModel.load(saved, expected=replace(model.preset, width=512))


def cut(path):
    os.truncate(path, path.stat().st_size // 2)


def replaced(path, old, new):
    content = path.read_text()
    assert old in content
    path.write_text(content.replace(old, new))


DAMAGE = {
    "cut weights": lambda folder: cut(folder / "model.safetensors"),
    "empty weights": lambda folder: os.truncate(folder / "model.safetensors", 0),
    "no weights": lambda folder: (folder / "model.safetensors").unlink(),
    "weights that are no weights": lambda folder: (folder / "model.safetensors").write_text("no weights"),
    "cut preset": lambda folder: cut(folder / "preset.json"),
    "no preset": lambda folder: (folder / "preset.json").unlink(),
    "a binary preset": lambda folder: (folder / "preset.json").write_bytes(b"\xff\xfe\x00"),
    "foreign JSON": lambda folder: (folder / "preset.json").write_text('{"architectures": ["BertModel"]}'),
    "nested": lambda folder: (folder / "preset.json").write_text("[" * 5_000),
    "no depth": lambda folder: replaced(folder / "preset.json", '"width": 16', '"width": null'),
    "unknown backbone": lambda folder: replaced(folder / "preset.json", '"backbone": "tiny"', '"backbone": "4iny"'),
    "unknown token type": lambda folder: replaced(folder / "tokenizer.json", '"WordPiece"', '"Word"'),
    "a list": lambda folder: (folder / "preset.json").write_text("[1, 2]"),
    "cut tokenizer": lambda folder: cut(folder / "tokenizer.json"),
    "no tokenizer": lambda folder: [path.unlink() for path in folder.glob("tokenizer*")],
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_checkpoint_is_named_with_the_way_out(saved, damage):
    DAMAGE[damage](saved)
    with pytest.raises(CourseError, match=r"checkpoint .*model.*(train again|choose one of)") as caught:
        CrossModalModel.load(saved)
    assert "\n" not in str(caught.value)


def test_weights_of_another_width_are_refused(model, saved):
    settings = json.loads((saved / "preset.json").read_text())
    (saved / "preset.json").write_text(json.dumps(settings | {"width": 24}))
    with pytest.raises(CourseError, match="cannot be read .*train again"):
        CrossModalModel.load(saved)


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(CourseError, match="nowhere has no readable preset.json"):
        CrossModalModel.load(tmp_path / "nowhere")


def test_a_full_disk_while_saving_leaves_the_old_model(model, saved, largest_file):
    with largest_file(100_000), pytest.raises(CourseError, match="could not be written"), new_folder(saved) as partial:
        model.save(partial)
    assert CrossModalModel.load(saved).preset == model.preset and list(saved.parent.iterdir()) == [saved]


def test_the_seed_decides_the_first_weights(model, small_set):
    texts = small_set.split("train").texts
    same, other = (CrossModalModel.untrained(replace(model.preset, seed=seed), texts) for seed in (0, 1))
    assert torch.equal(same.text_encoder.to_words.weight, model.text_encoder.to_words.weight)
    assert not torch.equal(other.text_encoder.to_words.weight, model.text_encoder.to_words.weight)


def test_the_untrained_twin_has_the_first_weights_again(model):
    trained = CrossModalModel(model.preset, model.tokenizer)
    with torch.no_grad():
        for parameter in trained.parameters():
            parameter.add_(1)
    twin = trained.with_random_weights()
    assert twin.preset == model.preset and not twin.training
    assert not torch.equal(twin.text_encoder.to_words.weight, trained.text_encoder.to_words.weight)


def test_encoding_in_batches_equals_encoding_alone(model):
    images, texts = films(130), [f"{'edema ' * (i % 5)}effusion {i}" for i in range(130)]
    together, alone = model.encode_images(images), model.encode_images(images[129:])
    torch.testing.assert_close(together.image_global[129:], alone.image_global, rtol=1e-3, atol=1e-4)
    together, alone = model.encode_texts(texts), model.encode_texts(texts[129:])
    torch.testing.assert_close(together.words[129:, :, :6], alone.words, rtol=1e-3, atol=1e-4)
    assert together.word_mask[129].sum() == alone.word_mask.sum() == 6


def test_local_features_and_words_have_length_one_where_the_preset_says_so(model):
    images, texts = model.encode_images(films()), model.encode_texts(PROMPTS)
    assert model.preset.unit_local
    torch.testing.assert_close(images.image_local.norm(dim=1), torch.ones(3, 4, 4))
    torch.testing.assert_close(texts.words.norm(dim=1)[texts.word_mask], torch.ones(int(texts.word_mask.sum())))


def test_scores_are_those_that_training_compares(model):
    images, texts = model.encode_images(films()), model.encode_texts(PROMPTS)
    options = dict(attention_temperature=model.preset.attention_temperature, words_compete=model.preset.words_compete)
    temperature = model.preset.word_temperature
    loss = local_loss(
        images.image_local,
        texts.words,
        texts.word_mask,
        word_temperature=temperature,
        average_words=True,
        **options,
    )
    torch.testing.assert_close(model.local_similarity(images, texts), loss.similarity * temperature)
    attention = model.attention(images, texts)
    assert attention.shape[:2] == (3, 3) and attention.shape[3:] == (4, 4)
    torch.testing.assert_close(attention.sum((3, 4)), torch.ones(attention.shape[:3]))
    own = attention[torch.arange(3), torch.arange(3)]
    torch.testing.assert_close(own[texts.word_mask], loss.attention[texts.word_mask])
    cosine = torch.nn.functional.cosine_similarity(images.image_global[:, None], texts.text_global[None], dim=-1)
    torch.testing.assert_close(model.global_similarity(images, texts), cosine)


def test_words_are_named_in_the_order_of_their_features(model):
    text = "No large, left effusion."
    assert model.words_of(text) == ["no", "large", ",", "left", "effusion", "."]
    assert model.encode_texts([text]).words.shape[2] == 6


def test_temperatures_start_at_the_presets_and_have_a_floor(model):
    twin = CrossModalModel(model.preset, model.tokenizer)
    assert [t.item() for t in twin.temperatures()] == pytest.approx([model.preset.temperature] * 2)
    with torch.no_grad():
        twin.log_global_scale.fill_(100)
    assert twin.temperatures()[0].item() == pytest.approx(0.01)


@pytest.mark.parametrize("images", [np.zeros((64, 64), np.uint8), np.zeros((1, 64, 64), np.float32)])
def test_images_of_another_shape_or_type_are_refused(model, images):
    with pytest.raises(CourseError, match=r"must be uint8 \[n, S, S\]"):
        model.encode_images(images)
