"""Ideal pictures of classes, channels and units: sure of the class, smooth with total variation, no weight changed."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from impasto.errors import OptionError
from impasto.networks.backbones import load_backbone
from impasto.networks.classifiers import load_classifier
from impasto.optimize.losses import ActivationLoss, ClassLoss, TotalVariation
from impasto.optimize.parameterizations import Fourier
from impasto.vision.dreams import PRESETS, DreamOptions, Target, dream, random_view
from recipe_support import digest_of, random_classifier
from tiny import narrow_slim, random_vgg


def options(preset: str = "default", **changes: object) -> DreamOptions:
    return DreamOptions.parse({**PRESETS[preset], **changes}, "dream")


def test_plain_pixels_convince_the_network_and_total_variation_smooths_them() -> None:
    model = load_classifier()
    before = digest_of(model.backbone)
    target = Target("logits", model.find("giraffe"))
    noisy = dream(model.backbone, target, options("noise", steps=40), size=32).image
    smooth = dream(model.backbone, target, options("beginners", first_steps=40, steps=450), size=32).image
    chances = [float(model.probabilities(image)[0, target.channel]) for image in (noisy, smooth)]
    assert chances[0] > 0.99
    assert chances[1] > 0.9
    variation = TotalVariation("l1-sum")
    assert float(variation(smooth)) <= float(variation(noisy)) / 5
    assert digest_of(model.backbone) == before


def test_the_default_is_sure_of_the_class_and_no_noise() -> None:
    model = load_classifier()
    target = Target("logits", model.find("flower"))
    image = dream(model.backbone, target, options(steps=40), size=96).image
    assert float(model.probabilities(image)[0, target.channel]) > 0.99
    assert correlation_of_neighbours(image) > 0.8
    noise = dream(model.backbone, target, options("noise", steps=40), size=96).image
    assert correlation_of_neighbours(noise) < 0.4


def correlation_of_neighbours(image: Tensor) -> float:
    """How alike pixels are that lie side by side: about 0 for noise, near 1 for photographs."""
    pairs = torch.stack([image[..., 1:].flatten(), image[..., :-1].flatten()])
    return float(torch.corrcoef(pairs)[0, 1])


@pytest.mark.parametrize("position", [None, (1, 2)])
def test_a_channel_and_a_unit(position: tuple[int, int] | None) -> None:
    network = narrow_slim()
    target = Target("relu3_1", 5, position)
    found = dream(network, target, options(steps=8, jitter=0, zoom=0, turn=0), size=48)
    assert found.losses[-1]["channel"] < found.losses[0]["channel"]


@pytest.mark.parametrize("name", ["vgg16_bn", "squeezenet1_1", "mobilenet_v3_large"])
def test_any_backbone(name: str) -> None:
    network = random_vgg(name) if name.startswith("vgg") else load_backbone(name, pretrained=False)
    layer = network.layers[-1]
    found = dream(network, Target(layer, 3), options(steps=3, goal="cross-entropy"), size=40)
    assert found.image.shape == (1, 3, 40, 40)
    assert torch.isfinite(found.image).all()


def test_the_same_seed_gives_the_same_bits_and_steps_are_counted_through() -> None:
    network = random_classifier().backbone
    seen: list[tuple[int, int]] = []
    few = options("beginners", first_steps=2, steps=3)
    one = dream(network, Target("logits", 1), few, size=32, seed=4, on_step=lambda s: seen.append((s.index, s.total)))
    assert seen == [(i, 5) for i in range(1, 6)]
    assert [set(terms) for terms in one.losses] == [{"class"}] * 2 + [{"class", "tv"}] * 3
    assert torch.equal(one.image, dream(network, Target("logits", 1), few, size=32, seed=4).image)
    assert not torch.equal(one.image, dream(network, Target("logits", 1), few, size=32, seed=5).image)


def test_what_is_not_there() -> None:
    network = random_classifier().backbone
    for target, complaint in (
        (Target("relu9_9", 0), "no layer"),
        (Target("relu3_1", 99), "no channel 99: the layer has 24"),
        (Target("relu3_1", 0, (50, 0)), "no unit 50,0: the layer has 8 rows and 8 columns"),
    ):
        with pytest.raises(OptionError, match=complaint):
            dream(network, target, options(steps=1), size=32)
    with pytest.raises(OptionError, match="at least 16 px"):
        dream(network, Target("logits", 0), options(steps=1), size=8)


# --- parts


def test_losses_by_hand() -> None:
    logits = torch.tensor([[1.0, 2.0, 0.5]])
    assert float(ClassLoss(1)(logits)) == pytest.approx(float(-logits.log_softmax(1)[0, 1]))
    features = torch.rand(1, 2, 3, 4)
    assert float(ActivationLoss(1)(features)) == pytest.approx(-float(features[0, 1].mean()))
    assert float(ActivationLoss(0, (2, 3))(features)) == -float(features[0, 0, 2, 3])
    assert float(ActivationLoss(2)(logits)) == -0.5


def test_fourier_images_start_smooth_and_weak() -> None:
    image = Fourier(torch.randn(1, 3, 33, 48), spread=0.2)().detach()
    assert image.shape == (1, 3, 33, 48)
    assert float((image - 0.5).abs().mean()) < 0.1
    assert correlation_of_neighbours(image) > 0.7


def test_every_fourier_coefficient_is_felt() -> None:
    parameter = Fourier(torch.randn(1, 3, 16, 16))
    parameter().square().sum().backward()
    assert parameter.values.grad is not None
    assert float((parameter.values.grad[..., 0] != 0).float().mean()) > 0.99


def test_trembling_is_small_and_off_if_nothing_trembles(picture: Tensor) -> None:
    square = picture[..., :48]
    assert random_view(options(jitter=0, zoom=0, turn=0), torch.Generator()) is None
    moved = random_view(options(jitter=2, zoom=0, turn=0), torch.Generator().manual_seed(1))
    assert moved is not None
    first, second = moved(square), moved(square)
    assert not torch.equal(first, second)
    assert float((first - square).abs().mean()) < 0.3
