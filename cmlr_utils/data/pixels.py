"""The pixel cache: every radiograph of a data set at training size, in one memory-mapped file."""

from __future__ import annotations

import glob
import hashlib
import io
import json
import os
import shutil
import signal
import warnings
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout
from joblib import Parallel, cpu_count, delayed
from tqdm.auto import tqdm

from cmlr_utils.data.files import CourseError, cache_folder, require_space, writing

CHUNK = 32  # radiographs handed to a process at once, and at most lost by an interruption
AHEAD = 16  # chunks for each process that may wait in memory to be written


@dataclass(frozen=True)
class PixelStore:
    """Radiographs in rows, read from disk only when they are indexed."""

    pixels: np.ndarray  # uint8 [R, S, S]
    packed_masks: np.ndarray | None  # uint8 [R, 5, ceil(S * S / 8)]: the findings' masks, eight pixels a byte
    fingerprint: str  # a hash of what was drawn and how
    unreadable: dict[int, str] = field(default_factory=dict)  # the rows left black, and why

    def masks(self, row: int) -> np.ndarray:
        """The five findings' masks of one row, bool [5, S, S]. Raises CourseError where the source has none."""
        if self.packed_masks is None:
            raise CourseError("These radiographs have no masks: only phantoms know where a finding is.")
        size = self.pixels.shape[-1]
        return np.unpackbits(self.packed_masks[row], axis=-1, count=size * size).reshape(-1, size, size).astype(bool)


def open_store(
    name: str,
    jobs: Sequence[tuple],
    draw: Callable[..., tuple[np.ndarray, np.ndarray | None]],
    *,
    size: int,
    version: str,
    folder: Path | None = None,
    skip_unreadable: bool = False,
) -> PixelStore:
    """Open the cache `name`, drawing it first where it is missing, damaged, or made from other jobs or another version.

    Row r is `draw(*jobs[r], size)`: pixels uint8 [S, S], and masks bool [5, S, S] or None for the whole store. `draw`
    runs in as many processes as there are cores, with a progress bar. The manifest keeps a hash of jobs, size and
    version and a checksum of each file, computed anew at every opening (some GB/s), so that nothing stale, cut off or
    altered is ever used. Interrupted in any way, even by the power, the drawing goes on at the next call with the rows
    that are safely on disk; of two processes that want the same cache, one draws and the other waits.

    Where `draw` raises CourseError, it stops there and what is done stays; with `skip_unreadable` such rows of stores
    without masks stay black, are counted aloud and stand in `unreadable`. Raises CourseError on a full disk too.
    """
    folder = Path(folder or cache_folder()) / f"{name}-{size}"
    fingerprint = hashlib.sha256(json.dumps([version, size, jobs], default=str).encode()).hexdigest()
    store, _ = read_store(folder, fingerprint)
    if store is None:
        with writing(folder):
            folder.parent.mkdir(parents=True, exist_ok=True)
            lock = FileLock(folder.with_name(f".{folder.name}.lock"))
            try:
                held = lock.acquire(timeout=0)
            except Timeout:
                print(f"Another process is drawing the pixel cache {folder.name}: waiting for it.")
                held = lock.acquire()
            with held:
                store, reason = read_store(folder, fingerprint)  # which that process may have finished
                if store is None:
                    if reason:
                        print(f"The pixel cache {folder.name} {reason}: drawing it again.")
                    draw_store(folder, jobs, draw, size, fingerprint, name, skip_unreadable)
                    store, _ = read_store(folder, fingerprint)
    if store.unreadable:
        first = next(iter(store.unreadable.values()))
        if not skip_unreadable:
            raise CourseError(first)
        print(f"{len(store.unreadable):,} of {len(jobs):,} radiographs of {name} are left out; the first: {first}")
    return store


def read_store(folder: Path, fingerprint: str) -> tuple[PixelStore | None, str]:
    """The store in `folder`, or None and what is wrong with it ("" if it is not there at all)."""
    if not folder.is_dir():
        return None, ""
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        if manifest["fingerprint"] != fingerprint:
            return None, "belongs to other files or another version"
        for file, checksum in manifest["crc32"].items():
            if crc32(folder / file) != checksum:
                return None, f"is damaged ({file})"
        pixels = np.load(folder / "pixels.npy", mmap_mode="r")
        masks = np.load(folder / "masks.npy", mmap_mode="r") if "masks.npy" in manifest["crc32"] else None
        unreadable = {int(row): reason for row, reason in manifest.get("unreadable", {}).items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None, "is incomplete"
    return PixelStore(pixels, masks, fingerprint, unreadable), ""


def draw_store(
    folder: Path, jobs: Sequence[tuple], draw: Callable, size: int, fingerprint: str, name: str, skip_unreadable: bool
) -> None:
    """Draw into a partial folder, going on where an earlier call was interrupted, and give it its name at the end.

    Rows are appended chunk by chunk; once a chunk is on disk, a line of the journal says so, with checksums.
    """
    partial = folder.with_name(f".{folder.name}.{fingerprint[:16]}.partial")
    for leftover in folder.parent.glob(f".{glob.escape(folder.name)}.{'[0-9a-f]' * 16}.*"):
        if leftover != partial:  # of another version, or a store that its successor has replaced
            shutil.rmtree(leftover, ignore_errors=True)
    rows, sums, unreadable = read_journal(partial)
    if unreadable and not skip_unreadable:
        raise CourseError(next(iter(unreadable.values())))
    require_space(folder, (len(jobs) - rows) * (size * size + 5 * -(-size * size // 8)))
    partial.mkdir(exist_ok=True)
    if rows:
        print(f"The pixel cache {folder.name} was interrupted: going on after {rows:,} of {len(jobs):,} radiographs.")
    processes = cpu_count()
    progress = tqdm(total=len(jobs), initial=rows, desc=f"drawing {name}", unit="image", mininterval=0.5)
    try:
        with warnings.catch_warnings(), Parallel(processes, return_as="generator") as parallel, progress:
            warnings.filterwarnings("ignore", module="joblib")  # which tells, after Ctrl-C, what was drawn in vain
            while rows < len(jobs):  # joblib draws on while nobody takes its results, so it is given a part at a time
                part = range(rows, min(rows + AHEAD * processes * CHUNK, len(jobs)), CHUNK)
                calls = (delayed(draw_chunk)(draw, jobs[start : start + CHUNK], size, os.getpid()) for start in part)
                with closing(parallel(calls)) as drawn:
                    for pixels, masks, failed in drawn:
                        if failed and not (skip_unreadable and masks is None and "masks.npy" not in sums):
                            raise CourseError(next(iter(failed.values())))
                        failed = {rows + i: reason for i, reason in failed.items()}
                        for file, block in (("pixels.npy", pixels), ("masks.npy", masks)):
                            if block is not None:
                                start = b"" if file in sums else npy_header((len(jobs), *block.shape[1:]))
                                sums[file] = append(partial / file, start + block.tobytes(), sums.get(file, (0, 0)))
                        rows, unreadable = rows + len(pixels), unreadable | failed
                        entry = json.dumps({"rows": rows, "sums": sums, "unreadable": failed}).encode() + b"\n"
                        append(partial / "journal", b"%d %s" % (zlib.crc32(entry), entry))
                        progress.update(len(pixels))
    except BrokenProcessPool as error:
        raise CourseError(
            f"A process that was drawing {name} was ended from outside, most often because memory ran short: "
            "close other programs and run again, it goes on where it stopped."
        ) from error
    checksums = {file: checksum for file, (_, checksum) in sums.items()}
    manifest = {"fingerprint": fingerprint, "rows": rows, "size": size, "crc32": checksums, "unreadable": unreadable}
    append(partial / "manifest.json", json.dumps(manifest, indent=1).encode())
    old = partial.with_suffix(".old")
    if folder.exists():
        folder.replace(old)
    partial.replace(folder)
    (folder / "journal").unlink()
    shutil.rmtree(old, ignore_errors=True)


def read_journal(partial: Path) -> tuple[int, dict[str, tuple[int, int]], dict[int, str]]:
    """How many rows are safely in `partial`, the length and checksum of each file, and the unreadable rows.

    What follows the last entry whose checksums hold is cut off.
    """
    rows, sums, unreadable, length = 0, {}, {}, 0
    journal = partial / "journal"
    for line in journal.read_bytes().splitlines(keepends=True) if journal.exists() else ():
        try:
            checksum, _, entry = line.partition(b" ")
            if int(checksum) != zlib.crc32(entry):
                raise ValueError
            entry = json.loads(entry)
            for file, (end, checksum) in entry["sums"].items():
                start, before = sums.get(file, (0, 0))
                with open(partial / file, "rb") as content:
                    content.seek(start)
                    if zlib.crc32(content.read(end - start), before) != checksum:
                        raise ValueError
        except (ValueError, OSError):
            break
        rows, sums, length = entry["rows"], entry["sums"], length + len(line)
        unreadable |= {int(row): reason for row, reason in entry["unreadable"].items()}
    for file in partial.glob("*"):
        os.truncate(file, length if file == journal else sums.get(file.name, (0, 0))[0])
    return rows, sums, unreadable


def append(file: Path, content: bytes, sums: tuple[int, int] = (0, 0)) -> tuple[int, int]:
    """Write `content` at the end of `file`, through to the disk; `sums`, its length and checksum, brought forward."""
    with open(file, "ab") as target:
        target.write(content)
        target.flush()
        os.fsync(target.fileno())
    return sums[0] + len(content), zlib.crc32(content, sums[1])


def npy_header(shape: tuple[int, ...]) -> bytes:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": shape})
    return header.getvalue()


def draw_chunk(
    draw: Callable, jobs: Sequence[tuple], size: int, main_process: int
) -> tuple[np.ndarray, np.ndarray | None, dict[int, str]]:
    """Pixels uint8 [n, S, S], packed masks uint8 [n, 5, ceil(S * S / 8)] or None, and which of them failed, and why."""
    if os.getpid() != main_process:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the main process, which ends the others
    pixels, packed_masks, failed = np.zeros((len(jobs), size, size), np.uint8), [], {}
    for i, job in enumerate(jobs):
        try:
            pixels[i], masks = draw(*job, size)
        except CourseError as error:
            failed[i] = str(error)
            continue
        if masks is not None:
            packed_masks.append(np.packbits(masks.reshape(len(masks), -1), axis=-1))
    return pixels, np.stack(packed_masks) if packed_masks else None, failed


def crc32(file: Path) -> int:
    checksum = 0
    with open(file, "rb") as content:
        while block := content.read(1 << 22):
            checksum = zlib.crc32(block, checksum)
    return checksum
