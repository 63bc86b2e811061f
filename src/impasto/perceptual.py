"""The loss by which one-pass networks learn: content and style of what they paint, in a frozen network's features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from impasto.losses import TotalVariation, structure_gap
from impasto.statistics import Moments, moments, normalize, precise

STYLE_LAYERS = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")
CONTENT_LAYERS = ("relu3_1", "relu4_1")

Targets = Mapping[str, Moments]
"""A style as the loss knows it: the moments of every style layer, of one painting or of a batch."""


class PerceptualLoss:
    """Content and style terms of stylized pictures.

    network: a frozen callable ``(image, layers) -> features``, a VGG-19 in the normalisation of mean activation 1; the
    content is compared after normalising every channel, so that it holds shapes and no colours (as in SANet's training,
    Park & Lee 2019); the style is means and deviations (Huang & Belongie 2017), averaged over the layers. gram_weight:
    adds to it so much of the Gram matrices' squared difference, relative to the painting's. structure_weight: of what
    the picture lacks of the photo's structural similarity (SSIM).
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        content_weight: float = 1.0,
        style_weight: float = 4.0,
        tv_weight: float = 0.0,
        gram_weight: float = 0.0,
        structure_weight: float = 0.0,
        content_layers: Sequence[str] = CONTENT_LAYERS,
        style_layers: Sequence[str] = STYLE_LAYERS,
    ) -> None:
        self.network = network
        self.content_weight, self.style_weight, self.tv_weight = content_weight, style_weight, tv_weight
        self.gram_weight, self.structure_weight = gram_weight, structure_weight
        self.content_layers, self.style_layers = tuple(content_layers), tuple(style_layers)
        self.smoothness = TotalVariation("l2-mean")

    def __call__(self, painted: Tensor, contents: Tensor, styles: Tensor) -> dict[str, Tensor]:
        """Terms ``content``, ``style`` and, with weights, ``structure`` and ``tv``; all pictures (B, 3, H, W)."""
        return self.terms(painted, contents, self.targets(styles))

    @torch.no_grad()
    def targets(self, styles: Tensor) -> Targets:
        """What the style of pictures, (B, 3, H, W), is."""
        return self._measure(self.network(styles, self.style_layers))

    def terms(self, painted: Tensor, contents: Tensor, targets: Targets) -> dict[str, Tensor]:
        """As a call, for styles that are known already, one for all samples or one each."""
        painted = precise(painted)
        with torch.no_grad():
            shapes = self.network(contents, self.content_layers)
        seen = self.network(painted, {*self.content_layers, *self.style_layers})
        errors = [
            F.mse_loss(normalize(precise(seen[layer])), normalize(precise(shapes[layer])))
            for layer in self.content_layers
        ]
        found = self._measure(seen)
        gaps = [self._gap(found[layer], targets[layer]) for layer in self.style_layers]
        terms = {
            "content": self.content_weight * torch.stack(errors).mean(),
            "style": self.style_weight * torch.stack(gaps).mean(),
        }
        if self.structure_weight:
            terms["structure"] = self.structure_weight * structure_gap(painted, contents)
        if self.tv_weight:
            terms["tv"] = self.tv_weight * self.smoothness(painted)
        return terms

    def _measure(self, features: Mapping[str, Tensor]) -> dict[str, Moments]:
        return {layer: moments(features[layer], full=self.gram_weight > 0) for layer in self.style_layers}

    def _gap(self, found: Moments, wanted: Moments) -> Tensor:
        gap = moments_gap(found, wanted)
        return gap + self.gram_weight * gram_gap(found, wanted) if self.gram_weight else gap


def moments_gap(found: Moments, wanted: Moments) -> Tensor:
    """Mean squared difference of channel means and deviations of two batches, sample by sample."""
    return ((found.mean - wanted.mean).square() + (found.deviation() - wanted.deviation()).square()).mean()


def gram_gap(found: Moments, wanted: Moments) -> Tensor:
    """Squared difference of Gram matrices (Gatys et al. 2016) in units of the wanted one's square, over samples."""
    target = wanted.second
    return ((found.second - target).square().sum((1, 2)) / target.square().sum((1, 2)).clamp_min(1e-8)).mean()


def stack_targets(styles: Sequence[Targets]) -> Targets:
    """Styles of one painting each as those of a batch."""
    return {
        layer: Moments(
            1.0,
            torch.cat([style[layer].mean for style in styles]),
            torch.cat([style[layer].second for style in styles]),
        )
        for layer in styles[0]
    }


def pick_targets(styles: Targets, numbers: Tensor) -> Targets:
    """The styles of these numbers, (B,), out of a batch's."""
    return {layer: Moments(own.count, own.total[numbers], own.products[numbers]) for layer, own in styles.items()}


def stack_rows(rows: Sequence[Tensor]) -> Tensor:
    """Batches of pictures, (B, 3, H, W) each, one below the other as a preview, (1, 3, rows x H, B x W)."""
    return torch.cat([torch.cat(list(row), dim=2) for row in rows], dim=1)[None]
