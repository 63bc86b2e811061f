"""VGG-19 in AdaIN's normalisation (``vgg_normalised``), read from safetensors files, as a teacher and as a measure.

A file holds ``conv0`` (1x1: RGB in [0, 1] to the network's own input), ``conv1_1`` ... as far as it goes, and possibly
``head1_1`` ...: 1x1 convolutions, followed by a ReLU, from a thinner network's features to VGG-19's widths.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

from torch import Tensor, nn

from impasto.backbones import VGG19_BLOCKS, Backbone
from impasto.errors import WeightsError
from impasto.layers import Conv, freeze
from impasto.weights import Weights, load_weights


class NormalisedVGG(nn.Module):
    """Several files as one network: each layer comes from the first file that reaches it exactly or by a head."""

    def __init__(self, paths: Sequence[str | Path]) -> None:
        super().__init__()
        files = [load_weights(path) for path in paths]
        self.parts = nn.ModuleList(_build(file) for file in files)
        self.name = "vgg19-normalised"
        self.digest = hashlib.sha256("".join(file.digest for file in files).encode()).hexdigest()

    @classmethod
    def from_folder(cls, folder: str | Path) -> NormalisedVGG:
        """The safetensors files of `folder`, those without heads (exact ones) first; raises WeightsError."""
        paths = sorted(Path(folder).glob("*.safetensors"))
        if not paths:
            raise WeightsError(f"{folder} holds no safetensors file of a normalised VGG-19")
        return cls(sorted(paths, key=lambda path: "head1_1.weight" in load_weights(path).tensors))

    def forward(self, image: Tensor, layers: Iterable[str]) -> dict[str, Tensor]:
        """Features of `image`, (B, 3, H, W) in [0, 1], at each of `layers`."""
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
    """A frozen backbone with the file's own widths and as many layers as it has."""
    steps: dict[str, nn.Module] = {"conv0": Conv(3, 3, 1)}
    names = [f"conv{b}_{i}" for b, n in enumerate(VGG19_BLOCKS, start=1) for i in range(1, n + 1)]
    for name in names:
        if f"{name}.weight" not in file.tensors:
            break
        if name.endswith("_1") and name != "conv1_1":
            steps[f"pool{int(name[4]) - 1}"] = nn.MaxPool2d(2)
        outputs, inputs = file.tensors[f"{name}.weight"].shape[:2]
        steps[name] = Conv(inputs, outputs, mirror=True)
        steps[name.replace("conv", "relu")] = nn.ReLU()
    heads = {
        name.split(".")[0].replace("head", "relu"): nn.Sequential(nn.Conv2d(t.shape[1], t.shape[0], 1), nn.ReLU())
        for name, t in file.tensors.items()
        if name.startswith("head") and name.endswith(".weight")
    }
    part = Backbone("vgg19-normalised", steps, heads=heads, mean=(0, 0, 0), std=(1, 1, 1), digest=file.digest)
    renamed = {_rename(name): tensor for name, tensor in file.tensors.items()}
    Weights(file.path, renamed, file.config, file.digest).fill(part)
    freeze(part)
    return part


def _rename(name: str) -> str:
    layer, kind = name.split(".")
    return f"heads.{layer.replace('head', 'relu')}.0.{kind}" if layer.startswith("head") else f"steps.{layer}.{kind}"
