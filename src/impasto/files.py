"""Files of any origin: read only if they are regular, within a budget of bytes; written whole or not at all."""

from __future__ import annotations

import errno
import io
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from impasto.errors import WeightsError

LEFTOVER = re.compile(r"\.impasto-[0-9a-f]{16}\.tmp")
"""The names of files that are being written. One that stays was left by a run that was killed."""


def temporary_name(run: str = "") -> str:
    """Return a new name for a file that is being written; it fits LEFTOVER.

    run: up to eight hexadecimal digits with which all such names of one run begin.
    """
    return f".impasto-{(run + os.urandom(8).hex())[:16]}.tmp"


def write_atomically(path: Path, data: bytes) -> None:
    """Write `data` beside `path` and move it there, so that nobody sees half a file; raises WeightsError."""
    try:
        replace_file(path, data)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise WeightsError(f"{path} can't be written: {reason}; write it elsewhere") from None


def replace_file(path: Path, data: bytes, *, overwrite: bool = True) -> None:
    """Write a file whole or not at all; if it is a link, the file that it points to.

    Raises FileExistsError if the file exists and `overwrite` is false, and OSError.
    """
    with replacing(path, overwrite=overwrite) as file:
        file.write(data)


@contextmanager
def replacing(path: Path, *, overwrite: bool = True) -> Iterator[BinaryIO]:
    """Give a file to write to, which takes the name `path` at the end, or is removed if an exception is raised.

    Raises as `replace_file` does.
    """
    target = Path(os.path.realpath(path))
    temporary = target.with_name(temporary_name())
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if overwrite:
            temporary.replace(target)
        else:
            _publish_new(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def folder_beside(target: Path) -> Iterator[Path]:
    """Give a new hidden folder beside `target`, from which finished files are moved; it is removed at the end."""
    import shutil
    import tempfile

    folder = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _publish_new(temporary: Path, target: Path) -> None:
    """Give a file its name unless that is taken, also on file systems without hard links."""
    try:
        os.link(temporary, target)
    except FileExistsError:
        raise
    except OSError:
        target.open("xb").close()
        temporary.replace(target)


# --- reading

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


# --- paths that hold URLs

URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/(:/)?")
"""The start of a path that holds a URL: s3:/bucket/a.png for s3://bucket/a.png."""


def is_remote(path: Path) -> bool:
    """Return whether `path` holds a URL."""
    return URL.match(path.as_posix()) is not None


def url_of(path: Path) -> str:
    """Return the URL that `path` holds, else its text."""
    if not is_remote(path):
        return str(path)
    return URL.sub(lambda found: f"{found[1]}:///" if found[2] else f"{found[1]}://", path.as_posix(), count=1)


# --- budgets


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
