"""The schema of requests, made from the methods' `Options`: the same models check and document requests."""

from __future__ import annotations

import copy
import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

from annotated_types import MaxLen
from pydantic import BeforeValidator, Field, create_model
from pydantic.fields import FieldInfo

from impasto.errors import ImpastoError
from impasto.images.color import COLOR_MODES
from impasto.methods import DEFAULT_METHOD, find_method, list_methods, method_for
from impasto.options import Options
from impasto.runs.record import Recipe
from impasto.server.limits import Limits, Malformed
from impasto.stylizers.base import Stylizer
from impasto.stylizers.fixed_styles import LearnedStyles
from impasto.stylizers.styles import built_in_styles
from impasto.weights import load_weights, resolve

FILES = {
    "content": "the photo: JPEG, PNG or WebP",
    "paintings": "paintings whose style is taken: JPEG, PNG or WebP",
    "cards": "style cards, as POST /v1/styles makes them",
    "masks": "where the picture is white it is repainted; one for all styles, or one a style",
    "painting": "the painting: JPEG, PNG or WebP",
}
"""The files of requests, with descriptions."""

SINGLE = ("content", "painting")
FORMATS = {"png": "PNG", "jpeg": "JPEG", "webp": "WEBP"}
NUMBERS = (bool, int, float)
LONGEST_NAME, MOST_ITEMS, MOST_OPTIONS, MOST_STYLES = 64, 64, 64, 100
MOST_VALUES = 10_000
"""Most values, including nested ones, of a JSON request."""

Name = Annotated[str, Field(max_length=LONGEST_NAME)]


def is_served(name: str, field: FieldInfo) -> bool:
    """Return whether a request may set an option: not free text, which could name a file or a download."""
    parts = [part for part in (get_args(field.annotation) or (field.annotation,)) if part not in (Ellipsis, type(None))]
    if get_origin(field.annotation) is Literal:
        return True
    if get_origin(field.annotation) is tuple and parts == [str]:
        return name.endswith("_layers")
    return all(part in NUMBERS for part in parts)


@functools.cache
def served_options(method: str) -> type[Options]:
    """Return the options of `method` that a request may set; raises OptionError if there is no such method."""
    fields: dict[str, Any] = {
        name: _limited(field)
        for name, field in find_method(method).Options.model_fields.items()
        if is_served(name, field)
    }
    return create_model(f"{method}_options", __base__=Options, **fields)


def _limited(field: FieldInfo) -> tuple[Any, FieldInfo]:
    """Return an option's type and field, with limited lengths of lists and texts."""
    if get_origin(field.annotation) is not tuple:
        return field.annotation, field
    field = copy.copy(field)
    field.metadata = [*field.metadata, MaxLen(MOST_ITEMS)]
    return (tuple[Name, ...] if str in get_args(field.annotation) else field.annotation), field


def served_presets(method: type[Stylizer]) -> list[str]:
    """Return the presets that set only options that a request may set."""
    allowed = served_options(method.name).model_fields.keys()
    return [name for name, values in method.presets.items() if values.keys() <= allowed]


def _of_recipe(name: str, description: str) -> Any:
    """Return the field of a `Recipe`, with a description."""
    field = copy.copy(Recipe.model_fields[name])
    field.description = description
    return field


def _as_text(value: Any) -> Any:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


SizeText = Annotated[str, Field(max_length=20)]
Size = Annotated[SizeText | None, BeforeValidator(_as_text, json_schema_input_type=int | SizeText | None)]
Shares = Annotated[tuple[float, ...], Field(max_length=MOST_STYLES)] | None


class MethodRequest(Options):
    """How to paint: the method, its preset and options."""

    method: Name = DEFAULT_METHOD
    preset: Name = "default"
    options: dict[Name, Any] = Field(default={}, max_length=MOST_OPTIONS, description="the method's own options")


class PictureRequest(MethodRequest):
    """The settings of a request for a picture."""

    styles: tuple[Name, ...] = Field(
        (), max_length=MOST_STYLES, description="built-in styles by name, or ids of cards from POST /v1/styles"
    )
    style_weights: Shares = _of_recipe(
        "style_weights", "shares of the styles, then paintings, then cards; none: all equal"
    )
    size: Size = _of_recipe("size", "longer side of the result, or WIDTHxHEIGHT; none: the photo's own")
    style_size: int | None = _of_recipe("style_size", "longer side to which paintings are shrunk")
    strength: float = _of_recipe("strength", "how much of the style")
    keep_color: Name = Field(
        "off", description="how to keep the photo's colours", json_schema_extra={"enum": list(COLOR_MODES)}
    )
    seed: int = _of_recipe("seed", "same seed, same picture")
    format: Literal["png", "jpeg", "webp"] = Field("png", description="kind of file that comes back")


class CardRequest(MethodRequest):
    """The settings of a request for a style card."""

    size: int | None = Field(None, ge=16, le=100_000, description="longer side to which the painting is shrunk")
    title: str = Field("", max_length=200, description="the painting's title")
    artist: str = Field("", max_length=200, description="who painted it")
    year: str = Field("", max_length=40, description="when")


@dataclass(frozen=True)
class CheckedRequest:
    """A checked request: settings, and files by the names of `FILES`."""

    settings: Any
    files: Mapping[str, tuple[bytes, ...]]


def make_request(
    kind: type[MethodRequest], values: Mapping[str, Any], files: Mapping[str, tuple[bytes, ...]]
) -> CheckedRequest:
    """Check a request; raises OptionError or Malformed in one line."""
    values = dict(values)
    if isinstance(values.get("options"), str):
        values["options"] = parse_json(values["options"].encode(), "options")
    settings = kind.parse(values, "the request")
    if "method" not in values:
        settings = settings.model_copy(update={"method": _method_for(settings, files)})
    served_options(settings.method).parse(settings.options, settings.method)
    presets = served_presets(find_method(settings.method))
    if settings.preset not in presets:
        raise Malformed(f"{settings.method} has no preset {settings.preset!r} here; it has: {', '.join(presets)}")
    return CheckedRequest(settings, files)


def _method_for(settings: MethodRequest, files: Mapping[str, tuple[bytes, ...]]) -> str:
    """Return the method of a request that names none: the one that suits its built-in styles."""
    paintings = [None for name in ("painting", "paintings") for _ in files.get(name, ())]
    cards = ["card" for _ in files.get("cards", ())]
    styles, still = [*getattr(settings, "styles", ()), *paintings, *cards], isinstance(settings, PictureRequest)
    return method_for(styles, preset=settings.preset, options=settings.options, still=still)


def parse_json(data: bytes, what: str) -> dict[str, Any]:
    """Return a JSON object; raises Malformed, also, without parsing it, for very many values."""
    if sum(data.count(mark) for mark in (b",", b"[", b"{")) > MOST_VALUES:
        raise Malformed(f"{what} holds more than {MOST_VALUES} values; send fewer")
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        raise Malformed(f"{what}: this is no JSON that can be read") from None
    if not isinstance(found, dict):
        raise Malformed(f"{what}: a JSON object is needed")
    return found


def body_schema(kind: type[MethodRequest], names: tuple[str, ...], limits: Limits) -> dict[str, Any]:
    """Return the request body of OpenAPI: multipart, and JSON with base64; names: of its files."""
    binary, text = {"format": "binary"}, {"contentEncoding": "base64"}
    bodies = {
        media: {"type": "string", **how, "maxLength": limits.max_bytes}
        for media, how in (("multipart/form-data", binary), ("application/json", text))
    }
    content = {
        media: {"schema": {"anyOf": [_with_method(kind, names, file, name, limits) for name in list_methods()]}}
        for media, file in bodies.items()
    }
    return {"required": True, "content": content}


def _with_method(
    kind: type[MethodRequest], names: tuple[str, ...], file: dict[str, Any], method_name: str, limits: Limits
) -> dict[str, Any]:
    method, schema = find_method(method_name), kind.model_json_schema()
    properties = schema["properties"]
    properties["method"] = {"const": method.name}
    properties["preset"] = {"enum": served_presets(method), "default": "default"}
    properties["options"] = served_options(method.name).model_json_schema() | {"default": {}}
    for name in names:
        one = {**file, "description": FILES[name]}
        several = {"type": "array", "items": one, "maxItems": limits.max_pictures}
        properties[name] = one if name in SINGLE else several
    required = [name for name in names if name in SINGLE] + (["method"] if method.name != DEFAULT_METHOD else [])
    return schema | {"title": f"{kind.__name__} for {method.name}", "required": required}


def _learned(name: str) -> frozenset[str]:
    """Return the names of the styles that the weights of a method hold; none if it has no weights here."""
    try:
        return _styles_in(resolve(name))
    except ImpastoError:
        return frozenset()


@functools.cache
def _styles_in(weights: Path) -> frozenset[str]:
    config = load_weights(weights).config
    return frozenset(info.get("name", "") for key in ("styles", "networks") for info in config.get(key, ()))


def describe_method(name: str) -> dict[str, Any]:
    """Return a method's description for GET /v1/methods."""
    method = find_method(name)
    summary = (method.__doc__ or "").strip().split("\n")[0]
    found = {"name": name, "summary": summary, "one_pass": method.one_pass, "default": name == DEFAULT_METHOD}
    learned = issubclass(method, LearnedStyles)
    styles = [style for style in built_in_styles() if not learned or style in _learned(name)]
    found |= {"paintings": not learned, "styles": styles}
    return found | {"presets": served_presets(method), "options": served_options(name).model_json_schema()}
