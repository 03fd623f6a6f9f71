"""The image encoder: a residual network read at two places, a map of regions and one vector for the whole."""

from __future__ import annotations

from typing import NamedTuple
from urllib.error import URLError

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import ResNet50_Weights, resnet50
from torchvision.models.resnet import BasicBlock

from cmlr_utils.data.files import CourseError

FLATTEST = 0.05  # added to a radiograph's deviation, so that a blank one stays finite
GLORIA_SIZE = 299  # the published network sees 224 pixels upsampled to 299,
GLORIA_MEAN, GLORIA_STD = 0.5, 0.5  # and greys from -1 to 1


class ImageFeatures(NamedTuple):
    """What the image encoder says about B radiographs."""

    image_global: Tensor  # [B, D]
    image_local: Tensor  # [B, D, H, W]
    pooled: Tensor  # [B, F], the backbone's own features, for a linear probe


class TinyResNet(nn.Module):
    """A residual network small enough for a laptop: torchvision's block, four stages, stride 16 at layer3.

    It halves its map by pooling, never by a strided 3x3 convolution, whose outputs sit half a step up and left of the
    pixels they stand for: so each cell of the local map looks out from its own middle.
    """

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        first = nn.Conv2d(1, width, kernel_size=6, stride=2, padding=2, bias=False)
        self.stem = nn.Sequential(first, nn.BatchNorm2d(width), nn.ReLU(), nn.MaxPool2d(2))
        self.layer1 = residual(width, width)
        self.layer2 = nn.Sequential(nn.AvgPool2d(2), residual(width, 2 * width), residual(2 * width, 2 * width))
        self.layer3 = nn.Sequential(nn.AvgPool2d(2), residual(2 * width, 4 * width), residual(4 * width, 4 * width))
        self.layer4 = nn.Sequential(nn.AvgPool2d(2), residual(4 * width, 8 * width))
        self.local_channels, self.pooled_channels = 4 * width, 8 * width

    def prepare(self, images: Tensor) -> Tensor:
        """Give every radiograph mean 0 and deviation 1: a film's exposure is no finding."""
        mean, deviation = images.mean((2, 3), keepdim=True), images.std((2, 3), keepdim=True)
        return (images - mean) / (deviation + FLATTEST)


class PublishedResNet50(nn.Module):
    """ImageNet's ResNet-50 as GLoRIA uses it: grey as three channels, 299 pixels, stride 16 at layer3."""

    def __init__(self) -> None:
        super().__init__()
        try:
            network = resnet50(weights=ResNet50_Weights.IMAGENET1K_V1)
        except (URLError, OSError) as error:
            raise CourseError(
                f"ImageNet's ResNet-50 weights could not be fetched ({error}): go online once, or use the preset tiny."
            ) from error
        self.stem = nn.Sequential(network.conv1, network.bn1, network.relu, network.maxpool)
        self.layer1, self.layer2, self.layer3, self.layer4 = (
            network.layer1,
            network.layer2,
            network.layer3,
            network.layer4,
        )
        self.local_channels, self.pooled_channels = 1024, 2048

    def prepare(self, images: Tensor) -> Tensor:
        images = F.interpolate(images, size=(GLORIA_SIZE, GLORIA_SIZE), mode="bilinear", align_corners=True)
        return ((images - GLORIA_MEAN) / GLORIA_STD).expand(-1, 3, -1, -1)


def residual(channels_in: int, channels_out: int) -> BasicBlock:
    shortcut = None
    if channels_in != channels_out:
        shortcut = nn.Sequential(nn.Conv2d(channels_in, channels_out, 1, bias=False), nn.BatchNorm2d(channels_out))
    return BasicBlock(channels_in, channels_out, downsample=shortcut)


BACKBONES = {"tiny": TinyResNet, "resnet50": PublishedResNet50}


class ImageEncoder(nn.Module):
    """A backbone, and two projections to the shared width D: layer3's map is local, layer4's average is global."""

    def __init__(self, backbone: str, width: int) -> None:
        """Raises CourseError for an unknown backbone, or where its weights cannot be had."""
        super().__init__()
        if backbone not in BACKBONES:
            raise CourseError(f"There is no image backbone {backbone!r}: choose one of {', '.join(BACKBONES)}.")
        self.backbone = BACKBONES[backbone]()
        self.to_local = nn.Conv2d(self.backbone.local_channels, width, kernel_size=1)
        self.to_global = nn.Linear(self.backbone.pooled_channels, width)

    def forward(self, images: Tensor) -> ImageFeatures:
        """images [B, 1, S, S], float, 0 (black) to 1 (white)."""
        network = self.backbone
        x = network.prepare(images).contiguous(memory_format=torch.channels_last)
        x = network.layer3(network.layer2(network.layer1(network.stem(x))))  # [B, C, S/16, S/16]
        image_local = self.to_local(x)
        pooled = network.layer4(x).mean((2, 3))  # [B, F]
        return ImageFeatures(self.to_global(pooled), image_local, pooled)
