"""NIH ChestX-ray14: real radiographs with labels for all five pathologies, and the phantom's judge."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from cmlr_utils.data.files import CourseError
from cmlr_utils.data.mesh import PATHOLOGIES
from cmlr_utils.data.pixels import open_store
from cmlr_utils.data.radiographs import draw_radiograph
from cmlr_utils.data.reports import Study, torchxrayvision_file
from cmlr_utils.data.studies import IMAGE_SIZE, StudySet, one_row_each

NIH_NAMES = tuple("Effusion" if name == "pleural effusion" else name.capitalize() for name in PATHOLOGIES)
# NIH's own column names, and those of small extracts.
COLUMNS = {"Image Index": "image", "Finding Labels": "findings", "Patient ID": "patient", "View Position": "view"}


def load_nih(root: Path | str, image_size: int = IMAGE_SIZE) -> StudySet:
    """Radiographs of ChestX-ray14 (Wang et al., CVPR 2017) under `root`, with their five labels and no report.

    `root` holds PNGs, in any depth, and one CSV with either NIH's columns (Image Index, Finding Labels, Patient ID,
    View Position) or image, findings, patient and view; without a CSV, NIH's own table from torchxrayvision is used.
    Rows without their PNG are left out. Raises CourseError naming the folder, file or column that is missing.
    """
    root = Path(root)
    if not root.is_dir():
        raise CourseError(f"There is no folder {root}: give the folder that holds NIH's PNGs and their CSV.")
    files = {path.name: path for path in sorted(root.rglob("*.png"))}
    if not files:
        raise CourseError(f"The folder {root} holds no PNG: give the folder with NIH's radiographs.")
    tables = sorted(root.glob("*.csv"))
    path = tables[0] if tables else torchxrayvision_file("Data_Entry_2017_v2020.csv.gz")
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False).rename(columns=COLUMNS)
    except (OSError, ValueError) as error:
        raise CourseError(f"The labels {path} cannot be read ({error}): fetch them again.") from error
    for column in COLUMNS.values():
        if column not in table:
            raise CourseError(f"The labels {path} have no column {column}; they have {', '.join(table.columns)}.")
    table = table[table["image"].isin(list(files))]
    if table.empty:
        raise CourseError(f"No row of {path} names a PNG under {root}: give the CSV that belongs to these radiographs.")
    studies = [
        Study(
            id=row.image,
            patient=row.patient,
            indication="",
            comparison="",
            findings="",
            impression="",
            mesh=(),
            images=(row.image,),
            views=("frontal",),  # ChestX-ray14 holds only PA and AP views
            labels=np.array([name in row.findings.split("|") for name in NIH_NAMES], dtype=np.float32),
        )
        for row in table.itertuples()
    ]
    jobs = [(str(files[study.id]),) for study in studies]
    sizes = str([files[study.id].stat().st_size for study in studies])
    store = open_store(f"nih-{root.resolve().name}", jobs, draw_radiograph, size=image_size, version=sizes)
    return one_row_each(studies, store, "nih")
