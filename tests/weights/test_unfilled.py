"""A network that a file fills draws no random weights first."""

from __future__ import annotations

import torch
from torch import nn

from impasto.networks.backbones import load_backbone
from impasto.weights.files import Unfilled


def make() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 5, 3), nn.Linear(4, 6), nn.InstanceNorm2d(5, affine=True), nn.ConvTranspose2d(5, 3, 4)
    )


def test_nothing_is_drawn_and_shapes_stay() -> None:
    wanted = {name: value.shape for name, value in make().state_dict().items()}
    before = torch.get_rng_state()
    with Unfilled():
        found = make().state_dict()
        assert torch.equal(torch.ones(2), torch.zeros(2) + 1)  # everything else runs
    assert torch.equal(torch.get_rng_state(), before)
    assert {name: value.shape for name, value in found.items()} == wanted
    assert torch.equal(found["2.weight"], torch.ones(5))  # constants are no noise
    make()
    assert not torch.equal(torch.get_rng_state(), before)


def test_loading_a_backbone_leaves_the_random_numbers_alone() -> None:
    before = torch.get_rng_state()
    network = load_backbone()
    assert torch.equal(torch.get_rng_state(), before)
    assert all(bool(torch.isfinite(value).all()) for value in network.state_dict().values())
