"""Pretraining: learns, goes on where it stopped as if nothing had happened, and never meets a test report."""

from __future__ import annotations

import csv
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from cmlr_utils.data import files
from cmlr_utils.data.files import CourseError
from cmlr_utils.data.studies import StudySet
from cmlr_utils.models.model import CrossModalModel
from cmlr_utils.training import pretrain as pretrain_module
from cmlr_utils.training.pretrain import Batches, draw_words, make_optimizer, pretrain, schedule


@pytest.fixture(scope="module")
def undisturbed(very_small, small_set, tmp_path_factory) -> tuple[dict[str, torch.Tensor], str]:
    """Weights and log of a training that nothing disturbed."""
    folder = tmp_path_factory.mktemp("undisturbed") / "model"
    trained = pretrain(very_small, small_set, folder)
    return {name: tensor.clone() for name, tensor in trained.state_dict().items()}, (folder / "log.csv").read_text()


@pytest.fixture(autouse=True)
def saved_every_second_step(monkeypatch):
    monkeypatch.setattr(pretrain_module, "SAVE_EVERY", 2)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "checkpoints" / "model"


@pytest.fixture
def at_step(monkeypatch) -> Callable:
    """at_step(3, error): let step 3 raise it once, before anything of that step is done."""
    draw = Batches.draw

    def disturb(number: int, error: BaseException) -> None:
        errors = [error]

        def disturbed(self, step):
            if step == number and errors:
                raise errors.pop()
            return draw(self, step)

        monkeypatch.setattr(Batches, "draw", disturbed)

    return disturb


def is_undisturbed(trained, folder, undisturbed) -> bool:
    weights, log = undisturbed
    same = all(torch.equal(tensor, weights[name]) for name, tensor in trained.state_dict().items())
    return same and (folder / "log.csv").read_text() == log and [p.name for p in folder.parent.iterdir()] == ["model"]


def test_training_lowers_the_loss(very_small, small_set, folder):
    pretrain(replace(very_small, steps=40, learning_rate=2e-3), small_set, folder)
    rows = list(csv.DictReader((folder / "log.csv").open()))
    losses = np.array([[float(row["loss_global"]), float(row["loss_local"])] for row in rows])
    assert [int(row["step"]) for row in rows] == list(range(40))
    assert (losses[-10:].mean(0) < losses[:10].mean(0) - 0.1).all(), losses


def test_a_trained_model_is_found_and_not_trained_twice(very_small, small_set, folder, undisturbed, monkeypatch):
    assert is_undisturbed(pretrain(very_small, small_set, folder), folder, undisturbed)
    monkeypatch.setattr(pretrain_module, "train", lambda *_: pytest.fail("trained twice"))
    found = pretrain(very_small, small_set, folder)
    assert is_undisturbed(found, folder, undisturbed) and not found.training


def test_a_checkpoint_lies_where_the_course_looks_for_it(very_small, small_set, own_data):
    pretrain(replace(very_small, steps=1), small_set)
    assert (own_data / "cache" / "checkpoints" / "tiny-phantom" / "model.safetensors").is_file()


@pytest.mark.parametrize("step", [0, 1, 3, 4, 5])
def test_ctrl_c_at_any_step_changes_nothing_in_the_end(
    very_small, small_set, folder, undisturbed, at_step, capsys, step
):
    at_step(step, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        pretrain(very_small, small_set, folder)
    assert not folder.exists()
    assert is_undisturbed(pretrain(very_small, small_set, folder), folder, undisturbed)
    assert ("Going on from step" in capsys.readouterr().out) == (step >= 2)


def test_ctrl_c_while_saving_the_state_keeps_the_state_before(
    very_small, small_set, folder, undisturbed, monkeypatch, capsys
):
    save, saves = torch.save, []

    def interrupted(content, file):
        saves.append(file)
        if len(saves) == 2:  # after step 4
            file.write_bytes(b"half a st")
            raise KeyboardInterrupt
        save(content, file)

    monkeypatch.setattr(pretrain_module.torch, "save", interrupted)
    with pytest.raises(KeyboardInterrupt):
        pretrain(very_small, small_set, folder)
    assert [path.name for path in folder.parent.iterdir()] == ["model.resume"]
    assert is_undisturbed(pretrain(very_small, small_set, folder), folder, undisturbed)
    assert "Going on from step 2 of 6" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["save", "save_pretrained"])
def test_ctrl_c_while_saving_the_model_leaves_no_half_model(
    very_small, small_set, folder, undisturbed, monkeypatch, name
):
    from transformers import PreTrainedTokenizerFast

    owner = CrossModalModel if name == "save" else PreTrainedTokenizerFast
    save = getattr(owner, name)

    def interrupted(self, *arguments):
        monkeypatch.setattr(owner, name, save)
        save(self, *arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(owner, name, interrupted)
    with pytest.raises(KeyboardInterrupt):
        pretrain(very_small, small_set, folder)
    assert [path.name for path in folder.parent.iterdir()] == ["model.resume"]
    assert is_undisturbed(pretrain(very_small, small_set, folder), folder, undisturbed)


@pytest.fixture
def interrupted_state(very_small, small_set, folder, at_step):
    """The file that a training left which was interrupted in step 5, so that it holds step 4."""
    at_step(5, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        pretrain(very_small, small_set, folder)
    return folder.with_name("model.resume")


def test_a_full_disk_while_saving_the_state_keeps_the_state_before(
    very_small, small_set, folder, undisturbed, interrupted_state, monkeypatch, largest_file
):
    before = interrupted_state.read_bytes()
    monkeypatch.setattr(pretrain_module, "SAVE_EVERY", 1)
    with largest_file(100_000), pytest.raises(CourseError, match=r"model\.resume could not be written.*run again"):
        pretrain(very_small, small_set, folder)
    assert interrupted_state.read_bytes() == before
    assert list(folder.parent.iterdir()) == [interrupted_state]
    assert is_undisturbed(pretrain(very_small, small_set, folder), folder, undisturbed)


def test_a_full_disk_while_saving_the_model_leaves_no_half_model(
    very_small, small_set, folder, undisturbed, interrupted_state, largest_file
):
    with largest_file(100_000), pytest.raises(CourseError, match="model could not be written.*run again"):
        pretrain(very_small, small_set, folder)
    assert list(folder.parent.iterdir()) == [interrupted_state]
    assert is_undisturbed(pretrain(very_small, small_set, folder), folder, undisturbed)


def test_too_little_space_is_said_before_training(very_small, small_set, folder, monkeypatch):
    usage = shutil.disk_usage("/")._replace(free=1_000_000)
    monkeypatch.setattr(files.shutil, "disk_usage", lambda path: usage)
    monkeypatch.setattr(pretrain_module, "train", lambda *_: pytest.fail("trained without space"))
    with pytest.raises(CourseError, match="disk has 1 MB free"):
        pretrain(very_small, small_set, folder)


@pytest.mark.parametrize("damage", ["cut off", "empty", "text", "list", "other keys", "other weights"])
def test_a_damaged_state_is_named_and_a_fresh_start_works(
    very_small, small_set, folder, undisturbed, interrupted_state, damage
):
    if damage == "cut off":
        os.truncate(interrupted_state, interrupted_state.stat().st_size // 2)
    elif damage in ("empty", "text"):
        interrupted_state.write_text("" if damage == "empty" else "no state")
    else:
        content = torch.load(interrupted_state, weights_only=True)
        changed = {"list": [1, 2], "other keys": {"weights": 1}, "other weights": content | {"model": {}}}
        torch.save(changed[damage], interrupted_state)
    with pytest.raises(CourseError, match=r"model\.resume is damaged: remove that file and run again"):
        pretrain(very_small, small_set, folder)
    interrupted_state.unlink()
    assert is_undisturbed(pretrain(very_small, small_set, folder), folder, undisturbed)


def test_a_state_of_other_settings_is_not_gone_on_from(very_small, small_set, folder, interrupted_state, capsys):
    pretrain(replace(very_small, seed=1), small_set, folder)
    assert "from other settings or data: training starts anew" in capsys.readouterr().out
    assert not interrupted_state.exists()


def test_a_state_of_other_pixels_is_not_gone_on_from(
    very_small, small_set, folder, interrupted_state, undisturbed, capsys
):
    other = replace(small_set, store=replace(small_set.store, fingerprint="other pixels"))
    trained = pretrain(very_small, other, folder)
    assert "from other settings or data: training starts anew" in capsys.readouterr().out
    assert is_undisturbed(trained, folder, undisturbed)


def test_a_state_runs_no_code(very_small, small_set, folder):
    """A pickle that would write a file when it is loaded."""

    class Hostile:
        def __reduce__(self):
            return os.mkdir, (str(folder.with_name("trespassed")),)

    folder.parent.mkdir(parents=True)
    torch.save({"key": Hostile()}, folder.with_name("model.resume"))
    with pytest.raises(CourseError, match="damaged"):
        pretrain(very_small, small_set, folder)
    assert not folder.with_name("trespassed").exists()


def test_a_checkpoint_of_another_preset_is_named(very_small, small_set, folder):
    pretrain(very_small, small_set, folder)
    with pytest.raises(CourseError, match="trained with steps=6, not 7"):
        pretrain(replace(very_small, steps=7), small_set, folder)


def test_a_checkpoint_of_other_pixels_is_trained_again(very_small, small_set, folder, undisturbed, capsys):
    pretrain(very_small, small_set, folder)
    data = json.loads((folder / "data.json").read_text())
    (folder / "data.json").write_text(json.dumps(data | {"pixels": "older"}))
    (folder / "model.safetensors").write_bytes(b"older")
    assert is_undisturbed(pretrain(very_small, small_set, folder), folder, undisturbed)
    assert "from other pixels or reports: training again" in capsys.readouterr().out


def test_a_loss_that_is_not_finite_is_named(very_small, small_set, folder):
    with pytest.raises(CourseError, match=r"loss of step [1-5] is not finite: lower .*learning_rate"):
        pretrain(replace(very_small, learning_rate=1e30, warm_up=1), small_set, folder)
    assert not folder.exists()


# Which reports enter


def test_reports_of_other_parts_never_enter(very_small, small_set, folder, monkeypatch):
    def marked(study):
        return study if study.split == "train" else replace(study, findings=f"жabberwocky {study.findings}")

    everything = StudySet(tuple(map(marked, small_set)), small_set.rows, small_set.store, small_set.source)
    drawn_rows, drawn_texts, draw = [], [], Batches.draw

    class Watched:
        def __getitem__(self, rows):
            drawn_rows.extend(rows)
            return small_set.store.pixels[rows]

    def watched(self, step):
        images, texts, ignored = draw(self, step)
        drawn_texts.extend(texts)
        return images, texts, ignored

    monkeypatch.setattr(Batches, "draw", watched)
    everything = replace(everything, store=replace(small_set.store, pixels=Watched()))
    trained = pretrain(replace(very_small, steps=25), everything, folder)
    owner = {row: study for study, rows in zip(everything, everything.rows, strict=True) for row in rows}
    assert len(drawn_rows) == len(drawn_texts) == 25 * 6
    assert {owner[row].split for row in drawn_rows} == {"train"}
    assert not any("ж" in text for text in drawn_texts)
    assert not any("ж" in token for token in trained.tokenizer.get_vocab())


def test_what_a_report_of_the_train_part_says_does_enter(very_small, small_set, folder):
    """The control of the test above: there, the same mark would have been seen."""
    marked = [replace(study, findings=f"жabberwocky {study.findings}") for study in small_set]
    everything = StudySet(tuple(marked), small_set.rows, small_set.store, small_set.source)
    trained = pretrain(replace(very_small, steps=1), everything, folder)
    assert any("ж" in token for token in trained.tokenizer.get_vocab())


def test_uncoded_and_silent_studies_do_not_enter(small_set):
    uncoded = replace(small_set[0], labels=np.full(5, np.nan, np.float32))
    silent = replace(small_set[1], findings="", impression="XXXX")
    changed = StudySet((uncoded, silent, *small_set.studies[2:]), small_set.rows, small_set.store, "phantom")
    training = pretrain_module.trainable(changed)
    assert len(training) == len(small_set.split("train")) - 2
    assert {uncoded.id, silent.id}.isdisjoint(study.id for study in training)


def test_a_set_without_training_studies_is_named(very_small, small_set, folder):
    with pytest.raises(CourseError, match="train split has no study"):
        pretrain(very_small, small_set.split("test"), folder)


# The parts of a step


def test_a_step_always_draws_the_same_batch_and_another_step_another(very_small, small_set):
    batches = Batches(small_set.split("train"), very_small)
    pictures = []
    for step in (3, 3, 4):
        torch.manual_seed(step)
        images, texts, ignored = batches.draw(step)
        assert images.shape == (6, 1, 64, 64) and images.min() >= 0 and images.max() <= 1
        assert len(texts) == 6 and ignored.shape == (6, 6) and ignored.diagonal().all()
        pictures.append((images, texts))
    assert torch.equal(pictures[0][0], pictures[1][0]) and pictures[0][1] == pictures[1][1]
    assert pictures[0][1] != pictures[2][1]


def test_the_learning_rate_warms_up_and_falls_to_zero(very_small):
    preset = replace(very_small, warm_up=10, steps=100)
    factors = [schedule(step, preset) for step in range(100)]
    assert factors[0] == pytest.approx(0.1) and max(factors) > 0.97 and factors[-1] < 0.001
    peak = int(np.argmax(factors))
    assert 8 <= peak <= 10 and (np.diff(factors[:peak]) > 0).all() and (np.diff(factors[peak:]) < 0).all()
    assert factors[50] == pytest.approx(0.5)


def test_only_matrices_decay(model):
    decaying, others = make_optimizer(model).param_groups
    assert decaying["weight_decay"] == model.preset.weight_decay > 0 == others["weight_decay"]
    assert all(parameter.ndim > 1 for parameter in decaying["params"])
    assert len(decaying["params"]) + len(others["params"]) == len(list(model.parameters()))


def test_drawn_words_are_words_of_their_text_and_no_padding():
    words = torch.arange(3 * 10.0).reshape(3, 1, 10)
    mask = torch.zeros(3, 10, dtype=torch.bool)
    mask[0, 2:9], mask[1, 4], mask[2, [1, 7]] = True, True, True
    for _ in range(20):
        drawn, kept = draw_words(words, mask, 3)
        assert drawn.shape == (3, 1, 3) and kept.sum(1).tolist() == [3, 1, 2]
        for b in range(3):
            allowed = set(words[b, 0, mask[b]].tolist())
            chosen = drawn[b, 0, kept[b]].tolist()
            assert set(chosen) <= allowed and len(set(chosen)) == len(chosen)
    drawn, kept = draw_words(words, mask, 50)
    assert sorted(drawn[0, 0].tolist()) == words[0, 0, 2:9].tolist() and kept.sum() == mask.sum()
