"""`impasto batch`."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from impasto.cli.flags import MachineFlags, ReportingFlags, StylizationFlags, spread
from impasto.commands import arguments, early_checks, early_devices, first_look, terminal
from impasto.errors import ImpastoError, OptionError, nearest

if TYPE_CHECKING:
    from impasto.batch.plan import BatchPlan
    from impasto.commands.batch import Engine

ENGINES = ("local", "ray")

FilesWord = Annotated[
    str | None,
    typer.Argument(metavar="CONTENTS", help="Photos: files, folders, URLs or quoted patterns such as 'trip/**/*.jpg'."),
]
StylesWord = Annotated[
    list[str] | None,
    typer.Argument(metavar="STYLES", help="Paintings or cards: the last word, unless --style or --recipe names them."),
]
FolderFlag = Annotated[
    str | None, typer.Option("--output", "-o", metavar="DIR", help="Folder of the results; made if it does not exist.")
]
FormatFlag = Annotated[str, typer.Option("--format", metavar="NAME", help="png, jpg, webp, tif or bmp.")]
ForceFlag = Annotated[bool, typer.Option("--force", help="Make existing results again.")]
PairsFlag = Annotated[
    bool, typer.Option("--pairs", help="The first photo by the first style, the second by the second.")
]
EngineFlag = Annotated[
    str, typer.Option(metavar="NAME", help="local, or ray: the workers of a Ray cluster, or of this machine.")
]
WorkersFlag = Annotated[
    int | None,
    typer.Option(metavar="N", min=1, help="Workers of --engine ray; default: one a GPU, or one for 4 cores."),
]
WatchFlag = Annotated[bool, typer.Option("--watch", help="Then wait for new photos, until Ctrl-C.")]


@spread
def batch(
    ctx: typer.Context,
    *,
    contents: FilesWord = None,
    styles: StylesWord = None,
    output: FolderFlag = None,
    pairs: PairsFlag = False,
    watch: WatchFlag = False,
    stylization: StylizationFlags,
    machine: MachineFlags,
    engine: EngineFlag = "local",
    workers: WorkersFlag = None,
    format: FormatFlag = "png",
    force: ForceFlag = False,
    reporting: ReportingFlags,
) -> None:
    """Repaint many photos, each in every style: [bold]impasto batch photos/ paintings/ -o results[/bold].

    Existing results are skipped, so that the same command continues after an interruption. Failures are reported, and
    the other pictures are still painted; the exit code is then 1. The method's options are flags, too.
    """
    given = stylization.given()
    named = given.pop("style", [])
    terminal.be_quiet(reporting.quiet)
    words = arguments.words(contents, styles)
    _check_settings(ctx, words, stylization, reporting.recipe)
    folder = _check(first_look.before_flags(words), named, output, format, reporting.recipe)
    _check_engine(engine, workers, machine.device, watch, pairs)
    from impasto.batch import plan as cli_batch_plan
    from impasto.commands import batch as command
    from impasto.commands.stylize import merge_flags
    from impasto.runs.remote_files import to_path

    base, files = merge_flags(ctx, words, reporting.recipe, given)
    if base.vary:
        raise ImpastoError(f"{reporting.recipe} records a contact sheet, not a picture")
    plan = cli_batch_plan.make_plan(
        base,
        files,
        named,
        to_path(folder),
        suffix=f".{format}",
        pairs=pairs,
        record=reporting.record,
        force=force,
        watch=watch,
    )
    if stylization.chosen_method is None and reporting.recipe is None:
        plan = plan.with_method(machine.runtime)
    if reporting.dry_run:
        code = command.dry_run(plan, json=reporting.json)
    else:
        code = command.run(
            plan,
            lambda: _open_engine(engine, workers)(plan, machine.device, machine.runtime),
            watch=watch,
            quiet=reporting.quiet,
            json=reporting.json,
        )
    raise typer.Exit(code)


def _check_settings(ctx: typer.Context, words: list[str], stylization: StylizationFlags, recipe: Path | None) -> None:
    """Check the method and its options; raises ImpastoError."""
    if stylization.style_weights is not None:
        raise ImpastoError("batch paints in one style at a time: --style-weights is for impasto stylize")
    first_look.check_method(stylization.chosen_method)
    stylization.check(ctx, words, recipe, many=True)


def _check(words: list[str], named: list[str], output: str | None, format: str, recipe: Path | None) -> str:
    """Return the folder of the results; raises ImpastoError if it or one of the files can't be used."""
    if not output:
        raise ImpastoError("name a folder for the results: impasto batch photos/ paintings/ -o results")
    if not words or (len(words) == 1 and not named and recipe is None):
        raise ImpastoError("name photos and styles: impasto batch photos/ paintings/ -o results")
    early_checks.check_batch(words, named)
    early_checks.check_batch_target(output, f".{format}", words if named else words[:-1])
    return output


def _check_engine(name: str, workers: int | None, device: str, watch: bool, pairs: bool) -> None:
    """Raise OptionError if there is no such engine, or if it can't do that."""
    if name not in ENGINES:
        raise OptionError(f"--engine is {' or '.join(ENGINES)}, not {name!r}{nearest(name, ENGINES)}")
    if name == "local" and workers is not None:
        raise OptionError("--workers goes with --engine ray")
    if watch and pairs:
        raise OptionError("--watch goes with every photo by every style, not with --pairs")
    if name == "ray" and watch:
        raise OptionError("--watch goes with --engine local")
    if name == "local":
        early_devices.check_here(device)


def _open_engine(name: str, workers: int | None) -> Callable[[BatchPlan, str, str], Engine]:
    """Return a function that opens an engine for a plan, a device and a runtime."""
    if name == "local":
        from impasto.batch.local_engine import LocalEngine

        return LocalEngine
    from impasto.batch.ray_engine import open_cluster

    return functools.partial(open_cluster, workers=workers)
