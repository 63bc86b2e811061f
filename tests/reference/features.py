"""Sums over features and the losses built on them once more, naively, in float64 numpy.

Features here are one picture's, (C, H, W); the batch, where there is one, is the caller's loop.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def positions(features: Floats) -> list[Floats]:
    """The channel vector of each position."""
    channels, height, width = features.shape
    return [features[:, y, x].reshape(channels) for y in range(height) for x in range(width)]


def gram(features: Floats, mask: Floats | None = None) -> Floats:
    """Sum over positions of each channel times each channel; mask (H, W) weighs the positions."""
    channels, height, width = features.shape
    out = np.zeros((channels, channels))
    for a in range(channels):
        for b in range(channels):
            for y in range(height):
                for x in range(width):
                    out[a, b] += features[a, y, x] * features[b, y, x] * (1.0 if mask is None else mask[y, x])
    return out


def mean(features: Floats) -> Floats:
    """Each channel's mean over the picture."""
    vectors = positions(features)
    return sum(vectors[1:], vectors[0]) / len(vectors)


def covariance(features: Floats) -> Floats:
    """Biased covariance of the channels: the mean product of what is left of the mean."""
    middle = mean(features)
    vectors = [vector - middle for vector in positions(features)]
    return sum((np.outer(v, v) for v in vectors[1:]), np.outer(vectors[0], vectors[0])) / len(vectors)


def deviation(features: Floats, eps: float) -> Floats:
    """Root of each channel's biased variance + eps."""
    return np.array([np.sqrt(covariance(features)[c, c] + eps) for c in range(len(features))])


def content_loss(found: Floats, wanted: Floats, form: str) -> float:
    """Squared distance of features: the paper's half sum, the mean, or the mean over the target's unbiased variance."""
    squares = (found - wanted) ** 2
    if form == "half-sum":
        return float(0.5 * squares.sum())
    if form == "mean":
        return float(squares.mean())
    assert form == "relative"
    return float(squares.mean() / wanted.var(ddof=1))


def gram_loss(found: Floats, wanted: Floats, form: str) -> float:
    """One layer's style loss of two pictures with as many positions, as each source writes it."""
    channels, count = found.shape[0], found.shape[1] * found.shape[2]
    assert wanted.shape[1] * wanted.shape[2] == count, "the sources compare pictures of one size"
    g, a = gram(found), gram(wanted)
    if form == "gatys":
        return float(((g - a) ** 2).sum() / (4 * channels**2 * count**2))
    if form == "leongatys":
        return float(((g / count - a / count) ** 2).mean() * 1e3 / channels**2)
    if form == "neural-style":
        size = channels * count
        return float(((g / size - a / size) ** 2).mean())
    if form == "magenta":
        return float(((g / count - a / count) ** 2).mean())
    if form == "mailcorahul":
        return float(((g - a) ** 2).mean())
    assert form == "relative"
    return float(((g - a) ** 2).sum() / (a**2).sum())


def moment_loss(found: Floats, wanted: Floats, eps: float, *, relative: bool = False) -> float:
    """Mean squared difference of means plus that of deviations; relative to the target's mean variance."""
    error = ((mean(found) - mean(wanted)) ** 2).mean()
    error += ((deviation(found, eps) - deviation(wanted, eps)) ** 2).mean()
    return float(error / np.diag(covariance(wanted)).mean() if relative else error)


def covariance_loss(found: Floats, wanted: Floats) -> float:
    """Squared distance of means over the target's whole variance, plus that of covariances over the target's square."""
    means = ((mean(found) - mean(wanted)) ** 2).sum() / np.trace(covariance(wanted))
    spread = ((covariance(found) - covariance(wanted)) ** 2).sum() / (covariance(wanted) ** 2).sum()
    return float(means + spread)


def matrix_root(matrix: Floats) -> Floats:
    """The symmetric root of a symmetric positive matrix, by its eigenvalues."""
    values, vectors = np.linalg.eigh(matrix)
    return (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T


def wasserstein_loss(found: Floats, wanted: Floats, eps: float) -> float:
    """Mean squared difference of means plus the channels' mean of diag(S* + S - 2 (S*^1/2 S S*^1/2)^1/2)."""
    eye = eps * np.eye(len(found))
    s, target = covariance(found) + eye, covariance(wanted) + eye
    root = matrix_root(target)
    cross = matrix_root(root @ s @ root)
    means = ((mean(found) - mean(wanted)) ** 2).mean()
    return float(means + np.mean(np.diag(target) + np.diag(s) - 2 * np.diag(cross)))
