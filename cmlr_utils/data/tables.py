"""CSV files as their publishers ship them, read so that no row is cut off, repeated or misread in silence; lots."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import zlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from cmlr_utils.data.files import CourseError

SEED = 2301
VALIDATION = 0.1  # of the patients
# What a cell of a label says: present, absent, uncertain, or nothing.
LABEL_VALUES = {"1.0": 1.0, "0.0": 0.0, "-1.0": -1.0, "1": 1.0, "0": 0.0, "-1": -1.0, "": np.nan}


def read_table(path: Path, columns: dict[str, str], key: str | None = None) -> pd.DataFrame:
    """Read a CSV (plain or .gz, UTF-8) as text, with one more column `line`: where in the file the row stands.

    `columns` maps the file's names to ours; a column may already have ours. Others are kept under their own name.
    Raises CourseError naming the file, and the line or the column, if it cannot be read, lacks a column or has one
    twice, has a row that is cut off, or has two rows with the same `key`.
    """
    rows, lines = [], []
    try:
        content = path.read_bytes()
        content = gzip.decompress(content) if path.suffix == ".gz" else content
        reader = csv.reader(io.StringIO(content.decode("utf-8-sig"), newline=""), strict=True)
        header = next(reader, [])
        while header and not header[-1]:  # NIH ends its headers with commas
            header.pop()
        for row in filter(None, reader):
            if len(row) < len(header) or any(row[len(header) :]):
                raise CourseError(
                    f"{path}, line {reader.line_num}, has {len(row)} fields instead of {len(header)}: "
                    "the file is cut off, or a text with commas lacks its quotation marks."
                )
            rows.append(row[: len(header)])
            lines.append(reader.line_num)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise CourseError(f"{path}, line {line}, is not UTF-8: save the table as CSV with that encoding.") from error
    except (OSError, EOFError, csv.Error, zlib.error) as error:
        raise CourseError(f"The table {path} cannot be read ({error}): fetch it again.") from error
    if not header:
        raise CourseError(f"The table {path} cannot be read (it is empty): fetch it again.")
    names = [columns.get(name, name) for name in header]
    if (again := pd.Index(names).duplicated()).any():
        raise CourseError(f"The table {path} has the column {names[again.argmax()]!r} twice: rename one.")
    table = pd.DataFrame(rows, columns=names, dtype=object).assign(line=lines)
    for column in columns.values():
        if column not in table:
            raise CourseError(f"The table {path} has no column {column}; it has {', '.join(header)}.")
    if key and (again := table[key].duplicated()).any():
        twice = table[again].iloc[0]
        raise CourseError(f"{path}, line {twice['line']}: {twice[key]} stands there a second time; remove one.")
    return table


def require_known(table: pd.DataFrame, column: str, known: np.ndarray, path: Path, allowed: Iterable[str]) -> None:
    """Raise CourseError naming the first line whose `column` is not `known` (bool, one per row)."""
    if not known.all():
        row = table[~known].iloc[0]
        raise CourseError(
            f"{path}, line {row['line']}: {column} is {row[column]!r}; only {', '.join(allowed)} can be read."
        )


def seed_of(name: str) -> int:
    """A whole number of 48 bits for a name, always the same."""
    return int.from_bytes(hashlib.sha256(f"{SEED}:{name}".encode()).digest()[:6], "big")


def lots(names: Iterable[str]) -> np.ndarray:
    """A lot for every name, uniform in [0, 1), whichever others are drawn with it and wherever: float64 [n]."""
    return np.array([seed_of(name) for name in names]) / (1 << 48)


def drawn_for_validation(patients: Iterable[str]) -> np.ndarray:
    """Whether a patient belongs to the tenth that validates, bool [n]: the same in every subset and every copy."""
    return lots([f"validation {patient}" for patient in patients]) < VALIDATION
