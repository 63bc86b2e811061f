"""Files at URLs: a path can hold a URL; fsspec reads, lists and writes."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from impasto.errors import ImpastoError
from impasto.files import LEFTOVER, URL, is_remote, temporary_name, url_of
from impasto.images.opening import BYTES_A_PIXEL, HEAD, SLACK, kind_of, pixels_of

LOCAL = re.compile(r"(file|local)://([^/]*)(/.*)")
WEB = re.compile("https?:/")
MOST_BYTES, MOST_LISTING = 1 << 30, 1 << 24
"""Most bytes that are read of a remote file, and of a page that lists files."""

SECONDS = {"total": 1800, "sock_connect": 30, "sock_read": 60}
"""Timeouts of a web server: in all, for a connection, and without a byte."""

PATTERN = frozenset("*?[")


def to_path(word: str) -> Path:
    """Return `word` as a path. A path holds the URL `s3://bucket/a.png` as s3:/bucket/a.png; see `url_of`.

    `file:///a.png` is the local /a.png, which is read as any local file. Raises ImpastoError for URLs of URLs, and for
    local files of other machines.
    """
    if "://" not in word:
        return Path(os.path.abspath(word)) if URL.match(word) else Path(word)  # a folder called photos: is no URL
    if "::" in word:
        raise ImpastoError(f"{word} is a URL within a URL, which is not understood; unpack it first")
    local = LOCAL.fullmatch(word)
    if local is not None:
        if local[2] not in ("", "localhost"):
            raise ImpastoError(
                f"{word} is a file of the machine {local[2]}; file:/// and the path name one of this one"
            )
        return Path(local[3] if os.path.exists(local[3]) else unquote(local[3]))
    return Path(word.replace(":///", "://:/", 1))  # a path has no empty part: hdfs:///a.png is carried as hdfs:/:/a.png


def has_pattern(word: str) -> bool:
    """Return whether `word` is a pattern; in a web address, `?` is none."""
    return not PATTERN.isdisjoint(word.replace("?", "") if WEB.match(word) else word)


def find_remote(path: Path, suffixes: Collection[str]) -> list[Path]:
    """Return the files of a URL: itself, those in a folder, those of a pattern. Raises ImpastoError."""
    if WEB.match(path.as_posix()) and path.suffix.lower() in suffixes and not has_pattern(path.as_posix()):
        return [path]  # a listing would fetch all of it
    with _as_impasto_error(path, "read"):
        system, inside = _reach(path, MOST_LISTING)
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
    """Return the bytes of a remote file; raises ImpastoError, also for far more than a picture or card needs."""
    with _as_impasto_error(path, "read"):
        system, inside = _reach(path)
        if WEB.match(path.as_posix()):
            data: bytes = system.cat_file(inside)
            return data
        with system.open(inside, "rb") as file:
            data = file.read(HEAD)
            most = most_bytes(data)
            while len(data) <= most and (more := file.read(most + 1 - len(data))):
                data += more
    if len(data) > most:
        raise ImpastoError(_too_much(url_of(path), most))
    return data


def most_bytes(head: bytes) -> int:
    """Return how many bytes to read of a remote file with this beginning: what a picture of its size needs."""
    pixels = pixels_of(head, kind_of(head))
    return min(MOST_BYTES, SLACK + BYTES_A_PIXEL * pixels) if pixels else MOST_BYTES


def _too_much(name: str, most: int) -> str:
    return f"{name} has more than {most} bytes, far more than it needs; save it again"


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


def _reach(path: Path, most: int = MOST_BYTES) -> tuple[Any, str]:
    """Return the file system of a URL, and the file's name in it. most: bytes of an answer of a web server."""
    import fsspec

    options = {"client_kwargs": _client(most)} if WEB.match(path.as_posix()) else {}
    system, inside = fsspec.core.url_to_fs(url_of(path), **options)
    return system, inside


@functools.cache
def _client(most: int) -> dict[str, Any]:
    """Return the options of aiohttp's sessions: bounded answers, since fsspec reads them whole, and timeouts.

    Redirects are followed, at most ten, to http and https alone: that is aiohttp's own rule.
    """
    import aiohttp
    from fsspec.config import conf

    async def read(self: Any) -> bytes:
        data, limit = bytearray(self._body or b""), most
        while self._body is None and (part := await self.content.readany()):
            data += part
            if len(data) > HEAD:
                limit = min(most, most_bytes(bytes(data[:HEAD])))
            if len(data) > limit:
                self.close()
                raise ImpastoError(_too_much(str(self.url), limit))
        self._body = bytes(data)
        return bytes(data)

    own = {**conf.get("http", {}), **conf.get("https", {})}.get("client_kwargs", {})
    return {
        "timeout": aiohttp.ClientTimeout(**SECONDS),
        **own,
        "response_class": type("Bounded", (aiohttp.ClientResponse,), {"read": read}),
    }


@contextmanager
def _as_impasto_error(path: Path, done: str) -> Iterator[None]:
    """Turn any exception into an ImpastoError: those of file systems have no common base."""
    try:
        yield
    except ImpastoError:
        raise
    except Exception as error:
        raise ImpastoError(f"{url_of(path)} can't be {done}: {_reason(error)}") from None


def _reason(error: Exception) -> str:
    """Return what went wrong, in one line."""
    text, kind = " ".join(str(error).split()), type(error).__name__
    if kind == "TooManyRedirects":
        return "it leads from one address to the next without end"
    if kind == "NonHttpUrlRedirectClientError":
        return f"it leads to {text}, which is no web address"
    if isinstance(error, FileNotFoundError):
        return "it is not there"
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return text or kind
