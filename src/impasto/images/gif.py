"""Cuts a GIF to its first frame."""

from __future__ import annotations

import io
import struct
from typing import BinaryIO

MOST_GIF, MOST_REMARKS, LEAST_BLOCK = 1 << 28, 1 << 25, 128
"""Most bytes of a GIF's first frame, most bytes before it, and the least cost of a block."""


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
