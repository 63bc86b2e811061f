"""Checks of the settings of a run, before torch is loaded: numbers of styles, shares and masks, sizes, options.

As those of `early_checks`, they only refuse what the work itself would refuse.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from impasto.commands import early_checks, first_look
from impasto.commands.arguments import constant, flag_of, methods_with, options_of, presets_of, read_class
from impasto.errors import ImageError, ImpastoError, OptionError, nearest, no_recolouring, wrong_masks
from impasto.options import MAX_PIXELS, check_weights, parse_size, too_many_pixels

RECORD = "impasto.runs.record"
MEANT = {
    "video": "name a video and a painting: impasto video clip.mp4 painting.jpg",
    "stylize": "name a photo and a painting: impasto stylize photo.jpg painting.jpg",
}


def check_preset(method: str | None, name: str | None) -> None:
    """Raise OptionError if the method has no such preset, as far as its source shows."""
    owner = method or str(constant("impasto.methods", "DEFAULT_METHOD"))
    presets = presets_of(owner)
    if presets is None:
        return
    if method is None and name not in (None, *presets):
        theirs = [other for other in first_look.method_names() if name in (presets_of(other) or ())]
        if theirs:
            raise OptionError(f"{owner} has no preset {name!r}, but {' and '.join(theirs)} can: add -m {theirs[0]}")
    choose_preset(presets, name, owner)


def choose_preset(presets: Mapping[str, Mapping[str, Any]], name: str | None, owner: str) -> Mapping[str, Any]:
    """Return the preset called `name`, or the default one; raises OptionError."""
    if name is not None and name not in presets:
        raise OptionError(f"{owner} has no preset {name!r}{nearest(name, presets)}; it has: {', '.join(presets)}")
    return presets[name or "default"]


def optimises(method: str | None) -> bool | None:
    """Return whether a method optimises the picture, as its source shows; None if the source is not enough."""
    own = read_class("impasto.stylizers.optimized", "OptimizedOptions")
    options = options_of(method) if method else None
    if own is None or (method and options is None):
        return None
    return options is not None and set(own.model_fields) <= set(options.model_fields)


def check_optimising(method: str | None, flag: str, given: object, recipe: Path | None) -> None:
    """Raise OptionError if a flag of methods that optimise is given for one pass."""
    if given is not None and recipe is None and optimises(method) is False:
        paints = f"{method} paints in one pass" if method else "without -m a method of one pass paints"
        raise OptionError(f"{paints}: {flag} is for methods that optimise, -m gatys and -m nnst")


def check_recipe(recipe: Path) -> None:
    """Raise ImpastoError if there is no such recipe, or if it can't be one."""
    if recipe.is_dir():
        raise ImpastoError(f"{recipe} is a folder; name a picture or a JSON file in it")
    if not recipe.is_file():
        raise ImpastoError(f"{recipe} can't be opened{first_look.near_files(recipe)}; name a picture or a JSON file")
    if recipe.suffix.lower() == ".json" or recipe.with_name(f"{recipe.name}.json").is_file():
        return
    if constant(RECORD, "KEY").encode() not in recipe.read_bytes():
        raise ImpastoError(f"{recipe} holds no run record; it is in pictures that impasto wrote without --no-record")


def check_values(values: Mapping[str, Any], owner: str) -> None:
    """Raise OptionError for values out of range, of those that all methods have, as far as their source shows."""
    recipe = read_class(RECORD, "Recipe")
    fields = {} if recipe is None else recipe.model_fields
    known = {name: value for name, value in values.items() if value is not None and name in fields}
    if recipe is not None:
        recipe.parse(known, owner)
    if "size" in known:
        check_size(str(known["size"]))


def check_size(text: str) -> None:
    """Raise ImageError for a size that no picture may have."""
    size = parse_size(text)
    if isinstance(size, tuple) and size[0] * size[1] > MAX_PIXELS:
        raise ImageError(too_many_pixels(*size))


def check_color(mode: str) -> None:
    """Raise OptionError for a colour mode that there is not."""
    modes = constant("impasto.images.color", "COLOR_MODES")
    if mode not in modes:
        raise OptionError(f"--keep-color is one of {', '.join(modes)}, not {mode!r}{nearest(mode, modes)}")


def check_counts(styles: int, shares: str | None, masks: int = 0) -> None:
    """Raise OptionError unless there is a share for each style, and no mask, one, or one for each style."""
    check_weights(read_shares(shares), styles)
    if masks not in (0, 1, styles):
        raise OptionError(wrong_masks(styles, masks))


def read_shares(text: str | None) -> list[float] | None:
    """Return the shares of styles, None if none are given; raises OptionError unless they are numbers."""
    try:
        return None if text is None else [float(part) for part in text.split(",")]
    except ValueError:
        raise OptionError(f"--style-weights takes numbers, such as 2,1, not {text!r}") from None


def check_styles(command: str, words: Sequence[str], named: Sequence[str], color: str | None) -> None:
    """Raise ImpastoError unless there are a photo and a style, which can be recoloured if `color` asks for that."""
    if not words:
        raise ImpastoError(MEANT.get(command, MEANT["stylize"]))
    styles = [*words[1:], *named]
    if not styles:
        raise ImpastoError("name a painting, a style card, or --style NAME, one of those that `impasto styles` lists")
    if color in constant("impasto.images.color", "MATCHING_MODES"):
        built_in = first_look.style_names()
        for style in styles:
            if style.lower().endswith(first_look.CARD) or (style in built_in and not Path(style).exists()):
                raise OptionError(no_recolouring(str(color), style))


def check_networks(values: Mapping[str, Any], method: str | None = None) -> None:
    """Raise ImpastoError for a backbone, a layer or a file that is not there, among the options of a method."""
    for name in constant(RECORD, "FILE_OPTIONS"):
        value = str(values.get(name) or "")
        if value and name.endswith("weights"):
            early_checks.check_weights(Path(value))
            early_checks.check_trained(Path(value), method if name == "weights" else None)
        elif Path(value).suffix:
            first_look.check_content(value, video=False)
    if "backbone" in values:
        layers = [part for name, value in values.items() if name.endswith("layers") for part in _parts(value)]
        early_checks.check_backbone(str(values["backbone"]), layers)


def _parts(value: Any) -> list[str]:
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else list(value)


def check_axes(texts: Iterable[str], method: str | None, recipe: Path | None) -> None:
    """Raise OptionError if `impasto sweep` is to vary what the method does not have."""
    method = method or str(constant("impasto.methods", "DEFAULT_METHOD"))
    options = options_of(method)
    if recipe is not None or options is None:
        return
    texts = list(texts)
    common = constant("impasto.commands.sweep", "COMMON")
    known = [flag_of(name)[2:] for name in [*common, *options.model_fields]]
    names = [text.partition("=")[0].strip().removeprefix("--").replace("_", "-") for text in texts]
    for name, text in zip(names, texts, strict=True):
        values = text.partition("=")[2]
        if name in known and not values.strip(" ,;"):
            raise OptionError(f"--vary {text}: give values, such as --vary style-weight=1,10,100")
        if name not in known:
            theirs = methods_with(f"--{name}")
            hint = f", but {' and '.join(theirs)} can: add -m {theirs[0]};" if theirs else f"{nearest(name, known)};"
            raise OptionError(f"--vary: {method} has no option {name!r}{hint} see `impasto methods {method}`")
        if name.replace("-", "_") in common:
            for value in filter(None, map(str.strip, values.split(","))):
                _check_common(name.replace("-", "_"), value, method)
        field = next((field for field in options.model_fields if flag_of(field)[2:] == name), None)
        if field is not None and "tuple" in str(options.model_fields[field].annotation):
            continue  # lists are read when torch is there
        each = [value.strip() for value in values.split(",")]
        check_distinct(text, each)
        if field is not None:
            for value in each:
                options.parse({field: value}, f"--vary: {method}")
    if len(texts) not in (1, 2) or len(set(names)) < len(texts):
        raise OptionError("say what to vary, one or two different options: --vary style-weight=1,10,100")


def check_distinct(text: str, values: Sequence[str]) -> None:
    """Raise OptionError if the axis `text` of a sheet holds one of its values twice."""
    twice = [value for value in dict.fromkeys(values) if value and values.count(value) > 1]
    if twice:
        raise OptionError(f"--vary {text}: {twice[0]} is there twice, and would give the same picture twice")


def _check_common(name: str, value: str, method: str) -> None:
    """Raise OptionError for a value that an option of all methods can't have."""
    if name == "preset":
        check_preset(method, value)
    if name == "keep_color":
        check_color(value)
    check_values({name: value}, "--vary")
