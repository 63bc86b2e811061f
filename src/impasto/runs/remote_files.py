"""Files at URLs: a path can hold a URL; fsspec reads, lists and writes."""

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
    """Return `word` as a path. A path holds the URL `s3://bucket/a.png` as s3:/bucket/a.png; see `url_of`.

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
    """Return whether `path` holds a URL."""
    return URL.match(path.as_posix()) is not None


def url_of(path: Path) -> str:
    """Return the URL that `path` holds, else its text."""
    if not is_remote(path):
        return str(path)
    return URL.sub(lambda found: f"{found[1]}:///" if found[2] else f"{found[1]}://", path.as_posix(), count=1)


def has_pattern(word: str) -> bool:
    """Return whether `word` is a pattern; in a web address, `?` is none."""
    return not PATTERN.isdisjoint(word.replace("?", "") if re.match("https?:/", word) else word)


def find_remote(path: Path, suffixes: Collection[str]) -> list[Path]:
    """Return the files of a URL: itself, those in a folder, those of a pattern. Raises ImpastoError."""
    with _as_impasto_error(path, "read"):
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
    """Return the names in a folder, local or remote; none if it does not exist. Raises ImpastoError."""
    if not is_remote(folder):
        return frozenset(path.name for path in folder.iterdir()) if folder.is_dir() else frozenset()
    with _as_impasto_error(folder, "read"):
        system, inside = _reach(folder)
        system.invalidate_cache()
        try:
            return frozenset(name.rstrip("/").rsplit("/", 1)[-1] for name in system.ls(inside, detail=False))
        except FileNotFoundError:
            return frozenset()


def make_folder(path: Path) -> None:
    """Make a folder, local or remote, if it does not exist; raises ImpastoError."""
    if is_remote(path):
        with _as_impasto_error(path, "made"):
            system, inside = _reach(path)
            system.makedirs(inside, exist_ok=True)
        return
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ImpastoError(f"{path} can't be made: {error.strerror}") from None


def read_remote(path: Path) -> bytes:
    """Return the bytes of a remote file; raises ImpastoError."""
    with _as_impasto_error(path, "read"):
        system, inside = _reach(path)
        data: bytes = system.cat_file(inside)
        return data


def put_remote(data: bytes, path: Path, run: str) -> None:
    """Write a remote file, whole or not at all; raises ImpastoError.

    run: eight hexadecimal digits, the same for all unfinished files of a run, for `clear_remote`.
    """
    half = path.with_name(temporary_name(run))
    with _as_impasto_error(path, "written"):
        system, inside = _reach(half)
        try:
            system.pipe_file(inside, data)
            system.mv(inside, _reach(path)[1])
        except BaseException:
            if system.exists(inside):
                system.rm_file(inside)
            raise


def clear_remote(folder: Path, run: str) -> None:
    """Remove the half-written files of a finished run in a remote folder; raises ImpastoError."""
    names = [name for name in names_in(folder) if LEFTOVER.fullmatch(name) and name.startswith(f".impasto-{run}")]
    with _as_impasto_error(folder, "cleared"):
        for name in names:
            system, inside = _reach(folder / name)
            system.rm_file(inside)


def _reach(path: Path) -> tuple[Any, str]:
    """Return the file system of a URL, and the file's name in it."""
    import fsspec

    system, inside = fsspec.core.url_to_fs(url_of(path))
    return system, inside


@contextmanager
def _as_impasto_error(path: Path, done: str) -> Iterator[None]:
    """Turn any exception into an ImpastoError: those of file systems have no common base."""
    try:
        yield
    except ImpastoError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ImpastoError(f"{url_of(path)} can't be {done}: {reason}") from None
