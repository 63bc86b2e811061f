"""`impasto batch`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from impasto import cli_flags as flags
from impasto.errors import ImpastoError

FilesWord = Annotated[
    str | None,
    typer.Argument(metavar="CONTENTS", help="Photos: files, folders or quoted patterns such as 'trip/**/*.jpg'."),
]
StylesWord = Annotated[
    list[str] | None,
    typer.Argument(metavar="STYLES", help="The last word, unless --style or --recipe says which: paintings, cards."),
]
FolderFlag = Annotated[
    Path | None, typer.Option("--output", "-o", metavar="DIR", help="Folder of the results; made if it is not there.")
]
StyleFlag = Annotated[
    list[str] | None,
    typer.Option("--style", metavar="NAME|FILES", help="A built-in style, paintings or cards; repeatable."),
]
FormatFlag = Annotated[str, typer.Option("--format", metavar="NAME", help="png, jpg, webp, tif or bmp.")]
MasksFlag = Annotated[
    list[Path] | None, typer.Option("--mask", metavar="FILE", help="White is repainted, in every photo.")
]
ForceFlag = Annotated[bool, typer.Option("--force", help="Make again what is there already.")]
JsonFlag = Annotated[bool, typer.Option("--json", help="Print one JSON object a line: each picture, then a summary.")]
PairsFlag = Annotated[
    bool, typer.Option("--pairs", help="The first photo by the first style, the second by the second.")
]
WatchFlag = Annotated[bool, typer.Option("--watch", help="Then wait for new photos, until Ctrl-C.")]


def batch(
    ctx: typer.Context,
    contents: FilesWord = None,
    styles: StylesWord = None,
    output: FolderFlag = None,
    pairs: PairsFlag = False,
    watch: WatchFlag = False,
    method: flags.MethodFlag = None,
    preset: flags.PresetFlag = None,
    style: StyleFlag = None,
    size: flags.SizeFlag = None,
    style_size: flags.StyleSizeFlag = None,
    strength: flags.StrengthFlag = None,
    keep_color: flags.KeepColorFlag = None,
    mask: MasksFlag = None,
    seed: flags.SeedFlag = None,
    device: flags.DeviceFlag = "auto",
    runtime: flags.RuntimeFlag = "torch",
    format: FormatFlag = "png",
    force: ForceFlag = False,
    json: JsonFlag = False,
    quiet: flags.QuietFlag = False,
    dry_run: flags.DryRunFlag = False,
    record: flags.RecordFlag = True,
    recipe: flags.RecipeFlag = None,
) -> None:
    """Repaint many photos, each in every style: [bold]impasto batch photos/ paintings/ -o results[/bold].

    What is there already is skipped, so that the same command goes on after an interruption. A picture that fails is
    told of, and the run goes on; it then ends with exit code 1. The method's options are flags, too.
    """
    given = flags.given(method=method, preset=preset, size=size, seed=seed, style_size=style_size)
    given |= flags.given(strength=strength, keep_color=keep_color, masks=mask)
    flags.be_quiet(quiet)
    from impasto import cli_batch_plan, cli_batch_run, cli_job

    base, files = cli_job.merge_flags(ctx, flags.words(contents, styles), recipe, given)
    if base.vary:
        raise ImpastoError(f"{recipe} records a contact sheet, not a picture")
    plan = cli_batch_plan.make_plan(
        base, files, style or [], output, suffix=f".{format}", pairs=pairs, record=record, force=force, watch=watch
    )
    if dry_run:
        code = cli_batch_run.rehearse(plan, json=json)
    else:
        code = cli_batch_run.run(plan, device, runtime, watch=watch, quiet=quiet, json=json)
    if code:
        raise typer.Exit(code)
