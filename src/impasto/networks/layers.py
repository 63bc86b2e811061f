"""Blocks that several networks share."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from impasto.ops.cpu_kernels import (
    CIRCULAR,
    convolve,
    convolve_doubled,
    device_of,
    halve,
    onednn_has_bf16,
    pad_edges,
)

M = TypeVar("M", bound=nn.Module)


class Conv(nn.Conv2d):
    """A convolution that keeps height and width (at stride 1) by repeating or mirroring the picture's edge.

    Repeating works at every size; mirroring (the papers' reflection) needs each side to be larger than the padding.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int = 3, *, stride: int = 1, mirror: bool = False) -> None:
        super().__init__(inputs, outputs, kernel, stride)
        self.edge = (kernel // 2,) * 4
        self.edge_mode = "reflect" if mirror else "replicate"

    def forward(self, x: Tensor, *, relu: bool = False, doubled: bool = False) -> Tensor:
        """Map (B, inputs, H, W) to (B, outputs, H / stride, W / stride); relu: with the ReLU that follows it.

        doubled: double `x` first, as `double` does.
        """
        if doubled:
            whole = tuple(self.stride) == (1, 1)
            found = convolve_doubled(x, self.weight, self.bias, relu=relu, mode=self.edge_mode) if whole else None
            if found is not None:
                return found
            x = double(x)
        if self.edge[0]:
            x = pad_edges(x, self.edge, self.edge_mode)
        return convolve(x, self.weight, self.bias, self.stride, relu=relu)


class MaxPool(nn.MaxPool2d):
    """The largest of 2x2 pixels."""

    def __init__(self) -> None:
        super().__init__(2)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C, H / 2, W / 2), rounded down."""
        return halve(x)


def wrap_edges(module: nn.Module) -> nn.Module:
    """Let every convolution in `module` see the opposite edge of the picture (circular padding); returns it.

    The result is then that of the picture repeated without end, if the sides are multiples of its strides. Works for
    `Conv` and for plain convolutions with padding.
    """
    for part in module.modules():
        if isinstance(part, Conv):
            part.edge_mode = CIRCULAR
        elif isinstance(part, nn.Conv2d) and part.padding not in (0, (0, 0), "valid"):
            part.padding_mode = CIRCULAR
    return module


class DoublingConv(nn.ConvTranspose2d):
    """A transposed convolution, 4x4 at stride 2, that doubles height and width, with the picture's edge mirrored."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 4, stride=2, padding=1)

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        """Map (B, inputs, H, W) to (B, outputs, 2 H, 2 W)."""
        return F.conv_transpose2d(pad_edges(x, (1, 1, 1, 1), "reflect"), self.weight, self.bias, 2, 3)


def run_in_full(module: nn.Module, x: Tensor, **settings: Any) -> Tensor:
    """Run `module`, with `settings`, in the precision of `x`; round the result if autocast asks for it.

    For a network's first layer: rounding pixels to bfloat16 costs 2 to 5 dB of the result.
    """
    device = device_of(x)
    with torch.autocast(device, enabled=False):
        found: Tensor = module(x, **settings)
    rounds = torch.is_autocast_enabled(device) and found.dtype == torch.float32
    return found.to(torch.get_autocast_dtype(device)) if rounds else found


def double(x: Tensor) -> Tensor:
    """Map (B, C, H, W) to (B, C, 2 H, 2 W) by repeating."""
    return F.interpolate(x, scale_factor=2.0, mode="nearest")


DOUBLING, RELU = nn.Upsample(scale_factor=2), nn.ReLU()
"""Stand for `double` and ``relu`` in a path; see `receptive_field`."""


class DecoderStep(nn.Module):
    """Maps one level's features to those of the level above, or relu1_1 to the picture.

    The mirror image of the encoder: a convolution, doubling, then as many convolutions as the encoder has there.
    """

    def __init__(self, inputs: int, outputs: int, after: int, *, mirror: bool = False) -> None:
        super().__init__()
        self.first = Conv(inputs, outputs, mirror=mirror)
        self.after = nn.ModuleList(Conv(outputs, outputs, mirror=mirror) for _ in range(after))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, inputs, H, W) to (B, outputs, 2 H, 2 W), or of the same size if it is the last step."""
        if not self.after:
            last: Tensor = self.first(x)
            return last
        x = self.first(x, relu=True)
        for number, conv in enumerate(self.after):
            x = conv(x, relu=True, doubled=number == 0)
        return x

    def path(self) -> list[nn.Module]:
        """Return the layers in the order in which they run."""
        after = [layer for conv in self.after for layer in (conv, RELU)]
        return [self.first, RELU, DOUBLING, *after] if after else [self.first]


class StepDecoder(nn.Module):
    """The mirror image of a VGG-19 encoder, with a step for each level relu1_1, relu2_1, ...; linear at the end.

    widths: the encoder's, shallowest first. With VGG-19's first four it is the decoder of AdaIN and SANet (Huang &
    Belongie 2017), with 3 505 219 parameters.
    """

    def __init__(self, widths: Sequence[int], *, mirror: bool = False) -> None:
        super().__init__()
        self.widths = tuple(widths)
        blocks = (0, 1, 1, 3, 3)[: len(widths)]
        narrower = (3, *widths[:-1])
        pairs = zip(widths, narrower, blocks, strict=True)
        self.steps = nn.ModuleList(
            DecoderStep(inputs, outputs, after, mirror=mirror) for inputs, outputs, after in pairs
        )

    def step(self, level: int, x: Tensor, like: Sequence[int]) -> Tensor:
        """Run the step of `level`; the result is cut or extended at the edge to the height and width `like`."""
        y: Tensor = self.steps[level - 1](x)
        return fit_edge(y, like)

    def forward(self, x: Tensor, level: int = 4) -> Tensor:
        """Decode `level`'s features to the picture."""
        for below in range(level, 0, -1):
            x = self.steps[below - 1](x)
        return x


def size_below(level: int, shape: Sequence[int]) -> tuple[int, int]:
    """Return height and width of the level below `level` in a picture of `shape`; below level 1, of the picture."""
    stride = 2 ** max(level - 2, 0)
    return shape[-2] // stride, shape[-1] // stride  # ONNX has no shift of a size


def fit_edge(x: Tensor, like: Sequence[int]) -> Tensor:
    """Return `x` cut to height and width `like`, or with its last row and column repeated, for odd sizes."""
    height, width = like[-2:]
    if torch.compiler.is_exporting():  # sizes may be unknown then, so nothing may depend on them
        rows, columns = (
            torch.arange(side, device=x.device).clamp_max(there - 1)
            for side, there in zip((height, width), x.shape[-2:], strict=True)
        )
        return x[..., rows, :][..., columns]
    x = x[..., :height, :width]
    missing = height - x.shape[-2], width - x.shape[-1]
    return pad_edges(x, (0, missing[1], 0, missing[0]), "replicate") if any(missing) else x


def fill(template: M, values: Mapping[str, Tensor], device: torch.device | str = "cpu") -> M:
    """Return a frozen copy of `template`, with `values` as its parameters, by name.

    template: a module without buffers, whose own parameters are not read. Takes a fifth of the time of building a
    module and loading its state. Raises RuntimeError if names or shapes differ.
    """
    wanted = {name: parameter.shape for name, parameter in template.named_parameters()}
    if {name: value.shape for name, value in values.items()} != wanted:
        raise RuntimeError("parameters of other names or shapes")
    placed = {
        name: value.to(device, memory_format=torch.channels_last if value.dim() == 4 else torch.preserve_format)
        for name, value in values.items()
    }
    return _twin(template, placed, "")


def _twin(module: M, values: Mapping[str, Tensor], prefix: str) -> M:
    twin = copy.copy(module)
    twin.training = False
    twin._parameters = {
        name: None if own is None else nn.Parameter(values[prefix + name], requires_grad=False)
        for name, own in module._parameters.items()
    }
    twin._modules = {
        name: None if own is None else _twin(own, values, f"{prefix}{name}.") for name, own in module._modules.items()
    }
    return twin


def freeze(module: nn.Module) -> nn.Module:
    """Put `module` into evaluation mode without gradients for its parameters; returns it."""
    module.eval()
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    return module


def _cpu_has_bf16(device: torch.device) -> bool:
    supported = getattr(torch.cpu, "_is_avx512_bf16_supported", None)  # no public name for it in torch 2.15
    return device.type == "cpu" and supported is not None and bool(supported()) and onednn_has_bf16()


def in_half(device: torch.device, precision: str) -> bool:
    """Return whether `inference` works in bfloat16: `precision` says so, or is ``auto`` on hardware made for it."""
    if precision != "auto":
        return precision == "bf16"
    return torch.cuda.is_bf16_supported() if device.type == "cuda" else _cpu_has_bf16(device)


@contextmanager
def inference(device: torch.device, precision: str) -> Iterator[None]:
    """Run without gradients; in bfloat16 if `precision` says so, or is ``auto`` on hardware made for it."""
    with torch.no_grad(), torch.autocast(device.type, dtype=torch.bfloat16, enabled=in_half(device, precision)):
        yield


def count_parameters(module: nn.Module) -> int:
    """Return the number of parameters of `module`."""
    return sum(parameter.numel() for parameter in module.parameters())
