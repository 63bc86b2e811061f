"""Scaling by Lanczos' filter in 8 bits, as the protocol does it: unlike bicubic, it keeps fine detail.

It stands here beside Pillow's filter because it takes tensors, and because the published measurements were made with
it: Pillow's fixed-point weights round about one value in ten thousand to the next level.
"""

from __future__ import annotations

import torch
from torch import Tensor

LOBES = 3


def resize_lanczos(image: Tensor, height: int, width: int) -> Tensor:
    """Scale 8-bit pictures, (B, C, H, W) in [0, 1], to (B, C, height, width), first along rows, then along columns.

    Each pass ends in 8-bit levels, as in Pillow. A picture that has this size already is returned unchanged.
    """
    if image.shape[-2:] == (height, width):
        return image
    levels = _round(image.double() * 255)
    levels = _round(levels @ _weights(image.shape[-1], width).to(levels).T)
    levels = _round(_weights(image.shape[-2], height).to(levels) @ levels)
    return (levels / 255).to(image.dtype)


def _round(levels: Tensor) -> Tensor:
    return (levels + 0.5).floor().clamp(0, 255)


def _weights(before: int, after: int) -> Tensor:
    """Return the matrix, (after, before), that scales a line of pixels; when shrinking, the filter is wider."""
    step = before / after
    stretch = max(step, 1.0)
    centres = (torch.arange(after, dtype=torch.float64) + 0.5) * step  # in units of the old pixels, from their edge
    pixels = torch.arange(before, dtype=torch.float64) + 0.5
    distance = (pixels - centres[:, None]) / stretch
    weights = torch.sinc(distance) * torch.sinc(distance / LOBES) * (distance.abs() < LOBES)
    return weights / weights.sum(1, keepdim=True)
