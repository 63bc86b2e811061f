"""What the commands that paint share: the recipe from flags, the files that it names, the model, the picture."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import typer

from impasto.commands.arguments import take_flags
from impasto.errors import ImpastoError
from impasto.methods import find_method
from impasto.runs.record import Recipe, check_recipe, find_painting, find_style, read_recipe
from impasto.stylizers.fixed_styles import LearnedStyles

log = logging.getLogger(__name__)


def make_recipe(
    ctx: typer.Context, words: list[str], recipe: Path | None, flags: Mapping[str, Any], *, sheet: bool = False
) -> Recipe:
    """Return the recipe of a command: its flags over a recorded run over the defaults. Raises ImpastoError.

    words: CONTENT, STYLEs and the method's flags. flags: by the names of a Recipe's fields; ``style``: more styles by
    name. If method or preset differ from the recorded ones, the recorded options are dropped. sheet: accept the record
    of a contact sheet.
    """
    given = dict(flags)
    names = given.pop("style", [])
    merged, files = merge_flags(ctx, words, recipe, given)
    if merged.vary and not sheet:
        raise ImpastoError(f"{recipe} records a contact sheet: use it with impasto sweep --recipe {recipe}")
    learned = issubclass(find_method(merged.method), LearnedStyles)
    named = [find_style(name, learned=learned) for name in names]
    paintings = [find_painting(word, learned=learned) for word in files[1:]]
    known = merged.model_dump()
    if files:
        known["content"] = files[0]
    if files[1:] or named:
        known["styles"] = (*paintings, *named)
        if len(known["styles"]) != len(merged.styles) and "style_weights" not in given:
            known["style_weights"] = None
    return check_recipe(Recipe.parse(known, ctx.command.name or "impasto"))


def merge_flags(
    ctx: typer.Context, words: list[str], recipe: Path | None, flags: Mapping[str, Any]
) -> tuple[Recipe, list[str]]:
    """As `make_recipe`, but the words that are no flags are not looked at: they come second."""
    base = Recipe.parse({}, "impasto") if recipe is None else read_recipe(recipe)
    method = find_method(flags.get("method", base.method))
    changed = method.name != base.method or flags.get("preset", base.preset) != base.preset
    files, options = take_flags(ctx, words, method.Options, method.name, f"impasto methods {method.name}")
    known = base.model_dump() | {"method": method.name}
    known |= {"options": {}, "preset": "default", "weights": {}, "temporal_weight": None} if changed else {}
    known |= {**flags, "options": {**known["options"], **options}}
    return Recipe.parse(known, ctx.command.name or "impasto"), files
