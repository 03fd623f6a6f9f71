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

SIDE = 384  # pixels of the radiograph on the page


def study_browser(studies: StudySet) -> VBox:
    """Turn the pages of a data set: choose a finding, move through its studies, lay its outlines over the radiograph.

    Outlines need masks, which only phantoms have.
    """
    choices = {"every study": np.arange(len(studies))}
    choices["normal"] = np.flatnonzero([study.normal for study in studies])
    choices |= {name: np.flatnonzero(studies.labels[:, k] == 1) for k, name in enumerate(PATHOLOGIES)}
    choices["not coded"] = np.flatnonzero(np.isnan(studies.labels).any(1))
    options = [(f"{name} ({len(indices):,})", name) for name, indices in choices.items() if len(indices)]
    finding = Dropdown(description="finding", options=options)
    number = IntSlider(description="study", min=1, max=len(studies))
    drawn = studies.store.packed_masks is not None
    outlines = Checkbox(description="outlines", value=False, disabled=not drawn)
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


def study_page(studies: StudySet, index: int, outlines: bool = False) -> str:
    """One study as HTML: its radiograph, with its findings outlined or not, beside the report and the codes."""
    study = studies[index]
    pixels = np.asarray(Image.fromarray(studies.image(index)).convert("RGB").resize((SIDE, SIDE), Image.LANCZOS)).copy()
    shown = []
    for name, mask in zip(PATHOLOGIES, studies.masks(index), strict=True) if outlines else ():
        if mask.any():
            large = np.asarray(Image.fromarray(mask).resize((SIDE, SIDE)))
            pixels[large & ~binary_erosion(large, iterations=2)] = np.round(255 * np.array(COLOURS[name]))
            shown.append(f"<b style='color: rgb{tuple(int(255 * c) for c in COLOURS[name])}'>{name}</b>")
    png = io.BytesIO()
    Image.fromarray(pixels).save(png, "png")
    source = f"data:image/png;base64,{base64.b64encode(png.getvalue()).decode()}"
    kind = "phantom" if studies.source == "phantom" else "radiograph"
    image = f"<img src='{source}' width={SIDE} height={SIDE} alt='The {kind} of {escape(study.id)}'>"
    text = "".join(
        f"<p><b>{name}</b><br>{escape(said) or '(none)'}</p>"
        for name, said in (
            ("FINDINGS", study.findings),
            ("IMPRESSION", study.impression),
            ("CODES", ", ".join(study.mesh)),
        )
    )
    outlined = f"<p>Outlined: {', '.join(shown) or 'nothing'}</p>" if outlines else ""
    picture = f"<div>{image}<p>{escape(study.id)}, {kind}</p>{outlined}</div>"
    words = f"<div style='max-width: 30em; line-height: 1.4'>{text}</div>"
    return f"<div style='display: flex; flex-wrap: wrap; gap: 1.5em'>{picture}{words}</div>"
