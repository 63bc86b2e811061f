"""PNG with 16 bits per channel: Pillow keeps only the high bytes of colours, so the low ones are read, too."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Floats = NDArray[np.float32]

LOW = {"RGB;16B": "RGB;16L", "RGBA;16B": "RGBA;16L", "LA;16B": "RGBA"}
"""Pillow's modes for the high and the low bytes; grey and alpha of 16 bits are four bytes, like RGBA of 8."""


def low_mode(image: Image.Image) -> str | None:
    """Return the mode for the low bytes of an opened picture; None if it is no PNG with colours of 16 bits."""
    tiles = getattr(image, "tile", [])
    if image.format != "PNG" or len(tiles) != 1 or not isinstance(tiles[0][3], str):
        return None
    found = LOW.get(tiles[0][3])
    return None if found == "RGBA" and image.mode != "RGBA" else found


def unpack_as(image: Image.Image, mode: str) -> NDArray[np.uint8]:
    """Return the bytes (H, W, C) of an opened picture, unpacked as `mode`."""
    opened = cast(Any, image)
    opened.tile = [opened.tile[0]._replace(args=mode)]
    opened.load()
    return np.asarray(opened)


def join(high: NDArray[np.uint8], low: NDArray[np.uint8], mode: str, key: Any) -> tuple[Floats, Floats | None]:
    """Return colours (H, W, 1 or 3) and alpha (H, W) in [0, 1].

    key: the transparent colour, in 16 bits.
    """
    if mode == "RGBA":
        values = low[..., ::2].astype(np.uint16) << 8 | low[..., 1::2]
    else:
        values = high.astype(np.uint16) << 8 | low
    alpha = None
    if values.shape[2] in (2, 4):
        values, cover = values[..., :-1], values[..., -1]
        alpha = cover.astype(np.float32) / np.float32(65535)
    elif isinstance(key, tuple) and len(key) == values.shape[2]:
        alpha = (values != np.array(key)).any(-1).astype(np.float32)
    return values.astype(np.float32) / np.float32(65535), alpha
