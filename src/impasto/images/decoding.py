"""Converts opened pictures to upright sRGB pixels: orientation, colour profiles and fields, rare modes."""

from __future__ import annotations

import functools
import io
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageCms

from impasto.errors import ImageError

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
    """Return the same as `decode`, of grey (H, W, 1), RGB (H, W, 3) or CMYK (H, W, 4) floats in [0, 1], and alpha."""
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


# --- colour profiles

SRGB_XY = (0.3127, 0.3290, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06)
"""White, red, green and blue as x, y."""
PRIMARIES = {
    1: SRGB_XY,
    4: (0.310, 0.316, 0.67, 0.33, 0.21, 0.71, 0.14, 0.08),
    5: (0.3127, 0.3290, 0.64, 0.33, 0.29, 0.60, 0.15, 0.06),
    6: (0.3127, 0.3290, 0.630, 0.340, 0.310, 0.595, 0.155, 0.070),
    7: (0.3127, 0.3290, 0.630, 0.340, 0.310, 0.595, 0.155, 0.070),
    9: (0.3127, 0.3290, 0.708, 0.292, 0.170, 0.797, 0.131, 0.046),
    11: (0.314, 0.351, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),
    12: (0.3127, 0.3290, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),
}
"""Primaries by their numbers in ITU-T H.273."""
ADOBE_XY = (0.3127, 0.3290, 0.64, 0.33, 0.21, 0.71, 0.15, 0.06)
GAMMAS = {4: 2.2, 5: 2.8, 8: 1.0}
HDR = {16: "PQ", 18: "HLG"}
_D50 = np.array([0.9642, 1.0, 0.8249])
_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])


def implied_profile(image: Image.Image, head: bytes, name: str) -> bytes | None:
    """Return the profile that a file's other fields describe, if none is embedded; None for sRGB or no such field.

    They are PNG's cICP, gAMA and cHRM, AVIF's nclx and EXIF's Adobe RGB. Raises ImageError for HDR.
    """
    coded = _cicp(head)
    if coded is not None:
        return _by_numbers(*coded, name)
    info = image.info
    if "srgb" in info:
        return None
    if "gamma" in info or "chromaticity" in info:
        gamma = 1 / (info.get("gamma") or 1 / 2.2)
        return make_profile(info.get("chromaticity") or SRGB_XY, None if abs(gamma - 2.2) < 0.06 else gamma)
    return make_profile(ADOBE_XY, 563 / 256) if _is_adobe(image) else None


def _cicp(head: bytes) -> tuple[int, int] | None:
    """Return the numbers of primaries and transfer in a PNG's cICP chunk or an AVIF's nclx box."""
    if head[:8] == b"\x89PNG\r\n\x1a\n":
        at = head[: head.find(b"IDAT")].find(b"\0\0\0\4cICP")
        return (head[at + 8], head[at + 9]) if at >= 0 else None
    at = head.find(b"colrnclx") if head[4:8] == b"ftyp" else -1
    if at < 0 or len(head) < at + 12:
        return None
    primaries, transfer = struct.unpack(">HH", head[at + 8 : at + 12])
    return primaries, transfer


def _by_numbers(primaries: int, transfer: int, name: str) -> bytes | None:
    if transfer in HDR:
        raise ImageError(f"{name} is an HDR picture ({HDR[transfer]}), which is not read; save it as sRGB first")
    places = PRIMARIES.get(primaries, SRGB_XY)
    return make_profile(places, GAMMAS.get(transfer))


def _is_adobe(image: Image.Image) -> bool:
    """Return whether a camera says in EXIF that the colours are Adobe RGB."""
    try:
        exif = image.getexif()
        detail, more = exif.get_ifd(ExifTags.IFD.Exif), exif.get_ifd(ExifTags.IFD.Interop)
        return detail.get(ExifTags.Base.ColorSpace) in (2, 0xFFFF) and str(more.get(1, "")).startswith("R03")
    except Exception:  # the parser may raise anything, but the pixels are intact
        return False


def make_profile(places: Sequence[float], gamma: float | None, curve: Sequence[float] | None = None) -> bytes | None:
    """Return an ICC profile for white and primaries, and a gamma (None: sRGB's curve) or a table; None if it is sRGB.

    places: x and y of white, red, green, blue. curve: light in [0, 1] of evenly spaced values. None also if the places
    are impossible.
    """
    if curve is None and gamma is None and np.abs(np.subtract(places, SRGB_XY)).max() < 0.004:
        return None
    matrix = _to_pcs(places)
    if matrix is None or (gamma is not None and not 0.1 <= gamma <= 10):
        return None
    if curve is not None:
        table = np.round(np.asarray(curve).clip(0, 1) * 65535).astype(">u2").tobytes()
        trc = struct.pack(">4s4xI", b"curv", len(curve)) + table
    elif gamma is None:
        trc = _para(3, 2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
    else:
        trc = _para(0, gamma)
    tags = {b"wtpt": _xyz(_D50), b"rTRC": trc, b"gTRC": trc, b"bTRC": trc, b"kTRC": trc}
    tags |= {name: _xyz(matrix[:, index]) for index, name in enumerate((b"rXYZ", b"gXYZ", b"bXYZ"))}
    return _pack(tags)


def _to_pcs(places: Sequence[float]) -> NDArray[np.float64] | None:
    """Return the matrix from linear RGB to XYZ, adapted from the white to D50 (Bradford); None if there is none."""
    white, *primaries = np.asarray(places, float).reshape(4, 2)
    if min(white[1], *(p[1] for p in primaries)) <= 0:
        return None
    columns = np.array([[x / y, 1, (1 - x - y) / y] for x, y in primaries]).T
    light = np.array([white[0] / white[1], 1, (1 - white[0] - white[1]) / white[1]])
    try:
        scaled = columns * np.linalg.solve(columns, light)
        cones = (_BRADFORD @ _D50) / (_BRADFORD @ light)
    except np.linalg.LinAlgError:
        return None
    found = np.linalg.inv(_BRADFORD) @ np.diag(cones) @ _BRADFORD @ scaled
    return found if np.abs(found).max() < 16 else None


def _fixed(value: float) -> int:
    return round(value * 65536)


def _xyz(values: Sequence[float] | NDArray[np.float64]) -> bytes:
    return struct.pack(">4s4x3i", b"XYZ ", *(_fixed(float(value)) for value in values))


def _para(kind: int, *values: float) -> bytes:
    return struct.pack(f">4s4xHxx{len(values)}i", b"para", kind, *map(_fixed, values))


def _pack(tags: dict[bytes, bytes]) -> bytes:
    """Return an ICC profile of version 4 for an RGB display."""
    body, table, begin = b"", b"", 132 + 12 * len(tags)
    for name, data in tags.items():
        table += struct.pack(">4sII", name, begin + len(body), len(data))
        body += data + b"\0" * (-len(data) % 4)
    head = struct.pack(">I4sI4s4s4s12x4s", begin + len(body), b"", 0x04200000, b"mntr", b"RGB ", b"XYZ ", b"acsp")
    head += struct.pack(">28x3i", *map(_fixed, _D50))
    return head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body


def apply_deep(transform: ImageCms.ImageCmsTransform, values: Floats) -> Floats:
    """Apply a transform from RGB to RGB to (H, W, 3) floats in [0, 1], keeping their precision.

    Pillow transforms bytes only, so the results for the levels around each value are interpolated.
    """
    found = np.empty_like(values)
    step = max(1, (1 << 20) // values.shape[1])
    for top in range(0, len(values), step):
        scaled = values[top : top + step] * np.float32(255)
        low = np.floor(scaled).clip(0, 254)
        share = scaled - low
        total = np.zeros_like(scaled)
        for corner in range(8):
            up = np.array([corner >> channel & 1 for channel in range(3)], np.float32)
            weight = np.where(up > 0, share, 1 - share).prod(-1, keepdims=True)
            levels = Image.fromarray((low + up).astype(np.uint8))
            total += weight * np.asarray(transform.apply(levels), np.float32)
        found[top : top + step] = total / 255
    return found


def parse(data: Any) -> ImageCms.ImageCmsProfile | None:
    """Return an embedded profile, or None if there is none or it is broken."""
    try:
        return ImageCms.ImageCmsProfile(io.BytesIO(data)) if data else None
    except (ImageCms.PyCMSError, OSError, TypeError, ValueError):
        return None
