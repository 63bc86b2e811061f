"""`impasto invert`: a picture rebuilt from the features of one or more layers."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from impasto.cli import flags
from impasto.cli.flags import NetworkFlags, spread
from impasto.cli.transfer import WeightsFlag
from impasto.commands import arguments, early_checks, terminal
from impasto.errors import OptionError

if TYPE_CHECKING:
    from torch import Tensor

    from impasto.networks.backbone import Backbone
    from impasto.vision.inversion import Inversion, InversionOptions

USAGE = "impasto invert PHOTO --layer NAME"
LONG_STEPS = 50
"""Steps from which on a sheet takes minutes on a CPU."""
log = logging.getLogger(__name__)

PhotoWord = Annotated[str | None, typer.Argument(metavar="PHOTO", help="The picture.")]
BackboneFlag = Annotated[str, typer.Option("--backbone", metavar="NAME", help="The network.")]
PoolingFlag = Annotated[
    str,
    typer.Option(
        "--pooling",
        metavar="KIND",
        parser=early_checks.check_pooling,
        help="max, average or auto: average in vgg19-slim, max elsewhere.",
    ),
]
LongerFlag = Annotated[int, typer.Option(metavar="N", min=32, max=4096, help="Longer side at which it is rebuilt.")]
LayerFlag = Annotated[str | None, typer.Option(metavar="NAME", help="Rebuild the content from this layer.")]
StyleLayersFlag = Annotated[
    str | None, typer.Option(metavar="NAME,NAME,...", help="Rebuild the style from these layers' Gram matrices.")
]
PaintingFlag = Annotated[
    Path | None, typer.Option("--painting", metavar="FILE", help="On the sheet: whose style; default: the photo's.")
]


@dataclass(frozen=True)
class _Work:
    """Common settings of a run's inversions."""

    network: Backbone
    options: InversionOptions
    seed: int
    quiet: bool

    def content(self, image: Tensor, layer: str) -> Inversion:
        from impasto.vision.inversion import invert_content

        return self._run(f"content from {layer}", partial(invert_content, self.network, image, layer, seed=self.seed))

    def style(self, image: Tensor, layers: Sequence[str]) -> Inversion:
        from impasto.vision.inversion import invert_style

        name = ", ".join(layers)
        return self._run(f"style from {name}", partial(invert_style, self.network, image, layers, seed=self.seed))

    def _run(self, title: str, invert: Callable[..., Inversion]) -> Inversion:
        """Invert with progress, which says the expected time first if it is long."""
        from impasto.commands.network_command import expected_seconds
        from impasto.commands.terminal import progress

        expected = None if self.quiet else expected_seconds(lambda options: invert(options=options), self.options)
        with progress(title, self.quiet, expected=expected) as (_, on_step):
            return invert(options=self.options, on_step=on_step)


@spread
def invert(
    ctx: typer.Context,
    *,
    photo: PhotoWord = None,
    layer: LayerFlag = None,
    style_layers: StyleLayersFlag = None,
    painting: PaintingFlag = None,
    backbone: BackboneFlag = "vgg19-slim",
    backbone_weights: WeightsFlag = None,
    pooling: PoolingFlag = "auto",
    size: LongerFlag = 256,
    output: flags.OutputFlag = None,
    seed: Annotated[int, typer.Option(metavar="N", min=0, help="Same seed, same picture.")] = 0,
    run: NetworkFlags,
) -> None:
    """Rebuild a picture from one layer, from noise: [bold]impasto invert photo.jpg --layer relu4_2[/bold].

    Without --layer and --style-layers: a labelled sheet, content layer by layer, style from more and more layers.
    """
    terminal.be_quiet(run.quiet)
    styles = [part.strip() for part in style_layers.split(",") if part.strip()] if style_layers else []
    if not run.list_options:
        words = [*arguments.words(photo, None), *ctx.args]
        given, _ = early_checks.check_words(ctx, words, "impasto.vision.inversion", "InversionOptions", "invert")
        for word in [arguments.one_picture(given, USAGE), *([str(painting)] if painting else [])]:
            early_checks.check_picture(word)
        if layer and style_layers:
            raise OptionError("give --layer or --style-layers; without both there is a sheet of all")
        if painting and (layer or style_layers):
            raise OptionError("--painting is for the sheet: without --layer and --style-layers")
        early_checks.check_backbone(backbone, [*styles, *([layer] if layer else [])])
        early_checks.check_weights(backbone_weights)
        early_checks.check_target_name(output, force=run.force)
    from impasto.commands import methods_table, network_command
    from impasto.vision.inversion import InversionOptions

    if run.list_options:
        methods_table.show_options(InversionOptions)
        return
    words, options = network_command.read_options(
        ctx, [*arguments.words(photo, None), *ctx.args], InversionOptions, "invert"
    )
    path = arguments.one_picture(words, USAGE)
    network = network_command.open_backbone(backbone, backbone_weights, run.device, choose_pooling(pooling, backbone))
    network.check_layers([*styles, *([layer] if layer else [])])
    out = network_command.Output.choose(output, _name(path, layer, styles), record=run.record, force=run.force)
    image = network_command.read_sized(path, size, network)
    work = _Work(network, options, seed, run.quiet)
    if layer or styles:
        found = [work.content(image, layer) if layer else work.style(image, styles)]
        picture = found[0].image
    else:
        other = image if painting is None else network_command.read_sized(str(painting), size, network)
        found, picture = _sheet(work, image, other)
    files = [network_command.describe(str(file)) for file in (path, painting) if file is not None]
    facts = {"pictures": files, "backbone": backbone, "size": size, "seed": seed, "inversions": _describe(found)}
    made = network_command.make_record("invert", options, network, **facts)
    out.write(picture, made)
    terminal.print_json({"output": str(out.target), **made}) if run.json else terminal.say_path(out.target)
    network_command.tell_interrupted(any(one.result.interrupted for one in found))


def _sheet(work: _Work, image: Tensor, painting: Tensor) -> tuple[list[Inversion], Tensor]:
    """Return all of the well-known figure's inversions, and the sheet; after Ctrl-C the finished ones."""
    from impasto.commands.terminal import Count
    from impasto.images.contact_sheet import contact_sheet
    from impasto.vision.inversion import sheet_layers

    contents, styles = sheet_layers(work.network)
    found: list[Inversion] = []
    jobs = [*((layer, ()) for layer in contents), *(("", styles[: i + 1]) for i in range(len(styles)))]
    long = ": minutes on a CPU" if work.options.steps >= LONG_STEPS else ""
    log.info("a sheet of %d pictures, %d steps each%s", len(jobs), work.options.steps, long)
    done = Count(len(jobs))
    for layer, chosen in jobs:
        if not found or not found[-1].result.interrupted:
            found.append(work.content(image, layer) if layer else work.style(painting, chosen))
            done.advance("pictures")
    rows: list[list[Tensor | None]] = [[image], [painting]]
    for (layer, _), one in zip(jobs, found, strict=False):
        rows[0 if layer else 1].append(one.image)
    labels = [f"{a} / to {b}" for a, b in zip(contents, styles, strict=True)]
    sheet = contact_sheet(
        rows[: 2 if len(rows[1]) > 1 else 1],
        row_labels=["content", "style"][: 2 if len(rows[1]) > 1 else 1],
        column_labels=["original", *labels][: max(map(len, rows))],
    )
    return found, sheet


def _describe(found: Sequence[Inversion]) -> list[dict[str, Any]]:
    return [{"layers": one.layers, "psnr": one.psnr, "loss_ratio": one.ratio, "ncc": one.likeness} for one in found]


def choose_pooling(kind: str, backbone: str) -> str:
    """Return the pooling called `kind`; for ``auto`` the one for which `backbone` was tuned."""
    if kind == "auto":
        return "average" if backbone.startswith("vgg19-slim") else "max"
    return kind


def _name(path: str, layer: str | None, styles: list[str]) -> str:
    ending = f"style-{styles[-1]}" if styles else layer or "layers"
    return f"{Path(path).stem}-{ending}.png"
