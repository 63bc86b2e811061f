"""Shortcuts: the bits of what they stand for, in every precision, format and size; gradients where they are asked."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from impasto.networks.backbone import slim_backbone
from impasto.networks.layers import Conv, MaxPool, StepDecoder, double, run_in_full, wrap_edges
from impasto.ops import cpu_kernels
from impasto.ops.cpu_kernels import (
    add_scaled,
    convolve,
    convolve_doubled,
    halve,
    pad_edges,
    scale_channels,
)
from impasto.ops.moments import sum_channels

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
    monkeypatch.setattr(cpu_kernels, "LARGE", 0)
    found = pad_edges(x, (edge,) * 4, mode)
    assert torch.equal(found, F.pad(x, (edge,) * 4, mode=mode))
    assert found.dtype == x.dtype


def test_small_maps_are_padded_by_torch_and_large_ones_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[int, ...]] = []
    by_hand = cpu_kernels._pad_by_hand

    def note(x: Tensor, edge: int, *, mirror: bool) -> Tensor:
        calls.append(tuple(x.shape))
        return by_hand(x, edge, mirror=mirror)

    monkeypatch.setattr(cpu_kernels, "_pad_by_hand", note)
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
    found = convolve(padded, weight, bias, (stride, stride), relu=True)
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
    assert cpu_kernels._kind_of(x) is None
    assert torch.equal(convolve(x, weight, None, (1, 1), relu=True), F.relu(F.conv2d(x, weight)))


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
        return halve(convolve(pad_edges(x, (1, 1, 1, 1), "replicate"), weight, None, (1, 1), relu=True))

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
        torch.testing.assert_close(decoder(x), wanted, rtol=1e-5, atol=1e-6)


def test_pooling_of_a_backbone_is_short() -> None:
    assert isinstance(slim_backbone().steps["pool1"], MaxPool)


@pytest.mark.parametrize("size", [(8, 8), (9, 9), (20, 31), (40, 36)], ids=lambda size: "x".join(map(str, size)))
@pytest.mark.parametrize("shape", [(3, 8, 9, 9), (1, 3, 5, 7), (4, 2, 8, 8), (5, 8, 9, 9), (3, 8, 3, 3)], ids=str)
@pytest.mark.parametrize("bias", [False, True], ids=["", "bias"])
def test_few_outputs_at_once(
    size: tuple[int, int], shape: tuple[int, ...], bias: bool, layout: torch.memory_format
) -> None:
    x = torch.randn(2, shape[1], size[0] + shape[2] - 1, size[1] + shape[3] - 1).to(memory_format=layout)
    weight, added = torch.randn(shape), torch.randn(shape[0]) if bias else None
    found = convolve(x, weight, added, (1, 1))
    expected = F.conv2d(x.double(), weight.double(), None if added is None else added.double())
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-4)
    positive = convolve(x, weight, added, (1, 1), relu=True)
    torch.testing.assert_close(positive.double(), expected.relu(), rtol=1e-4, atol=1e-4)
    assert torch.equal(convolve(x, weight, added, (2, 2)), F.conv2d(x, weight, added, 2))


@pytest.mark.parametrize("channels", [3, 8, 16, 24])
@pytest.mark.parametrize("kernel", [3, 5, 9])
@pytest.mark.parametrize("outputs", [3, 8, 16])
def test_neighbours_are_right_in_half_precision(channels: int, kernel: int, outputs: int) -> None:
    x = torch.randn(1, channels, 40, 71 + kernel).to(torch.bfloat16, memory_format=torch.channels_last)
    weight = torch.randn(outputs, channels, kernel, kernel).bfloat16()
    expected = F.conv2d(x.float(), weight.float())
    for found, wanted in (
        (convolve(x, weight, None, (1, 1)), expected),
        (convolve(x, weight, None, (1, 1), relu=True), expected.relu()),
    ):
        assert (found.float() - wanted).square().mean() < 1e-4 * wanted.square().mean()


def test_kernels_of_the_library_that_give_nonsense_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = F.conv2d
    monkeypatch.setattr(F, "conv2d", lambda x, w, b=None, s=1: plain(x, w, b, s) * (1 if s in (1, (1, 1)) else 2))
    cpu_kernels._is_sound.cache_clear()
    x, weight = torch.randn(1, 8, 20, 40), torch.randn(3, 8, 9, 9)
    assert torch.equal(convolve(x, weight, None, (1, 1)), plain(x, weight))
    cpu_kernels._is_sound.cache_clear()


@pytest.mark.parametrize(
    ("shape", "width", "full", "half"),
    [
        ((3, 8, 9, 9), 40, (12, 12, 4), (12, 12, 4)),
        ((3, 8, 9, 9), 42, (6, 10, 2), (6, 10, 2)),
        ((3, 8, 9, 9), 41, (3, 9, 1), (3, 9, 1)),
        ((8, 3, 9, 9), 40, (16, 10, 2), (16, 5, 1)),
        ((8, 3, 9, 9), 41, (8, 9, 1), (8, 9, 1)),
        ((3, 16, 3, 3), 40, (12, 6, 4), (6, 4, 2)),
        ((3, 32, 3, 3), 40, (12, 6, 4), (3, 3, 1)),
        ((8, 16, 3, 3), 40, (8, 3, 1), (8, 3, 1)),
        ((16, 3, 9, 9), 40, (16, 9, 1), (32, 5, 1)),
    ],
    ids=str,
)
def test_neighbours_in_a_row_come_of_one_convolution(
    shape: tuple[int, ...],
    width: int,
    full: tuple[int, ...],
    half: tuple[int, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """outputs, width and stride of the kernel that is run, in float32 and in bfloat16."""
    seen: list[tuple[int, ...]] = []
    plain = F.conv2d

    def note(x: Tensor, weight: Tensor, bias: Tensor | None, stride: tuple[int, int]) -> Tensor:
        seen.append((len(weight), weight.shape[-1], stride[1]))
        return plain(x, weight, bias, stride)

    monkeypatch.setattr(F, "conv2d", note)
    monkeypatch.setattr(cpu_kernels, "_kind_of", lambda x: x.dtype)
    monkeypatch.setattr(cpu_kernels, "_is_sound", lambda *_: True)
    monkeypatch.setattr(cpu_kernels, "_has_amx", lambda: False)
    for kind in (torch.float32, torch.bfloat16):
        x = torch.randn(1, shape[1], 12 + shape[2], width + shape[3] - 1).to(kind)
        convolve(x, torch.randn(shape).to(kind), None, (1, 1))
    assert seen == [full, half]


def test_what_learns_is_convolved_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, ...]] = []
    plain = F.conv2d

    def note(x: Tensor, weight: Tensor, *others: object) -> Tensor:
        seen.append(tuple(weight.shape))
        return plain(x, weight, *others)

    monkeypatch.setattr(F, "conv2d", note)
    monkeypatch.setattr(cpu_kernels, "_is_sound", lambda *_: True)
    for wanted in (False, True):
        convolve(torch.randn(1, 8, 40, 40), torch.randn(3, 8, 9, 9, requires_grad=wanted), None, (1, 1))
    assert seen == [(12, 8, 9, 12), (3, 8, 9, 9)]


@pytest.mark.parametrize("edge", ["mirror", "repeat", "wrap"])
@pytest.mark.parametrize("relu", [False, True], ids=["", "relu"])
@pytest.mark.parametrize("size", [(1, 1), (5, 8), (16, 7)], ids=lambda size: "x".join(map(str, size)))
def test_a_map_is_convolved_before_it_is_doubled(
    edge: str, relu: bool, size: tuple[int, int], layout: torch.memory_format, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu_kernels, "ENOUGH", 0)
    conv = Conv(6, 5, mirror=edge == "mirror").requires_grad_(False)
    if edge == "wrap":
        wrap_edges(conv)
    x = torch.randn(2, 6, *size).to(memory_format=layout)
    found, expected = conv(x, relu=relu, doubled=True), conv(double(x), relu=relu)
    assert found.shape == (2, 5, 2 * size[0], 2 * size[1])
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_what_learns_and_what_is_small_is_doubled_first() -> None:
    x, weight = torch.zeros(1, 16, 256, 256), torch.zeros(8, 16, 3, 3)
    assert convolve_doubled(x, weight, None) is not None
    assert convolve_doubled(x[..., :100], weight, None) is None
    assert convolve_doubled(x, torch.zeros(8, 16, 5, 5), None) is None
    assert convolve_doubled(x, weight.requires_grad_(True), None) is None


# --- channels


@pytest.mark.parametrize("relu", [False, True], ids=["", "relu"])
@pytest.mark.parametrize("added", [False, True], ids=["", "added"])
def test_channels_are_scaled_shifted_rectified_and_added_to(x: Tensor, relu: bool, added: bool) -> None:
    scale, shift = torch.randn(1, x.shape[1]), torch.randn(1, x.shape[1])
    plus = torch.randn(x.shape).to(x) if added else None
    rounded = (part.to(x.dtype).double()[..., None, None] for part in (scale, shift))
    own = x.double() * next(rounded) + next(rounded)
    own = own.clamp_min(0) if relu else own
    own = own + plus.double() if plus is not None else own
    before = x.clone()
    found = scale_channels(x, scale, shift, relu=relu, plus=plus)
    assert found.dtype == x.dtype
    most = 0.02 if x.dtype == torch.bfloat16 else 1e-5
    assert (found.double() - own).abs().max() <= most * own.abs().max().clamp_min(1)
    assert torch.equal(x, before)


def test_what_is_scaled_is_added(x: Tensor, layout: torch.memory_format) -> None:
    y, scale = torch.randn(x.shape).to(x).to(memory_format=layout), torch.randn(1, x.shape[1])
    expected = y.double() + x.double() * scale.to(x.dtype).double()[..., None, None]
    found = add_scaled(y.clone(), x, scale)
    assert found.dtype == x.dtype
    torch.testing.assert_close(found.double(), expected, rtol=2e-2 if x.dtype == torch.bfloat16 else 1e-5, atol=1e-2)
    scale.requires_grad_(True)
    add_scaled(y.clone(), x, scale).sum().backward()
    torch.testing.assert_close(scale.grad, x.float().sum((0, 2, 3))[None], rtol=2e-2, atol=1e-1)


def test_each_sample_has_its_own_scale() -> None:
    x = torch.randn(2, 3, 5, 4).bfloat16()
    scale = torch.tensor([[1.0, 2, 3], [4, 5, 6]])
    assert torch.equal(scale_channels(x, scale), x * scale.bfloat16()[..., None, None])


def test_scaled_channels_have_gradients() -> None:
    x = torch.randn(1, 3, 5, 4, dtype=torch.float64, requires_grad=True)
    scale, shift = (torch.randn(1, 3, dtype=torch.float64, requires_grad=True) for _ in range(2))
    plus = torch.randn(1, 3, 5, 4, dtype=torch.float64, requires_grad=True)
    run = lambda *given: scale_channels(*given[:3], relu=True, plus=given[3])  # noqa: E731
    assert torch.autograd.gradcheck(run, (x, scale, shift, plus))


@pytest.mark.parametrize("channels", [1, 3, 8, 16, 100, 300])
@pytest.mark.parametrize("size", [(1, 1), (7, 13), (150, 149)], ids=lambda size: "x".join(map(str, size)))
def test_channels_are_summed(channels: int, size: tuple[int, int], dtype: torch.dtype) -> None:
    x = (torch.randn(1, channels, *size) * torch.linspace(0.1, 3, channels)[:, None, None] + 0.7).to(dtype)
    x = torch.empty_like(x, memory_format=torch.channels_last).copy_(x)
    found = sum_channels(x)
    assert found is not None
    exact = x.double()
    for own, expected in zip(found, (exact.sum((2, 3)), exact.square().sum((2, 3))), strict=True):
        assert own.dtype == torch.float64
        torch.testing.assert_close(own, expected, rtol=3e-6, atol=1e-5 * size[0] * size[1])


@pytest.mark.parametrize(
    "x",
    [
        torch.zeros(2, 4, 3, 3).to(memory_format=torch.channels_last),
        torch.zeros(1, 4, 3, 3),
        torch.zeros(1, 4, 3, 3, dtype=torch.float64).to(memory_format=torch.channels_last),
        torch.zeros(1, 4, 3, 3).to(memory_format=torch.channels_last).requires_grad_(True),
        torch.zeros(1, 4, 3, 3, device="meta").to(memory_format=torch.channels_last),
    ],
    ids=["batch", "contiguous", "float64", "gradients", "no values"],
)
def test_other_maps_are_not_summed_by_this_shortcut(x: Tensor) -> None:
    assert sum_channels(x) is None
