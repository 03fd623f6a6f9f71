# %% [markdown]
# # Data: from reports to labels
#
# Every number of this course rests on what radiologists wrote and what people coded from it. So before a model sees
# anything, we read the data ourselves, count, and find out where they mislead.

# %% [markdown]
# **In this notebook you will**
#
# - meet a report, its radiograph and its codes, and turn the pages of all 3,851 studies,
# - derive five labels, and learn what 1, 0, -1 and NaN mean,
# - count findings with intervals, and score the baseline "normal",
# - find out why normal studies disturb a contrastive loss, and what leaks between training and test,
# - meet CheXpert, CheXphoto, NIH and DICOM, and bring pairs of your own.
#
# It builds on [00_start_here](00_start_here.ipynb). About half a minute on two CPU cores, once the
# radiographs are in the cache; four short exercises, half an hour in all.

# %%
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import seaborn as sns
import torch
from PIL import Image
from pydicom import Dataset
from scipy.stats import binomtest, hypergeom
from sklearn.dummy import DummyClassifier
from sklearn.metrics import roc_auc_score

from cmlr_utils import (
    PATHOLOGIES,
    CourseError,
    label_mentions,
    label_text,
    leakage,
    load_chexpert,
    load_iu_rr,
    load_pairs,
    parse_mesh,
    read_reports,
)
from cmlr_utils.course import figures
from cmlr_utils.course.widgets import study_browser
from cmlr_utils.data.chexpert import FIVE, POLICIES, apply_policy, read_chexpert
from cmlr_utils.data.files import data_folder
from cmlr_utils.data.mesh import labels_from_mesh
from cmlr_utils.data.nih import box_masks, read_boxes
from cmlr_utils.data.photograph import PHOTOGRAPHS, photograph
from cmlr_utils.data.radiographs import read_radiograph
from cmlr_utils.data.reports import read_metadata
from cmlr_utils.data.splits import strict, with_split
from cmlr_utils.data.studies import open_i_files
from cmlr_utils.data.texts import text_groups

# %% [markdown]
# ## A report
#
# The National Library of Medicine's Open-i serves the Indiana University collection (IU-RR), de-identified: one XML
# file for each study. The package torchxrayvision carries all of them, so no download is needed.

# %% tags=["nbval-check-output"]
reports = read_reports()
print(f"{len(reports):,} reports, {sum(len(report.images) for report in reports):,} images listed in them")
print(f"{sum(bool(report.images) for report in reports):,} reports with an image")
print(f"{sum(bool(report.images and report.text) for report in reports):,} of these with findings or an impression")

# %% [markdown]
# A report has four sections. *Indication* is why the patient came, *comparison* an older examination, *findings* what
# the radiologist saw, *impression* what it means. Here is one, word for word (CC BY-NC-ND 4.0):

# %% tags=["nbval-check-output"]
SECTIONS = ("indication", "comparison", "findings", "impression")
study = next(report for report in reports if report.id == "CXR3256")
for section in SECTIONS:
    print(f"{section.upper()}\n{figures.wrap(getattr(study, section), 100)}\n")

# %% [markdown]
# `XXXX` stands where a word was removed because it could have told who the patient is; it is often a harmless word.
# Sections can be empty. How often?

# %% tags=["nbval-check-output"]
sections = pd.DataFrame({name: [getattr(report, name) for report in reports] for name in SECTIONS})
marked = sections.apply(lambda texts: texts.str.contains("XXXX"))
pd.DataFrame({"with text": (sections != "").sum(), "with XXXX": marked.sum()})

# %% [markdown]
# The model reads findings and impression, because only they describe the image. `sentences` makes them lower case,
# and removes the `XXXX` and the numbers of listed items.

# %% tags=["nbval-check-output"]
for sentence in study.sentences:
    print("·", sentence)

# %% [markdown]
# ## A radiograph
#
# `load_iu_rr` keeps the studies with an image. The real radiographs are 1.4 GB away, so by default each study's
# is drawn from its codes: a **phantom**. It is no patient's image. In return we know exactly where each finding
# is, which no report tells.

# %%
studies = load_iu_rr("phantom")
parts = {part: studies.split(part) for part in ("train", "val", "test")}
figures.show(
    figures.first_picture(studies, studies.find("CXR3256")),
    caption="A real report (CXR3256, Open-i) and the phantom drawn from its codes. Outlines: "
    "blue atelectasis, orange cardiomegaly, purple-pink pleural effusion. The patient's left is the picture's right.",
    alt="Left: a phantom chest radiograph. Middle: the same with a wide heart outlined, a region at the left lung's "
    "base, and an area at the base of each lung. Right: the report's findings, impression and codes.",
)

# %% [markdown]
# And a real one? `.venv/bin/cmlr download iu-rr` fetches Open-i's PNGs, and this cell then shows the first. Or
# put the path of any PNG, JPEG or DICOM file into `mine`. What you look at here, please do not commit.

# %%
mine = next(iter(open_i_files().values()), None)
if mine is None:
    print("no real radiograph on this machine")
else:
    figure, axes = figures.new_figure(width=3.6, height=3.6)
    figures.draw_radiograph(axes[0, 0], read_radiograph(mine, 256), title="a real radiograph")
    figures.show(figure, caption="A real radiograph, 256 x 256.", alt="A radiograph of the reader's own, in greys.")

# %% [markdown]
# ## An annotation
#
# With each report come codes: a MeSH heading (MeSH: the medical subject headings), then what qualifies it, parted by
# slashes. A person read the report and wrote them. They give us labels, and give the phantom its findings.

# %% tags=["nbval-check-output"]
codes = [
    "Pleural Effusion/right/large",
    "Pulmonary Atelectasis/lingula/mild",
    "Consolidation/lung/upper lobe/right/focal",
    "Cardiomegaly",
]
pd.DataFrame([parse_mesh(code) for code in codes], index=codes)[["heading", "side", "zone", "severity"]]

# %% [markdown]
# The lingula is a part of the left lung, so that code has a side although it does not say "left". Knowledge like this
# belongs in the parser, in one place, with a test.

# %% tags=["nbval-check-output"]
headings = Counter(parse_mesh(code).heading for report in reports for code in report.mesh)
print(f"{len(headings)} headings, {sum(headings.values()):,} codes. The ten most frequent:")
print(", ".join(f"{heading} {count:,}" for heading, count in headings.most_common(10)))

# %% [markdown]
# ## Turn the pages
#
# Nobody should train on data that they have not looked at. Choose a finding, move the slider, and guess from the
# picture before you read. Then lay the outlines over it.

# %%
study_browser(studies)

# %% [markdown]
# Without a running kernel the browser stays empty. These are six of its pages: of the test part, the first study
# with each finding, and the first normal one. Does the fifth surprise you? Its report and its code disagree; we
# come back to it.

# %%
test = parts["test"]
firsts = [int(np.flatnonzero(test.labels[:, k] == 1)[0]) for k in range(5)]
normal_one = next(i for i, study in enumerate(test) if study.normal)
figures.show(
    figures.pages_picture(test, [*firsts, normal_one], [*PATHOLOGIES, "normal"]),
    caption="Six studies: phantoms with their outlines, real impressions and codes below.",
    alt="Six phantom chest radiographs in two rows, one for each of the five pathologies, whose regions are outlined in "
    "colour, and a normal one without outlines. Below each stand the report's impression and its codes.",
)

# %% [markdown]
# ## Five labels, and what NaN means
#
# A pathology is present (1) if its whole heading is among the codes. A substring would do harm: fluid around the heart
# is an effusion, too, but no *pleural* effusion.

# %% tags=["nbval-check-output"]
examples = {
    "pleural": ["Pleural Effusion/left/small"],
    "pericardial": ["Pericardial Effusion"],
    "normal": ["normal"],
    "not coded": ["No Indexing"],
}
pd.DataFrame({name: labels_from_mesh(mesh) for name, mesh in examples.items()}, index=PATHOLOGIES).T

# %% [markdown]
# Zero means that the report was coded, and not with this. NaN means that nobody coded the report: we know nothing. To
# read NaN as 0 would call sick patients healthy, so these reports are left out of every score.

# %% tags=["nbval-check-output"]
labels = np.stack([report.labels for report in reports])
print(np.isnan(labels).any(1).sum(), "reports not coded")
print(f"{sum(report.normal for report in reports):,} coded normal, and nothing else")
positives = zip(PATHOLOGIES, np.nansum(labels, 0), strict=True)
print("positive:", ", ".join(f"{name} {count:.0f}" for name, count in positives))

# %% [markdown]
# ## Your turn: a word is not a finding
#
# *Easy, 5 minutes.* How many coded reports contain "effusion" in their text, although *pleural effusion* is labelled 0?
# First guess: a hundred, five hundred, more? Then count over `reports`, and put the number in `my_count`.
#
# <details><summary>Hint</summary>
#
# `report.text` is in lower case; `report.labels[4]` is 1, 0 or NaN, and `nan == 0` is false.
#
# </details>

# %%
my_count = None

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# my_count = sum("effusion" in report.text and report.labels[4] == 0 for report in reports)
# ```
#
# Two thirds of all reports and more! In nearly all of them the finding is denied, most often by "no": negation is
# what makes radiology's language hard for a model that counts words.
#
# </details>

# %% tags=["nbval-check-output"]
with_word = [report for report in reports if "effusion" in report.text]
expected = sum(report.labels[4] == 0 for report in with_word)
traps = {
    str(len(with_word)): "that is every report with the word: leave out those labelled 1 or NaN.",
    str(sum(report.labels[4] != 1 for report in with_word)): "reports that nobody coded are in it: NaN is not 0.",
    str(sum(report.labels[4] == 1 for report in with_word)): "those have the code: count the ones labelled 0.",
}
if my_count is None:
    print("not attempted yet")
else:
    assert my_count == expected, traps.get(
        str(my_count), "count reports whose text has 'effusion' and whose label is 0."
    )
    print(f"Right: {expected:,} of {len(reports):,} reports have the word, and no such code.")

# %% [markdown]
# ## What a report says, and how surely
#
# Codes are a luxury: most hospitals have text alone. `label_text` reads it, sentence by sentence, and gives four
# answers: 1 present, 0 denied, -1 in doubt, NaN not mentioned.

# %% tags=["nbval-check-output"]
said = [
    "Small left effusion.",
    "No pleural effusion or pneumothorax.",
    "There may be a small effusion.",
    "The lungs are clear.",
]
pd.DataFrame([label_text(text) for text in said], index=said, columns=PATHOLOGIES)

# %% [markdown]
# A program read the text, a person wrote the code. Do they agree? In rows what the text says, in columns what the same
# report was coded, for all reports that have both.

# %% tags=["nbval-check-output"]
coded = [report for report in reports if report.text and not np.isnan(report.labels).any()]
by_code = np.stack([report.labels for report in coded])  # [n, 5] of 1 and 0
by_text = np.stack([label_text(f"{report.findings} {report.impression}") for report in coded])  # and of -1 and NaN
answers = {1: "says present", -1: "is in doubt", 0: "denies it", 9: "does not mention it"}
text = pd.DataFrame(np.nan_to_num(by_text, nan=9), columns=PATHOLOGIES).replace(answers)
counts = {
    (name, f"code {code}"): text.loc[by_code[:, k] == code, name].value_counts()
    for k, name in enumerate(PATHOLOGIES)
    for code in (1, 0)
}
pd.DataFrame(counts, index=pd.Index(answers.values(), name="the text")).fillna(0).astype(int)

# %% [markdown]
# Where the text is plain, the two nearly always agree. Where they do not, neither is simply wrong. Look at five such
# reports. In the last, words are missing from the text as it was published, and with them the "no" (its impression
# still has it).

# %% tags=["nbval-check-output"]
for study_id, name in (
    ("CXR3929", "cardiomegaly"),
    ("CXR18", "pleural effusion"),
    ("CXR157", "edema"),
    ("CXR494", "atelectasis"),
    ("CXR3241", "consolidation"),
):
    report = next(report for report in reports if report.id == study_id)
    mention = next(m for m in label_mentions(f"{report.findings} {report.impression}") if m.pathology == name)
    print(f'{study_id}, {name}\n   text {mention.value:2}: "{mention.sentence}"')
    print(f"   code {report.labels[PATHOLOGIES.index(name)]:2.0f}: {', '.join(report.mesh)}")

# %% [markdown]
# An enlarged silhouette went under another heading. A "borderline" code has no words in the text. An edema that
# resolves is, to one reader, still an edema. All this is called **label noise**: measured against such labels,
# even a perfect reader would not reach 100 %.

# %% [markdown]
# ## What became of doubt
#
# A binary label has no place for "may". A **policy** decides: the CheXpert paper (Irvin et al. 2019) compares
# calling every doubt a finding ("ones"), none ("zeros"), or leaving it out ("ignore"); "mix" decides for each
# finding. Here we can look up what the person who coded made of it.

# %%
figure, axes = figures.new_figure(width=7, height=2.8)
doubt, shares = by_text == -1, []
for k in range(5):
    count = binomtest(int(by_code[doubt[:, k], k].sum()), int(doubt[:, k].sum()))
    shares.append((count.statistic, *count.proportion_ci(method="wilson")))
    axes[0, 0].text(104, k, f"{count.k} of {count.n}", va="center", fontsize=8)
figures.draw_intervals(axes[0, 0], PATHOLOGIES, shares, label="coded in IU-RR [95 % interval]")
mix = 100 * np.array(POLICIES["mix"])
axes[0, 0].scatter(mix, range(5), marker="x", s=60, color="black", label='"mix" policy for CheXpert')
axes[0, 0].set(xlim=(-4, 104), xlabel="% of doubtful texts called present")
figure.legend(*axes[0, 0].get_legend_handles_labels(), frameon=False, loc="outside upper center", ncols=2)
figures.show(
    figure,
    caption='Of the reports that leave a finding in doubt, the share that got its code; crosses: what the "mix" policy would say.',
    alt="Five dots with error bars. Cardiomegaly in doubt was mostly coded as present, atelectasis in most cases, effusion in "
    "under half, consolidation and edema seldom. The crosses disagree: at 100 percent for atelectasis, edema and effusion, at 0 for the others.",
)

# %% [markdown]
# Doubt means something else for each finding. "Borderline" hearts were coded, "possible" edemas were not. The
# crosses show the policy that GLoRIA's authors (Huang et al. 2021) chose for CheXpert; here it would decide the
# heart and the edema the other way; effusion is a toss-up, and six doubtful consolidations prove nothing. A policy belongs to one data set.

# %% [markdown]
# ## CheXpert: labels read by a program
#
# CheXpert (Stanford) is a far larger set, on which the paper trains the classifiers that it tests on IU-RR. It came
# without its reports; its labels are what a program found in them. The rows come with torchxrayvision; the radiographs need
# an agreement with Stanford.

# %%
rows, _ = read_chexpert()
rows = rows[rows["view"] == "frontal"]
shares = pd.DataFrame({name: rows[name].fillna(9).value_counts(normalize=True) for name in FIVE}).T[[1, -1, 0, 9]]
figure, axes = figures.new_figure(width=7, height=2.8)
colours = {"present": "#0173b2", "in doubt": "#de8f05", "denied": "#949494", "not mentioned": "#ececec"}
left = np.zeros(5)
for (answer, colour), share in zip(colours.items(), 100 * shares.to_numpy().T, strict=True):
    axes[0, 0].barh(range(5), share, left=left, color=colour, edgecolor="black", linewidth=0.5, label=answer)
    left += share
axes[0, 0].set(yticks=range(5), yticklabels=PATHOLOGIES, xlim=(0, 100), xlabel="% of frontal radiographs")
axes[0, 0].invert_yaxis()
figure.legend(*axes[0, 0].get_legend_handles_labels(), frameon=False, loc="outside upper center", ncols=4, fontsize=8)
figures.show(
    figure,
    caption="CheXpert's labels: most findings are not mentioned at all, and atelectasis is in doubt as often as it is present.",
    alt="Five stacked bars. The largest part of each is not mentioned, between two fifths and four fifths. For "
    "atelectasis the parts present and in doubt are equally long; for consolidation doubt exceeds presence; effusion is mostly present.",
)

# %% [markdown]
# ## Your turn: a policy
#
# *Medium, 10 minutes.* Write `resolve`, which gives labels [n, 5] of 1 and 0 only, by the "mix": doubt counts as
# present for atelectasis, edema and pleural effusion, as absent for cardiomegaly and consolidation; what is not
# mentioned counts as absent. Leave the array that you were given as it is.
#
# <details><summary>Hint</summary>
#
# `np.where(condition, a, b)` makes a new array, and a row of five numbers spreads over all n rows.
#
# </details>

# %%
example = np.array([[1, 0, -1, np.nan, -1], [-1, -1, 0, np.nan, 1]])  # two radiographs, to try it on


def resolve(labels):
    """Labels [n, 5] of 1, 0, -1 and NaN, in the order of PATHOLOGIES, as 1 and 0."""


# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def resolve(labels):
#     doubt_becomes = np.array([1, 0, 0, 1, 1])
#     labels = np.where(np.isnan(labels), 0, labels)
#     return np.where(labels == -1, doubt_becomes, labels)
# ```
#
# Silence becomes 0, doubt becomes what the policy says, column by column. The library's `apply_policy` does the same.
#
# </details>

# %% tags=["nbval-check-output"]
nan = np.nan
given = np.array([[-1] * 5, [nan] * 5, [1] * 5, [0] * 5, [1, -1, nan, 0, -1], [0, 1, -1, -1, nan]])
answer = resolve(labels_given := given.copy())
if answer is None:
    print("not attempted yet")
else:
    answer = np.asarray(answer, dtype=float)
    assert answer.shape == given.shape, f"give back all {given.shape} labels; these are {answer.shape}."
    assert np.array_equal(labels_given, given, equal_nan=True), "you changed the array that was given: make a new one."
    others = answer[~np.isin(answer, (0, 1))]
    assert not len(others), f"{others[0]:g} is among the labels: each doubt and each silence must become 1 or 0."
    assert np.array_equal(answer[2:4], given[2:4]), "plain answers changed: 1 stays 1, and 0 stays 0."
    assert not answer[1].any(), "silence became a finding: NaN counts as absent."
    wrong = [name for name, a, b in zip(PATHOLOGIES, answer[0], POLICIES["mix"], strict=True) if a != b]
    assert not wrong, f"doubt about {', '.join(wrong)} is decided the other way round."
    assert np.array_equal(answer, apply_policy(given, "mix")), "each label of a row goes by itself."
    print("Right: every doubt is decided, and nothing else has changed.")

# %% [markdown]
# What hangs on it? The share of frontal radiographs that would train a classifier as positive, in percent, under each
# policy ("ignore" masks the doubtful ones in the loss):

# %% tags=["nbval-check-output"]
print(f"{len(rows):,} frontal rows of {rows['patient'].nunique():,} patients")
policies = {name: apply_policy(rows[list(FIVE)].to_numpy(), name) for name in ("zeros", "ignore", "mix", "ones")}
pd.DataFrame({name: 100 * np.nanmean(y, 0, dtype=float) for name, y in policies.items()}, index=PATHOLOGIES).round(1)

# %% [markdown]
# ## Views
#
# Back to IU-RR. Most studies have two images, one from the front and one from the side, and the course uses a
# frontal one. Which is which? The DICOM header has a field for it. For 3,849 images torchxrayvision's authors
# also sorted the pixels themselves (columns):

# %% tags=["nbval-check-output"]
header = read_metadata("nlmcxr_dicom_metadata.csv.gz", "imageid", "View Position")
seen = dict(read_metadata("nlmcxr_tsne_pa.csv.gz", "imageid", "tsne-view"))
names = {"PA": "frontal", "AP": "frontal", "": "nothing"}  # all others say lateral, in one way or another
view = pd.DataFrame([(names.get(position, "lateral"), seen.get(image)) for image, position in header])
view.columns = ["the header says", "the pixels show"]
view["the pixels show"] = view["the pixels show"].map({"PA": "frontal", "L": "lateral"}).fillna("(not sorted)")
print("as the course counts:", dict(Counter(view for report in reports for view in report.views)))
pd.crosstab(view["the header says"], view["the pixels show"])

# %% [markdown]
# Of the sorted images whose header says frontal, every twelfth is lateral; more than a third of all headers say
# nothing. Who believes them trains on hundreds of lateral views as frontal ones. `read_reports` goes by the
# pixels where they were sorted, and weighs header and sibling elsewhere.

# %% [markdown]
# ## The split
#
# A committed file gives each study its part: most train, some validate choices, a fifth tests. IU-RR was
# published as one report a patient, so no patient should stand in two parts.

# %% tags=["nbval-check-output"]
table = pd.DataFrame({part: np.nansum(s.labels, 0).astype(int) for part, s in parts.items()}, index=PATHOLOGIES)
table.loc["normal"] = [sum(study.normal for study in those) for those in parts.values()]
table.loc["not coded"] = [int(np.isnan(those.labels).any(1).sum()) for those in parts.values()]
table.loc["studies"] = [len(those) for those in parts.values()]
table

# %% [markdown]
# How sure are such shares? Wilson's interval answers for a proportion, and stays sensible when the count is small.
# `scipy` has it. Read the consolidation line with care.

# %% tags=["nbval-check-output"]
lines = []
for part, those in parts.items():
    known = those.coded().labels
    for name, positives in zip(PATHOLOGIES, known.sum(0).astype(int), strict=True):
        interval = binomtest(int(positives), len(known)).proportion_ci(method="wilson")
        lines.append((name, part, positives, len(known), positives / len(known), interval.low, interval.high))
prevalence = pd.DataFrame(lines, columns=["pathology", "part", "positives", "n", "share", "low", "high"])
prevalence[prevalence["part"] == "test"].round(3)

# %%
figure, axes = figures.new_figure(width=7, height=3.2)
for k, (part, group) in enumerate(prevalence.groupby("part", sort=False)):
    label = f"{part}, n = {group['n'].iloc[0]:,}"
    shares = group[["share", "low", "high"]]
    figures.draw_intervals(axes[0, 0], PATHOLOGIES, shares, offset=0.22 * (k - 1), marker="os^"[k], label=label)
axes[0, 0].set(xlim=(0, None), xlabel="% of studies [95 % Wilson interval]")
axes[0, 0].legend(frameon=False, loc="lower right")
figures.show(
    figure,
    caption="How common each finding is: the three parts are alike, and small parts have wide intervals.",
    alt="Five groups of three dots with error bars. Atelectasis and cardiomegaly near 9 percent, effusion near 4, "
    "consolidation and edema near 1; the bars are short for train, wider for test and widest for validation.",
)

# %% [markdown]
# ## Findings come together
#
# A failing heart enlarges, and fluid collects in the lungs and beside them. The heat map reads along a row: of
# the studies with this finding, which share has the other?

# %%
known = studies.coded().labels
together = known.T @ known  # [5, 5], the positives on the diagonal
share = pd.DataFrame(together / together.diagonal()[:, None], index=PATHOLOGIES, columns=PATHOLOGIES)
figure, axes = figures.new_figure(width=6.2, height=4)
counts = np.vectorize("{:.0%}\n{:.0f}".format)(share, together).astype(object)
np.fill_diagonal(counts, [f"n = {count:.0f}" for count in together.diagonal()])
shades = share.mask(np.eye(5, dtype=bool), 0)  # the diagonal stays pale
sns.heatmap(shades, ax=axes[0, 0], annot=counts, fmt="", cmap="Blues", vmin=0, vmax=1, cbar=False)
axes[0, 0].tick_params(axis="x", rotation=25)
figures.show(
    figure,
    caption="Of the studies with the row's finding, the share (and the number) that also have the column's.",
    alt="A five by five heat map. The darkest cell stands in the edema row: three quarters of these studies also have "
    "cardiomegaly. Numbers stand in every cell.",
)

# %% [markdown]
# ## The baseline that always says "normal"
#
# Ask the cheapest question first: what does a classifier score that never looks? scikit-learn's `DummyClassifier`
# answers with the most frequent class, which is "absent" for all five.

# %% tags=["nbval-check-output"]
truth = {part: those.coded().labels for part, those in parts.items()}
baseline = pd.DataFrame(index=PATHOLOGIES, columns=["accuracy", "sensitivity", "AUC"], dtype=float)
for k, name in enumerate(PATHOLOGIES):
    never = DummyClassifier(strategy="most_frequent").fit(truth["train"], truth["train"][:, k])
    present, answer = truth["test"][:, k], never.predict(truth["test"])
    baseline.loc[name] = [(answer == present).mean(), answer[present == 1].mean(), roc_auc_score(present, answer)]
baseline.round(3)

# %% [markdown]
# Above 90 % accuracy for finding nobody. Accuracy rewards silence where sickness is rare, so this course reports the
# **AUC**: the chance that a sick patient gets a higher score than a healthy one. Silence scores .5 there.

# %% [markdown]
# ## A third is normal
#
# Many chest radiographs are taken to make sure, before an operation or for a cough, and the answer is often
# "nothing". Radiologists have set phrases for nothing:

# %% tags=["nbval-check-output"]
print(f"{sum(report.normal for report in reports) / len(reports):.0%} of all reports are coded normal")
impressions = Counter(report.impression for report in reports if report.impression)
for phrase, count in impressions.most_common(4):
    print(f"{count:4}  {phrase}")
everything = Counter(text_groups(report.text for report in reports if report.text))
print(f"{sum(n for n in everything.values() if n > 1)} whole reports share their words with another")

# %% [markdown]
# Contrastive training draws a batch and calls every *other* report of it wrong. But two normal reports fit each
# other's radiographs: **false negatives**. How often does a random batch hold such a pair? We shuffle the
# training part 2,000 times, and note where the first pair is complete.

# %% tags=["nbval-check-output"]
with_text = [study for study in parts["train"] if study.text]
texts = text_groups(study.text for study in with_text)  # the same number for the same words
normal = np.array([study.normal for study in with_text])
rng = np.random.default_rng(0)
orders = [rng.permutation(len(with_text)) for _ in range(2000)]
complete = {  # the size at which a growing batch first holds a pair
    "two normal studies": np.array([np.flatnonzero(normal[order])[1] + 1 for order in orders]),
    "two identical texts": np.array([pd.Series(texts[order]).duplicated().argmax() + 1 for order in orders]),
}
for pair, sizes in complete.items():
    print(f"a batch of 64 holds {pair}: chance {(sizes <= 64).mean():.2f}")

# %%
batch = np.arange(2, 257)
figure, axes = figures.new_figure(width=6.4, height=2.8)
for (pair, sizes), style in zip(complete.items(), ("-", "--"), strict=True):
    axes[0, 0].plot(batch, [100 * (sizes <= size).mean() for size in batch], style, label=pair)
axes[0, 0].axvline(64, color="grey", linewidth=0.8)
axes[0, 0].set(xscale="log", xlabel="studies in the batch", ylabel="% of random batches", ylim=(0, 103))
axes[0, 0].set_xticks([2, 4, 8, 16, 32, 64, 128, 256], [2, 4, 8, 16, 32, 64, 128, 256])
axes[0, 0].minorticks_off()
axes[0, 0].legend(frameon=False, loc="lower right")
sns.despine(ax=axes[0, 0])
figures.show(
    figure,
    caption="How often a random batch of the training part holds a false negative. The line marks 64.",
    alt="Two rising curves over the batch size. Two normal studies are nearly certain from sixteen studies on; two "
    "identical texts become more likely than not before 64, and nearly certain at 256.",
)

# %% [markdown]
# What does that do to the loss? Guessing among 64 reports costs log 64. Now imagine a model that knows
# everything, but to which one normal chest looks like another. With m normal studies in the batch it can only
# guess among m reports, each time at a cost of log m.

# %% tags=["nbval-check-output"]
m = np.arange(1, 65)
chance = hypergeom(len(normal), normal.sum(), 64).pmf(m)  # of m normal studies among 64
print(f"normal studies in a batch of 64, on average: {(chance * m).sum():.0f}")
print(f"loss of guessing: {np.log(64):.2f}")
print(f"loss of knowing all but which normal is which: {(chance * m / 64 * np.log(m)).sum():.2f}")

# %% [markdown]
# A quarter of the way can never be gone, and each step there teaches the model to tell apart what is alike. So
# [notebook 03](03_global_local_loss.ipynb) takes most such pairs out of the loss. For that somebody must find them:

# %% [markdown]
# ## Your turn: the same words
#
# *Medium, 10 minutes.* Write `same_words`: for a batch of B texts a matrix [B, B] of bool that is true where two
# *different* studies have the same words. Case, spacing and punctuation do not count, and no study is its own
# false negative.
#
# <details><summary>Hint</summary>
#
# `text_groups(texts)` numbers the texts; `a[:, None] == a` compares all with all; `np.eye(B, dtype=bool)` is the
# diagonal.
#
# </details>

# %%
example = ["Clear lungs.", "No effusion.", "clear lungs"]  # the first and the third, to try it on


def same_words(texts):
    """Which pairs of the B texts have the same words, bool [B, B]."""


# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def same_words(texts):
#     groups = text_groups(texts)
#     return (groups[:, None] == groups) & ~np.eye(len(groups), dtype=bool)
# ```
#
# The diagonal holds the true pairs: a mask that covered them, too, would take the right answers away.
#
# </details>

# %% tags=["nbval-check-output"]
batch = ["No effusion.", "Clear lungs.", "no  effusion", "Effusion.", "No effusion.", "Lungs clear."]
expected = np.zeros((6, 6), dtype=bool)
for i, j in ((0, 2), (0, 4), (2, 4)):
    expected[i, j] = expected[j, i] = True
answer = same_words(list(batch))
if answer is None:
    print("not attempted yet")
else:
    answer = np.asarray(answer)
    assert answer.shape == (6, 6), f"six texts make a matrix of (6, 6); this one is {answer.shape}."
    assert not answer.diagonal().any(), "a study is no false negative of itself: the diagonal must be false."
    assert np.array_equal(answer, answer.T), "if i has the words of j, j has those of i: the matrix must be symmetric."
    assert answer[0, 4], "texts 0 and 4 are equal letter by letter, and are not found."
    assert answer[0, 2], f"{batch[0]!r} and {batch[2]!r} have the same words: case, spacing and stops do not count."
    assert not answer[0, 3], f"{batch[0]!r} and {batch[3]!r} are opposites."
    assert not answer[1, 5], f"{batch[1]!r} and {batch[5]!r} have another order: only identical texts count."
    assert np.array_equal(answer, expected), (
        "give true or false for each pair, and true for three pairs of these texts."
    )
    print("Right: three pairs of these six texts must not be called wrong.")

# %% [markdown]
# ## What leaks
#
# A test is honest if nothing in it was learned by heart. `leakage` counts what two parts share: studies,
# patients, whole reports, and radiographs pixel by pixel (here phantoms). Two splits are committed: ours, and one
# with the proportions and population of the work that follows R2Gen (Chen et al. 2020).

# %% tags=["nbval-check-output"]
print("test against training:", leakage(parts["train"], parts["test"]))
lines = {}
for name in ("iu_rr", "iu_rr_r2gen"):
    those = with_split(reports, name)
    train, val, held_out = ([s for s in those if s.split == part] for part in parts)
    lines[name] = {"train": len(train), "val": len(val), "test": len(held_out)}
    lines[name]["texts shared with test"] = leakage(train, held_out).texts
    lines[name]["strict train"] = len(strict(train, val, held_out))
pd.DataFrame(lines).T

# %% [markdown]
# No patient is known to leak (IU-RR numbers patients like reports, so this 0 could not be anything else; we rely on
# its paper). But a quarter of the test's reports stand in training word for word. Most are set phrases for
# a normal chest, so no patient is betrayed; yet a model that knows the phrase by heart looks clever in retrieval.
# The **strict** variant drops the training studies whose words stand in val or test. And numbers on different
# splits do not compare.

# %% [markdown]
# ## Your turn: a colleague's split
#
# *Easy, 5 minutes.* A colleague has drawn four fifths of the *images* for training. How many of the test images
# come from a study that also has an image in training? Put the number into `my_leak`. Guess first: none, a few,
# most?
#
# <details><summary>Hint</summary>
#
# `column.isin(others)` says for each row whether its value is among the others.
#
# </details>

# %%
images = pd.DataFrame([(image, s.id) for s in studies for image in s.images], columns=["image", "study"])
images["part"] = np.where(np.random.default_rng(0).random(len(images)) < 0.8, "train", "test")
my_leak = None

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# in_training = images["study"][images["part"] == "train"]
# my_leak = images["study"][images["part"] == "test"].isin(in_training).sum()
# ```
#
# Most of them: the lateral view trains, the frontal view of the same chest tests, and their report is one. Split
# by patient, always; published code of this field has split by image.
#
# </details>

# %% tags=["nbval-check-output"]
in_train, in_test = (images["study"][images["part"] == part] for part in ("train", "test"))
leaking = in_test[in_test.isin(in_train)]
traps = {
    str(leaking.nunique()): "that counts studies: a study can have two images in the test.",
    str(in_train.isin(in_test).sum()): "that counts training images: ask it of the test's.",
    str(len(in_test)): "those are all test images: which of them have a sibling in training?",
    str(len(in_test) - len(leaking)): "those are the clean ones: count the others.",
}
if my_leak is None:
    print("not attempted yet")
else:
    assert my_leak == len(leaking), traps.get(
        str(my_leak), "count rows of part 'test' whose study has a row of part 'train'."
    )
    print(f"Right: {len(leaking):,} of {len(in_test):,} test images have a sibling in training.")

# %% [markdown]
# ## CheXpert 5x200, drawn
#
# GLoRIA tests on 200 CheXpert radiographs for each of the five pathologies, with that one and no other. Which
# ones was never published; ours are drawn by a rule. Without CheXpert's files the rows are real, and the pixels
# are phantoms drawn from the labels, with sides and severities as IU-RR codes them.

# %%
balanced = load_chexpert(part="5x200")
figure, axes = figures.new_figure(5, width=2.1, height=2.5)
for k, name in enumerate(PATHOLOGIES):
    code = figures.wrap(balanced[200 * k].mesh[0], 26)
    figures.draw_radiograph(axes[0, k], balanced.image(200 * k), title=f"{name}\n{code}", source="phantom")
    figures.draw_masks(axes[0, k], balanced.masks(200 * k))
figures.show(
    figure,
    caption="Real CheXpert label rows, phantom pixels: one of each 200, with the code that was drawn for it.",
    alt="Five phantom chest radiographs in a row, one for each pathology, its region outlined and its code above.",
)

# %% [markdown]
# ## CheXphoto: a radiograph as a phone sees it
#
# Radiographs are also passed on as phone photographs of a film or a screen. CheXphoto (Phillips et al. 2020) asks
# what that does to a model. Its synthetic transformations work on any radiograph here, each at a strength from 0
# (nothing) to 4; `load_chexphoto` gives a whole set of such photographs.

# %%
effusions = balanced.images[800:]
middling = effusions[np.abs(effusions.mean((1, 2)) - 110).argmin()]  # neither too dark nor too bright
film = torch.tensor(middling)[None, None] / 255  # [1, 1, S, S] from 0 to 1
figure, axes = figures.new_figure(10, 4, width=1.2, height=1.3)
for column, name in enumerate(PHOTOGRAPHS):
    for row, strength in enumerate((1, 2, 3, 4)):
        shown = photograph(film, name, strength, torch.Generator().manual_seed(0))
        figures.draw_radiograph(axes[row, column], 255 * shown[0, 0].numpy(), title=name if row == 0 else "")
        if column == 0:
            axes[row, 0].text(-0.08, 0.5, strength, transform=axes[row, 0].transAxes, ha="right")
figures.show(
    figure,
    caption="One phantom, photographed in ten ways (columns), at strengths 1 to 4 (rows, downwards).",
    alt="A grid of ten by four phantom chest radiographs. Downwards the picture is tilted, turned, shifted, whitened by a spot or "
    "a bright box, crossed by lines, blurred along the rows or all over, or changed in brightness and contrast, ever more.",
)

# %% [markdown]
# ## DICOM: numbers that need a header
#
# Hospitals store radiographs as DICOM, whose numbers mean little by themselves. In MONOCHROME1 zero is white; a
# window says which values fill the grey scale. We make such a file of a phantom, with 12 bits, and read it back.

# %%
file, path = Dataset(), Path(tempfile.mkdtemp()) / "film.dcm"
stored = 4095 - 16 * middling.astype(np.uint16)
file.set_pixel_data(stored, "MONOCHROME1", 12)
pictures = {"the stored numbers": stored / 4095 * 255}
for title, window in {"read by its header": (), "with a narrow window": (float(np.median(stored)), 2000)}.items():
    if window:
        file.WindowCenter, file.WindowWidth = window
    file.save_as(path)
    pictures[title] = read_radiograph(path, 128)
figure, axes = figures.new_figure(3, width=2.6, height=2.8)
for axis, (title, picture) in zip(axes[0], pictures.items(), strict=True):
    figures.draw_radiograph(axis, picture, title=title, source="phantom")
figures.show(
    figure,
    caption="One DICOM file (phantom): as its numbers lie there, as its header says, and with another window.",
    alt="Three pictures of a phantom chest. The first is a negative, with black bones and white lungs; the second has bright bones on "
    "dark lungs; in the third the contrast is stronger.",
)

# %% [markdown]
# A loader that skipped the header would hand the model negatives from one hospital and positives from another,
# and the model would learn the hospital. `read_radiograph` follows the header, whatever the file is.

# %% [markdown]
# ## Bring your own pairs
#
# A folder of images and a CSV of texts become such a data set by one call. Here are two pairs, two phantoms with
# their reports.

# %%
folder = data_folder() / "raw" / "my_pairs"
if not (folder / "table.csv").is_file():
    folder.mkdir(parents=True, exist_ok=True)
    for i in (0, 1):
        Image.fromarray(test.image(i)).save(folder / f"{i}.png")
    own = pd.DataFrame({"file": ["0.png", "1.png"], "report": test.texts[:2], "fluid": [0, ""]})
    own.to_csv(folder / "table.csv", index=False)
columns = {"image": "file", "text": "report", "labels": {"pleural effusion": "fluid"}}
pairs = load_pairs(folder, folder / "table.csv", **columns)

# %% tags=["nbval-check-output"]
print(f"{len(pairs)} pairs; labels of the first: {pairs[0].labels}, of the second: {pairs[1].labels}")
try:
    load_pairs(folder, folder / "table.csv", image="filename", text="report")
except CourseError as error:
    print(str(error).replace(str(folder), "my_pairs"))

# %% [markdown]
# What comes back is a data set like every other in this course: `split`, `image`, `labels` and `texts` work on
# it. Before you load patients' data, ask whether you may, and look for names burnt into the pixels.

# %% [markdown]
# ## Where radiologists point
#
# Real radiographs rarely say where a finding is. For NIH ChestX-ray14, radiologists drew 984 boxes on 880
# radiographs, for three of our five pathologies among others. The boxes come with torchxrayvision, so they can be
# looked at without the pixels.

# %% tags=["nbval-check-output"]
boxes = read_boxes()
print(f"{len(boxes)} boxes on {boxes['image'].nunique()} radiographs")
print(boxes["finding"].value_counts().to_string())

# %%
masks = box_masks(boxes["image"].unique(), 64, boxes)  # [880, 5, 64, 64]
figure, axes = figures.new_figure(3, width=2.7, height=2.9)
for axis, k in zip(axes[0], (0, 1, 4), strict=True):
    with_box = masks[masks[:, k].any((1, 2)), k]
    axis.imshow(100 * with_box.mean(0), cmap="magma", vmin=0, vmax=100)
    axis.set_title(f"{PATHOLOGIES[k]}, n = {len(with_box)}", fontsize=9)
    axis.set(xticks=[], yticks=[])
figure.colorbar(axes[0, 2].images[0], ax=axes[0], label="% of radiographs", shrink=0.7)
figures.show(
    figure,
    caption="NIH's boxes laid over each other, in frontal radiographs: how often each place lies in a box. The patient's left is the picture's right.",
    alt="Three heat maps. The boxes for cardiomegaly pile up into one bright block, in the middle and towards the picture's "
    "right. Those for atelectasis and effusion make two dim spots, low in both lungs; effusion's reach higher up.",
)

# %% [markdown]
# A heart is always in its place, so a model can "point at cardiomegaly" without having looked. Notebook 07 asks a
# harder question. Also remember that a missing box does not say that a finding is absent: nobody was asked about
# these images.

# %% [markdown]
# ## Before you use any of this elsewhere
#
# The [data cards](../data/README.md) say for each source what it is, whose licence it has, what is known to be
# wrong with it, and what it must not be used for. The [splits](../data/splits/README.md) have a page of their
# own. No number from phantoms says anything about patients.

# %% [markdown]
# ## We learned
#
# - A report has sections; findings and impression describe the image; codes make the labels. Look at the data first.
# - 1, 0, -1 and NaN are four answers. NaN is not 0, and a policy for -1 belongs to one data set.
# - Rare findings have wide intervals, and "always normal" looks good in accuracy, not in AUC.
# - Two normal studies are no true negatives, and nearly every batch of 64 holds many such pairs.
# - Split by patient, count identical texts, and believe no header.
# - The same few calls read CheXpert, CheXphoto, NIH, DICOM files and your own pairs.

# %% [markdown]
# ## Read next
#
# - Demner-Fushman et al., *Preparing a collection of radiology examinations for distribution and retrieval*, JAMIA 23 (2016).
# - Irvin et al., *CheXpert: a large chest radiograph dataset with uncertainty labels and expert comparison*, AAAI 2019.
# - Oakden-Rayner, *Exploring large-scale public medical image datasets*, Academic Radiology 27 (2020).
#
# Next: [02_encoders](02_encoders.ipynb).
