"""The pyramid network of texture networks: what it computes, its noise, its stages, its training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

import impasto
from cli_support import Outcome, Shell, make_picture
from impasto.feedforward.stages import run_whole
from impasto.images.files import write_image
from impasto.methods.texture_network import (
    PyramidNetwork,
    TextureNetwork,
    TextureNetworkOptions,
    make_pyramid,
    place_noise,
    shrink,
)
from impasto.networks.layers import Conv, count_parameters
from impasto.optimize.perceptual_loss import PerceptualLoss
from impasto.stylizers.fixed_styles import PaintingTraining
from impasto.stylizers.styles import named_style
from impasto.textures.generator import PyramidGenerator
from impasto.weights import load_weights, save_weights
from tiny import narrow, narrow_slim, painting, varied


def noises_of(network: PyramidNetwork, size: tuple[int, int]) -> list[Tensor]:
    """The noise that the stages of `network` see in a picture of that size, coarse to fine."""
    sizes = [(size[0] // ratio, size[1] // ratio) for ratio in network.ratios]
    return [place_noise((0, 0), own, network.noise, (network.seed, number)) for number, own in enumerate(sizes)]


# --- the network


@pytest.mark.parametrize("levels", [1, 5, 6])
def test_it_is_the_texture_generators_pyramid_with_a_photo_beside_the_noise(levels: int) -> None:
    network, generator = PyramidNetwork(levels), PyramidGenerator(levels=levels, noise=6)
    biases = sum(len(conv.bias) for conv in generator.modules() if isinstance(conv, Conv) and conv.bias is not None)
    assert count_parameters(network) == count_parameters(generator) - biases  # no bias where there is a norm
    assert network.ratios[0] == generator.stride
    assert make_pyramid(network.shape).state_dict().keys() == network.state_dict().keys()


def test_it_computes_what_the_texture_generator_does_where_edges_are_repeated() -> None:
    """With the same numbers, and noise and photo given as noise: two ways of writing one formula."""
    network = varied(PyramidNetwork(3, 4)).double()
    generator = PyramidGenerator(levels=3, branch=4, noise=6).double()
    for conv in generator.modules():
        if isinstance(conv, Conv):
            conv.edge_mode = "replicate"
    blocks = [*generator.branches, *(join.block for join in generator.joins)]  # type: ignore[union-attr]
    rows = [*network.branches, *(join.block for join in network.joins)]  # type: ignore[union-attr]
    for block, row in zip(blocks, rows, strict=True):
        for number, layer in enumerate(row.row):  # type: ignore[operator, union-attr]
            block.convs[number].weight.data = layer.conv.weight.data  # type: ignore[index, union-attr]
            block.convs[number].bias.data.zero_()  # type: ignore[index, union-attr]
            block.norms[number].scale.data = row.scales[number].data[None]  # type: ignore[index, union-attr]
            block.norms[number].shift.data = row.shifts[number].data[None]  # type: ignore[index, union-attr]
    for theirs, own in zip(generator.joins, network.joins, strict=True):
        for number, norm in enumerate((theirs.coarse, theirs.fine)):
            norm.scale.data, norm.shift.data = own.scales[number].data[None], own.shifts[number].data[None]  # type: ignore[index, union-attr]
    last = network.last.row[0].conv
    generator.colours.weight.data = last.weight.data[None, :, :, 0, 0]
    assert last.bias is not None
    generator.colours.bias.data = last.bias.data[None] + 0.5
    photo = torch.rand(2, 3, 16, 24, dtype=torch.float64)
    noises = [torch.rand(2, 3, 16 // ratio, 24 // ratio, dtype=torch.float64) for ratio in network.ratios]
    given = [torch.cat([shrink(photo, r) - 0.5, n], 1) for r, n in zip(network.ratios, noises, strict=True)]
    assert_close(network(photo, noises), generator(given, torch.ones(2, 1, dtype=torch.float64)))


@pytest.mark.parametrize("size", [(32, 64), (45, 51), (16, 17)])
def test_the_stages_are_the_network(size: tuple[int, int]) -> None:
    model = narrow("texture_network", double=True)
    assert isinstance(model, TextureNetwork)
    style = model.learned["first"]
    network = make_pyramid(model.shape).double()
    network.load_state_dict(dict(style))
    photo = torch.rand(1, 3, *size, dtype=torch.float64)
    with torch.no_grad():
        wanted = network(photo, noises_of(network, size)).clamp(0, 1).float()
    assert wanted.shape == photo.shape
    assert_close(run_whole(model.stages(style), photo), wanted, atol=1e-5, rtol=0)


# --- its noise


def test_noise_hangs_on_the_place_alone() -> None:
    whole = place_noise((0, 0), (40, 50), 3, (0, 2))
    assert torch.equal(place_noise((8, 16), (20, 30), 3, (0, 2)), whole[..., 8:28, 16:46])
    assert not torch.equal(place_noise((0, 0), (40, 50), 3, (0, 1)), whole)
    assert not torch.equal(place_noise((0, 0), (40, 50), 3, (1, 2)), whole)


def test_noise_is_uniform_and_neighbours_are_strangers() -> None:
    noise = place_noise((0, 0), (96, 128), 3, (5, 0)).double()
    assert noise.min() >= 0
    assert noise.max() < 1
    assert abs(float(noise.mean()) - 0.5) < 0.01
    assert abs(float(noise.var()) - 1 / 12) < 0.002
    centred = (noise - noise.mean()) / noise.std()
    for shifted in (centred.roll(1, 1), centred.roll(1, 2), centred.roll(1, 3), centred.roll((1, 1), (2, 3))):
        assert abs(float((centred * shifted).mean())) < 0.02


def test_another_noise_is_another_picture(picture: Tensor) -> None:
    networks = {"a": varied(PyramidNetwork(5, 3))}
    first, again, second = (
        TextureNetwork(TextureNetworkOptions(precision="fp32", noise_seed=seed), networks=networks).stylize(
            picture, named_style("a")
        )
        for seed in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert float((first - second).abs().mean()) > 1e-3


# --- training and the command line


def test_training_lowers_the_loss(picture: Tensor) -> None:
    loss = PerceptualLoss(narrow_slim(), style_weight=8)
    task = PaintingTraining("texture_network", PyramidNetwork(4, 4), loss, painting(), {"name": "sea"})
    optimizer = torch.optim.Adam(task.parameters(), lr=1e-2)
    losses = []
    for step in range(25):
        torch.manual_seed(step)
        total = torch.stack(list(task.training_terms(picture, picture, 0.0).values())).sum()
        losses.append(float(total.detach()))
        optimizer.zero_grad()
        total.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    assert sum(losses[-3:]) < 0.6 * sum(losses[:3])
    assert task.config()["shape"] == PyramidNetwork(4, 4).shape


Train = Callable[..., Outcome]


@pytest.fixture
def train(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Train:
    monkeypatch.chdir(tmp_path)
    for folder, names in (("photos", ("a",)), ("art", ("sea", "sky"))):
        (tmp_path / folder).mkdir()
        for number, name in enumerate(names):
            write_image(make_picture(number, 40, 50), tmp_path / folder / f"{name}.png")
    shell = Shell(tmp_path, capsys)
    toy = ("--batch", "1", "--crop", "32", "--side", "40", "--style-side", "32", "--steps", "2", "--quiet")

    def run(style: str, output: str, *words: str) -> Outcome:
        given = ("--content", "photos", "--style", style, "-o", output, *toy, *words)
        return shell.run("train", "texture_network", *given)

    return run


def test_a_painting_is_learned_and_painted_with_by_its_name(train: Train) -> None:
    train("art/sea.png", "run", "--levels", "3", "--branch", "4").good()
    path = "run/texture_network.safetensors"
    assert load_weights(path).config["networks"] == [{"name": "sea"}]
    model = impasto.load("texture_network", weights=path)
    photo = make_picture(2, 40, 50)
    assert model.stylize(photo, named_style("sea")).shape == photo.shape
    train("art/sky.png", "more", "--from", path, "--learning-rate", "1e-9").good()
    again = impasto.load("texture_network", weights="more/texture_network.safetensors")
    wanted = model.stylize(photo, named_style("sea"))
    assert_close(again.stylize(photo, named_style("sky")), wanted, atol=5e-3, rtol=0)


def test_what_can_not_be_trained_is_reported_in_a_line(train: Train, tmp_path: Path) -> None:
    save_weights({"a": torch.ones(1)}, tmp_path / "odd.safetensors", {"method": "johnson"})
    for style, words, message in (
        ("art", (), "texture_network learns one painting"),
        ("art/sea.png", ("--from", "odd.safetensors"), "was not made by `impasto train texture_network`"),
    ):
        done = train(style, "run", *words)
        assert done.code == 2
        assert message in done.err
        assert done.err.count("\n") == 1
        assert not (tmp_path / "run").exists()


def test_the_shipped_networks_paint_two_built_in_styles() -> None:
    model = impasto.load("texture_network", precision="fp32")
    photo = make_picture(2, 64, 80)
    first, second = (model.stylize(photo, name) for name in ("starry-night", "the-scream"))
    assert first.shape == photo.shape
    assert (first - second).abs().mean() > 0.05
    assert min(float((painted - photo).abs().mean()) for painted in (first, second)) > 0.05
