"""Pictures in memory: checks of tensors, sizes, and canvases that are read and written by windows."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from impasto.errors import ImageError, OptionError

LEAST_SIDE = 16
LEAST_PAINTING = 32
"""Smaller paintings are extended by mirroring, so that deep layers see more than one position."""


def is_finite(image: Tensor) -> bool:
    """Return whether `image` holds neither NaN nor infinity; a finite sum proves it faster."""
    return math.isfinite(float(image.sum())) or all(map(math.isfinite, map(float, torch.aminmax(image))))


def check_image(image: Tensor, role: str) -> None:
    """Raise OptionError unless `image` is a finite float (1, 3, H, W)."""
    if image.dim() != 4 or image.shape[1] != 3 or image.shape[0] != 1 or not image.is_floating_point():
        raise OptionError(
            f"the {role} is a float tensor (1, 3, H, W) in [0, 1], not {tuple(image.shape)} {image.dtype}"
        )
    if not is_finite(image):
        raise OptionError(f"the {role} holds NaN or infinity")


def check_mask(mask: Tensor) -> None:
    """Raise OptionError unless `mask` is a float (1, 1, H, W) in [0, 1]."""
    if mask.dim() != 4 or mask.shape[:2] != (1, 1) or not mask.is_floating_point():
        raise OptionError(f"a mask is a float tensor (1, 1, H, W) in [0, 1], not {tuple(mask.shape)} {mask.dtype}")
    if not -1e-3 <= float(mask.min()) <= float(mask.max()) <= 1.001:  # allows for rounding
        raise OptionError("a mask holds values outside [0, 1]")


def check_sides(height: int, width: int) -> None:
    """Raise ImageError if a side is less than 1."""
    if height < 1 or width < 1:
        raise ImageError(f"a picture can't be resized to {width}x{height}: both sides must be at least 1")


def resize(image: Tensor, height: int, width: int) -> Tensor:
    """Resize (B, C, H, W) in [0, 1] to (B, C, height, width) by antialiased bicubic; unchanged at the same size."""
    check_sides(height, width)
    if image.shape[-2:] == (height, width):
        return image
    return functional.interpolate(image, (height, width), mode="bicubic", antialias=True).clamp(0, 1)


def mirror_to(image: Tensor, height: int, width: int) -> Tensor:
    """Extend `image`, (B, C, H, W), by mirror images to the right and below to at least `height` x `width`.

    The picture itself is the upper left part, and its statistics stay about the same. Larger pictures are unchanged.
    """
    for axis, least in ((2, height), (3, width)):
        side = image.shape[axis]
        if side < least:
            place = torch.arange(least, device=image.device) % (2 * side)
            image = image.index_select(axis, torch.minimum(place, 2 * side - 1 - place))
    return image


def median8(image: Tensor) -> Tensor:
    """Return an 8x8 median filter over every channel of (1, C, H, W), edges repeated."""
    padded = functional.pad(image, (4, 3, 4, 3), mode="replicate")
    return padded.unfold(2, 8, 1).unfold(3, 8, 1).flatten(4).median(dim=4).values


def fit(height: int, width: int, longer: int, *, enlarge: bool = False) -> tuple[int, int]:
    """Return (height, width) in the same proportions with the longer side `longer`; larger only if enlarge is set."""
    if longer < 1:
        raise ImageError(f"the longer side must be at least 1, not {longer}")
    before = max(height, width)
    if before <= longer and not enlarge:
        return height, width
    return max(1, round(height * longer / before)), max(1, round(width * longer / before))


# --- windows and canvases


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
