"""Pictures rebuilt from layers: the facts of Mahendran & Vedaldi and of Gatys' figure, on the embedded backbone."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from impasto.errors import OptionError
from impasto.networks.backbones import load_backbone
from impasto.optimize.descent import noise_like
from impasto.vision.inversion import InversionOptions, gram_error, invert_content, invert_style, likeness, sheet_layers
from recipe_support import digest_of, natural
from tiny import narrow_slim, random_vgg

CONTENTS = ("relu1_2", "relu2_2", "relu3_2", "relu4_2", "relu5_1")
STYLES = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")


def test_the_deeper_the_layer_the_less_is_known_of_the_pixels() -> None:
    network, image = load_backbone(pooling="average"), natural("flower.jpg", 64)
    before = digest_of(network)
    options = InversionOptions(steps=70)
    found = [invert_content(network, image, layer, options).psnr for layer in CONTENTS]
    assert found == sorted(found, reverse=True), found
    assert found[0] >= 25
    assert digest_of(network) == before


def test_style_is_texture_without_place() -> None:
    network, image = load_backbone(pooling="average"), natural("flower.jpg", 80)
    options = InversionOptions(steps=100)
    for layers in (STYLES[:1], STYLES[:3]):
        found = invert_style(network, image, layers, options)
        assert abs(found.likeness) < 0.2
        start = noise_like(image, options.noise, 0)
        assert gram_error(network, found.image, image, layers) < 0.01 * gram_error(network, start, image, layers)
        assert found.ratio < 0.01


def test_the_layers_of_the_figure() -> None:
    assert sheet_layers(narrow_slim()) == (CONTENTS, STYLES)
    assert sheet_layers(random_vgg("vgg19"))[0] == (*CONTENTS[:4], "relu5_2")


@pytest.mark.parametrize("name", ["vgg16", "vgg19_bn", "squeezenet1_1", "mobilenet_v3_large"])
def test_any_backbone(name: str, picture: Tensor) -> None:
    network = random_vgg(name) if name.startswith("vgg") else load_backbone(name, pretrained=False)
    contents, styles = sheet_layers(network)
    options = InversionOptions(steps=4, learning_rate=0.02, optimizer="adam")
    found = invert_content(network, picture, contents[0], options)
    assert found.image.shape == picture.shape
    losses = [sum(terms.values()) for terms in found.result.losses]
    assert losses[-1] < losses[0]
    assert invert_style(network, picture, styles[:2], options).ratio < 1


def test_the_same_seed_gives_the_same_bits(picture: Tensor) -> None:
    options = InversionOptions(steps=2)
    one, two, other = (invert_content(narrow_slim(), picture, "relu2_1", options, seed=s).image for s in (1, 1, 2))
    assert torch.equal(one, two)
    assert not torch.equal(one, other)


def test_likeness() -> None:
    image = torch.rand(1, 3, 9, 7)
    assert likeness(image, image * 0.5 + 0.1) == pytest.approx(1.0, abs=1e-5)
    assert likeness(image, 1 - image) == pytest.approx(-1.0, abs=1e-5)
    assert likeness(image, torch.zeros_like(image)) == 0.0


def test_an_unknown_layer(picture: Tensor) -> None:
    with pytest.raises(OptionError, match="no layer 'relu9_1'"):
        invert_content(narrow_slim(), picture, "relu9_1")
