"""The recipes of the method gatys: what each is made of, and that each works, over narrow random networks."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from impasto.errors import WeightsError
from impasto.images.files import write_image
from impasto.methods import load
from impasto.methods.gatys import PRESETS, Gatys, GatysOptions
from impasto.networks.backbone import IMAGENET_STD
from impasto.optimize.descent import Pixels
from impasto.progress import Step
from reference import features as twin
from reference.variation import total_variation
from tiny import narrow_slim, painting, random_vgg

FIVE = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")

RECIPES: dict[str, dict[str, Any]] = {
    "gatys": {  # Gatys et al. 2016
        "backbone": "vgg19",
        "pooling": "average",
        "content_layers": ("relu4_2",),
        "style_layers": FIVE,
        "content_form": "half-sum",
        "style_loss": "gram",
        "gram_form": "gatys",
        "tv_weight": 0,
        "optimizer": "lbfgs",
        "start": "noise",
    },
    "d2l": {  # the book's code: layers 25 and 0, 5, 10, 19, 28 of torchvision's features
        "backbone": "vgg19",
        "pooling": "max",
        "content_layers": ("relu4_4",),
        "style_layers": ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "conv5_1"),
        "style_layer_weights": (1, 1, 1, 1, 1),
        "content_form": "mean",
        "style_loss": "gram",
        "gram_form": "neural-style",
        "content_weight": 1,
        "style_weight": 10 * 1e3,  # the list of losses is repeated ten times
        "tv_weight": 10,
        "tv_form": "l1-mean",
        "normalised_pixels": True,
        "clamp": False,
        "optimizer": "adam",
        "learning_rate": 0.3,
        "decay": 0.8,
        "decay_every": 50,
        "beta1": 0.9,
        "beta2": 0.999,
        "epsilon": 1e-8,
        "steps": 500,
        "start": "content",
        "start_noise": 0,
        "size": "450x300",
    },
    "beginners": {  # the TensorFlow notebook's last stage
        "backbone": "vgg16",
        "pooling": "max",
        "content_layers": ("relu4_2",),
        "style_layers": FIVE[:4],
        "content_form": "half-sum",
        "style_loss": "gram",
        "gram_form": "magenta",
        "content_weight": 57.4**2,
        "style_weight": 150 * 57.4**4,
        "tv_weight": 30,
        "tv_form": "l1-sum",
        "normalised_pixels": False,
        "clamp": False,
        "optimizer": "adam",
        "learning_rate": 0.002,
        "decay": 1,
        "beta1": 0.99,
        "beta2": 0.999,
        "epsilon": 0.1,
        "steps": 1000,
        "start": "content",
        "start_noise": 0.3,
        "start_shift": -0.3,
        "size": "256x256",
    },
    "vgg16-bn": {  # ReLUs after convolutions 2, 4, 7 and 2, 4, 7, 10, 13
        "backbone": "vgg16_bn",
        "content_layers": ("relu1_2", "relu2_2", "relu3_3"),
        "style_layers": ("relu1_2", "relu2_2", "relu3_3", "relu4_3", "relu5_3"),
        "content_form": "mean",
        "style_loss": "gram",
        "gram_form": "neural-style",
        "tv_weight": 0,
        "optimizer": "lbfgs",
        "start": "blurred-noise",
        "size": "400",
    },
}
names = pytest.mark.parametrize("name", RECIPES)


@pytest.fixture
def picture(picture: Tensor) -> Tensor:
    """A part of the picture that tests share, (1, 3, 32, 48)."""
    return picture[..., :32, 8:56].contiguous()


def recipe(name: str, **options: Any) -> Gatys:
    """The preset over a narrow random network of its own kind."""
    found = GatysOptions.parse({**PRESETS[name], **options}, "gatys")
    slim = found.backbone == "vgg19-slim"
    backbone = narrow_slim(pooling=found.pooling) if slim else random_vgg(found.backbone, pooling=found.pooling)
    return Gatys(found, backbone=backbone, preset=name)


# --- what they are made of


def test_the_recipes_are_these() -> None:
    assert set(PRESETS) == {"default", "thorough", *RECIPES}
    assert PRESETS["default"] == {}


def test_thorough_is_what_the_default_was() -> None:
    found = recipe("thorough")
    assert found._layer_weights() == (0.3, 0.25, 0.2, 0.15, 0.1)
    assert [(scale.height, scale.settings.steps) for scale in found.scales(512, 512)] == [
        (128, 100),
        (256, 100),
        (512, 60),
    ]
    assert found.fine_layers == found.options.style_layers
    assert type(found._parameter(painting())) is Pixels


@names
def test_a_recipe_is_its_sources(name: str) -> None:
    found = recipe(name).options.model_dump()
    assert {option: found[option] for option in RECIPES[name]} == RECIPES[name]
    assert found["octaves"] == 0  # all of them work at one size


def test_alpha_and_beta_of_the_canonical_recipe() -> None:
    found = GatysOptions.parse(PRESETS["gatys"], "gatys")
    assert found.content_weight / found.style_weight == pytest.approx(1e-4)
    assert recipe("gatys")._layer_weights() == (0.2,) * 5


@pytest.mark.parametrize(
    ("name", "photo", "size"),
    [
        ("default", (600, 900), (341, 512)),
        ("gatys", (600, 900), (341, 512)),
        ("d2l", (600, 900), (300, 450)),
        ("d2l", (100, 100), (300, 450)),
        ("beginners", (600, 900), (256, 256)),
        ("vgg16-bn", (600, 900), (267, 400)),
        ("vgg16-bn", (300, 200), (300, 200)),
    ],
)
def test_a_recipes_own_size(name: str, photo: tuple[int, int], size: tuple[int, int]) -> None:
    method = recipe(name)
    assert method.working_size(*photo, None) == size
    assert method.working_size(*photo, 90) == ((60, 90) if photo == (600, 900) else method.working_size(*photo, 90))
    assert method.working_size(*photo, (64, 48)) == (64, 48)


# --- what they minimise


def layer_features(method: Gatys, image: Tensor, layers: tuple[str, ...]) -> dict[str, np.ndarray]:
    return {layer: found[0].double().numpy() for layer, found in method.backbone(image, layers).items()}


def quick_gram(features: np.ndarray) -> np.ndarray:
    flat = features.reshape(len(features), -1)
    return flat @ flat.T


def gram_terms(method: Gatys, image: Tensor, style: Tensor) -> list[tuple[np.ndarray, int, int]]:
    """Of each style layer: difference of the Gram matrices, channels, positions."""
    layers = method.options.style_layers
    found, wanted = layer_features(method, image, layers), layer_features(method, style, layers)
    terms = []
    for layer in layers:
        channels, height, width = found[layer].shape
        terms.append((quick_gram(found[layer]) - quick_gram(wanted[layer]), channels, height * width))
    return terms


def by_hand(name: str, method: Gatys, image: Tensor, content: Tensor, style: Tensor) -> dict[str, float]:
    """The terms of the loss at `image` as the sources write them."""
    layers = method.options.content_layers
    here, there = layer_features(method, image, layers), layer_features(method, content, layers)
    half_sum = sum(twin.content_loss(here[layer], there[layer], "half-sum") for layer in layers)
    mean = sum(twin.content_loss(here[layer], there[layer], "mean") for layer in layers)
    terms = gram_terms(method, image, style)
    pixels = image[0].double().numpy()
    std = np.array(IMAGENET_STD).reshape(3, 1, 1)
    if name == "gatys":
        style_loss = sum((d**2).sum() / (4 * c**2 * n**2) / 5 for d, c, n in terms)
        return {"content": 1e-4 * half_sum, "style": style_loss}
    if name == "d2l":
        styles = [1e3 * ((d / (c * n)) ** 2).mean() for d, c, n in terms] * 10
        return {"content": mean, "style": sum(styles), "tv": 10 * total_variation(pixels / std, "l1-mean")}
    if name == "beginners":
        styles = [((d / n) ** 2).mean() / 4 for d, c, n in terms]
        return {
            "content": 57.4**2 * half_sum,
            "style": 150 * 57.4**4 * sum(styles),
            "tv": 30 * total_variation(pixels, "l1-sum"),
        }
    assert name == "vgg16-bn"
    weight = PRESETS[name]["style_weight"]
    return {"content": mean / 3, "style": weight * sum(((d / (c * n)) ** 2).mean() / 5 for d, c, n in terms)}


@names
def test_the_first_loss_is_the_sources(name: str, picture: Tensor, tmp_path: Path) -> None:
    """Started from a file, so that the picture whose loss is noted is known to the bit."""
    start = (torch.rand_like(picture) * 255).round() / 255
    write_image(start, tmp_path / "start.png")
    noted: list[Step] = []
    method = recipe(name, start=str(tmp_path / "start.png"), start_noise=0, start_shift=0, steps=1)
    style = painting(32, 48)
    method.stylize(picture, style, on_step=noted.append)
    wanted = by_hand(name, method, start, picture, style)
    assert noted[0].terms == pytest.approx(wanted, rel=1e-4)


def test_d2ls_repeated_list_counts_ten_times(picture: Tensor) -> None:
    """The effective weight of its style is 1e4, ten times the 1e3 in its text."""
    noted: list[Step] = []
    method = recipe("d2l", steps=1)
    method.stylize(picture, painting(32, 48), on_step=noted.append)
    plotted = sum(1e3 * ((d / (c * n)) ** 2).mean() for d, c, n in gram_terms(method, picture, painting(32, 48)))
    assert noted[0].terms["style"] / plotted == pytest.approx(10, rel=1e-4)


def test_beginners_starts_from_the_darkened_noisy_photo() -> None:
    grey = torch.full((1, 3, 64, 64), 0.6)
    method = recipe("beginners", steps=1, optimizer="gd", learning_rate=1e-30)
    found = method.stylize(grey, painting(64, 64))
    assert float(found.median()) == pytest.approx(0.3, abs=0.02)
    assert float((found < 1e-6).float().mean()) == pytest.approx(0.159, abs=0.02)  # a deviation of 0.3 below 0.3
    assert not torch.equal(found, method.stylize(grey, painting(64, 64), seed=1))


# --- how they run


def moving_average(values: list[float], count: int = 20) -> list[float]:
    return [sum(values[i : i + count]) / count for i in range(len(values) - count + 1)]


def run(name: str, picture: Tensor, **options: Any) -> list[dict[str, float]]:
    """All terms of a run of the recipe, whose picture is finite."""
    method = recipe(name, **options)
    noted: list[dict[str, float]] = []
    found = method.stylize(picture, painting(32, 48), on_step=lambda step: noted.append(step.terms))
    assert torch.isfinite(found).all()
    assert found.min() >= 0
    assert found.max() <= 1
    assert method.losses == noted[-1]
    return noted


def test_d2l_falls_steadily_and_loses_nine_tenths_of_its_style_loss(picture: Tensor) -> None:
    noted = run("d2l", picture)
    assert len(noted) == 500
    assert noted[-1]["style"] < 0.1 * noted[0]["style"]
    averages = moving_average([sum(terms.values()) for terms in noted])
    assert all(after < before for before, after in pairwise(averages))


@pytest.mark.parametrize(
    ("name", "steps", "left"), [("gatys", 60, 0.02), ("beginners", 150, 0.5), ("vgg16-bn", 60, 0.1)]
)
def test_the_other_recipes_fall_too(name: str, steps: int, left: float, picture: Tensor) -> None:
    noted = run(name, picture, steps=steps)
    totals = [sum(terms.values()) for terms in noted]
    assert totals[-1] < left * totals[0]
    assert totals[-1] < 1.2 * min(totals)
    assert noted[-1]["style"] < noted[0]["style"]


def test_the_default_falls_at_every_size(picture: Tensor) -> None:
    noted: list[tuple[int, float]] = []
    method = recipe("default", least_side=16, octaves=1, coarse_steps=20, steps=20)
    method.stylize(picture, painting(32, 48), on_step=lambda s: noted.append((s.image().shape[2], s.loss)))
    for height in (16, 32):
        losses = [loss for at, loss in noted if at == height]
        assert len(losses) == 20
        assert losses[-1] < 0.5 * losses[0]


def test_a_recipes_noise_is_the_seeds(picture: Tensor) -> None:
    for name in ("gatys", "beginners", "vgg16-bn"):
        method = recipe(name, steps=2)
        first, again, other = (method.stylize(picture, painting(), seed=seed) for seed in (3, 3, 4))
        assert torch.equal(first, again), name
        assert not torch.equal(first, other), name


def test_the_preset_goes_with_the_method() -> None:
    assert recipe("d2l").preset == "d2l"
    assert recipe("d2l").digests == {"vgg19": "random"}


def test_the_default_works_with_what_the_package_brings(picture: Tensor) -> None:
    try:
        method = load("gatys", steps=20, octaves=0)
    except WeightsError as error:
        pytest.skip(str(error))
    noted: list[float] = []
    method.stylize(picture, painting(32, 48), on_step=lambda step: noted.append(step.terms["style"]))
    assert len(noted) == 20
    assert noted[-1] < 0.3 * noted[0]
    assert len(method.digests["vgg19-slim"]) == 64
