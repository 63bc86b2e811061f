"""Masks: which part of a photo is repainted, from a grey picture or from a picture's transparency."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from torch import Tensor

from impasto.errors import ImageError
from impasto.images.color import luma
from impasto.images.files import Picture

FAINTEST = 8 / 255
"""A mask that is nowhere brighter selects nothing."""

log = logging.getLogger(__name__)


def mask_of(picture: Picture) -> Tensor:
    """Return what a picture selects, (1, 1, H, W) in [0, 1]: what is bright and not transparent.

    If all that is visible is dark and the transparency varies, the transparency itself is the selection.
    """
    bright = luma(picture.color).clamp(0, 1)
    if picture.alpha is None:
        return bright
    selected = bright * picture.alpha
    seen = bright[picture.alpha > 0]
    flat = seen.numel() > 0 and float(seen.max()) < FAINTEST
    return picture.alpha if flat and float(picture.alpha.min()) < 0.5 else selected


def check_masks(masks: Sequence[Tensor], names: Sequence[str]) -> None:
    """Warn of each black mask; raise ImageError for one that holds labels, such as 0 and 1 of 255, instead of white."""
    for mask, name in zip(masks, names, strict=True):
        level = round(255 * float(mask.max()))
        if level == 0:
            log.warning("%s selects nothing: it is all black or transparent, and white is what is repainted", name)
        elif float(mask.max()) <= FAINTEST:
            raise ImageError(
                f"{name} selects nothing: its brightest value is {level} of 255, and white is what is repainted; "
                "if it holds labels, make the wanted one white"
            )
