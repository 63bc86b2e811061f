"""The temporal loss once more, pixel by pixel, in float64 numpy; images are (3, H, W), masks (H, W)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def temporal_loss(image: Floats, moved: Floats, mask: Floats) -> float:
    """Sum over pixels and channels of c (x - w)^2, over how many there are."""
    channels, height, width = image.shape
    total = 0.0
    for c in range(channels):
        for y in range(height):
            for x in range(width):
                total += mask[y, x] * (image[c, y, x] - moved[c, y, x]) ** 2
    return total / (channels * height * width)
