"""Blocks that several networks share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Conv(nn.Conv2d):
    """A convolution that keeps height and width (at stride 1) by repeating or mirroring the picture's edge.

    Repeating works at every size; mirroring (the papers' reflection) needs each side to be larger than the padding.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int = 3, *, stride: int = 1, mirror: bool = False) -> None:
        super().__init__(inputs, outputs, kernel, stride)
        self.edge = (kernel // 2,) * 4
        self.edge_mode = "reflect" if mirror else "replicate"

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) to (B, outputs, H / stride, W / stride)."""
        if self.edge[0]:
            with torch.autocast(x.device.type, enabled=False):  # which would pad in float32
                x = F.pad(x, self.edge, mode=self.edge_mode)
        return F.conv2d(x, self.weight, self.bias, self.stride)


def double(x: Tensor) -> Tensor:
    """(B, C, H, W) to (B, C, 2 H, 2 W) by repeating."""
    return F.interpolate(x, scale_factor=2.0, mode="nearest")


DOUBLING = nn.Upsample(scale_factor=2)
"""How a path tells of `double`; see `receptive`."""


class Decoder(nn.Module):
    """The mirror of a VGG encoder: convolutions with ReLU, doubling the picture between stages, linear at the end.

    stages: channels of each convolution's output, deepest stage first; the picture doubles after the first convolution
    of a stage but the last stage. For AdaIN (Huang & Belongie 2017): ``inputs=512,
    stages=[[256], [256, 256, 256, 128], [128, 64], [64, 3]]`` where each list's last entry leaves the stage.
    """

    def __init__(self, inputs: int, stages: Sequence[Sequence[int]], *, mirror: bool = False) -> None:
        super().__init__()
        self.stages = nn.ModuleList()
        for widths in stages:
            stage = nn.ModuleList()
            for width in widths:
                stage.append(Conv(inputs, width, mirror=mirror))
                inputs = width
            self.stages.append(stage)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) to (B, outputs, 2^(stages - 1) H, ... W)."""
        last = len(self.stages) - 1
        for i, stage in enumerate(self.stages):
            assert isinstance(stage, nn.ModuleList)
            for j, conv in enumerate(stage):
                x = conv(x)
                if i < last or j < len(stage) - 1:
                    x = F.relu(x)
            if i < last:
                x = double(x)
        return x

    def path(self) -> Iterator[nn.Module]:
        """The layers in the order in which they run."""
        for i, stage in enumerate(self.stages):
            yield from (DOUBLING, stage) if i else (stage,)


def mirrored_stages(widths: Sequence[int]) -> list[list[int]]:
    """The decoder's stages for an encoder with these widths of its blocks (the paper's: 64, 128, 256, 512)."""
    first, second, third = widths[:3]
    return [[third], [third, third, third, second], [second, first], [first, 3]]


def fit_edge(x: Tensor, like: Sequence[int]) -> Tensor:
    """`x` cut to height and width `like`, or with its last row and column repeated, for odd sizes."""
    height, width = like[-2:]
    if torch.compiler.is_exporting():  # where sizes are unknown, nothing may depend on what is missing
        rows, columns = (
            torch.arange(side, device=x.device).clamp_max(there - 1)
            for side, there in zip((height, width), x.shape[-2:], strict=True)
        )
        return x[..., rows, :][..., columns]
    x = x[..., :height, :width]
    missing = height - x.shape[-2], width - x.shape[-1]
    return F.pad(x, (0, missing[1], 0, missing[0]), mode="replicate") if any(missing) else x


def freeze(module: nn.Module) -> nn.Module:
    """Put `module` into evaluation mode with no gradient for its parameters; returns it."""
    module.eval()
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    return module


def _cpu_has_bf16(device: torch.device) -> bool:
    supported = getattr(torch.cpu, "_is_avx512_bf16_supported", None)  # no public name for it in torch 2.15
    return device.type == "cpu" and supported is not None and bool(supported())


def in_half(device: torch.device, precision: str) -> bool:
    """Whether `inference` works in bfloat16: if `precision` says so, or ``auto`` on hardware made for it."""
    if precision != "auto":
        return precision == "bf16"
    return torch.cuda.is_bf16_supported() if device.type == "cuda" else _cpu_has_bf16(device)


@contextmanager
def inference(device: torch.device, precision: str) -> Iterator[None]:
    """Run without gradients; convolutions in bfloat16 if `precision` says so, or ``auto`` on hardware made for it."""
    with torch.no_grad(), torch.autocast(device.type, dtype=torch.bfloat16, enabled=in_half(device, precision)):
        yield


def count_parameters(module: nn.Module) -> int:
    """How many numbers `module` has to learn or has learnt."""
    return sum(parameter.numel() for parameter in module.parameters())
