"""A map that a tiled run keeps between passes, in pieces of rows.

A pass reads maps from top to bottom and writes others. As soon as rows are read for the last time, their memory holds
rows of the maps that are being written, whatever the number of channels of both.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

PRIVATE: dict[str, Any] = (
    {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if hasattr(mmap, "MAP_PRIVATE") else {}  # Windows has none
)

PIECE = 8 << 20
"""Bytes of a piece, if that is enough for one row."""


class Pieces:
    """Memory in pieces of equal size, which maps take and give back.

    On a CPU each is mapped by itself: so it does not lie between maps of tiles, and the system gets it back at once.
    """

    def __init__(self, device: torch.device) -> None:
        self.device, self.reuse = device, True
        self.free: list[Tensor] = []

    def take(self, least: int) -> Tensor:
        """Return a piece of at least `least` bytes, (N,) uint8, not initialised; raises MemoryError."""
        if least <= PIECE and self.free:
            return self.free.pop()
        size = max(least, PIECE)
        if self.device.type != "cpu":
            return torch.empty(size, dtype=torch.uint8, device=self.device)
        try:
            return torch.frombuffer(mmap.mmap(-1, size, **PRIVATE), dtype=torch.uint8)
        except OSError as error:
            raise MemoryError(str(error)) from error

    def give(self, piece: Tensor) -> None:
        """Take back a piece that nothing reads any more."""
        if self.reuse and len(piece) == PIECE:
            self.free.append(piece)

    def close(self) -> None:
        """Give back all that is free, now and from now on: no more maps are written."""
        self.reuse = False
        self.free.clear()


class KeptMap:
    """A map of `shape`, (B, C, H, W), that is written and read by rows and columns, in channels-last format."""

    def __init__(self, shape: tuple[int, ...], dtype: torch.dtype, memory: Pieces) -> None:
        self.shape, self.dtype, self.memory = shape, dtype, memory
        batch, channels, self.height, width = shape
        self.row = batch * channels * width * dtype.itemsize
        self.rows = max(1, PIECE // max(1, self.row))
        self.pieces: dict[int, Tensor] = {}

    @property
    def nbytes(self) -> int:
        """Bytes of the whole map."""
        return math.prod(self.shape) * self.dtype.itemsize

    def read(self, rows: slice, columns: slice) -> Tensor:
        """Return a copy of these rows and columns, (B, C, h, w), channels-last."""
        batch, channels, _, _ = self.shape
        size = (batch, rows.stop - rows.start, columns.stop - columns.start, channels)
        found = torch.empty(size, dtype=self.dtype, device=self.memory.device)
        for own, there, number in self._parts(rows):
            found[:, own] = self._view(number)[:, there, columns]
        return found.permute(0, 3, 1, 2)

    def write(self, rows: slice, columns: slice, value: Tensor) -> None:
        """Write `value`, (B, C, h, w), to these rows and columns."""
        value = value.permute(0, 2, 3, 1)
        for own, there, number in self._parts(rows):
            if number not in self.pieces:
                self.pieces[number] = self.memory.take(self.rows * self.row)
            self._view(number)[:, there, columns] = value[:, own]

    def release(self, above: int) -> None:
        """Give back the memory of rows above this one, as far as whole pieces lie there."""
        for number in [number for number in self.pieces if min((number + 1) * self.rows, self.height) <= above]:
            self.memory.give(self.pieces.pop(number))

    def _parts(self, rows: slice) -> Iterator[tuple[slice, slice, int]]:
        """Yield the parts of `rows` by pieces: where they are in `rows` and in the piece, and its number."""
        start = rows.start
        while start < rows.stop:
            number = start // self.rows
            first = number * self.rows
            stop = min(rows.stop, first + self.rows)
            yield slice(start - rows.start, stop - rows.start), slice(start - first, stop - first), number
            start = stop

    def _view(self, number: int) -> Tensor:
        """Return a piece as (B, rows, W, C)."""
        batch, channels, _, width = self.shape
        memory = self.pieces[number][: self.rows * self.row].view(self.dtype)
        return memory.view(batch, self.rows, width, channels)
