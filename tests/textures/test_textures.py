"""Texture networks: the papers' sizes, joins, selection, mixtures; what a training teaches a tiny one."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.testing import assert_close

from cli_support import use_one_thread
from impasto.errors import OptionError, WeightsError
from impasto.networks.layers import Conv, count_parameters, wrap_edges
from impasto.ops.moments import moments
from impasto.optimize.losses import CovarianceLoss
from impasto.textures.diversity import julesz_loss
from impasto.textures.generator import NAME, PyramidGenerator, TextureGenerator
from impasto.textures.generator_training import TextureTraining, introduced
from impasto.weights import manifest, save_weights
from reference import textures as reference
from tiny import narrow_slim, painting

ROOT = Path(__file__).parents[2]
one_thread = pytest.fixture(autouse=True, scope="module")(use_one_thread)


def tiny_network(textures: int = 2, *, levels: int = 3, seed: int = 1) -> PyramidGenerator:
    """Three sizes of noise and textures that differ in all that they may differ in."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = PyramidGenerator(textures, levels=levels, branch=4)
        for name, parameter in network.named_parameters():
            if any(part in name for part in ("scale", "shift", "colours")):
                parameter.data += 0.3 * torch.randn(parameter.shape)
    return network


def tiny_generator(textures: int = 2) -> TextureGenerator:
    return TextureGenerator(tiny_network(textures), [f"texture-{i}" for i in range(textures)])


# --- edges


@pytest.mark.parametrize("edge", [1, 2, 5])
@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
def test_wrapped_edges_are_circular_padding(edge: int, memory: torch.memory_format) -> None:
    conv = Conv(2, 1, 2 * edge + 1).double()
    wrap_edges(conv)
    x = torch.randn(1, 2, 5, 6, dtype=torch.float64).contiguous(memory_format=memory)
    plain = F.conv2d(F.pad(x, (edge,) * 4, mode="circular"), conv.weight, conv.bias)
    assert_close(conv(x), plain)
    assert torch.autograd.gradcheck(lambda x: conv(x).sum((2, 3)), (x.requires_grad_(),))


def test_plain_convolutions_are_wrapped_too_and_small_maps_refused() -> None:
    chain = wrap_edges(nn.Sequential(nn.Conv2d(3, 2, 3, padding=1), nn.Conv2d(2, 2, 1), Conv(2, 2)))
    x = torch.randn(1, 3, 6, 8)
    assert_close(chain(x.roll((2, 3), (2, 3))), chain(x).roll((2, 3), (2, 3)))
    with pytest.raises(RuntimeError, match="does not reach round an edge of 2"):
        wrap_edges(Conv(3, 2, 5))(torch.zeros(1, 3, 1, 4))


# --- the generator


def test_the_papers_sizes() -> None:
    def expected(levels: int) -> int:
        blocks = levels * (3 * 8 * 9 + 8 * 8 * 9 + 8 * 8 + 3 * 8)
        joins = sum((8 * i) ** 2 * (9 + 9 + 1) + 3 * 8 * i for i in range(2, levels + 1))
        return blocks + joins + 8 * levels * 3 + 3

    for levels in (5, 6):
        network = PyramidGenerator(levels=levels)
        norms = sum(p.numel() for name, p in network.named_parameters() if "scale" in name or "shift" in name)
        assert count_parameters(network) - norms == expected(levels)
        assert network.widths == tuple(8 * (i + 1) for i in range(levels))
        assert network.stride == 2 ** (levels - 1)
    assert 65_000 < expected(5) < 71_000  # "about 65 000" for pictures of 256 px
    assert [noise.shape[1:] for noise in PyramidGenerator().draw(1, 64, 96)][:2] == [(3, 2, 3), (3, 4, 6)]


@pytest.mark.parametrize("size", [(32, 32), (64, 96)])
def test_pictures_are_as_large_as_the_noise(size: tuple[int, int]) -> None:
    network = PyramidGenerator(branch=2)
    assert network(network.draw(2, *size), torch.ones(2, 1)).shape == (2, 3, *size)


def test_it_computes_what_the_papers_say() -> None:
    network = tiny_network().double()
    noises = [noise.double() for noise in network.draw(2, 8, 12, torch.Generator().manual_seed(0))]
    shares = torch.tensor([[1.0, 0.0], [0.3, 0.7]], dtype=torch.float64)
    found = network(noises, shares).detach().numpy()
    weights = {name: value.detach().numpy() for name, value in network.state_dict().items()}
    for i in range(2):
        expected = reference.Generator(weights, shares[i].numpy())([noise[i].numpy() for noise in noises])
        np.testing.assert_allclose(found[i], expected, rtol=1e-7, atol=1e-9)


def test_shifted_noise_gives_the_shifted_picture() -> None:
    network = tiny_network().double()
    noises = [noise.double() for noise in network.draw(1, 16, 24)]
    shares = torch.ones(1, 2, dtype=torch.float64) / 2
    shifted = [noise.roll((1 * 2**i, 2 * 2**i), (2, 3)) for i, noise in enumerate(noises)]
    assert_close(network(shifted, shares), network(noises, shares).roll((4, 8), (2, 3)))


def test_opposite_borders_join() -> None:
    picture = tiny_generator().sample(0, 64, 96, seed=3)[0].double().numpy()
    assert 0.8 < reference.border_ratio(picture) < 1.25


def test_widths_must_fit_the_levels() -> None:
    with pytest.raises(OptionError, match="6 levels need as many widths, not 2"):
        PyramidGenerator(widths=(4, 4))


# --- sampling


def test_a_texture_by_number_by_name_and_by_shares_is_the_same_to_the_bit() -> None:
    generator = tiny_generator(3)
    found = generator.sample(1, 32, 32)
    assert torch.equal(found, generator.sample("texture-1", 32, 32))
    assert torch.equal(found, generator.sample((0.0, 2.0, 0.0), 32, 32))
    assert not torch.equal(found, generator.sample(2, 32, 32))
    half = generator.sample((0.0, 1.0, 1.0), 32, 32)
    assert not torch.equal(half, found)


def test_a_seed_is_a_picture() -> None:
    generator = tiny_generator()
    one = generator.sample(0, 40, 20, count=2, seed=4)
    assert one.shape == (2, 3, 40, 20)
    assert one.dtype == torch.float32
    assert 0 <= float(one.min()) <= float(one.max()) <= 1
    assert torch.equal(one, generator.sample(0, 40, 20, count=2, seed=4))
    assert not torch.equal(one[0], one[1])
    assert not torch.equal(one, generator.sample(0, 40, 20, count=2, seed=5))


def test_odd_sizes_are_cut_out_of_the_next_larger_one() -> None:
    generator = tiny_generator()
    assert torch.equal(generator.sample(0, 30, 21), generator.sample(0, 32, 24)[..., :30, :21])


@pytest.mark.parametrize(
    ("work", "message"),
    [
        (lambda g: g.sample(2, 32, 32), "there is no texture 2: they go from 0 to 1"),
        (lambda g: g.sample("oil", 32, 32), "there is no texture 'oil'; there are: texture-0, texture-1"),
        (lambda g: g.sample((1.0,), 32, 32), "2 styles need 2 weights, not 1"),
        (lambda g: g.sample(0, 0, 32), "at least 1 px"),
        (lambda g: TextureGenerator(g.network, ["one"]), "2 textures needs as many names, not 1"),
    ],
)
def test_mistakes(work: Callable[[TextureGenerator], object], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        work(tiny_generator())


def test_a_file_is_the_generator(tmp_path: Path) -> None:
    network, path = tiny_network(), tmp_path / "texture.safetensors"
    config = {"textures": ["a", "b"], **network.config()}
    save_weights(network.state_dict(), path, config, half=False)
    generator = TextureGenerator.load(path)
    assert generator.names == ("a", "b")
    assert len(generator.digest) == 64
    assert torch.equal(generator.sample(0, 16, 16), TextureGenerator(network, "ab").sample(0, 16, 16))
    save_weights(network.state_dict(), path, {"textures": ["a", "b"]})
    with pytest.raises(WeightsError, match="holds no texture generator"):
        TextureGenerator.load(path)
    save_weights(network.state_dict(), path, {**config, "textures": ["a"]})
    with pytest.raises(WeightsError, match="does not hold this network"):
        TextureGenerator.load(path)


def test_the_shipped_generator() -> None:
    entry = manifest()[NAME]
    table = tomllib.loads((ROOT / "tools" / "textures.toml").read_text(encoding="utf-8"))
    generator = TextureGenerator.load()
    assert generator.names == tuple(table) == tuple(entry["works"])
    assert all(table[name]["artist"] in work and table[name]["title"] in work for name, work in entry["works"].items())
    assert all(int(work["years"].split("–")[1]) < 1955 for work in table.values())
    assert entry["bytes"] < 1_000_000
    for number in range(len(table)):
        pictures = generator.sample(number, 96, 128, count=2, precision="fp32")
        assert float(pictures[0].std()) > 0.03
        assert float((pictures[0] - pictures[1]).abs().mean()) > 0.02
        assert 0.6 < reference.border_ratio(pictures[0].double().numpy()) < 1.6


# --- learning


def stripes(across: bool, colour: tuple[float, float, float]) -> Tensor:
    """Stripes of four pixels, (1, 3, 48, 48)."""
    wave = ((torch.arange(48) // 4) % 2).float()
    map_ = wave[:, None].expand(48, 48) if across else wave[None].expand(48, 48)
    return torch.stack([share * map_ for share in colour])[None]


PAINTINGS = (stripes(True, (0.9, 0.5, 0.1)), stripes(False, (0.1, 0.6, 0.9)), painting(48, 48))


def learner(**options: Any) -> TextureTraining:
    network = tiny_network(3)
    layers = ("relu1_1", "relu2_1")
    return TextureTraining(network, narrow_slim(), PAINTINGS, "abc", layers=layers, **options)


def test_textures_come_in_one_after_the_other() -> None:
    assert [introduced(p, 4, 0.4) for p in (0.0, 0.09, 0.11, 0.25, 0.35, 0.4, 1.0)] == [1, 1, 2, 3, 4, 4, 4]
    assert introduced(0.0, 4, 0.0) == 4
    torch.manual_seed(0)
    found = learner(introduction=0.9)
    assert {texture for _ in range(20) for texture in found.choose(4, 0.0)} == {0}
    assert {texture for _ in range(20) for texture in found.choose(4, 0.4)} == {0, 1}
    assert sorted(found.choose(6, 1.0)) == [0, 1, 2]


def test_the_terms_are_the_textures_distances_and_the_diversity() -> None:
    found = learner(introduction=0.0, diversity_weight=0.5)
    torch.manual_seed(5)
    terms = found.training_terms(torch.empty(0), torch.empty(4, 3, 32, 32), 1.0)
    torch.manual_seed(5)
    textures = found.choose(4, 1.0)
    samples = found.paint(textures, 32, 2, torch.device("cpu"))
    judge = narrow_slim()
    losses = [
        CovarianceLoss(moments(judge(PAINTINGS[texture], [layer])[layer]))(
            judge(samples[2 * i : 2 * i + 2], [layer])[layer]
        )
        for i, texture in enumerate(textures)
        for layer in ("relu1_1", "relu2_1")
    ]
    assert_close(terms["texture"], torch.stack(losses).mean())
    deep = judge(samples, ["relu4_1"])["relu4_1"]
    gaps = []
    for i, texture in enumerate(textures):
        spread = moments(judge(PAINTINGS[texture], ["relu4_1"])["relu4_1"]).variance.mean()
        gaps.append(-(deep[2 * i] - deep[2 * i + 1]).square().mean() / spread)
    assert_close(terms["diversity"], 0.5 * torch.stack(gaps).mean())
    two = torch.empty(2, 3, 32, 32)
    assert set(learner(diversity_weight=0.0).training_terms(two[:0], two, 0.0)) == {"texture"}
    other = learner(diversity_form="julesz", diversity_weight=0.5)
    torch.manual_seed(5)
    terms = other.training_terms(two[:0], two, 0.0)
    torch.manual_seed(5)
    samples = other.paint(other.choose(2, 0.0), 32, 2, torch.device("cpu"))
    assert_close(terms["diversity"], 0.5 * julesz_loss(samples))


def test_after_incremental_training_each_texture_is_nearest_to_its_painting() -> None:
    found, steps = learner(introduction=0.5, diversity_weight=0.002, diversity_form="julesz"), 90
    optimizer = torch.optim.Adam(found.network.parameters(), lr=0.03)
    for step in range(steps):
        torch.manual_seed(step)
        terms = found.training_terms(torch.empty(0), torch.empty(4, 3, 32, 32), step / steps)
        optimizer.zero_grad()
        torch.stack(list(terms.values())).sum().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    generator, judge = TextureGenerator(found.network, "abc"), narrow_slim()
    for texture in range(3):
        seen = judge(generator.sample(texture, 32, 32, count=2, seed=9), found.layers)
        losses = [sum(float(target[layer](seen[layer])) for layer in found.layers) for target in found.targets]
        assert losses[texture] == min(losses), losses
    assert generator.sample(0, 32, 32, count=4).std(0).mean() > 0.01


def test_the_preview_shows_paintings_above_samples() -> None:
    found = learner()
    sheet = found.preview(torch.empty(0), torch.empty(1, 3, 32, 32))
    assert sheet.shape == (1, 3, 3 * 32, 3 * 32)
    assert_close(sheet[..., :32, :32], PAINTINGS[0][..., 8:40, 8:40])
