"""Every number of a data card is counted here from the data themselves, or stands beside a link to its source."""

from __future__ import annotations

import re
import tarfile
import zipfile
from collections import Counter
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from defusedxml.ElementTree import fromstring

import cmlr_utils
from cmlr_utils.data.chexpert import BALANCED, FIVE, PHANTOMS, balanced, chosen, read_chexpert
from cmlr_utils.data.mesh import HEADINGS, PATHOLOGIES
from cmlr_utils.data.nih import NIH_NAMES
from cmlr_utils.data.phantom import render_phantom
from cmlr_utils.data.reports import read_reports, torchxrayvision_file
from cmlr_utils.data.splits import leakage
from cmlr_utils.data.studies import PANEL_PER_CLASS, TWIN_CASES, TWINS_PER_CASE
from cmlr_utils.data.tables import drawn_for_validation
from cmlr_utils.data.texts import text_groups

DATA = Path(__file__).resolve().parents[1] / "data"
CARDS = {path.stem: path.read_text(encoding="utf-8") for path in sorted((DATA / "cards").glob("*.md"))}
HEADING_LINES = [
    *("What it is", "Where it comes from, and its terms", "How it was made", "What is in it"),
    *("How the course uses it", "Known faults", "What it must not be used for", "Reference"),
]
WORDS = dict(enumerate("none one two three four five six seven eight nine ten".split()))
NOT_DRAWN = ("Thoracic Vertebrae", "Spine", "Osteophyte", "Spondylosis")


def table(name: str) -> pd.DataFrame:
    return pd.read_csv(torchxrayvision_file(name), low_memory=False)


def percent(share: float) -> str:
    return f"{100 * share:.0f} %"


@cache
def iu_rr() -> pd.DataFrame:
    """One row a report, read without the package's own reader: its sections, headings, codes and images."""
    rows = []
    with tarfile.open(torchxrayvision_file("NLMCXR_reports.tgz")) as tar:
        for member in tar:
            if member.name.endswith(".xml"):
                root = fromstring(tar.extractfile(member).read())
                sections = {s.get("Label"): " ".join((s.text or "").split()) for s in root.iter("AbstractText")}
                codes = [code.text for code in root.iter("major")]
                images = [image.get("id") for image in root.iter("parentImage")]
                of_report = {"id": root.find("uId").get("id"), "licence": root.findtext("licenseURL")}
                rows.append(sections | of_report | {"codes": codes, "images": images})
    reports = pd.DataFrame(rows)
    reports["text"] = reports["FINDINGS"] + " " + reports["IMPRESSION"]
    reports["headings"] = reports["codes"].map(lambda codes: {code.split("/")[0].strip() for code in codes})
    return reports


def numbers_of_iu_rr(studies) -> list[str]:
    reports = iu_rr()
    count, said = len(reports), reports["text"].str.strip() != ""
    per_report = Counter(map(len, reports["images"]))
    shown = reports[reports["images"].map(len) > 0]
    views = [study.views for study in studies]
    with_heading = Counter(heading for headings in reports["headings"] for heading in headings)
    uncoded = reports["headings"].map(lambda headings: "No Indexing" in headings)
    everything = reports[["INDICATION", "COMPARISON", "FINDINGS", "IMPRESSION"]].agg(" ".join, axis=1)
    marks = {name: text.str.count("X{4,}") for name, text in (("all", everything), ("text", reports["text"]))}
    texts = [study.text for study in read_reports() if study.text]
    groups = np.bincount(text_groups(texts))
    train, test = ([s for s in studies if s.split == part] for part in ("train", "test"))
    earlier = r"(?i)\b(?:unchanged|stable|prior|previous|previously|interval|again|since)\b"
    borderline = r"^Cardiomegaly/(?:.*/)?borderline(?:/|$)"
    about_effusion = reports["headings"].map(lambda found: "effusion" in " ".join(found).lower())
    headers, seen = table("nlmcxr_dicom_metadata.csv.gz"), table("nlmcxr_tsne_pa.csv.gz").set_index("imageid")
    headers["lateral"] = headers["imageid"].map(seen["tsne-view"]) == "L"
    looked_at = headers["imageid"].isin(seen.index)
    frontal = headers["View Position"].isin(["PA", "AP"]) & looked_at
    plates = headers["Acquisition Device Processing Code"] == "60003"
    numbers = headers["imageid"].str.extract(r"^CXR(\d+)_")[0]
    first = headers.drop_duplicates("Patient ID")
    dates = [pd.to_datetime(first[name].astype(str)) for name in ("Study Date", "Patient's Birth Date")]
    age = (dates[0] - dates[1]).dt.days / 365.25
    named = {image for images in reports["images"] for image in images}
    odd = {"CXR1_1_IM-0001-3001", "CXR1_1_IM-0001-4001"}  # written with one number less in the headers
    (headless,) = named - set(headers["imageid"]) - odd
    assert headers["Patient's Sex"].isna().all()
    assert set(reports["licence"]) == {"http://creativecommons.org/licenses/by-nc-nd/4.0/"}
    expected = [
        f"CC BY-NC-ND 4.0, as stated in each of the {count:,} files",
        f"{count:,} reports and {len(named):,} images",
        *(f"{name.lower()} {(reports[name] != '').sum():,}" for name in ("INDICATION", "FINDINGS", "IMPRESSION")),
        f"comparison {(reports['COMPARISON'] != '').sum():,}",
        f"{len(shown):,} studies have a radiograph, and {(said & reports.index.isin(shown.index)).sum():,} of these",
        "Images per report: " + ", ".join(f"{WORDS[k]} {per_report[k]:,}" for k in range(6)),
        f"{sum(v.count('frontal') for v in views):,} frontal, {sum(v.count('lateral') for v in views):,} lateral",
        f"{sum('frontal' in v for v in views):,} studies have a frontal one",
        f"else coded: {sum(codes == ['normal'] for codes in reports['codes']):,} reports",
        f"{age.min():.0f} to {int(age.max()):.0f} years, median {age.median():.0f}",
        f"{marks['all'].sum():,} `XXXX` in {(marks['all'] > 0).sum():,} reports",
        f"findings and impression {marks['text'].sum():,} in {(marks['text'] > 0).sum():,}.",
        f"{uncoded.sum()} reports were never coded, {uncoded[shown.index].sum()} of them with a radiograph",
        f"{headers['View Position'].isna().sum():,} of {len(headers):,} headers have no View Position",
        f"Of the {frontal.sum():,} first images that say PA or AP, {headers['lateral'][frontal].sum()} are lateral",
        f"of the {plates.sum():,} from plates with the processing code 60003, "
        f"{(headers['View Position'][plates] == 'PA').sum():,} say PA, and {headers['lateral'][plates].sum()} of the "
        f"{(plates & looked_at).sum()} whose pixels were looked at",
        f"{headless}, has no header",
        f"the report's own number in all {(headers['Patient ID'].astype(str) == numbers).sum():,},",
        f"{groups[groups > 1].sum():,} of {len(texts):,} reports share",
        f"with another: {(groups > 1).sum()} texts",
        f"{(reports['IMPRESSION'] == 'No acute cardiopulmonary abnormality.').sum()} impressions are",
        f"{leakage(train, test).texts} of the {len(test)} test reports also stand in train",
        f"finds {about_effusion.sum()} reports, the right heading {with_heading['Pleural Effusion']}",
        f"Of {with_heading['Cardiomegaly']} cardiomegalies "
        f"{reports['codes'].map(lambda codes: any(re.search(borderline, code) for code in codes)).sum()} are",
        f"{reports['text'].str.contains(earlier).sum():,} reports say in findings or impression",
    ]
    parts = {study.id: study.split for study in studies}
    for name, heading in zip(PATHOLOGIES, HEADINGS, strict=True):
        present = shown[shown["headings"].map(lambda headings, heading=heading: heading in headings)]
        split = Counter(present["id"].map(parts))
        absent = len(shown) - len(present) - uncoded[shown.index].sum()
        row = [f"{len(present):,}", f"{absent:,}", f"{uncoded[shown.index].sum()}"]
        expected.append(" | ".join([f"| {name}", *row, " / ".join(str(split[p]) for p in ("train", "val", "test"))]))
    sizes = Counter(parts.values())
    expected.append(" / ".join(f"{sizes[part]:,}" for part in ("train", "val", "test")) + " |")
    in_test = {name: sum(s.labels[k] == 1 for s in test) for k, name in enumerate(PATHOLOGIES)}
    few = f"{WORDS[in_test['consolidation']]} consolidations and {WORDS[in_test['edema']]} edemas in test"
    return [*expected, few.capitalize()]


def numbers_of_phantom(studies) -> list[str]:
    headings = Counter(code.split("/")[0] for codes in iu_rr()["codes"] for code in codes)
    with zipfile.ZipFile(torchxrayvision_file("semantic_masks_v7labs_lungs.zip")) as archive:
        outlines = sum(not name.endswith("/") for name in archive.namelist())
    uncoded = sum(np.isnan(study.labels).all() for study in studies)
    return [
        f": {outlines} masks that torchxrayvision carries",
        f'| `load_iu_rr(images="phantom")` | {len(studies):,},',
        f"{PANEL_PER_CLASS * 6}: {PANEL_PER_CLASS} of each pathology, {PANEL_PER_CLASS} normal",
        f"{len(TWIN_CASES)} cases, {TWINS_PER_CASE} bodies each",
        f"{PHANTOMS:,} of train unless more are asked for, {BALANCED * 5:,} of the 5x200",
        f"The {uncoded} studies that nobody coded",
        f"broken bones ({headings['Fractures, Bone']} codes of IU-RR)",
        f"`Spondylosis`: {sum(headings[name] for name in NOT_DRAWN)} codes)",
    ]


def numbers_of_chexpert(_) -> list[str]:
    rows = table("chexpert_train.csv.gz")
    parts = rows["Path"].str.split("/")
    rows["patient"], rows["study"] = parts.str[2], rows["Path"].str.rpartition("/")[0]
    front = rows[rows["Frontal/Lateral"] == "Frontal"]
    view, support = front["AP/PA"], front["Support Devices"] == 1
    effusion, edema = front["Pleural Effusion"] == 1, front["Edema"] == 1
    doubt, per_patient = (front[list(FIVE)] == -1).any(axis=1), front["patient"].value_counts()
    read, path = read_chexpert()
    test, train = balanced(read), chosen(read, path, "train", None)
    assert set(test["patient"]).isdisjoint(train["patient"])
    held_out = drawn_for_validation(train["patient"]).sum()
    assert (len(rows) + 234 + 668, rows["patient"].nunique() + 200 + 500) == (224_316, 65_240)
    expected = [
        f"{len(rows):,} images of {rows['patient'].nunique():,} patients in {rows['study'].nunique():,} studies, "
        f"{len(front):,} frontal ({(view == 'AP').sum():,} AP, {(view == 'PA').sum():,} PA) and "
        f"{len(rows) - len(front):,} lateral",
        f"The frontal rows, {front['patient'].nunique():,} patients",
        f"{len(test):,} rows of {test['patient'].nunique():,} patients, train {len(train) - held_out:,} rows, "
        f"val {held_out:,}",
        f"male in {(rows['Sex'] == 'Male').sum():,} rows and female in {(rows['Sex'] == 'Female').sum():,}; "
        f"median age {rows['Age'].median():.0f}",
        f"denied in words in {(front['Atelectasis'] == 0).sum():,} rows only",
        f"{doubt.sum():,} frontal rows ({percent(doubt.mean())}) have a -1",
        f"more doubts ({(front['Atelectasis'] == -1).sum():,}) than positives ({(front['Atelectasis'] == 1).sum():,})",
        f"One patient has {rows['patient'].value_counts().max()} images; {(per_patient == 1).sum():,} patients",
        f"{percent((view == 'AP').mean())} of the frontal rows are AP: of those with effusion "
        f"{percent((view[effusion] == 'AP').mean())}, of the others {percent((view[~effusion] == 'AP').mean())}",
        f"{percent(support[edema].mean())} of the rows with edema and in {percent(support[~edema].mean())} without",
        f"{view.isin(['LL', 'RL']).sum()} frontal rows have LL or RL",
        f"the age is 0 in {(rows['Age'] == 0).sum()} rows, and {rows['Age'].max():.0f}, where it is cut off, in "
        f"{(rows['Age'] == rows['Age'].max()).sum():,}; {WORDS[(rows['Sex'] == 'Unknown').sum()]} row",
    ]
    for name in (*FIVE, "No Finding", "Support Devices"):
        counts = [*((front[name] == value).sum() for value in (1, 0, -1)), front[name].isna().sum()]
        expected.append(" | ".join([f"| {name.lower()}", *(f"{n:,}" for n in counts)]) + " |")
    return expected


def numbers_of_nih(_) -> list[str]:
    rows, boxes = table("Data_Entry_2017_v2020.csv.gz"), table("BBox_List_2017.csv.gz")
    found = rows["Finding Labels"].str.get_dummies("|").astype(bool)
    per_patient = rows["Patient ID"].value_counts()
    view, sex, often = rows["View Position"], rows["Patient Gender"], per_patient[per_patient >= 20]
    boxed = rows[rows["Image Index"].isin(boxes["Image Index"])]
    expected = [
        f"{len(rows):,} images of {len(per_patient):,} patients: {(view == 'PA').sum():,} PA and "
        f"{(view == 'AP').sum():,} AP; {(sex == 'M').sum():,} of men, {(sex == 'F').sum():,} of women. "
        f"{found['No Finding'].sum():,} have no finding, {(found.sum(axis=1) > 1).sum():,} more than one",
        f"{len(boxes)} boxes on {len(boxed)} images of {boxed['Patient ID'].nunique()} patients",
        f"{WORDS[boxes['Finding Label'].nunique()]} of the fourteen findings",
        f"the table of 2020 has {found['Atelectasis'].sum():,}",
        f"{(per_patient == 1).sum():,} patients have one image; one has {per_patient.max()}. The {len(often)} patients "
        f"with 20 or more give {often.sum():,} images, {percent(often.sum() / len(rows))} of all",
        f"{percent((view[found['Edema']] == 'AP').mean())} of the edemas are AP against "
        f"{percent((view == 'AP').mean())} of all",
        f'{found["Infiltration"].sum():,} images are "Infiltration"',
    ]
    for name, column in zip(PATHOLOGIES, NIH_NAMES, strict=True):
        has, drawn = found[column], (boxes["Finding Label"] == column).sum()
        row = [f"{has.sum():,}", f"{rows['Patient ID'][has].nunique():,}", percent((view[has] == "AP").mean())]
        expected.append(" | ".join([f"| {name}", *row, str(drawn or "none")]) + " |")
    return expected


COUNTED = {
    "iu-rr": numbers_of_iu_rr,
    "phantom": numbers_of_phantom,
    "chexpert": numbers_of_chexpert,
    "nih-chestxray14": numbers_of_nih,
    "chexphoto": lambda _: [],  # not at hand: published numbers only
    "your-own-pairs": lambda _: [],
}


def test_every_data_set_has_its_card_and_its_line_in_the_index():
    assert set(CARDS) == set(COUNTED)
    index = (DATA / "README.md").read_text(encoding="utf-8")
    assert all(f"](cards/{name}.md)" in index for name in CARDS)


@pytest.mark.parametrize("name", CARDS)
def test_all_cards_have_the_same_headings(name):
    assert re.findall(r"^## (.*)$", CARDS[name], re.MULTILINE) == HEADING_LINES


@pytest.mark.parametrize("name", CARDS)
def test_each_number_is_counted_or_stands_beside_its_source(name, studies):
    expected, card = COUNTED[name](studies), CARDS[name]
    assert [phrase for phrase in expected if phrase not in card] == []
    for phrase in sorted(expected, key=len, reverse=True):
        card = card.replace(phrase, " ")
    assert unsourced(card) == []


def unsourced(card: str) -> list[str]:
    """The numbers of two digits and more in those blocks of a card that have no link to the web; names do not count."""
    body = re.sub(r"CC BY(-NC-ND)? 4\.0|Apache 2\.0", " ", card.partition("\n## Reference")[0])
    blocks = re.split(r"\n\n|\n(?=- )", re.sub(r"`[^`]*`", " ", body))
    open_blocks = [re.sub(r"\]\([^)]*\)", "]", block) for block in blocks if "](http" not in block]
    return [n for block in open_blocks for n in re.findall(r"(?<![\w.-])\d[\d,.]*\d(?![\w-])", block)]


@pytest.mark.parametrize(
    "text, left",
    [
        ("It has 12,345 images.", ["12,345"]),
        ("It has [12,345 images](https://example.org).", []),
        ("- [12](https://example.org)\n- 3.5 %", ["3.5"]),
        ("5x200, ChestX-ray14, `60003`, CC BY 4.0, 8-bit, -1, 1 and 0", []),
        ("Text.\n\n## Reference\n\nPages 304 to 310.", []),
    ],
)
def test_a_number_without_either_is_caught(text, left):
    assert unsourced(text) == left


@pytest.mark.parametrize("path", [DATA / "README.md", *(DATA / "cards" / f"{name}.md" for name in CARDS)], ids=str)
def test_links_lead_to_files(path):
    targets = re.findall(r"\]\((?!https?:)([^)#]+)\)", path.read_text(encoding="utf-8"))
    assert [target for target in targets if not (path.parent / target).is_file()] == []


@pytest.mark.parametrize("name", ["README", *CARDS])
def test_functions_that_are_called_there_exist(name):
    text = (DATA / "README.md").read_text(encoding="utf-8") if name == "README" else CARDS[name]
    called = set(re.findall(r"\b((?:load|read|render)_\w+)\(", text))
    assert {function for function in called if not hasattr(cmlr_utils, function)} == set()


@pytest.mark.parametrize("heading", ["Fractures, Bone/ribs/left", *NOT_DRAWN, "No Indexing"])
def test_the_phantom_card_names_only_what_is_not_drawn(heading, bank):
    drawn, normal = (render_phantom("card", [code], 32).pixels for code in (heading, "normal"))
    np.testing.assert_array_equal(drawn, normal)
