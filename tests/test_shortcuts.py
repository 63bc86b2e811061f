"""Shortcuts: the bits of what they stand for, in every precision, format and size; gradients where they are asked."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from impasto import shortcuts
from impasto.backbones import slim_backbone
from impasto.layers import Conv, MaxPool, StepDecoder, run_in_full
from impasto.shortcuts import convolve_and_rectify, halve, pad_edges

DTYPES = [torch.float32, torch.bfloat16]
FORMATS = [torch.contiguous_format, torch.channels_last]
SHAPES = [(1, 16, 40, 36), (3, 16, 31, 45), (2, 16, 90, 1), (1, 16, 1, 97), (1, 1, 1, 1), (2, 3, 150, 149)]


@pytest.fixture(params=DTYPES, ids=["float32", "bfloat16"])
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    return request.param


@pytest.fixture(params=FORMATS, ids=["contiguous", "channels-last"])
def layout(request: pytest.FixtureRequest) -> torch.memory_format:
    return request.param


@pytest.fixture(params=SHAPES, ids=lambda shape: "x".join(map(str, shape)))
def x(request: pytest.FixtureRequest, dtype: torch.dtype, layout: torch.memory_format) -> Tensor:
    return torch.randn(request.param).to(dtype).to(memory_format=layout)


@pytest.mark.parametrize("mode", ["replicate", "reflect"])
@pytest.mark.parametrize("edge", [1, 4])
def test_edges_are_torchs(x: Tensor, mode: str, edge: int, monkeypatch: pytest.MonkeyPatch) -> None:
    if mode == "reflect" and min(x.shape[-2:]) <= edge:
        with pytest.raises(RuntimeError, match=r"[Pp]adding size"):
            pad_edges(x, (edge,) * 4, mode)
        return
    monkeypatch.setattr(shortcuts, "LARGE", 0)
    found = pad_edges(x, (edge,) * 4, mode)
    assert torch.equal(found, F.pad(x, (edge,) * 4, mode=mode))
    assert found.dtype == x.dtype


def test_small_maps_are_padded_by_torch_and_large_ones_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[int, ...]] = []
    by_hand = shortcuts._pad_by_hand

    def note(x: Tensor, edge: int, *, mirror: bool) -> Tensor:
        calls.append(tuple(x.shape))
        return by_hand(x, edge, mirror=mirror)

    monkeypatch.setattr(shortcuts, "_pad_by_hand", note)
    large = torch.zeros(1, 16, 256, 256).to(memory_format=torch.channels_last)
    for x in (large, large.contiguous(), large[..., :255, :], large.clone().requires_grad_(True)):
        pad_edges(x, (1, 1, 1, 1), "replicate")
    assert calls == [(1, 16, 256, 256)]


@pytest.mark.parametrize(("biased", "stride"), [(True, 1), (False, 1), (True, 2)])
def test_convolution_and_relu_are_torchs(x: Tensor, biased: bool, stride: int) -> None:
    if stride > min(x.shape[-2:]):
        return  # torch itself does not give the same bits twice there
    weight, bias = torch.randn(8, x.shape[1], 3, 3).to(x), torch.randn(8).to(x) if biased else None
    padded = F.pad(x, (1, 1, 1, 1), mode="replicate")
    found = convolve_and_rectify(padded, weight, bias, (stride, stride))
    assert torch.equal(found, F.relu(F.conv2d(padded, weight, bias, stride)))
    assert found.is_contiguous(memory_format=torch.channels_last) == F.conv2d(padded, weight, bias).is_contiguous(
        memory_format=torch.channels_last
    )


def test_convolution_under_autocast_is_torchs(layout: torch.memory_format) -> None:
    x, conv = torch.randn(1, 16, 61, 40).to(memory_format=layout), Conv(16, 8)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        found = conv(x, relu=True)
        assert found.dtype == torch.bfloat16
        assert torch.equal(found, F.relu(conv(x)))
        assert torch.equal(run_in_full(conv, x, relu=True), F.relu(run_in_full(conv, x)))


def test_where_onednn_is_missing_it_is_done_in_two_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    x, weight = torch.randn(1, 16, 40, 40).to(memory_format=torch.channels_last), torch.randn(8, 16, 3, 3)
    assert shortcuts._kind_of(x) is None
    assert torch.equal(convolve_and_rectify(x, weight, None, (1, 1)), F.relu(F.conv2d(x, weight)))


def test_pooling_is_torchs(x: Tensor) -> None:
    if min(x.shape[-2:]) < 2:
        with pytest.raises(RuntimeError, match=r"[Oo]utput size"):
            halve(x)
        return
    assert torch.equal(halve(x), F.max_pool2d(x, 2))


def test_gradients_are_torchs(layout: torch.memory_format) -> None:
    x = torch.randn(2, 16, 41, 36).round().to(memory_format=layout)  # with ties
    weight = torch.randn(8, 16, 3, 3)

    def ours(x: Tensor, weight: Tensor) -> Tensor:
        return halve(convolve_and_rectify(pad_edges(x, (1, 1, 1, 1), "replicate"), weight, None, (1, 1)))

    def torchs(x: Tensor, weight: Tensor) -> Tensor:
        padded = F.pad(x, (1, 1, 1, 1), mode="replicate")
        return F.max_pool2d(F.relu(F.conv2d(padded, weight)), 2)

    found = []
    for way in (ours, torchs):
        given = [value.clone().requires_grad_(True) for value in (x, weight)]
        found.append(torch.autograd.grad(way(*given).square().sum(), given))
    for a, b in zip(*found, strict=True):
        assert torch.equal(a, b)
    assert torch.equal(ours(x, weight), torchs(x, weight))  # the same without gradients


def test_a_backbone_gives_the_same_features_with_and_without_gradients() -> None:
    backbone = slim_backbone().to(memory_format=torch.channels_last)
    image = torch.rand(1, 3, 97, 131)
    for layers in (["relu1_1", "conv2_1", "relu2_1"], ["relu4_1"], list(backbone.layers)):
        with_gradients = backbone(image, layers)
        assert with_gradients[layers[-1]].requires_grad
        with torch.no_grad():
            found = backbone(image, layers)
        assert found.keys() == with_gradients.keys() == set(layers)
        for layer in layers:
            assert torch.equal(found[layer], with_gradients[layer]), layer
            assert layer == "image" or not layer.startswith("conv") or float(found[layer].detach().min()) < 0


def test_a_decoder_gives_the_same_picture_with_and_without_gradients() -> None:
    decoder = StepDecoder((16, 16, 32, 32)).to(memory_format=torch.channels_last)
    x = torch.randn(2, 32, 9, 12)
    wanted = decoder(x)
    assert wanted.requires_grad
    with torch.no_grad():
        assert torch.equal(decoder(x), wanted)


def test_pooling_of_a_backbone_is_short() -> None:
    assert isinstance(slim_backbone().steps["pool1"], MaxPool)
