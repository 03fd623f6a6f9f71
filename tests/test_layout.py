"""The designed files exist, and between the package's folders imports go one way only."""

from __future__ import annotations

import ast
import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("data", "models", "training", "evaluation", "course")  # each may import itself and those before it
NOTEBOOKS = (
    "00_start_here",
    "01_data_loading",
    "02_encoders",
    "03_global_local_loss",
    "04_pretraining",
    "05_supervised_classification",
    "06_zero_shot_and_retrieval",
    "07_attention_and_grounding",
)
DESIGNED = (
    ".ci/run .gitignore CHANGELOG.md CITATION.cff CONTRIBUTING.md LICENSE LICENSE-text Makefile README.md "
    "environment.yml pyproject.toml requirements.lock data/splits/iu_rr.csv data/prompts/pathologies.yaml "
    "tests/nbval_sanitize.cfg notebooks/build.py cmlr_utils/__init__.py "
    "cmlr_utils/models/losses.py cmlr_utils/course/cli.py"
).split()


def imported_names(tree: ast.Module, package: str) -> list[tuple[int, str]]:
    """(line, absolute dotted name) of every import in a module of `package`, inside functions too."""
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*parents, *filter(None, [node.module])])
            names += [(node.lineno, f"{base}.{alias.name}") for alias in node.names]
    return names


def wrong_imports(package: Path) -> list[str]:
    """Each import in `package` that goes to a folder further right, or that hides where it goes: "file:line: name"."""
    wrong = []
    for path in sorted(package.rglob("*.py")):
        folder, *rest = path.relative_to(package).parts
        if not rest:
            continue  # cmlr_utils/__init__.py gathers the public names of all folders
        inside = ".".join([package.name, *path.relative_to(package).parts[:-1]])
        allowed = FOLDERS[: FOLDERS.index(folder) + 1]
        for line, name in imported_names(ast.parse(path.read_text(encoding="utf-8")), inside):
            parts = name.split(".")
            if parts[0] == package.name and (len(parts) < 2 or parts[1] not in allowed):
                wrong.append(f"{path.relative_to(package).as_posix()}:{line}: {name}")
    return wrong


def test_imports_go_one_way():
    assert wrong_imports(ROOT / "cmlr_utils") == []


@pytest.mark.parametrize(
    "file, code, is_wrong",
    [
        ("data/files.py", "from cmlr_utils.models import losses", True),
        ("data/files.py", "import cmlr_utils.course.cli as cli", True),
        ("data/files.py", "from ..training.pretrain import pretrain", True),
        ("data/files.py", "from .. import evaluation", True),
        ("data/phantom/film.py", "from ...models import model", True),
        ("data/phantom/film.py", "from ..mesh import parse_mesh", False),
        ("models/model.py", "def late():\n    from ..course import figures", True),
        ("models/model.py", "from cmlr_utils import losses", True),  # by way of the package's top: hides the arrow
        ("models/model.py", "import cmlr_utils", True),
        (
            "training/pretrain.py",
            "from ..data import files\nfrom ..models.model import Model\nfrom . import augment",
            False,
        ),
        ("course/cli.py", "from ..evaluation.zero_shot import zero_shot\nimport torch.utils.data", False),
        ("__init__.py", "from .course import cli", False),
    ],
)
def test_a_planted_import_is_caught(tmp_path, file, code, is_wrong):
    path = tmp_path / "cmlr_utils" / file
    path.parent.mkdir(parents=True)
    path.write_text(code)
    assert bool(wrong_imports(tmp_path / "cmlr_utils")) == is_wrong


def test_the_package_has_the_designed_folders_and_no_other():
    folders = {path.parent.name for path in (ROOT / "cmlr_utils").glob("*/__init__.py")}
    assert folders == set(FOLDERS)


@pytest.mark.parametrize("name", [*DESIGNED, *(f"notebooks/{n}{end}" for n in NOTEBOOKS for end in (".py", ".ipynb"))])
def test_designed_file_exists(name):
    assert (ROOT / name).is_file()


@pytest.mark.skipif(os.name == "nt", reason="Windows has no executable bit")
def test_ci_runs_make_test_and_nothing_else():
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    commands = [line for line in script.read_text().splitlines() if not line.startswith(("#", "set ", "cd "))]
    assert commands == ["make test"]
