"""Reads format and size of a picture from its first bytes; cuts a GIF to its first frame."""

from __future__ import annotations

import io
import struct
from typing import BinaryIO

HEAD = 1 << 16
MOST_GIF, MOST_REMARKS, LEAST_BLOCK = 1 << 28, 1 << 25, 128
"""Most bytes of a GIF's first frame, most bytes before it, and the least cost of a block."""
HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
AVIF_BRANDS = (b"avif", b"avis")


def kind_of(head: bytes) -> str:
    """Return the format of a file by its first bytes: TIFF, GIF, AVIF, HEIF, PNG, JPEG, WEBP, BMP, or empty."""
    if head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return "TIFF"
    if head[:6] in (b"GIF87a", b"GIF89a"):
        return "GIF"
    if head[:8] == b"\x89PNG\r\n\x1a\n":
        return "PNG"
    if head[:3] == b"\xff\xd8\xff":
        return "JPEG"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    if head[:2] == b"BM":
        return "BMP"
    if head[4:8] == b"ftyp":
        brands = [head[8:12], *(head[at : at + 4] for at in range(16, min(_box_end(head), 128), 4))]
        if any(brand in AVIF_BRANDS for brand in brands):
            return "AVIF"
        return "HEIF" if any(brand in HEIF_BRANDS for brand in brands) else ""
    return ""


def _box_end(head: bytes) -> int:
    return int(struct.unpack(">I", head[:4])[0])


def pixels_of(head: bytes, kind: str) -> int:
    """Return how many pixels a file's first bytes announce; 0 if they don't show it."""
    try:
        if kind == "PNG":
            width, height = struct.unpack(">II", head[16:24])
        elif kind == "BMP":
            width, height = struct.unpack("<ii", head[18:26])
        elif kind == "WEBP":
            width, height = _webp_size(head)
        elif kind in ("AVIF", "HEIF"):
            found = [struct.unpack(">II", head[at + 8 : at + 16]) for at in _occurrences(head, b"ispe")]
            width, height = max(found, key=lambda size: size[0] * size[1])
        else:
            return 0
    except (struct.error, ValueError, IndexError):
        return 0
    return int(abs(width * height))


def _occurrences(head: bytes, word: bytes) -> list[int]:
    found, at = [], head.find(word)
    while at >= 0:
        found.append(at)
        at = head.find(word, at + 4)
    return found


def _webp_size(head: bytes) -> tuple[int, int]:
    if head[12:16] == b"VP8X":
        return int.from_bytes(head[24:27], "little") + 1, int.from_bytes(head[27:30], "little") + 1
    if head[12:16] == b"VP8L":
        bits = int.from_bytes(head[21:25], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    width, height = struct.unpack("<HH", head[26:30])
    return width & 0x3FFF, height & 0x3FFF


def first_gif_frame(file: BinaryIO) -> io.BytesIO | None:
    """Return a GIF with the first frame only, without comments; None if it has no frame.

    Pillow joins the parts of a comment one by one, which takes minutes for some megabytes of them.
    """
    head = file.read(13)
    if len(head) < 13:
        return None
    kept = [head, file.read(_table_bytes(head[10]))]
    control, walked = b"", 0
    while walked < MOST_REMARKS:
        mark = file.read(1)
        if mark == b"!":
            label = file.read(1)
            blocks, size = _sub_blocks(file, MOST_REMARKS - walked, keep=label == b"\xf9")
            walked += size + LEAST_BLOCK
            control = b"!" + label + blocks if label == b"\xf9" else control
        elif mark == b",":
            descriptor = file.read(9)
            table = file.read(_table_bytes(descriptor[8])) if len(descriptor) == 9 else b""
            code_size = file.read(1)
            most = min(MOST_GIF, (1 << 20) + 4 * _frame_pixels(descriptor))
            blocks, size = _sub_blocks(file, most, keep=True)
            if size >= most:
                return None
            return io.BytesIO(b"".join([*kept, control, b",", descriptor, table, code_size, blocks, b";"]))
        elif mark == b"\0":
            walked += LEAST_BLOCK
        else:
            return None
    return None


def _frame_pixels(descriptor: bytes) -> int:
    width, height = struct.unpack("<HH", descriptor[4:8].ljust(4, b"\0"))
    return int(width * height)


def _table_bytes(flags: int) -> int:
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _sub_blocks(file: BinaryIO, most: int, *, keep: bool) -> tuple[bytes, int]:
    """Read a series of sub-blocks, at most `most` bytes; return their bytes, if `keep`, and their cost."""
    kept, size = bytearray(), 0
    while size < most:
        length = file.read(1)
        if keep:
            kept += length
        if length in (b"", b"\0"):
            break
        block = file.read(length[0])
        size += max(len(block) + 1, LEAST_BLOCK)
        if keep:
            kept += block
    return bytes(kept), size
