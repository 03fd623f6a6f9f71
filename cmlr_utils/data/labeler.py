"""Five findings in a report's own words: each present, absent, uncertain, or not mentioned.

Rules in the manner of NegEx (Chapman et al., J Biomed Inform 2001) and ConText (Harkema et al., J Biomed Inform 2009):
find the words that name a finding, then ask what stands before and behind them in the same clause.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from cmlr_utils.data.files import CourseError
from cmlr_utils.data.mesh import PATHOLOGIES
from cmlr_utils.data.texts import sentences

REACH = 200  # characters on each side of a finding within which a word decides about it; keeps the time linear
HEART = r"\b(?:heart|cardiac)(?: (?:size|silhouette|contours?|shadow))*"
# What names a finding, and what it means when nothing around it says otherwise. A group marks the deciding word.
TARGETS = tuple(
    (pathology, value, re.compile(pattern))
    for pathology, value, pattern in (
        ("atelectasis", 1, r"\b\w*atelecta\w+|\b(?:lobe|lobar|lung) collapse|\bcollapse of [\w ]{0,40}?(?:lung|lobe)"),
        ("cardiomegaly", 1, rf"\bcardiomegaly|\b(?:cardiac|heart) enlargement|\benlarge\w+ (?:of )?(?:the )?{HEART}"),
        ("cardiomegaly", 1, rf"{HEART}:?(?: (?!with\b)[\w-]+){{0,7}}? (enlarged|large)\b|\bincrease in heart size"),
        ("cardiomegaly", -1, rf"{HEART}(?: [\w-]+){{0,3}}? (borderline)\b|\b(borderline)(?: [\w-]+)? {HEART}"),
        ("cardiomegaly", 0, rf"\b(normal)(?: [\w-]+)? (?:{HEART}|cardio\w+)|(?:{HEART}|\bcardio\w+)"
                            r"(?:[,:]? [\w-]+){0,8}?[,:]? (normal|unremarkable|within (?:\w+ )?limits|not enlarged)\b"),
        ("consolidation", 1, r"\bconsolidat\w+"),
        ("edema", 1, r"(?<!laryngeal )(?<!tissue )(?<!marrow )(?<!ankle )(?<!leg )\bo?edema\w*"),
        ("pleural effusion", 1, r"(?<!pericardial )(?<!joint )\beffusions?\b|\bpleural fluid\b|"
                                r"\bpleural (?:or|and|and/or) pericardial effusions?\b"),
    )
)  # fmt: skip
# Where one statement ends and the next begins: "no pneumothorax, | small effusion", but "no consolidation, large
# effusion or pneumothorax" is one list.
CLAUSE_END = re.compile(
    r";|\b(?:findings|impression):|\s\d{1,2}[.)]\s|\b(?:but|however|although|though|except|otherwise|whereas)\b|"
    r",\s(?:and\s)?(?=(?:the|there|an?|small|tiny|trace|minimal|mild|moderate|marked|severe|large|left|right|bilateral|"
    r"bibasilar|basilar|patchy|streaky|low|stable|unchanged|persistent|possibl[ey]|probabl[ey]|question\w*|suspect\w*|"
    r"likely|new|increased|heart|cardiac|cardiomegaly|lungs?|with)\b(?!.{0,120}(?:\bn?or\b|/)))|"
    r"\band\s(?=(?:the|there|heart|cardiac)\b)|,?\s(?:and\s|with\s)?(?=(?:no(?! longer)|without|negative for)\b)"
)
NOT_ABOUT_NOW = re.compile(
    r"\b(?:history of|hx of|h/o|(?:evaluat|assess)\w* for|rule out|r/o|indication:|reason for|treatment of|risk of)"
)
NO_NEGATION = re.compile(  # "no significant change in", "cannot exclude", "nearly resolved": nothing is absent
    r"\b(?:no|not|without|can ?not)(?: [\w-]+){0,3}? (?:change|changed|difference|increased?|progression|"
    r"improvement|exclude\w*|rule\w*|only)\b|\b(?:near|partial|incomplete)[\w-]*(?: complete)? (?:resol\w+|clear\w*)"
)
NEGATED_BEFORE = re.compile(
    r"\b(?:no|non|not(?! (?:\w+ ){0,2}(?:seen|visualized|imaged|included|evaluated)\b)|without|w/o|negative for|"
    r"(?:free|clear|absence|resolution|clearing|lack) of|free from|neither|nor|denies|resolved|rather than)\b|\bnon-?$"
)
NEGATED_AFTER = re.compile(  # any words but a verb, then "has resolved" or "is not seen"
    r"(?:[\s,]+(?!(?:is|are|was|were|has|have)\b)[^\s,]+){0,12}?\s(?:"
    r"(?:is|are|was|were|has|have)\s(?:(?!not|near|almost|part|incomp)[a-z]+\s){0,3}?"
    r"(?:not (?:\w+ly )?(?:seen|identified|demonstrated|visualized|present|appreciated|evident|apparent|noted|detected)"
    r"|no longer|resolved|cleared|absent|excluded|ruled out|unlikely)\b|no longer|resolved\b)|\W{1,3}(?:none|absent)\b"
)
HEDGED_BEFORE = re.compile(
    r"\b(?:may|maybe|might|could|possibl[ey]|question\w*|suspicio\w+|suspected|concern\w*|whether|differential|perhaps|"
    r"equivocal|unclear|uncertain|less likely|if any|(?:can ?not|not|difficult to)(?: \w+)? (?:exclude|rule))\b"
)
HEDGED_AFTER = re.compile(
    r"\b(?:(?:can ?not|not|difficult to)\s(?:\w+\s){0,3}?(?:excluded?|ruled? out)|(?:is|are|be|also)\s(?:\w+\s)?"
    r"(?:possible|suspected|questioned|considered)|(?:may|might|could) be (?:present|seen|there)|if any)\b"
    r"|(?:suspected|possible)\W*$|^ (?:is )?less likely|\?"
)
OR_BEFORE = re.compile(r"\b(or|versus|vs)\b(?:\W+[\w-]+){0,4}\W*$|\b(borderline)\b")
OR_AFTER = re.compile(r"(?:\W+(?!may|might|could|represent|is\b|are\b)[\w-]+){0,4}?\W+(or|versus|vs)\b")


@dataclass(frozen=True)
class Mention:
    """One place of a report that speaks of a finding, and what it says."""

    pathology: str  # one of PATHOLOGIES
    sentence: str  # as `sentences` gives it
    start: int  # of the words that name the finding, in characters of `sentence`
    end: int
    value: int  # 1 present, 0 absent, -1 uncertain
    why: str  # the words that made it so, such as "no" or "may"; "" where the finding is plainly stated

    @property
    def coded(self) -> bool:
        """Whether IU-RR's coder would have coded it, by the training part, report by report.

        "Atelectasis or scarring" has its code in 64 of 69, a borderline heart in 30 of 36, what "may be" in 3 of 81.
        """
        return self.value == 1 or (self.value == -1 and self.why in ("borderline", "or", "versus", "vs"))


def label_text(text: str) -> np.ndarray:
    """Labels of a report's findings and impression, float32 [5]: 1 present, 0 absent, -1 uncertain, NaN not mentioned.

    Where sentences differ, present beats uncertain, and uncertain beats absent. Raises CourseError if no str is given.
    """
    labels = np.full(len(PATHOLOGIES), np.nan, dtype=np.float32)
    for mention in sorted(label_mentions(text), key=lambda mention: (0, -1, 1).index(mention.value)):
        labels[PATHOLOGIES.index(mention.pathology)] = mention.value
    return labels


def label_mentions(text: str) -> list[Mention]:
    """Everything that a report's findings and impression say about the five findings, sentence by sentence.

    Mentions in a history, a question to the radiologist or a plan are left out. Raises CourseError if no str is given.
    """
    if not isinstance(text, str):
        raise CourseError(f"A report to label is text (str), not {type(text).__name__}: pass findings and impression.")
    mentions = []
    for sentence in sentences(text):
        for start, stop in pairwise((0, *(end.start() for end in CLAUSE_END.finditer(sentence)), len(sentence))):
            clause = sentence[start:stop]
            for pathology, value, pattern in TARGETS:
                for found in pattern.finditer(clause):
                    first, end = found.start(found.lastindex or 0), found.end()
                    before, after = clause[max(0, first - REACH) : first], clause[end : end + REACH]
                    if not NOT_ABOUT_NOW.search(before):
                        verdict = judge(before, after) if value == 1 else (value, found[found.lastindex])
                        mentions.append(Mention(pathology, sentence, start + found.start(), start + end, *verdict))
    return mentions


def judge(before: str, after: str) -> tuple[int, str]:
    """What the words around a finding make of it: its value and the words that decide."""
    after = after.partition(" with ")[0]
    if cue := NEGATED_BEFORE.search(NO_NEGATION.sub(" ", before)) or NEGATED_AFTER.match(after):
        return 0, cue[0].strip(" ,")
    hedge = HEDGED_BEFORE.search(before) or HEDGED_AFTER.search(after)
    if cue := hedge or OR_BEFORE.search(before) or OR_AFTER.match(after):
        return -1, cue[cue.lastindex or 0].strip()
    return 1, ""
