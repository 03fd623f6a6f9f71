"""The body that is radiographed: one function per structure, each giving a map of attenuation or of air.

Attenuation is in units of the thickest soft tissue of the trunk. Everything random here comes from the study's anatomy
stream, and is drawn in the same order whatever the codes say: codes only change the numbers in `Changes`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field as dataclass_field

import numpy as np

from .bank import load_bank
from .canvas import Frame, blur, bump, disc, edge, field, smooth_outline

Rng = np.random.Generator
SIDES = ("right", "left")  # the patient's; right comes first in the bank
SIGN = {"right": -1, "left": 1}  # the direction of a side along x
NORMAL_RATIO = (0.41, 0.48)  # cardiothoracic ratio
HEART_SHARE_LEFT = 0.65  # of the heart's width lies left of the midline
LUNG_EDGE = 0.3  # how much of the bank's soft outline becomes the lung's edge


@dataclass
class Changes:
    """What the codes change in the anatomy itself; the defaults are a normal study."""

    heart_ratio: float | None = None  # cardiothoracic ratio, instead of the study's own
    lung_height: float = 1.0
    lift: dict[str, float] = dataclass_field(default_factory=lambda: dict.fromkeys(SIDES, 0.0))  # of lung height
    vessels: float = 1.0
    hila: float = 1.0
    air: float = 1.0  # emphysema more than 1
    aorta: float = 1.0
    spine_bend: float = 0.0  # signed


@dataclass
class Lung:
    """One lung: its inside, float32 [S, S] in 0..1, and the coordinates of its box.

    `down` is 0 at the apex and 1 at the deepest costophrenic angle; `across` 0 at the medial and 1 at the lateral edge.
    """

    side: str
    inside: np.ndarray
    down: np.ndarray
    across: np.ndarray
    box: tuple[float, float, float, float]  # left, top, right, bottom in body coordinates

    def point(self, down: float, across: float) -> tuple[float, float]:
        """Body coordinates of a point of this lung."""
        left, top, right, bottom = self.box
        x = left + across * (right - left) if self.side == "left" else right - across * (right - left)
        return x, top + down * (bottom - top)


@dataclass
class Body:
    """The study's own build, and what becomes of it: maps are float32 [S, S]."""

    frame: Frame
    top: float  # of the box around both lungs, in body coordinates
    height: float
    midline: np.ndarray  # x from the (perhaps bent) spine
    lungs: dict[str, Lung]
    tissue: np.ndarray  # attenuation without any air
    air: np.ndarray  # the part of it that the lungs' air takes away, 0..1
    vessels: np.ndarray  # attenuation inside aerated lung
    bone: np.ndarray  # attenuation added
    heart: np.ndarray  # 0..1


def build_body(rng: Rng, size: int, changes: Changes) -> Body:
    """Draw a whole body; `rng` is the anatomy stream of the study."""
    scale = rng.uniform(0.94, 1.18)
    scales = (scale * rng.uniform(0.93, 1.05), scale * rng.uniform(0.95, 1.06))
    frame = Frame(size, rng.normal(0, 0.03), scales, (rng.normal(0, 0.04), rng.normal(0.03, 0.04)))
    width = rng.uniform(1.30, 1.52)
    wall = rng.uniform(0.06, 0.11) + rng.gamma(1.5, 0.05)
    bank = load_bank()
    chosen = int(rng.integers(len(bank.lungs)))
    height = float(np.clip(width / np.clip(bank.aspects[chosen], 0.82, 1.12), 1.18, 1.62))
    top = -0.80 + rng.normal(0, 0.025)
    height *= changes.lung_height
    midline = frame.x - changes.spine_bend * np.sin((frame.y + 0.5) * 2.6)

    lungs = {
        side: draw_lung(frame, side, (-width / 2, top, width, height), chosen, changes.lift[side]) for side in SIDES
    }
    both = np.maximum(lungs["right"].inside, lungs["left"].inside)
    tissue = draw_soft_tissue(frame, rng, width, wall, top, height)
    tissue += draw_breasts(frame, rng, width, top, height)
    tissue -= draw_bowel_gas(frame, rng, lungs) + draw_airways(frame, rng, midline, top, height)
    air = draw_air(frame, rng, both, changes)
    vessels = draw_vessels(frame, rng, (-width / 2, top, width, height), changes)
    heart = draw_heart(frame, rng, width, top, height, changes)
    mediastinum = draw_mediastinum(frame, rng, midline, top, height, changes)
    hila = draw_hila(frame, rng, top, height, changes)
    depth = np.maximum(heart * (0.50 + 0.32 * np.clip(blur(heart, 0.05), 0, 1)), mediastinum)
    depth = np.maximum(depth, draw_heart_bed(frame, heart, width, top, height))
    air *= (1 - depth) * (1 - hila)
    bone = draw_ribs(frame, rng, midline, width, top, height)
    bone += draw_spine(frame, rng, midline) + draw_rib_cage_edge(frame, rng, both)
    bone += draw_clavicles(frame, rng, width, top) + draw_shoulder_blades(frame, rng, width, top, height)
    bone *= np.clip(4 * tissue, 0, 1)  # none sticks out of the skin
    return Body(frame, top, height, midline, lungs, tissue, air, vessels, bone, heart)


def draw_lung(frame: Frame, side: str, box: tuple[float, float, float, float], chosen: int, lift: float) -> Lung:
    """A real lung's outline from the bank, its base lifted by a part of its height."""
    bank = load_bank()
    index = SIDES.index(side)
    left, top, width, height = box
    height *= 1 - lift
    inside = frame.paste(bank.lungs[chosen, index], left, top, width, height)
    inside = np.clip(0.5 + (inside - 0.5) / (LUNG_EDGE * max(1.0, 128 / frame.size)), 0, 1)
    box_left, box_top, box_right, box_bottom = bank.boxes[chosen, index] * (width, height, width, height)
    lung_box = (left + box_left, top + box_top, left + box_right, top + box_bottom)
    down = (frame.y - lung_box[1]) / (lung_box[3] - lung_box[1])
    across = (frame.x - lung_box[0]) / (lung_box[2] - lung_box[0])
    return Lung(side, inside, down, across if side == "left" else 1 - across, tuple(map(float, lung_box)))


def draw_soft_tissue(frame: Frame, rng: Rng, width: float, wall: float, top: float, height: float) -> np.ndarray:
    """Thickness of trunk, shoulders, arms and neck, with fat and muscle as a smooth random field."""
    x, y = np.abs(frame.x), frame.y
    neck = rng.uniform(0.17, 0.25)
    slope = rng.uniform(0.22, 0.50)
    shoulder = top - rng.uniform(0.06, 0.16)
    armpit = top + height * rng.uniform(0.32, 0.55)
    shoulder_reach = rng.uniform(0.18, 0.45)
    arm_gap = rng.uniform(-0.10, 0.30)  # how fast the arms leave the trunk going down; negative: pressed against it
    arm_width = rng.uniform(0.13, 0.19)
    belly = rng.uniform(0.0, 0.12)
    thinness = rng.uniform(0.62, 0.80)

    half = width / 2 + wall + shoulder_reach * edge(armpit - y, 0.06) + belly * edge(y - top - height, 0.1)
    trunk = np.sqrt(np.clip(1.02 - np.square(x / half), 0, 1))
    arm_axis = width / 2 + wall + arm_width * 0.8 + np.maximum(y - armpit, 0) * arm_gap
    arm = (
        rng.choice((0.0, 0.4, 0.55))
        * np.sqrt(np.clip(1 - np.square((x - arm_axis) / arm_width), 0, 1))
        * edge(y - armpit + 0.1, 0.05)
    )
    beside = np.maximum(x - neck, 0)
    below_shoulder = np.clip((y - shoulder - slope * beside + 0.15 * np.exp(-9 * beside)) / 0.30, 0, 1)
    body = np.maximum(trunk, arm) * np.sqrt(below_shoulder)
    body = np.maximum(body, 0.62 * np.sqrt(np.clip(1.02 - np.square(x / neck), 0, 1)) * edge(shoulder + 0.2 - y, 0.05))
    thickness = thinness + (1 - thinness) * edge(y - (top + 0.72 * height), 0.14)
    uneven = 1 + 0.045 * field(rng, frame.size, 5) + 0.02 * field(rng, frame.size, 20)
    return body * thickness * uneven


def draw_breasts(frame: Frame, rng: Rng, width: float, top: float, height: float) -> np.ndarray:
    """Breast shadows in about two of five studies: denser below, with a sharp lower border."""
    shown, radius, weight = rng.random() < 0.42, rng.uniform(0.24, 0.38), rng.uniform(0.05, 0.14)
    x, y = width * rng.uniform(0.25, 0.31), top + height * rng.uniform(0.58, 0.78)
    if not shown:
        return np.zeros_like(frame.x)
    across, down = np.abs(frame.x) - x, frame.y - y
    distance = radius - np.sqrt(across * across + down * down * 1.15)
    return weight * edge(distance, 0.018) * np.clip(0.65 + 1.4 * down, 0.15, 1.2)


def draw_bowel_gas(frame: Frame, rng: Rng, lungs: dict[str, Lung]) -> np.ndarray:
    """Gas below the diaphragm, to be taken away: the gastric bubble on the left and some loops of bowel."""
    bubble, flatness, amount = rng.random() < 0.5, rng.uniform(1.4, 2.2), rng.uniform(0.10, 0.25)
    across, radius, loops = rng.uniform(0.25, 0.55), rng.uniform(0.09, 0.16), int(rng.integers(0, 6))
    gas = np.zeros_like(frame.x)
    if bubble:
        x, y = lungs["left"].point(1.0, across)
        gas += amount * disc(frame, x, y + 0.03, radius, 0.012, flatness)
    for _ in range(loops):
        x, y, r = rng.normal(0.15, 0.35), rng.uniform(0.70, 1.05), rng.uniform(0.04, 0.09)
        gas += rng.uniform(0.05, 0.16) * disc(frame, x, y, r, 0.015, rng.uniform(0.7, 1.6))
    under = 1 - np.maximum(lungs["right"].inside, lungs["left"].inside)
    return gas * under


def draw_airways(frame: Frame, rng: Rng, midline: np.ndarray, top: float, height: float) -> np.ndarray:
    """Trachea and main bronchi, to be taken away: a dark column that divides at the carina."""
    carina, radius = top + height * rng.uniform(0.30, 0.36), rng.uniform(0.030, 0.042)
    offset, amount = rng.normal(-0.01, 0.012), rng.uniform(0.07, 0.13)
    below = np.maximum(frame.y - carina, 0)
    distance = np.abs(np.abs(midline - offset) - 0.9 * below)  # two bronchi below the carina, one trachea above
    column = edge(radius - distance - 0.10 * below, 0.012)
    return amount * column * edge(carina + 0.16 - frame.y, 0.03) * edge(frame.y + 1.02, 0.03)


def draw_air(frame: Frame, rng: Rng, both: np.ndarray, changes: Changes) -> np.ndarray:
    """The air's share of the thickness: round towards the lungs' edges, less at the bases, a little uneven."""
    share = rng.uniform(0.50, 0.70)
    uneven = 1 + 0.03 * field(rng, frame.size, 9) + 0.02 * field(rng, frame.size, 40)
    depth = 0.62 + 0.42 * np.clip(blur(both, 0.045), 0, 1)
    return np.clip(both * depth * uneven * share * changes.air, 0, 0.92)


def draw_vessels(frame: Frame, rng: Rng, box: tuple[float, float, float, float], changes: Changes) -> np.ndarray:
    """A tree from the bank, in some studies mirrored, with fainter small vessels between."""
    trees = load_bank().vessels
    tree = trees[int(rng.integers(len(trees)))]
    tree = tree[:, ::-1] if rng.random() < 0.5 else tree
    strength = rng.uniform(0.15, 0.32)
    fine = np.abs(field(rng, frame.size, 48)) * 0.035 + np.abs(field(rng, frame.size, 96)) * 0.02
    return changes.vessels * (strength * frame.paste(np.ascontiguousarray(tree), *box) + fine)


def draw_heart(frame: Frame, rng: Rng, width: float, top: float, height: float, changes: Changes) -> np.ndarray:
    """The heart's silhouette, as wide as the cardiothoracic ratio says; larger ones are rounder."""
    own_ratio, round_apex = rng.uniform(*NORMAL_RATIO), rng.uniform(0, 0.05)
    base, lean = top + height * rng.uniform(0.83, 0.88), rng.uniform(0.84, 1.0)
    ratio = changes.heart_ratio or own_ratio
    across = ratio * width
    tall = (base - top - 0.36 * height) * lean * (0.85 + 0.35 * ratio)
    outline = [  # x as a part of the heart's width from the midline, y as a part of its height above the base
        (-0.14, 1.00),
        (-0.27, 0.76),
        (HEART_SHARE_LEFT - 1, 0.40),
        (-0.30, 0.12),
        (-0.08, -0.02),
        (0.22, -0.06 - round_apex),
        (0.47, -0.05 - round_apex),
        (0.61, 0.05),
        (HEART_SHARE_LEFT, 0.20),
        (0.57, 0.44),
        (0.40, 0.70),
        (0.24, 0.90),
        (0.08, 1.04),
    ]
    curve = smooth_outline([(x * across, base - y * tall) for x, y in outline])
    curve[:, 0] *= across / np.ptp(curve[:, 0])  # the spline overshoots a little
    return blur(frame.fill(curve), 0.006)


def draw_heart_bed(frame: Frame, heart: np.ndarray, width: float, top: float, height: float) -> np.ndarray:
    """Diaphragm, liver and stomach below the heart, where the outlines show lung that a film does not."""
    half = np.clip(heart.sum(axis=1).max() * 2 / frame.size, 0, width) * 0.36
    below = edge(frame.y - top - 0.80 * height, 0.02)
    return 0.93 * below * edge(half - np.abs(frame.x - 0.10), 0.05)


def draw_mediastinum(
    frame: Frame, rng: Rng, midline: np.ndarray, top: float, height: float, changes: Changes
) -> np.ndarray:
    """Great vessels and oesophagus: a column with the aortic knob and the pulmonary trunk on the left."""
    half = rng.uniform(0.085, 0.125)
    knob_y, knob = top + height * rng.uniform(0.24, 0.31), rng.uniform(0.065, 0.095) * changes.aorta
    trunk_y, trunk = top + height * rng.uniform(0.37, 0.42), rng.uniform(0.05, 0.075)
    column = edge(half + 0.04 * bump(frame.y - top, 0.2) - np.abs(midline - 0.01), 0.012)
    column *= edge(top + 0.9 * height - frame.y, 0.03)
    aorta = disc(frame, half + 0.15 * knob, knob_y, knob, 0.012)
    if changes.aorta > 1:  # tortuous: the descending aorta bulges along the left of the spine
        bulge = half + 0.05 * (changes.aorta - 1) * 4 * bump(frame.y - knob_y - 0.25, 0.22)
        aorta = np.maximum(aorta, edge(bulge - np.abs(midline - 0.03), 0.015) * edge(frame.y - knob_y, 0.03))
    pulmonary = disc(frame, half + 0.02, trunk_y, trunk, 0.015)
    return np.clip(
        np.maximum(column * (0.80 + 0.15 * edge(frame.y - knob_y, 0.1)), np.maximum(0.85 * aorta, 0.7 * pulmonary)),
        0,
        1,
    )


def draw_hila(frame: Frame, rng: Rng, top: float, height: float, changes: Changes) -> np.ndarray:
    """Pulmonary arteries and bronchi where they enter the lungs; the left hilum stands higher."""
    strength = min(rng.uniform(0.40, 0.65) * changes.hila, 0.9)
    hila = np.zeros_like(frame.x)
    for side in SIDES:
        x, y = SIGN[side] * rng.uniform(0.19, 0.23), top + height * (rng.uniform(0.44, 0.48) - 0.03 * (side == "left"))
        wide, tall = 0.06 * math.sqrt(changes.hila), 0.13 * math.sqrt(changes.hila)
        lean = frame.x - x - SIGN[side] * 0.25 * (frame.y - y)
        hila += bump(lean, wide) * bump(frame.y - y, tall)
    return strength * hila


def draw_ribs(frame: Frame, rng: Rng, midline: np.ndarray, width: float, top: float, height: float) -> np.ndarray:
    """Posterior ribs falling laterally from the spine and, fainter, anterior ribs falling towards the sternum."""
    spacing, phase = height * rng.uniform(0.095, 0.115), rng.uniform(0, 1)
    strength, anterior_strength = rng.uniform(0.05, 0.12), rng.uniform(0.02, 0.06)
    bend = rng.uniform(0.30, 0.50)
    lateral = np.abs(midline)
    square = lateral * lateral
    thorax = edge(width / 2 + 0.035 - np.abs(frame.x), 0.010) * edge(frame.y - top + 0.05, 0.03)
    thorax *= edge(top + 1.12 * height - frame.y, 0.06)
    posterior = _rib_profile((frame.y + 0.15 * lateral - bend * square - 0.55 * square * square) / spacing + phase)
    anterior = _rib_profile((frame.y + 0.50 * lateral) / (1.15 * spacing) + phase + 0.3)
    anterior *= edge(lateral - 0.42 * width / 2, 0.03) * edge(frame.y - top - 0.2 * height, 0.05)
    return thorax * (strength * posterior * edge(lateral - 0.06, 0.02) + anterior_strength * anterior)


def draw_rib_cage_edge(frame: Frame, rng: Rng, both: np.ndarray) -> np.ndarray:
    """The bright line along the lateral chest wall, where the rays run along the curving ribs."""
    near = np.clip(blur(both, 0.012), 0, 1)
    return rng.uniform(0.02, 0.12) * 4 * near * (1 - near) * edge(np.abs(frame.x) - 0.5, 0.05)


def _rib_profile(phase: np.ndarray) -> np.ndarray:
    """A rib across its width: dense at both cortical edges, once per unit of phase, 0..1."""
    across = np.abs(phase - np.floor(phase) - 0.5) * (1 / 0.20)  # 1 at the edge of the rib
    square = across * across
    return (0.6 + 0.55 * square) / (1 + np.square(square) * square * square)


def draw_spine(frame: Frame, rng: Rng, midline: np.ndarray) -> np.ndarray:
    """Vertebral bodies with discs between them and spinous processes along the middle."""
    half, step, phase = rng.uniform(0.062, 0.080), rng.uniform(0.105, 0.125), rng.uniform(0, 1)
    strength = rng.uniform(0.08, 0.16)
    wave = np.cos(2 * math.pi * (frame.y / step + phase))
    bodies = edge(half + 0.008 * wave - np.abs(midline), 0.008) * (0.75 + 0.25 * wave)
    processes = 0.35 * bump(midline, 0.014) * (wave > 0.2)
    return strength * (bodies + processes)


def draw_clavicles(frame: Frame, rng: Rng, width: float, top: float) -> np.ndarray:
    """Two S-shaped bars from the sternum to the shoulders."""
    tilt, strength = rng.uniform(0.05, 0.28), rng.uniform(0.11, 0.20)
    height, roll = top + rng.uniform(0.10, 0.22), rng.normal(0, 0.02)
    lines = []
    for side in SIDES:
        along = np.linspace(0, 1, 9)
        x = SIGN[side] * (0.06 + along * (0.5 * width + 0.08))
        y = height + SIGN[side] * roll - tilt * along + 0.045 * np.sin(along * 2 * math.pi)
        lines.append(np.stack([x, y], axis=1))
    return strength * blur(frame.stroke(lines, 0.06), 0.006)


def draw_shoulder_blades(frame: Frame, rng: Rng, width: float, top: float, height: float) -> np.ndarray:
    """Scapulae, more or less turned out of the lung fields, and the heads of the humeri."""
    inward, strength, turn = rng.uniform(-0.10, 0.14), rng.uniform(0.04, 0.10), rng.uniform(0.0, 0.12)
    bone = np.zeros_like(frame.x)
    for side in SIDES:
        medial, y = width / 2 - 0.02 - inward, top + rng.uniform(0.08, 0.14)
        blade = [
            (medial, y),
            (medial + 0.22, y + 0.02),
            (medial + 0.30, y + 0.10),
            (medial + 0.14, y + 0.30),
            (medial + 0.05 + turn, y + 0.42 * height / 1.2),
            (medial - 0.02, y + 0.25),
        ]
        outline = smooth_outline([(SIGN[side] * x, y) for x, y in blade], 5)
        bone += frame.fill(outline) + 0.6 * frame.stroke([[*outline, outline[0]]], 0.012)
        bone += 1.2 * disc(frame, SIGN[side] * (medial + 0.36), y + 0.06, 0.095, 0.012)
    return strength * blur(bone, 0.004)
