# %% [markdown]
# # Attention and grounding: does a word look at its finding?
#
# The local loss lets each word look at regions. A bright spot on a picture convinces the eye quickly. Phantoms know where their findings are, so here we can ask whether the spot is right.

# %% [markdown]
# **In this notebook you will**
#
# - see what single words look at, with the true outline beside it;
# - score attention by pointing, against a control that never looks and an untrained model;
# - ask mirrored twins a question that no constant answer can pass;
# - study the worst cases, and say what phantoms cannot show.

# %% [markdown]
# It builds on [03_global_local_loss](03_global_local_loss.ipynb) and [06_zero_shot_and_retrieval](06_zero_shot_and_retrieval.ipynb). About half a minute on two CPU cores.

# %%
import numpy as np
import pandas as pd
import seaborn as sns
import torch
from matplotlib.figure import Figure

from cmlr_utils import PATHOLOGIES, load_iu_rr, load_twins, presets, pretrain
from cmlr_utils.course.figures import COLOURS, draw_attention, draw_masks, new_figure, show
from cmlr_utils.data.studies import StudySet
from cmlr_utils.evaluation.grounding import (
    constant_point,
    finding_masks,
    mask_share,
    pointing,
    side_test,
    word_attention,
)

studies = load_iu_rr("phantom")
model = pretrain(presets["tiny"], studies)

# %% [markdown]
# ## One phantom, one phrase
#
# Take a study of the test split with a left effusion and a chest tube, and a phrase as a radiologist might write it. Each word gives weights over an 8 × 8 map that sum to one.

# %%
test = studies.split("test")
left = test.find("CXR509")
phrase = "left pleural effusion with a tube."
image = model.encode_images(test.images[left : left + 1])
attention = model.attention(image, model.encode_texts([phrase]))[0, 0]  # [words, H, W]
words = model.words_of(phrase)

# %% tags=["nbval-check-output"]
print(test[left].id, test[left].mesh)
print("words:", words)
print(
    "attention",
    tuple(attention.shape),
    "each sums to 1:",
    torch.allclose(attention.sum((1, 2)), torch.ones(len(words)), atol=1e-4),
)

# %%
figure, axes = new_figure(4, width=2.5, height=2.8)
shown = [(word, weights) for word, weights in zip(words, attention, strict=True) if len(word) > 3 and word != "with"]
for ax, (word, weights) in zip(axes[0], shown, strict=True):
    draw_attention(ax, test.image(left), weights, title=word, source="phantom")
    draw_masks(ax, test.masks(left))
show(
    figure,
    caption=f"Where four words look on {test[left].id} (phantom): yellow is much, violet little. The outline is the true effusion, on the patient's left, which is the picture's right.",
    alt="Four copies of one phantom chest radiograph under a coloured haze, titled left, pleural, effusion and tube. A coloured outline at the lower right of each picture marks the true effusion; yellow spots show where each word looks.",
)

# %% [markdown]
# Every word looks somewhere, since its weights must sum to one, whether the radiograph shows what it names or not. Neighbours in a phrase also mix in the BERT, so they often look alike. A spot alone means little. We ask only the word that names the finding, in a prompt that names no side.

# %% [markdown]
# ## Five findings
#
# For each pathology we take the test phantoms that show it. How much of the attention falls inside the true outline? The share says it without a threshold.


# %%
def visible(finding: int, part: StudySet) -> StudySet:
    """The studies of a part whose phantom shows the finding: hidden behind fluid or heart does not count."""
    positive = np.flatnonzero(part.labels[:, finding] == 1)
    return part.subset([i for i in positive if part.masks(i)[finding].any()])


def asked(network, part: StudySet, finding: int) -> torch.Tensor:
    """Attention [n, H, W] of the word that names the finding, on every phantom of a part."""
    name = PATHOLOGIES[finding]
    return word_attention(network, network.encode_images(part.images), f"{name}.", name.split()[-1])


# %%
positives = [visible(k, test) for k in range(5)]
masks = [finding_masks(part, k) for k, part in enumerate(positives)]
looks = [asked(model, part, k) for k, part in enumerate(positives)]
inside = [(look.numpy() * mask_share(mask, 8, 8)).sum((1, 2)) for look, mask in zip(looks, masks, strict=True)]
typical = [int(np.argsort(share)[len(share) // 2]) for share in inside]
worst = [int(np.argmin(share)) for share in inside]

# %% tags=["nbval-check-output"]
for name, mask in zip(PATHOLOGIES, masks, strict=True):
    print(f"{name:17} {len(mask):3} test phantoms show it, over {mask.mean():5.1%} of the picture on average")

# %% [markdown]
# Not the best cases, and not the worst: for each finding the case in the middle, with half of its fellows above and half below it.


# %%
def draw_cases(chosen: list[int]) -> Figure:
    figure, axes = new_figure(5, width=2.3, height=2.75)
    for k, (ax, i) in enumerate(zip(axes[0], chosen, strict=True)):
        title = f"{PATHOLOGIES[k]}\n{positives[k][i].id}, {inside[k][i]:.0%} inside"
        draw_attention(ax, positives[k].image(i), looks[k][i], title=title, source="phantom")
        draw_masks(ax, [m if j == k else np.zeros_like(m) for j, m in enumerate(positives[k].masks(i))])
    return figure


show(
    draw_cases(typical),
    caption="The middle case of each finding on the test split (phantom). Outlined: the true finding. Haze: where its word looks.",
    alt="Five phantom chest radiographs, one for each pathology, each with a coloured outline of the true finding and a haze that is yellow where the word looks. The titles give the share of attention that falls inside the outline.",
)

# %% [markdown]
# ## Pointing, and two controls
#
# Pointing counts a hit if the finding covers more than a quarter of the brightest cell. It sounds strict, but hearts are large and always in the same place. The constant point never looks: it is the cell that the training phantoms' masks cover most.

# %%
untrained = model.with_random_weights().to(model.device)
train = studies.split("train")
hits = {
    "trained": [pointing(look, mask) for look, mask in zip(looks, masks, strict=True)],
    "constant point": [constant_point(finding_masks(visible(k, train), k), masks[k], 8, 8) for k in range(5)],
    "untrained": [pointing(asked(untrained, part, k), masks[k]) for k, part in enumerate(positives)],
}

# %% [markdown]
# A blind finger on a random cell hits as often as the finding is large: the table's last column but one. An untrained model may do worse still, since its brightest cell sits at an edge of the picture, where no finding is.

# %%
table = pd.DataFrame({name: [hit.mean() for hit in of] for name, of in hits.items()}, index=PATHOLOGIES)
table["random cell"] = [(mask_share(mask, 8, 8) > 0.25).mean() for mask in masks]
table["n"] = [len(mask) for mask in masks]
print("share of hits on the test split (phantom)")
print(table.round(2).to_string())

# %% tags=["nbval-check-output"]
print("hits of the constant point (phantom):", ", ".join(f"{share:.2f}" for share in table["constant point"]))
mean = table.mean()
print(
    "trained points better than untrained by .1 or more, mean of five (phantom):",
    bool(mean["trained"] > mean["untrained"] + 0.1),
)


# %%
def interval(hit: np.ndarray) -> tuple[float, float]:
    """Wilson's 95 % interval of a share."""
    n, share, z = len(hit), hit.mean(), 1.96
    middle, half = share + z**2 / (2 * n), z * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return (middle - half) / (1 + z**2 / n), (middle + half) / (1 + z**2 / n)


# %%
figure, axes = new_figure(width=6.5, height=3.0)
palette = dict(zip(hits, ("#0173b2", "#de8f05", "#949494"), strict=True))
for shift, (name, of) in zip((-0.22, 0, 0.22), hits.items(), strict=True):
    for y, hit in enumerate(of):
        axes[0, 0].plot(interval(hit), (y + shift, y + shift), color=palette[name], linewidth=2)
        axes[0, 0].plot(hit.mean(), y + shift, "o", color=palette[name], label=name if y == 0 else None)
    axes[0, 0].set_yticks(range(5), [f"{p} (n {len(hit)})" for p, hit in zip(PATHOLOGIES, of, strict=True)])
axes[0, 0].invert_yaxis()
axes[0, 0].set(xlabel="share of hits (phantom)", xlim=(-0.02, 1.02))
figure.legend(loc="outside upper center", ncols=3, frameon=False)
sns.despine(figure)
show(
    figure,
    caption="Pointing on the test split (phantom) with 95 % intervals: the trained model, a point that never looks, an untrained model.",
    alt="Five rows, one for each pathology, each with three dots and interval bars: blue for the trained model, orange for the constant point, grey for the untrained model. For cardiomegaly and edema the constant point is as far right as any model can be.",
)

# %% [markdown]
# For cardiomegaly the constant point can hardly be beaten: it lies on the heart. A high pointing score there proves nothing. Where the blue interval is not clearly to the right of the orange one, looking has not been shown to gain anything over habit.
#
# The word "edema" does worst: that finding has two parts, one in each lung, and the brightest cell tends to fall between them, where no mask is.

# %% [markdown]
# ## Mirrored twins
#
# A fairer question: the same body three times, with the finding on the left, on the right, and without it. The prompt names no side. A constant point is right on one side and wrong on the other: one half.

# %% tags=["nbval-check-output"]
twins = load_twins()
finding, on_left, on_right, without = twins["effusion, moderate"]
print("cases:", "; ".join(twins))
print("codes of one trio:", *(part[0].mesh[0] for part in (on_left, on_right, without)), sep="\n  ")

# %%
trio = {"finding on the patient's left": on_left, "on the right": on_right, "without": without}
figure, axes = new_figure(3, 2, width=2.6, height=2.8)
for body, row in enumerate(axes):
    for ax, (title, part) in zip(row, trio.items(), strict=True):
        attention = asked(model, part.subset([body]), finding)[0]
        draw_attention(ax, part.image(body), attention, title=title if body == 0 else "", source="phantom")
        draw_masks(ax, part.masks(body))
show(
    figure,
    caption='Two trios of twins (phantom), asked with "pleural effusion." The outline is the true effusion.',
    alt="Two rows of one phantom chest radiograph three times under a coloured haze: with an outlined effusion at the right of the picture, at the left, and with none.",
)

# %% [markdown]
# Does the brightest spot follow the outline, in both bodies? Look for what else is white there: a word that finds no fluid still has to look somewhere.

# %% [markdown]
# `side_test` asks two things of 60 trios for each case. Does the attention peak on the finding's side? And is the global score above that of the same body without the finding? Chance is one half for both.

# %%
rows = {}
for name, (finding, on_left, on_right, without) in twins.items():
    for kind, network in (("trained", model), ("untrained", untrained)):
        rows[name, kind] = side_test(network, on_left, on_right, without, PATHOLOGIES[finding])
sides = pd.DataFrame(rows).T
print("mirrored twins (phantom); chance is 0.50")
print(sides.round(2).unstack()[["right side", "above its twin"]].to_string(), f"\nn {int(sides['n'].iloc[0])} each")

# %% tags=["nbval-check-output"]
by_kind = sides["right side"].unstack()
print("phantoms asked for each case:", int(sides["n"].iloc[0]))
print("mean of all cases: trained on the right side above .7 (phantom):", bool(by_kind["trained"].mean() > 0.7))
print(
    "mean of all cases: trained above untrained by .15 or more (phantom):",
    bool(by_kind["trained"].mean() > by_kind["untrained"].mean() + 0.15),
)

# %% [markdown]
# The two columns need not agree. A model may look at the right place and yet not raise its score there, or raise its score for a reason that it does not look at. Attention is one part of a computation, not its explanation.

# %% [markdown]
# ## Failures
#
# Now the worst case of each finding among all test phantoms that show it: the one with the least attention inside its outline.

# %%
show(
    draw_cases(worst),
    caption="The worst case of each finding on the test split (phantom). Outlined: the true finding. Haze: where its word looks.",
    alt="Five phantom chest radiographs with small or unusually placed outlines of the true finding. The yellow haze lies elsewhere, often at a place where the finding is common; the titles give low shares of attention inside the outline.",
)

# %%
for k, i in enumerate(worst):
    size = masks[k][i].mean()
    print(
        f"{positives[k][i].id:8} {PATHOLOGIES[k]:17} {inside[k][i]:4.0%} inside; it covers {size:5.1%} (typically {np.median(masks[k].mean((1, 2))):.1%})"
    )
    print("         codes:", "; ".join(code for code in positives[k][i].mesh))

# %% [markdown]
# Read the codes beside the pictures. A finding may be smaller than a cell of the map, 16 × 16 pixels, and a map cannot point finer than its cells. Or the chest shows a second finding, on which the word may land.

# %% [markdown]
# Size is one cause that we can measure. If it were the whole story, attention inside would be the finding's area times a constant:

# %%
figure, axes = new_figure(width=5.0, height=3.3)
for k, pathology in enumerate(PATHOLOGIES):
    axes[0, 0].plot(
        100 * masks[k].mean((1, 2)), 100 * inside[k], "o", color=COLOURS[pathology], alpha=0.6, label=pathology
    )
axes[0, 0].plot([0, 30], [0, 30], color="black", linestyle="--", linewidth=1, label="attention spread evenly")
axes[0, 0].set(
    xlabel="area of the finding (% of the picture, phantom)", ylabel="attention inside it (%)", xlim=(0, None)
)
axes[0, 0].legend(fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
sns.despine(figure)
show(
    figure,
    caption="Attention inside the true outline against its area, one dot for each test phantom.",
    alt="A scatter of dots in five colours. Most lie above a dashed diagonal that marks attention spread evenly; small findings reach from zero to high shares, large hearts and edema hold much attention.",
)

# %% tags=["nbval-check-output"]
above = [bool(np.median(share) > np.median(mask.mean((1, 2)))) for share, mask in zip(inside, masks, strict=True)]
print("median attention inside is above the median area for at least three of five (phantom):", sum(above) >= 3)

# %% [markdown]
# ## What phantom results cannot say
#
# - They cannot say that the model would look at the right place on a patient's film. A phantom's findings have the shapes that we gave them, and the same codes drew the picture and made the label.
# - They cannot replace a radiologist's boxes. They can show that a method fails even where all is known.

# %% [markdown]
# ## Your turn
#
# A finding lies always in the same cell, in 80 of 100 test phantoms; in the other 20 it is elsewhere. What does the best constant point score, and so what must a model beat? Put a share in place of `None`.

# %% tags=["nbval-check-output"]
my_share = None

if my_share is None:
    print("not attempted yet")
else:
    toy = np.zeros((100, 64, 64), dtype=bool)
    toy[:80, 40:48, 8:16] = toy[80:, :8, :8] = True
    answer = constant_point(toy, toy, 8, 8).mean()
    assert abs(my_share - answer) < 0.005, "which single cell would you point at, a hundred times?"
    print("right: 80 % without one look at a picture")

# %% [markdown]
# **Hint.** The constant point takes the cell that the masks cover most often, and stays there.
#
# <details><summary>Solution</summary>
#
# `my_share = 0.8`. A model that scores 80 % here may have learned nothing but where the finding usually is.
#
# </details>

# %% [markdown]
# ## We learned
#
# - Word attention always looks somewhere; only a known truth tells whether it is right.
# - Pointing needs the constant point and an untrained model beside it.
# - Mirrored twins cannot be passed by habit.
# - Failures have causes to look for: size, cells, a second finding; and phantoms have limits.

# %% [markdown]
# **Read next**
#
# - J. Zhang et al.: *Top-Down Neural Attention by Excitation Backprop*, International Journal of Computer Vision 126, 2018. The pointing game.
# - J. Adebayo et al.: *Sanity Checks for Saliency Maps*, NeurIPS 2018. Why the untrained model belongs in the table.
# - A. Saporta et al.: *Benchmarking Saliency Methods for Chest X-Ray Interpretation*, Nature Machine Intelligence 4, 2022.
#
# Next: go back to the [start](00_start_here.ipynb), and change one line of a preset.
