"""`impasto texture`: textures of any size, from a painting by optimisation or from a generator in one pass."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from impasto.cli import flags
from impasto.cli.invert import BackboneFlag, PoolingFlag
from impasto.cli.transfer import WeightsFlag
from impasto.commands import arguments, early_checks, early_recipes, terminal
from impasto.errors import OptionError
from impasto.options import check_weights, parse_size

if TYPE_CHECKING:
    from torch import Tensor

    from impasto.commands.network_command import Output
    from impasto.weights.checkpoints import Checkpoint

SIDE = 512
PAINTING_SIDE = 512

TextureWord = Annotated[
    str | None, typer.Argument(metavar="NAME|PAINTING", help="A texture of the generator, or a picture to learn from.")
]
SizeFlag = Annotated[
    str | None,
    typer.Option(
        metavar="N|WxH", parser=flags.read_size, help=f"Side of the square, or WIDTHxHEIGHT; default: {SIDE}."
    ),
]
TileableFlag = Annotated[bool, typer.Option("--tileable", help="Opposite borders join: the picture tiles a plane.")]
SharesFlag = Annotated[
    str | None, typer.Option(metavar="W1,W2,...", help="Shares of several textures or paintings; default: all equal.")
]
PaintingSizeFlag = Annotated[
    int | None,
    typer.Option(metavar="N", min=32, max=4096, help=f"Longer side to which paintings are shrunk; {PAINTING_SIDE}."),
]
GeneratorFlag = Annotated[
    Path | None, typer.Option("--weights", metavar="FILE", help="A generator of `impasto train texture`.")
]
CheckpointFlag = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Keep an optimisation's state in FILE; the same command resumes from it."),
]
ListTexturesFlag = Annotated[bool, typer.Option("--list", help="List the generator's textures.")]


@dataclass(frozen=True)
class _Settings:
    """The settings of a texture, by a generator or by optimisation."""

    words: tuple[str, ...]
    size: tuple[int, int]
    shares: tuple[float, ...] | None
    tileable: bool
    seed: int
    device: str
    quiet: bool
    checkpoint: Path | None

    @property
    def resumes(self) -> bool:
        """Whether an interrupted run continues."""
        return self.checkpoint is not None and self.checkpoint.exists()

    @property
    def facts(self) -> dict[str, Any]:
        """Facts for the record."""
        height, width = self.size
        weights = {} if self.shares is None else {"style_weights": self.shares}
        return {"size": f"{width}x{height}", "tileable": self.tileable, "seed": self.seed, **weights}


@dataclass(frozen=True)
class _Made:
    """The picture, its record, and whether Ctrl-C came before the end; image None: a dry run."""

    image: Tensor | None
    record: dict[str, Any]
    interrupted: bool = False
    seconds: float = 0.0
    state: Checkpoint | None = None


def texture(
    ctx: typer.Context,
    name: TextureWord = None,
    output: flags.OutputFlag = None,
    size: SizeFlag = None,
    tileable: TileableFlag = False,
    style_weights: SharesFlag = None,
    style_size: PaintingSizeFlag = None,
    weights: GeneratorFlag = None,
    backbone: BackboneFlag = "vgg19-slim",
    backbone_weights: WeightsFlag = None,
    pooling: PoolingFlag = "auto",
    seed: Annotated[int, typer.Option(metavar="N", min=0, help="Same seed, same picture.")] = 0,
    device: flags.DeviceFlag = "auto",
    checkpoint: CheckpointFlag = None,
    list_textures: ListTexturesFlag = False,
    list_options: flags.ListFlag = False,
    force: flags.ForceFlag = False,
    json: flags.JsonFlag = False,
    quiet: flags.QuietFlag = False,
    dry_run: flags.DryRunFlag = False,
    record: flags.RecordFlag = True,
) -> None:
    """Make a texture of any size: [bold]impasto texture NAME -o out.png --size 1024x768 --tileable[/bold].

    NAME, one of --list, is drawn in one pass. [bold]impasto texture painting.jpg[/bold] makes a texture of a painting
    by optimisation, with the options of --list-options. Several names or paintings are mixed.
    """
    terminal.be_quiet(quiet)
    if not list_options and not list_textures:
        _check(ctx, [*arguments.words(name, None), *ctx.args], weights, backbone, style_weights, checkpoint is not None)
        early_checks.check_weights(backbone_weights)
        early_checks.check_target_name(output, force=force or (checkpoint is not None and checkpoint.exists()))
    early_checks.check_weights(weights)
    from impasto.commands import methods_table, network_command
    from impasto.textures.optimized import TextureOptions

    if list_options:
        methods_table.show_options(TextureOptions)
        return
    if list_textures:
        _list(weights, json)
        return
    given = [*arguments.words(name, None), *ctx.args]
    words, values = arguments.take_flags(ctx, given, TextureOptions, "texture", "impasto texture --list-options")
    options = TextureOptions.parse(values, "texture")
    paintings = _are_pictures(words, weights)
    shares = _shares(style_weights, len(words))
    settings = _Settings(tuple(words), _size(size), shares, tileable, seed, device, quiet, checkpoint)
    stem = "-".join(Path(word).stem for word in words)
    out = network_command.Output.choose(
        output, f"{stem}-texture.png", record=record, force=force, resume=settings.resumes
    )
    if paintings:
        made = _optimise(settings, options, backbone, backbone_weights, pooling, style_size or PAINTING_SIDE, dry_run)
    else:
        made = _draw(settings, values, weights, dry_run)
    _finish(out, made, json)


def _check(
    ctx: typer.Context, words: list[str], weights: Path | None, backbone: str, shares: str | None, resumable: bool
) -> None:
    """Check the words before torch is loaded; raises ImpastoError."""
    found, values = early_checks.check_words(ctx, words, "impasto.textures.optimized", "TextureOptions", "texture")
    drawn = early_checks.check_textures(found, weights)
    flag = next((word.partition("=")[0] for word in words if word.startswith("--")), None)
    if drawn and flag is not None:
        raise OptionError(f"{flag} is for paintings; {found[0]} is drawn by a generator, in one pass")
    if drawn and resumable:
        raise OptionError("--checkpoint is for textures of paintings; a generator draws in one pass")
    early_recipes.check_counts(len(found), shares)
    early_checks.check_backbone(backbone, values.get("layers", ()))


def _finish(out: Output, made: _Made, json: bool) -> None:
    from impasto.commands import network_command

    found = {"output": str(out.target), **made.record}
    if made.image is None:
        took = f"about {made.seconds:.0f} s; " if made.seconds else ""
        terminal.say(f"dry run: {took}nothing was written", err=True)
        found |= {"dry_run": True, "seconds": round(made.seconds, 1)}
    else:
        out.write(made.image, made.record)
        if made.state is not None and not made.interrupted:
            made.state.finish()
        found["seconds"] = round(made.seconds, 3)
    terminal.print_json(found) if json else terminal.say_path(out.target)
    network_command.tell_interrupted(made.interrupted)


def _list(weights: Path | None, json: bool) -> None:
    """Print the textures' names, with the works of those that come with impasto."""
    from impasto.textures.generator import NAME, TextureGenerator
    from impasto.weights.files import manifest

    names = TextureGenerator.load(weights).names
    works = {} if weights else manifest()[NAME].get("works", {})
    if json:
        terminal.print_json([{"name": name, "work": works.get(name)} for name in names])
        return
    width = max(map(len, names), default=0)
    for name in names:
        terminal.say(f"{name:<{width}}  {works.get(name, '')}".rstrip())


def _are_pictures(words: list[str], weights: Path | None) -> bool:
    """Return whether `words` are pictures, or else textures of a generator; raises ImpastoError for a mixture."""
    from impasto.errors import ImpastoError, nearest
    from impasto.textures.generator import TextureGenerator

    files = [word for word in words if Path(word).suffix or Path(word).is_file()]
    names = [word for word in words if word not in files]
    if not names:
        if weights is not None:
            raise ImpastoError(f"--weights is a generator's, which draws its own textures; {files[0]} is a picture")
        return True
    known = TextureGenerator.load(weights).names
    for word in names:
        if word not in known:
            raise ImpastoError(
                f"{word} is neither a picture here nor a texture{nearest(word, known)}; there are: {', '.join(known)}"
            )
    if files:
        raise ImpastoError(f"{names[0]} is a texture and {files[0]} a picture: name either textures or pictures")
    return False


def _size(text: str | None) -> tuple[int, int]:
    """Return (height, width); raises ImageError."""
    size = parse_size(text or str(SIDE))
    return size if isinstance(size, tuple) else (size, size)


def _shares(text: str | None, count: int) -> tuple[float, ...] | None:
    return None if text is None else check_weights(early_recipes.read_shares(text), count)


def _optimise(
    settings: _Settings,
    options: Any,
    backbone: str,
    backbone_weights: Path | None,
    pooling: str,
    style_size: int,
    dry_run: bool,
) -> _Made:
    """Return a texture of paintings, by optimisation."""
    from impasto.cli.invert import choose_pooling
    from impasto.commands import network_command
    from impasto.commands.terminal import progress
    from impasto.networks.backbones import default_layers
    from impasto.textures import optimized

    network = network_command.open_backbone(
        backbone, backbone_weights, settings.device, choose_pooling(pooling, backbone)
    )
    layers = options.layers or default_layers(network.name)[1]
    network.check_layers(layers)
    if settings.tileable:
        optimized.check_size(network, layers, *settings.size)
    paintings = [network_command.read_sized(word, style_size, network) for word in settings.words]
    files = [network_command.describe(word) for word in settings.words]
    facts = {"pictures": files, "backbone": backbone, "style_size": style_size, **settings.facts}
    record = network_command.make_record("texture", options, network, **facts)
    state = _state(settings.checkpoint, record)
    seconds = optimized.expected_seconds(network, paintings, *settings.size, options)
    if dry_run:
        return _Made(None, record, seconds=seconds)
    title = f"texture of {', '.join(settings.words)} by {network.name}"
    with progress(title, settings.quiet, expected=seconds) as (watch, on_step):
        result = optimized.synthesize(
            network,
            paintings,
            *settings.size,
            options,
            weights=settings.shares,
            tileable=settings.tileable,
            seed=settings.seed,
            on_step=on_step,
            checkpoint=state,
        )
    record["losses"] = result.losses[-1:]
    if result.interrupted:
        record["interrupted"] = watch.steps
    return _Made(result.image, record, result.interrupted, watch.seconds, state)


def _state(path: Path | None, record: dict[str, Any]) -> Checkpoint | None:
    """Return where the optimisation keeps its state and resumes; raises ImpastoError if it can't be written."""
    from impasto.weights.checkpoints import Checkpoint

    if path is None:
        return None
    arguments.check_target(path, True, (".safetensors",))
    return Checkpoint(path, {name: value for name, value in record.items() if name != "versions"})


def _draw(settings: _Settings, values: dict[str, Any], weights: Path | None, dry_run: bool) -> _Made:
    """Return a texture of the generator, in one pass."""
    import time

    from impasto.commands import network_command
    from impasto.errors import OptionError
    from impasto.options import Options
    from impasto.runs.painting import pick_device
    from impasto.textures.generator import TextureGenerator
    from impasto.textures.optimized import check_tileable

    if settings.checkpoint is not None:
        raise OptionError("--checkpoint is for textures of paintings; a generator draws in one pass")
    if values:
        flag = arguments.flag_of(next(iter(values)))
        raise OptionError(f"{flag} is for paintings; {settings.words[0]} is drawn by a generator, in one pass")
    generator = TextureGenerator.load(weights, pick_device(settings.device))
    if settings.tileable:
        check_tileable(*settings.size, generator.network.stride, "this generator")
    shares = [0.0] * len(generator.names)
    for word, share in zip(settings.words, settings.shares or (1.0,) * len(settings.words), strict=True):
        shares[generator.names.index(word)] += share
    record = network_command.make_record("texture", Options(), generator, textures=settings.words, **settings.facts)
    if dry_run:
        return _Made(None, record)
    started = time.monotonic()
    image = generator.sample(shares, *settings.size, seed=settings.seed)
    return _Made(image, record, seconds=time.monotonic() - started)
