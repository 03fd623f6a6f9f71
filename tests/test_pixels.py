"""The pixel cache: drawn once, never stale, cut off or altered, and nothing left by an interruption or a full disk."""

from __future__ import annotations

import errno
import json
import os
import shutil

import numpy as np
import pytest

from cmlr_utils.data import files, pixels
from cmlr_utils.data.files import CourseError, new_folder, write_text
from cmlr_utils.data.pixels import new_array, open_store

SIZE = 9  # 81 pixels: no whole number of bytes, so packed masks end in the middle of one


def noise(number: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(number)
    return rng.integers(0, 256, (size, size), dtype=np.uint8), rng.random((5, size, size)) < 0.3


def maskless(number: int, size: int) -> tuple[np.ndarray, None]:
    return noise(number, size)[0], None


JOBS = [(number,) for number in range(70)]  # more than two chunks


@pytest.fixture
def one_process(monkeypatch):
    """Draw in this process, where a test can count and interrupt."""
    monkeypatch.setattr(pixels, "cpu_count", lambda: 1)


class Counted:
    """Draws noise, counts how often, and raises `error` instead of drawing number `at`."""

    def __init__(self, error: BaseException | None = None, at: int = -1) -> None:
        self.calls, self.error, self.at = 0, error, at

    def __call__(self, number: int, size: int) -> tuple[np.ndarray, np.ndarray]:
        self.calls += 1
        if number == self.at and self.error:
            raise self.error
        return noise(number, size)


def opened(tmp_path, draw=noise, *, jobs=JOBS, version="1", size=SIZE):
    return open_store("films", jobs, draw, size=size, version=version, folder=tmp_path)


def is_whole(store, jobs=JOBS) -> bool:
    drawn = [noise(number, SIZE) for (number,) in jobs]
    return all(
        (store.pixels[row] == image).all() and (store.masks(row) == masks).all()
        for row, (image, masks) in enumerate(drawn)
    )


def test_processes_share_the_work_and_rows_keep_their_order(tmp_path, monkeypatch):
    monkeypatch.setattr(pixels, "cpu_count", lambda: 2)
    store = opened(tmp_path)
    assert store.pixels.dtype == np.uint8 and store.pixels.shape == (70, SIZE, SIZE)
    assert isinstance(store.pixels, np.memmap)
    assert is_whole(store)


def test_masks_take_an_eighth_and_come_back_whole(tmp_path, one_process):
    store = opened(tmp_path)
    assert store.packed_masks.shape == (70, 5, 11)
    assert store.masks(3).dtype == bool and store.masks(3).shape == (5, SIZE, SIZE)
    assert is_whole(store)


def test_a_store_is_drawn_once(tmp_path, one_process):
    draw = Counted()
    opened(tmp_path, draw)
    assert is_whole(opened(tmp_path, draw)) and draw.calls == len(JOBS)


def test_radiographs_without_masks_say_so(tmp_path, one_process):
    store = opened(tmp_path, maskless)
    assert store.packed_masks is None and not (tmp_path / "films-9" / "masks.npy").exists()
    with pytest.raises(CourseError, match="no masks"):
        store.masks(0)


@pytest.mark.parametrize("change", [{"version": "2"}, {"jobs": JOBS[:-1]}, {"jobs": JOBS[::-1]}])
def test_a_store_of_another_version_or_of_other_jobs_is_drawn_again(tmp_path, one_process, capsys, change):
    opened(tmp_path)
    draw = Counted()
    store = opened(tmp_path, draw, **change)
    assert "is from another version: drawing it again" in capsys.readouterr().out
    assert draw.calls == len(store.pixels) and is_whole(store, change.get("jobs", JOBS))


def test_each_size_has_a_store_of_its_own(tmp_path, one_process):
    opened(tmp_path)
    opened(tmp_path, size=12)
    draw = Counted()
    opened(tmp_path, draw)
    assert draw.calls == 0


def flip(path):
    content = bytearray(path.read_bytes())
    content[-7] ^= 1
    path.write_bytes(content)


DAMAGE = {
    "a flipped byte": lambda folder: flip(folder / "pixels.npy"),
    "a flipped byte in the masks": lambda folder: flip(folder / "masks.npy"),
    "cut off": lambda folder: os.truncate(folder / "pixels.npy", 1000),
    "emptied": lambda folder: os.truncate(folder / "pixels.npy", 0),
    "no pixels": lambda folder: (folder / "pixels.npy").unlink(),
    "no masks": lambda folder: (folder / "masks.npy").unlink(),
    "no manifest": lambda folder: (folder / "manifest.json").unlink(),
    "cut off manifest": lambda folder: os.truncate(folder / "manifest.json", 40),
    "foreign manifest": lambda folder: (folder / "manifest.json").write_text("[1, 2]"),
    "binary manifest": lambda folder: (folder / "manifest.json").write_bytes(b"\xff\xfe\x00"),
    "manifest without sums": lambda folder: (folder / "manifest.json").write_text(
        json.dumps({"fingerprint": json.loads((folder / "manifest.json").read_text())["fingerprint"]})
    ),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_store_is_drawn_again(tmp_path, one_process, capsys, damage):
    opened(tmp_path)
    DAMAGE[damage](tmp_path / "films-9")
    draw = Counted()
    assert is_whole(opened(tmp_path, draw)) and draw.calls == len(JOBS)
    assert "films-9 is" in capsys.readouterr().out
    opened(tmp_path, draw)
    assert draw.calls == len(JOBS)


@pytest.mark.parametrize("at", [0, 40, 69])
def test_ctrl_c_leaves_nothing_and_the_next_call_draws(tmp_path, one_process, at):
    with pytest.raises(KeyboardInterrupt):
        opened(tmp_path, Counted(KeyboardInterrupt(), at))
    assert list(tmp_path.iterdir()) == []
    assert is_whole(opened(tmp_path))


def test_ctrl_c_leaves_an_older_store_as_it_was(tmp_path, one_process):
    opened(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        opened(tmp_path, Counted(KeyboardInterrupt(), 40), version="2")
    draw = Counted()
    assert is_whole(opened(tmp_path, draw)) and draw.calls == 0


@pytest.mark.filterwarnings("error")
def test_ctrl_c_between_two_processes_leaves_nothing(tmp_path, monkeypatch):
    class Interrupted(pixels.tqdm):
        def update(self, n=1):
            raise KeyboardInterrupt

    monkeypatch.setattr(pixels, "tqdm", Interrupted)
    monkeypatch.setattr(pixels, "cpu_count", lambda: 2)
    with pytest.raises(KeyboardInterrupt):
        opened(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_error_of_the_drawing_reaches_the_reader(tmp_path, one_process):
    with pytest.raises(CourseError, match="film 5 is unreadable"):
        opened(tmp_path, Counted(CourseError("film 5 is unreadable"), 5))
    assert list(tmp_path.iterdir()) == []


def test_too_little_space_is_said_before_anything_is_drawn(tmp_path, one_process, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=5_000)
    monkeypatch.setattr(files.shutil, "disk_usage", lambda folder: usage)
    draw = Counted()
    with pytest.raises(CourseError, match="MB free.*CMLR_DATA"):
        opened(tmp_path, draw)
    assert draw.calls == 0 and list(tmp_path.iterdir()) == []


def test_a_disk_that_fills_up_meanwhile_leaves_nothing(tmp_path, one_process):
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with pytest.raises(CourseError, match="films-9 could not be written .No space left on device.*run again"):
        opened(tmp_path, Counted(full, 40))
    assert list(tmp_path.iterdir()) == []
    assert is_whole(opened(tmp_path))


def test_a_write_that_the_system_refuses_leaves_nothing(tmp_path, one_process, largest_file):
    with largest_file(2_000), pytest.raises(CourseError, match="films-9 could not be written"):
        opened(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.name == "nt", reason="Windows counts no blocks")
def test_the_space_of_an_array_is_taken_before_it_is_filled(tmp_path):
    """The disk may fill up while films are drawn; writing into a hole of a mapped file would kill the process."""
    array = new_array(tmp_path / "pixels.npy", (64, 128, 128))
    assert not array.any() and (tmp_path / "pixels.npy").stat().st_blocks * 512 >= array.nbytes


# new_folder and write_text, which every other file of the course goes through


def test_a_new_folder_takes_the_name_only_when_all_went_well(tmp_path):
    target = tmp_path / "model"
    with new_folder(target) as partial:
        (partial / "a").write_text("old")
        assert not target.exists()
    with pytest.raises(ZeroDivisionError), new_folder(target) as partial:
        (partial / "a").write_text("new")
        1 / 0  # noqa: B018
    assert (target / "a").read_text() == "old"
    with new_folder(target) as partial:
        (partial / "b").write_text("new")
    assert [path.name for path in tmp_path.rglob("*")] == ["model", "b"]


def test_a_new_folder_that_cannot_take_its_name_leaves_the_old_one(tmp_path, monkeypatch):
    target = tmp_path / "model"
    target.mkdir()
    (target / "a").write_text("old")
    replace = type(target).replace

    def interrupted(self, new):
        if new == target and self.name.endswith(".partial"):
            raise KeyboardInterrupt
        return replace(self, new)

    monkeypatch.setattr(type(target), "replace", interrupted)
    with pytest.raises(KeyboardInterrupt), new_folder(target) as partial:
        (partial / "a").write_text("new")
    assert (target / "a").read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_text_file_is_replaced_whole_or_not_at_all(tmp_path, largest_file):
    target = tmp_path / "results" / "table.md"
    write_text(target, "old")
    with largest_file(100), pytest.raises(CourseError, match=r"table\.md could not be written"):
        write_text(target, "new" * 1000)
    assert target.read_text() == "old" and list(target.parent.iterdir()) == [target]


def test_a_file_where_a_folder_should_be_is_named(tmp_path):
    (tmp_path / "cache").write_text("")
    with pytest.raises(CourseError, match="cache"):
        write_text(tmp_path / "cache" / "table.md", "text")
    with pytest.raises(CourseError, match="cache"), new_folder(tmp_path / "cache" / "store"):
        pass
