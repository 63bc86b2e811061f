"""`impasto transfer`: your own classifier on a pretrained backbone, and its predictions."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from impasto.cli import flags
from impasto.cli.train import ResumeFlag, RunFlag
from impasto.commands import arguments, early_checks, first_look, terminal
from impasto.errors import ImpastoError

LISTING = "impasto transfer fit --list-options"
FolderWord = Annotated[str | None, typer.Argument(metavar="FOLDER", help="Holds a folder of pictures for each class.")]
PictureWords = Annotated[list[str] | None, typer.Argument(metavar="PICTURES", help="Pictures to judge.")]
ClassifierFlag = Annotated[
    str | None,
    typer.Option(
        "--classifier",
        metavar="NAME|FILE",
        help="vgg19-slim-classifier, which is part of the package, a network of torchvision's, or a file of `impasto "
        "transfer fit`.",
    ),
]
WeightsFlag = Annotated[
    Path | None,
    typer.Option("--backbone-weights", metavar="FILE", help="Local weights of the backbone instead of its own."),
]


def fit(
    ctx: typer.Context,
    folder: FolderWord = None,
    output: RunFlag = None,
    resume: ResumeFlag = False,
    log: Annotated[bool, typer.Option("--log", help="Write TensorBoard logs into RUNDIR, too.")] = False,
    list_options: flags.ListFlag = False,
    device: flags.DeviceFlag = "auto",
    force: Annotated[bool, typer.Option("--force", help="Start over in a RUNDIR that holds a training.")] = False,
    json: flags.JsonFlag = False,
    quiet: flags.QuietFlag = False,
    dry_run: flags.DryRunFlag = False,
) -> None:
    """Train a classifier on pictures in class folders, test it on others, and print its file.

    [bold]impasto transfer fit FOLDER --backbone vgg19-slim -o RUN[/bold]; --list-options lists all options.
    """
    terminal.be_quiet(quiet)
    words = [*arguments.words(folder, None), *ctx.args]
    if list_options:
        _list_fit_options(ctx, words)
        return
    named = _check_fit(ctx, words)
    first_look.need("accelerate", "transfer", "impasto transfer fit")
    early_checks.check_run_folder(output, resume=resume, force=force)
    from impasto.transfer.class_folders import ClassFolders

    pictures = ClassFolders.find(Path(named))
    from impasto.commands import transfer_fit
    from impasto.transfer.tasks import FitOptions

    values = arguments.take_flags(ctx, words, FitOptions, "transfer fit", LISTING)[1]
    options = FitOptions.parse(values, "transfer fit")
    plan = transfer_fit.plan(pictures, options, output, device, resume=resume, force=force)
    result = transfer_fit.dry_run(plan) if dry_run else transfer_fit.run(plan, resume=resume, log=log, quiet=quiet)
    terminal.print_json(result) if json else terminal.say_path(result["output"])


def _list_fit_options(ctx: typer.Context, words: list[str]) -> None:
    """Print the options of `impasto transfer fit`; raises OptionError for unknown flags."""
    from impasto.commands import methods_table
    from impasto.transfer.tasks import FitOptions

    arguments.take_flags(ctx, words, FitOptions, "transfer fit", LISTING)
    methods_table.show_options(FitOptions)


def _check_fit(ctx: typer.Context, words: list[str]) -> str:
    """Return the folder of `impasto transfer fit` after a check of its words, before torch; raises ImpastoError."""
    found, values = early_checks.check_words(ctx, words, "impasto.transfer.tasks", "FitOptions", "transfer fit")
    if len(found) != 1:
        raise ImpastoError("name one folder of class folders: impasto transfer fit FOLDER -o RUN")
    if not Path(found[0]).is_dir():
        near = first_look.near_files(Path(found[0]))
        raise ImpastoError(f"{found[0]} is no folder{near}; name one that holds a folder of pictures for each class")
    if "backbone" in values:
        early_checks.check_backbone(values["backbone"], filter(None, [values["layer"]]))
    return found[0]


def predict(
    pictures: PictureWords = None,
    classifier: ClassifierFlag = None,
    backbone_weights: WeightsFlag = None,
    top: Annotated[int, typer.Option(metavar="N", min=1, help="How many classes to name.")] = 3,
    device: flags.DeviceFlag = "auto",
    json: flags.JsonFlag = False,
    quiet: flags.QuietFlag = False,
) -> None:
    """Name what pictures show, with probabilities."""
    terminal.be_quiet(quiet)
    if not pictures:
        raise ImpastoError("name pictures: impasto transfer predict photo.jpg")
    for picture in pictures:
        early_checks.check_picture(picture)
    early_checks.check_classifier(classifier)
    early_checks.check_weights(backbone_weights)
    from impasto.images.files import read_image
    from impasto.networks.classifiers import CLASSIFIER, load_classifier
    from impasto.runs.painting import pick_device

    where = pick_device(device)
    model = load_classifier(classifier or CLASSIFIER, weights=backbone_weights, device=where)
    results: list[dict[str, Any]] = []
    for path in pictures:
        chances = model.probabilities(model.square(read_image(path)).to(where))[0]
        best = chances.topk(min(top, len(model.classes)))
        named = {model.classes[int(i)]: float(p) for p, i in zip(best.values, best.indices, strict=True)}
        results.append({"file": path, "classes": named})
        if not json:
            terminal.say(f"{path}: {', '.join(f'{name} {chance:.1%}' for name, chance in named.items())}")
    if json:
        terminal.print_json({"classifier": model.name, "digest": model.digest, "pictures": results})
