"""`impasto stylize`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from impasto.cli import flags
from impasto.cli.flags import MachineFlags, ReportingFlags, StylizationFlags, spread
from impasto.commands import arguments, early_checks, early_recipes, first_look, terminal

LONG = "Long runs"


@spread
def stylize(
    ctx: typer.Context,
    *,
    content: flags.ContentWord = None,
    styles: flags.StyleWords = None,
    output: flags.OutputFlag = None,
    stylization: StylizationFlags,
    machine: MachineFlags,
    force: flags.ForceFlag = False,
    reporting: ReportingFlags,
    checkpoint: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            rich_help_panel=LONG,
            help="Keep an optimisation's state in FILE; the same command resumes from it.",
        ),
    ] = None,
    preview: Annotated[
        Path | None,
        typer.Option(metavar="FILE", rich_help_panel=LONG, help="Write the picture so far while it is made."),
    ] = None,
    preview_every: Annotated[
        int, typer.Option(metavar="N", min=1, rich_help_panel=LONG, help="Steps between two previews.")
    ] = 10,
) -> None:
    """Repaint a photo in a painting's style, and print the name of the file.

    Every option of the method is a flag, too, such as --steps 100: [bold]impasto methods gatys[/bold] lists them.
    """
    terminal.be_quiet(reporting.quiet)
    first_look.look_at(content, styles, stylization.style, stylization.chosen_method)
    words = arguments.words(content, styles)
    stylization.check(ctx, words, reporting.recipe)
    resume = checkpoint is not None and checkpoint.exists()
    early_checks.check_target_name(output, force=force or resume)
    early_checks.check_target_name(preview, force=force or resume)
    early_checks.check_target_name(checkpoint, (".safetensors",), force=True)
    early_recipes.check_optimising(stylization.chosen_method, "--checkpoint", checkpoint, reporting.recipe)
    with terminal.piped(words, output, json=reporting.json, dry_run=reporting.dry_run) as pipes:
        from impasto.commands import stylize as command
        from impasto.commands.stylize import make_recipe

        asked = make_recipe(ctx, pipes.words, reporting.recipe, stylization.given(), runtime=machine.runtime)
        target = command.choose_target(asked, pipes.output, force=force, record=reporting.record, resume=resume)
        job = command.open_job(asked, machine.device, machine.runtime)
        if stylization.seed is not None:
            command.note_seed(job)
        command.keep_state(job, target, checkpoint)
        show = command.previewer(job, target, preview, preview_every, force=force or resume)
        run = command.dry_run if reporting.dry_run else command.paint_file
        result = run(job, target, quiet=reporting.quiet, record=reporting.record, force=force or resume, also=show)
        pipes.deliver(lambda: terminal.print_json(result) if reporting.json else terminal.say_path(result["output"]))
    if result.get("interrupted"):
        raise typer.Exit(130)
