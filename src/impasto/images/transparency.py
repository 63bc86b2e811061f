"""Transparency: hidden parts never affect a picture's colours, also when it is resized.

A file has colours under full transparency, too: black, white, or what an editor left there. They are replaced by the
mirror image of visible parts, so that files that look the same are the same picture to every method.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from impasto.errors import ImageError

Floats = NDArray[np.float32]
Indices = NDArray[np.intp]

MOST_CELLS = 1 << 18
FAR = 1 << 14
FAINT = 0.25
"""Paintings: colours below this alpha have less weight."""
UNSURE = 0.05
"""Below this resized alpha, its quotient with the premultiplied colour is not precise."""


def fill_hidden(color: NDArray[Any], alpha: Floats) -> NDArray[Any]:
    """Return the colours with those under full transparency replaced by the mirrored visible ones.

    color: (H, W, 3) uint8 or float32; alpha: (H, W) in [0, 1]. A picture that is all transparent becomes grey.
    """
    if alpha.min() > 0:
        return color
    if alpha.max() <= 0:
        return np.full_like(color, 128 if color.dtype == np.uint8 else 0.5)
    side = max(1, math.ceil(math.sqrt(alpha.size / MOST_CELLS)))
    means, solid = _cells(color, alpha, side)
    rows, columns = _mirrored(solid)
    filled = color.copy()
    height, width = alpha.shape
    x = np.arange(width)
    for y in range(height):  # row by row: index maps of the whole picture would take more memory than the picture
        hidden = np.flatnonzero(alpha[y] <= 0)
        if not len(hidden):
            continue
        cells = y // side, x[hidden] // side
        from_row, from_column = rows[cells], columns[cells]
        at = (
            np.minimum(from_row * side + y % side, height - 1),
            np.minimum(from_column * side + hidden % side, width - 1),
        )
        seen = (alpha[at] > 0)[:, None]
        filled[y, hidden] = np.where(seen, color[at], means[from_row, from_column])
    return filled


def _cells(color: NDArray[Any], alpha: Floats, side: int) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Return the mean visible colour of each cell of side x side pixels, and which cells are good to copy from."""
    least = 0.5 * min(1.0, float(alpha.max()))
    if side == 1:
        return color, alpha >= least
    height, width = alpha.shape
    tops, lefts = np.arange(0, height, side), np.arange(0, width, side)
    means = np.empty((len(tops), len(lefts), 3), color.dtype)
    lowest, highest = np.empty((2, len(tops), len(lefts)), np.float32)
    for row, top in enumerate(tops):
        cover = alpha[top : top + side]
        weighted = np.add.reduceat((color[top : top + side] * cover[..., None]).sum(0), lefts)
        total = np.add.reduceat(cover.sum(0), lefts)
        means[row] = (weighted / np.maximum(total, 1e-9)[:, None]).astype(color.dtype)
        lowest[row], highest[row] = np.minimum.reduceat(cover.min(0), lefts), np.maximum.reduceat(cover.max(0), lefts)
    solid = lowest >= least
    return means, solid if solid.any() else highest >= least


def _mirrored(solid: NDArray[np.bool_]) -> tuple[Indices, Indices]:
    """Return for each cell the row and column of the solid cell that it copies.

    It is the cell itself, or its mirror image in the nearest solid one, or the nearest one.
    """
    rows, columns = _nearest(solid)
    height, width = solid.shape
    y, x = np.indices(solid.shape)
    across_y, across_x = 2 * rows - y, 2 * columns - x
    inside = (across_y >= 0) & (across_y < height) & (across_x >= 0) & (across_x < width)
    mirror = inside & solid[across_y.clip(0, height - 1), across_x.clip(0, width - 1)]
    return np.where(mirror, across_y, rows), np.where(mirror, across_x, columns)


def _nearest(solid: NDArray[np.bool_]) -> tuple[Indices, Indices]:
    """Return the row and column of the nearest solid cell of each cell.

    Along each row first; then along the columns by jump flooding (Rong and Tan 2006).
    """
    height, width = solid.shape
    x = np.arange(width)
    left = np.maximum.accumulate(np.where(solid, x, -FAR), axis=1)
    right = np.minimum.accumulate(np.where(solid, x, width + FAR)[:, ::-1], axis=1)[:, ::-1]
    near = np.where(x - left <= right - x, left, right)
    gap = np.square(near - x)
    y = np.arange(height)[:, None]
    best = np.broadcast_to(y, solid.shape).copy()
    cost = gap.copy()
    jumps = [1 << power for power in reversed(range(max(1, (height - 1).bit_length())))]
    for jump in (*jumps, 1):
        for step in (-jump, jump):
            candidate = best[(y + step).clip(0, height - 1)[:, 0]]
            other = np.square(y - candidate) + np.take_along_axis(gap, candidate, 0)
            closer = other < cost
            best, cost = np.where(closer, candidate, best), np.where(closer, other, cost)
    return best, np.take_along_axis(near, best, 0).clip(0, width - 1)


def resize_covered(color: Tensor, alpha: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Resize colours weighted by their alpha, and the alpha; antialiased bicubic.

    color: (1, 3, H, W) as `fill_hidden` gave it; alpha: (1, 1, H, W); both in [0, 1].
    """
    if color.shape[-2:] == (height, width):
        return color, alpha

    def scaled(image: Tensor) -> Tensor:
        return functional.interpolate(image, (height, width), mode="bicubic", antialias=True)

    cover = scaled(alpha)  # not clamped yet, because the product overshoots, too
    quotient = scaled(color * alpha) / cover.clamp_min(1e-3)
    sure = (cover / UNSURE).clamp(0, 1)
    return torch.lerp(scaled(color), quotient, sure).clamp(0, 1), cover.clamp(0, 1)


def visible_part(color: Tensor, alpha: Tensor, name: str) -> Tensor:
    """Return the colours of a painting's visible part, cropped to it.

    color: (1, 3, H, W); alpha: (1, 1, H, W); transparent parts within it take the mirrored visible colours,
    faint ones partly. Raises ImageError if nothing is visible.
    """
    rows, columns = (torch.nonzero(alpha[0, 0].amax(axis) > 0).flatten() for axis in (1, 0))
    if not len(rows):
        raise ImageError(f"{name} is all transparent: nothing of it can be seen; give a picture that shows something")
    window = (..., slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1))
    color, alpha = color[window], alpha[window]
    share = (alpha / FAINT).clamp(max=1)
    if bool(((share == 1) | (share == 0)).all()):
        return color.contiguous()
    strong = (alpha[0, 0] * (alpha[0, 0] >= FAINT * float(alpha.max()))).numpy()
    filled = fill_hidden(np.ascontiguousarray(color[0].permute(1, 2, 0).numpy()), strong)
    return torch.lerp(torch.from_numpy(filled).permute(2, 0, 1)[None], color, share).contiguous()
