"""Damaged files at every reader: whatever the bytes, there comes a result, or one sentence that names the file."""

from __future__ import annotations

import csv
import gzip
import io
import re
import shutil
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings, strategies as st
from PIL import Image
from pydicom import dcmread
from pydicom.encaps import encapsulate
from pydicom.uid import JPEGBaseline8Bit
from test_chexpert import GOOD as CHEXPERT
from test_chexphoto import HEADER, ROWS
from test_nih import BOXES, NIH
from test_pairs import COLUMNS, TABLE
from test_pixels import SIZE, Counted, opened
from test_radiographs import dicom
from test_reports import PROJECTIONS, REPORT, REPORTS, archive_of

from cmlr_utils.data import chexpert, chexphoto, nih, pairs, pixels, reports
from cmlr_utils.data.files import CourseError
from cmlr_utils.data.labeler import label_text
from cmlr_utils.data.mesh import PATHOLOGIES
from cmlr_utils.data.radiographs import read_radiograph
from cmlr_utils.data.splits import with_split
from cmlr_utils.data.texts import sentences
from cmlr_utils.evaluation.zero_shot import read_prompts
from cmlr_utils.models import text_encoder
from cmlr_utils.models.model import CrossModalModel

# Damage: a list of steps, each an operation, two places, and something odd to put there

ODD = [
    *(b"", b"\0", b'"', b"'", b",", b";", b"\n", b"\r", b"<", b"&#10;", b"../", b"{", b"]", b": ", b"*a", b"\xff\xd8"),
    *(b"-1", b"0", b"1.5", b"nan", b"inf", b"1e308", b"1e-320", b"null", b"true", b"[]", b"\xff\xfe", b"\xe9", b"%s"),
    *(text.encode() for text in ("\u0663", "\u2028", "\ufeff", "e\u0301", "\U0001d51b", "a\nb", "a,b", "utf-16")),
    *(b"9" * 5_000, b"x" * 300, b"x" * 200_000, b"[" * 5_000, b"\xff" * 8, b"\x7f\xff\xff\xff", bytes(64)),
]


def on_word(content: bytes, a: int, b: int, odd: bytes) -> bytes:
    """A whole word, number or name replaced."""
    words = list(re.finditer(rb"[\w.-]+", content))
    start, end = words[a % len(words)].span() if words else (0, 0)
    return content[:start] + odd + content[end:]


def on_lines(content: bytes, a: int, b: int, odd: bytes) -> bytes:
    """Two lines exchanged, or one in the place of another."""
    lines = content.splitlines(keepends=True) or [b""]
    i, j = a % len(lines), b % len(lines)
    lines[i], lines[j] = lines[j], lines[i] if a % 2 else lines[j]
    return b"".join(lines)


def on_columns(content: bytes, a: int, b: int, odd: bytes) -> bytes:
    """A column of a table left out, moved, put in the place of another, or renamed."""
    try:
        rows = [row for row in csv.reader(io.StringIO(content.decode(), newline="")) if row]
    except (ValueError, csv.Error):
        return content
    if not rows:
        return content
    i, j, how = a % len(rows[0]), b % len(rows[0]), a % 4
    for number, row in enumerate(rows):
        moved = row[i : i + 1]
        row[i : i + 1] = ([], row[j : j + 1], [], [odd.decode(errors="replace")] if number == 0 else moved)[how]
        row[j:j] = moved if how == 2 else []
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()


OPERATIONS: dict[str, Callable[[bytes, int, int, bytes], bytes]] = {
    "flip": lambda c, a, b, odd: c[:a] + bytes(byte ^ 1 << b % 8 for byte in c[a : a + 1]) + c[a + 1 :],
    "insert": lambda c, a, b, odd: c[:a] + odd + c[a:],
    "overwrite": lambda c, a, b, odd: c[:a] + odd + c[a + len(odd) :],
    "delete": lambda c, a, b, odd: c[:a] + c[a + b % 9 :],
    "cut off": lambda c, a, b, odd: c[:a],
    "repeat or cut out": lambda c, a, b, odd: c[:b] + c[a:],
    "exchange": lambda c, a, b, odd: c[max(a, b) :] + c[min(a, b) : max(a, b)] + c[: min(a, b)],
    "encode": lambda c, a, b, odd: c.decode("latin-1").encode(("utf-16", "utf-8", "utf-8-sig", "utf-32")[b % 4]),
}
ON_PARTS = {"word": on_word, "lines": on_lines, "columns": on_columns}
PLACES, NEW = st.integers(0, 1 << 16), st.sampled_from(ODD) | st.binary(max_size=4)
STEPS = st.lists(st.tuples(st.sampled_from([*OPERATIONS, *ON_PARTS]), PLACES, PLACES, NEW), min_size=1, max_size=4)


def mutated(content: bytes, steps: list[tuple[str, int, int, bytes]]) -> bytes:
    for name, a, b, odd in steps:
        length = len(content) + 1
        step = (
            ON_PARTS[name](content, a, b, odd)
            if name in ON_PARTS
            else OPERATIONS[name](content, a % length, b % length, odd)
        )
        content = step[: 1 << 20]
    return content


def png_sums(content: bytes) -> bytes:
    """The PNG with the checksum of each chunk made right."""
    mended, start = content[:8], 8
    while start + 12 <= len(content):
        end = start + 8 + int.from_bytes(content[start : start + 4], "big")
        mended += content[start:end] + zlib.crc32(content[start + 4 : end]).to_bytes(4, "big")
        start = end + 4
    return mended + content[start:]


def tar_sums(content: bytes) -> bytes:
    """The tar file with the checksum of each header made right, packed."""
    blocks = [content[i : i + 512] for i in range(0, len(content), 512)]
    for i, block in enumerate(blocks):
        if block[257:262] == b"ustar":
            blocks[i] = block[:148] + b"%06o\0 " % (sum(block[:148]) + 8 * 32 + sum(block[156:])) + block[156:]
    return gzip.compress(b"".join(blocks), 1)


# The readers, each with a file that it reads


class Reader(NamedTuple):
    name: str  # of the file
    content: bytes | Callable[[Path], bytes]
    read: Callable[[Path], object]
    mend: Callable[[bytes], bytes] = bytes  # puts checksums right, so that every second mutant gets past them
    beside: dict[str, str] = {}  # further files that it wants


def picture(kind: str, mode: str) -> bytes:
    file, greys = io.BytesIO(), np.arange(256, dtype=np.uint16).reshape(16, 16)
    image = Image.fromarray(greys * 257) if mode == "I;16" else Image.fromarray(greys.astype(np.uint8)).convert(mode)
    image.save(file, kind)
    return file.getvalue()


def dicom_film(folder: Path, jpeg: bytes = b"") -> bytes:
    greys = np.arange(256, dtype=np.uint16).reshape(16, 16)
    path = dicom(folder, greys, bits=8, WindowCenter=99, WindowWidth=150, PixelSpacing=[0.1, 0.1])
    if jpeg:
        film = dcmread(path)
        film.BitsAllocated, film.PixelData = 8, encapsulate([jpeg])
        film.file_meta.TransferSyntaxUID, film["PixelData"].is_undefined_length = JPEGBaseline8Bit, True
        film.save_as(path)
    return path.read_bytes()


def archive(folder: Path) -> bytes:
    members = {f"ecgen/{i}.xml": REPORT.replace("CXR7", f"CXR{i}") for i in (7, 10)}
    return archive_of(folder / "reports.tgz", members).read_bytes()


def labelled(path: Path) -> None:
    text = path.read_bytes().decode("utf-8", "surrogateescape")
    assert label_text(text).shape == (5,) and all(sentences(text))


def film(path: Path) -> None:
    assert read_radiograph(path, 16).shape == (16, 16)


def in_folder(load: Callable[[Path], object]) -> Callable[[Path], object]:
    return lambda path: load(path.parent)


TEXT = b"Heart is enlarged. 1. No acute effusion, may be edema.\n2. XXXX lobe collapse, vs. consolidation"
FILMS = {line.partition("/")[2].split(",")[0]: "" for line in CHEXPERT.splitlines()[1:] + ROWS}
PNG = {"00000001_000.png": ""}
KAGGLE = {"indiana_reports.csv": REPORTS, "indiana_projections.csv": PROJECTIONS}
SPLIT = b"study,split\nCXR0,train\nCXR1,test\nCXR2,unused\n"
ENTRY = "  name: x\n  severities: ['', mild]\n  locations: [left]\n  extra: [an x.]\n"
PROMPTS = "".join(f"{name}:\n{ENTRY}" for name in (*PATHOLOGIES, "normal")).encode()
STUDIES = [reports.Study(f"CXR{i}", "", "", "", "", "", (), ("a",), ("",), np.zeros(5)) for i in range(3)]
READERS = {
    "archive": Reader("reports.tgz", archive, reports.read_reports),
    "tar": Reader("reports.tgz", lambda folder: gzip.decompress(archive(folder)), reports.read_reports, tar_sums),
    "XML": Reader("7.xml", REPORT.encode(), lambda path: reports.parse_report(path.read_bytes(), path.name)),
    **{name: Reader(name, KAGGLE[name].encode(), in_folder(reports.read_kaggle), beside=KAGGLE) for name in KAGGLE},
    "text": Reader("report.txt", TEXT, labelled),
    "pairs": Reader("pairs.csv", TABLE.encode(), lambda path: pairs.load_pairs(path.parent, path, **COLUMNS)),
    "PNG": Reader("film.png", picture("PNG", "L"), film, png_sums),
    "PNG of 16 bits": Reader("film.png", picture("PNG", "I;16"), film, png_sums),
    "PNG with a palette": Reader("film.png", picture("PNG", "P"), film, png_sums),
    "JPEG": Reader("film.jpg", picture("JPEG", "CMYK"), film),
    "TIFF": Reader("film.tif", picture("TIFF", "I;16"), film),
    "DICOM": Reader("film.dcm", dicom_film, film),
    "DICOM, JPEG": Reader("film.dcm", lambda folder: dicom_film(folder, picture("JPEG", "L")), film),
    "NIH": Reader("labels.csv", NIH.encode(), in_folder(nih.load_nih), beside=PNG),
    "NIH's list": Reader("test_list.txt", b"00000001_000.png\n", in_folder(nih.load_nih), beside={**PNG, "a.csv": NIH}),
    "boxes": Reader("boxes.csv", BOXES.encode(), nih.read_boxes),
    "CheXpert": Reader("train.csv", CHEXPERT.encode(), in_folder(chexpert.load_chexpert), beside=FILMS),
    "CheXphoto": Reader(
        "train.csv", "\n".join([HEADER, *ROWS]).encode(), in_folder(chexphoto.load_chexphoto), beside=FILMS
    ),
    "prompts": Reader("prompts.yaml", PROMPTS, read_prompts),
    "split": Reader("split.csv", SPLIT, lambda path: with_split(STUDIES, path)),
}


@pytest.fixture(scope="module", autouse=True)
def tables_alone(tmp_path_factory):
    """Whoever reads a table caches no pixels, and what the package brings is small."""
    packaged = tmp_path_factory.mktemp("packaged") / "train.csv"
    packaged.write_text(CHEXPERT)
    store = pixels.PixelStore(np.zeros((9, 9, 9), np.uint8), None, "")
    with pytest.MonkeyPatch.context() as patch:
        for module in (pairs, nih, chexpert, chexphoto):
            patch.setattr(module, "listed_store", lambda *arguments: store)
        patch.setattr(reports, "read_views", dict)
        patch.setattr(chexpert, "packaged_labels", lambda: chexpert.read_labels(packaged, None))
        patch.setattr(pixels, "cpu_count", lambda: 1)
        yield


def is_read_or_named(read: Callable[[Path], object], path: Path) -> bool:
    """Whether `read(path)` comes back, rather than with a sentence; whatever else it does is a failure."""
    files = sorted(path.parent.rglob("*"))
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        try:
            read(path)
        except CourseError as error:
            sentence = str(error)
            assert path.name in sentence and sentence.endswith(".") and len(sentence.splitlines()) == 1
            assert len(sentence) < 1_100
            return False
        finally:
            assert not told and sorted(path.parent.rglob("*")) == files
    return True


whatever = settings(deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))


@pytest.fixture
def whole(kind: str, tmp_path: Path) -> tuple[Path, bytes]:
    """The path of a reader's file and what stands in it, with all else that the reader wants."""
    reader, folder = READERS[kind], tmp_path / "read"
    for name, content in reader.beside.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    folder.mkdir(exist_ok=True)
    content = reader.content(tmp_path) if callable(reader.content) else reader.content
    (folder / reader.name).write_bytes(content)
    return folder / reader.name, content


@pytest.mark.parametrize("kind", READERS)
@settings(whatever, max_examples=500)
@example(steps=[], mended=True)
@given(steps=STEPS, mended=st.booleans())
def test_a_mutated_file_is_read_or_named(whole, kind, steps, mended):
    (path, content), reader = whole, READERS[kind]
    content = mutated(content, steps)
    path.write_bytes(reader.mend(content) if mended else content)
    assert is_read_or_named(reader.read, path) or steps


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory, very_small):
    """A saved model, small and offline."""
    folder = tmp_path_factory.mktemp("checkpoint")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_encoder, "TINY_BERT", text_encoder.TINY_BERT | {"hidden_size": 8, "intermediate_size": 8})
        patch.setattr(text_encoder, "AutoConfig", None)  # would ask the Hub for the text model of a damaged preset
        CrossModalModel.untrained(very_small, ["No edema."]).save(folder)
        yield folder


@pytest.mark.parametrize("name", ["preset.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"])
@settings(whatever, max_examples=60)
@given(steps=STEPS)
def test_a_mutated_checkpoint_is_read_or_named(checkpoint, name, steps):
    whole = (checkpoint / name).read_bytes()
    try:
        (checkpoint / name).write_bytes(mutated(whole[:8_000], steps) + whole[8_000:])
        is_read_or_named(CrossModalModel.load, checkpoint)
    finally:
        (checkpoint / name).write_bytes(whole)


# The pixel cache, whose files lie there for months and which a loss of power may tear


@pytest.fixture(scope="module")
def drawn(tmp_path_factory) -> tuple[Path, Path, pixels.PixelStore]:
    """A folder with a whole cache, one with a cache that was interrupted, and what both must give."""
    whole, torn = tmp_path_factory.mktemp("whole"), tmp_path_factory.mktemp("torn")
    with pytest.raises(KeyboardInterrupt):
        opened(torn, Counted(KeyboardInterrupt(), 66))
    return whole, torn, opened(whole)


@settings(whatever, max_examples=300)
@given(steps=STEPS, name=st.sampled_from(["manifest.json", "pixels.npy", "masks.npy"]))
def test_a_mutated_cache_is_right_or_not_used(drawn, tmp_path, steps, name):
    folder, store = tmp_path / "films", drawn[2]
    shutil.copytree(drawn[0] / f"films-{SIZE}", folder, dirs_exist_ok=True)
    (folder / name).write_bytes(mutated((folder / name).read_bytes(), steps))
    read, reason = pixels.read_store(folder, store.fingerprint)
    assert (read is None) == bool(reason)
    if read:
        assert (read.pixels == store.pixels).all() and (read.packed_masks == store.packed_masks).all()


@settings(whatever, max_examples=100)
@given(steps=STEPS, name=st.sampled_from(["journal", "pixels.npy", "masks.npy"]))
def test_drawing_goes_on_rightly_from_mutated_files(drawn, tmp_path, steps, name):
    shutil.rmtree(tmp_path / "cache", ignore_errors=True)
    shutil.copytree(drawn[1], tmp_path / "cache")
    (file,) = (tmp_path / "cache").glob(f".*.partial/{name}")
    file.write_bytes(mutated(file.read_bytes(), steps))
    store = opened(tmp_path / "cache")
    assert (store.pixels == drawn[2].pixels).all() and (store.packed_masks == drawn[2].packed_masks).all()
