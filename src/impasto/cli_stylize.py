"""`impasto stylize`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from impasto import cli_flags as flags


def stylize(
    ctx: typer.Context,
    content: flags.ContentWord = None,
    styles: flags.StyleWords = None,
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
    runtime: flags.RuntimeFlag = "torch",
    force: flags.ForceFlag = False,
    json: flags.JsonFlag = False,
    quiet: flags.QuietFlag = False,
    dry_run: flags.DryRunFlag = False,
    record: flags.RecordFlag = True,
    recipe: flags.RecipeFlag = None,
    checkpoint: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Keep an optimisation's state there, and go on from it: same command again."),
    ] = None,
    preview: Annotated[Path | None, typer.Option(metavar="FILE", help="Show the picture while it is made.")] = None,
    preview_every: Annotated[int, typer.Option(metavar="N", min=1, help="Steps between two previews.")] = 10,
) -> None:
    """Repaint a photo in a painting's style, and print where the picture is.

    Every option of the method is a flag, too, such as --steps 100: [bold]impasto methods gatys[/bold] lists them.
    """
    given = flags.given(method=method, preset=preset, style=style, style_weights=style_weights, size=size, seed=seed)
    given |= flags.given(style_size=style_size, strength=strength, keep_color=keep_color, masks=mask)
    flags.be_quiet(quiet)
    from impasto import cli_run

    asked = cli_run.make_recipe(ctx, flags.words(content, styles), recipe, given)
    force = force or (checkpoint is not None and checkpoint.exists())
    target = cli_run.choose_target(asked, output, force=force, record=record)
    job = cli_run.open_job(asked, device, runtime)
    cli_run.keep_state(job, target, checkpoint)
    show = cli_run.previewer(job, target, preview, preview_every, force=force)
    run = cli_run.rehearse if dry_run else cli_run.paint_file
    result = run(job, target, quiet=quiet, record=record, force=force, also=show)
    flags.print_json(result) if json else typer.echo(result["output"])
    if result.get("interrupted"):
        raise typer.Exit(130)
