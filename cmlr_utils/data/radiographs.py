"""Real radiographs from image files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from cmlr_utils.data.files import CourseError


def read_radiograph(path: Path | str, size: int) -> np.ndarray:
    """Read an image file as uint8 [size, size]: grey, aspect kept, resized with antialiasing, padded with black.

    8 and 16 bits, grey or colour. Raises CourseError naming a file that cannot be read.
    """
    try:
        with Image.open(path) as image:
            if image.mode.startswith("I"):  # 16 bits: keep the eight most significant
                image = Image.fromarray((np.asarray(image).astype(np.uint32) >> 8).clip(0, 255).astype(np.uint8))
            image = image.convert("L")
    except (OSError, UnidentifiedImageError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise CourseError(f"The radiograph {path} cannot be read ({error}): fetch it again or remove it.") from error
    scale = size / max(image.size)
    width, height = (max(1, round(side * scale)) for side in image.size)
    resized = np.asarray(image.resize((width, height), Image.Resampling.LANCZOS))
    square = np.zeros((size, size), np.uint8)
    top, left = (size - height) // 2, (size - width) // 2
    square[top : top + height, left : left + width] = resized
    return square


def draw_radiograph(path: str, size: int) -> tuple[np.ndarray, None]:
    """One row of a pixel cache of real radiographs, which have no masks."""
    return read_radiograph(path, size), None
