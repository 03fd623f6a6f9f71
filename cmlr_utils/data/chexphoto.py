"""CheXphoto (Phillips, Rajpurkar et al., ML4H 2020): photographs of CheXpert's radiographs, real and synthetic.

What could be verified in code that others wrote for it and in the code released with it: the folder `CheXphoto-v1.0`
(or `-v1.1`) has `train.csv` and `valid.csv` with CheXpert's columns; a Path reads
`CheXphoto-v1.0/valid/natural/oneplus/patient64542/study1/view1_frontal.jpg`, where `natural` (a phone took it) is
followed by the phone (`iphone` in train, `oneplus` in valid) and `synthetic` by `photographic` or `digital`; and a Path
may end in .png where the file ends in .jpg. Not verified: the other phones' folders and the film photographs of v1.1;
whatever folders there are, are read. The data set itself was not at hand.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from cmlr_utils.data import chexpert
from cmlr_utils.data.files import CourseError
from cmlr_utils.data.phantom import phantom_fingerprint, render_phantom
from cmlr_utils.data.photograph import photograph, require_strength
from cmlr_utils.data.pixels import open_store
from cmlr_utils.data.radiographs import listed_store
from cmlr_utils.data.studies import IMAGE_SIZE, StudySet, one_row_each
from cmlr_utils.data.tables import seed_of

# The recipes of the released synthetic branch, in its order.
SYNTHETIC = {"photographic": ("glare matte", "moire", "perspective"), "digital": ("contrast", "brightness")}
KINDS = ("natural", "synthetic")


def load_chexphoto(
    root: Path | str | None = None,
    part: str = "train",
    policy: str = "mix",
    *,
    kind: str | None = None,
    strength: float = 2,
    n: int | None = None,
    image_size: int = IMAGE_SIZE,
    skip_unreadable: bool = False,
) -> StudySet:
    """CheXphoto's frontal photographs with their five labels under a policy, as `load_chexpert` gives CheXpert.

    `root` is CheXphoto's folder or the one that holds it; `part` "train" or "valid"; `kind` "natural", "synthetic", or
    None for both. A patient is in "train", in "val" or, being of the 5x200, in neither, as in CheXpert, so a
    model may learn from both sets. Natural and synthetic photographs of one radiograph are rows of their own.

    Without `root`: the phantoms of `load_chexpert` in the same order ("train" or "5x200"), each photographed by the
    synthetic branch's "photographic" recipe (matte glare, moiré, perspective) at this `strength`, with random numbers
    of its own, the same every time; masks move with the pixels. `n` is for "train" as there; `strength` is for phantoms
    alone. Raises CourseError naming the file and line, or the argument, that is wrong.
    """
    if kind not in (None, *KINDS):
        raise CourseError(f"kind={kind!r} is unknown: choose natural or synthetic, or None for both.")
    if root is None:
        if kind == "natural":
            raise CourseError('Phantoms have no natural photographs: give root, or choose kind="synthetic".')
        require_strength(strength)
        studies = chexpert.phantom_studies(part, policy, n)
        jobs = [(study.id, list(study.mesh), strength) for study in studies]
        name = f"chexphoto-{part}-{len(jobs)}-{strength:g}-phantom"
        recipe = Path(__file__).with_name("photograph.py").read_bytes()
        version = phantom_fingerprint() + hashlib.sha256(recipe).hexdigest()
        store = open_store(name, jobs, draw_photographed, size=image_size, version=version)
        return one_row_each(studies, store, "phantom")
    if part not in ("train", "valid"):
        raise CourseError(f"part={part!r} is unknown: CheXphoto has train and valid.")
    path = chexpert.csv_of(Path(root), f"{part}.csv")
    table = chexpert.read_labels(path, path.parent)
    if kind is not None:
        table = table[table["id"].str.split("/").str[1] == kind]
    table = chexpert.chosen(table, path, part, n, chexpert.balanced(chexpert.read_chexpert()[0]))
    studies = chexpert.studies_of(table, part, policy)
    name = f"{path.resolve().parent.name}-{part}-{kind or 'all'}-{len(table)}"
    store = listed_store(name, table, path, image_size, skip_unreadable)
    return one_row_each(studies, store, "chexphoto")


def draw_photographed(name: str, mesh: Sequence[str], strength: float, size: int) -> tuple[np.ndarray, np.ndarray]:
    """One row of a pixel cache of phantoms, photographed with random numbers of its own; masks where they have gone."""
    phantom = render_phantom(name, mesh, size)
    generator = torch.Generator().manual_seed(seed_of(name))
    pixels = torch.from_numpy(phantom.pixels)[None, None] / 255
    masks = torch.from_numpy(phantom.masks)[None]
    shown, moved = photograph(pixels, SYNTHETIC["photographic"], strength, generator, masks)
    return (shown[0, 0] * 255).round().byte().numpy(), moved[0].numpy()
