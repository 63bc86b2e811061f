"""The total variations in circulation once more, pixel by pixel, in float64 numpy; images are (3, H, W)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def steps(image: Floats, down: int, right: int) -> Floats:
    """Each pixel's neighbour `down` and `right` of it minus the pixel, where there is such a neighbour."""
    channels, height, width = image.shape
    found = []
    for c in range(channels):
        for y in range(height):
            for x in range(width):
                if 0 <= y + down < height and 0 <= x + right < width:
                    found.append(image[c, y + down, x + right] - image[c, y, x])
    return np.array(found)


def total_variation(image: Floats, form: str) -> float:
    """The variation of `image` as its source writes it."""
    vertical, horizontal = steps(image, 1, 0), steps(image, 0, 1)
    if form == "l1-mean":
        return float(0.5 * (np.abs(vertical).mean() + np.abs(horizontal).mean()))
    if form == "l1-sum":
        return float(np.abs(vertical).sum() + np.abs(horizontal).sum())
    if form == "l2-mean":
        return float(((vertical**2).sum() + (horizontal**2).sum()) / image.size)
    if form == "nine-point":
        return _nine_point(np.pad(image, ((0, 0), (1, 1), (1, 1)), mode="edge"))
    assert form == "power"
    return _power(image)


def _nine_point(padded: Floats) -> float:
    """Over windows of 2x2 of the padded image: 2 (dx^2 / 3 + dy^2 / 3 + both diagonals^2 / 12), each a mean."""
    channels, height, width = padded.shape
    total, count = 0.0, 0
    for c in range(channels):
        for y in range(1, height):
            for x in range(1, width):
                here, left, above, corner = (
                    padded[c, y, x],
                    padded[c, y, x - 1],
                    padded[c, y - 1, x],
                    padded[c, y - 1, x - 1],
                )
                straight = (here - left) ** 2 / 3 + (here - above) ** 2 / 3
                total += 2 * (straight + (here - corner) ** 2 / 12 + (left - above) ** 2 / 12)
                count += 1
    return total / count


def _power(image: Floats) -> float:
    """Sum of (dx^2 + dy^2)^1.25 over pixels that have both neighbours."""
    channels, height, width = image.shape
    total = 0.0
    for c in range(channels):
        for y in range(height - 1):
            for x in range(width - 1):
                here = image[c, y, x]
                total += ((image[c, y + 1, x] - here) ** 2 + (image[c, y, x + 1] - here) ** 2) ** 1.25
    return total
