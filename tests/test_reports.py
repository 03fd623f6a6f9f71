"""The real reports: every count that the course states, sentences, and archives that are not what they should be."""

from __future__ import annotations

import csv
import io
import re
import tarfile
from collections import Counter
from dataclasses import fields, replace
from pathlib import Path
from xml.etree.ElementTree import fromstring as parse_xml

import numpy as np
import pytest

from cmlr_utils.data import reports as reports_module
from cmlr_utils.data.files import CourseError
from cmlr_utils.data.reports import parse_report, read_kaggle, read_reports, read_views

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


def test_every_view_is_frontal_or_lateral(reports):
    views = Counter(view for study in reports for view in study.views)
    assert views == {"frontal": 3_810, "lateral": 3_660}


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


def test_a_text_is_the_findings_and_the_impression():
    study = replace(parse_report(REPORT.encode(), "7.xml"), findings="Lungs clear", impression="1. No edema. XXXX.")
    assert study.sentences == ["lungs clear", "no edema."] and study.text == "lungs clear no edema."
    assert replace(study, findings="XXXX", impression="1.").text == ""


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
        (b"<a>" * 50_000 + b"</a>" * 50_000, "no <uId"),
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
        "nested",
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


def test_a_study_that_stands_twice_is_named(tmp_path):
    with pytest.raises(CourseError, match=r"two\.tgz holds the study CXR7 twice"):
        read_reports(archive_of(tmp_path / "two.tgz", {"7.xml": REPORT, "8.xml": REPORT}))


def test_a_huge_report_is_named_and_not_read(tmp_path):
    archive = archive_of(tmp_path / "huge.tgz", {"1.xml": REPORT, "2.xml": REPORT + " " * 2_000_000})
    with pytest.raises(CourseError, match=r"huge\.tgz/2\.xml has 2 MB"):
        read_reports(archive)


@pytest.mark.parametrize("name", ["readme.txt", "a" * 2_000_000])
def test_an_archive_that_unpacks_to_far_more_is_named(tmp_path, monkeypatch, name):
    monkeypatch.setattr(reports_module, "LARGEST_ARCHIVE", 1_000_000)
    archive = archive_of(tmp_path / "bomb.tgz", {name: " " * 2_000_000, "7.xml": REPORT})
    assert archive.stat().st_size < 10_000
    with pytest.raises(CourseError, match=r"bomb\.tgz is damaged .*unpacks to more than 1 MB"):
        read_reports(archive)


def test_numbers_of_any_length_are_put_in_order(tmp_path):
    ids = ["CXR" + "9" * 5_000, "CXR10", "CXR9"]  # int() takes no more than 4,300 digits
    archive = archive_of(tmp_path / "long.tgz", {f"{i}.xml": REPORT.replace("CXR7", id) for i, id in enumerate(ids)})
    assert [study.id for study in read_reports(archive)] == ids[::-1]


# Kaggle's two tables


@pytest.fixture(scope="module")
def kaggle(tmp_path_factory) -> Path:
    """Both tables in Kaggle's layout, from the raw XML of every real report with an image; all views known."""
    folder = tmp_path_factory.mktemp("kaggle")
    rows, projections = [], []
    with tarfile.open(reports_module.torchxrayvision_file("NLMCXR_reports.tgz")) as tar:
        roots = [parse_xml(tar.extractfile(member).read()) for member in tar if member.isfile()]
    for root in sorted(roots, key=lambda root: int(root.find("IUXRId").get("id"))):
        uid = root.find("IUXRId").get("id")
        section = {element.get("Label"): element.text for element in root.iter("AbstractText")}
        codes = [element.text for element in root.iter("major")]
        images = [
            element.get("id").removeprefix("CXR1_" if uid == "1" else "CXR") for element in root.iter("parentImage")
        ]
        if images:
            problems = ";".join(code.split("/")[0] for code in codes)
            texts = [section[name] for name in ("INDICATION", "COMPARISON", "FINDINGS", "IMPRESSION")]
            rows.append([uid, ";".join(codes), problems, root.findtext("parentImage/caption"), *texts])
        for place, image in reversed(list(enumerate(images))):  # Kaggle begins with the frontal view
            projections.append([uid, f"{image}.dcm.png", "Lateral" if place % 2 else "Frontal"])
    write_table(folder / "indiana_reports.csv", REPORT_COLUMNS, rows)
    write_table(folder / "indiana_projections.csv", ["uid", "filename", "projection"], projections)
    return folder


REPORT_COLUMNS = ["uid", "MeSH", "Problems", "image", "indication", "comparison", "findings", "impression"]


def write_table(path: Path, columns: list[str], rows: list[list]) -> None:
    with open(path, "w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([columns, *rows])


def test_our_tables_are_kaggles(kaggle):
    """The first table, as published, has 1,679,461 characters and begins and ends like ours."""
    text = (kaggle / "indiana_reports.csv").read_text(encoding="utf-8")
    assert abs(len(text) - 1_679_461) <= 10 and text.count("\n") == 3_852
    assert (
        '\n2,Cardiomegaly/borderline;Pulmonary Artery/enlarged,Cardiomegaly;Pulmonary Artery,"Chest, 2 views,' in text
    )
    assert text.startswith(
        "uid,MeSH,Problems,image,indication,comparison,findings,impression\n1,normal,normal,Xray Chest"
    )
    assert "\n16,normal,normal,Xray Chest PA and Lateral,,,,\n" in text
    names = (kaggle / "indiana_projections.csv").read_text()
    assert "\n1,1_IM-0001-4001.dcm.png," in names and "\n2,2_IM-0652-1001.dcm.png,Frontal\n" in names


def test_both_sources_give_identical_studies(kaggle, reports):
    from_xml = [study for study in reports if study.images]
    from_tables = read_kaggle(kaggle)
    assert len(from_tables) == len(from_xml) == 3_851
    for ours, theirs in zip(from_tables, from_xml, strict=True):
        assert ours.views == tuple("lateral" if place % 2 else "frontal" for place in range(len(ours.images)))
        for field in {field.name for field in fields(ours)} - {"views", "labels"}:
            assert getattr(ours, field) == getattr(theirs, field), (ours.id, field)
        np.testing.assert_array_equal(ours.labels, theirs.labels)


def test_the_word_none_is_a_comparison_and_an_empty_cell_is_not(kaggle):
    comparisons = Counter(study.comparison for study in read_kaggle(kaggle))
    assert comparisons["None"] > 500 and comparisons[""] > 400 and "nan" not in comparisons


SMALL = {
    "indiana_reports.csv": ",".join(REPORT_COLUMNS)
    + '\n2,"Catheters, Indwelling;Cardiomegaly/mild",,,,None,"Heart\nlarge.",\n1,normal,,,,,,Normal\n',
    "indiana_projections.csv": "uid,filename,projection\n2,2_IM-7-1001.dcm.png,Frontal\n1,1_IM-1-1.dcm.png,Lateral\n",
}


def kaggle_folder(folder: Path, **changed: bytes | str | None) -> Path:
    folder.mkdir(exist_ok=True)
    for name, content in SMALL.items():
        content = changed.get(name.removesuffix(".csv").removeprefix("indiana_"), content)
        (folder / name).unlink(missing_ok=True)
        if content is not None:
            (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def test_a_small_pair_of_tables(tmp_path):
    first, second = read_kaggle(kaggle_folder(tmp_path))
    assert (first.id, first.images, first.views) == ("CXR1", ("CXR1_1_IM-1-1",), ("lateral",))
    assert (second.id, second.images, second.views) == ("CXR2", ("CXR2_IM-7-1001",), ("frontal",))
    assert second.mesh == ("Catheters, Indwelling", "Cardiomegaly/mild") and second.labels[1] == 1
    assert (second.findings, second.impression, second.comparison) == ("Heart large.", "", "None")


def test_a_table_saved_by_a_spreadsheet_is_read(tmp_path):
    content = SMALL["indiana_reports.csv"].replace("\n", "\r\n")
    changed = read_kaggle(kaggle_folder(tmp_path, reports=content.encode("utf-8-sig")))
    assert [study.findings for study in changed] == ["", "Heart large."]


REPORTS, PROJECTIONS = SMALL.values()
BAD_TABLES = {
    "missing": ({"reports": None}, r"indiana_reports\.csv cannot be read"),
    "empty": ({"reports": ""}, r"indiana_reports\.csv cannot be read"),
    "no rows": ({"reports": REPORTS.split("\n")[0]}, r"indiana_reports\.csv has no row for any study"),
    "truncated in a quote": ({"reports": REPORTS[: REPORTS.index("large.")]}, r"indiana_reports\.csv cannot be read"),
    "truncated in a row": ({"reports": REPORTS[: REPORTS.index(",,,,,,Normal")]}, "line 4, has 2 fields instead of 8"),
    "a spreadsheet": ({"reports": b"PK\x03\x04\xff\xfe"}, r"indiana_reports\.csv, line \d+, is not UTF-8"),
    "an image": ({"projections": b"\x89PNG\r\n\x1a\n\x00"}, r"indiana_projections\.csv, line \d+, is not UTF-8"),
    "a null": ({"projections": PROJECTIONS + "\0,\0,\0\n"}, r"projections\.csv(, line 4| cannot be read)"),
    "cp1252": (
        {"reports": REPORTS.replace("Normal", "Na\u00efve").encode("cp1252")},
        r"indiana_reports\.csv, line \d+, is not UTF-8",
    ),
    "utf-16": ({"reports": REPORTS.encode("utf-16")}, r"indiana_reports\.csv, line \d+, is not UTF-8"),
    "huge cell": ({"reports": REPORTS.replace("Normal", "N" * 200_000)}, r"indiana_reports\.csv cannot .*field"),
    "no uid column": ({"projections": PROJECTIONS.replace("uid", "id")}, "no column uid; it has id, filename, proj"),
    "semicolons": ({"projections": PROJECTIONS.replace(",", ";")}, "no column uid; it has uid;filename;projection"),
    "a column twice": ({"projections": PROJECTIONS.replace("filename", "uid")}, "has the column 'uid' twice"),
    "a cell too many": ({"reports": REPORTS.replace("Normal", "Normal,chest")}, "line 4, has 9 fields instead of 8"),
    "a study twice": ({"reports": REPORTS + "1,,,,,,,\n"}, "line 5: 1 stands there a second time"),
    "an image twice": ({"projections": PROJECTIONS + "2,2_IM-7-1001.dcm.png,Lateral\n"}, "line 4: 2_IM.* second time"),
    "an unknown view": (
        {"projections": PROJECTIONS.replace("Frontal", "PA")},
        "line 2: projection is 'PA'; only Front",
    ),
    "another's image": ({"projections": PROJECTIONS.replace("2,2_", "2,3_")}, "line 2: filename is '3_IM"),
    "no number": ({"reports": REPORTS.replace("\n1,", "\nCXR1,")}, "line 4: uid is 'CXR1'; only numbers"),
    "too few reports": ({"projections": PROJECTIONS + "9,9_IM-1-1.dcm.png,Frontal\n"}, "has no row for study 9"),
}


@pytest.mark.parametrize("changed, why", BAD_TABLES.values(), ids=BAD_TABLES)
def test_tables_that_do_not_fit_are_named(tmp_path, changed, why):
    with pytest.raises(CourseError, match=why):
        read_kaggle(kaggle_folder(tmp_path, **changed))


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
