"""The measures of stylized pictures once more, naively, in float64 numpy. Features are one picture's, (C, H, W)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def style_loss(found: list[Floats], wanted: list[Floats]) -> float:
    """Squared differences of each channel's mean and sample deviation, averaged over channels, then over layers."""
    layers = []
    for a, b in zip(found, wanted, strict=True):
        channels = [
            (x.mean() - y.mean()) ** 2 + (x.std(ddof=1) - y.std(ddof=1)) ** 2 for x, y in zip(a, b, strict=True)
        ]
        layers.append(sum(channels) / len(channels))
    return float(sum(layers) / len(layers))


def content_loss(found: Floats, wanted: Floats) -> float:
    """Mean squared difference, every channel less its mean and over its sample deviation + 1e-5."""
    total = 0.0
    for x, y in zip(found, wanted, strict=True):
        gap = (x - x.mean()) / (x.std(ddof=1) + 1e-5) - (y - y.mean()) / (y.std(ddof=1) + 1e-5)
        total += float((gap**2).sum())
    return total / found.size


def ssim(a: Floats, b: Floats) -> float:
    """Of grey levels, (H, W), window by window."""
    height, width = a.shape
    found = []
    for top in range(height - 6):
        for left in range(width - 6):
            x, y = (levels[top : top + 7, left : left + 7].ravel() for levels in (a, b))
            (xx, xy), (_, yy) = np.cov(x, y)
            closeness = (2 * x.mean() * y.mean() + 2.55**2) * (2 * xy + 7.65**2)
            found.append(closeness / ((x.mean() ** 2 + y.mean() ** 2 + 2.55**2) * (xx + yy + 7.65**2)))
    return float(np.mean(found))


def structure_distance(found: Floats, wanted: Floats) -> float:
    """Kullback-Leibler divergence of the rows' softmax of similarities, the wanted ones first, added up."""
    channels = found.shape[0]
    vectors = [features.reshape(channels, -1).T / channels for features in (found, wanted)]
    tables = [np.exp(v @ v.T) / np.exp(v @ v.T).sum(1, keepdims=True) for v in vectors]
    return float((tables[1] * np.log(tables[1] / tables[0])).sum())


def lpips(found: list[Floats], wanted: list[Floats], weights: list[Floats]) -> float:
    """Features of five layers: channel vectors of length 1, weighed squared differences, averaged over positions."""
    total = 0.0
    for a, b, w in zip(found, wanted, weights, strict=True):
        _, height, width = a.shape
        for y in range(height):
            for x in range(width):
                p, q = a[:, y, x], b[:, y, x]
                gap = p / np.sqrt((p**2).sum()) - q / np.sqrt((q**2).sum())
                total += float((w * gap**2).sum()) / (height * width)
    return total
