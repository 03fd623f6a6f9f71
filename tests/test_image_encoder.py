"""The image encoder: the shapes it promises at every size, and what it says when it cannot be had."""

from __future__ import annotations

from urllib.error import URLError

import pytest
import torch
from torchvision.models import resnet50

from cmlr_utils.data.files import CourseError
from cmlr_utils.models import image_encoder
from cmlr_utils.models.image_encoder import ImageEncoder


@pytest.mark.parametrize("size, cells", [(64, 4), (128, 8), (160, 10), (224, 14)])
def test_the_tiny_backbone_has_one_region_for_sixteen_pixels(size, cells):
    features = ImageEncoder("tiny", 24).eval()(torch.rand(2, 1, size, size))
    assert features.image_global.shape == (2, 24)
    assert features.image_local.shape == (2, 24, cells, cells)
    assert features.pooled.shape == (2, 256)


@torch.no_grad()
def test_a_region_sees_its_own_place():
    torch.manual_seed(0)
    encoder = ImageEncoder("tiny", 8).eval()
    black, spot = torch.zeros(1, 1, 128, 128), torch.zeros(1, 1, 128, 128)
    spot[..., 100:108, 20:28] = 1  # the centre of the region in row 6, column 1
    change = (encoder(spot).image_local - encoder(black).image_local).norm(dim=1)[0]
    assert divmod(int(change.argmax()), 8) == (6, 1)


@torch.no_grad()
def test_radiographs_do_not_see_each_other_in_evaluation():
    encoder, images = ImageEncoder("tiny", 8).eval(), torch.rand(3, 1, 64, 64)
    together, alone = encoder(images), encoder(images[1:2])
    for all_features, own in zip(together, alone, strict=True):
        torch.testing.assert_close(all_features[1:2], own, rtol=1e-4, atol=1e-5)


def test_an_unknown_backbone_is_named():
    with pytest.raises(CourseError, match="no image backbone 'vit'.*tiny, resnet50"):
        ImageEncoder("vit", 8)


@torch.no_grad()
def test_the_published_backbone_sees_299_pixels_and_19_by_19_regions(monkeypatch):
    monkeypatch.setattr(image_encoder, "resnet50", lambda weights: resnet50(weights=None))
    encoder = ImageEncoder("resnet50", 768).eval()
    prepared = encoder.backbone.prepare(torch.rand(2, 1, 224, 224))
    assert prepared.shape == (2, 3, 299, 299) and prepared.min() >= -1 and prepared.max() <= 1
    features = encoder(torch.rand(1, 1, 224, 224))
    assert features.image_global.shape == (1, 768)
    assert features.image_local.shape == (1, 768, 19, 19)
    assert features.pooled.shape == (1, 2048)


@pytest.mark.parametrize("error", [URLError("no network"), OSError("hash mismatch")])
def test_weights_that_cannot_be_fetched_are_named(monkeypatch, error):
    def unreachable(weights):
        raise error

    monkeypatch.setattr(image_encoder, "resnet50", unreachable)
    with pytest.raises(CourseError, match="ResNet-50 weights could not be fetched .*preset tiny"):
        ImageEncoder("resnet50", 8)
