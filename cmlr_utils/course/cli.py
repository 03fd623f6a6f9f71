"""The `cmlr` command: the course's line, whole or in parts, from a shell."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence

from cmlr_utils.data.files import CourseError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one subcommand; 0 if all went well, 1 with one sentence if not, 130 after Ctrl-C."""
    parser = argparse.ArgumentParser(prog="cmlr", description="The cross-modal radiology course, from a shell.")
    parser.epilog = "Each has options of its own: see `cmlr course --help`."
    commands = parser.add_subparsers(dest="command", required=True)
    for name, help_text in (
        ("download", "fetch the real radiographs of IU-RR from Open-i (1.4 GB)"),
        ("course", "everything: prepare, pretrain, evaluate, and the table"),
        ("prepare", "read the reports and put every radiograph into the cache"),
        ("pretrain", "train the model, go on where it stopped, or find it trained"),
        ("evaluate", "zero-shot evaluation of the trained model, into results/"),
        ("doctor", "what this machine has, and what to do about what it has not"),
    ):
        command = commands.add_parser(name, help=help_text, description=help_text)
        if name == "download":
            command.add_argument("dataset", choices=("iu-rr",), metavar="iu-rr", help="all there is to fetch so far")
            command.add_argument("--from", dest="source", metavar="URL", help="a mirror's folder with the two archives")
        elif name != "doctor":
            command.add_argument("--preset", default="tiny", choices=("tiny", "paper"))
            command.add_argument("--images", default="auto", choices=("auto", "open-i", "phantom"))
    chosen = parser.parse_args(arguments)
    try:
        return run(chosen)
    except CourseError as error:
        print(f"cmlr: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        command = shlex.join(["cmlr", *(sys.argv[1:] if arguments is None else arguments)])
        print(f"\ncmlr: stopped. Run `{command}` again to go on.", file=sys.stderr)
        return 130


def run(chosen: argparse.Namespace) -> int:
    # Imported here, so that `cmlr --help` answers at once.
    if chosen.command == "download":
        from cmlr_utils.data.download import OPEN_I, download_iu_rr

        download_iu_rr(chosen.source or OPEN_I)
        return 0
    from cmlr_utils.course import line
    from cmlr_utils.course.doctor import doctor
    from cmlr_utils.models.presets import presets
    from cmlr_utils.training.pretrain import pretrain

    if chosen.command == "doctor":
        return 0 if doctor() else 1
    if chosen.command == "course":
        line.run_course(chosen.preset, chosen.images)
        return 0
    preset = presets[chosen.preset]
    studies = line.prepare(chosen.images, preset.image_size)
    if chosen.command == "pretrain":
        pretrain(preset, studies)
    elif chosen.command == "evaluate":
        line.report(line.load_or_explain(preset, studies.source), studies)
    return 0


if __name__ == "__main__":
    sys.exit(main())
