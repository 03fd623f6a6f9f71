"""What the codes say, drawn into a body: one function per finding, each with its own stream of random numbers.

An opacity is the part of the lung's air that fluid, cells or collapse replace: float32 [S, S], 0 none, 1 all of it.
A finding of one side draws the same numbers as the one of the other side, and a severer one the same as a milder one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field as dataclass_field

import numpy as np

from ..mesh import HEADINGS, MeshCode
from .anatomy import SIDES, SIGN, Body, Changes, Lung, Rng
from .canvas import bump, disc, edge, field
from .devices import DEVICES

Stream = Callable[[str], Rng]  # a finding's name → its own generator

SEVERITY = {  # cardiothoracic ratio (above 0.5 is cardiomegaly), strength of an opacity, height of an effusion
    "borderline": ((0.505, 0.53), 0.6, 0.10),
    "small": ((0.53, 0.57), 0.75, 0.15),
    "mild": ((0.53, 0.57), 0.75, 0.16),
    "": ((0.55, 0.61), 1.0, 0.25),
    "moderate": ((0.58, 0.63), 1.1, 0.33),
    "large": ((0.64, 0.70), 1.3, 0.52),
    "severe": ((0.64, 0.70), 1.35, 0.60),
}
STRENGTH = {severity: strength for severity, (_, strength, _) in SEVERITY.items()}
BLUNTED_HEIGHT = 0.04
ZONES = {  # centre down and across the lung's box, and reach from there
    "apex": ((0.12, 0.50), (0.10, 0.32)),
    "upper lobe": ((0.27, 0.50), (0.17, 0.42)),
    "hilum": ((0.45, 0.25), (0.14, 0.24)),
    "middle lobe": ((0.64, 0.38), (0.12, 0.32)),
    "lingula": ((0.64, 0.48), (0.12, 0.30)),
    "lower lobe": ((0.68, 0.50), (0.17, 0.42)),
    "base": ((0.74, 0.52), (0.12, 0.42)),
    "retrocardiac": ((0.70, 0.30), (0.14, 0.26)),
    "diffuse": ((0.48, 0.50), (0.34, 0.42)),
    "": ((0.62, 0.50), (0.15, 0.36)),
}
PATCHY = {"Opacity", "Airspace Disease", "Infiltrate", "Pneumonia", "Density"}
SPOTS = {  # radius in body coordinates, opacity, calcium's attenuation
    "Nodule": (0.045, 0.60, 0.0),
    "Mass": (0.11, 0.80, 0.0),
    "Granuloma": (0.025, 0.50, 0.10),
    "Calcified Granuloma": (0.022, 0.50, 0.28),
    "Granulomatous Disease": (0.020, 0.50, 0.25),
    "Calcinosis": (0.022, 0.40, 0.28),
}
OVERINFLATED = {"Emphysema", "Pulmonary Emphysema", "Bullous Emphysema", "Pulmonary Disease, Chronic Obstructive"}
RETICULAR = {"Markings", "Lung Diseases, Interstitial", "Pulmonary Fibrosis", "Bronchiectasis", "Sarcoidosis"}


@dataclass
class Findings:
    """All that the codes add to a body."""

    opacity: dict[str, np.ndarray] = dataclass_field(default_factory=dict)  # by heading
    added: np.ndarray | float = 0.0  # attenuation of calcium and metal
    collapse: np.ndarray | float = 0.0  # 1 in the pleural air of a pneumothorax, where no vessels are


def changes_to_anatomy(codes: Iterable[MeshCode], stream: Stream) -> Changes:
    """How the codes change size, shape and vessels of the body itself."""
    changes = Changes()
    for code in codes:
        said, strength = code.qualifiers, STRENGTH[code.severity]
        rng = stream(f"{code.heading}/anatomy")
        if code.heading == "Cardiomegaly":
            (low, high), _, _ = SEVERITY[code.severity]
            changes.heart_ratio = max(changes.heart_ratio or 0, low + (high - low) * rng.random())
        elif code.heading in ("Pulmonary Atelectasis", "Volume Loss"):
            loss, pull = rng.uniform(0.01, 0.11) * strength, rng.uniform(0, 0.05) * strength
            changes.lung_height = min(changes.lung_height, 1 - rng.uniform(0, 0.12))  # they breathe in little
            if code.zone in ("apex", "upper lobe", "hilum"):
                loss *= 0.5
            for side in sides(code, rng=stream(f"{code.heading}/side")):
                changes.lift[side] = max(changes.lift[side], loss)
                changes.shift += SIGN[side] * pull
        elif code.heading in ("Diaphragm", "Diaphragmatic Eventration"):
            if "elevated" in said or code.heading != "Diaphragm":
                for side in sides(code, rng=stream(f"{code.heading}/side")):
                    changes.lift[side] = max(changes.lift[side], rng.uniform(0.10, 0.14) * strength)
        elif code.heading in OVERINFLATED or {"hyperdistention", "hyperlucent"} & said or "Hyperlucent" in code.heading:
            changes.lung_height, changes.air, changes.vessels = 1.10, 1.10, 0.75
        elif "hypoinflation" in said:
            changes.lung_height = min(changes.lung_height, 1 - 0.17 * strength)
        elif code.heading == "Pulmonary Edema":
            changes.vessels, changes.hila = max(changes.vessels, rng.uniform(1.1, 2.0)), rng.uniform(1.3, 2.2)
            changes.strain = rng.uniform(1.0, 1.15)
        elif code.heading in ("Pulmonary Congestion", "Heart Failure"):
            changes.vessels, changes.hila = max(changes.vessels, 1.45), max(changes.hila, 1.45)
        elif "bronchovascular" in said:
            changes.vessels = max(changes.vessels, 1.0 + 0.4 * strength)
        elif code.heading in ("Pulmonary Artery", "Hypertension, Pulmonary") or {"hilum", "lymph nodes"} <= said:
            changes.hila = max(changes.hila, 1.5)
        elif code.heading.startswith("Aort") and {"tortuous", "enlarged", "prominent"} & said:
            changes.aorta = 1.3
        elif code.heading == "Scoliosis":
            changes.spine_bend = rng.choice((-1, 1)) * rng.uniform(0.05, 0.09)
    if changes.heart_ratio is None and any(
        code.heading == "Cardiac Shadow" and "enlarged" in code.qualifiers for code in codes
    ):
        changes.heart_ratio = 0.50  # called large, but not coded as cardiomegaly
    return changes


def draw_findings(body: Body, codes: Sequence[MeshCode], stream: Stream) -> Findings:
    """Draw every code that shows in a frontal radiograph; others are passed over."""
    found = Findings()
    fluid = dict.fromkeys(SIDES, 1.0)  # how far down each lung is free of fluid
    first_effusions = sorted(codes, key=lambda code: code.heading != "Pleural Effusion")
    seen: dict[str, int] = {}
    for code in first_effusions:
        number = seen[code.heading] = seen.get(code.heading, -1) + 1
        rng, heading = stream(f"{code.heading}/{number}"), code.heading
        for lung in affected(body, code, stream):
            opacity = added = None
            if heading == "Pleural Effusion":
                opacity, fluid[lung.side] = effusion(body, lung, SEVERITY[code.severity][2], rng)
            elif heading == "Costophrenic Angle" and "blunted" in code.qualifiers:
                if fluid[lung.side] == 1:  # else the effusion has blunted it already
                    opacity, _ = effusion(body, lung, BLUNTED_HEIGHT, rng)
            elif heading == "Pulmonary Atelectasis":
                opacity = atelectasis(body, lung, code, rng, fluid[lung.side])
            elif heading == "Consolidation":
                opacity = consolidation(body, lung, code, rng, fluid[lung.side])
            elif heading == "Pulmonary Edema":
                opacity = edema(body, lung, code, rng)
            elif heading == "Heart Failure" or heading == "Pulmonary Congestion":
                opacity = 0.25 * edema(body, lung, code, rng)
            elif heading in PATCHY and ("lung" in code.qualifiers or heading in ("Pneumonia", "Infiltrate")):
                opacity = patchy_opacity(body, lung, code, rng)
            elif heading == "Cicatrix":
                opacity = scar(lung, code, rng)
            elif heading in RETICULAR and "bronchovascular" not in code.qualifiers:
                opacity = reticular_markings(body, lung, code, rng)
            elif heading == "Thickening" and "pleura" in code.qualifiers:
                opacity = pleural_thickening(lung, code, rng)
            elif heading == "Pneumothorax":
                pleural_air, opacity = pneumothorax(lung, code, rng)
                found.collapse = np.maximum(found.collapse, pleural_air)
            elif heading in SPOTS and (heading != "Calcinosis" or "lung" in code.qualifiers):
                opacity, added = spots(body, lung, code, rng)
            if opacity is not None:
                within = np.minimum(8 * lung.inside, 1)  # up to its soft edge, or a dark line would show there
                found.opacity[heading] = np.maximum(found.opacity.get(heading, 0.0), opacity * within)
            if added is not None:
                found.added = found.added + added
        if heading in DEVICES:
            found.added = found.added + DEVICES[heading](body, code, rng)
    return found


def sides(code: MeshCode, rng: Rng) -> tuple[str, ...]:
    """The affected sides; one at random, or for some headings both, where the code names none."""
    left_if_unsaid, both_if_unsaid = rng.random() < 0.5, rng.random()
    often_both = dict.fromkeys(HEADINGS, 0.35) | {"Costophrenic Angle": 0.4, "Granulomatous Disease": 0.5}
    always_both = code.heading in RETICULAR | {"Pulmonary Edema", "Pulmonary Congestion", "Heart Failure"}
    if code.side == "bilateral" or (not code.side and (always_both or code.zone == "diffuse")):
        return SIDES
    if not code.side and both_if_unsaid < often_both.get(code.heading, 0.0):
        return SIDES
    return (code.side or SIDES[left_if_unsaid],)


def affected(body: Body, code: MeshCode, stream: Stream) -> list[Lung]:
    """The lungs that a code speaks of."""
    return [body.lungs[side] for side in sides(code, stream(f"{code.heading}/side"))]


def zone_distance(
    lung: Lung, zone: str, rng: Rng, power: int = 2, reach: float = 1.0, lowest: float = 1.0, moved: Sequence = (0, 0)
) -> np.ndarray:
    """0 at the middle of a lung's zone and 1 at its border, moved a little at random, never below `lowest`."""
    down, across = ZONES[zone][0] + rng.normal(0, (0.04, 0.06)) + moved
    reach_down, reach_across = np.array(ZONES[zone][1]) * reach
    down = min(down, lowest - 0.6 * reach_down)
    distance = np.square((lung.down - down) / reach_down), np.square((lung.across - across) / reach_across)
    return sum(part if power == 2 else np.square(part) for part in distance)


def effusion(body: Body, lung: Lung, height: float, rng: Rng) -> tuple[np.ndarray, float]:
    """Fluid in the lung's lowest part, and how far down the lung is free of it.

    Its meniscus climbs the lateral wall; above it the compressed lung is hazy. In somebody lying in bed it spreads
    behind the lung: a veil, thinning upwards, without a level.
    """
    height, rise, density = height * rng.uniform(0.85, 1.25), rng.uniform(0.04, 0.22), rng.uniform(0.94, 0.99)
    softness, haze, spread = rng.uniform(0.006, 0.03), rng.uniform(0.0, 0.45), rng.uniform(0.5, 1.6)
    lying, more = rng.uniform(0.3, 1) * body.bedside, rng.uniform(0, 0.8)
    height *= 1 + lying * more
    across = np.clip(lung.across, 0, 1)
    level = 1 - height - (rise + 0.15 * height) * across * across * across + 0.04 * (1 - across)
    fluid = density * edge(lung.down - level, softness + 0.10 * lying * math.sqrt(height))
    veil = max(haze, 0.4 * lying) * edge(lung.down - level + spread * height, 0.35 * spread * height + 0.02)
    return np.maximum(fluid, veil), 1 - height - 0.05


def atelectasis(body: Body, lung: Lung, code: MeshCode, rng: Rng, lowest: float) -> np.ndarray:
    """Airless lung: plates, a haze, a triangle behind the heart; the loss of volume is in `changes_to_anatomy`."""
    zone = code.zone or "base"
    strength = min(STRENGTH[code.severity], 1.2)
    plates, haze, softness = int(rng.integers(0, 4)), rng.uniform(0.1, 0.7), rng.uniform(0.12, 0.45)
    triangle, lean = rng.uniform(0.4, 0.8), rng.uniform(0.5, 1.2)
    behind_heart = zone in ("base", "lower lobe", "retrocardiac") and rng.random() < 0.4
    wedge = zone_distance(lung, zone, rng, reach=rng.uniform(0.8, 1.3), lowest=lowest)
    mottle = 1 + 0.15 * field(rng, body.frame.size, 8) + 0.10 * field(rng, body.frame.size, 24)
    opacity = max(haze, 0.45 * (plates == 0)) * strength * edge(1 - wedge, softness) * mottle
    if behind_heart:
        inside = edge(lean * (lung.down - 0.52) - lung.across + 0.05, 0.03) * edge(lung.down - 0.5, 0.05)
        opacity = np.maximum(opacity, triangle * strength * inside)
    down, across = ZONES[zone][0]
    down = min(down, lowest - 0.08)
    for plate in range(3):
        place, slope, along = rng.normal(0, 0.06), rng.normal(0.05, 0.2), rng.normal(0, 0.08)
        width, length, weight = rng.uniform(0.008, 0.030), rng.uniform(0.12, 0.36), rng.uniform(0.35, 0.75)
        line = lung.down - down - place - slope * (lung.across - across)
        band = bump(line, width) * edge(length - np.abs(lung.across - across - along), 0.03)
        opacity = np.maximum(opacity, (plate < plates) * min(weight * strength, 0.85) * band)
    return np.clip(opacity, 0, 0.92)


def consolidation(body: Body, lung: Lung, code: MeshCode, rng: Rng, lowest: float) -> np.ndarray:
    """Air spaces full of fluid or pus: a lobe or patches, ill-defined but for a fissure, with dark bronchi."""
    zone = code.zone or rng.choice(("lower lobe", "lower lobe", "base", "upper lobe", "hilum", "diffuse"))
    patches, reach, softness = int(rng.integers(1, 4)), rng.uniform(0.8, 1.3), rng.uniform(0.15, 0.45)
    density, airy, free = rng.uniform(0.55, 0.92), rng.uniform(0.0, 0.55), max(0.0, rng.uniform(-0.6, 0.6))
    uneven = rng.uniform(0.2, 0.6) * field(rng, body.frame.size, 10) + 0.12 * field(rng, body.frame.size, 24)
    distance = zone_distance(lung, zone, rng, reach=reach, lowest=lowest)
    for place in rng.normal(0, (0.12, 0.16), (3, 2))[: patches - 1]:
        distance = np.minimum(distance, zone_distance(lung, zone, rng, reach=0.7, lowest=lowest, moved=place))
    lobe = edge(1 - distance + uneven, softness)
    if free:  # the costophrenic angle
        lobe *= edge(1.0 + free / 2 - lung.down - free * np.clip(lung.across, 0, 1), 0.03)
    if patches == 1 and zone == "upper lobe":
        lobe *= edge(0.47 + 0.05 * lung.across - lung.down, 0.008)  # the fissure is a sharp border
    if patches == 1 and zone in ("middle lobe", "lingula"):
        lobe *= edge(lung.down - 0.51, 0.008)
    bronchi = edge(body.vessels - 0.12, 0.015)  # they run beside the arteries
    return min(density * STRENGTH[code.severity] ** 0.3, 0.94) * lobe * (1 - airy * bronchi)


def edema(body: Body, lung: Lung, code: MeshCode, rng: Rng) -> np.ndarray:
    """A haze around the hilum or over the bases, fading outwards, with fine septal lines at the lateral base."""
    strength = STRENGTH[code.severity] * (0.85 if "interstitial" in code.qualifiers else 1.0) * rng.uniform(0.8, 1.1)
    middle = rng.uniform(0.42, 0.56) + 0.12 * (code.zone in ("base", "lower lobe", "middle lobe"))
    tall, wide, basal = rng.uniform(0.30, 0.55), rng.uniform(0.45, 0.9), rng.uniform(0.0, 0.4)
    haze = np.exp(-np.square((lung.down - middle) / tall) - np.square((lung.across - 0.18) / wide))
    haze = np.maximum(haze, basal * edge(lung.down - 0.6, 0.12))
    mottle = 1 + 0.12 * field(rng, body.frame.size, 10) + rng.uniform(0.05, 0.3) * field(rng, body.frame.size, 40)
    opacity = np.clip((rng.uniform(-0.05, 0.35) + 0.33 * strength) * haze * mottle, 0, 0.88)
    lines = bump(np.sin(lung.down * 95 + rng.uniform(0, 6)) - 1, 0.35)
    lines *= edge(lung.across - 0.80, 0.02) * edge(lung.down - 0.60, 0.03)
    return np.maximum(opacity, rng.uniform(0.1, 0.4) * strength * lines)


def patchy_opacity(body: Body, lung: Lung, code: MeshCode, rng: Rng) -> np.ndarray:
    """An opacity without a name: faint, uneven, without sharp borders; streaky, reticular or round if so coded."""
    if "streaky" in code.qualifiers:
        return scar(lung, code, rng)
    if "interstitial" in code.qualifiers:
        return reticular_markings(body, lung, code, rng)
    distance = zone_distance(lung, code.zone, rng, reach=0.8)
    patches = np.clip(0.8 + 0.45 * field(rng, body.frame.size, 14) + 0.25 * field(rng, body.frame.size, 36), 0, 1.6)
    return np.clip(0.50 * STRENGTH[code.severity] * np.exp(-distance) * patches, 0, 0.7)


def scar(lung: Lung, code: MeshCode, rng: Rng) -> np.ndarray:
    """Thin streaks of scarring: no wedge and no loss of volume."""
    down, across = ZONES[code.zone][0] + rng.normal(0, (0.03, 0.06))
    opacity = np.zeros_like(lung.down)
    for _ in range(2):
        slope, width, length = rng.normal(0, 0.5), rng.uniform(0.006, 0.011), rng.uniform(0.08, 0.20)
        line = lung.down - down - rng.normal(0, 0.03) - slope * (lung.across - across)
        opacity = np.maximum(opacity, 0.45 * bump(line, width) * edge(length - np.abs(lung.across - across), 0.03))
    return opacity


def reticular_markings(body: Body, lung: Lung, code: MeshCode, rng: Rng) -> np.ndarray:
    """A fine net of interstitial lines, everywhere or in the coded zone."""
    net = np.abs(field(rng, body.frame.size, 40)) + np.abs(field(rng, body.frame.size, 80))
    opacity = np.clip(0.08 + 0.16 * STRENGTH[code.severity] * net, 0, 0.5)
    return opacity * np.exp(-zone_distance(lung, code.zone or "diffuse", rng, power=4))


def pleural_thickening(lung: Lung, code: MeshCode, rng: Rng) -> np.ndarray:
    """A rim along the lateral wall, or a cap over the apex."""
    thickness = rng.uniform(0.03, 0.06)
    if code.zone == "apex":
        return 0.7 * edge(thickness + 0.03 - lung.down, 0.012)
    return 0.7 * edge(lung.across - 1 + thickness, 0.012)


def pneumothorax(lung: Lung, code: MeshCode, rng: Rng) -> tuple[np.ndarray, np.ndarray]:
    """Pleural air outside the collapsed lung, and the thin white line of the visceral pleura between them."""
    width = (0.10 + 0.13 * STRENGTH[code.severity]) * rng.uniform(0.85, 1.15)
    distance = np.hypot(np.clip(lung.across, 0, None), (lung.down - 0.66) / 0.64) - (1 - width)
    above = edge(0.72 - lung.down, 0.03)
    return edge(distance, 0.008) * above * lung.inside, 0.5 * bump(distance, 0.014) * above


def spots(body: Body, lung: Lung, code: MeshCode, rng: Rng) -> tuple[np.ndarray, np.ndarray]:
    """Nodules, masses and granulomas: round opacities, and the attenuation of their calcium."""
    radius, density, calcium = SPOTS[code.heading]
    opacity, added = np.zeros_like(lung.down), np.zeros_like(lung.down)
    for _ in range(int(rng.integers(2, 5)) if {"multiple", "scattered"} & code.qualifiers else 1):
        down, across = np.clip(ZONES[code.zone][0] + rng.normal(0, (0.06, 0.10)), (0.12, 0.22), (0.80, 0.80))
        spot = disc(body.frame, *lung.point(down, across), radius * rng.uniform(0.8, 1.25), 0.008)
        opacity, added = np.maximum(opacity, density * spot), np.maximum(added, calcium * spot)
    return opacity, added
