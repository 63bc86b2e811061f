"""Laplacian pyramids: a picture as the sum of bands, each half the size of the one before, and as the parameter."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from impasto.images.color import grey_detail, luma
from impasto.optimize.descent import ImageParameter

LEVELS = 8
LEAST_SIDE = 4


def shrink(image: Tensor) -> Tensor:
    """Map (B, C, H, W) to (B, C, H / 2, W / 2), rounded down, bilinear."""
    height, width = image.shape[-2:]
    return F.interpolate(image, (max(1, height // 2), max(1, width // 2)), mode="bilinear", align_corners=False)


def enlarge(image: Tensor, height: int, width: int) -> Tensor:
    """Map (B, C, H, W) to (B, C, height, width), bilinear."""
    if image.shape[-2:] == (height, width):
        return image
    return F.interpolate(image, (height, width), mode="bilinear", align_corners=False)


def analyse(image: Tensor, levels: int = LEVELS) -> list[Tensor]:
    """Return the bands of `image`, (B, C, H, W), finest first; the last one is the rest of the picture.

    levels: most bands; the smallest has no side below 4 px. `synthesise` is the inverse.
    """
    bands: list[Tensor] = []
    rest = image
    while len(bands) < levels - 1 and min(rest.shape[-2:]) >= 2 * LEAST_SIDE:
        small = shrink(rest)
        bands.append(rest - enlarge(small, *rest.shape[-2:]))
        rest = small
    return [*bands, rest]


def synthesise(bands: Sequence[Tensor]) -> Tensor:
    """Return the picture, (B, C, H, W), whose bands these are."""
    image = bands[-1]
    for band in reversed(bands[:-1]):
        image = enlarge(image, *band.shape[-2:]) + band
    return image


def without_detail(image: Tensor, octaves: int, share: float = 0.0) -> Tensor:
    """Return `image`, (B, C, H, W), with its finest `octaves` bands multiplied by `share`."""
    bands = analyse(image)
    kept = len(bands) - 1
    return synthesise([band * share if i < min(octaves, kept) else band for i, band in enumerate(bands)])


class GreyDetail(ImageParameter):
    """Pixels, (1, 3, H, W), whose finest band differs in lightness only.

    At the scale of a pixel a network hardly distinguishes colours, so an optimiser leaves coloured fringes there.
    Unlike a pyramid, it takes no more steps than plain pixels do.
    """

    def __init__(self, image: Tensor) -> None:
        super().__init__()
        self.values = nn.Parameter(image.detach().clone())

    def forward(self) -> Tensor:
        """The image, (1, 3, H, W)."""
        return grey_detail(self.values)


class LaplacianPyramid(ImageParameter):
    """The bands of a picture as the parameter, so that one step changes large shapes as easily as detail.

    image: (1, 3, H, W). grey: the finest band changes in lightness only. At the scale of a pixel a network hardly
    distinguishes colours, so that an optimiser leaves coloured fringes there.
    """

    chroma: Tensor

    def __init__(self, image: Tensor, *, levels: int = LEVELS, grey: bool = True) -> None:
        super().__init__()
        bands = analyse(image.detach(), levels)
        grey = grey and len(bands) > 1
        lightness = luma(bands[0]) if grey else bands[0]
        self.register_buffer("chroma", bands[0] - lightness if grey else image.new_zeros(()))
        parts = [lightness, *bands[1:]]
        self.shapes = [part.shape for part in parts]
        # One tensor, not a list: optimisers keep one state for it, which fits in a checkpoint.
        self.values = nn.Parameter(torch.cat([part.flatten() for part in parts]))

    def forward(self) -> Tensor:
        """Return the image, (1, 3, H, W)."""
        sizes = [shape.numel() for shape in self.shapes]
        parts = [part.view(shape) for part, shape in zip(torch.split(self.values, sizes), self.shapes, strict=True)]
        return synthesise([parts[0] + self.chroma, *parts[1:]])
