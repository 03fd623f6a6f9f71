"""`cmlr doctor`: what this machine has, and what to do about what it has not."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import sys

from cmlr_utils.course.line import nih_folder
from cmlr_utils.data.files import CourseError, cache_folder, data_folder
from cmlr_utils.data.reports import read_reports
from cmlr_utils.data.splits import with_split
from cmlr_utils.data.studies import open_i_files
from cmlr_utils.models.presets import presets
from cmlr_utils.training.pretrain import best_device, bfloat16_helps, checkpoint_folder, resume_file_of

GIGABYTE = 1e9


def doctor() -> bool:
    """Print one line for each thing the course needs; False if something that it cannot do without is missing."""
    import torch

    healthy = True
    supported = (3, 10) <= sys.version_info[:2] <= (3, 13)
    line(supported, "Python", platform.python_version(), "install Python 3.10 to 3.13")
    for package in ("torch", "torchvision", "transformers", "torchxrayvision"):
        line(True, package, importlib.metadata.version(package))
    device = best_device()
    name = torch.cuda.get_device_name() if device.type == "cuda" else f"CPU, {os.cpu_count()} cores"
    line(True, "device", f"{name}, bfloat16 {'yes' if bfloat16_helps(device) else 'no'}")
    memory = memory_bytes()
    if memory:
        line(
            memory > 3 * GIGABYTE,
            "memory",
            f"{memory / GIGABYTE:.0f} GB",
            "close other programs: the course needs 3 GB",
        )
    data_folder().mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(data_folder()).free
    line(free > GIGABYTE, "disk", f"{free / GIGABYTE:.0f} GB free for {data_folder()}", "free 1 GB or set CMLR_DATA")
    try:
        line(True, "reports", f"{len(with_split(read_reports())):,} studies with a split")
    except CourseError as error:
        healthy = False
        line(False, "reports", "unusable", str(error))
    caches = sorted(path.parent.name for path in cache_folder().glob("*/manifest.json"))
    line(bool(caches), "pixel caches", ", ".join(caches) or "none yet", "run `cmlr prepare`")
    for source in ("phantom", "open-i"):
        folder = checkpoint_folder(presets["tiny"], source)
        trained = folder.is_dir()
        if trained or source == "phantom":
            begun = resume_file_of(folder).is_file()
            value = f"tiny-{source}" if trained else "begun, not finished" if begun else "none yet"
            line(trained, "trained model", value, "run `cmlr pretrain`")
    pngs = len(open_i_files())
    line(bool(pngs), "Open-i PNGs", f"{pngs:,}", "optional: run `cmlr download iu-rr`")
    line(
        bool(nih_folder()), "NIH PNGs", str(nih_folder() or 0), "optional: put some under data/raw/nih, or set CMLR_NIH"
    )
    return healthy and supported


def line(good: bool, name: str, value: str, way_out: str = "") -> None:
    print(f"{'ok  ' if good else '--  '}{name:16} {value}" + ("" if good or not way_out else f"  →  {way_out}"))


def memory_bytes() -> int | None:
    """The machine's memory, where the system tells."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # Windows has no sysconf
        return None
