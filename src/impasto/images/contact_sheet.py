"""Labelled contact sheets: rows and columns of pictures on white."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from impasto.errors import ImageError
from impasto.images.tensors import fit, resize

_MARK = "\N{HORIZONTAL ELLIPSIS}"


@dataclass(frozen=True)
class _Layout:
    """Positions of the cells, in pixels: the corner of the first one, their size, the gap after each."""

    top: int
    left: int
    cell: int
    gap: int

    def corner(self, row: int, column: int) -> tuple[int, int]:
        """Return the upper left corner of a cell: y, x."""
        return self.top + row * (self.cell + self.gap), self.left + column * (self.cell + self.gap)


def contact_sheet(
    rows: Sequence[Sequence[Tensor | None]],
    *,
    row_labels: Sequence[str] = (),
    column_labels: Sequence[str] = (),
    cell: int = 256,
    gap: int = 8,
) -> Tensor:
    """Lay pictures out in labelled rows and columns on white.

    rows: pictures (1, 3, H, W) or (3, H, W) in [0, 1] of any size, None for an empty cell; they may differ in length.
    Each picture is fitted into its square cell, centred, its proportions kept. Column labels stand above, row labels to
    the left, wrapped, and shortened where too long. Returns (1, 3, H, W) float32 on the CPU.
    Raises ImageError if there is no cell, or if there are more labels than rows or columns.
    """
    columns = max((len(row) for row in rows), default=0)
    if columns == 0:
        raise ImageError("a contact sheet needs at least one picture")
    if len(row_labels) > len(rows) or len(column_labels) > columns:
        raise ImageError(f"a contact sheet of {len(rows)} rows and {columns} columns can't take more labels than that")
    if cell < 16 or gap < 0:
        raise ImageError(
            f"a contact sheet's cells must be at least 16 pixels and its gap at least 0, not {cell}, {gap}"
        )
    font = ImageFont.load_default(size=max(10, cell // 14))
    if not isinstance(font, ImageFont.FreeTypeFont):
        raise ImageError("a contact sheet needs a Pillow that was built with FreeType; install its official wheel")
    sides = [_wrap(label, font, cell * 3 // 4, max(1, cell // _line_height(font))) for label in row_labels]
    heads = [_wrap(label, font, cell, 2) for label in column_labels]
    top = gap + max((len(lines) * _line_height(font) + gap for lines in heads if lines), default=0)
    left = gap + max((ceil(font.getlength(line)) + gap for lines in sides for line in lines), default=0)
    layout = _Layout(top, left, cell, gap)
    sheet = _draw_labels(layout.corner(len(rows), columns), layout, sides, heads, font)
    for row, pictures in enumerate(rows):
        for column, picture in enumerate(pictures):
            if picture is not None:
                _place(sheet, picture, layout.corner(row, column), cell)
    return sheet


def _place(sheet: Tensor, picture: Tensor, corner: tuple[int, int], cell: int) -> None:
    """Fit a picture into the cell at a corner of the sheet, in place."""
    image = picture.detach().to("cpu", torch.float32)
    image = image[None] if image.dim() == 3 else image
    if image.dim() != 4 or image.shape[:2] != (1, 3) or image.numel() == 0:
        raise ImageError(f"a contact sheet takes pictures of shape 1x3xHxW, not {'x'.join(map(str, picture.shape))}")
    height, width = fit(image.shape[2], image.shape[3], cell, enlarge=True)
    y, x = corner[0] + (cell - height) // 2, corner[1] + (cell - width) // 2
    sheet[:, :, y : y + height, x : x + width] = resize(image, height, width).clamp(0, 1)


def _draw_labels(
    size: tuple[int, int],
    layout: _Layout,
    sides: list[list[str]],
    heads: list[list[str]],
    font: ImageFont.FreeTypeFont,
) -> Tensor:
    """Return a white sheet of a size (height, width) with its labels, (1, 3, height, width)."""
    canvas = Image.new("L", size[::-1], 255)
    draw = ImageDraw.Draw(canvas)
    step = _line_height(font)
    for row, lines in enumerate(sides):
        y, x = layout.corner(row, 0)
        y += (layout.cell - step * len(lines)) // 2
        for number, line in enumerate(lines):
            draw.text((x - layout.gap, y + step * number), line, fill=0, font=font, anchor="ra")
    for column, lines in enumerate(heads):
        y, x = layout.corner(0, column)
        y -= layout.gap + step * len(lines)
        for number, line in enumerate(lines):
            draw.text((x + layout.cell // 2, y + step * number), line, fill=0, font=font, anchor="ma")
    grey = torch.from_numpy(np.array(canvas, dtype=np.float32) / 255)
    return grey.expand(1, 3, -1, -1).clone()


def _line_height(font: ImageFont.FreeTypeFont) -> int:
    return sum(font.getmetrics())


def _wrap(label: str, font: ImageFont.FreeTypeFont, width: int, count: int) -> list[str]:
    """Break a label between words into at most `count` lines of at most `width` pixels; the rest is cut."""
    words, lines = label.split(), list[str]()
    while words and len(lines) < count:
        taken = 1
        while taken < len(words) and font.getlength(" ".join(words[: taken + 1])) <= width:
            taken += 1
        line = words if len(lines) == count - 1 else words[:taken]
        lines.append(_shorten(" ".join(line), font, width))
        words = words[taken:]
    return lines


def _shorten(text: str, font: ImageFont.FreeTypeFont, width: int) -> str:
    """Cut a line's end off until it fits, and mark the cut."""
    if font.getlength(text) <= width:
        return text
    kept = bisect_right(range(len(text)), width, key=lambda end: ceil(font.getlength(text[:end].rstrip() + _MARK)))
    return text[: max(0, kept - 1)].rstrip() + _MARK


HEAT = ((0.02, 0.02, 0.12), (0.35, 0.06, 0.45), (0.80, 0.22, 0.33), (0.98, 0.62, 0.20), (1.0, 0.98, 0.80))
"""The colours of a heat map from its smallest to its largest value, from dark to light."""

HEAT_SIDE = 512


def heat_map(values: Tensor, *, least: float | None = None, most: float | None = None) -> Tensor:
    """Return a matrix as a picture, (1, 3, H, W), dark where small: cells of whole pixels, about 512 px a side.

    values: (rows, columns); least, most: the values at the ends of the scale, by default the smallest and the largest.
    """
    table = values.detach().to("cpu", torch.float32)
    low = float(table.min()) if least is None else least
    high = float(table.max()) if most is None else most
    level = ((table - low) / max(high - low, 1e-12)).clamp(0, 1) * (len(HEAT) - 1)
    colours = torch.tensor(HEAT)
    below = level.floor().long().clamp(max=len(HEAT) - 2)
    share = (level - below)[..., None]
    picture = (colours[below] * (1 - share) + colours[below + 1] * share).permute(2, 0, 1)[None]  # (1, 3, R, C)
    cell = max(1, round(HEAT_SIDE / max(table.shape)))
    return picture.repeat_interleave(cell, 2).repeat_interleave(cell, 3)
