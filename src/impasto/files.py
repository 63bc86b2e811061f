"""Files of any origin: read only if they are regular; written whole or not at all."""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from impasto.errors import WeightsError

PICTURE_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp"}
"""Endings of the pictures that trainings look for in folders."""
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
