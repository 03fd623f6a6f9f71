"""What phantoms teach about real radiographs: `python benchmarks/real_radiographs.py`, three trainings of some minutes.

Trains the tiny preset on phantoms alone with three seeds and asks each model about NIH ChestX-ray14: zero-shot, and by
a linear probe that is fitted and tested there, on different patients. The untrained encoder stands beside it.
"""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np

from cmlr_utils.course.line import nih_folder
from cmlr_utils.data.files import CourseError, cache_folder
from cmlr_utils.data.mesh import PATHOLOGIES
from cmlr_utils.data.nih import load_nih
from cmlr_utils.data.studies import StudySet, load_iu_rr, load_panel
from cmlr_utils.evaluation.classification import cross_validated_probe
from cmlr_utils.evaluation.statistics import aucs
from cmlr_utils.evaluation.zero_shot import zero_shot, zero_shot_aucs
from cmlr_utils.models.model import CrossModalModel
from cmlr_utils.models.presets import presets
from cmlr_utils.training.pretrain import pretrain

SEEDS = (0, 1, 2)
TABLE = Path(__file__).with_name("real_radiographs.md")
MAIN, PROBE = "global + local, minus normal", "linear probe"


def judge(model: CrossModalModel, nih: StudySet) -> dict[str, np.ndarray]:
    """AUCs float [6], the five and their average, of every way to score."""
    images = model.encode_images(nih.images)
    scores = zero_shot(model, images).named()
    scores[PROBE] = cross_validated_probe(images.pooled.numpy(), nih.labels, nih.patients)
    results = {name: aucs(nih.labels, score, nih.patients) for name, score in scores.items()}
    return {name: np.array([auc.value for auc in (*each, average)]) for name, (each, average) in results.items()}


def mean_and_range(values: Iterable[float]) -> str:
    values = list(values)
    return f"{np.mean(values):.3f} ({min(values):.3f} to {max(values):.3f})"


def main() -> None:
    folder = nih_folder()
    if folder is None:
        raise CourseError(
            "There are no NIH radiographs: put them with their CSV into a folder and name it in CMLR_NIH."
        )
    size = presets["tiny"].image_size
    nih, studies, panel = load_nih(folder, size), load_iu_rr("phantom", size), load_panel(size)
    trained, untrained, phantom = [], [], []
    for seed in SEEDS:
        preset = replace(presets["tiny"], seed=seed)
        model = pretrain(preset, studies, cache_folder() / "checkpoints" / f"seed-{seed}-phantom")
        trained.append(judge(model, nih))
        untrained.append(judge(model.with_random_weights(), nih))
        sets = (studies.split("test"), panel)
        phantom.append([zero_shot_aucs(model, those)["global + local"][1].value for those in sets])
    counts = ", ".join(f"{name} {count:.0f}" for name, count in zip(PATHOLOGIES, np.nansum(nih.labels, 0), strict=True))
    lines = [
        f"Made by `python benchmarks/real_radiographs.py`: {platform.machine()}, {os.cpu_count()} cores, "
        f"{presets['tiny'].steps} steps, seeds {', '.join(map(str, SEEDS))}; mean over the seeds (and range).",
        f"{len(nih)} real radiographs of {len(set(nih.patients))} patients from `{folder.name}`; positives: {counts}. "
        "No real pixel was seen in training; the probe's weights alone are fitted to real ones.",
        "",
        "| average AUC, NIH (real) | trained on phantoms | untrained |",
        "|---|---|---|",
    ]
    for name in trained[0]:
        cells = [mean_and_range(result[name][-1] for result in results) for results in (trained, untrained)]
        lines.append(f"| {name} | {cells[0]} | {cells[1]} |")
    lines += ["", f"| AUC, NIH (real) | {MAIN} | {PROBE} |", "|---|---|---|"]
    for k, name in enumerate(PATHOLOGIES):
        cells = [mean_and_range(result[score][k] for result in trained) for score in (MAIN, PROBE)]
        lines.append(f"| {name} | {cells[0]} | {cells[1]} |")
    test, panels = zip(*phantom, strict=True)
    lines += [
        "",
        f"The same models on phantoms, global + local: test split {mean_and_range(test)}, "
        f"balanced panel {mean_and_range(panels)}.",
    ]
    TABLE.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(TABLE.read_text(encoding="utf-8"))


if __name__ == "__main__":
    try:
        main()
    except CourseError as error:
        sys.exit(str(error))
