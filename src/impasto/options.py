"""The base of every method's options: frozen, validated, and the only source of flags, ranges, defaults and help."""

from __future__ import annotations

import re
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from impasto.errors import OptionError, nearest

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
