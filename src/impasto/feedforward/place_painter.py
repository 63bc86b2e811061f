"""A network that paints what a painting's places look like, and the sizes of the pictures that it paints in turn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from impasto.feedforward.stages import StageInput
from impasto.images.color import grey_detail
from impasto.images.tensors import Canvas, Window, resize
from impasto.networks.hypercolumns import STRIDE
from impasto.networks.layers import Conv

MOST_OCTAVES, LEAST_COARSE, LARGE = 3, 48, 2048
"""Most sizes before a picture's own, shortest side of these, and the longest side of pictures whose half is one."""


class PlacePainter(nn.Module):
    """Paints a picture from one place of a painting, and the photo's shapes, for every 4 x 4 pixels of it.

    columns: channels of the places' hypercolumns; shapes: channels of the photo's features; width: channels at a
    quarter of the picture's size, half of them at half, a quarter at the full size; blocks: number of residual blocks
    at the quarter.

    Departs from the paper: there is no published network; it also sees the photo's features and the picture of the
    coarser size.
    """

    middle: Tensor
    spread: Tensor

    def __init__(self, columns: int, shapes: int, width: int = 64, blocks: int = 3) -> None:
        super().__init__()
        self.columns, self.shapes, self.width, self.blocks = columns, shapes, width, blocks
        self.register_buffer("middle", torch.zeros(columns))
        self.register_buffer("spread", torch.ones(columns))
        half, full = width // 2, width // 4
        self.read = nn.Conv2d(columns + 3 + shapes + 3 * STRIDE**2, width, 1)
        pairs = [(Conv(width, width), Conv(width, width)) for _ in range(blocks)]
        self.rows = nn.ModuleList(nn.Sequential(first, nn.ReLU(), second) for first, second in pairs)
        self.up = nn.ModuleList([Conv(width, half), Conv(half, half), Conv(half, full), Conv(full, full)])
        self.last = Conv(full, 3)
        with torch.no_grad():
            for _, second in pairs:
                second.weight.mul_(0.3)
            self.last.weight.mul_(0.1)

    @property
    def shape(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {"columns": self.columns, "shapes": self.shapes, "width": self.width, "blocks": self.blocks}

    def path(self) -> list[nn.Module]:
        """Return the layers from the columns to the picture, in the order in which they run."""
        first, second, third, fourth = self.up
        double = nn.Upsample(scale_factor=2.0)
        smooth = [nn.AvgPool2d(2), double, nn.Conv2d(1, 3, 3, padding=1, device="meta")]
        return [self.read, *self.rows, double, first, second, double, third, fourth, self.last, *smooth]

    def forward(self, columns: Tensor, colors: Tensor, shapes: Tensor, before: Tensor, size: Sequence[int]) -> Tensor:
        """Return the picture, (B, 3, *size), not clamped.

        columns: (B, C, h, w), of the painting's places; colors: (B, 3, h, w), theirs; shapes: (B, S, h, w), the
        photo's features, normalised; before: (B, 3, *size), the picture so far; h, w: `size` / 4, rounded down.
        """
        seen = (columns - self.middle[:, None, None]) / self.spread[:, None, None]
        small = before[..., : STRIDE * columns.shape[-2], : STRIDE * columns.shape[-1]]
        x = F.relu(self.read(_joined([seen, colors - 0.5, shapes, F.pixel_unshuffle(small - 0.5, STRIDE)])))
        for row in self.rows:
            first, _, second = cast(nn.Sequential, row)
            x = x + second(first(x, relu=True))
        for first, second in zip(self.up[::2], self.up[1::2], strict=True):
            x = second(first(x, relu=True, doubled=True), relu=True)
        base = F.interpolate(colors, scale_factor=float(STRIDE), mode="bilinear", align_corners=False)
        painted = grey_detail(base + self.last(x))
        below, right = size[0] - painted.shape[-2], size[1] - painted.shape[-1]
        return F.pad(painted, (0, right, 0, below), mode="replicate") if below or right else painted


def _joined(maps: Sequence[Tensor]) -> Tensor:
    """Join maps, each (B, C, h, w), by channels: channels-last and in the precision of convolutions, which is quick."""
    device = maps[0].device.type
    kind = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else maps[0].dtype
    return torch.cat([own.permute(0, 2, 3, 1).to(kind) for own in maps], 3).permute(0, 3, 1, 2)


def coarser_sizes(height: int, width: int) -> list[tuple[int, int]]:
    """Return the sizes that are painted before height x width, from its half down: each half the one before."""
    share = LARGE / 2 / max(height, width) if max(height, width) > LARGE else 0.5
    found: list[tuple[int, int]] = []
    while len(found) < MOST_OCTAVES and min(height, width) * share >= LEAST_COARSE:
        height, width, share = round(height * share), round(width * share), 0.5
        found.append((height, width))
    return found


def reduced(content: Canvas, height: int, width: int) -> Tensor:
    """Return `content` at this smaller size, (1, 3, height, width); a large one is read in strips."""
    rows, columns = content.size
    share = min(rows // height, columns // width) if max(rows, columns) > LARGE else 1
    if share <= 1:
        return resize(content.read(Window(0, 0, rows, columns)).float(), height, width)
    strip = share * max(1, LARGE // share)
    tops = range(0, rows - share + 1, strip)
    read = (content.read(Window(top, 0, min(top + strip, rows), columns)).float() for top in tops)
    return resize(torch.cat([F.avg_pool2d(part, share) for part in read], 2), height, width)


def enlarged(coarse: Tensor, size: tuple[int, int], work: StageInput) -> Tensor:
    """Return `coarse`, (1, 3, h, w), enlarged to the whole picture's `size`, where `work` is; bicubic."""
    starts = (work.top, work.height, size[0]), (work.left, work.width, size[1])
    rows, columns = ((2 * (first + torch.arange(extent)) + 1) / whole - 1 for first, extent, whole in starts)
    grid = torch.stack(torch.meshgrid(columns, rows, indexing="xy"), 2)[None].to(coarse)
    return F.grid_sample(coarse, grid, "bicubic", "border", align_corners=False).clamp(0, 1)
