"""Layers in less time and memory on a CPU if no gradients are needed; the results are the same.

On a CPU, most of a small network's time goes into reading and writing maps: padded copies, maps before their ReLU, maps
of indices that only a gradient needs.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor

from impasto.ops.machine import KERNELS

CIRCULAR: Final = "circular"
HALF = (torch.float16, torch.bfloat16)
LARGE = 1 << 20
"""Minimum number of elements for padding by hand."""

ENOUGH = 1 << 20
"""Minimum number of elements for convolving a map before it is doubled."""

FEW, SOME, WIDE, NARROW = 4, 8, 5, 16
"""Most outputs for which a convolution makes several columns at once, with any kernel and with a `WIDE` one. In
bfloat16 the others do so only if they read at most `NARROW` channels."""

PAINTED = (8, 16, 32)
"""Outputs for which a wide convolution of colours, in bfloat16 without AMX, reads two columns as one."""

PLANES = 4
"""Most channels for which planar pictures are converted to channels-last for a convolution."""

SOUND = 1e-3
"""Largest mean square error, relative to that of the result, at which a way to convolve counts as correct."""

SMALL = 20480
"""Most elements for which torch convolves in float32 with another library than oneDNN; its last bits differ."""


def describe_kernels() -> str:
    """Describe the kernels that run on this CPU in a few words."""
    if not KERNELS.special:
        return "torch's alone"
    if not _onednn_is_on():
        return "torch's without oneDNN, padding and pooling by hand"
    fused = hasattr(torch.ops.mkldnn, "_convolution_pointwise")
    kinds = "float32 and bfloat16" if onednn_has_bf16() else "float32"
    return f"oneDNN in {kinds}, {'fused with ReLU, ' if fused else ''}padding, pooling and sums by hand"


def device_of(x: Tensor) -> str:
    """Return the type of device whose autocast applies to `x`; tensors without values count as CPU tensors."""
    return "cpu" if x.is_meta else x.device.type


def _traced() -> bool:
    """Return whether we are tracing or compiling."""
    return torch.compiler.is_compiling() or torch._C._get_tracing_state() is not None


def is_free(*tensors: Tensor | None) -> bool:
    """Return whether the `tensors` are on a CPU, need no gradient, and nothing is traced."""
    if not KERNELS.special or _traced() or any(x is not None and x.device.type != "cpu" for x in tensors):
        return False
    return not (torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in tensors))


# --- edges


def pad_edges(x: Tensor, edge: Sequence[int], mode: str) -> Tensor:
    """Pad (B, C, H, W) by `edge` pixels at its left, right, top and bottom, in the precision of `x`.

    mode: ``replicate``, ``reflect`` or ``circular``, the same on all sides. Raises RuntimeError if the map is too
    small.
    """
    if mode == CIRCULAR:
        padded: Tensor = _Wrap.apply(x, edge[0])
        return padded
    even = len(set(edge)) == 1
    if even and x.numel() >= LARGE and _last(x) and min(x.shape[-2:]) > edge[0] and is_free(x):
        return _pad_by_hand(x, edge[0], mirror=mode == "reflect")
    with torch.autocast(device_of(x), enabled=False):  # otherwise it would pad in float32
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


def in_last(x: Tensor) -> Tensor:
    """Return `x`, (B, C, H, W), in channels-last format, faster than torch's ``contiguous``."""
    return x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)


def _last(x: Tensor) -> bool:
    return x.is_contiguous(memory_format=torch.channels_last)


def _format(x: Tensor) -> torch.memory_format:
    return torch.channels_last if _last(x) else torch.contiguous_format


# --- convolution and ReLU


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None, stride: Sequence[int], *, relu: bool = False) -> Tensor:
    """Compute ``conv2d(x, weight, bias, stride)``, (B, C, H, W) to (B, D, h, w), and its ReLU if `relu`.

    With oneDNN, the convolution itself drops negative values (and turns NaN into 0), without a map before the ReLU.
    """
    together, x, weight, bias, stride = _in_row(x, weight, bias, stride)
    y = _convolve_and_rectify(x, weight, bias, stride) if relu else F.conv2d(x, weight, bias, tuple(stride))
    return _unroll(y, together)


def _convolve_and_rectify(x: Tensor, weight: Tensor, bias: Tensor | None, stride: Sequence[int]) -> Tensor:
    kind = _kind_of(x)
    pixels = x.shape[1] <= PLANES and _last(weight)
    large = x.numel() > SMALL and weight.shape[-1] > 1 and (_last(x) or pixels)
    if kind is not None and large and is_free(x, weight, bias):
        x, weight = in_last(x.to(kind)), weight.to(kind)
        bias = None if bias is None else bias.to(kind)
        y: Tensor = torch.ops.mkldnn._convolution_pointwise(
            x, weight, bias, [0, 0], list(stride), [1, 1], 1, "relu", [], ""
        )
        return y
    y = F.conv2d(x, weight, bias, tuple(stride))
    return F.relu(y) if _traced() else F.relu_(y)


def _kind_of(x: Tensor) -> torch.dtype | None:
    """Return the precision in which oneDNN convolves `x`; None if it does not, or not with a ReLU."""
    if not _onednn_is_on():
        return None
    kind = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype
    known = kind == torch.float32 or (kind == torch.bfloat16 and onednn_has_bf16())
    return kind if known and hasattr(torch.ops.mkldnn, "_convolution_pointwise") else None


def _onednn_is_on() -> bool:
    available = torch.backends.mkldnn.is_available() and torch.backends.mkldnn.enabled  # type: ignore[no-untyped-call]
    return bool(available)


def onednn_has_bf16() -> bool:
    """Return whether oneDNN convolves in bfloat16 on this processor; ``ONEDNN_MAX_CPU_ISA`` counts, too."""
    supported = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None) if _onednn_is_on() else None
    return supported is not None and bool(supported())


def _in_row(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: Sequence[int]
) -> tuple[int, Tensor, Tensor, Tensor | None, Sequence[int]]:
    """Return the number of adjacent columns per convolution, its input, kernel, bias and stride."""
    together, folded = _neighbours(x, weight, bias, stride)
    if folded:
        x = _fold(in_last(x.to(_kind_of(x))), together)
    return (together, x, *(_widen(weight, bias, together, folded) if together > 1 else (weight, bias, stride)))


def _neighbours(x: Tensor, weight: Tensor, bias: Tensor | None, stride: Sequence[int]) -> tuple[int, bool]:
    """Return how many adjacent output columns a convolution should make at once, and whether `_fold` helps.

    oneDNN pads to 16 outputs, in bfloat16 to 32. Channels are padded to pairs.
    """
    outputs, channels, _, across = weight.shape
    width, wide = x.shape[-1] - across + 1, across >= WIDE
    if across == 1 or tuple(stride) != (1, 1) or not is_free(x, weight, bias):
        return 1, False
    kind, half = _kind_of(x), _kind_of(x) in HALF
    pixels = half and wide and channels <= PLANES and outputs in PAINTED and x.shape[-1] % 2 == width % 2 == 0
    if pixels and not _has_amx() and _is_sound(tuple(weight.shape), 2, kind, True):
        return 2, True
    if outputs > (SOME if wide else FEW) or kind is None or (half and not wide and channels > NARROW):
        return 1, False
    most = 4 if (wide if half else outputs <= FEW) else 2
    counts = (count for count in (4, 2) if count <= most and width % count == 0)
    return next((count for count in counts if _is_sound(tuple(weight.shape), count, kind, False)), 1), False


def _has_amx() -> bool:
    return bool(getattr(torch.cpu, "_is_amx_tile_supported", bool)())  # no public name for it in torch 2.15


@functools.cache
def _is_sound(shape: tuple[int, int, int, int], together: int, kind: torch.dtype, folded: bool) -> bool:
    """Return whether adjacent columns come out right; oneDNN's AMX kernels fail for some shapes at stride 4."""
    generator = torch.Generator().manual_seed(0)
    plain: dict[str, Any] = {"generator": generator, "device": "cpu", "dtype": torch.float32}
    weight, x = torch.randn(shape, **plain), torch.randn(1, shape[1], shape[2] + 15, shape[3] + 63, **plain)
    wide, _, stride = _widen(weight.to(kind), None, together, folded)
    with torch.autocast("cpu", enabled=False), torch.inference_mode():
        part = in_last(x.to(kind))
        made = _unroll(F.conv2d(_fold(part, together) if folded else part, wide, None, stride), together)
        wanted = F.conv2d(x, weight)
    return float((made.float() - wanted).square().mean()) < SOUND * float(wanted.square().mean())


def _fold(x: Tensor, together: int) -> Tensor:
    """View (B, C, H, n W) in channels-last format as (B, n C, H, W): adjacent columns stacked in the channels."""
    rows = x.permute(0, 2, 3, 1)
    return rows.reshape(*rows.shape[:2], -1, together * x.shape[1]).permute(0, 3, 1, 2)


def _widen(weight: Tensor, bias: Tensor | None, together: int, folded: bool) -> tuple[Tensor, Tensor | None, list[int]]:
    """Return the kernel that makes this many adjacent columns at once: the same kernel, shifted one pixel for each."""
    outputs, channels, height, width = weight.shape
    span = width + together - 1
    row = weight.new_zeros(together, outputs, channels, height, span + (-span % together if folded else 0))
    for place in range(together):
        row[place, ..., place : place + width] = weight
    kernel = _fold(row.flatten(0, 1), together) if folded else row.flatten(0, 1)
    kernel = kernel.contiguous(memory_format=torch.channels_last)
    return kernel, None if bias is None else bias.repeat(together), [1, 1 if folded else together]


def _unroll(x: Tensor, together: int) -> Tensor:
    """View adjacent columns stacked in the channels, (B, n D, H, W), as (B, D, H, n W), without a copy."""
    if together == 1:
        return x
    batch, channels, height, width = x.shape
    rows = x.permute(0, 2, 3, 1).reshape(batch, height, together * width, channels // together)
    return rows.permute(0, 3, 1, 2)


def convolve_doubled(
    x: Tensor, weight: Tensor, bias: Tensor | None, *, relu: bool = False, mode: str = "replicate"
) -> Tensor | None:
    """Apply a 3x3 ``conv2d`` to `x`, (B, C, H, W), doubled and padded by one pixel; returns (B, D, 2 H, 2 W).

    The four pixels that belong to one input pixel are computed at once by a convolution over `x` itself, so no other
    large map is made. mode: of the edge, as in `pad_edges`; a doubled map mirrors as it repeats. None if not supported
    here.
    """
    if x.numel() < ENOUGH or tuple(weight.shape[-2:]) != (3, 3) or not is_free(x, weight, bias):
        return None
    spread = weight.new_tensor([[[1.0, 0, 0], [0, 1, 1], [0, 0, 0]], [[0, 0, 0], [1, 1, 0], [0, 0, 1]]])
    four = torch.einsum("ayi,bxj,ocij->abocyx", spread, spread, weight)
    padded = pad_edges(x, (1, 1, 1, 1), mode if mode == CIRCULAR else "replicate")
    return _spread(convolve(padded, _as_kernel(four), None if bias is None else bias.repeat(4), (1, 1), relu=relu))


def _as_kernel(four: Tensor) -> Tensor:
    """Reshape (2, 2, D, C, h, w) to (4 D, C, h, w)."""
    return four.flatten(0, 2).contiguous(memory_format=torch.channels_last)


def _spread(x: Tensor) -> Tensor:
    """Spread four pixels stacked in the channels, (B, 4 D, H, W), to (B, D, 2 H, 2 W)."""
    batch, channels, height, width = x.shape
    rows = x.permute(0, 2, 3, 1).reshape(batch, height, width, 2, channels // 2).transpose(2, 3)
    return rows.reshape(batch, 2 * height, 2 * width, channels // 4).permute(0, 3, 1, 2)


def round_scale(scale: Tensor, x: Tensor) -> Tensor:
    """Return `scale` as `scale_channels` uses it for `x`: rounded to the precision of `x`, in its own dtype.

    Use it to compute a shift that cancels ``x * scale``: in bfloat16 a flat channel of 9.3, scaled by 316 and shifted
    by the exact amount, is off by 5.
    """
    return scale.to(x.dtype).to(scale.dtype)


def scale_channels(
    x: Tensor, scale: Tensor, shift: Tensor | None = None, *, relu: bool = False, plus: Tensor | None = None
) -> Tensor:
    """Compute ``x * scale + shift``, its ReLU if `relu`, and add `plus`, all (B, C, H, W).

    scale, shift: (1 or B, C); the scale is rounded to the precision of `x`; shift and sum are not, only the result.
    With oneDNN this is a depthwise convolution, with its ReLU in one pass.
    """
    scale = scale.to(x.dtype)
    shift = torch.zeros_like(scale, dtype=_sum_kind(x)) if shift is None else shift.to(_sum_kind(x))
    y = _scale_in_one_pass(x, scale, shift, relu) if len(scale) == 1 else None
    if y is None:
        y = torch.addcmul(shift[:, :, None, None], x, scale[:, :, None, None]).to(x.dtype)
        y = F.relu_(y) if relu else y
    return y if plus is None else y + plus if relu and y.requires_grad else y.add_(plus)


def _sum_kind(x: Tensor) -> torch.dtype:
    """Return the precision in which values of the dtype of `x` are summed."""
    return torch.float32 if x.dtype in HALF else x.dtype


def add_scaled(x: Tensor, other: Tensor, scale: Tensor) -> Tensor:
    """Compute ``x + other * scale``, all (B, C, H, W), in place if that is faster; scale: (1 or B, C).

    With oneDNN this is a depthwise convolution of `other`, summed into `x`.
    """
    other, scale = other.to(x.dtype), scale.to(x.dtype)
    alone = len(scale) == 1 and x.shape == other.shape and _last(x) and _last(other)
    if alone and _kind_of(x) == x.dtype and is_free(x, other, scale):
        kernel, channels = scale[0, :, None, None, None], x.shape[1]
        return torch.ops.mkldnn._convolution_pointwise_.binary(  # type: ignore[no-any-return]
            x, other, kernel, None, [0, 0], [1, 1], [1, 1], channels, "add", 1.0, None, [], None
        )
    return scale_channels(other, scale, plus=x)


def mix_channels(x: Tensor, matrix: Tensor, mean: Tensor, target: Tensor) -> Tensor:
    """Compute ``matrix @ (x - mean) + target`` at every position of `x`, (B, C, H, W), to (B, D, H, W).

    matrix: (D, C); mean: (C,) of `x`, target: (D,). In half precision neither the mean nor the target is rounded.
    """
    kernel = matrix.to(x.dtype)
    with torch.autocast(device_of(x), enabled=False):
        if x.dtype not in HALF:
            return F.conv2d(x, kernel[:, :, None, None], (target - matrix @ mean).to(x.dtype))
        if _kind_of(x) == x.dtype and _last(x) and is_free(x, kernel):
            shift = (target - kernel.to(mean.dtype) @ mean).float()
            y: Tensor = torch.ops.mkldnn._convolution_pointwise(
                x, kernel[:, :, None, None], shift, [0, 0], [1, 1], [1, 1], 1, "none", [], ""
            )
            return y
        ones = torch.ones_like(mean)[None]
        centred = scale_channels(x, ones, -mean[None])
        return F.conv2d(centred, kernel[:, :, None, None], target.to(x.dtype))


def _scale_in_one_pass(x: Tensor, scale: Tensor, shift: Tensor, relu: bool) -> Tensor | None:
    """Run `scale_channels` as one convolution if that is faster, else return None. It is slow in float32 by torch."""
    half = x.dtype in HALF
    if x.device.type == "cpu" and (half or relu) and _kind_of(x) == x.dtype and _last(x) and is_free(x, scale, shift):
        kernel, channels = scale[0, :, None, None, None], x.shape[1]
        name = "relu" if relu else "none"
        y: Tensor = torch.ops.mkldnn._convolution_pointwise(
            x, kernel, shift[0], [0, 0], [1, 1], [1, 1], channels, name, [], ""
        )
        return y
    if not half or x.device.type not in ("cpu", "cuda") or _traced():
        return None
    zeros, halves = torch.zeros_like(shift[0]), torch.full_like(shift[0], 0.5)
    y = F.batch_norm(x, zeros, halves, scale[0].float(), shift[0], eps=0.5)  # a deviation of exactly 1
    return F.relu_(y) if relu else y


# --- pooling


def halve(x: Tensor) -> Tensor:
    """Compute ``max_pool2d(x, 2)``, (B, C, H, W) to (B, C, H / 2, W / 2), rounded down."""
    height, width = x.shape[-2] // 2 * 2, x.shape[-1] // 2 * 2
    if not (height and width and is_free(x)):
        return F.max_pool2d(x, 2)
    rows = torch.maximum(x[..., 0:height:2, :width], x[..., 1:height:2, :width])
    return torch.maximum(rows[..., 0::2], rows[..., 1::2])
