# %% [markdown]
# # Data: from reports to labels
#
# Before a model learns from 3,955 radiology reports we read them ourselves: what they say, what a radiologist
# coded, which five labels follow, and how few patients stand behind a rare one.

# %% [markdown]
# **In this notebook you will**
#
# - read the Indiana University reports (IU-RR) and take their codes apart,
# - derive five labels, and learn what a missing one means,
# - count findings with intervals, and score the baseline "normal",
# - see how codes become a phantom radiograph.
#
# It builds on [00_start_here](00_start_here.ipynb). About half a minute on two CPU cores.

# %%
from collections import Counter

import numpy as np
import pandas as pd
import seaborn as sns
from scipy.stats import binomtest
from sklearn.dummy import DummyClassifier
from sklearn.metrics import roc_auc_score

from cmlr_utils import PATHOLOGIES, load_iu_rr, load_twins, parse_mesh, read_reports
from cmlr_utils.course import figures
from cmlr_utils.data.mesh import labels_from_mesh

# %% [markdown]
# ## The reports
#
# The National Library of Medicine's Open-i serves IU-RR, de-identified: one XML file for each study. The
# package torchxrayvision carries all of them, so no download is needed.

# %% tags=["nbval-check-output"]
reports = read_reports()
print(f"{len(reports):,} reports, {sum(len(report.images) for report in reports):,} images listed in them")
print(f"{sum(bool(report.images) for report in reports):,} reports with an image")
print(f"{sum(bool(report.images and report.text) for report in reports):,} of these with findings or an impression")

# %% [markdown]
# A report has four sections. *Indication* is why the patient came, *comparison* an older examination, *findings* what
# the radiologist saw, *impression* what it means. Here is one, word for word (CC BY-NC-ND 4.0):

# %% tags=["nbval-check-output"]
study = next(report for report in reports if report.id == "CXR3256")
for section in ("indication", "comparison", "findings", "impression"):
    print(f"{section.upper()}\n{figures.wrap(getattr(study, section), 100)}\n")

# %% [markdown]
# `XXXX` stands where a word was removed because it could have told who the patient is; it is often a harmless word.
# Sections can be empty. How often?

# %% tags=["nbval-check-output"]
sections = pd.DataFrame(
    {
        name: [getattr(report, name) for report in reports]
        for name in ("indication", "comparison", "findings", "impression")
    }
)
pd.DataFrame(
    {"with text": (sections != "").sum(), "with XXXX": sections.apply(lambda texts: texts.str.contains("XXXX").sum())}
)

# %% [markdown]
# The model reads findings and impression, because only they describe the image. `sentences` makes them lower case,
# and removes the `XXXX` and the numbers of listed items.

# %% tags=["nbval-check-output"]
for sentence in study.sentences:
    print("·", sentence)

# %% [markdown]
# ## The codes
#
# With each report come codes: a MeSH heading, then what qualifies it, parted by slashes. This
# structured summary gives us labels, and gives the phantom its findings.

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
print(
    f"{np.isnan(labels).any(1).sum()} reports not coded; {sum(report.normal for report in reports):,} coded normal and nothing else"
)
print(
    "positive:", ", ".join(f"{name} {count:.0f}" for name, count in zip(PATHOLOGIES, np.nansum(labels, 0), strict=True))
)

# %% [markdown]
# A label is a decision, not a fact of nature. This radiologist hesitated between two explanations; the codes name
# both; the label says a plain 1.

# %% tags=["nbval-check-output"]
hesitant = next(report for report in reports if report.id == "CXR1088")
print(hesitant.impression, *hesitant.mesh, f"atelectasis = {hesitant.labels[0]:.0f}", sep="\n")

# %% [markdown]
# ## Views
#
# Most studies have two images, usually one from the front and one from the side. The course uses one frontal view for each.
# The metadata tell which image is which, though not always.

# %% tags=["nbval-check-output"]
views = Counter(view or "not recorded" for report in reports for view in report.views)
print(dict(views))

# %% [markdown]
# ## The split
#
# `load_iu_rr` keeps the studies with an image and gives each its part: most train, some validate choices, a fifth
# tests. A committed file says which is which. In IU-RR each report is another patient, so no patient stands in two parts.

# %%
studies = load_iu_rr("phantom")
parts = {part: studies.split(part) for part in ("train", "val", "test")}

# %% tags=["nbval-check-output"]
split_table = pd.DataFrame(
    {part: np.nansum(those.labels, 0).astype(int) for part, those in parts.items()}, index=PATHOLOGIES
)
split_table.loc["normal"] = [sum(study.normal for study in those) for those in parts.values()]
split_table.loc["not coded"] = [int(np.isnan(those.labels).any(1).sum()) for those in parts.values()]
split_table.loc["studies"] = [len(those) for those in parts.values()]
patients = [set(those.patients) for those in parts.values()]
print("a patient in two parts:", any(a & b for a, b in zip(patients, patients[1:] + patients[:1], strict=True)))
split_table

# %% [markdown]
# How sure are such shares? Wilson's interval answers for a proportion, and stays sensible when the count is small.
# `scipy` has it. Read the consolidation line with care.

# %% tags=["nbval-check-output"]
rows = []
for part, those in parts.items():
    coded = those.labels[~np.isnan(those.labels).any(1)]
    for name, positives in zip(PATHOLOGIES, coded.sum(0).astype(int), strict=True):
        interval = binomtest(int(positives), len(coded)).proportion_ci(method="wilson")
        rows.append((name, part, positives, len(coded), positives / len(coded), interval.low, interval.high))
prevalence = pd.DataFrame(rows, columns=["pathology", "part", "positives", "n", "share", "low", "high"])
prevalence[prevalence["part"] == "test"].round(3)

# %%
figure, axes = figures.new_figure(width=7, height=3.2)
axis, palette = axes[0, 0], sns.color_palette("colorblind")
for k, (part, group) in enumerate(prevalence.groupby("part", sort=False)):
    place = np.arange(5) + 0.22 * (k - 1)
    axis.hlines(place, 100 * group["low"], 100 * group["high"], color=palette[k])
    label = f"{part}, n = {group['n'].iloc[0]:,}"
    axis.scatter(100 * group["share"], place, color=palette[k], marker="os^"[k], label=label, zorder=2)
axis.set(yticks=range(5), yticklabels=PATHOLOGIES, xlim=(0, None), xlabel="% of studies [95 % Wilson interval]")
axis.invert_yaxis()
axis.legend(frameon=False, loc="lower right")
sns.despine(ax=axis)
figures.show(
    figure,
    caption="How common each finding is: the three parts are alike, and small parts have wide intervals.",
    alt="Five groups of three dots with error bars. Atelectasis and cardiomegaly near 9 percent, effusion near 4, "
    "consolidation and edema near 1; the bars are short for train, wider for test and widest for validation.",
)

# %% [markdown]
# ## Findings come together
#
# A failing heart enlarges, and fluid collects in the lungs and beside them. The heat map reads along a row: of the studies
# with this finding, which share has the other?

# %%
coded = studies.labels[~np.isnan(studies.labels).any(1)]
together = coded.T @ coded  # [5, 5], the positives on the diagonal
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
    alt="A five by five heat map. The darkest cell stands in the edema row: three quarters of these studies also have cardiomegaly. Numbers stand in every cell.",
)

# %% [markdown]
# ## Identical texts
#
# Radiologists have set phrases. In contrastive training, where every *other* report of a batch counts as wrong, two patients
# with the same words become false negatives. Notebook 03 treats them.

# %% tags=["nbval-check-output"]
impressions = Counter(report.impression for report in reports if report.impression)
for text, count in impressions.most_common(4):
    print(f"{count:4}  {text}")
texts = Counter(report.text for report in reports if report.text)
print(f"{sum(count for count in texts.values() if count > 1):,} whole reports share their words with another")

# %% [markdown]
# ## The baseline that always says "normal"
#
# Ask the cheapest question first: what does a classifier score that never looks? scikit-learn's `DummyClassifier` answers with
# the most frequent class, which is "absent" for all five.

# %% tags=["nbval-check-output"]
truth = {part: those.labels[~np.isnan(those.labels).any(1)] for part, those in parts.items()}
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
# ## A report beside its phantom
#
# The real radiographs are 1.4 GB away, so the course draws each study's radiograph from its codes: a **phantom**. It is no
# patient's image. In return we know exactly where each finding is, which no report tells.

# %%
index = studies.find("CXR3256")
figures.show(
    figures.first_picture(studies, index),
    caption="A real report (CXR3256, Open-i) and the phantom drawn from its codes. Outlines: "
    "blue atelectasis, orange cardiomegaly, purple-pink pleural effusion. The patient's left is the picture's right.",
    alt="Left: a phantom chest radiograph. Middle: the same with a wide heart outlined, a region of the left lung base, and small areas "
    "in both lower corners of the lungs. Right: the report's findings, impression and codes.",
)

# %% [markdown]
# ## Mirrored twins
#
# A phantom can do what no hospital can: the same body with the finding left, with it right, and without it. If a model's
# answer changes between twins, only the finding can be the reason. Notebook 07 uses 60 of each.

# %%
finding, left, right, without = load_twins()["effusion, moderate"]
figure, axes = figures.new_figure(4, 2, width=2.2, height=2.4)
for row, body in enumerate((0, 3)):
    for column, (title, twins) in enumerate(
        (("effusion on the patient's right", right), ("none", without), ("on the left", left))
    ):
        figures.draw_radiograph(axes[row, column], twins.image(body), title=title if row == 0 else "", source="phantom")
        figures.draw_masks(axes[row, column], twins.masks(body))
    change = np.abs(left.image(body).astype(int) - without.image(body))
    axes[row, 3].imshow(change, cmap="magma")
    axes[row, 3].set_title("|left − none|" if row == 0 else "", fontsize=9)
    axes[row, 3].set_axis_off()
figures.show(
    figure,
    caption="Mirrored twins (phantom): two bodies, each three times, the effusion outlined. Right: the pixels that the left effusion changed.",
    alt="Two rows of four phantom pictures. The first three columns show the same chest with an outlined effusion at the picture's left base, without one, and at the right "
    "base; the fourth is black but for a bright patch where the left effusion lies.",
)

# %% tags=["nbval-check-output"]
change = np.abs(left.images.astype(int) - without.images)
half = change.shape[-1] // 2
far_away = change[:, :, : half // 2]  # the quarter of the picture on the other side
print("phantom: pixels far away changed by more than 1 grey level of 255:", int((far_away > 1).sum()))
print("phantom: twins whose pictures differ:", int(change.any((1, 2)).sum()), "of", len(left))

# %% [markdown]
# ## Your turn
#
# A word is not a finding. How many coded reports contain "effusion" in their text, although *pleural effusion* is labelled 0?
# Count over `reports`, and put the number in `my_count`.
#
# **Hint.** `report.text` is in lower case; `report.labels[4]` is 1, 0 or NaN.

# %%
my_count = None

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# my_count = sum("effusion" in report.text and report.labels[4] == 0 for report in reports)
# ```
#
# Two thirds of all reports and more! In nearly all of them the finding is denied, most often by "no": negation is what makes
# radiology's language hard for a model that counts words.
#
# </details>

# %% tags=["nbval-check-output"]
expected = sum(
    "effusion" in report.text and report.labels[PATHOLOGIES.index("pleural effusion")] == 0 for report in reports
)
if my_count is None:
    print("not attempted yet")
else:
    assert my_count == expected, f"{my_count} is not it: count texts with 'effusion' whose label is 0, not NaN."
    print(f"Right: {expected:,} of {len(reports):,} reports have the word, and no such code.")

# %% [markdown]
# ## We learned
#
# - A report has sections; findings and impression describe the image; codes make the labels.
# - NaN is not 0: uncoded reports are left out.
# - Consolidation and edema are so rare that every number needs its interval, and "always normal" looks good in accuracy.
# - Pixels here are phantoms, drawn from codes.

# %% [markdown]
# ## Read next
#
# - Demner-Fushman et al., *Preparing a collection of radiology examinations for distribution and retrieval*, JAMIA 23 (2016).
# - Cohen et al., *TorchXRayVision: a library of chest X-ray datasets and models*, MIDL 2022.
# - Oakden-Rayner, *Exploring large-scale public medical image datasets*, Academic Radiology 27 (2020).
#
# Next: [02_encoders](02_encoders.ipynb).
