"""Errors that the user can fix, escaping of text for display, and the test for a lack of memory."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Collection, Iterable
from typing import Any

OUT_OF_MEMORY = ("can't allocate memory", "not enough memory", "out of memory", "Unable to allocate", "alloc_cpu")


class ImpastoError(Exception):
    """An error that the user can fix: its text is one line that says what is wrong and what to do.

    Control characters in the text are escaped, because it may contain names from files of strangers.
    """

    def __init__(self, text: object = "") -> None:
        super().__init__(printable(text))


class ImageError(ImpastoError):
    """A picture that can't be read or written."""


class OptionError(ImpastoError):
    """An option that does not exist or has a value out of range."""


class WeightsError(ImpastoError):
    """A weights file or style card that is missing, damaged or made for something else."""


def nearest(word: str, known: Iterable[str], most: int = 2) -> str:
    """Return " (did you mean X or Y?)" for those of `known` that are like `word`, or nothing."""
    plain, word = {_plain(name): name for name in known}, _plain(word)
    near = difflib.get_close_matches(word, plain, n=most, cutoff=0.6)
    near = near or [name for name in plain if difflib.get_close_matches(word, name.split("-"), cutoff=0.75)][:most]
    return f" (did you mean {' or '.join(plain[name] for name in near)}?)" if near else ""


def _plain(word: str) -> str:
    return word.casefold().replace("_", "-").lstrip("-")


def no_style(name: str, known: Collection[str]) -> str:
    """Return the message for a style that is neither a file nor one of the `known` built-in ones."""
    near, there = nearest(name, known), ", ".join(known) or "none"
    return f"there is no style {name!r}{near}, neither as a file nor built in; the built-in ones are: {there}"


def fixed_styles(method: str, known: Iterable[str]) -> str:
    """Return what to do if a method that paints only in the `known` styles gets another one."""
    return (
        f"name one of the styles that it has learned ({', '.join(known)}) with --style, or teach it the painting: "
        f"impasto train {method} --style PAINTING"
    )


def no_method(name: str, known: Collection[str]) -> str:
    """Return the message for a method that is none of the `known` ones."""
    return f"there is no method {name!r}{nearest(name, known)}; there are: {', '.join(known)}"


def wrong_masks(styles: int, masks: int) -> str:
    """Return the message for a wrong number of masks."""
    if styles == 1:
        return f"one style needs one mask, not {masks}"
    return f"{styles} styles need one mask, or {styles}, not {masks}"


def no_classifier(path: object) -> str:
    """Return the message for a file that is no classifier."""
    return f"{path} holds no classifier: make one with `impasto transfer fit`"


def no_card(path: str) -> str:
    """Return the message for a file that is no style card."""
    return f"{path} is no style card: make one with `impasto style extract painting.jpg`"


def other_kind(card: object, there: Iterable[str], method: str, needed: str, advice: str = "") -> str:
    """Return the message for a style card of another kind than the method needs."""
    advice = advice or draw_again(method)
    return f"{card} holds {' and '.join(there)}, but {method} needs {needed}: {advice}"


def draw_again(method: str) -> str:
    """Return what to do instead of naming a style card that does not fit."""
    return f"name the painting itself, or extract it again with `impasto style extract PAINTING -m {method}`"


def whole_network(card: object) -> str:
    """Return the message for a style card that only the method can use that made it."""
    return (
        f"{card} is a whole network: paint by the method that made it, metastyle (impasto adapt) or metanet "
        "(impasto export-style), with -m"
    )


def other_maker(path: object, maker: object, method: str) -> str:
    """Return the message for a weights file of another training."""
    return f"{path} was made by `impasto train {str(maker)[:40]}`, not {method}"


def flickers(mode: str) -> str:
    """Return the message for a colour mode that would change from frame to frame."""
    return f"--keep-color {mode} recolours the painting for every frame: use luminance or lab for a video"


def not_live(mode: str) -> str:
    """Return the message for a colour mode that is too slow for a camera."""
    return f"--keep-color {mode} is for single photos; live takes luminance or lab"


def no_channel(channel: int, count: int) -> str:
    """Return the message for a channel that a layer does not have."""
    return f"there is no channel {channel}: the layer has {count}, from 0"


def no_unit(unit: tuple[int, int], rows: int, columns: int) -> str:
    """Return the message for a unit, (row, column), that a layer does not have."""
    return f"there is no unit {unit[0]},{unit[1]}: the layer has {rows} rows and {columns} columns here"


def no_pictures(places: Iterable[object]) -> str:
    """Return the message for folders without pictures to learn from."""
    where = ", ".join(map(str, places))
    return f"no readable picture in {where}: name folders with JPEG, PNG, WebP or TIFF files"


def few_classes(folder: object, count: int) -> str:
    """Return the message for a folder of pictures with fewer than two classes."""
    return f"{folder} needs at least two folders with pictures, one a class; it has {count}"


def no_recolouring(mode: str, card: str) -> str:
    """Return the message for a colour mode that needs the painting itself."""
    return f"--keep-color {mode} recolours the painting, which {card} does not hold: use luminance or lab"


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether `error` says that memory ran out, on a CPU or a GPU."""
    named = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    return named or (isinstance(error, RuntimeError) and any(words in str(error) for words in OUT_OF_MEMORY))


# --- escaping

_UNSAFE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff\ufff9-\ufffb\ud800-\udfff]"
)
"""Control characters, marks that change the direction of text, and surrogates: bytes of file names that are no text."""


def printable(text: object, keep: str = "") -> str:
    """Return a text with its control characters escaped, for a terminal, a log or a page.

    They become ``\\x1b`` or ``\\u202e``; a byte of a file name that is no text becomes ``\\xe9``. keep: control
    characters that are not escaped, such as a newline.
    """
    return _UNSAFE.sub(lambda found: found[0] if found[0] in keep else _escape(found[0]), str(text))


def _escape(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # a byte of a name, as a surrogate
        code -= 0xDC00
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def one_line(text: object) -> str:
    """Return a `printable` text on one line; each run of white space becomes one space."""
    return printable(" ".join(str(text).split()))


def to_json(value: Any, *, indent: int | None = None) -> str:
    """Return JSON that is safe for terminals and files: unsafe characters are escaped."""
    text = json.dumps(value, ensure_ascii=False, indent=indent, default=str)
    return _UNSAFE.sub(lambda found: found[0] if found[0] == "\n" else f"\\u{ord(found[0]):04x}", text)
