"""MeSH codes taken apart, and the labels they give."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from cmlr_utils.data.mesh import DESCRIPTORS, HEADINGS, PATHOLOGIES, SEVERITIES, SIDES, labels_from_mesh, parse_mesh


@pytest.mark.parametrize(
    "code, heading, side, zone, severity",
    [
        ("Pleural Effusion/right/small", "Pleural Effusion", "right", "", "small"),
        ("Cardiomegaly/mild", "Cardiomegaly", "", "", "mild"),
        ("Pulmonary Atelectasis/base/left", "Pulmonary Atelectasis", "left", "base", ""),
        ("Consolidation/lung/lower lobe/right/large", "Consolidation", "right", "lower lobe", "large"),
        ("Opacity/lung/lingula", "Opacity", "left", "lingula", ""),
        ("Opacity/lung/middle lobe", "Opacity", "right", "middle lobe", ""),
        ("Opacity/lung/lingula/middle lobe", "Opacity", "bilateral", "middle lobe", ""),
        ("Pulmonary Edema/bilateral/diffuse/mild/moderate", "Pulmonary Edema", "bilateral", "diffuse", "moderate"),
        (" normal ", "normal", "", "", ""),
        ("", "", "", "", ""),
    ],
)
def test_a_code_is_taken_apart(code, heading, side, zone, severity):
    parsed = parse_mesh(code)
    assert (parsed.heading, parsed.side, parsed.zone, parsed.severity) == (heading, side, zone, severity)


@pytest.mark.parametrize(
    "code, location, qualifiers",
    [
        ("Consolidation/lung/lower lobe/right/large", ("lung", "lower lobe"), {"lung", "lower lobe", "right", "large"}),
        ("Opacity/lung/bilateral/interstitial/diffuse", ("lung",), {"lung", "bilateral", "interstitial", "diffuse"}),
        ("Tube, Inserted/trachea, carina", ("trachea, carina",), {"trachea, carina"}),
        (
            "Osteophyte/thoracic vertebrae/multiple/small",
            ("thoracic vertebrae",),
            {"thoracic vertebrae", "multiple", "small"},
        ),
        ("Cardiomegaly/mild", (), {"mild"}),
        ("Opacity//left", (), {"left", ""}),
    ],
)
def test_places_are_told_from_other_qualifiers(code, location, qualifiers):
    assert parse_mesh(code).location == location and parse_mesh(code).qualifiers == qualifiers


def test_the_qualifiers_of_the_five_have_their_known_counts(reports):
    codes = [parse_mesh(code) for study in reports for code in study.mesh]
    counts = Counter(q for code in codes if code.heading in HEADINGS for q in code.qualifiers)
    known = {"base": 226, "mild": 223, "left": 165, "bilateral": 163, "right": 150, "small": 79, "borderline": 48}
    known |= {"lower lobe": 44, "moderate": 39, "interstitial": 27, "focal": 26, "middle lobe": 23, "upper lobe": 20}
    known |= {"lingula": 20, "severe": 15, "patchy": 13, "large": 12}
    assert {name: counts[name] for name in known} == known
    everything = Counter(q for code in codes for q in code.qualifiers)
    assert len(everything) == 88 and set(everything) >= {*SIDES, *SEVERITIES, *DESCRIPTORS}


def test_any_effusion_is_more_than_the_pleural_ones(reports):
    headings = [{parse_mesh(code).heading for code in study.mesh} for study in reports]
    assert sum("Pleural Effusion" in found for found in headings) == 161
    assert sum(any("effusion" in heading.lower() for heading in found) for found in headings) == 165


def test_each_heading_sets_its_own_label():
    assert len(PATHOLOGIES) == len(HEADINGS) == 5
    for i, heading in enumerate(HEADINGS):
        assert labels_from_mesh([f"{heading}/left", "Nodule"]).tolist() == np.eye(5)[i].tolist()


def test_a_pericardial_effusion_is_no_pleural_effusion():
    assert labels_from_mesh(["Pericardial Effusion", "Cardiomegaly"]).tolist() == [0, 1, 0, 0, 0]


@pytest.mark.parametrize("codes", [[], ["No Indexing"], ["No Indexing", "Cardiomegaly"]])
def test_what_nobody_coded_is_nan(codes):
    labels = labels_from_mesh(codes)
    assert labels.dtype == np.float32 and np.isnan(labels).all()


def test_normal_is_absence():
    assert labels_from_mesh(["normal"]).tolist() == [0] * 5
