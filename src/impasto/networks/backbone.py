"""Backbone, a frozen feature extractor with named layers, and vgg19-slim, the one inside the package."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Self

import torch
from torch import Tensor, nn

from impasto.errors import OptionError, nearest
from impasto.networks.layers import Conv, MaxPool, freeze, run_in_full
from impasto.weights import load_weights, resolve
from impasto.weights.files import Unfilled

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class Backbone(nn.Module):
    """A chain of named steps, whose outputs are the layers.

    steps: name -> module, in the order in which they run; mean, std: scale the image before the first step; heads:
    layer -> module that maps the layer's features to another width (a side branch that no later step reads).
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        name: str,
        steps: Mapping[str, nn.Module],
        *,
        heads: Mapping[str, nn.Module] | None = None,
        mean: tuple[float, float, float] = IMAGENET_MEAN,
        std: tuple[float, float, float] = IMAGENET_STD,
        digest: str = "random",
        least_side: int = 1,
    ) -> None:
        super().__init__()
        self.name = name
        self.digest = digest
        self.least_side = least_side
        self.steps = nn.ModuleDict(dict(steps))
        self.heads = nn.ModuleDict(dict(heads or {}))
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)

    @property
    def layers(self) -> tuple[str, ...]:
        """All layer names, shallow to deep."""
        return ("image", *self.steps)

    def train(self, mode: bool = True) -> Self:
        """Stay in evaluation mode whatever `mode` is: batch norms and dropout stay frozen."""
        return super().train(False)

    def check_layers(self, layers: Iterable[str]) -> None:
        """Raise OptionError if one of `layers` is not a layer of this backbone."""
        for layer in layers:
            if layer not in self.layers:
                near = nearest(layer, self.layers)
                raise OptionError(f"{self.name} has no layer {layer!r}{near}; it has: {', '.join(self.layers)}")

    def forward(self, image: Tensor, layers: Iterable[str], *, rounded: bool = False) -> dict[str, Tensor]:
        """Return the features of `image`, (B, 3, H, W) in [0, 1], at each of `layers`; stops at the deepest one.

        rounded: in half precision also round the pixels, which is faster and does not matter for sums over all of them.
        """
        wanted = set(layers)
        self.check_layers(wanted)
        self.check_size(image)
        found = {"image": image} if "image" in wanted else {}
        x, rectified = (image - self.mean) / self.std, False
        steps = list(self.steps.items())
        mergeable = [_rectifies(step, steps[number : number + 1]) for number, (_, step) in enumerate(steps, 1)]
        for number, (name, step) in enumerate(steps):
            if len(found) == len(wanted):
                break
            if not rectified:  # otherwise the convolution has applied this ReLU already
                rectified = name not in wanted and mergeable[number]
                settings = {"relu": True} if rectified else {}
                x = step(x, **settings) if number or rounded else run_in_full(step, x, **settings)
            else:
                rectified = False
            if name in wanted:
                found[name] = self.heads[name](x) if name in self.heads else x
        return found

    def path(self, layer: str) -> list[nn.Module]:
        """Return the modules from the image to `layer`, in the order in which they run."""
        self.check_layers([layer])
        names = list(self.steps)
        way = [self.steps[name] for name in names[: 0 if layer == "image" else names.index(layer) + 1]]
        return [*way, self.heads[layer]] if layer in self.heads else way

    def check_size(self, image: Tensor) -> None:
        """Raise OptionError if `image`, (B, 3, H, W), is too small for this backbone."""
        if min(image.shape[-2:]) < self.least_side:
            height, width = image.shape[-2:]
            raise OptionError(
                f"{self.name} needs pictures of at least {self.least_side} px a side, not {width}x{height}"
            )


def _rectifies(step: nn.Module, following: Sequence[tuple[str, nn.Module]]) -> bool:
    """Return whether `step` is a convolution that can apply the ReLU after it, which has no hooks."""
    if not isinstance(step, Conv) or not following:
        return False
    after = following[0][1]
    return type(after) is nn.ReLU and not after._forward_hooks


def pool(kind: str) -> nn.Module:
    """Return the 2x2 pooling named `kind`, ``max`` or ``average``; raises OptionError otherwise."""
    if kind == "max":
        return MaxPool()
    if kind == "average":
        return nn.AvgPool2d(2)
    raise OptionError(f"pooling is max or average, not {kind!r}")


# --- vgg19-slim, the backbone inside the package: VGG-19 with a quarter of its widths

SLIM = "vgg19-slim"
HEADS = "+heads"
VGG19_BLOCKS = (2, 2, 4, 4, 1)
SLIM_WIDTHS = (16, 32, 64, 128, 128)
VGG19_WIDTHS = (64, 128, 256, 512, 512)
SLIM_LAYERS = (("relu4_1",), tuple(f"relu{block}_1" for block in range(1, 6)))


def vgg_steps(blocks: tuple[int, ...], widths: tuple[int, ...], pooling: str = "max") -> dict[str, nn.Module]:
    """Return the named steps of a VGG body with repeated edges: conv1_1, relu1_1, ..., pool1, conv2_1, ..."""
    steps: dict[str, nn.Module] = {}
    inputs = 3
    for block, (count, width) in enumerate(zip(blocks, widths, strict=True), start=1):
        for i in range(1, count + 1):
            steps[f"conv{block}_{i}"] = Conv(inputs, width)
            steps[f"relu{block}_{i}"] = nn.ReLU()
            inputs = width
        if block < len(blocks):
            steps[f"pool{block}"] = pool(pooling)
    return steps


def slim_backbone(*, heads: bool = False, pooling: str = "max", digest: str = "random") -> Backbone:
    """Return vgg19-slim with random weights: VGG-19 (Simonyan & Zisserman 2015) at a quarter of its widths.

    heads: map the five layers relu1_1 ... relu5_1 through 1x1 convolutions to VGG-19's own widths, in the normalisation
    of mean activation 1 (Gatys et al. 2016). Wang et al. 2020 ("Collaborative Distillation") train such an encoder
    together with its heads.

    Departs from the papers: edges are repeated, not zero; the heads end in a ReLU, like the layers that they imitate.
    """
    sides = {
        f"relu{block}_1": nn.Sequential(nn.Conv2d(inputs, outputs, 1), nn.ReLU())
        for block, (inputs, outputs) in enumerate(zip(SLIM_WIDTHS, VGG19_WIDTHS, strict=True), start=1)
    }
    return Backbone(
        SLIM + HEADS if heads else SLIM,
        vgg_steps(VGG19_BLOCKS, SLIM_WIDTHS, pooling),
        heads=sides if heads else None,
        digest=digest,
        least_side=16,
    )


def load_slim(
    *, heads: bool = False, pooling: str = "max", weights: str | Path | None = None, pretrained: bool = True
) -> Backbone:
    """Return vgg19-slim, frozen, with its own weights, those of a local file, or random ones; see `slim_backbone`.

    Raises WeightsError if the weights are not available.
    """
    if not pretrained:
        backbone = slim_backbone(heads=heads, pooling=pooling)
    else:
        file = load_weights(weights if weights is not None else resolve(SLIM))
        with Unfilled():
            backbone = slim_backbone(heads=heads, pooling=pooling, digest=file.digest)
        file.fill(backbone, ignore=() if heads else ("heads.",))
    freeze(backbone)
    return backbone
