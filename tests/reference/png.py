"""PNG's rows, byte by byte (ISO/IEC 15948, clause 9.2)."""

from __future__ import annotations

import struct
import zlib

import numpy as np


def decode_png(data: bytes) -> np.ndarray:
    """(H, W, 3 or 4) of uint8 or uint16, of a file whose rows are all filtered by the average."""
    chunks, at = [], 8
    while at < len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        kind, content = data[at + 4 : at + 8], data[at + 8 : at + 8 + length]
        assert struct.unpack(">I", data[at + 8 + length : at + 12 + length]) == (zlib.crc32(kind + content),)
        chunks.append((kind, content))
        at += 12 + length
    assert chunks[-1] == (b"IEND", b"")
    width, height, bits, kind = struct.unpack(">IIBB", chunks[0][1][:10])
    channels = {2: 3, 6: 4}[kind]
    step = channels * bits // 8
    rows = zlib.decompress(b"".join(content for kind, content in chunks if kind == b"IDAT"))
    wide = width * step + 1
    above, found = bytes(wide - 1), b""
    for y in range(height):
        assert rows[y * wide] == 3
        row = bytearray(rows[y * wide + 1 : (y + 1) * wide])
        for x in range(wide - 1):
            row[x] = (row[x] + ((row[x - step] if x >= step else 0) + above[x]) // 2) % 256
        above, found = bytes(row), found + bytes(row)
    return np.frombuffer(found, f">u{bits // 8}").reshape(height, width, channels)
