"""Pictures and masks as tensors: checks before any work, sizes."""

from __future__ import annotations

import math
import re

import torch
from torch import Tensor
from torch.nn import functional

from impasto.errors import ImageError, OptionError

MAX_PIXELS = 200_000_000
MINIMUM_SIDE = 16
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


def parse_size(text: str) -> int | tuple[int, int]:
    """Parse "512", the longer side, or "512x384", WIDTHxHEIGHT.

    Returns the longer side, or (height, width) as resize takes them. Raises ImageError for anything else and for sides
    under 16.
    """
    match = re.fullmatch(r"([0-9]{1,6})(?:[xX×]([0-9]{1,6}))?", text.strip())
    if match is None:
        raise ImageError(f"size {text!r} is not understood; write 512 for the longer side or 512x384 for WIDTHxHEIGHT")
    sides = [int(side) for side in match.groups() if side is not None]
    if min(sides) < MINIMUM_SIDE:
        raise ImageError(f"size {text!r} is too small; each side must be at least {MINIMUM_SIDE}")
    return sides[0] if len(sides) == 1 else (sides[1], sides[0])
