"""Hypercolumns: the features of each place of a picture at many layers, side by side (Hariharan et al. 2015)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from impasto.networks.backbone import Backbone
from impasto.networks.receptive_field import channels_after, stride_after

COLUMNS, COLORS = "columns", "colors"
"""The layers that `Hypercolumns` adds to those of its backbone."""

STRIDE = 4
SLIM_COLUMNS = ("relu1_2", "relu2_2", "relu3_1", "relu3_3", "relu4_1", "relu4_3")
"""The layers of vgg19-slim that stand for a place."""


class Hypercolumns(Backbone):
    """A backbone with two more layers, at a quarter of the picture's size: ``columns`` and ``colors``.

    columns: (B, C, H / 4, W / 4), the maps of the layers one after the other; larger maps are averaged, smaller ones
    enlarged bilinearly. colors: (B, 3, H / 4, W / 4), the picture averaged. Shares its weights with `backbone`.
    """

    def __init__(self, backbone: Backbone, columns: Sequence[str]) -> None:
        backbone.check_layers(columns)
        super().__init__(
            backbone.name,
            dict(backbone.steps.items()),
            heads=dict(backbone.heads.items()),
            digest=backbone.digest,
            least_side=max(STRIDE, backbone.least_side),
        )
        self.mean, self.std = backbone.mean, backbone.std
        self.columns = tuple(columns)
        self.strides = {layer: stride_after(self.path(layer)) for layer in self.columns}
        self.widths = [channels_after(self.path(layer), 3) for layer in self.columns]

    @property
    def layers(self) -> tuple[str, ...]:
        """All layer names, shallow to deep."""
        return (*super().layers, COLORS, COLUMNS)

    def path(self, layer: str) -> list[nn.Module]:
        """Return the modules from the image to `layer`, in the order in which they run."""
        if layer == COLORS:
            return [nn.AvgPool2d(STRIDE)]
        if layer != COLUMNS:
            return super().path(layer)
        deepest = max(self.columns, key=self.layers.index)
        return [*super().path(deepest), *_resizing(self.strides[deepest])]

    def forward(self, image: Tensor, layers: Iterable[str], *, rounded: bool = False) -> dict[str, Tensor]:
        """Return features of `image`, (B, 3, H, W) in [0, 1], at each of `layers`."""
        wanted = set(layers)
        self.check_layers(wanted)
        deep = wanted - {COLUMNS, COLORS} | (set(self.columns) if COLUMNS in wanted else set())
        found = super().forward(image, deep, rounded=rounded) if deep else {}
        if COLUMNS in wanted:
            size = image.shape[-2] // STRIDE, image.shape[-1] // STRIDE
            maps = [_at_quarter(found[layer], self.strides[layer], size) for layer in self.columns]
            found[COLUMNS] = torch.cat(maps, 1)
        if COLORS in wanted:
            found[COLORS] = F.avg_pool2d(image, STRIDE)
        return {layer: found[layer] for layer in wanted}


def _resizing(stride: int) -> list[nn.Module]:
    """Return the modules that bring a map with this stride to a quarter of the picture's size."""
    if stride == STRIDE:
        return []
    if stride < STRIDE:
        return [nn.AvgPool2d(STRIDE // stride)]
    # The convolution stands for bilinear enlarging, which reads one more position.
    look = nn.Conv2d(1, 1, 3, padding=1, device="meta")
    return [look, nn.Upsample(scale_factor=stride // STRIDE)]


def _at_quarter(features: Tensor, stride: int, size: tuple[int, int]) -> Tensor:
    """Return `features` with this stride, (B, C, h, w), at `size`: the same in a tile as in the whole picture."""
    if stride < STRIDE:
        return F.avg_pool2d(features, STRIDE // stride)
    if stride > STRIDE:
        features = _enlarge(features, stride // STRIDE)
        below, right = size[0] - features.shape[-2], size[1] - features.shape[-1]
        if below or right:
            features = F.pad(features, (0, right, 0, below), mode="replicate")
    return features


def _enlarge(features: Tensor, times: int) -> Tensor:
    """Map (B, C, h, w) to (B, C, h times, w times), bilinear."""
    if times == 2 and min(features.shape[-2:]) > 1 and features.requires_grad:
        doubled: Tensor = _Doubled.apply(features)
        return doubled
    return F.interpolate(features, scale_factor=float(times), mode="bilinear", align_corners=False)


class _Doubled(torch.autograd.Function):
    """Bilinear doubling; for channels-last maps, its backward pass takes a quarter of the time of torch's."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (by,) = gradients
        return _halve(_halve(by.permute(0, 2, 3, 1), 1), 2).permute(0, 3, 1, 2)


def _halve(by: Tensor, dim: int) -> Tensor:
    """Return the gradient of the values from that of the doubled ones, along `dim`: (1, 3, 3, 1) / 4 at stride 2."""
    even, odd = torch.unflatten(by, dim, (-1, 2)).unbind(dim + 1)
    last = even.shape[dim] - 1
    found = (even + odd).mul_(0.75)
    found.narrow(dim, 1, last).add_(odd.narrow(dim, 0, last), alpha=0.25)
    found.narrow(dim, 0, last).add_(even.narrow(dim, 1, last), alpha=0.25)
    found.select(dim, 0).add_(even.select(dim, 0), alpha=0.25)
    found.select(dim, last).add_(odd.select(dim, last), alpha=0.25)
    return found
