"""Receptive field, stride and cost of a network, computed from its layers.

A *path* is a sequence of modules in the order in which they run: convolutions, poolings, doublings, pixelwise layers,
and modules made of these: chains (``nn.Sequential``) or modules that list their layers by a method ``path()``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from torch import nn

from impasto.errors import ImpastoError
from impasto.networks.layers import Conv

POINTWISE = (nn.ReLU, nn.LeakyReLU, nn.Identity, nn.BatchNorm2d, nn.Dropout, nn.Sigmoid, nn.Tanh, nn.GELU, nn.SiLU)
LOCAL = (nn.Conv2d, *POINTWISE, nn.ConvTranspose2d, nn.MaxPool2d, nn.AvgPool2d, nn.Upsample)


def leaves(path: Iterable[nn.Module]) -> Iterator[nn.Module]:
    """Yield the layers of `path`; raises ImpastoError at a module that is not known to be local."""
    for module in path:
        own = getattr(type(module), "path", None)
        if own is not None:
            yield from leaves(own(module))
        elif isinstance(module, LOCAL):
            yield module
        elif isinstance(module, nn.Sequential | nn.ModuleList):
            yield from leaves(module)
        else:
            raise ImpastoError(f"{type(module).__name__} may look at the whole picture: it can't be run tile by tile")


def reach(path: Iterable[nn.Module], needed: int = 0) -> int:
    """Return how many pixels beyond a tile's edge `path` needs for `needed` correct pixels beyond it.

    Both in pixels of their own map, for tiles that begin at multiples of the path's stride. Exact: one less is wrong.
    """
    for layer in reversed(list(leaves(path))):
        if isinstance(layer, nn.Upsample):
            needed = -(-needed // factor(layer))
        elif isinstance(layer, nn.ConvTranspose2d):
            kernel, stride, padding = shape_of(layer)
            needed = max((needed + kernel - 1 - padding) // stride, (needed + padding - 1) // stride + 1, 0)
        elif not isinstance(layer, POINTWISE):
            kernel, stride, padding = shape_of(layer)
            needed = max(stride * needed + padding, stride * needed + kernel - padding - stride, 0)
    return needed


def shape_of(layer: nn.Module) -> tuple[int, int, int]:
    """Return kernel (including dilation), stride and padding of a convolution or pooling."""

    def one(value: object) -> int:
        return int(value[0]) if isinstance(value, tuple) else int(str(value))

    padding = layer.edge[0] if isinstance(layer, Conv) else one(layer.padding)
    dilation = one(getattr(layer, "dilation", 1))
    return dilation * (one(layer.kernel_size) - 1) + 1, one(layer.stride), padding


def factor(layer: nn.Upsample | nn.ConvTranspose2d) -> int:
    """Return the factor by which `layer` enlarges."""
    scale = layer.stride if isinstance(layer, nn.ConvTranspose2d) else layer.scale_factor
    return int(scale[0] if isinstance(scale, tuple) else scale or 1)


def strides(path: Iterable[nn.Module], stride: int = 1) -> Iterator[tuple[nn.Module, int]]:
    """Yield every layer with the stride of its input, in the picture's pixels; the path begins at `stride`."""
    for layer in leaves(path):
        yield layer, stride
        stride = _stride_behind(layer, stride)


def stride_after(path: Iterable[nn.Module], stride: int = 1) -> int:
    """Return the stride of the path's output."""
    for layer in leaves(path):
        stride = _stride_behind(layer, stride)
    return stride


def _stride_behind(layer: nn.Module, stride: int) -> int:
    if isinstance(layer, nn.Upsample | nn.ConvTranspose2d):
        return max(1, stride // factor(layer))
    return stride if isinstance(layer, POINTWISE) else stride * shape_of(layer)[1]


def channels_after(path: Iterable[nn.Module], channels: int) -> int:
    """Return the channels of the path's output; the path begins with `channels`."""
    for layer in leaves(path):
        channels = layer.out_channels if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d) else channels
    return channels


def widest(path: Iterable[nn.Module], stride: int = 1) -> float:
    """Return the most numbers that one layer of `path` holds at once, per pixel of the picture.

    A convolution holds its input, a padded copy of it, and its output, once more if a ReLU follows.
    """
    most, channels = 0.0, 3
    for layer, at in strides(path, stride):
        if isinstance(layer, nn.Conv2d):
            channels = layer.out_channels
            most = max(most, (2 * layer.in_channels + 2 * channels) / at**2)
        elif isinstance(layer, nn.ConvTranspose2d):
            channels = layer.out_channels
            most = max(most, 2 * (layer.in_channels + channels * factor(layer) ** 2) / at**2)
        elif isinstance(layer, nn.Upsample):
            most = max(most, channels * (1 + factor(layer) ** 2) / at**2)
    return most


def trace(path: Iterable[nn.Module], stride: int, channels: int) -> tuple[int, int, float]:
    """Return stride and channels of the path's output, and the result of `widest`: what a run's memory depends on."""
    layers = list(leaves(path))
    return stride_after(layers, stride), channels_after(layers, channels), widest(layers, stride)


def work(path: Iterable[nn.Module], stride: int = 1) -> float:
    """Return the multiplications per pixel of the picture."""
    total = 0.0
    for layer, at in strides(path, stride):
        if isinstance(layer, nn.Conv2d):
            kernel = layer.kernel_size[0] * layer.kernel_size[1]
            total += layer.in_channels * layer.out_channels * kernel / layer.groups / (at * layer.stride[0]) ** 2
        elif isinstance(layer, nn.ConvTranspose2d):
            kernel = layer.kernel_size[0] * layer.kernel_size[1]
            total += layer.in_channels * layer.out_channels * kernel / layer.groups / at**2
    return total


def numbers_after(path: Iterable[nn.Module], stride: int = 1) -> float:
    """Return how many numbers the convolutions of `path` write per pixel of the picture."""
    total = 0.0
    for layer, at in strides(path, stride):
        if isinstance(layer, nn.Conv2d):
            total += layer.out_channels / (at * layer.stride[0]) ** 2
        elif isinstance(layer, nn.ConvTranspose2d):
            total += layer.out_channels * factor(layer) ** 2 / at**2
    return total
