"""The whole line: real reports → radiographs → pretraining → zero-shot diagnosis → one table."""

from __future__ import annotations

import json
import os
import platform
import time
from pathlib import Path

import torch
from matplotlib.figure import Figure

from cmlr_utils.course.figures import DPI, diagnosis_picture, first_picture
from cmlr_utils.data.files import REPOSITORY, CourseError, data_folder, new_file, write_text
from cmlr_utils.data.mesh import PATHOLOGIES
from cmlr_utils.data.nih import load_nih
from cmlr_utils.data.studies import StudySet, load_iu_rr, load_panel, load_twins
from cmlr_utils.evaluation.grounding import side_test, word_attention
from cmlr_utils.evaluation.statistics import as_json
from cmlr_utils.evaluation.zero_shot import zero_shot, zero_shot_aucs
from cmlr_utils.models.image_encoder import ImageFeatures
from cmlr_utils.models.model import CrossModalModel
from cmlr_utils.models.presets import Preset, presets
from cmlr_utils.training.pretrain import checkpoint_folder, pretrain

FIRST_STUDY = "CXR2448"  # of the test split: air and fluid beside the right lung, and a report that says so
MAIN_SCORE = "global + local"


def results_folder() -> Path:
    """`results/` of the clone, or of the current folder where the package was installed without one."""
    return (REPOSITORY if (REPOSITORY / "pyproject.toml").is_file() else Path.cwd()) / "results"


def nih_folder() -> Path | None:
    """Where real NIH radiographs are, if anywhere: $CMLR_NIH, data/raw/nih, or a `shared` folder beside the clone."""
    named = os.environ.get("CMLR_NIH")
    places = [data_folder() / "raw" / "nih", REPOSITORY.parent / "shared" / "radiographs" / "nih64"]
    return Path(named) if named else next((place for place in places if place.is_dir()), None)


def prepare(images: str, image_size: int) -> StudySet:
    """Read the reports, draw or read every radiograph into the cache, and save the first picture."""
    studies = load_iu_rr(images, image_size)
    load_panel(image_size)
    load_twins(image_size)
    file = results_folder() / "first_study.png"
    save(first_picture(studies, first_study(studies)), file)
    print(f"{len(studies):,} studies: real reports, {studies.source} radiographs. A first picture: {shown(file)}")
    return studies


def first_study(studies: StudySet) -> int:
    """The index of the study that the course shows first, or 0 where its film is not there."""
    return next((i for i, study in enumerate(studies) if study.id == FIRST_STUDY), 0)


def save(figure: Figure, file: Path) -> None:
    with new_file(file) as partial:
        figure.savefig(partial, format="png", dpi=DPI)


def evaluate(model: CrossModalModel, studies: StudySet) -> dict:
    """Zero-shot AUCs of the model and of its untrained twin on each test set, and the mirrored twins."""
    started = time.perf_counter()
    size = model.preset.image_size
    untrained = model.with_random_weights().to(model.device)
    test_sets = {f"test split ({studies.source})": studies.split("test"), "balanced panel (phantom)": load_panel(size)}
    if folder := nih_folder():
        test_sets["NIH ChestX-ray14 (real)"] = load_nih(folder, size)
    zero_shot = {}
    for name, test_set in test_sets.items():
        print(f"Zero-shot: {name} …")
        zero_shot[name] = {
            kind: {score: as_json(*result) for score, result in zero_shot_aucs(network, test_set).items()}
            for kind, network in (("trained", model), ("untrained", untrained))
        }
    twins = {
        name: side_test(model, left, right, without, PATHOLOGIES[finding])
        for name, (finding, left, right, without) in load_twins(size).items()
    }
    return {
        "preset": model.preset.name,
        "pixels": studies.source,
        "seed": model.preset.seed,
        "zero_shot": zero_shot,
        "mirrored_twins (phantom)": twins,
        "evaluation_seconds": round(time.perf_counter() - started, 1),
        "machine": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "system": platform.system(),
            "processor": platform.machine(),
            "cores": os.cpu_count(),
            "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        },
    }


def load_or_explain(preset: Preset, source: str) -> CrossModalModel:
    """The trained model. Raises CourseError if nothing was trained yet."""
    folder = checkpoint_folder(preset, source)
    if not folder.is_dir():
        raise CourseError(f"There is no trained model in {folder}: run `cmlr pretrain` first.")
    return CrossModalModel.load(folder, expected=preset)


def table(results: dict) -> str:
    """The results as a Markdown table: AUC [95 % interval], the untrained control, and how many are positive."""
    sets = list(results["zero_shot"])
    lines = [
        "| zero-shot AUC [95 % interval] | " + " | ".join(sets) + " |",
        "|---" * (len(sets) + 1) + "|",
    ]
    trained, untrained = ([results["zero_shot"][name][kind] for name in sets] for kind in ("trained", "untrained"))
    for pathology in (*PATHOLOGIES, "average"):
        cells = [cell(scores[MAIN_SCORE][pathology], count=pathology != "average") for scores in trained]
        bold = "**" if pathology == "average" else ""
        lines.append(f"| {bold}{pathology}{bold} | " + " | ".join(f"{bold}{c}{bold}" for c in cells) + " |")
    for score in trained[0]:
        if score != MAIN_SCORE:
            lines.append(f"| average, {score} | " + " | ".join(cell(s[score]["average"]) for s in trained) + " |")
    lines.append("| average, untrained model | " + " | ".join(cell(s[MAIN_SCORE]["average"]) for s in untrained) + " |")
    lines.append("| chance" + " | .500" * len(sets) + " |")
    return "\n".join(lines)


def cell(auc: dict | None, count: bool = False) -> str:
    if auc is None:
        return "undefined: one class only"
    interval = f"{auc['value']:.3f} [{auc['low']:.3f}, {auc['high']:.3f}]"
    return f"{interval}, {auc['positives']} of {auc['positives'] + auc['negatives']}" if count else interval


def run_course(preset_name: str = "tiny", images: str = "auto") -> dict:
    """Do everything, reusing what is there already, and print the table last."""
    preset = presets[preset_name]
    studies = prepare(images, preset.image_size)
    model = pretrain(preset, studies)
    return report(model, studies)


def report(model: CrossModalModel, studies: StudySet) -> dict:
    """Evaluate, write results.json, table.md and picture.png into results/, and print the table."""
    results = evaluate(model, studies)
    folder, text = results_folder(), table(results)
    write_text(folder / "results.json", json.dumps(results, indent=1) + "\n")
    write_text(folder / "table.md", text + "\n")
    save(picture(model, studies), folder / "picture.png")
    print(f"\nWritten to {shown(folder)}: results.json, table.md, picture.png\n\n{text}")
    if studies.source == "phantom":
        print(
            "\nPhantom: these radiographs were rendered from the codes that make the labels, so such a number says "
            "nothing clinical."
        )
    return results


def picture(model: CrossModalModel, studies: StudySet) -> Figure:
    """The first study, diagnosed: how its zero-shot scores rank in the test split."""
    finding = PATHOLOGIES.index("pleural effusion")
    test = studies.split("test")
    index = first_study(test)
    images = model.encode_images(test.images)
    attention = word_attention(
        model, ImageFeatures(*(part[index : index + 1] for part in images)), "pleural effusion.", "effusion"
    )
    scores = zero_shot(model, images).both
    ranks = 100 * (scores < scores[index]).mean(0)
    return diagnosis_picture(test, index, attention[0].numpy(), "effusion", ranks, finding)


def shown(path: Path) -> str:
    """A path as a reader at the clone's top would type it."""
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)
