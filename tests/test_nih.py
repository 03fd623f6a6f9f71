"""NIH ChestX-ray14 in its own layout and in a small one, and folders that are neither."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from cmlr_utils.course.line import nih_folder
from cmlr_utils.data.files import CourseError
from cmlr_utils.data.nih import NIH_NAMES, box_masks, load_nih, read_boxes

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
        (root / "labels.csv").write_text(table, encoding="utf-8", errors="surrogateescape")
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
        (SMALL.replace("findings", "labels"), ["1_0.png"], "has no column findings; it has image, patient"),
        (NIH.replace("Patient ID", "Person"), ["00000001_000.png"], "has no column patient"),
        (SMALL, [], "holds no PNG"),
        (SMALL, ["other.png"], r"No row of .*labels\.csv names a PNG"),
        ("", ["1_0.png"], r"labels\.csv cannot be read"),
        ("image,patient,view,findings\n", ["1_0.png"], "No row of"),
        ('image,patient\n1_0.png,"1', ["1_0.png"], r"labels\.csv cannot be read"),
        (SMALL[:-14], ["1_0.png"], r"labels\.csv, line 3, has 3 fields instead of 5"),
        (SMALL + "1_0.png,1,PA,M,Mass\n", ["1_0.png"], r"labels\.csv, line 4: 1_0.png stands there a second time"),
        (SMALL.replace("Cardio", "Micro"), ["1_0.png"], r"line 2: findings is 'Micromegaly\|Emphysema'; only NIH's"),
        (SMALL.replace("No Finding", "2"), ["1_0.png"], r"line 3: findings is '2'"),
        (SMALL.replace("F,", "\udce9,"), ["1_0.png"], r"labels\.csv, line 3, is not UTF-8"),
    ],
    ids=[
        "small layout, missing column",
        "NIH's, missing column",
        "no PNG",
        "other PNG",
        "empty",
        "no rows",
        "cut off",
        "cut row",
        "twice",
        "unknown",
        "number",
        "latin 1",
    ],
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
    with pytest.raises(CourseError, match=r"labels\.csv, line 3: The radiograph .*2_0\.png cannot be read"):
        load_nih(root, 16)
    assert [study.id for study in load_nih(root, 16, skip_unreadable=True)] == ["1_0.png"]


@pytest.mark.skipif(nih_folder() is None, reason="no real NIH radiographs on this machine")
def test_the_real_small_set_has_its_known_counts():
    studies = load_nih(nih_folder(), 64)
    assert len(studies) == 501 and len(set(studies.patients)) == 127
    assert np.sum(studies.labels, axis=0).tolist() == [48, 35, 28, 10, 107]
    assert studies.images.std((1, 2)).min() > 5


def full_folder(tmp_path, **lists: str):
    """NIH's own download in small: twelve folders of images (two of them), the labels, the boxes, the two lists."""
    images = ["images_001/images/00000001_000.png", "images_001/images/00000001_001.png"]
    root = folder_of(tmp_path, None, [*images, "images_002/images/00000009_000.png"], "full")
    (root / "BBox_List_2017.csv").write_text(BOXES)
    (root / "Data_Entry_2017_v2020.csv").write_text(NIH)
    for name, text in lists.items():
        (root / f"{name}_list.txt").write_text(text)
    return root


BOXES = """Image Index,Finding Label,Bbox [x,y,w,h],,,
00000001_000.png,Cardiomegaly,256,512,256,128
00000001_001.png,Effusion,0,0,100.5,1024.0
00000001_001.png,Infiltrate,0,0,1024,1024
00000001_001.png,Effusion,924,0,100,1024
"""


def test_nihs_full_folder_with_its_lists(tmp_path):
    listed = full_folder(tmp_path, train_val="00000001_000.png\n00000001_001.png\n", test="00000009_000.png\n")
    studies = load_nih(listed, 16)
    parts = [study.split for study in studies]
    assert parts in (["train", "train", "test"], ["val", "val", "test"])  # by patient
    assert studies.labels.tolist() == [[0, 1, 0, 0, 0], [1, 0, 1, 1, 1], [0, 0, 0, 0, 0]]
    (listed / "test_list.txt").unlink()
    with pytest.raises(CourseError, match="00000009_000.png stands in neither train_val_list.txt nor test_list.txt"):
        load_nih(listed, 16)
    (listed / "train_val_list.txt").unlink()
    assert {study.split for study in load_nih(listed, 16)} == {""}


def test_the_984_boxes_have_their_known_counts():
    boxes = read_boxes()
    assert len(boxes) == 984 and boxes["image"].nunique() == 880
    counts = boxes["finding"].value_counts().to_dict()
    assert counts == {
        **{"Atelectasis": 180, "Effusion": 153, "Cardiomegaly": 146, "Infiltration": 123},
        **{"Pneumonia": 120, "Pneumothorax": 98, "Mass": 85, "Nodule": 79},
    }
    assert boxes.iloc[0].tolist() == [
        *("00013118_008.png", "Atelectasis", 225.084745762712, 547.019216763771, 86.7796610169491, 79.1864406779661),
        2,
    ]
    assert (boxes["x"] + boxes["w"]).max() <= 1024 and (boxes["y"] + boxes["h"]).max() <= 1024


def test_boxes_become_masks_where_their_pixels_lie(tmp_path):
    boxes = read_boxes(full_folder(tmp_path) / "BBox_List_2017.csv")
    masks = box_masks(["00000009_000.png", "00000001_001.png", "00000001_000.png"], 32, boxes)
    assert masks.shape == (3, 5, 32, 32) and not masks[0].any()
    expected = np.zeros((32, 32), bool)
    expected[16:20, 8:16] = True
    assert (masks[2, 1] == expected).all() and masks[2].sum() == expected.sum()
    assert masks[1, 4].sum(1).tolist() == [6] * 32  # three columns at either side: 100 of 1024 are 3.1 of 32
    assert masks[1, 4, :, :3].all() and masks[1, 4, :, -3:].all() and masks[1].sum() == 6 * 32


def test_no_box_of_the_five_vanishes_at_64_pixels_and_each_covers_its_area():
    boxes = read_boxes()
    boxes = boxes[boxes["finding"].isin(NIH_NAMES)]
    assert len(boxes) == 479
    images = boxes["image"].unique().tolist()
    masks = box_masks(images, 64)
    assert masks.any((2, 3)).sum() == len(boxes)
    for box in boxes.itertuples():
        mask = masks[images.index(box.image), NIH_NAMES.index(box.finding)]
        rows, columns = box.h / 16, box.w / 16
        assert (rows - 1) * (columns - 1) <= mask.sum() <= (rows + 1) * (columns + 1)


@pytest.mark.parametrize(
    "old, new, why",
    [
        ("Image Index", "Image", "has no column image"),
        ("512,256", "high,256", r"BBox_List_2017\.csv, line 2: y is 'high'; only numbers from 0 to 1024"),
        ("512,256", ",256", "line 2: y is ''"),
        ("256,128", "256,0", "line 2: h is '0'"),
        ("924", "-3", "line 5: x is '-3'"),
        ("924", "nan", "line 5: x is 'nan'"),
        (",0,100.5,1024.0", "", "line 3, has 3 fields instead of 6"),
        ("Infiltrate", "Infiltration?", r"line 4: finding is 'Infiltration\?'"),
    ],
)
def test_a_bad_box_is_named(tmp_path, old, new, why):
    path = tmp_path / "BBox_List_2017.csv"
    path.write_text(BOXES.replace(old, new, 1))
    with pytest.raises(CourseError, match=why):
        read_boxes(path)


@pytest.mark.skipif(nih_folder() is None, reason="no real NIH radiographs on this machine")
def test_few_boxes_lie_on_the_real_small_set():
    boxes = read_boxes()
    names = [study.id for study in load_nih(nih_folder(), 64)]
    assert boxes["image"].isin(names).sum() == 7
    assert box_masks(names, 64).any((2, 3)).sum(0).tolist() == [4, 0, 0, 0, 0]
