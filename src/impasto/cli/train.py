"""`impasto train`: the trainings of impasto's own weights."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from impasto.cli import flags
from impasto.commands import arguments, early_checks, first_look, terminal

TaskWord = Annotated[str | None, typer.Argument(metavar="TASK", help="A method, `backbone` or `texture`.")]
ContentFlag = Annotated[list[Path] | None, typer.Option(metavar="PATH", help="Photographs, a folder; repeatable.")]
StyleFlag = Annotated[list[Path] | None, typer.Option(metavar="PATH", help="Artworks, folder or file; repeatable.")]
RunFlag = Annotated[
    Path | None, typer.Option("--output", "-o", metavar="RUNDIR", help="Folder for weights, checkpoint, previews.")
]
ResumeFlag = Annotated[bool, typer.Option("--resume", help="Resume from RUNDIR's checkpoint, with the same bits.")]


def train(
    ctx: typer.Context,
    task: TaskWord = None,
    content: ContentFlag = None,
    style: StyleFlag = None,
    output: RunFlag = None,
    resume: ResumeFlag = False,
    log: Annotated[bool, typer.Option("--log", help="Write TensorBoard logs into RUNDIR, too.")] = False,
    list_options: flags.ListFlag = False,
    force: Annotated[bool, typer.Option("--force", help="Start over in a RUNDIR that holds a training.")] = False,
    json: flags.JsonFlag = False,
    quiet: flags.QuietFlag = False,
    dry_run: flags.DryRunFlag = False,
) -> None:
    """Train weights on folders of pictures, and print their file. Ctrl-C keeps a checkpoint for --resume.

    [bold]impasto train backbone --content PHOTOS --style ARTWORKS --teacher vgg19 -o RUN --steps 20000[/bold];
    [bold]impasto train NAME --list-options[/bold] lists the options.
    """
    terminal.be_quiet(quiet)
    name = early_checks.check_training(ctx, [*arguments.words(task, None), *ctx.args], listing=list_options)
    if not list_options:
        early_checks.check_pictures_of(name, content or [], style or [])
        first_look.need("accelerate", "train", "impasto train")
        folder = early_checks.check_run_folder(output, resume=resume, force=force)
    from impasto.commands import train as command

    name, training, values = command.read_words(ctx, [*arguments.words(task, None), *ctx.args])
    if list_options:
        command.show_options(training, json)
        return
    options = training.options.parse(values, f"train {name}")
    folders = command.Folders(content or [], style or [])
    pictures = folders.read(options) if training.contents else folders.read_styles(options)
    built = command.build(training, options, pictures)
    run = command.dry_run if dry_run else command.run
    result = run(built, pictures, options, folder, resume=resume, log=log)
    terminal.print_json(result) if json else terminal.say_path(result["output"])
