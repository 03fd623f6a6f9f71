"""CheXpert (Irvin et al., AAAI 2019): its own files, or its real label rows with phantom pixels; policies for -1.

Labels of the 191,027 frontal train rows (64,534 patients), counted in torchxrayvision's copy of `train.csv`:

    pathology                 1        0       -1     blank
    atelectasis          29,720    1,025   29,863   130,419
    cardiomegaly         23,385    7,869    6,707   153,066
    consolidation        12,983   19,608   24,381   134,055
    edema                49,675   15,915   11,818   113,619
    pleural effusion     76,899   25,299    9,578    79,251

A program read them in reports that are not public: 1 said to be there, 0 said to be absent, -1 said with doubt, blank
not said.
"""

from __future__ import annotations

import os
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd

from cmlr_utils.data.files import CourseError
from cmlr_utils.data.mesh import HEADINGS, PATHOLOGIES, parse_mesh
from cmlr_utils.data.radiographs import listed_store
from cmlr_utils.data.reports import Study, read_reports, torchxrayvision_file
from cmlr_utils.data.splits import with_split
from cmlr_utils.data.studies import IMAGE_SIZE, StudySet, one_row_each, phantom_store
from cmlr_utils.data.tables import LABEL_VALUES, drawn_for_validation, lots, read_table, require_known, seed_of

LABELS = tuple(
    "No Finding,Enlarged Cardiomediastinum,Cardiomegaly,Lung Opacity,Lung Lesion,Edema,Consolidation,Pneumonia,"
    "Atelectasis,Pneumothorax,Pleural Effusion,Pleural Other,Fracture,Support Devices".split(",")
)
FIVE = tuple(name.title() for name in PATHOLOGIES)
PARTS = ("train", "valid", "5x200")
POLICIES = {  # what -1 becomes, in the order of PATHOLOGIES
    "ones": (1, 1, 1, 1, 1),
    "zeros": (0, 0, 0, 0, 0),
    "ignore": (np.nan,) * 5,
    "three-class": (-1, -1, -1, -1, -1),
    "mix": (1, 0, 0, 1, 1),
}
PATH = r"^(?P<folder>[^/]+)/(?P<name>.*?(?P<patient>patient\d+)/study\d+/view\d+_(?P<view>frontal|lateral))\.\w+$"
PHANTOMS = 4000  # drawn of the train rows where nothing else is asked for
BALANCED = 200
# IU-RR's headings for each label, and a qualifier that must stand with them. Fractures are coded, though no phantom
# shows one. "Lung Opacity" is drawn only where none of the findings that CheXpert counts among opacities is.
CODED_AS = {
    "Enlarged Cardiomediastinum": (("Cardiac Shadow", "Mediastinum"), "enlarged"),
    "Lung Opacity": (("Opacity", "Density", "Airspace Disease", "Infiltrate"), "lung"),
    "Lung Lesion": (("Nodule", "Mass"), "lung"),
    "Pneumonia": (("Pneumonia",), ""),
    "Pneumothorax": (("Pneumothorax",), ""),
    "Pleural Other": (("Thickening",), "pleura"),
    "Fracture": (("Fractures, Bone",), "ribs"),
    "Support Devices": (("Catheters, Indwelling", "Tube, Inserted", "Implanted Medical Device", "Medical Device"), ""),
} | {name: ((heading,), "") for name, heading in zip(FIVE, HEADINGS, strict=True)}
OPACITIES = {"Edema", "Consolidation", "Pneumonia", "Atelectasis", "Lung Lesion"}


def load_chexpert(
    root: Path | str | None = None,
    part: str = "train",
    policy: str = "mix",
    *,
    n: int | None = None,
    image_size: int = IMAGE_SIZE,
    skip_unreadable: bool = False,
) -> StudySet:
    """CheXpert's frontal radiographs with their five labels under a policy (see `apply_policy`) and no report.

    `root` is the folder `CheXpert-v1.0` or `CheXpert-v1.0-small`, or the one that holds it; rows without their file are
    left out. Without `root` the label rows are the real ones of torchxrayvision and the pixels are phantoms
    (`source` says so), drawn from the labels: see `drawn_codes`. A study's `mesh` then says what its phantom shows.

    `part` is "train", whose patients are split into "train" and a tenth "val"; "5x200", taken from the train rows (see
    `balanced`), whose patients are in no "train"; or "valid", the rows that radiologists labelled, which needs `root`:
    torchxrayvision does not have them. Both are "test".

    `n` rows of "train", each of another patient, are taken by a rule that keeps the labels' proportions (`sample`);
    None means all, and 4,000 of phantoms. Raises CourseError naming the file and line, or the argument, that is wrong.
    """
    if root is None:
        studies = phantom_studies(part, policy, n)
        jobs = [(study.id, list(study.mesh), 0) for study in studies]
        return one_row_each(studies, phantom_store(f"chexpert-{part}-{len(jobs)}-phantom", jobs, image_size), "phantom")
    table, path = read_chexpert(root, part)
    table = chosen(table, path, part, n)
    studies = studies_of(table, part, policy)
    store = listed_store(f"{path.resolve().parent.name}-{part}-{len(table)}", table, path, image_size, skip_unreadable)
    return one_row_each(studies, store, "chexpert")


def read_chexpert(root: Path | str | None = None, part: str = "train") -> tuple[pd.DataFrame, Path]:
    """All rows of `train.csv` (for "train" and "5x200") or `valid.csv`, frontal and lateral, and where they were read.

    Columns: the file's own, the 14 labels as floats (1, 0, -1, NaN blank); `id` (the path without the data set's folder
    and the ending, so the full and the small CheXpert agree), `patient`, `view`, `line`; with `root` also `file`, None
    where it is not there. Raises CourseError naming the file and line, or the argument, that is wrong.
    """
    if part not in PARTS:
        raise CourseError(f"part={part!r} is unknown: choose one of {', '.join(PARTS)}.")
    if root is None:
        if part == "valid":
            raise CourseError(
                'The rows of part="valid" come with CheXpert only: give root, or choose "train" or "5x200".'
            )
        return packaged_labels().copy(), torchxrayvision_file("chexpert_train.csv.gz")
    path = csv_of(Path(root), "valid.csv" if part == "valid" else "train.csv")
    return read_labels(path, path.parent), path


@cache
def packaged_labels() -> pd.DataFrame:
    return read_labels(torchxrayvision_file("chexpert_train.csv.gz"), None)


def csv_of(root: Path, name: str) -> Path:
    """The data set's CSV in `root`, or in the only folder of `root` that has one."""
    found = [root / name] if (root / name).is_file() else sorted(root.glob(f"*/{name}"))
    if len(found) != 1:
        there = f"{len(found)} folders with" if found else "no"
        raise CourseError(f"There is {there} {name} in {root}: give the data set's own folder as root.")
    return found[0]


def read_labels(path: Path, folder: Path | None) -> pd.DataFrame:
    """The rows of a CSV with CheXpert's columns; see `read_chexpert`. CheXphoto's have them too."""
    table = read_table(path, {name: name for name in ("Path", *LABELS)}, key="Path")
    parts = table["Path"].str.extract(PATH)
    require_known(table, "Path", parts["view"].notna(), path, ["…/patient00001/study1/view1_frontal.jpg and the like"])
    for name in LABELS:
        require_known(table, name, table[name].isin(LABEL_VALUES), path, ["1.0", "0.0", "-1.0", "blank"])
        table[name] = table[name].map(LABEL_VALUES)
    table = table.assign(id=parts["name"], patient=parts["patient"], view=parts["view"])
    if folder is None:
        return table
    return table.assign(file=[present(folder / place.partition("/")[2]) for place in table["Path"]])


def present(file: Path) -> Path | None:
    """The file, also where it has the other of .jpg and .png: some of CheXphoto's CSVs name the wrong one."""
    return next((f for f in (file, file.with_suffix(".jpg"), file.with_suffix(".png")) if os.path.isfile(f)), None)


def apply_policy(labels: np.ndarray, policy: str) -> np.ndarray:
    """Labels float32 [n, 5] of 1, 0, -1 (uncertain) and NaN (blank), with -1 resolved.

    After Irvin et al. (2019): "ones" and "zeros" (U-Ones, U-Zeros) call every doubt a finding, or none; "ignore"
    (U-Ignore) makes it NaN, which the loss must mask; "three-class" (U-MultiClass) leaves -1 as a class of its own.
    "mix" is GLoRIA's: doubt counts as present for atelectasis, edema and pleural effusion, as absent for cardiomegaly
    and consolidation.

    Blank becomes 0 under each of them: a report names what the radiologist saw, so silence speaks for absence, and only
    1,025 rows deny atelectasis in words. Raises CourseError for an unknown policy, shape or label.
    """
    labels = np.asarray(labels, dtype=np.float32)
    if policy not in POLICIES:
        raise CourseError(f"policy={policy!r} is unknown: choose one of {', '.join(POLICIES)}.")
    if labels.shape[-1:] != (5,) or not (np.isin(labels, (1, 0, -1)) | np.isnan(labels)).all():
        raise CourseError("The labels must be 1, 0, -1 or NaN in five columns: give them as the CSV has them.")
    labels = np.where(np.isnan(labels), 0, labels)
    return np.where(labels == -1, POLICIES[policy], labels).astype(np.float32)


def chosen(table: pd.DataFrame, path: Path, part: str, n: int | None, test: pd.DataFrame | None = None) -> pd.DataFrame:
    """The frontal rows of a part whose file is there: `n` of "train", which has no patient of `test`, else the 5x200.

    Raises CourseError if there is none; `path` is where the rows were read.
    """
    rows = table[table["view"] == "frontal"]
    if part != "valid":
        test = balanced(table) if test is None else test
        rows = test if part == "5x200" else rows[~rows["patient"].isin(test["patient"])]
    if "file" in rows:
        rows = rows[rows["file"].notna()]
    if rows.empty:
        raise CourseError(f"No frontal radiograph of {path} for {part!r} is there: give the folder that holds them.")
    return sample(rows, n) if part == "train" and n is not None else rows.reset_index(drop=True)


def balanced(table: pd.DataFrame, each: int = BALANCED) -> pd.DataFrame:
    """Up to 200 frontal rows for each of the five pathologies that have it and nothing else, each of another patient.

    GLoRIA's CheXpert 5x200 (Huang et al., ICCV 2021): the label is 1 and every other one but "No Finding" is 0 or
    blank. Its own draw and list are not public. Ours takes the rarest first, in the order of `lots`, and so depends
    neither on the order of the rows nor on which of CheXpert's two sizes it is.
    """
    table = table[table["view"] == "frontal"]
    findings = [name for name in LABELS if name != "No Finding"]
    alone = (table[findings].fillna(0) != 0).sum(axis=1) == 1
    pools = [table[alone & (table[name] == 1)] for name in FIVE]
    rows, taken = {}, set()
    for k in sorted(range(5), key=lambda k: len(pools[k])):
        pool = pools[k][~pools[k]["patient"].isin(taken)]
        rows[k] = pool.iloc[np.argsort(lots(pool["id"]))].drop_duplicates("patient").head(each)
        taken |= set(rows[k]["patient"])
    return pd.concat([rows[k] for k in range(5)]).reset_index(drop=True)


def sample(table: pd.DataFrame, n: int) -> pd.DataFrame:
    """`n` rows of as many patients, in random order, in which each combination of the five labels keeps its share.

    One row of every patient is drawn; sorted by their labels, every k-th is taken. The same `n` gives the same rows.
    The sick have more rows than others, so findings are rarer here than among all rows: effusion .29, there .40.
    """
    patients = table["patient"].nunique()
    if not 0 < n <= patients:
        raise CourseError(f"n={n} must be from 1 to {patients:,}, the patients there are: choose fewer, or None.")
    table = table.iloc[np.argsort(lots(table["id"]))].drop_duplicates("patient")
    table = table.sort_values(list(FIVE), kind="stable").iloc[((np.arange(n) + 0.5) * patients / n).astype(int)]
    return table.iloc[np.argsort(lots(table["id"]))].reset_index(drop=True)


def studies_of(table: pd.DataFrame, part: str, policy: str) -> list[Study]:
    labels = apply_policy(table[list(FIVE)].to_numpy(), policy)
    parts = (
        np.where(drawn_for_validation(table["patient"]), "val", "train") if part == "train" else ["test"] * len(table)
    )
    return [
        Study(name, patient, "", "", "", "", (), (name,), ("frontal",), row, str(split))
        for name, patient, row, split in zip(table["id"], table["patient"], labels, parts, strict=True)
    ]


@cache
def code_pools() -> dict[str, list[str]]:
    """For each of CheXpert's labels the codes with which IU-RR's training studies say it, as often as they do."""
    written = [code for study in with_split(read_reports()) if study.split == "train" for code in study.mesh]
    codes = [(code, parse_mesh(code)) for code in written]
    return {
        label: [code for code, said in codes if said.heading in headings and needed in ("", *said.qualifiers)]
        for label, (headings, needed) in CODED_AS.items()
    }


def drawn_codes(name: str, values: np.ndarray, pools: dict[str, list[str]]) -> tuple[str, ...]:
    """MeSH codes for one row's 14 labels (1, 0, -1, NaN, in the order of LABELS), always the same for one `name`.

    For every label that is present a code is drawn from `pools`, whole, so that sides, places and severities come
    together as often as in IU-RR. CheXpert says none of them. Whether a doubt is a finding nobody knows: it is drawn as
    one with probability 1/2, so that every policy for -1 is wrong about half of these phantoms, each about other ones.
    """
    rng = np.random.default_rng(seed_of(name))
    present = [
        label
        for label, value, doubt in zip(LABELS, values, rng.random(len(LABELS)), strict=True)
        if value == 1 or (value == -1 and doubt < 0.5)
    ]
    if OPACITIES & set(present):
        present = [label for label in present if label != "Lung Opacity"]
    codes = [str(rng.choice(pools[label])) for label in present if label in pools]
    return tuple(codes) or ("normal",)


def phantom_studies(part: str, policy: str, n: int | None) -> list[Study]:
    """The studies of the packaged rows of a part, each with the codes that its phantom shows; see `load_chexpert`."""
    table, path = read_chexpert(None, part)
    table = chosen(table, path, part, PHANTOMS if n is None else n)
    pools, rows = code_pools(), table[list(LABELS)].to_numpy()
    studies = studies_of(table, part, policy)
    return [replace(study, mesh=drawn_codes(study.id, row, pools)) for study, row in zip(studies, rows, strict=True)]
