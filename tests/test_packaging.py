"""One list of dependencies, a lock that holds everywhere, a wheel that finds its data, a set-up that can be redone."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
LOCK = [
    Requirement(line.split(" #")[0].strip())
    for line in (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    if line and not line.startswith("#")
]
PLATFORMS = {
    "linux": {"sys_platform": "linux", "platform_system": "Linux", "os_name": "posix", "platform_machine": "x86_64"},
    "macos": {"sys_platform": "darwin", "platform_system": "Darwin", "os_name": "posix", "platform_machine": "arm64"},
    "windows": {"sys_platform": "win32", "platform_system": "Windows", "os_name": "nt", "platform_machine": "AMD64"},
}
PYTHONS = ("3.10.13", "3.11.7", "3.12.1", "3.13.0")
needs_make = pytest.mark.skipif(os.name == "nt" or not shutil.which("make"), reason="needs make and a POSIX shell")


def environment(python: str, platform: str) -> dict[str, str]:
    short = ".".join(python.split(".")[:2])
    implementation = {"implementation_name": "cpython", "platform_python_implementation": "CPython", "extra": ""}
    return PLATFORMS[platform] | implementation | {"python_full_version": python, "python_version": short}


def applies(requirement: Requirement, where: dict[str, str]) -> bool:
    return requirement.marker is None or requirement.marker.evaluate(where)


@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("python", PYTHONS)
def test_lock_holds_what_the_project_asks_for(python, platform):
    where = environment(python, platform)
    pins = [(canonicalize_name(pin.name), pin.specifier) for pin in LOCK if applies(pin, where)]
    assert len(dict(pins)) == len(pins), "a package is locked twice"
    locked = {name: Version(str(specifier).removeprefix("==")) for name, specifier in pins}
    assert SpecifierSet(PROJECT["requires-python"]).contains(python)
    for text in PROJECT["dependencies"] + PROJECT["optional-dependencies"]["dev"]:
        requirement = Requirement(text)
        if applies(requirement, where):
            version = locked.get(canonicalize_name(requirement.name))
            assert version and requirement.specifier.contains(version), f"run make lock: {text} is locked as {version}"


def test_lock_names_versions_only():
    for pin in LOCK:
        assert pin.url is None and re.fullmatch(r"==[^*+]+", str(pin.specifier)), f"{pin} is not one public version"
        assert not pin.name.startswith(("nvidia-", "cuda-")) and pin.name != "triton", f"a CPU build has no {pin.name}"
    assert "://" not in (ROOT / "requirements.lock").read_text(encoding="utf-8")


def test_conda_environment_has_no_list_of_its_own():
    conda = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    packages = [entry for entry in conda["dependencies"] if isinstance(entry, str)]
    assert {entry.split("=")[0] for entry in packages} == {"python", "pip", "make"}
    python = next(entry.split("=")[1] for entry in packages if entry.startswith("python="))
    assert any(full.startswith(f"{python}.") for full in PYTHONS)
    assert [entry for entry in conda["dependencies"] if not isinstance(entry, str)] == [
        {"pip": ["-r requirements.lock", "-e ."]}
    ]


def test_version_is_the_same_everywhere():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == PROJECT["version"]
    assert f"## [{PROJECT['version']}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_citation_names_the_work_that_is_taught():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["cff-version"] == "1.2.0"
    assert {"message", "title", "authors"} <= set(citation)
    first_authors = [reference["authors"][0]["family-names"] for reference in citation["references"]]
    assert first_authors == ["Hadjiyski", "Huang", "Demner-Fushman", "Cohen", "Wang"]
    assert all({"type", "title", "year"} <= set(reference) for reference in citation["references"])


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--wheel-dir", folder, ROOT], check=True)
    return next(folder.glob("*.whl"))


def test_wheel_carries_the_package_its_data_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        files = {name for name in archive.namelist() if not name.endswith("/")}
        scripts = archive.read(next(name for name in files if name.endswith("entry_points.txt"))).decode()
    assert "cmlr = cmlr_utils.course.cli:main" in scripts
    info = {name for name in files if name.split("/")[0].endswith(".dist-info")}
    assert {Path(name).name for name in info} >= {"LICENSE", "LICENSE-text", "METADATA"}
    modules = {path.relative_to(ROOT).as_posix() for path in (ROOT / "cmlr_utils").rglob("*.py")}
    data = {
        f"cmlr_utils/packaged/{path.relative_to(ROOT / 'data').as_posix()}"
        for folder in ("splits", "prompts")
        for path in (ROOT / "data" / folder).rglob("*")
        if path.is_file()
    }
    assert data >= {"cmlr_utils/packaged/splits/iu_rr.csv"}
    assert modules | data <= files - info
    assert all(name.startswith("cmlr_utils/") for name in files - info)


def test_installed_wheel_finds_its_splits_and_prompts(wheel, tmp_path):
    target, elsewhere = tmp_path / "installed", tmp_path / "elsewhere"
    elsewhere.mkdir()
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", target]
    subprocess.run([*pip, wheel], check=True)
    code = (
        "from cmlr_utils.data.files import course_file\n"
        "print(course_file('splits/iu_rr.csv'))\n"
        "print(course_file('prompts/pathologies.yaml'))\n"
    )
    found = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": str(target)},
        cwd=elsewhere,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split()
    packaged = target / "cmlr_utils" / "packaged"
    assert found == [str(packaged / "splits" / "iu_rr.csv"), str(packaged / "prompts" / "pathologies.yaml")]


# Stands in for Python in the set-up: it writes down what it is asked, and its pip ends as $PIP_ENDS says.
FAKE_PYTHON = """#!/bin/sh
case "$2" in
  venv) mkdir -p "$4/bin"; cp "$0" "$4/bin/python"; echo venv >> log ;;
  pip)  echo "$@" >> log; exit "${PIP_ENDS:-0}" ;;
esac
"""


@pytest.fixture
def set_up(tmp_path):
    for name in ("Makefile", "pyproject.toml", "requirements.lock"):
        shutil.copy(ROOT / name, tmp_path)
    python = tmp_path / "python"
    python.write_text(FAKE_PYTHON)
    python.chmod(0o755)

    def make(*variables: str, pip_ends: str = "0") -> tuple[subprocess.CompletedProcess, list[str]]:
        (tmp_path / "log").write_text("")
        clean = {key: value for key, value in os.environ.items() if key not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")}
        done = subprocess.run(
            ["make", ".venv/.ready", *(variables or [f"PYTHON={python}"])],
            cwd=tmp_path,
            env=clean | {"PIP_ENDS": pip_ends},
            capture_output=True,
            text=True,
        )
        return done, (tmp_path / "log").read_text().splitlines()

    return make


@needs_make
def test_set_up_is_done_once(set_up):
    done, log = set_up()
    assert done.returncode == 0, done.stderr
    assert log[0] == "venv"
    assert [line.split(" on ")[1] for line in log[1:]] == [
        "-r requirements.lock",
        "--no-deps --no-build-isolation -e .",
    ]
    assert set_up()[1] == []


@needs_make
def test_set_up_that_failed_is_done_again_from_nothing(set_up):
    done, _ = set_up(pip_ends="1")
    assert done.returncode != 0
    assert "run make again" in done.stderr
    done, log = set_up()
    assert done.returncode == 0
    assert log[0] == "venv"


@pytest.fixture
def changed_lock(set_up, tmp_path):
    set_up()
    later = (tmp_path / ".venv" / ".ready").stat().st_mtime + 1
    os.utime(tmp_path / "requirements.lock", (later, later))


@needs_make
def test_changed_lock_updates_the_environment(set_up, changed_lock):
    _, log = set_up()
    assert log and "venv" not in log


@needs_make
def test_update_that_failed_keeps_the_environment_and_is_tried_again(set_up, changed_lock):
    done, _ = set_up(pip_ends="1")
    assert done.returncode != 0
    done, log = set_up()
    assert done.returncode == 0
    assert log and "venv" not in log


@needs_make
def test_torch_index_serves_torch_and_torchvision_first(set_up, tmp_path):
    _, log = set_up(f"PYTHON={tmp_path / 'python'}", "TORCH_INDEX=https://example.org/cpu")
    assert log[1].endswith("--no-deps --index-url https://example.org/cpu -r .venv/torch.lock")
    assert log[2].endswith("-r requirements.lock")
    names = {Requirement(line.split(" #")[0]).name for line in (tmp_path / ".venv/torch.lock").read_text().splitlines()}
    assert names == {"torch", "torchvision"}


@needs_make
def test_unsupported_python_is_told_in_one_sentence(set_up):
    done, log = set_up("PYTHON=false")
    assert done.returncode != 0 and log == []
    assert "Python 3.10 to 3.13 with its venv module is needed, and false is none" in done.stderr


@needs_make
def test_make_alone_lists_every_target():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = re.search(r"^\.PHONY: (.*)$", makefile, re.M)[1].split()
    listed = subprocess.run(
        ["make", "--no-print-directory"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout
    assert re.findall(r"^  make (\w+)", listed, re.M) == targets
