"""The training loss of one-pass networks: content and style of their pictures, in a frozen network's features."""

from __future__ import annotations

import functools
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from impasto.ops.moments import Moments, moments, normalize, precise
from impasto.optimize.losses import TotalVariation, structure_gap

STYLE_LAYERS = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")
CONTENT_LAYERS = ("relu3_1", "relu4_1")

COVARIANCE_LAYERS = ("relu1_1", "relu2_1", "relu3_1", "relu4_1")
WINDOW_LAYERS = ("relu2_1", "relu3_1")
NEIGHBOR_LAYERS = ("relu3_1", "relu4_1")
KEPT_PLACES, DRAWN_PLACES = 4096, 1024
"""Most places of a painting's layer that are targets, and that are drawn from each side in a step."""
SIMILARITY_SIDE = 24
"""Rows and columns of the grid on which self-similarity is compared."""


@dataclass(frozen=True)
class PaintingMoments:
    """A style as the loss needs it, of one painting or of a batch.

    moments: by style layer; places: by neighbour layer, centred features of length 1 at some places, (B, N, C).
    """

    moments: Mapping[str, Moments]
    places: Mapping[str, Tensor] = field(default_factory=dict)


class PerceptualLoss:
    """Content and style terms of stylized pictures.

    network: a frozen callable ``(image, layers) -> features``, a VGG-19 in the normalisation of mean activation 1. The
    content is compared after normalising every channel, so that it holds shapes and no colours (as in SANet's training,
    Park & Lee 2019); the style is means and deviations (Huang & Belongie 2017), averaged over the layers. The weights
    add further terms: gram_weight: the squared difference of Gram matrices, relative to the painting's;
    covariance_weight: the same of covariances, in which a rare strong colour has less weight; window_weight: the same
    for each quarter of the picture, so that flat areas are painted, too; neighbor_weight: the relaxed earth mover's
    distance between places of picture and painting (Kolkin et al. 2019, sec. 2.2); similarity_weight: the difference of
    the picture's self-similarity from the photo's (sec. 2.3 there), which keeps objects and ignores texture;
    structure_weight: what the picture lacks of the photo's structural similarity (SSIM).
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        content_weight: float = 1.0,
        style_weight: float = 4.0,
        tv_weight: float = 0.0,
        gram_weight: float = 0.0,
        covariance_weight: float = 0.0,
        window_weight: float = 0.0,
        neighbor_weight: float = 0.0,
        similarity_weight: float = 0.0,
        structure_weight: float = 0.0,
        content_layers: Sequence[str] = CONTENT_LAYERS,
        style_layers: Sequence[str] = STYLE_LAYERS,
    ) -> None:
        self.network = network
        self.content_weight, self.style_weight, self.tv_weight = content_weight, style_weight, tv_weight
        self.gram_weight, self.structure_weight = gram_weight, structure_weight
        self.covariance_weight, self.window_weight = covariance_weight, window_weight
        self.neighbor_weight = neighbor_weight
        self.similarity_weight = similarity_weight
        self.content_layers, self.style_layers = tuple(content_layers), tuple(style_layers)
        self.smoothness = TotalVariation("l2-mean")

    def __call__(self, painted: Tensor, contents: Tensor, styles: Tensor) -> dict[str, Tensor]:
        """Return ``content``, ``style`` and, if weighted, ``structure`` and ``tv``; pictures are (B, 3, H, W)."""
        return self.terms(painted, contents, self.targets(styles))

    @torch.no_grad()
    def targets(self, styles: Tensor) -> PaintingMoments:
        """Return the style of pictures, (B, 3, H, W)."""
        features = self.network(styles, self._style_layers)
        return PaintingMoments(self._measure(features), self._places(features, KEPT_PLACES))

    @property
    def _style_layers(self) -> set[str]:
        return {*self.style_layers, *(NEIGHBOR_LAYERS if self.neighbor_weight else ())}

    def terms(self, painted: Tensor, contents: Tensor, targets: PaintingMoments) -> dict[str, Tensor]:
        """Return the terms as a call does, for measured styles, one for all samples or one each."""
        painted = precise(painted)
        with torch.no_grad():
            shapes = self.network(contents, self.content_layers)
        seen = self.network(painted, {*self.content_layers, *self._style_layers})
        pairs = [(precise(seen[layer]), precise(shapes[layer])) for layer in self.content_layers]
        errors = [F.mse_loss(normalize(found), normalize(wanted)) for found, wanted in pairs]
        gaps = [
            self._gap(layer, self._quarters(layer, seen[layer]), targets.moments[layer]) for layer in self.style_layers
        ]
        terms = {
            "content": self.content_weight * torch.stack(errors).mean(),
            "style": self.style_weight * torch.stack(gaps).mean(),
        }
        if self.neighbor_weight:
            terms["neighbors"] = self.neighbor_weight * self._neighbor_gap(seen, targets)
        if self.similarity_weight:
            terms["similarity"] = self.similarity_weight * torch.stack([similarity_gap(*pair) for pair in pairs]).mean()
        if self.structure_weight:
            terms["structure"] = self.structure_weight * structure_gap(painted, contents)
        if self.tv_weight:
            terms["tv"] = self.tv_weight * self.smoothness(painted)
        return terms

    def _measure(self, features: Mapping[str, Tensor]) -> dict[str, Moments]:
        return {layer: moments(features[layer], full=self._full(layer)) for layer in self.style_layers}

    def _full(self, layer: str) -> bool:
        covariance = self.covariance_weight > 0 and layer in COVARIANCE_LAYERS
        return self.gram_weight > 0 or covariance or (self.window_weight > 0 and layer in WINDOW_LAYERS)

    def _quarters(self, layer: str, features: Tensor) -> list[Moments]:
        """Return the moments of the features' quarters, or of the whole if quarters have no weight."""
        if not (self.window_weight and layer in WINDOW_LAYERS):
            return [moments(features, full=self._full(layer))]
        rows, columns = (extent // 2 for extent in features.shape[-2:])
        halves = features[:, :, :rows], features[:, :, rows:]
        quarters = [part for half in halves for part in (half[..., :columns], half[..., columns:])]
        return [moments(quarter) for quarter in quarters]

    def _places(self, features: Mapping[str, Tensor], most: int) -> dict[str, Tensor]:
        return {layer: draw_places(features[layer], most) for layer in NEIGHBOR_LAYERS} if self.neighbor_weight else {}

    def _neighbor_gap(self, seen: Mapping[str, Tensor], targets: PaintingMoments) -> Tensor:
        gaps = []
        for layer, found in self._places(seen, DRAWN_PLACES).items():
            wanted = targets.places[layer]
            some = torch.randperm(wanted.shape[1], device=wanted.device)[:DRAWN_PLACES]
            gaps.append(earth_mover_gap(found, wanted[:, some]))
        return torch.stack(gaps).mean()

    def _gap(self, layer: str, parts: Sequence[Moments], wanted: Moments) -> Tensor:
        found = functools.reduce(operator.add, parts)
        gap = moments_gap(found, wanted)
        if self.covariance_weight and layer in COVARIANCE_LAYERS:
            gap = gap + self.covariance_weight * covariance_gap(found, wanted)
        if len(parts) > 1:
            gaps = torch.stack([covariance_gap(part, wanted) for part in parts])
            gap = gap + self.window_weight * gaps.mean()
        return gap + self.gram_weight * gram_gap(found, wanted) if self.gram_weight else gap


def moments_gap(found: Moments, wanted: Moments) -> Tensor:
    """Return mean squared difference of channel means and deviations of two batches, sample by sample."""
    return ((found.mean - wanted.mean).square() + (found.deviation() - wanted.deviation()).square()).mean()


def gram_gap(found: Moments, wanted: Moments) -> Tensor:
    """Squared difference of Gram matrices (Gatys et al. 2016) in units of the wanted one's square, over samples."""
    target = wanted.second
    return ((found.second - target).square().sum((1, 2)) / target.square().sum((1, 2)).clamp_min(1e-8)).mean()


def covariance_gap(found: Moments, wanted: Moments) -> Tensor:
    """Return squared difference of covariances in units of the wanted one's square, mean over samples."""
    target = wanted.covariance
    error = (found.covariance - target).square().sum((1, 2))
    return (error / wanted.spread_of_products).mean()


def draw_places(features: Tensor, most: int) -> Tensor:
    """Return `most` random places of features, (B, C, H, W), or all: (B, N, C), minus their mean, of length 1."""
    rows = features.permute(0, 2, 3, 1).flatten(1, 2)
    if rows.shape[1] > most:
        rows = rows[:, torch.randperm(rows.shape[1], device=rows.device)[:most]]
    rows = precise(rows)
    return F.normalize(rows - rows.mean(1, keepdim=True), dim=2)


def earth_mover_gap(found: Tensor, wanted: Tensor) -> Tensor:
    """Return the relaxed earth mover's distance of directions, (B, N, C) and (B or 1, M, C), mean over samples.

    The larger of two means: of the picture's places to the nearest of the painting's, and the reverse, by cosine
    distance (Kolkin et al. 2019, eq. 4).
    """
    distance = 1 - found @ wanted.transpose(1, 2)
    return torch.maximum(distance.amin(2).mean(1), distance.amin(1).mean(1)).mean()


def similarity_gap(found: Tensor, wanted: Tensor) -> Tensor:
    """Return mean difference of the self-similarities of features, (B, C, H, W) each (Kolkin et al. 2019, eq. 7)."""
    return (_self_similarity(found) - _self_similarity(wanted)).abs().sum(1).mean()


def _self_similarity(features: Tensor) -> Tensor:
    rows, columns = (min(SIMILARITY_SIDE, extent) for extent in features.shape[-2:])
    distance = 1 - _directions(F.adaptive_avg_pool2d(features, (rows, columns)))
    return distance / distance.sum(1, keepdim=True).clamp_min(1e-6)


def _directions(features: Tensor) -> Tensor:
    flat = features.flatten(2)
    flat = F.normalize(flat - flat.mean(2, keepdim=True), dim=1)
    return flat.transpose(1, 2) @ flat


def stack_targets(styles: Sequence[PaintingMoments]) -> PaintingMoments:
    """Stack styles of one painting each to those of a batch, with as many places as all of them have."""
    first = styles[0]
    found = {
        layer: Moments(
            1.0,
            torch.cat([style.moments[layer].mean for style in styles]),
            torch.cat([style.moments[layer].second for style in styles]),
        )
        for layer in first.moments
    }
    places = {}
    for layer in first.places:
        least = min(style.places[layer].shape[1] for style in styles)
        places[layer] = torch.cat([style.places[layer][:, :least] for style in styles])
    return PaintingMoments(found, places)


def pick_targets(styles: PaintingMoments, numbers: Tensor) -> PaintingMoments:
    """Return the styles of these numbers, (B,), out of a batch's."""
    found = {
        layer: Moments(own.count, own.total[numbers], own.products[numbers]) for layer, own in styles.moments.items()
    }
    return PaintingMoments(found, {layer: own[numbers] for layer, own in styles.places.items()})


def stack_rows(rows: Sequence[Tensor]) -> Tensor:
    """Stack batches of pictures, (B, 3, H, W) each, below each other: a preview, (1, 3, rows x H, B x W)."""
    return torch.cat([torch.cat(list(row), dim=2) for row in rows], dim=1)[None]
