"""The committed split: made by make_split, in proportion everywhere, and refused where it does not fit."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from cmlr_utils.data.files import CourseError, course_file
from cmlr_utils.data.mesh import PATHOLOGIES
from cmlr_utils.data.reports import torchxrayvision_file
from cmlr_utils.data.splits import SPLITS, make_split, with_split

SHARES = {"train": 0.7, "val": 0.1, "test": 0.2}


def test_the_committed_file_is_what_make_split_makes(reports):
    committed = pd.read_csv(course_file("splits/iu_rr.csv"), dtype=str)
    pd.testing.assert_frame_equal(make_split(reports), committed, check_dtype=False)


def test_the_order_of_the_reports_is_the_only_other_input(reports):
    assert make_split(reports).equals(make_split(reports))
    assert not make_split(reports).equals(make_split(reports, seed=1))


def test_parts_have_their_share_of_all_studies(studies):
    counts = Counter(study.split for study in studies)
    assert counts.total() == 3_851
    for part, share in SHARES.items():
        assert abs(counts[part] - share * 3_851) <= 2


@pytest.mark.parametrize("finding", range(5), ids=PATHOLOGIES)
def test_every_part_has_its_share_of_a_pathology(studies, finding):
    counts = Counter(study.split for study in studies if study.labels[finding] == 1)
    for part, share in SHARES.items():
        # labels overlap, so a group of equal labels may start anywhere in the deal
        assert abs(counts[part] - share * counts.total()) <= max(2.5, 0.03 * counts.total()), counts
        assert counts[part] >= 2


def test_every_part_has_its_share_of_normal_and_of_uncoded(studies):
    for group in (lambda s: s.normal, lambda s: np.isnan(s.labels).any()):
        counts = Counter(study.split for study in studies if group(study))
        for part, share in SHARES.items():
            assert abs(counts[part] - share * counts.total()) <= 3


def test_each_patient_is_in_one_part(studies):
    """Patients as the films' DICOM headers number them, not as the course does."""
    headers = pd.read_csv(torchxrayvision_file("nlmcxr_dicom_metadata.csv.gz"), usecols=["imageid", "Patient ID"])
    patient_of = dict(zip(headers["imageid"], headers["Patient ID"], strict=True))
    parts: dict[str, set[str]] = {}
    for study in studies:
        for image in set(study.images) & set(patient_of):
            parts.setdefault(patient_of[image], set()).add(study.split)
    assert len(parts) > 3_800 and all(len(found) == 1 for found in parts.values())
    assert set().union(*parts.values()) == set(SPLITS)


def test_studies_without_a_radiograph_have_no_part(reports, studies):
    assert {study.id for study in reports if not study.images}.isdisjoint(study.id for study in studies)


@pytest.mark.parametrize(
    "text, why",
    [
        ("", "cannot be read"),
        ("study;split\nCXR1;train\n", "needs the columns study and split"),
        ("study,split\nCXR1,train\nCXR1,test\n", "names CXR1 twice"),
        ("study,split\nCXR1,training\n", "the part 'training'"),
        ("study,split\nCXR1,\n", "the part ''"),
        ("study,split\nCXR1,train\n,train\n", "disagree about"),
        ("study,split\nCXR1,train\n", "disagree about 1 studies, CXR2"),
        ("study,split\nCXR1,train\nCXR2,test\nCXR99999,val\n", "disagree about 1 studies, CXR99999"),
        ("\x89PNG\x00", "needs the columns|cannot be read"),
    ],
)
def test_a_file_that_does_not_fit_is_named(tmp_path, studies, text, why):
    path = tmp_path / "split.csv"
    path.write_text(text)
    with pytest.raises(CourseError, match=f"{re.escape(str(path))}.*({why})"):
        with_split([replace(study, split="") for study in studies[:2]], path)


def test_a_missing_file_is_named(tmp_path, studies):
    with pytest.raises(CourseError, match="no.csv cannot be read.*git"):
        with_split(studies[:2], tmp_path / "no.csv")
