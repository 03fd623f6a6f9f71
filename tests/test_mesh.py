"""MeSH codes taken apart, and the labels they give."""

from __future__ import annotations

import numpy as np
import pytest

from cmlr_utils.data.mesh import HEADINGS, PATHOLOGIES, labels_from_mesh, parse_mesh


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
