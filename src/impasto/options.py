"""The base of every method's options: frozen, validated, and the only source of flags, ranges, defaults and help."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from impasto.errors import ImageError, OptionError, nearest

NEEDS = {
    "int_parsing": "a whole number",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_parsing": "a number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_parsing": "yes or no",
    "less_than_equal": "at most {le:g}",
    "greater_than_equal": "at least {ge:g}",
    "less_than": "less than {lt:g}",
    "greater_than": "more than {gt:g}",
}
"""The required value, by the name of the failed check."""

MOST_SHOWN = 80
"""Most characters of a wrong value in a message."""

MAX_PIXELS = 200_000_000
"""Most pixels of a picture that is read or made."""

MINIMUM_SIDE = 16
"""Least pixels of a side that a user may ask for."""

MOST_DIGITS = 6
"""Digits of a side; with more of them any size is too large."""


class Options(BaseModel):
    """A method's options; the command line shows each field's type, default, range and description.

    Values may come as text, as from a command line: ``"relu1_1,relu2_1"`` is a tuple, ``"3"`` a number.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True)

    @model_validator(mode="before")
    @classmethod
    def _split_text(cls, values: Any) -> Any:
        """Split comma-separated text into the items of a tuple field."""
        if not isinstance(values, dict):
            return values
        out = dict(values)
        for name, value in values.items():
            field = cls.model_fields.get(name)
            if isinstance(value, str) and field is not None and "tuple" in str(field.annotation):
                out[name] = tuple(part.strip() for part in value.split(",") if part.strip())
        return out

    @classmethod
    def parse(cls, values: dict[str, Any], owner: str) -> Self:
        """Validate `values`; `owner` is the name of the method, for the message. Raises OptionError."""
        try:
            return cls(**values)
        except ValidationError as error:
            raise OptionError(_one_line(cls, error, owner)) from None


def _one_line(cls: type[Options], error: ValidationError, owner: str) -> str:
    first = error.errors()[0]
    name = ".".join(str(part) for part in first["loc"][:1]) or "options"
    if first["type"] == "extra_forbidden":
        near = nearest(name, cls.model_fields)
        return f"{owner} has no option {name!r}{near}; it has: {', '.join(cls.model_fields)}"
    if first["type"] in ("literal_error", "enum"):
        choices = re.findall(r"'([^']*)'", first["ctx"]["expected"])
        near = nearest(str(first["input"]), choices)
        return f"{owner}: {name.replace('_', '-')} is one of {', '.join(choices)}, not {first['input']!r}{near}"
    if first["type"] in NEEDS:
        need = NEEDS[first["type"]].format(**first.get("ctx", {}))
        return f"{owner}: {name.replace('_', '-')} must be {need}, not {_shorten(first['input'])}"
    shown = "" if not first["loc"] else f", not {_shorten(first['input'])}"
    return f"{owner}: {name.replace('_', '-')}: {first['msg'].removeprefix('Value error, ')}{shown}"


def _shorten(value: Any) -> str:
    """Return a value for a message."""
    if isinstance(value, list | tuple | dict) and len(value) > MOST_SHOWN:
        return f"{len(value)} of them"
    text = repr(value[: MOST_SHOWN + 1] if isinstance(value, str) else value)
    return text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}..."


# --- values of several options


def parse_size(text: str) -> int | tuple[int, int]:
    """Parse "512", the longer side, or "512x384", WIDTHxHEIGHT.

    Returns the longer side, or (height, width) as resize takes them. Raises ImageError for anything else and for sides
    under 16.
    """
    match = re.fullmatch(r"([0-9]+)(?:[xX×]([0-9]+))?", text.strip())
    if match is None:
        raise ImageError(f"size {text!r} is not understood; write 512 for the longer side or 512x384 for WIDTHxHEIGHT")
    if any(len(side) > MOST_DIGITS for side in match.groups(default="")):
        raise ImageError(f"size {text[:40]!r} is too large; a result has at most {MAX_PIXELS // 1_000_000} megapixels")
    sides = [int(side) for side in match.groups() if side is not None]
    if min(sides) < MINIMUM_SIDE:
        raise ImageError(f"size {text!r} is too small; each side must be at least {MINIMUM_SIDE}")
    return sides[0] if len(sides) == 1 else (sides[1], sides[0])


def too_many_pixels(height: int, width: int) -> str:
    """Return the message for a result with more than MAX_PIXELS."""
    return f"{width}x{height} is more than {MAX_PIXELS // 1_000_000} megapixels; give a smaller --size"


def check_weights(weights: Sequence[float] | None, count: int) -> tuple[float, ...]:
    """Return `weights` divided by their sum, one for each of `count` styles; raises OptionError."""
    if count == 0:
        raise OptionError("there is no style: give at least one painting or style card")
    if weights is None:
        return (1 / count,) * count
    if len(weights) != count:
        some = "one style needs one weight" if count == 1 else f"{count} styles need {count} weights"
        raise OptionError(f"{some}, not {len(weights)}")
    total = sum(weights)
    if min(weights) < 0 or not 0 < total < float("inf"):
        raise OptionError(f"style weights are at least 0 and not all 0, not {', '.join(f'{w:g}' for w in weights)}")
    return tuple(weight / total for weight in weights)
