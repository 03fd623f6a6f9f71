"""Measure the phantom: speed, masks against labels, and its greys beside real ones: `python benchmarks/phantom.py`.

The comparison needs some of NIH's radiographs (see `cmlr doctor`); it is left out where there are none. It looks at
normal studies only and at 64 pixels, the size of small extracts, and shows statistics, never a radiograph.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from joblib import Parallel, delayed
from PIL import Image
from tqdm import tqdm

from cmlr_utils.course.line import nih_folder
from cmlr_utils.data.phantom import render_phantom
from cmlr_utils.data.pixels import CHUNK
from cmlr_utils.data.reports import Study, read_reports
from cmlr_utils.data.splits import with_split

TABLE, FIGURE = (Path(__file__).with_suffix(suffix) for suffix in (".md", ".png"))
SIZE, COMPARED_SIZE, PROCESSES = 128, 64, 2
REGIONS = {  # top, bottom, left, right in 64ths of the picture
    "neck": (0, 6, 28, 36),
    "upper mediastinum": (10, 18, 29, 36),
    "lower mediastinum": (26, 34, 29, 36),
    "heart": (36, 44, 33, 40),
    "right lung, apex": (12, 18, 18, 26),
    "right lung, middle": (24, 34, 14, 22),
    "left lung, middle": (24, 34, 43, 51),
    "right lung, base": (38, 46, 12, 20),
    "left lung, base": (38, 46, 46, 54),
    "right shoulder": (8, 16, 4, 12),
    "left shoulder": (8, 16, 52, 60),
    "right chest wall": (28, 42, 1, 6),
    "left chest wall": (28, 42, 58, 63),
    "abdomen": (56, 63, 16, 48),
    "upper corners": (0, 5, 0, 6),
    "lower corners": (58, 64, 0, 5),
}


def draw(studies: Sequence[Study]) -> list[tuple[np.ndarray, bool, float]]:
    """Each study's phantom, whether its masks say what its codes say, and the seconds a processor was busy with it."""
    drawn = []
    for study in studies:
        start = time.process_time()
        phantom = render_phantom(study.id, study.mesh, SIZE)
        seconds = time.process_time() - start
        agrees = (phantom.masks.any(axis=(1, 2)) == (np.nan_to_num(study.labels) == 1)).all()
        drawn.append((phantom.pixels, bool(agrees), seconds))
    return drawn


def draw_all(studies: Sequence[Study]) -> tuple[np.ndarray, np.ndarray, float, float]:
    """Pixels uint8 [n, S, S], agreement bool [n], phantoms per second once the processes have started, and the median
    of the processor's seconds for one."""
    chunks = [studies[start : start + CHUNK] for start in range(0, len(studies), CHUNK)]
    with Parallel(n_jobs=PROCESSES) as parallel:
        parallel(delayed(draw)(chunk) for chunk in chunks[: 2 * PROCESSES])
        start = time.perf_counter()
        drawn = parallel(delayed(draw)(chunk) for chunk in tqdm(chunks, desc="phantoms", unit="chunk"))
        seconds = time.perf_counter() - start
    pixels, agrees, busy = zip(*(row for chunk in drawn for row in chunk), strict=True)
    return np.stack(pixels), np.array(agrees), len(studies) / seconds, float(np.median(busy))


def shrink(pixels: np.ndarray) -> np.ndarray:
    """Averages over blocks, float [n, COMPARED_SIZE, COMPARED_SIZE]."""
    step = pixels.shape[-1] // COMPARED_SIZE
    return pixels.reshape(len(pixels), COMPARED_SIZE, step, COMPARED_SIZE, step).mean(axis=(2, 4))


def read_normal_nih(folder: Path) -> dict[str, np.ndarray]:
    """NIH's films without a finding, by view, float [n, COMPARED_SIZE, COMPARED_SIZE]."""
    table = pd.read_csv(next(folder.glob("*.csv"))).rename(
        columns={"Image Index": "image", "Finding Labels": "findings", "View Position": "view"}
    )
    table = table[table["findings"] == "No Finding"]
    size = (COMPARED_SIZE, COMPARED_SIZE)
    views = {}
    for view in ("PA", "AP"):
        films = [
            np.asarray(Image.open(path).convert("L").resize(size, Image.Resampling.BOX), dtype=float)
            for name in table.loc[table["view"] == view, "image"]
            if (path := folder / name).is_file()
        ]
        if films:
            views[f"NIH, {view}"] = np.stack(films)
    return views


def power_spectra(images: np.ndarray) -> np.ndarray:
    """Mean power by radial frequency 1 to S/2 - 1 (cycles per picture) under a Hann window, float [n, S/2 - 1]."""
    size = images.shape[-1]
    window = np.hanning(size)[:, None] * np.hanning(size)
    power = np.abs(np.fft.fft2((images - images.mean(axis=(1, 2), keepdims=True)) / 255 * window)) ** 2
    frequency = np.fft.fftfreq(size, 1 / size)
    radius = np.hypot(frequency[:, None], frequency).round()
    return np.stack([power[:, radius == k].mean(axis=1) for k in range(1, size // 2)], axis=1)


def slopes(images: np.ndarray) -> np.ndarray:
    """The slope of log power over log frequency, from 2 to 28 cycles per picture, float [n]."""
    spectra = power_spectra(images)[:, 1:28]
    return np.polyfit(np.log(np.arange(2, 29)), np.log(spectra + 1e-12).T, 1)[0]


def local_contrast(images: np.ndarray) -> np.ndarray:
    """Mean standard deviation in windows of 8 x 8, float [n]."""
    windows = images.reshape(len(images), COMPARED_SIZE // 8, 8, COMPARED_SIZE // 8, 8)
    return windows.std(axis=(2, 4)).mean(axis=(1, 2))


def statistics(images: np.ndarray) -> dict[str, np.ndarray]:
    """What the table compares: one value per picture."""
    values = {
        name: images[:, top:bottom, left:right].mean(axis=(1, 2))
        for name, (top, bottom, left, right) in REGIONS.items()
    }
    values |= {"whole picture": images.mean(axis=(1, 2)), "contrast": images.std(axis=(1, 2))}
    values["local contrast, 8 x 8"] = local_contrast(images)
    values["spectrum slope"] = slopes(images)
    return values


def plot(sets: dict[str, np.ndarray]) -> None:
    palette = dict(zip(sets, sns.color_palette("colorblind"), strict=False))
    markers = dict(zip(sets, "osD", strict=False))
    styles = dict(zip(sets, ("-", "--", ":"), strict=False))
    figure, axes = plt.subplots(2, 2, figsize=(11, 8.5), layout="constrained")
    for name, images in sets.items():
        colour, marker, style = palette[name], markers[name], styles[name]
        histogram = np.histogram(images, bins=64, range=(0, 256), density=True)[0]
        axes[0, 0].plot(np.arange(2, 256, 4), histogram, style, color=colour, label=name)
        spectra = np.log10(power_spectra(images))
        low, middle, high = np.percentile(spectra, (10, 50, 90), axis=0)
        frequency = np.arange(1, spectra.shape[1] + 1)
        axes[0, 1].plot(frequency, middle, color=colour, marker=marker, markersize=3)
        axes[0, 1].fill_between(frequency, low, high, color=colour, alpha=0.12)
        contrast = np.histogram(local_contrast(images), bins=np.arange(4, 46, 2), density=True)[0]
        axes[1, 1].plot(np.arange(5, 45, 2), contrast, style, color=colour)
        offset = 0.22 * (list(sets).index(name) - 1)
        values = [statistics(images)[region] for region in REGIONS]
        axes[1, 0].errorbar(
            [value.mean() for value in values],
            np.arange(len(REGIONS)) + offset,
            xerr=[value.std() for value in values],
            fmt=marker,
            color=colour,
            markersize=4,
            linewidth=0.8,
        )
    axes[0, 0].set(title="Grey levels", xlabel="grey level, 0 to 255", ylabel="share of pixels")
    axes[0, 1].set(title="Power spectrum, median and 10 to 90 %", xlabel="cycles per picture", ylabel="log10 power")
    axes[0, 1].set_xscale("log")
    axes[1, 0].set(title="Regional means, ± 1 s.d. between pictures", xlabel="grey level")
    axes[1, 0].set_yticks(range(len(REGIONS)), list(REGIONS))
    axes[1, 0].invert_yaxis()
    axes[1, 1].set(title="Local contrast", xlabel="mean s.d. in 8 x 8 windows", ylabel="density")
    axes[0, 0].legend(frameon=False)
    figure.suptitle("Normal studies at 64 pixels: phantoms beside real radiographs")
    figure.savefig(FIGURE, dpi=110)
    plt.close(figure)


def comparison(sets: dict[str, np.ndarray]) -> list[str]:
    """A Markdown table of all statistics, and a sentence on where the phantom lies outside both views."""
    measured = {name: statistics(images) for name, images in sets.items()}
    lines = ["| mean ± s.d. between pictures | " + " | ".join(sets) + " |", "|---" * (len(sets) + 1) + "|"]
    outside = []
    for key in measured["phantom"]:
        values = {name: values[key] for name, values in measured.items()}
        lines.append(f"| {key} | " + " | ".join(f"{v.mean():.3g} ± {v.std():.2g}" for v in values.values()) + " |")
        phantom, *real = (value.mean() for value in values.values())
        spread = np.mean([value.std() for value in values.values()])
        beyond = max(phantom - max(real), min(real) - phantom)
        if beyond > 0.25 * spread:
            outside.append(f"{key} ({phantom:.3g} against {' and '.join(f'{value:.3g}' for value in real)})")
    where = "; ".join(outside) or "nowhere"
    return [*lines, "", f"Where the phantom's mean lies outside both views by over a quarter s.d.: {where}."]


def main() -> None:
    studies = with_split(read_reports())
    pixels, agrees, speed, busy = draw_all(studies)
    lines = [
        f"Made by `python benchmarks/phantom.py`: {platform.machine()}, {os.cpu_count()} cores, {len(studies):,} IU-RR "
        f"studies drawn at {SIZE} pixels.",
        "",
        f"- Speed: {speed:.0f} phantoms/s in {PROCESSES} processes; each takes {1000 * busy:.1f} ms of processor time.",
        f"- Masks agree with labels in {agrees.mean():.2%}: a mask for every coded finding, and none for others.",
        "",
    ]
    if folder := nih_folder():
        normal = [i for i, study in enumerate(studies) if study.split == "test" and np.nansum(study.labels) == 0]
        sets = {"phantom": shrink(pixels[normal]), **read_normal_nih(folder)}
        plot(sets)
        sizes = ", ".join(f"{len(images)} {name}" for name, images in sets.items())
        lines += [f"Normal studies at {COMPARED_SIZE} pixels, test split: {sizes}. See phantom.png.", ""]
        lines += comparison(sets)
    else:
        lines.append("No real radiographs were found: the comparison with them is left out.")
    TABLE.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(TABLE.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
