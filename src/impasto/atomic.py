"""Writing files whole or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path

from impasto.errors import WeightsError


def write_atomically(path: Path, data: bytes) -> None:
    """Write `data` beside `path` and move it there, so that no half-written file is ever seen; raises WeightsError."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with temporary.open("xb") as file:  # with the rights that the user's umask gives every new file
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise WeightsError(f"{path} can't be written: {error.strerror}") from None
        raise
