"""Studies with their radiographs: IU-RR with real or phantom pixels, the balanced panel and the mirrored twins."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from cmlr_utils.data.files import CourseError, data_folder
from cmlr_utils.data.mesh import HEADINGS, PATHOLOGIES, labels_from_mesh, parse_mesh
from cmlr_utils.data.phantom import phantom_fingerprint, render_phantom
from cmlr_utils.data.pixels import PixelStore, open_store
from cmlr_utils.data.radiographs import radiograph_store
from cmlr_utils.data.reports import Study, read_reports
from cmlr_utils.data.splits import SPLITS, with_split

IMAGE_SIZE = 128
# Training sees a rare finding in several phantoms, each another body with the same codes; tests see every study once.
RENDERINGS_OF_A_POSITIVE, RENDERINGS_OF_A_RARE_POSITIVE = 3, 8
RARE = [PATHOLOGIES.index("consolidation"), PATHOLOGIES.index("edema")]
PANEL_SEED, PANEL_PER_CLASS = 7, 40
TWINS_PER_CASE = 60
# Each case: the finding's index, its name, and the code with a place for the side.
TWIN_CASES = (
    (0, "atelectasis, base", "Pulmonary Atelectasis/base/{side}"),
    (0, "atelectasis, lower lobe", "Pulmonary Atelectasis/lower lobe/{side}"),
    (2, "consolidation, lower lobe", "Consolidation/lung/lower lobe/{side}"),
    (2, "consolidation, upper lobe", "Consolidation/lung/upper lobe/{side}"),
    (4, "effusion, small", "Pleural Effusion/{side}/small"),
    (4, "effusion, moderate", "Pleural Effusion/{side}/moderate"),
)


@dataclass(frozen=True, eq=False)
class StudySet(Sequence):
    """Studies and the rows of the pixel store that show them; several rows are renderings of one study."""

    studies: tuple[Study, ...]
    rows: tuple[np.ndarray, ...]
    store: PixelStore
    source: str  # "phantom", "open-i", "nih", "chexpert" and the like: stands beside every number

    def __repr__(self) -> str:
        parts = Counter(study.split or "no part" for study in self.studies)
        counts = ", ".join(f"{part} {count:,}" for part, count in parts.items())
        return f"StudySet({len(self):,} studies: {counts}; {self.source}, {self.store.pixels.shape[-1]} pixels a side)"

    def __len__(self) -> int:
        return len(self.studies)

    def __getitem__(self, index: int) -> Study:
        return self.studies[index]

    def __iter__(self) -> Iterator[Study]:
        return iter(self.studies)

    def subset(self, indices: Sequence[int] | np.ndarray) -> StudySet:
        """The studies at `indices`, in that order, over the same store."""
        return StudySet(
            tuple(self.studies[i] for i in indices), tuple(self.rows[i] for i in indices), self.store, self.source
        )

    def split(self, part: str) -> StudySet:
        """The studies of one part, "train", "val" or "test". Raises CourseError for another name."""
        if part not in SPLITS:
            raise CourseError(f"There is no split {part!r}: choose one of {', '.join(SPLITS)}.")
        return self.subset([i for i, study in enumerate(self.studies) if study.split == part])

    def coded(self) -> StudySet:
        """The studies that somebody coded: the ones with labels."""
        return self.subset([i for i, study in enumerate(self.studies) if not np.isnan(study.labels).any()])

    def find(self, study_id: str) -> int:
        """The index of a study by its id. Raises CourseError if it is not in this set."""
        for i, study in enumerate(self.studies):
            if study.id == study_id:
                return i
        raise CourseError(f"There is no study {study_id!r} among these {len(self)}.")

    def image(self, index: int, rendering: int = 0) -> np.ndarray:
        """The radiograph of a study, uint8 [S, S]."""
        return np.asarray(self.store.pixels[self.rows[index][rendering]])

    def masks(self, index: int, rendering: int = 0) -> np.ndarray:
        """The five findings' masks, bool [5, S, S]. Raises CourseError for real radiographs: they have none."""
        return self.store.masks(self.rows[index][rendering])

    @cached_property
    def images(self) -> np.ndarray:
        """The first rendering of every study, uint8 [n, S, S], all in memory at once; `image` reads one from disk."""
        return np.asarray(self.store.pixels[[rows[0] for rows in self.rows]])

    @cached_property
    def labels(self) -> np.ndarray:
        """float32 [n, 5] in the order of PATHOLOGIES: 1 present, 0 absent, NaN not coded."""
        return np.stack([study.labels for study in self.studies])

    @cached_property
    def texts(self) -> list[str]:
        """The cleaned report of every study ("" if it has none)."""
        return [study.text for study in self.studies]

    @cached_property
    def patients(self) -> np.ndarray:
        """The patient of every study, str [n]."""
        return np.array([study.patient for study in self.studies])


def load_iu_rr(
    images: str = "auto", image_size: int = IMAGE_SIZE, *, split: str | Path = "iu_rr", skip_unreadable: bool = False
) -> StudySet:
    """The IU-RR studies: real reports, codes and splits; pixels from one of two sources, cached on first use.

    `images` is "open-i" (one frontal PNG of each study that has one, under data/raw/iu-rr in any depth, named as in
    Open-i's archive or as in Kaggle's copy), "phantom" (all 3,851 studies with a radiograph, rendered from their
    codes), or "auto": Open-i where its PNGs are, else phantoms. `split` is "iu_rr", "iu_rr_r2gen" or a CSV file's path,
    see `with_split`. `skip_unreadable` leaves out studies whose PNG cannot be read, and counts them aloud.
    Raises CourseError if the source is unknown or its files are missing or unreadable.
    """
    if images not in ("auto", "open-i", "phantom"):
        raise CourseError(f'images={images!r} is unknown: choose "auto", "open-i" or "phantom".')
    studies, cache = with_split(read_reports(), split), Path(split).stem.replace("_", "-")
    files = {} if images == "phantom" else open_i_files()
    if files or images == "open-i":
        return open_i_set(f"{cache}-open-i", studies, files, image_size, skip_unreadable)
    return phantom_set(f"{cache}-phantom", studies, image_size)


def open_i_folder() -> Path:
    """Where Open-i's PNGs are looked for, unpacked from its archive NLMCXR_png.tgz in any depth."""
    return data_folder() / "raw" / "iu-rr"


def open_i_files() -> dict[str, Path]:
    """The PNGs under `open_i_folder()` by `image_key`; where two have one key, the first in the order of paths."""
    return {key: path for path in sorted(open_i_folder().rglob("*.png"), reverse=True) if (key := image_key(path.name))}


def image_key(name: str) -> str:
    """One name for an image of IU-RR, "" for anything else.

    Report 2's first is CXR2_IM-0652-1001 in Open-i's reports and archive, 2_IM-0652-1001.dcm.png in Kaggle's copy;
    report 1's alone has its number twice, CXR1_1_IM-0001-3001, in some of them.
    """
    found = re.fullmatch(r"(?:CXR)?(\d+)_(?:\1_)?(IM-[\d-]+)(?:\.dcm)?(?:\.png)?", name)
    return f"CXR{found[1]}_{found[2]}" if found else ""


def open_i_set(
    cache: str, studies: Sequence[Study], files: dict[str, Path], image_size: int, skip_unreadable: bool
) -> StudySet:
    shown = [(study, image) for study in studies if (image := frontal_image(study, files)) is not None]
    if not shown:
        raise CourseError(
            f"There are no Open-i radiographs of these studies under {open_i_folder()}: run `cmlr download iu-rr`, or "
            'choose phantom images (images="phantom", or --images phantom in a shell).'
        )
    paths = [files[image_key(image)] for _, image in shown]
    store = radiograph_store(cache, paths, image_size, skip_unreadable=skip_unreadable)
    return one_row_each([study for study, _ in shown], store, "open-i")


def frontal_image(study: Study, files: dict[str, Path]) -> str | None:
    """The study's first frontal image among those in `files`."""
    views = zip(study.images, study.views, strict=True)
    return next((image for image, view in views if view == "frontal" and image_key(image) in files), None)


def phantom_set(cache: str, studies: Sequence[Study], image_size: int) -> StudySet:
    jobs, rows = [], []
    for study in studies:
        renderings = 1
        if study.split == "train" and np.nansum(study.labels):
            renderings = RENDERINGS_OF_A_POSITIVE
            if np.nansum(study.labels[RARE]):
                renderings = RENDERINGS_OF_A_RARE_POSITIVE
        rows.append(np.arange(len(jobs), len(jobs) + renderings))
        jobs += [(study.id, list(study.mesh), variant) for variant in range(renderings)]
    return StudySet(tuple(studies), tuple(rows), phantom_store(cache, jobs, image_size), "phantom")


def load_panel(image_size: int = IMAGE_SIZE) -> StudySet:
    """The balanced panel: 240 phantoms, 40 for each pathology and 40 normal, each with one code drawn from IU-RR's.

    It sees what the test split cannot: there, a model that only tells sick from normal already scores well.
    """
    rng = np.random.default_rng(PANEL_SEED)
    codes = [code for study in read_reports() for code in study.mesh]
    studies = []
    for heading in (*HEADINGS, "normal"):
        pool = [code for code in codes if parse_mesh(code).heading == heading]
        studies += [drawn_study(f"panel-{heading}-{i}", rng.choice(pool)) for i in range(PANEL_PER_CLASS)]
    return drawn_set("panel", studies, image_size)


def load_twins(image_size: int = IMAGE_SIZE) -> dict[str, tuple[int, StudySet, StudySet, StudySet]]:
    """Mirrored twins: for each case the finding's index and its 60 bodies three times: left, right and without it.

    The three sets hold the same bodies in the same order; only the one finding differs.
    """
    cases = [("normal", "normal")] + [
        (f"{name}, {side}", code.format(side=side)) for _, name, code in TWIN_CASES for side in ("left", "right")
    ]
    studies = [drawn_study(f"twin-{i}", code) for _, code in cases for i in range(TWINS_PER_CASE)]
    everything = drawn_set("twins", studies, image_size)
    sets = {
        name: everything.subset(range(k * TWINS_PER_CASE, (k + 1) * TWINS_PER_CASE))
        for k, (name, _) in enumerate(cases)
    }
    return {
        name: (finding, sets[f"{name}, left"], sets[f"{name}, right"], sets["normal"])
        for finding, name, _ in TWIN_CASES
    }


def drawn_study(study_id: str, code: str) -> Study:
    """A study that exists only as a phantom: one code, no report."""
    code = str(code)
    return Study(study_id, study_id, "", "", "", "", (code,), (study_id,), ("frontal",), labels_from_mesh([code]))


def drawn_set(name: str, studies: Sequence[Study], image_size: int) -> StudySet:
    store = phantom_store(f"{name}-phantom", [(study.id, list(study.mesh), 0) for study in studies], image_size)
    return one_row_each(studies, store, "phantom")


def one_row_each(studies: Sequence[Study], store: PixelStore, source: str) -> StudySet:
    """The studies whose rows of the store could be read: row i shows study i."""
    readable = [i for i in range(len(studies)) if i not in store.unreadable]
    return StudySet(tuple(studies[i] for i in readable), tuple(np.array([i]) for i in readable), store, source)


def phantom_store(name: str, jobs: list[tuple], image_size: int) -> PixelStore:
    return open_store(name, jobs, draw_phantom, size=image_size, version=phantom_fingerprint())


def draw_phantom(study_id: str, mesh: Sequence[str], variant: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """One row of a pixel cache of phantoms."""
    phantom = render_phantom(study_id, mesh, size, variant)
    return phantom.pixels, phantom.masks
