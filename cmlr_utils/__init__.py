"""Helpers of the course on cross-modal representation learning from radiographs and reports (arXiv 2301.10951).

Names are imported when they are first used: drawing phantoms in many processes needs no torch.
"""

from __future__ import annotations

import importlib

__version__ = "0.1.0"

_HOME = {
    "CourseError": "data.files",
    "PATHOLOGIES": "data.mesh",
    "parse_mesh": "data.mesh",
    "Study": "data.reports",
    "read_reports": "data.reports",
    "read_kaggle": "data.reports",
    "label_text": "data.labeler",
    "label_mentions": "data.labeler",
    "leakage": "data.splits",
    "render_phantom": "data.phantom",
    "StudySet": "data.studies",
    "load_iu_rr": "data.studies",
    "load_panel": "data.studies",
    "load_twins": "data.studies",
    "load_chexpert": "data.chexpert",
    "load_chexphoto": "data.chexphoto",
    "load_nih": "data.nih",
    "load_pairs": "data.pairs",
    "Preset": "models.presets",
    "presets": "models.presets",
    "merge_word_pieces": "models.text_encoder",
    "CrossModalModel": "models.model",
    "pretrain": "training.pretrain",
}
__all__ = ["losses", *_HOME]


def __getattr__(name: str) -> object:
    if name == "losses":
        return importlib.import_module("cmlr_utils.models.losses")
    if name in _HOME:
        return getattr(importlib.import_module(f"cmlr_utils.{_HOME[name]}"), name)
    raise AttributeError(f"module 'cmlr_utils' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
