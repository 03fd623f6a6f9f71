"""Zero-shot diagnosis: the score of a pathology is how well the radiograph fits its prompts."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import yaml

from cmlr_utils.data.files import CourseError, course_file
from cmlr_utils.data.mesh import PATHOLOGIES
from cmlr_utils.data.studies import StudySet
from cmlr_utils.evaluation.statistics import Auc, aucs
from cmlr_utils.models.image_encoder import ImageFeatures
from cmlr_utils.models.model import CrossModalModel


@dataclass(frozen=True)
class ZeroShotScores:
    """Scores [n, 5] of n radiographs, higher means present; comparable within a pathology, not between them."""

    by_global: np.ndarray
    by_local: np.ndarray
    both: np.ndarray
    both_minus_normal: np.ndarray

    def named(self) -> dict[str, np.ndarray]:
        return {
            "global": self.by_global,
            "local": self.by_local,
            "global + local": self.both,
            "global + local, minus normal": self.both_minus_normal,
        }


def read_prompts(path: Path | None = None) -> dict[str, list[str]]:
    """The prompts of each pathology and of "normal", from a YAML file (default: data/prompts/pathologies.yaml).

    Raises CourseError naming the file and the entry that is missing or empty.
    """
    path = Path(path) if path else course_file("prompts/pathologies.yaml")
    try:
        entries = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise CourseError(f"The prompts {path} cannot be read ({str(error).splitlines()[0]}): restore them.") from error
    prompts = {}
    for name in (*PATHOLOGIES, "normal"):
        entry = entries.get(name) if isinstance(entries, dict) else None
        if not isinstance(entry, dict) or not (entry.get("name") or entry.get("extra")):
            raise CourseError(f"The prompts {path} have no {name}: give it a name or extra sentences.")
        for key in ("severities", "locations", "extra"):
            texts = entry.get(key, [])  # lists of lists of lists, in a few lines of YAML, can make gigabytes
            if not isinstance(texts, list) or {type(text) for text in (*texts, entry.get("name", ""))} != {str}:
                raise CourseError(f"The prompts {path} have no list of texts for {key} of {name}: write [a, b].")
        prompts[name] = list(entry.get("extra", []))
        if "name" in entry:
            parts = product(entry.get("severities", [""]), entry.get("locations", [""]))
            prompts[name] += [
                " ".join(f"{severity} {location} {entry['name']}.".split()) for severity, location in parts
            ]
    return prompts


def prompt_scores(model: CrossModalModel, images: ImageFeatures, prompts: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """The mean similarity of each radiograph with the prompts, global and local, two arrays [n]."""
    texts = model.encode_texts(prompts)
    return tuple(
        similarity(images, texts).mean(1).numpy() for similarity in (model.global_similarity, model.local_similarity)
    )


def zero_shot(
    model: CrossModalModel, images: ImageFeatures, prompts: dict[str, list[str]] | None = None
) -> ZeroShotScores:
    """Score n encoded radiographs for the five pathologies by their prompts alone.

    Both scores are standardised over the n radiographs before they are added, so that neither outweighs the other;
    "minus normal" does the same with the score of the normal prompts taken away first.
    """
    prompts = prompts or read_prompts()
    normal = np.stack(prompt_scores(model, images, prompts["normal"]))  # [2, n]
    # [5, 2, n] → [2, n, 5]
    scores = np.stack([prompt_scores(model, images, prompts[name]) for name in PATHOLOGIES]).transpose(1, 2, 0)
    both = standardised(scores).sum(0)
    both_minus_normal = standardised(scores - normal[..., None]).sum(0)
    return ZeroShotScores(scores[0], scores[1], both, both_minus_normal)


def standardised(scores: np.ndarray) -> np.ndarray:
    """Mean 0 and deviation 1 over the radiographs, the second to last axis."""
    spread = scores.std(-2, keepdims=True)
    return (scores - scores.mean(-2, keepdims=True)) / np.where(spread > 0, spread, 1)


def zero_shot_aucs(model: CrossModalModel, studies: StudySet) -> dict[str, tuple[list[Auc | None], Auc]]:
    """The AUC of each way to score, over the coded studies of a set: per pathology, and their average."""
    coded = studies.coded()
    scores = zero_shot(model, model.encode_images(coded.images))
    return {name: aucs(coded.labels, score, coded.patients) for name, score in scores.named().items()}
