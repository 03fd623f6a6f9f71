"""Studies with their phantoms: which rows belong to whom, the balanced panel, and the mirrored twins."""

from __future__ import annotations

import numpy as np
import pytest

from cmlr_utils.data import studies
from cmlr_utils.data.files import CourseError
from cmlr_utils.data.mesh import HEADINGS
from cmlr_utils.data.phantom import render_phantom
from cmlr_utils.data.studies import load_iu_rr, load_panel, load_twins


def test_a_study_has_its_own_phantom_and_rare_findings_have_several(small_set):
    for i, study in enumerate(small_set):
        expected = 1
        if study.split == "train" and np.nansum(study.labels):
            expected = 8 if np.nansum(study.labels[[2, 3]]) else 3
        assert len(small_set.rows[i]) == expected
        phantom = render_phantom(study.id, study.mesh, 64, variant=expected - 1)
        assert (small_set.image(i, expected - 1) == phantom.pixels).all()
        assert (small_set.masks(i, expected - 1) == phantom.masks).all()


def test_a_subset_keeps_studies_pixels_and_labels_together(small_set):
    chosen = small_set.subset([5, 0, 9])
    assert [study.id for study in chosen] == [small_set[i].id for i in (5, 0, 9)]
    assert (chosen.images == small_set.images[[5, 0, 9]]).all()
    np.testing.assert_array_equal(chosen.labels, small_set.labels[[5, 0, 9]])
    assert chosen.texts == [small_set.texts[i] for i in (5, 0, 9)]


def test_parts_are_disjoint_and_complete(small_set):
    parts = [{study.id for study in small_set.split(part)} for part in ("train", "val", "test")]
    assert sum(map(len, parts)) == len(set().union(*parts)) == len(small_set)


def test_unknown_names_are_said(small_set):
    with pytest.raises(CourseError, match="no split 'dev'"):
        small_set.split("dev")
    with pytest.raises(CourseError, match="no study 'CXR0'"):
        small_set.find("CXR0")
    assert small_set[small_set.find(small_set[7].id)] is small_set[7]


def test_the_panel_is_balanced_and_drawn_from_real_codes(reports, bank):
    panel = load_panel(64)
    assert len(panel) == 240 and panel.labels.sum(0).tolist() == [40] * 5
    assert (panel.labels.sum(1) == 0).sum() == 40
    real_codes = {code for study in reports for code in study.mesh}
    assert {code for study in panel for code in study.mesh} <= real_codes
    assert (load_panel(64).images == panel.images).all()


def test_the_twins_differ_in_one_finding_only(bank):
    for name, (finding, left, right, without) in load_twins(64).items():
        assert len(left) == len(right) == len(without) == 60
        assert left[0].mesh[0].startswith(HEADINGS[finding])
        assert without.labels.sum() == 0 and (left.labels[:, finding] == 1).all(), name
        bodies = [{study.id for study in studies} for studies in (left, right, without)]
        assert bodies[0] == bodies[1] == bodies[2] and len(bodies[0]) == 60
        columns = [[studies.masks(i)[finding].nonzero()[1].mean() for i in range(60)] for studies in (left, right)]
        assert np.greater(*columns).all(), name  # the patient's left is on the picture's right


def test_the_published_proportions_are_one_argument_away(monkeypatch):
    drawn = []
    monkeypatch.setattr(studies, "phantom_store", lambda name, jobs, size: drawn.append((name, jobs)))
    published = load_iu_rr("phantom", split="iu_rr_r2gen")
    assert [len(published.split(part)) for part in ("train", "val", "test")] == [2069, 296, 590]
    assert drawn[0][0] == "iu-rr-r2gen-phantom"  # a cache of its own: neither draws over the other
    with pytest.raises(CourseError, match="There is no split 'gloria': choose iu_rr or iu_rr_r2gen"):
        load_iu_rr("phantom", split="gloria")


def test_a_set_on_a_cells_last_line_says_what_it_is(small_set):
    assert repr(small_set.split("val")).startswith(f"StudySet({len(small_set.split('val'))} studies: val ")
    assert len(repr(small_set)) < 120 and "phantom, 64 pixels a side" in repr(small_set)
