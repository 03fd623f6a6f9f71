"""Real radiographs from image files: PNG, JPEG and whatever else Pillow reads, and DICOM."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageOps
from pydicom import Dataset, dcmread
from pydicom.pixels import apply_modality_lut, apply_voi_lut

from cmlr_utils.data.files import CourseError
from cmlr_utils.data.pixels import PixelStore, open_store

MOST_PIXELS = 40_000_000  # a film of 35 x 43 cm read at 0.1 mm has 15 million


def read_radiograph(path: Path | str, size: int) -> np.ndarray:
    """Read an image file as uint8 [size, size]: grey, bright bone, aspect kept, antialiased, centred on black.

    Greys of more than 8 bits are read on the scale 0 to 2^b - 1, with the least b from 8 up that holds the picture's
    brightest pixel: many 16-bit PNGs hold 10, 12 or 14 bits and would be all but black on their full scale, and a
    stretch to each picture's own extremes would change its contrast. Colour becomes luma, what is transparent black,
    and the orientation in EXIF is followed. A DICOM file, known by its content or by the name's ending .dcm, is shown
    as PS3.3 C.11.1 and C.11.2 say: modality LUT, then its first VOI LUT or window, then MONOCHROME1 inverted; pixels
    that are not square are made so. Compressed as baseline JPEG, JPEG 2000 or RLE it can be read, and otherwise where
    pydicom finds a decoder. Raises CourseError naming a file that cannot be read as one radiograph.
    """
    try:
        with open(path, "rb") as file:
            is_dicom = file.read(132)[128:] == b"DICM" or Path(path).suffix.lower() == ".dcm"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about oddities of a header that do not touch the picture
            image, (width, height) = read_dicom(path) if is_dicom else read_image(path, size)
    except Exception as error:  # damaged files make the decoders raise nearly anything
        reason = getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__
        raise CourseError(f"The radiograph {path} cannot be read ({reason}): fetch it again or remove it.") from error
    scale = size / max(width, height)
    width, height = max(1, round(width * scale)), max(1, round(height * scale))
    square = np.zeros((size, size), np.uint8)
    top, left = (size - height) // 2, (size - width) // 2
    square[top : top + height, left : left + width] = image.resize((width, height), Image.Resampling.LANCZOS)
    return square


def read_image(path: Path | str, size: int) -> tuple[Image.Image, tuple[float, float]]:
    """The picture in greys, mode "L", and its width and height. Decoders may raise anything."""
    with Image.open(path) as image:
        require_plausible(*image.size)
        image.draft("L", (2 * size, 2 * size))  # a JPEG far larger than needed is decoded at 1/2, 1/4 or 1/8
        image = ImageOps.exif_transpose(image)
        if image.mode == "F":
            raise ValueError("it holds floating-point greys, whose range no one states; save it with 8 or 16 bits")
        if image.mode.startswith("I"):
            image = Image.fromarray(eight_bits(np.asarray(image)))
        elif image.has_transparency_data:
            image = Image.alpha_composite(Image.new("RGBA", image.size, "black"), image.convert("RGBA"))
        return image.convert("L"), image.size


def read_dicom(path: Path | str) -> tuple[Image.Image, tuple[float, float]]:
    """As `read_image`, from DICOM; width and height are in units that make the pixels square."""
    film = dcmread(path, force=True)
    if "PixelData" not in film or "Rows" not in film:
        raise ValueError("it is DICOM without pixels")
    if int(film.get("NumberOfFrames") or 1) > 1:
        raise ValueError(f"it is DICOM with {film.NumberOfFrames} frames, and a radiograph has one")
    require_plausible(film.Columns, film.Rows)
    meaning = film.get("PhotometricInterpretation")
    if film.get("SamplesPerPixel") == 3 and film.BitsAllocated == 8:
        image = Image.fromarray(film.pixel_array).convert("L")  # pydicom has made RGB of any YBR
    elif meaning in ("MONOCHROME1", "MONOCHROME2"):
        greys = shown_greys(film)
        image = Image.fromarray(255 - greys if meaning == "MONOCHROME1" else greys)
    else:
        raise ValueError(f"its PhotometricInterpretation is {meaning}, not MONOCHROME1, MONOCHROME2 or a colour")
    down, across = film.get("PixelSpacing") or film.get("ImagerPixelSpacing") or film.get("PixelAspectRatio") or (1, 1)
    if not 0.1 < down / across < 10:
        raise ValueError(f"its pixels measure {down} by {across}")
    return image, (film.Columns, film.Rows * float(down / across))


def shown_greys(film: Dataset) -> np.ndarray:
    """The stored greys through modality LUT and VOI LUT or window, uint8 [height, width]."""
    values = apply_modality_lut(film.pixel_array, film)
    if "VOILUTSequence" not in film and "WindowCenter" not in film:
        return eight_bits(values - min(0, values.min()))
    lowest = -(1 << film.BitsStored - 1) if film.PixelRepresentation else 0
    extremes = np.array([lowest, lowest + (1 << film.BitsStored) - 1], film.pixel_array.dtype)
    black, white = sorted(apply_voi_lut(apply_modality_lut(extremes, film), film).astype(float))
    greys = (apply_voi_lut(values, film) - black) * (255 / (white - black))
    if not np.isfinite(greys).all():
        raise ValueError("its window leaves no picture")
    return greys.clip(0, 255).round().astype(np.uint8)


def eight_bits(greys: np.ndarray) -> np.ndarray:
    """Whole numbers on the least scale 0 to 2^b - 1, b >= 8, that holds them all, as uint8 0 to 255."""
    bits = max(8, int(greys.max()).bit_length())
    return (greys.clip(0).astype(np.int64) >> bits - 8).astype(np.uint8)


def require_plausible(width: int, height: int) -> None:
    if not 0 < width * height <= MOST_PIXELS:
        raise ValueError(f"it claims {width:,} x {height:,} pixels")


def radiograph_store(name: str, files: Sequence[Path], size: int, *, skip_unreadable: bool = False) -> PixelStore:
    """The pixel cache of image files, one row each; a file of another length or time, or another reader, renews it.

    Raises CourseError at the first file that cannot be read; with `skip_unreadable` its row is only told and marked.
    """
    states = [(file.stat().st_size, file.stat().st_mtime_ns) if file.exists() else None for file in files]
    version = hashlib.sha256(Path(__file__).read_bytes() + str(states).encode()).hexdigest()
    jobs = [(str(file),) for file in files]
    return open_store(name, jobs, draw_radiograph, size=size, version=version, skip_unreadable=skip_unreadable)


def listed_store(name: str, table: pd.DataFrame, path: Path, size: int, skip_unreadable: bool) -> PixelStore:
    """The pixel cache of the radiographs in the column `file`; an unreadable one is named with its line in `path`."""
    try:
        return radiograph_store(name, list(table["file"]), size, skip_unreadable=skip_unreadable)
    except CourseError as error:
        for file, line in zip(table["file"], table["line"], strict=True):
            if f" {file} " in str(error):
                raise CourseError(f"{path}, line {line}: {error}") from error
        raise


def draw_radiograph(path: str, size: int) -> tuple[np.ndarray, None]:
    """One row of a pixel cache of real radiographs, which have no masks."""
    return read_radiograph(path, size), None
