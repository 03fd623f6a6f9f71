"""Photographs of radiographs against one picture at a time: scipy, loops over pixels, and worked examples."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance
from scipy import ndimage

from cmlr_utils.data.files import CourseError
from cmlr_utils.data.photograph import GEOMETRY, PHOTOGRAPHS, SIDE, homography, photograph, uniform

S = 48
NAMES = list(PHOTOGRAPHS)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    """Five smooth pictures in float64, so that differences are mistakes and not rounding."""
    noise = np.random.default_rng(0).random((5, 1, S, S))
    smooth = np.stack([ndimage.gaussian_filter(picture[0], 1.5) for picture in noise])[:, None]
    return torch.from_numpy((smooth - smooth.min()) / np.ptp(smooth))


@pytest.mark.parametrize("name", NAMES)
def test_strength_zero_changes_nothing_and_more_changes_more(images, name):
    assert torch.allclose(photograph(images, name, 0, seeded()), images, atol=1e-9)
    changes = [(photograph(images, name, level, seeded(1)) - images).abs().mean().item() for level in (0.5, 1, 2, 3, 4)]
    assert changes == sorted(changes) and changes[0] > 0


@pytest.mark.parametrize("name", NAMES)
def test_a_batch_is_its_images_one_by_one(images, name):
    one, together = seeded(5), photograph(images, name, 2.5, seeded(5))
    alone = torch.cat([photograph(images[i : i + 1], name, 2.5, one) for i in range(len(images))])
    assert torch.allclose(together, alone, atol=1e-12)
    assert not torch.equal(photograph(images, name, 2.5, seeded(6)), together) or "blur" in name


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_range_shape_dtype_and_input_are_kept(images, name, dtype):
    given = images.to(dtype)
    before = given.clone()
    shown = photograph(given, name, 4, seeded())
    assert shown.dtype == dtype and shown.shape == given.shape and torch.equal(given, before)
    assert 0 <= shown.min() and shown.max() <= 1
    assert torch.allclose(shown.double(), photograph(given.double(), name, 4, seeded()), atol=0.02) or name == "moire"


def placed(picture: np.ndarray, source) -> np.ndarray:
    """The picture read at source(x, y) for every pixel's middle (x, y), bilinear, black outside: a loop over pixels."""
    padded, result = np.pad(picture, 1), np.zeros_like(picture)
    for row in range(S):
        for column in range(S):
            x, y = source(column + 0.5, row + 0.5)
            result[row, column] = ndimage.map_coordinates(padded, [[y + 0.5], [x + 0.5]], order=1, mode="constant")[0]
    return result


def test_rotation_is_a_rotation_that_cuts_nothing_off(images):
    shown = photograph(images, "rotation", 3, seeded(2))
    for i, draw in enumerate(uniform(images, seeded(2), 1)[:, 0]):
        angle = math.radians(15) * (-1 if draw < 0.5 else 1)
        size, c = abs(math.sin(angle)) + abs(math.cos(angle)), S / 2

        def source(x, y, angle=angle, size=size, c=c):
            dx, dy = size * (x - c), size * (y - c)
            return c + dx * math.cos(angle) + dy * math.sin(angle), c - dx * math.sin(angle) + dy * math.cos(angle)

        np.testing.assert_allclose(shown[i, 0], placed(images[i, 0].numpy(), source), atol=1e-9)
    white = photograph(torch.ones(1, 1, S, S), "rotation", 3, seeded())
    expected = S * S / (math.sin(math.radians(15)) + math.cos(math.radians(15))) ** 2
    assert white.sum().item() == pytest.approx(expected, rel=0.01)


def test_translation_shifts_each_image_by_its_own_draw(images):
    shown = photograph(images, "translation", SIDE / 20 / 8, seeded(3))  # an eighth of the side: 6 pixels
    for i, (across, down) in enumerate(uniform(images, seeded(3), 2)):
        dx, dy = (6 if draw < 0.5 else -6 for draw in (across, down))  # reading 6 further right moves left
        expected = ndimage.shift(images[i, 0].numpy(), (dy, dx), order=1, cval=0)
        np.testing.assert_allclose(shown[i, 0], expected, atol=1e-9)


def test_perspective_brings_the_corners_where_they_were_drawn(images):
    shown = photograph(images, "perspective", 4, seeded(4))
    draws = (0.2 * uniform(images, seeded(4), 8)).view(-1, 4, 2).numpy()
    for i in range(len(images)):
        corners = np.array([[0, 0], [S, 0], [S, S], [0, S]], float)
        moved = corners + S * draws[i] * np.array([[1, 1], [-1, 1], [-1, -1], [1, -1]])
        rows = []
        for (x, y), (u, v) in zip(moved, corners, strict=True):
            rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
        a, b, c, d, e, f, g, h = np.linalg.lstsq(np.array(rows), corners.ravel(), rcond=None)[0]

        def source(x, y, m=(a, b, c, d, e, f, g, h)):
            w = m[6] * x + m[7] * y + 1
            return (m[0] * x + m[1] * y + m[2]) / w, (m[3] * x + m[4] * y + m[5]) / w

        np.testing.assert_allclose(shown[i, 0], placed(images[i, 0].numpy(), source), atol=1e-8)


def test_a_homography_takes_four_points_to_four_points():
    here, there = torch.rand(6, 4, 2, generator=seeded()).double(), torch.rand(6, 4, 2, generator=seeded(1)).double()
    taken = torch.cat([here, torch.ones(6, 4, 1)], -1) @ homography(here, there).mT
    assert torch.allclose(taken[..., :2] / taken[..., 2:], there, atol=1e-8)


@pytest.mark.parametrize("level", [1, 2, 3, 4])
def test_matte_glare_is_the_released_formula(images, level):
    shown = photograph(images, "glare matte", level, seeded(7))
    for i, centre in enumerate(uniform(images, seeded(7), 2).numpy() * S):
        y, x = np.mgrid[:S, :S] + 0.5
        scale = S / SIDE
        bell = np.exp(-((x - centre[0]) ** 2 + (y - centre[1]) ** 2) / (2 * (50 * level * scale) ** 2))
        alpha = np.minimum(150 + 20 * level, 100 * level * bell) / 255
        picture = images[i, 0].numpy()
        np.testing.assert_allclose(shown[i, 0], picture * (1 - alpha) + alpha, atol=1e-6)


@pytest.mark.parametrize("level", [1, 4])
def test_glossy_glare_is_one_box_of_the_right_size_and_opacity(level):
    black = torch.zeros(64, 1, S, S)
    shown = photograph(black, "glare glossy", level, seeded(8))[:, 0].numpy()
    touching = np.zeros(4, int)
    for picture in shown:
        rows, columns = picture.any(1), picture.any(0)
        assert (picture > 0).sum() == rows.sum() * columns.sum() and len(set(picture[picture > 0])) == 1
        assert all(0.1 * level * S - 1 <= side.sum() <= (0.1 * level + 0.05) * S + 1 for side in (rows, columns))
        assert (150 + 20 * level) / 255 <= picture.max() <= (170 + 20 * level) / 255
        touching += [rows[0], rows[-1], columns[0], columns[-1]]
    assert (touching > 64 / 3 - 14).all() and (touching < 64 / 3 + 14).all()  # a third each, in any of the nine places


@pytest.mark.parametrize("level, gap, opacity", [(1, 20, 0.05), (2, 4.5, 0.15), (3, 2.5, 0.35), (4, 1, 0.5)])
def test_moire_is_two_gratings_pixel_by_pixel(level, gap, opacity):
    size = 16
    shown = photograph(torch.ones(2, 1, size, size).double(), "moire", level, seeded(9))[:, 0]
    draws = uniform(torch.ones(2, 1).double(), seeded(9), 5).tolist()
    for picture, (x1, y1, x2, y2, turn) in zip(shown, draws, strict=True):
        light = np.ones((2 * size, 2 * size))
        degrees = 90 + float(torch.special.ndtri(torch.tensor(turn)))
        for x0, y0, angle in ((x1, y1, math.radians(90)), (x2, y2, math.radians(degrees))):
            for row in range(2 * size):
                for column in range(2 * size):
                    x, y = column + 0.5 - size + 100 * x0, row + 0.5 - size + 100 * y0
                    along, across = x * math.cos(angle) - y * math.sin(angle), x * math.sin(angle) + y * math.cos(angle)
                    # the frame is 4 S wide: at its left border lines are twice as far apart as at its right
                    narrowing = 0.5 / (1 - 0.5 * (along + 2 * size) / (4 * size))
                    if (across * narrowing) % (gap + 1) < 1:
                        light[row, column] *= 1 - opacity
        expected = light.reshape(size, 2, size, 2).mean((1, 3))
        assert (np.abs(picture.numpy() - expected) > 1e-6).mean() < 0.02  # a line's edge may round either way


@pytest.mark.parametrize("level, pixels", [(1, 2), (2, 10), (3, 25), (4, 45)])
def test_motion_blur_is_a_mean_along_the_rows(level, pixels):
    picture = np.random.default_rng(1).random((4, SIDE))
    given = torch.from_numpy(np.repeat(picture, SIDE // 4 + 1, 0)[:SIDE])[None, None]
    shown = photograph(given, "motion blur", level)[0, 0].numpy()
    kernel = np.ones(pixels) if pixels % 2 else np.array([0.5, *np.ones(pixels - 1), 0.5])
    expected = ndimage.convolve1d(given[0, 0].numpy(), kernel / kernel.sum(), axis=1, mode="mirror")
    np.testing.assert_allclose(shown, expected, atol=1e-9)


@pytest.mark.parametrize("level, sigma", [(1, 1.5), (2, 3), (3, 6), (4, 10)])
def test_defocus_blur_is_a_gaussian(level, sigma):
    picture, sigma = torch.from_numpy(np.random.default_rng(2).random((1, 1, SIDE // 3, SIDE // 3))), sigma / 3
    expected = ndimage.gaussian_filter(picture[0, 0].numpy(), sigma, mode="mirror", radius=math.ceil(3 * sigma))
    np.testing.assert_allclose(photograph(picture, "defocus blur", level)[0, 0], expected, atol=1e-6)


@pytest.mark.parametrize(
    "name, enhancer", [("brightness", ImageEnhance.Brightness), ("contrast", ImageEnhance.Contrast)]
)
@pytest.mark.parametrize("level, factor", [(1, 0.5), (2, 2), (3, 3), (4, 4)])
def test_brightness_and_contrast_are_pillows(images, name, enhancer, level, factor):
    eight_bits = (images * 255).round()
    shown = photograph(eight_bits / 255, name, level, seeded(10)) * 255
    ups = (uniform(images, seeded(10), 1) >= 0.5)[:, 0].tolist()
    assert len(set(ups)) == 2
    for picture, given, up in zip(shown, eight_bits, ups, strict=True):
        by = 1 + 0.2 * factor if up else 1 / (1 + 0.4 * factor)
        expected = enhancer(Image.fromarray(given[0].byte().numpy())).enhance(by)
        np.testing.assert_allclose(picture[0], np.asarray(expected, float), atol=2)


def test_masks_move_with_the_pixels_and_stay_under_glare():
    masks = torch.zeros(3, 2, S, S, dtype=torch.bool)
    masks[:, 0, 10:30, 14:24], masks[:, 1, 28:40, 20:44] = True, True
    for name in NAMES:
        shown, moved = photograph(masks[:, :1].double(), name, 3, seeded(11), masks)
        assert moved.shape == masks.shape and moved.dtype == torch.bool
        if name in GEOMETRY:
            assert torch.equal(moved[:, :1], shown > 0.5) and not torch.equal(moved, masks)
        else:
            assert torch.equal(moved, masks)


def test_several_follow_one_another(images):
    generator = seeded(12)
    expected = images
    for name in ("glare matte", "moire", "perspective"):
        expected = photograph(expected, name, 2, generator)
    assert torch.equal(photograph(images, ("glare matte", "moire", "perspective"), 2, seeded(12)), expected)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU on this machine")
@pytest.mark.parametrize("name", NAMES)
def test_a_gpu_gives_what_the_cpu_gives(images, name):
    shown = photograph(images.cuda(), name, 3, seeded(13))
    assert shown.is_cuda and torch.allclose(shown.cpu(), photograph(images, name, 3, seeded(13)), atol=1e-6)


@pytest.mark.parametrize(
    "images, names, strength, why",
    [
        (torch.zeros(1, 1, 8, 8), "tilt", 1, "no photograph 'tilt': choose among perspective"),
        (torch.zeros(1, 1, 8, 8), ["moire", "snow"], 1, "no photograph 'snow'"),
        (torch.zeros(1, 1, 8, 8), "moire", -0.1, "strength=-0.1 is not from 0 to 4"),
        (torch.zeros(1, 1, 8, 8), "moire", 4.5, "strength=4.5"),
        (torch.zeros(1, 1, 8, 8), "moire", float("nan"), "strength=nan"),
        (torch.zeros(1, 1, 8, 8), "moire", "strong", "strength='strong'"),
        (torch.zeros(1, 1, 8, 8, dtype=torch.uint8), "moire", 1, r"images are torch.uint8 \[1, 1, 8, 8\]"),
        (torch.zeros(8, 8), "moire", 1, r"\[8, 8\]: give floats"),
        (torch.zeros(1, 3, 8, 8), "moire", 1, r"\[1, 3, 8, 8\]"),
    ],
)
def test_what_cannot_be_photographed_is_named(images, names, strength, why):
    with pytest.raises(CourseError, match=why):
        photograph(images, names, strength)
