"""Sentences of real and invented reports, and groups of identical texts."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from cmlr_utils.data.texts import SECTIONS, report_sentences, sentences, text_groups

# What stands in a real report, in short, and where a reader ends its sentences.
REAL = {
    "CXR4": ["could represent a cavitary lesion in the left lung apex.", "there are streaky opacities"],
    "CXR9": ["by dr. telephone at p.m. / .", "dr. < >technologist receipt"],
    "CXR25": [
        "left lower lobe airspace disease and bilateral pleural effusions, left greater",
        "this may be secondary",
    ],
    "CXR28": ["interval improvement in consolidative left base opacity.", "multifocal scattered", "stable enlarged"],
    "CXR60": ["there is a 1.9 x 1.8 cm round area of density", "dr. notified by the veriphy"],
    "CXR146": ["pulmonary vascularity is normal.>]", "lung volumes are low."],
    "CXR195": ["normal cardiac contours", "no acute cardiopulmonary abnormalities"],
    "CXR233": ["or subsegmental atelectasis", "abnormal opacity in the right base due"],
    "CXR249": [
        "mass measuring 4.5 x 6.8 cm, increased",
        "otherwise clear lungs.",
        "dr. notified of the critical results",
    ],
    "CXR273": ["cardiomegaly", "indistinct vascular margination"],
    "CXR313": ["with a cardiothoracic ratio of 16.2/24.7.", "diffuse coarse interstitial opacity"],
    "CXR337": ["heart size upper normal thin lv contour.", "unfolded calcified aorta."],
    "CXR353": ["improving bilateral interstitial edema pattern."],
    "CXR501": ["heart size and pulmonary appear normal", "mediastinal contours are normal"],
    "CXR515": ["lungs are clear bilaterally.", "there is no focal consolidation"],
    "CXR672": ["vascular congestion and diffuse interstitial edema", "stable cardiomegaly", "low lung volumes"],
    "CXR688": ["kub", "there are numerous air-filled", "chest", "left basilar airspace disease, atelectasis."],
    "CXR992": ["nodules suggesting pulmonary metastases", "right internal jugular central catheter, the distal tip"],
    "CXR1337": ["low lung volumes", "exam limited on lateral view", "lungs appear grossly clear.", "pleural spaces"],
    "CXR1423": ["vascularity normal.", "calcified breast implants"],
    "CXR2027": ["1.5 cm nodule in the left midlung zone."],
    "CXR2192": ["no pneumothorax or pleural effusion.", "heart size and pulmonary vascularity", "minimal degenerative"],
    "CXR2548": ["blunting of the costophrenic suggestive", "this is seen in", "esophagogastric to the in"],
    "CXR2581": ["chest.", "the heart, pulmonary and mediastinum", "abdomen.", "there is a normal bowel pattern."],
    "CXR2633": ["2.1 cm nodular density in the anterior costophrenic"],
    "CXR2644": ["were discussed with at p.m. , telephone."],
    "CXR3278": ["chest:", "no acute cardiopulmonary abnormality identified.", "right shoulder and right clavicle:"],
    "CXR3288": ["or pleural effusion.", "cardio mediastinal silhouette", "no acute cardiopulmonary abnormality."],
    "CXR3498": ["fracture is present on right rib 4.", "the small amount of pleural fluid"],
    "CXR3842": ["low lung volumes", "lungs appear clear", "heart and pulmonary are normal", "pleural spaces are clear"],
    "CXR3891": ["heart size normal.", "increased right base atelectasis.", "catheter overlying"],
}


@pytest.mark.parametrize("study_id", REAL)
def test_sentences_of_real_reports(reports, study_id):
    found = report_sentences(next(study for study in reports if study.id == study_id))
    position = -1
    for beginning in REAL[study_id]:
        rest = found[position + 1 :]
        hits = [i for i, sentence in enumerate(rest) if beginning in sentence]
        assert hits, (beginning, rest)
        position += 1 + hits[0]
        if beginning.endswith((".", "]")):
            assert found[position].endswith(beginning)


@pytest.mark.parametrize(
    "report, expected",
    [
        ("Seen by Dr. Smith. No edema.", ["seen by dr. smith.", "no edema."]),
        ("Scarring vs. atelectasis. Clear.", ["scarring vs. atelectasis.", "clear."]),
        ("Mass of approx. 3 cm. Stable.", ["mass of approx. 3 cm.", "stable."]),
        ("Devices, e.g. a pacer, i.e. leads.", ["devices, e.g. a pacer, i.e. leads."]),
        ("Rib No. 5 is broken. No. Yes it is.", ["rib no. 5 is broken.", "no.", "yes it is."]),
        ("The T. spine and the L. spine. J. Doe agrees.", ["the t. spine and the l. spine.", "j. doe agrees."]),
        ("1. No effusion. 2. Stable heart.", ["no effusion.", "stable heart."]),
        ("1) No effusion 2) Stable heart", ["no effusion", "stable heart"]),
        ("1 . No effusion. 2 . Stable heart.", ["no effusion.", "stable heart."]),
        ("(1) No effusion; (2) stable heart.", ["no effusion;", "stable heart."]),
        ("1.No effusion.2.Stable heart.", ["no effusion.", "stable heart."]),
        ("1. No effusion 2. Stable heart 3. Clear", ["no effusion", "stable heart", "clear"]),
        ("Impression: 1. No effusion.", ["impression:", "no effusion."]),
        ("Fracture of rib 4. Stable heart.", ["fracture of rib 4.", "stable heart."]),
        ("Two (2) views show edema.", ["two (2) views show edema."]),
        ("Mass of 1.5 x 2 cm. It grew by .5 mm.", ["mass of 1.5 x 2 cm.", "it grew by .5 mm."]),
        ("A 2 cm. nodule. Ratio 12.5. Large.", ["a 2 cm. nodule.", "ratio 12.5.", "large."]),
        ("Tip in XXXX. No edema.", ["tip in .", "no edema."]),
        ("XXXX. XXXX XXXX. No edema. XXXX", ["no edema."]),
        ("Broken 4XXXX wire. Seen at XXXXpm.", ["broken 4 wire.", "seen at pm."]),
        ("Effusion.No pneumothorax.", ["effusion.", "no pneumothorax."]),
        ("Seen at XXXX.In the lung.", ["seen at .", "in the lung."]),
        ("At 10:30 a.m. by phone. At 11 p.m. No answer.", ["at 10:30 a.m. by phone.", "at 11 p.m.", "no answer."]),
        ("At 3 p.m. XXXX/XXXX. Done.", ["at 3 p.m. / .", "done."]),
        ("NO EDEMA. HEART IS LARGE.NO EFFUSION.", ["no edema.", "heart is large.", "no effusion."]),
        ("normal. lungs are clear. no edema", ["normal.", "lungs are clear.", "no edema"]),
        ("No effusion.. Clear lungs. .", ["no effusion.", "clear lungs."]),
        ("Is it edema? No! Clear; dry.", ["is it edema?", "no!", "clear;", "dry."]),
        ("Lines\nbreak\r\n anywhere .", ["lines break anywhere ."]),
        ("Wires (broken.) Clear.", ["wires (broken.)", "clear."]),
        ("", []),
        (" . 1. 2) ", []),
    ],
)
def test_sentences_end_where_a_reader_ends_them(report, expected):
    assert sentences(report) == expected


def test_all_reports_give_sentences_of_a_length_that_one_reads(reports):
    found = [sentence for study in reports for sentence in report_sentences(study)]
    assert len(found) == 22_856
    assert max(map(len, found)) < 300 and min(map(len, found)) >= 3
    assert sum(len(s) < 12 for s in found) < 0.02 * len(found)
    assert not any("xxxx" in s or s != s.strip() or "  " in s for s in found)


def test_no_word_of_a_report_is_lost(reports):
    def words(text: str) -> Counter:
        return Counter(re.findall("[a-z]{3,}", text.lower()))

    for study in reports[::7]:
        written = words(f"{study.findings} {study.impression}".replace("XXXX", " "))
        assert words(study.text) == written, study.id


def test_the_whole_report_has_its_sections_in_order(reports):
    study = next(s for s in reports if all(getattr(s, section) for section in SECTIONS))
    assert report_sentences(study, SECTIONS) == [s for section in SECTIONS for s in sentences(getattr(study, section))]
    assert report_sentences(study, ["impression"]) == sentences(study.impression)


@settings(max_examples=2_000, deadline=None)
@given(st.text(alphabet=" .;!?)(0123456789aAbBxX\n\tno", max_size=60) | st.text(max_size=60))
def test_any_text_gives_clean_sentences(report):
    for sentence in sentences(report):
        assert sentence == " ".join(sentence.split()) and sentence == sentence.lower() and sentence


def test_a_huge_text_takes_no_long():
    assert len(sentences("No edema. " * 100_000)) == 100_000


def test_equal_texts_have_one_group():
    texts = ["No edema.", "no  EDEMA", "Clear.", "no edema\n", "", "clear", " . "]
    assert text_groups(texts).tolist() == [0, 0, 1, 0, 2, 1, 2]
    assert text_groups([]).shape == (0,)


def test_groups_of_the_real_reports_agree_with_a_dictionary(reports):
    texts = [study.text for study in reports if study.text]
    counts = np.bincount(text_groups(texts))
    seen = Counter(" ".join("".join(c if c.isalnum() else " " for c in text).split()) for text in texts)
    assert sorted(counts) == sorted(seen.values())
    assert (len(texts), len(counts), (counts > 1).sum(), counts[counts > 1].sum()) == (3_927, 3_121, 154, 960)
