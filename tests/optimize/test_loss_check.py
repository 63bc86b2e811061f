"""Losses that are divided by next to nothing, or that grew: found, and worth a warning."""

from __future__ import annotations

import pytest
import torch

from impasto.images.tensors import mirror_to
from impasto.methods import load
from impasto.ops.moments import moments
from impasto.optimize.loss_check import judge_losses
from impasto.optimize.losses import ContentLoss, CovarianceLoss, MomentLoss
from impasto.textures.optimized import TextureOptions, synthesize
from tiny import narrow_slim, painting


def test_what_is_absurd_is_named() -> None:
    good = [{"content": 1.0, "style": 30.0}, {"content": 2.0, "style": 8.0}]
    assert judge_losses(good, 2, {"style": 10.0}) == judge_losses([], 5, {"style": 10.0}) == []
    (found,) = judge_losses([{"style": 1e9}, {"style": 1e9}], 2, {"style": 10.0})
    assert "the style loss stays at 1e+08 times" in found
    (found,) = judge_losses([{"style": 1.0}, {"style": 0.5}, {"style": 1.5}], 2, {})
    assert found.startswith("the loss grew from 0.5 to 1.5: lower --learning-rate")


@pytest.mark.parametrize("color", [0.0, 0.4, 1.0])
def test_a_flat_target_still_gives_a_loss_of_ordinary_size(color: float) -> None:
    features = torch.full((1, 6, 8, 8), 2 + color)
    other = features + torch.randn_like(features)
    losses = CovarianceLoss(moments(features)), MomentLoss(moments(features), relative=True)
    for loss in (*losses, ContentLoss(features, "relative")):
        assert 0 < float(loss(other)) < 5000


@pytest.mark.parametrize("size", [(1, 1), (8, 8), (32, 32)])
def test_textures_of_tiny_and_flat_paintings(size: tuple[int, int]) -> None:
    options = TextureOptions.parse({"steps": 6, "octaves": 0}, "texture")
    for image in (painting(*size), torch.full((1, 3, *size), 0.5)):
        result = synthesize(narrow_slim(), [image], 32, 32, options)
        assert sum(result.losses[-1].values()) < sum(result.losses[0].values()) < 1e6  # was 1e9 after all steps


def test_gatys_meets_the_colour_of_a_flat_painting() -> None:
    red = torch.tensor([0.9, 0.1, 0.1]).view(1, 3, 1, 1).expand(1, 3, 40, 40)
    model = load("gatys")
    found = model.stylize(painting(64, 64), red)
    assert (found.mean((2, 3)) - red[..., 0, 0]).abs().max() < 0.2
    assert sum(model.losses.values()) < 100


def test_mirrored_pictures_show_the_same() -> None:
    image = torch.arange(6.0).view(1, 1, 2, 3)
    found = mirror_to(image, 5, 4)
    assert found.shape == (1, 1, 5, 4)
    assert torch.equal(found[..., :2, :3], image)
    assert found[0, 0, :, 0].tolist() == [0, 3, 3, 0, 0]
    assert found[0, 0, 0].tolist() == [0, 1, 2, 2]
    assert mirror_to(image, 1, 2) is image
