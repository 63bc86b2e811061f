"""The loss by which one-pass networks learn: content and style of what they paint, in a frozen network's features."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from impasto.losses import TotalVariation
from impasto.statistics import moments, normalize

STYLE_LAYERS = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")
CONTENT_LAYERS = ("relu3_1", "relu4_1")


class PerceptualLoss:
    """Content and style terms of stylized pictures.

    network: a frozen callable ``(image, layers) -> features``, a VGG-19 in the normalisation of mean activation 1; the
    content is compared after normalising every channel, so that it holds shapes and no colours (as in SANet's training,
    Park & Lee 2019); the style is means and deviations (Huang & Belongie 2017), averaged over the layers.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        content_weight: float = 1.0,
        style_weight: float = 4.0,
        tv_weight: float = 0.0,
        content_layers: Sequence[str] = CONTENT_LAYERS,
        style_layers: Sequence[str] = STYLE_LAYERS,
    ) -> None:
        self.network = network
        self.content_weight, self.style_weight, self.tv_weight = content_weight, style_weight, tv_weight
        self.content_layers, self.style_layers = tuple(content_layers), tuple(style_layers)
        self.smoothness = TotalVariation("l2-mean")

    def __call__(self, painted: Tensor, contents: Tensor, styles: Tensor) -> dict[str, Tensor]:
        """Terms ``content``, ``style`` and, with a weight, ``tv``; all pictures (B, 3, H, W)."""
        with torch.no_grad():
            shapes = self.network(contents, self.content_layers)
            textures = self.network(styles, self.style_layers)
        seen = self.network(painted, {*self.content_layers, *self.style_layers})
        errors = [
            F.mse_loss(normalize(seen[layer].float()), normalize(shapes[layer].float()))
            for layer in self.content_layers
        ]
        gaps = [style_gap(seen[layer], textures[layer]) for layer in self.style_layers]
        terms = {
            "content": self.content_weight * torch.stack(errors).mean(),
            "style": self.style_weight * torch.stack(gaps).mean(),
        }
        if self.tv_weight:
            terms["tv"] = self.tv_weight * self.smoothness(painted.float())
        return terms


def style_gap(features: Tensor, target: Tensor) -> Tensor:
    """Mean squared difference of channel means and deviations of two batches, sample by sample."""
    found, wanted = moments(features, full=False), moments(target, full=False)
    return ((found.mean - wanted.mean).square() + (found.deviation() - wanted.deviation()).square()).mean()


def stack_rows(rows: Sequence[Tensor]) -> Tensor:
    """Batches of pictures, (B, 3, H, W) each, one below the other as a preview, (1, 3, rows x H, B x W)."""
    return torch.cat([torch.cat(list(row), dim=2) for row in rows], dim=1)[None]
