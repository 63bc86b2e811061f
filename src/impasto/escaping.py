"""Escapes untrusted text for display: control characters, and bytes of names that are not text."""

from __future__ import annotations

import json
import re
from typing import Any

_UNSAFE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff\ufff9-\ufffb\ud800-\udfff]"
)
"""Control characters, marks that change the direction of text, and surrogates, which stand for bytes of names."""


def printable(text: object, keep: str = "") -> str:
    """Return a text without control characters for a terminal, a log or a page.

    They become ``\\x1b`` or ``\\u202e``; a byte of a name that is not text becomes ``\\xe9``. keep: control characters
    that are kept, such as a newline.
    """
    return _UNSAFE.sub(lambda found: found[0] if found[0] in keep else _escape(found[0]), str(text))


def _escape(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # a byte of a name, as a surrogate
        code -= 0xDC00
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def one_line(text: object) -> str:
    """Return a text on one line, its white space joined, `printable`."""
    return printable(" ".join(str(text).split()))


def to_json(value: Any, *, indent: int | None = None) -> str:
    """Return JSON that is safe for terminals and files: unsafe characters are escaped."""
    text = json.dumps(value, ensure_ascii=False, indent=indent, default=str)
    return _UNSAFE.sub(lambda found: found[0] if found[0] == "\n" else f"\\u{ord(found[0]):04x}", text)
