"""What the method gatys does with photos, paintings, masks, cards and sizes."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import get_args

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from impasto.errors import OptionError
from impasto.methods.gatys import Gatys, StyleLoss
from impasto.optimize.losses import GramLoss
from impasto.progress import Step
from impasto.stylizers.published_recipes import STYLE_LAYERS
from impasto.stylizers.styles import Style, load_style, recall, save_style
from tiny import painting, random_vgg, tiny_gatys


def gram_error(method: Gatys, result: Tensor, style: Style) -> float:
    """Mean over the five layers of the relative squared distance of the Gram matrices."""
    seen = method.backbone(result, STYLE_LAYERS)
    return sum(float(GramLoss(recall(style, layer), "relative")(seen[layer])) for layer in STYLE_LAYERS) / 5


def other() -> Tensor:
    return painting(52, 44, seed=6)


# --- strength


@pytest.mark.parametrize("options", [{}, {"octaves": 2, "least_side": 16, "coarse_steps": 5}, {"start": "noise"}])
def test_strength_0_is_the_photo(picture: Tensor, options: dict[str, object]) -> None:
    assert torch.equal(tiny_gatys(**options).stylize(picture, painting(), strength=0), picture)


def test_more_strength_is_more_style(picture: Tensor) -> None:
    """In raw second moments, in which strength mixes the photo with the painting."""
    method = tiny_gatys(steps=20)
    style = method.encode_style(painting())
    results = [method.transfer(picture, style, strength=s) for s in (0, 0.25, 0.5, 0.75, 1)]
    losses = [gram_error(method, result, style) for result in results]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 0.3 * losses[0]
    apart = [float((result - picture).square().mean()) for result in results]
    assert apart == sorted(apart)


# --- several styles


def test_weights_lead_from_one_style_to_the_other(picture: Tensor) -> None:
    method = tiny_gatys(steps=40, style_loss="gram")
    styles = method.encode_style(painting()), method.encode_style(other())
    results = [method.stylize(picture, *styles, weights=w) for w in ((1, 0), (2, 1), (1, 2), (0, 1))]
    to_first, to_second = ([gram_error(method, result, style) for result in results] for style in styles)
    assert to_first == sorted(to_first)
    assert to_second == sorted(to_second, reverse=True)


def test_all_the_weight_on_one_style_is_that_style_alone(picture: Tensor) -> None:
    method = tiny_gatys()
    alone = method.stylize(picture, painting())
    assert torch.equal(method.stylize(picture, painting(), other(), weights=[3, 0]), alone)


def test_a_mixture_aims_at_the_mean_of_the_gram_matrices(picture: Tensor) -> None:
    """Two halves of one painting, mixed, are the painting: their positions are all of its positions."""
    method = tiny_gatys(style_layers="relu1_1", content_weight=0, steps=1)
    whole = method.encode_style(painting(64, 64))
    halves = [method.encode_style(half) for half in painting(64, 64).split(32, dim=3)]
    mean = sum(recall(half, "relu1_1").second for half in halves) / 2
    wanted = recall(whole, "relu1_1").second
    assert float((mean - wanted).norm() / wanted.norm()) < 0.05  # but for the edge between the halves


# --- masks


def test_a_white_mask_is_no_mask(picture: Tensor) -> None:
    method = tiny_gatys(octaves=1, least_side=32, coarse_steps=4)
    plain = method.stylize(picture, painting())
    assert_close(method.stylize(picture, painting(), masks=[torch.ones(1, 1, 48, 64)]), plain, atol=1e-5, rtol=0)


def test_outside_a_hard_mask_the_photo_is_untouched_bit_for_bit(picture: Tensor) -> None:
    mask = torch.zeros(1, 1, 48, 64)
    mask[..., 5:37, 20:] = 1
    found = tiny_gatys().stylize(picture, painting(), masks=[mask])
    outside = (mask == 0).expand_as(picture)
    assert torch.equal(found[outside], picture[outside])
    assert (found - picture)[~outside].abs().mean() > 0.01


@pytest.mark.parametrize("style_loss", get_args(StyleLoss))
def test_a_masks_region_takes_the_style_by_its_own_statistics(picture: Tensor, style_loss: str) -> None:
    """The left half, guided, is nearer to the style in its left half than an unguided run's left half."""
    falling = (0.3, 0.25, 0.2, 0.15, 0.1)
    method = tiny_gatys(steps=20, content_weight=0.1, style_loss=style_loss, style_layer_weights=falling)
    style = method.encode_style(painting())
    mask = torch.zeros(1, 1, 48, 64)
    mask[..., :32] = 1
    guided, plain = method.transfer(picture, style, mask=mask), method.transfer(picture, style)
    errors = [gram_error(method, result[..., :32], style) for result in (guided, plain)]
    assert errors[0] < 0.9 * errors[1]


def test_a_style_for_each_region(picture: Tensor) -> None:
    method = tiny_gatys()
    left = torch.zeros(1, 1, 48, 64)
    left[..., :32] = 1
    both = method.stylize(picture, painting(), other(), masks=[left, 1 - left])
    one = method.stylize(picture, painting(), masks=[left])
    two = method.stylize(picture, other(), masks=[1 - left])
    assert torch.equal(both[..., :32], one[..., :32])
    assert torch.equal(both[..., 32:], two[..., 32:])


def test_half_a_mask_is_half_a_change_and_overlapping_masks_share(picture: Tensor) -> None:
    method = tiny_gatys()
    full, half = (method.stylize(picture, painting(), masks=[torch.full((1, 1, 48, 64), m)]) for m in (1.0, 0.5))
    assert_close(half, (full + picture) / 2, atol=1e-2, rtol=0)
    white = torch.ones(1, 1, 48, 64)
    shared = method.stylize(picture, painting(), painting(), masks=[white, white])
    assert_close(shared, full, atol=1e-4, rtol=0)


def test_one_mask_for_all_styles_together(picture: Tensor) -> None:
    method = tiny_gatys()
    white = torch.ones(1, 1, 48, 64)
    found = method.stylize(picture, painting(), other(), weights=[1, 2], masks=[white])
    assert_close(found, method.stylize(picture, painting(), other(), weights=[1, 2]), atol=1e-5, rtol=0)


# --- sizes


@pytest.mark.parametrize("size", [(97, 131), (16, 16), (16, 23), (200, 17)])
def test_odd_sizes_through_all_octaves(size: tuple[int, int]) -> None:
    steps: list[tuple[int, ...]] = []
    method = tiny_gatys(octaves=3, least_side=16, coarse_steps=2, steps=2)
    found = method.stylize(torch.rand(1, 3, *size), painting(), on_step=lambda s: steps.append(tuple(s.image().shape)))
    assert found.shape == steps[-1] == (1, 3, *size)
    assert torch.isfinite(found).all()
    assert min(min(shape[2:]) for shape in steps) >= 16  # what the backbone needs


def test_octaves_halve_the_size_down_to_the_least() -> None:
    steps: list[tuple[int, int, tuple[int, ...]]] = []

    def on_step(step: Step) -> None:
        steps.append((step.index, step.total, tuple(step.image().shape[2:])))

    method = tiny_gatys(octaves=4, least_side=25, coarse_steps=2, steps=3)
    method.stylize(torch.rand(1, 3, 101, 128), painting(), on_step=on_step)
    assert [shape for _, _, shape in steps] == [(25, 32)] * 2 + [(50, 64)] * 2 + [(101, 128)] * 3
    assert [index for index, _, _ in steps] == list(range(1, 8))
    assert {total for _, total, _ in steps} == {7}


def test_coarse_sizes_aim_at_the_painting_at_half_its_size(picture: Tensor) -> None:
    """A card without the half-size moments is another aim for the coarse stage, and the same for the last one."""
    for octaves, same in ((0, True), (1, False)):
        method = tiny_gatys(octaves=octaves, least_side=16, coarse_steps=4, steps=2)
        style = method.encode_style(painting())
        whole = {name: value for name, value in style.items() if not name.startswith("half.")}
        assert len(whole) == len(style) / 2
        results = [method.transfer(picture, s) for s in (style, Style(whole, style.kind))]
        assert torch.equal(*results) == same


def test_the_deepest_layers_are_left_to_the_coarser_sizes(picture: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    """After coarser sizes the last one does not look at them; alone, it looks at all."""
    for octaves, wanted in ((1, [True, False]), (0, [True])):
        method = tiny_gatys(octaves=octaves, least_side=16, coarse_steps=1, steps=1)
        style, deepest, seen = method.encode_style(painting()), method.options.style_layers[-1], []
        plain = method.backbone.forward

        def forward(image: Tensor, layers: Collection[str]) -> dict[str, Tensor]:
            if image.requires_grad:
                seen.append(deepest in layers)
            return plain(image, layers)

        monkeypatch.setattr(method.backbone, "forward", forward)
        method.transfer(picture, style)
        assert seen == wanted
    assert len(tiny_gatys(skip_deepest=0).fine_layers) == 5
    assert tiny_gatys(skip_deepest=8).fine_layers == ("relu1_1",)


def test_without_coarse_steps_there_is_no_coarse_size() -> None:
    assert len(tiny_gatys(octaves=3, least_side=16, coarse_steps=0).scales(128, 128)) == 1


def test_a_photo_too_small_for_the_backbone_is_mirrored_and_cut_again() -> None:
    found = tiny_gatys(random_vgg("vgg16")).stylize(torch.rand(1, 3, 40, 31), painting(64, 64))
    assert found.shape == (1, 3, 40, 31)


def test_the_painting_is_looked_at_in_the_photos_size(picture: Tensor) -> None:
    """Larger paintings are shrunk to the photo's longer side, smaller ones are never enlarged."""
    method = tiny_gatys()
    large = painting(96, 120)
    shrunk = torch.nn.functional.interpolate(large, (51, 64), mode="bicubic", antialias=True).clamp(0, 1)
    assert torch.equal(method.stylize(picture, large), method.stylize(picture, method.encode_style(shrunk)))
    small = painting(20, 24)
    assert torch.equal(method.stylize(picture, small), method.stylize(picture, method.encode_style(small)))
    exact = method.stylize(picture, large, style_size=120)
    assert torch.equal(exact, method.stylize(picture, method.encode_style(large)))


# --- cards


def test_a_card_equals_its_painting_bit_for_bit(picture: Tensor, tmp_path: Path) -> None:
    method = tiny_gatys(octaves=1, least_side=32, coarse_steps=3)
    save_style(method.encode_style(painting()), tmp_path / "card.safetensors")
    card = load_style(tmp_path / "card.safetensors")
    assert torch.equal(method.stylize(picture, card), method.stylize(picture, painting()))


def test_cards_and_paintings_mix(picture: Tensor) -> None:
    method = tiny_gatys()
    found = method.stylize(picture, method.encode_style(painting()), other(), weights=[1, 3])
    assert torch.equal(found, method.stylize(picture, painting(), other(), weights=[1, 3]))


def test_a_card_of_fewer_layers_is_refused_with_what_it_knows(picture: Tensor) -> None:
    card = tiny_gatys(style_layers="relu1_1,relu2_1").encode_style(painting())
    with pytest.raises(OptionError, match="knows nothing of relu3_1; it was made from relu1_1, relu2_1"):
        tiny_gatys().stylize(picture, card)


def test_a_card_of_another_pooling_is_refused(picture: Tensor) -> None:
    card = tiny_gatys(pooling="average").encode_style(painting())
    with pytest.raises(OptionError, match="extract it again"):
        tiny_gatys().stylize(picture, card)


# --- the run


def test_losses_are_those_of_the_last_step(picture: Tensor) -> None:
    steps: list[dict[str, float]] = []
    method = tiny_gatys(tv_weight=1.0)
    assert method.losses == {}
    method.stylize(picture, painting(), on_step=lambda step: steps.append(step.terms))
    assert method.losses == steps[-1]
    assert set(method.losses) == {"content", "style", "tv"}


def test_an_interrupted_run_gives_a_picture_and_says_so(picture: Tensor) -> None:
    def on_step(step: Step) -> None:
        if step.index == 3:
            raise KeyboardInterrupt

    method = tiny_gatys(octaves=1, least_side=32, coarse_steps=6)
    found = method.stylize(picture, painting(), on_step=on_step)
    assert method.interrupted
    assert found.shape == picture.shape
    assert torch.isfinite(found).all()
    method.stylize(picture, painting())
    assert not method.interrupted


def test_an_interrupted_region_leaves_the_others_as_the_photo(picture: Tensor) -> None:
    def on_step(step: Step) -> None:
        raise KeyboardInterrupt

    method = tiny_gatys()
    left = torch.zeros(1, 1, 48, 64)
    left[..., :32] = 1
    found = method.stylize(picture, painting(), other(), masks=[left, 1 - left], on_step=on_step)
    assert method.interrupted
    assert torch.equal(found[..., 32:], picture[..., 32:])


def test_the_backbone_learns_nothing(picture: Tensor) -> None:
    method = tiny_gatys()
    before = {name: value.clone() for name, value in method.backbone.state_dict().items()}
    method.stylize(picture, painting())
    assert all(torch.equal(value, before[name]) for name, value in method.backbone.state_dict().items())
    assert all(parameter.grad is None for parameter in method.backbone.parameters())
