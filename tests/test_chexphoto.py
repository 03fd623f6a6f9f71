"""CheXphoto's folders, and photographed phantoms in their place."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from cmlr_utils.data.chexpert import LABELS, balanced, load_chexpert, read_chexpert
from cmlr_utils.data.chexphoto import SYNTHETIC, draw_photographed, load_chexphoto
from cmlr_utils.data.files import CourseError
from cmlr_utils.data.phantom import render_phantom
from cmlr_utils.data.photograph import PHOTOGRAPHS

HEADER = "Path,Sex,Age,Frontal/Lateral,AP/PA," + ",".join(LABELS)
EDEMA = "Male,61,Frontal,AP,,,,,,1.0,,,,,-1.0,,,"
ROWS = [
    f"CheXphoto-v1.0/train/natural/iphone/patient90001/study1/view1_frontal.png,{EDEMA}",
    f"CheXphoto-v1.0/train/synthetic/photographic/patient90001/study1/view1_frontal.png,{EDEMA}",
    f"CheXphoto-v1.0/train/synthetic/digital/patient90002/study3/view1_frontal.png,{EDEMA}",
    f"CheXphoto-v1.0/train/natural/iphone/patient90003/study1/view1_lateral.png,{EDEMA}",
]


@pytest.fixture
def root(tmp_path):
    """CheXphoto as it comes: the CSV ends every path in .png, but a phone's photographs are .jpg."""
    folder = tmp_path / "CheXphoto-v1.0"
    for number, row in enumerate(ROWS):
        file = tmp_path / row.split(",")[0]
        file = file.with_suffix(".jpg") if "natural" in row else file
        file.parent.mkdir(parents=True)
        Image.new("RGB", (24, 20), (20 + 40 * number,) * 3).save(file)
    (folder / "train.csv").write_text("\n".join([HEADER, *ROWS]))
    return folder


@pytest.mark.parametrize(
    "kind, greys, patients",
    [
        (None, [20, 60, 100], ["patient90001", "patient90001", "patient90002"]),
        ("natural", [20], ["patient90001"]),
        ("synthetic", [60, 100], ["patient90001", "patient90002"]),
    ],
)
def test_the_real_folders(root, kind, greys, patients):
    studies = load_chexphoto(root.parent, kind=kind, image_size=16)
    assert studies.source == "chexphoto" and studies.patients.tolist() == patients
    np.testing.assert_allclose(studies.images[:, 8, 8], greys, atol=1)
    assert studies.labels.tolist() == [[0, 0, 0, 1, 1]] * len(greys)
    ids = [row.partition("/")[2].partition(".")[0] for row in ROWS[:3] if kind is None or kind in row]
    assert [study.id for study in studies] == ids


def test_patients_of_chexperts_balanced_set_train_nothing(root):
    held_out = balanced(read_chexpert()[0])["patient"].iloc[0]
    table = (root / "train.csv").read_text().replace("patient90001", held_out)
    (root / "train.csv").write_text(table)
    for folder in root.rglob("patient90001"):
        folder.rename(folder.with_name(held_out))
    assert load_chexphoto(root, image_size=16).patients.tolist() == ["patient90002"]


def test_photographed_phantoms_are_chexperts_in_the_same_order(bank):
    plain, shown = (load(n=10, image_size=48) for load in (load_chexpert, load_chexphoto))
    assert shown.source == "phantom"
    assert [study.id for study in shown] == [study.id for study in plain]
    assert [study.mesh for study in shown] == [study.mesh for study in plain]
    np.testing.assert_array_equal(shown.labels, plain.labels)
    assert all((a != b).mean() > 0.5 for a, b in zip(shown.images, plain.images, strict=True))
    assert (load_chexphoto(n=10, image_size=48).images == shown.images).all()
    for i in range(10):
        moved, before = shown.masks(i), plain.masks(i)
        assert (moved.any((1, 2)) == before.any((1, 2))).all()


def test_every_phantom_is_photographed_by_its_own_numbers_and_not_at_all_at_strength_zero(bank):
    codes = ["Cardiomegaly"]
    plain = render_phantom("a", codes, 64)
    pixels, masks = draw_photographed("a", codes, 0, 64)
    assert np.abs(pixels.astype(int) - plain.pixels).max() <= 1 and (masks == plain.masks).all()
    pixels, masks = draw_photographed("a", codes, 3, 64)
    inside, outside = masks[1], ~masks[1]
    assert not (masks[1] == plain.masks[1]).all() and inside.any()
    assert pixels[inside].mean() > pixels[outside].mean()  # the heart is bright, and its mask lies on it
    state = torch.random.get_rng_state()
    assert (draw_photographed("a", codes, 3, 64)[0] == pixels).all()
    assert torch.equal(torch.random.get_rng_state(), state)


def test_the_recipes_are_known_photographs():
    assert all(name in PHOTOGRAPHS for names in SYNTHETIC.values() for name in names)


@pytest.mark.parametrize(
    "arguments, why",
    [
        ({"kind": "film"}, "kind='film' is unknown: choose natural or synthetic"),
        ({"kind": "natural"}, "Phantoms have no natural photographs: give root"),
        ({"part": "valid"}, "come with CheXpert only: give root"),
        ({"root": "nowhere"}, r"There is no train\.csv in nowhere"),
        ({"root": "nowhere", "part": "5x200"}, "part='5x200' is unknown: CheXphoto has train and valid"),
        ({"n": 2, "image_size": 32, "strength": 9}, "strength=9 is not from 0 to 4"),
    ],
)
def test_what_cannot_be_loaded_is_named(bank, arguments, why):
    with pytest.raises(CourseError, match=why):
        load_chexphoto(**arguments)


@pytest.mark.parametrize(
    "change, why",
    [
        (lambda text: text[:-6], r"train\.csv, line 5, has 16 fields instead of 19"),
        (lambda text: "", "cannot be read"),
        (lambda text: text.replace("Atelectasis", "Collapse"), "has no column Atelectasis"),
        (lambda text: text + "\n" + ROWS[0], "line 6: .* a second time"),
        (lambda text: text.replace(",1.0,", ",2,"), r"line 2: Edema is '2'"),
        (lambda text: text.replace("patient90001", "somebody"), r"line 2: Path is '.*somebody"),
        (lambda text: text.replace("frontal", "lateral"), "No frontal radiograph of .* is there"),
        (lambda text: text.replace("/iphone/", "/nokia/"), None),  # no file there: left out
    ],
    ids="cut empty column twice label patient lateral missing".split(),
)
def test_a_table_that_does_not_fit_is_named(root, change, why):
    table = root / "train.csv"
    table.write_text(change(table.read_text()))
    if why is None:
        assert len(load_chexphoto(root, image_size=16)) == 2
    else:
        with pytest.raises(CourseError, match=why):
            load_chexphoto(root, image_size=16)


def test_an_unreadable_photograph_is_named_with_its_line(root):
    (root / "train/synthetic/digital/patient90002/study3/view1_frontal.png").write_bytes(b"")
    with pytest.raises(CourseError, match=r"train\.csv, line 4: The radiograph .*digital.* cannot be read"):
        load_chexphoto(root, image_size=16)
