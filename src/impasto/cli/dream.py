"""`impasto dream`: the picture to which a class, a channel or a unit responds most."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from impasto.cli import flags
from impasto.cli.flags import NetworkFlags, spread
from impasto.cli.transfer import ClassifierFlag, WeightsFlag
from impasto.commands import early_checks, early_recipes, terminal
from impasto.commands.arguments import constant
from impasto.errors import OptionError

ClassFlag = Annotated[
    str | None, typer.Option("--class", metavar="NAME|N", help="A class of the classifier, by name or number.")
]
BackboneFlag = Annotated[
    str | None, typer.Option("--backbone", metavar="NAME", help="With --layer: a network without classes, too.")
]
LayerFlag = Annotated[str | None, typer.Option(metavar="NAME", help="With --channel: the layer.")]
ChannelFlag = Annotated[int | None, typer.Option(metavar="N", min=0, help="A channel of --layer, instead of a class.")]
UnitFlag = Annotated[str | None, typer.Option(metavar="ROW,COLUMN", help="One unit of the channel; default: all.")]
SideFlag = Annotated[
    int | None, typer.Option(metavar="N", min=32, max=4096, help="Side of the picture; default: the classifier's.")
]


DREAMS, SLIM = "impasto.vision.dreams", "vgg19-slim"


@spread
def dream(
    ctx: typer.Context,
    *,
    class_name: ClassFlag = None,
    classifier: ClassifierFlag = None,
    backbone: BackboneFlag = None,
    backbone_weights: WeightsFlag = None,
    layer: LayerFlag = None,
    channel: ChannelFlag = None,
    unit: UnitFlag = None,
    output: flags.OutputFlag = None,
    preset: flags.PresetFlag = None,
    size: SideFlag = None,
    seed: Annotated[int, typer.Option(metavar="N", min=0, help="Same seed, same picture.")] = 0,
    run: NetworkFlags,
) -> None:
    """Dream up, from noise, the ideal picture of a class: [bold]impasto dream --class giraffe[/bold].

    --preset noise and beginners work in plain pixels, as lessons do; --layer relu4_1 --channel 17 shows a channel.
    """
    terminal.be_quiet(run.quiet)
    changes = early_recipes.choose_preset(constant(DREAMS, "PRESETS"), preset, "dream")
    if not run.list_options:
        words, _ = early_checks.check_words(ctx, ctx.args, DREAMS, "DreamOptions", "dream", changes)
        if words:
            raise OptionError(f"{words[0]!r} is too much: impasto dream --class NAME")
        _check_target(class_name, classifier, backbone, layer, channel, unit)
        if layer is not None and channel is not None and backbone in (None, SLIM):
            early_checks.check_channel(classifier if backbone is None else None, layer, channel, _position(unit), size)
        early_checks.check_weights(backbone_weights)
        early_checks.check_target_name(output, force=run.force)
    from impasto.commands import methods_table, network_command
    from impasto.commands.terminal import progress
    from impasto.vision import dreams

    if run.list_options:
        methods_table.show_options(dreams.DreamOptions)
        return
    _, options = network_command.read_options(ctx, ctx.args, dreams.DreamOptions, "dream", changes)
    asked = (class_name, classifier, backbone, backbone_weights, layer, channel, unit)
    network, model, target, name = _target(*asked, device=run.device)
    out = network_command.Output.choose(output, f"dream-{name}.png", record=run.record, force=run.force)
    side = size or (model.size if model else 224)
    dream_it = partial(dreams.dream, network, target, size=side, seed=seed)
    expected = None if run.quiet else network_command.expected_seconds(lambda few: dream_it(options=few), options)
    with progress(f"dreaming of {name} with {network.name}", run.quiet, expected=expected) as (watch, on_step):
        result = dream_it(options=options, on_step=on_step)
    facts: dict[str, Any] = {"target": {"layer": target.layer, "channel": target.channel, "unit": target.position}}
    if model is not None and class_name is not None:
        facts |= {"class": model.classes[target.channel], "classifier": model.name}
        facts["probability"] = float(model.probabilities(result.image)[0, target.channel])
    facts |= {"size": side, "seed": seed, "preset": preset or "default"}
    made = network_command.make_record("dream", options, network, **facts)
    out.write(result.image, made)
    found = {"output": str(out.target), **made, "seconds": watch.seconds, "losses": result.losses[-1:]}
    terminal.print_json(found) if run.json else terminal.say_path(out.target)
    network_command.tell_interrupted(result.interrupted)


def _check_target(
    class_name: str | None,
    classifier: str | None,
    backbone: str | None,
    layer: str | None,
    channel: int | None,
    unit: str | None,
) -> None:
    """Check the words that name a target; raises ImpastoError."""
    if (class_name is None) == (layer is None) or (layer is None) != (channel is None):
        raise OptionError("name a target: --class NAME, or --layer NAME --channel N")
    if class_name is not None and (backbone is not None or unit is not None):
        raise OptionError("--backbone and --unit go with --layer and --channel; a class needs --classifier")
    if backbone is not None and classifier is not None:
        raise OptionError("give --classifier or --backbone, not both")
    _position(unit)
    if backbone is not None:
        early_checks.check_backbone(backbone, [layer] if layer else [])
    else:
        early_checks.check_classifier(classifier, class_name)
        if layer not in (None, "logits") and classifier is None:
            early_checks.check_backbone(SLIM, [layer])


def _target(
    class_name: str | None,
    classifier: str | None,
    backbone: str | None,
    weights: Path | None,
    layer: str | None,
    channel: int | None,
    unit: str | None,
    device: str,
) -> tuple[Any, Any, Any, str]:
    """Return the network, its classifier if it is one, the target, a name for it; raises OptionError."""
    from impasto.commands.network_command import open_backbone
    from impasto.networks.classifiers import CLASSIFIER, LOGITS, load_classifier
    from impasto.runs.painting import pick_device
    from impasto.vision.dreams import Target

    model = None
    if backbone is not None:
        network = open_backbone(backbone, weights, device)
    else:
        model = load_classifier(classifier or CLASSIFIER, weights=weights, device=pick_device(device))
        network = model.backbone
    if class_name is not None:
        assert model is not None
        index = model.find(class_name)
        return network, model, Target(LOGITS, index), model.classes[index].replace("/", "-")
    assert layer is not None
    assert channel is not None
    position = _position(unit)
    ending = f"-{position[0]}-{position[1]}" if position else ""
    return network, model, Target(layer, channel, position), f"{layer}-{channel}{ending}"


def _position(unit: str | None) -> tuple[int, int] | None:
    if unit is None:
        return None
    parts = unit.split(",")
    if len(parts) != 2 or not all(part.strip().isdecimal() for part in parts):
        raise OptionError(f"--unit takes ROW,COLUMN, such as 3,4, not {unit!r}")
    return int(parts[0]), int(parts[1])
