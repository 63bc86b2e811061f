"""The work of `impasto sweep`: one run a cell, laid out with labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from impasto.commands import terminal
from impasto.commands.arguments import flag_of
from impasto.commands.early_recipes import check_distinct
from impasto.commands.stylize import title
from impasto.commands.terminal import progress
from impasto.errors import OptionError, nearest
from impasto.images.contact_sheet import contact_sheet
from impasto.methods import find_method
from impasto.options import Options
from impasto.runs.painting import Inputs, PaintJob, note_size, outcome, pick_device, prepare, read_inputs
from impasto.runs.record import Recipe, make_record, write_recorded

COMMON = ("strength", "preset", "keep_color", "seed", "size", "style_size")
MOST_CELLS = 200

Values = Mapping[str, str]


def add_axes(recipe: Recipe, texts: Sequence[str]) -> Recipe:
    """Return `recipe` with the axes of `texts`, such as ``style-weight=1,10,100``, or its own; raises OptionError."""
    options = find_method(recipe.method).Options
    axes = dict(_parse_axis(text, options, recipe.method) for text in texts) or recipe.vary
    if len(axes) not in (1, 2) or len(axes) < len(texts):
        raise OptionError("say what to vary, one or two different options: --vary style-weight=1,10,100")
    return Recipe.parse(recipe.model_dump() | {"vary": axes}, "sweep")


def own_options(texts: Sequence[str]) -> list[str]:
    """Return the names in ``--vary`` that belong to a method: its options, its presets."""
    names = [_name_of(text.partition("=")[0]) for text in texts]
    return [name for name in names if name not in COMMON or name == "preset"]


def _name_of(flag: str) -> str:
    return flag.strip().removeprefix("--").replace("-", "_")


def _parse_axis(text: str, options: type[Options], owner: str) -> tuple[str, tuple[str, ...]]:
    """Parse ``style-weight=1,10`` to ("style_weight", ("1", "10")); lists are separated by semicolons."""
    flag, _, values = text.partition("=")
    name = _name_of(flag)
    if name not in COMMON and name not in options.model_fields:
        near = nearest(flag.strip().removeprefix("--"), [flag_of(n)[2:] for n in [*COMMON, *options.model_fields]])
        raise OptionError(f"--vary: {owner} has no option {flag!r}{near}; see `impasto methods {owner}`")
    lists = name not in COMMON and "tuple" in str(options.model_fields[name].annotation)
    found = tuple(part.strip() for part in values.split(";" if lists else ",") if part.strip())
    if not found:
        raise OptionError(f"--vary {text}: give values, such as --vary style-weight=1,10,100")
    check_distinct(text, found)
    return name, found


@dataclass(frozen=True)
class SheetPlan:
    """A checked sheet: the recipe, its files, each row's and column's values, the device."""

    recipe: Recipe
    inputs: Inputs
    columns: tuple[Values, ...]
    rows: tuple[Values, ...]
    device: str

    def job(self, values: Values) -> PaintJob:
        """Return the run of one cell; raises ImpastoError."""
        known = self.recipe.model_dump()
        for name, value in values.items():
            known |= {name: value} if name in COMMON else {"options": {**known["options"], name: value}}
        return prepare(Recipe.parse(known, "sweep"), self.inputs, self.device)

    @property
    def cells(self) -> list[Values]:
        """The varied values of each cell, row by row."""
        return [{**row, **column} for row in self.rows for column in self.columns]


def plan_sheet(recipe: Recipe, device: str) -> SheetPlan:
    """Read the files and check every cell; raises ImpastoError before any work is done."""
    columns, *others = (tuple({name: value} for value in values) for name, values in recipe.vary.items())
    rows: tuple[Values, ...] = others[0] if others else ({},)
    if len(columns) * len(rows) > MOST_CELLS:
        raise OptionError(f"{len(columns) * len(rows)} pictures are too many for a sheet: at most {MOST_CELLS}")
    plan = SheetPlan(recipe, read_inputs(recipe), columns, rows, pick_device(device))
    for number, values in enumerate(plan.cells):
        job = plan.job(values)
        if number == 0:
            note_size(job.recipe, job.model, job.photo_size, job.size)
    return plan


def dry_run_sheet(plan: SheetPlan, target: Path, **ignored: Any) -> dict[str, Any]:
    """Report a checked run, for --dry-run; returns what --json prints."""
    terminal.say(f"dry run: {len(plan.cells)} times {title(plan.job(plan.cells[0]))}; nothing was written", err=True)
    return {"output": str(target), "cells": [_named(values) for values in plan.cells], "dry_run": True}


@dataclass
class _Sheet:
    """The cells so far, in order, and their results."""

    pictures: list[Tensor | None] = field(default_factory=list)
    reports: list[dict[str, Any]] = field(default_factory=list)
    interrupted: bool = False


def paint_sheet(plan: SheetPlan, target: Path, *, cell: int, quiet: bool, record: bool, force: bool) -> dict[str, Any]:
    """Paint all cells and write the sheet; after Ctrl-C with the finished ones. Returns what --json prints."""
    sheet = _Sheet()
    for values in plan.cells:
        if not sheet.interrupted:
            _paint_cell(plan, values, sheet, quiet)
    if not sheet.reports:
        raise KeyboardInterrupt
    if sheet.interrupted:
        terminal.say(f"interrupted: {len(sheet.reports)} of {len(plan.cells)} pictures are on the sheet", err=True)
    first = plan.job(plan.cells[0])
    made = make_record(plan.recipe, first.model, first.size, target.parent)
    made |= {"options": plan.recipe.options, "size": plan.recipe.size}
    write_recorded(_lay_out(plan, sheet.pictures, cell), target, made if record else None, overwrite=force)
    return {"output": str(target), **made, "cells": sheet.reports, "interrupted": sheet.interrupted}


def _paint_cell(plan: SheetPlan, values: Values, sheet: _Sheet, quiet: bool) -> None:
    """Paint one cell; after Ctrl-C it is left out."""
    job = plan.job(values)
    heading = f"{len(sheet.reports) + 1}/{len(plan.cells)} {_label(values)}: {title(job)}"
    try:
        with progress(heading, quiet) as (watch, on_step):
            picture = job.paint_floats(on_step)
        sheet.interrupted = job.model.interrupted
    except KeyboardInterrupt:
        sheet.interrupted = True
    if not sheet.interrupted:
        sheet.pictures.append(picture)
        sheet.reports.append({**_named(values), **outcome(job, watch.seconds)})


def _lay_out(plan: SheetPlan, pictures: list[Tensor | None], cell: int) -> Tensor:
    """Return the sheet: photo and painting in the first column, then the cells."""
    width, count = len(plan.columns), len(plan.rows)
    left = [*pictures, *[None] * (width * count - len(pictures))]
    rows = [left[start : start + width] for start in range(0, width * count, width)]
    painting = next((style for style in plan.inputs.styles if isinstance(style, Tensor)), None)
    sources: list[Tensor | None] = [plan.inputs.content.color, painting]
    if count == 1:
        sources = [contact_sheet([[source] for source in sources], cell=cell)]
    sources += [None] * (count - len(sources))
    return contact_sheet(
        [[source, *row] for source, row in zip(sources, rows, strict=True)],
        row_labels=[_label(row) for row in plan.rows] if count > 1 else (),
        column_labels=["photo, painting", *(_label(column) for column in plan.columns)],
        cell=cell,
    )


def _label(values: Values) -> str:
    return " ".join(f"{name}={value}" for name, value in _named(values).items())


def _named(values: Values) -> dict[str, str]:
    return {flag_of(name)[2:]: value for name, value in values.items()}
