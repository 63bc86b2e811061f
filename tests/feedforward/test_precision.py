"""bfloat16, which --precision auto takes where the hardware is made for it, gives fp32's picture."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from impasto.methods import load
from impasto.networks.layers import Conv, run_in_full
from tiny import painting

LEAST_DB = 40.0


def signal_to_noise(found: Tensor, wanted: Tensor) -> float:
    return float(-10 * (found - wanted).square().mean().log10())


@pytest.mark.parametrize("name", ["swift", "metanet", "wct", "adain", "sanet"])
def test_shipped_weights_in_bfloat16(name: str) -> None:
    half, full = load(name, precision="bf16"), load(name, precision="fp32")
    photo = painting(120, 160, seed=3)
    for seed in (5, 9):
        style = full.encode_style(painting(100, 100, seed=seed))
        wanted = full.stylize(photo, style)
        found = half.stylize(photo, painting(100, 100, seed=seed))
        assert found.dtype == torch.float32
        assert (found - wanted).abs().max() > 1e-4
        assert signal_to_noise(found, wanted) >= LEAST_DB


def test_the_first_layer_sees_pixels_that_are_not_rounded() -> None:
    layer, image = Conv(3, 8), torch.rand(1, 3, 24, 24)
    wanted = run_in_full(layer, image)
    assert torch.equal(wanted, layer(image))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found, rounded = run_in_full(layer, image), layer(image)
    assert found.dtype == rounded.dtype == torch.bfloat16
    assert torch.equal(found, wanted.bfloat16())
    assert not torch.equal(rounded, wanted.bfloat16())
    assert run_in_full(layer.double(), image.double()).dtype == torch.float64
