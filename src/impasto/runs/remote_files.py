"""Files elsewhere: URLs carried as paths, and read, listed and written by whatever of fsspec knows their scheme."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from impasto.atomic import LEFTOVER, temporary_name
from impasto.errors import ImpastoError

URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/(:/)?")
LOCAL = "file:///"
PATTERN = frozenset("*?[")


def to_path(word: str) -> Path:
    """`word` as a path. A URL is carried in one, `s3://bucket/a.png` as s3:/bucket/a.png, until `url_of` is asked.

    `file:///a.png` is the local /a.png. Raises ImpastoError for URLs of URLs.
    """
    if "://" not in word:
        return Path(os.path.abspath(word)) if URL.match(word) else Path(word)  # a folder called photos: is no URL
    if "::" in word:
        raise ImpastoError(f"{word} is a URL within a URL, which is not understood; unpack it first")
    if word.startswith(LOCAL):
        return Path(word.removeprefix(LOCAL[:-1]))
    return Path(word.replace(":///", "://:/", 1))  # a path has no empty part: hdfs:///a.png is carried as hdfs:/:/a.png


def is_remote(path: Path) -> bool:
    """Return whether `path` carries a URL."""
    return URL.match(path.as_posix()) is not None


def url_of(path: Path) -> str:
    """Return the URL that `path` carries, or else its text."""
    if not is_remote(path):
        return str(path)
    return URL.sub(lambda found: f"{found[1]}:///" if found[2] else f"{found[1]}://", path.as_posix(), count=1)


def has_pattern(word: str) -> bool:
    """Return whether `word` stands for many files; a web address says with `?` what it asks for."""
    return not PATTERN.isdisjoint(word.replace("?", "") if re.match("https?:/", word) else word)


def find_remote(path: Path, suffixes: Collection[str]) -> list[Path]:
    """The files that a URL stands for: itself, those in a folder, those that fit a pattern. Raises ImpastoError."""
    with _telling(path, "read"):
        system, inside = _reach(path)
        system.invalidate_cache()
        if has_pattern(path.as_posix()):
            found = system.glob(inside)
        elif system.isdir(inside):
            found = [entry["name"] for entry in system.ls(inside, detail=True) if entry["type"] == "file"]
        elif system.exists(inside):
            return [path]
        else:
            raise ImpastoError(f"{url_of(path)} does not exist")
        paths = [to_path(system.unstrip_protocol(name)) for name in sorted(found)]
    return [path for path in paths if path.suffix.lower() in suffixes and not path.name.startswith(".")]


def names_in(folder: Path) -> frozenset[str]:
    """Return the names of what is in a folder, here or elsewhere; none if it is not there. Raises ImpastoError."""
    if not is_remote(folder):
        return frozenset(path.name for path in folder.iterdir()) if folder.is_dir() else frozenset()
    with _telling(folder, "read"):
        system, inside = _reach(folder)
        system.invalidate_cache()
        try:
            return frozenset(name.rstrip("/").rsplit("/", 1)[-1] for name in system.ls(inside, detail=False))
        except FileNotFoundError:
            return frozenset()


def make_folder(path: Path) -> None:
    """Make a folder, here or elsewhere, unless it is there; raises ImpastoError."""
    if is_remote(path):
        with _telling(path, "made"):
            system, inside = _reach(path)
            system.makedirs(inside, exist_ok=True)
        return
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ImpastoError(f"{path} can't be made: {error.strerror}") from None


def read_remote(path: Path) -> bytes:
    """Return the bytes of a file elsewhere; raises ImpastoError."""
    with _telling(path, "read"):
        system, inside = _reach(path)
        data: bytes = system.cat_file(inside)
        return data


def put_remote(data: bytes, path: Path, run: str) -> None:
    """Write a file elsewhere, whole or not at all; raises ImpastoError.

    run: eight hexadecimal digits, the same in all of a run's files that are not whole yet, for `clear_remote`.
    """
    half = path.with_name(temporary_name(run))
    with _telling(path, "written"):
        system, inside = _reach(half)
        try:
            system.pipe_file(inside, data)
            system.mv(inside, _reach(path)[1])
        except BaseException:
            if system.exists(inside):
                system.rm_file(inside)
            raise


def clear_remote(folder: Path, run: str) -> None:
    """Remove what a run that is over left half-written in a folder elsewhere; raises ImpastoError."""
    names = [name for name in names_in(folder) if LEFTOVER.fullmatch(name) and name.startswith(f".impasto-{run}")]
    with _telling(folder, "cleared"):
        for name in names:
            system, inside = _reach(folder / name)
            system.rm_file(inside)


def _reach(path: Path) -> tuple[Any, str]:
    """Return the file system of a URL, and what the file is called in it."""
    import fsspec

    system, inside = fsspec.core.url_to_fs(url_of(path))
    return system, inside


@contextmanager
def _telling(path: Path, done: str) -> Iterator[None]:
    """Whatever fails is told as an ImpastoError: what file systems raise has no common base."""
    try:
        yield
    except ImpastoError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ImpastoError(f"{url_of(path)} can't be {done}: {reason}") from None
