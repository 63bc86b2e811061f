"""The objective tile by tile: the values and the gradient of the whole picture, at any size."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from impasto.feedforward.tiled_run import Tiling
from impasto.ops.moments import moments
from impasto.optimize import tiled_objective
from impasto.optimize.losses import (
    ContentLoss,
    CovarianceLoss,
    GramLoss,
    MomentLoss,
    Objective,
    Term,
    TotalVariation,
    WassersteinLoss,
)
from impasto.optimize.tiled_objective import TiledObjective, look
from tiny import narrow_slim, painting, random_vgg, tiny_gatys

LOSSES: dict[str, Any] = {
    "covariance": CovarianceLoss,
    "gram": lambda target, mask: GramLoss(target, "relative", mask),
    "moments": lambda target, mask: MomentLoss(target, mask=mask),
    "wasserstein": lambda target, mask: WassersteinLoss(target, mask=mask),
}


def objective_of(backbone: Any, content: Tensor, kind: str = "covariance", mask: Tensor | None = None) -> Objective:
    style = backbone(painting(), ["relu1_1", "relu3_1", "relu5_1"])
    seen = backbone(content, ["relu4_1"])["relu4_1"]
    terms = [Term("style", layer, LOSSES[kind](moments(found), mask), 3.0) for layer, found in style.items()]
    terms += [Term("content", "relu4_1", ContentLoss(seen, "relative")), Term("tv", "image", TotalVariation(), 0.5)]
    return Objective(backbone, terms)


def evaluated(objective: Any, image: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    image = image.clone().requires_grad_()
    terms = objective(image)
    torch.stack(list(terms.values())).sum().backward()
    assert image.grad is not None
    return {name: value.detach() for name, value in terms.items()}, image.grad


@pytest.fixture
def pictures() -> tuple[Tensor, Tensor]:
    return painting(97, 131, seed=3), painting(97, 131, seed=4)


@pytest.mark.parametrize("kind", LOSSES)
def test_values_and_gradient_are_the_whole_pictures(kind: str, pictures: tuple[Tensor, Tensor]) -> None:
    content, image = pictures
    whole = objective_of(narrow_slim(), content, kind)
    wanted, slope = evaluated(whole, image)
    found, gradient = evaluated(TiledObjective(whole, narrow_slim(), (97, 131), 48), image)
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        assert_close(found[name], value, atol=1e-6, rtol=1e-4)
    assert (gradient - slope).abs().max() <= 1e-4 * slope.abs().max()


def test_in_a_region_and_over_zero_padding(pictures: tuple[Tensor, Tensor]) -> None:
    content, image = pictures
    backbone, mask = random_vgg("vgg19", pooling="average"), torch.zeros(1, 1, 97, 131)
    mask[..., 10:80, 20:120] = 1
    whole = objective_of(backbone, content, mask=mask)
    wanted, slope = evaluated(whole, image)
    found, gradient = evaluated(TiledObjective(whole, backbone, (97, 131), 48), image)
    assert_close(found["style"], wanted["style"], atol=1e-6, rtol=1e-4)
    assert (gradient - slope).abs().max() <= 1e-4 * slope.abs().max()


def test_without_halo_it_would_be_wrong(pictures: tuple[Tensor, Tensor]) -> None:
    content, image = (picture[..., :96, :96] for picture in pictures)
    whole = objective_of(narrow_slim(), content)
    cut = TiledObjective(whole, narrow_slim(), (96, 96), 48)
    cut.tiles.halo = 0
    _, slope = evaluated(whole, image)
    _, gradient = evaluated(cut, image)
    assert (gradient - slope).abs().max() > 1e-3 * slope.abs().max()


def test_looking_by_tiles_is_looking(pictures: tuple[Tensor, Tensor]) -> None:
    backbone, image = narrow_slim(), pictures[0]
    wanted = backbone(image, ["relu2_1", "relu4_1"])
    for tile in (None, 48):
        found, sums = look(backbone, image, ["relu4_1"], ["relu2_1", "relu4_1"], tile=tile)
        assert_close(found, {"relu4_1": wanted["relu4_1"]}, atol=1e-5, rtol=1e-4)
        for layer, features in wanted.items():
            assert_close(sums[layer].second, moments(features).second, atol=1e-5, rtol=1e-4)


def test_gatys_in_tiles_is_gatys(pictures: tuple[Tensor, Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_gatys(steps=2, optimizer="gd", learning_rate=0.1)
    style = model.encode_style(painting())
    monkeypatch.setattr(tiled_objective, "SMALLEST_TILE", 64)
    found = {}
    for room, tile in ((1 << 40, None), (1 << 20, Tiling(64))):
        model.room = room
        found[room] = model.transfer(pictures[0], style, strength=0.7)
        assert model.cut == tile
    whole, cut = found.values()
    assert (whole - pictures[0]).abs().max() > 2e-3
    assert (cut - whole).abs().max() <= 1e-4


def test_large_pictures_remember_fewer_steps() -> None:
    model = tiny_gatys()
    assert model.history(1_000_000) == 20
    assert model.history(16_000_000) == 5
    assert model.history(200_000_000) == 3
