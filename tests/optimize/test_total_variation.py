"""Total variation in all its published forms."""

from __future__ import annotations

from typing import get_args

import pytest
import torch
from torch.testing import assert_close

from impasto.networks.backbone import IMAGENET_STD
from impasto.optimize.losses import TotalVariation, VariationForm
from reference.variation import total_variation

FORMS = get_args(VariationForm)
TOLERANCES = {torch.float32: 1e-5, torch.float64: 1e-10}
forms = pytest.mark.parametrize("form", FORMS)


@forms
@pytest.mark.parametrize("dtype", list(TOLERANCES), ids=["float32", "float64"])
def test_variation_is_the_naive_one(form: VariationForm, dtype: torch.dtype) -> None:
    image = torch.rand(1, 3, 5, 7, dtype=dtype)
    found = TotalVariation(form)(image)
    assert found.dtype == dtype
    assert float(found) == pytest.approx(total_variation(image[0].double().numpy(), form), rel=TOLERANCES[dtype])


@forms
def test_gradients_are_those_of_finite_differences(form: VariationForm) -> None:
    image = torch.rand(1, 3, 3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(TotalVariation(form), image)


BY_HAND = {
    "l1-mean": 0.5 * ((2 + 5) / 2 + (1 + 4) / 2),
    "l1-sum": 2 + 5 + 1 + 4,
    "l2-mean": (4 + 25 + 1 + 16) / 4,
    "power": (4 + 1) ** 1.25,
}


@pytest.mark.parametrize("form", BY_HAND)
def test_variation_by_hand(form: VariationForm) -> None:
    image = torch.tensor([[0.0, 1.0], [2.0, 6.0]]).view(1, 1, 2, 2)  # down 2 and 5, right 1 and 4
    assert float(TotalVariation(form)(image)) == pytest.approx(BY_HAND[form])


def test_the_nine_point_stencil_by_hand() -> None:
    """One bright pixel: in four windows two straight neighbours and one diagonal differ."""
    image = torch.zeros(1, 1, 3, 3)
    image[..., 1, 1] = 1
    windows = 4 * 4  # the picture of 3x3, each edge repeated once
    straight, diagonal = 2 / windows, 2 / windows  # how often each of right, down, falling and rising differs
    wanted = 2 * (2 * straight / 3 + 2 * diagonal / 12)
    assert float(TotalVariation("nine-point")(image)) == pytest.approx(wanted)


@forms
def test_a_flat_picture_does_not_vary_and_has_a_finite_gradient(form: VariationForm) -> None:
    image = torch.full((1, 3, 6, 6), 0.5, requires_grad=True)
    found = TotalVariation(form)(image)
    found.backward()
    assert float(found.detach()) < 1e-9
    assert image.grad is not None
    assert torch.isfinite(image.grad).all()


@forms
def test_noise_varies_more_than_what_is_smoothed(form: VariationForm) -> None:
    noise = torch.rand(1, 3, 12, 12)
    smooth = torch.nn.functional.avg_pool2d(noise, 3, 1, 1, count_include_pad=False)
    assert float(TotalVariation(form)(smooth)) < 0.5 * float(TotalVariation(form)(noise))


def test_on_normalised_pixels_the_channels_count_by_their_deviation() -> None:
    image = torch.rand(1, 3, 5, 5)
    std = torch.tensor(IMAGENET_STD).view(1, 3, 1, 1)
    variation = TotalVariation("l1-mean", std)
    assert_close(variation(image), TotalVariation("l1-mean")(image / std))
    assert_close(variation(image + torch.rand(1, 3, 1, 1)), variation(image))
