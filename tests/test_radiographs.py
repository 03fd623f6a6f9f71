"""Image files of every kind become one square of greys, or one sentence that names them."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from PIL import Image

from cmlr_utils.data.files import CourseError
from cmlr_utils.data.radiographs import draw_radiograph, read_radiograph

RAMP = np.tile(np.arange(64, dtype=np.uint8) * 4, (64, 1))  # left dark, right bright


def saved(tmp_path, image: Image.Image, name: str = "film.png"):
    image.save(tmp_path / name)
    return tmp_path / name


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "LA", "P"])
def test_grey_colour_and_palette_show_the_same_picture(tmp_path, mode):
    path = saved(tmp_path, Image.fromarray(RAMP).convert(mode))
    read = read_radiograph(path, 64)
    assert read.dtype == np.uint8 and read.shape == (64, 64)
    assert np.abs(read.astype(int) - RAMP).max() <= 1


def test_sixteen_bits_keep_their_eight_most_significant(tmp_path):
    path = saved(tmp_path, Image.fromarray(RAMP.astype(np.uint16) * 256 + 77))
    assert Image.open(path).mode.startswith("I")
    assert (read_radiograph(path, 64) == RAMP).all()


def test_one_bit_becomes_black_and_white(tmp_path):
    path = saved(tmp_path, Image.fromarray(RAMP > 127))
    assert (read_radiograph(path, 64) == np.where(RAMP > 127, 255, 0)).all()


def test_jpeg_is_read_too(tmp_path):
    path = saved(tmp_path, Image.fromarray(RAMP), "film.jpg")
    assert np.abs(read_radiograph(path, 64).astype(int) - RAMP).max() < 12


@pytest.mark.parametrize("height, width", [(40, 80), (80, 40), (33, 64), (1, 64), (200, 3)])
def test_the_aspect_is_kept_and_the_rest_is_black(tmp_path, height, width):
    path = saved(tmp_path, Image.new("L", (width, height), 200))
    read = read_radiograph(path, 64)
    rows, columns = np.flatnonzero(read.any(1)), np.flatnonzero(read.any(0))
    assert len(rows) == max(1, round(height * 64 / max(height, width)))
    assert len(columns) == max(1, round(width * 64 / max(height, width)))
    assert abs(rows[0] - (63 - rows[-1])) <= 1 and abs(columns[0] - (63 - columns[-1])) <= 1  # in the middle
    assert (read[np.ix_(rows, columns)] == 200).all()


def test_shrinking_averages_instead_of_picking(tmp_path):
    checks = (np.indices((256, 256)).sum(0) % 2 * 255).astype(np.uint8)
    assert np.ptp(read_radiograph(saved(tmp_path, Image.fromarray(checks)), 32)) < 30


def test_a_row_of_the_cache_has_no_masks(tmp_path):
    image, masks = draw_radiograph(str(saved(tmp_path, Image.fromarray(RAMP))), 64)
    assert (image == RAMP).all() and masks is None


@pytest.mark.parametrize("kind", ["truncated", "empty", "text", "missing", "folder"])
def test_a_file_that_is_no_radiograph_is_named(tmp_path, kind):
    path = tmp_path / "film.png"
    whole = saved(tmp_path, Image.effect_noise((64, 64), 50), "whole.png").read_bytes()
    content = {"truncated": whole[: len(whole) // 2], "empty": b"", "text": b"no radiograph\n"}
    if kind in content:
        path.write_bytes(content[kind])
    if kind == "folder":
        path.mkdir()
    with pytest.raises(CourseError, match=r"film\.png cannot be read.*fetch it again"):
        read_radiograph(path, 64)


def test_a_picture_too_large_to_be_one_is_refused(tmp_path, monkeypatch):
    path = saved(tmp_path, Image.fromarray(RAMP))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1_000)
    with pytest.raises(CourseError, match=r"film\.png cannot be read"):
        read_radiograph(path, 64)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_any_damage_ends_in_a_picture_or_in_a_sentence(tmp_path_factory, data):
    whole = io.BytesIO()
    Image.fromarray(RAMP).save(whole, "PNG")
    content = bytearray(whole.getvalue())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "damaged.png"
    path.write_bytes(content)
    try:
        assert read_radiograph(path, 16).shape == (16, 16)
    except CourseError as error:
        assert "damaged.png" in str(error)
