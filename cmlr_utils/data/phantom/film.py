"""From attenuation to grey levels: what is attached to the patient, exposure, characteristic curve, grain, borders."""

from __future__ import annotations

import numpy as np

from .canvas import Frame, blur, disc, field, smooth_line

SHARPNESS = (0.001, 0.0015, 0.002, 0.003, 0.004, 0.006)  # blur as fractions of the picture's side
MARKER_LETTERS = {  # strokes in a box of width and height 1
    "L": [[(0, 0), (0, 1), (0.7, 1)]],
    "R": [[(0, 1), (0, 0), (0.6, 0), (0.7, 0.25), (0.6, 0.5), (0, 0.5)], [(0.3, 0.5), (0.7, 1)]],
}


def develop(
    attenuation: np.ndarray, healthy: np.ndarray, frame: Frame, rng: np.random.Generator, bedside: bool, poor: bool
) -> np.ndarray:
    """Turn attenuation (float32 [S, S], 0 air, 1 thick soft tissue) into pixels, uint8 [S, S].

    Contrast with the surroundings is first raised or lowered; they are those of the `healthy` body, so that a finding
    changes nothing beside it. The grey level is a logistic curve of the attenuation, like the characteristic curve of
    film (Hurter and Driffield, 1890): dense regions saturate, so ribs fade under fluid. `poor` is a film whose
    technical quality was called unsatisfactory. All draws come from the film stream; none depends on the attenuation.
    """
    attenuation = attenuation + attached_leads(frame, rng)
    centre, contrast = rng.uniform(0.36, 0.54), rng.uniform(2.4, 5.2) * (1 - 0.2 * bedside)
    detail = rng.uniform(-0.25, 0.5) - 0.25 * bedside  # processing adds local contrast, scatter takes it away
    fault = rng.uniform(-0.2, 0.2)
    if poor:
        centre, contrast = centre + fault, 0.8 * contrast
    attenuation = attenuation + detail * (attenuation - blur(healthy, 0.08))
    slope = rng.normal(0, 0.035, 2)  # of the exposure: the heel effect, scatter, a grid that is not quite level
    uneven = slope[0] * frame.x + slope[1] * frame.y + 0.02 * field(rng, frame.size, 3)
    grey = 0.5 + 0.5 * np.tanh(0.5 * contrast * (attenuation - centre + uneven))
    black = 0.5 + 0.5 * np.tanh(-0.5 * contrast * centre)
    grey = (grey - rng.uniform(0.3, 1.0) * black) / (rng.uniform(0.90, 1.12) - black)
    grey = blur(np.clip(grey, 0, None), SHARPNESS[int(rng.integers(2 * bedside, len(SHARPNESS)))])
    grey = np.maximum(grey, side_marker(frame, rng))
    shutters, bare = collimation(frame, rng), 0.9 * (rng.random() < 0.1)  # beside some scanned films shines the lamp
    grey = grey * shutters + bare * (1 - shutters)
    low, high = rng.uniform(0.0, 0.10) * rng.random(), rng.uniform(0.86, 1.0)
    grey = low + (high - low) * np.clip(grey, 0, 1) ** np.float32(np.exp(rng.normal(0, 0.12)))
    grey += grain(frame.size, rng)
    return (np.clip(grey, 0, 1) * 255 + 0.5).astype(np.uint8)


def grain(size: int, rng: np.random.Generator) -> np.ndarray:
    """Noise of single pixels and of clumps; finer pixels catch fewer photons, so they are noisier."""
    strength = rng.uniform(0.002, 0.013)
    clumps = 0.5 * field(rng, size, 64)
    fine = rng.standard_normal((size, size), dtype=np.float32) * min((size / 128) ** 0.5, 2.0)
    return strength * (clumps + fine)


def attached_leads(frame: Frame, rng: np.random.Generator) -> np.ndarray:
    """ECG electrodes and their wires, in about one study of five."""
    if rng.random() > 0.2:
        return np.zeros_like(frame.x)
    leads, wires = np.zeros_like(frame.x), []
    for _ in range(int(rng.integers(2, 5))):
        x, y = rng.uniform(-0.6, 0.6), rng.uniform(-0.5, 0.5)
        leads += 0.3 * disc(frame, x, y, 0.022, 0.006)
        bend, exit_x = rng.normal(0, 0.15, 2), rng.choice((-1.0, 1.0))
        wire = [(x, y), ((x + exit_x) / 2 + bend[0], y + 0.2 + bend[1]), (exit_x, y + rng.uniform(0.2, 0.6))]
        wires.append(smooth_line(wire))
    return leads + 0.16 * frame.stroke(wires, 0.010)


def side_marker(frame: Frame, rng: np.random.Generator) -> np.ndarray:
    """The letter L or R that the radiographer lays on the cassette, and in some pictures a line of print."""
    shown, letter = rng.random() < 0.75, "L" if rng.random() < 0.7 else "R"
    x, y, height = rng.uniform(0.72, 0.92), rng.uniform(-0.95, -0.70), rng.uniform(0.05, 0.10)
    brightness, lines = rng.uniform(0.6, 1.0), []
    if shown:
        left = x if letter == "L" else -x - 0.6 * height
        lines += [[(left + u * 0.7 * height, y + v * height) for u, v in line] for line in MARKER_LETTERS[letter]]
    if rng.random() < 0.25:  # print: a row of short strokes
        start, row, side = rng.uniform(0.60, 0.75), rng.uniform(-0.97, -0.85), rng.choice((-1, 1))
        for mark in range(int(rng.integers(3, 9))):
            column = side * (start + 0.03 * mark)
            lines.append([(column, row), (column + rng.uniform(-0.01, 0.01), row + 0.03)])
    return brightness * frame.stroke(lines, 0.016) if lines else np.zeros_like(frame.x)


def collimation(frame: Frame, rng: np.random.Generator) -> np.ndarray:
    """Shutters that leave a black border on some sides, never over the lungs: 1 in the field, near 0 outside."""
    field_of_view = np.ones(frame.x.shape, dtype=np.float32)
    position = (np.arange(frame.size, dtype=np.float32) + 0.5) / frame.size
    across, down, tilt = position[None, :], position[:, None], rng.normal(0, 0.012)
    for depth in (across + tilt * down, 1 - across - tilt * down, down - tilt * across, 1 - down + tilt * across):
        closed, width = rng.random() < 0.15, rng.uniform(0.0, 0.08)
        if closed:
            field_of_view *= np.clip((depth - width) * frame.size + 0.5, 0, 1)
    return field_of_view
