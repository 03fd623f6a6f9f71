"""Open-i's radiographs, imitated by phantoms under Open-i's names: found by "auto", and the frontal one is chosen."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from PIL import Image

from cmlr_utils.data import studies as studies_module
from cmlr_utils.data.files import CourseError
from cmlr_utils.data.phantom import render_phantom
from cmlr_utils.data.radiographs import read_radiograph
from cmlr_utils.data.studies import frontal_image, load_iu_rr, open_i_folder


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


def test_a_changed_film_is_read_again(unpacked):
    folder, chosen = unpacked
    before = load_iu_rr("open-i", 64).images
    path = folder / f"{frontal_image(chosen[0], {i: folder for i in chosen[0].images})}.png"
    Image.effect_noise((64, 64), 90).save(path)
    films = load_iu_rr("open-i", 64)
    changed = films.find(chosen[0].id)
    assert (films.image(changed) == read_radiograph(path, 64)).all() and (before[changed] != films.image(changed)).any()


def test_an_unreadable_film_is_named(unpacked):
    folder, chosen = unpacked
    path = folder / f"{chosen[2].images[0]}.png"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(CourseError, match=f"{path.name} cannot be read"):
        load_iu_rr("open-i", 64)


def test_a_lateral_film_alone_is_not_shown(unpacked, studies):
    study = next(s for s in studies if s.views == ("lateral", "frontal"))
    assert frontal_image(study, {study.images[0]: None}) is None
    assert frontal_image(study, dict.fromkeys(study.images)) == study.images[1]


def test_a_film_of_unknown_view_stands_in(studies):
    study = next(s for s in studies if s.views[0] == "" and "frontal" not in s.views)
    assert frontal_image(study, dict.fromkeys(study.images)) == study.images[0]


def test_without_films_the_way_out_is_said(own_data):
    with pytest.raises(CourseError, match='NLMCXR_png.tgz.*images="phantom"'):
        load_iu_rr("open-i", 64)


def test_films_of_no_known_study_are_named(own_data):
    open_i_folder().mkdir(parents=True)
    Image.new("L", (8, 8)).save(open_i_folder() / "CXR9999_IM-1.png")
    with pytest.raises(CourseError, match="NLMCXR_png.tgz"):
        load_iu_rr("auto", 64)


def test_an_unknown_source_is_named():
    with pytest.raises(CourseError, match="images='mimic' is unknown: choose \"auto\""):
        load_iu_rr("mimic")
