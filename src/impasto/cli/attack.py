"""`impasto attack`: a picture that looks the same and fools a classifier."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from impasto.cli import flags
from impasto.cli.flags import NetworkFlags, spread
from impasto.cli.transfer import ClassifierFlag, WeightsFlag
from impasto.commands import arguments, early_checks, terminal
from impasto.errors import OptionError

PhotoWord = Annotated[str | None, typer.Argument(metavar="PHOTO", help="The picture.")]
TargetFlag = Annotated[
    str | None, typer.Option(metavar="NAME|N", help="The class that the classifier should see, by name or number.")
]
AlsoFlag = Annotated[
    list[str] | None,
    typer.Option("--also", metavar="NAME|FILE", help="Another classifier: is it fooled, too? Repeatable."),
]


USAGE = "impasto attack PHOTO --target CLASS"


@spread
def attack(
    ctx: typer.Context,
    *,
    photo: PhotoWord = None,
    target: TargetFlag = None,
    classifier: ClassifierFlag = None,
    backbone_weights: WeightsFlag = None,
    also: AlsoFlag = None,
    output: flags.OutputFlag = None,
    run: NetworkFlags,
) -> None:
    """Change a photo a little until a classifier takes it for something else, and report the result.

    [bold]impasto attack elephant.jpg --target giraffe[/bold]; --epsilon 0 sets no limit to the changes.
    """
    terminal.be_quiet(run.quiet)
    words = [*arguments.words(photo, None), *ctx.args]
    if not run.list_options:
        _check(ctx, words, target, classifier, also or [])
        _check_ending(output)
        early_checks.check_weights(backbone_weights)
        early_checks.check_target_name(output, force=run.force)
    from impasto.commands import methods_table, network_command
    from impasto.commands.terminal import progress
    from impasto.images.files import read_image
    from impasto.networks.classifiers import CLASSIFIER, load_classifier
    from impasto.runs.painting import pick_device
    from impasto.vision import attack as adversarial

    if run.list_options:
        methods_table.show_options(adversarial.AttackOptions)
        return
    words, options = network_command.read_options(ctx, words, adversarial.AttackOptions, "attack")
    path = arguments.one_picture(words, USAGE)
    assert target is not None
    where = pick_device(run.device)
    model = load_classifier(classifier or CLASSIFIER, weights=backbone_weights, device=where)
    others = [load_classifier(name, device=where) for name in also or []]
    wanted = model.find(target)
    out = network_command.Output.choose(
        output, _name(path, model.classes[wanted]), record=run.record, force=run.force, second="difference"
    )
    _check_ending(out.target)
    difference = out.beside("difference")
    image = model.square(read_image(path)).to(where)
    with progress(f"attacking {model.name}", run.quiet) as (watch, on_step):
        found = adversarial.attack(model, image, wanted, options, on_step=on_step)
    source, named = model.classes[found.source], model.classes[wanted]
    verdicts = [found.judge(model, source, named)]
    verdicts += [_judge_other(found, other, source, named) for other in others]
    facts = {"source": source, "target": named, "l_infinity": found.largest, "l2": found.length, "verdicts": verdicts}
    made = network_command.make_record("attack", options, model.backbone, photo=network_command.describe(path), **facts)
    out.write(found.after, made)
    difference.write(found.amplified(), {})
    result = {"output": str(out.target), "difference": str(difference.target), **made, "seconds": watch.seconds}
    terminal.print_json(result) if run.json else _tell(out.target, facts)
    network_command.tell_interrupted(found.result.interrupted)


def _check(ctx: typer.Context, words: list[str], target: str | None, classifier: str | None, also: list[str]) -> None:
    """Check the words before torch is loaded; raises ImpastoError."""
    found, _ = early_checks.check_words(ctx, words, "impasto.vision.attack", "AttackOptions", "attack")
    early_checks.check_picture(arguments.one_picture(found, USAGE))
    if target is None:
        raise OptionError("name the class that the classifier should see: --target CLASS")
    early_checks.check_classifier(classifier, target)
    for name in also:
        early_checks.check_classifier(name)


def _check_ending(output: Path | None) -> None:
    """Raise OptionError for a file that would round the changes off."""
    if output is not None and output.suffix.lower() != ".png":
        raise OptionError(f"{output}: only .png keeps every pixel as it is")


def _name(path: str, target: str) -> str:
    return f"{Path(path).stem}-as-{target.replace('/', '-')}.png"


def _judge_other(found: Any, other: Any, source: str, target: str) -> dict[str, Any]:
    """Return another classifier's answers; if it lacks one of the classes, only its answers before and after."""
    try:
        verdict: dict[str, Any] = found.judge(other, source, target)
        return verdict
    except OptionError:
        said = [
            other.classes[int(other.probabilities(image.to(other.backbone.mean))[0].argmax())]
            for image in (found.before, found.after)
        ]
        return {"classifier": other.name, "before": {"said": said[0]}, "after": {"said": said[1]}, "fooled": None}


def _tell(path: Path, facts: dict[str, Any]) -> None:
    terminal.say_path(path)
    for verdict in facts["verdicts"]:
        lines = []
        for when in ("before", "after"):
            seen = verdict[when]
            chances = ", ".join(f"{facts[kind]} {seen[kind]:.1%}" for kind in ("source", "target") if kind in seen)
            lines.append(f"{when} {seen['said']}" + (f" ({chances})" if chances else ""))
        fooled = {True: "fooled", False: "not fooled", None: "lacks one of the classes"}[verdict["fooled"]]
        terminal.say(f"{verdict['classifier']}: {', '.join(lines)}: {fooled}", err=True)
    terminal.say(f"largest change {facts['l_infinity'] * 255:.0f}/255, L2 {facts['l2']:.2f}", err=True)
