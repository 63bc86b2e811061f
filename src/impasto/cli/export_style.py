"""`impasto export-style`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from impasto.cli import flags
from impasto.commands import arguments, first_look, terminal

PaintingWord = Annotated[str | None, typer.Argument(metavar="PAINTING", help="The painting, or a style card.")]
NameFlag = Annotated[str | None, typer.Option("--style", metavar="NAME|CARD", help="A built-in style, or a card.")]
LongerFlag = Annotated[
    int | None,
    typer.Option(metavar="N", min=16, max=100_000, help="Longer side to which the painting is shrunk; default 512."),
]
USUAL_SIZE = 512
MAKER = "metanet"


def export_style(
    ctx: typer.Context,
    painting: PaintingWord = None,
    style: NameFlag = None,
    output: flags.OutputFlag = None,
    method: flags.MethodFlag = None,
    size: LongerFlag = None,
    device: flags.DeviceFlag = "auto",
    force: flags.ForceFlag = False,
    json: flags.JsonFlag = False,
    quiet: flags.QuietFlag = False,
) -> None:
    """Write the network that metanet or swift makes for a painting: half a megabyte that paints by itself.

    [bold]impasto stylize photo.jpg FILE -m metanet[/bold] paints with it.
    """
    terminal.be_quiet(quiet)
    first_look.check_method(method)
    for name in first_look.before_flags(arguments.words(painting, None)):
        first_look.check_painting(name, None)
    arguments.check_options(ctx, [*arguments.words(painting, None), *ctx.args], method or MAKER)
    from impasto.cli.style import describe_card
    from impasto.errors import ImpastoError
    from impasto.methods import find_method, load
    from impasto.runs.painting import pick_device, read_style
    from impasto.runs.record import find_painting
    from impasto.stylizers.generated_network import GeneratedNetworks
    from impasto.stylizers.styles import find_card, save_style

    found = find_method(method or MAKER)
    words = [*arguments.words(painting, None), *ctx.args]
    files, options = arguments.take_flags(ctx, words, found.Options, found.name, f"impasto methods {found.name}")
    if not issubclass(found, GeneratedNetworks):
        raise ImpastoError(f"{found.name} makes no networks: use -m {MAKER}, or keep a card by `impasto style extract`")
    chosen = [*files, *([str(find_card(style))] if style is not None else [])]
    if len(chosen) != 1:
        raise ImpastoError("name one painting, or one style by --style: impasto export-style PAINTING")
    stem = Path(chosen[0]).stem
    target = arguments.name_target(output, Path(f"{stem}.network.safetensors"), force=force, suffixes=(".safetensors",))
    given = read_style(find_painting(chosen[0]))
    model = load(found.name, device=pick_device(device), **options)
    assert isinstance(model, GeneratedNetworks)
    (known,) = model.encode_styles([given], size or USUAL_SIZE)
    save_style(model.generate(known), target)
    terminal.print_json(describe_card(target)) if json else terminal.say_path(target)
