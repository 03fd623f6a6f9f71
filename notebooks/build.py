"""Execute the notebooks and save them so that the same source gives the same file: `make notebooks`.

The source of 00_start_here.ipynb is 00_start_here.py (percent format). No time, path, address or live widget
is saved, and nothing at all if a cell fails.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import sys
import tempfile
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbformat import NotebookNode
from tqdm import tqdm

NOTEBOOKS = Path(__file__).resolve().parent
METADATA = {
    "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
WIDGET = "application/vnd.jupyter.widget-view+json"
CHECKED = "nbval-check-output"
ADDRESS = re.compile(r"\bat 0x[0-9a-f]{6,}")


def sources(names: list[str]) -> list[Path]:
    """The .py of each notebook whose file name starts with one of `names`; without names, of all of them.

    Raises ValueError for a name that fits none.
    """
    found = sorted(NOTEBOOKS.rglob("[0-9]*.py"))
    for name in names:
        if not any(path.name.startswith(name) for path in found):
            raise ValueError(f"no notebook in {NOTEBOOKS.name}/ starts with {name!r}: say for example 00 or 03_global.")
    return [path for path in found if not names or path.name.startswith(tuple(names))]


def read_source(path: Path) -> NotebookNode:
    """The notebook that a percent-format file says, without outputs; each cell's id is a hash of its text."""
    notebook = jupytext.read(path, fmt="py:percent")
    notebook.metadata = nbformat.from_dict(METADATA)
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    seen: dict[str, int] = {}
    for cell in notebook.cells:
        digest = hashlib.sha256(f"{cell.cell_type} {cell.source}".encode()).hexdigest()[:8]
        seen[digest] = seen.get(digest, 0) + 1
        cell.id = digest if seen[digest] == 1 else f"{digest}-{seen[digest]}"
    return notebook


def execute(notebook: NotebookNode, folder: Path, name: str) -> None:
    """Run all code cells in place, in a new kernel whose working folder is `folder`."""
    to_run = sum(cell.cell_type == "code" and bool(cell.source.strip()) for cell in notebook.cells)
    with tqdm(total=to_run, desc=name, unit="cell") as bar:
        NotebookClient(
            notebook,
            timeout=600,
            kernel_name="python3",
            resources={"metadata": {"path": str(folder)}},
            record_timing=False,
            store_widget_state=False,
            coalesce_streams=True,
            extra_arguments=["--log-level=ERROR"],
            on_cell_executed=lambda **_: bar.update(),
        ).execute()


def tidy(notebook: NotebookNode) -> None:
    """Remove what differs from run to run: live widgets, and metadata that the kernel adds."""
    notebook.metadata = nbformat.from_dict(METADATA)
    for cell in notebook.cells:
        cell.metadata = nbformat.from_dict({"tags": cell.metadata["tags"]} if cell.metadata.get("tags") else {})
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if WIDGET not in output.get("data", {})]


def flaws(notebook: NotebookNode) -> list[str]:
    """What in the outputs would not be the same on another machine or day, one sentence for each."""
    folders = {str(NOTEBOOKS.parent), str(Path.home()), sys.prefix, tempfile.gettempdir(), "site-packages"} - {"/"}
    found = []
    for number, cell in enumerate(notebook.cells, start=1):
        for output in cell.get("outputs", []):
            if output.output_type == "error":
                found.append(f"cell {number} ended in {output.ename}.")
                continue
            if output.get("name") == "stderr":
                found.append(f"cell {number} warns, or shows a bar not of tqdm.auto: {output.text.strip()[:300]!r}.")
                continue
            data = output.get("data", {})
            text = output.get("text", "") + "".join(str(data[kind]) for kind in data if kind.startswith("text/"))
            if WIDGET in data and CHECKED in cell.metadata.get("tags", []):
                found.append(f"cell {number} is compared by nbval and shows a widget or a bar: give each its own cell.")
            if ADDRESS.search(text):
                found.append(f"cell {number} prints a memory address: assign the result, or end with plt.show().")
            for folder in sorted(folders):
                if folder in text:
                    found.append(f"cell {number} prints the folder {folder}: print a relative path.")
    return found


def build(source: Path) -> None:
    """Execute one notebook and replace its .ipynb, in one step and only if all went well.

    Raises ValueError if a cell fails, or if its output would differ elsewhere.
    """
    notebook = read_source(source)
    try:
        execute(notebook, source.parent, source.stem)
    except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
        raise ValueError(f"{source.name} failed, and its .ipynb is as it was: {error}") from None
    if found := flaws(notebook):
        raise ValueError(f"{source.name} was executed but not saved: " + " ".join(found))
    tidy(notebook)
    partial = source.with_name(f".{source.stem}.partial")
    nbformat.write(notebook, partial)
    partial.replace(source.with_suffix(".ipynb"))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="how the notebooks' names start, such as 00 03; by default all")
    try:
        for source in sources(parser.parse_args().names):
            build(source)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nStopped: the notebook in work is as it was; make notebooks does it again.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
