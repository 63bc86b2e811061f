"""`impasto sweep`: a labelled contact sheet over one or two options."""

from __future__ import annotations

from typing import Annotated

import typer

from impasto.cli import flags
from impasto.cli.flags import ReportingFlags, StylizationFlags, spread
from impasto.commands import arguments, early_checks, early_recipes, first_look, terminal

VaryFlag = Annotated[
    list[str] | None,
    typer.Option(
        "--vary",
        metavar="OPTION=V1,V2,...",
        help="What varies between columns and, given again, between rows: an option of the method, strength, preset, "
        "keep-color, seed, size or style-size. Separate lists by semicolons: 'content-layers=relu3_1;relu4_1'.",
    ),
]


@spread
def sweep(
    ctx: typer.Context,
    *,
    content: flags.ContentWord = None,
    styles: flags.StyleWords = None,
    vary: VaryFlag = None,
    output: flags.OutputFlag = None,
    stylization: StylizationFlags,
    device: flags.DeviceFlag = "auto",
    cell: Annotated[int, typer.Option(metavar="N", min=32, max=2048, help="Side of the sheet's cells.")] = 256,
    force: flags.ForceFlag = False,
    reporting: ReportingFlags,
) -> None:
    """Paint the same photo with different values of one or two options, on one labelled sheet.

    The method's options are flags, too: [bold]impasto methods NAME[/bold] lists them.
    """
    terminal.be_quiet(reporting.quiet)
    first_look.look_at(content, styles, stylization.style, stylization.chosen_method)
    words = arguments.words(content, styles)
    stylization.check(ctx, words, reporting.recipe)
    early_recipes.check_axes(vary or [], stylization.chosen_method, reporting.recipe)
    early_checks.check_target_name(output, force=force)
    from impasto.commands import sweep as command
    from impasto.commands.stylize import choose_target, make_recipe

    named = command.own_options(vary or [])
    made = make_recipe(ctx, words, reporting.recipe, stylization.given(), vary=named)
    recipe = command.add_axes(made, vary or [])
    target = choose_target(recipe, output, force=force, record=reporting.record, ending="-sweep")
    plan = command.plan_sheet(recipe, device)
    make = command.dry_run_sheet if reporting.dry_run else command.paint_sheet
    result = make(plan, target, cell=cell, quiet=reporting.quiet, record=reporting.record, force=force)
    terminal.print_json(result) if reporting.json else terminal.say_path(result["output"])
    if result.get("interrupted"):
        raise typer.Exit(130)
