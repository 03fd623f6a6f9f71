"""The random variation of films in training: within range, reproducible, and never left for right."""

from __future__ import annotations

import pytest
import torch

from cmlr_utils.training import augment
from cmlr_utils.training.augment import add_marker, vary, vary_exposure, vary_greys, vary_pose, vary_resolution


def smooth_films(number: int = 8, size: int = 64) -> torch.Tensor:
    """Films [B, 1, S, S] with broad grey shapes."""
    coarse = torch.rand(number, 1, 6, 6)
    return torch.nn.functional.interpolate(coarse, size=(size, size), mode="bicubic").clamp(0, 1)


@pytest.mark.parametrize("size", [32, 64, 128])
def test_shape_and_range_stay(size):
    for seed in range(10):
        torch.manual_seed(seed)
        varied = vary(smooth_films(size=size))
        assert varied.shape == (8, 1, size, size) and varied.dtype == torch.float32
        assert varied.min() >= 0 and varied.max() <= 1 and varied.isfinite().all()


@pytest.mark.parametrize("grey", [0.0, 1.0])
def test_black_and_white_films_stay_finite(grey):
    torch.manual_seed(0)
    assert vary(torch.full((16, 1, 64, 64), grey)).isfinite().all()


def test_the_seed_decides_and_the_film_given_is_not_changed():
    films = smooth_films()
    before, varied = films.clone(), []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        varied.append(vary(films))
    assert torch.equal(films, before)
    assert torch.equal(varied[0], varied[1]) and not torch.equal(varied[0], varied[2])


def test_every_film_of_a_batch_varies_in_its_own_way():
    torch.manual_seed(0)
    varied = vary(smooth_films(1).expand(6, -1, -1, -1))
    assert all(not torch.equal(varied[0], other) for other in varied[1:])


def test_left_stays_left_and_top_stays_top():
    torch.manual_seed(0)
    films = torch.zeros(200, 1, 64, 64)
    films[..., 8:28, 8:28] = 1  # in the upper left quarter
    varied = vary_pose(films)
    place = torch.arange(64.0)
    weight = varied.sum((1, 2, 3))
    column, row = (varied.sum((1, 3 - axis)) @ place / weight for axis in (1, 0))
    assert (weight > 0).all() and (column < 32).float().mean() > 0.98 and (row < 32).float().mean() > 0.98


def test_what_a_film_shows_is_still_there():
    torch.manual_seed(0)
    films = smooth_films(64)
    pairs = zip(films.flatten(1), vary(films).flatten(1), strict=True)
    alike = torch.tensor([torch.corrcoef(torch.stack(pair))[0, 1] for pair in pairs])
    assert 0.3 < alike.median() < 0.99


def test_greys_keep_their_order():
    """Exposure and contrast change, but what is brighter stays brighter, or both are cut off."""
    torch.manual_seed(0)
    ramp = torch.linspace(0, 1, 64).repeat(32, 1, 64, 1)
    assert (vary_greys(ramp).diff(dim=-1) >= -1e-6).all()


def test_resolution_falls_in_its_share_of_draws_and_the_others_change_nothing():
    torch.manual_seed(0)
    checks = ((torch.arange(128)[:, None] + torch.arange(128)) % 2).float()[None, None]
    drawn = [vary_resolution(checks) for _ in range(200)]
    unchanged = sum(torch.equal(films, checks) for films in drawn) / 200
    assert abs(unchanged - (1 - augment.RESOLUTION_CHANCE)) < 0.1
    assert all(films.shape == checks.shape and 0 <= films.min() and films.max() <= 1 for films in drawn)
    assert min(films[..., 8:-8, 8:-8].std() for films in drawn) < 0.1  # the finest pattern is gone


def test_exposure_is_a_small_change_without_a_direction():
    torch.manual_seed(0)
    change = vary_exposure(torch.full((200, 1, 64, 64), 0.5)) - 0.5
    assert abs(change.mean()) < 0.01 and 0.01 < change.std() < 0.15


def test_markers_are_small_bright_and_on_some_films():
    torch.manual_seed(0)
    marked = add_marker(torch.zeros(1000, 1, 128, 128))
    assert marked.unique().tolist() == pytest.approx([0, 0.9])
    areas = (marked > 0).sum((1, 2, 3))
    assert 0.2 < (areas > 0).float().mean() < 0.4 and areas.max() <= (128 // 12) ** 2
