"""Frozen feature extractors with named layers.

Layers have the field's names, ``conv4_2`` and ``relu4_2`` for the VGGs, shallow to deep in `Backbone.layers`; ``image``
is the picture itself. `load_backbone` loads them: ``vgg19-slim`` is part of the package, the others are torchvision's.
"""

from __future__ import annotations

from pathlib import Path

from impasto.errors import OptionError, nearest
from impasto.networks.backbone import HEADS, SLIM, SLIM_LAYERS, Backbone, load_slim
from impasto.networks.layers import freeze

TORCHVISION = (
    "vgg16",
    "vgg19",
    "vgg16_bn",
    "vgg19_bn",
    "resnet50",
    "mobilenet_v3_large",
    "squeezenet1_1",
)
BACKBONES = (SLIM, SLIM + HEADS, *TORCHVISION)


def default_layers(name: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the default content layers and the five default style layers of the backbone called `name`."""
    if name not in TORCHVISION:
        return SLIM_LAYERS
    from impasto.networks.torchvision_backbones import DEFAULT_LAYERS

    content, style = DEFAULT_LAYERS[name]
    return (content,), style


def choose_pooling(pooling: str, name: str) -> str:
    """Return `pooling`; for ``auto``, what suits an optimised picture with the backbone called `name`."""
    if pooling != "auto":
        return pooling
    return "average" if name.startswith(SLIM) else "max"


def load_backbone(
    name: str = SLIM, *, pooling: str = "max", weights: str | Path | None = None, pretrained: bool = True
) -> Backbone:
    """Return the frozen backbone called `name`, one of `BACKBONES`.

    weights: a local safetensors file (for torchvision's networks also a state dict) instead of the official one;
    pretrained False: random weights, for tests. Raises OptionError for an unknown name or pooling, WeightsError if the
    weights are not available.
    """
    if name not in BACKBONES:
        near = nearest(name, BACKBONES)
        raise OptionError(f"there is no backbone {name!r}{near}; there are: {', '.join(BACKBONES)}")
    if name in TORCHVISION:
        from impasto.networks.torchvision_backbones import build

        backbone = build(name, pooling=pooling, weights=weights, pretrained=pretrained)
        freeze(backbone)
        return backbone
    heads = name.endswith(HEADS)
    return load_slim(heads=heads, pooling=pooling, weights=weights, pretrained=pretrained)
