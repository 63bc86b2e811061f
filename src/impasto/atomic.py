"""Writing files whole or not at all."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import tempfile
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
    return f".impasto-{(run + secrets.token_hex(8))[:16]}.tmp"


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
