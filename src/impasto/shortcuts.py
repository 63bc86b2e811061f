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


def scale_channels(
    x: Tensor, scale: Tensor, shift: Tensor | None = None, *, relu: bool = False, plus: Tensor | None = None
) -> Tensor:
    """``x * scale + shift``, its ReLU if `relu`, and then `plus` added, all (B, C, H, W).

    scale, shift: (1 or B, C). A convolution of each channel by itself is the quickest in bfloat16; in float32, on one
    thread, it takes ten times as long as plain products.
    """
    scale = scale.to(x.dtype)
    shift = torch.zeros_like(scale) if shift is None else shift.to(x.dtype)
    if len(scale) > 1 or x.dtype not in HALF or x.device.type != "cpu":
        y = torch.addcmul(shift[:, :, None, None], x, scale[:, :, None, None])
    else:
        kernel, whole = scale[0, :, None, None, None], ([0, 0], [1, 1], [1, 1], x.shape[1])
        fused = _kind_of(x) == x.dtype and _last(x) and _is_free(x, scale, shift, plus)
        if fused and plus is None:
            plain: Tensor = torch.ops.mkldnn._convolution_pointwise(
                x, kernel, shift[0], *whole, "relu" if relu else "none", [], ""
            )
            return plain
        if fused and plus is not None and not relu:
            summed: Tensor = torch.ops.mkldnn._convolution_pointwise.binary(
                x, plus.to(x.dtype), kernel, shift[0], *whole, "add", 1.0, None, [], None
            )
            return summed
        y = F.conv2d(x, kernel, shift[0], groups=x.shape[1])
    if relu:
        y = F.relu_(y)
        return y if plus is None else y + plus  # not in its place: the ReLU's gradient needs it
    return y if plus is None else y.add_(plus)


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
    if not (_last(x) and len(x) == 1 and x.dtype in (torch.float32, torch.bfloat16) and _is_free(x)):
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
