"""From what Pillow opens to upright sRGB pixels: orientation, colour profiles, odd modes."""

from __future__ import annotations

import functools
import io
import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageCms

Floats = NDArray[np.float32]

_SPACES = {"GRAY": "L", "RGB": "RGB", "CMYK": "CMYK", "LAB": "LAB"}


def decode(image: Image.Image) -> tuple[NDArray[np.uint8] | Floats, Floats | None]:
    """Upright sRGB colours (H, W, 3), bytes or floats in [0, 1], and alpha (H, W) in [0, 1]."""
    image.load()
    profile = _parse_profile(image.info.get("icc_profile"))
    image = _upright(image)
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return _decode_deep_grey(image, profile)
    alpha = _scale(image.convert("RGBA").getchannel("A")) if image.has_transparency_data else None
    if image.mode in ("1", "LA"):
        image = image.convert("L")
    elif image.mode not in _SPACES.values():
        image = image.convert("RGBA").convert("RGB")
    return np.asarray(_to_srgb(image, profile)), alpha


def _upright(image: Image.Image) -> Image.Image:
    """Turn and mirror as the EXIF orientation says; EXIF that can't be parsed counts as none."""
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # the parser raises whatever it meets, but the pixels are intact
        return image
    if orientation in (5, 6, 7, 8):
        image = image.transpose(Image.Transpose.TRANSPOSE)
    if orientation in (2, 3, 6, 7):
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return image.transpose(Image.Transpose.FLIP_TOP_BOTTOM) if orientation in (3, 4, 7, 8) else image


def _scale(image: Image.Image) -> Floats:
    return np.asarray(image, dtype=np.float32) / np.float32(255)


def _decode_deep_grey(image: Image.Image, profile: ImageCms.ImageCmsProfile | None) -> tuple[Floats, Floats | None]:
    """Grey of more than 8 bits; a grey profile is applied as a curve so that the precision stays."""
    values = np.nan_to_num(np.asarray(image).astype(np.float64), posinf=1.0)
    key = image.info.get("transparency")
    alpha = (values != key).astype(np.float32) if isinstance(key, int) else None
    if image.mode != "F":
        values /= 65535 if values.max() <= 65535 else 2**31 - 1
    values = values.clip(0, 1)
    levels = np.arange(256)
    ramp = Image.fromarray(levels.astype(np.uint8)[None])
    curve = _scale(_to_srgb(ramp, profile))[0]  # (256, 3)
    channels = [np.interp(values, levels / 255, curve[:, channel]).astype(np.float32) for channel in range(3)]
    return np.stack(channels, axis=-1), alpha


def _parse_profile(data: Any) -> ImageCms.ImageCmsProfile | None:
    """An embedded profile, or None if there is none or it is broken."""
    try:
        return ImageCms.ImageCmsProfile(io.BytesIO(data)) if data else None
    except (ImageCms.PyCMSError, OSError, TypeError, ValueError):
        return None


def _to_srgb(image: Image.Image, profile: ImageCms.ImageCmsProfile | None) -> Image.Image:
    """Convert an L, RGB, CMYK or LAB image to sRGB; a profile for another kind of colour is ignored."""
    if image.mode == "LAB":
        profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB"))
    space = profile and _SPACES.get(profile.profile.xcolor_space.strip())
    if image.mode == "L" and space == "RGB":
        image = image.convert("RGB")
    if profile is None or space != image.mode:
        return image.convert("RGB")
    intent, flags = ImageCms.Intent.RELATIVE_COLORIMETRIC, ImageCms.Flags.BLACKPOINTCOMPENSATION
    try:
        transform = ImageCms.ImageCmsTransform(profile, srgb(), image.mode, "RGB", intent, flags=flags)
        unneeded = image.mode == "RGB" and _changes_nothing(transform)
        return image if unneeded else transform.apply(image)
    except (ImageCms.PyCMSError, OSError, ValueError):
        return image.convert("RGB")


@functools.cache
def srgb() -> ImageCms.ImageCmsProfile:
    """The sRGB profile without its time of creation, so that the same picture gives the same file."""
    data = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    dated = data[:24] + struct.pack(">6H", 2000, 1, 1, 0, 0, 0) + data[36:]
    return ImageCms.ImageCmsProfile(io.BytesIO(dated))


def _changes_nothing(transform: ImageCms.ImageCmsTransform) -> bool:
    """Whether an RGB transform moves no colour by more than one level: then the stored values are sRGB, exactly."""
    steps = np.linspace(0, 255, 9).astype(np.uint8)
    probe = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(1, -1, 3)
    after = np.asarray(transform.apply(Image.fromarray(probe)))
    return bool(np.abs(after.astype(np.int16) - probe).max() <= 1)
