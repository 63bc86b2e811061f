"""Pictures made to do harm, each drawn by a seed: bombs, lies about sizes, loops, odd depths and modes."""

from __future__ import annotations

import io
import random
import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image, PngImagePlugin

Make = Callable[[random.Random], bytes]
SIDES = (1, 2, 3, 17, 28)
HUGE = (0, 1, 255, 65500, 65535, 2**24, 2**31 - 1, 2**31, 2**32 - 1)


def pixels(draw: random.Random, channels: int = 3, dtype: Any = np.uint8) -> np.ndarray[Any, Any]:
    """A few pixels by chance, (H, W, channels)."""
    shape = (draw.choice(SIDES), draw.choice(SIDES), channels)
    values = np.random.default_rng(draw.randrange(2**32)).random(shape)
    return (values * 255).astype(np.uint8) if dtype is np.uint8 else (values * 65535).astype(dtype)


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    """The bytes of a file of `kind`."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


# --- PNG


def chunk(kind: bytes, data: bytes, *, crc: int | None = None) -> bytes:
    """A chunk, with its own checksum or another."""
    own = zlib.crc32(kind + data) if crc is None else crc
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", own)


def png(header: bytes, data: bytes, *more: bytes) -> bytes:
    """A PNG of a header, what stands before its data, and the data."""
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + b"".join(more) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def head(width: int, height: int, depth: int = 8, kind: int = 2, lace: int = 0) -> bytes:
    return struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, lace)


def png_lies(draw: random.Random) -> bytes:
    """Any size, depth and kind with next to no data."""
    depth, kind = draw.choice([1, 2, 4, 8, 16, 3, 255]), draw.choice([0, 2, 3, 4, 6, 1, 7])
    data = zlib.compress(bytes(draw.choice([0, 1, 1000])))
    return png(head(draw.choice(HUGE), draw.choice(HUGE), depth, kind, draw.choice([0, 1, 2])), data)


def png_bomb(draw: random.Random) -> bytes:
    """Data that expand to far more than the pixels."""
    return png(head(8, 8), zlib.compress(bytes(draw.choice([10**6, 3 * 10**7])), 9))


def png_texts(draw: random.Random) -> bytes:
    """Texts and profiles that expand to much, and very many of them."""
    blown = zlib.compress(bytes(3 * 10**7), 9)
    kinds = [
        chunk(b"zTXt", b"impasto\0\0" + blown),
        chunk(b"iTXt", b"impasto\0\1\0\0\0" + blown),
        chunk(b"iCCP", b"x\0\0" + blown),
        chunk(b"tEXt", b"impasto\0" + b"\x1b]0;a\x07" * 200_000),
        chunk(b"iTXt", b"a\0\0\0\0\0\xff\xfe") * draw.choice([1, 50_000]),
        chunk(b"tRNS", bytes(1000)),
        chunk(b"eXIf", b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x09\0\0\0\x08\0\0\0"),
        chunk(b"gAMA", struct.pack(">I", draw.choice(HUGE))),
        chunk(b"cHRM", struct.pack(">8I", *(draw.choice(HUGE) for _ in range(8)))),
        chunk(b"cICP", bytes(draw.randrange(256) for _ in range(draw.choice([4, 4, 1])))),
        chunk(b"PLTE", bytes(draw.choice([0, 3, 4, 900]))),
        chunk(b"acTL", struct.pack(">II", draw.choice(HUGE), 0)),
    ]
    return png(head(4, 4), zlib.compress(bytes(4 * 13)), *draw.sample(kinds, draw.randint(1, 4)))


def png_moving(draw: random.Random) -> bytes:
    """An animation."""
    first, *others = [Image.fromarray(pixels(draw)).resize((9, 7)) for _ in range(draw.randint(2, 30))]
    return saved(first, "PNG", save_all=True, append_images=others)


def png_deep(draw: random.Random) -> bytes:
    """16 bits, interlaced or not, cut or not."""
    width, height, kind, lace = draw.choice(SIDES), draw.choice(SIDES), draw.choice([0, 2, 4, 6]), draw.choice([0, 1])
    size = 2 * {0: 1, 2: 3, 4: 2, 6: 4}[kind]
    rows = b"".join(bytes([draw.choice([0, 1, 2, 3, 4, 5])]) + draw.randbytes(width * size) for _ in range(2 * height))
    return png(head(width, height, 16, kind, lace), zlib.compress(rows[: draw.randint(0, len(rows))]))


def png_marked(draw: random.Random) -> bytes:
    """Texts whose names and values are for terminals."""
    info = PngImagePlugin.PngInfo()
    info.add_itxt(
        draw.choice(["impasto", "\x1b[2J", "a\nb"]), draw.choice(["{", "[" * 100_000, '{"method":NaN}', "\0"])
    )
    return saved(Image.fromarray(pixels(draw)), "PNG", pnginfo=info)


# --- JPEG


def jpeg_odd(draw: random.Random) -> bytes:
    """CMYK, YCCK, grey, many scans, many markers, lies about the size."""
    mode = draw.choice(["RGB", "CMYK", "L"])
    image = Image.fromarray(pixels(draw, 4), "RGBA").convert("RGB").convert(mode)
    data = saved(image, "JPEG", progressive=draw.random() < 0.5)
    adobe = b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0" + bytes([draw.choice([0, 1, 2, 9])])
    comment = b"\xff\xfe" + struct.pack(">H", 60_002) + b"\x1b[31m" * 12_000
    exif = (
        b"\xff\xe1"
        + struct.pack(">H", 34)
        + b"Exif\0\0"
        + b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x63\0\0\0\0\0\x08"
    )
    profile = (
        b"\xff\xe2"
        + struct.pack(">H", 34)
        + b"ICC_PROFILE\0"
        + bytes([draw.randrange(4), draw.randrange(4)])
        + bytes(18)
    )
    more = draw.choice([b"", adobe, comment * draw.choice([1, 300]), exif[: draw.randint(20, 40)], profile * 3])
    data = data[:2] + more + data[2:]
    frame = max(data.find(b"\xff\xc0"), data.find(b"\xff\xc2"))
    if draw.random() < 0.5:
        size = struct.pack(">HH", *(draw.choice([0, 1, 9000, 65500, 65535]) for _ in range(2)))
        data = data[: frame + 5] + size + data[frame + 9 :]
    scan = data.find(b"\xff\xda")
    return data[:scan] + data[scan:-2] * draw.choice([1, 1, 3, 2000]) + data[-2:]


def jpeg_several(draw: random.Random) -> bytes:
    """Several pictures in one file (MPO), their table damaged or not."""
    first, *others = [Image.fromarray(pixels(draw)).resize((16, 16)) for _ in range(draw.randint(2, 5))]
    data = bytearray(saved(first, "MPO", save_all=True, append_images=others))
    for _ in range(draw.choice([0, 1, 8])):
        data[draw.randrange(20, min(400, len(data)))] = draw.randrange(256)
    return bytes(data)


# --- WebP, GIF, BMP, AVIF, JPEG 2000 and what is none of them


def webp_odd(draw: random.Random) -> bytes:
    """Animations, and a canvas that is not the picture's."""
    if draw.random() < 0.5:
        first, *others = [Image.fromarray(pixels(draw)).resize((9, 7)) for _ in range(draw.randint(2, 9))]
        data = bytearray(saved(first, "WEBP", save_all=True, append_images=others))
    else:
        data = bytearray(saved(Image.fromarray(pixels(draw, 4)), "WEBP", exif=b"Exif\0\0" + draw.randbytes(40)))
    if data[12:16] == b"VP8X" and draw.random() < 0.7:
        data[24:30] = draw.choice([b"\xff" * 6, bytes(6), draw.randbytes(6)])
    return bytes(data)


def gif_odd(draw: random.Random) -> bytes:
    """Huge screens, comments without end, frames outside."""
    screen = struct.pack(
        "<HHBBB", *(draw.choice([0, 1, 10, 65535]) for _ in range(2)), draw.choice([0, 0x80, 0x87]), 0, 0
    )
    table = draw.randbytes(3 << (screen[4] & 7) + 1) if screen[4] & 0x80 else b""
    remark = b"!\xfe" + (b"\xff" + b"\x1b" * 255) * draw.choice([1, 8000]) + b"\0"
    control = b"!\xf9\x04" + draw.randbytes(4) + b"\0"
    frame = b"," + struct.pack(
        "<HHHHB", *(draw.choice([0, 1, 8, 60000]) for _ in range(4)), draw.choice([0, 0x40, 0x81])
    )
    codes = bytes([draw.choice([2, 8, 11, 12, 255])]) + b"\x08" + draw.randbytes(8) + b"\0"
    parts = [remark, control, frame + (draw.randbytes(12) if frame[-1] & 0x80 else b"") + codes]
    return b"GIF89a" + screen + table + b"".join(draw.choices(parts, k=draw.randint(1, 6))) + b";"


def bmp_odd(draw: random.Random) -> bytes:
    """Negative and huge sizes, run lengths, palettes that are too short."""
    width, height = (draw.choice([-(2**31), -3, 0, 1, 5, 30_000, 2**31 - 1]) for _ in range(2))
    bits, packing = draw.choice([0, 1, 4, 8, 16, 24, 32, 64]), draw.choice([0, 1, 2, 3, 4])
    info = struct.pack(
        "<IiiHHIIiiII", 40, width, height, 1, bits, packing, 0, 0, 0, draw.choice([0, 2, 256, 2**32 - 1]), 0
    )
    data = draw.randbytes(draw.choice([0, 64, 4096]))
    return b"BM" + struct.pack("<IHHI", 54 + len(data), 0, 0, draw.choice([0, 54, 54 + 1024, 2**32 - 1])) + info + data


def boxes_odd(draw: random.Random) -> bytes:
    """Beginnings of AVIF, HEIC and JPEG 2000, their boxes lying about sizes."""
    brand = draw.choice([b"avif", b"avis", b"heic", b"mif1", b"jp2 ", b"crx "])
    whole = saved(Image.fromarray(pixels(draw)).resize((16, 16)), "AVIF") if draw.random() < 0.5 else b""
    if whole:
        at = whole.find(b"ispe") + 8
        return whole[:at] + struct.pack(">II", draw.choice(HUGE), draw.choice(HUGE)) + whole[at + 8 :]
    box = struct.pack(">I4s", draw.choice(HUGE), b"meta") + draw.randbytes(draw.choice([0, 30, 4000]))
    begin = b"\0\0\0\x0cjP  \r\n\x87\n" if brand == b"jp2 " else b""
    return begin + struct.pack(">I4s4sI", draw.choice([16, 20, 2**32 - 1]), b"ftyp", brand, 0) + box


def others(draw: random.Random) -> bytes:
    """What is no picture, or one of a format that is not read."""
    image = Image.fromarray(pixels(draw))
    kind = draw.choice(["JPEG2000", "PPM", "TGA", "ICO", "PCX", "PDF", "text"])
    if kind == "text":
        return draw.choice(
            [b"", b"<svg/>", b"\xef\xbb\xbf <html>", b"\0" * 70_000, b"PK\3\4" + bytes(90), b"%!PS-Adobe"]
        )
    return saved(image.resize((16, 16)), kind)


# --- TIFF


def tiff_odd(draw: random.Random) -> bytes:
    """Any depth, format, compression and size, in chunks that lie anywhere, with loops of pages."""
    order, big = draw.choice("<>"), draw.random() < 0.2
    data = draw.randbytes(draw.choice([0, 9, 600]))
    data = draw.choice([data, zlib.compress(data), zlib.compress(bytes(10**7), 9)])
    count = draw.choice([1, 1, 1, 2, 5000])
    begin = 16 if big else 8
    sizes = [
        draw.choice([1, 3, 16, 28, 65536, 2**31 - 1, 0]) if draw.random() < 0.3 else draw.choice([3, 16])
        for _ in range(2)
    ]
    bits = draw.choice([1, 2, 4, 8, 12, 16, 24, 32, 64, 0, 99])
    fields: dict[int, tuple[int, tuple[int, ...]]] = {
        256: (4, (sizes[0],)),
        257: (4, (sizes[1],)),
        258: (3, (bits,) * draw.choice([1, 3])),
        259: (3, (draw.choice([1, 1, 5, 7, 8, 32773, 34925, 50000, 6, 4, 34712, 0]),)),
        262: (3, (draw.choice([0, 1, 2, 3, 5, 6, 8, 9, 10, 32803]),)),
        273: (4, tuple(draw.choice([begin, begin, 0, 2**31]) for _ in range(count))),
        274: (3, (draw.choice([0, 1, 5, 6, 99]),)),
        277: (3, (draw.choice([1, 3, 4, 16, 17, 0, 65535]),)),
        278: (4, (draw.choice([1, 3, 16, 2**32 - 1, 0]),)),
        279: (4, tuple(draw.choice([len(data), len(data), 0, 2**32 - 1]) for _ in range(count))),
        284: (3, (draw.choice([1, 1, 2, 3]),)),
        317: (3, (draw.choice([1, 1, 2, 3, 9]),)),
        320: (3, (0,) * draw.choice([3, 768])),
        338: (3, (draw.choice([0, 1, 2]),) * draw.choice([1, 2])),
        339: (3, (draw.choice([1, 2, 3, 4, 5]),)),
    }
    if draw.random() < 0.3:
        tile = draw.choice([16, 0, 2**31 - 16])
        fields |= {322: (4, (tile,)), 323: (4, (tile,)), 324: fields.pop(273), 325: fields.pop(279)}
    for tag in draw.sample(sorted(fields), draw.choice([0, 0, 1, 4])):
        del fields[tag]
    return _tiff(order, big, fields, data, loop=draw.random() < 0.3)


def _tiff(order: str, big: bool, fields: dict[int, tuple[int, tuple[int, ...]]], data: bytes, *, loop: bool) -> bytes:
    mark = b"II" if order == "<" else b"MM"
    begin = 16 if big else 8
    start = begin + len(data)
    room = start + (8 + 20 * len(fields) + 8 if big else 2 + 12 * len(fields) + 4)
    rows, tail = b"", b""
    for tag, (kind, values) in sorted(fields.items()):
        body = struct.pack(f"{order}{len(values)}{'H' if kind == 3 else 'I'}", *values)
        if len(body) > (8 if big else 4):
            body, tail = struct.pack(order + ("Q" if big else "I"), room + len(tail)), tail + body
        rows += struct.pack(order + ("HHQ" if big else "HHI"), tag, kind, len(values)) + body.ljust(
            8 if big else 4, b"\0"
        )
    where = struct.pack(order + ("Q" if big else "I"), start)
    after = where if loop else bytes(len(where))
    top = mark + (struct.pack(order + "HHH", 43, 8, 0) if big else struct.pack(order + "H", 42)) + where
    return top + data + struct.pack(order + ("Q" if big else "H"), len(fields)) + rows + after + tail


def tiff_float(draw: random.Random) -> bytes:
    """Floats, among them NaN and infinity, and deep and 1-bit pictures that Pillow writes."""
    kind = draw.choice(["F", "I;16", "1", "I"])
    if kind == "F":
        values = np.array(
            [[draw.choice([0.0, 1.0, -1.0, 1e38, float("nan"), float("inf")]) for _ in range(5)] for _ in range(4)]
        )
        return saved(Image.fromarray(values.astype(np.float32)), "TIFF")
    if kind == "1":
        return saved(
            Image.fromarray(pixels(draw)).convert("1"), "TIFF", compression=draw.choice(["group4", "packbits", "raw"])
        )
    values = pixels(draw, 1, np.uint16)[..., 0]
    return saved(Image.fromarray(values if kind == "I;16" else values.astype(np.int32)), "TIFF")


MADE: dict[str, Make] = {
    make.__name__: make
    for make in (
        *(png_lies, png_bomb, png_texts, png_moving, png_deep, png_marked, jpeg_odd, jpeg_several, webp_odd, gif_odd),
        *(bmp_odd, boxes_odd, others, tiff_odd, tiff_float),
    )
}


def cut_or_spoiled(draw: random.Random, data: bytes) -> bytes:
    """A file as it is, cut off anywhere, or with some bytes changed."""
    kind = draw.randrange(4)
    if kind == 0 or not data:
        return data
    if kind == 1:
        return data[: draw.randrange(len(data))]
    found = bytearray(data)
    for _ in range(draw.randint(1, 6)):
        found[draw.randrange(min(len(found), draw.choice([64, 600, len(found)])))] = draw.randrange(256)
    return bytes(found)
