"""The pixel cache: drawn once, never stale, cut off or altered, and after an interruption it goes on where it was."""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cmlr_utils.data import files, pixels
from cmlr_utils.data.files import CourseError, new_folder, write_text
from cmlr_utils.data.pixels import CHUNK, open_store

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
    assert "belongs to other files or another version: drawing it again" in capsys.readouterr().out
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


def folders(tmp_path) -> list[str]:
    return sorted(path.name for path in tmp_path.iterdir() if path.is_dir())


@pytest.mark.parametrize("at", [0, 40, 69])
@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))])
def test_an_interrupted_drawing_goes_on_with_the_rows_it_has(tmp_path, one_process, capsys, at, error):
    with pytest.raises((KeyboardInterrupt, CourseError)):
        opened(tmp_path, Counted(error, at))
    assert [name[:9] for name in folders(tmp_path)] == [".films-9."]
    draw = Counted()
    assert is_whole(opened(tmp_path, draw))
    done = at // CHUNK * CHUNK
    assert draw.calls == len(JOBS) - done
    assert (f"going on after {done} of 70 radiographs" in capsys.readouterr().out) == (done > 0)
    assert folders(tmp_path) == ["films-9"]
    assert sorted(os.listdir(tmp_path / "films-9")) == ["manifest.json", "masks.npy", "pixels.npy"]


def test_ctrl_c_leaves_an_older_store_as_it_was(tmp_path, one_process):
    opened(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        opened(tmp_path, Counted(KeyboardInterrupt(), 40), version="2")
    draw = Counted()
    assert is_whole(opened(tmp_path, draw)) and draw.calls == 0


def test_what_another_version_left_half_drawn_is_not_used_but_removed(tmp_path, one_process):
    with pytest.raises(KeyboardInterrupt):
        opened(tmp_path, Counted(KeyboardInterrupt(), 40))
    draw = Counted()
    assert is_whole(opened(tmp_path, draw, version="2")) and draw.calls == len(JOBS)
    assert folders(tmp_path) == ["films-9"]


@pytest.mark.filterwarnings("error")
def test_ctrl_c_between_two_processes_loses_only_what_is_under_way(tmp_path, monkeypatch):
    class Interrupted(pixels.tqdm):
        def update(self, n=1):
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(pixels, "tqdm", Interrupted)
        patch.setattr(pixels, "cpu_count", lambda: 2)
        with pytest.raises(KeyboardInterrupt):
            opened(tmp_path)
    monkeypatch.setattr(pixels, "cpu_count", lambda: 1)
    draw = Counted()
    assert is_whole(opened(tmp_path, draw)) and draw.calls == len(JOBS) - CHUNK


TEARS = {
    "cut short": lambda path, rng: os.truncate(path, rng.randrange(path.stat().st_size)),
    "a flipped bit": lambda path, rng: path.write_bytes(
        (content := path.read_bytes())[: (at := rng.randrange(len(content)))]
        + bytes([content[at] ^ 4])
        + content[at + 1 :]
    ),
    "half a chunk more": lambda path, rng: path.write_bytes(path.read_bytes() + rng.randbytes(1000)),
    "zeros at the end": lambda path, rng: os.truncate(path, path.stat().st_size + 5000),
    "gone": lambda path, rng: path.unlink(),
}


@pytest.mark.parametrize("tear", TEARS)
@pytest.mark.parametrize("file", ["pixels.npy", "masks.npy", "journal"])
def test_a_torn_chunk_is_never_used(tmp_path, one_process, tear, file):
    """A power cut may leave any part of what was written last, or what was never written."""
    rng = random.Random(f"{tear} {file}")
    for attempt in range(3):
        with pytest.raises(KeyboardInterrupt):
            opened(tmp_path / str(attempt), Counted(KeyboardInterrupt(), 69))
        partial = next((tmp_path / str(attempt)).glob(".films-9.*.partial"))
        TEARS[tear](partial / file, rng)
        assert is_whole(opened(tmp_path / str(attempt)))


DRAWER = """
import os, signal, sys
import numpy as np
from cmlr_utils.data import pixels

def draw(number, size):
    if number == int(sys.argv[2]):
        os.killpg(0, signal.SIGKILL)
    with open(sys.argv[3], "a") as log:
        log.write(f"{number}\\n")
    rng = np.random.default_rng(number)
    return rng.integers(0, 256, (size, size), dtype=np.uint8), rng.random((5, size, size)) < 0.3

pixels.cpu_count = lambda: 2
pixels.open_store(
    "films", [(number,) for number in range(300)], draw, size=9, version="1", folder=pixels.Path(sys.argv[1])
)
"""
FILMS = [(number,) for number in range(300)]


def drawer(folder: Path, killed_at: int = -1) -> subprocess.Popen:
    """Another process that draws 300 films with two of its own, all of them killed when film `killed_at` is due."""
    command = [sys.executable, "-c", DRAWER, folder, str(killed_at), folder / "log"]
    return subprocess.Popen(command, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.skipif(os.name == "nt", reason="needs process groups")
def test_killed_at_any_moment_it_ends_in_the_same_bytes(tmp_path, one_process):
    rng = random.Random(5)
    journal = []
    for _ in range(3):
        process = drawer(tmp_path, rng.randrange(sum(journal[-1:]), 300))
        process.communicate(timeout=60)
        assert process.returncode == -signal.SIGKILL
        lines = [path.read_text().count("\n") for path in tmp_path.glob(".films-9.*/journal")]
        journal.append(min(CHUNK * sum(lines), 299))
    assert journal == sorted(journal) and journal[-1] > 0
    assert is_whole(opened(tmp_path, jobs=FILMS), FILMS)
    opened(tmp_path / "at once", jobs=FILMS)
    for name in ("pixels.npy", "masks.npy", "manifest.json"):
        assert (tmp_path / "films-9" / name).read_bytes() == (tmp_path / "at once" / "films-9" / name).read_bytes()
    assert folders(tmp_path) == ["at once", "films-9"]


@pytest.mark.skipif(os.name == "nt", reason="needs process groups")
def test_of_two_at_once_one_draws_and_the_other_waits(tmp_path):
    for process in [drawer(tmp_path), drawer(tmp_path)]:
        said = process.communicate(timeout=60)
        assert process.returncode == 0, said
    assert sorted(map(int, (tmp_path / "log").read_text().split())) == list(range(300))
    draw = Counted()
    assert is_whole(opened(tmp_path, draw, jobs=FILMS), FILMS) and draw.calls == 0


@pytest.mark.skipif(os.name == "nt", reason="needs SIGKILL")
def test_a_process_that_is_killed_for_memory_is_told(tmp_path, monkeypatch):
    def killed(number: int, size: int) -> None:
        os.kill(os.getpid(), 9)

    monkeypatch.setattr(pixels, "cpu_count", lambda: 2)
    with pytest.raises(CourseError, match="drawing films was ended from outside.*memory"):
        opened(tmp_path, killed)


class Unreadable:
    """Draws noise without masks; the films of these numbers cannot be read."""

    def __init__(self, *numbers: int) -> None:
        self.numbers = numbers

    def __call__(self, number: int, size: int) -> tuple[np.ndarray, None]:
        if number in self.numbers:
            raise CourseError(f"film {number} is unreadable")
        return maskless(number, size)


@pytest.mark.parametrize("processes", [1, 2])
def test_the_first_film_that_cannot_be_read_is_named_and_the_rest_stays(tmp_path, monkeypatch, processes):
    monkeypatch.setattr(pixels, "cpu_count", lambda: processes)
    for _ in range(2):
        with pytest.raises(CourseError, match="film 40 is unreadable"):
            opened(tmp_path, Unreadable(66, 40))
    calls = []
    store = opened(tmp_path, lambda number, size: calls.append(number) or maskless(number, size))
    assert (store.pixels[39] == noise(39, SIZE)[0]).all() and (processes == 2 or calls[0] == CHUNK)


def test_films_that_cannot_be_read_are_skipped_and_counted_where_that_is_asked(tmp_path, one_process, capsys):
    draw = Unreadable(3, 40, 66)
    for _ in range(2):  # drawn, then opened
        store = open_store("films", JOBS, draw, size=SIZE, version="1", folder=tmp_path, skip_unreadable=True)
        assert store.unreadable == {number: f"film {number} is unreadable" for number in draw.numbers}
        assert not store.pixels[40].any() and (store.pixels[41] == noise(41, SIZE)[0]).all()
        assert "3 of 70 radiographs of films are left out; the first: film 3 is" in capsys.readouterr().out
    with pytest.raises(CourseError, match="film 3 is unreadable"):  # who did not ask is not served
        opened(tmp_path, draw)


def test_skipped_films_are_remembered_over_an_interruption(tmp_path, one_process):
    class Interrupted(Unreadable):
        def __call__(self, number: int, size: int) -> tuple[np.ndarray, None]:
            if number == 50:
                raise KeyboardInterrupt
            return super().__call__(number, size)

    options = {"size": SIZE, "version": "1", "folder": tmp_path}
    with pytest.raises(KeyboardInterrupt):
        open_store("films", JOBS, Interrupted(3), **options, skip_unreadable=True)
    with pytest.raises(CourseError, match="film 3 is unreadable"):
        open_store("films", JOBS, maskless, **options)
    assert list(open_store("films", JOBS, Unreadable(3, 60), **options, skip_unreadable=True).unreadable) == [3, 60]


def test_too_little_space_is_said_before_anything_is_drawn(tmp_path, one_process, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=5_000)
    monkeypatch.setattr(files.shutil, "disk_usage", lambda folder: usage)
    draw = Counted()
    with pytest.raises(CourseError, match="MB free.*CMLR_DATA"):
        opened(tmp_path, draw)
    assert draw.calls == 0 and folders(tmp_path) == []


def test_a_write_that_the_system_refuses_is_a_sentence(tmp_path, one_process, largest_file):
    with largest_file(4_000), pytest.raises(CourseError, match="films-9 could not be written .File too large"):
        opened(tmp_path)
    draw = Counted()
    assert is_whole(opened(tmp_path, draw)) and draw.calls == len(JOBS) - CHUNK


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
