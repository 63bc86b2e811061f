"""Pictures in memory that are read and written window by window, as bytes or as floats."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


@dataclass(frozen=True)
class Window:
    """A part of a picture: rows from top to bottom, columns from left to right, ends excluded."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def height(self) -> int:
        """Rows."""
        return self.bottom - self.top

    @property
    def width(self) -> int:
        """Columns."""
        return self.right - self.left

    def grown(self, by: int, align: int, height: int, width: int) -> Window:
        """Return the window with at least `by` more pixels on all sides, within height x width.

        Top and left stay multiples of `align`; so do bottom and right, except at the picture's edge, because maps with
        even sides are faster.
        """
        top, left = (side // align * align for side in (self.top - by, self.left - by))
        bottom, right = (-(-side // align) * align for side in (self.bottom + by, self.right + by))
        return Window(max(0, top), max(0, left), min(height, bottom), min(width, right))

    def at(self, stride: int, height: int, width: int) -> tuple[slice, slice]:
        """Return its rows and columns in a map with this stride, in a picture of height x width."""
        bottom = height // stride if self.bottom == height else self.bottom // stride
        right = width // stride if self.right == width else self.right // stride
        return slice(self.top // stride, bottom), slice(self.left // stride, right)

    def inside(self, outer: Window) -> Window:
        """Return the same part, counted from the upper left corner of `outer`."""
        return Window(self.top - outer.top, self.left - outer.left, self.bottom - outer.top, self.right - outer.left)


def windows(height: int, width: int, tile: int, align: int) -> Iterator[Window]:
    """Yield windows of about equal size, at most `tile` (rounded up to `align`) a side, that cover height x width."""

    def edges(side: int) -> list[int]:
        most = max(align, -(-tile // align) * align)
        count = -(-side // most)
        step = -(-side // (count * align)) * align
        return [*range(0, side, step), side]

    rows, columns = edges(height), edges(width)
    for top, bottom in itertools.pairwise(rows):
        for left, right in itertools.pairwise(columns):
            yield Window(top, left, bottom, right)


class Canvas(Protocol):
    """A picture that is read and written by windows."""

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""

    def read(self, window: Window) -> Tensor:
        """Return (1, 3, h, w) float32 in [0, 1]."""

    def write(self, window: Window, image: Tensor) -> None:
        """Write (1, 3, h, w)."""


class Floats:
    """A tensor (B, 3, H, W) as a canvas."""

    def __init__(self, image: Tensor) -> None:
        self.image = image

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.image.shape[-2], self.image.shape[-1]

    def read(self, window: Window) -> Tensor:
        """Return a view."""
        return self.image[..., window.top : window.bottom, window.left : window.right]

    def write(self, window: Window, image: Tensor) -> None:
        """Copy."""
        self.read(window).copy_(image)


class NewFloats(Floats):
    """A new tensor, shaped like another one, as a canvas; it is allocated when the first part is written.

    A picture that is written at once is kept without a copy.
    """

    def __init__(self, like: Tensor, device: torch.device) -> None:
        super().__init__(like.new_empty(0))
        self.shape, self.dtype, self.device = like.shape, like.dtype, device

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.shape[-2], self.shape[-1]

    def write(self, window: Window, image: Tensor) -> None:
        """Copy a part; keep a whole picture without a copy."""
        if (window.height, window.width) == self.size:
            self.image = image
            return
        if self.image.shape != self.shape:
            self.image = torch.empty(self.shape, dtype=self.dtype, device=self.device)
        super().write(window, image)


class Bytes:
    """A picture with one byte a channel, (H, W, 3) uint8: a quarter of a tensor's memory.

    finish: called with each written part and its window, before rounding.
    """

    def __init__(self, pixels: Tensor, finish: Callable[[Tensor, Window], Tensor] | None = None) -> None:
        self.pixels = pixels
        self.finish = finish

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.pixels.shape[0], self.pixels.shape[1]

    def read(self, window: Window) -> Tensor:
        """Return the window as float32 in [0, 1]."""
        part = self.pixels[window.top : window.bottom, window.left : window.right]
        return part.permute(2, 0, 1)[None].to(torch.float32).div_(255)

    def write(self, window: Window, image: Tensor) -> None:
        """Clip to [0, 1], round and copy."""
        image = image.detach().to("cpu", torch.float32)
        if self.finish is not None:
            image = self.finish(image, window)
        levels = image[0].clamp(0, 1).mul(255).round_().to(torch.uint8)
        self.pixels[window.top : window.bottom, window.left : window.right] = levels.permute(1, 2, 0)
