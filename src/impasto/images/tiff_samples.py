"""The samples of a TIFF page that Pillow would misread: any depth, sign, polarity, plane order and predictor."""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from impasto.errors import ImageError
from impasto.images.decoding import SRGB_XY, make_profile
from impasto.images.tiff import (
    BITS,
    CHUNK_SLACK,
    CMYK,
    COEFFICIENTS,
    COMPRESSION,
    COMPRESSIONS,
    EXTRA,
    FILL_ORDER,
    HEIGHT,
    ICC_LAB,
    LAB,
    PALETTE,
    PALETTED,
    PHOTOMETRIC,
    PLANES,
    PREDICTOR,
    PRIMARIES,
    PROFILE,
    REFERENCE,
    ROWS,
    SAMPLES,
    STRIP_BYTES,
    SUBSAMPLING,
    TILE_HEIGHT,
    TILE_WIDTH,
    TILES,
    TRANSFER,
    WHITE,
    WHITE_IS_ZERO,
    WIDTH,
    YCBCR,
    Page,
    build,
)

Floats = NDArray[np.float32]
Samples = NDArray[Any]

UNSIGNED, SIGNED, FLOAT = 1, 2, 3
ASSOCIATED, UNASSOCIATED = 1, 2
BAND = 1 << 20
"""Samples that are unpacked at a time."""
_REVERSED = bytes(int(f"{value:08b}"[::-1], 2) for value in range(256))
_D50 = (0.9642, 1.0, 0.8249)
_SRGB_OF_XYZ_D50 = (
    (3.1338561, -1.6168667, -0.4906146),
    (-0.9787684, 1.9161415, 0.0334540),
    (0.0719453, -0.2289914, 1.4052427),
)


class DamagedError(Exception):
    """A chunk that holds less, or more, than its pixels."""


def read_samples(page: Page, file: BinaryIO, name: str) -> Samples:
    """Return all samples, (H, W, S), as they are stored: integers, or floats. Raises ImageError.

    Pillow's limit of pixels must be off: chunks are expanded as grey pictures of bytes.
    """
    if page.one(COMPRESSION, 1) not in COMPRESSIONS:
        raise ImageError(f"{name} is compressed as a picture, with samples that are not read so; save it with deflate")
    if page.one(PHOTOMETRIC) == YCBCR and page.fields.get(SUBSAMPLING, (2, 2)) != (1, 1):
        raise ImageError(f"{name} holds YCbCr with subsampled colours (YCbCrSubSampling); save it as RGB")
    height, width = page.size
    found = np.zeros((height, width, page.samples), _dtype(page))
    try:
        if len(page.chunks) != _count_chunks(page):
            raise DamagedError
        for at, data in zip(_places(page), _chunks(page, file), strict=True):
            top, left, plane = at
            rows, columns = data.shape[:2]
            target = found[top : top + rows, left : left + columns, plane]
            target[...] = data[: target.shape[0], : target.shape[1]]
    except (DamagedError, ValueError, zlib.error, OSError, SyntaxError):
        raise ImageError(f"{name} is damaged or incomplete (its TIFF samples); get it again") from None
    return found


def _dtype(page: Page) -> np.dtype[Any]:
    bits, kind = page.bits[0], page.formats[0]
    if kind == FLOAT:
        return np.dtype(f"f{bits // 8}")
    size = next(size for size in (1, 2, 4, 8) if bits <= 8 * size)
    return np.dtype(f"{'i' if kind == SIGNED else 'u'}{size}")


def _shape(page: Page) -> tuple[int, int]:
    """Return height and width of the chunks."""
    height, width = page.size
    if TILES in page.fields:
        return page.one(TILE_HEIGHT), page.one(TILE_WIDTH)
    return min(height, page.one(ROWS, height) or height), width


def _planar(page: Page) -> bool:
    return page.one(PLANES, 1) == 2 and page.samples > 1


def _places(page: Page) -> Iterator[tuple[int, int, slice]]:
    """Yield where each chunk goes: its first row and column, and its samples."""
    (height, width), (rows, columns) = page.size, _shape(page)
    for plane in range(page.samples if _planar(page) else 1):
        for top in range(0, height, rows):
            for left in range(0, width, columns):
                yield top, left, slice(plane, plane + 1) if _planar(page) else slice(None)


def _count_chunks(page: Page) -> int:
    """Return how many chunks a page of its size has."""
    (height, width), (rows, columns) = page.size, _shape(page)
    if min(rows, columns) < 1:
        raise DamagedError
    return (page.samples if _planar(page) else 1) * -(-height // rows) * -(-width // columns)


def _chunks(page: Page, file: BinaryIO) -> Iterator[Samples]:
    """Yield the samples of each chunk, (rows, columns, samples of the chunk)."""
    (rows, columns), each = _shape(page), 1 if _planar(page) else page.samples
    for (top, _, _), (offset, length) in zip(_places(page), page.chunks, strict=True):
        high = rows if TILES in page.fields else min(rows, page.size[0] - top)
        line = -(-columns * each * page.bits[0] // 8)
        if length > 2 * high * line + CHUNK_SLACK:
            raise DamagedError
        file.seek(offset)
        data = _expand(page, file.read(length), line, high)
        if len(data) < line * high:
            raise DamagedError
        stored = np.frombuffer(data, np.uint8, line * high).reshape(high, line)
        yield _unpack(page, stored, columns, each)


def _expand(page: Page, raw: bytes, line: int, rows: int) -> bytes:
    """Undo the fill order and the compression of a chunk, which gives back rows x line bytes."""
    if page.one(FILL_ORDER, 1) == 2:
        raw = raw.translate(_REVERSED)
    codec = page.one(COMPRESSION, 1)
    if codec == 1:
        return raw
    if COMPRESSIONS[codec] == "deflate":
        return zlib.decompressobj().decompress(raw, line * rows)
    fields = {WIDTH: line, HEIGHT: rows, BITS: 8, COMPRESSION: codec, PHOTOMETRIC: 1, SAMPLES: 1, ROWS: rows}
    fields |= {STRIP_BYTES: len(raw)}
    with Image.open(
        io.BytesIO(build("<", {tag: (value,) for tag, value in fields.items()}, {}, raw, [0])), formats=("TIFF",)
    ) as image:
        return image.tobytes()


def _unpack(page: Page, stored: NDArray[np.uint8], columns: int, each: int) -> Samples:
    """Return the samples of a chunk, (rows, columns, each), of its rows of bytes."""
    bits, dtype, predictor = page.bits[0], _dtype(page), page.one(PREDICTOR, 1)
    if predictor == 3:
        return _undo_float_predictor(stored, columns, each, dtype)
    if bits in (8, 16, 32, 64):
        found = stored.view(dtype.newbyteorder(page.order)).astype(dtype).reshape(len(stored), columns, each)
    else:
        found = _unpack_bits(page, stored, columns * each, dtype).reshape(len(stored), columns, each)
    if predictor == 2:
        whole = found.view(f"u{dtype.itemsize}")  # differences of floats are those of their bits
        np.cumsum(whole, axis=1, dtype=whole.dtype, out=whole)
        if bits not in (8, 16, 32, 64):
            raise DamagedError
    return found


def _unpack_bits(page: Page, stored: NDArray[np.uint8], count: int, dtype: np.dtype[Any]) -> Samples:
    """Return `count` samples of each row, packed without gaps, the highest bit first."""
    bits = page.bits[0]
    found = np.empty((len(stored), count), dtype)
    powers = 1 << np.arange(bits - 1, -1, -1, dtype=np.uint64)
    step = max(1, BAND // max(1, count))
    for top in range(0, len(stored), step):
        rows = stored[top : top + step]
        if bits % 8 == 0 and page.order == "<":  # whole bytes come in the file's order
            parts = rows[:, : count * bits // 8].reshape(len(rows), count, bits // 8)[..., ::-1]
            rows = np.ascontiguousarray(parts).reshape(len(rows), -1)
        planes = np.unpackbits(rows, axis=1, count=count * bits).reshape(len(rows), count, bits)
        values = (planes * powers).sum(-1, dtype=np.uint64)
        if page.formats[0] == SIGNED:
            values = values.astype(np.int64) - ((values >> np.uint64(bits - 1)).astype(np.int64) << bits)
        found[top : top + step] = values
    return found


def _undo_float_predictor(stored: NDArray[np.uint8], columns: int, each: int, dtype: np.dtype[Any]) -> Samples:
    """Undo Adobe's floating point predictor: differences of bytes, and bytes sorted by their weight."""
    if dtype.kind != "f":
        raise DamagedError
    rows, size = len(stored), dtype.itemsize
    summed = stored.reshape(rows, -1, each).cumsum(axis=1, dtype=np.uint8).reshape(rows, size, columns * each)
    bytewise = np.ascontiguousarray(summed.transpose(0, 2, 1))
    return bytewise.view(dtype.newbyteorder(">")).astype(dtype).reshape(rows, columns, each)


def to_unit(page: Page, samples: Samples, name: str) -> Floats:
    """Return samples as floats in [0, 1], by their depth and sign. Raises ImageError if nothing says what white is."""
    bits, kind = page.bits[0], page.formats[0]
    if kind == FLOAT:
        found = np.nan_to_num(samples.astype(np.float32), nan=0.0, posinf=1.0, neginf=0.0)
        if (found > 1).mean() > 0.5:
            raise ImageError(f"{name} has floats up to {found.max():g}; divide them, so that white is 1")
        return np.asarray(found.clip(0, 1))
    most = 2 ** (bits - (kind == SIGNED)) - 1
    if kind == SIGNED:
        if samples.min() < 0:
            raise ImageError(f"{name} has samples below 0 (SampleFormat: signed); save it with unsigned ones")
        if bits > 16 and samples.max() <= 65535:
            most = 65535  # as programs write 16 bits that have no smaller type
    return np.asarray(samples.astype(np.float64 if bits > 16 else np.float32) / most, np.float32)


def to_colors(page: Page, samples: Samples, name: str) -> tuple[Floats, Floats | None]:
    """Return colours, (H, W, 1), (H, W, 3) or CMYK (H, W, 4), not premultiplied, and alpha (H, W); all in [0, 1]."""
    color, count = page.one(PHOTOMETRIC), page.channels
    extra = page.fields.get(EXTRA, ())
    if color == PALETTED:
        return _look_up(page, samples, name), None
    if color in (LAB, ICC_LAB):
        found = _lab_to_srgb(page, samples[..., :3], name)
    else:
        found = to_unit(page, samples[..., :count], name)
        found = _from_reference(page, found) if REFERENCE in page.fields else found
    if color == WHITE_IS_ZERO:
        found = 1 - found
    if color == YCBCR:
        found = _from_ycbcr(page, found)
    if color == CMYK or page.samples == count or not extra or extra[0] not in (ASSOCIATED, UNASSOCIATED):
        return found, None
    alpha = to_unit(page, samples[..., count], name)
    if extra[0] == ASSOCIATED:
        found = np.divide(found, alpha[..., None], out=np.zeros_like(found), where=alpha[..., None] > 0).clip(0, 1)
    return found, alpha


def _look_up(page: Page, samples: Samples, name: str) -> Floats:
    table = np.asarray(page.fields.get(PALETTE, ()), np.float32).reshape(3, -1) / 65535
    if table.shape[1] < 2 ** page.bits[0]:
        raise ImageError(f"{name} is damaged (ColorMap is too short); get it again")
    return np.asarray(table.T[samples[..., 0]])


def _from_reference(page: Page, values: Floats) -> Floats:
    """Stretch values from ReferenceBlackWhite's black and white to 0 and 1; chroma around its middle."""
    pairs = np.array([top / bottom if bottom else 0 for top, bottom in page.fields[REFERENCE]]).reshape(-1, 2)
    most = 2 ** page.bits[0] - 1
    pairs = pairs[: values.shape[-1]] / most
    if len(pairs) < values.shape[-1] or (pairs[:, 0] == pairs[:, 1]).any():
        return values
    if page.one(PHOTOMETRIC) == YCBCR:  # luma from black to white; chroma around its black
        middle = 2 ** (page.bits[0] - 1) / most
        luma = (values[..., :1] - pairs[0, 0]) / (pairs[0, 1] - pairs[0, 0])
        half = (most - 2 ** (page.bits[0] - 1)) / most
        chroma = (values[..., 1:] - pairs[1:, 0]) / (pairs[1:, 1] - pairs[1:, 0]) * half + middle
        return np.concatenate([luma, chroma], -1).clip(0, 1).astype(np.float32)
    return np.asarray(((values - pairs[:, 0]) / (pairs[:, 1] - pairs[:, 0])).clip(0, 1), np.float32)


def _from_ycbcr(page: Page, values: Floats) -> Floats:
    given = page.fields.get(COEFFICIENTS, ((299, 1000), (587, 1000), (114, 1000)))
    red, green, blue = (top / bottom if bottom else 0 for top, bottom in given)
    middle = 2 ** (page.bits[0] - 1) / (2 ** page.bits[0] - 1)
    luma, cb, cr = values[..., 0], values[..., 1] - middle, values[..., 2] - middle
    r, b = luma + (2 - 2 * red) * cr, luma + (2 - 2 * blue) * cb
    g = (luma - red * r - blue * b) / (green or 1)
    return np.stack([r, g, b], -1).clip(0, 1).astype(np.float32)


def _lab_to_srgb(page: Page, samples: Samples, name: str) -> Floats:
    """Convert CIE L*a*b* (D50) to sRGB: a and b are signed, those of an ICC L*a*b* have an offset instead."""
    bits = page.bits[0]
    if bits not in (8, 16) or page.formats[0] == FLOAT:
        raise ImageError(f"{name} holds L*a*b* of {bits} bits a sample; save it as RGB")
    unsigned = samples.astype(np.int64) & 2**bits - 1
    most = 2**bits - 1 if page.one(PHOTOMETRIC) == LAB or bits == 8 else 0xFF00
    light = 100 * unsigned[..., 0] / most
    if page.one(PHOTOMETRIC) == LAB:
        chroma = (unsigned[..., 1:] - (unsigned[..., 1:] >> bits - 1 << bits)) / 2 ** (bits - 8)
    else:
        chroma = unsigned[..., 1:] / 2 ** (bits - 8) - 128
    fy = (light + 16) / 116
    f = np.stack([fy + chroma[..., 0] / 500, fy, fy - chroma[..., 1] / 200], -1)
    xyz = np.where(f > 6 / 29, f**3, 3 * (6 / 29) ** 2 * (f - 4 / 29)) * _D50
    linear = (xyz @ np.array(_SRGB_OF_XYZ_D50).T).clip(0, 1)
    found = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.asarray(found, np.float32)


def tiff_profile(page: Page) -> bytes | None:
    """Return the page's colour profile, embedded or made of TransferFunction, WhitePoint and PrimaryChromaticities."""
    if PROFILE in page.fields:
        return bytes(page.fields[PROFILE][0])
    given = [page.fields.get(tag) for tag in (WHITE, PRIMARIES)]
    curve = page.fields.get(TRANSFER)
    if curve is None and None in given:
        return None
    white, primaries = (
        [top / bottom if bottom else 0 for top, bottom in values] if values else None for values in given
    )
    places = [*(white or SRGB_XY[:2]), *(primaries or SRGB_XY[2:])]
    if curve is None or len(curve) < 2:
        return make_profile(places, None) if len(places) == len(SRGB_XY) else None
    each = np.asarray(curve[: len(curve) // 3] if len(curve) == 3 * 2 ** page.bits[0] else curve, float) / 65535
    points = np.interp(np.linspace(0, len(each) - 1, min(len(each), 1024)), np.arange(len(each)), each)
    return make_profile(places, None, list(points)) if len(places) == len(SRGB_XY) else None
