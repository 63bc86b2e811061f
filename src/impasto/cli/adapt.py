"""`impasto adapt`: a fast network for your own painting, by MetaStyle."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from impasto.cli import flags
from impasto.cli.style import PaintingWord
from impasto.commands import arguments, early_checks, first_look, terminal

PhotosFlag = Annotated[
    list[Path] | None,
    typer.Option("--content", metavar="PATH", help="Photographs to learn on, a folder or a file; repeatable."),
]
PreviewFlag = Annotated[
    Path | None,
    typer.Option("--preview", metavar="FILE", help="Picture that shows the progress; updated now and then."),
]


def adapt(
    ctx: typer.Context,
    painting: PaintingWord = None,
    content: PhotosFlag = None,
    output: flags.OutputFlag = None,
    preview: PreviewFlag = None,
    title: Annotated[str | None, typer.Option(help="The painting's title.")] = None,
    artist: Annotated[str | None, typer.Option(help="Who painted it.")] = None,
    year: Annotated[str | None, typer.Option(help="When.")] = None,
    list_options: flags.ListFlag = False,
    force: flags.ForceFlag = False,
    json: flags.JsonFlag = False,
    quiet: flags.QuietFlag = False,
    dry_run: flags.DryRunFlag = False,
) -> None:
    """Make a fast network for a painting, a style card for -m metastyle, in a minute; Ctrl-C keeps the result so far.

    [bold]impasto adapt painting.jpg -o card.safetensors[/bold], then [bold]impasto stylize photo.jpg card.safetensors
    -m metastyle[/bold]. Without --content it learns on pictures of overlapping shapes; --list-options lists all
    options.
    """
    terminal.be_quiet(quiet)
    words = [*arguments.words(painting, None), *ctx.args]
    if not list_options:
        found, values = early_checks.check_words(ctx, words, "impasto.commands.adapt", "AdaptOptions", "adapt")
        first_look.check_painting(arguments.one_picture(found, "impasto adapt PAINTING -o CARD.safetensors"), None)
        early_checks.check_places(content or [], "--content")
        early_checks.check_target_name(preview)
        early_checks.check_target_name(output, (".safetensors",), force=force)
        early_checks.check_weights(Path(values["from_"]) if values.get("from_") else None)
        first_look.need("accelerate", "train", "impasto adapt")
    from impasto.commands import adapt as command
    from impasto.commands import train

    if list_options:
        train.show_options(command.TRAINING, json)
        return
    about = arguments.given(title=title, artist=artist, year=year)
    plan = command.plan(ctx, words, content or [], about, output, preview, force=force)
    result = (command.dry_run if dry_run else command.run)(plan)
    terminal.print_json(result) if json else terminal.say_path(result["output"])
    if result.get("ended") == command.INTERRUPTED:
        raise typer.Exit(130)
