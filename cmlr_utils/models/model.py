"""The cross-modal model: two encoders, one space, and the scores of a pair."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from cmlr_utils.data.files import CourseError
from cmlr_utils.models.image_encoder import ImageEncoder, ImageFeatures
from cmlr_utils.models.losses import pool_words, word_region_cosine
from cmlr_utils.models.presets import Preset
from cmlr_utils.models.text_encoder import TextEncoder, TextFeatures, load_bert, tokenize, train_tokenizer

LARGEST_LOGIT_SCALE = 100.0  # CLIP's bound: a temperature never falls below 0.01
EVALUATION_BATCH = 128
WEIGHTS, SETTINGS = "model.safetensors", "preset.json"


class CrossModalModel(nn.Module):
    """Radiographs and reports in one space of width D, by one vector each and by regions and words."""

    def __init__(self, preset: Preset, tokenizer: PreTrainedTokenizerFast | None = None) -> None:
        super().__init__()
        self.preset = preset
        bert, self.tokenizer = load_bert(preset.text_model, tokenizer)
        self.image_encoder = ImageEncoder(preset.backbone, preset.width).to(memory_format=torch.channels_last)
        self.text_encoder = TextEncoder(bert, preset.width, preset.summed_layers)
        scale = math.log(1 / preset.temperature)
        self.log_global_scale = nn.Parameter(torch.tensor(scale))
        self.log_local_scale = nn.Parameter(torch.tensor(scale))

    @classmethod
    def untrained(cls, preset: Preset, training_texts: Sequence[str]) -> CrossModalModel:
        """A model with random weights from the preset's seed; the tiny vocabulary is learned from `training_texts`."""
        torch.manual_seed(preset.seed)
        tokenizer = train_tokenizer(training_texts) if preset.text_model == "tiny" else None
        return cls(preset, tokenizer)

    @property
    def device(self) -> torch.device:
        return self.log_global_scale.device

    def temperatures(self) -> tuple[Tensor, Tensor]:
        """The learned temperatures of the global and of the local loss."""
        scales = (self.log_global_scale, self.log_local_scale)
        return tuple(1 / scale.exp().clamp(max=LARGEST_LOGIT_SCALE) for scale in scales)

    def image_features(self, images: Tensor) -> ImageFeatures:
        """images [B, 1, S, S], float 0 to 1."""
        features = self.image_encoder(images)
        return (
            features._replace(image_local=F.normalize(features.image_local, dim=1))
            if self.preset.unit_local
            else features
        )

    def text_features(self, texts: Sequence[str]) -> TextFeatures:
        """Any B texts; they are cut off after the preset's `max_tokens` pieces."""
        features = self.text_encoder(tokenize(self.tokenizer, texts, self.preset.max_tokens).to(self.device))
        return features._replace(words=F.normalize(features.words, dim=1)) if self.preset.unit_local else features

    @torch.no_grad()
    def encode_images(self, images: np.ndarray) -> ImageFeatures:
        """Encode radiographs uint8 [n, S, S] for evaluation, in batches, without gradients; features lie on the CPU."""
        if images.ndim != 3 or images.dtype != np.uint8:
            raise CourseError(f"Radiographs must be uint8 [n, S, S]; got {images.dtype} {list(images.shape)}.")
        self.eval()
        batches = torch.from_numpy(np.ascontiguousarray(images)).split(EVALUATION_BATCH)
        parts = [self.image_features(batch[:, None].to(self.device).float() / 255) for batch in batches]
        return ImageFeatures(*(torch.cat(tensors).float().cpu() for tensors in zip(*parts, strict=True)))

    @torch.no_grad()
    def encode_texts(self, texts: Sequence[str]) -> TextFeatures:
        """Encode texts for evaluation, in batches, without gradients; features lie on the CPU."""
        self.eval()
        starts = range(0, len(texts), EVALUATION_BATCH)
        parts = [self.text_features(texts[start : start + EVALUATION_BATCH]) for start in starts]
        longest = max(part.word_mask.shape[1] for part in parts)
        padding = [longest - part.word_mask.shape[1] for part in parts]
        return TextFeatures(
            torch.cat([part.text_global for part in parts]).float().cpu(),
            torch.cat([F.pad(part.words, (0, p)) for part, p in zip(parts, padding, strict=True)]).float().cpu(),
            torch.cat([F.pad(part.word_mask, (0, p)) for part, p in zip(parts, padding, strict=True)]).cpu(),
        )

    def global_similarity(self, images: ImageFeatures, texts: TextFeatures) -> Tensor:
        """Cosine of every radiograph with every text, [I, T]."""
        return F.normalize(images.image_global, dim=-1) @ F.normalize(texts.text_global, dim=-1).T

    def local_similarity(self, images: ImageFeatures, texts: TextFeatures) -> Tensor:
        """The words' score of every radiograph with every text, [I, T]; a mean over words, so in -1 to 1."""
        scores = []
        for image_local in images.image_local.split(EVALUATION_BATCH):
            cosine, _ = word_region_cosine(
                image_local,
                texts.words,
                texts.word_mask,
                attention_temperature=self.preset.attention_temperature,
                words_compete=self.preset.words_compete,
            )
            scores.append(pool_words(cosine, texts.word_mask, self.preset.word_temperature, average=True))
        return torch.cat(scores) * self.preset.word_temperature

    def attention(self, images: ImageFeatures, texts: TextFeatures) -> Tensor:
        """Where each word of each text looks on each radiograph, [I, T, N, H, W]; sums to 1 over H and W."""
        _, attention = word_region_cosine(
            images.image_local,
            texts.words,
            texts.word_mask,
            attention_temperature=self.preset.attention_temperature,
            words_compete=self.preset.words_compete,
        )
        return attention.unflatten(-1, images.image_local.shape[-2:])

    def words_of(self, text: str) -> list[str]:
        """The words of a text as the encoder counts them, content or not."""
        return tokenize(self.tokenizer, [text], self.preset.max_tokens).words[0]

    def save(self, folder: Path) -> None:
        """Write weights (safetensors), preset and tokenizer into `folder`, which exists; OSError on a full disk."""
        try:
            save_file({name: tensor.contiguous() for name, tensor in self.state_dict().items()}, folder / WEIGHTS)
        except SafetensorError as error:
            raise OSError(str(error)) from error
        (folder / SETTINGS).write_text(json.dumps(asdict(self.preset), indent=1), encoding="utf-8")
        self.tokenizer.save_pretrained(folder)

    @classmethod
    def load(cls, folder: Path | str, expected: Preset | None = None) -> CrossModalModel:
        """Read a saved model back. No code in the files is run.

        Raises CourseError if a file is missing or damaged, or if its preset is not the `expected` one, naming the
        first setting that differs.
        """
        folder = Path(folder)
        again = f"remove {folder} and train again"
        try:
            saved = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise CourseError(f"The checkpoint {folder} has no readable {SETTINGS}: {again}.") from error
        if not isinstance(saved, dict) or set(saved) != {field.name for field in fields(Preset)}:
            raise CourseError(f"The checkpoint {folder} is from another version of the course: {again}.")
        preset = Preset(**saved)
        for name, value in asdict(expected or preset).items():
            if saved[name] != value:
                raise CourseError(
                    f"The checkpoint {folder} was trained with {name}={saved[name]!r}, not {value!r}: "
                    f"use that preset, or {again}."
                )
        try:
            tokenizer = AutoTokenizer.from_pretrained(folder)
            model = cls(preset, tokenizer)
            model.load_state_dict(load_file(folder / WEIGHTS))
        except CourseError as error:
            raise CourseError(f"The checkpoint {folder} cannot be rebuilt: {error}") from error
        except Exception as error:  # damaged tokenizers and settings raise nearly anything
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise CourseError(f"The checkpoint {folder} cannot be read ({reason}): {again}.") from error
        return model.eval()

    def with_random_weights(self) -> CrossModalModel:
        """The same architecture and vocabulary, untrained: the control beside every result."""
        torch.manual_seed(self.preset.seed)
        return CrossModalModel(self.preset, self.tokenizer).eval()
