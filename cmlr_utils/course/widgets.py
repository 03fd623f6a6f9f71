"""The course's widgets. Each has a still twin in the notebooks, for those who read without a kernel."""

from __future__ import annotations

import base64
import io
from html import escape

import numpy as np
from ipywidgets import HTML, Checkbox, Dropdown, HBox, IntSlider, VBox
from PIL import Image
from scipy.ndimage import binary_erosion

from cmlr_utils.course.figures import COLOURS
from cmlr_utils.data.mesh import PATHOLOGIES
from cmlr_utils.data.studies import StudySet


def study_browser(studies: StudySet) -> VBox:
    """Turn the pages of a data set: choose a finding, move through its studies, outline what masks there are."""
    choices = {"every study": np.arange(len(studies)), "normal": np.flatnonzero([study.normal for study in studies])}
    choices |= {name: np.flatnonzero(studies.labels[:, k] == 1) for k, name in enumerate(PATHOLOGIES)}
    choices["not coded"] = np.flatnonzero(np.isnan(studies.labels).any(1))
    options = [(f"{name} ({len(indices):,})", name) for name, indices in choices.items() if len(indices)]
    finding = Dropdown(description="finding", options=options)
    number = IntSlider(description="study", min=1, max=len(studies))
    outlines = Checkbox(description="outlines", disabled=studies.store.packed_masks is None)
    page = HTML()

    def turn(*_: object) -> None:
        page.value = study_page(studies, int(choices[finding.value][number.value - 1]), outlines.value)

    def choose(*_: object) -> None:
        number.value, number.max = 1, len(choices[finding.value])
        turn()

    finding.observe(choose, "value")
    number.observe(turn, "value")
    outlines.observe(turn, "value")
    turn()
    return VBox([HBox([finding, number, outlines]), page])


def study_page(studies: StudySet, index: int, outlines: bool = False, side: int = 384) -> str:
    """One study as HTML: its radiograph, `side` pixels wide, outlined or not, beside the report and the codes."""
    study, png = studies[index], io.BytesIO()
    pixels = np.array(Image.fromarray(studies.image(index)).convert("RGB").resize((side, side), Image.LANCZOS))
    alt = caption = f"{escape(study.id)}, {'phantom' if studies.source == 'phantom' else 'radiograph'}"
    for k, mask in enumerate(studies.masks(index) if outlines else ()):
        if not mask.any():
            continue
        colour = tuple(round(255 * part) for part in COLOURS[PATHOLOGIES[k]])
        mask = np.asarray(Image.fromarray(mask).resize((side, side)))
        pixels[mask & ~binary_erosion(mask, iterations=2)] = colour
        caption += f"<br><span style='color: rgb{colour}'>▣</span> {PATHOLOGIES[k]}"
    Image.fromarray(pixels).save(png, "png")
    source = f"data:image/png;base64,{base64.b64encode(png.getvalue()).decode()}"
    sections = {"FINDINGS": study.findings, "IMPRESSION": study.impression, "CODES": ", ".join(study.mesh)}
    text = "".join(f"<p><b>{name}</b><br>{escape(said) or '(none)'}</p>" for name, said in sections.items())
    return (
        f"<div style='display: flex; flex-wrap: wrap; gap: 1.5em; line-height: 1.4'><div><img src='{source}' "
        f"width={side} alt='{alt}'><p>{caption}</p></div><div style='max-width: 30em'>{text}</div></div>"
    )
