"""The committed split of IU-RR: which study trains, which validates, which tests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from cmlr_utils.data.files import CourseError, course_file
from cmlr_utils.data.mesh import PATHOLOGIES
from cmlr_utils.data.reports import Study

SPLITS = ("train", "val", "test")
SPLIT_SEED = 2301  # from the paper's number, arXiv 2301.10951
# Dealt like cards, so that any ten neighbours give 7 : 1 : 2.
DEAL = ("train", "test", "train", "train", "val", "train", "train", "test", "train", "train")
RAREST_FIRST = [
    PATHOLOGIES.index(name) for name in ("consolidation", "edema", "pleural effusion", "atelectasis", "cardiomegaly")
]


def make_split(studies: Sequence[Study], seed: int = SPLIT_SEED) -> pd.DataFrame:
    """Deal all studies with a radiograph into 70 % train, 10 % val, 20 % test, stratified over the five labels.

    In IU-RR each report is another patient, so a split by study is one by patient. Studies are shuffled, sorted by
    their labels with the rarest first, then by normal or not, and dealt in turn: every pathology reaches every part in
    proportion. Returns a table with the columns study and split, in the order given.
    """
    studies = [study for study in studies if study.images]
    shuffled = [studies[i] for i in np.random.default_rng(seed).permutation(len(studies))]
    # A stable sort keeps the shuffle among equals. NaN (not coded) becomes -1: a group of its own.
    shuffled.sort(key=lambda study: (*np.nan_to_num(study.labels, nan=-1.0)[RAREST_FIRST], study.normal), reverse=True)
    dealt = {study.id: DEAL[i % len(DEAL)] for i, study in enumerate(shuffled)}
    return pd.DataFrame({"study": [s.id for s in studies], "split": [dealt[s.id] for s in studies]})


def with_split(studies: Sequence[Study], path: Path | None = None) -> list[Study]:
    """The studies that have a radiograph, each with its part from the split file (default: data/splits/iu_rr.csv).

    Raises CourseError naming the file if a column, a study or a part is missing, unknown or repeated.
    """
    path = Path(path) if path else course_file("splits/iu_rr.csv")
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise CourseError(f"The split file {path} cannot be read ({error}): restore it with git.") from error
    if not {"study", "split"} <= set(table.columns):
        raise CourseError(
            f"The split file {path} needs the columns study and split; it has {', '.join(table.columns)}."
        )
    if table["study"].duplicated().any():
        raise CourseError(f"The split file {path} names {table['study'][table['study'].duplicated()].iloc[0]} twice.")
    unknown = set(table["split"]) - set(SPLITS)
    if unknown:
        raise CourseError(
            f"The split file {path} has the part {sorted(map(str, unknown))[0]!r}; only {', '.join(SPLITS)} exist."
        )
    part = dict(zip(table["study"], table["split"], strict=True))
    studies = [study for study in studies if study.images]
    missing = {study.id for study in studies} ^ set(part)
    if missing:
        raise CourseError(
            f"The split file {path} and the reports disagree about {len(missing)} studies, {min(missing)} among them: "
            "use the split file that belongs to these reports."
        )
    return [replace(study, split=part[study.id]) for study in studies]
