"""TIFF files: the fields of the first page, read within bounds, decide how it is decoded.

Pillow reads common files, but ignores fields that change the meaning of samples (TIFF 6.0; Adobe's technical notes). So
the fields are checked here first: the page is left to Pillow, or read by `tiff_samples`, or refused, naming the field.
"""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass
from typing import Any, BinaryIO, Literal

from impasto.errors import ImageError

WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, FILL_ORDER = 256, 257, 258, 259, 262, 266
STRIPS, ORIENTATION, SAMPLES, ROWS, STRIP_BYTES, PLANES = 273, 274, 277, 278, 279, 284
TRANSFER, PREDICTOR, WHITE, PRIMARIES, PALETTE = 301, 317, 318, 319, 320
TILE_WIDTH, TILE_HEIGHT, TILES, TILE_BYTES, INKS, EXTRA, FORMAT = 322, 323, 324, 325, 332, 338, 339
TABLES, COEFFICIENTS, SUBSAMPLING, POSITIONING, REFERENCE, PROFILE = 347, 529, 530, 531, 532, 34675
KEPT = {
    *(WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, FILL_ORDER, STRIPS, ORIENTATION, SAMPLES, ROWS, STRIP_BYTES),
    *(PLANES, TRANSFER, PREDICTOR, WHITE, PRIMARIES, PALETTE, TILE_WIDTH, TILE_HEIGHT, TILES, TILE_BYTES, INKS),
    *(EXTRA, FORMAT, TABLES, COEFFICIENTS, SUBSAMPLING, POSITIONING, REFERENCE, PROFILE, 292, 293),
}
MOST_ENTRIES, MOST_FIELD, MOST_NUMBERS, MOST_SAMPLES = 4096, 1 << 26, 1 << 21, 16
FEW_CHUNKS, PIXELS_A_CHUNK, SMALL_TILE = 1 << 13, 64, 1 << 22
"""Number of strips or tiles that any page may have, pixels for each further one, and pixels of a tile."""
CHUNK_SLACK = 1 << 16

_TYPES = {1: "B", 2: "s", 3: "H", 4: "I", 6: "b", 7: "s", 8: "h", 9: "i", 11: "f", 12: "d", 13: "I"}
_TYPES |= {5: "II", 10: "ii", 16: "Q", 17: "q", 18: "Q"}
WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTED, CMYK, YCBCR, LAB, ICC_LAB = 0, 1, 2, 3, 5, 6, 8, 9
_CHANNELS = {WHITE_IS_ZERO: 1, BLACK_IS_ZERO: 1, RGB: 3, PALETTED: 1, CMYK: 4, YCBCR: 3, LAB: 3, ICC_LAB: 3}
_ODD_COLORS = {
    4: "a transparency mask",
    10: "ITU L*a*b* colours",
    32803: "raw samples of a camera",
    32844: "LogL samples",
    32845: "LogLuv samples",
    34892: "raw samples of a camera",
    51177: "a depth map",
}
COMPRESSIONS = {1: "none", 5: "LZW", 8: "deflate", 32946: "deflate", 32773: "PackBits", 34925: "LZMA", 50000: "zstd"}
"""Codecs that decode to bytes for all kinds of samples."""
_PICTURE_CODECS = {2: "CCITT", 3: "fax", 4: "fax", 6: "JPEG", 7: "JPEG", 50001: "WebP"}
_OTHER_CODECS = {34661: "JBIG", 34712: "JPEG 2000", 33003: "JPEG 2000", 33005: "JPEG 2000", 34887: "LERC"}
_OTHER_CODECS |= {50002: "JPEG XL", 52546: "JPEG XL", 34713: "Nikon's NEF", 34676: "SGI Log", 34677: "SGI Log"}


@dataclass(frozen=True)
class Page:
    """The first page of a TIFF file: byte order (< or >), its fields by number, the chunks' places in the file."""

    order: Literal["<", ">"]
    fields: dict[int, tuple[Any, ...]]
    types: dict[int, int]

    def one(self, tag: int, default: int = 0) -> int:
        """Return the first number of a field."""
        values = self.fields.get(tag)
        return int(values[0]) if values else default

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.one(HEIGHT), self.one(WIDTH)

    @property
    def bits(self) -> tuple[int, ...]:
        """Bits of each sample."""
        given = self.fields.get(BITS, (1,))
        return given * self.samples if len(given) == 1 else given

    @property
    def formats(self) -> tuple[int, ...]:
        """Sample formats: 1 unsigned, 2 signed, 3 floating point, 4 undefined."""
        given = self.fields.get(FORMAT, (1,))
        return given * self.samples if len(given) == 1 else given

    @property
    def samples(self) -> int:
        """Samples a pixel."""
        return self.one(SAMPLES, 1)

    @property
    def channels(self) -> int:
        """Samples that are colours."""
        return _CHANNELS[self.one(PHOTOMETRIC)]

    @property
    def chunks(self) -> list[tuple[int, int]]:
        """Offset and length of each strip or tile."""
        names = (TILES, TILE_BYTES) if TILES in self.fields else (STRIPS, STRIP_BYTES)
        return list(zip(*(self.fields[name] for name in names), strict=True))


def read_page(file: BinaryIO, name: str) -> Page:
    """Read the fields of the first page that say what its samples are; raises ImageError if they are damaged."""
    try:
        return _read_page(file)
    except (struct.error, KeyError, ValueError, OverflowError, UnicodeDecodeError):
        raise ImageError(f"{name} is damaged or incomplete (its TIFF fields); get it again") from None


def _read_page(file: BinaryIO) -> Page:
    file.seek(0)
    head = file.read(16)
    order: Literal["<", ">"] = "<" if head[:2] == b"II" else ">"
    big = head[2:4] in (b"+\0", b"\0+")
    (start,) = struct.unpack(order + "Q", head[8:16]) if big else struct.unpack(order + "I", head[4:8])
    file.seek(start)
    (count,) = struct.unpack(order + "HQ"[big], file.read(8 if big else 2))
    if count > MOST_ENTRIES:
        raise ValueError
    row = struct.Struct(order + ("HHQ8s" if big else "HHI4s"))
    table = file.read(row.size * count)
    fields: dict[int, tuple[Any, ...]] = {}
    types: dict[int, int] = {}
    for tag, kind, number, value in row.iter_unpack(table):
        code = _TYPES.get(kind)
        if tag not in KEPT or code is None or tag in fields:
            continue
        size = number * struct.calcsize(order + code)
        if size > MOST_FIELD or (code != "s" and number > MOST_NUMBERS):
            raise ValueError
        if size > len(value):
            file.seek(struct.unpack(order + "IQ"[big], value)[0])
            value = file.read(size)
        fields[tag], types[tag] = _values(order, code, number, value[:size]), kind
    return Page(order, fields, types)


def _values(order: str, code: str, number: int, data: bytes) -> tuple[Any, ...]:
    if code == "s":
        if len(data) != number:
            raise ValueError
        return (data,)
    found = struct.unpack(f"{order}{number * len(code)}{code[0]}", data)
    return tuple(zip(found[::2], found[1::2], strict=True)) if len(code) == 2 else found


def check_page(page: Page, name: str) -> None:
    """Raise ImageError, naming the field, for one that is damaged or describes an unreadable page."""
    height, width = page.size
    color, codec = page.one(PHOTOMETRIC, -1), page.one(COMPRESSION, 1)
    if min(height, width, page.samples) < 1 or not _has_chunks(page):
        raise ImageError(f"{name} is damaged or incomplete (its TIFF fields); get it again")
    if not _has_sane_chunks(page):
        raise ImageError(f"{name} has more or larger strips or tiles than its picture needs; save the picture again")
    if color not in _CHANNELS:
        what = _ODD_COLORS.get(color, f"PhotometricInterpretation {color}")
        raise ImageError(f"{name} holds {what}, which are not read; develop or save it as an RGB picture")
    if page.samples > MOST_SAMPLES:
        raise ImageError(f"{name} has {page.samples} samples a pixel (SamplesPerPixel); save it as RGB")
    if page.samples < page.channels or len(page.bits) != page.samples or len(page.formats) != page.samples:
        raise ImageError(f"{name} is damaged (SamplesPerPixel does not fit its other fields); get it again")
    if len(set(page.bits)) > 1 or len(set(page.formats)) > 1:
        raise ImageError(f"{name} has samples of different kinds (BitsPerSample); save it with 8 or 16 bits each")
    if page.formats[0] not in (1, 2, 3, 4):
        raise ImageError(f"{name} holds complex numbers (SampleFormat {page.formats[0]}); save a picture of them")
    if page.formats[0] == 3 and page.bits[0] not in (16, 32, 64):
        raise ImageError(f"{name} holds floats of {page.bits[0]} bits (BitsPerSample); save it with 32")
    if not 1 <= page.bits[0] <= 64:
        raise ImageError(f"{name} has {page.bits[0]} bits a sample (BitsPerSample); save it with 8 or 16")
    if codec not in COMPRESSIONS and codec not in _PICTURE_CODECS:
        what = _OTHER_CODECS.get(codec, f"Compression {codec}")
        raise ImageError(f"{name} is compressed by {what}, which is not read; save it with LZW or deflate")
    if page.one(PREDICTOR, 1) not in (1, 2, 3):
        raise ImageError(f"{name} has Predictor {page.one(PREDICTOR)}, which is not known; save it without")
    if page.one(PLANES, 1) not in (1, 2) or page.one(FILL_ORDER, 1) not in (1, 2):
        raise ImageError(f"{name} is damaged (PlanarConfiguration or FillOrder); get it again")
    if color == CMYK and (page.one(INKS, 1) != 1 or page.samples < 4):
        raise ImageError(f"{name} holds other inks than CMYK (InkSet); save it as RGB")


def _has_chunks(page: Page) -> bool:
    pairs = (page.fields.get(name) for name in ((TILES, TILE_BYTES) if TILES in page.fields else (STRIPS, STRIP_BYTES)))
    offsets, lengths = pairs
    return offsets is not None and lengths is not None and 0 < len(offsets) == len(lengths)


def _has_sane_chunks(page: Page) -> bool:
    """Return whether a page's strips or tiles are not far more, and not far larger, than its size needs."""
    height, width = page.size
    if TILES in page.fields and page.one(TILE_HEIGHT) * page.one(TILE_WIDTH) > max(SMALL_TILE, 4 * height * width):
        return False
    return len(page.chunks) <= FEW_CHUNKS + height * width * page.samples // PIXELS_A_CHUNK


def is_common(page: Page) -> bool:
    """Return whether Pillow makes the right picture of the page."""
    color, codec, samples = page.one(PHOTOMETRIC), page.one(COMPRESSION, 1), page.samples
    if codec in _PICTURE_CODECS:
        return True
    if page.bits[0] not in (1, 2, 4, 8) or page.formats[0] not in (1, 4) or (page.one(PLANES, 1) != 1 and samples > 1):
        return False
    if color == YCBCR:
        return codec != 1
    if REFERENCE in page.fields or page.one(FILL_ORDER, 1) != 1:
        return False
    if color in (RGB, CMYK):
        return page.bits[0] == 8 and len(page.fields.get(EXTRA, ())) == samples - page.channels
    return samples == page.channels and color != ICC_LAB


def check_codec(page: Page, name: str) -> None:
    """Raise ImageError for pages with a picture codec that Pillow would decode wrongly."""
    codec, bits = page.one(COMPRESSION, 1), page.bits[0]
    if codec in _PICTURE_CODECS and (bits not in (1, 8) or page.formats[0] not in (1, 4)):
        kind = f"{_PICTURE_CODECS[codec]} with {bits} bits"
        raise ImageError(f"{name} is compressed by {kind}, which is not read; save it with LZW or deflate")


def alone(page: Page, file: BinaryIO, budget: int) -> io.BytesIO | None:
    """Return a TIFF file that holds this page alone, for Pillow; None if its chunks take more than `budget` bytes."""
    chunks = page.chunks
    if sum(length for _, length in chunks) > budget:
        return None
    data = bytearray()
    places = []
    for offset, length in chunks:
        file.seek(offset)
        places.append(len(data))
        data += file.read(length)
    fields = {tag: values for tag, values in page.fields.items() if tag not in (TILES, STRIPS)}
    return io.BytesIO(build(page.order, fields, page.types, bytes(data), places, tiled=TILES in page.fields))


def build(
    order: str,
    fields: dict[int, tuple[Any, ...]],
    types: dict[int, int],
    data: bytes,
    places: list[int],
    *,
    tiled: bool = False,
) -> bytes:
    """Return a TIFF file of one page: its fields, and data with chunks that begin at `places`."""
    where = TILES if tiled else STRIPS
    fields, types = {**fields, where: tuple(places)}, {**types, where: 4}
    begin = 8 + 2 + 12 * len(fields) + 4
    packed = {tag: _pack(order, _TYPES[types.get(tag, 4)], values) for tag, values in fields.items()}
    long = {tag: value for tag, value in packed.items() if len(value) > 4}
    at, offsets = begin, {}
    for tag, value in long.items():
        offsets[tag] = at
        at += len(value) + len(value) % 2
    packed[where] = _pack(order, "I", tuple(place + at for place in places))
    long = {tag: packed[tag] for tag in long}
    rows = b"".join(
        struct.pack(order + "HHI", tag, types.get(tag, 4), _number(fields[tag], types.get(tag, 4)))
        + (struct.pack(order + "I", offsets[tag]) if tag in offsets else packed[tag].ljust(4, b"\0"))
        for tag in sorted(fields)
    )
    head = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(order + "I", 8)
    tail = b"".join(value + b"\0" * (len(value) % 2) for value in long.values())
    return head + struct.pack(order + "H", len(fields)) + rows + bytes(4) + tail + data


def _pack(order: str, code: str, values: tuple[Any, ...]) -> bytes:
    if code == "s":
        return bytes(values[0])
    flat = [part for pair in values for part in pair] if len(code) == 2 else values
    return struct.pack(f"{order}{len(flat)}{code[0]}", *flat)


def _number(values: tuple[Any, ...], kind: int) -> int:
    return len(values[0]) if _TYPES[kind] == "s" else len(values)
