"""Does a picture look painted? Compares its places with the painting's, by VGG-16.

Of all measures here these agree best with people's choices. People prefer pictures that have all of the painting's
motifs and drop the photo's texture; structural similarity to the photo (SSIM) ranks them the other way round, because a
stroke in a sky lowers it as much as a lost object.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from impasto.errors import ImageError
from impasto.evaluation.metrics import LossNetwork
from impasto.ops.moments import Moments, moments
from impasto.optimize.losses import SelfSimilarityLoss
from impasto.optimize.nearest import directions, rows_of

LAYERS = ("relu1_2", "relu2_2", "relu3_3", "relu4_3")
PLACES = {"3": "relu3_3", "4": "relu4_3"}
"""The layers at which places are compared, by the number in the measure's name."""

CONTENT_LAYER = "relu4_3"
SIDE = 64
"""Approximate limit of rows and columns of a map that are compared."""

KEPT = 16
"""Number of paintings whose traits are kept."""


@dataclass(frozen=True)
class Traits:
    """What is compared: at `PLACES` the places as directions, (N, C); at `LAYERS` the moments."""

    places: dict[str, Tensor]
    sums: dict[str, Moments]


class PaintedScore:
    """The measures of `report.PAINTED`, by a network with VGG-16's layers; lower is better in all of them.

    coverage3, coverage4: mean over the painting's places of the cosine distance to the picture's most similar place, at
    relu3_3 and relu4_3, after subtracting each side's mean: is all of the painting there? precision3, precision4: the
    same from the picture's places to the painting's: is anything foreign there? moments: squared differences of the
    channels' means and deviations, in units of the painting's variance; gram: relative distance of Gram matrices; both
    averaged over four layers. similarity_gap: difference of the places' similarities to each other from the photo's
    (Kolkin et al. 2019), which ignores texture but not lost objects.
    """

    def __init__(self, network: LossNetwork) -> None:
        self.network = network
        self._paintings: dict[str, Traits] = {}
        self._photo: tuple[Tensor, SelfSimilarityLoss] | None = None

    def compare(self, image: Tensor, painting: Tensor, photo: Tensor, name: str) -> dict[str, float]:
        """Return the measures of `image`, (1, 3, H, W), by name.

        name: key under which the painting's traits are kept. Raises ImageError if a picture is too small.
        """
        features = self.network(image, LAYERS)
        own, wanted = traits(features), self._traits(name, painting)
        found: dict[str, float] = {}
        for number in PLACES:
            similar = own.places[number] @ wanted.places[number].T
            found[f"coverage{number}"] = float(1 - similar.amax(0).mean())
            found[f"precision{number}"] = float(1 - similar.amax(1).mean())
        pairs = [(own.sums[layer], wanted.sums[layer]) for layer in LAYERS]
        found["moments"] = sum(moment_gap(*pair) for pair in pairs) / len(pairs)
        found["gram"] = sum(float((a.second - b.second).norm() / b.second.norm()) for a, b in pairs) / len(pairs)
        found["similarity_gap"] = float(self._content(photo)(features[CONTENT_LAYER]))
        return found

    def _traits(self, name: str, painting: Tensor) -> Traits:
        if name not in self._paintings:
            if len(self._paintings) >= KEPT:
                self._paintings.pop(next(iter(self._paintings)))
            self._paintings[name] = traits(self.network(painting, LAYERS))
        return self._paintings[name]

    def _content(self, photo: Tensor) -> SelfSimilarityLoss:
        if self._photo is None or self._photo[0] is not photo:
            self._photo = photo, SelfSimilarityLoss(self.network(photo, {CONTENT_LAYER})[CONTENT_LAYER])
        return self._photo[1]


def traits(features: Mapping[str, Tensor]) -> Traits:
    """Return the traits of a picture by its features at `LAYERS`; raises ImageError if it is too small."""
    if min(features[CONTENT_LAYER].shape[-2:]) < 2:
        raise ImageError("the pictures are too small for VGG-16: measure at a larger --size, at least 32x32")
    places = {number: _spread_places(features[layer]) for number, layer in PLACES.items()}
    return Traits(places, {layer: moments(features[layer]) for layer in LAYERS})


def _spread_places(features: Tensor) -> Tensor:
    stride = max(1, max(features.shape[-2:]) // SIDE)
    rows = rows_of(features[..., ::stride, ::stride])
    return directions(rows, rows.mean(0))


def moment_gap(found: Moments, wanted: Moments) -> float:
    """Return the mean squared difference of means plus that of unbiased deviations, over the wanted mean variance."""
    (mean, spread), (other, goal) = ((one.mean, _unbiased(one)) for one in (found, wanted))
    gap = (mean - other).square().mean() + (spread.sqrt() - goal.sqrt()).square().mean()
    return float(gap / goal.mean().clamp_min(torch.finfo(torch.float32).tiny))


def _unbiased(found: Moments) -> Tensor:
    return found.variance * (found.count / (found.count - 1))
