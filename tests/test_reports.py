"""The real reports: every count that the course states, sentences, and archives that are not what they should be."""

from __future__ import annotations

import io
import re
import tarfile
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from cmlr_utils.data import reports as reports_module
from cmlr_utils.data.files import CourseError
from cmlr_utils.data.reports import parse_report, read_reports, read_views

REPORT = """<?xml version="1.0" encoding="utf-8"?><eCitation><uId id="CXR7"/><Abstract>
<AbstractText Label="COMPARISON">None.</AbstractText><AbstractText Label="INDICATION">Cough</AbstractText>
<AbstractText Label="FINDINGS">Small   left\n effusion.</AbstractText><AbstractText Label="IMPRESSION"/></Abstract>
<MeSH><major>Pleural Effusion/left/small</major><automatic>edema</automatic></MeSH>
<parentImage id="CXR7_IM-1-1001"/><parentImage id="CXR7_IM-1-2001"/></eCitation>"""


def archive_of(path, members: dict[str, str]):
    with tarfile.open(path, "w:gz") as tar:
        for name, text in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(text.encode())
            tar.addfile(entry, io.BytesIO(text.encode()))
    return path


# What stands in the real archive


def test_reports_and_images_are_all_there(reports):
    assert len(reports) == len({study.id for study in reports}) == 3_955
    assert sum(len(study.images) for study in reports) == 7_470
    assert Counter(len(study.images) for study in reports) == {0: 104, 1: 446, 2: 3_208, 3: 181, 4: 15, 5: 1}
    with_image = [study for study in reports if study.images]
    assert len(with_image) == 3_851
    assert sum(bool(study.text) for study in with_image) == 3_826


def test_reports_come_in_the_order_of_their_numbers(reports):
    numbers = [int(study.id.removeprefix("CXR")) for study in reports]
    assert numbers == sorted(numbers) and (numbers[0], numbers[-1]) == (1, 3_999)


@pytest.mark.parametrize(
    "section, count", [("impression", 3_921), ("indication", 3_865), ("findings", 3_425), ("comparison", 3_333)]
)
def test_sections_with_text(reports, section, count):
    assert sum(bool(getattr(study, section)) for study in reports) == count


def test_deidentified_words_are_counted_and_never_reach_the_sentences(reports):
    assert sum("XXXX" in study.findings + study.impression for study in reports) == 1_855
    assert not any("xxxx" in study.text for study in reports)


def test_labels_have_the_known_numbers_of_positives(reports):
    labels = np.stack([study.labels for study in reports])
    assert labels.dtype == np.float32
    assert np.nansum(labels, axis=0).tolist() == [332, 375, 30, 46, 161]
    assert sum(study.normal for study in reports) == 1_391


def test_labels_agree_with_a_search_of_the_codes(reports):
    for study in reports:
        found = [any(re.match(f"{name}(/|$)", code) for code in study.mesh) for name in CODES]
        assert study.labels.tolist() == found or "No Indexing" in study.mesh or not study.mesh


CODES = ("Pulmonary Atelectasis", "Cardiomegaly", "Consolidation", "Pulmonary Edema", "Pleural Effusion")


def test_a_report_that_nobody_coded_has_no_labels(reports):
    uncoded = [study for study in reports if "No Indexing" in study.mesh]
    assert uncoded and all(np.isnan(study.labels).all() for study in uncoded)
    assert sum(np.isnan(study.labels).any() for study in reports) == len(uncoded)


def test_one_impression_stands_301_times(reports):
    impressions = Counter(study.impression for study in reports if study.images)
    assert impressions.most_common(1) == [("No acute cardiopulmonary abnormality.", 301)]


def test_views_are_frontal_lateral_or_unknown(reports):
    views = Counter(view for study in reports for view in study.views)
    assert views == {"frontal": 4_014, "lateral": 867, "": 2_589}


# One report


def test_a_report_becomes_a_study():
    study = parse_report(REPORT.encode(), "7.xml", {"CXR7_IM-1-1001": "frontal"})
    assert (study.id, study.patient, study.indication, study.comparison) == ("CXR7", "7", "Cough", "None.")
    assert (study.findings, study.impression, study.mesh) == (
        "Small left effusion.",
        "",
        ("Pleural Effusion/left/small",),
    )
    assert (study.images, study.views) == (("CXR7_IM-1-1001", "CXR7_IM-1-2001"), ("frontal", ""))
    assert study.labels.tolist() == [0, 0, 0, 0, 1] and not study.normal


@pytest.mark.parametrize(
    "findings, impression, sentences",
    [
        ("Heart is large. Lungs clear!", "", ["heart is large.", "lungs clear!"]),
        ("", "1. No effusion. 2. Stable heart.", ["no effusion.", "stable heart."]),
        ("A 1.5 cm nodule. XXXX XXXX.", "No  edema", ["a 1.5 cm nodule.", "no edema"]),
        ("Compared to XXXX, unchanged.", "", ["compared to , unchanged."]),
        ("", "", []),
        ("XXXX", "1.", []),
        ("Broken 4XXXX wire. Seen at XXXXpm.", "", ["broken 4 wire.", "seen at pm."]),
    ],
)
def test_sentences_end_where_a_reader_ends_them(findings, impression, sentences):
    study = replace(parse_report(REPORT.encode(), "7.xml"), findings=findings, impression=impression)
    assert study.sentences == sentences
    assert study.text == " ".join(sentences)


# Reports and archives that are wrong

BOMB = '<!DOCTYPE x [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;">]><eCitation><uId id="&b;"/></eCitation>'
STRANGER = '<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]><eCitation><uId id="CXR1"/>&a;</eCitation>'


@pytest.mark.parametrize(
    "content, why",
    [
        (BOMB.encode(), "EntitiesForbidden"),
        (STRANGER.encode(), "EntitiesForbidden"),
        (REPORT.encode()[:200], "not readable XML"),
        (b"", "not readable XML"),
        (b"\x89PNG\r\n", "not readable XML"),
        (REPORT.replace("Cough", "Toux légère").encode("latin-1"), "not readable XML"),
        (REPORT.replace("utf-8", "no-such-code").encode(), "not readable XML"),
        (b"<html><body>Not found</body></html>", "no <uId"),
        (b'<eCitation><uId id=""/></eCitation>', "no <uId"),
    ],
    ids=[
        "bomb",
        "external entity",
        "cut off",
        "empty",
        "binary",
        "wrong encoding",
        "unknown encoding",
        "html",
        "no id",
    ],
)
def test_a_report_that_cannot_be_read_is_named(content, why):
    with pytest.raises(CourseError, match=rf"report 7\.xml .*{why}|report 7\.xml {why}"):
        parse_report(content, "7.xml")


def test_an_unreadable_report_is_named_with_its_archive(tmp_path):
    archive = archive_of(tmp_path / "few.tgz", {"ecgen/1.xml": REPORT, "ecgen/2.xml": REPORT[:90]})
    with pytest.raises(CourseError, match=r"few\.tgz/ecgen/2\.xml"):
        read_reports(archive)


def test_an_archive_of_ones_own_is_read(tmp_path):
    archive = archive_of(tmp_path / "one.tgz", {"ecgen/7.xml": REPORT, "readme.txt": "not a report"})
    assert [study.id for study in read_reports(archive)] == ["CXR7"]


@pytest.mark.parametrize("keep", [0, 10, 0.5, 0.99])
def test_a_cut_off_archive_is_named(tmp_path, keep):
    content = reports_module.torchxrayvision_file("NLMCXR_reports.tgz").read_bytes()
    archive = tmp_path / "cut.tgz"
    archive.write_bytes(content[: int(keep * len(content)) if keep < 1 else keep])
    with pytest.raises(CourseError, match=r"cut\.tgz is damaged"):
        read_reports(archive)


def test_an_archive_that_is_not_there_is_named(tmp_path):
    with pytest.raises(CourseError, match=r"no\.tgz cannot be read"):
        read_reports(tmp_path / "no.tgz")


def test_an_archive_without_reports_is_named(tmp_path):
    with pytest.raises(CourseError, match=r"holds no report"):
        read_reports(archive_of(tmp_path / "empty.tgz", {"readme.txt": "nothing"}))


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """An installed torchxrayvision whose data folder holds what the test puts there."""
    (tmp_path / "data").mkdir()
    spec = type("Spec", (), {"origin": str(tmp_path / "__init__.py")})
    monkeypatch.setattr(reports_module.importlib.util, "find_spec", lambda name: spec)
    return tmp_path / "data"


def test_a_changed_archive_in_the_package_is_refused(installed):
    archive_of(installed / "NLMCXR_reports.tgz", {"ecgen/7.xml": REPORT})
    with pytest.raises(CourseError, match="not the archive this course was measured with.*pip install"):
        read_reports()


def test_a_file_missing_from_the_package_is_named(installed):
    with pytest.raises(CourseError, match=r"NLMCXR_reports\.tgz is missing.*pip install"):
        read_reports()


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr(reports_module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(CourseError, match="pip install"):
        read_reports()


@pytest.mark.parametrize("content", [b"", b"\x1f\x8b\x08cut", b"imageid,View\n1,PA\n"])
def test_damaged_metadata_are_named(installed, content):
    (installed / "nlmcxr_dicom_metadata.csv.gz").write_bytes(content)
    with pytest.raises(CourseError, match=r"nlmcxr_dicom_metadata\.csv\.gz.*pip install"):
        read_views()
