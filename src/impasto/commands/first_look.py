"""Checks the words of a command before torch is loaded, so that mistakes are reported at once."""

from __future__ import annotations

import difflib
import importlib.util
import itertools
import json
import os
import pkgutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from impasto.errors import (
    ImageError,
    ImpastoError,
    OptionError,
    WeightsError,
    fixed_styles,
    nearest,
    no_card,
    no_method,
    no_style,
    other_kind,
    whole_network,
)

PACKAGE = Path(__file__).parent.parent
CARDS = PACKAGE / "weights" / "styles"
HEAD = 4096
MOST_HEADER = 1 << 24
BEGINNINGS = (b"II", b"MM", b"GIF8", b"\x89PNG", b"\xff\xd8\xff", b"RIFF", b"BM")
"""First bytes of the pictures that can be read, besides AVIF and HEIC; some other files have them, too."""
CARD = ".safetensors"
URL = "://"


def method_names() -> list[str]:
    """Return the names of the methods, as `impasto.methods` does, which needs torch."""
    package = importlib.util.find_spec("impasto.methods")
    assert package is not None
    return sorted(module.name for module in pkgutil.iter_modules(package.submodule_search_locations))


def style_names() -> list[str]:
    """Return the names of the built-in styles."""
    return sorted(path.stem for path in CARDS.glob("*.safetensors"))


def built_in_styles() -> list[dict[str, Any]]:
    """Return name and description of the built-in styles, from the headers of their cards."""
    return [{"name": name, **_describe(CARDS / f"{name}.safetensors")} for name in style_names()]


def _describe(card: Path) -> dict[str, Any]:
    about: dict[str, Any] = header_of(card)["info"]
    return about


def header_of(path: Path) -> dict[str, Any]:
    """Return impasto's own header of a safetensors file; empty if it has none. Nothing else is checked."""
    try:
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            found = json.loads(json.loads(file.read(min(size, MOST_HEADER)))["__metadata__"]["impasto"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def learned_styles(method: str) -> list[str]:
    """Return the names of the styles that the shipped network of a method has learned, from its header."""
    header = header_of(PACKAGE / "weights" / f"{method}.safetensors")
    lists = [value for value in header.values() if isinstance(value, list)]
    return [str(one["name"]) for infos in lists for one in infos if isinstance(one, dict) and "name" in one]


def look_at(
    content: str | None,
    styles: Sequence[str] | None,
    named: Iterable[str] | None,
    method: str | None,
    *,
    video: bool = False,
) -> None:
    """Check the photo, paintings and method that a command names; raises ImpastoError for the first mistake.

    styles: the words after CONTENT, which may include unknown flags: words after one are not checked.
    named: the values of --style; video: the command is `impasto video`.
    """
    words = before_flags(([] if content is None else [content]) + list(styles or []))
    if "" in words:
        raise ImpastoError("a name is empty; name a photo and a painting: impasto stylize photo.jpg painting.jpg")
    check_method(method)
    if words:
        check_content(words[0], video=video)
    rest = list(styles or []) if content is not None and not content.startswith("--") else []
    check_paintings(rest, named, method)


def check_paintings(words: Sequence[str], named: Iterable[str] | None, method: str | None) -> None:
    """Check the paintings before the first flag, and the values of --style; raises ImpastoError."""
    own = any(word.partition("=")[0] == "--weights" for word in words)
    for word in before_flags(words):
        check_painting(word, method, own_weights=own)
    for name in named or []:
        check_painting(name, method, bare=True, own_weights=own)


def before_flags(words: Sequence[str]) -> list[str]:
    """Return the words before the first unknown flag, whose value may follow."""
    return list(itertools.takewhile(lambda word: not word.startswith("-") or word == "-", words))


def need(module: str, extra: str, purpose: str) -> None:
    """Raise ImpastoError if a library of an extra is not installed that `purpose` needs."""
    if importlib.util.find_spec(module) is None:
        raise ImpastoError(f"{purpose} needs {module}: pip install 'impasto[{extra}]'")


def check_method(method: str | None) -> None:
    """Raise OptionError if there is no such method."""
    if method is not None and method not in method_names():
        raise OptionError(no_method(method, method_names()))


def check_content(word: str, *, video: bool) -> None:
    """Raise ImpastoError if `word` names no file, a video where a photo belongs, or a photo where a video does."""
    head = _head(word, "video" if video else "picture")
    if head is None:
        return
    if not video and is_video(head):
        raise ImpastoError(f"{word} is a video: paint it with impasto video {word} STYLE")
    if not video:
        _check_head(head, word)
    if video and _kind_of(head) not in ("", "GIF"):
        raise ImpastoError(f"{word} is a picture: paint it with impasto stylize {word} STYLE")


def check_painting(word: str, method: str | None, *, bare: bool = False, own_weights: bool = False) -> None:
    """Raise ImpastoError if `word` is neither a file nor the name of a style; bare: any word may be a name.

    own_weights: the method's weights are the user's, and may know more styles: an unknown name is left to it.
    """
    if word == "-":
        return
    if not word.strip():
        raise ImpastoError("the name of a style is empty; `impasto styles` lists the built-in ones")
    path = Path(word)
    is_name = bare or (not path.suffix and path == Path(path.name))
    if is_name and not path.is_file():
        if path.is_dir() and word not in style_names():
            raise ImageError(f"{word} is a folder; name a painting in it")
        known = list(dict.fromkeys([*style_names(), *(learned_styles(method) if method else [])]))
        if word in known or (own_weights and method is not None):
            return
        raise ImpastoError(no_style(word, known))
    head = _head(word, "painting")
    if head is not None and is_video(head):
        raise ImpastoError(f"{word} is a video; name a painting, or take a frame of it")
    if path.suffix.lower() == CARD:
        check_card(path, method)
    elif head is not None:
        _check_head(head, word)
    learned = learned_styles(method) if method and not own_weights and path.suffix.lower() != CARD else []
    if learned and method:
        raise OptionError(f"{method} can't look at a painting: {fixed_styles(method, learned)}")


def check_piped(path: str | Path) -> None:
    """Raise ImpastoError if what came through standard input, kept as `path`, is no picture."""
    head = _head(str(path), "picture") or b""
    if is_video(head):
        raise ImpastoError("standard input is a video: name its file, impasto video FILE STYLE")
    _check_head(head, "standard input")


def _check_head(head: bytes, name: str) -> None:
    """Raise ImageError if the first bytes of a file are those of no picture."""
    if head[4:8] != b"ftyp" and not head.startswith(BEGINNINGS):
        from impasto.images.opening import no_picture

        raise ImageError(no_picture(head, name))


READS = {
    "adain": ("adain", "moments"),
    "gatys": ("moments",),
    "metanet": ("metanet", "moments", "network"),
    "nnst": ("places",),
    "nnst_d": ("places",),
    "sanet": ("maps",),
    "swift": ("swift", "moments", "network"),
    "wct": ("moments",),
}
"""Kinds of style cards that a method takes, the first words of them, its own first; others decide themselves."""


def check_card(path: Path, method: str | None) -> None:
    """Raise ImpastoError if a file is no style card, or of no kind that the method takes."""
    check_safetensors(path)
    header = header_of(path)
    if not isinstance(header.get("style"), str):
        raise WeightsError(no_card(str(path)))
    if method not in READS:
        return
    others = header.get("others")
    kinds = [header["style"], *(others if isinstance(others, list) else [])]
    heads = list(dict.fromkeys(str(kind).partition("/")[0] for kind in kinds))
    if not set(heads) & set(READS[method]):
        if heads[0] == "network":
            raise OptionError(whole_network(path))
        raise OptionError(other_kind(path, heads, method, READS[method][0]))


def check_safetensors(path: Path) -> None:
    """Raise WeightsError if a file can't be a safetensors file, as its first bytes show."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(8)
            length = int.from_bytes(head, "little")
            reason = "it is too short" if len(head) < 8 else ""
            if not reason and length > min(MOST_HEADER, size - 8):
                reason = "its header is longer than the file, or huge"
            if not reason:
                json.loads(file.read(length))
    except OSError:
        return  # the reader says why
    except (ValueError, RecursionError):
        reason = "its header is no JSON"
    if reason:
        raise WeightsError(f"{path} is no readable safetensors file: {reason}")


def is_video(head: bytes) -> bool:
    """Return whether a file's first bytes are those of a video."""
    if head[4:8] == b"ftyp":
        return not _kind_of(head)
    if head[:4] in (b"\x1aE\xdf\xa3", b"\0\0\1\xba", b"FLV\1") or head[4:8] in (b"moov", b"mdat"):
        return True
    return (head[:4] == b"RIFF" and head[8:12] == b"AVI ") or (head[:1] == b"G" and head[188:189] == b"G")


def _kind_of(head: bytes) -> str:
    """Return the format of a picture as `kind_of` does, which needs Pillow, so that only odd files load it."""
    from impasto.images.opening import kind_of

    return kind_of(head)


def _head(word: str, kind: str) -> bytes | None:
    """Return a file's first bytes; None if it is no regular local file. Raises ImageError if it does not exist."""
    if word == "-":
        return None
    if URL in word and not Path(word).exists():
        raise ImageError(
            f"{word} is a URL; fetch it first, as in curl -L {word} | impasto stylize - PAINTING > out.png, "
            "or use impasto batch, which reads URLs"
        )
    path = Path(word)
    if path.is_dir():
        raise ImageError(f"{word} is a folder; name a {kind} in it")
    if path.exists() and not path.is_file():
        return None  # the reader says what it is
    try:
        with path.open("rb") as file:
            return file.read(HEAD)
    except OSError as error:
        near = near_files(path) if isinstance(error, FileNotFoundError) else ""
        raise ImageError(f"{word} can't be opened: {error.strerror}{near}; check its name and permissions") from None


def near_files(path: Path) -> str:
    """Return " (did you mean X?)" for files beside `path` with a similar name, or nothing."""
    try:
        found = [entry.name for entry in os.scandir(path.parent)]
    except OSError:
        return ""
    names = [name for name in found if not name.startswith(".") and name != path.name]
    like = difflib.get_close_matches(path.stem, [Path(name).stem for name in names], cutoff=0.6)
    return nearest(path.name, [name for name in names if Path(name).stem in like])
