"""What layers do, in less time and memory on a CPU where nobody asks for gradients; the numbers are the same.

On a CPU, most of a small network's time goes not into products but into reading and writing maps: padded copies, maps
before their ReLU, maps of indices that only a gradient would need.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor

CIRCULAR: Final = "circular"
HALF = (torch.float16, torch.bfloat16)
LARGE = 1 << 20
"""Numbers from which on a padded map is quicker made by hand."""

COLUMNS, ROWS = 256, 4096
"""Numbers side by side in which channels-last maps are summed, and rows of them whose sums are kept in float32."""

PHASES = (0, 0), (0, 1), (1, 0), (1, 1)
ENOUGH = 1 << 20
"""Numbers from which on a map is convolved before it is doubled."""

FEW, WIDE = 4, 5
"""Outputs up to which, and sides of a kernel from which on, a convolution makes four neighbours at once."""

SMALL = 20480
"""Numbers up to which torch convolves in float32 by another library than oneDNN, whose last bits differ."""


def device_of(x: Tensor) -> str:
    """The kind of device whose autocast counts for `x`: tensors without values have none of their own."""
    return "cpu" if x.is_meta else x.device.type


def _traced() -> bool:
    """Whether what runs is being written down."""
    return torch.compiler.is_compiling() or torch._C._get_tracing_state() is not None


def _is_free(*tensors: Tensor | None) -> bool:
    """Whether the `tensors` lie in a CPU's memory, no gradient is asked for and nobody writes down what is done."""
    if _traced() or any(x is not None and x.device.type != "cpu" for x in tensors):
        return False
    return not (torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in tensors))


# --- edges


def pad_edges(x: Tensor, edge: Sequence[int], mode: str) -> Tensor:
    """(B, C, H, W) with `edge` (one number, four times) more pixels on each side, in the precision of `x`.

    mode: ``replicate``, ``reflect`` or ``circular``. Raises RuntimeError if the map is too small for it.
    """
    with torch.autocast(device_of(x), enabled=False):  # which would pad in float32
        if mode == CIRCULAR:
            padded: Tensor = _Wrap.apply(x, edge[0])
            return padded
        if x.numel() >= LARGE and _last(x) and min(x.shape[-2:]) > edge[0] and _is_free(x):
            return _pad_by_hand(x, edge[0], mirror=mode == "reflect")
        return F.pad(x, tuple(edge), mode=mode)


def _pad_by_hand(x: Tensor, edge: int, *, mirror: bool) -> Tensor:
    height, width = x.shape[-2:]
    y = _grown(x, edge)
    y[..., edge:-edge, edge:-edge] = x
    for i in range(edge):
        step = i + 1 if mirror else 0
        y[..., edge - 1 - i, edge:-edge] = x[..., step, :]
        y[..., edge + height + i, edge:-edge] = x[..., height - 1 - step, :]
    for i in range(edge):
        step = i + 1 if mirror else 0
        y[..., edge - 1 - i] = y[..., edge + step]
        y[..., edge + width + i] = y[..., edge + width - 1 - step]
    return y


def _grown(x: Tensor, edge: int) -> Tensor:
    size = (*x.shape[:2], x.shape[-2] + 2 * edge, x.shape[-1] + 2 * edge)
    return torch.empty(size, dtype=x.dtype, device=x.device, memory_format=_format(x))


class _Wrap(torch.autograd.Function):
    """Circular padding: as ``F.pad(x, ..., mode="circular")``, in a fifth of the time in channels-last format."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, edge: int) -> Tensor:
        ctx.edge = edge
        height, width = x.shape[-2:]
        if min(height, width) < edge:
            raise RuntimeError(f"a map of {width}x{height} does not reach round an edge of {edge}")
        y = _grown(x, edge)
        y[..., edge:-edge, edge:-edge] = x
        y[..., :edge, edge:-edge] = x[..., height - edge :, :]
        y[..., -edge:, edge:-edge] = x[..., :edge, :]
        y[..., :edge] = y[..., width : width + edge]
        y[..., -edge:] = y[..., edge : 2 * edge]
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (by_y,), edge = gradients, ctx.edge
        rows = by_y[..., edge:-edge].clone(memory_format=_format(by_y))
        rows[..., -edge:] += by_y[..., :edge]
        rows[..., :edge] += by_y[..., -edge:]
        x = rows[..., edge:-edge, :].clone(memory_format=_format(by_y))
        x[..., -edge:, :] += rows[..., :edge, :]
        x[..., :edge, :] += rows[..., -edge:, :]
        return x, None


def _last(x: Tensor) -> bool:
    return x.is_contiguous(memory_format=torch.channels_last)


def _format(x: Tensor) -> torch.memory_format:
    return torch.channels_last if _last(x) else torch.contiguous_format


# --- convolution and ReLU


def convolve_and_rectify(x: Tensor, weight: Tensor, bias: Tensor | None, stride: Sequence[int]) -> Tensor:
    """``relu(conv2d(x, weight, bias, stride))``, (B, C, H, W) to (B, D, h, w); no map is held before its ReLU.

    By oneDNN the convolution itself leaves out what is negative (and makes what is not a number 0).
    """
    kind = _kind_of(x)
    large = x.numel() > SMALL and weight.shape[-1] > 1 and _last(x)
    if kind is not None and large and _is_free(x, weight, bias):
        x, weight = x.to(kind), weight.to(kind)
        bias = None if bias is None else bias.to(kind)
        fused: Tensor = torch.ops.mkldnn._convolution_pointwise(
            x, weight, bias, [0, 0], list(stride), [1, 1], 1, "relu", [], ""
        )
        return fused
    y = F.conv2d(x, weight, bias, tuple(stride))
    return F.relu(y) if _traced() else F.relu_(y)


def _kind_of(x: Tensor) -> torch.dtype | None:
    """The precision in which oneDNN convolves `x`; None: not at all, or not with a ReLU."""
    if not torch.backends.mkldnn.is_available() or not torch.backends.mkldnn.enabled:  # type: ignore[no-untyped-call]
        return None
    kind = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype
    library = torch.ops.mkldnn
    known = kind == torch.float32 or (
        kind == torch.bfloat16 and hasattr(library, "_is_mkldnn_bf16_supported") and library._is_mkldnn_bf16_supported()
    )
    return kind if known and hasattr(library, "_convolution_pointwise") else None


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None, stride: Sequence[int]) -> Tensor:
    """``conv2d(x, weight, bias, stride)``, (B, C, H, W) to (B, D, h, w).

    A wide kernel with `FEW` outputs makes four neighbours at once, by the same sums: oneDNN reckons with at least 16.
    """
    outputs, channels, *kernel = weight.shape
    height, width = (side - extent + 1 for side, extent in zip(x.shape[-2:], kernel, strict=True))
    wide = outputs <= FEW and min(kernel) >= WIDE and tuple(stride) == (1, 1)
    if not wide or height % 2 or width % 2 or min(height, width) < 2 or not _is_free(x, weight, bias):
        return F.conv2d(x, weight, bias, tuple(stride))
    four = weight.new_zeros(2, 2, outputs, channels, kernel[0] + 1, kernel[1] + 1)
    for row, column in PHASES:
        four[row, column, :, :, row : row + kernel[0], column : column + kernel[1]] = weight
    return _spread(F.conv2d(x, _as_kernel(four), None if bias is None else bias.repeat(4), 2))


def convolve_doubled(
    x: Tensor, weight: Tensor, bias: Tensor | None, *, relu: bool = False, mode: str = "replicate"
) -> Tensor | None:
    """``conv2d`` with a kernel 3x3 over `x`, (B, C, H, W), doubled and padded by one pixel, to (B, D, 2 H, 2 W).

    The four neighbours that come of a pixel are made at once, by a convolution over `x` itself: no large map but the
    outcome. mode: of the edge, as `pad_edges` takes it; what is doubled mirrors as it repeats. None: not here.
    """
    if x.numel() < ENOUGH or tuple(weight.shape[-2:]) != (3, 3) or not _is_free(x, weight, bias):
        return None
    spread = weight.new_tensor([[[1.0, 0, 0], [0, 1, 1], [0, 0, 0]], [[0, 0, 0], [1, 1, 0], [0, 0, 1]]])
    four = torch.einsum("ayi,bxj,ocij->abocyx", spread, spread, weight)
    padded = pad_edges(x, (1, 1, 1, 1), mode if mode == CIRCULAR else "replicate")
    run = convolve_and_rectify if relu else convolve
    return _spread(run(padded, _as_kernel(four), None if bias is None else bias.repeat(4), (1, 1)))


def _as_kernel(four: Tensor) -> Tensor:
    """(2, 2, D, C, h, w) to (4 D, C, h, w)."""
    return four.flatten(0, 2).contiguous(memory_format=torch.channels_last)


def _spread(x: Tensor) -> Tensor:
    """Four neighbours beside each other among the channels, (B, 4 D, H, W), to (B, D, 2 H, 2 W)."""
    batch, channels, height, width = x.shape
    rows = x.permute(0, 2, 3, 1).reshape(batch, height, width, 2, channels // 2).transpose(2, 3)
    return rows.reshape(batch, 2 * height, 2 * width, channels // 4).permute(0, 3, 1, 2)


def scale_channels(
    x: Tensor, scale: Tensor, shift: Tensor | None = None, *, relu: bool = False, plus: Tensor | None = None
) -> Tensor:
    """``x * scale + shift``, its ReLU if `relu`, and then `plus` added, all (B, C, H, W).

    scale, shift: (1 or B, C). By oneDNN it is a convolution of each channel by itself, with its ReLU in one pass.
    """
    scale = scale.to(x.dtype)
    shift = torch.zeros_like(scale) if shift is None else shift.to(x.dtype)
    y = _scale_by_convolution(x, scale, shift, relu) if len(scale) == 1 else None
    if y is None:
        y = torch.addcmul(shift[:, :, None, None], x, scale[:, :, None, None])
        y = F.relu_(y) if relu else y
    return y if plus is None else y + plus if relu and y.requires_grad else y.add_(plus)


def _scale_by_convolution(x: Tensor, scale: Tensor, shift: Tensor, relu: bool) -> Tensor | None:
    """`scale_channels` where that is quicker so; None: elsewhere. torch's own such convolution is slow in float32."""
    if x.device.type != "cpu" or not (x.dtype in HALF or relu):
        return None
    kernel, channels = scale[0, :, None, None, None], x.shape[1]
    if _kind_of(x) == x.dtype and _last(x) and _is_free(x, scale, shift):
        name = "relu" if relu else "none"
        y: Tensor = torch.ops.mkldnn._convolution_pointwise(
            x, kernel, shift[0], [0, 0], [1, 1], [1, 1], channels, name, [], ""
        )
        return y
    if x.dtype not in HALF:
        return None
    y = F.conv2d(x, kernel, shift[0], groups=channels)
    return F.relu_(y) if relu else y


# --- pooling


def halve(x: Tensor) -> Tensor:
    """``max_pool2d(x, 2)``, (B, C, H, W) to (B, C, H / 2, W / 2), rounded down."""
    height, width = x.shape[-2] // 2 * 2, x.shape[-1] // 2 * 2
    if not (height and width and _is_free(x)):
        return F.max_pool2d(x, 2)
    rows = torch.maximum(x[..., 0:height:2, :width], x[..., 1:height:2, :width])
    return torch.maximum(rows[..., 0::2], rows[..., 1::2])


# --- sums


def sum_channels(x: Tensor) -> tuple[Tensor, Tensor] | None:
    """Sums of every channel of (1, C, H, W) and of its squares, both (1, C), float64; None: not here.

    As many positions as fill `COLUMNS` are read side by side, each `ROWS` rows in float32 around their own means.
    """
    channels = x.shape[1]
    last = channels == 1 or x.stride(1) == 1  # a part of a channels-last map is none itself
    if not (last and len(x) == 1 and x.dtype in (torch.float32, torch.bfloat16) and _is_free(x)):
        return None
    together = max(1, COLUMNS // channels)
    positions = x.permute(0, 2, 3, 1).reshape(-1, channels)
    even = len(positions) // together * together
    total, squares = x.new_zeros(2, channels, dtype=torch.float64)
    for part, width in ((positions[:even], together), (positions[even:], 1)):
        for rows in torch.split(part.reshape(-1, width * channels), ROWS):
            if len(rows):
                unused = torch.zeros(width * channels)  # of float32: so that the answer is, too
                mean, variance = (found.double() for found in torch.batch_norm_update_stats(rows, unused, unused, 0.0))
                total = total + len(rows) * mean.view(width, channels).sum(0)
                squares = squares + len(rows) * (variance + mean.square()).view(width, channels).sum(0)
    return total[None], squares[None]
