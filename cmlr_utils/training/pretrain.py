"""Pretraining: the loop that brings radiographs and reports together, and goes on where it was stopped."""

from __future__ import annotations

import csv
import io
import json
import math
import pickle
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from cmlr_utils.data.files import CourseError, cache_folder, new_folder, read_json, require_space
from cmlr_utils.data.studies import StudySet
from cmlr_utils.models.losses import global_loss, local_loss
from cmlr_utils.models.model import CrossModalModel
from cmlr_utils.models.presets import Preset
from cmlr_utils.training.augment import vary
from cmlr_utils.training.sampling import draw_text, false_negatives, finding_sentences, sampling_weights

SAVE_EVERY = 20  # steps; what an interruption costs at most
LOG = "log.csv"


def best_device() -> torch.device:
    """The GPU if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def bfloat16_helps(device: torch.device) -> bool:
    """Whether this device computes in bfloat16 natively, so that half precision saves time."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    supported = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)
    return bool(supported and supported())


def checkpoint_folder(preset: Preset, source: str) -> Path:
    """Where the trained model of a preset lies, one for each source of pixels."""
    return cache_folder() / "checkpoints" / f"{preset.name}-{source}"


def resume_file_of(folder: Path) -> Path:
    """Where the state of a training lies until its model is in `folder`."""
    return folder.with_name(f"{folder.name}.resume")


def pretrain(preset: Preset, studies: StudySet, folder: Path | None = None) -> CrossModalModel:
    """Train a model on the "train" part of `studies`, or load the one that lies in `folder`; never train twice.

    Ctrl-C loses at most SAVE_EVERY steps: the next call goes on and ends with the same weights, since every random
    number of a step comes from the preset's seed and the step's number. Prints what it does. Raises CourseError if a
    checkpoint belongs to another preset, or the disk is full.
    """
    folder = Path(folder) if folder else checkpoint_folder(preset, studies.source)
    training = trainable(studies)
    data = {"source": studies.source, "pixels": studies.store.fingerprint, "studies": len(training)}
    if folder.is_dir():
        if read_json(folder / "data.json") == data:
            return CrossModalModel.load(folder, expected=preset).to(best_device())
        print(f"The checkpoint {folder.name} is from other pixels or reports: training again.")
    require_space(folder, 200_000_000)
    model = CrossModalModel.untrained(preset, training.texts).to(best_device())
    resume_file = resume_file_of(folder)
    log = train(model, training, resume_file, data)
    with new_folder(folder) as partial:
        model.save(partial)
        (partial / "data.json").write_text(json.dumps(data, indent=1), encoding="utf-8")
        (partial / LOG).write_text(csv_text(log), encoding="utf-8")
    resume_file.unlink(missing_ok=True)
    return model.eval()


def trainable(studies: StudySet) -> StudySet:
    """The coded studies of the "train" part that have a text. Raises CourseError if there are none."""
    training = studies.split("train").coded()
    training = training.subset([i for i, study in enumerate(training) if study.text])
    if not training:
        raise CourseError("The train split has no study with a report: load the studies with their split.")
    return training


def train(model: CrossModalModel, studies: StudySet, resume_file: Path, data: dict) -> list[dict]:
    """Run the preset's steps and return their log; `resume_file` keeps the state in between."""
    preset, device = model.preset, model.device
    optimizer = make_optimizer(model)
    key = {"preset": asdict(preset), "data": data, "vocabulary": model.tokenizer.get_vocab()}
    first, log = load_state(resume_file, key, model, optimizer)
    batches = Batches(studies, preset)
    steps = tqdm(
        range(first, preset.steps), initial=first, total=preset.steps, desc=f"pretraining {preset.name}", unit="step"
    )
    model.train()
    for step in steps:
        torch.manual_seed(preset.seed * 1_000_003 + step)  # dropout, variation and word choice of this step
        images, texts, ignored = batches.draw(step)
        with torch.autocast(device.type, torch.bfloat16, enabled=bfloat16_helps(device)):
            loss, parts = batch_loss(model, images.to(device), texts, ignored.to(device))
        if not loss.isfinite():
            raise CourseError(
                f"The loss of step {step} is not finite: lower the preset's learning_rate and train again."
            )
        rate = preset.learning_rate * schedule(step, preset)
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), preset.clip)
        optimizer.step()
        log.append({"step": step, "learning_rate": rate, **parts})
        steps.set_postfix(loss=f"{loss.item():.2f}")
        if (step + 1) % SAVE_EVERY == 0 and step + 1 < preset.steps:
            save_state(resume_file, key, model, optimizer, step + 1, log)
    return log


def batch_loss(
    model: CrossModalModel, images: Tensor, texts: list[str], ignored: Tensor
) -> tuple[Tensor, dict[str, float]]:
    """The whole loss of a batch, global plus weighted local, each averaged over its two directions."""
    preset = model.preset
    global_temperature, local_temperature = model.temperatures()
    image, text = model.image_features(images), model.text_features(texts)
    words, word_mask = draw_words(text.words, text.word_mask, preset.max_words)
    with torch.autocast(images.device.type, enabled=False):  # cosines and log-sum-exps in full precision
        both = global_loss(
            image.image_global.float(), text.text_global.float(), global_temperature, false_negatives=ignored
        )
        local = local_loss(
            image.image_local.float(),
            words.float(),
            word_mask,
            attention_temperature=preset.attention_temperature,
            word_temperature=preset.word_temperature,
            temperature=local_temperature,
            false_negatives=ignored,
            words_compete=preset.words_compete,
            average_words=preset.average_words,
        )
    loss_global, loss_local = sum(both) / 2, (local.image_to_text + local.text_to_image) / 2
    parts = {
        "loss_global": loss_global.item(),
        "loss_local": loss_local.item(),
        "temperature_global": global_temperature.item(),
        "temperature_local": local_temperature.item(),
    }
    return loss_global + preset.local_weight * loss_local, parts


def draw_words(words: Tensor, word_mask: Tensor, max_words: int) -> tuple[Tensor, Tensor]:
    """Keep at most `max_words` random words of every text: words [B, D, N] and mask [B, N] become [B, D, M] and [B, M].

    The local loss costs time and memory for every word, content or not, of the longest text in the batch.
    """
    num_words = min(max_words, int(word_mask.sum(1).max()))
    order = torch.rand(word_mask.shape).to(word_mask.device).masked_fill(~word_mask, -1)
    chosen = order.topk(num_words, dim=1).indices  # [B, M]
    return words.gather(2, chosen[:, None].expand(-1, words.shape[1], -1)), word_mask.gather(1, chosen)


class Batches:
    """Draws the batch of any step from the training studies; the same step always gets the same batch."""

    def __init__(self, studies: StudySet, preset: Preset) -> None:
        self.studies, self.preset = studies, preset
        self.weights = sampling_weights(studies.labels)
        self.sentences = [study.sentences for study in studies]
        self.finding_sentences = [finding_sentences(study) for study in studies]
        self.normal = np.array([study.normal for study in studies])

    def draw(self, step: int) -> tuple[Tensor, list[str], Tensor]:
        """Images float [B, 1, S, S], their texts, and the pairs [B, B] that are no true negatives."""
        rng = np.random.default_rng([self.preset.seed, step])
        batch_size = min(self.preset.batch_size, len(self.studies))
        chosen = rng.choice(len(self.studies), batch_size, replace=False, p=self.weights)
        rows = [rng.choice(self.studies.rows[i]) for i in chosen]
        texts = [draw_text(self.sentences[i], self.finding_sentences[i], rng) for i in chosen]
        images = torch.from_numpy(np.asarray(self.studies.store.pixels[rows]))[:, None].float() / 255
        return vary(images), texts, false_negatives(texts, self.normal[chosen])


def schedule(step: int, preset: Preset) -> float:
    """The learning rate's factor, 0 to 1: a linear warm-up, then half a cosine down to 0."""
    return min(1.0, (step + 1) / preset.warm_up) * 0.5 * (1 + math.cos(math.pi * step / preset.steps))


def make_optimizer(model: CrossModalModel) -> torch.optim.AdamW:
    """AdamW; matrices decay, biases, norms and temperatures do not."""
    matrices = [parameter for parameter in model.parameters() if parameter.ndim > 1]
    others = [parameter for parameter in model.parameters() if parameter.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": model.preset.weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=model.preset.learning_rate, fused=True)


def save_state(
    file: Path, key: dict, model: CrossModalModel, optimizer: torch.optim.Optimizer, step: int, log: list[dict]
) -> None:
    content = {"key": key, "model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step, "log": log}
    partial = file.with_name(f"{file.name}.partial")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        torch.save(content, partial)
        partial.replace(file)
    except (OSError, RuntimeError) as error:  # torch reports a full disk as a RuntimeError
        raise CourseError(f"{file} could not be written ({error}): free some space, then run again.") from error
    finally:
        partial.unlink(missing_ok=True)


def load_state(
    file: Path, key: dict, model: CrossModalModel, optimizer: torch.optim.Optimizer
) -> tuple[int, list[dict]]:
    """The step to go on from and the log so far; (0, []) where there is nothing, or nothing that fits."""
    if not file.is_file():
        return 0, []
    try:
        content = torch.load(file, map_location=model.device, weights_only=True)
        if content["key"] != key:
            print(f"{file.name} is from other settings or data: training starts anew.")
            return 0, []
        model.load_state_dict(content["model"])
        optimizer.load_state_dict(content["optimizer"])
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, AttributeError, EOFError, pickle.UnpicklingError):
        raise CourseError(f"The interrupted training {file} is damaged: remove that file and run again.") from None
    print(f"Going on from step {content['step']} of {model.preset.steps}.")
    return content["step"], content["log"]


def csv_text(log: list[dict]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(log[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(log)
    return text.getvalue()
