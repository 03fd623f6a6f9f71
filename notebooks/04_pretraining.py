# %% [markdown]
# # Pretraining: one step, then hundreds
#
# A model learns from pairs by repeating one short step. Here you run that step with your own hands, then read the log of a whole training, and interrupt one to see it go on.

# %% [markdown]
# **In this notebook you will**
#
# - look at one batch: which studies, which films, which words;
# - measure what the sampler changes, and which pairs are no true negatives;
# - run twelve real training steps from nothing, in a visible loop;
# - read a loss curve, and resume an interrupted training.

# %% [markdown]
# It builds on [02_encoders](02_encoders.ipynb) and [03_global_local_loss](03_global_local_loss.ipynb). About half a minute on two CPU cores.

# %% [markdown]
# ## One batch
#
# We take the training part of IU-RR: real reports, phantom radiographs. A study without a report or without codes cannot teach here, so `trainable` leaves it out. The preset `tiny` holds every choice of model and training.

# %%
import math
from dataclasses import replace
from textwrap import shorten, wrap

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
import torch

from cmlr_utils import PATHOLOGIES, CrossModalModel, load_iu_rr, presets
from cmlr_utils.course.figures import draw_radiograph, new_figure, show
from cmlr_utils.models.losses import contrastive_loss
from cmlr_utils.training import pretrain as pretraining
from cmlr_utils.training.sampling import false_negatives, sampling_weights

# %% tags=["nbval-check-output"]
preset = presets["tiny"]
studies = load_iu_rr("phantom")
training = pretraining.trainable(studies)
renderings = sum(len(rows) for rows in training.rows)
print(f"{len(training):,} training studies, {renderings:,} phantoms of them")

# %% [markdown]
# `Batches.draw(step)` gives the batch of any step: images, one text each, and the pairs to ignore. The same step always gets the same studies and words; that will matter when a training is resumed.

# %% tags=["nbval-check-output"]
batches = pretraining.Batches(training, preset)
torch.manual_seed(0)
images, texts, ignored = batches.draw(step=0)
print("images ", tuple(images.shape), f"from {images.min():.0f} (black) to {images.max():.0f} (white)")
print("texts  ", len(texts))
print("ignored", tuple(ignored.shape))

# %% [markdown]
# Look at sixteen of them. Each phantom is varied at random: blurred, turned, brighter or darker, with grain and sometimes a bright marker. Each text is a random part of the study's report, more often the sentences that carry its finding.


# %%
def captioned(text: str) -> str:
    return "\n".join(wrap(shorten(text, 92, placeholder=" …"), 34))


figure, axes = new_figure(4, 4, width=2.5, height=3.0)
for ax, image, text in zip(axes.flat, images, texts, strict=False):
    draw_radiograph(ax, (255 * image[0]).byte().numpy(), title=captioned(text), source="phantom")
show(
    figure,
    caption="Sixteen pairs of one training batch (phantom): a varied phantom radiograph, and the words drawn from its real report.",
    alt="A four by four grid of grey phantom chest radiographs. Some are blurred, tilted, very dark or very bright, or carry a small bright block. Above each stand one to three lines of report text such as normal statements or a named finding.",
)

# %% [markdown]
# ## Who gets into a batch
#
# Consolidation is rare. Drawn uniformly, most batches would hold none, and a loss that compares studies within a batch could not learn it. `sampling_weights` draws rare findings more often and all other studies less.

# %%
labels = training.labels
weights = sampling_weights(labels)


def positives_per_batch(chances: np.ndarray | None, num_batches: int = 500) -> np.ndarray:
    """How many of 64 drawn studies have each finding, int [num_batches, 5]."""
    rng = np.random.default_rng(0)
    draws = [rng.choice(len(labels), 64, replace=False, p=chances) for _ in range(num_batches)]
    return np.stack([labels[chosen].sum(0) for chosen in draws]).astype(int)


counts = {"uniform": positives_per_batch(None), "balanced": positives_per_batch(weights)}

# %% tags=["nbval-check-output"]
table = pd.DataFrame(index=PATHOLOGIES)
table["in the training part"] = labels.sum(0).astype(int)
for name, count in counts.items():
    table[f"% of a batch, {name}"] = (100 * count.mean(0) / 64).round(1)
    table[f"% of batches without, {name}"] = (100 * (count == 0).mean(0)).round(0).astype(int)
print(table.T.map("{:g}".format).to_string())

# %%
long = pd.DataFrame({name: 100 * count.mean(0) / 64 for name, count in counts.items()}, index=PATHOLOGIES)
figure, axes = new_figure(width=6.2, height=2.6)
long.plot.barh(ax=axes[0, 0], color=["#c8c8c8", "#0173b2"], width=0.75)
axes[0, 0].invert_yaxis()
axes[0, 0].set_xlabel("positive studies in a batch of 64 (%)")
sns.despine(figure)
show(
    figure,
    caption="What the sampler does: the share of a batch that shows each finding, over 500 drawn batches.",
    alt="Horizontal bars, two for each pathology. The blue bars of the balanced sampler are longer than the grey bars of uniform sampling everywhere, and many times longer for consolidation and edema.",
)

# %% [markdown]
# ## Pairs that are no true negatives
#
# The loss treats every other report of the batch as wrong. But one normal report is as true of another normal radiograph as its own. `false_negatives` marks such pairs, and identical texts, and the loss leaves them out.

# %% tags=["nbval-check-output"]
example = ["the lungs are clear.", "small left effusion.", "the lungs are clear.", "normal chest."]
is_normal = np.array([True, False, False, True])
print(false_negatives(example, is_normal).int().numpy())

# %% [markdown]
# Rows are radiographs, columns are texts. The diagonal holds the true pairs, which always stay. Study 0 may not be told that text 2 is wrong (the same words), nor that text 3 is (both are normal). Now the real batch:

# %% tags=["nbval-check-output"]
off_diagonal = ignored & ~torch.eye(len(texts), dtype=torch.bool)
candidates = len(texts) - off_diagonal.sum(1)
print(f"{off_diagonal.sum() / (64 * 63):.1%} of the wrong pairs of this batch are left out")
print(f"a radiograph chooses among {candidates.min()} to {candidates.max()} texts")

# %%
order = np.argsort(-off_diagonal.sum(1).numpy(), kind="stable")
picture = off_diagonal[order][:, order].int() + 2 * torch.eye(len(texts), dtype=torch.int)
colours = plt.matplotlib.colors.ListedColormap(["#e8e8e8", "#de8f05", "#0173b2"])
figure, axes = new_figure(width=4.2, height=3.6)
axes[0, 0].imshow(picture, cmap=colours, interpolation="nearest")
axes[0, 0].set(xlabel="text", ylabel="radiograph")
for colour, name in zip(colours.colors, ("negative", "left out", "true pair"), strict=True):
    axes[0, 0].plot([], [], "s", color=colour, label=name)
figure.legend(loc="outside lower center", ncols=3, frameon=False)
show(
    figure,
    caption="The 64 × 64 pairs of one batch, normal studies first. Orange pairs do not count as negatives.",
    alt="A square matrix, pale grey, with a blue diagonal. The upper left block, where normal studies meet normal reports, is orange.",
)

# %% [markdown]
# ## The schedule
#
# The learning rate climbs from near zero while weights are random and gradients wild; then it falls along half a cosine, so that the last steps settle what was learned.

# %% tags=["nbval-check-output"]
rates = [preset.learning_rate * pretraining.schedule(step, preset) for step in range(preset.steps)]
peak = int(np.argmax(rates))
print(f"{preset.steps} steps of {preset.batch_size} studies; the rate peaks at step {peak} with {rates[peak]:.1e}")

# %%
figure, axes = new_figure(width=5.5, height=2.4)
axes[0, 0].plot(rates, color="#0173b2")
axes[0, 0].axvspan(0, 12, color="#de8f05", alpha=0.5, label="the twelve steps below")
axes[0, 0].set(xlabel="step", ylabel="learning rate")
axes[0, 0].legend(frameon=False)
sns.despine(figure)
show(
    figure,
    caption="The learning rate of every step: a linear warm-up, then half a cosine.",
    alt="A curve that rises steeply in a straight line, peaks early, and falls in a smooth S shape to zero. A narrow orange band at the far left marks the first twelve steps.",
)

# %% [markdown]
# ## Twelve steps from nothing
#
# `untrained` learns a vocabulary from the training reports and gives random weights. `make_optimizer` is AdamW. What a step needs beyond that is short enough to stand here in full.

# %%
device = pretraining.best_device()
half = pretraining.bfloat16_helps(device)
model = CrossModalModel.untrained(preset, training.texts).to(device)
optimizer = pretraining.make_optimizer(model)
millions = sum(parameter.numel() for parameter in model.parameters()) / 1e6
print(f"{millions:.1f} million parameters")


# %%
def one_step(step: int) -> tuple[float, float]:
    torch.manual_seed(preset.seed * 1_000_003 + step)  # dropout, variation and word choice of this step
    images, texts, ignored = batches.draw(step)
    with torch.autocast(device.type, torch.bfloat16, enabled=half):  # half precision where it saves time
        loss, parts = pretraining.batch_loss(model, images.to(device), texts, ignored.to(device))
    for group in optimizer.param_groups:
        group["lr"] = preset.learning_rate * pretraining.schedule(step, preset)
    optimizer.zero_grad()
    loss.backward()  # how every weight should change
    torch.nn.utils.clip_grad_norm_(model.parameters(), preset.clip)
    optimizer.step()
    return parts["loss_global"], parts["loss_local"]


# %%
model.train()
losses = []
for step in range(12):
    losses.append(one_step(step))
    print(f"step {step:2}   global {losses[-1][0]:.2f}   local {losses[-1][1]:.2f}")

# %% [markdown]
# ## What is a loss of 4.16?
#
# A model that knows nothing finds all 64 texts equally likely. Its cross-entropy is ln(64). Read any such loss backwards: exp(loss) is the number of texts between which the model still hesitates.

# %% tags=["nbval-check-output"]
knows_nothing, _ = contrastive_loss(torch.zeros(64, 64), temperature=0.1)
print(f"loss of knowing nothing {knows_nothing:.3f}, ln(64) {math.log(64):.3f}, exp(loss) {knows_nothing.exp():.0f}")
average = np.mean(losses, axis=0)
print(
    "global and local loss of the twelve steps, average within 0.5 of ln(64):",
    bool(np.all(abs(average - math.log(64)) < 0.5)),
)

# %% [markdown]
# Twelve steps are not enough, as they should not be. The whole run lies in the checkpoint folder with its log. `pretrain` loads it, or, if you have none yet, trains it now: some minutes on two cores, once.

# %%
trained = pretraining.pretrain(preset, studies)
log = pd.read_csv(pretraining.checkpoint_folder(preset, "phantom") / pretraining.LOG)
last = log[-50:].mean()
for name in ("loss_global", "loss_local"):
    print(
        f"{name}: {last[name]:.2f} over the last 50 steps (phantom), hesitating between {math.exp(last[name]):.0f} texts"
    )

# %% tags=["nbval-check-output"]
stored = log[["loss_global", "loss_local"]][:12].to_numpy()
print("our twelve steps are the first twelve of the stored run, within 0.1:", bool(np.abs(stored - losses).max() < 0.1))
print(
    "both losses end below those of knowing nothing by 1 or more:",
    bool(last[["loss_global", "loss_local"]].max() < math.log(64) - 1),
)

# %% [markdown]
# Every batch is another exam, so single losses jump; the mean of 20 steps shows the trend. A loss may even start above ln(64): random features can be sure of the wrong text. On the right is the same curve as a number of texts.

# %%
figure, axes = new_figure(2, width=4.2, height=3.0)
for name, colour in (("global", "#0173b2"), ("local", "#de8f05")):
    smooth = log[f"loss_{name}"].rolling(20, center=True).mean()
    axes[0, 0].plot(log["step"], log[f"loss_{name}"], color=colour, alpha=0.25)
    axes[0, 0].plot(log["step"], smooth, color=colour, label=name)
    axes[0, 1].plot(log["step"], np.exp(smooth), color=colour, label=name)
for ax, level, text in zip(axes[0], (math.log(64), 64), ("ln(64)", "64"), strict=True):
    ax.axhline(level, color="black", linestyle="--", linewidth=1)
    ax.text(preset.steps, level, text, ha="right", va="bottom")
axes[0, 0].set(xlabel="step", ylabel="loss (phantom)")
axes[0, 0].legend(frameon=False, loc="lower left")
axes[0, 1].set(xlabel="step", ylabel="texts still in question (phantom)", ylim=(0, None))
sns.despine(figure)
show(
    figure,
    caption="The stored run (phantom radiographs, real reports). Left: both losses, pale per step and bold as a mean of 20. Right: exp of the bold curves.",
    alt="Left: two noisy curves, global and local loss, that start near a dashed line at ln 64 and fall until the last quarter, where they flatten. Right: the same as counts, from about 64 texts down to a small part of them.",
)

# %% [markdown]
# Why does the loss not reach zero? Many reports say almost the same of different patients. No model can tell such texts apart, and a loss near zero on them would be memory, not understanding.

# %% [markdown]
# ## Stop it, and go on
#
# A laptop closes, a free GPU is taken away. `pretrain` saves its state every few steps. We try that on a run of six short steps, once undisturbed, on the CPU, where arithmetic repeats bit for bit.

# %%
from pathlib import Path
from tempfile import TemporaryDirectory

short = replace(preset, steps=6, batch_size=16)
pretraining.SAVE_EVERY = 2
pretraining.best_device = lambda: torch.device("cpu")
temporary = TemporaryDirectory()
undisturbed = pretraining.pretrain(short, studies, Path(temporary.name) / "undisturbed")

# %% [markdown]
# For the second run we put a fault in the way: at its fourth step, which is step 3, the loss is replaced by what Ctrl-C does, a `KeyboardInterrupt`.

# %%
true_batch_loss, calls = pretraining.batch_loss, []


def interrupted_batch_loss(*arguments):
    calls.append(1)
    if len(calls) == 4:
        raise KeyboardInterrupt
    return true_batch_loss(*arguments)


# %%
pretraining.batch_loss = interrupted_batch_loss
try:
    pretraining.pretrain(short, studies, Path(temporary.name) / "disturbed")
except KeyboardInterrupt:
    print("Interrupted in step", len(calls) - 1)
pretraining.batch_loss = true_batch_loss

# %% [markdown]
# The state of the last save lies beside the folder that was to be written. The same call finds it and goes on; nothing else has to be said.

# %% tags=["nbval-check-output"]
print(sorted(path.name for path in Path(temporary.name).iterdir()))

# %%
resumed = pretraining.pretrain(short, studies, Path(temporary.name) / "disturbed")

# %% tags=["nbval-check-output"]
pairs = zip(undisturbed.state_dict().values(), resumed.state_dict().values(), strict=True)
print("final weights equal those of the undisturbed run:", all(torch.equal(a, b) for a, b in pairs))
print("left in the folder:", sorted(path.name for path in Path(temporary.name).iterdir()))

# %% [markdown]
# Step 2 was computed twice and step 3 for the first time, with the very batch and random numbers that it would have had. That is why each step draws its randomness from the seed and its own number, and from nothing that came before.

# %%
temporary.cleanup()

# %% [markdown]
# ## Your turn
#
# A model always narrows the 64 texts of a batch down to 8, the right one among them, and finds these 8 equally likely. What is its loss? Put a number, to two digits, in place of `None`.

# %% tags=["nbval-check-output"]
my_loss = None

if my_loss is None:
    print("not attempted yet")
else:
    assert abs(my_loss - math.log(8)) < 0.01, "exp(your loss) should be the number of texts it hesitates between"
    print("right: it is half of ln(64), and yet 8 texts are left")

# %% [markdown]
# **Hint.** The right text gets the probability 1/8. Cross-entropy is minus the logarithm of that.
#
# <details><summary>Solution</summary>
#
# `my_loss = math.log(8)`, about 2.08. The batch size does not enter: a loss says how many candidates are left, and only means something beside the number at the start.
#
# </details>

# %% [markdown]
# ## We learned
#
# - A batch is drawn, not taken: rare findings more often, short texts that carry the finding, varied films.
# - Pairs that are true of each other must not count as negatives.
# - A step is: batch, loss, gradient, clip, update.
# - exp(loss) is the number of texts still in question; a resumed run ends like an undisturbed one.

# %% [markdown]
# **Read next**
#
# - A. van den Oord, Y. Li, O. Vinyals: *Representation Learning with Contrastive Predictive Coding*, arXiv 1807.03748, 2018. Where this loss comes from.
# - A. Radford et al.: *Learning Transferable Visual Models From Natural Language Supervision*, ICML 2021. The same step with 400 million pairs.
# - I. Loshchilov, F. Hutter: *Decoupled Weight Decay Regularization*, ICLR 2019. AdamW.
#
# Next: [05_supervised_classification](05_supervised_classification.ipynb), where the encoder learned here meets labels.
