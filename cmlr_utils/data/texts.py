"""From a report's text to sentences, and from many texts to groups of identical ones."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from cmlr_utils.data.reports import Study

SECTIONS = ("indication", "comparison", "findings", "impression")
DEIDENTIFIED = re.compile(r"X{4,}", re.IGNORECASE)  # also in "4XXXX" and "XXXXpm"
# What may end a sentence: one or more stops, with the number before them if there is one ("2.", "2)", "2 .").
BREAK = re.compile(
    r"(?:(?<![\w/-])(?<!\d\.)\(?(?P<number>\d{1,2})\s?)?(?P<mark>[.;!?]+|\))[)\]>\"']*(?P<space>\s+|$|(?=[A-Za-z]))"
)
ABBREVIATIONS = {"approx", "cf", "dr", "e.g", "fig", "i.e", "incl", "mr", "mrs", "ms", "pt", "resp", "st", "vs"}
END_ONLY_BEFORE_A_CAPITAL = {"a.m", "p.m", "cm", "mm", "etc"}
LAST_WORD = re.compile(r"[\w.]*$")


def sentences(report: str) -> list[str]:
    """Split one section of a report into its sentences: lower case, de-identification marks and item numbers removed.

    A stop ends no sentence after an abbreviation (`Dr.`, `vs.`), an initial (`T. spine`), inside a number or a time
    of day, nor after `No.` before a number; it does without a space after it (`effusion.No pneumothorax`). An item's
    number (`1.`, `2)`) begins a sentence, also where the item or the heading before it has no full stop. A sentence
    without a word, such as `XXXX.`, is left out.
    """
    text = re.sub(r"\s+", " ", report)
    parts, start, item = [], 0, 0
    for found in BREAK.finditer(text):
        before, number = text[start : found.start()], int(found["number"] or 0)
        heading = before.rstrip().endswith(":") or len(before.split()) <= 2  # "Chest: 1. No effusion."
        next_item = (item and number == item + 1) or (heading and number == 1)
        if number and ((next_item and text[found.end() : found.end() + 1].isupper()) or not before.strip(" .")):
            parts.append(before)
            item, start = number, found.end()
        elif ends_sentence(text, found):
            parts.append(text[start : found.end()])
            start = found.end()
    cleaned = (" ".join(DEIDENTIFIED.sub(" ", part).lower().split()) for part in (*parts, text[start:]))
    return [re.sub(r"\.{2,}", ".", part) for part in cleaned if re.search(r"[a-z]{2}", part)]


def ends_sentence(text: str, found: re.Match) -> bool:
    """Whether a mark that BREAK found in `text` ends a sentence."""
    mark, end = found.start("mark"), found.end()
    word, after = LAST_WORD.search(text[max(0, mark - 40) : mark])[0].lower(), text[end : end + 4]
    if found["mark"] == ")":
        return False
    if after and not found["space"]:  # "effusion.No", but not "p.m"
        return re.fullmatch(r"[a-z]{3,}", word.rpartition(".")[2]) is not None and after[:2].isalpha()
    if found["mark"] != ".":
        return True
    if word in END_ONLY_BEFORE_A_CAPITAL:
        return not after or (after[0].isupper() and not DEIDENTIFIED.match(after))
    initial = len(word) == 1 and word.isalpha()
    return not (initial or word in ABBREVIATIONS or (word == "no" and after[:1].isdigit()))


def report_sentences(study: Study, sections: Sequence[str] = ("findings", "impression")) -> list[str]:
    """The sentences of a study's sections, in their order; `SECTIONS` for the whole report.

    Indication and comparison were written before anybody saw the radiograph: they tell what was feared, not found.
    """
    return [sentence for section in sections for sentence in sentences(getattr(study, section))]


def text_groups(texts: Iterable[str]) -> np.ndarray:
    """A number for each text, int [n] from 0 in order of first appearance; equal texts have the same number.

    Case, spacing and punctuation do not count. How often each group occurs is `np.bincount(text_groups(texts))`.
    """
    normalised = [" ".join(re.findall(r"\w+", text.lower())) for text in texts]
    return pd.factorize(np.array(normalised, dtype=object))[0]
