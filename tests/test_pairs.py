"""A folder of radiographs and a table of their reports: read with one call, refused with one sentence."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from cmlr_utils.data.files import CourseError
from cmlr_utils.data.pairs import load_pairs
from cmlr_utils.data.splits import leakage, strict
from cmlr_utils.data.studies import StudySet

TABLE = """image,text,person,part,swelling,fluid
a.png,"Heart normal.
No edema.",p1,train,0,-1
deep/b.jpg,Small effusion.,p1,train,,1.0
c.png,heart normal; NO edema,p2,test,1,
d.png,,p3,,0.0,0
"""
LABELS = {"edema": "swelling", "pleural effusion": "fluid"}
COLUMNS = {"patient": "person", "split": "part", "labels": LABELS}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("CMLR_DATA", str(tmp_path / "data"))
    (tmp_path / "films" / "deep").mkdir(parents=True)
    for number, name in enumerate(("a.png", "deep/b.jpg", "c.png", "d.png")):
        Image.new("L", (20, 20), 40 * number).save(tmp_path / "films" / name)
    return tmp_path / "films"


def table_of(folder, content: str | bytes = TABLE):
    path = folder.parent / "reports.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_everything_that_the_table_says_is_there(folder):
    studies = load_pairs(folder, table_of(folder), image_size=16, **COLUMNS)
    assert isinstance(studies, StudySet) and studies.source == "reports"
    assert [study.id for study in studies] == ["a.png", "deep/b.jpg", "c.png", "d.png"]
    assert studies.texts == ["heart normal. no edema.", "small effusion.", "heart normal; no edema", ""]
    assert studies.patients.tolist() == ["p1", "p1", "p2", "p3"]
    assert [study.split for study in studies] == ["train", "train", "test", ""] and len(studies.split("train")) == 2
    nan = np.nan
    expected = [[nan, nan, nan, 0, -1], [nan, nan, nan, nan, 1], [nan, nan, nan, 1, nan], [nan, nan, nan, 0, 0]]
    np.testing.assert_array_equal(studies.labels, np.array(expected, np.float32))
    assert np.abs(studies.images[:, 8, 8].astype(int) - [0, 40, 80, 120]).max() <= 1


def test_an_image_and_a_text_suffice(folder):
    studies = load_pairs(str(folder), str(table_of(folder, "film,report\na.png,Clear.\n")), image="film", text="report")
    assert (studies[0].patient, studies[0].split, studies.texts) == ("a.png", "", ["clear."])
    assert np.isnan(studies.labels).all()


def test_leakage_is_counted_in_any_data_set(folder):
    studies = load_pairs(folder, table_of(folder), image_size=16, **COLUMNS)
    train, test = studies.split("train"), studies.split("test")
    assert leakage(train, test) == (0, 0, 1, 0)
    assert leakage(train, studies) == (2, 2, 3, 2)
    assert [study.id for study in train.subset(strict(train, test))] == ["deep/b.jpg"]


def test_a_changed_table_or_film_is_read_again(folder):
    before = load_pairs(folder, table_of(folder), image_size=16)
    Image.new("L", (30, 30), 200).save(folder / "a.png")
    after = load_pairs(folder, table_of(folder, TABLE.replace("effusion", "nodule")), image_size=16)
    assert (before.image(0) != after.image(0)).all() and after.texts[1] == "small nodule."


def test_unreadable_films_are_skipped_and_counted_if_the_caller_asks(folder, capsys):
    (folder / "c.png").write_bytes(b"no PNG")
    (folder / "d.png").unlink()
    studies = load_pairs(folder, table_of(folder), image_size=16, skip_unreadable=True, **COLUMNS)
    assert [study.id for study in studies] == ["a.png", "deep/b.jpg"] and studies.images.shape == (2, 16, 16)
    assert "2 of 4 radiographs" in capsys.readouterr().out and studies[1].labels[4] == 1


BAD = {
    "empty": ("", r"reports\.csv cannot be read"),
    "header only": (TABLE.split("\n")[0], r"reports\.csv has no row"),
    "no image column": (TABLE.replace("image", "film"), "no column image; it has film, text, person"),
    "no text column": (TABLE.replace("text", "report"), "no column text; it has image, report, person"),
    "no patient column": (TABLE.replace("person", "who"), "no column person; it has"),
    "no label column": (TABLE.replace("fluid", "water"), "no column fluid; it has"),
    "a column twice": (TABLE.replace("person", "text"), "has the column 'text' twice: rename one"),
    "semicolons": (TABLE.replace(",", ";"), "no column image; it has image;text"),
    "truncated": (TABLE[: TABLE.index("p2")], "line 5, has 3 fields instead of 6"),
    "truncated in a quote": (TABLE[: TABLE.index("No edema")], r"reports\.csv cannot be read"),
    "a cell too many": (TABLE.replace("1.0", "1.0,0"), "line 4, has 7 fields instead of 6"),
    "cp1252": (TABLE.replace("Small", "Kleiner Erguß").encode("cp1252"), r"reports\.csv, line \d+, is not UTF-8"),
    "utf-16": (TABLE.encode("utf-16"), r"reports\.csv, line \d+, is not UTF-8"),
    "a spreadsheet": (b"PK\x03\x04\x14\x00\xff", r"reports\.csv, line \d+, is not UTF-8"),
    "a huge cell": (TABLE.replace("Small", "S" * 200_000), r"reports\.csv cannot be read"),
    "an image twice": (TABLE.replace("c.png", "a.png"), "line 5: a.png stands there a second time"),
    "an unknown label": (TABLE.replace("1.0", "yes"), "line 4: fluid is 'yes'; only 1, 0, -1, nothing"),
    "a probability": (TABLE.replace("p2,test,1", "p2,test,0.7"), "line 5: swelling is '0.7'"),
    "an unknown part": (TABLE.replace("p2,test", "p2,dev"), "line 5: part is 'dev'; only train, val, test, nothing"),
    "a missing film": (TABLE.replace("c.png", "e.png"), r"line 5: The radiograph .*e\.png cannot be read"),
    "no film's name": (TABLE.replace("c.png", ""), "line 5: image is ''; only names of files"),
    "a text for a name": (TABLE.replace("c.png", "clear " * 100), "line 5: image is 'clear clear"),
}


@pytest.mark.parametrize("content, why", BAD.values(), ids=BAD)
def test_a_table_that_does_not_fit_is_named(folder, content, why):
    with pytest.raises(CourseError, match=why):
        load_pairs(folder, table_of(folder, content), image_size=16, **COLUMNS)


def test_a_damaged_film_is_named_with_its_line(folder):
    (folder / "c.png").write_bytes((folder / "c.png").read_bytes()[:40])
    with pytest.raises(CourseError, match=r"reports\.csv, line 5: The radiograph .*c\.png cannot be read"):
        load_pairs(folder, table_of(folder), image_size=16)


def test_arguments_that_do_not_fit_are_named(folder):
    with pytest.raises(CourseError, match="There is no folder .*nowhere"):
        load_pairs(folder / "nowhere", table_of(folder))
    with pytest.raises(CourseError, match=r"none\.csv cannot be read"):
        load_pairs(folder, folder / "none.csv")
    with pytest.raises(CourseError, match="labels names 'oedema': it maps only atelectasis, .* to columns"):
        load_pairs(folder, table_of(folder), labels={"oedema": "swelling"})
