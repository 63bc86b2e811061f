"""The shipped weights at less than full strength: the less, the nearer the photo, and a picture at every one."""

from __future__ import annotations

import itertools

import pytest
import torch
from skimage import data

from impasto.images.tensors import resize
from impasto.methods import load
from impasto.stylizers.styles import load_style

SHIPPED = ["swift", "metanet", "wct", "adain", "sanet"]
STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0)


@pytest.mark.parametrize("style", ["imaginary-prisons", "starry-night"])
@pytest.mark.parametrize("name", SHIPPED)
def test_less_strength_is_nearer_the_photo(name: str, style: str) -> None:
    photo = resize(torch.from_numpy(data.chelsea()).permute(2, 0, 1)[None] / 255, 120, 180)
    model = load(name, precision="fp32")
    card = load_style(style)
    found = [float((model.stylize(photo, card, strength=s) - photo).square().mean().sqrt()) for s in STRENGTHS]
    assert found[0] < 0.15
    assert all(less <= more + 0.01 for less, more in itertools.pairwise(found))
    assert found[-1] > found[0] + 0.02
