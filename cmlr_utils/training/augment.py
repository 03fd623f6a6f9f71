"""Random variation of each radiograph in training: what differs between two films of one chest."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

LOWEST_SHARE, HIGHEST_SHARE = 0.32, 0.88  # of the picture's side: the resolution an archive may have kept
RESOLUTION_CHANCE, CONTRAST_CHANCE, MARKER_CHANCE = 0.5, 0.5, 0.3
RESOLUTIONS_PER_BATCH = 4


def vary(images: Tensor) -> Tensor:
    """Vary gamma, contrast, pose and exposure, add noise, lay a marker on some, and vary the resolution of the result.

    images [B, 1, S, S], float 0 to 1; returns the same shape and range. Random numbers come from torch's own
    generator. Left and right are never exchanged: the report names sides.
    """
    images = vary_pose(vary_greys(images))
    images = add_marker(vary_exposure(images)).clamp(0, 1)
    return torch.cat([vary_resolution(part) for part in images.chunk(RESOLUTIONS_PER_BATCH)])


def vary_resolution(images: Tensor) -> Tensor:
    """Shrink all images to one random size and enlarge them again: archives keep films more or less sharp."""
    if torch.rand(()) > RESOLUTION_CHANCE:
        return images
    size = images.shape[-1]
    low = int(size * (LOWEST_SHARE + (HIGHEST_SHARE - LOWEST_SHARE) * torch.rand(())))
    small = F.interpolate(images, size=(low, low), mode="bilinear", antialias=True)
    return F.interpolate(small, size=(size, size), mode="bicubic").clamp(0, 1)


def vary_greys(images: Tensor) -> Tensor:
    """A random gamma, then the greys stretched (and cut off) or squeezed."""
    shape = (len(images), 1, 1, 1)
    images = images.clamp_min(1e-4) ** torch.exp(0.2 * torch.randn(shape)).to(images)
    low, high = (0.12 * torch.rand(shape)).to(images), (1 - 0.12 * torch.rand(shape)).to(images)
    stretch = (torch.rand(shape) < CONTRAST_CHANCE).to(images.device)
    return torch.where(stretch, ((images - low) / (high - low)).clamp(0, 1), low + (high - low) * images)


def vary_pose(images: Tensor) -> Tensor:
    """A small rotation, scaling and shift; what comes in from outside is black."""
    batch = len(images)
    angle, scale = 0.05 * torch.randn(batch), torch.exp(0.05 * torch.randn(batch, 2))
    pose = torch.zeros(batch, 2, 3)
    pose[:, 0, 0], pose[:, 0, 1] = angle.cos() * scale[:, 0], -angle.sin() * scale[:, 1]
    pose[:, 1, 0], pose[:, 1, 1] = angle.sin() * scale[:, 0], angle.cos() * scale[:, 1]
    pose[:, :, 2] = 0.03 * torch.randn(batch, 2)
    grid = F.affine_grid(pose.to(images), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, align_corners=False)


def vary_exposure(images: Tensor) -> Tensor:
    """A smooth field of more and less exposure, and grain."""
    batch, _, size, _ = images.shape
    field = F.interpolate(0.06 * torch.randn(batch, 1, 4, 4).to(images), size=(size, size), mode="bicubic")
    grain = torch.randn(images.shape).to(images) * (0.05 * torch.rand(batch, 1, 1, 1)).to(images)
    return images + field + grain


def add_marker(images: Tensor) -> Tensor:
    """A bright block the size of a side marker, somewhere, on some of the films."""
    batch, _, size, _ = images.shape
    place = torch.arange(size)
    start = torch.randint(0, size - size // 8, (batch, 2, 1))
    extent = torch.randint(size // 40, size // 12, (batch, 2, 1))
    inside = (place >= start) & (place < start + extent)  # [B, 2, S]
    chosen = torch.rand(batch, 1, 1) < MARKER_CHANCE
    marker = inside[:, 0, :, None] & inside[:, 1, None, :] & chosen  # [B, S, S]
    return images.masked_fill(marker[:, None].to(images.device), 0.9)
