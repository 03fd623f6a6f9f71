"""NIH ChestX-ray14 in its own layout and in a small one, and folders that are neither."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from cmlr_utils.course.line import nih_folder
from cmlr_utils.data.files import CourseError
from cmlr_utils.data.nih import load_nih

SMALL = "image,patient,view,sex,findings\n1_0.png,1,PA,M,Cardiomegaly|Emphysema\n2_0.png,2,AP,F,No Finding\n"
NIH = """Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position
00000001_000.png,Cardiomegaly,0,1,57,M,PA
00000001_001.png,Effusion|Edema|Consolidation|Atelectasis,1,1,58,M,AP
00000009_000.png,Pleural_Thickening|Infiltration,0,9,40,F,PA
00000099_000.png,Edema,0,99,40,F,PA
"""


def folder_of(tmp_path, table: str | None, images: list[str], name: str = "films"):
    root = tmp_path / name
    for number, image in enumerate(images):
        (root / image).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (20, 20), 10 * number + 10).save(root / image)
    if table is not None:
        (root / "labels.csv").write_text(table)
    return root


def test_the_small_layout(tmp_path):
    studies = load_nih(folder_of(tmp_path, SMALL, ["1_0.png", "2_0.png"], "small"), 16)
    assert studies.source == "nih" and [study.id for study in studies] == ["1_0.png", "2_0.png"]
    assert studies.labels.tolist() == [[0, 1, 0, 0, 0], [0, 0, 0, 0, 0]]
    assert studies.patients.tolist() == ["1", "2"] and studies.texts == ["", ""]
    assert studies.images.shape == (2, 16, 16) and studies.images[:, 0, 0].tolist() == [10, 20]


def test_nihs_own_layout_with_images_in_folders(tmp_path):
    images = ["images_001/00000001_000.png", "images_001/00000001_001.png", "images_002/deep/00000009_000.png"]
    studies = load_nih(folder_of(tmp_path, NIH, images, "own"), 16)
    assert studies.labels.tolist() == [[0, 1, 0, 0, 0], [1, 0, 1, 1, 1], [0, 0, 0, 0, 0]]
    assert studies.patients.tolist() == ["1", "1", "9"]  # and the row without its PNG is left out
    assert studies.images[:, 0, 0].tolist() == [10, 20, 30]


def test_without_a_table_nihs_own_is_taken(tmp_path):
    """Rows 00000001_000 and _001 of Data_Entry_2017: one patient, both with cardiomegaly."""
    studies = load_nih(folder_of(tmp_path, None, ["00000001_000.png", "00000001_001.png"], "bare"), 16)
    assert studies.labels.tolist() == [[0, 1, 0, 0, 0]] * 2 and len(set(studies.patients)) == 1


def test_another_picture_under_the_same_name_is_read_again(tmp_path):
    root = folder_of(tmp_path, SMALL, ["1_0.png", "2_0.png"], "changing")
    before = load_nih(root, 16).images
    Image.effect_noise((40, 40), 90).convert("L").save(root / "1_0.png")
    assert (load_nih(root, 16).images[0] != before[0]).any()


@pytest.mark.parametrize(
    "table, images, why",
    [
        (SMALL.replace("findings", "labels"), ["1_0.png"], "have no column findings; they have image, patient"),
        (NIH.replace("Patient ID", "Person"), ["00000001_000.png"], "have no column patient"),
        (SMALL, [], "holds no PNG"),
        (SMALL, ["other.png"], r"No row of .*labels\.csv names a PNG"),
        ("", ["1_0.png"], r"labels\.csv cannot be read"),
        ("image,patient,view,findings\n", ["1_0.png"], "No row of"),
        ('image,patient\n1_0.png,"1', ["1_0.png"], r"labels\.csv (cannot be read|have no column)"),
    ],
    ids=["small layout, missing column", "NIH's, missing column", "no PNG", "other PNG", "empty", "no rows", "cut off"],
)
def test_a_folder_that_does_not_fit_is_named(tmp_path, table, images, why):
    (tmp_path / "bad").mkdir()
    with pytest.raises(CourseError, match=why):
        load_nih(folder_of(tmp_path, table, images, "bad"), 16)


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(CourseError, match="There is no folder .*nowhere"):
        load_nih(tmp_path / "nowhere")


def test_an_unreadable_radiograph_is_named(tmp_path):
    root = folder_of(tmp_path, SMALL, ["1_0.png", "2_0.png"], "unreadable")
    (root / "2_0.png").write_bytes(b"no PNG")
    with pytest.raises(CourseError, match=r"2_0\.png cannot be read"):
        load_nih(root, 16)


@pytest.mark.skipif(nih_folder() is None, reason="no real NIH radiographs on this machine")
def test_the_real_small_set_has_its_known_counts():
    studies = load_nih(nih_folder(), 64)
    assert len(studies) == 501 and len(set(studies.patients)) == 127
    assert np.sum(studies.labels, axis=0).tolist() == [48, 35, 28, 10, 107]
    assert studies.images.std((1, 2)).min() > 5
