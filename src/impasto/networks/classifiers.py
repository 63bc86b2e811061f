"""Classifiers: a backbone whose last layer is ``logits``, and the names of its classes.

`load_classifier` loads them: the embedded one on vgg19-slim's features, torchvision's with ImageNet's classes, or a
file that `impasto transfer fit` wrote. Such a file holds a head (on frozen features), a head and low-rank adapters (Hu
et al. 2021), or the whole network.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from impasto.errors import OptionError, WeightsError, nearest, no_classifier
from impasto.images.tensors import resize
from impasto.networks.backbone import Backbone
from impasto.networks.backbones import BACKBONES, TORCHVISION, load_backbone
from impasto.networks.layers import freeze
from impasto.options import Options
from impasto.weights import Weights, load_weights, manifest, resolve

CLASSIFIER = "vgg19-slim-classifier"
CLASSIFIERS = (CLASSIFIER, *TORCHVISION)
LOGITS = "logits"
SIZE = 224
BODY, HEAD, ADAPTERS = "steps.", f"steps.{LOGITS}.", "adapters."
Mode = Literal["features", "full", "lora"]


class Head(nn.Module):
    """The head of a classifier: features averaged in grid x grid cells, then one linear layer.

    It averages over the whole picture, so a tile does not have the picture's logits.
    """

    def __init__(self, channels: int, classes: int, grid: int) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(grid)
        self.linear = nn.Linear(channels * grid**2, classes)

    def forward(self, features: Tensor) -> Tensor:
        """Return logits, (B, classes), of features (B, C, H, W)."""
        logits: Tensor = self.linear(self.pool(features).flatten(1))
        return logits


def attach_head(backbone: Backbone, layer: str, head: nn.Module) -> Backbone:
    """Return `backbone` up to `layer`, sharing its modules, with `head` as its layer ``logits``. Raises OptionError."""
    body = cut(backbone, layer)
    body.steps[LOGITS] = head
    return body


def check_head(network: Backbone) -> None:
    """Raise OptionError if the head of `network` is for another number of channels than its layer has."""
    side = max(network.least_side, 32)
    try:
        with torch.no_grad():
            network(network.mean.new_zeros(1, 3, side, side), {LOGITS})
    except RuntimeError:
        raise OptionError(f"its head is not for {last_layer(network)} of {network.name}") from None


def cut(backbone: Backbone, layer: str) -> Backbone:
    """Return `backbone` up to `layer`; the modules are shared. Raises OptionError if there is no such layer."""
    backbone.check_layers([layer])
    if layer == "image":
        raise OptionError("a classifier needs features: name a deeper layer than image")
    names = list(backbone.steps)
    kept = names[: names.index(layer) + 1]
    found = Backbone(
        backbone.name,
        {name: backbone.steps[name] for name in kept},
        digest=backbone.digest,
        least_side=backbone.least_side,
    )
    found.mean, found.std = backbone.mean, backbone.std
    return found


def last_layer(backbone: Backbone) -> str:
    """Return the deepest layer that is not logits."""
    return [layer for layer in backbone.layers if layer != LOGITS][-1]


def merge_adapter(weight: Tensor, down: Tensor, up: Tensor, scale: float) -> Tensor:
    """Return W + scale B A (Hu et al. 2021) for a convolution.

    weight: (O, I, k, k); down: A, (r, I, k, k); up: B, (O, r, 1, 1).
    """
    return weight + scale * torch.einsum("or,rikl->oikl", up[:, :, 0, 0], down)


KIND = "classifier"


class Header(Options):
    """The header of a classifier's file."""

    kind: Literal["classifier"]
    backbone: str
    backbone_digest: str
    mode: Mode
    layer: str
    grid: int = Field(ge=1, le=16)
    size: int = Field(ge=16, le=2048)
    classes: tuple[str, ...] = Field(min_length=2)
    lora_scale: float = 1.0
    steps: int = 0


@dataclass(frozen=True)
class Classifier:
    """A frozen backbone with logits, its classes' names, and the side of the square pictures that it learned from."""

    name: str
    backbone: Backbone
    classes: tuple[str, ...]
    size: int = SIZE
    digest: str = "random"

    def logits(self, image: Tensor) -> Tensor:
        """Return logits, (B, classes), for (B, 3, H, W) in [0, 1]."""
        logits: Tensor = self.backbone(image, {LOGITS})[LOGITS]
        return logits

    @torch.no_grad()
    def probabilities(self, image: Tensor) -> Tensor:
        """Return probabilities, (B, classes), for (B, 3, H, W) in [0, 1]."""
        return self.logits(image).softmax(1)

    def find(self, name: str) -> int:
        """Return the number of the class with this name, in any case, or number; raises OptionError."""
        if name.isdecimal() and int(name) < len(self.classes):
            return int(name)
        lowered = [known.lower() for known in self.classes]
        if name.lower() in lowered:
            return lowered.index(name.lower())
        near = nearest(name, self.classes, 3)
        hint = "" if near else f"; there are: {', '.join(self.classes[:12])}{', ...' * (len(lowered) > 12)}"
        raise OptionError(f"{self.name} has no class {name!r}{near}, by name or number 0 to {len(lowered) - 1}{hint}")

    def square(self, image: Tensor) -> Tensor:
        """Return the middle of (B, 3, H, W) as a square of `size`, the classifier's input."""
        return square(image, self.size)


def square(image: Tensor, size: int) -> Tensor:
    """Return the middle of (B, 3, H, W), its shorter side resized to `size`: (B, 3, size, size)."""
    height, width = image.shape[-2:]
    short = min(height, width)
    image = resize(image, max(size, round(height * size / short)), max(size, round(width * size / short)))
    top, left = (image.shape[-2] - size) // 2, (image.shape[-1] - size) // 2
    return image[..., top : top + size, left : left + size]


def load_classifier(name: str = CLASSIFIER, *, weights: str | Path | None = None, device: str = "cpu") -> Classifier:
    """Return the frozen classifier called `name`: one of `CLASSIFIERS`, or a file that `impasto transfer fit` wrote.

    weights: a local file for its backbone instead of the shipped or official one. Raises OptionError for an unknown
    name, WeightsError if the weights are not available or do not belong together.
    """
    if name in TORCHVISION:
        found = _load_imagenet(name, weights)
    elif name in manifest() or Path(name).suffix == ".safetensors":
        path = resolve(name) if name in manifest() else Path(name)
        found = _read(name, load_weights(path), weights)
    else:
        near = nearest(name, CLASSIFIERS)
        raise OptionError(f"there is no classifier {name!r}{near}; there are: {', '.join(CLASSIFIERS)}, or name a file")
    freeze(found.backbone).to(device)
    return found


def _load_imagenet(name: str, weights: str | Path | None) -> Classifier:
    from impasto.networks.torchvision_backbones import imagenet_classes

    backbone = load_backbone(name, weights=weights)
    return Classifier(name, backbone, imagenet_classes(name), SIZE, backbone.digest)


def _read(name: str, file: Weights, weights: str | Path | None) -> Classifier:
    if file.config.get("kind") != KIND:
        raise WeightsError(no_classifier(file.path))
    try:
        header = Header.parse(file.config, "its header")
        if header.backbone not in BACKBONES:
            raise OptionError(f"there is no backbone {header.backbone!r}")
    except OptionError as error:
        raise WeightsError(f"{file.path} holds no classifier: {error}") from None
    body = load_backbone(header.backbone, weights=weights, pretrained=header.mode != "full")
    if header.mode != "full" and body.digest != header.backbone_digest:
        raise WeightsError(
            f"{file.path} was made for other weights of {header.backbone}: train it again, or name those weights"
        )
    network = rebuild(header, body, file)
    return Classifier(name, network, header.classes, header.size, file.digest)


def rebuild(header: Header, body: Backbone, file: Weights) -> Backbone:
    """Return the network of a classifier's file, on `body`, whose weights it changes. Raises WeightsError."""
    linear = file.tensors.get(f"{HEAD}linear.weight")
    if linear is None or linear.dim() != 2 or linear.shape[0] != len(header.classes):
        raise WeightsError(f"{file.path} holds no head for its {len(header.classes)} classes")
    try:
        head = Head(linear.shape[1] // header.grid**2, len(header.classes), header.grid)
        network = attach_head(body, header.layer, head)
        check_head(network)
    except OptionError as error:
        raise WeightsError(f"{file.path} holds no classifier: {error}") from None
    given = {name: tensor for name, tensor in file.tensors.items() if not name.startswith(ADAPTERS)}
    if header.mode != "full":
        own = {name: tensor for name, tensor in network.state_dict().items() if not name.startswith(HEAD)}
        given = merged(own, file.tensors, header.lora_scale, file.path) | given
    Weights(file.path, given, {}, file.digest).fill(network)
    return network


def merged(
    weights: Mapping[str, Tensor], adapters: Mapping[str, Tensor], scale: float, source: Any
) -> dict[str, Tensor]:
    """Return `weights` with the low-rank adapters ``adapters.NAME.down`` and ``.up`` merged in. Raises WeightsError."""
    found = dict(weights)
    for key, down in adapters.items():
        if not key.startswith(ADAPTERS) or not key.endswith(".down"):
            continue
        name = key.removeprefix(ADAPTERS).removesuffix(".down")
        up, weight = adapters.get(f"{ADAPTERS}{name}.up"), found.get(f"{name}.weight")
        if up is None or weight is None:
            raise WeightsError(f"{source} has an adapter for {name}, which is incomplete or which the network lacks")
        try:
            found[f"{name}.weight"] = merge_adapter(weight, down.to(weight), up.to(weight), scale)
        except RuntimeError:
            raise WeightsError(f"{source}: the adapter for {name} has another shape than the network") from None
    return found
