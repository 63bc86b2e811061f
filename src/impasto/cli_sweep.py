"""`impasto sweep`: a labelled contact sheet over one or two options."""

from __future__ import annotations

from typing import Annotated

import typer

from impasto import cli_flags as flags

VaryFlag = Annotated[
    list[str] | None,
    typer.Option(
        "--vary",
        metavar="OPTION=V1,V2,...",
        help="What differs between columns and, given again, between rows: an option of the method, strength, preset, "
        "keep-color, seed, size or style-size. Lists are parted by semicolons: 'content-layers=relu3_1;relu4_1'.",
    ),
]


def sweep(
    ctx: typer.Context,
    content: flags.ContentWord = None,
    styles: flags.StyleWords = None,
    vary: VaryFlag = None,
    output: flags.OutputFlag = None,
    method: flags.MethodFlag = None,
    preset: flags.PresetFlag = None,
    style: flags.StyleFlag = None,
    style_weights: flags.StyleWeightsFlag = None,
    size: flags.SizeFlag = None,
    style_size: flags.StyleSizeFlag = None,
    strength: flags.StrengthFlag = None,
    keep_color: flags.KeepColorFlag = None,
    mask: flags.MaskFlag = None,
    seed: flags.SeedFlag = None,
    device: flags.DeviceFlag = "auto",
    cell: Annotated[int, typer.Option(metavar="N", min=32, max=2048, help="Side of the sheet's cells.")] = 256,
    force: flags.ForceFlag = False,
    json: flags.JsonFlag = False,
    quiet: flags.QuietFlag = False,
    dry_run: flags.DryRunFlag = False,
    record: flags.RecordFlag = True,
    recipe: flags.RecipeFlag = None,
) -> None:
    """Paint the same photo with different values of one or two options, on one labelled sheet.

    The method's options are flags, too: [bold]impasto methods NAME[/bold] lists them.
    """
    given = flags.given(method=method, preset=preset, style=style, style_weights=style_weights, size=size, seed=seed)
    given |= flags.given(style_size=style_size, strength=strength, keep_color=keep_color, masks=mask, vary=vary)
    flags.be_quiet(quiet)
    from impasto import cli_sheet

    asked = cli_sheet.make_recipe(ctx, flags.words(content, styles), recipe, given)
    target = cli_sheet.choose_target(asked, output, force=force, record=record, ending="-sweep")
    plan = cli_sheet.plan_sheet(asked, device)
    make = cli_sheet.rehearse_sheet if dry_run else cli_sheet.paint_sheet
    result = make(plan, target, cell=cell, quiet=quiet, record=record, force=force)
    flags.print_json(result) if json else typer.echo(result["output"])
    if result.get("interrupted"):
        raise typer.Exit(130)
