"""Folders of pictures in memory, and the crops that a training draws from them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from impasto.errors import ImageError, ImpastoError, no_pictures
from impasto.files import PICTURE_SUFFIXES
from impasto.images.files import read_image
from impasto.images.tensors import fit, resize


@dataclass
class Pictures:
    """Decoded pictures: uint8 tensors (3, H, W), their files' names, and why others could not be read.

    May be empty, for trainings with one kind of picture.
    """

    items: list[Tensor]
    skipped: list[str] = field(default_factory=list)
    names: list[str] = field(default_factory=list)

    @classmethod
    def load(cls, places: list[Path], side: int, least: int, most: int | None = None) -> Pictures:
        """Read every picture under `places`, folders or files, shrunk to a shorter side of `side`.

        None becomes smaller than `least`. Raises ImpastoError if there is none.
        """
        found = cls([])
        paths = [path for place in places for path in ([place] if place.is_file() else _pictures_in(place))]
        for path in paths[:most]:
            try:
                image = read_image(path)
            except ImageError as error:
                found.skipped.append(str(error))
                continue
            found.items.append(_shrink(image, side, least))
            found.names.append(path.stem)
        if not found.items:
            raise ImpastoError(no_pictures(places))
        return found

    def batch(self, seed: tuple[int, ...], size: int, crop: int) -> Tensor:
        """Return `size` random crops, (size, 3, crop, crop) in [0, 1], randomly mirrored; the same for the same seed.

        Without pictures there are no crops: (0, 3, crop, crop).
        """
        if not self.items:
            return torch.empty(0, 3, crop, crop)
        rng = np.random.default_rng(seed)
        return torch.stack([self._crop(rng, crop) for _ in range(size)]).float() / 255

    def _crop(self, rng: np.random.Generator, crop: int) -> Tensor:
        item = self.items[int(rng.integers(len(self.items)))]
        top = int(rng.integers(item.shape[1] - crop + 1))
        left = int(rng.integers(item.shape[2] - crop + 1))
        cut = item[:, top : top + crop, left : left + crop]
        return cut.flip(2) if rng.integers(2) else cut


def _pictures_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in PICTURE_SUFFIXES)


def _shrink(image: Tensor, side: int, least: int) -> Tensor:
    height, width = image.shape[-2:]
    short, longer = min(height, width), max(height, width)
    wanted = max(least, min(short, side))
    if short != wanted:
        height, width = fit(height, width, math.ceil(longer * wanted / short), enlarge=True)
        image = resize(image, max(height, least), max(width, least))
    return (image[0] * 255).round().to(torch.uint8)
