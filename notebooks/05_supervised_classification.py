# %% [markdown]
# # Supervised classification: a straight line on frozen features
#
# If pretraining has taught the image encoder something, a simple classifier on top of it should need few labels. You will measure that, beside the baselines that make such a number mean something.

# %% [markdown]
# **In this notebook you will**
#
# - ask first what no model at all would score;
# - fit a linear probe on frozen features, with 1, 10 and 100 % of the labels;
# - compare the pretrained encoder with an untrained one, with intervals and ROC curves;
# - catch a shortcut with a balanced panel.

# %% [markdown]
# It builds on [04_pretraining](04_pretraining.ipynb). About half a minute on two CPU cores.

# %% [markdown]
# In the paper, the classifier is trained on CheXpert or CheXphoto and tested on IU-RR. This first form of the course trains the probe on IU-RR's own training part, whose radiographs are phantoms here. So every AUC below is an AUC on phantoms: it says how the method works, and nothing clinical.

# %%
import numpy as np
import pandas as pd
import seaborn as sns
from sklearn.metrics import roc_auc_score, roc_curve

from cmlr_utils import PATHOLOGIES, load_iu_rr, load_panel, presets, pretrain
from cmlr_utils.course.figures import COLOURS, new_figure, show
from cmlr_utils.evaluation.classification import label_fraction, linear_probe
from cmlr_utils.evaluation.statistics import aucs
from cmlr_utils.training.pretrain import trainable

# %% [markdown]
# ## Three sets of studies
#
# The probe learns on the training part and is asked about the test split, whose studies it has never seen, and about the panel: 240 extra phantoms, 40 for each finding and 40 normal.

# %% tags=["nbval-check-output"]
studies = load_iu_rr("phantom")
training = trainable(studies)
test = studies.split("test")
test = test.coded()  # leave out studies that nobody coded
panel = load_panel()
sets = {"training part": training, "test split": test, "balanced panel": panel}
counts = pd.DataFrame({name: data.labels.sum(0).astype(int) for name, data in sets.items()}, index=PATHOLOGIES)
counts.loc["normal, and nothing else"] = [sum(study.normal for study in data) for data in sets.values()]
counts.loc["all"] = [len(data) for data in sets.values()]
print(counts.to_string())

# %% [markdown]
# ## The baseline comes first
#
# Answer "absent" to everything, without looking. In a set where findings are rare, that is nearly always correct. Its AUC gives it away: it is the chance that a sick study scores above a healthy one, and ties count half.

# %% tags=["nbval-check-output"]
always_absent = np.zeros(test.labels.shape)
baseline = pd.DataFrame(index=PATHOLOGIES)
baseline["accuracy of 'absent'"] = (test.labels == 0).mean(0).round(3)
baseline["its AUC"] = [auc.value for auc in aucs(test.labels, always_absent, test.patients)[0]]
print(baseline.to_string())

# %% [markdown]
# ## Features, frozen
#
# `encode_images` gives, for each phantom, the 256 numbers that the backbone ends with. The encoder is not changed any more. Our control is the same architecture with random weights.

# %%
model = pretrain(presets["tiny"], studies)
networks = {"pretrained": model, "untrained": model.with_random_weights().to(model.device)}
features = {
    kind: {name: network.encode_images(data.images).pooled.numpy() for name, data in sets.items()}
    for kind, network in networks.items()
}

# %% tags=["nbval-check-output"]
for name, pooled in features["pretrained"].items():
    print(f"{name:15} features {pooled.shape}")

# %% [markdown]
# ## The probe
#
# `linear_probe` standardises the features and fits one logistic regression for each pathology. We score both sets; `aucs` resamples patients 2,000 times for each 95 % interval.


# %%
def probe_scores(of: dict[str, np.ndarray], kept: np.ndarray) -> dict[str, np.ndarray]:
    """Fit on the kept training studies; decision scores [n, 5] of both sets."""
    both = np.concatenate([of["test split"], of["balanced panel"]])
    score = linear_probe(of["training part"][kept], training.labels[kept], both)
    return {"test split": score[: len(test)], "balanced panel": score[len(test) :]}


# %%
everyone = np.arange(len(training))
scores = {(kind, name): score for kind, of in features.items() for name, score in probe_scores(of, everyone).items()}
results = {(kind, name): aucs(sets[name].labels, score, sets[name].patients) for (kind, name), score in scores.items()}


# %%
def result_table(name: str) -> pd.DataFrame:
    columns = {kind: [*results[kind, name][0], results[kind, name][1]] for kind in features}
    return pd.DataFrame({kind: map(str, column) for kind, column in columns.items()}, index=[*PATHOLOGIES, "average"])


for name in ("test split", "balanced panel"):
    print(f"AUC [95 % interval], {name} (phantom)\n{result_table(name).to_string()}\n")

# %% tags=["nbval-check-output"]
for (kind, name), floor in {("pretrained", "test split"): 0.85, ("pretrained", "balanced panel"): 0.75}.items():
    print(
        f"average AUC of the {kind} encoder above {floor:.2f} on the {name} (phantom):",
        results[kind, name][1].value > floor,
    )
for name in ("test split", "balanced panel"):
    gain = results["pretrained", name][1].value - results["untrained", name][1].value
    print(f"pretrained better than untrained by .03 or more on the {name} (phantom):", gain > 0.03)

# %% [markdown]
# An untrained encoder is far from chance: random filters still tell bright from dark, and a wide heart is a lot of bright. A result without this control says little about what pretraining has taught.

# %% [markdown]
# ## ROC curves
#
# Behind each AUC stands a curve: move the threshold from strict to lenient, and note at each place how many sick studies are found and how many healthy ones are accused.

# %%
figure, axes = new_figure(2, width=3.9, height=3.9)
for ax, name in zip(axes[0], ("test split", "balanced panel"), strict=True):
    for k, pathology in enumerate(PATHOLOGIES):
        false_positive, true_positive, _ = roc_curve(sets[name].labels[:, k], scores["pretrained", name][:, k])
        auc = results["pretrained", name][0][k]
        ax.plot(false_positive, true_positive, color=COLOURS[pathology], label=f"{pathology} {auc.value:.2f}")
    ax.plot([0, 1], [0, 1], color="black", linestyle="--", linewidth=1)
    ax.set(title=f"{name} (phantom)", xlabel="false positive rate", ylabel="true positive rate", aspect="equal")
    ax.legend(loc="lower right", fontsize=8, title="AUC", frameon=False)
sns.despine(figure)
show(
    figure,
    caption="Linear probe on the pretrained encoder (phantom): ROC curves of the five pathologies. The dashed line is chance.",
    alt="Two panels of ROC curves above a dashed diagonal. On the test split the curves hug the upper left corner, and those of rare findings climb in a few large steps. On the balanced panel they are smoother, and that of atelectasis lies lower.",
)

# %% [markdown]
# ## Why are some intervals so wide?
#
# Curves with large steps rest on few positives: each step is one patient. The interval follows that number, and hardly the size of the set. The formula of Hanley and McNeil (1982) says how much to expect.

# %%
width_of = [
    (auc.positives, (auc.high - auc.low) / 2, pathology, name)
    for (kind, name), (per_class, _) in results.items()
    for pathology, auc in zip(PATHOLOGIES, per_class, strict=True)
    if kind == "pretrained"
]


def expected_half_width(auc: float, positives: np.ndarray, negatives: int) -> np.ndarray:
    q1, q2 = auc / (2 - auc), 2 * auc**2 / (1 + auc)
    variance = auc * (1 - auc) + (positives - 1) * (q1 - auc**2) + (negatives - 1) * (q2 - auc**2)
    return 1.96 * np.sqrt(variance / (positives * negatives))


# %%
figure, axes = new_figure(width=5.6, height=3.2)
for positives, half_width, pathology, name in width_of:
    marker = "o" if name == "test split" else "s"
    axes[0, 0].plot(positives, half_width, marker, color=COLOURS[pathology], markersize=8)
grid = np.arange(4, 90)
for auc, style in ((0.85, "-"), (0.95, "--")):
    axes[0, 0].plot(grid, expected_half_width(auc, grid, 700), style, color="grey", label=f"expected at AUC {auc}")
for pathology, colour in COLOURS.items():
    axes[0, 0].plot([], [], "o", color=colour, label=pathology)
axes[0, 0].set(xlabel="positives in the set", ylabel="half of the 95 % interval", ylim=(0, None))
axes[0, 0].legend(fontsize=8, frameon=False, ncols=2)
sns.despine(figure)
show(
    figure,
    caption="Half widths of the intervals above (phantom) against the number of positives; circles test split, squares panel.",
    alt="Dots for five pathologies; two grey curves fall steeply up to about 20 positives and flatten after. Findings with few positives have wide intervals, or stand at an AUC near one where no interval can be wide.",
)

# %% tags=["nbval-check-output"]
for positives in (7, 30, 68):
    print(f"{positives} positives at AUC 0.85: ± {expected_half_width(0.85, positives, 700):.2f}")

# %% [markdown]
# An AUC near 1 has a short interval even with few positives, as there is no room above. Do not trust it more for that: a bootstrap of six patients cannot show a seventh who looks different.

# %% [markdown]
# ## Fewer labels
#
# Labels cost a radiologist's time. `label_fraction` keeps 1, 10 or 100 % of the training studies, and at least two positives of each finding. At 1 % much depends on which studies were drawn, so we draw three times.

# %%
draws = [(0.01, 0), (0.01, 1), (0.01, 2), (0.1, 0), (0.1, 1), (0.1, 2), (1.0, 0)]
rows = []
for fraction, seed in draws:
    kept = label_fraction(training.labels, fraction, seed)
    for kind, of in features.items():
        for name, score in probe_scores(of, kept).items():
            average = aucs(sets[name].labels, score, sets[name].patients)[1]
            rows.append((name, kind, fraction, seed, average.value, str(average)))
labels_used = pd.DataFrame(rows, columns=["set", "encoder", "fraction", "draw", "AUC", "AUC [95 % interval]"])

# %% tags=["nbval-check-output"]
for fraction in (0.01, 0.1, 1.0):
    kept = label_fraction(training.labels, fraction)
    positives = ", ".join(f"{int(n)}" for n in training.labels[kept].sum(0))
    print(f"{fraction:4.0%} of the labels: {len(kept):5,} studies, positives {positives}")

# %%
print("average AUC [95 % interval] (phantom), by the share of labels and the draw")
print(
    labels_used.pivot(index=["fraction", "draw"], columns=["set", "encoder"], values="AUC [95 % interval]").to_string()
)

# %% [markdown]
# These intervals speak of the test patients only: another draw of patients would move the AUC so far. How far another draw of labels moves it, the three draws show. Both belong to an honest number.

# %%
figure, axes = new_figure(2, width=3.9, height=3.4)
palette = {"pretrained": "#0173b2", "untrained": "#949494"}
for ax, (name, part) in zip(axes[0], labels_used.groupby("set", sort=False), strict=True):
    for kind, of_kind in part.groupby("encoder", sort=False):
        ax.plot(100 * of_kind["fraction"], of_kind["AUC"], "o", color=palette[kind], alpha=0.5)
        mean = of_kind.groupby("fraction")["AUC"].mean()
        ax.plot(100 * mean.index, mean, color=palette[kind], label=kind)
    ax.axhline(0.5, color="black", linestyle="--", linewidth=1)
    ax.set(xscale="log", xlabel="labels used (%)", title=f"{name} (phantom)", ylim=(0.45, 1), ylabel="average AUC")
    ax.set_xticks([1, 10, 100], ["1", "10", "100"])
figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=2, frameon=False)
sns.despine(figure)
show(
    figure,
    caption="Average AUC (phantom) against the labels used; each dot is one draw of the labels, the line their mean. Dashed: chance.",
    alt="Two panels, each with two rising lines. The pretrained encoder lies above the untrained one at every fraction; on the balanced panel the distance is larger.",
)

# %% tags=["nbval-check-output"]
mean = labels_used.groupby(["set", "encoder", "fraction"])["AUC"].mean()
for name in ("test split", "balanced panel"):
    tenth, all_labels = mean[name, "pretrained", 0.1], mean[name, "untrained", 1.0]
    print(f"{name} (phantom): pretrained with 10 % of the labels beats untrained with all:", bool(tenth > all_labels))

# %% [markdown]
# ## The shortcut
#
# Why does the panel ask more, above all with few labels? Imagine a cheat who knows one thing only: whether a study shows any of the five, never which. It needs no radiograph for our calculation; the labels are enough.

# %% tags=["nbval-check-output"]
for name, data in (("test split", test), ("balanced panel", panel)):
    any_finding = data.labels.max(1)
    per_class = [roc_auc_score(present, any_finding) for present in data.labels.T]
    print(
        f"{name:15} AUC of the cheat:",
        ", ".join(f"{auc:.2f}" for auc in per_class),
        f"  average {np.mean(per_class):.2f}",
    )

# %% [markdown]
# On the test split a cheat who cannot name one finding reaches an AUC that papers would celebrate, since most studies there have none of the five. On the panel four of five negatives are sick as well, and it falls.

# %% [markdown]
# So the panel asks what the test split cannot: not "is something wrong" but "which of them is it". Where a model is far better on the test split than on the panel, part of its score is this shortcut. We always report both.

# %% [markdown]
# ## Your turn
#
# Take the 40 normal phantoms out of the panel, so that everybody in it is sick. What AUC does the cheat reach now? Put a number in place of `None`.

# %% tags=["nbval-check-output"]
my_auc = None

if my_auc is None:
    print("not attempted yet")
else:
    sick = panel.labels[panel.labels.max(1) == 1]
    answer = np.mean([roc_auc_score(present, sick.max(1)) for present in sick.T])
    assert abs(my_auc - answer) < 0.005, "what score does the cheat give to each of them?"
    print("right: all tie, so it is a coin")

# %% [markdown]
# **Hint.** The cheat gives the same score to every phantom. How do ties count in an AUC?
#
# <details><summary>Solution</summary>
#
# `my_auc = 0.5`. Without normal studies, knowing "sick" is knowing nothing: every pair ties, and a tie counts half.
#
# </details>

# %% [markdown]
# ## We learned
#
# - Accuracy flatters where findings are rare; AUC starts at one half, and an untrained encoder well above it.
# - A linear probe reads what pretraining has put into the features, and needs fewer labels for it.
# - Intervals are as wide as positives are few.
# - A test split of mostly normal studies rewards "sick or not"; a balanced panel shows it.

# %% [markdown]
# **Read next**
#
# - J. A. Hanley, B. J. McNeil: *The Meaning and Use of the Area under a Receiver Operating Characteristic (ROC) Curve*, Radiology 143, 1982.
# - J. Irvin et al.: *CheXpert: A Large Chest Radiograph Dataset with Uncertainty Labels and Expert Comparison*, AAAI 2019.
# - A. J. DeGrave, J. D. Janizek, S.-I. Lee: *AI for Radiographic COVID-19 Detection Selects Shortcuts over Signal*, Nature Machine Intelligence 3, 2021.
#
# Next: [06_zero_shot_and_retrieval](06_zero_shot_and_retrieval.ipynb), which fits no classifier at all.
