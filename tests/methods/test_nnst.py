"""Neural neighbours: the facts of the paper, what every stage does, and what users may ask of it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from cli_support import use_one_thread
from impasto.errors import OptionError
from impasto.feedforward.stages import live_moments
from impasto.images.tensors import resize
from impasto.methods.nnst import NNST, NNSTOptions
from impasto.networks.backbones import load_backbone
from impasto.networks.hypercolumns import COLUMNS, Hypercolumns
from impasto.optimize.losses import TemporalLoss, Term
from impasto.progress import Step
from impasto.stylizers.painting_places import distinct, evenly, recall_places
from impasto.stylizers.styles import Style, mix
from impasto.weights.checkpoints import Checkpoint
from tiny import narrow_slim, painting, random_vgg, tiny_nnst

one_thread = pytest.fixture(autouse=True, scope="module")(use_one_thread)


@pytest.fixture
def picture() -> Tensor:
    return painting(48, 64, seed=3)


def stages(model: NNST, size: tuple[int, int] = (256, 512)) -> list[tuple[int, int, bool]]:
    return [(stage.height, stage.settings.steps, stage.last) for stage in model.scales(*size)]


def test_a_painting_as_its_own_photo_comes_back() -> None:
    image = resize(painting(16, 16, seed=8), 64, 64)
    quick = {"octaves": 1, "coarse_steps": 40, "steps": 40, "last_steps": 1, "learning_rate": 0.01}
    model = NNST(NNSTOptions.parse({"spread": 0.0, **quick}, "nnst"))
    found = model.stylize(image, image)
    noise = float((found - image).square().mean())
    assert -10 * torch.tensor(noise).log10() > 25


def test_sizes_double_and_the_last_pass_is_at_the_full_size() -> None:
    model = tiny_nnst(octaves=3, coarse_steps=7, steps=5, last_steps=4)
    assert stages(model) == [(32, 7, False), (64, 7, False), (128, 7, False), (256, 5, False), (256, 4, True)]
    assert stages(model, (64, 80)) == [(32, 7, False), (64, 5, False), (64, 4, True)]
    assert stages(tiny_nnst(octaves=1, coarse_steps=7, steps=5, last_steps=0)) == [(128, 7, False), (256, 5, False)]


def test_published_is_the_papers() -> None:
    model = NNST(NNSTOptions.parse({**NNST.presets["published"], "octaves": 3}, "nnst"), backbone=random_vgg("vgg16"))
    assert [steps for _, steps, _ in stages(model)] == [200] * 5
    assert model.network.columns[0] == "relu1_1"
    assert model.network.columns[-1] == "relu4_3"
    assert len(model.network.columns) == len(model.options.last_layers) == 10
    assert (model.options.alpha, model.options.learning_rate, model.options.rotations) == (0.75, 0.002, 3)


@pytest.mark.parametrize("preset", ["default", "draft"])
def test_every_stage_lowers_its_loss(preset: str, picture: Tensor) -> None:
    counts = {"octaves": 1, "least_side": 16, "coarse_steps": 12, "steps": 12, "last_steps": 12}
    quick = {**NNST.presets[preset], **counts}
    model = NNST(NNSTOptions.parse(quick, "nnst"), backbone=narrow_slim())
    seen: list[dict[str, float]] = []
    model.transfer(picture, model.encode_style(painting()), on_step=lambda step: seen.append(step.terms))
    assert set(seen[0]) == {"match", "colors", "style", "content", "shapes", "tv"}
    assert set(seen[-1]) == {"last", "style", "shapes", "tv"}
    for first in (0, 12):
        assert sum(seen[first + 11].values()) < sum(seen[first].values())
    assert seen[35]["last"] < seen[24]["last"]


def test_shapes_are_the_photos_features_with_the_paintings_contrasts(picture: Tensor) -> None:
    names = {"match_weight": 0.0, "color_weight": 0.0, "style_weight": 0.0, "content_weight": 0.0, "tv_weight": 0.0}
    model = tiny_nnst(**names, shape_weight=1.0, octaves=0, steps=1, last_steps=0, alpha=1.0)
    style = model.encode_style(painting())
    seen: list[dict[str, float]] = []
    model.transfer(picture, style, on_step=lambda step: seen.append(step.terms))
    layer = model.shape_layer
    with torch.no_grad():
        photo, art, start = (
            model.network(image, {layer})[layer][0].double().flatten(1)
            for image in (picture, painting(), model._start(picture, model.scales(*picture.shape[-2:])[0], 1.0, 0))
        )
    spread = [(rows.var(1, correction=0, keepdim=True) + 1e-5).sqrt() for rows in (photo, art)]
    wanted = ((photo - photo.mean(1, keepdim=True)) / spread[0] * spread[1] + art.mean(1, keepdim=True)).clamp_min(0)
    assert_close(seen[0]["shapes"], float((start - wanted).square().mean() / wanted.var()), rtol=1e-3, atol=0)


def test_turned_copies_are_candidates_too() -> None:
    style = tiny_nnst(rotations=3, candidates=4 * 192).encode_style(painting())
    plain = tiny_nnst(candidates=192).encode_style(painting())
    assert style[f"0.{COLUMNS}"].shape[0] == 4 * plain[f"0.{COLUMNS}"].shape[0] == 4 * 192
    assert_close(style[f"0.{COLUMNS}"][:192], plain[f"0.{COLUMNS}"])


def test_a_painting_in_tiles_gives_the_same_places() -> None:
    whole, cut = tiny_nnst(), tiny_nnst()
    cut.room = 1
    image = painting(210, 230)
    first, second = whole.encode_style(image), cut.encode_style(image)
    assert first.keys() == second.keys()
    for name in first:
        assert_close(first[name].double().sum(0), second[name].double().sum(0), rtol=1e-4, atol=1e-3)


def test_places_are_spread_without_repetition() -> None:
    assert evenly(5, 9).tolist() == [0, 1, 2, 3, 4]
    found = evenly(1000, 100)
    assert len(set(found.tolist())) == 100
    assert torch.equal(found, evenly(1000, 100))
    assert (found.float() / 1000).histc(4, 0, 1).min() > 10


@pytest.mark.parametrize(("last_steps", "most"), [(0, 1e-3), (1, 5e-3)])
def test_a_picture_in_tiles_is_nearly_that_of_one_piece(last_steps: int, most: float) -> None:
    """The last pass matches anew: where two places are equally similar, rounding decides."""
    content = painting(200, 208, seed=3)
    options = {"octaves": 0, "steps": 2, "last_steps": last_steps, "content_weight": 0.0}
    whole, cut = tiny_nnst(**options), tiny_nnst(**options)
    cut.room = 1
    style = whole.encode_style(painting())
    found = cut.transfer(content, style)
    assert cut.cut is not None
    assert whole.cut is None
    assert (found - whole.transfer(content, style)).abs().mean() < most


def test_equal_paintings_are_one_and_those_without_share_none() -> None:
    model = tiny_nnst()
    first, second = model.encode_style(painting()), model.encode_style(painting(40, 52, seed=6))
    mixture = distinct(mix([first, second, first, second], [1, 2, 3, 0]))
    assert [round(share, 4) for share, _ in mixture] == [round(4 / 6, 4), round(2 / 6, 4)]
    places = recall_places(mixture, 0, 10**6)
    assert len(places.columns) == len(first[f"0.{COLUMNS}"]) + len(second[f"0.{COLUMNS}"])
    assert len(recall_places(mixture, 9, 10**6).columns) <= len(places.columns)


def test_colours_are_the_paintings() -> None:
    red = painting() * torch.tensor([1.0, 0.2, 0.1]).view(1, 3, 1, 1)
    model = tiny_nnst(octaves=0, steps=40, color_weight=5.0, learning_rate=0.02)
    found = model.stylize(painting(48, 64, seed=3), red)
    assert_close(found.mean((2, 3)), red.mean((2, 3)), atol=0.1, rtol=0)


@pytest.mark.parametrize("name", ["recolor", "grey_detail", "layer_balance", "match_form", "optimizer", "seed"])
def test_every_choice_counts(name: str, picture: Tensor) -> None:
    other = {"recolor": True, "grey_detail": False, "layer_balance": "channels", "match_form": "relative"}
    changed = {name: other[name]} if name in other else {"optimizer": "lbfgs", "learning_rate": 0.5}
    style = tiny_nnst().encode_style(painting())
    before = tiny_nnst().transfer(picture, style)
    after = (
        tiny_nnst().transfer(picture, style, seed=1)
        if name == "seed"
        else tiny_nnst(**changed).transfer(picture, style)
    )
    assert (before - after).abs().mean() > 1e-4


def test_an_interrupted_run_gives_a_picture_and_says_so(picture: Tensor) -> None:
    def stop(step: Step) -> None:
        if step.index == 5:
            raise KeyboardInterrupt

    model = tiny_nnst()
    found = model.stylize(picture, painting(), on_step=stop)
    assert model.interrupted
    assert found.shape == picture.shape


@pytest.mark.parametrize("steps", [2, 5, 7])
def test_a_run_goes_on_to_the_same_bits(steps: int, picture: Tensor, tmp_path: Path) -> None:
    class Killed(Exception):
        """Stands for a process that ends here."""

    def kill(step: Step) -> None:
        if step.index == steps:
            raise Killed

    path = tmp_path / "run.safetensors"

    def make() -> NNST:
        return tiny_nnst(least_side=16)

    style = make().encode_style(painting())
    whole = make().transfer(picture, style, seed=1)
    model = make()
    model.checkpoint = Checkpoint(path, {}, pause=0)
    with pytest.raises(Killed):
        model.transfer(picture, style, seed=1, on_step=kill)
    model.checkpoint = Checkpoint(path, {}, pause=0)
    assert torch.equal(model.transfer(picture, style, seed=1), whole)


def test_a_frame_starts_from_the_last_result_at_the_full_size(picture: Tensor) -> None:
    model = tiny_nnst(octaves=2, steps=2, last_steps=1)
    model.start_from = painting(48, 64, seed=9)
    model.more_terms = (Term("temporal", "image", TemporalLoss(picture, torch.ones(1, 1, 48, 64)), 1.0),)
    seen: list[Step] = []
    model.stylize(picture, painting(), on_step=seen.append)
    assert [step.total for step in seen] == [3, 3, 3]
    assert all("temporal" in step.terms for step in seen)
    assert model.moments_of is live_moments


def test_a_card_of_other_layers_is_refused(picture: Tensor) -> None:
    style = tiny_nnst(layers="relu1_1,relu2_1").encode_style(painting())
    with pytest.raises(OptionError, match="was made with other --layers: extract it again"):
        tiny_nnst().stylize(picture, style)
    style = tiny_nnst(last_layers="relu1_1").encode_style(painting())
    with pytest.raises(OptionError, match="knows nothing of relu2_1: extract it again"):
        tiny_nnst().stylize(picture, style)
    with pytest.raises(OptionError, match="holds no places"):
        tiny_nnst().stylize(picture, Style({}, tiny_nnst().style_kind))


def test_the_network_shares_its_weights_and_knows_its_layers() -> None:
    backbone = narrow_slim()
    network = Hypercolumns(backbone, ("relu2_1",))
    assert next(network.parameters()) is next(backbone.parameters())
    assert network.layers[-2:] == ("colors", "columns")
    with pytest.raises(OptionError, match="has no layer 'relu9_1'"):
        Hypercolumns(backbone, ("relu9_1",))


def test_the_shipped_network_is_the_default() -> None:
    model = NNST(NNSTOptions.parse({}, "nnst"))
    assert model.digests == {"vgg19-slim": load_backbone().digest}
    assert model.style_kind.startswith("places/vgg19-slim/")
