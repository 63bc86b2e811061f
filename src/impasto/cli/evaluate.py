"""`impasto evaluate`: the quality of stylized pictures, in numbers."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from impasto.cli import flags
from impasto.commands import arguments, early_checks, early_recipes, first_look, terminal
from impasto.commands.arguments import constant
from impasto.errors import ImpastoError, OptionError, nearest

if TYPE_CHECKING:
    from impasto.evaluation import Evaluation, Pair

SKIPPABLE = ("painted", "lpips", "cfsd", "artfid")

FolderWord = Annotated[str | None, typer.Argument(metavar="CONTENTS", help="Folder of the photos.")]
FolderWords = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="STYLES [STYLIZED]", help="Folders of the paintings and of the pictures, named CONTENT__STYLE.png."
    ),
]
NetworkFlag = Annotated[
    str,
    typer.Option(
        metavar="NAME|DIR",
        help="Network of the losses: vgg19-slim+heads, vgg19 (torchvision's), or a folder with a normalised "
        "VGG-19. Numbers of different networks can't be compared.",
    ),
]
SizeFlag = Annotated[
    str,
    typer.Option(
        metavar="WxH|N",
        parser=flags.read_size,
        help="Size at which everything is measured: WxH ignores proportions, N keeps them.",
    ),
]
WeightsFlag = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Folder with the weights of LPIPS, CFSD and FID; default: torch's own cache."),
]
VGG16Flag = Annotated[
    Path | None,
    typer.Option(
        "--vgg16",
        metavar="FILE",
        help="VGG-16 for coverage and precision; default: torchvision's, from --metric-weights.",
    ),
]
SkipFlag = Annotated[
    list[str] | None,
    typer.Option("--skip", metavar="NAME", help="Leave out painted, lpips, cfsd or artfid; repeatable."),
]
MarkdownFlag = Annotated[Path | None, typer.Option(metavar="FILE", help="Write the table with every picture.")]
MakeFlag = Annotated[
    Path | None,
    typer.Option("--make", metavar="DIR", help="First make the pictures in DIR; existing ones are kept."),
]
CountFlag = Annotated[
    int | None, typer.Option("--pairs", metavar="N", help="With --make: only the first N pairs; default: all.")
]
OffsetsFlag = Annotated[
    str | None,
    typer.Option(metavar="N,N,...", help="With --make: photo i gets the paintings i + N; default: 0,13,26."),
]

THREE_FOLDERS = "name three folders: impasto evaluate CONTENTS STYLES STYLIZED; or two, and --make DIR"
TWO_FOLDERS = "with --make name two folders: impasto evaluate CONTENTS STYLES --make DIR"


def evaluate(
    ctx: typer.Context,
    contents: FolderWord = None,
    others: FolderWords = None,
    loss_network: NetworkFlag = "vgg19-slim+heads",
    size: SizeFlag = "512x512",
    metric_weights: WeightsFlag = None,
    vgg16: VGG16Flag = None,
    skip: SkipFlag = None,
    make: MakeFlag = None,
    method: flags.MethodFlag = None,
    preset: flags.PresetFlag = None,
    count: CountFlag = None,
    offsets: OffsetsFlag = None,
    strength: flags.StrengthFlag = None,
    seed: flags.SeedFlag = None,
    device: flags.DeviceFlag = "auto",
    markdown: MarkdownFlag = None,
    force: flags.ForceFlag = False,
    json: flags.JsonFlag = False,
    quiet: flags.QuietFlag = False,
) -> None:
    """Measure stylized pictures: style loss, content loss, SSIM; others if their weights are available.

    By VGG-16: coverage and precision, which agree best with people's choices. Also LPIPS, CFSD and ArtFID-like.

    With --make, [bold]impasto evaluate PHOTOS PAINTINGS --make DIR -m gatys --steps 50[/bold], they are made first.
    """
    terminal.be_quiet(quiet)
    given = arguments.given(method=method, preset=preset, count=count, offsets=offsets, strength=strength, seed=seed)
    if make is None and given:
        raise OptionError("--method, --preset, --pairs, --offsets, --strength and --seed need --make DIR")
    if markdown is not None:
        arguments.check_target(markdown, force, (".md",))
    words = arguments.words(contents, others)
    _check(ctx, words, method, preset, making=make is not None)
    _check_networks(loss_network, vgg16, metric_weights, skip or [])
    if offsets is not None:
        _numbers(offsets)
    run = _Run(loss_network, size, metric_weights, vgg16, tuple(skip or ()), device, quiet)
    found = run.measure(_find(ctx, words) if make is None else _make(ctx, words, make, given, run))
    if markdown is not None:
        _write(markdown, found.to_markdown())
    terminal.print_json(found.to_json()) if json else terminal.say(found.to_markdown(rows=False), nl=False)


def _check(ctx: typer.Context, words: list[str], method: str | None, preset: str | None, *, making: bool) -> None:
    """Check the folders and the method before torch is loaded; raises ImpastoError."""
    if making:
        first_look.check_method(method)
        early_recipes.check_preset(method, preset)
        early_recipes.check_networks(arguments.check_options(ctx, words, method)[1])
    named = first_look.before_flags(words)
    if not named or (len(named) == len(words) != (2 if making else 3)):
        raise ImpastoError(TWO_FOLDERS if making else THREE_FOLDERS)
    for word in named[: 2 if making else 3]:
        if not Path(word).is_dir():
            near = "" if Path(word).exists() else first_look.near_files(Path(word))
            raise ImpastoError(f"{word} is no folder{near}; name folders: impasto evaluate CONTENTS STYLES STYLIZED")
        endings = constant("impasto.evaluation.pairs", "SUFFIXES")
        if not any(path.suffix.lower() in endings for path in Path(word).iterdir()):
            raise ImpastoError(f"{word} holds no pictures")


def _check_networks(loss_network: str, vgg16: Path | None, metric_weights: Path | None, skip: list[str]) -> None:
    """Check the names of networks and measures before torch is loaded; raises ImpastoError."""
    for name in skip:
        if name not in SKIPPABLE:
            raise OptionError(f"--skip takes {', '.join(SKIPPABLE)}, not {name!r}{nearest(name, SKIPPABLE)}")
    if metric_weights is not None and not metric_weights.is_dir():
        raise ImpastoError(f"--metric-weights: {metric_weights} is no folder")
    known = constant("impasto.evaluation.measure", "NETWORKS")
    if loss_network not in known and not Path(loss_network).is_dir():
        near = nearest(loss_network, known)
        raise OptionError(f"--loss-network is {', '.join(known)} or a folder of weights, not {loss_network!r}{near}")
    early_checks.check_weights(vgg16)


class _Run:
    """The flags of the measurement, checked before any picture is made."""

    def __init__(
        self,
        network: str,
        size: str,
        weights: Path | None,
        vgg16: Path | None,
        skip: tuple[str, ...],
        device: str,
        quiet: bool,
    ) -> None:
        from impasto.evaluation import Extras, load_loss_network
        from impasto.options import parse_size
        from impasto.runs.painting import pick_device

        self.size, self.device, self.quiet = parse_size(size), pick_device(device), quiet
        self.network = load_loss_network(network, self.device)
        names = tuple("artfid_like" if name == "artfid" else name for name in skip)
        self.extras = Extras(weights or _torch_cache(), self.network, skip=names, vgg16=vgg16, device=self.device)

    def measure(self, pairs: list[Pair]) -> Evaluation:
        """Measure the pictures of `pairs`."""
        from impasto.commands.terminal import PAUSE, count
        from impasto.evaluation import evaluate

        with count("measuring", len(pairs), self.quiet, pause=PAUSE) as shown:
            how: dict[str, Any] = {"size": self.size, "extras": self.extras, "device": self.device}
            return evaluate(pairs, self.network, **how, on_pair=shown.reach)


def _torch_cache() -> Path:
    """Return the folder of torch's downloaded weights."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser()
    return Path(os.environ.get("TORCH_HOME", cache / "torch")) / "hub" / "checkpoints"


def _find(ctx: typer.Context, words: list[str]) -> list[Pair]:
    """Return the pairs of the folders that `words` name."""
    from impasto.evaluation import find_pairs
    from impasto.options import Options

    folders, _ = arguments.take_flags(ctx, words, Options, "evaluate without --make", "impasto evaluate --help")
    if len(folders) != 3:
        raise ImpastoError(THREE_FOLDERS)
    return find_pairs(*folders)


def _make(ctx: typer.Context, words: list[str], folder: Path, given: dict[str, Any], run: _Run) -> list[Pair]:
    """Make the protocol's pictures in `folder`."""
    from impasto.commands.terminal import PAUSE, count
    from impasto.evaluation import pair_up, stylize_pairs
    from impasto.methods import find_method, load

    method = find_method(given.get("method"))
    folders, options = arguments.take_flags(ctx, words, method.Options, method.name, f"impasto methods {method.name}")
    if len(folders) != 2:
        raise ImpastoError(TWO_FOLDERS)
    offsets = _numbers(given.get("offsets", "0,13,26"))
    pairs = pair_up(*folders, offsets=offsets, count=given.get("count"))
    preset, seed, strength = given.get("preset", "default"), given.get("seed", 0), given.get("strength", 1.0)
    model = load(method.name, preset=preset, device=run.device, **options)
    with count(f"painting with {model.name}", len(pairs), run.quiet, pause=PAUSE) as shown:
        return stylize_pairs(model, pairs, folder, run.size, strength=strength, seed=seed, on_pair=shown.reach)


def _numbers(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise OptionError(f"--offsets takes whole numbers, such as 0,13,26, not {text!r}") from None


def _write(path: Path, text: str) -> None:
    from impasto.files import write_atomically

    write_atomically(path, text.encode())
