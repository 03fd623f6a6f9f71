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
BEDSIDE_SHARE = 0.45  # of the films, whatever the codes say
LUNG_EDGE = 0.3  # how much of the bank's soft outline becomes the lung's edge


@dataclass
class Changes:
    """What the codes change in the anatomy itself; the defaults are a normal study."""

    heart_ratio: float | None = None  # cardiothoracic ratio, instead of the study's own
    strain: float = 1.0  # the study's own heart, enlarged by as much
    lung_height: float = 1.0
    lift: dict[str, float] = dataclass_field(default_factory=lambda: dict.fromkeys(SIDES, 0.0))  # of lung height
    vessels: float = 1.0
    hila: float = 1.0
    air: float = 1.0  # emphysema more than 1
    aorta: float = 1.0
    spine_bend: float = 0.0  # signed
    shift: float = 0.0  # of heart and mediastinum along x


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
    bedside: bool  # an anterior-posterior film of somebody in bed
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
    bedside = rng.random() < BEDSIDE_SHARE
    scale = rng.uniform(0.90, 1.12)
    scales = (scale * rng.uniform(0.94, 1.08), scale * rng.uniform(0.92, 1.08))
    shift = rng.normal((0, 0.03 * bedside), (0.04 + 0.04 * bedside, 0.05 + 0.04 * bedside))
    frame = Frame(size, rng.normal(0, 0.025 + 0.035 * bedside), scales, shift)
    turned = rng.normal(0, 0.02 + 0.03 * bedside)  # about the long axis: moves what lies in front and behind
    width = rng.uniform(1.24, 1.52) * (1 - 0.05 * bedside)
    bank = load_bank()
    chosen = int(rng.integers(len(bank.lungs)))
    height = float(np.clip(width / (bank.aspects[chosen] * rng.uniform(0.88, 1.03)), 1.22, 1.60))
    height *= rng.uniform(0.76, 1.0) if bedside else rng.uniform(0.94, 1.04)
    top = -0.74 + rng.normal(0, 0.05) + rng.uniform(0.3, 0.6) * max(0, 1.3 - height) * bedside
    height *= changes.lung_height
    midline = frame.x - turned - changes.spine_bend * np.sin((frame.y + 0.5) * 2.6)

    chest = (-width / 2, top, width, height)
    lungs = {side: draw_lung(frame, side, chest, chosen, changes.lift[side]) for side in SIDES}
    both = np.maximum(lungs["right"].inside, lungs["left"].inside)
    tissue = draw_soft_tissue(frame, rng, width, top, height, bedside)
    tissue += draw_breasts(frame, rng, width, top, height)
    tissue -= draw_bowel_gas(frame, rng, lungs) + draw_airways(frame, rng, midline, top, height)
    air = draw_air(frame, rng, lungs, both, turned, bedside, changes)
    vessels = draw_vessels(frame, rng, chest, changes)
    shifted = turned + changes.shift
    heart = draw_heart(frame, rng, shifted, width, top, height, bedside, changes)
    mediastinum = draw_mediastinum(frame, rng, midline - changes.shift, top, height, bedside, changes)
    hila = draw_hila(frame, rng, shifted, top, height, changes)
    depth = np.maximum(heart * rng.uniform(0.7, 0.95) * np.clip(0.55 + 0.5 * blur(heart, 0.05), 0, 1), mediastinum)
    depth = np.maximum(depth, draw_heart_bed(frame, heart, width, top, height))
    air *= (1 - depth) * (1 - hila)
    bone = draw_ribs(frame, rng, midline, width, top, height)
    bone += draw_spine(frame, rng, midline) + draw_rib_cage_edge(frame, rng, both, top + 0.75 * height)
    bone += draw_clavicles(frame, rng, turned, width, top, bedside)
    bone += draw_shoulder_blades(frame, rng, width, top, height, bedside)
    bone *= np.clip(4 * tissue, 0, 1) * (1 - 0.35 * bedside)  # none sticks out of the skin
    return Body(frame, bedside, top, height, midline, lungs, tissue, air, vessels, bone, heart)


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


def draw_soft_tissue(frame: Frame, rng: Rng, width: float, top: float, height: float, bedside: bool) -> np.ndarray:
    """Thickness of trunk, shoulders, arms and neck, with fat and muscle as a smooth random field."""
    x, y = np.abs(frame.x), frame.y
    wall = rng.uniform(0.06, 0.12) + rng.gamma(1.5, 0.08 + 0.02 * bedside)
    neck, chin = rng.uniform(0.15, 0.24), rng.uniform(-0.25, 0.12) - 0.10 * (not bedside)
    slope, bow = rng.uniform(0.05, 0.40), rng.uniform(0.05, 0.2)
    shoulder = top - rng.uniform(0.12, 0.28)
    armpit, flare = top + height * rng.uniform(0.25, 0.55), rng.uniform(0.10, 0.30)
    reach = rng.uniform(0.3, 0.8)
    arm_gap = rng.uniform(-0.10, 0.30) * (not bedside)  # how fast the arms leave the trunk going down
    arm_width, arm_shown = rng.uniform(0.13, 0.22), rng.random() < 0.3 + 0.4 * bedside
    belly, thin = rng.uniform(-0.12, 0.06), rng.uniform(0.50, 0.78)
    square, round_off, flat = rng.uniform(0.1, 0.6), rng.random(), rng.uniform(0.55, 1.0)

    half = width / 2 + wall + reach * edge(armpit - y, flare / 2) + belly * edge(y - top - 0.9 * height, 0.12)
    across = np.square(x / half)
    trunk = np.sqrt(np.clip(1.01 - across * (square + (1 - square) * np.square(across)), 0, 1))
    trunk = round_off * trunk + (1 - round_off) * np.sqrt(trunk)
    axis = width / 2 + wall + arm_width * 0.7 + np.maximum(y - armpit, 0) * arm_gap
    arm = np.sqrt(np.clip(1 - np.square((x - axis) / arm_width), 0, 1)) * arm_shown
    trunk = np.maximum(trunk, 0.6 * arm * edge(y - armpit + 0.1, 0.05))
    beside = np.maximum(x - neck, 0)
    below_shoulder = np.clip((y - shoulder - slope * beside + bow * np.exp(-7 * beside)) / 0.18, 0, 1)
    body = trunk * np.sqrt(below_shoulder)
    column = np.sqrt(np.clip(1.02 - np.square(x / neck), 0, 1)) + 0.6 * edge(chin - y - 1, 0.03)
    body = np.maximum(body, 0.9 * column * edge(shoulder + 0.2 - y, 0.05))
    thickness = thin + (1 - thin) * edge(y - (top + flat * height), 0.22)
    uneven = 1 + 0.045 * field(rng, frame.size, 5) + 0.02 * field(rng, frame.size, 20)
    return body * thickness * uneven


def draw_breasts(frame: Frame, rng: Rng, width: float, top: float, height: float) -> np.ndarray:
    """Breast shadows in half of the studies: denser below, with a lower border more or less sharp."""
    shown, radius, weight = rng.random() < 0.5, rng.uniform(0.26, 0.50), rng.uniform(0.06, 0.28)
    x, y, softness = width * rng.uniform(0.23, 0.40), top + height * rng.uniform(0.60, 0.92), rng.uniform(0.01, 0.04)
    across, down = np.abs(frame.x) - x, frame.y - y
    distance = radius - np.sqrt(across * across + down * down * 1.15)
    return shown * weight * edge(distance, softness) * np.clip(0.65 + 1.4 * down, 0.15, 1.2)


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
    offset, amount = rng.normal(-0.01, 0.012), rng.uniform(0.07, 0.19)
    below = np.maximum(frame.y - carina, 0)
    distance = np.abs(np.abs(midline - offset) - 0.9 * below)  # two bronchi below the carina, one trachea above
    column = edge(radius - distance - 0.10 * below, 0.012)
    return (
        amount
        * column
        * (1 - 0.5 * edge(below, 0.02))
        * edge(carina + 0.16 - frame.y, 0.03)
        * edge(frame.y + 1.02, 0.03)
    )


def draw_air(
    frame: Frame, rng: Rng, lungs: dict[str, Lung], both: np.ndarray, turned: float, bedside: bool, changes: Changes
) -> np.ndarray:
    """The air's share of the thickness: round towards the lungs' edges, less at the bases and medially, uneven."""
    share, roundness = rng.uniform(0.55, 0.80) - 0.16 * bedside * rng.random(), rng.uniform(0.35, 0.7)
    basal, start = rng.uniform(0, 0.15) + 0.3 * bedside * rng.random(), rng.uniform(0.65, 0.95)
    medial, reach = rng.uniform(0.0, 0.35), rng.uniform(0.22, 0.34)
    uneven = 1 + 0.06 * field(rng, frame.size, 4) + 0.03 * field(rng, frame.size, 9)
    uneven += 0.02 * field(rng, frame.size, 40) + np.clip(2.5 * turned, -0.15, 0.15) * np.sign(frame.x)
    depth = 1.05 - roundness + roundness * np.clip(blur(both, 0.055), 0, 1)
    down = np.where(frame.x < 0, lungs["right"].down, lungs["left"].down)
    depth *= (1 - basal * edge(down - start, 0.07)) * (1 - medial * bump(frame.x, reach))
    return np.clip(both * depth * uneven * share * changes.air, 0, 0.92)


def draw_vessels(frame: Frame, rng: Rng, box: tuple[float, float, float, float], changes: Changes) -> np.ndarray:
    """A tree from the bank, in some studies mirrored, with fainter small vessels between."""
    trees = load_bank().vessels
    tree = trees[int(rng.integers(len(trees)))]
    tree = tree[:, ::-1] if rng.random() < 0.5 else tree
    strength = rng.uniform(0.12, 0.34)
    fine = np.abs(field(rng, frame.size, 48)) * rng.uniform(0.01, 0.05)
    return changes.vessels * (strength * frame.paste(np.ascontiguousarray(tree), *box) + fine)


def draw_heart(
    frame: Frame, rng: Rng, shifted: float, width: float, top: float, height: float, bedside: bool, changes: Changes
) -> np.ndarray:
    """The heart's silhouette, as wide as the cardiothoracic ratio says; larger ones are rounder, near ones larger."""
    own_ratio, round_apex = rng.uniform(*NORMAL_RATIO), rng.uniform(0, 0.05)
    base, lean = top + height * rng.uniform(0.83, 0.88), rng.uniform(0.84, 1.0)
    left, magnified = HEART_SHARE_LEFT + rng.normal(0, 0.03), 1 + rng.uniform(0.02, 0.16) * bedside
    ratio = (changes.heart_ratio or own_ratio * changes.strain) * magnified
    across = ratio * width
    tall = (base - top - 0.36 * height) * lean * (0.85 + 0.35 * ratio)
    lower = 0.06 + round_apex
    # x as a part of the heart's width from the midline, y as a part of its height above the base
    x = (-0.14, -0.27, left - 1, -0.30, -0.08, 0.22, 0.47, 0.61, left, 0.57, 0.40, 0.24, 0.08)
    y = (1.00, 0.76, 0.40, 0.12, -0.02, -lower, 0.01 - lower, 0.05, 0.20, 0.44, 0.70, 0.90, 1.04)
    curve = smooth_outline(np.stack([across * np.array(x), base - tall * np.array(y)], axis=1))
    curve[:, 0] *= across / np.ptp(curve[:, 0])  # the spline overshoots a little
    curve[:, 0] += shifted
    return blur(frame.fill(curve), 0.006)


def draw_heart_bed(frame: Frame, heart: np.ndarray, width: float, top: float, height: float) -> np.ndarray:
    """Diaphragm, liver and stomach below the heart, where the outlines show lung that a film does not."""
    half = np.clip(heart.sum(axis=1).max() * 2 / frame.size, 0, width) * 0.36
    below = edge(frame.y - top - 0.80 * height, 0.02)
    return 0.93 * below * edge(half - np.abs(frame.x - 0.10), 0.05)


def draw_mediastinum(
    frame: Frame, rng: Rng, midline: np.ndarray, top: float, height: float, bedside: bool, changes: Changes
) -> np.ndarray:
    """Great vessels and oesophagus: a column with the aortic knob and the pulmonary trunk on the left."""
    half, softness = rng.uniform(0.07, 0.12) + 0.05 * bedside * rng.random(), rng.uniform(0.012, 0.035)
    density = rng.uniform(0.35, 0.75)
    knob_y, knob = top + height * rng.uniform(0.24, 0.31), rng.uniform(0.065, 0.095) * changes.aorta
    trunk_y, trunk = top + height * rng.uniform(0.37, 0.42), rng.uniform(0.05, 0.075)
    column = edge(half + 0.04 * bump(frame.y - top, 0.2) - np.abs(midline - 0.01), softness)
    column *= edge(top + 0.9 * height - frame.y, 0.03)
    aorta = disc(frame, half + 0.15 * knob, knob_y, knob, 0.012)
    if changes.aorta > 1:  # tortuous: the descending aorta bulges along the left of the spine
        bulge = half + 0.05 * (changes.aorta - 1) * 4 * bump(frame.y - knob_y - 0.25, 0.22)
        aorta = np.maximum(aorta, edge(bulge - np.abs(midline - 0.03), 0.015) * edge(frame.y - knob_y, 0.03))
    pulmonary = disc(frame, half + 0.02, trunk_y, trunk, 0.015)
    return np.clip(
        np.maximum(
            column * (density + 0.2 * edge(frame.y - knob_y - 0.1, 0.1)), np.maximum(density * aorta, 0.7 * pulmonary)
        ),
        0,
        1,
    )


def draw_hila(frame: Frame, rng: Rng, shifted: float, top: float, height: float, changes: Changes) -> np.ndarray:
    """Pulmonary arteries and bronchi where they enter the lungs; the left hilum stands higher."""
    strength = min(rng.uniform(0.40, 0.65) * changes.hila, 0.9)
    hila = np.zeros_like(frame.x)
    for side in SIDES:
        x, y = SIGN[side] * rng.uniform(0.19, 0.23), top + height * (rng.uniform(0.44, 0.48) - 0.03 * (side == "left"))
        wide, tall = 0.06 * math.sqrt(changes.hila), 0.13 * math.sqrt(changes.hila)
        lean = frame.x - shifted - x - SIGN[side] * 0.25 * (frame.y - y)
        hila += bump(lean, wide) * bump(frame.y - y, tall)
    return strength * hila


def draw_ribs(frame: Frame, rng: Rng, midline: np.ndarray, width: float, top: float, height: float) -> np.ndarray:
    """Posterior ribs falling laterally from the spine and, fainter, anterior ribs falling towards the sternum."""
    spacing, phase = height * rng.uniform(0.095, 0.115), rng.uniform(0, 1)
    strength, anterior_strength = rng.uniform(0.015, 0.09), rng.uniform(0.005, 0.045)
    bend = rng.uniform(0.30, 0.50)
    lateral = np.abs(midline)
    square = lateral * lateral
    thorax = edge(width / 2 + 0.035 - np.abs(frame.x), 0.010) * edge(frame.y - top + 0.05, 0.03)
    thorax *= edge(top + 1.12 * height - frame.y, 0.06) * (1 - 0.7 * edge(frame.y - top - 0.78 * height, 0.04))
    posterior = _rib_profile((frame.y + 0.15 * lateral - bend * square - 0.55 * square * square) / spacing + phase)
    anterior = _rib_profile((frame.y + 0.50 * lateral) / (1.15 * spacing) + phase + 0.3)
    anterior *= edge(lateral - 0.42 * width / 2, 0.03) * edge(frame.y - top - 0.2 * height, 0.05)
    return thorax * (strength * posterior * edge(lateral - 0.06, 0.02) + anterior_strength * anterior)


def draw_rib_cage_edge(frame: Frame, rng: Rng, both: np.ndarray, bottom: float) -> np.ndarray:
    """The bright line along the lateral chest wall, where the rays run along the curving ribs."""
    near = np.clip(blur(both, 0.012), 0, 1)
    lateral = edge(np.abs(frame.x) - 0.5, 0.05) * edge(bottom - frame.y, 0.04)
    return rng.uniform(0.02, 0.12) * 4 * near * (1 - near) * lateral


def _rib_profile(phase: np.ndarray) -> np.ndarray:
    """A rib across its width: dense at both cortical edges, once per unit of phase, 0..1."""
    across = np.abs(phase - np.floor(phase) - 0.5) * (1 / 0.20)  # 1 at the edge of the rib
    square = across * across
    return (0.6 + 0.55 * square) / (1 + np.square(square) * square * square)


def draw_spine(frame: Frame, rng: Rng, midline: np.ndarray) -> np.ndarray:
    """Vertebral bodies with discs between them and spinous processes along the middle."""
    half, step, phase = rng.uniform(0.062, 0.080), rng.uniform(0.105, 0.125), rng.uniform(0, 1)
    strength = rng.uniform(0.02, 0.14)
    wave = np.cos(2 * math.pi * (frame.y / step + phase))
    bodies = edge(half + 0.008 * wave - np.abs(midline), 0.008) * (0.75 + 0.25 * wave)
    processes = 0.35 * bump(midline, 0.014) * (wave > 0.2)
    return strength * (bodies + processes)


def draw_clavicles(frame: Frame, rng: Rng, turned: float, width: float, top: float, bedside: bool) -> np.ndarray:
    """Two S-shaped bars from the sternum to the shoulders."""
    tilt, strength = rng.uniform(0.05, 0.28) - 0.10 * bedside, rng.uniform(0.04, 0.15)
    height, roll = top + rng.uniform(0.10, 0.22), rng.normal(0, 0.02)
    lines = []
    for side in SIDES:
        along = np.linspace(0, 1, 9)
        x = SIGN[side] * (0.06 + along * (0.5 * width + 0.08)) - turned * (1 - along)
        y = height + SIGN[side] * roll - tilt * along + 0.045 * np.sin(along * 2 * math.pi)
        lines.append(np.stack([x, y], axis=1))
    return strength * blur(frame.stroke(lines, 0.06), 0.006)


def draw_shoulder_blades(frame: Frame, rng: Rng, width: float, top: float, height: float, bedside: bool) -> np.ndarray:
    """Scapulae, more or less turned out of the lung fields, and the heads of the humeri."""
    inward, strength, turn = rng.uniform(-0.10, 0.14) + 0.08 * bedside, rng.uniform(0.04, 0.10), rng.uniform(0.0, 0.12)
    bone = np.zeros_like(frame.x)
    for side in SIDES:
        medial, y = width / 2 - 0.02 - inward, top + rng.uniform(0.08, 0.14)
        x = medial + np.array([0, 0.22, 0.30, 0.14, 0.05 + turn, -0.02])
        outline = smooth_outline(
            np.stack([SIGN[side] * x, y + np.array([0, 0.02, 0.10, 0.30, 0.35 * height, 0.25])], axis=1), 5
        )
        bone += frame.fill(outline) + 0.6 * frame.stroke([[*outline, outline[0]]], 0.012)
        bone += 1.2 * disc(frame, SIGN[side] * (medial + 0.36), y + 0.06, 0.095, 0.012)
    return strength * blur(bone, 0.004)
