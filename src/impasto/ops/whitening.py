"""Whitening and colouring: affine maps that change the mean and covariance of features."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from impasto.ops.cpu_kernels import mix_channels
from impasto.ops.matrix_roots import roots, symmetric_root
from impasto.ops.moments import Moments, moments

Transform = Literal["zca", "transport"]


def transport(content: Moments, style: Moments, kind: Transform, floor: float = 1e-5) -> Tensor:
    """Return the matrix A, (C, C), float64, of the map ``x -> A (x - mean) + mean of style`` between two Gaussians.

    It changes the covariance from that of `content` to that of `style`. Directions in which the content has less than
    `floor` of its largest variance are left out, because whitening would amplify their noise (the paper drops
    eigenvalues below 1e-5).

    ``zca``: A = S^1/2 C^-1/2 (the paper). ``transport``: A = C^-1/2 (C^1/2 S C^1/2)^1/2 C^-1/2, which moves the
    features least and so keeps more of the content (Lu et al. 2019, "A closed-form solution").
    """
    values, vectors = torch.linalg.eigh(content.covariance[0].double())
    values = values.clamp_min(0)
    kept = values > floor * values.max().clamp_min(1e-12)
    root = (vectors * values.sqrt()) @ vectors.T
    inverse = (vectors * torch.where(kept, values.clamp_min(1e-12).rsqrt(), 0)) @ vectors.T
    wanted = style.covariance[0].double()
    middle = symmetric_root(wanted) if kind == "zca" else inverse @ symmetric_root(root @ wanted @ root)
    matrix: Tensor = middle @ inverse
    return matrix


def transport_by_products(content: Tensor, style: Tensor) -> Tensor:
    """Return the matrix of the optimal transport, as `transport` does, but by matrix products alone, for ONNX.

    content, style: covariances, (B, C, C), float32; returns (B, C, C). Directions in which the content has less than
    about 1/2000 of the mean variance are damped, not left out.
    """
    root, inverse = roots(content, 5e-4, 20)
    kept = content @ inverse @ inverse
    middle = roots(root @ style @ root, 1e-5, 18)[0]  # more steps would amplify rounding errors
    return kept.mT @ inverse @ middle @ inverse @ kept


def centred(features: Tensor) -> tuple[Tensor, Tensor]:
    """Return means, (B, C, 1, 1), and covariances, (B, C, C), of (B, C, H, W), centred first for float32's sake."""
    mean = moments(features, full=False).mean[:, :, None, None]
    return mean, moments(features - mean).second


def colour(
    features: Tensor, style: Moments, kind: Transform, strength: float = 1.0, own: Moments | None = None
) -> Tensor:
    """Give `features`, (B, C, H, W), the style's mean and covariance; `strength` blends with the original.

    style: of one picture for all, or one per sample; own: the moments to whiten by, if they are not those of all of
    `features`. Gradients run through the features, their means and their deviations, not through the transform's other
    numbers.
    """
    if strength == 0:
        return features
    if features.requires_grad:
        features = hold_scale(features)
    return apply(affine(own or moments(features.detach()), style, kind, strength), features)


def hold_scale(features: Tensor) -> Tensor:
    """Return the features, (B, C, H, W), with a gradient that treats their channel means and deviations as constants.

    So the gradient takes into account that a shift or scale of a channel has no effect after whitening.
    """
    own = moments(features, full=False)
    mean, deviation = own.mean[:, :, None, None], own.deviation()[:, :, None, None]
    scale, shift = deviation.detach() / deviation, mean.detach()
    return ((features - mean) * scale + shift).to(features.dtype)


Affine = list[tuple[Tensor, Tensor, Tensor]]
"""For every sample of a batch: matrix (C, C), mean to subtract, (C,), and mean to add afterwards."""


def affine(content: Moments, style: Moments, kind: Transform, strength: float = 1.0) -> Affine:
    """Return the map of `transport` for each sample, blended by `strength` with the identity."""
    found = []
    for i in range(len(content.total)):
        own, wanted = content.sample(i), style.sample(i if len(style.total) > 1 else 0)
        matrix = transport(own, wanted, kind)
        eye = torch.eye(len(matrix), device=matrix.device, dtype=matrix.dtype)
        mean = own.mean[0].to(matrix)
        found.append((torch.lerp(eye, matrix, strength), mean, torch.lerp(mean, wanted.mean[0].to(matrix), strength)))
    return found


def apply(maps: Affine, features: Tensor) -> Tensor:
    """Apply each sample's map at every position of `features`, (B, C, H, W)."""
    moved = [mix_channels(features[i : i + 1], *parts) for i, parts in enumerate(maps)]
    return moved[0] if len(moved) == 1 else torch.cat(moved)
