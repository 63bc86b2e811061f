"""How vgg19-slim is made: a thin network learns to say what VGG-19 says.

Wang et al. 2020 ("Collaborative Distillation", sec. 3.1) train a thin encoder so that linear maps of its features embed
the large one's. Here the maps end in VGG-19's own ReLU and are kept as heads, every layer's error is divided by that
layer's variance, and a term asks for VGG-19's Gram matrices on artworks.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from impasto.backbones import SLIM, VGG19_BLOCKS, VGG19_WIDTHS, slim_backbone
from impasto.statistics import moments
from impasto.training import Task

LAYERS = tuple(f"relu{block}_1" for block in range(1, len(VGG19_BLOCKS) + 1))


class Distillation(Task):
    """Train vgg19-slim with its heads against a teacher that gives VGG-19's relu1_1 ... relu5_1.

    teacher: a frozen module ``(image, layers) -> features`` in the normalisation of mean activation 1.

    Departs from the paper: a fifth of the pictures are blends of a photograph and an artwork, and some carry noise, so
    that the features also hold for what an optimisation or a decoder makes; no decoder takes part.
    """

    name = SLIM

    def __init__(self, teacher: nn.Module, gram_weight: float = 0.1) -> None:
        super().__init__()
        self.student = slim_backbone(heads=True)
        self.gram_weight = gram_weight
        self._teacher = [teacher]  # in a list: not a part of what is trained or saved
        for module in self.student.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def learned(self) -> nn.Module:
        """The student with its heads."""
        return self.student

    def config(self) -> dict[str, Any]:
        """The kind of network, for the file's header."""
        return {"backbone": SLIM, "heads": list(VGG19_WIDTHS)}

    def teach(self, image: Tensor) -> dict[str, Tensor]:
        """The teacher's features, in bfloat16's speed."""
        teacher = self._teacher[0].to(image.device)
        with torch.no_grad(), torch.autocast(image.device.type, dtype=torch.bfloat16):
            return {layer: f.float() for layer, f in teacher(image, LAYERS).items()}

    def forward(self, contents: Tensor, styles: Tensor, progress: float) -> dict[str, Tensor]:
        """Embedding error of each layer and the Gram error, each in units of the teacher's own size."""
        image = torch.cat([disturb(contents, styles), styles])
        target, found = self.teach(image), self.student(image, LAYERS)
        terms = {layer: F.mse_loss(found[layer], target[layer]) / target[layer].var() for layer in LAYERS}
        artworks = slice(len(contents), None)
        terms["gram"] = self.gram_weight * torch.stack(
            [gram_error(found[layer][artworks], target[layer][artworks]) for layer in LAYERS]
        ).sum()
        return terms


def gram_error(features: Tensor, target: Tensor) -> Tensor:
    """Squared distance of two Gram matrices relative to the target's squared norm, averaged over the batch."""
    found, wanted = moments(features).second, moments(target).second
    return ((found - wanted).square().sum((1, 2)) / wanted.square().sum((1, 2))).mean()


def disturb(contents: Tensor, styles: Tensor) -> Tensor:
    """Blend every fifth photograph with an artwork and give every third some noise, (B, 3, H, W) in [0, 1]."""
    batch = len(contents)
    chance = torch.rand(3, batch, 1, 1, 1, device=contents.device)
    share = torch.where(chance[0] < 0.2, chance[1], torch.zeros_like(chance[1]))
    blended = contents + share * (styles[:batch] - contents)
    noise = torch.randn_like(blended) * torch.where(chance[2] < 0.3, 0.3 * chance[2], torch.zeros_like(chance[2]))
    return (blended + noise).clamp(0, 1)


def correlations(student: nn.Module, teacher: nn.Module, images: list[Tensor]) -> dict[str, float]:
    """Pearson correlation of all features of each layer over `images`, each (1, 3, H, W)."""
    sums = {layer: torch.zeros(6, dtype=torch.float64) for layer in LAYERS}
    for image in images:
        with torch.no_grad():
            pair = student(image, LAYERS), teacher(image, LAYERS)
        for layer in LAYERS:
            a, b = (features[layer].flatten().double() for features in pair)
            sums[layer] += torch.stack([torch.tensor(float(a.numel())), a.sum(), b.sum(), a @ a, b @ b, a @ b])
    found = {}
    for layer, (n, a, b, aa, bb, ab) in sums.items():
        found[layer] = float((n * ab - a * b) / ((n * aa - a * a) * (n * bb - b * b)).sqrt())
    return found
