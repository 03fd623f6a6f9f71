"""Every committed notebook can be read without eyes for its pictures, in short cells, and claims what is checked."""

from __future__ import annotations

import statistics
from pathlib import Path

import nbformat
import pytest

NOTEBOOKS = sorted((Path(__file__).resolve().parents[1] / "notebooks").glob("[0-9]*.ipynb"))


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def notebook(request):
    return nbformat.read(request.param, as_version=4)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_the_notebooks_are_those_of_the_course():
    assert [path.name[:2] for path in NOTEBOOKS] == [f"{n:02}" for n in range(8)]


def test_every_picture_has_an_alternative_text_and_a_caption(notebook):
    pictures = 0
    for cell in code_cells(notebook):
        for i, output in enumerate(cell.outputs):
            if "image/png" in output.get("data", {}):
                pictures += 1
                assert len(output.metadata["image/png"]["alt"]) > 40
                assert "text/markdown" in cell.outputs[i + 1].data
    assert pictures >= 1


def test_key_numbers_are_compared(notebook):
    checked = [cell for cell in code_cells(notebook) if "nbval-check-output" in cell.metadata.get("tags", [])]
    assert len(checked) >= 2 and any(cell.outputs for cell in checked)


def test_cells_are_short(notebook):
    lengths = sorted(len(cell.source.splitlines()) for cell in code_cells(notebook))
    assert statistics.median(lengths) <= 10 and lengths[int(0.9 * len(lengths))] <= 20


def test_it_opens_and_closes_like_the_others(notebook):
    prose = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown").lower()
    for part in ("in this notebook you will", "minute", "your turn", "solution", "we learned", "read next"):
        assert part in prose


def test_no_real_radiograph_is_committed():
    notebook = nbformat.read(next(path for path in NOTEBOOKS if path.name.startswith("01")), as_version=4)
    said = [output.get("text", "") for cell in code_cells(notebook) for output in cell.outputs]
    assert "no real radiograph on this machine\n" in said, "move data/raw/iu-rr away, then make notebooks ONLY=01"
