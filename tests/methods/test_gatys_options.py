"""The options of the method gatys: each is validated, each counts."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from impasto.errors import ImageError, OptionError
from impasto.images.files import write_image
from impasto.images.tensors import resize
from impasto.methods import load
from impasto.methods.gatys import Gatys, GatysOptions, StyleLoss
from impasto.ops.moments import moments
from impasto.optimize.descent import Pixels
from impasto.optimize.losses import ContentForm, GramForm, TotalVariation, VariationForm
from impasto.optimize.pyramids import GreyDetail
from impasto.stylizers.published_recipes import STYLE_LAYERS
from impasto.stylizers.styles import recall
from tiny import painting, random_slim, random_vgg, tiny_gatys

WRONG: dict[str, tuple[Any, ...]] = {
    "backbone": (3, "nothing"),
    "backbone_weights": (3,),
    "pooling": ("sum", ""),
    "content_layers": (3, (1, 2)),
    "style_layers": (3, (1, 2)),
    "style_layer_weights": ("1,2", (1, 1, 1, 1, -1), (1, 1, 1, 1, math.nan), "a,b,c,d,e"),
    "content_weight": (-1, math.inf, "much"),
    "style_weight": (-1, math.nan),
    "tv_weight": (-0.1,),
    "content_form": ("sum",),
    "style_loss": ("style",),
    "gram_form": ("johnson",),
    "tv_form": ("l3",),
    "normalised_pixels": ("perhaps",),
    "parameters": ("bands",),
    "clamp": (2,),
    "optimizer": ("sgd",),
    "learning_rate": (0, -1, math.inf),
    "decay": (0, 1.1),
    "decay_every": (0, 2.5),
    "beta1": (1, -0.1),
    "beta2": (1, -0.1),
    "epsilon": (0,),
    "average": (1, -0.1),
    "steps": (0, 100_001, "many", 2.5),
    "coarse_steps": (-1,),
    "octaves": (-1, 7),
    "skip_deepest": (-1, 9),
    "least_side": (15, 4097),
    "start": (3,),
    "start_noise": (-0.1, 1.1),
    "start_shift": (-1.1, 1.1),
    "style_scale": (0, 4.1),
    "size": ("large", "15", "0x100", 512),
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in WRONG.items() for value in values])
def test_a_wrong_value_is_refused_by_its_name(name: str, value: object) -> None:
    with pytest.raises(OptionError) as caught:
        load("gatys", **{name: value})
    message = str(caught.value)
    assert name.replace("_", "-") in message or name.replace("_", " ") in message
    assert "\n" not in message


def test_no_option_is_left_unvalidated() -> None:
    assert set(WRONG) == set(GatysOptions.model_fields)


def test_a_pyramid_has_no_pixels_to_clamp_or_normalise() -> None:
    for name in ("clamp", "normalised_pixels"):
        with pytest.raises(OptionError, match="need --parameters pixels"):
            load("gatys", parameters="pyramid", **{name: True})


def test_finest_detail_is_grey_unless_pixels_are_clamped_or_normalised() -> None:
    image = painting()
    for options, kind in (({}, GreyDetail), ({"clamp": True}, Pixels), ({"normalised_pixels": True}, Pixels)):
        assert type(tiny_gatys(parameters="auto", **options)._parameter(image)) is kind
    assert type(tiny_gatys(parameters="pixels")._parameter(image)) is Pixels


def test_all_weights_0_is_refused(picture: Tensor) -> None:
    with pytest.raises(OptionError, match="all weights are 0"):
        tiny_gatys(content_weight=0, style_weight=0, tv_weight=0).stylize(picture, painting())


def test_options_may_come_as_text() -> None:
    found = GatysOptions.parse(
        {"style_layers": "relu1_1, relu2_1", "style_layer_weights": "1,2.5", "steps": "7", "clamp": "true"}, "gatys"
    )
    assert found.style_layers == ("relu1_1", "relu2_1")
    assert found.style_layer_weights == (1, 2.5)
    assert found.steps == 7
    assert found.clamp is True


@pytest.mark.parametrize("name", ["content_layers", "style_layers"])
def test_an_unknown_layer_is_refused_with_those_that_there_are(name: str) -> None:
    with pytest.raises(OptionError, match=r"vgg19-slim has no layer 'relu9_9'.*; it has: image, conv1_1, relu1_1, "):
        tiny_gatys(**{name: ("relu1_1", "relu9_9")})


# --- each counts


@pytest.fixture
def picture(picture: Tensor) -> Tensor:
    """A part of the picture that tests share, (1, 3, 32, 48)."""
    return picture[..., :32, 8:56].contiguous()


def style_distance(method: Gatys, result: Tensor, style: Tensor) -> float:
    """Mean relative error of the Gram matrices of the five layers."""
    seen, target = method.backbone(result, STYLE_LAYERS), method.encode_style(style)
    errors = []
    for layer in STYLE_LAYERS:
        wanted = recall(target, layer).second
        errors.append(float((moments(seen[layer]).second - wanted).norm() / wanted.norm()))
    return sum(errors) / len(errors)


def content_distance(method: Gatys, result: Tensor, content: Tensor) -> float:
    seen, wanted = (method.backbone(image, ["relu4_1"])["relu4_1"] for image in (result, content))
    return float((seen - wanted).square().mean() / wanted.var())


def falls(method: Gatys, picture: Tensor) -> Tensor:
    """The result of a run whose loss fell."""
    losses: list[float] = []
    result = method.stylize(picture, painting(), on_step=lambda step: losses.append(step.loss))
    assert len(losses) == method.options.steps
    assert all(math.isfinite(loss) for loss in losses)
    assert losses[-1] < 0.9 * losses[0]
    assert method.losses.keys() >= {"content", "style"}
    return result


@pytest.mark.parametrize("style_loss", get_args(StyleLoss))
def test_every_style_loss_brings_the_style_nearer(picture: Tensor, style_loss: str) -> None:
    method = tiny_gatys(style_loss=style_loss, steps=20)
    result = falls(method, picture)
    assert style_distance(method, result, painting()) < 0.7 * style_distance(method, picture, painting())


WEIGHTS = {"gatys": 1e2, "leongatys": 1.0, "neural-style": 1e5, "magenta": 1e2, "mailcorahul": 1e-6, "relative": 10.0}


@pytest.mark.parametrize("form", get_args(GramForm))
def test_every_gram_normalisation_brings_the_style_nearer(picture: Tensor, form: str) -> None:
    method = tiny_gatys(style_loss="gram", gram_form=form, style_weight=WEIGHTS[form], steps=20)
    result = falls(method, picture)
    assert style_distance(method, result, painting()) < 0.7 * style_distance(method, picture, painting())


@pytest.mark.parametrize("form", get_args(ContentForm))
def test_every_content_form_keeps_the_content(picture: Tensor, form: str) -> None:
    weights = {"half-sum": 1.0, "mean": 1e3, "relative": 1e3}
    free, tied = (tiny_gatys(content_form=form, content_weight=w, steps=20) for w in (0.0, weights[form]))
    distances = [content_distance(m, m.stylize(picture, painting()), picture) for m in (free, tied)]
    assert distances[1] < 0.2 * distances[0]


@pytest.mark.parametrize(("optimizer", "rate"), [("lbfgs", 1.0), ("adam", 0.02), ("gd", 0.01)])
def test_every_optimizer_lets_the_loss_fall(picture: Tensor, optimizer: str, rate: float) -> None:
    falls(tiny_gatys(optimizer=optimizer, learning_rate=rate, steps=20), picture)


@pytest.mark.parametrize("form", get_args(VariationForm))
def test_weight_on_total_variation_lowers_it(picture: Tensor, form: str) -> None:
    weight = {"l1-sum": 0.2, "power": 1.0}.get(form, 2000.0)
    plain, smooth = (tiny_gatys(tv_form=form, tv_weight=w, steps=20) for w in (0.0, weight))
    results = [method.stylize(picture, painting()) for method in (plain, smooth)]
    variation = [float(TotalVariation(form)(result)) for result in results]  # type: ignore[arg-type]
    assert variation[1] < 0.8 * variation[0]
    assert "tv" in smooth.losses
    assert "tv" not in plain.losses


@pytest.mark.parametrize(
    "options",
    [
        {"content_layers": "relu3_1,relu4_1"},
        {"style_layers": "relu1_1,relu2_1"},
        {"style_layer_weights": (1.0, 0.5, 0.25, 0.1, 0.1)},
        {"pooling": "average"},
        {"normalised_pixels": True},
        {"clamp": True},
        {"parameters": "pyramid"},
        {"optimizer": "adam", "learning_rate": 0.02},
        {"average": 0.5},
        {"style_scale": 0.5},
        {"octaves": 1, "least_side": 16, "coarse_steps": 5},
    ],
    ids=lambda options: next(iter(options)),
)
def test_an_option_changes_the_picture(picture: Tensor, options: dict[str, Any]) -> None:
    plain, changed = tiny_gatys().stylize(picture, painting()), tiny_gatys(**options).stylize(picture, painting())
    assert (changed - plain).abs().mean() > 1e-4


@pytest.mark.parametrize("options", [{"decay": 0.5, "decay_every": 3}, {"beta1": 0.5}, {"beta2": 0.5}, {"epsilon": 1}])
def test_adams_options_reach_it(picture: Tensor, options: dict[str, Any]) -> None:
    adam = {"optimizer": "adam", "learning_rate": 0.02}
    plain, changed = (tiny_gatys(**adam, **more).stylize(picture, painting()) for more in ({}, options))
    assert (changed - plain).abs().mean() > 1e-4


def test_layer_weights_are_those_of_five_or_fall_with_depth_and_0_leaves_a_layer_out(picture: Tensor) -> None:
    plain = tiny_gatys().stylize(picture, painting())
    assert_close(
        tiny_gatys(style_layer_weights=(0.05, 0.2, 0.35, 0.25, 0.15)).stylize(picture, painting()),
        plain,
        atol=1e-4,
        rtol=0,
    )
    first_two = tiny_gatys(style_layers="relu1_1,relu2_1").stylize(picture, painting())
    found = tiny_gatys(style_layer_weights=(0.6, 0.4, 0, 0, 0)).stylize(picture, painting())
    assert_close(found, first_two, atol=1e-4, rtol=0)


def test_a_larger_look_at_the_painting(picture: Tensor) -> None:
    half, whole = tiny_gatys(style_scale=0.5), tiny_gatys()
    small = torch.nn.functional.interpolate(painting(), (24, 32), mode="bicubic", antialias=True).clamp(0, 1)
    for name, value in whole.encode_style(small).items():
        assert torch.equal(half.encode_style(painting())[name], value)


# --- how it starts


def start_of(picture: Tensor, seed: int = 0, **options: Any) -> Tensor:
    """Where a run starts, which a step of no length leaves as it is."""
    method = tiny_gatys(steps=1, optimizer="gd", learning_rate=1e-30, **options)
    return method.stylize(picture, painting(32, 48), seed=seed)


def test_content_is_the_start_without_anything_random(picture: Tensor) -> None:
    assert_close(start_of(picture), picture)
    one, two = (tiny_gatys().stylize(picture, painting(), seed=seed) for seed in (1, 2))
    assert torch.equal(one, two)


@pytest.mark.parametrize("start", ["noise", "gaussian", "blurred-noise"])
def test_noise_is_the_seeds(picture: Tensor, start: str) -> None:
    method = tiny_gatys(start=start, steps=3)
    first, again, other = (method.stylize(picture, painting(), seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert (first - other).abs().mean() > 1e-3


def test_uniform_noise() -> None:
    found = start_of(torch.rand(1, 3, 96, 96), start="noise")
    assert 0 <= float(found.min()) < 0.01
    assert 0.99 < float(found.max()) <= 1
    assert float(found.mean()) == pytest.approx(0.5, abs=0.01)
    assert float(found.std()) == pytest.approx(math.sqrt(1 / 12), abs=0.01)


def test_gaussian_noise() -> None:
    found = start_of(torch.rand(1, 3, 96, 96), start="gaussian")
    inside = found[(found > 1e-6) & (found < 1)]
    assert float(found.median()) == pytest.approx(0.5, abs=0.01)
    assert len(inside) / found.numel() == pytest.approx(0.954, abs=0.01)  # two deviations of 0.25
    assert float((found < 0.25).float().mean()) == pytest.approx(0.159, abs=0.01)


def test_blurred_noise_is_the_median_of_8x8_windows() -> None:
    noise = start_of(torch.rand(1, 3, 32, 40), start="noise")
    found = start_of(torch.rand(1, 3, 32, 40), start="blurred-noise")
    for y, x in ((4, 4), (10, 17), (27, 35)):
        window = noise[0, 1, y - 4 : y + 4, x - 4 : x + 4].flatten().sort().values
        assert len(window) == 64
        assert float(window[31]) <= float(found[0, 1, y, x]) <= float(window[32])
    assert float(found.std()) < 0.5 * float(noise.std())


def test_the_painting_as_a_start(picture: Tensor) -> None:
    assert_close(start_of(picture, start="style"), resize(painting(32, 48), 32, 48))
    method = tiny_gatys(start="style", steps=2)
    for styles in ((method.encode_style(painting()), painting(seed=8)), (tiny_gatys().encode_style(painting()),)):
        with pytest.raises(OptionError, match="needs one painting as a picture"):
            method.stylize(picture, *styles)


def test_a_file_as_a_start(picture: Tensor, tmp_path: Path) -> None:
    rounded = (torch.rand_like(picture) * 255).round() / 255
    write_image(rounded, tmp_path / "start.png")
    assert_close(start_of(picture, start=str(tmp_path / "start.png")), rounded)
    write_image(torch.full((1, 3, 10, 10), 1.0), tmp_path / "white.png")
    assert float(start_of(picture, start=str(tmp_path / "white.png")).min()) == pytest.approx(1)
    with pytest.raises(ImageError, match="nothing"):
        start_of(picture, start=str(tmp_path / "nothing.png"))


def test_noise_upon_the_start() -> None:
    grey = torch.full((1, 3, 96, 96), 0.5)
    found = start_of(grey, start_noise=0.1)
    assert float(found.std()) == pytest.approx(0.1, abs=0.005)
    assert float(found.mean()) == pytest.approx(0.5, abs=0.005)
    assert torch.allclose(start_of(grey, start_shift=-0.3), torch.full_like(grey, 0.2))
    both = start_of(grey, start_noise=0.3, start_shift=-0.3)
    assert float(both.min()) == 0
    assert float(both.median()) == pytest.approx(0.2, abs=0.02)


def test_a_backbone_given_is_the_one_in_use() -> None:
    backbone = random_slim(seed=3)
    assert tiny_gatys(backbone).backbone is backbone


def test_without_layers_the_backbones_own_are_used() -> None:
    own, vgg = tiny_gatys().options, tiny_gatys(random_vgg("vgg16"), backbone="vgg16").options
    assert (own.content_layers, own.style_layers) == (("relu4_1",), STYLE_LAYERS)
    assert (vgg.content_layers, vgg.style_layers) == (("relu4_2",), STYLE_LAYERS)
    assert tiny_gatys(random_vgg("vgg16"), backbone="vgg16", content_layers="relu3_2").options.content_layers == (
        "relu3_2",
    )
