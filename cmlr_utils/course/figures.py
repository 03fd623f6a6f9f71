"""The course's pictures: colour-blind safe, with a caption and a text for those who cannot see them."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence

import numpy as np
import seaborn as sns
from IPython.display import Markdown, display
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cmlr_utils.data.mesh import PATHOLOGIES
from cmlr_utils.data.studies import StudySet

COLOURS = dict(zip(PATHOLOGIES, sns.color_palette("colorblind", len(PATHOLOGIES)), strict=True))
DPI = 100


def show(figure: Figure, *, caption: str, alt: str) -> None:
    """Display a figure as PNG, and under it a caption and, folded, the picture in words.

    The alternative text is in the output's metadata, too, but JupyterLab shows it to nobody.
    """
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=DPI, bbox_inches="tight", metadata={"Software": None})
    display({"image/png": png.getvalue()}, raw=True, metadata={"image/png": {"alt": alt}})
    display(Markdown(f"*{caption}*\n\n<details><summary>The picture in words</summary>\n\n{alt}\n\n</details>"))


def new_figure(
    columns: int = 1, rows: int = 1, *, width: float = 3.0, height: float = 3.0
) -> tuple[Figure, np.ndarray]:
    """A figure of rows x columns axes, each `width` by `height` inches, and the axes as an array [rows, columns]."""
    figure = Figure(figsize=(columns * width, rows * height), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat:
        axis.set_prop_cycle(color=sns.color_palette("colorblind"))
    return figure, axes


def draw_radiograph(axes: Axes, image: np.ndarray, *, title: str = "", source: str = "") -> None:
    """Draw a radiograph uint8 [S, S]; a phantom says that it is one, in its lower left corner."""
    axes.imshow(image, cmap="gray", vmin=0, vmax=255)
    axes.set_axis_off()
    axes.set_title(title, fontsize=9, wrap=True)
    if source == "phantom":
        axes.text(0.02, 0.02, "phantom", transform=axes.transAxes, color="white", fontsize=8, alpha=0.9)


def draw_masks(axes: Axes, masks: np.ndarray) -> None:
    """Outline the masks bool [5, S, S] that are not empty, each pathology in its colour."""
    for name, mask in zip(PATHOLOGIES, masks, strict=True):
        if mask.any():
            axes.contour(mask, levels=[0.5], colors=[COLOURS[name]], linewidths=1.5)


def draw_attention(axes: Axes, image: np.ndarray, attention: np.ndarray, *, title: str = "", source: str = "") -> None:
    """Lay attention [H, W] over a radiograph uint8 [S, S], brighter where a word looks more."""
    draw_radiograph(axes, image, title=title, source=source)
    size = image.shape[-1]
    axes.imshow(
        attention, cmap="viridis", alpha=0.45, extent=(-0.5, size - 0.5, size - 0.5, -0.5), interpolation="bilinear"
    )


def draw_bars(axes: Axes, names: Sequence[str], values: np.ndarray, *, highlight: Sequence[bool], xlabel: str) -> None:
    """Horizontal bars with their names; the highlighted ones dark, the others pale."""
    colours = ["#0173b2" if chosen else "#c8c8c8" for chosen in highlight]
    axes.barh(range(len(names)), values, color=colours)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_xlabel(xlabel)
    sns.despine(ax=axes)


def draw_intervals(
    axes: Axes, names: Sequence[str], shares: np.ndarray, *, offset: float = 0, marker: str = "o", label: str = ""
) -> None:
    """A dot and its interval in the row of each name, in percent; `shares` [n, 3] are shares, lower and upper ends.

    `offset` moves the dots down by a part of a row, so that several calls may share one picture.
    """
    rows = np.arange(len(names)) + offset
    share, low, high = 100 * np.asarray(shares, dtype=float).T
    dots = axes.scatter(share, rows, marker=marker, label=label, zorder=2)
    axes.hlines(rows, low, high, color=dots.get_facecolor()[0])
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    sns.despine(ax=axes)


def first_picture(studies: StudySet, index: int) -> Figure:
    """One study as the course meets it: its radiograph, the outlined findings, and the radiologist's words."""
    study = studies[index]
    figure, axes = new_figure(3, width=3.6, height=3.8)
    draw_radiograph(axes[0, 0], studies.image(index), title=study.id, source=studies.source)
    draw_radiograph(axes[0, 1], studies.image(index), title="what the codes name", source=studies.source)
    if studies.store.packed_masks is not None:
        draw_masks(axes[0, 1], studies.masks(index))
    text = f"FINDINGS\n{wrap(study.findings)}\n\nIMPRESSION\n{wrap(study.impression)}\n\nCODES\n" + "\n".join(
        study.mesh
    )
    axes[0, 2].text(0, 1, text, va="top", fontsize=8, family="monospace")
    axes[0, 2].set_axis_off()
    return figure


def pages_picture(studies: StudySet, indices: Sequence[int], titles: Sequence[str]) -> Figure:
    """Studies in rows of three: each radiograph with its outlines, under it the radiologist's impression and codes."""
    figure, axes = new_figure(3, -(-len(indices) // 3), width=3.4, height=4.6)
    for axis, index, title in zip(axes.flat, indices, titles, strict=True):
        study = studies[index]
        draw_radiograph(axis, studies.image(index), title=f"{title}: {study.id}", source=studies.source)
        if studies.store.packed_masks is not None:
            draw_masks(axis, studies.masks(index))
        words = f"{wrap(study.impression, 46)}\n\n{wrap(', '.join(study.mesh), 46)}"
        axis.text(0, -0.04, words, transform=axis.transAxes, va="top", fontsize=7, family="monospace")
    return figure


def diagnosis_picture(
    studies: StudySet, index: int, attention: np.ndarray, word: str, ranks: np.ndarray, finding: int
) -> Figure:
    """One study diagnosed: its codes, where a word looks (attention [H, W]), and how its five scores rank [5], in %."""
    study = studies[index]
    figure, axes = new_figure(3, width=3.6, height=3.4)
    draw_radiograph(
        axes[0, 0], studies.image(index), title=f"{study.id}: {', '.join(study.mesh)}", source=studies.source
    )
    title = f'where the word "{word}" looks'
    draw_attention(axes[0, 1], studies.image(index), attention, title=title, source=studies.source)
    if studies.store.packed_masks is not None:
        axes[0, 1].contour(studies.masks(index)[finding], levels=[0.5], colors="white", linewidths=1.5)
        axes[0, 1].set_title(f"{title}; outline: where it is", fontsize=9)
    coded = [label == 1 for label in study.labels]
    draw_bars(axes[0, 2], PATHOLOGIES, ranks, highlight=coded, xlabel="scores higher than … % of test studies")
    return figure


def wrap(text: str, width: int = 52) -> str:
    return textwrap.fill(text, width) or "(none)"
