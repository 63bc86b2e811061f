"""The layer table against numbers worked out by hand, feature maps, Gram matrices, correlations."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from impasto.errors import OptionError
from impasto.networks.backbones import load_backbone
from impasto.vision.inspection import WHOLE, layer_table, view
from recipe_support import random_classifier
from tiny import narrow_slim

pytest.importorskip("torchinfo")


def test_the_table_of_vgg19_slim() -> None:
    table = {row.name: row for row in layer_table(load_backbone(), 224)}
    assert list(table) == list(load_backbone().layers[1:])
    first, last = table["conv1_1"], table["relu5_1"]
    assert (first.shape, first.parameters, first.field, first.stride) == ((16, 224, 224), 3 * 16 * 9 + 16, 3, 1)
    assert first.multiply_adds == 224 * 224 * (3 * 16 * 9 + 16)
    assert (last.shape, last.parameters, last.multiply_adds) == ((128, 14, 14), 0, 0)
    assert (table["conv5_1"].field, table["conv5_1"].stride) == (156, 16)  # VGG-19's, whatever its widths
    assert table["pool1"].field == 6


def test_receptive_fields_are_those_that_gradients_show() -> None:
    network = narrow_slim(pooling="average")
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.weight.data.fill_(1.0)
    image = torch.ones(1, 3, 224, 224, requires_grad=True)
    table = {row.name: row.field for row in layer_table(network, 224)}
    for layer in ("relu1_2", "pool2", "relu3_2", "relu4_1"):
        features = network(image, {layer})[layer]
        (gradient,) = torch.autograd.grad(features[0, 0, features.shape[2] // 2, features.shape[3] // 2], image)
        touched = gradient[0, 0].abs().amax(0).nonzero().flatten()
        assert int(touched[-1] - touched[0]) + 1 == table[layer], layer


@pytest.mark.parametrize(
    ("name", "parameters", "field"),
    [("resnet50", 25_557_032, 427), ("squeezenet1_1", 1_235_496, 207), ("mobilenet_v3_large", 5_483_032, WHOLE)],
)
def test_torchvisions_networks(name: str, parameters: int, field: int) -> None:
    table = layer_table(load_backbone(name, pretrained=False), 96)
    assert sum(row.parameters for row in table) == parameters
    assert (table[-1].name, table[-1].shape, table[-1].field) == ("logits", (1000,), WHOLE)
    assert table[-2].field == field
    assert table[-1].to_json()["receptive_field"] == "whole"
    assert table[-1].to_json()["stride"] is None


def test_what_a_layer_makes_of_a_picture(picture: Tensor) -> None:
    network = narrow_slim()
    found = view(network, picture, "relu2_1")
    flat = network(picture, {"relu2_1"})["relu2_1"][0].flatten(1).double().numpy()
    np.testing.assert_allclose(found.gram.numpy(), flat @ flat.T / flat.shape[1], rtol=1e-4, atol=1e-6)
    alive = flat.std(1) > 0
    expected = np.corrcoef(flat[alive])
    np.testing.assert_allclose(found.correlation.numpy()[np.ix_(alive, alive)], expected, atol=1e-3)
    energies = (flat**2).mean(1)
    assert found.strongest[0] == int(energies.argmax())
    one, other, value = found.correlated(1)[0]
    off = np.abs(expected - np.eye(len(expected)))
    assert abs(value) == pytest.approx(off.max(), abs=1e-3)
    assert one != other


def test_a_dead_channel_correlates_with_nothing(picture: Tensor) -> None:
    network = narrow_slim()
    conv = network.steps["conv1_1"]
    assert isinstance(conv, torch.nn.Conv2d)
    conv.weight.data[2] = 0
    found = view(network, picture, "relu1_1")
    assert torch.all(found.correlation[2] == 0)
    assert torch.isfinite(found.correlation).all()


def test_sheets(picture: Tensor) -> None:
    found = view(narrow_slim(), picture, "relu1_1")
    three, one = found.maps(count=5, columns=2, cell=32), found.maps(count=2, columns=2, cell=32)
    assert three.shape == (1, 3, 3 * one.shape[2], one.shape[3])
    assert found.maps(count=1, columns=8, cell=32).shape[3] < one.shape[3]
    both = found.matrices(cell=64)
    assert both.shape[3] > 2 * 64
    assert 0 <= float(both.min()) < float(both.max()) <= 1


def test_logits_have_no_maps(picture: Tensor) -> None:
    with pytest.raises(OptionError, match="logits has no feature maps"):
        view(random_classifier().backbone, picture, "logits")
