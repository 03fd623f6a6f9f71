"""The study browser shows the study that is chosen, at once, and no report can break its page."""

from __future__ import annotations

import base64
import io
import re
import time
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from cmlr_utils.course.widgets import study_browser, study_page
from cmlr_utils.data.pixels import PixelStore
from cmlr_utils.data.studies import StudySet, drawn_study

CODES = ("normal", "Pleural Effusion/left", "Cardiomegaly", "Pleural Effusion/right", "No Indexing")


def study_set(source: str = "phantom") -> StudySet:
    rng = np.random.default_rng(0)
    masks = np.zeros((len(CODES), 5, 128, 128), bool)
    masks[1, 4, 40:60, 40:60] = True
    packed = np.packbits(masks.reshape(len(CODES), 5, -1), axis=-1) if source == "phantom" else None
    store = PixelStore(rng.integers(0, 256, (len(CODES), 128, 128), dtype=np.uint8), packed, "")
    studies = [replace(drawn_study(f"CXR{i}", code), impression=f"words {i}") for i, code in enumerate(CODES)]
    return StudySet(tuple(studies), tuple(np.array([i]) for i in range(len(CODES))), store, source)


def parts(browser):
    (finding, number, outlines), page = browser.children[0].children, browser.children[1]
    return finding, number, outlines, page


def picture(page: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(re.search(r"base64,([^']+)", page)[1]))))


def test_it_lists_what_there_is_and_turns_the_pages():
    finding, number, _, page = parts(study_browser(study_set()))
    counts = {"every study": 5, "normal": 1, "cardiomegaly": 1, "pleural effusion": 2, "not coded": 1}
    assert [label for label, _ in finding.options] == [f"{name} ({n})" for name, n in counts.items()]
    for i in range(len(CODES)):
        number.value = i + 1
        assert f"words {i}" in page.value and CODES[i] in page.value and f"CXR{i}, phantom" in page.value


def test_choosing_a_finding_shows_its_first_study_and_no_other():
    finding, number, _, page = parts(study_browser(study_set()))
    number.value = 5
    finding.value = "pleural effusion"
    assert (number.value, number.max) == (1, 2) and "words 1" in page.value
    number.value = 2
    assert "words 3" in page.value
    finding.value = "cardiomegaly"
    assert (number.value, number.max) == (1, 1) and "words 2" in page.value
    finding.value = "every study"
    assert number.max == 5 and "words 0" in page.value


def test_outlines_lie_on_the_edge_of_the_mask_and_nowhere_else():
    _, number, outlines, page = parts(study_browser(study_set()))
    number.value = 2
    plain = picture(page.value)
    outlines.value = True
    changed = np.argwhere((picture(page.value) != plain).any(-1))
    assert "</span> pleural effusion" in page.value
    assert changed.min() == 120 and changed.max() == 179  # 40 and 60, three times as large
    assert len(changed) == 60**2 - 56**2


def test_real_radiographs_have_no_outlines():
    _, _, outlines, page = parts(study_browser(study_set("open-i")))
    assert outlines.disabled and "CXR0, radiograph" in page.value


def test_a_report_cannot_write_html():
    studies = study_set()
    studies = replace(studies, studies=(replace(studies[0], findings="heart > 5 <script>"), *studies.studies[1:]))
    assert "heart &gt; 5 &lt;script&gt;" in study_page(studies, 0)


@pytest.mark.parametrize("outlined", [False, True])
def test_it_answers_within_200_ms(outlined):
    _, number, outlines, _ = parts(study_browser(study_set()))
    outlines.value = outlined
    times = []
    for i in (2, 3, 4, 5, 1, 2, 3):
        started = time.perf_counter()
        number.value = i
        times.append(time.perf_counter() - started)
    assert np.median(times) < 0.2
