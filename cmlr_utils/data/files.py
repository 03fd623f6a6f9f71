"""Where the course finds its files, and how it writes new ones so that none is ever half-written."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
PACKAGED = Path(__file__).resolve().parents[1] / "packaged"  # what a wheel carries of the repository's data/


class CourseError(Exception):
    """Something the reader can mend: one sentence that names it and says the way out.

    What it quotes from a file may be of any length and hold line breaks; the sentence is one line of at most 1,003.
    """

    def __init__(self, sentence: str) -> None:
        line = " ".join(sentence.splitlines())
        super().__init__(line if len(line) <= 1000 else f"{line[:500]}...{line[-500:]}")


def course_file(name: str) -> Path:
    """Path of a small committed file such as `splits/iu_rr.csv`, in a clone or in an installed wheel.

    Raises CourseError if neither holds it.
    """
    for folder in (REPOSITORY / "data", PACKAGED):
        if (folder / name).is_file():
            return folder / name
    raise CourseError(f"The course file data/{name} is missing: install cmlr_utils again, or restore it with git.")


def data_folder() -> Path:
    """Where raw data and caches live: $CMLR_DATA, else `data/` of the clone, else ~/.cache/cmlr_utils."""
    if os.environ.get("CMLR_DATA"):
        return Path(os.environ["CMLR_DATA"]).expanduser()
    clone = (REPOSITORY / "pyproject.toml").is_file() and (REPOSITORY / "data").is_dir()
    return REPOSITORY / "data" if clone else Path.home() / ".cache" / "cmlr_utils"


def cache_folder() -> Path:
    """The folder for everything that can be made again: rendered pixels and trained checkpoints."""
    return data_folder() / "cache"


def require_space(folder: Path, num_bytes: int) -> None:
    """Raise CourseError unless the disk that will hold `folder` has `num_bytes` free, and a tenth more."""
    existing = next(p for p in (folder, *folder.absolute().parents) if p.exists())
    free = shutil.disk_usage(existing).free
    if free < 1.1 * num_bytes:
        raise CourseError(
            f"{folder} needs {1.1 * num_bytes / 1e6:,.0f} MB and its disk has {free / 1e6:,.0f} MB free: "
            "free some, or point CMLR_DATA at a folder on a larger disk."
        )


@contextmanager
def writing(target: Path) -> Iterator[None]:
    """Turn an OSError of the block, such as a full disk, into a CourseError that names `target`."""
    try:
        yield
    except OSError as error:
        raise CourseError(
            f"{target} could not be written ({error.strerror or error}): mend that, then run again."
        ) from error


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """Give an empty folder beside `target` to write in; it takes `target`'s name only when the block ends well.

    After an exception, Ctrl-C included, the half-written folder is removed and `target` stays as it was.
    A full or read-only disk becomes a CourseError.
    """
    partial, old = (target.with_name(f".{target.name}.{os.getpid()}.{kind}") for kind in ("partial", "old"))
    with writing(target):
        try:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            yield partial
            if target.exists():
                target.replace(old)
            partial.replace(target)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
            if old.exists() and not target.exists():
                old.replace(target)
            shutil.rmtree(old, ignore_errors=True)


@contextmanager
def new_file(target: Path) -> Iterator[Path]:
    """Give a path beside `target` to write to, with the promises of `new_folder`; makes the folder where needed."""
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    with writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield partial
            partial.replace(target)
        finally:
            partial.unlink(missing_ok=True)


def write_text(target: Path, text: str) -> None:
    """Write a text file so that `target` holds either its old content or all of the new one."""
    with new_file(target) as partial:
        partial.write_text(text, encoding="utf-8")


def read_json(file: Path) -> dict:
    """The object in a JSON file that the course wrote; {} where there is none, or not a whole one."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
