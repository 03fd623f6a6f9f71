"""Real lung outlines and procedural vessel trees, prepared once and kept in a cache file."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import io
import math
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage

from ..files import CourseError, cache_folder, new_file

BANK_VERSION = 4
OUTLINE_SIZE = 128  # pixels across the box that holds both lungs
VESSEL_SIZE = 256
NUM_VESSEL_TREES = 32
MASK_ARCHIVE = "data/semantic_masks_v7labs_lungs.zip"


@dataclass(frozen=True)
class Bank:
    """Shapes in the coordinates of the box around both lungs: 0..1 across the picture, 0..1 downwards."""

    lungs: np.ndarray  # uint8 [N, 2, OUTLINE_SIZE, OUTLINE_SIZE]; patient's right lung, then left; 255 inside
    boxes: np.ndarray  # float32 [N, 2, 4]; left, top, right, bottom of each lung
    aspects: np.ndarray  # float32 [N]; width of the box over its height
    vessels: np.ndarray  # uint8 [NUM_VESSEL_TREES, VESSEL_SIZE, VESSEL_SIZE]


@functools.cache
def load_bank() -> Bank:
    """The shapes, from the cache if a whole one of this version is there, else built (some seconds) and cached.

    Raises CourseError if torchxrayvision, whose wheel carries the lung masks, is not installed whole.
    """
    path = cache_folder() / "phantom_bank.npz"
    try:
        with np.load(path, allow_pickle=False) as arrays:
            if int(arrays["version"]) != BANK_VERSION:
                raise ValueError("another version")
            bank = Bank(*(arrays[name] for name in ("lungs", "boxes", "aspects", "vessels")))
            count = len(bank.lungs)
            if count == 0 or bank.boxes.shape != (count, 2, 4) or bank.aspects.shape != (count,):
                raise ValueError("cut off")
            return bank
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
        bank = Bank(*_read_lungs(mask_archive()), _draw_vessels())
    _save(bank, path)
    return bank


def mask_archive() -> Path:
    """Path of the 517 lung masks (V7 Labs' COVID-19 set) in the installed torchxrayvision, which is not imported."""
    spec = importlib.util.find_spec("torchxrayvision")
    path = Path(spec.origin).parent / MASK_ARCHIVE if spec and spec.origin else Path("torchxrayvision") / MASK_ARCHIVE
    if not path.is_file():
        raise CourseError(
            f"The lung masks {path} are missing: run `pip install --force-reinstall --no-deps torchxrayvision`."
        )
    return path


def _save(bank: Bank, path: Path) -> None:
    """Write the cache whole or not at all; a disk that cannot be written costs only the time to build it again."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, version=BANK_VERSION, **vars(bank))
    with contextlib.suppress(CourseError), new_file(path) as partial:
        partial.write_bytes(buffer.getvalue())


def _read_lungs(archive: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Outlines, boxes and aspects of the masks that show two whole lungs of a frontal radiograph."""
    lungs, boxes, aspects = [], [], []
    try:
        with zipfile.ZipFile(archive) as masks:
            for name in sorted(masks.namelist()):
                if name.lower().endswith((".png", ".jpg", ".jpeg")) and not name.startswith("__MACOSX"):
                    with Image.open(io.BytesIO(masks.read(name))) as image:
                        pair = _two_lungs(image.convert("L"))
                    if pair is not None:
                        lungs.append(pair[0])
                        boxes.append(pair[1])
                        aspects.append(pair[2])
    except (OSError, zipfile.BadZipFile, zlib.error) as error:
        raise CourseError(
            f"The lung masks {archive} cannot be read: run `pip install --force-reinstall --no-deps torchxrayvision`."
        ) from error
    if not lungs:
        raise CourseError(f"{archive} holds no usable lung mask: install torchxrayvision 1.5 or later again.")
    return np.array(lungs), np.array(boxes, dtype=np.float32), np.array(aspects, dtype=np.float32)


def _two_lungs(image: Image.Image) -> tuple[np.ndarray, np.ndarray, float] | None:
    """One mask's two lungs [2, OUTLINE_SIZE, OUTLINE_SIZE], their boxes [2, 4] and aspect, or None if not usable."""
    side = 256
    inside = np.asarray(image.resize((side, side))) > 127
    inside = ndimage.binary_closing(np.pad(inside, 4), iterations=2)
    inside = ndimage.binary_opening(ndimage.binary_fill_holes(inside), iterations=3)[4:-4, 4:-4]  # cuts off spikes
    regions, count = ndimage.label(inside)
    if count < 2:
        return None
    areas = np.bincount(regions.ravel())[1:]
    first, second = np.argsort(-areas)[:2]
    if areas[first] + areas[second] < 0.1 * side**2 or areas[second] < 0.6 * areas[first]:
        return None
    whole = (ndimage.binary_closing(np.pad(regions == i + 1, 9), iterations=9)[9:-9, 9:-9] for i in (first, second))
    pair = sorted(whole, key=lambda lung: np.nonzero(lung)[1].mean())
    rows, columns = np.nonzero(pair[0] | pair[1])
    top, bottom, left, right = rows.min(), rows.max() + 1, columns.min(), columns.max() + 1
    cropped = min(top, left) < 1 or max(bottom, right) > side - 1
    centres = [np.nonzero(lung)[0].mean() for lung in pair]
    tilted = abs(centres[0] - centres[1]) > 0.12 * (bottom - top)
    filled = len(rows) / ((bottom - top) * (right - left))
    aspect = (right - left) * image.width / ((bottom - top) * image.height)
    if cropped or tilted or not 0.55 < filled < 0.85 or not 0.7 < aspect < 1.45:
        return None
    outlines, boxes = [], []
    for lung in pair:
        crop = Image.fromarray((lung[top:bottom, left:right] * 255).astype(np.uint8))
        crop = np.asarray(crop.resize((OUTLINE_SIZE, OUTLINE_SIZE), Image.Resampling.BICUBIC))
        outlines.append(ndimage.gaussian_filter(crop, 2.0, mode="constant"))  # a ramp that small pictures can sample
        boxes.append(_lung_box(outlines[-1] > 127, lateral=-1 if lung is pair[0] else 1))
    return np.array(outlines), np.array(boxes) / OUTLINE_SIZE, aspect


def _lung_box(inside: np.ndarray, lateral: int) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of a lung; its bottom is the costophrenic angle, not the tail behind the heart."""
    rows, columns = np.nonzero(inside)
    left, right = columns.min(), columns.max() + 1
    outer_half = lateral * (columns - (left + right) / 2) > 0
    return left, rows.min(), right, rows[outer_half].max() + 1


def _draw_vessels() -> np.ndarray:
    """Branching vessel trees of both lungs, uint8 [NUM_VESSEL_TREES, VESSEL_SIZE, VESSEL_SIZE], always the same."""
    rng = np.random.default_rng(0)
    trees = np.empty((NUM_VESSEL_TREES, VESSEL_SIZE, VESSEL_SIZE), dtype=np.uint8)
    side = 2 * VESSEL_SIZE
    for tree in trees:
        image = Image.new("L", (side, side))
        draw = ImageDraw.Draw(image)
        for mirror in (-1, 1):
            hilum_y = rng.uniform(0.42, 0.47)
            for angle in np.linspace(-1.35, 1.5, 8) + rng.normal(0, 0.12, 8):  # 0 lateral, positive towards the base
                start = (side * (0.5 + mirror * rng.uniform(0.11, 0.15)), side * (hilum_y + 0.05 * angle))
                heading = angle if mirror > 0 else math.pi - angle
                length, width = side * rng.uniform(0.09, 0.16), rng.uniform(3.0, 7.0)
                _draw_branch(draw, rng, start, heading, length, width, depth=6)
        shade = ndimage.gaussian_filter(np.asarray(image, dtype=np.float32), 1.2)
        shade = shade.reshape(VESSEL_SIZE, 2, VESSEL_SIZE, 2).mean((1, 3))
        tree[:] = 255 * shade / shade.max()
    return trees


def _draw_branch(
    draw: ImageDraw.ImageDraw,
    rng: np.random.Generator,
    start: tuple,
    heading: float,
    length: float,
    width: float,
    depth: int,
) -> None:
    """Draw one vessel in three slightly bent pieces, then its two thinner branches."""
    if depth == 0 or length < 5:
        return
    x, y = start
    for _ in range(3):
        end = (x + math.cos(heading) * length / 3, y + math.sin(heading) * length / 3)
        draw.line((x, y, *end), fill=int(min(255, 60 + 28 * width)), width=max(1, round(width)))
        heading += rng.normal(0, 0.12)
        x, y = end
    for turn in (-1, 1):
        branch = heading + turn * rng.uniform(0.15, 0.55)
        _draw_branch(draw, rng, (x, y), branch, length * rng.uniform(0.65, 0.9), width * 0.68, depth - 1)
