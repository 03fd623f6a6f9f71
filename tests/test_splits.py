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
from cmlr_utils.data.pixels import PixelStore
from cmlr_utils.data.reports import torchxrayvision_file
from cmlr_utils.data.splits import COMMITTED, SPLITS, leakage, make_split, strict, with_split
from cmlr_utils.data.studies import StudySet

SHARES = {"train": 0.7, "val": 0.1, "test": 0.2}


@pytest.fixture(scope="module")
def published(reports):
    """The studies of the second split."""
    return with_split(reports, "iu_rr_r2gen")


def part_of(studies, name):
    return [study for study in studies if study.split == name]


@pytest.mark.parametrize("name", COMMITTED)
def test_the_committed_files_are_what_make_split_makes(reports, name):
    committed = pd.read_csv(course_file(f"splits/{name}.csv"), dtype=str)
    pd.testing.assert_frame_equal(make_split(reports, name), committed, check_dtype=False)


def test_the_order_of_the_reports_is_the_only_other_input(reports):
    assert make_split(reports).equals(make_split(reports))
    assert not make_split(reports).equals(make_split(reports, seed=1))


def test_parts_have_their_share_of_all_studies(studies):
    counts = Counter(study.split for study in studies)
    assert counts.total() == 3_851
    for part, share in SHARES.items():
        assert abs(counts[part] - share * 3_851) <= 2


def test_the_second_split_has_the_published_population_and_sizes(reports, published):
    """2,069, 296 and 590 studies with findings and two radiographs or more: R2Gen, Chen et al., EMNLP 2020."""
    assert Counter(study.split for study in published) == {"train": 2_069, "val": 296, "test": 590}
    expected = {study.id for study in reports if study.findings and len(study.images) >= 2}
    assert {study.id for study in published} == expected and len(expected) == 2_955


@pytest.mark.parametrize("split", ["studies", "published"])
@pytest.mark.parametrize("finding", range(5), ids=PATHOLOGIES)
def test_every_part_has_its_share_of_a_pathology(split, finding, request):
    studies = request.getfixturevalue(split)
    counts = Counter(study.split for study in studies if study.labels[finding] == 1)
    for part, share in SHARES.items():
        # labels overlap, so a group of equal labels may start anywhere in the deal
        assert abs(counts[part] - share * counts.total()) <= max(2.5, 0.03 * counts.total()), counts
        assert counts[part] >= 2


@pytest.mark.parametrize("split", ["studies", "published"])
def test_every_part_has_its_share_of_normal_and_of_uncoded(split, request):
    for group in (lambda s: s.normal, lambda s: np.isnan(s.labels).any()):
        counts = Counter(study.split for study in request.getfixturevalue(split) if group(study))
        for part, share in SHARES.items():
            assert abs(counts[part] - share * counts.total()) <= 3


@pytest.mark.parametrize("split", ["studies", "published"])
def test_each_patient_is_in_one_part(split, request):
    """Patients as the films' DICOM headers number them, not as the course does."""
    headers = pd.read_csv(torchxrayvision_file("nlmcxr_dicom_metadata.csv.gz"), usecols=["imageid", "Patient ID"])
    patient_of = dict(zip(headers["imageid"], headers["Patient ID"], strict=True))
    parts: dict[str, set[str]] = {}
    for study in request.getfixturevalue(split):
        for image in set(study.images) & set(patient_of):
            parts.setdefault(patient_of[image], set()).add(study.split)
    assert len(parts) > 2_900 and all(len(found) == 1 for found in parts.values())
    assert set().union(*parts.values()) == set(SPLITS)


def test_studies_without_a_radiograph_have_no_part(reports, studies):
    assert {study.id for study in reports if not study.images}.isdisjoint(study.id for study in studies)


@pytest.mark.parametrize(
    "text, why",
    [
        ("", "cannot be read"),
        ("study;split\nCXR1;train\n", "has no column study; it has study;split"),
        ("study,split\nCXR1,train\nCXR1,test\n", "line 3: CXR1 stands there a second time"),
        ("study,split,split\nCXR1,train,test\n", "has the column 'split' twice"),
        ("study,split\nCXR1,training\n", "line 2: split is 'training'; only train, val, test, unused"),
        ("study,split\nCXR1,\n", "line 2: split is ''"),
        ("study,split\nCXR1,train\n,train\n", "disagree about"),
        ("study,split\nCXR1,train\n", "disagree about 1 studies, CXR2"),
        ("study,split\nCXR1,train\nCXR2,test\nCXR99999,val\n", "disagree about 1 studies, CXR99999"),
        ("\x89PNG\x00", "has no column study|cannot be read"),
        ('study,split\nCXR1,"train\nCXR2,test\n', "cannot be read"),
        ("study,split\nCXR1,train\nCXR2,test,val\n", "line 3, has 3 fields instead of 2"),
        (b"study,split\nCXR1,tr\xe4in\n", "line 2, is not UTF-8"),
        ("study,split\nCXR1,train\n".encode("utf-16"), "line 1, is not UTF-8"),
    ],
)
def test_a_file_that_does_not_fit_is_named(tmp_path, studies, text, why):
    path = tmp_path / "split.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(CourseError, match=f"{re.escape(str(path))}.*({why})"):
        with_split([replace(study, split="") for study in studies[:2]], path)


def test_a_missing_file_is_named(tmp_path, studies):
    with pytest.raises(CourseError, match=r"no\.csv cannot be read"):
        with_split(studies[:2], tmp_path / "no.csv")


def test_an_unknown_split_is_named(studies):
    with pytest.raises(CourseError, match="no split 'iu': choose iu_rr or iu_rr_r2gen"):
        with_split(studies, "iu")


def test_a_split_of_ones_own_may_leave_studies_out(tmp_path, studies):
    (tmp_path / "own.csv").write_text(f"study,split\n{studies[0].id},test\n{studies[1].id},unused\n")
    (kept,) = with_split(studies[:2], str(tmp_path / "own.csv"))
    assert (kept.id, kept.split) == (studies[0].id, "test")


# What leaks


def keys(text: str) -> str:
    return " ".join(re.sub(r"[^\w]", " ", text).split())


@pytest.mark.parametrize(
    "split, in_val, in_test, removed", [("studies", 85, 193, 537), ("published", 71, 142, 435)], ids=COMMITTED
)
def test_shared_texts_are_counted_and_the_strict_part_has_none(split, in_val, in_test, removed, request):
    train, val, test = (part_of(request.getfixturevalue(split), part) for part in SPLITS)
    assert leakage(train, val) == (0, 0, in_val, None) and leakage(train, test) == (0, 0, in_test, None)
    known = {keys(study.text) for study in train if study.text}
    assert sum(keys(study.text) in known for study in test) == in_test
    kept = [train[i] for i in strict(train, val, test)]
    held_out = {keys(study.text) for study in val + test if study.text}
    assert [s.id for s in kept] == [s.id for s in train if keys(s.text) not in held_out]
    assert len(train) - len(kept) == removed and leakage(kept, val + test) == (0, 0, 0, None)


def test_most_shared_texts_are_set_phrases_for_a_normal_chest(studies):
    train, test = part_of(studies, "train"), part_of(studies, "test")
    kept = set(strict(test, train))
    shared = [study for i, study in enumerate(test) if i not in kept]
    assert len(shared) == 193 and sum(study.normal for study in shared) == 168
    assert sum(np.nansum(study.labels) > 0 for study in shared) == 1


def test_every_kind_of_leak_is_seen(studies):
    first, second, third = (
        replace(study, findings=text, impression="")
        for study, text in zip(studies[:3], ["No edema.", "", "Clear"], strict=True)
    )
    assert leakage([first, second], [third]) == (0, 0, 0, None)
    assert leakage([first, second], [replace(third, patient=second.patient)]).patients == 1
    assert leakage([first, second], [first, second, third]) == (2, 2, 1, None)
    assert leakage([first, second], [replace(third, findings=" no  EDEMA")]).texts == 1
    assert leakage([], [first]) == leakage([first], []) == (0, 0, 0, None)
    assert strict([first, second], [replace(third, findings="no edema")]).tolist() == [1]
    assert strict([], [first]).tolist() == [] and strict([first], []).tolist() == [0]


def test_equal_pixels_are_seen_in_any_rendering(studies):
    pixels = np.arange(5 * 4, dtype=np.uint8).reshape(5, 2, 2)
    pixels[4] = pixels[1]
    rows = (np.array([0, 1]), np.array([2]), np.array([3]), np.array([4]))
    everything = StudySet(tuple(studies[:4]), rows, PixelStore(pixels, None, ""), "phantom")
    assert leakage(everything.subset([0, 1]), everything.subset([2])).images == 0
    assert leakage(everything.subset([0, 1]), everything.subset([2, 3])).images == 1
    assert leakage(everything.subset([0]), studies[3:4]).images is None
