"""Whether a picture has enough detail for half precision.

Instance norm, whitening and attention amplify small differences. In a flat, faded or smooth picture these are as small
as bfloat16's rounding errors, and the result would be noise. Such pictures are rare and quick to detect.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from impasto.images.windows import Canvas, Window

LEAST_STEP, LEAST_DEVIATION = 0.01, 0.02
"""Differences of neighbouring pixels (root mean square), deviation of all pixels. Below these, bfloat16 is 17 to 45 dB
from float32; above, at least 36 dB, usually 50 (nine methods, pictures of 8 bits a channel)."""

GRID, PATCH = 4, 64
"""Number of patches a side that are checked, and their side in pixels."""


def has_fine_detail(content: Canvas, masks: Sequence[Tensor] = ()) -> bool:
    """Return whether bfloat16 resolves the picture well enough to paint it as float32 does.

    masks: (1, 1, H, W) in [0, 1], regions that are measured separately: each must have detail. Checks 16 patches,
    evenly spread, in less than a millisecond for any size.
    """
    patches = list(_patches(*content.size))
    parts = [content.read(patch).float() for patch in patches]
    if not masks:
        return _is_detailed(parts, [torch.ones_like(part[:, :1]) for part in parts])
    shares = ([mask[..., p.top : p.bottom, p.left : p.right].float() for p in patches] for mask in masks)
    return all(_is_detailed(parts, [share.to(parts[0].device) for share in region]) for region in shares)


def _patches(height: int, width: int) -> list[Window]:
    def starts(side: int) -> list[int]:
        if side <= GRID * PATCH:
            return list(range(0, side, PATCH))
        return [round(number * (side - PATCH) / (GRID - 1)) for number in range(GRID)]

    return [
        Window(top, left, min(top + PATCH, height), min(left + PATCH, width))
        for top in starts(height)
        for left in starts(width)
    ]


def _is_detailed(parts: Sequence[Tensor], shares: Sequence[Tensor]) -> bool:
    """Apply the thresholds over all `parts`, (1, 3, h, w), weighted by `shares`, (1, 1, h, w)."""
    steps = torch.zeros(2, device=parts[0].device)  # sums of squared differences, and of their weights
    sums = torch.zeros(3, device=parts[0].device)  # of weights, values and squares
    for part, share in zip(parts, shares, strict=True):
        for axis in (2, 3):
            weight = share.narrow(axis, 1, share.shape[axis] - 1)
            change = part.diff(dim=axis).square().mean(1, keepdim=True)
            steps += torch.stack([(weight * change).sum(), weight.sum()])
        sums += torch.stack([share.sum(), (share * (part - 0.5)).sum() / 3, (share * (part - 0.5).square()).sum() / 3])
    step = steps[0] / steps[1].clamp_min(1)
    count = sums[0].clamp_min(1)
    deviation = sums[2] / count - (sums[1] / count).square()
    return bool((step >= LEAST_STEP**2) & (deviation >= LEAST_DEVIATION**2))
