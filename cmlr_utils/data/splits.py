"""The committed splits of IU-RR: which study trains, which validates, which tests, and what leaks between them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from cmlr_utils.data.files import CourseError, course_file
from cmlr_utils.data.mesh import PATHOLOGIES
from cmlr_utils.data.reports import Study
from cmlr_utils.data.tables import read_table, require_known
from cmlr_utils.data.texts import text_groups

SPLITS = ("train", "val", "test")
COMMITTED = ("iu_rr", "iu_rr_r2gen")
UNUSED = "unused"  # the part of a study that a split leaves out on purpose
SPLIT_SEED = 2301  # from the paper's number, arXiv 2301.10951
# Dealt like cards, so that any ten neighbours give 7 : 1 : 2. By beginning with the third card, 2,955 studies fall into
# the published 2,069, 296 and 590.
DEAL = ("train", "test", "train", "train", "val", "train", "train", "test", "train", "train")
RAREST_FIRST = [
    PATHOLOGIES.index(name) for name in ("consolidation", "edema", "pleural effusion", "atelectasis", "cardiomegaly")
]


def make_split(studies: Sequence[Study], name: str = "iu_rr", seed: int = SPLIT_SEED) -> pd.DataFrame:
    """Deal studies with a radiograph into 70 % train, 10 % val, 20 % test, stratified over the five labels.

    The split `iu_rr` deals all 3,851. The split `iu_rr_r2gen` has the proportions and the population of the work that
    follows R2Gen (Chen et al., EMNLP 2020), by far the most common protocol of published IU-RR results: only the 2,955
    studies with findings and at least two radiographs, 2,069 : 296 : 590; the others are "unused". Which study stands
    in which part is our own deal, not R2Gen's list.

    In IU-RR each report is another patient, so a split by study is one by patient. Studies are shuffled, sorted by
    their labels with the rarest first, then by normal or not, and dealt in turn: every pathology reaches every part in
    proportion. Returns a table with the columns study and split, in the order given.
    """
    published = name == "iu_rr_r2gen"
    with_image = [study for study in studies if study.images]
    used = [s for s in with_image if s.findings and len(s.images) > 1] if published else with_image
    shuffled = [used[i] for i in np.random.default_rng(seed).permutation(len(used))]
    # A stable sort keeps the shuffle among equals. NaN (not coded) becomes -1: a group of its own.
    shuffled.sort(key=lambda study: (*np.nan_to_num(study.labels, nan=-1.0)[RAREST_FIRST], study.normal), reverse=True)
    first = 2 if published else 0
    dealt = {study.id: DEAL[i % len(DEAL)] for i, study in enumerate(shuffled, first)}
    parts = [dealt.get(study.id, UNUSED) for study in with_image]
    return pd.DataFrame({"study": [study.id for study in with_image], "split": parts})


def with_split(studies: Sequence[Study], split: str | Path = "iu_rr") -> list[Study]:
    """The studies that a split uses, each with its part.

    `split` is the name of a committed one, "iu_rr" (every study with a radiograph) or "iu_rr_r2gen", or the path of a
    CSV file with the columns study and split that gives every study with a radiograph a part: train, val, test, or
    unused. Raises CourseError naming the file if a column, a study or a part is missing, unknown or repeated.
    """
    committed = isinstance(split, str) and not split.endswith(".csv")
    if committed and split not in COMMITTED:
        raise CourseError(f"There is no split {split!r}: choose {' or '.join(COMMITTED)}, or give a CSV file's path.")
    path = course_file(f"splits/{split}.csv") if committed else Path(split)
    table = read_table(path, {"study": "study", "split": "split"}, key="study")
    allowed = [*SPLITS, UNUSED]
    require_known(table, "split", table["split"].isin(allowed), path, allowed)
    part = dict(zip(table["study"], table["split"], strict=True))
    studies = [study for study in studies if study.images]
    missing = {study.id for study in studies} ^ set(part)
    if missing:
        raise CourseError(
            f"The split file {path} and the reports disagree about {len(missing)} studies, {min(missing)} among them: "
            "use the split file that belongs to these reports."
        )
    return [replace(study, split=part[study.id]) for study in studies if part[study.id] != UNUSED]


class Leakage(NamedTuple):
    """How many studies of the held-out part are not new, because training holds the same …"""

    studies: int  # study, by its id
    patients: int  # patient
    texts: int  # report: findings and impression, but for case, spacing and punctuation; empty reports do not count
    images: int | None  # radiograph, pixel by pixel; None where one of the two has no pixels


def leakage(train: Sequence[Study], held_out: Sequence[Study]) -> Leakage:
    """Count what two parts share; 0 everywhere but in `texts` is what an honest split shows.

    Both are lists of studies, or data sets with pixels such as a StudySet. Most shared texts are set phrases for a
    normal chest: no leak of a patient, but a model that has learned the phrase by heart retrieves it without looking.
    """
    ids, patients = {study.id for study in train}, {study.patient for study in train}
    texts_train, texts = text_ids(train, held_out)
    images = None
    if hasattr(train, "store") and hasattr(held_out, "store"):
        seen = set().union(*pixel_hashes(train))
        images = sum(not seen.isdisjoint(hashes) for hashes in pixel_hashes(held_out))
    return Leakage(
        studies=sum(study.id in ids for study in held_out),
        patients=sum(study.patient in patients for study in held_out),
        texts=int(np.isin(texts, texts_train[texts_train >= 0]).sum()),
        images=images,
    )


def strict(train: Sequence[Study], *held_out: Sequence[Study]) -> np.ndarray:
    """The indices of the training studies whose report stands in none of the other parts, int [n].

    `train.subset(strict(train, val, test))` is the strict training part of a StudySet. Empty reports stay.
    """
    texts, *others = text_ids(train, *held_out)
    return np.flatnonzero(~np.isin(texts, np.concatenate(others)) | (texts < 0))


def text_ids(*parts: Sequence[Study]) -> list[np.ndarray]:
    """A number for each study's report, the same for the same text in any part; -1 for an empty one."""
    texts = [study.text for part in parts for study in part]
    groups = np.where([text != "" for text in texts], text_groups(texts), -1)
    return np.split(groups, np.cumsum([len(part) for part in parts])[:-1])


def pixel_hashes(part: Sequence[Study]) -> Iterable[set[bytes]]:
    """The hashes of each study's radiographs, all its renderings, of a data set with rows and a pixel store."""
    return ({hashlib.sha256(part.store.pixels[row]).digest() for row in rows} for rows in part.rows)
