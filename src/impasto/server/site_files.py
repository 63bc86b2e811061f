"""The built page in the package: static files for any host."""

from __future__ import annotations

import shutil
from pathlib import Path

from impasto.errors import ImpastoError
from impasto.files import folder_beside

SITE = Path(__file__).parent / "site"
"""Where `scripts/web` builds the page. Wheels hold it; a checkout does not."""


def built_site() -> Path | None:
    """Return the folder of the built page, or None if there is none."""
    return SITE if (SITE / "index.html").is_file() else None


def copy_site(target: Path) -> int:
    """Copy the built page to `target`, a new folder, whole or not at all; returns its bytes. Raises ImpastoError."""
    site = built_site()
    if site is None:
        raise ImpastoError("this copy of impasto was built without its page: in a checkout run scripts/web, then again")
    try:
        with folder_beside(target) as beside:
            copied = shutil.copytree(site, beside / "site")
            if target.is_dir():
                target.rmdir()  # empty, or this fails
            copied.rename(target)
    except OSError as error:
        raise ImpastoError(f"{target} can't be written: {error.strerror}; name another folder") from None
    return sum(path.stat().st_size for path in target.rglob("*") if path.is_file())
