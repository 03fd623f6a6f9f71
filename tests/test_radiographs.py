"""Image files of every kind become one square of greys, or one sentence that names them."""

from __future__ import annotations

import io
import struct
import zlib
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageChops
from pydicom import Dataset, FileDataset, dcmread
from pydicom.data import get_testdata_file
from pydicom.uid import ComputedRadiographyImageStorage, ExplicitVRLittleEndian, generate_uid

from cmlr_utils.data.files import REPOSITORY, CourseError
from cmlr_utils.data.radiographs import draw_radiograph, read_radiograph

SHARED = REPOSITORY.parent / "shared" / "radiographs"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="the real radiographs are not here")
RAMP = np.tile(np.arange(64, dtype=np.uint8) * 4, (64, 1))  # left dark, right bright
RAMP12 = np.tile(np.arange(64, dtype=np.uint16) * 65, (64, 1))  # 0 to 4095


def saved(tmp_path, image: Image.Image, name: str = "film.png", **options) -> Path:
    image.save(tmp_path / name, **options)
    return tmp_path / name


def dicom(tmp_path, greys: np.ndarray, *, bits: int = 12, name: str = "film.dcm", **attributes) -> Path:
    """A computed radiograph with the pixels `greys` as they are, and any further attributes."""
    film = FileDataset("", {}, preamble=bytes(128))
    film.file_meta = Dataset()
    film.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    film.file_meta.MediaStorageSOPClassUID = film.SOPClassUID = ComputedRadiographyImageStorage
    film.file_meta.MediaStorageSOPInstanceUID = film.SOPInstanceUID = generate_uid()
    film.Rows, film.Columns = greys.shape
    film.SamplesPerPixel, film.PhotometricInterpretation = 1, "MONOCHROME2"
    film.BitsAllocated, film.BitsStored, film.HighBit = 16, bits, bits - 1
    film.PixelRepresentation = int(greys.dtype.kind == "i")
    film.PixelData = greys.tobytes()
    for attribute, value in attributes.items():
        setattr(film, attribute, value)
    film.save_as(tmp_path / name, enforce_file_format=True)
    return tmp_path / name


def table(numbers: list[int], first: int, bits: int) -> list[Dataset]:
    """A look-up table as DICOM writes it."""
    lut = Dataset()
    lut.add_new("LUTDescriptor", "US", [len(numbers), first, bits])
    lut.add_new("LUTData", "US", numbers)
    lut.ModalityLUTType = "US"
    return [lut]


# Image files


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "LA", "P", "CMYK"])
def test_grey_colour_and_palette_show_the_same_picture(tmp_path, mode):
    path = saved(tmp_path, Image.fromarray(RAMP).convert(mode), "film.tif" if mode == "CMYK" else "film.png")
    read = read_radiograph(path, 64)
    assert read.dtype == np.uint8 and read.shape == (64, 64)
    assert np.abs(read.astype(int) - RAMP).max() <= 1


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_jpeg_in_grey_colour_and_ink(tmp_path, mode):
    path = saved(tmp_path, Image.fromarray(RAMP).convert(mode), "film.jpg", quality=95)
    assert np.abs(read_radiograph(path, 64).astype(int) - RAMP).max() < 8


def test_a_palette_is_looked_up(tmp_path):
    image = Image.fromarray(RAMP // 4).convert("L")
    image.putpalette([grey for i in range(256) for grey in (255 - i,) * 3])
    assert (read_radiograph(saved(tmp_path, image), 64) == 255 - RAMP // 4).all()


@pytest.mark.parametrize("kind", ["alpha", "palette"])
def test_what_is_transparent_is_black(tmp_path, kind):
    image = Image.new("RGBA", (64, 64), (200, 200, 200, 255))
    image.paste((255, 255, 255, 0), (0, 0, 64, 32))
    if kind == "palette":
        image = Image.fromarray(np.repeat([[0], [1]], 32, axis=0).repeat(64, 1).astype(np.uint8))
        image.putpalette([255, 255, 255, 200, 200, 200])
    path = saved(tmp_path, image, **({"transparency": 0} if kind == "palette" else {}))
    read = read_radiograph(path, 64)
    assert (read[:32] == 0).all() and (read[32:] == 200).all()


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_sixteen_bit_files_of_fewer_bits_are_neither_dark_nor_stretched(tmp_path, bits):
    greys = RAMP.astype(np.uint16) * 2 ** (bits - 8)  # no pixel is quite white, and none may become so
    path = saved(tmp_path, Image.fromarray(greys))
    assert Image.open(path).mode.startswith("I")
    assert (read_radiograph(path, 64) == RAMP).all()


def test_one_bit_becomes_black_and_white(tmp_path):
    path = saved(tmp_path, Image.fromarray(RAMP > 127))
    assert (read_radiograph(path, 64) == np.where(RAMP > 127, 255, 0)).all()


@pytest.mark.parametrize("orientation, turned", [(1, RAMP), (2, RAMP[:, ::-1]), (3, RAMP[::-1, ::-1]), (6, RAMP.T)])
def test_the_camera_s_orientation_is_followed(tmp_path, orientation, turned):
    exif = Image.Exif()
    exif[0x0112] = orientation
    read = read_radiograph(saved(tmp_path, Image.fromarray(RAMP), exif=exif), 64)
    assert (read == turned).all()


@pytest.mark.parametrize("height, width", [(40, 80), (80, 40), (33, 64), (1, 64), (200, 3)])
def test_the_aspect_is_kept_and_the_rest_is_black(tmp_path, height, width):
    path = saved(tmp_path, Image.new("L", (width, height), 200))
    read = read_radiograph(path, 64)
    rows, columns = np.flatnonzero(read.any(1)), np.flatnonzero(read.any(0))
    assert len(rows) == max(1, round(height * 64 / max(height, width)))
    assert len(columns) == max(1, round(width * 64 / max(height, width)))
    assert abs(rows[0] - (63 - rows[-1])) <= 1 and abs(columns[0] - (63 - columns[-1])) <= 1  # in the middle
    assert (read[np.ix_(rows, columns)] == 200).all()


@pytest.mark.parametrize("ending", ["png", "jpg"])
def test_shrinking_averages_instead_of_picking(tmp_path, ending):
    checks = (np.indices((256, 256)).sum(0) % 2 * 255).astype(np.uint8)
    assert np.ptp(read_radiograph(saved(tmp_path, Image.fromarray(checks), f"film.{ending}"), 32)) < 30


def test_a_large_jpeg_shrinks_as_a_png_does(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (40, 30), dtype=np.uint8)
    image = Image.fromarray(noise).resize((900, 1200), Image.Resampling.BICUBIC)
    png, jpeg = (read_radiograph(saved(tmp_path, image, name), 64).astype(int) for name in ("film.png", "film.jpg"))
    assert np.abs(png - jpeg).max() < 12 and np.abs(png - jpeg).mean() < 2


def test_a_row_of_the_cache_has_no_masks(tmp_path):
    image, masks = draw_radiograph(str(saved(tmp_path, Image.fromarray(RAMP))), 64)
    assert (image == RAMP).all() and masks is None


# DICOM


def test_dicom_is_known_by_its_content_or_its_name(tmp_path):
    film = dicom(tmp_path, RAMP12)
    assert (read_radiograph(film, 64) == RAMP12 >> 4).all()
    assert (read_radiograph(film.rename(tmp_path / "film.png"), 64) == RAMP12 >> 4).all()
    raw = dcmread(tmp_path / "film.png")
    raw.preamble = None
    raw.save_as(tmp_path / "film.dcm", enforce_file_format=False)
    assert (tmp_path / "film.dcm").read_bytes()[128:132] != b"DICM"
    assert (read_radiograph(tmp_path / "film.dcm", 64) == RAMP12 >> 4).all()


def windowed(grey: float, centre: float, width: float) -> float:
    """PS3.3 C.11.2.1.2.1, the linear window, with an output from 0 to 255."""
    if grey <= centre - 0.5 - (width - 1) / 2:
        return 0
    if grey > centre - 0.5 + (width - 1) / 2:
        return 255
    return ((grey - (centre - 0.5)) / (width - 1) + 0.5) * 255


@pytest.mark.parametrize("centre, width", [(2048, 1024), ([1000, 3000], [1500, 10]), (600, 400)])
def test_the_first_window_is_used(tmp_path, centre, width):
    film = dicom(tmp_path, RAMP12, WindowCenter=centre, WindowWidth=width)
    first = [value[0] if isinstance(value, list) else value for value in (centre, width)]
    expected = [windowed(float(grey), *first) for grey in RAMP12[0]]
    assert np.abs(read_radiograph(film, 64)[30] - expected).max() <= 1


def test_a_window_counts_in_rescaled_units(tmp_path):
    film = dicom(tmp_path, RAMP12, RescaleSlope=2, RescaleIntercept=-1000, WindowCenter=500, WindowWidth=2000)
    expected = [windowed(2.0 * grey - 1000, 500, 2000) for grey in RAMP12[0]]
    assert np.abs(read_radiograph(film, 64)[30] - expected).max() <= 1


def test_signed_greys(tmp_path):
    greys = RAMP12.astype(np.int16) - 2048
    plain = read_radiograph(dicom(tmp_path, greys), 64)
    window = read_radiograph(dicom(tmp_path, greys, WindowCenter=0, WindowWidth=4096), 64)
    assert (plain == RAMP12 >> 4).all() and np.abs(window.astype(int) - plain).max() <= 1


def test_a_voi_table_comes_before_a_window_and_after_a_modality_table(tmp_path):
    greys = RAMP.astype(np.uint16) // 4  # 0 to 63
    film = dicom(
        tmp_path,
        greys,
        bits=8,
        ModalityLUTSequence=table([2 * i for i in range(64)], 0, 16),
        VOILUTSequence=table([(i * i) // 2 for i in range(127)], 0, 16),
        WindowCenter=3,
        WindowWidth=2,
    )
    shown = [(2 * int(i)) ** 2 // 2 for i in greys[0]]
    expected = np.array(shown) * 255 / shown[-1]
    assert np.abs(read_radiograph(film, 64)[30] - expected).max() <= 1


@pytest.mark.parametrize("window", [{}, {"WindowCenter": 1500, "WindowWidth": 1000}])
def test_monochrome1_is_the_negative(tmp_path, window):
    positive = read_radiograph(dicom(tmp_path, RAMP12, **window), 64)
    film = dicom(tmp_path, RAMP12, PhotometricInterpretation="MONOCHROME1", **window)
    assert (read_radiograph(film, 64) == 255 - positive).all()


@pytest.mark.parametrize("spacing", [[0.1, 0.2], [8e307, 1.6e308]])
def test_pixels_that_are_not_square_are_made_so(tmp_path, spacing):
    film = dicom(tmp_path, np.full((64, 64), 3000, np.uint16), PixelSpacing=spacing)
    read = read_radiograph(film, 64)
    assert np.flatnonzero(read.any(1)).tolist() == list(range(16, 48)) and read.any(0).all()


@pytest.mark.parametrize("compressed", ["MR_small_RLE", "MR_small_jp2klossless"])
def test_lossless_compression_changes_nothing(compressed):
    plain, packed = (get_testdata_file(f"{name}.dcm", download=False) for name in ("MR_small", compressed))
    assert (read_radiograph(plain, 64) == read_radiograph(packed, 64)).all()


@pytest.mark.skipif(bool(find_spec("gdcm") or find_spec("pylibjpeg")), reason="pydicom has found more decoders")
def test_a_compression_that_needs_another_decoder_is_said():
    path = get_testdata_file("MR_small_jpeg_ls_lossless.dcm", download=False)
    with pytest.raises(CourseError, match="JPEG-LS.*requires gdcm"):
        read_radiograph(path, 64)


def test_colour_in_dicom_becomes_grey():
    path = get_testdata_file("examples_rgb_color.dcm", download=False)
    grey = Image.fromarray(dcmread(path).pixel_array).convert("L")
    read = read_radiograph(path, max(grey.size))
    rows = (max(grey.size) - grey.height) // 2
    assert (read[rows : rows + grey.height] == np.asarray(grey)).all()


@needs_shared
def test_a_real_dicom_with_jpeg_shows_what_its_jpeg_shows(tmp_path):
    (tmp_path / "film.jpg").write_bytes(dcmread(SHARED / "rsna.dcm").PixelData[16:])  # after the table of offsets
    read = read_radiograph(SHARED / "rsna.dcm", 1024)
    assert np.abs(read.astype(int) - np.asarray(Image.open(tmp_path / "film.jpg").convert("L"))).max() <= 1
    negative = ImageChops.invert(Image.fromarray(read))  # the same JPEG, which the other file calls MONOCHROME1
    assert (read_radiograph(SHARED / "rsna_monochrome1.dcm", 1024) == np.asarray(negative)).all()


@needs_shared
def test_real_pngs_keep_their_greys():
    for path in SHARED.glob("*.png"):
        assert (read_radiograph(path, 512) == np.asarray(Image.open(path).convert("L"))).all()


# What is no radiograph


def png_of(width: int, height: int) -> bytes:
    """A PNG with a valid header that claims this size, and hardly any pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    pixels = chunk(b"IDAT", zlib.compress(bytes(1000)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + pixels + chunk(b"IEND", b"")


def noise_png() -> bytes:
    content = io.BytesIO()
    Image.effect_noise((64, 64), 50).save(content, "PNG")
    return content.getvalue()


UNREADABLE = {  # name of the file, its content, what the sentence says
    "truncated": ("film.png", noise_png()[:2000], ""),
    "half a header": ("film.png", noise_png()[:20], ""),
    "empty": ("film.png", b"", ""),
    "text": ("film.png", b"no radiograph\n", "cannot identify"),
    "a page instead of a picture": ("film.jpg", b"<!DOCTYPE html><title>404</title>", "cannot identify"),
    "no width": ("film.png", png_of(0, 64), ""),
    "huge by its header": ("film.png", png_of(100_000, 100_000), ""),
    "larger than any film": ("film.png", png_of(11_000, 10_000), "claims 11,000 x 10,000 pixels"),
    "fewer pixels than promised": ("film.png", png_of(64, 64), ""),
    "text called DICOM": ("film.dcm", b"no radiograph\n" * 20, "without pixels"),
    "empty DICOM": ("film.dcm", b"", "without pixels"),
    "magic and no more": ("film.dcm", bytes(128) + b"DICM", "without pixels"),
}


@pytest.mark.parametrize("kind", UNREADABLE)
def test_a_file_that_is_no_radiograph_is_named(tmp_path, kind):
    name, content, reason = UNREADABLE[kind]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CourseError, match=rf"{name} cannot be read \(.*{reason}.*\): fetch it again"):
        read_radiograph(tmp_path / name, 64)


@pytest.mark.parametrize("kind", ["missing", "folder", "not allowed"])
def test_a_file_that_cannot_be_opened_is_named(tmp_path, kind):
    path = tmp_path / "film.png"
    if kind == "folder":
        path.mkdir()
    if kind == "not allowed":
        path.symlink_to(path)  # opens for nobody, not even for root
    with pytest.raises(CourseError, match=r"film\.png cannot be read \([A-Z].*\): fetch it again"):
        read_radiograph(path, 64)


@pytest.mark.parametrize("value", [np.nan, np.inf, 0.5])
def test_floating_point_greys_are_refused(tmp_path, value):
    path = saved(tmp_path, Image.fromarray(np.full((8, 8), value, np.float32)), "film.tif")
    with pytest.raises(CourseError, match=r"film\.tif .*floating-point.*16 bits"):
        read_radiograph(path, 64)


BAD_DICOM = {
    "no pixels": ({"PixelData": None}, "without pixels"),
    "NaN pixels": (
        {"PixelData": None, "FloatPixelData": np.full(64 * 64, np.nan, np.float32).tobytes()},
        "without pixels",
    ),
    "several frames": (
        {"NumberOfFrames": 2, "PixelData": RAMP12.tobytes() * 2},
        "2 frames, and a radiograph has one",
    ),
    "too few pixels": ({"PixelData": RAMP12.tobytes()[:1000]}, ""),
    "no rows": ({"Rows": 0}, "claims 64 x 0 pixels"),
    "huge": ({"Rows": 65535, "Columns": 65535}, "claims 65,535 x 65,535 pixels"),
    "unknown greys": ({"PhotometricInterpretation": "XYZ"}, "PhotometricInterpretation is XYZ"),
    "a palette": (
        {"PhotometricInterpretation": "PALETTE COLOR"},
        "PhotometricInterpretation is PALETTE COLOR",
    ),
    "no width in the window": ({"WindowCenter": 9, "WindowWidth": 0}, "Width"),
    "a window of NaN": ({"WindowCenter": "nan", "WindowWidth": "nan"}, ""),
    "needles for pixels": ({"PixelSpacing": [0.1, 100]}, "pixels measure 0.1 by 100"),
}


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("kind", BAD_DICOM)
def test_a_dicom_file_that_is_no_radiograph_is_named(tmp_path, kind):
    path = dicom(tmp_path, RAMP12)
    changes, reason = BAD_DICOM[kind]
    film = dcmread(path)
    for keyword, value in changes.items():
        if value is None:
            delattr(film, keyword)
        else:
            setattr(film, keyword, value)
    film.save_as(path)
    with pytest.raises(CourseError, match=rf"film\.dcm cannot be read \(.*{reason}.*\): fetch it again"):
        read_radiograph(path, 64)
