# %% [markdown]
# # Encoders: two networks, one space
#
# A picture is a grid of grey values, a report a string of letters. Two networks turn both into vectors of one length,
# so that a word and a region of a lung can be compared with a single product.

# %% [markdown]
# **In this notebook you will**
#
# - follow a radiograph through the image encoder, shape by shape;
# - measure what one cell of its local map sees;
# - merge word pieces into words, without a loop;
# - compare images and prompts in one space, before and after training.
#
# It builds on [01_data_loading](01_data_loading.ipynb). About half a minute on two CPU cores.

# %%
import numpy as np
import pandas as pd
import seaborn as sns
import torch
from matplotlib.patches import Rectangle
from scipy.ndimage import gaussian_filter

from cmlr_utils import PATHOLOGIES, load_iu_rr, load_panel, merge_word_pieces, presets, pretrain
from cmlr_utils.course import figures
from cmlr_utils.models.text_encoder import tokenize

studies = load_iu_rr("phantom")
model = pretrain(presets["tiny"], studies).cpu()
untrained = model.with_random_weights()

# %% [markdown]
# ## Five studies to carry through
#
# One study of the test split for each pathology, chosen by their reports. The image encoder takes grey values from 0
# to 1, in the order that torch expects: batch, channels, height, width.

# %% tags=["nbval-check-output"]
test = studies.split("test")
five = test.subset([test.find(name) for name in ("CXR7", "CXR1870", "CXR818", "CXR3884", "CXR2327")])
for study in five:
    present = [name for name, label in zip(PATHOLOGIES, study.labels, strict=True) if label == 1]
    print(f"{study.id:8} {', '.join(present):17} {study.sentences[0]}")
images = torch.from_numpy(five.images)[:, None].float() / 255  # [B, 1, S, S]
print("images", list(images.shape))

# %% [markdown]
# ## The image encoder, shape by shape
#
# A residual network halves height and width in steps while it adds channels: it gives up *where* to learn *what*. The
# encoder reads it at two places, before too much of *where* is lost, and at the end.

# %% tags=["nbval-check-output"]
encoder = model.image_encoder
network = encoder.backbone
with torch.no_grad():
    x = network.prepare(images)
    for name in ("stem", "layer1", "layer2", "layer3"):
        x = getattr(network, name)(x)
        print(f"{name:24} {list(x.shape)}")
    print(f"to_local(layer3)         {list(encoder.to_local(x).shape)}   image_local [B, D, H, W]")
    pooled = network.layer4(x).mean((2, 3))
    print(f"average of layer4        {list(pooled.shape)}")
    print(f"to_global                {list(encoder.to_global(pooled).shape)}         image_global [B, D]")

# %% [markdown]
# `to_local` is a 1 × 1 convolution: the same small matrix for every cell, no neighbours involved. So a local feature
# is one cell of layer3, translated into the shared space of width D = 128. The whole encoder does these steps at once:

# %% tags=["nbval-check-output"]
features = model.encode_images(five.images)
for name, tensor in features._asdict().items():
    print(f"{name:13} {list(tensor.shape)}")
length = features.image_local.norm(dim=1)
print("local features have length 1:", bool((length - 1).abs().max() < 1e-5))

# %% [markdown]
# ## What does one cell see?
#
# The map has 8 × 8 cells over 128 × 128 pixels, so a cell *stands for* 16 × 16 pixels. What it *sees* is another
# matter: every 3 × 3 convolution reaches further out. Ask the gradient which pixels can change the cell through the
# convolutions. (The standardisation before them, which lets every pixel change all others a little, is left out.)


# %% tags=["nbval-check-output"]
def cell_gradient(images, row, column):
    """How much each pixel moves one cell of layer3: the mean over images of |gradient|, [S, S]."""
    pixels = network.prepare(images).requires_grad_()
    x = pixels
    for stage in (network.stem, network.layer1, network.layer2, network.layer3):
        x = stage(x)
    return torch.autograd.grad(x[:, :, row, column].sum(), pixels)[0].abs().mean((0, 1))


torch.manual_seed(0)
canvas = torch.rand(4, 1, 512, 512)  # four times wider than a radiograph, so that nothing is cut off
reached = (cell_gradient(canvas, 16, 16) > 0).any(0)
print("a cell can see wider than the whole radiograph of 128 pixels:", int(reached.sum()) > 128)

# %%
print(f"reach of one cell: {int(reached.sum())} pixels")

# %% [markdown]
# So every cell could see everything! But *can* is not *does*: pixels near the cell are on many paths through the network,
# distant ones on few. Averaged over many phantoms and smoothed a little, the gradient shows the **effective** receptive field.

# %%
sample = torch.from_numpy(test.images[:48])[:, None].float() / 255
cells = ((5, 2), (2, 5))
gradients = [gaussian_filter(cell_gradient(sample, *cell).numpy(), sigma=2) for cell in cells]


def mass_level(gradient, share):
    """The value above which pixels hold this share of the whole gradient."""
    ordered = np.sort(gradient, axis=None)[::-1]
    return ordered[np.searchsorted(ordered.cumsum(), share * ordered.sum())]


# %%
figure, axes = figures.new_figure(3, width=3, height=3.2)
figures.draw_radiograph(axes[0, 0], five.image(2), title="two cells of the 8 × 8 map", source="phantom")
for axis, gradient, (row, column) in zip(axes[0, 1:], gradients, cells, strict=True):
    figures.draw_attention(axis, five.image(2), gradient, title=f"what cell ({row}, {column}) sees", source="phantom")
    levels = [mass_level(gradient, 0.9), mass_level(gradient, 0.5)]
    axis.contour(gradient, levels=levels, colors="white", linestyles=["dotted", "solid"], linewidths=1)
    for where in (axes[0, 0], axis):
        where.add_patch(Rectangle((16 * column - 0.5, 16 * row - 0.5), 16, 16, fill=False, edgecolor="#de8f05", lw=2))
figures.show(
    figure,
    caption="Orange: the 16 × 16 pixels that a cell stands for. Yellow: what it sees, measured on 48 phantoms and drawn over CXR818. "
    "Half of its gradient lies within the solid lines, nine tenths within the dotted ones.",
    alt="Three times a phantom chest radiograph. The first shows two orange squares, at the lower left and upper right. In each of the others a bright spot "
    "larger than the square lies around one of them and fades outwards.",
)

# %%
for gradient, (row, column) in zip(gradients, cells, strict=True):
    own = gradient[16 * row : 16 * row + 16, 16 * column : 16 * column + 16].sum() / gradient.sum()
    wide = (gradient >= mass_level(gradient, 0.9)).mean()
    print(
        f"phantom: cell ({row}, {column}) has {own:.0%} of its gradient in its own square; 90 % of it fill {wide:.0%} of the picture"
    )

# %% [markdown]
# Keep this in mind for every attention map: a bright cell says "around here". It may have looked at its neighbours.
# In notebook 07 this is why a hit is judged by cells, not by pixels.

# %% [markdown]
# ## Words come in pieces
#
# A BERT does not read words but **word pieces** from a fixed vocabulary, here 2,500 learned from the training reports. Frequent words
# are one piece; rare ones fall into several, so that hardly anything is unknown.

# %%
text = "no hemopericardium, no bronchopleural fistula."
tokens = tokenize(model.tokenizer, [text], max_tokens=64)
pieces = model.tokenizer.convert_ids_to_tokens(tokens.input_ids[0])
pd.DataFrame({"piece": pieces, "word": tokens.word_ids[0]}).T

# %% [markdown]
# `##` marks a piece that continues a word; −1 marks pieces of no word. A word is a better partner for a region
# than "##ardi", so the pieces of each word are added up. First the loop that says what we mean:

# %% tags=["nbval-check-output"]
torch.manual_seed(0)
hidden = torch.randn(2, 6, 4, dtype=torch.float64)  # [B, T, D]
word_ids = torch.tensor(
    [[-1, 0, 1, 1, 2, -1], [-1, 0, 0, 0, -1, -1]]
)  # text 0 has three words, text 1 one of three pieces
by_loop = torch.zeros(2, 4, 3, dtype=torch.float64)  # [B, D, N]
for b in range(2):
    for t in range(6):
        if word_ids[b, t] >= 0:
            by_loop[b, :, word_ids[b, t]] += hidden[b, t]

# %% [markdown]
# The loop visits every piece, and on a GPU it waits for each one. `merge_word_pieces` adds all pieces in one step with
# `scatter_add_`, where `word_ids` says which sum a piece goes to. Equal?

# %% tags=["nbval-check-output"]
merged, mask = merge_word_pieces(hidden, word_ids)
print("largest difference below 1e-12:", (merged - by_loop).abs().max().item() < 1e-12)
print("words", list(merged.shape), "mask", mask.tolist())

# %% [markdown]
# ## The text encoder, shape by shape
#
# Two layers of self-attention let each piece read its whole text. Then pieces are projected and merged into words; their
# average, projected apart, stands for the text.

# %%
reports = tokenize(model.tokenizer, five.texts, max_tokens=64)
text_encoder = model.text_encoder
with torch.no_grad():
    states = text_encoder.bert(reports.input_ids, attention_mask=reports.attention_mask).last_hidden_state
    print("pieces      ", list(reports.input_ids.shape))
    print("BERT states ", list(states.shape))
    words, _ = merge_word_pieces(text_encoder.to_words(states), reports.word_ids)
    print("words       ", list(words.shape), "[B, D, N]")
print("text_global ", list(model.encode_texts(five.texts).text_global.shape), "[B, D]")

# %% [markdown]
# Some words look at nothing. Function words and punctuation are kept out of the local loss by a mask, which a reader
# can check by eye:

# %% tags=["nbval-check-output"]
one = tokenize(model.tokenizer, [five[2].sentences[1]], max_tokens=64)
print(" ".join(word if keep else f"({word})" for word, keep in zip(one.words[0], one.content[0], strict=True)))

# %% [markdown]
# ## How large is it?
#
# Count the parameters, part by part. A third of the text encoder's are its vocabulary: one vector of 256 numbers for
# every word piece.

# %% tags=["nbval-check-output"]
parts = {
    "image backbone": network,
    "image projections": [encoder.to_local, encoder.to_global],
    "BERT, word pieces": text_encoder.bert.embeddings,
    "BERT, two layers": text_encoder.bert.encoder,
    "text projections": [text_encoder.to_words, text_encoder.to_global],
}
counts = {}
for name, modules in parts.items():
    modules = modules if isinstance(modules, list) else [modules]
    counts[name] = sum(parameter.numel() for module in modules for parameter in module.parameters())
counts["whole model, with two temperatures"] = sum(parameter.numel() for parameter in model.parameters())
pd.Series(counts, name="parameters").map("{:,}".format).to_frame()

# %% [markdown]
# ## Tiny and published, side by side
#
# The tiny preset keeps the published shape and shrinks the numbers. The paper preset takes two pretrained networks from the web, and
# wants a GPU; here we only read its settings.

# %% tags=["nbval-check-output"]
settings = (
    "backbone",
    "image_size",
    "text_model",
    "max_tokens",
    "summed_layers",
    "width",
    "words_compete",
    "average_words",
)
pd.DataFrame({name: {key: getattr(presets[name], key) for key in settings} for name in ("tiny", "paper")})

# %% [markdown]
# | | tiny | paper |
# |---|---|---|
# | image starts from | nothing | ImageNet |
# | local map | 8 × 8 × 128 | 19 × 19 × 1,024 |
# | pooled | 256 | 2,048 |
# | BERT layers | 2, of 256 | 12, of 768 |
# | text starts from | nothing | clinical notes |

# %% [markdown]
# ## One space
#
# Now compare: five radiographs with five prompts, by the cosine of their global vectors. An untrained model has both
# networks, but no reason to agree. Training gives it one, pair after pair.

# %%
prompts = [f"{name}." for name in PATHOLOGIES]


def cosines(network, studies):
    """Global similarity of studies and the five prompts, [n, 5]."""
    return network.global_similarity(network.encode_images(studies.images), network.encode_texts(prompts)).numpy()


panel = load_panel()  # 40 phantoms for each pathology, then 40 normal ones
per_class = cosines(model, panel)[:200].reshape(5, 40, 5).mean(1)
per_class_untrained = cosines(untrained, panel)[:200].reshape(5, 40, 5).mean(1)

ids = [study.id for study in five]
tables = {
    "untrained, five studies": (cosines(untrained, five), ids),
    "trained, five studies": (cosines(model, five), ids),
    "trained, mean of 40 phantoms": (per_class, PATHOLOGIES),
}

# %%
figure, axes = figures.new_figure(3, width=3.5, height=3.4)
look = {"annot": True, "fmt": ".2f", "vmin": -1, "vmax": 1, "cmap": "vlag", "cbar": False}
for axis, (title, (values, names)) in zip(axes[0], tables.items(), strict=True):
    sns.heatmap(values, ax=axis, xticklabels=PATHOLOGIES, yticklabels=names, **look)
    axis.set_xticks(axis.get_xticks(), PATHOLOGIES, rotation=35, ha="right")
    axis.set_yticks(axis.get_yticks(), names, rotation=0)
    axis.set_title(title, fontsize=10)
figures.show(
    figure,
    caption="Cosines of phantoms (rows) and prompts (columns). Rows show the pathologies in the columns' order: the "
    "diagonal is the right answer.",
    alt="Three heat maps of five by five cosines. Untrained, all rows are alike. Trained, rows differ and the diagonal "
    "is mostly red; in the averages over forty phantoms this is clearer, while consolidation and atelectasis "
    "resemble each other.",
)


# %%
def contrast(values):
    """How far the diagonal stands above the rest."""
    return np.diagonal(values).mean() - values[~np.eye(5, dtype=bool)].mean()


print(
    f"phantom: diagonal above the rest by {contrast(per_class):.2f} trained, {contrast(per_class_untrained):.2f} untrained"
)

# %% tags=["nbval-check-output"]
print(
    "phantom: trained above .10, untrained below .05:", contrast(per_class) > 0.10, contrast(per_class_untrained) < 0.05
)

# %% [markdown]
# Read such a table by columns. A prompt's cosines can be high for every radiograph, as an often-written word's are; what
# counts is *which* radiograph fits it best. Hence the standardised scores of notebook 06.

# %% [markdown]
# ## Your turn
#
# Sums favour words of many pieces. Write `mean_of_pieces(hidden, word_ids)`, which returns the mean of each word's pieces, [B, D, N],
# without a loop.
#
# **Hint.** `merge_word_pieces` of a tensor of ones counts pieces. Words outside the mask have none.


# %%
def mean_of_pieces(hidden, word_ids): ...


# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def mean_of_pieces(hidden, word_ids):
#     words, _ = merge_word_pieces(hidden, word_ids)
#     pieces, _ = merge_word_pieces(torch.ones_like(hidden), word_ids)
#     return words / pieces.clamp_min(1)
# ```
#
# The tiny preset then scales every word to length 1, where sum and mean are the same; the paper preset does not.
#
# </details>

# %% tags=["nbval-check-output"]
answer = mean_of_pieces(hidden, word_ids)
if answer is None:
    print("not attempted yet")
else:
    expected = torch.zeros_like(by_loop)
    for b in range(2):
        for n in range(int(word_ids[b].max()) + 1):
            expected[b, :, n] = hidden[b, word_ids[b] == n].mean(0)
    assert answer.shape == expected.shape, (
        f"The shape is {list(answer.shape)}; expected [B, D, N] = {list(expected.shape)}."
    )
    assert torch.allclose(answer, expected), (
        "Some word is not the mean of its pieces; words that do not exist must be 0."
    )
    print("Right, on a text of three words and one of a single word.")

# %% [markdown]
# ## We learned
#
# - The image encoder is read twice: a map of regions from layer3, one vector from layer4.
# - A cell can see the whole radiograph, and mostly looks around itself.
# - Word pieces are summed into words by one scatter.
# - Training makes both networks meet in one space.

# %% [markdown]
# ## Read next
#
# - He et al., *Deep Residual Learning for Image Recognition*, CVPR 2016.
# - Luo et al., *Understanding the Effective Receptive Field in Deep Convolutional Neural Networks*, NeurIPS 2016.
# - Devlin et al., *BERT: Pre-training of Deep Bidirectional Transformers*, NAACL 2019.
#
# Next: [03_global_local_loss](03_global_local_loss.ipynb).
