"""VGG-19 in AdaIN's normalisation (``vgg_normalised``), read from safetensors files, as a teacher and for measuring.

A file holds ``conv0`` (1x1: RGB in [0, 1] to the network's own input), ``conv1_1`` ... up to its last layer, and
possibly ``head1_1`` ...: 1x1 convolutions, followed by a ReLU, from a thinner network's features to VGG-19's widths.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from torch import Tensor, nn

from impasto.errors import WeightsError
from impasto.networks.backbone import VGG19_BLOCKS, Backbone
from impasto.networks.layers import Conv, MaxPool, freeze
from impasto.weights import Weights, load_weights

NAME = re.compile(r"(?:conv0|(?:conv|head)[1-5]_[1-4])\.(?:weight|bias)")


class NormalisedVGG(nn.Module):
    """Several files as one network: each layer comes from the first file that has it exactly or by a head."""

    def __init__(self, paths: Sequence[str | Path]) -> None:
        super().__init__()
        files = [load_weights(path) for path in paths]
        self.parts = nn.ModuleList(_build(file) for file in files)
        self.name = "vgg19-normalised"
        self.digest = hashlib.sha256("".join(file.digest for file in files).encode()).hexdigest()

    @classmethod
    def from_folder(cls, folder: str | Path) -> NormalisedVGG:
        """Return the network of the safetensors files in `folder`, those without heads first; raises WeightsError."""
        paths = sorted(Path(folder).glob("*.safetensors"))
        if not paths:
            raise WeightsError(f"{folder} holds no safetensors file of a normalised VGG-19; --teacher names a folder")
        return cls(sorted(paths, key=lambda path: "head1_1.weight" in load_weights(path).tensors))

    def forward(self, image: Tensor, layers: Iterable[str]) -> dict[str, Tensor]:
        """Return the features of `image`, (B, 3, H, W) in [0, 1], at each of `layers`."""
        left, found = set(layers), {}
        for part in self.parts:
            assert isinstance(part, Backbone)
            here = {layer for layer in left if layer in (part.heads or part.layers)}
            if here:
                found.update(part(image, here))
                left -= here
        if left:
            raise WeightsError(f"{self.name} does not reach {', '.join(sorted(left))}")
        return found


def _build(file: Weights) -> Backbone:
    """Return a frozen backbone with the file's own widths and layers; raises WeightsError."""
    for name, tensor in file.tensors.items():
        if not NAME.fullmatch(name) or (name.endswith("weight") and tensor.dim() != 4):
            raise WeightsError(f"{file.path} does not hold a normalised VGG-19: {name} is no layer of it")
    steps: dict[str, nn.Module] = {"conv0": Conv(3, 3, 1)}
    names = [f"conv{b}_{i}" for b, n in enumerate(VGG19_BLOCKS, start=1) for i in range(1, n + 1)]
    for name in names:
        if f"{name}.weight" not in file.tensors:
            break
        if name.endswith("_1") and name != "conv1_1":
            steps[f"pool{int(name[4]) - 1}"] = MaxPool()
        outputs, inputs = file.tensors[f"{name}.weight"].shape[:2]
        steps[name] = Conv(inputs, outputs, mirror=True)
        steps[name.replace("conv", "relu")] = nn.ReLU()
    heads = _heads(file)
    if not heads.keys() <= steps.keys():
        raise WeightsError(f"{file.path} does not hold a normalised VGG-19: it has heads for layers that it lacks")
    least = 2 ** (1 + sum(name.startswith("pool") for name in steps))  # mirroring needs two pixels at the deepest layer
    part = Backbone(
        "vgg19-normalised", steps, heads=heads, mean=(0, 0, 0), std=(1, 1, 1), digest=file.digest, least_side=least
    )
    renamed = {_rename(name): tensor for name, tensor in file.tensors.items()}
    Weights(file.path, renamed, file.config, file.digest).fill(part)
    freeze(part)
    return part


def _heads(file: Weights) -> dict[str, nn.Module]:
    """Return the file's heads by the name of the layer that they give."""
    heads: dict[str, nn.Module] = {}
    for name, tensor in file.tensors.items():
        if name.startswith("head") and name.endswith(".weight"):
            outputs, inputs = tensor.shape[:2]
            heads[name.split(".")[0].replace("head", "relu")] = nn.Sequential(nn.Conv2d(inputs, outputs, 1), nn.ReLU())
    return heads


def _rename(name: str) -> str:
    layer, kind = name.split(".")
    return f"heads.{layer.replace('head', 'relu')}.0.{kind}" if layer.startswith("head") else f"steps.{layer}.{kind}"
