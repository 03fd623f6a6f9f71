"""Compare ways to label a report's text with the radiologist's own codes: `python benchmarks/labeler.py`.

Every way gets the same sentences and the same words that name findings; they differ in what they make of the words
around them. medspacy and negspacy take part where they are installed, best in an environment of their own.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import binomtest
from tqdm import tqdm

from cmlr_utils.data.files import write_text
from cmlr_utils.data.labeler import TARGETS, label_mentions
from cmlr_utils.data.mesh import PATHOLOGIES
from cmlr_utils.data.reports import Study, read_reports
from cmlr_utils.data.splits import with_split

TABLE = Path(__file__).with_suffix(".md")
READ = Path(__file__).with_name("labeler_disagreements.csv")  # each disagreement of rules and code, read and sorted
LIBRARIES = {"medspacy": ("medspacy.context", "medspacy_context"), "negspacy": ("negspacy.negation", "negex")}


def by_rules(study: Study) -> dict[str, set[str]]:
    """The findings that a study's report holds: by keyword alone, and by the rules under three readings of -1."""
    mentions = label_mentions(f"{study.findings} {study.impression}")
    return {
        "keyword": {p for p, value, words in TARGETS if value and any(map(words.search, study.sentences))},
        "rules, -1 counts as absent": {m.pathology for m in mentions if m.value == 1},
        "rules, -1 counts as present": {m.pathology for m in mentions if m.value},
        "rules, `coded`": {m.pathology for m in mentions if m.coded},
    }


def by_library(name: str) -> Callable[[Study], dict[str, set[str]]]:
    """The same by medspacy's ConText or negspacy's NegEx, with the cue words that each brings along."""
    import spacy

    module, component = LIBRARIES[name]
    importlib.import_module(module)
    nlp = spacy.blank("en")
    judge = nlp.add_pipe(component)

    def label(study: Study) -> dict[str, set[str]]:
        present, possible = set(), set()
        for sentence in study.sentences:
            doc = nlp.make_doc(sentence)
            named = [(p, found) for p, value, words in TARGETS if value for found in words.finditer(sentence)]
            spans = [(p, found.span(found.lastindex or 0)) for p, found in named]
            ents = [doc.char_span(*span, label=p, alignment_mode="expand") for p, span in spans]
            doc.ents = spacy.util.filter_spans(ents)
            for i, token in enumerate(doc):
                token.is_sent_start = i == 0
            for ent in judge(doc).ents if ents else ():
                if name == "negspacy":
                    present |= set() if ent._.negex else {ent.label_}
                elif not (ent._.is_negated or ent._.is_historical or ent._.is_hypothetical):
                    (possible if ent._.is_uncertain else present).add(ent.label_)
        if name == "negspacy":
            return {"negspacy": present}
        return {"medspacy, uncertain is absent": present, "medspacy, uncertain is present": present | possible}

    return label


def scores(coded: np.ndarray, found: np.ndarray) -> list[str]:
    """Precision, recall and F1, each with a 95 % Wilson interval; F1 by way of TP / (TP + FP + FN), a proportion."""
    hits, union = (coded & found).sum(), (coded | found).sum()
    three = []
    for total in (found.sum(), coded.sum(), union):
        interval = binomtest(int(hits), int(total)).proportion_ci(method="wilson")
        three.append(np.array([hits / total, interval.low, interval.high]))
    three[2] = 2 * three[2] / (1 + three[2])
    return ["{:.3f} [{:.3f}, {:.3f}]".format(*score) for score in three]


def table(*rows: list) -> list[str]:
    return ["| " + " | ".join(map(str, row)) + " |" for row in (rows[0], ["---"] * len(rows[0]), *rows[1:])] + [""]


def main() -> None:
    judges, said = [by_rules], []
    for name in LIBRARIES:
        try:
            said.append(f"{name} {version(name)}")
            judges.append(by_library(name))
        except PackageNotFoundError:
            said.append(f"{name} is not installed and left out")
    print(*said, sep="; ")
    studies = [s for s in with_split(read_reports()) if s.text and not np.isnan(s.labels).any()]
    answers = [
        {way: np.isin(PATHOLOGIES, list(held)) for judge in judges for way, held in judge(study).items()}
        for study in tqdm(studies, desc="labels", unit="report", disable=None)
    ]
    ways = {way: np.array([answer[way] for answer in answers]) for way in answers[0]}
    coded, best = np.array([study.labels == 1 for study in studies]), ways["rules, `coded`"]
    split, numbers = np.array([study.split for study in studies]), range(len(PATHOLOGIES))
    lines = [f"Made by `python benchmarks/labeler.py`; {', '.join(said)}. Brackets: 95 % Wilson intervals.", ""]
    for part in ("train", "test"):
        here = split == part
        lines += [f"F1 on {part}, {here.sum():,} coded reports with text:", ""]
        rows = [[way, *(scores(coded[here, k], f[here, k])[2][:5] for k in numbers)] for way, f in ways.items()]
        lines += table(["way", *PATHOLOGIES], *rows) + [f"The rules' `coded` reading on {part}:", ""]
        rows = [[PATHOLOGIES[k], coded[here, k].sum(), *scores(coded[here, k], best[here, k])] for k in numbers]
        lines += table(["finding", "coded", "precision", "recall", "F1"], *rows)
    read = pd.read_csv(READ).set_index(["study", "pathology"])["kind"]
    differ = [(studies[i], PATHOLOGIES[k]) for i, k in np.argwhere(best != coded) if split[i] != "val"]
    kinds = [(read.get((study.id, pathology), "not read yet"), pathology, study.split) for study, pathology in differ]
    counts = pd.DataFrame(kinds, columns=["kind", "finding", "part"]).value_counts().unstack(fill_value=0)
    lines += ["Where that reading and the code differ, and why, after reading each report:", ""]
    lines += table(
        ["kind", "finding", "train", "test"],
        *counts.sort_index().reset_index()[["kind", "finding", "train", "test"]].to_numpy(),
    )
    write_text(TABLE, "\n".join(lines[:-1]) + "\n")
    print(TABLE.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
