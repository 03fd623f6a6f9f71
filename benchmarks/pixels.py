"""Time the pixel cache on a synthetic folder of image files: `python benchmarks/pixels.py --images 30000`.

Distinct PNGs of 256 x 256 pixels, a few phantoms under noise, are written to a temporary folder, cached at 128 by two
processes, opened and read back. The phantoms only give the files the size and texture of a radiograph.
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from cmlr_utils.data import pixels
from cmlr_utils.data.phantom import render_phantom
from cmlr_utils.data.radiographs import radiograph_store, read_radiograph

SIZE, FILE_SIZE, PROCESSES = 128, 256, 2
TABLE = Path(__file__).with_name("pixels.md")


def write_films(folder: Path, count: int) -> list[Path]:
    """`count` PNGs, no two alike."""
    rng = np.random.default_rng(0)
    bodies = [render_phantom(f"bench-{i}", ["normal"], FILE_SIZE).pixels for i in range(8)]
    noise = rng.integers(-4, 5, (32, FILE_SIZE, FILE_SIZE), dtype=np.int16)
    films = [np.clip(body + grain, 0, 255).astype(np.uint8) for body in bodies for grain in noise]
    files = []
    for i in tqdm(range(count), desc="writing PNGs", unit="image"):
        film = films[i % len(films)]
        film[:2, :8] = np.unpackbits(np.array([i], ">u2").view(np.uint8)).reshape(2, 8) * 255  # its number
        files.append(folder / f"{i:06}.png")
        Image.fromarray(film).save(files[-1], compress_level=1)
    return files


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=3_000)
    count = parser.parse_args().images
    pixels.cpu_count = lambda: PROCESSES
    with tempfile.TemporaryDirectory() as temporary:
        os.environ["CMLR_DATA"] = temporary
        folder = Path(temporary) / "films"
        folder.mkdir()
        with ProcessPoolExecutor(1) as another:  # so that its memory is not counted
            files = another.submit(write_films, folder, count).result()
        stored = sum(file.stat().st_size for file in files)
        before = most_memory()
        start = time.perf_counter()
        store = radiograph_store("benchmark", files, SIZE)
        building = time.perf_counter() - start
        most = most_memory()
        start = time.perf_counter()
        store = radiograph_store("benchmark", files, SIZE)
        opening = time.perf_counter() - start
        order = np.random.default_rng(1).permutation(count)
        access = [seconds(lambda row=row: np.array(store.pixels[row])) for row in order[:10_000]]
        reading = [seconds(lambda row=row: read_radiograph(files[row], SIZE)) for row in order[:200]]
        same = all((store.pixels[row] == read_radiograph(files[row], SIZE)).all() for row in tqdm(range(count)))
        lines = [
            f"Made by `python benchmarks/pixels.py --images {count}`: {platform.machine()}, {os.cpu_count()} cores, "
            f"{PROCESSES} drawing processes. The {count:,} PNGs are phantoms under noise, {FILE_SIZE} x {FILE_SIZE}, "
            f"{stored / 1e9:.2f} GB; the cache holds {store.pixels.nbytes / 1e9:.2f} GB.",
            "",
            "| what | measured |",
            "|---|---|",
            f"| building the cache at {SIZE} x {SIZE} | {building:.0f} s, {count / building:,.0f} images/s |",
            f"| most memory of the main process, before and after | {before / 1e6:,.0f} and {most / 1e6:,.0f} MB |",
            f"| opening it again, every checksum computed | {opening:.2f} s |",
            f"| one radiograph at random from the cache, median | {1e6 * statistics.median(access):.1f} µs |",
            f"| one radiograph at random from its PNG, median | {1e6 * statistics.median(reading):,.0f} µs |",
            f"| read back identical to the PNG | {count:,} of {count:,} |" if same else "| read back identical | NO |",
        ]
    TABLE.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(TABLE.read_text(encoding="utf-8"))


def seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def most_memory() -> int:
    """The most memory this process has held so far, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if platform.system() == "Darwin" else 1024)


if __name__ == "__main__":
    main()
