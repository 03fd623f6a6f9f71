"""The inner parts of `make course`, at small scale: reports, films, training, evaluation, one table, and again."""

from __future__ import annotations

import io
import json
import shutil
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cmlr_utils.course import line
from cmlr_utils.course.cli import main
from cmlr_utils.course.line import cell, nih_folder, table
from cmlr_utils.data import pixels, studies as studies_module
from cmlr_utils.data.files import CourseError
from cmlr_utils.data.mesh import HEADINGS, PATHOLOGIES
from cmlr_utils.data.phantom import render_phantom
from cmlr_utils.training import pretrain as pretrain_module

NIH_NAMES = ("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Effusion")


@dataclass
class Course:
    """One run of the course: where it wrote, what it printed, what it returned."""

    results: Path
    data: Path
    printed: str
    returned: dict


def imitate_nih(root: Path) -> None:
    """Films in NIH's place, two for each finding and four without."""
    root.mkdir()
    rows = ["image,patient,view,findings"]
    for number in range(14):
        finding = number // 2 if number < 10 else None
        codes, name = (["normal"], "No Finding") if finding is None else ([HEADINGS[finding]], NIH_NAMES[finding])
        Image.fromarray(render_phantom(f"nih-{number}", codes, 64).pixels).save(root / f"{number}.png")
        rows.append(f"{number}.png,{number},PA,{name}")
    (root / "labels.csv").write_text("\n".join(rows) + "\n")


def small_course(patch: pytest.MonkeyPatch, folder: Path, bank: Path, very_small, small_set, reports) -> None:
    """Point the course at `folder`, at few studies, and at a preset that trains in a second."""
    shown = next(study for study in studies_module.with_split(reports) if study.id == line.FIRST_STUDY)
    few = [*(study for study in small_set if study.id != shown.id), shown]
    (folder / "data" / "cache").mkdir(parents=True, exist_ok=True)
    shutil.copy(bank, folder / "data" / "cache")
    patch.setenv("CMLR_DATA", str(folder / "data"))
    patch.setenv("CMLR_NIH", str(folder / "nih"))
    patch.setattr(line, "results_folder", lambda: folder / "results")
    patch.setattr(studies_module, "read_reports", lambda: reports)
    patch.setattr(studies_module, "with_split", lambda *_: few)
    patch.setattr(studies_module, "PANEL_PER_CLASS", 3)
    patch.setattr(studies_module, "TWINS_PER_CASE", 3)
    patch.setitem(line.presets, "tiny", replace(very_small, steps=5))


@pytest.fixture(scope="module")
def course(tmp_path_factory, bank, very_small, small_set, reports):
    """The course, run once; it stays set up for the tests of this file."""
    folder = tmp_path_factory.mktemp("course")
    imitate_nih(folder / "nih")
    with pytest.MonkeyPatch.context() as patch:
        small_course(patch, folder, bank, very_small, small_set, reports)
        printed = io.StringIO()
        with redirect_stdout(printed):
            returned = line.run_course("tiny", "auto")
        yield Course(folder / "results", folder / "data", printed.getvalue(), returned)


def test_results_are_written_as_returned(course):
    written = json.loads((course.results / "results.json").read_text())
    assert written == json.loads(json.dumps(course.returned))
    assert (written["preset"], written["pixels"], written["seed"]) == ("tiny", "phantom", 0)
    assert {"python", "torch", "cores", "device"} <= set(written["machine"])


def test_every_set_has_every_score_of_the_trained_and_of_the_untrained_model(course, small_set):
    sets = course.returned["zero_shot"]
    assert list(sets) == ["test split (phantom)", "balanced panel (phantom)", "NIH ChestX-ray14 (real)"]
    for name, kinds in sets.items():
        assert set(kinds) == {"trained", "untrained"}
        for scores in kinds.values():
            assert list(scores) == ["global", "local", "global + local", "global + local, minus normal"]
            for aucs in scores.values():
                assert list(aucs) == [*PATHOLOGIES, "average"]
                assert all(0 <= auc["low"] <= auc["value"] <= auc["high"] <= 1 for auc in aucs.values()), name
    assert sets["test split (phantom)"]["trained"] != sets["test split (phantom)"]["untrained"]
    counts = {name: kinds["trained"]["global"]["edema"] for name, kinds in sets.items()}
    assert counts["balanced panel (phantom)"]["positives"] == 3 and counts["NIH ChestX-ray14 (real)"]["positives"] == 2
    tested = small_set.split("test").labels
    assert counts["test split (phantom)"]["positives"] in (tested[:, 3].sum(), tested[:, 3].sum() + 1)


def test_the_twins_are_measured_and_called_phantom(course):
    twins = course.returned["mirrored_twins (phantom)"]
    assert set(twins) == {name for _, name, _ in studies_module.TWIN_CASES}
    assert all(result["n"] == 6 and 0 <= result["right side"] <= 1 for result in twins.values())


def test_the_table_says_phantom_over_every_column_of_rendered_films(course):
    lines = (course.results / "table.md").read_text().splitlines()
    header = [column.strip() for column in lines[0].strip("|").split("|")][1:]
    assert header == ["test split (phantom)", "balanced panel (phantom)", "NIH ChestX-ray14 (real)"]
    rows = {line_.split("|")[1].strip(): line_.split("|")[2:-1] for line_ in lines[2:]}
    assert [name.strip("*") for name in rows][:6] == [*PATHOLOGIES, "average"]
    assert list(rows)[-2:] == ["average, untrained model", "chance"]
    auc = course.returned["zero_shot"]["balanced panel (phantom)"]["trained"]["global + local"]["edema"]
    assert rows["edema"][1].strip() == f"{auc['value']:.3f} [{auc['low']:.3f}, {auc['high']:.3f}], 3 of 18"
    assert all(len(cells) == 3 for cells in rows.values())


def test_the_table_is_printed_last_with_the_word_phantom(course):
    written = (course.results / "table.md").read_text()
    assert written in course.printed + "\n"
    after = course.printed.split(written.strip())[1]
    assert after == "" or after.strip().startswith("Phantom: ")


def test_the_first_picture_is_a_picture(course):
    with Image.open(course.results / "first_study.png") as picture:
        assert min(picture.size) > 200 and np.asarray(picture.convert("L")).std() > 20


def test_nothing_half_written_is_left(course):
    names = [path.name for path in (*course.data.rglob("*"), *course.results.rglob("*"))]
    assert not [name for name in names if name.endswith((".partial", ".old", ".resume"))]
    assert {"manifest.json", "model.safetensors", "phantom_bank.npz"} <= set(names)


def test_a_second_run_draws_nothing_trains_nothing_and_says_the_same(course, monkeypatch, capsys):
    monkeypatch.setattr(pixels, "draw_store", lambda *_: pytest.fail("drawn twice"))
    monkeypatch.setattr(pretrain_module, "train", lambda *_: pytest.fail("trained twice"))
    again = line.run_course("tiny", "auto")
    assert again["zero_shot"] == course.returned["zero_shot"]
    assert again["mirrored_twins (phantom)"] == course.returned["mirrored_twins (phantom)"]
    assert table(again) in capsys.readouterr().out


def test_the_commands_do_the_same_as_the_course(course, monkeypatch, capsys):
    monkeypatch.setattr(pretrain_module, "train", lambda *_: pytest.fail("trained twice"))
    assert [main([command]) for command in ("prepare", "pretrain", "evaluate")] == [0, 0, 0]
    assert table(course.returned) in capsys.readouterr().out


def test_evaluating_before_training_names_the_way(course, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(line, "checkpoint_folder", lambda preset, source: tmp_path / "tiny-phantom")
    assert main(["evaluate"]) == 1
    assert "no trained model" in (errors := capsys.readouterr().err) and "`cmlr pretrain`" in errors


def test_a_changed_preset_names_the_checkpoint(course, monkeypatch, capsys):
    preset = line.presets["tiny"]
    monkeypatch.setitem(line.presets, "tiny", replace(preset, clip=123.0))
    assert main(["evaluate"]) == 1
    assert f"trained with clip={preset.clip}, not 123.0" in capsys.readouterr().err


def test_results_that_cannot_be_written_are_named(course, monkeypatch, capsys, tmp_path):
    (tmp_path / "results").write_text("a file where the folder should be")
    monkeypatch.setattr(line, "results_folder", lambda: tmp_path / "results")
    assert main(["prepare"]) == 1
    assert "first_study.png could not be written" in capsys.readouterr().err


def test_few_real_films_without_the_first_study_are_enough(course, monkeypatch, small_set, model):
    films = small_set.split("test").subset(range(3))
    monkeypatch.setattr(line, "load_iu_rr", lambda images, size: films)
    assert line.FIRST_STUDY not in [study.id for study in films]
    assert line.prepare("open-i", 64) is films
    assert films[0].id in line.picture(model, films).axes[0].get_title()


# The pieces


def test_a_pathology_that_cannot_be_scored_says_so():
    assert cell(None, count=True) == "undefined: one class only"
    auc = {"value": 0.8, "low": 0.7, "high": 0.91, "positives": 3, "negatives": 7}
    assert cell(auc) == "0.800 [0.700, 0.910]" and cell(auc, count=True) == "0.800 [0.700, 0.910], 3 of 10"


def test_real_films_are_looked_for_where_the_reader_says(own_data, monkeypatch, tmp_path):
    monkeypatch.setenv("CMLR_NIH", str(tmp_path / "mine"))
    assert nih_folder() == tmp_path / "mine"
    monkeypatch.delenv("CMLR_NIH")
    (own_data / "raw" / "nih").mkdir(parents=True)
    assert nih_folder() == own_data / "raw" / "nih"


def test_a_missing_folder_of_real_films_is_named(monkeypatch, tmp_path):
    from cmlr_utils.data.nih import load_nih

    monkeypatch.setenv("CMLR_NIH", str(tmp_path / "mine"))
    with pytest.raises(CourseError, match="There is no folder .*mine"):
        load_nih(nih_folder(), 64)
