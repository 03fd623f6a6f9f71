"""The phantom radiographs: the same every time, right in side, size and label, and equal away from the finding."""

import hashlib
import os
import subprocess
import sys
import tarfile
import zipfile
from importlib.util import find_spec
from pathlib import Path

import defusedxml.ElementTree
import numpy as np
import pytest

from cmlr_utils.data.files import CourseError
from cmlr_utils.data.mesh import HEADINGS, PATHOLOGIES, labels_from_mesh
from cmlr_utils.data.phantom import bank, phantom_fingerprint, render_phantom

ATELECTASIS, CARDIOMEGALY, CONSOLIDATION, EDEMA, EFFUSION = range(5)


@pytest.fixture(scope="module")
def real_codes() -> dict[str, list[str]]:
    """Every report's codes, read here without the course's own reader."""
    archive = Path(find_spec("torchxrayvision").origin).parent / "data/NLMCXR_reports.tgz"
    codes = {}
    with tarfile.open(archive) as reports:
        for member in reports:
            if member.name.endswith(".xml"):
                root = defusedxml.ElementTree.parse(reports.extractfile(member)).getroot()
                codes[Path(member.name).stem] = [major.text for major in root.findall(".//MeSH/major")]
    assert len(codes) == 3955
    return codes


def cardiothoracic_ratio(phantom) -> float:
    """Widest heart over widest lungs, in pixels."""
    heart, lungs = (np.nonzero(shape.any(axis=0))[0] for shape in (phantom.heart, phantom.lungs))
    return np.ptp(heart) / np.ptp(lungs)


def near(mask: np.ndarray, reach: int) -> np.ndarray:
    """The mask and all pixels within a square of `reach` pixels of it."""
    rows, columns = np.nonzero(mask)
    grown = np.zeros_like(mask)
    for row, column in zip(rows, columns, strict=True):
        grown[max(row - reach, 0) : row + reach + 1, max(column - reach, 0) : column + reach + 1] = True
    return grown


def test_same_call_gives_same_bytes_also_in_a_new_process():
    script = (
        "import hashlib; from cmlr_utils.data.phantom import render_phantom as r;"
        "p = r('CXR7', ['Pleural Effusion/left', 'Catheters, Indwelling'], 96, 2);"
        "print(hashlib.sha256(p.pixels.tobytes() + p.masks.tobytes()).hexdigest())"
    )
    phantom = render_phantom("CXR7", ["Pleural Effusion/left", "Catheters, Indwelling"], 96, 2)
    here = hashlib.sha256(phantom.pixels.tobytes() + phantom.masks.tobytes()).hexdigest()
    there = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert there.stdout.strip() == here


def test_studies_and_variants_differ():
    pictures = {
        render_phantom(study, ["normal"], 64, variant).pixels.tobytes() for study in "abc" for variant in (0, 1)
    }
    assert len(pictures) == 6


@pytest.mark.parametrize("size", [64, 128, 256])
def test_shapes_and_types_at_every_size(size):
    phantom = render_phantom("CXR1", ["Cardiomegaly/mild", "Pulmonary Edema"], size)
    assert phantom.pixels.shape == phantom.lungs.shape == phantom.heart.shape == (size, size)
    assert phantom.masks.shape == (len(PATHOLOGIES), size, size)
    assert phantom.pixels.dtype == np.uint8
    assert phantom.masks.dtype == phantom.lungs.dtype == phantom.heart.dtype == bool
    assert phantom.masks.any(axis=(1, 2)).tolist() == [False, True, False, True, False]
    assert phantom.pixels.std() > 20
    assert 0.1 < phantom.lungs.mean() < 0.5


def test_one_size_is_a_finer_view_of_another():
    small = render_phantom("CXR3", ["Consolidation/lung/lower lobe/left"], 64)
    large = render_phantom("CXR3", ["Consolidation/lung/lower lobe/left"], 256)
    averaged = large.pixels.reshape(64, 4, 64, 4).mean(axis=(1, 3))
    assert np.corrcoef(averaged.ravel(), small.pixels.ravel())[0, 1] > 0.97
    assert large.masks[CONSOLIDATION].mean() == pytest.approx(small.masks[CONSOLIDATION].mean(), rel=0.15)


@pytest.mark.parametrize(
    "codes",
    [
        ["Pleural Effusion/left/small"],
        ["Pleural Effusion/right/small"],
        ["Pleural Effusion/left/large"],
        ["Consolidation/lung/upper lobe/right"],
        ["Nodule/lung/upper lobe/left"],
        ["Opacity/lung/base/right"],
    ],
)
def test_twins_are_equal_away_from_the_finding(codes):
    for study in ("TWIN1", "TWIN2", "TWIN3"):
        twin, normal = render_phantom(study, codes), render_phantom(study, ["normal"])
        assert (twin.lungs == normal.lungs).all() and (twin.heart == normal.heart).all()
        changed = twin.pixels != normal.pixels
        side = codes[0].split("/")[-2 if "Effusion" in codes[0] else -1]
        middle = int(np.nonzero(normal.lungs.any(axis=0))[0].mean())
        half = slice(middle - 4, None) if side == "left" else slice(0, middle + 4)
        lung = np.zeros_like(normal.lungs)
        lung[:, half] = normal.lungs[:, half]
        assert changed.any() and not (changed & ~near(lung, 4)).any()
        if "Effusion" in codes[0] or "Consolidation" in codes[0]:
            stronger = np.abs(twin.pixels.astype(int) - normal.pixels) > 8
            assert not (stronger & ~near(twin.masks.any(axis=0), 8)).any()


def test_adding_one_finding_leaves_the_other_where_it_was():
    alone = render_phantom("CXR9", ["Nodule/lung/upper lobe/right"])
    both = render_phantom("CXR9", ["Nodule/lung/upper lobe/right", "Pleural Effusion/left"])
    normal, effusion = render_phantom("CXR9", ["normal"]), render_phantom("CXR9", ["Pleural Effusion/left"])
    assert ((alone.pixels != normal.pixels) == (both.pixels != effusion.pixels)).all()


def test_masks_agree_with_labels_on_real_codes(real_codes):
    coded = [study for study, codes in real_codes.items() if np.nansum(labels_from_mesh(codes))]
    others = sorted(set(real_codes) - set(coded))
    rng = np.random.default_rng(0)
    for study in [*rng.choice(sorted(coded), 350, replace=False), *rng.choice(others, 150, replace=False)]:
        masks = render_phantom(study, real_codes[study], size=64).masks
        expected = np.nan_to_num(labels_from_mesh(real_codes[study])) == 1
        assert (masks.any(axis=(1, 2)) == expected).all(), (study, real_codes[study])


@pytest.mark.parametrize("label", [ATELECTASIS, CONSOLIDATION, EFFUSION])
@pytest.mark.parametrize("side", ["left", "right"])
def test_finding_lies_on_the_coded_side_and_brightens_it(label, side):
    for study in range(12):
        normal = render_phantom(str(study), ["normal"])
        sick = render_phantom(str(study), [f"{HEADINGS[label]}/base/{side}"])
        middle = np.nonzero(normal.lungs.any(axis=0))[0].mean()
        columns = np.nonzero(sick.masks[label])[1]
        assert (columns.mean() > middle) == (side == "left")  # the patient's left is on the picture's right
        shown = sick.masks[label]
        assert sick.pixels[shown].mean() > normal.pixels[shown].mean() + 4


def test_edema_is_bilateral():
    for study in range(12):
        phantom = render_phantom(str(study), ["Pulmonary Edema/mild"])
        middle = int(np.nonzero(phantom.lungs.any(axis=0))[0].mean())
        halves = phantom.masks[EDEMA][:, :middle].sum(), phantom.masks[EDEMA][:, middle:].sum()
        assert min(halves) > 0.25 * max(halves)


def test_effusion_grows_with_its_severity():
    for study in range(8):
        areas = [
            render_phantom(str(study), [f"Pleural Effusion/right{severity}"]).masks[EFFUSION].sum()
            for severity in ("/small", "", "/moderate", "/large")
        ]
        assert areas == sorted(areas) and areas[-1] > 1.5 * areas[0]


def test_cardiothoracic_ratio_follows_the_code():
    normal = []
    for study in range(12):
        ratios = [
            cardiothoracic_ratio(render_phantom(str(study), [code], size=256))
            for code in (
                "normal",
                "Cardiomegaly/borderline",
                "Cardiomegaly/mild",
                "Cardiomegaly",
                "Cardiomegaly/severe",
            )
        ]
        assert ratios == sorted(ratios)
        assert 0.39 < ratios[0] < 0.57 and ratios[1] > 0.49 and 0.60 < ratios[-1] < 0.82  # bedside films magnify
        normal.append(ratios[0])
    assert np.median(normal) < 0.49


def test_bad_arguments_are_named():
    with pytest.raises(CourseError, match="size 31"):
        render_phantom("CXR1", ["normal"], size=31)
    with pytest.raises(CourseError, match="list of codes"):
        render_phantom("CXR1", "normal")


def fake_mask() -> np.ndarray:
    """Two ellipses for lungs, uint8 [256, 256]."""
    rows, columns = np.mgrid[:256, :256]
    return sum(
        255 * (((rows - 130) / 95) ** 2 + ((columns - centre) / 42) ** 2 < 1).astype(np.uint8) for centre in (78, 176)
    )


@pytest.fixture
def few_masks(tmp_path, monkeypatch):
    """An empty cache, and an archive with one good mask and one that cannot be used."""
    from PIL import Image

    archive = tmp_path / "masks.zip"
    with zipfile.ZipFile(archive, "w") as masks:
        for name, pixels in (("a.png", fake_mask()), ("b.png", np.zeros((256, 256), np.uint8))):
            Image.fromarray(pixels).save(tmp_path / name)
            masks.write(tmp_path / name, f"masks/{name}")
    monkeypatch.setenv("CMLR_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(bank, "mask_archive", lambda: archive)
    bank.load_bank.cache_clear()
    yield tmp_path / "data" / "cache" / "phantom_bank.npz", archive
    bank.load_bank.cache_clear()


@pytest.mark.parametrize("damage", ["truncated", "empty", "text", "old", "missing array"])
def test_a_broken_or_old_bank_is_built_again(few_masks, damage):
    path, _ = few_masks
    whole = bank.load_bank()
    assert whole.lungs.shape == (1, 2, bank.OUTLINE_SIZE, bank.OUTLINE_SIZE)
    content = path.read_bytes()
    if damage == "old":
        np.savez_compressed(path, version=bank.BANK_VERSION - 1, **vars(whole))
    elif damage == "missing array":
        np.savez_compressed(path, version=bank.BANK_VERSION, lungs=whole.lungs)
    else:
        path.write_bytes({"truncated": content[: len(content) // 2], "empty": b"", "text": b"not an archive"}[damage])
    bank.load_bank.cache_clear()
    assert (bank.load_bank().lungs == whole.lungs).all()
    assert path.read_bytes() == content
    assert os.listdir(path.parent) == [path.name]


def test_a_bank_that_cannot_be_saved_still_serves(few_masks):
    path, _ = few_masks
    path.parent.parent.mkdir()
    path.parent.write_text("a file where the folder should be")
    assert len(bank.load_bank().lungs) == 1


def test_unreadable_or_unusable_archives_are_named(few_masks):
    _, archive = few_masks
    archive.write_bytes(archive.read_bytes()[:100])
    with pytest.raises(CourseError, match="cannot be read.*pip install"):
        bank.load_bank()
    with zipfile.ZipFile(archive, "w"):
        pass
    with pytest.raises(CourseError, match="no usable lung mask"):
        bank.load_bank()


def test_a_missing_archive_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(bank.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(CourseError, match="pip install.*torchxrayvision"):
        bank.mask_archive()


def test_fingerprint_is_stable_and_short():
    assert phantom_fingerprint() == phantom_fingerprint()
    assert len(phantom_fingerprint()) == 16
