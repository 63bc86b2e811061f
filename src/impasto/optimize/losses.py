"""Losses bound to a target, and the objective that adds them up over one backbone.

A loss is a callable ``features (B, C, H, W) -> scalar tensor``. The same objects serve optimisation, training and
evaluation. Published recipes differ in their divisors; each form is named after its source.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from impasto.errors import OptionError, no_channel, no_unit
from impasto.images.color import luma
from impasto.ops.matrix_roots import square_root
from impasto.ops.moments import LEAST_VARIANCE, Moments, fit_mask, moments, precise

Loss = Callable[[Tensor], Tensor]
ContentForm = Literal["mean", "half-sum", "relative"]
GramForm = Literal["gatys", "leongatys", "neural-style", "magenta", "mailcorahul", "relative"]
VariationForm = Literal["l1-mean", "l1-sum", "l2-mean", "nine-point", "power"]
SIMILARITY_WINDOW = 7


@runtime_checkable
class PlaceLoss(Protocol):
    """A loss that is a sum over positions, so that it can be computed tile by tile."""

    def part(self, features: Tensor, rows: slice, columns: slice) -> Tensor:
        """Return the share of these rows and columns of the features in the loss."""


@runtime_checkable
class ChangingLoss(Protocol):
    """A loss that differs from one step of an optimisation to the next."""

    def begin(self, step: int) -> None:
        """Prepare for the step with this number."""


class ContentLoss:
    """Squared distance to the content's features (Gatys et al. 2016, sec. 2.1).

    target: (B, C, H, W). form: ``half-sum`` is the paper's, ``mean`` most code's, ``relative`` the mean divided by the
    target's variance, so that one weight means the same in every layer.
    """

    def __init__(self, target: Tensor, form: ContentForm = "mean") -> None:
        self.target = target.detach()
        self.form = form
        self.scale = self._variance() if form == "relative" else 1.0

    def _variance(self) -> float:
        """Return the target's variance, at least a share of its mean square, for the sake of flat photos."""
        least = LEAST_VARIANCE * self.target.square().mean()
        own = self.target.var() if self.target.numel() > 1 else torch.zeros_like(least)
        return float(torch.maximum(own, least).clamp_min(1e-8))

    def __call__(self, features: Tensor) -> Tensor:
        """Return the loss of `features`, of the target's shape."""
        if self.form == "half-sum":
            return 0.5 * (features - self.target).square().sum()
        return F.mse_loss(features, self.target) / self.scale

    def part(self, features: Tensor, rows: slice, columns: slice) -> Tensor:
        """Return the share of these rows and columns of the features in the loss."""
        errors = (features - self.target[..., rows, columns]).square().sum()
        return 0.5 * errors if self.form == "half-sum" else errors / (self.target.numel() * self.scale)


def gram_distance(found: Moments, wanted: Moments, form: GramForm) -> Tensor:
    """Distance of two pictures' Gram matrices G = F F^T in one of the literature's normalisations.

    If the sizes differ, the wanted Gram matrix is scaled to the number of positions of the found one. ``gatys``: sum of
    squares / (4 C^2 N^2) (Gatys et al. 2016, eq. 4); ``leongatys``: G/N, mean, times 1000 / C^2; ``neural-style``: G/(C
    N), mean (also Johnson et al. 2016, d2l and Meta networks); ``magenta``: G/N, mean; ``mailcorahul``: G, mean;
    ``relative``: sum of squares over that of the wanted Gram matrix, the same at every size and width.
    """
    n, c = found.count, found.mean.shape[1]
    error = (found.second - wanted.second).square()
    batch = len(error)
    if form == "gatys":
        return error.sum() / (4 * c**2) / batch
    if form == "leongatys":
        return error.mean() * 1e3 / c**2
    if form == "neural-style":
        return error.mean() / c**2
    if form == "magenta":
        return error.mean()
    if form == "mailcorahul":
        return error.mean() * n**2
    if form == "relative":
        return (error.sum((1, 2)) / wanted.second.square().sum((1, 2)).clamp_min(1e-12)).mean()
    raise OptionError(f"there is no Gram normalisation {form!r}")


class StatisticLoss(ABC):
    """A loss of features that depends only on their moments, over all positions or in the region `mask`.

    So it can be computed from moments that were summed over tiles.
    """

    full = True

    def __init__(self, target: Moments, mask: Tensor | None = None) -> None:
        self.target, self.mask = target, mask

    @abstractmethod
    def distance(self, found: Moments) -> Tensor:
        """Return the loss of features with moments `found`."""

    def __call__(self, features: Tensor) -> Tensor:
        """Return the loss of `features`, (B, C, H, W)."""
        return self.distance(moments(features, full=self.full, mask=fit_mask(self.mask, features)))


class GramLoss(StatisticLoss):
    """Distance of Gram matrices; target: full moments of the style, see `gram_distance` for `form`.

    mask: (1, 1, H, W) in [0, 1] restricts the features to a region (Gatys et al. 2017, sec. 4: guided Gram matrices).
    """

    def __init__(self, target: Moments, form: GramForm = "gatys", mask: Tensor | None = None) -> None:
        super().__init__(target, mask)
        self.form = form

    def distance(self, found: Moments) -> Tensor:
        """Return the loss of features with moments `found`."""
        return gram_distance(found, self.target, self.form)


def moment_distance(found: Moments, wanted: Moments, *, relative: bool = False, eps: float = 1e-5) -> Tensor:
    """Mean squared difference of channel means plus that of deviations (Huang & Belongie 2017, eq. 13, summed squares).

    relative: divided by the wanted features' mean variance, see `Moments.spread`.
    """
    error = F.mse_loss(found.mean, wanted.mean.expand_as(found.mean))
    deviation = wanted.deviation(eps)
    error = error + F.mse_loss(found.deviation(eps), deviation.expand_as(found.mean))
    return error / (wanted.spread.mean() / wanted.mean.shape[1]) if relative else error


class MomentLoss(StatisticLoss):
    """Distance of channel means and deviations from those of a style."""

    full = False

    def __init__(self, target: Moments, *, relative: bool = False, mask: Tensor | None = None) -> None:
        super().__init__(target, mask)
        self.relative = relative

    def distance(self, found: Moments) -> Tensor:
        """Return the loss of features with moments `found`."""
        return moment_distance(found, self.target, relative=self.relative)


class CovarianceLoss(StatisticLoss):
    """Distance of means and covariances, relative to the style's own size; the default of gatys.

    Centring separates the brightness of a style from its texture: a Gram matrix of positive features is mostly the
    square of their mean, which hides the texture (Li et al. 2017, "Diversified texture synthesis", sec. 3.2, subtract
    the mean for this reason).
    """

    def __init__(self, target: Moments, mask: Tensor | None = None) -> None:
        super().__init__(target, mask)
        self.covariance = target.covariance
        self.variance, self.size = target.spread.mean(), target.spread_of_products.mean()

    def distance(self, found: Moments) -> Tensor:
        """Return the loss of features with moments `found`."""
        mean = (found.mean - self.target.mean).square().sum(1).mean() / self.variance
        spread: Tensor = (found.covariance - self.covariance).square().sum((1, 2)).mean() / self.size
        return mean + spread


class WassersteinLoss(StatisticLoss):
    """Squared 2-Wasserstein distance of Gaussians with the features' means and covariances, per channel.

    mean-MSE(mu) + mean over channels of diag(S* + S - 2 (S*^1/2 S S*^1/2)^1/2), covariances with `eps` on the diagonal;
    square roots by twelve Newton-Schulz iterations (after the style-transfer code of Katherine Crowson).

    Departs from that code: gradients run through the iterations, not through a Lyapunov equation.
    """

    def __init__(self, target: Moments, eps: float = 1e-4, mask: Tensor | None = None) -> None:
        super().__init__(target, mask)
        self.eps = eps
        self.mean = target.mean
        self.covariance = _padded(target, eps)
        self.root = square_root(self.covariance)

    def distance(self, found: Moments) -> Tensor:
        """Return the loss of features with moments `found`."""
        covariance = _padded(found, self.eps)
        cross = square_root(self.root @ covariance @ self.root)
        gap = torch.diagonal(self.covariance + covariance - 2 * cross, dim1=1, dim2=2)
        return F.mse_loss(found.mean, self.mean.expand_as(found.mean)) + gap.mean()


def _padded(found: Moments, eps: float) -> Tensor:
    covariance = found.covariance
    return covariance + eps * torch.eye(covariance.shape[1], dtype=covariance.dtype, device=covariance.device)


class ClassLoss:
    """Cross entropy of logits, (B, classes), with one class; minimised by class pictures and attacks."""

    def __init__(self, index: int) -> None:
        self.index = index

    def __call__(self, logits: Tensor) -> Tensor:
        """Return the loss of `logits`."""
        return F.cross_entropy(logits, logits.new_full((len(logits),), self.index, dtype=torch.long))


class ActivationLoss:
    """Minus the response of a channel: its mean over the picture, or its value at one position.

    channel: of features (B, C, H, W), or of logits (B, C); position: (row, column) of one unit.
    """

    def __init__(self, channel: int, position: tuple[int, int] | None = None) -> None:
        self.channel, self.position = channel, position

    def __call__(self, features: Tensor) -> Tensor:
        """Return the loss of `features`. Raises OptionError if they have no such channel or position."""
        if self.channel >= features.shape[1]:
            raise OptionError(no_channel(self.channel, features.shape[1]))
        if features.dim() == 2:
            return -features[:, self.channel].mean()
        if self.position is None:
            return -moments(features, full=False).mean[:, self.channel].mean()
        row, column = self.position
        height, width = features.shape[-2:]
        if row >= height or column >= width:
            raise OptionError(no_unit(self.position, height, width))
        return -features[:, self.channel, row, column].mean()


class SelfSimilarityLoss:
    """Distance of the self-similarity of a picture's places from the photo's (Kolkin et al. 2019).

    target: the photo's features, (1, C, H, W), averaged to at most `side` rows and columns. Cosine distances between
    all places, divided by their sum for each place; their absolute differences, summed for each place, averaged. It
    ignores texture and colour, but not objects that fall apart.
    """

    def __init__(self, target: Tensor, side: int = 32) -> None:
        self.size = min(side, target.shape[-2]), min(side, target.shape[-1])
        self.target = self._distances(target.detach())

    def __call__(self, features: Tensor) -> Tensor:
        """Return the loss of `features`, of the target's shape."""
        return (self._distances(features) - self.target).abs().sum(0).mean()

    def _distances(self, features: Tensor) -> Tensor:
        rows = F.adaptive_avg_pool2d(features, self.size)[0].flatten(1)
        rows = F.normalize(rows - rows.mean(1, keepdim=True), dim=0, eps=1e-6)
        distances = 1 - rows.T @ rows
        return distances / distances.sum(0, keepdim=True).clamp_min(1e-6)


class TemporalLoss:
    """Distance of a frame x from the last result w, warped to the present (Ruder et al. 2016, sec. 4.2).

    The sum of c (x - w)^2 over the number of values, on the layer ``image``. target: w, (B, 3, H, W); mask: c, (B, 1,
    H, W) in [0, 1]: 0 for newly visible parts and at the edges of moving objects.

    Departs from the paper: pixels are in [0, 1].
    """

    def __init__(self, target: Tensor, mask: Tensor) -> None:
        self.target, self.mask = target.detach(), mask.detach()

    def __call__(self, image: Tensor) -> Tensor:
        """Return the loss of `image`, of the target's shape."""
        return (self.mask * (image - self.target).square()).sum() / image.numel()


class TotalVariation:
    """Difference of neighbouring pixels, on the layer ``image``.

    form: ``l1-mean`` half the mean of |vertical| plus that of |horizontal| (d2l); ``l1-sum`` their sum; ``l2-mean`` sum
    of squares / number of values; ``nine-point`` squares to all eight neighbours, diagonals a quarter (Crowson);
    ``power`` sum of (squares)^1.25 (Keras' example). std: divides the pixels first, for recipes that work on normalised
    pixels.
    """

    def __init__(self, form: VariationForm = "l2-mean", std: Tensor | float = 1.0) -> None:
        self.form, self.std = form, std

    def __call__(self, image: Tensor) -> Tensor:
        """Return the variation of `image`, (B, 3, H, W)."""
        x = image / self.std
        if self.form == "nine-point":
            return _nine_point(x)
        down, right = x[..., 1:, :] - x[..., :-1, :], x[..., :, 1:] - x[..., :, :-1]
        if self.form == "l1-mean":
            return 0.5 * (down.abs().mean() + right.abs().mean())
        if self.form == "l1-sum":
            return down.abs().sum() + right.abs().sum()
        if self.form == "l2-mean":
            return (down.square().sum() + right.square().sum()) / x.numel()
        both = down[..., :, :-1].square() + right[..., :-1, :].square()
        return (both + 1e-12).pow(1.25).sum()


def _nine_point(x: Tensor) -> Tensor:
    x = F.pad(x, (1, 1, 1, 1), mode="replicate")
    right, down = x[..., 1:, 1:] - x[..., 1:, :-1], x[..., 1:, 1:] - x[..., :-1, 1:]
    falling, rising = x[..., 1:, 1:] - x[..., :-1, :-1], x[..., 1:, :-1] - x[..., :-1, 1:]
    straight = (right.square().mean() + down.square().mean()) / 3
    return 2 * (straight + (falling.square().mean() + rising.square().mean()) / 12)


def similarity_map(x: Tensor, y: Tensor, reach: float = 1.0) -> Tensor:
    """Return the structural similarity (Wang et al. 2004) of every 7x7 window of two grey pictures, (B, 1, H, W) each.

    reach: the distance from black to white. All positions of a window have the same weight, with the sample's
    covariance, as in scikit-image's defaults. Returns (B, 1, H - 6, W - 6).
    """
    count = SIMILARITY_WINDOW**2
    mean_x, mean_y, mean_xx, mean_yy, mean_xy = (
        F.avg_pool2d(values, SIMILARITY_WINDOW, stride=1) for values in (x, y, x * x, y * y, x * y)
    )
    spread = (mean_xx - mean_x * mean_x + mean_yy - mean_y * mean_y) * count / (count - 1)
    covariance = (mean_xy - mean_x * mean_y) * count / (count - 1)
    c1, c2 = (0.01 * reach) ** 2, (0.03 * reach) ** 2  # against division by 0 in flat windows
    similarity = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    return similarity / ((mean_x * mean_x + mean_y * mean_y + c1) * (spread + c2))


def structure_gap(found: Tensor, wanted: Tensor) -> Tensor:
    """Return 1 - SSIM of two pictures, (B, 3, H, W) in [0, 1], in grey: contours and shades, not colours."""
    with torch.autocast(found.device.type, enabled=False):  # in half precision, variances would be noise
        return 1 - similarity_map(luma(precise(found)), luma(precise(wanted))).mean()


@dataclass(frozen=True)
class Term:
    """One weighted loss at one layer; terms of the same name are added."""

    name: str
    layer: str
    loss: Loss
    weight: float = 1.0


class Objective:
    """Named, weighted losses over one backbone: ``objective(image) -> {"content": ..., "style": ..., "tv": ...}``."""

    def __init__(self, backbone: nn.Module, terms: Sequence[Term]) -> None:
        self.backbone = backbone
        self.terms = [term for term in terms if term.weight != 0]
        if not self.terms:
            raise OptionError("all weights are 0: there is nothing left to minimise")
        self.layers = {term.layer for term in self.terms}

    def __call__(self, image: Tensor) -> dict[str, Tensor]:
        """Return each name's weighted loss for `image`, (B, 3, H, W) in [0, 1]; their sum is minimised."""
        deep = self.layers - {"image"}
        features = self.backbone(image, deep) if deep else {}
        features["image"] = image
        found: dict[str, Tensor] = {}
        for term in self.terms:
            value = term.weight * term.loss(features[term.layer])
            found[term.name] = found[term.name] + value if term.name in found else value
        return found
