"""Colour profiles: embedded ones, those made from a file's other fields, and applying them to deep pictures."""

from __future__ import annotations

import io
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageCms

from impasto.errors import ImageError

Floats = NDArray[np.float32]

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
