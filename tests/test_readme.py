"""What README.md claims is what docs/reference holds, and what it points at is there."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from cmlr_utils.course.line import table

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
RESULTS = json.loads((ROOT / "docs/reference/results.json").read_text(encoding="utf-8"))


def test_the_table_is_that_of_the_reference_results():
    assert re.search(r"<!-- table -->\n(.*?)\n<!-- /table -->", README, re.DOTALL)[1] == table(RESULTS)


def test_every_column_says_what_its_pixels_are():
    for name in RESULTS["zero_shot"]:
        assert "phantom" in name or "real" in name


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\]\((?!https?:)([^)#]+)\)", README))))
def test_a_link_leads_to_a_file(target):
    assert (ROOT / target).is_file()


def test_the_reference_reaches_what_the_course_promises():
    for name in ("test split (phantom)", "balanced panel (phantom)"):
        trained, untrained = (RESULTS["zero_shot"][name][kind] for kind in ("trained", "untrained"))
        assert trained["global + local"]["average"]["value"] >= 0.88
        assert untrained["global + local"]["average"]["high"] < trained["global + local"]["average"]["low"]
