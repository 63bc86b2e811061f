"""A picture from one layer's features, and from Gram matrices alone (Gatys et al. 2016, sec. 2 and fig. 1)."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import Tensor

from impasto.errors import WeightsError
from impasto.networks.backbone import SLIM, Backbone
from impasto.networks.backbones import load_backbone
from impasto.ops.moments import moments
from impasto.optimize.descent import Pixels, Settings, optimize_image
from impasto.optimize.losses import ContentLoss, GramLoss, Objective, Term
from impasto.weights import resolve
from tiny import painting, random_slim

CONTENT_LAYERS = ("relu1_2", "relu2_2", "relu3_2", "relu4_2", "relu5_1")
STYLE_LAYERS = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")


def noise_like(picture: Tensor) -> Tensor:
    return torch.rand(picture.shape, generator=torch.Generator().manual_seed(1))


def rebuild(backbone: Backbone, picture: Tensor, layer: str, steps: int) -> Tensor:
    """The picture that has the features of `picture` at `layer`, found from noise."""
    target = backbone(picture, [layer])[layer]
    objective = Objective(backbone, [Term("content", layer, ContentLoss(target, "relative"))])
    return optimize_image(objective, Pixels(noise_like(picture), clamp=False), Settings(steps)).image


def imitate(backbone: Backbone, picture: Tensor, layers: tuple[str, ...], steps: int) -> tuple[Tensor, float]:
    """A picture with the Gram matrices of `picture` at `layers`, and how many times smaller their error became."""
    seen = backbone(picture, layers)
    terms = [Term("style", layer, GramLoss(moments(seen[layer]), "relative")) for layer in layers]
    result = optimize_image(Objective(backbone, terms), Pixels(noise_like(picture), clamp=False), Settings(steps))
    return result.image, result.losses[0]["style"] / result.losses[-1]["style"]


def psnr(found: Tensor, wanted: Tensor) -> float:
    return float(-10 * (found - wanted).square().mean().log10())


def correlation(one: Tensor, two: Tensor) -> float:
    """Zero-mean normalised cross-correlation."""
    one, two = ((image - image.mean((2, 3), keepdim=True)).flatten() for image in (one, two))
    return float(one @ two / (one.norm() * two.norm()))


def check_content(backbone: Backbone, picture: Tensor, steps: int) -> None:
    found = [psnr(rebuild(backbone, picture, layer, steps), picture) for layer in CONTENT_LAYERS]
    assert all(deeper < shallower for shallower, deeper in pairwise(found)), found
    assert found[0] >= 25


def check_style(backbone: Backbone, picture: Tensor, layers: tuple[str, ...], steps: int) -> None:
    found, drop = imitate(backbone, picture, layers, steps)
    assert drop >= 100
    assert abs(correlation(found, picture)) < 0.2


def test_the_deeper_a_layer_the_less_it_gives_back(picture: Tensor) -> None:
    check_content(random_slim(), picture[..., :32, 8:56], 80)


@pytest.mark.parametrize("count", [1, 3, 5])
def test_gram_matrices_give_texture_without_place(picture: Tensor, count: int) -> None:
    check_style(random_slim(), picture, STYLE_LAYERS[:count], 60 + 10 * count)


@pytest.fixture(scope="module")
def shipped() -> Backbone:
    try:
        resolve(SLIM)
    except WeightsError as error:
        pytest.skip(str(error))
    return load_backbone()


@pytest.mark.slow
def test_the_shipped_backbone_gives_back_less_with_depth(shipped: Backbone, picture: Tensor) -> None:
    check_content(shipped, picture, 300)


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 2, 3, 4, 5])
def test_the_shipped_backbones_gram_matrices_give_texture_without_place(shipped: Backbone, count: int) -> None:
    check_style(shipped, painting(96, 128), STYLE_LAYERS[:count], 200)
