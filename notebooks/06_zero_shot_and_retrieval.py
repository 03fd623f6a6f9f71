# %% [markdown]
# # Zero-shot diagnosis and retrieval: words as the classifier
#
# A model that knows which words fit which radiograph needs no labels to diagnose: ask it how well "pleural effusion" fits. The same number finds a report for a radiograph, and a radiograph for a report.

# %% [markdown]
# **In this notebook you will**
#
# - turn prompts into a classifier, by hand first;
# - score five pathologies with intervals, against chance and an untrained model;
# - see what the choice of prompts changes;
# - retrieve reports and radiographs, and look at what comes back.

# %% [markdown]
# It builds on [03_global_local_loss](03_global_local_loss.ipynb) and [05_supervised_classification](05_supervised_classification.ipynb). About half a minute on two CPU cores.

# %%
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from cmlr_utils import PATHOLOGIES, load_iu_rr, load_nih, load_panel, presets, pretrain
from cmlr_utils.course.figures import COLOURS, draw_masks, draw_radiograph, new_figure, show, wrap
from cmlr_utils.course.line import nih_folder
from cmlr_utils.evaluation.retrieval import recall
from cmlr_utils.evaluation.statistics import Auc, aucs
from cmlr_utils.evaluation.zero_shot import prompt_scores, read_prompts, zero_shot, zero_shot_aucs

# %% [markdown]
# ## Prompts
#
# Radiologists do not write bare class names. They write "small left pleural effusion." The file `data/prompts/pathologies.yaml` combines severities and locations with each finding's name, and adds a few sentences.

# %% tags=["nbval-check-output"]
prompts = read_prompts()
for name, sentences in prompts.items():
    print(f"{name:17} {len(sentences):2} prompts, such as: {sentences[1]}  {sentences[-1]}")

# %% [markdown]
# ## A classifier from words
#
# We encode the test split's phantoms and all prompts for one finding. A radiograph's score is its mean cosine with them. First as a loop over radiographs and prompts, so that nothing is hidden:

# %%
studies = load_iu_rr("phantom")
test = studies.split("test")
test = test.coded()  # leave out studies that nobody coded
model = pretrain(presets["tiny"], studies)
images = model.encode_images(test.images)

# %%
texts = model.encode_texts(prompts["pleural effusion"]).text_global  # [P, D]
by_loop = []
for image in images.image_global[:20]:  # [D]
    cosines = [image @ text / (image.norm() * text.norm()) for text in texts]
    by_loop.append(sum(cosines).item() / len(cosines))

# %% tags=["nbval-check-output"]
by_global, by_local = prompt_scores(model, images, prompts["pleural effusion"])
print("scores", by_global.shape)
print("largest difference from the loop below 1e-5:", bool(np.abs(by_global[:20] - by_loop).max() < 1e-5))

# %% [markdown]
# The second score, local, lets each word of a prompt look at the regions before it is compared. Do both separate phantoms with an effusion from those without?

# %%
figure, axes = new_figure(2, width=4.0, height=2.6)
present = test.labels[:, PATHOLOGIES.index("pleural effusion")] == 1
for ax, score, kind in zip(axes[0], (by_global, by_local), ("global", "local"), strict=True):
    for chosen, name, colour in (
        (~present, "without", "#949494"),
        (present, "with effusion", COLOURS["pleural effusion"]),
    ):
        sns.kdeplot(x=score[chosen], ax=ax, color=colour, fill=True, alpha=0.4, label=f"{name}, n {chosen.sum()}")
    ax.set(xlabel=f"{kind} score of the effusion prompts (phantom)", ylabel="density", yticks=[])
figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=2, frameon=False)
sns.despine(figure, left=True)
show(
    figure,
    caption="How well the prompts for effusion fit test phantoms with and without one.",
    alt="Two panels of smooth distributions, for the global and the local score. In both, the curve of phantoms with an effusion lies to the right of the curve of those without, with some overlap.",
)

# %% [markdown]
# ## Five pathologies, two sets
#
# `zero_shot` scores all five: global, local, both (standardised and added), and both minus the score of the normal prompts. We ask the test split and the balanced panel of notebook 05, and an untrained model as a control.

# %%
panel = load_panel()
untrained = model.with_random_weights().to(model.device)
sets = {"test split": test, "balanced panel": panel}
results = {
    (kind, name): zero_shot_aucs(network, data)
    for name, data in sets.items()
    for kind, network in (("trained", model), ("untrained", untrained))
}


# %%
def short(auc: Auc) -> str:
    return f"{auc.value:.2f} [{auc.low:.2f}, {auc.high:.2f}]".replace("0.", ".")


names = ("global", "local", "both", "both minus normal")
for name in sets:
    columns = dict(zip(names, results["trained", name].values(), strict=True))
    columns["untrained, both"] = results["untrained", name]["global + local"]
    table = {column: [*map(short, per_class), short(average)] for column, (per_class, average) in columns.items()}
    print(f"AUC [95 % interval], {name} (phantom); chance is .50")
    print(pd.DataFrame(table, index=[*PATHOLOGIES, "average"]).to_string(), "\n")

# %% [markdown]
# No classifier was fitted: that is zero-shot. It does not mean that nobody ever coded anything: the codes drew the phantoms, chose which studies the model met more often (notebook 04), and grade it now.

# %%
figure, axes = new_figure(2, width=4.3, height=3.4)
for ax, name in zip(axes[0], sets, strict=True):
    for kind, colour, shift in (("trained", "#0173b2", -0.15), ("untrained", "#949494", 0.15)):
        per_class, average = results[kind, name]["global + local"]
        for y, auc in enumerate((*per_class, average)):
            ax.plot((auc.low, auc.high), (y + shift, y + shift), color=colour, linewidth=2)
            ax.plot(auc.value, y + shift, "D" if y == 5 else "o", color=colour, label=kind if y == 0 else None)
    ax.axvline(0.5, color="black", linestyle="--", linewidth=1)
    counts = [f"{p} (n {auc.positives})" for p, auc in zip(PATHOLOGIES, per_class, strict=True)]
    ax.set_yticks(range(6), [*counts, "average"])
    ax.invert_yaxis()
    ax.set(xlim=(0, 1.02), xlabel="zero-shot AUC", title=f"{name} (phantom)")
figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=2, frameon=False)
sns.despine(figure)
show(
    figure,
    caption="Zero-shot AUC with 95 % intervals (phantom), global + local. n is the number of positives; dashed: chance.",
    alt="Two panels with six rows of dots and interval bars. Blue dots of the trained model lie far to the right, most intervals clear of the dashed chance line; grey dots of the untrained model lie near it, on either side.",
)

# %% tags=["nbval-check-output"]
for name, floor in (("test split", 0.80), ("balanced panel", 0.70)):
    average = results["trained", name]["global + local"][1]
    print(f"average zero-shot AUC above {floor:.2f} on the {name} (phantom):", average.value > floor)
    control = results["untrained", name]["global + local"][1]
    print(f"its interval lies above that of the untrained model, {name}:", average.low > control.high)

# %% [markdown]
# The untrained model need not stand at one half. It puts all radiographs in some order, often by brightness, and nobody chose the direction: one pathology may land well above chance, another well below, and neither means anything.

# %% [markdown]
# Compare "minus normal" in the two tables. Subtracting "is it normal?" can help the test split, where most negatives are normal, and hurt the panel, where most are sick with something else. It is the shortcut of notebook 05, built into a prompt.

# %% [markdown]
# ## Bare names or prompt sets?
#
# The model has learned from sentences. A bare class name is one single point in text space; a set of prompts averages over how a finding is written.

# %%
bare = {name: [f"{name}."] for name in (*PATHOLOGIES, "normal")}
encoded = {"test split": images, "balanced panel": model.encode_images(panel.images)}
rows = []
for name, data in sets.items():
    for kind, asked in (("prompt sets", prompts), ("bare names", bare)):
        for score_name, score in zero_shot(model, encoded[name], asked).named().items():
            average = aucs(data.labels, score, data.patients)[1]
            rows.append((name, score_name, kind, str(average)))
comparison = pd.DataFrame(rows, columns=["set (phantom)", "score", "prompts", "average AUC"])
print(comparison.pivot(index=["set (phantom)", "score"], columns="prompts", values="average AUC").to_string())

# %% [markdown]
# Look at the sizes of differences beside the widths of intervals before you prefer one. A prompt chosen because it scored best on the test split has seen the test split: choose prompts on the validation part.

# %% [markdown]
# ## Retrieval
#
# Now whole reports. For each test phantom we rank all reports by cosine, and ask where its own stands; then the other way round. R@5 is the share whose own is among the first five. Many reports are word for word the same, and count as one.

# %% tags=["nbval-check-output"]
with_text = test.subset([i for i, study in enumerate(test) if study.text])
copies = pd.Series(with_text.texts).value_counts()
print(f"{len(with_text)} studies, {len(copies)} different reports")
print(f'the most frequent one, {copies.iloc[0]} times: "{copies.index[0]}"')

# %%
reports = model.encode_texts(with_text.texts)
radiographs = model.encode_images(with_text.images)
by_global = model.global_similarity(radiographs, reports).numpy()  # [n images, n reports]
found = recall(by_global, with_text.texts)
columns = ["R@1", "chance R@1", "R@5", "chance R@5", "R@10", "chance R@10", "median rank", "n"]
print("retrieval on the test split (phantom), global similarity")
print(pd.DataFrame(found).T[columns].round(3).map("{:g}".format).to_string())

# %% tags=["nbval-check-output"]
for direction, result in found.items():
    chances = ", ".join(f"R@{k} {result[f'chance R@{k}']:.3f}" for k in (1, 5, 10))
    print(f"{direction}: chance {chances}")
    print(f"{direction}: R@10 above three times chance (phantom):", result["R@10"] > 3 * result["chance R@10"])

# %% [markdown]
# Far above chance, far from useful: a phantom shows what a study's codes say, and a report says much more. Exact retrieval also punishes fair answers, since another patient's report may describe the same finding.

# %% [markdown]
# ## What comes back
#
# A report as the query, and the three phantoms that fit it best. We take two queries with an effusion: the one whose own phantom ranks best, and the one whose own phantom ranks in the middle of all effusions.


# %%
def rank_of_own(study: int) -> int:
    return 1 + int((by_global[:, study] > by_global[study, study]).sum())


effusions = np.flatnonzero(with_text.labels[:, 4] == 1)
ranked = sorted((rank_of_own(i), with_text[i].id, i) for i in effusions)
best, middle = ranked[0][-1], ranked[len(ranked) // 2][-1]


# %%
def draw_top_three(study: int) -> Figure:
    top = np.argsort(-by_global[:, study])[:3]
    figure, axes = new_figure(3, width=2.9, height=3.4)
    for place, (ax, i) in enumerate(zip(axes[0], top, strict=True), start=1):
        codes = ", ".join(PATHOLOGIES[k] for k in np.flatnonzero(with_text.labels[i])) or "none of the five"
        own = ", its own" if i == study else ""
        draw_radiograph(ax, with_text.image(i), title=f"{place}. {with_text[i].id}{own}\n{codes}", source="phantom")
        draw_masks(ax, with_text.masks(i))
    lines = [Line2D([], [], color=colour, label=name) for name, colour in COLOURS.items()]
    figure.legend(handles=lines, loc="outside lower center", ncols=5, frameon=False, fontsize=8)
    return figure


# %%
def ask(study: int) -> None:
    query = with_text[study]
    print(f"{query.id}\nFINDINGS\n{wrap(query.findings, 100)}\nIMPRESSION\n{wrap(query.impression, 100)}")
    show(
        draw_top_three(study),
        caption=f"The three phantoms that fit the report of {query.id} best. Its own stands at place {rank_of_own(study)} of {len(with_text)} (phantom). Outlined: where the findings truly are.",
        alt="Three grey phantom chest radiographs, the best fit first, each titled with its place, its study and its true findings, which are outlined in colour.",
    )


ask(best)

# %% [markdown]
# And the query in the middle. Read the report first, and decide what you would look for; then see what the model has found.

# %%
ask(middle)

# %% [markdown]
# Where the own phantom is not on top, look at what is: phantoms with the same finding are a mistake of identity, phantoms with another one a mistake of meaning. R@k counts both the same, so count the meaning apart:

# %%
ratio = {}
for k, name in enumerate(PATHOLOGIES):
    coded = with_text.labels[:, k] == 1
    top = np.argsort(-by_global[:, coded], axis=0)[:3]
    ratio[name] = with_text.labels[top, k].mean() / coded.mean()
    print(f"{name:17} {ratio[name]:5.1f} times as frequent among the top three as among all (phantom)")

# %% tags=["nbval-check-output"]
frequent = [name for name, times in ratio.items() if times > 2]
print("more than twice as frequent for at least three of the five (phantom):", len(frequent) >= 3)

# %% [markdown]
# ## Real radiographs
#
# Everything above was phantom. If real NIH ChestX-ray14 radiographs lie in `data/raw/nih`, or where `CMLR_NIH` says, the next cell asks the same model about them. It has never seen a real pixel.

# %%
folder = nih_folder()
if folder:
    nih = load_nih(folder)
    print(f"NIH ChestX-ray14 (real), {len(nih)} radiographs: average zero-shot AUC [95 % interval]")
    for name, (_, average) in zero_shot_aucs(model, nih).items():
        print(f"  {name:30} {average}")
else:
    print("No real NIH radiographs here: nothing to ask.")

# %% [markdown]
# ## Your turn
#
# `recall` calls it chance when k reports are picked blindly. Suppose a test set has 500 radiographs whose reports come in 400 different wordings. What is the chance R@5 from image to report? Put a number in place of `None`.

# %% tags=["nbval-check-output"]
my_chance = None

if my_chance is None:
    print("not attempted yet")
else:
    wordings = [str(i % 400) for i in range(500)]
    answer = recall(np.zeros((500, 500)), wordings)["image to report"]["chance R@5"]
    assert abs(my_chance - answer) < 1e-4, "how many different reports can be picked, and how many are picked?"
    print("right: identical reports count as one")

# %% [markdown]
# **Hint.** A radiograph has found its report if it has found its words. Among how many different ones does it choose?
#
# <details><summary>Solution</summary>
#
# `my_chance = 5 / 400`. With 5 / 500 the baseline would be too low, and the model would look better than it is.
#
# </details>

# %% [markdown]
# ## We learned
#
# - A set of prompts is a classifier: mean similarity, global, local or both.
# - It stands beside chance, an untrained model and an interval, on two sets.
# - "Minus normal" and prompts picked on the test set can flatter.
# - Retrieval merges identical reports, names its chance, and is judged by looking, too.

# %% [markdown]
# **Read next**
#
# - S.-C. Huang, L. Shen, M. P. Lungren, S. Yeung: *GLoRIA: A Multimodal Global-Local Representation Learning Framework for Label-Efficient Medical Image Recognition*, ICCV 2021.
# - E. Tiu et al.: *Expert-Level Detection of Pathologies from Unannotated Chest X-Ray Images via Self-Supervised Learning*, Nature Biomedical Engineering 6, 2022. Prompts of the kind "X" against "no X".
# - X. Wang et al.: *ChestX-ray8: Hospital-Scale Chest X-Ray Database and Benchmarks*, CVPR 2017. The real radiographs.
#
# Next: [07_attention_and_grounding](07_attention_and_grounding.ipynb) asks where the words look.
