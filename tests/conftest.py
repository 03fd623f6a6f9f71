"""What the tests share: a data folder outside the repository, and a few real studies with small phantoms."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cmlr_utils.data.files import cache_folder
from cmlr_utils.data.phantom.bank import load_bank
from cmlr_utils.data.reports import Study, read_reports
from cmlr_utils.data.splits import with_split
from cmlr_utils.data.studies import StudySet, phantom_set
from cmlr_utils.models.model import CrossModalModel
from cmlr_utils.models.presets import Preset, presets

SIZE = 64


@pytest.fixture(scope="session", autouse=True)
def shared_data(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Everything that tests cache lies in one temporary folder, so the phantoms' shapes are prepared only once."""
    folder = tmp_path_factory.mktemp("data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CMLR_DATA", str(folder))
        patch.delenv("CMLR_NIH", raising=False)
        yield folder


@pytest.fixture(scope="session")
def reports() -> list[Study]:
    """All 3,955 reports."""
    return read_reports()


@pytest.fixture(scope="session")
def studies(reports) -> list[Study]:
    """The 3,851 studies with a radiograph, each with its part."""
    return with_split(reports)


@pytest.fixture(scope="session")
def bank(shared_data) -> Path:
    """The file with the phantoms' shapes, which takes seconds to make and is read by every process that draws."""
    load_bank()
    return cache_folder() / "phantom_bank.npz"


@pytest.fixture
def own_data(tmp_path, monkeypatch, bank) -> Path:
    """An empty data folder for one test, the phantoms' shapes apart."""
    (tmp_path / "data" / "cache").mkdir(parents=True)
    shutil.copy(bank, tmp_path / "data" / "cache")
    monkeypatch.setenv("CMLR_DATA", str(tmp_path / "data"))
    return tmp_path / "data"


@pytest.fixture(scope="session")
def small_set(studies, bank) -> StudySet:
    """Some 70 real studies with phantoms of 64 pixels: sick and healthy ones in every part, all with a report."""
    chosen: dict[str, Study] = {}
    for part, per_finding, healthy in (("train", 5, 16), ("val", 1, 3), ("test", 2, 10)):
        pool = [s for s in studies if s.split == part and s.text and not np.isnan(s.labels).any()]
        for finding in range(5):
            chosen |= {s.id: s for s in [s for s in pool if s.labels[finding] == 1][:per_finding]}
        chosen |= {s.id: s for s in [s for s in pool if not s.labels.any()][:healthy]}
    return phantom_set("iu-rr-phantom", list(chosen.values()), SIZE)


@pytest.fixture(scope="session")
def very_small() -> Preset:
    """The tiny preset, made so small that a step takes milliseconds."""
    return replace(presets["tiny"], image_size=SIZE, width=16, batch_size=6, steps=6, warm_up=2, max_words=8)


@pytest.fixture(scope="session")
def model(very_small, small_set) -> CrossModalModel:
    """An untrained model; tests that change one make their own."""
    return CrossModalModel.untrained(very_small, small_set.split("train").texts).eval()


@pytest.fixture
def largest_file() -> Callable[[int], AbstractContextManager]:
    """`with largest_file(n):` lets the system refuse every write beyond n bytes of a file, as a full disk would."""
    resource = pytest.importorskip("resource")  # Windows has none

    @contextmanager
    def limited(num_bytes: int) -> Iterator[None]:
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    return limited
