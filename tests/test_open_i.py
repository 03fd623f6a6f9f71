"""Open-i's radiographs, imitated by phantoms under Open-i's names: found by "auto", and the frontal one is chosen."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cmlr_utils.data import studies as studies_module
from cmlr_utils.data.files import CourseError
from cmlr_utils.data.phantom import render_phantom
from cmlr_utils.data.reports import torchxrayvision_file
from cmlr_utils.data.studies import drawn_study, frontal_image, image_key, load_iu_rr, open_i_folder


@pytest.fixture
def unpacked(own_data, monkeypatch, reports, studies):
    """Both films of four studies as NLMCXR_png.tgz unpacks them: the frontal one a phantom, the lateral one black."""
    monkeypatch.setattr(studies_module, "read_reports", lambda: reports)
    chosen = [s for s in studies if Counter(s.views) == {"frontal": 1, "lateral": 1} and s.views[0] == "lateral"][:2]
    chosen += [s for s in studies if s.views == ("frontal", "lateral")][:2]
    folder = open_i_folder() / "NLMCXR_png"
    folder.mkdir(parents=True)
    for study in chosen:
        for image, view in zip(study.images, study.views, strict=True):
            film = (
                render_phantom(study.id, study.mesh, 64).pixels if view == "frontal" else np.zeros((64, 48), np.uint8)
            )
            Image.fromarray(film).save(folder / f"{image}.png")
    return folder, chosen


def test_auto_finds_them_and_shows_the_frontal_film(unpacked):
    _, chosen = unpacked
    films = load_iu_rr("auto", 64)
    assert films.source == "open-i" and {study.id for study in films} == {study.id for study in chosen}
    for i, study in enumerate(films):
        assert (films.image(i) == render_phantom(study.id, study.mesh, 64).pixels).all()
    assert films.texts == [study.text for study in films] and all(films.texts)


def test_real_films_have_no_masks(unpacked):
    with pytest.raises(CourseError, match="no masks"):
        load_iu_rr("open-i", 64).masks(0)


def kaggle_name(image: str) -> str:
    """`CXR2_IM-0652-1001` is `2_IM-0652-1001.dcm.png` there, and report 1's number does not stand twice."""
    return image.removeprefix("CXR").replace("1_1_IM", "1_IM") + ".dcm.png"


def test_kaggle_s_layout_gives_the_same_set(unpacked, own_data):
    folder, chosen = unpacked
    before = load_iu_rr("open-i", 64)
    elsewhere = own_data / "raw" / "iu-rr" / "images" / "images_normalized"
    elsewhere.mkdir(parents=True)
    for path in folder.iterdir():
        path.rename(elsewhere / kaggle_name(path.stem))
    after = load_iu_rr("auto", 64)
    assert after.source == before.source == "open-i" and (after.images == before.images).all()
    assert [study.id for study in after] == [study.id for study in before]


def test_every_image_has_one_key_in_both_layouts(reports):
    images = [image for study in reports for image in study.images]
    keys = [image_key(image) for image in images]
    assert len(set(keys)) == len(images) == 7470 and "" not in keys
    assert [image_key(f"{image}.png") for image in images] == keys
    assert [image_key(kaggle_name(image)) for image in images] == keys
    assert image_key("CXR1_1_IM-0001-3001.png") == image_key("1_IM-0001-3001.dcm.png") == "CXR1_IM-0001-3001"


@pytest.mark.parametrize("name", ["", "film.png", "CXR2.png", "2_1_IM-0001-3001.png", "CXR2_IM-0652-1001.jpg"])
def test_other_files_are_no_images_of_open_i(name):
    assert image_key(name) == ""


def test_a_changed_film_is_read_again_even_if_its_length_stays(unpacked):
    folder, chosen = unpacked
    files = {image_key(image): None for image in chosen[0].images}
    path = folder / f"{frontal_image(chosen[0], files)}.png"
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64), np.uint8)
    Image.fromarray(pixels).save(path, compress_level=0)
    before, length = load_iu_rr("open-i", 64).images, path.stat().st_size
    Image.fromarray(255 - pixels).save(path, compress_level=0)
    assert path.stat().st_size == length
    films = load_iu_rr("open-i", 64)
    changed = films.find(chosen[0].id)
    assert (films.image(changed) == 255 - pixels).all() and (before[changed] == pixels).all()


def test_an_unreadable_film_is_named_or_left_out_and_counted(unpacked, capsys):
    folder, chosen = unpacked
    path = folder / f"{chosen[2].images[0]}.png"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(CourseError, match=f"{path.name} cannot be read"):
        load_iu_rr("open-i", 64)
    films = load_iu_rr("open-i", 64, skip_unreadable=True)
    assert (
        f"1 of 4 radiographs of iu-rr-open-i are left out; the first: The radiograph {path}" in capsys.readouterr().out
    )
    assert {study.id for study in films} == {chosen[i].id for i in (0, 1, 3)}
    for i, study in enumerate(films):
        assert (films.image(i) == render_phantom(study.id, study.mesh, 64).pixels).all()
    assert films.subset([2]).images.any()


def film_of(views: tuple[str, ...], there: tuple[int, ...]) -> int | None:
    """Which image of a study with these views is shown when only those at `there` are unpacked."""
    images = tuple(f"CXR7_IM-0001-{i}" for i in range(len(views)))
    study = replace(drawn_study("CXR7", "normal"), images=images, views=views)
    shown = frontal_image(study, {images[i]: None for i in there})
    return None if shown is None else images.index(shown)


@pytest.mark.parametrize(
    "views, there, shown",
    [
        (("lateral", "frontal"), (0, 1), 1),
        (("lateral", "frontal"), (0,), None),  # a lateral film alone is not shown
        (("frontal", "frontal"), (0, 1), 0),
        (("frontal", "frontal"), (1,), 1),
        (("", "frontal"), (0, 1), 1),
        (("lateral", "lateral"), (0, 1), None),
        (("frontal",), (), None),
    ],
)
def test_the_first_frontal_film_is_shown(views, there, shown):
    assert film_of(views, there) == shown


@pytest.fixture(scope="module")
def headers() -> pd.DataFrame:
    """One row for each DICOM header, with the view by pixels of those images that are their report's first."""
    columns = ["imageid", "View Position", "Acquisition Device Processing Code"]
    table = pd.read_csv(torchxrayvision_file("nlmcxr_dicom_metadata.csv.gz"), usecols=columns, low_memory=False)
    seen = pd.read_csv(torchxrayvision_file("nlmcxr_tsne_pa.csv.gz")).set_index("imageid")["tsne-view"]
    table["seen"] = table["imageid"].map(seen).map({"PA": "frontal", "L": "lateral"})
    position = table["View Position"]
    table["position"] = position.map(lambda p: p if pd.isna(p) else "frontal" if p in ("PA", "AP") else "lateral")
    return table


def test_view_position_alone_would_mislead(headers):
    """What the rule of `read_views` rests on, counted from the tables by themselves."""
    both = headers.dropna(subset=["position", "seen"])
    counts = both.groupby(["position", "seen"]).size().to_dict()
    assert counts == {("frontal", "frontal"): 2140, ("frontal", "lateral"): 198, ("lateral", "lateral"): 129}
    plates = headers[headers["Acquisition Device Processing Code"] == "60003"]
    assert plates["seen"].value_counts().to_dict() == {"lateral": 151, "frontal": 4}
    assert (plates["View Position"] == "PA").sum() == 1360 and len(plates) == 1366


def test_every_image_has_a_view_and_the_first_goes_by_its_pixels(reports, headers):
    views = {image: view for study in reports for image, view in zip(study.images, study.views, strict=True)}
    assert Counter(views.values()) == {"frontal": 3810, "lateral": 3660}
    seen = headers.dropna(subset=["seen"])
    assert [views[image] for image in seen["imageid"]] == list(seen["seen"])
    shown = [frontal_image(study, {image_key(image): None for image in study.images}) for study in reports]
    assert sum(image is not None for image in shown) == 3665


def test_without_films_the_way_out_is_said(own_data):
    with pytest.raises(CourseError, match='cmlr download iu-rr.*images="phantom"'):
        load_iu_rr("open-i", 64)


def test_films_of_no_known_study_are_named(own_data):
    open_i_folder().mkdir(parents=True)
    Image.new("L", (8, 8)).save(open_i_folder() / "CXR9999_IM-1.png")
    with pytest.raises(CourseError, match="cmlr download iu-rr"):
        load_iu_rr("auto", 64)


def test_an_unknown_source_is_named():
    with pytest.raises(CourseError, match="images='mimic' is unknown: choose \"auto\""):
        load_iu_rr("mimic")
