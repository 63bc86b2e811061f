"""`impasto web`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from impasto.cli import flags
from impasto.commands import terminal

FolderWord = Annotated[Path, typer.Argument(metavar="FOLDER", help="A new folder for the page's files.")]


def web(folder: FolderWord, json: flags.JsonFlag = False) -> None:
    """Write the page that paints in the browser as static files, for any web host.

    Nothing is installed or uploaded by visitors: [bold]impasto web FOLDER[/bold], then put the folder on a host.
    """
    from impasto.errors import ImpastoError
    from impasto.server.site_files import copy_site

    folder = folder.absolute()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ImpastoError(f"{folder} exists already; name a new folder")
    if not folder.parent.is_dir():
        raise ImpastoError(f"{folder}: the folder {folder.parent} does not exist; make it first")
    size = copy_site(folder)
    result = {"output": str(folder), "bytes": size}
    terminal.print_json(result) if json else terminal.say_path(result["output"])
