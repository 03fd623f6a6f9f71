"""NIH ChestX-ray14: real radiographs with labels for all five pathologies, boxes for three, and the phantom's judge."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from cmlr_utils.data.files import CourseError
from cmlr_utils.data.mesh import PATHOLOGIES
from cmlr_utils.data.radiographs import listed_store
from cmlr_utils.data.reports import Study, torchxrayvision_file
from cmlr_utils.data.studies import IMAGE_SIZE, StudySet, one_row_each
from cmlr_utils.data.tables import drawn_for_validation, read_table, require_known

NIH_NAMES = tuple("Effusion" if name == "pleural effusion" else name.capitalize() for name in PATHOLOGIES)
OTHER_NAMES = (
    *("Emphysema", "Fibrosis", "Hernia", "Infiltration", "Mass", "Nodule", "Pleural_Thickening", "Pneumonia"),
    *("Pneumothorax", "No Finding"),
)
# NIH's own column names, and those of small extracts.
COLUMNS = {"Image Index": "image", "Finding Labels": "findings", "Patient ID": "patient", "View Position": "view"}
BOX_COLUMNS = {"Image Index": "image", "Finding Label": "finding", "Bbox [x": "x", "y": "y", "w": "w", "h]": "h"}
SIDE = 1024  # of NIH's published PNGs, all square, in whose pixels the boxes are given
LISTS = {"train_val_list.txt": "train", "test_list.txt": "test"}


def load_nih(root: Path | str, image_size: int = IMAGE_SIZE, *, skip_unreadable: bool = False) -> StudySet:
    """Radiographs of ChestX-ray14 (Wang et al., CVPR 2017) under `root`, with their five labels and no report.

    `root` holds PNGs, in any depth (NIH's `images_001/images` to `images_012/images`, or a flat folder), and one CSV
    with either NIH's columns (Image Index, Finding Labels, Patient ID, View Position) or image, findings, patient and
    view; without a CSV, NIH's own table from torchxrayvision is used. Rows without their PNG are left out.

    With NIH's `test_list.txt` and `train_val_list.txt` beside it, which keep each patient in one, the former is "test";
    of the latter's patients a tenth is "val", the others "train". Without them no study has a part.

    Raises CourseError naming the folder, the file and line, or the column that is wrong.
    """
    root = Path(root)
    if not root.is_dir():
        raise CourseError(f"There is no folder {root}: give the folder that holds NIH's PNGs and their CSV.")
    files = {path.name: path for path in sorted(root.rglob("*.png"))}
    if not files:
        raise CourseError(f"The folder {root} holds no PNG: give the folder with NIH's radiographs.")
    tables = [path for path in sorted(root.glob("*.csv")) if not path.name.startswith("BBox")]
    path = tables[0] if tables else torchxrayvision_file("Data_Entry_2017_v2020.csv.gz")
    table = read_table(path, COLUMNS, key="image")
    findings = table["findings"].str.split("|")
    known = findings.map(lambda names: set(names) <= {*NIH_NAMES, *OTHER_NAMES})
    require_known(table, "findings", known, path, ["NIH's fifteen names, joined by |,"])
    table = table.assign(file=table["image"].map(files), findings=findings)
    table = table[table["file"].notna()].reset_index(drop=True)
    if table.empty:
        raise CourseError(f"No row of {path} names a PNG under {root}: give the CSV that belongs to these radiographs.")
    labels = [np.array([name in said for name in NIH_NAMES], np.float32) for said in table["findings"]]
    studies = [  # ChestX-ray14 holds only PA and AP views
        Study(name, patient, "", "", "", "", (), (name,), ("frontal",), row, part)
        for name, patient, row, part in zip(table["image"], table["patient"], labels, parts(root, table), strict=True)
    ]
    store = listed_store(f"nih-{root.resolve().name}", table, path, image_size, skip_unreadable)
    return one_row_each(studies, store, "nih")


def parts(root: Path, table: pd.DataFrame) -> list[str]:
    """The part of every row by NIH's two lists in `root`; "" for each where neither is there."""
    listed: dict[str, str] = {}
    for name, part in LISTS.items():
        if (root / name).is_file():
            listed |= dict.fromkeys((root / name).read_text(encoding="utf-8", errors="replace").split(), part)
    if not listed:
        return [""] * len(table)
    missing = table[~table["image"].isin(listed)]
    if len(missing):
        raise CourseError(
            f"{missing['image'].iloc[0]} stands in neither {' nor '.join(LISTS)} of {root}: fetch both, or remove both."
        )
    found, held_out = table["image"].map(listed), drawn_for_validation(table["patient"])
    return ["val" if val and part == "train" else part for part, val in zip(found, held_out, strict=True)]


def read_boxes(path: Path | str | None = None) -> pd.DataFrame:
    """The 984 boxes that radiologists drew on 880 images of ChestX-ray14 (Wang et al., CVPR 2017).

    Columns: image; finding, by its name in the labels (the list's "Infiltrate" is their "Infiltration"); x, y of the
    left upper corner, w and h, floats in pixels of the original 1024 x 1024; `line` in the file. Three of the five
    pathologies have boxes: atelectasis 180, cardiomegaly 146, pleural effusion ("Effusion") 153; the others are
    Infiltration 123, Pneumonia 120, Pneumothorax 98, Mass 85 and Nodule 79.

    `path` is NIH's `BBox_List_2017.csv`; None means torchxrayvision's copy. Raises CourseError naming the file and
    line that is wrong.
    """
    path = Path(path) if path else torchxrayvision_file("BBox_List_2017.csv.gz")
    table = read_table(path, BOX_COLUMNS)
    table["finding"] = table["finding"].replace("Infiltrate", "Infiltration")
    require_known(table, "finding", table["finding"].isin([*NIH_NAMES, *OTHER_NAMES]), path, ["NIH's names"])
    for name in "xywh":
        numbers = pd.to_numeric(table[name], errors="coerce")
        inside = numbers.between(0, SIDE) & ((numbers > 0) | (name in "xy"))
        require_known(table, name, inside, path, [f"numbers from 0 to {SIDE}"])
        table[name] = numbers
    return table[[*BOX_COLUMNS.values(), "line"]]


def box_masks(images: Sequence[str], size: int, boxes: pd.DataFrame | None = None) -> np.ndarray:
    """The boxes of `images` (names such as 00000001_000.png) as masks bool [n, 5, S, S], as `PixelStore.masks` are.

    A pixel belongs to a box if its middle lies within; several boxes of one finding are joined. NIH's PNGs are square,
    so nothing is padded. All are empty where no one drew a box, which does not say that the finding is absent.
    """
    boxes = read_boxes() if boxes is None else boxes
    middles = (np.arange(size) + 0.5) * SIDE / size
    masks = np.zeros((len(images), len(NIH_NAMES), size, size), dtype=bool)
    row_of = {name: i for i, name in enumerate(images)}
    for box in boxes[boxes["image"].isin(row_of) & boxes["finding"].isin(NIH_NAMES)].itertuples():
        rows = (middles >= box.y) & (middles < box.y + box.h)
        columns = (middles >= box.x) & (middles < box.x + box.w)
        masks[row_of[box.image], NIH_NAMES.index(box.finding)] |= rows[:, None] & columns
    return masks
