"""swift: its transport against float64 written once more, its stages against the network as a whole, what it learns."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.testing import assert_close

from impasto.layers import Conv, HalvingConv, count_parameters
from impasto.losses import similarity_map
from impasto.methods.swift import (
    FLOOR,
    LAYERS,
    RIDGE,
    Residual,
    Swift,
    SwiftNetwork,
    SwiftOptions,
    SwiftTraining,
    move,
    transport,
)
from impasto.perceptual import PerceptualLoss
from impasto.statistics import Moments, moments
from tiny import lively, painting, random_slim, tiny


def features(seed: int, channels: int = 5, height: int = 12, width: int = 9, batch: int = 2) -> Tensor:
    """Correlated features, shifted away from 0, (B, C, H, W)."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.eye(channels) + 0.4 * torch.randn(batch, channels, channels, generator=generator)
    plain = torch.randn(batch, channels, height, width, generator=generator)
    return torch.einsum("bij,bjhw->bihw", mixing, plain) + torch.arange(channels)[:, None, None]


def root(matrix: np.ndarray) -> np.ndarray:
    values, vectors = np.linalg.eigh(matrix)
    return vectors @ np.diag(np.sqrt(np.clip(values, 0, None))) @ vectors.T


def test_the_map_is_the_formula() -> None:
    content, style = features(1), features(2)
    found, offset = transport(moments(content), moments(style))
    for i in range(2):
        own, other = (x[i].flatten(1).double().numpy() for x in (content, style))
        scales = [np.sqrt(x.var(1) + FLOOR**2 * (x**2).mean(1)) for x in (own, other)]
        correlations = [np.cov(x, bias=True) / np.outer(scale, scale) for x, scale in zip((own, other), scales)]
        ridge = RIDGE * np.eye(len(own))
        between = root(correlations[1] + ridge)
        inside = np.linalg.inv(root(between @ (correlations[0] + ridge) @ between + ridge))
        wanted = np.diag(scales[1]) @ between @ inside @ between @ np.diag(1 / scales[0])
        assert np.abs(found[i].numpy() - wanted).max() <= 1e-3 * np.abs(wanted).max()
        assert_close(offset[i].double(), torch.tensor(other.mean(1) - wanted @ own.mean(1)), atol=0.02, rtol=2e-3)


def test_features_take_on_the_styles_moments() -> None:
    content, style = features(3), features(4, height=7, width=20)
    moved = move(content, *transport(moments(content), moments(style)))
    found, wanted = moments(moved), moments(style)
    assert_close(found.mean, wanted.mean, atol=1e-3, rtol=0)
    assert float((found.covariance - wanted.covariance).abs().max()) <= 0.05 * float(wanted.covariance.abs().max())


def test_strength_walks_from_nothing_to_all_of_it() -> None:
    content, style = features(5), features(6)
    own, other = moments(content), moments(style)
    nothing, half, all_of_it = (move(content, *transport(own, other, strength)) for strength in (0.0, 0.5, 1.0))
    assert_close(nothing, content)
    assert_close(half, (content + all_of_it) / 2, atol=1e-4, rtol=1e-4)


def test_gradients_run_through_the_transport() -> None:
    """Of a covariance, against finite differences in the same arithmetic's float32."""
    style = moments(features(8, 3, batch=1))

    def moved(x: Tensor) -> Tensor:
        return (move(x, *transport(moments(x), style)) * probe).sum()

    x, probe = features(7, 3, batch=1), torch.randn(1, 3, 12, 9, generator=torch.Generator().manual_seed(9))
    leaf = x.clone().requires_grad_()
    moved(leaf).backward()
    assert leaf.grad is not None
    for direction in (torch.randn(x.shape, generator=torch.Generator().manual_seed(seed)) for seed in (1, 2, 3)):
        slope = (moved(x + 1e-2 * direction) - moved(x - 1e-2 * direction)) / 2e-2
        assert_close((leaf.grad * direction).sum(), slope, atol=0.02, rtol=0.02)


def test_the_stages_are_the_network() -> None:
    method = tiny("swift")
    assert isinstance(method, Swift)
    for size in ((48, 64), (37, 51)):
        photo, art = torch.rand(1, 3, *size), painting()
        found = method.transfer(photo, method.encode_style(art))
        assert_close(found, method.plain(photo, art), atol=2e-4, rtol=0)
        assert found.std() > 0.02


def test_strength_0_is_the_reconstruction_whatever_the_style() -> None:
    method, photo = tiny("swift"), torch.rand(1, 3, 32, 40)
    assert isinstance(method, Swift)
    rebuilt = method.network(photo, {}, 0.0).clamp(0, 1)
    for seed in (1, 2):
        assert_close(method.transfer(photo, method.encode_style(painting(seed=seed)), strength=0.0), rebuilt)


def test_cards_of_wct_serve() -> None:
    wct, swift = tiny("wct"), tiny("swift")
    assert wct.style_kind == swift.style_kind
    card, photo = wct.encode_style(painting()), torch.rand(1, 3, 32, 32)
    assert_close(swift.stylize(photo, card), swift.stylize(photo, swift.encode_style(painting())))


def test_a_residual_block_begins_as_nothing() -> None:
    x = torch.randn(2, 6, 5, 4)
    assert torch.equal(Residual(6)(x), x)


@pytest.mark.parametrize("size", [(8, 8), (9, 12), (7, 5), (2, 3)])
def test_halving_is_a_strided_convolution_cut_to_half_the_size(size: tuple[int, int]) -> None:
    halving, plain = HalvingConv(3, 4), Conv(3, 4, stride=2)
    plain.load_state_dict(halving.state_dict())
    x = torch.randn(1, 3, *size)
    found = halving(x)
    assert found.shape[-2:] == (size[0] // 2, size[1] // 2)
    assert_close(found, plain(x)[..., : size[0] // 2, : size[1] // 2])


def test_the_size_of_the_network() -> None:
    """Counted by hand: 3x3 convolutions with biases, two residual blocks, shares."""
    pairs = [(3, 16), (16, 32), (32, 64), (64, 64), (64, 128), (128, 128)]  # the encoder
    pairs += [(128, 128)] * 2 + [(64, 64)] * 2  # the blocks
    pairs += [(128, 64)] + [(64, 64)] * 3 + [(64, 32), (32, 32), (32, 16), (16, 16), (16, 3)]  # the decoder
    count = sum(9 * inputs * outputs + outputs for inputs, outputs in pairs)
    assert count_parameters(SwiftNetwork()) == count + 16 + 32 + 64


class Flat(torch.nn.Module):
    """Features that are the picture and its square."""

    def forward(self, image: Tensor, layers: object) -> dict[str, Tensor]:
        return {layer: torch.cat([image, image.square()], 1) for layer in layers}  # type: ignore[attr-defined]


def test_all_of_it_learns_to_paint() -> None:
    loss = PerceptualLoss(Flat(), style_weight=10, structure_weight=1, content_layers=("relu4_1",))
    learner = SwiftTraining(random_slim(), lively(SwiftNetwork()), loss)
    optimizer = torch.optim.Adam(learner.network.parameters(), lr=2e-3)
    photos, art = torch.rand(2, 3, 32, 32), torch.cat([painting(32, 32, seed=seed) for seed in (1, 2)])
    seen = []
    for _ in range(8):
        terms = learner.training_terms(photos, art, 0.5)
        assert set(terms) == {"content", "style", "structure", "rebuilt"}
        total = torch.stack(list(terms.values())).sum()
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        seen.append(total.item())
    assert seen[-1] < 0.9 * seen[0]
    quiet = [name for name, own in learner.network.named_parameters() if own.grad is None or not own.grad.any()]
    assert not quiet


def test_without_a_loss_the_encoder_learns_to_see_what_the_backbone_sees() -> None:
    learner = SwiftTraining(random_slim(), lively(SwiftNetwork()), None)
    terms = learner.training_terms(torch.rand(1, 3, 32, 32), painting(32, 32), 0.0)
    assert set(terms) == {"level1", "level2", "level3", "level4", "rebuilt"}
    backbone, image = random_slim(), torch.cat([torch.rand(1, 3, 32, 32), painting(32, 32)])
    own, wanted = learner.network.encode(image), backbone(image, [LAYERS[4]])[LAYERS[4]]
    found = learner.imitate(image)["level4"]
    assert_close(found, F.mse_loss(own[4], wanted) / wanted.var())


def test_the_moments_of_a_mixture_are_mixed() -> None:
    first, second = moments(features(1, batch=1)), moments(features(2, batch=1))
    both = Moments(1.0, (first.mean + second.mean) / 2, (first.second + second.second) / 2)
    content = features(3, batch=1)
    moved = moments(move(content, *transport(moments(content), both)))
    assert_close(moved.mean, both.mean, atol=1e-3, rtol=0)
    assert float((moved.covariance - both.covariance).abs().max()) <= 0.05 * float(both.covariance.abs().max())


def test_structural_similarity_of_windows() -> None:
    """Of two flat pictures it is the luminance's term alone; of a picture with itself 1."""
    dark, light = torch.full((1, 1, 9, 10), 0.2), torch.full((1, 1, 9, 10), 0.6)
    assert_close(similarity_map(dark, light), torch.full((1, 1, 3, 4), 0.2401 / 0.4001), atol=1e-3, rtol=0)
    x = torch.rand(1, 1, 12, 12)
    assert_close(similarity_map(x, x), torch.ones(1, 1, 6, 6))


def test_options() -> None:
    assert SwiftOptions().precision == "auto"
