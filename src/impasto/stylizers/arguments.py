"""Arguments of `stylize` besides the photo: styles by any name or form, masks, sizes, options."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict

import numpy as np
from torch import Tensor

from impasto.errors import OptionError, no_style
from impasto.images.exchange import AnyPicture, Image, take_mask, take_painting
from impasto.options import parse_size
from impasto.progress import OnStep
from impasto.stylizers.styles import CARD, Style, built_in_styles, load_style, named_style

AnyStyle = AnyPicture | Style
AnySize = int | str | tuple[int, int]


class HowToPaint(TypedDict, total=False):
    """The keyword arguments of `Stylizer.stylize`, which documents them."""

    weights: Sequence[float] | None
    strength: float
    size: AnySize | None
    keep_color: str
    style_size: int | None
    masks: Sequence[AnyPicture] | AnyPicture
    seed: int
    on_step: OnStep


def take_style(value: AnyStyle, number: int, learned: Sequence[str] = ()) -> Tensor | Style:
    """Return a style or a painting, (1, 3, H, W). number: which one it is, for errors.

    Text is a file or the name of a built-in style. learned: names that only the method knows. Raises ImpastoError.
    """
    if isinstance(value, Style):
        return value
    if not isinstance(value, str | os.PathLike):
        return take_painting(value, f"painting {number}")
    path, name = Path(value), str(value)
    if not path.is_file():
        if name in learned:
            return named_style(name)
        if name in built_in_styles():
            return load_style(name)
        if path.suffix == "":
            raise OptionError(no_style(name, [*built_in_styles(), *learned]))
    return load_style(path) if path.suffix.lower() == CARD else take_painting(path, name)


def take_masks(value: Sequence[AnyPicture] | AnyPicture) -> list[Tensor]:
    """Return masks, (1, 1, H, W) each; a single one need not be in a list."""
    single = isinstance(value, str | os.PathLike | Tensor | np.ndarray | Image)
    masks: Sequence[AnyPicture] = [value] if single else value  # type: ignore[list-item, assignment]
    return [take_mask(mask, f"mask {i}") for i, mask in enumerate(masks, 1)]


def take_size(value: AnySize | None) -> int | tuple[int, int] | None:
    """Return a longer side or (height, width); text may be "512" or "1024x768", WIDTHxHEIGHT. Raises ImageError."""
    if value is None:
        return None
    if isinstance(value, tuple):
        height, width = value
        value = f"{width}x{height}"
    return parse_size(str(value))
