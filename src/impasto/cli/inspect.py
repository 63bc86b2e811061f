"""`impasto inspect`: a network's layers, and the features of one of them for a picture."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from impasto.cli import flags
from impasto.cli.invert import BackboneFlag
from impasto.cli.transfer import WeightsFlag
from impasto.commands import early_checks, terminal
from impasto.errors import OptionError

if TYPE_CHECKING:
    from impasto.vision.inspection import Layer

PhotoWord = Annotated[str | None, typer.Argument(metavar="PHOTO", help="With --layer: the picture to look at.")]
LayerFlag = Annotated[str | None, typer.Option(metavar="NAME", help="The layer whose features are shown.")]


def inspect(
    photo: PhotoWord = None,
    layer: LayerFlag = None,
    backbone: BackboneFlag = "vgg19-slim",
    backbone_weights: WeightsFlag = None,
    size: Annotated[
        int, typer.Option(metavar="N", min=32, max=4096, help="Side of the picture that the table is for, or longer.")
    ] = 224,
    count: Annotated[
        int, typer.Option(metavar="N", min=1, max=512, help="How many feature maps, strongest first.")
    ] = 48,
    output: flags.OutputFlag = None,
    device: flags.DeviceFlag = "auto",
    force: flags.ForceFlag = False,
    json: flags.JsonFlag = False,
    quiet: flags.QuietFlag = False,
) -> None:
    """List a network's layers, or show a layer's features of a photo: maps, Gram matrix, correlated channels.

    [bold]impasto inspect --backbone vgg19[/bold]; [bold]impasto inspect photo.jpg --layer relu3_1[/bold].
    """
    terminal.be_quiet(quiet)
    if photo is not None:
        early_checks.check_picture(photo)
    early_checks.check_backbone(backbone, [layer] if layer else [])
    early_checks.check_weights(backbone_weights)
    early_checks.check_target_name(output, force=force)
    if (photo is None) != (layer is None):
        raise OptionError(
            "a photo and a layer go together: impasto inspect PHOTO --layer NAME; without both: the table"
        )
    if photo is None and output is not None:
        raise OptionError("the table goes to the screen, with --json as numbers; -o is for PHOTO --layer NAME")
    from impasto.networks.backbones import load_backbone
    from impasto.runs.painting import pick_device
    from impasto.vision import inspection

    if photo is None or layer is None:
        table = inspection.layer_table(load_backbone(backbone, pretrained=False), size)
        rows = [row.to_json() for row in table]
        terminal.print_json({"backbone": backbone, "size": size, "layers": rows}) if json else _show(table)
        return
    network = load_backbone(backbone, weights=backbone_weights).to(pick_device(device))
    _look(network, photo, layer, size, count, output, force=force, json=json)


def _look(
    network: Any, photo: str, layer: str, size: int, count: int, output: Path | None, *, force: bool, json: bool
) -> None:
    """Write the feature maps and the matrices; print the correlated channels."""
    from impasto.commands.network_command import Output, read_sized
    from impasto.vision.inspection import view

    network.check_layers([layer])
    out = Output.choose(output, f"{Path(photo).stem}-{layer}.png", record=False, force=force, second="gram")
    gram = out.beside("gram")
    found = view(network, read_sized(photo, size, network), layer)
    pairs = found.correlated()
    out.write(found.maps(count), {})
    gram.write(found.matrices(), {})
    if json:
        facts: dict[str, Any] = {"output": str(out.target), "gram_output": str(gram.target), "layer": layer}
        facts |= {"shape": list(found.features.shape), "strongest": found.strongest[:count]}
        terminal.print_json({**facts, "correlated": [list(pair) for pair in pairs], "gram": found.gram.tolist()})
        return
    terminal.say(f"{out.target}\n{gram.target}")
    for one, other, value in pairs:
        terminal.say(f"channels {one} and {other}: correlation {value:+.3f}", err=True)


def _show(table: list[Layer]) -> None:
    width = max(len("layer"), *(len(row.name) for row in table))
    terminal.say(
        f"{'layer':<{width}} {'output':>14} {'parameters':>12} {'multiply-adds':>14} {'field':>6} {'stride':>6}"
    )
    for row in table:
        facts = row.to_json()
        shape = "x".join(map(str, row.shape))
        parts = f"{row.parameters:>12,} {row.multiply_adds:>14,} {facts['receptive_field']:>6} {row.stride:>6}"
        terminal.say(f"{row.name:<{width}} {shape:>14} {parts}")
    totals = sum(row.parameters for row in table), sum(row.multiply_adds for row in table)
    terminal.say(f"{'all':<{width}} {'':>14} {totals[0]:>12,} {totals[1]:>14,}")
