"""The length of a video file by its own header, in MP4, Matroska and AVI."""

from __future__ import annotations

from typing import BinaryIO


def missing_bytes(file: BinaryIO) -> int:
    """Return how many bytes an MP4, Matroska or AVI file lacks according to its header."""
    size = file.seek(0, 2)
    file.seek(0)
    head = file.read(64)
    if head[:4] == b"\x1aE\xdf\xa3":
        return max(0, _matroska_end(head, file) - size)
    boxes = head[4:8] in (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"styp", b"pnot")
    if not boxes and (head[:4], head[8:12]) != (b"RIFF", b"AVI "):
        return 0
    end = 0
    while end < size:
        file.seek(end)
        head = file.read(16)
        step = _box_size(head) if boxes else _riff_size(head)
        if not step:
            return 0
        end += step
    return end - size


def _box_size(head: bytes) -> int:
    size = int.from_bytes(head[:4], "big")
    size = int.from_bytes(head[8:16], "big") if size == 1 else size
    return size if size >= 8 and head[4:8].isalnum() else 0  # 0: to the end of the file


def _riff_size(head: bytes) -> int:
    size = int.from_bytes(head[4:8], "little")
    return 8 + size + size % 2 if head[:4] == b"RIFF" and size else 0


def _matroska_end(head: bytes, file: BinaryIO) -> int:
    """Return where the segment ends, by the size behind its name; 0 if unknown."""

    def number(at: int, data: bytes) -> tuple[int, int]:
        length = 9 - data[at].bit_length() if data[at] else 9
        value = int.from_bytes(data[at : at + length], "big") & ((1 << 7 * length) - 1)
        return (0 if value == (1 << 7 * length) - 1 else value), at + length

    size, at = number(4, head)
    file.seek(at + size)
    data = file.read(16)
    if data[:4] != b"\x18S\x80g":
        return 0
    length, behind = number(4, data)
    return at + size + behind + length if length else 0
