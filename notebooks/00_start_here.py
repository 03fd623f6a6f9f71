# %% [markdown]
# # Start here
#
# Can a computer learn to read chest radiographs from the reports that radiologists write anyway? In five minutes you follow one
# patient's study from its words and pixels to a diagnosis.

# %% [markdown]
# **In this notebook you will**
#
# - read a real radiology report, beside a phantom radiograph,
# - see where single words look,
# - get a diagnosis from words alone, and learn how far to trust it,
# - find your way through the course.
#
# It builds on nothing. Half a minute on two CPU cores, once the model is trained.

# %% [markdown]
# ## Data and model
#
# The reports are real: 3,851 studies of the Indiana University collection (IU-RR). The first call draws the radiographs (about a minute), the second trains
# the model (about five); from then on both are found on disk.

# %%
import numpy as np
import torch

from cmlr_utils import PATHOLOGIES, load_iu_rr, presets, pretrain
from cmlr_utils.course import figures
from cmlr_utils.evaluation.grounding import word_attention
from cmlr_utils.evaluation.statistics import aucs
from cmlr_utils.evaluation.zero_shot import zero_shot
from cmlr_utils.models.image_encoder import ImageFeatures

studies = load_iu_rr("phantom")
model = pretrain(presets["tiny"], studies)

# %% [markdown]
# ## One study
#
# We take it from the *test* split, which the model has never seen. Its report names one finding in one place; and it was picked knowing that the
# words of an earlier model found it. So judge the method by all studies, further down.

# %% tags=["nbval-check-output"]
test = studies.split("test")
index = test.find("CXR818")
study = test[index]
print(f"{study.id}, {study.split} split\n")
for section in ("indication", "findings", "impression"):
    print(f"{section.upper()}\n{figures.wrap(getattr(study, section), 100)}\n")

# %% [markdown]
# `XXXX` replaces what could identify a patient. With the report come codes, a summary in fixed terms, written by people who read it, from which
# the five labels of this course follow: 1 present, 0 absent.

# %% tags=["nbval-check-output"]
print(*study.mesh, sep="\n")
print(dict(zip(PATHOLOGIES, study.labels.astype(int).tolist(), strict=True)))

# %% [markdown]
# On a radiograph air is black, and water and tissue are white. The five in one line each:
#
# | | |
# |---|---|
# | atelectasis | a part of a lung has lost its air and shrunk: white bands or a wedge |
# | cardiomegaly | the heart is enlarged: wider than half the chest |
# | consolidation | air spaces are filled, as in pneumonia: a dense white patch |
# | edema | the lungs hold too much water: haze on both sides |
# | pleural effusion | fluid between lung and chest wall: white from below, with a curved upper edge |

# %% [markdown]
# ## Its radiograph is a phantom
#
# The real radiograph is not here. What you see was **drawn from the codes**, for teaching: it is nobody's chest. That is why we know exactly
# where the finding is. You face the patient, so the patient's right is on your left.

# %%
figure, axes = figures.new_figure(2, width=3.6, height=3.8)
for axis in axes[0]:
    figures.draw_radiograph(axis, test.image(index), title=study.id, source=test.source)
figures.draw_masks(axes[0, 1], test.masks(index))
axes[0, 1].set_title("what the codes name", fontsize=9)
figures.show(
    figure,
    caption="The phantom of CXR818, and the consolidation that its codes place in the right upper lobe.",
    alt="Twice the same phantom chest radiograph. A pale patch lies in the upper lung at the picture's left; in the second picture a line surrounds it.",
)

# %% [markdown]
# ## Words and regions become vectors
#
# One network turns the radiograph into 8 × 8 regions, another turns the report into words. Training put both into one space of 128 numbers, where a word lies near
# the regions it describes. Nobody ever marked a region.

# %% tags=["nbval-check-output"]
images = model.encode_images(test.images)  # all 770 radiographs of the test split
words = model.words_of(study.text)
print("regions of all radiographs", list(images.image_local.shape))
print(len(words), "words:", " ".join(words[:14]), "…")

# %% [markdown]
# ## Where does a word look?
#
# Compare one word with all 64 regions: where they are alike, the word *attends*. The model sees pixels and words, no codes. Does
# "consolidation" find the outlined place?


# %%
def only(images: ImageFeatures, i: int) -> ImageFeatures:
    return ImageFeatures(*(tensor[i : i + 1] for tensor in images))


figure, axes = figures.new_figure(3, width=3, height=3.3)
for axis, word in zip(axes[0], ("consolidation", "heart", "pneumonia"), strict=True):
    attention = word_attention(model, only(images, index), study.text, word)[0]
    figures.draw_attention(axis, test.image(index), attention.numpy(), title=f"“{word}”", source=test.source)
    figures.draw_masks(axis, test.masks(index))
figures.show(
    figure,
    caption="Attention of three words of the report over the phantom of CXR818: yellow where a word looks most. Outlined: the true consolidation.",
    alt="Three times the phantom chest radiograph, overlaid with a map from dark blue to yellow for the words consolidation, heart and pneumonia; the true "
    "consolidation is outlined at the picture's upper left.",
)

# %% [markdown]
# Words that name the finding go to the patch. "heart" is less sure of itself: nearly every report names the heart, most often to say that nothing is
# wrong with it, so the word learns little about where it is. Notebook 07 asks how often words are right.

# %%
attention = word_attention(model, only(images, index), study.text, "consolidation")[0]
on_pixels = np.kron(attention.numpy(), np.ones((16, 16)) / 256)  # each region is 16 x 16 pixels
mask = test.masks(index)[PATHOLOGIES.index("consolidation")]
print(
    f"phantom: {on_pixels[mask].sum():.0%} of the attention falls on the consolidation, which covers {mask.mean():.0%} of the picture"
)

# %% [markdown]
# ## A diagnosis from words alone
#
# Now the report is put away. We write short sentences, such as "focal right upper lobe consolidation.", and ask how well each fits the radiograph. This is **zero-shot**
# diagnosis: no classifier was trained; codes only decided which studies training drew more often.

# %%
scores = zero_shot(model, images).both  # [770 studies, 5 pathologies]
rank = (scores < scores[index]).mean(0)
for name, share in zip(PATHOLOGIES, rank, strict=True):
    print(f"phantom: {name:17} fits better than to {share:4.0%} of the test radiographs")


# %%
def draw_study(axes, i: int) -> None:
    """A phantom with its outlined findings, and beside it how its five scores rank in the test split."""
    figures.draw_radiograph(axes[0], test.image(i), title=test[i].id, source=test.source)
    figures.draw_masks(axes[0], test.masks(i))
    rank = 100 * (scores < scores[i]).mean(0)
    figures.draw_bars(
        axes[1], PATHOLOGIES, rank, highlight=test[i].labels == 1, xlabel="scores higher than … % of test studies"
    )
    axes[1].set_xlim(0, 100)


figure, axes = figures.new_figure(2, width=4, height=2.8)
draw_study(axes[0], index)
figures.show(
    figure,
    caption="How the phantom of CXR818 ranks among 770 test studies for each pathology. Blue: what the codes name.",
    alt="Left: the phantom with its outlined consolidation. Right: five horizontal bars from 0 to 100 percent, one for each pathology; the bar of consolidation is blue.",
)

# %% [markdown]
# Read the grey bars, too. Where one is as long as the blue one, the model is sure that something is wrong and unsure what it is: on a radiograph, filled
# and collapsed lung and fluid are all white.

# %% [markdown]
# ## Three more, chosen by their reports
#
# A large right effusion, a marked cardiomegaly, an interstitial edema: one clear report each. Look for blue bars that are long, and for grey ones
# that are long, too: those are the model's false alarms.

# %%
figure, axes = figures.new_figure(2, 3, width=4, height=2.6)
for row, study_id in zip(axes, ("CXR2327", "CXR1870", "CXR3884"), strict=True):
    draw_study(row, test.find(study_id))
for row in axes[:-1]:
    row[1].set_xlabel("")
figures.show(
    figure,
    caption="Three more phantoms of the test split: pleural effusion, cardiomegaly, edema. Blue: what the codes name.",
    alt="Three rows, each a phantom chest radiograph with its finding outlined and five bars. The blue bars are effusion, cardiomegaly and edema; some grey bars are long as well.",
)

# %% [markdown]
# ## How far to trust it
#
# Four studies prove nothing. Over all coded test studies, the AUC is the chance that a study with the finding scores higher than one without; guessing gives .5. The
# interval shows how much of it may be luck.

# %%
coded = ~np.isnan(test.labels).any(1)
per_pathology, average = aucs(test.labels[coded], scores[coded], test.patients[coded])
for name, auc in zip(PATHOLOGIES, per_pathology, strict=True):
    print(f"phantom: {name:17} AUC {auc}, {auc.positives} of {coded.sum()} studies")
print(f"phantom: average           AUC {average}")

# %% tags=["nbval-check-output"]
print("phantom: average zero-shot AUC above .80 on the test split:", average.value > 0.80)

# %% [markdown]
# These are AUCs on **phantoms**, drawn from the codes that also make the labels. They show that the method works, and that the model learned from real language.
# They say nothing about patients, and this model must never be used for one.

# %% [markdown]
# ## Using the course
#
# - `make lab` opens the notebooks; Shift+Enter runs a cell. Run them from the top.
# - `make course` runs everything without notebooks, and prints one table.
# - `.venv/bin/cmlr doctor` says what this machine has, and what to do about what it lacks.
# - Radiographs and models are kept under `data/cache`, or where `CMLR_DATA` points.

# %% [markdown]
# ## A GPU, and real radiographs
#
# - With an NVIDIA GPU nothing changes in a notebook: training uses it by itself.
# - Elsewhere, such as on a hosted notebook, `pip install -e .` in the course's folder installs all that the notebooks import.
# - Open-i's real PNGs, unpacked under `data/raw/iu-rr`, are what `load_iu_rr("open-i")` reads.

# %%
print(
    "this machine computes on:",
    torch.cuda.get_device_name() if torch.cuda.is_available() else "its CPU, which is enough",
)

# %% [markdown]
# ## Your turn
#
# Which study of the test split does the model hold most likely to show *cardiomegaly*? Put its id into `my_study`, then read its report: is the
# model right?
#
# **Hint.** `scores[:, 1]` belongs to cardiomegaly, and `test[i].id` to study i.

# %%
my_study = None

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# i = int(scores[:, 1].argmax())
# my_study = test[i].id
# print(test[i].text, test[i].mesh)
# ```
#
# Read the text before you look at the codes: you have now judged a model the way this course does it, case by case and not only by its average.
#
# </details>

# %% tags=["nbval-check-output"]
if my_study is None:
    print("not attempted yet")
else:
    best = test[int(scores[:, 1].argmax())].id
    assert my_study == best, f"{my_study} is not it: take the index with the largest scores[:, 1]."
    print("Right: the highest cardiomegaly score of the test split.")

# %% [markdown]
# ## We learned
#
# - A report and a radiograph can be compared, word by region and as a whole.
# - Prompts turn that comparison into a diagnosis, with no classifier.
# - Numbers come with n, an interval and the word phantom.
# - Everything runs here, on a CPU.

# %% [markdown]
# ## The way on
#
# | | |
# |---|---|
# | [01](01_data_loading.ipynb) | reports, codes, labels |
# | [02](02_encoders.ipynb) | two encoders, one space |
# | [03](03_global_local_loss.ipynb) | the loss, step by step |
# | [04](04_pretraining.ipynb) | pretraining |
# | [05](05_supervised_classification.ipynb) | classifiers on frozen features |
# | [06](06_zero_shot_and_retrieval.ipynb) | zero-shot, retrieval |
# | [07](07_attention_and_grounding.ipynb) | what a word looks at |

# %% [markdown]
# ## Read next
#
# - Hadjiyski, Vosoughi, Wismueller, *Cross Modal Global Local Representation Learning from Radiology Reports and X-Ray Chest Images*, 2023, arXiv 2301.10951.
# - Huang et al., *GLoRIA*, ICCV 2021.
# - Radford et al., *Learning Transferable Visual Models From Natural Language Supervision*, ICML 2021.
