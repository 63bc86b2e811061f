"""Distances between pictures: style loss, content loss, SSIM, and the distance of content structures."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from impasto.errors import ImageError
from impasto.ops.moments import channel_stats, moments
from impasto.optimize.losses import SIMILARITY_WINDOW, similarity_map

STYLE_LAYERS = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")
CONTENT_LAYER = "relu4_1"
STRUCTURE_LAYER = "relu3_1"
EPS = 1e-5
LUMA = (19595, 38470, 7471)
"""ITU-R 601's weights of red, green and blue in units of 1 / 65536, as in JPEG and Pillow."""

Statistics = Mapping[str, tuple[Tensor, Tensor]]


class LossNetwork(Protocol):
    """Any frozen network with named layers, a name and a digest."""

    @property
    def name(self) -> str:
        """Its name, for the report."""

    @property
    def digest(self) -> str:
        """SHA-256 of its weights."""

    def __call__(self, image: Tensor, layers: Iterable[str]) -> dict[str, Tensor]:
        """Return features of `image`, (1, 3, H, W) in [0, 1], at `layers`."""


def describe_style(features: Mapping[str, Tensor]) -> dict[str, tuple[Tensor, Tensor]]:
    """Return each channel's mean and unbiased deviation, (B, C, 1, 1) each, at each of `STYLE_LAYERS`."""
    return {layer: _mean_and_deviation(features[layer]) for layer in STYLE_LAYERS}


def style_loss(found: Statistics, wanted: Statistics) -> float:
    """Return the MSE of means plus that of deviations, averaged over the layers (Huang & Belongie 2017)."""
    gaps = [
        F.mse_loss(mean, wanted[layer][0]) + F.mse_loss(deviation, wanted[layer][1])
        for layer, (mean, deviation) in found.items()
    ]
    return float(torch.stack(gaps).mean())


def content_loss(found: Tensor, wanted: Tensor) -> float:
    """Return the MSE of features, (B, C, H, W), each channel normalised to mean 0 and deviation 1."""
    return float(F.mse_loss(_normalized(found), _normalized(wanted)))


def ssim(found: Tensor, wanted: Tensor) -> float:
    """Return the structural similarity (Wang et al. 2004) of two pictures, (1, 3, H, W) in [0, 1], in 8-bit grey.

    Every 7x7 window has the same weight, with the sample's covariance, as in scikit-image's defaults. Raises ImageError
    if the sizes differ or a side is shorter than the window.
    """
    if found.shape != wanted.shape or min(found.shape[-2:]) < SIMILARITY_WINDOW:
        raise ImageError(f"SSIM needs two pictures of the same size, at least {SIMILARITY_WINDOW} px a side")
    similarity = similarity_map(grey(found), grey(wanted), 255)
    return float(moments(similarity, full=False).mean)


def grey(image: Tensor) -> Tensor:
    """Return 8-bit grey levels, (B, 1, H, W) in float64, of (B, 3, H, W) in [0, 1]; rounded like Pillow's mode L."""
    levels = image.cpu().clamp(0, 1).mul(255).round().long()
    red, green, blue = (weight * levels[:, i : i + 1] for i, weight in enumerate(LUMA))
    return ((red + green + blue + 2**15) >> 16).double()


def structure_distance(found: Tensor, wanted: Tensor, rows: int = 512) -> float:
    """Return CFSD, the content feature structural distance (Chung et al. 2024, "Style injection in diffusion").

    found, wanted: the stylized picture's and the photo's features, (1, C, H, W), published with torchvision's VGG-19 at
    relu3_1. Each position's similarities to all positions become a distribution; the divergences of the photo's from
    the picture's are added up. rows: positions at a time, so that memory grows with H W, not with its square.
    """
    if found.shape != wanted.shape:
        raise ImageError("CFSD needs two pictures of the same size")
    x, y = (features[0].flatten(1) / features.shape[1] for features in (found, wanted))  # (C, N)
    total = 0.0
    for start in range(0, x.shape[1], rows):
        part = slice(start, start + rows)
        total += _divergence(y[:, part].T @ y, x[:, part].T @ x)
    return total


def _divergence(p: Tensor, q: Tensor) -> float:
    """Return the Kullback-Leibler divergence of the softmax of `q` from that of `p`, logits (R, N), summed over rows.

    Subtracting p - q, whose sum is 0, from every term makes all terms at least 0: otherwise rounding would lose rows
    that are nearly flat and nearly equal, as those of pictures are.
    """
    norm_p, norm_q = (torch.logsumexp(logits, dim=1, keepdim=True) for logits in (p, q))
    gap = p - q - (norm_p - norm_q)  # log p / q
    near = gap.abs() < 1
    share = (p - norm_p).exp()
    terms = share * torch.where(near, gap + torch.expm1(-gap.clamp(-1, 1)), gap - 1)
    terms += torch.where(near, 0.0, (q - norm_q).exp())
    return float(terms.clamp_min(0).sum())


def _mean_and_deviation(features: Tensor) -> tuple[Tensor, Tensor]:
    count = math.prod(features.shape[-2:])
    if count < 2:
        raise ImageError("the pictures are too small for the loss network: measure at a larger --size, at least 32x32")
    mean, deviation = channel_stats(features, eps=0)
    return mean, deviation * math.sqrt(count / (count - 1))


def _normalized(features: Tensor) -> Tensor:
    mean, deviation = _mean_and_deviation(features)
    return (features - mean) / (deviation + EPS)
