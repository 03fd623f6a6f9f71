# %% [markdown]
# # The loss: global and local
#
# One example, small enough for pencil and paper, goes all the way from a word and a picture to the loss that trains the
# model: first as a loop, then as matrices, then as the course's own function. The three must agree.

# %% [markdown]
# **In this notebook you will**
#
# - compute InfoNCE, the global loss, by hand,
# - let a word look at regions, and score a report by its words,
# - get rid of loop and context vectors,
# - see what temperatures do, and why normal reports are false negatives.
#
# It builds on [02_encoders](02_encoders.ipynb). Under half a minute on two CPU cores.

# %%
import math

import numpy as np
import pandas as pd
import seaborn as sns
import torch
from matplotlib.colors import ListedColormap
from torch.nn import functional as F

from cmlr_utils import load_iu_rr, losses, presets, pretrain
from cmlr_utils.course import figures
from cmlr_utils.models.losses import word_region_cosine
from cmlr_utils.training.pretrain import Batches, trainable
from cmlr_utils.training.sampling import false_negatives

# %% [markdown]
# ## Three studies, four numbers each
#
# Our batch has B = 3 studies, the shared space D = 4 dimensions. The numbers are made up, and each
# report's vector lies near its own radiograph's. Everything is float64, so that equal means equal.

# %% tags=["nbval-check-output"]
rng = np.random.default_rng(3)
image_global = torch.tensor(rng.normal(size=(3, 4)).round(1))  # [B, D]
text_global = image_global + 1.5 * torch.tensor(rng.normal(size=(3, 4)).round(1))  # [B, D]
for i in range(3):
    print(f"study {i}: radiograph {image_global[i].tolist()}, report {text_global[i].numpy().round(2).tolist()}")

# %% [markdown]
# ## InfoNCE, in a loop
#
# Which report belongs to this radiograph? Take the cosine with every report, divide by a temperature, and read a softmax
# as chances. The loss is minus the log of the chance of the right one, averaged over radiographs.


# %% tags=["nbval-check-output"]
def cosine(a, b):
    return (a @ b / (a.norm() * b.norm())).item()


B, temperature = 3, 0.1
loop_loss = 0.0
for i in range(B):
    weights = [math.exp(cosine(image_global[i], text_global[t]) / temperature) for t in range(B)]
    chance = weights[i] / sum(weights)
    loop_loss -= math.log(chance) / B
    print(
        f"radiograph {i}: cosines {[round(cosine(image_global[i], t), 2) for t in text_global]}, chance of its own report {chance:.3f}"
    )
print(f"loss {loop_loss:.3f}")

# %% [markdown]
# ## The same, as a matrix
#
# All cosines form a matrix whose diagonal holds the true pairs. The loss is cross-entropy: row i should choose column i.
# Asked of columns, the same matrix answers which radiograph belongs to a report.

# %% tags=["nbval-check-output"]
similarity = F.normalize(image_global, dim=-1) @ F.normalize(text_global, dim=-1).T  # [B images, B texts]
image_to_text = F.cross_entropy(similarity / temperature, torch.arange(B))
text_to_image = F.cross_entropy(similarity.T / temperature, torch.arange(B))
print(f"image to text {image_to_text:.3f}, text to image {text_to_image:.3f}")


# %% tags=["nbval-check-output"]
def equal(name, a, b):
    difference = (torch.as_tensor(a, dtype=torch.float64) - b).abs().max().item()
    print(f"{name}: largest difference below 1e-12:", difference < 1e-12)


ours = losses.global_loss(image_global, text_global, temperature)
equal("loop and matrix    ", loop_loss, image_to_text)
equal("matrix and function", torch.stack([image_to_text, text_to_image]), torch.stack(ours))

# %% [markdown]
# ## Words look at regions
#
# One vector for a whole radiograph forgets where things are. So the local loss keeps R = 2 × 2 regions and N = 3 words,
# and lets each word look first. The third report has only two words: a mask says so.

# %%
texts = [["large", "left", "effusion"], ["enlarged", "heart", "stable"], ["clear", "lungs", "(padding)"]]
words = torch.tensor(rng.normal(size=(3, 4, 3)).round(1))  # [B, D, N]
word_mask = torch.tensor([[True, True, True], [True, True, True], [True, True, False]])  # [B, N]
image_local = torch.tensor(rng.normal(0, 0.5, size=(3, 4, 2, 2)).round(1))  # [B, D, H, W]
image_local[0, :, 1, 1] += words[0, :, 2]  # the effusion lies in region 3, lower right
image_local[1, :, 1, 0] += words[1, :, 1]  # the heart in region 2
image_local[2, :, 0, 0] += words[2, :, 0]  # clear lung in region 0

# %% [markdown]
# **Step 1, dot products.** How alike are each word of the first report and each region of its radiograph? We laid the vector of "effusion" into region 3,
# so that row should peak there.

# %% tags=["nbval-check-output"]
regions = image_local[0].flatten(1)  # [D, R]
logits = words[0].T @ regions  # [N, D] x [D, R] -> [N, R]
pd.DataFrame(logits.numpy(), index=texts[0], columns=[f"region {r}" for r in range(4)]).round(2)

# %% [markdown]
# **Step 2, words compete.** A softmax down each column: in every region the words share out one unit.
# **Step 3, regions compete.** A softmax along each row, after division by the attention temperature 0.25: each word
# shares out its attention.

# %% tags=["nbval-check-output"]
attention_temperature = 0.25
word_share = logits.softmax(dim=0)  # columns sum to 1
attention = (word_share / attention_temperature).softmax(dim=1)  # rows sum to 1
pd.DataFrame(attention.numpy(), index=texts[0], columns=[f"region {r}" for r in range(4)]).round(2)

# %%
figure, axes = figures.new_figure(3, width=3.1, height=2.3)
steps = [("1  dot products", logits), ("2  softmax over words ↓", word_share), ("3  softmax over regions →", attention)]
for axis, (title, values) in zip(axes[0], steps, strict=True):
    limits = {"vmin": -4, "vmax": 4, "cmap": "vlag"} if values is logits else {"vmin": 0, "vmax": 1, "cmap": "Blues"}
    sns.heatmap(values.numpy(), ax=axis, annot=True, fmt=".2f", cbar=False, yticklabels=texts[0], **limits)
    axis.set(title=title, xlabel="region")
    axis.tick_params(axis="y", rotation=0)
figures.show(
    figure,
    caption="From likeness to attention, for the made-up example: three words by four regions.",
    alt="Three small tables of colours, words by regions. The cell of effusion and region 3 stands out in each, and after the last softmax "
    "holds the most of its row.",
)

# %% [markdown]
# **Step 4, context.** What "effusion" saw: the regions, averaged with its attention. **Step 5, cosine.** Is what it saw
# like the word itself? If the radiograph shows nothing like an effusion, no attention can make it so.

# %% tags=["nbval-check-output"]
context = regions @ attention[2]  # [D, R] x [R] -> [D]
print("the word    ", words[0, :, 2].tolist())
print("its context ", [round(value, 2) for value in context.tolist()])
print(f"their cosine {cosine(words[0, :, 2], context):.3f}")

# %% [markdown]
# **Step 6, log-sum-exp.** A soft maximum over the words' cosines scores the report: words that find their match speak loudest. With
# all steps in one function, a loop fills the matrix of all radiographs and all reports.


# %% tags=["nbval-check-output"]
def pair_score(image, text, mask, word_temperature=0.2):
    """How well one report fits one radiograph: image [D, H, W], text [D, N], mask [N]."""
    regions, text = image.flatten(1), text[:, mask]
    attention = ((text.T @ regions).softmax(dim=0) / attention_temperature).softmax(dim=1)
    cosines = [cosine(text[:, n], regions @ attention[n]) for n in range(text.shape[1])]
    return math.log(sum(math.exp(c / word_temperature) for c in cosines))


scores = torch.tensor(
    [[pair_score(image_local[i], words[t], word_mask[t]) for t in range(B)] for i in range(B)], dtype=torch.float64
)
print(scores.numpy().round(3))

# %% [markdown]
# **Step 7, cross-entropy,** exactly as before: rows choose columns, columns choose rows. The local loss differs from
# the global one only in how a pair is scored.

# %% tags=["nbval-check-output"]
loop_losses = [F.cross_entropy(s / 0.1, torch.arange(B)) for s in (scores, scores.T)]
print(f"image to text {loop_losses[0]:.3f}, text to image {loop_losses[1]:.3f}")

# %% [markdown]
# ## The same, as tensors
#
# Letters say what happens: `i` images, `t` texts, `n` words, `r` regions, `d` dimensions. One `einsum` replaces three
# loops. Padding gets minus infinity before a softmax, so that it gets nothing after it.


# %% tags=["nbval-check-output"]
def scores_with_context(image_local, words, word_mask):
    regions = image_local.flatten(2)  # [I, D, R]
    logits = torch.einsum("tdn,idr->itnr", words, regions)
    logits = logits.masked_fill(~word_mask[None, :, :, None], float("-inf"))
    attention = (logits.softmax(dim=2) / attention_temperature).softmax(dim=3)  # [I, T, N, R]
    context = torch.einsum("itnr,idr->itnd", attention, regions)  # the large one
    cosines = F.cosine_similarity(context, words.transpose(1, 2)[None], dim=-1)  # [I, T, N]
    return (cosines / 0.2).masked_fill(~word_mask, float("-inf")).logsumexp(dim=-1)


ours = losses.local_loss(image_local, words, word_mask)
equal("loop and tensors   ", scores, scores_with_context(image_local, words, word_mask))
equal("loop and function  ", scores, ours.similarity)
equal("losses             ", torch.stack(loop_losses), torch.stack([ours.image_to_text, ours.text_to_image]))
equal("attention          ", attention, ours.attention[0].flatten(1))

# %% [markdown]
# ## Without the context: the Gram trick
#
# The context $c=\sum_r a_r v_r$ is needed only inside a cosine, $\frac{w\cdot c}{|w|\,|c|}$. Both parts can be had without it:
#
# $$w\cdot c=\sum_r a_r\,(w\cdot v_r),\qquad |c|^2=\sum_{r,s}a_r a_s\,(v_r\cdot v_s)=a^\top G\,a.$$
#
# The products $w\cdot v_r$ are step 1's logits. $G=V^\top V$, the **Gram matrix**, is the same for all words.

# %% tags=["nbval-check-output"]
a, w = attention[2], words[0, :, 2]
gram = regions.T @ regions  # [R, R]
equal("w·c ", w @ context, a @ logits[2])
equal("|c|²", context @ context, a @ gram @ a)

# %% [markdown]
# What is saved? At the published size a batch holds 48 radiographs of 19 × 19 regions, 48 reports of up to 97 words, and
# 768 dimensions. A context vector is needed for every radiograph, report and word; a Gram matrix for every radiograph.

# %% tags=["nbval-check-output"]
B_paper, D, R, N = 48, 768, 19 * 19, 97
print(f"numbers in all contexts:      {B_paper * B_paper * N * D:>11,}")
print(f"numbers in all Gram matrices: {B_paper * R * R:>11,}, {B_paper * N * D / R**2:.0f} times fewer")

# %% [markdown]
# A loss is there to be differentiated, so the gradients must agree as well: those of the plain version, context and
# all, and those of the course's function.

# %% tags=["nbval-check-output"]
inputs = [image_local.clone().requires_grad_(), words.clone().requires_grad_()]
plain = scores_with_context(*inputs, word_mask)
plain_loss = F.cross_entropy(plain / 0.1, torch.arange(B)) + F.cross_entropy(plain.T / 0.1, torch.arange(B))
ours = losses.local_loss(*inputs, word_mask)
pairs = zip(
    torch.autograd.grad(plain_loss, inputs),
    torch.autograd.grad(ours.image_to_text + ours.text_to_image, inputs),
    strict=True,
)
for name, (a, b) in zip(("image_local", "words      "), pairs, strict=True):
    equal(f"gradient of {name}", a, b)

# %% [markdown]
# ## What a temperature does
#
# Dividing by a small number spreads the values, and a softmax then prefers the largest. High temperatures
# average, low ones choose. Here are the three cosines of radiograph 1 with the reports.

# %%
figure, axes = figures.new_figure(4, width=2, height=2.2)
for axis, value in zip(axes[0], (1.0, 0.3, 0.1, 0.03), strict=True):
    chances = (similarity[1] / value).softmax(0).numpy()
    figures.draw_bars(axis, [f"report {t}" for t in range(3)], chances, highlight=[False, True, False], xlabel="chance")
    axis.set(xlim=(0, 1), title=f"temperature {value}")
figures.show(
    figure,
    caption="The same three cosines at four temperatures; the right report is blue.",
    alt="Four bar charts of three bars. At temperature 1 the bars are of similar length; the lower the temperature, the more one bar takes everything.",
)

# %% [markdown]
# ## Long reports and short ones
#
# Step 6 adds over words, so a report gains by repeating itself, and cosines with words that compete depend on how many there are. The
# tiny preset therefore takes the mean and leaves step 2 out; the paper preset keeps both as published.

# %% tags=["nbval-check-output"]
twice, mask_twice = torch.cat([words, words], dim=2), torch.cat([word_mask, word_mask], dim=1)
for average in (False, True):
    once, doubled = (
        losses.local_loss(image_local, w, m, words_compete=False, average_words=average).similarity
        for w, m in ((words, word_mask), (twice, mask_twice))
    )
    print(f"average_words={average}: saying everything twice adds {abs((doubled - once).mean().item()):.3f}")
print(f"log 2 = {math.log(2):.3f}")

# %% [markdown]
# ## False negatives
#
# The loss calls every pair off the diagonal wrong. But "no acute disease" is as true of the next normal radiograph as of its own. How
# many such pairs does a batch of 64 hold, drawn evenly from the training studies?

# %% tags=["nbval-check-output"]
studies = load_iu_rr("phantom")
training = trainable(studies)
n, normal = len(training), sum(study.normal for study in training)
print(f"{normal:,} of {n:,} training studies are normal")
print(f"a pair of two different studies is normal twice with chance {normal * (normal - 1) / (n * (n - 1)):.3f}")
print(f"of the 64 x 63 negatives in a batch, about {64 * 63 * normal * (normal - 1) / (n * (n - 1)):.0f} are false")

# %% [markdown]
# The course draws studies with findings more often, and takes pairs of normal studies, and texts
# that are equal letter by letter as drawn, out of the denominator: `global_loss(…, false_negatives=…)`. Here are an even batch and the course's first.

# %%
evenly = np.random.default_rng(0).choice(n, 64, replace=False)
even_batch = false_negatives([training.texts[i] for i in evenly], np.array([training[i].normal for i in evenly]))
_, _, course_batch = Batches(training, presets["tiny"]).draw(0)
for name, marked in (("drawn evenly", even_batch), ("as the course draws", course_batch)):
    false = marked.sum().item() - 64  # without the diagonal
    print(f"{name:20} {false:4} false negatives of {64 * 63}, {false / (64 * 63):.0%}")

# %%
figure, axes = figures.new_figure(2, width=3.2, height=3.5)
grey_orange_blue = ListedColormap(["#e4e4e4", "#de8f05", "#0173b2"])
for axis, title, marked in zip(
    axes[0], ("drawn evenly", "as the course draws"), (even_batch, course_batch), strict=True
):
    order = np.argsort(-marked.sum(1).numpy(), kind="stable")
    shown = (marked.int() + torch.eye(64, dtype=torch.int))[order][:, order]
    axis.imshow(shown, cmap=grey_orange_blue, interpolation="nearest")
    axis.set(title=title, xlabel="reports", ylabel="radiographs", xticks=[], yticks=[])
figures.show(
    figure,
    caption="Two batches of 64, normal studies first. Blue: true pairs; orange: no true negatives, left out of the loss; "
    "grey: negatives.",
    alt="Two squares of 64 by 64 cells with a blue diagonal. An orange block fills the upper left corner, where normal "
    "studies meet: it is larger in the first square than in the second.",
)

# %% [markdown]
# ## A real word, from the trained model
#
# Study CXR635 of the test split has an effusion at the left base. The word comes from its own report. The tiny preset's
# vectors have length 1, so step 1 gives cosines; a low temperature drives them apart.

# %%
model = pretrain(presets["tiny"], studies)
test = studies.split("test")
index = test.find("CXR635")
image, text = model.encode_images(test.images[[index]]), model.encode_texts([test.texts[index]])
word = model.words_of(test.texts[index]).index("effusion")
cosines = torch.einsum("d,dhw->hw", text.words[0, :, word], image.image_local[0])


# %%
def look(temperature):
    """Attention [8, 8] of the word over the regions of the radiograph."""
    settings = {"attention_temperature": temperature, "words_compete": False}
    _, attention = word_region_cosine(image.image_local, text.words, text.word_mask, **settings)
    return attention[0, 0, word].view(8, 8)


print(f"phantom: cosines from {cosines.min():.2f} to {cosines.max():.2f}")
for value in (1.0, 0.25, 0.1, 0.03):
    print(
        f"phantom: at temperature {value:4} the favourite of 64 regions gets {look(value).max():.0%} of the attention"
    )

# %%
figure, axes = figures.new_figure(5, width=2.1, height=2.4)
figures.draw_radiograph(axes[0, 0], test.image(index), title="CXR635", source="phantom")
figures.draw_attention(axes[0, 1], test.image(index), cosines, title="cosines, before softmax", source="phantom")
for axis, value in zip(axes[0, 2:], (1.0, 0.1, 0.03), strict=True):
    axis.imshow(look(value), cmap="viridis", vmin=0, vmax=look(0.03).max(), extent=(-0.5, 127.5, 127.5, -0.5))
    axis.set_title(f"attention, temperature {value}", fontsize=9)
    axis.set_axis_off()
for axis in axes[0]:
    figures.draw_masks(axis, test.masks(index))
figures.show(
    figure,
    caption="Where “effusion” looks on the phantom of CXR635; outlined: its true place (pink), and an atelectasis (blue). "
    f"Training used temperature {presets['tiny'].attention_temperature}. "
    "Whether words look at the right place is notebook 07's question.",
    alt="Five pictures with the same outlined effusion at the lower right, a smaller outline above it: a phantom chest; a smooth map of cosines over it; "
    "then three maps of 8 by 8 cells, even at temperature 1, uneven at 0.1, and at 0.03 with most of the attention in "
    "a few bright cells.",
)

# %% [markdown]
# ## Your turn
#
# A model that knows nothing gives every pair the same cosine. What is its global loss for a batch of 64? Work it out, and put the number in
# `my_loss`.
#
# **Hint.** What chance does a softmax over 64 equal numbers give to the right one?

# %%
my_loss = None

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# my_loss = math.log(64)
# ```
#
# The chance is 1/64, at any temperature, so the loss is log 64, about 4.16. The sum of the global and the local loss begins near
# twice that in notebook 04: a good first check of any new training.
#
# </details>

# %% tags=["nbval-check-output"]
alike = torch.ones(64, 8)
expected = losses.global_loss(alike, alike)[0].item()
if my_loss is None:
    print("not attempted yet")
else:
    assert abs(my_loss - expected) < 0.01, f"{my_loss} is not it: the natural logarithm of one over the chance."
    print(f"Right: {expected:.3f}")

# %% [markdown]
# ## We learned
#
# - InfoNCE is cross-entropy on a matrix of cosines, with the true pairs on its diagonal.
# - In the local loss each word sees the radiograph with its own attention.
# - The Gram matrix spares the context vectors; values and gradients stay equal.
# - Low temperatures choose; pairs of normal studies are no negatives.

# %% [markdown]
# ## Read next
#
# - van den Oord, Li, Vinyals, *Representation Learning with Contrastive Predictive Coding*, 2018, arXiv 1807.03748.
# - Huang, Shen, Lungren, Yeung, *GLoRIA*, ICCV 2021: sections 3.3 and 3.4.
# - Hadjiyski, Vosoughi, Wismueller, *Cross Modal Global Local Representation Learning from Radiology Reports and X-Ray Chest Images*, 2023, arXiv 2301.10951.
#
# Next: [04_pretraining](04_pretraining.ipynb).
