"""Methods and their options as tables, for `impasto methods` and `--list-options`."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

from impasto.commands import arguments, terminal

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

    from impasto.options import Options
    from impasto.stylizers.base import Stylizer
KINDS = {bool: "yes or no", int: "whole number", float: "number", str: "text"}
LIMITS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below", "min_length": "at least this many:"}


def summarize(method: type[Stylizer]) -> dict[str, Any]:
    """Return a method's name, summary, kind and presets."""
    summary = (method.__doc__ or "").strip().split("\n")[0]
    kind = "one-pass" if method.one_pass else "optimisation"
    return {"name": method.name, "summary": summary, "kind": kind, "presets": list(method.presets)}


def describe_method(method: type[Stylizer]) -> dict[str, Any]:
    """Return a method with its options, and what each preset changes."""
    presets = {name: dict(values) for name, values in method.presets.items()}
    return {**summarize(method), "presets": presets, "options": describe_options(method.Options)}


def describe_options(options: type[Options]) -> list[dict[str, Any]]:
    """Return every option: flag, type, default, range, choices, help."""
    described = []
    for name, field in options.model_fields.items():
        limits = {key: getattr(item, key) for item in field.metadata for key in LIMITS if hasattr(item, key)}
        entry = {"flag": arguments.flag_of(name), "type": _type_name(field.annotation), "default": field.default}
        described.append({**entry, "range": limits, "choices": _choices(field), "help": field.description or ""})
    return described


def _type_name(annotation: Any) -> str:
    if get_origin(annotation) is Literal:
        return "text"
    if get_origin(annotation) is tuple:
        return f"list of {_type_name(get_args(annotation)[0])}s".replace("texts", "names")
    return next((KINDS[part] for part in (annotation, *get_args(annotation)) if part in KINDS), "text")


def _choices(field: FieldInfo) -> list[str]:
    return list(get_args(field.annotation)) if get_origin(field.annotation) is Literal else []


def _show_method(method: type[Stylizer]) -> None:
    about = summarize(method)
    terminal.say(f"{about['name']}: {about['summary']}\n\nOptions, as flags of `impasto stylize -m {about['name']}`:")
    show_options(method.Options)
    terminal.say("\nPresets, by --preset NAME, and what they change:")
    for name, values in method.presets.items():
        changes = ", ".join(f"{option.replace('_', '-')}={shown(value)}" for option, value in values.items())
        terminal.say(
            textwrap.fill(f"{name}: {changes or 'nothing'}", 100, initial_indent="  ", subsequent_indent="      ")
        )


def show_options(options: type[Options]) -> None:
    """Print every option in two lines."""
    for entry in describe_options(options):
        limits = " and ".join(f"{LIMITS[key]} {limit:g}" for key, limit in entry["range"].items())
        allowed = " | ".join(entry["choices"]) or ", ".join(filter(None, (entry["type"], limits)))
        terminal.say(f"  {entry['flag']}  {allowed}; default {shown(entry['default'])}")
        terminal.say(f"      {entry['help']}")


def shown(value: Any) -> str:
    """Return a value as it is written on the command line."""
    if isinstance(value, tuple | list):
        return ",".join(map(shown, value)) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else "none" if value in (None, "") else str(value)
