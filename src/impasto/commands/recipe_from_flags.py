"""Makes a recipe of a painting command's flags, a recorded run and the defaults."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import typer

from impasto.commands.arguments import take_flags
from impasto.errors import ImpastoError
from impasto.methods import find_method
from impasto.runs.record import Recipe, check_recipe, choose_method, find_painting, find_style, read_recipe
from impasto.stylizers.fixed_styles import LearnedStyles

log = logging.getLogger(__name__)


def make_recipe(
    ctx: typer.Context,
    words: list[str],
    recipe: Path | None,
    flags: Mapping[str, Any],
    *,
    runtime: str = "torch",
    vary: Collection[str] | None = None,
) -> Recipe:
    """Return the recipe of a command: its flags over a recorded run over the defaults. Raises ImpastoError.

    If method or preset differ from the recorded ones, the recorded options are dropped. If no method is named, the
    styles decide.

    Args:
        words: CONTENT, STYLEs and the method's flags.
        recipe: picture or JSON file of a recorded run.
        flags: values by the names of a Recipe's fields; ``style``: more styles by name.
        runtime: what runs the networks.
        vary: for a contact sheet: names of the method's options that differ between its cells.
    """
    given = dict(flags)
    names = given.pop("style", [])
    merged, files = merge_flags(ctx, words, recipe, given)
    if merged.vary and vary is None:
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
    made = check_recipe(Recipe.parse(known, ctx.command.name or "impasto"))
    if recipe is not None or "method" in given:
        return made
    return choose_method(made, made.styles, options=[*made.options, *(vary or ())], runtime=runtime)


def merge_flags(
    ctx: typer.Context, words: list[str], recipe: Path | None, flags: Mapping[str, Any]
) -> tuple[Recipe, list[str]]:
    """Return a recipe as `make_recipe` does, and the words that are not flags, unread."""
    base = Recipe.parse({}, "impasto") if recipe is None else read_recipe(recipe)
    method = find_method(flags.get("method", base.method))
    changed = method.name != base.method or flags.get("preset", base.preset) != base.preset
    files, options = take_flags(ctx, words, method.Options, method.name, f"impasto methods {method.name}")
    known = base.model_dump() | {"method": method.name}
    known |= {"options": {}, "preset": "default", "weights": {}, "temporal_weight": None} if changed else {}
    known |= {**flags, "options": {**known["options"], **options}}
    return Recipe.parse(known, ctx.command.name or "impasto"), files
