"""Choices that hang together: neighbours in the picture get neighbours in the painting, so that strokes stay whole.

Where a photo is flat, any of many places is as similar as the best one. Chosen one by one, they make an even grain;
taken as they lie side by side in the painting, they make its strokes (Ashikhmin 2001, "Synthesizing natural textures").
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from impasto.optimize.nearest import CHUNK

KEPT, WINDOW = 16_384, 32
"""Number of a painting's places that are kept side by side at each size, in windows of this side if it has more."""
BLOCK, JITTER, DRAWS = 16, 0.1, 64
"""Distance of anchors, in places; by how much one may be less similar than another and be drawn; number of draws."""


@dataclass(frozen=True)
class Around:
    """All places of K paintings as they lie side by side, of which the candidates are a part.

    columns: (N, C); colors: (N, 3); rows: (M,), the candidates' numbers among them; owner: (N,); starts, heights,
    widths: (K,), where each painting's grid begins and its sides; places behind a grid have no neighbours.
    """

    columns: Tensor
    colors: Tensor
    rows: Tensor
    owner: Tensor
    starts: Tensor
    heights: Tensor
    widths: Tensor


def side_by_side(height: int, width: int, *, most: int) -> tuple[Tensor, Tensor]:
    """Return the rows and columns of a map of this size to keep: all, or those of evenly spread square windows.

    Their products are at most `most` or, if that is more, one window.
    """
    if height * width <= most:
        return torch.arange(height), torch.arange(width)
    windows = max(1, most // WINDOW**2)
    down = min(max(1, round((windows * height / width) ** 0.5)), windows, -(-height // WINDOW))
    across = min(max(1, windows // down), -(-width // WINDOW))
    return _runs(height, down), _runs(width, across)


def _runs(extent: int, count: int) -> Tensor:
    """Return the members of `count` evenly spread runs of at most `WINDOW` numbers below `extent`."""
    length = min(WINDOW, extent)
    starts = torch.linspace(0, extent - length, count).round().long() if count > 1 else torch.tensor([0])
    members = {int(start) + number for start in starts for number in range(length)}
    return torch.tensor(sorted(members))


@dataclass(frozen=True)
class Anchors:
    """Places of the picture whose choices others follow, and what they chose among all of `Around`.

    rows: (a,); columns: (b,), in places of the whole picture; chosen: (a, b), -1: nothing to follow.
    """

    rows: Tensor
    columns: Tensor
    chosen: Tensor


def anchor_grid(height: int, width: int) -> tuple[Tensor, Tensor]:
    """Return the rows and columns of the anchors in a map of this size."""
    rows, columns = (
        torch.arange(BLOCK // 2, extent, BLOCK) if extent > BLOCK // 2 else torch.tensor([extent // 2])
        for extent in (height, width)
    )
    return rows, columns


def draw_anchors(
    queries: Tensor, index: Tensor, keys: Tensor, around: Around, size: tuple[int, int], handicap: Tensor | None = None
) -> Anchors:
    """Return what the anchors take: one of the most similar places of their choice's painting, from each part once.

    So no part of the painting is seen again and again; an anchor for which only other parts are left takes nothing.
    queries: (a, b, D), at the anchors of a picture of `size` places; index: (a, b), their own choices among the
    candidates; keys: (M, D), directions of the candidates; handicap: (M,), as in the choice.
    """
    rows, columns = (at.to(keys.device) for at in anchor_grid(*size))
    number = (rows[:, None] // BLOCK * 31 + columns // BLOCK * 17) % DRAWS
    owner = around.owner[around.rows]
    before = torch.bincount(owner, minlength=len(around.starts)).cumsum(0).roll(1)
    before[0] = 0
    place = torch.arange(len(keys), device=keys.device) - before[owner]  # the same for any order of the paintings
    noise = torch.rand(DRAWS, len(keys), generator=torch.Generator().manual_seed(0)).to(keys)
    part = _part_of(around)
    taken = torch.zeros(int(part.max()) + 1, dtype=torch.bool, device=keys.device)
    chosen = torch.full_like(index, -1)
    for line, query in enumerate(queries):
        likeness = query @ keys.T + JITTER * noise[number[line]][:, place]
        if handicap is not None:
            likeness = likeness - handicap
        likeness = likeness.masked_fill(owner[index[line]][:, None] != owner, -torch.inf)
        for column, similar in enumerate(likeness):
            best = int(similar.masked_fill(taken[part], -torch.inf).argmax())
            if not taken[part[best]] and similar[best] >= similar.max() - JITTER:
                chosen[line, column] = around.rows[best]
                taken[part[best]] = True
    return Anchors(rows, columns, chosen)


def _part_of(around: Around) -> Tensor:
    """Return the number of the part of its painting, `BLOCK` places square, in which each candidate lies, (M,)."""
    owner = around.owner[around.rows]
    local, width = around.rows - around.starts[owner], around.widths[owner].clamp_min(1)
    across = -(-around.widths.max() // BLOCK)
    down = -(-around.heights.max() // BLOCK)
    inside = torch.minimum(local // width // BLOCK, down)
    return (owner * (down + 1) + inside) * across + local % width // BLOCK


def follow(
    queries: Tensor,
    index: Tensor,
    anchors: Anchors,
    around: Around,
    around_keys: Tensor,
    slack: float,
    corner: tuple[int, int] = (0, 0),
) -> Tensor:
    """Return, for each place of the picture, a place among all of `around`, (h, w), that fits those beside it.

    A place follows one of the four anchors around it if what lies there in the painting is at most `slack` less similar
    than its own choice. queries: (h, w, D); index: (h, w), their own choices among the candidates; around_keys: (N, D),
    directions of all places; corner: position of this part in the whole picture, in places.
    """
    device = queries.device
    own = around.rows[index]
    chosen = anchors.chosen.clamp_min(0)
    owner = around.owner[chosen]
    local, width = chosen - around.starts[owner], around.widths[owner].clamp_min(1)
    placed = (anchors.chosen >= 0) & (local < around.heights[owner] * around.widths[owner])
    down = torch.where(placed, local // width, -(1 << 30)) - anchors.rows[:, None]
    across = local % width - anchors.columns
    y, x = (torch.arange(extent, device=device) + first for extent, first in zip(index.shape, corner, strict=True))
    found, alike = own, _alike(queries, around_keys, own) - slack
    for near_row in _nearest_two(y, anchors.rows):
        for near_column in _nearest_two(x, anchors.columns):
            at = near_row[:, None], near_column[None]
            theirs, row, column = owner[at], y[:, None] + down[at], x + across[at]
            inside = (row >= 0) & (row < around.heights[theirs]) & (column >= 0) & (column < around.widths[theirs])
            inside &= around.owner[own] == theirs
            there = torch.where(inside, around.starts[theirs] + row * around.widths[theirs] + column, own)
            similar = torch.where(inside, _alike(queries, around_keys, there), -torch.inf)
            better = similar >= alike
            found, alike = torch.where(better, there, found), torch.where(better, similar, alike)
    return found


def _nearest_two(places: Tensor, anchors: Tensor) -> tuple[Tensor, Tensor]:
    """Return the numbers of the anchors before and behind each of `places`."""
    before = torch.div(places - anchors[0], BLOCK, rounding_mode="floor")
    return before.clamp(0, len(anchors) - 1), (before + 1).clamp(0, len(anchors) - 1)


def _alike(queries: Tensor, keys: Tensor, index: Tensor) -> Tensor:
    """Return the similarity of each of `queries`, (h, w, D), to the one of `keys`, (N, D), of that number, (h, w)."""
    step = max(1, CHUNK // max(1, queries[0].numel()))
    parts = zip(torch.split(queries, step), torch.split(index, step), strict=True)
    return torch.cat([(own * keys[which]).sum(2) for own, which in parts])
