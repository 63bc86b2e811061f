"""Writing files whole or not at all."""

from __future__ import annotations

import os
import re
import secrets
from pathlib import Path

from impasto.errors import WeightsError

LEFTOVER = re.compile(r"\.impasto-[0-9a-f]{16}\.tmp")
"""The names of files that are being written; one that stays is of a run that was killed."""


def write_atomically(path: Path, data: bytes) -> None:
    """Write `data` beside `path` and move it there, so that no half-written file is ever seen; raises WeightsError."""
    try:
        replace_file(path, data)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise WeightsError(f"{path} can't be written: {reason}; write it elsewhere") from None


def replace_file(path: Path, data: bytes, *, overwrite: bool = True) -> None:
    """Write a file whole or not at all; where a link points, if it is one.

    Raises FileExistsError if it is there and must stay, and OSError.
    """
    target = Path(os.path.realpath(path))
    temporary = target.with_name(f".impasto-{secrets.token_hex(8)}.tmp")
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if overwrite:
            temporary.replace(target)
        else:
            _publish_new(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def _publish_new(temporary: Path, target: Path) -> None:
    """Give a file its name unless that is taken, also where there are no hard links."""
    try:
        os.link(temporary, target)
    except FileExistsError:
        raise
    except OSError:
        target.open("xb").close()
        temporary.replace(target)
