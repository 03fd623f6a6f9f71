"""The committed notebooks are what their .py sources say, and were saved by notebooks/build.py."""

from __future__ import annotations

import importlib.util
import os
import shutil
from pathlib import Path

import nbformat
import pytest
from jupyter_server.services.contents.largefilemanager import LargeFileManager
from jupytext.sync_contentsmanager import build_sync_jupytext_contents_manager_class

NOTEBOOKS = Path(__file__).resolve().parents[1] / "notebooks"
spec = importlib.util.spec_from_file_location("notebooks_build", NOTEBOOKS / "build.py")
build = importlib.util.module_from_spec(spec)
spec.loader.exec_module(build)


def content(notebook: nbformat.NotebookNode) -> list[tuple]:
    return [(cell.cell_type, cell.id, cell.source, cell.metadata.get("tags", [])) for cell in notebook.cells]


def is_fresh(source: Path) -> bool:
    saved = source.with_suffix(".ipynb")
    return saved.is_file() and content(nbformat.read(saved, as_version=4)) == content(build.read_source(source))


def test_no_notebook_without_source():
    saved = {
        path.with_suffix(".py") for path in NOTEBOOKS.rglob("[0-9]*.ipynb") if "checkpoints" not in path.parent.name
    }
    assert saved == set(build.sources([])), "each notebook is a .py and the .ipynb made from it"


@pytest.mark.parametrize("source", build.sources([]), ids=lambda source: source.stem)
def test_notebook_is_fresh(source):
    mend = f"run make notebooks ONLY={source.stem}"
    assert not source.read_text(encoding="utf-8").startswith("# ---"), f"{source.name} has a header: remove it"
    assert is_fresh(source), f"{source.name} has changed since its .ipynb was made: {mend}"
    notebook = nbformat.read(source.with_suffix(".ipynb"), as_version=4)
    nbformat.validate(notebook)
    assert notebook.metadata == build.METADATA, f"{source.stem}.ipynb was saved by another program: {mend}"
    assert all(set(cell.metadata) <= {"tags"} for cell in notebook.cells), mend
    assert build.flaws(notebook) == [], mend
    executed = [cell.execution_count for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]
    assert executed == list(range(1, len(executed) + 1)), "every code cell ran once, from top to bottom"


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "00_small.py"
    path.write_text('# %% [markdown]\n# # Small\n\n# %% tags=["nbval-check-output"]\nprint(6 * 7)\n\n# %%\nprint(1)\n')
    return path


def test_building_twice_gives_the_same_bytes(source):
    build.build(source)
    first = source.with_suffix(".ipynb").read_bytes()
    assert b'"42\\n"' in first
    assert is_fresh(source)
    build.build(source)
    assert source.with_suffix(".ipynb").read_bytes() == first


def test_a_changed_source_is_noticed_and_keeps_the_ids_of_other_cells(source):
    nbformat.write(build.read_source(source), source.with_suffix(".ipynb"))
    assert is_fresh(source)
    before = [cell.id for cell in build.read_source(source).cells]
    source.write_text(source.read_text().replace("6 * 7", "6 * 8"))
    assert not is_fresh(source)
    after = [cell.id for cell in build.read_source(source).cells]
    assert [a == b for a, b in zip(before, after, strict=True)] == [True, False, True]


@pytest.mark.parametrize(
    "cell, complaint",
    [
        ("1 / 0", "ZeroDivisionError"),
        ("import warnings; warnings.warn('old')", "cell 4 warns"),
        ("import os; os.getcwd()", "cell 4 prints the folder"),
        ("print(object())", "cell 4 prints a memory address"),
    ],
)
def test_what_would_differ_elsewhere_is_not_saved(source, cell, complaint):
    source.with_suffix(".ipynb").write_text("as it was")
    source.write_text(source.read_text() + f"\n# %%\n{cell}\n")
    with pytest.raises(ValueError, match=complaint):
        build.build(source)
    assert source.with_suffix(".ipynb").read_text() == "as it was"
    assert sorted(path.name for path in source.parent.iterdir()) == ["00_small.ipynb", "00_small.py"]


def test_cells_that_are_alike_have_different_ids(source):
    source.write_text("# %%\nprint(1)\n\n# %%\nprint(1)\n")
    first, second = build.read_source(source).cells
    assert first.id != second.id


def test_an_unknown_name_is_told():
    with pytest.raises(ValueError, match="starts with '99'"):
        build.sources(["99"])


def test_jupyterlab_opens_a_notebook_built_after_its_source(tmp_path):
    shutil.copytree(NOTEBOOKS, tmp_path / "notebooks", ignore=shutil.ignore_patterns(".*"))
    manager = build_sync_jupytext_contents_manager_class(LargeFileManager)(root_dir=str(tmp_path / "notebooks"))
    for source in (tmp_path / "notebooks").glob("[0-9]*.py"):
        saved = source.with_suffix(".ipynb")
        os.utime(saved, (source.stat().st_mtime + 60,) * 2)
        assert manager.get(saved.name)["type"] == "notebook"
