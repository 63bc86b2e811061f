"""WCT: what the transforms promise, against float64 written once more, and what levels, detail and strength do."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from impasto.errors import OptionError
from impasto.feedforward.stages import run_whole
from impasto.methods.wct import WCT, WCTOptions, WCTTraining
from impasto.networks.backbone import SLIM_WIDTHS
from impasto.networks.layers import StepDecoder, count_parameters
from impasto.ops.moments import moments
from impasto.ops.whitening import affine, colour, hold_scale, transport
from impasto.optimize.perceptual_loss import PerceptualLoss
from tiny import painting, random_slim, tiny

KINDS = ("zca", "transport")


def features(seed: int, channels: int = 6, height: int = 12, width: int = 9) -> Tensor:
    """Correlated features, shifted away from 0, (1, C, H, W), in double precision."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(channels, channels, generator=generator, dtype=torch.float64)
    plain = torch.randn(1, channels, height, width, generator=generator, dtype=torch.float64)
    return torch.einsum("ij,bjhw->bihw", mixing, plain) + torch.arange(channels)[:, None, None]


def root(matrix: np.ndarray) -> np.ndarray:
    values, vectors = np.linalg.eigh(matrix)
    return vectors @ np.diag(np.sqrt(np.clip(values, 0, None))) @ vectors.T


def described(x: Tensor) -> tuple[np.ndarray, np.ndarray]:
    flat = x[0].flatten(1).double().numpy()
    return flat.mean(1), np.cov(flat, bias=True)


@pytest.mark.parametrize("kind", KINDS)
def test_mean_and_covariance_become_the_styles(kind: str) -> None:
    content, style = features(1), features(2, height=7, width=20)
    mean, covariance = described(colour(content, moments(style), kind))  # type: ignore[arg-type]
    wanted_mean, wanted = described(style)
    assert_close(torch.tensor(mean), torch.tensor(wanted_mean), atol=1e-4, rtol=0)
    assert np.abs(covariance - wanted).max() <= 1e-2 * np.abs(wanted).max()


def test_the_maps_are_the_formulas() -> None:
    content, style = features(3), features(4)
    (mean_c, cov_c), (mean_s, cov_s) = described(content), described(style)
    whiten = np.linalg.inv(root(cov_c))
    wanted = {"zca": root(cov_s) @ whiten, "transport": whiten @ root(root(cov_c) @ cov_s @ root(cov_c)) @ whiten}
    for kind, matrix in wanted.items():
        found = transport(moments(content), moments(style), kind)  # type: ignore[arg-type]
        assert_close(found, torch.tensor(matrix), atol=1e-4, rtol=1e-4)
        ((_, before, after),) = affine(moments(content), moments(style), kind)  # type: ignore[arg-type]
        assert_close(before, torch.tensor(mean_c), atol=1e-4, rtol=1e-4)
        assert_close(after, torch.tensor(mean_s), atol=1e-4, rtol=1e-4)


def test_the_transport_moves_least() -> None:
    content, style = features(5), features(6)
    zca, least = ((colour(content, moments(style), kind) - content).square().mean() for kind in KINDS)  # type: ignore[arg-type]
    assert least < 0.99 * zca


@pytest.mark.parametrize("kind", KINDS)
def test_a_picture_in_its_own_style_stays_as_it_is(kind: str) -> None:
    content = features(7)
    assert_close(colour(content, moments(content), kind), content, atol=1e-3, rtol=0)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", KINDS)
def test_fewer_positions_than_channels_stay_finite(kind: str) -> None:
    content = features(8, channels=16, height=2, width=3).float()
    for style in (features(9, channels=16), features(10, channels=16, height=1, width=2), content * 0):
        found = colour(content, moments(style.float()), kind)  # type: ignore[arg-type]
        assert torch.isfinite(found).all()
        assert found.abs().max() < 1e3


def test_strength_goes_straight_from_the_content_to_the_style() -> None:
    content, style = features(11), moments(features(12))
    whole = colour(content, style, "transport")
    assert colour(content, style, "transport", 0) is content
    assert_close(colour(content, style, "transport", 0.25), content.lerp(whole, 0.25), atol=1e-4, rtol=1e-4)


def test_a_batch_is_coloured_sample_by_sample() -> None:
    content, style = (torch.cat([features(seed), features(seed + 1)]) for seed in (13, 15))
    both = colour(content, moments(style), "transport")
    for i in range(2):
        one = colour(content[i : i + 1], moments(style[i : i + 1]), "transport")
        assert_close(both[i : i + 1], one)


def test_a_region_takes_on_the_styles_moments_by_itself() -> None:
    content, style = features(17), features(18)
    mask = torch.zeros(1, 1, 12, 9)
    mask[..., :5, :] = 1
    found = colour(content, moments(style), "transport", own=moments(content, mask=mask))
    mean, covariance = described(found[..., :5, :])
    wanted_mean, wanted = described(style)
    assert np.abs(mean - wanted_mean).max() < 1e-3
    assert np.abs(covariance - wanted).max() <= 1e-2 * np.abs(wanted).max()


def test_gradients_know_that_shift_and_scale_are_undone() -> None:
    content, style = features(19).requires_grad_(), moments(features(20))
    assert_close(hold_scale(content), content)
    aim = features(21)
    (gradient,) = torch.autograd.grad((colour(content, style, "transport") * aim).sum(), content)
    plain = content.detach()
    for direction in (torch.ones_like(plain), plain - plain.mean((2, 3), keepdim=True)):
        along = (gradient * direction).sum((2, 3))
        size = gradient.square().sum((2, 3)).sqrt() * direction.square().sum((2, 3)).sqrt()
        assert (along.abs() < 1e-3 * size).all()


# --- the whole method


def model(**options: object) -> WCT:
    made = tiny("wct")
    assert isinstance(made, WCT)
    return WCT(WCTOptions.parse({"precision": "fp32", **options}, "wct"), backbone=made.backbone, decoder=made.decoder)


def test_at_strength_0_without_detail_the_deepest_features_are_decoded(picture: Tensor) -> None:
    wct = model(detail=(0,))
    deepest = wct.backbone(picture, ["relu4_1"])["relu4_1"]
    found = run_whole(wct.stages(wct.encode_style(painting()), strength=0.0), picture)
    assert_close(found, wct.decoder(deepest, 4).clamp(0, 1), atol=1e-5, rtol=0)


@pytest.mark.parametrize("levels", [(1,), (3, 1), (5, 4, 3, 2, 1)])
def test_levels_are_those_of_the_card_and_of_the_picture(picture: Tensor, levels: tuple[int, ...]) -> None:
    wct = model(levels=levels)
    style = wct.encode_style(painting())
    assert {name.split(".")[0] for name in style} == {f"relu{level}_1" for level in levels}
    found = wct.transfer(picture, style)
    assert not torch.equal(found, wct.transfer(picture, style, strength=0))


def test_a_painting_mixes_with_a_card_of_more_levels(picture: Tensor) -> None:
    few, card = model(), model(levels=(5, 4, 3, 2, 1)).encode_style(painting())
    mixed = few.stylize(picture, painting(seed=6), card, weights=(0, 1))
    assert torch.equal(mixed, few.transfer(picture, few.encode_style(painting())))
    assert len(few.accept_style(card)) < len(card)


def test_full_detail_leaves_only_the_shallowest_transform(picture: Tensor) -> None:
    style = model().encode_style(painting())
    every, last = (model(levels=levels, detail=(1,) * (len(levels) - 1)) for levels in ((4, 3, 2, 1), (1,)))
    assert_close(every.transfer(picture, style), last.transfer(picture, style), atol=1e-5, rtol=0)


def test_level_strengths_of_0_are_no_strength(picture: Tensor) -> None:
    none = model(level_strengths=(0, 0, 0, 0)).stylize(picture, painting())
    wct = model()
    rebuilt = run_whole(wct.stages(wct.encode_style(painting()), strength=0.0), picture)
    assert_close(none, rebuilt, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"levels": (1, 2)}, "deep to shallow"),
        ({"levels": (6, 1)}, "deep to shallow"),
        ({"level_strengths": (1,)}, "4 levels need as many"),
        ({"detail": (0.1, 0.2)}, "need 1 or 3"),
        ({"detail": (1.5,)}, "from 0 to 1"),
        ({"transform": "magic"}, "transform"),
    ],
)
def test_odd_options_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        WCTOptions.parse(options, "wct")


# --- training


def test_steps_in_a_row_are_adains_decoder() -> None:
    assert count_parameters(StepDecoder(SLIM_WIDTHS)) - count_parameters(StepDecoder(SLIM_WIDTHS).steps[4]) == 219_667


def test_what_is_painted_in_training_is_what_the_method_paints(picture: Tensor) -> None:
    wct = model(detail=(0.5,))
    learner = WCTTraining(wct.backbone, SLIM_WIDTHS)
    learner.network = wct.decoder
    found = learner.paint(picture, painting(48, 64), detail=0.5).clamp(0, 1)
    assert_close(found, wct.stylize(picture, painting(48, 64)), atol=1e-4, rtol=0)


def test_without_a_judge_it_only_learns_to_rebuild(picture: Tensor) -> None:
    backbone = random_slim()
    alone = WCTTraining(backbone, SLIM_WIDTHS).training_terms(picture, painting(48, 64), 0.0)
    assert set(alone) == {"step5", "step4", "step3", "step2", "step1", "pixels"}
    judged = WCTTraining(backbone, SLIM_WIDTHS, PerceptualLoss(random_slim(heads=True)))
    assert set(judged.training_terms(picture, painting(48, 64), 0.0)) == {*alone, "content", "style"}
