"""SANet: the paper's sizes, attention against float64 written once more, mixing after attention, any size."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from impasto.feedforward.instance_norm import decode_normalised
from impasto.feedforward.stages import run_whole
from impasto.methods.sanet import (
    FINE,
    LAYERS,
    SANet,
    SANetOptions,
    SANetTraining,
    SANetwork,
    StyleAttention,
    attend,
    fine_targets,
    measured_targets,
)
from impasto.networks.backbone import VGG19_BLOCKS, VGG19_WIDTHS, Backbone, vgg_steps
from impasto.networks.layers import Conv, count_parameters
from impasto.optimize.perceptual_loss import PerceptualLoss
from impasto.stylizers.styles import Style, mix, parts
from tiny import painting, random_slim, tiny


def test_the_papers_network_has_the_papers_size() -> None:
    network = SANetwork.paper()
    blocks = [count_parameters(block) for block in (network.shallow, network.deep)]
    assert blocks == [1_050_624] * 2
    assert sum(blocks) + count_parameters(network.merge) == 4_461_056
    encoder = Backbone("vgg19", {"conv0": Conv(3, 3, 1), **vgg_steps(VGG19_BLOCKS, VGG19_WIDTHS)})
    assert count_parameters(encoder) + count_parameters(network) == 20_911_247


def naive(queries: np.ndarray, keys: np.ndarray, values: np.ndarray) -> np.ndarray:
    scores = queries.T @ keys
    weights = np.exp(scores - scores.max(1, keepdims=True))
    return values @ (weights / weights.sum(1, keepdims=True)).T


@pytest.mark.parametrize("chunk", [1, 4, 100])
def test_attention_is_the_formula_in_chunks_of_any_size(chunk: int) -> None:
    queries, keys, values = (torch.randn(2, 5, n, dtype=torch.float64) for n in (11, 7, 7))
    found = attend(queries, keys, values, chunk)
    for i in range(2):
        wanted = naive(queries[i].numpy(), keys[i].numpy(), values[i].numpy())
        assert_close(found[i], torch.tensor(wanted), atol=1e-9, rtol=1e-9)


def test_the_weights_of_a_position_add_up_to_1() -> None:
    queries, keys = torch.randn(1, 8, 30) * 3, torch.randn(1, 8, 20) * 3
    assert_close(attend(queries, keys, torch.ones(1, 2, 20)), torch.ones(1, 2, 30))


def test_the_order_of_the_paintings_positions_does_not_matter() -> None:
    block = StyleAttention(8)
    content, style = torch.randn(1, 8, 6, 5), torch.randn(1, 8, 4, 7)
    shuffled = style.flatten(2)[..., torch.randperm(28)].unflatten(2, (7, 4))
    assert_close(block(content, shuffled), block(content, style), atol=1e-5, rtol=1e-4)


def test_the_contents_contrast_does_not_change_what_it_looks_for() -> None:
    block = StyleAttention(8)
    content, style = torch.randn(1, 8, 6, 5), torch.randn(1, 8, 4, 7)
    taken = block(content, style) - content
    assert_close(block(content * 3 + 1, style) - (content * 3 + 1), taken, atol=1e-3, rtol=1e-3)


def test_a_network_that_starts_as_identity_leaves_relu4_1_as_it_is() -> None:
    network = SANetwork.slim()
    network.start_as_identity()
    content = {layer: torch.randn(1, 128, 8, 6) for layer in LAYERS}
    content["relu5_1"] = torch.zeros(1, 128, 4, 3)
    assert_close(network.blend(content, content), content["relu4_1"])


@pytest.fixture
def sanet() -> SANet:
    made = tiny("sanet")
    assert isinstance(made, SANet)
    return made


def test_a_style_is_two_feature_maps_and_fine_moments(sanet: SANet) -> None:
    style = sanet.encode_style(painting())
    shapes = {name: tuple(tensor.shape) for name, tensor in style.items()}
    assert shapes.pop("relu4_1.map") == (128, 6, 8)
    assert shapes.pop("relu5_1.map") == (128, 3, 4)
    fine = {"relu3_1": 64, "relu2_1": 32, "relu1_1": 16}
    assert shapes == {f"{layer}.{name}": (width,) for layer, width in fine.items() for name in ("mean", "deviation")}
    assert sanet.style_kind.startswith("maps/vgg19-slim/")


def test_positions_beyond_the_most_are_thinned_out(sanet: SANet) -> None:
    thin = SANet(SANetOptions(positions=16, precision="fp32"), backbone=sanet.backbone, network=sanet.network)
    full, few = (model.encode_style(painting(64, 96))["relu4_1.map"] for model in (sanet, thin))
    assert full.shape[1:] == (8, 12)
    assert few.shape[1] * few.shape[2] <= 16
    columns = full.flatten(1).T
    assert all((columns == position).all(1).any() for position in few.flatten(1).T)


def test_styles_mix_after_attention(sanet: SANet, picture: Tensor) -> None:
    one, two = sanet.encode_style(painting()), sanet.encode_style(painting(40, 52, seed=6))
    with torch.no_grad():
        own = sanet.backbone(picture, LAYERS)
        blended = [sanet.network.blend(own, {k: style[f"{k}.map"][None] for k in LAYERS}) for style in (one, two)]
        x = 0.25 * blended[0] + 0.75 * blended[1]
        fine = fine_targets([(0.25, one), (0.75, two)])
        assert_close(fine[2][0], 0.25 * one["relu2_1.mean"][None] + 0.75 * two["relu2_1.mean"][None])
        wanted = decode_normalised(sanet.network.decoder, x, fine, picture.shape).clamp(0, 1)
    assert_close(
        sanet.stylize(picture, one, two, weights=[1, 3]), wanted, atol=1e-3, rtol=0
    )  # random weights blow up rounding


def test_a_mixture_can_be_mixed_again() -> None:
    one, two, three = (Style({"relu4_1.map": torch.full((1, 1, 1), float(n))}, "maps/x") for n in (1, 2, 3))
    found = parts(mix([mix([one, two], [1, 3]), three], [1, 1]))
    assert [(share, float(part["relu4_1.map"])) for share, part in found] == [(0.125, 1), (0.375, 2), (0.5, 3)]
    assert parts(one) == [(1.0, one)]


def test_its_stages_at_strength_0_paint_the_photo_in_its_own_style(sanet: SANet, picture: Tensor) -> None:
    with torch.no_grad():
        own = sanet.backbone(picture, [*LAYERS, *FINE.values()])
        targets = measured_targets(own)
        wanted = decode_normalised(sanet.network.decoder, sanet.network.blend(own, own), targets, picture.shape)
        found = run_whole(sanet.stages(sanet.encode_style(painting()), 0.0, tuple(picture.shape[-2:])), picture)
    assert_close(found, wanted.clamp(0, 1), atol=5e-4, rtol=0)


# --- training


def learner() -> SANetTraining:
    torch.manual_seed(3)
    return SANetTraining(random_slim(), PerceptualLoss(random_slim(heads=True)), SANetwork.slim())


def test_the_identity_loss_falls_tenfold(sanet: SANet) -> None:
    training, images = learner(), painting(32, 32)
    training.network = sanet.network.requires_grad_(True)
    optimizer = torch.optim.Adam(training.parameters(), lr=1e-3)
    history = []
    for _ in range(80):
        loss = training.identity(images)["identity"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        history.append(float(loss.detach()))
    assert min(history[-5:]) < 0.1 * history[0]


def test_the_terms_are_the_papers_four(picture: Tensor) -> None:
    terms = learner().training_terms(picture, painting(), 0.0)
    assert set(terms) == {"content", "style", "identity", "features"}
    assert all(float(term.detach()) > 0 for term in terms.values())
