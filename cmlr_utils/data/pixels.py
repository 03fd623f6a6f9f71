"""The pixel cache: every radiograph of a data set at training size, in one memory-mapped file."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import warnings
import zlib
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from joblib import Parallel, cpu_count, delayed
from tqdm.auto import tqdm

from cmlr_utils.data.files import CourseError, cache_folder, new_folder, require_space

CHUNK = 32  # radiographs handed to a process at once


@dataclass(frozen=True)
class PixelStore:
    """Radiographs in rows, read from disk only when they are indexed."""

    pixels: np.ndarray  # uint8 [R, S, S]
    packed_masks: np.ndarray | None  # uint8 [R, 5, ceil(S * S / 8)]: the findings' masks, eight pixels a byte
    fingerprint: str  # a hash of what was drawn and how

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
) -> PixelStore:
    """Open the cache `name`, drawing it first where it is missing, damaged, or made from other jobs or another version.

    Row r is `draw(*jobs[r], size)`: pixels uint8 [S, S], and masks bool [5, S, S] or None for the whole store. `draw`
    runs in as many processes as there are cores, with a progress bar. The manifest keeps a hash of jobs and version
    and a checksum of each file, so that nothing stale, cut off or altered is ever used. An interrupted drawing leaves
    nothing behind. Raises CourseError on a full disk.
    """
    folder = Path(folder or cache_folder()) / f"{name}-{size}"
    fingerprint = hashlib.sha256(json.dumps([version, size, jobs], default=str).encode()).hexdigest()
    store, reason = read_store(folder, fingerprint)
    if store:
        return store
    if reason:
        print(f"The pixel cache {folder.name} {reason}: drawing it again.")
    require_space(folder, len(jobs) * (size * size + 5 * -(-size * size // 8)))
    with new_folder(folder) as partial:
        write_store(partial, jobs, draw, size, fingerprint, name)
    return read_store(folder, fingerprint)[0]


def read_store(folder: Path, fingerprint: str) -> tuple[PixelStore | None, str]:
    """The store in `folder`, or None and what is wrong with it ("" if it is not there at all)."""
    if not folder.is_dir():
        return None, ""
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        if manifest["fingerprint"] != fingerprint:
            return None, "is from another version"
        for file, checksum in manifest["crc32"].items():
            if crc32(folder / file) != checksum:
                return None, f"is damaged ({file})"
        pixels = np.load(folder / "pixels.npy", mmap_mode="r")
        masks = np.load(folder / "masks.npy", mmap_mode="r") if "masks.npy" in manifest["crc32"] else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None, "is incomplete"
    return PixelStore(pixels, masks, fingerprint), ""


def write_store(folder: Path, jobs: Sequence[tuple], draw: Callable, size: int, fingerprint: str, name: str) -> None:
    pixels = new_array(folder / "pixels.npy", (len(jobs), size, size))
    chunks = [jobs[start : start + CHUNK] for start in range(0, len(jobs), CHUNK)]
    drawn = Parallel(n_jobs=cpu_count(), return_as="generator")(
        delayed(draw_chunk)(draw, chunk, size, os.getpid()) for chunk in chunks
    )
    masks = None
    progress = tqdm(total=len(jobs), desc=f"drawing {name}", unit="image", mininterval=0.5)
    with warnings.catch_warnings(), closing(drawn), progress:
        warnings.filterwarnings("ignore", module="joblib")  # which tells, after Ctrl-C, what was drawn in vain
        row = 0
        for chunk in drawn:
            for image, image_masks in chunk:
                pixels[row] = image
                if image_masks is not None:
                    if masks is None:
                        shape = (len(jobs), len(image_masks), -(-size * size // 8))
                        masks = new_array(folder / "masks.npy", shape)
                    masks[row] = np.packbits(image_masks.reshape(len(image_masks), -1), axis=-1)
                row += 1
                progress.update()
    pixels.flush()
    if masks is not None:
        masks.flush()
    checksums = {file.name: crc32(file) for file in sorted(folder.glob("*.npy"))}
    manifest = {"fingerprint": fingerprint, "rows": len(jobs), "size": size, "crc32": checksums}
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=1), encoding="utf-8")


def new_array(file: Path, shape: tuple[int, int, int]) -> np.memmap:
    """Zeros uint8 of this shape in a mapped file. They are really written, so that a full disk raises OSError here.

    A mapped file with holes would have its process killed when the disk fills up.
    """
    array = np.lib.format.open_memmap(file, "w+", np.uint8, shape)
    with open(file, "r+b") as content:
        content.seek(array.offset)
        for row in array:
            content.write(bytes(row.nbytes))
    return array


def draw_chunk(
    draw: Callable, jobs: Sequence[tuple], size: int, main_process: int
) -> list[tuple[np.ndarray, np.ndarray | None]]:
    if os.getpid() != main_process:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the main process, which ends the others
    return [draw(*job, size) for job in jobs]


def crc32(file: Path) -> int:
    checksum = 0
    with open(file, "rb") as content:
        while block := content.read(1 << 22):
            checksum = zlib.crc32(block, checksum)
    return checksum
