"""Texture synthesis by optimisation: a painting's statistics at another size, joins, mixtures, what is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from cli_support import use_one_thread
from impasto.errors import OptionError
from impasto.networks.backbone import Backbone
from impasto.networks.backbones import load_backbone
from impasto.ops.moments import moments
from impasto.optimize.descent import Result
from impasto.optimize.losses import CovarianceLoss
from impasto.progress import Step
from impasto.textures import optimized as recipe
from impasto.textures.optimized import TextureOptions, check_tileable, resize_around, stride_of, synthesize
from recipe_support import digest_of
from reference.textures import border_ratio
from tiny import narrow_slim, painting

one_thread = pytest.fixture(autouse=True, scope="module")(use_one_thread)
LAYERS = ("relu1_1", "relu2_1")


def make(height: int = 32, width: int = 48, **given: Any) -> Result:
    options = {"steps": 12, "octaves": 0, "layers": LAYERS, **given.pop("options", {})}
    paintings = given.pop("paintings", [painting(40, 36)])
    network = given.pop("network", None) or narrow_slim(pooling="average")
    return synthesize(network, paintings, height, width, TextureOptions.parse(options, "texture"), **given)


def gap(image: Tensor, other: Tensor) -> float:
    """The distance of two pictures' statistics, in units of the second's."""
    network = narrow_slim(pooling="average")
    found, wanted = network(image, LAYERS), network(other, LAYERS)
    return sum(float(CovarianceLoss(moments(wanted[layer]))(found[layer])) for layer in LAYERS)


def test_a_texture_larger_than_its_painting_has_its_statistics() -> None:
    network = narrow_slim(pooling="average")
    before = digest_of(network)
    result = make(48, 64, options={"steps": 25}, network=network)
    assert result.image.shape == (1, 3, 48, 64)
    assert 0 <= float(result.image.min()) <= float(result.image.max()) <= 1
    assert gap(result.image, painting(40, 36)) < 0.05 < gap(torch.rand(1, 3, 48, 64), painting(40, 36))
    assert digest_of(network) == before


@pytest.mark.parametrize("octaves", [0, 2])
def test_opposite_borders_join_if_asked_for(octaves: int) -> None:
    network = load_backbone(pooling="average")
    options = {"steps": 24, "coarse_steps": 24, "octaves": octaves, "least_side": 16, "layers": (*LAYERS, "relu3_1")}
    given: dict[str, Any] = {"options": options, "network": network, "paintings": [painting(64, 64)]}
    ratios = [border_ratio(make(64, 64, tileable=t, **given).image[0].double().numpy()) for t in (True, False)]
    assert 0.6 < ratios[0] < 1.4 < ratios[1], ratios


def test_pictures_are_enlarged_across_their_borders() -> None:
    image = torch.rand(1, 3, 12, 16)
    moved = resize_around(image.roll((3, 4), (2, 3)), 24, 32)
    assert_close(moved, resize_around(image, 24, 32).roll((6, 8), (2, 3)))
    assert resize_around(image, 12, 16) is image


def test_the_plane_is_seen_without_borders(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Backbone] = []
    build = recipe._Look.objective

    def watch(look: Any, network: Backbone, *rest: Any) -> Any:
        seen.append(network)
        return build(look, network, *rest)

    monkeypatch.setattr(recipe._Look, "objective", watch)
    make(32, 48, tileable=True, options={"steps": 1})
    image = torch.rand(1, 3, 32, 48)
    moved = seen[0](image.roll((4, 8), (2, 3)), ["relu2_1"])["relu2_1"]
    assert_close(moved, seen[0](image, ["relu2_1"])["relu2_1"].roll((2, 4), (2, 3)))


def test_a_seed_is_a_picture() -> None:
    first = make(options={"steps": 3}).image
    assert torch.equal(first, make(options={"steps": 3}).image)
    assert not torch.equal(first, make(options={"steps": 3}, seed=1).image)


def test_coarser_sizes_come_first_and_fit_the_stride() -> None:
    sizes: list[tuple[int, ...]] = []

    def note(step: Step) -> None:
        sizes.append(tuple(step.image().shape[-2:]))

    options = {"steps": 1, "coarse_steps": 1, "octaves": 3, "least_side": 16}
    make(64, 96, options=options, paintings=[painting(80, 90)], on_step=note, tileable=True)
    assert sizes == [(16, 24), (32, 48), (64, 96)]
    sizes.clear()
    make(64, 96, options=options, paintings=[painting(40, 90)], on_step=note)
    assert sizes == [(32, 48), (64, 96)]  # the painting would be smaller than least_side


def test_paintings_are_mixed_by_shares() -> None:
    two = [painting(40, 40, seed=1), 0.3 * painting(40, 40, seed=2)]
    first = make(options={"steps": 5}, paintings=two, weights=(1.0, 0.0)).image
    assert_close(first, make(options={"steps": 5}, paintings=two[:1]).image)
    both = make(options={"steps": 30}, paintings=two).image
    apart = [gap(make(options={"steps": 30}, paintings=[one]).image, two[0]) for one in two]
    assert apart[0] < gap(both, two[0]) < apart[1]


def test_large_pictures_are_worked_on_tile_by_tile(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = make(64, 256, options={"steps": 3})
    monkeypatch.setattr(recipe, "choose_tile", lambda *rest: 192)
    tiled = make(64, 256, options={"steps": 3})
    assert_close(tiled.image, whole.image, rtol=0, atol=2e-3)


def test_ctrl_c_keeps_the_best_so_far() -> None:
    def press(step: Step) -> None:
        if step.index == 2:
            raise KeyboardInterrupt

    result = make(on_step=press)
    assert result.interrupted
    assert result.image.shape == (1, 3, 32, 48)


def test_strides() -> None:
    network = narrow_slim()
    assert stride_of(network, LAYERS) == 2
    assert stride_of(network, ("relu5_1",)) == 16
    check_tileable(32, 64, 16, "x")
    with pytest.raises(OptionError, match="sides are multiples of 16, not 50x30: take --size 48x32"):
        check_tileable(30, 50, 16, "x")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"options": {"layers": ("relu9_1",)}}, "has no layer 'relu9_1'"),
        ({"options": {"layer_weights": (1.0,)}}, "2 --layers need as many layer weights"),
        ({"options": {"layer_weights": (1.0, -1.0)}}, "layer weights are at least 0"),
        ({"weights": (1.0, 1.0)}, "one style needs one weight, not 2"),
        ({"height": 33, "tileable": True}, "multiples of 2, not 48x33"),
    ],
)
def test_mistakes(given: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        make(**given)
