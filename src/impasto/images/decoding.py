"""Converts pictures that Pillow opened to upright sRGB pixels: orientation, colour profiles, rare modes."""

from __future__ import annotations

import functools
import io
import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageCms

from impasto.images.colorimetry import apply_deep, implied_profile, parse

Floats = NDArray[np.float32]

MOST_FLOATS = 75_000_000
"""Larger pictures are rounded to bytes after reading."""

_SPACES = {"GRAY": "L", "RGB": "RGB", "CMYK": "CMYK", "LAB": "LAB"}


def decode(
    image: Image.Image, head: bytes = b"", name: str = "the picture", profile: bytes | None = None
) -> tuple[NDArray[np.uint8] | Floats, Floats | None]:
    """Return upright sRGB colours (H, W, 3), bytes or floats in [0, 1], and alpha (H, W) in [0, 1].

    head: the file's first bytes, which may describe its colours; profile: a colour profile instead of the file's.
    Raises ImageError for colours that can't be converted, such as HDR.
    """
    image.load()
    known = parse(profile or profile_of(image, head, name))
    image = _upright(image)
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return _decode_deep_grey(image, known)
    alpha = _scale(image.convert("RGBA").getchannel("A")) if image.has_transparency_data else None
    if image.mode in ("1", "LA"):
        image = image.convert("L")
    elif image.mode not in _SPACES.values():
        image = image.convert("RGBA").convert("RGB")
    return np.asarray(_to_srgb(image, known)), alpha


def finish_deep(
    color: Floats, alpha: Floats | None, profile: bytes | None, orientation: int
) -> tuple[NDArray[np.uint8] | Floats, Floats | None]:
    """Return the same for grey (H, W, 1), RGB (H, W, 3) or CMYK (H, W, 4) floats in [0, 1] and alpha (H, W)."""
    color = _turned(color, orientation)
    alpha = None if alpha is None else np.ascontiguousarray(_turned(alpha, orientation))
    known, channels = parse(profile), color.shape[2]
    if channels == 1:
        return _through_curve(color[..., 0], known), alpha
    if channels == 3 and color.size <= MOST_FLOATS:
        transform = _transform(known, "RGB")
        return np.ascontiguousarray(color if transform is None else apply_deep(transform, color)), alpha
    levels = np.ascontiguousarray((color * 255).round().astype(np.uint8))
    return np.asarray(_to_srgb(Image.fromarray(levels, "CMYK" if channels == 4 else "RGB"), known)), alpha


def _turned(pixels: Floats, orientation: int) -> Floats:
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels[::-1] if orientation in (3, 4, 7, 8) else pixels


def profile_of(image: Image.Image, head: bytes, name: str) -> bytes | None:
    """Return the embedded profile of a picture's colours, or the one that its other fields describe."""
    return image.info.get("icc_profile") or implied_profile(image, head, name)


def orientation_of(image: Image.Image) -> int:
    """Return the EXIF orientation; EXIF that can't be parsed counts as none."""
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # the parser may raise anything, but the pixels are intact
        return 1


def _upright(image: Image.Image) -> Image.Image:
    """Turn and mirror by the EXIF orientation."""
    orientation = orientation_of(image)
    if orientation in (5, 6, 7, 8):
        image = image.transpose(Image.Transpose.TRANSPOSE)
    if orientation in (2, 3, 6, 7):
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return image.transpose(Image.Transpose.FLIP_TOP_BOTTOM) if orientation in (3, 4, 7, 8) else image


def _scale(image: Image.Image) -> Floats:
    return np.asarray(image, dtype=np.float32) / np.float32(255)


def _decode_deep_grey(image: Image.Image, profile: ImageCms.ImageCmsProfile | None) -> tuple[Floats, Floats | None]:
    """Decode grey of more than 8 bits; a grey profile is applied as a curve, to keep the precision."""
    values = np.nan_to_num(np.asarray(image).astype(np.float64), posinf=1.0)
    key = image.info.get("transparency")
    alpha = (values != key).astype(np.float32) if isinstance(key, int) else None
    if image.mode != "F":
        values /= 65535 if values.max() <= 65535 else 2**31 - 1
    return _through_curve(values.clip(0, 1), profile), alpha


def _through_curve(values: NDArray[Any], profile: ImageCms.ImageCmsProfile | None) -> Floats:
    """Return grey (H, W) in [0, 1] as colours (H, W, 3), by a profile's curve of 256 levels."""
    levels = np.arange(256)
    ramp = Image.fromarray(levels.astype(np.uint8)[None])
    curve = _scale(_to_srgb(ramp, profile))[0]  # (256, 3)
    channels = [np.interp(values, levels / 255, curve[:, channel]).astype(np.float32) for channel in range(3)]
    return np.stack(channels, axis=-1)


def _to_srgb(image: Image.Image, profile: ImageCms.ImageCmsProfile | None) -> Image.Image:
    """Convert an L, RGB, CMYK or LAB image to sRGB; a profile for another kind of colour is ignored."""
    if image.mode == "LAB":
        profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB"))
    space = profile and _SPACES.get(profile.profile.xcolor_space.strip())
    if image.mode == "L" and space == "RGB":
        image = image.convert("RGB")
    if profile is None or space != image.mode:
        return image.convert("RGB")
    transform = _transform(profile, image.mode)
    try:
        return image.convert("RGB") if transform is None else transform.apply(image)
    except (ImageCms.PyCMSError, OSError, ValueError):
        return image.convert("RGB")


def _transform(profile: ImageCms.ImageCmsProfile | None, mode: str) -> ImageCms.ImageCmsTransform | None:
    """Return the transform from a profile's colours to sRGB; None if there is none, or none is needed."""
    if profile is None or _SPACES.get(profile.profile.xcolor_space.strip()) != mode:
        return None
    intent, flags = ImageCms.Intent.RELATIVE_COLORIMETRIC, ImageCms.Flags.BLACKPOINTCOMPENSATION
    try:
        transform = ImageCms.ImageCmsTransform(profile, srgb(), mode, "RGB", intent, flags=flags)
    except (ImageCms.PyCMSError, OSError, ValueError):
        return None
    return None if mode == "RGB" and _changes_nothing(transform) else transform


@functools.cache
def srgb() -> ImageCms.ImageCmsProfile:
    """Return the sRGB profile without its time of creation, so that the same picture gives the same file."""
    data = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    dated = data[:24] + struct.pack(">6H", 2000, 1, 1, 0, 0, 0) + data[36:]
    return ImageCms.ImageCmsProfile(io.BytesIO(dated))


def _changes_nothing(transform: ImageCms.ImageCmsTransform) -> bool:
    """Return whether an RGB transform changes no colour by more than one level, so that the values are sRGB."""
    steps = np.linspace(0, 255, 9).astype(np.uint8)
    probe = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(1, -1, 3)
    after = np.asarray(transform.apply(Image.fromarray(probe)))
    return bool(np.abs(after.astype(np.int16) - probe).max() <= 1)
