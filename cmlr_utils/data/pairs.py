"""Bring your own pairs: a folder of radiographs and a table of their reports become a data set like the others."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from cmlr_utils.data.files import CourseError
from cmlr_utils.data.mesh import PATHOLOGIES
from cmlr_utils.data.radiographs import listed_store
from cmlr_utils.data.reports import Study
from cmlr_utils.data.splits import SPLITS
from cmlr_utils.data.studies import IMAGE_SIZE, StudySet, one_row_each
from cmlr_utils.data.tables import LABEL_VALUES, read_table, require_known


def load_pairs(
    folder: Path | str,
    table: Path | str,
    *,
    image: str = "image",
    text: str = "text",
    patient: str | None = None,
    split: str | None = None,
    labels: Mapping[str, str] | None = None,
    image_size: int = IMAGE_SIZE,
    skip_unreadable: bool = False,
) -> StudySet:
    """Radiographs in `folder` and their reports in the CSV file `table` (UTF-8, one row a radiograph) as a StudySet.

    `image`, `text`, `patient`, `split` and the values of `labels` are names of columns. An image is a path under
    `folder` and its study's id; its text stands as the findings. Without `patient` every row is another patient;
    without `split`, or where its cell is empty, a study is in no part (else train, val or test). `labels` maps any of
    the five PATHOLOGIES to a column of 1 present, 0 absent, -1 uncertain or nothing (NaN); the others are NaN.
    `skip_unreadable` leaves out rows whose image is missing or damaged, and counts them aloud.

    Raises CourseError naming the file, and the line or the column, that cannot be used.
    """
    folder, path, labels = Path(folder), Path(table), labels or {}
    if not folder.is_dir():
        raise CourseError(f"There is no folder {folder}: give the folder that holds the radiographs.")
    if unknown := set(labels) - set(PATHOLOGIES):
        raise CourseError(f"labels names {min(unknown)!r}: it maps only {', '.join(PATHOLOGIES)} to columns.")
    columns = [image, text, *filter(None, (patient, split)), *labels.values()]
    rows = read_table(path, {column: column for column in columns}, key=image)
    if rows.empty:
        raise CourseError(f"The table {path} has no row: give one for each radiograph.")
    named = rows[image].map(lambda name: 0 < len(name.encode()) < 250 and "\0" not in name)
    require_known(rows, image, named, path, ["names of files"])
    for column in labels.values():
        require_known(rows, column, rows[column].str.strip().isin(LABEL_VALUES), path, ["1", "0", "-1", "nothing"])
    if split:
        require_known(rows, split, rows[split].isin(["", *SPLITS]), path, [*SPLITS, "nothing"])
    studies = [
        Study(
            id=row[image],
            patient=row[patient or image],
            indication="",
            comparison="",
            findings=" ".join(row[text].split()),
            impression="",
            mesh=(),
            images=(row[image],),
            views=("",),
            labels=np.array(
                [LABEL_VALUES[row[labels[p]].strip()] if p in labels else np.nan for p in PATHOLOGIES], np.float32
            ),
            split=row[split] if split else "",
        )
        for row in rows.to_dict("records")
    ]
    files = rows.assign(file=[folder.absolute() / study.id for study in studies])
    store = listed_store(f"pairs-{folder.resolve().name}-{path.stem}", files, path, image_size, skip_unreadable)
    return one_row_each(studies, store, path.stem)
