"""A radiograph as a phone sees it on a screen or a light box: CheXphoto's synthetic transformations, for whole batches.

After CheXphoto (Phillips, Rajpurkar et al., ML4H 2020) and the code released with it. There each transformation has
the levels 1 to 4; here the strength is any number from 0 (nothing happens) to 4, and between two levels its parameters
are interpolated. The released code counts in pixels; they are taken as those of CheXpert-v1.0-small, whose longer side
has 390, and scale with the picture, but for the moiré, which belongs to the camera's own pixels.

Every function takes images float [B, C, S, S] from 0 black to 1 white, on any device, and a strength, and draws its
random numbers for all images at once from a generator on the CPU: one seed gives one result on CPU and GPU, and a
batch the same as its images one by one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Generator, Tensor
from torchvision.transforms.v2 import functional as vision

from cmlr_utils.data.files import CourseError

LEVELS = 4
SIDE = 390  # pixels of the pictures that the released code was written for
FACTOR = (0, 0.5, 2, 3, 4)  # of brightness and contrast, by level


def photograph(
    images: Tensor,
    names: str | Sequence[str],
    strength: float,
    generator: Generator | None = None,
    masks: Tensor | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """Photograph images float [B, 1, S, S] of 0 to 1 in one or several of PHOTOGRAPHS' ways, one after the other.

    Gives images of the same shape, dtype and device, clipped to 0 to 1. With `masks`, bool [B, K, S, S], it gives them
    too, moved as the pixels were moved; glare that hides a finding leaves its mask. Without `generator` torch's own is
    used. Raises CourseError for an unknown name, a strength outside 0 to 4, and images that are not such floats.
    """
    names = [names] if isinstance(names, str) else list(names)
    for name in names:
        if name not in PHOTOGRAPHS:
            raise CourseError(f"There is no photograph {name!r}: choose among {', '.join(PHOTOGRAPHS)}.")
    require_strength(strength)
    if not images.is_floating_point() or images.ndim != 4 or images.shape[1] != 1:
        raise CourseError(
            f"The images are {images.dtype} {list(images.shape)}: give floats from 0 to 1 as [B, 1, S, S]."
        )
    shown = images.to(torch.promote_types(images.dtype, torch.float32))
    for name in names:
        channels = shown
        if masks is not None and name in GEOMETRY:
            channels = torch.cat([shown, masks.to(shown)], dim=1)
        channels = PHOTOGRAPHS[name](channels, strength, generator)
        shown = channels[:, :1].clamp(0, 1)
        if masks is not None and name in GEOMETRY:
            masks = channels[:, 1:] > 0.5
    shown = shown.to(images.dtype)
    return shown if masks is None else (shown, masks)


def require_strength(strength: float) -> None:
    """Raise CourseError unless it is a number from 0 to 4."""
    if not (isinstance(strength, int | float) and 0 <= strength <= LEVELS):
        raise CourseError(f"strength={strength!r} is not from 0 to {LEVELS}: 0 changes nothing, {LEVELS} is strongest.")


def perspective(images: Tensor, strength: float, generator: Generator | None = None) -> Tensor:
    """Tilt: each corner moves inwards by up to 5 % of the side per level, across and down; black around."""
    B = len(images)
    inwards = 0.1 * strength * uniform(images, generator, 8).view(B, 4, 2)  # of half a side
    corners = images.new_tensor([[-1, -1], [1, -1], [1, 1], [-1, 1]]).expand(B, 4, 2)
    return warp(images, homography(corners * (1 - inwards), corners))


def rotation(images: Tensor, strength: float, generator: Generator | None = None) -> Tensor:
    """Rotate by 5 degrees per level, clockwise or not, and shrink so that no corner is cut off; black around."""
    angle = math.radians(5 * strength) * coin(images, generator)[:, 0]
    size = angle.abs().cos() + angle.abs().sin()
    cos, sin, zero = size * angle.cos(), size * angle.sin(), torch.zeros_like(angle)
    rows = [cos, sin, zero, -sin, cos, zero, zero, zero, zero + 1]
    return warp(images, torch.stack(rows, dim=1).view(-1, 3, 3))


def translation(images: Tensor, strength: float, generator: Generator | None = None) -> Tensor:
    """Shift by 20 of 390 pixels per level, left or right and up or down; black comes in.

    The released code also shrinks the picture by a border of 100 pixels, at every level; this one does not.
    """
    matrices = torch.eye(3).to(images).repeat(len(images), 1, 1)
    matrices[:, :2, 2] = 2 * 20 / SIDE * strength * coin(images, generator, 2)  # the frame is 2 wide
    return warp(images, matrices)


def glare_matte(images: Tensor, strength: float, generator: Generator | None = None) -> Tensor:
    """A soft white spot on a matte screen, anywhere: a Gaussian of 50 of 390 pixels per level, opacity .39 to .90."""
    centre = 2 * uniform(images, generator, 2) - 1
    squared = (frame(images) - centre[:, None, None]).square().sum(-1)
    spread = 2 * 50 / SIDE * strength
    spot = torch.exp(-squared / (2 * max(spread, 1e-6) ** 2))
    return whiten(images, (spot * 100 * strength).clamp(max=150 + 20 * strength) / 255)


def glare_glossy(images: Tensor, strength: float, generator: Generator | None = None) -> Tensor:
    """A white box, the lamp in a glossy screen: at one of nine places, 10 to 15 % of the side at level 1 and 10 more
    for each level, opacity .67 to .98 (less below level 1).
    """
    random = uniform(images, generator, 7)
    size = 0.1 * strength + 0.05 * random[:, :2]
    middle = 0.3 + 0.4 * random[:, 2:4] - size / 2
    start = torch.where(random[:, 4:6] < 1 / 3, 0, torch.where(random[:, 4:6] < 2 / 3, middle, 1 - size))
    place = (frame(images) + 1) / 2
    inside = ((place >= start[:, None, None]) & (place < (start + size)[:, None, None])).all(-1)
    opacity = min(strength, 1) * (150 + 20 * strength + 20 * random[:, 6]) / 255
    return whiten(images, inside * opacity[:, None, None])


def moire(images: Tensor, strength: float, generator: Generator | None = None) -> Tensor:
    """The screen's lines against the camera's: two nearly parallel gratings of dark, spreading lines interfere.

    On a grid twice as fine as the picture, lines 1 wide stand 20, 4.5, 2.5 or 1 apart with opacity .05, .15, .35 or .5;
    the second is turned by a normal deviation of 1 degree. Both fan out to half their density at one border of a frame
    twice the picture's side.
    """
    S, levels = images.shape[-1], range(LEVELS + 1)
    gap = float(np.interp(strength, levels, (20, 20, 4.5, 2.5, 1)))
    opacity = float(np.interp(strength, levels, (0, 0.05, 0.15, 0.35, 0.5)))
    random = uniform(images, generator, 5)
    turn = torch.special.ndtri(random[:, 4].clamp(1e-6, 1 - 1e-6))
    fine = S * frame(images, 2 * S)  # in pixels of the finer grid, from the middle
    light = images.new_ones(1)
    for offset, degrees in ((random[:, :2], 90 + 0 * turn), (random[:, 2:4], 90 + turn)):
        x, y = (fine + 100 * offset[:, None, None]).unbind(-1)
        cos, sin = (f(degrees.deg2rad())[:, None, None] for f in (torch.cos, torch.sin))
        along, across = x * cos - y * sin, x * sin + y * cos
        line = 0.5 * across / (1 - 0.5 * (0.5 + along / (4 * S)))
        phase = line / (gap + 1)
        light = light * (1 - opacity * (phase - phase.floor() < 1 / (gap + 1))[:, None])
    return images * F.avg_pool2d(light, 2)


def motion_blur(images: Tensor, strength: float, generator: Generator | None = None) -> Tensor:
    """Blur along the rows over 2, 10, 25 or 45 of 390 pixels, as of a hand that moves; nothing is random."""
    S = images.shape[-1]
    length = 1 + (float(np.interp(strength, range(LEVELS + 1), (1, 2, 10, 25, 45))) - 1) * S / SIDE
    reach = math.ceil((length - 1) / 2)
    taps = (length / 2 + 0.5 - torch.arange(-reach, reach + 1).abs()).clamp(0, 1).to(images)
    kernel = (taps / taps.sum()).view(1, 1, 1, -1)
    rows = F.pad(images, (reach, reach, 0, 0), mode="reflect").flatten(0, 1)[:, None]
    return F.conv2d(rows, kernel).view_as(images)


def defocus_blur(images: Tensor, strength: float, generator: Generator | None = None) -> Tensor:
    """Blur with a Gaussian of deviation 1.5, 3, 6 or 10 of 390 pixels; nothing is random."""
    sigma = float(np.interp(strength, range(LEVELS + 1), (0, 1.5, 3, 6, 10))) * images.shape[-1] / SIDE
    return vision.gaussian_blur(images, 2 * math.ceil(3 * sigma) + 1, sigma) if sigma else images


def brightness(images: Tensor, strength: float, generator: Generator | None = None) -> Tensor:
    """Exposure: brighter by a factor 1 + .2 f or darker by 1 / (1 + .4 f), with f = .5, 2, 3, 4, clipped."""
    return up_or_down(vision.adjust_brightness, images, strength, generator)


def contrast(images: Tensor, strength: float, generator: Generator | None = None) -> Tensor:
    """Differences from the picture's own mean times 1 + .2 f or 1 / (1 + .4 f), with f = .5, 2, 3, 4, clipped."""
    return up_or_down(vision.adjust_contrast, images, strength, generator)


def up_or_down(
    adjust: Callable[[Tensor, float], Tensor], images: Tensor, strength: float, generator: Generator | None
) -> Tensor:
    factor = float(np.interp(strength, range(LEVELS + 1), FACTOR))
    up = coin(images, generator)[:, :, None, None] > 0
    return torch.where(up, adjust(images, 1 + 0.2 * factor), adjust(images, 1 / (1 + 0.4 * factor)))


def uniform(images: Tensor, generator: Generator | None, k: int) -> Tensor:
    """k numbers in [0, 1) for each image, [B, k]."""
    return torch.rand(len(images), k, generator=generator).to(images)


def coin(images: Tensor, generator: Generator | None, k: int = 1) -> Tensor:
    """k times -1 or 1 for each image, [B, k]."""
    return 1 - 2 * (uniform(images, generator, k) < 0.5).to(images)


def frame(images: Tensor, size: int | None = None) -> Tensor:
    """Each pixel's middle in a frame from -1 to 1, x and y: [1, S, S, 2], S being `size` or the images' own."""
    size = size or images.shape[-1]
    middles = (torch.arange(size, device=images.device, dtype=images.dtype) + 0.5) * 2 / size - 1
    return torch.stack(torch.meshgrid(middles, middles, indexing="xy"), dim=-1)[None]


def warp(images: Tensor, matrices: Tensor) -> Tensor:
    """Each image through its own homography [B, 3, 3] from places in the result to places in the image; black around.

    Places are x and y in a frame from -1 to 1; between pixels it is bilinear.
    """
    places = F.pad(frame(images), (0, 1), value=1.0) @ matrices[:, None].mT  # [B, S, S, 3]
    return F.grid_sample(images, places[..., :2] / places[..., 2:], align_corners=False)


def homography(here: Tensor, there: Tensor) -> Tensor:
    """The matrices [B, 3, 3] that take four points `here` [B, 4, 2] to the four `there`: eight linear equations."""
    one, zero = torch.ones_like(here[..., :1]), torch.zeros_like(here[..., :1]).expand(-1, -1, 3)
    point = torch.cat([here, one], dim=-1)
    x = torch.cat([point, zero, -there[..., :1] * here], dim=-1)
    y = torch.cat([zero, point, -there[..., 1:] * here], dim=-1)
    solution = torch.linalg.solve(torch.cat([x, y], dim=1), torch.cat([there[..., 0], there[..., 1]], dim=1))
    return F.pad(solution, (0, 1), value=1.0).view(-1, 3, 3)


def whiten(images: Tensor, opacity: Tensor) -> Tensor:
    """White laid over the images with an opacity [B, S, S] of 0 to 1."""
    return images + (1 - images) * opacity[:, None]


GEOMETRY = ("perspective", "rotation", "translation")
PHOTOGRAPHS: dict[str, Callable[[Tensor, float, Generator | None], Tensor]] = {
    "perspective": perspective,
    "rotation": rotation,
    "translation": translation,
    "glare matte": glare_matte,
    "glare glossy": glare_glossy,
    "moire": moire,
    "motion blur": motion_blur,
    "defocus blur": defocus_blur,
    "brightness": brightness,
    "contrast": contrast,
}
