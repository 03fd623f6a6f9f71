"""The `cmlr` command: help at once, one sentence and exit 1 for what the reader can mend, 130 after Ctrl-C."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys

import pytest

from cmlr_utils.course import doctor, line
from cmlr_utils.course.cli import main
from cmlr_utils.data import reports
from cmlr_utils.data.files import CourseError

ON_STUDIES = ("course", "prepare", "pretrain", "evaluate")
COMMANDS = ("download", *ON_STUDIES, "doctor")


def python(code: str, **options) -> subprocess.Popen:
    pipe = subprocess.PIPE
    return subprocess.Popen([sys.executable, "-c", code], stdout=pipe, stderr=pipe, **options)


def test_help_names_every_command_and_loads_no_torch():
    process = python(
        "import sys; from cmlr_utils.course.cli import main\n"
        "try: main(['--help'])\n"
        "finally: assert 'torch' not in sys.modules and 'pandas' not in sys.modules"
    )
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert all(name in output.decode() for name in COMMANDS)


@pytest.mark.parametrize(
    "arguments",
    [[], ["train"], ["course", "--preset", "huge"], ["prepare", "--images", "mimic"], ["download", "mimic"]],
)
def test_unknown_words_are_refused_with_the_choices(arguments, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    errors = capsys.readouterr().err
    assert "usage: cmlr" in errors and ("choose from" in errors or "required: command" in errors)


def test_download_without_a_name_lists_what_there_is(capsys):
    with pytest.raises(SystemExit):
        main(["download"])
    assert "the following arguments are required: iu-rr" in capsys.readouterr().err


@pytest.mark.parametrize("command", ON_STUDIES)
def test_an_error_becomes_one_sentence_and_exit_1(monkeypatch, capsys, command):
    def broken(*_):
        raise CourseError("The reports are gone: fetch them again.")

    monkeypatch.setattr(line, "load_iu_rr", broken)
    assert main([command]) == 1
    output, errors = capsys.readouterr()
    assert errors == "cmlr: The reports are gone: fetch them again.\n" and output == ""


@pytest.mark.parametrize("command", ON_STUDIES)
def test_ctrl_c_ends_with_130_and_the_way_on(monkeypatch, capsys, command):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(line, "load_iu_rr", interrupted)
    assert main([command, "--preset", "paper"]) == 130
    errors = capsys.readouterr().err
    assert f"Run `cmlr {command} --preset paper` again" in errors and "Traceback" not in errors


def test_a_bug_is_not_hidden(monkeypatch):
    monkeypatch.setattr(line, "load_iu_rr", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        main(["prepare"])


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="Windows has no process groups of this kind")
def test_a_real_ctrl_c_while_films_are_drawn_leaves_nothing_that_looks_finished(own_data):
    """As from a terminal: the signal goes to the command and to the processes that draw."""
    process = python(
        # A shell's background job inherits an ignored Ctrl-C, and so would this child of it.
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler);"
        "from cmlr_utils.course.cli import main; sys.exit(main(['prepare', '--images', 'phantom']))",
        start_new_session=True,
    )
    seen = b""
    while not re.search(rb"[1-9]\d*/5069", seen) and process.poll() is None:
        seen += os.read(process.stderr.fileno(), 1_000)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, seen + errors
    assert b"cmlr: stopped" in errors and b"Traceback" not in errors
    finished = [path.name for path in (own_data / "cache").iterdir() if not path.name.startswith(".")]
    assert finished == ["phantom_bank.npz"]  # what is hidden is the drawing, to go on with


def test_the_doctor_says_what_is_there_and_what_to_do(own_data, capsys):
    assert main(["doctor"]) == 0
    output = capsys.readouterr().out
    assert "ok  reports          3,851 studies with a split" in output
    assert re.search(r"--  pixel caches +none yet +→ +run `cmlr prepare`", output)
    assert re.search(r"--  trained model +none yet +→ +run `cmlr pretrain`", output)
    for name in ("Python", "torch", "torchvision", "transformers", "device", "disk"):
        assert re.search(rf"^ok  {name} ", output, re.MULTILINE), name


def test_the_doctor_finds_what_has_been_made(own_data, capsys):
    for folder in ("iu-rr-phantom-128", "checkpoints/tiny-phantom"):
        (own_data / "cache" / folder).mkdir(parents=True)
        (own_data / "cache" / folder / "manifest.json").write_text("{}")
    main(["doctor"])
    output = capsys.readouterr().out
    assert re.search(r"ok  pixel caches +.*iu-rr-phantom-128", output)
    assert re.search(r"ok  trained model +tiny-phantom", output)


def test_the_doctor_fails_where_the_reports_are_missing(own_data, monkeypatch, capsys):
    monkeypatch.setattr(reports.importlib.util, "find_spec", lambda name: None)
    assert main(["doctor"]) == 1
    assert re.search(r"--  reports +unusable +→ .*pip install", capsys.readouterr().out)


def test_the_doctor_fails_on_a_python_that_is_too_old(own_data, monkeypatch, capsys):
    monkeypatch.setattr(doctor.sys, "version_info", (3, 9, 0))
    assert main(["doctor"]) == 1
    assert "install Python 3.10 to 3.13" in capsys.readouterr().out
