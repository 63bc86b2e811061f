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


def side_by_side(height: int, width: int, most: int) -> tuple[Tensor, Tensor]:
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


def follow(
    queries: Tensor,
    index: Tensor,
    keys: Tensor,
    around: Around,
    around_keys: Tensor,
    slack: float,
    handicap: Tensor | None = None,
    corner: tuple[int, int] = (0, 0),
) -> Tensor:
    """Return, for each place of the picture, a place among all of `around`, (h, w), that fits those beside it.

    A place follows one of the four anchors around it if what lies there in the painting is at most `slack` less similar
    than its own choice. queries: (h, w, D); index: (h, w), their own choices among the candidates; keys: (M, D) and
    around_keys: (N, D), directions of the candidates and of all; handicap: (M,), as in the choice; corner: position of
    this part in the whole picture, in places, so that a part gets what the whole picture has there.
    """
    own = around.rows[index]
    best = _alike(queries, around_keys, own)
    down, across = (_anchors(extent, first) for extent, first in zip(index.shape, corner, strict=True))
    chosen = _draw(queries[down][:, across], index[down][:, across], keys, around, handicap, down, across, corner)
    owner = around.owner[chosen]
    local, width = chosen - around.starts[owner], around.widths[owner]
    placed = local < around.heights[owner] * width
    rows = torch.where(placed, local // width.clamp_min(1), -(1 << 30)) - down[:, None]
    columns = local % width.clamp_min(1) - across
    found, alike = own, best - slack
    for near_row in _nearest_two(index.shape[0], down):
        for near_column in _nearest_two(index.shape[1], across):
            at = near_row[:, None], near_column[None]
            y = torch.arange(index.shape[0], device=index.device)[:, None] + rows[at]
            x = torch.arange(index.shape[1], device=index.device) + columns[at]
            theirs = owner[at]
            inside = (y >= 0) & (y < around.heights[theirs]) & (x >= 0) & (x < around.widths[theirs])
            inside &= around.owner[own] == theirs
            there = torch.where(inside, around.starts[theirs] + y * around.widths[theirs] + x, own)
            similar = torch.where(inside, _alike(queries, around_keys, there), -torch.inf)
            better = similar >= alike
            found, alike = torch.where(better, there, found), torch.where(better, similar, alike)
    return found


def _anchors(extent: int, first: int) -> Tensor:
    """Return the anchors within `extent` places that begin at the place `first` of the whole picture."""
    begin = (BLOCK // 2 - first) % BLOCK
    return torch.arange(begin, extent, BLOCK) if begin < extent else torch.tensor([extent // 2])


def _nearest_two(extent: int, anchors: Tensor) -> tuple[Tensor, Tensor]:
    """Return the numbers of the anchors before and behind each of `extent` places."""
    before = torch.div(torch.arange(extent) - anchors[0], BLOCK, rounding_mode="floor")
    return before.clamp(0, len(anchors) - 1), (before + 1).clamp(0, len(anchors) - 1)


def _draw(
    queries: Tensor,
    index: Tensor,
    keys: Tensor,
    around: Around,
    handicap: Tensor | None,
    down: Tensor,
    across: Tensor,
    corner: tuple[int, int],
) -> Tensor:
    """Return for each anchor, (a, b), one of the most similar places of its choice's painting: not always the best."""
    rows, columns = (at + first for at, first in zip((down, across), corner, strict=True))
    number = (rows[:, None] // BLOCK * 31 + columns // BLOCK * 17) % DRAWS
    owner = around.owner[around.rows]
    before = torch.bincount(owner, minlength=len(around.starts)).cumsum(0).roll(1)
    before[0] = 0
    place = torch.arange(len(keys), device=keys.device) - before[owner]  # the same for any order of the paintings
    noise = torch.rand(DRAWS, len(keys), generator=torch.Generator().manual_seed(0)).to(keys)
    similar = queries.flatten(0, 1) @ keys.T + JITTER * noise[number.flatten().to(keys.device)][:, place]
    if handicap is not None:
        similar = similar - handicap
    foreign = owner[index.flatten()][:, None] != owner
    return around.rows[similar.masked_fill(foreign, -torch.inf).argmax(1)].view(index.shape)


def _alike(queries: Tensor, keys: Tensor, index: Tensor) -> Tensor:
    """Return the similarity of each of `queries`, (h, w, D), to the one of `keys`, (N, D), of that number, (h, w)."""
    step = max(1, CHUNK // max(1, queries[0].numel()))
    parts = zip(torch.split(queries, step), torch.split(index, step), strict=True)
    return torch.cat([(own * keys[which]).sum(2) for own, which in parts])
