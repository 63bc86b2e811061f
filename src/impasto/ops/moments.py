"""Moments of features: the one place where anything is summed over height and width."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from impasto.ops.cpu_kernels import HALF, is_free, round_scale, scale_channels

NARROW = 64
LEAST_VARIANCE, LEAST_COVARIANCE = 0.05, 0.02
"""Least variance, and norm of the covariance, as shares of the mean square, for features that hardly vary. All but one
of 40 paintings and photos have more in each layer of vgg19-slim."""
BLOCK, CHUNK = 1 << 16, 1 << 10
"""Positions that are read at once, and positions whose products are summed in float32, by `sum_precisely`."""

COLUMNS, ROWS = 256, 4096
"""Elements side by side in which channels-last maps are summed, and rows of them that are summed in float32."""


@dataclass(frozen=True)
class Moments:
    """Count, sum and sum of products of the features of one or more pictures.

    count: number of positions, a float; total: (B, C); products: (B, C, C), or (B, C) for the diagonal alone. Moments
    of tiles, frames and pictures combine by ``+``, weighted by ``*``.
    """

    count: float
    total: Tensor
    products: Tensor

    def __add__(self, other: Moments) -> Moments:
        return Moments(self.count + other.count, self.total + other.total, self.products + other.products)

    def __mul__(self, weight: float) -> Moments:
        return Moments(self.count * weight, self.total * weight, self.products * weight)

    __rmul__ = __mul__

    def sample(self, index: int) -> Moments:
        """Return the moments of one sample of the batch, as a batch of one."""
        return Moments(self.count, self.total[index : index + 1], self.products[index : index + 1])

    @property
    def mean(self) -> Tensor:
        """Channel means, (B, C)."""
        return self.total / self.count

    @property
    def second(self) -> Tensor:
        """Raw second moments: mean products, (B, C, C) or (B, C)."""
        return self.products / self.count

    @property
    def full(self) -> bool:
        """Whether all products are there, not only the diagonal."""
        return self.products.dim() == 3

    @property
    def variance(self) -> Tensor:
        """Biased channel variances, (B, C), at least 0."""
        second = torch.diagonal(self.second, dim1=1, dim2=2) if self.full else self.second
        return (second - self.mean.square()).clamp_min(0)

    def deviation(self, eps: float = 1e-5) -> Tensor:
        """Return channel standard deviations, (B, C): the root of variance + eps, so that the gradient stays finite."""
        return (self.variance + eps).sqrt()

    @property
    def covariance(self) -> Tensor:
        """Biased channel covariance, (B, C, C). Needs full products."""
        return self.second - self.mean.unsqueeze(2) * self.mean.unsqueeze(1)

    @property
    def power(self) -> Tensor:
        """Mean square of the features, summed over channels, (B,)."""
        return (torch.diagonal(self.second, dim1=1, dim2=2) if self.full else self.second).sum(1)

    @property
    def spread(self) -> Tensor:
        """Variance, summed over channels, (B,), at least a share of `power`, so that it can be a divisor."""
        return torch.maximum(self.variance.sum(1), LEAST_VARIANCE * self.power).clamp_min(1e-12)

    @property
    def spread_of_products(self) -> Tensor:
        """Sum of squares of the covariance, (B,), at least a share of `power` squared; needs full products."""
        squares = self.covariance.square().sum((1, 2))
        return torch.maximum(squares, (LEAST_COVARIANCE * self.power).square()).clamp_min(1e-12)

    @property
    def gram(self) -> Tensor:
        """The Gram matrix without any divisor, (B, C, C): F F^T over all positions."""
        return self.products


def moments(features: Tensor, *, full: bool = True, mask: Tensor | None = None) -> Moments:
    """Sum features over all positions.

    features: (B, C, H, W); mask: (1, 1, H, W) weights in [0, 1], or None for all ones. Per sample, never across
    the batch. Half-precision features are summed in float32.
    """
    if torch.compiler.is_exporting():  # sizes may be unknown then, so the count must stay a tensor
        flat = features.flatten(2)
        count: Any = torch.ones_like(flat[0, 0]).sum()
        return Moments(count, flat.sum(2), flat @ flat.transpose(1, 2) if full else flat.square().sum(2))
    with torch.autocast(features.device.type, enabled=False):
        if mask is None and not full:
            total, squares = _Sums.apply(features)
            return Moments(float(features.shape[2] * features.shape[3]), total, squares)
        return _sum(precise(features), full, mask)


def precise(x: Tensor) -> Tensor:
    """Return `x`, in float32 if it is in half precision."""
    return x.float() if x.dtype in HALF else x


class _Sums(torch.autograd.Function):
    """Sums of features and of their squares, both (B, C), in a third of the time that autograd needs."""

    @staticmethod
    def forward(ctx: Any, features: Tensor) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(features)
        values = precise(features)
        if features.shape[1] <= NARROW:  # matrix products are faster here than squares per channel
            flat = values.flatten(2)
            ones = flat.new_ones(flat.shape[2], 1)
            return (flat @ ones)[..., 0], (flat @ flat.transpose(1, 2)).diagonal(dim1=1, dim2=2)
        return values.sum((2, 3)), values.square().sum((2, 3))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (features,) = ctx.saved_tensors
        by_total, by_squares = (gradient[:, :, None, None].to(features.dtype) for gradient in gradients)
        return torch.addcmul(by_total, features, 2 * by_squares)


class _Products(torch.autograd.Function):
    """Sums of features, (B, C), and of all their products, (B, C, C); their gradient is one product of matrices.

    weights: (1, 1, H, W), or None for all ones.
    """

    @staticmethod
    def forward(ctx: Any, features: Tensor, weights: Tensor | None) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(features, weights)
        flat = features.flatten(2)
        weighted = flat if weights is None else flat * weights.flatten(2)
        return weighted.sum(2), weighted @ flat.transpose(1, 2)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        features, weights = ctx.saved_tensors
        by_total, by_products = gradients
        both = by_products + by_products.transpose(1, 2)
        if features.is_contiguous(memory_format=torch.channels_last):
            rows = features.permute(0, 2, 3, 1)
            found = torch.baddbmm(by_total.unsqueeze(1), rows.flatten(1, 2), both).view(rows.shape).permute(0, 3, 1, 2)
        else:
            found = torch.baddbmm(by_total.unsqueeze(2), both, features.flatten(2)).view(features.shape)
        return found if weights is None else found * weights, None


def _sum(features: Tensor, full: bool, mask: Tensor | None) -> Moments:
    weights = None if mask is None else mask.to(features)
    count = float(features.shape[2] * features.shape[3]) if weights is None else max(float(weights[0].sum()), 1e-6)
    if full:
        return Moments(count, *_Products.apply(features, weights))
    weighted = features if weights is None else features * weights
    return Moments(count, weighted.sum((2, 3)), (weighted * features).sum((2, 3)))


def sum_precisely(features: Tensor, *, full: bool = True, mask: Tensor | None = None) -> Moments:
    """Sum like `moments`, but in float64 (float32 on Apple's GPUs), so that the order hardly matters.

    So tiles give the same result as one piece, even if the inverse of a covariance amplifies rounding errors. No
    gradients.
    """
    with torch.no_grad(), torch.autocast(features.device.type, enabled=False):
        quickly = sum_channels(features) if mask is None and not full else None
        if quickly is not None:
            return Moments(float(features.shape[2] * features.shape[3]), *quickly)
        flat = features.flatten(2)  # (B, C, N)
        weights = None if mask is None else mask.to(features.device).flatten(2)
        blocks = torch.split(flat, BLOCK, 2)
        shares = [None] * len(blocks) if weights is None else torch.split(weights, BLOCK, 2)
        count = float(flat.shape[2]) if weights is None else float(weights.cpu().double().sum())
        sums = [_sum_block(block, share, full) for block, share in zip(blocks, shares, strict=True)]
        total, products = (torch.stack(parts).sum(0) for parts in zip(*sums, strict=True))
        return Moments(max(count, 1e-6), total, products)


def _sum_block(flat: Tensor, weights: Tensor | None, full: bool) -> tuple[Tensor, Tensor]:
    """Sum (B, C, N), each chunk in float32, the chunks in float64."""
    wide = torch.float32 if flat.device.type == "mps" else torch.float64
    flat = flat.float() if flat.dtype in HALF else flat
    weighted = flat if weights is None else flat * weights.to(flat.dtype)
    even = max(1, flat.shape[2] // CHUNK) * CHUNK
    batch, channels = flat.shape[:2]
    total = torch.zeros(batch, channels, dtype=wide, device=flat.device)
    products = torch.zeros(batch, channels, *([channels] if full else []), dtype=wide, device=flat.device)
    for part, counted in zip(flat.tensor_split([even], 2), weighted.tensor_split([even], 2), strict=True):
        if not part.shape[2]:
            continue
        size = min(CHUNK, part.shape[2])
        own, other = (
            torch.unflatten(x, 2, (-1, size)).transpose(1, 2) for x in (part, counted)
        )  # (B, chunks, C, size)
        total = total + other.sum(3).to(wide).sum(1)
        if full or channels <= NARROW:
            found = (other @ own.transpose(2, 3)).to(wide).sum(1)
            found = found if full else found.diagonal(dim1=1, dim2=2)
        else:
            found = (other * own).sum(3).to(wide).sum(1)
        products = products + found
    return total, products


def channel_stats(features: Tensor, eps: float = 1e-5) -> tuple[Tensor, Tensor]:
    """Return mean and deviation of every channel, each (B, C, 1, 1), computed on centred features."""
    values = precise(features)
    mean = values.mean((2, 3), keepdim=True)
    variance = (values - mean).square().mean((2, 3), keepdim=True)
    return mean.to(features.dtype), (variance + eps).sqrt().to(features.dtype)


def normalize(features: Tensor, eps: float = 1e-5) -> Tensor:
    """Return features with mean 0 and deviation 1 in every channel of every sample, (B, C, H, W)."""
    values = precise(features)
    mean, deviation = channel_stats(values, eps)
    return ((values - mean) / deviation).to(features.dtype)


def adaptive_instance_norm(
    content: Tensor,
    mean: Tensor,
    deviation: Tensor,
    own: Moments | None = None,
    *,
    relu: bool = False,
    plus: Tensor | None = None,
) -> Tensor:
    """Give content features a style's channel means and deviations (Huang & Belongie 2017, sec. 5).

    content: (B, C, H, W); mean, deviation: (1 or B, C), of the style's features; own: the content's moments, if they
    are not those of all of `content`; relu: apply a ReLU; plus: added after it. Returns (B, C, H, W).

    Departs from the paper: nothing.
    """
    own = own or moments(content, full=False)
    own_mean, own_deviation = own.mean, own.deviation()
    scale = round_scale(deviation / own_deviation, content)
    return scale_channels(content, scale, mean - own_mean * scale, relu=relu, plus=plus)


def fit_mask(mask: Tensor | None, features: Tensor) -> Tensor | None:
    """Return `mask`, (1, 1, H, W), averaged down to the features' height and width; None stays None."""
    if mask is None or mask.shape[-2:] == features.shape[-2:]:
        return mask
    return F.interpolate(mask, features.shape[-2:], mode="area")


def sum_channels(x: Tensor) -> tuple[Tensor, Tensor] | None:
    """Return the sums of every channel of (1, C, H, W) and of its squares, both (1, C), float64; None if not supported.

    Reads as many positions as fill `COLUMNS` side by side, each `ROWS` rows in float32 around their own means.
    """
    channels = x.shape[1]
    last = channels == 1 or x.stride(1) == 1  # a slice of a channels-last map is not channels-last itself
    if not (last and len(x) == 1 and x.numel() and x.dtype in (torch.float32, torch.bfloat16) and is_free(x)):
        return None
    together = max(1, COLUMNS // channels)
    positions = x.permute(0, 2, 3, 1).reshape(-1, channels)
    even = len(positions) // together * together
    parts = [(rows, together) for rows in torch.split(positions[:even].reshape(-1, together * channels), ROWS)]
    parts += [(positions[even:], 1)]
    total = torch.stack([_sum_rows(rows, width) for rows, width in parts if len(rows)]).sum(0)
    return total[:1], total[1:]


def _sum_rows(rows: Tensor, width: int) -> Tensor:
    """Sum (N, width x C) and its squares over all but the channels, (2, C), float64."""
    unused = torch.zeros(rows.shape[1])  # float32, so that the result is, too
    found = torch.stack(torch.batch_norm_update_stats(rows, unused, unused, 0.0)).double()
    mean, variance = found
    variance.addcmul_(mean, mean)
    return len(rows) * found.view(2, width, -1).sum(1)
