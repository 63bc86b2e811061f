"""`impasto train`: what impasto's own weights are made with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from impasto.cli import flags
from impasto.commands import arguments, terminal

if TYPE_CHECKING:
    from impasto.training.loop import Recipe


def _backbone() -> Recipe:
    from impasto.commands.train_backbone import RECIPE

    return RECIPE


def _wct() -> Recipe:
    from impasto.commands.train_methods import WCT

    return WCT


def _adain() -> Recipe:
    from impasto.commands.train_methods import ADAIN

    return ADAIN


def _sanet() -> Recipe:
    from impasto.commands.train_methods import SANET

    return SANET


def _swift() -> Recipe:
    from impasto.commands.train_methods import SWIFT

    return SWIFT


def _johnson() -> Recipe:
    from impasto.commands.train_styles import JOHNSON

    return JOHNSON


def _texture_network() -> Recipe:
    from impasto.commands.train_styles import TEXTURE_NETWORK

    return TEXTURE_NETWORK


def _conditional_norm() -> Recipe:
    from impasto.commands.train_styles import CONDITIONAL_NORM

    return CONDITIONAL_NORM


def _metastyle() -> Recipe:
    from impasto.commands.train_meta import METASTYLE

    return METASTYLE


def _stylebank() -> Recipe:
    from impasto.commands.train_styles import STYLEBANK

    return STYLEBANK


def _metanet() -> Recipe:
    from impasto.commands.train_methods import METANET

    return METANET


def _texture() -> Recipe:
    from impasto.commands.train_texture import RECIPE

    return RECIPE


TASKS: dict[str, Callable[[], Recipe]] = {
    "backbone": _backbone,
    "wct": _wct,
    "adain": _adain,
    "sanet": _sanet,
    "swift": _swift,
    "johnson": _johnson,
    "conditional_norm": _conditional_norm,
    "metastyle": _metastyle,
    "stylebank": _stylebank,
    "metanet": _metanet,
    "texture": _texture,
    "texture_network": _texture_network,
}
"""What can be trained: its options, and how its task is built from them."""

TaskWord = Annotated[str | None, typer.Argument(metavar="TASK", help=f"One of: {', '.join(TASKS)}.")]
ContentFlag = Annotated[list[Path] | None, typer.Option(metavar="PATH", help="Photographs, a folder; repeatable.")]
StyleFlag = Annotated[list[Path] | None, typer.Option(metavar="PATH", help="Artworks, folder or file; repeatable.")]
RunFlag = Annotated[
    Path | None, typer.Option("--output", "-o", metavar="RUNDIR", help="Folder for weights, checkpoint, previews.")
]
ResumeFlag = Annotated[bool, typer.Option("--resume", help="Go on from RUNDIR's checkpoint, with the same bits.")]


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
    """Train weights on folders of pictures, and print where they are. Ctrl-C keeps a checkpoint for --resume.

    [bold]impasto train backbone --content PHOTOS --style ARTWORKS --teacher vgg19 -o RUN --steps 20000[/bold];
    --list-options lists all that can be said.
    """
    terminal.be_quiet(quiet)
    from impasto.commands import train as training_run

    name, recipe, values = training_run.read_words(ctx, [*arguments.words(task, None), *ctx.args], TASKS)
    if list_options:
        training_run.show_options(recipe, json)
        return
    options = recipe.options.parse(values, f"train {name}")
    folders = training_run.Folders(content or [], style or [])
    pictures = folders.read(options) if recipe.contents else folders.read_styles(options)
    folder = training_run.check_folder(output, resume=resume, force=force)
    built = training_run.build(recipe, options, pictures)
    run = training_run.rehearse if dry_run else training_run.run
    result = run(built, pictures, options, folder, resume=resume, log=log)
    terminal.print_json(result) if json else terminal.say_path(result["output"])
