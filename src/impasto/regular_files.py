"""Reads files of any origin: only regular ones, and only as many bytes as their content needs."""

from __future__ import annotations

import errno
import io
import os
import stat
from pathlib import Path
from typing import BinaryIO

NOT_REGULAR = "it is a device, a pipe or a socket, not a file"

Location = str | os.PathLike[str]


class OverBudget(Exception):
    """More bytes of a file were requested than its content needs."""


def open_regular(path: Location) -> BinaryIO:
    """Open a file for reading, without waiting for a pipe; raises OSError, also if it is no regular file."""
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
    handle = os.open(path, flags)
    try:
        mode = os.fstat(handle).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, NOT_REGULAR, str(path))
        return os.fdopen(handle, "rb")
    except BaseException:
        os.close(handle)
        raise


def real_path(path: Location) -> Path:
    """Return a path without links; of links in a circle, as far as they lead (Path.resolve raises before 3.13)."""
    return Path(os.path.realpath(path))


def size_of(file: BinaryIO) -> int:
    """Return the number of bytes of a seekable file."""
    before = file.tell()
    size = file.seek(0, os.SEEK_END)
    file.seek(before)
    return size


LEAST_COST = 1024
"""Least number of bytes that a read counts for: files of many tiny parts take as long as large ones."""


class Budgeted(io.RawIOBase):
    """A file that allows reading `budget` bytes in all; then reading raises OverBudget."""

    def __init__(self, file: BinaryIO, budget: int) -> None:
        self.file, self.left = file, budget
        self.size = size_of(file)

    def read(self, size: int | None = -1) -> bytes:
        """Read like a file; raises OverBudget instead of reading more than is left."""
        rest = max(0, self.size - self.file.tell())
        wanted = rest if size is None or size < 0 else min(size, rest)
        if wanted > self.left:
            raise OverBudget
        data = self.file.read(wanted)
        self.left -= max(len(data), LEAST_COST)
        return data

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Seek like a file."""
        return self.file.seek(offset, whence)

    def tell(self) -> int:
        """Return the position."""
        return self.file.tell()

    def seekable(self) -> bool:
        """Say that one can seek in it."""
        return True

    def readable(self) -> bool:
        """Say that one can read it."""
        return True
