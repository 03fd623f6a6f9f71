"""What surgeons and nurses left in or on the body, and calcium outside the lungs: attenuation added, float32 [S, S].

Every function takes the body, the code and the code's own generator, whether it needs all three or not.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..mesh import MeshCode
from .anatomy import SIGN, Body, Rng
from .canvas import disc, edge, smooth_line


def catheter(body: Body, code: MeshCode, rng: Rng) -> np.ndarray:
    """A central line from the neck or the arm of one side to the superior vena cava, on the patient's right."""
    sign = SIGN[code.side] if code.side in SIGN else rng.choice((-1, 1))
    end, from_arm = body.top + body.height * rng.uniform(0.38, 0.50), rng.random() < 0.5
    start = [(sign * 0.62, body.top + 0.25), (sign * 0.35, body.top + 0.05)] if from_arm else [(sign * 0.16, -1.0)]
    path = [*start, (sign * 0.13, body.top + 0.12), (-0.05, body.top + 0.22), (-0.085, end)]
    added = 0.20 * body.frame.stroke([smooth_line(path)], 0.014)
    if from_arm and rng.random() < 0.5:  # a port under the skin
        added += 0.30 * disc(body.frame, *start[0], 0.05, 0.008)
    return added


def tube(body: Body, code: MeshCode, rng: Rng) -> np.ndarray:
    """A tube in the trachea, or one that runs through the mediastinum into the stomach."""
    gastric = "abdomen" in code.qualifiers
    end = [(0.10, body.top + body.height), (0.30, body.top + body.height + 0.12)] if gastric else []
    path = [(0.0, -1.0), (rng.normal(0, 0.01), body.top + body.height * 0.24), *end]
    return 0.17 * body.frame.stroke([smooth_line(path)], 0.020)


def pacemaker(body: Body, code: MeshCode, rng: Rng) -> np.ndarray:
    """A generator below one clavicle, mostly the left, and its leads into the right heart."""
    sign = -1 if code.side == "right" else 1
    x, y, leads = sign * rng.uniform(0.42, 0.56), body.top + rng.uniform(0.18, 0.32), int(rng.integers(1, 3))
    corner = np.maximum(np.abs(body.frame.x - x), 1.15 * np.abs(body.frame.y - y))
    added = 0.45 * edge(0.085 - corner, 0.008)
    vein = [(x, y), (sign * 0.25, y - 0.10), (-0.06, y + 0.05), (-0.10, body.top + 0.5 * body.height)]
    tips = [(0.18, body.top + 0.82 * body.height), (-0.12, body.top + 0.62 * body.height)]
    return added + 0.22 * body.frame.stroke([smooth_line([*vein, tip]) for tip in tips[:leads]], 0.014)


def surgical_metal(body: Body, code: MeshCode, rng: Rng) -> np.ndarray:
    """Sternal wires after heart surgery, or clips where the code says."""
    if {"mediastinum", "sternum", "heart"} & code.qualifiers or (len(code.qualifiers) == 0 and rng.random() < 0.5):
        angles = np.linspace(0, 2 * np.pi, 12)
        ring = np.stack([0.026 * np.cos(angles), 0.018 * np.sin(angles)], axis=1)
        places = body.top + body.height * np.linspace(0.18, 0.78, 6)
        return 0.25 * body.frame.stroke([ring + (rng.normal(0, 0.006), y) for y in places], 0.010)
    sign, abdomen = -1 if code.side == "right" else 1, "abdomen" in code.qualifiers
    y = body.top + body.height * (1.08 if abdomen else 0.5)
    starts = np.array([(sign * 0.25, y)]) + rng.normal(0, 0.05, (5, 2))
    return 0.3 * body.frame.stroke([[(x, y), (x + 0.02, y + 0.025)] for x, y in starts], 0.012)


def spinal_rods(body: Body, code: MeshCode, rng: Rng) -> np.ndarray:
    """Two rods along the spine with a screw at each vertebra."""
    heights = np.arange(body.top + 0.5 * body.height, 1.05, 0.11)
    rods = [[(x, heights[0]), (x, 1.05)] for x in (-0.05, 0.05)]
    screws = [[(-0.09, y), (-0.02, y)] for y in heights] + [[(0.02, y), (0.09, y)] for y in heights]
    return 0.25 * body.frame.stroke(rods + screws, 0.016)


def aortic_calcium(body: Body, code: MeshCode, rng: Rng) -> np.ndarray:
    """An arc of calcium along the aortic knob; other calcified places outside the lung are passed over."""
    if not {"aorta", "aorta, thoracic", "blood vessels"} & code.qualifiers and code.heading == "Calcinosis":
        return np.zeros_like(body.tissue)
    angles = np.linspace(-1.6, 0.6, 8)
    arc = np.stack([0.10 + 0.075 * np.cos(angles), body.top + 0.28 * body.height + 0.075 * np.sin(angles)], axis=1)
    return 0.12 * body.frame.stroke([arc], 0.014)


def hiatal_hernia(body: Body, code: MeshCode, rng: Rng) -> np.ndarray:
    """A round shadow behind the heart."""
    y, radius = body.top + body.height * 0.80, rng.uniform(0.09, 0.14)
    wall, gas = disc(body.frame, 0.06, y, radius, 0.012), disc(body.frame, 0.06, y - 0.02, 0.6 * radius, 0.012)
    return 0.10 * wall - 0.12 * gas


def foreign_body(body: Body, code: MeshCode, rng: Rng) -> np.ndarray:
    """Jewellery, a snap or a bullet: a small dense thing somewhere on the chest."""
    x, y = rng.uniform(-0.5, 0.5), rng.uniform(-0.6, 0.5)
    return 0.4 * disc(body.frame, x, y, rng.uniform(0.015, 0.03), 0.005, rng.uniform(0.7, 1.5))


DEVICES: dict[str, Callable[[Body, MeshCode, Rng], np.ndarray]] = {
    "Catheters, Indwelling": catheter,
    "Tube, Inserted": tube,
    "Implanted Medical Device": pacemaker,
    "Medical Device": pacemaker,
    "Surgical Instruments": surgical_metal,
    "Sutures": surgical_metal,
    "Spinal Fusion": spinal_rods,
    "Calcinosis": aortic_calcium,
    "Atherosclerosis": aortic_calcium,
    "Hernia, Hiatal": hiatal_hernia,
    "Foreign Bodies": foreign_body,
}
