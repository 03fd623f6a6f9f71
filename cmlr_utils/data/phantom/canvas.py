"""The drawing tools: body coordinates of every pixel, soft edges, smooth random fields, outlines and lines."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image, ImageDraw

Points = Sequence[tuple[float, float]]
OVERSAMPLING = 2  # outlines and lines are drawn this much finer, then averaged


class Frame:
    """Where the body lies in the picture.

    Body coordinates `x`, `y` (float32 [S, S]) run from about -1 to 1 over the picture before the body is turned, scaled
    and moved: x grows towards the patient's left, which is the right side of the picture, and y downwards.
    """

    def __init__(self, size: int, rotation: float, scale: tuple[float, float], shift: tuple[float, float]) -> None:
        cos, sin = math.cos(rotation), math.sin(rotation)
        turn = np.array([[cos, sin], [-sin, cos]]) / np.array(scale)[:, None]
        pixel = np.array([[2 / size, 0], [0, 2 / size]])
        self.size = size
        self.linear = turn @ pixel  # body = linear @ (column, row) + offset
        self.offset = turn @ np.array([-1.0, -1.0]) - np.array(shift)
        centres = np.arange(size) + 0.5
        (xx, xy), (yx, yy) = self.linear
        self.x = (xx * centres[None, :] + xy * centres[:, None] + self.offset[0]).astype(np.float32)
        self.y = (yx * centres[None, :] + yy * centres[:, None] + self.offset[1]).astype(np.float32)

    def to_pixels(self, points: Points) -> np.ndarray:
        """Columns and rows [N, 2] of points in body coordinates."""
        return np.linalg.solve(self.linear, (np.asarray(points, dtype=float) - self.offset).T).T

    def paste(self, shape: np.ndarray, left: float, top: float, width: float, height: float) -> np.ndarray:
        """A shape (uint8 [h, w]) stretched over a box in body coordinates, float32 [S, S] in 0..1, 0 outside."""
        to_shape = np.array([shape.shape[1] / width, shape.shape[0] / height])
        linear = self.linear * to_shape[:, None]
        offset = (self.offset - (left, top)) * to_shape
        affine = (*linear[0], offset[0], *linear[1], offset[1])
        image = Image.fromarray(shape).transform(
            (self.size, self.size), Image.Transform.AFFINE, affine, Image.Resampling.BILINEAR
        )
        return np.asarray(image, dtype=np.float32) / 255

    def fill(self, outline: Points) -> np.ndarray:
        """The inside of a closed outline in body coordinates, float32 [S, S] in 0..1."""
        return self._draw(lambda draw, pixels, _: draw.polygon(pixels, fill=255), [outline], 0)

    def stroke(self, lines: Sequence[Points], width: float) -> np.ndarray:
        """Lines of a width in body coordinates, float32 [S, S] in 0..1."""
        return self._draw(lambda draw, pixels, w: draw.line(pixels, fill=255, width=w, joint="curve"), lines, width)

    def _draw(self, tool: Callable, paths: Sequence[Points], width: float) -> np.ndarray:
        image = Image.new("L", (self.size * OVERSAMPLING,) * 2)
        draw = ImageDraw.Draw(image)
        line_width = max(1, round(width * self.size / 2 * OVERSAMPLING))
        for path in paths:
            tool(draw, (self.to_pixels(path) * OVERSAMPLING).ravel().tolist(), line_width)
        return np.asarray(image.reduce(OVERSAMPLING), dtype=np.float32) / 255


def edge(distance: np.ndarray, softness: float) -> np.ndarray:
    """0 far below zero distance, 1 far above it, with a transition about 4 softnesses wide."""
    return 0.5 + 0.5 * np.tanh(distance * (0.5 / softness))


def bump(distance: np.ndarray, width: float) -> np.ndarray:
    """A bell of height 1 around zero distance, exp(-(distance/width)²)."""
    scaled = distance * (1 / width)
    return np.exp(-scaled * scaled)


def disc(frame: Frame, x: float, y: float, radius: float, softness: float, flatness: float = 1.0) -> np.ndarray:
    """A soft-edged disc, or an ellipse `flatness` times lower than wide, float32 [S, S] in 0..1."""
    across, down = frame.x - x, (frame.y - y) * flatness
    return edge(radius - np.sqrt(across * across + down * down), softness)


def smooth_line(points: Points, pieces: int = 6) -> np.ndarray:
    """An open Catmull-Rom curve through the points, [N, 2]."""
    padded = [points[0], *points, points[-1]]  # the curve of the padding is cut off again
    return smooth_outline(padded, pieces)[pieces : -2 * pieces + 1]


def smooth_outline(points: Points, pieces: int = 8) -> np.ndarray:
    """A closed Catmull-Rom curve through the points, [N * pieces, 2]."""
    p1 = np.asarray(points, dtype=float)
    p0, p2, p3 = np.roll(p1, 1, 0), np.roll(p1, -1, 0), np.roll(p1, -2, 0)
    t = (np.arange(pieces) / pieces)[:, None, None]
    curve = p1 + 0.5 * t * (p2 - p0 + t * (2 * p0 - 5 * p1 + 4 * p2 - p3 + t * (3 * (p1 - p2) + p3 - p0)))
    return curve.transpose(1, 0, 2).reshape(-1, 2)


@functools.lru_cache(maxsize=64)
def _blur_matrix(size: int, sigma: float) -> np.ndarray:
    """Gaussian weights [S, S] whose rows sum to 1; sigma as a fraction of the picture's side."""
    position = np.arange(size)
    weights = np.exp(-0.5 * ((position[:, None] - position) / max(sigma * size, 1e-3)) ** 2)
    return (weights / weights.sum(1, keepdims=True)).astype(np.float32)


def blur(image: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian blur as two matrix products; sigma as a fraction of the picture's side."""
    weights = _blur_matrix(len(image), sigma)
    return weights @ image @ weights.T


@functools.lru_cache(maxsize=64)
def _field_matrix(size: int, cells: int) -> np.ndarray:
    """Smooth interpolation [S, cells + 2] from a coarse grid; rows of unit length, so that variance stays 1."""
    position = (np.arange(size) + 0.5) / size * cells + 0.5
    weights = np.exp(-0.5 * ((position[:, None] - np.arange(cells + 2)) / 0.55) ** 2)
    return (weights / np.linalg.norm(weights, axis=1, keepdims=True)).astype(np.float32)


def field(rng: np.random.Generator, size: int, cells: int) -> np.ndarray:
    """A smooth random field of mean 0 and variance 1, float32 [S, S]; the same at any size but for its resolution."""
    matrix = _field_matrix(size, cells)
    return matrix @ rng.standard_normal((cells + 2, cells + 2), dtype=np.float32) @ matrix.T
