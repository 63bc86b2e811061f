"""Photos and masks in the forms that callers have: tensors, NumPy arrays, Pillow images, paths; and back again."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL.Image import Image, fromarray
from torch import Tensor

from impasto.errors import ImageError, OptionError
from impasto.images.color import luma
from impasto.images.decoding import decode, srgb
from impasto.images.files import Location, Picture, open_picture, to_picture
from impasto.images.tensors import resize
from impasto.images.transparency import fill_hidden

__all__ = ["AnyPicture", "Image", "Location", "take_mask", "take_painting", "take_photo"]

AnyPicture = Tensor | NDArray[Any] | Image | Location
"""A picture in one of the forms that `stylize` takes."""

LARGEST = {np.dtype(np.bool_): 1, np.dtype(np.uint8): 255, np.dtype(np.uint16): 65535}
KINDS = "a path, a Pillow image, an array (H, W, 3) or a tensor (1, 3, H, W)"


@dataclass(frozen=True)
class Photo:
    """A photo to paint. give_back: turns a result, (1, 3, H, W), with its alpha into the form of the original.

    color: (1, 3, H, W) in [0, 1]; alpha: (1, 1, H, W) in [0, 1], or None if opaque.
    """

    color: Tensor
    alpha: Tensor | None
    give_back: Callable[[Tensor, Tensor | None], Any]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.color.shape[-2], self.color.shape[-1]

    def resized(self, height: int, width: int) -> Photo:
        """Return the photo at another size; colours count as far as they can be seen."""
        if self.alpha is None:
            return Photo(resize(self.color, height, width), None, self.give_back)
        picture = Picture(self.color, self.alpha).resized(height, width)
        return Photo(picture.color, picture.alpha, self.give_back)


def take_photo(value: AnyPicture | Photo, role: str = "the photo") -> Photo:
    """Read a photo in any form. role: what errors call it. Raises OptionError or ImageError.

    Results come back as tensors for tensors, as arrays of the same dtype for arrays, else as Pillow images in sRGB.
    """
    if isinstance(value, Photo):
        return value
    if isinstance(value, Tensor):
        bare = value.dim() == 3
        return Photo(value[None] if bare else value, None, lambda image, alpha: image[0] if bare else image)
    picture = read_any(value, role)
    if isinstance(value, np.ndarray):
        return Photo(picture.color, picture.alpha, lambda image, alpha: to_array(image, alpha, value.dtype))
    return Photo(picture.color, picture.alpha, to_pillow)


def take_painting(value: AnyPicture, role: str) -> Tensor:
    """Read what is visible of a painting in any form, (1, 3, H, W). Raises OptionError or ImageError."""
    if isinstance(value, Tensor):
        return value[None] if value.dim() == 3 else value
    return read_any(value, role).painting(role)


def take_mask(value: AnyPicture, role: str) -> Tensor:
    """Read what a mask selects, (1, 1, H, W): what is white in a picture, an array or a tensor, (H, W) among them."""
    if isinstance(value, Tensor):
        return value.reshape(1, 1, *value.shape[-2:]) if value.dim() == 2 else value
    mask = mask_of(read_any(value, role))
    check_masks([mask], [role])
    return mask


def read_any(value: Any, role: str) -> Picture:
    """Read an array, a Pillow image or a file."""
    if isinstance(value, np.ndarray):
        return picture_of_array(value, role)
    if isinstance(value, Image):
        return to_picture(*decode(value, name=role))
    if isinstance(value, str | os.PathLike):
        return open_picture(value)
    raise OptionError(f"{role} is {KINDS}, not {type(value).__name__}")


def picture_of_array(array: NDArray[Any], role: str) -> Picture:
    """Read (H, W), (H, W, 3) or (H, W, 4): bool, uint8 or uint16, or floats in [0, 1]."""
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)) or 0 in array.shape:
        raise OptionError(f"{role} as an array has the shape (H, W), (H, W, 3) or (H, W, 4), not {array.shape}")
    if array.dtype not in LARGEST and array.dtype.kind != "f":
        raise OptionError(f"{role} as an array holds uint8, uint16 or floats in [0, 1], not {array.dtype}")
    planes = array[..., None] if array.ndim == 2 else array
    values: NDArray[np.float32] = planes.astype(np.float32) / np.float32(LARGEST.get(array.dtype, 1))
    if not np.isfinite(values).all():
        raise OptionError(f"{role} holds NaN or infinity")
    if values.min() < -1e-3 or values.max() > 1.001:
        raise OptionError(f"{role} holds floats up to {values.max():g}: divide to get from 0 to 1, or give uint8")
    values = values.clip(0, 1)
    alpha = np.ascontiguousarray(values[..., 3]) if values.shape[2] == 4 else None
    color = np.ascontiguousarray(values[..., :3].repeat(3 if values.shape[2] == 1 else 1, axis=2))
    color = color if alpha is None else fill_hidden(color, alpha)
    stored = torch.from_numpy(color).permute(2, 0, 1)[None].contiguous()
    return Picture(stored, None if alpha is None else torch.from_numpy(alpha)[None, None])


def to_array(image: Tensor, alpha: Tensor | None, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return (H, W, 3), or (H, W, 4) with alpha, in the given dtype; bool becomes uint8."""
    color = image.detach().to("cpu", torch.float32)
    planes = (color if alpha is None else torch.cat([color, alpha], dim=1))[0].permute(1, 2, 0).clamp(0, 1).numpy()
    if dtype.kind == "f":
        return np.ascontiguousarray(planes, dtype)
    dtype = np.dtype(np.uint8) if dtype == np.bool_ else dtype
    return np.ascontiguousarray((planes * LARGEST[dtype]).round().astype(dtype))


def to_pillow(image: Tensor, alpha: Tensor | None) -> Image:
    """Return a Pillow image, RGB or RGBA, that says that it is in sRGB."""
    found = fromarray(to_array(image, alpha, np.dtype(np.uint8)))
    found.info["icc_profile"] = srgb().tobytes()
    return found


FAINTEST = 8 / 255
"""A mask whose brightest value is below this selects nothing."""

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
