"""`impasto style`: style cards; `impasto styles`: those that come with impasto."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from impasto.cli import flags
from impasto.commands import arguments, early_checks, early_recipes, first_look, terminal
from impasto.errors import ImpastoError, WeightsError, no_card

PaintingWord = Annotated[str | None, typer.Argument(metavar="PAINTING", help="The painting.")]
CardWord = Annotated[Path, typer.Argument(metavar="CARD", help="A style card, or a built-in style by its name.")]
LongerFlag = Annotated[
    int | None,
    typer.Option(metavar="N", min=16, max=100_000, help="Longer side to which the painting is shrunk."),
]


def extract(
    ctx: typer.Context,
    painting: PaintingWord = None,
    output: flags.OutputFlag = None,
    method: flags.MethodFlag = None,
    preset: flags.PresetFlag = None,
    size: LongerFlag = None,
    title: Annotated[str | None, typer.Option(help="The painting's title.")] = None,
    artist: Annotated[str | None, typer.Option(help="Who painted it.")] = None,
    year: Annotated[str | None, typer.Option(help="When.")] = None,
    device: flags.DeviceFlag = "auto",
    force: flags.ForceFlag = False,
    json: flags.JsonFlag = False,
    quiet: flags.QuietFlag = False,
) -> None:
    """Write a style card: a small file with everything that a method needs of a painting.

    The method's options are flags, too: [bold]impasto methods NAME[/bold] lists them.
    """
    terminal.be_quiet(quiet)
    first_look.check_method(method)
    words = [*arguments.words(painting, None), *ctx.args]
    found, options = arguments.check_options(ctx, words, method)
    early_recipes.check_preset(method, preset)
    early_recipes.check_networks(options)
    files = words if found is None else found
    if not files or (found is not None and len(found) != 1):
        raise ImpastoError("name one painting: impasto style extract PAINTING")
    _check_painting(files[0], method)
    early_checks.check_target_name(output, (first_look.CARD,), force=force)
    from impasto.images.files import read_painting
    from impasto.methods import find_method, load
    from impasto.runs.painting import fit_painting, pick_device
    from impasto.stylizers.styles import Style, save_style

    chosen = find_method(method)
    files, options = arguments.take_flags(ctx, words, chosen.Options, chosen.name, f"impasto methods {chosen.name}")
    if len(files) != 1:
        raise ImpastoError("name one painting: impasto style extract PAINTING")
    target = arguments.name_target(
        output, Path(f"{Path(files[0]).stem}.safetensors"), force=force, suffixes=(".safetensors",)
    )
    image = read_painting(files[0])
    model = load(chosen.name, preset=preset or "default", device=pick_device(device), **options)
    fitted = fit_painting(model, image, size)
    info = arguments.given(title=title, artist=artist, year=year) | {
        "width": fitted.shape[-1],
        "height": fitted.shape[-2],
    }
    style = model.encode_style(fitted)
    save_style(Style(style, style.kind, info), target)
    terminal.print_json(describe_card(target)) if json else terminal.say_path(target)


def _check_painting(word: str, method: str | None) -> None:
    """Raise ImpastoError if `word` is not a file that may be a painting."""
    if word in first_look.style_names() and not Path(word).exists():
        raise ImpastoError(f"{word} is built in as a card: paint in it by its name, impasto stylize PHOTO {word}")
    first_look.check_painting(word, method)


def show(card: CardWord, json: flags.JsonFlag = False) -> None:
    """Show the contents of a style card."""
    if card.is_dir():
        raise WeightsError(f"{card} is a folder; name a style card in it")
    first_look.check_painting(str(card), None)
    if card.is_file() and card.suffix.lower() != first_look.CARD:
        raise WeightsError(no_card(str(card)))
    about = describe_card(card)
    if json:
        terminal.print_json(about)
        return
    kinds = " and ".join((about["kind"], *about["others"]))
    terminal.say(f"{card}: {kinds}, {about['bytes'] / 1000:.0f} kB")
    for name, value in about["info"].items():
        terminal.say(f"  {name}: {value}")
    for name, shape in about["tensors"].items():
        terminal.say(f"  {name}  {'x'.join(map(str, shape))}")


def describe_card(card: Path) -> dict[str, Any]:
    """Return a card's kind, layers, sizes and notes; raises WeightsError if it is none."""
    from impasto.stylizers.styles import find_card, load_style

    card = find_card(card)
    style = load_style(card)
    layers = sorted({name.split(".")[-2] for name in style if "." in name})
    return {
        "output": str(card),
        "kind": style.kind,
        "others": [other.kind for other in style.others],
        "bytes": card.stat().st_size,
        "layers": layers,
        "info": style.info,
        "tensors": {name: list(tensor.shape) for name, tensor in sorted(style.items())},
    }


def styles(method: flags.MethodFlag = None, json: flags.JsonFlag = False) -> None:
    """List the styles that need no file: the built-in ones, or those that a method has learned.

    [bold]impasto stylize photo.jpg --style starry-night[/bold] paints in one of them.
    """
    known = _known_styles(method)
    if json:
        terminal.print_json(known)
        return
    width = max((len(about["name"]) for about in known), default=0)
    for about in known:
        work = f"{about['artist']} ({about['years']}), {about['title']}, {about['year']}" if "years" in about else ""
        terminal.say(f"{about['name']:<{width}}  {work}".rstrip())
    chosen = "" if method is None else f" -m {method}"
    terminal.say(f"\nimpasto stylize photo.jpg --style NAME{chosen} repaints a photo in one of them")


def _known_styles(method: str | None) -> list[dict[str, Any]]:
    """Return name and description of the built-in styles, or of those that the method has learned."""
    first_look.check_method(method)
    if method is not None:
        from impasto.methods import find_method, load
        from impasto.stylizers.fixed_styles import LearnedStyles

        if issubclass(find_method(method), LearnedStyles):
            model = load(method)
            assert isinstance(model, LearnedStyles)
            return [{"name": name, **style.info} for name, style in model.learned.items()]
    return first_look.built_in_styles()
