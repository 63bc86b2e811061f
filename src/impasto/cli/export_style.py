"""`impasto export-style`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from impasto.cli import flags
from impasto.commands import arguments, early_checks, early_recipes, first_look, terminal
from impasto.errors import ImpastoError

PaintingWord = Annotated[str | None, typer.Argument(metavar="PAINTING", help="The painting, or a style card.")]
NameFlag = Annotated[str | None, typer.Option("--style", metavar="NAME|CARD", help="A built-in style, or a card.")]
LongerFlag = Annotated[
    int | None,
    typer.Option(metavar="N", min=16, max=100_000, help="Longer side to which the painting is shrunk; default 512."),
]
USUAL_SIZE = 512
MAKER = "metanet"
"""The method that makes the network if none is named."""


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
    words = [*arguments.words(painting, None), *ctx.args]
    for name in first_look.before_flags(words):
        first_look.check_painting(name, None)
    early_checks.check_maker(method or MAKER)
    named, chosen = arguments.check_options(ctx, words, method or MAKER)
    early_recipes.check_networks(chosen)
    if named is not None:
        _one_style([*named, *([] if style is None else [style])])
    if style is not None:
        first_look.check_painting(style, None, bare=True)
    early_checks.check_target_name(output, (first_look.CARD,), force=force)
    from impasto.cli.style import describe_card
    from impasto.methods import find_method, load
    from impasto.runs.painting import pick_device, read_style
    from impasto.runs.record import find_painting
    from impasto.stylizers.generated_network import GeneratedNetworks
    from impasto.stylizers.styles import find_card, save_style

    found = find_method(method or MAKER)
    files, options = arguments.take_flags(ctx, words, found.Options, found.name, f"impasto methods {found.name}")
    given = [*files, *([str(find_card(style))] if style is not None else [])]
    stem = Path(_one_style(given)).stem
    target = arguments.name_target(output, Path(f"{stem}.network.safetensors"), force=force, suffixes=(".safetensors",))
    picture = read_style(find_painting(given[0]))
    model = load(found.name, device=pick_device(device), **options)
    assert isinstance(model, GeneratedNetworks)
    (known,) = model.encode_styles([picture], size or USUAL_SIZE)
    save_style(model.generate(known), target)
    terminal.print_json(describe_card(target)) if json else terminal.say_path(target)


def _one_style(words: list[str]) -> str:
    """Return the only word; raises ImpastoError."""
    if len(words) != 1:
        raise ImpastoError("name one painting, or one style by --style: impasto export-style PAINTING")
    return words[0]
