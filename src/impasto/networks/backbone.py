"""Backbone: a frozen feature extractor with named layers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Self

import torch
from torch import Tensor, nn

from impasto.errors import OptionError, nearest
from impasto.networks.layers import Conv, MaxPool, run_in_full

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
        for number, (name, step) in enumerate(steps):
            if len(found) == len(wanted):
                break
            if not rectified:  # otherwise the convolution has applied this ReLU already
                rectified = name not in wanted and _rectifies(step, steps[number + 1 : number + 2])
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
