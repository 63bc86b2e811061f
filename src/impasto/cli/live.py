"""`impasto live`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from impasto.cli import flags
from impasto.commands import arguments, early_recipes, first_look, terminal
from impasto.errors import OptionError, not_live

SourceFlag = Annotated[
    str,
    typer.Option("--source", "-i", metavar="N|VIDEO", help="A camera's number, or a video, which is repeated."),
]
FolderFlag = Annotated[
    Path, typer.Option("--output", "-o", metavar="FOLDER", help="Folder for the pictures of the key s.")
]
SizeFlag = Annotated[
    int | None,
    typer.Option(
        metavar="N", min=16, max=4096, help="Longer side of the frames. Default: what this machine paints in time."
    ),
]
ColorFlag = Annotated[
    str | None,
    typer.Option(
        metavar="MODE",
        parser=flags.read_color,
        rich_help_panel=flags.LOOK,
        help="Keep the camera's colours: off, luminance or lab.",
    ),
]
StyleSizeFlag = Annotated[
    int | None,
    typer.Option(
        metavar="N", rich_help_panel=flags.LOOK, help="Longer side to which paintings are shrunk; default: 512."
    ),
]
MirrorFlag = Annotated[
    bool | None,
    typer.Option("--mirror/--no-mirror", help="Left and right as in a mirror; default: for cameras, not for videos."),
]


def live(
    ctx: typer.Context,
    *,
    styles: flags.StyleWords = None,
    source: SourceFlag = "0",
    style: flags.StyleFlag = None,
    method: flags.MethodFlag = None,
    preset: flags.PresetFlag = None,
    strength: flags.StrengthFlag = None,
    size: SizeFlag = None,
    style_size: StyleSizeFlag = None,
    keep_color: ColorFlag = None,
    mirror: MirrorFlag = None,
    output: FolderFlag = Path(),
    device: flags.DeviceFlag = "auto",
    runtime: flags.RuntimeFlag = "torch",
    quiet: flags.QuietFlag = False,
) -> None:
    """Paint the camera, or a video, in a window while it runs: [bold]impasto live starry-night[/bold].

    Keys: n, p other style; +, - strength; o original; m mirror; s save; q quit. Without a STYLE, all built-in ones take
    turns. The options of a one-pass method are flags, too.
    """
    terminal.be_quiet(quiet)
    first_look.check_method(method)
    first_look.check_paintings(styles or [], style, method)
    early_recipes.check_preset(method, preset)
    _, options = arguments.check_options(ctx, styles or [], method)
    early_recipes.check_networks(options)
    _check(method, keep_color)
    camera = source.isdecimal()
    if not camera:
        first_look.check_content(source, video=True)
        first_look.need("av", "video", "--source VIDEO")
    arguments.prove_folder(output)
    from impasto.commands import live_devices

    cv2 = live_devices.load_opencv()
    with live_devices.opened_camera(cv2, int(source) if camera else None) as frames:
        from impasto.commands import live as command
        from impasto.commands.stylize import merge_flags

        given = arguments.given(
            method=method, preset=preset, strength=strength, style_size=style_size, keep_color=keep_color
        )
        recipe, words = merge_flags(ctx, styles or [], None, given)
        painting = command.make_painting(
            recipe, [*words, *(style or [])], device, runtime, mirrored=camera if mirror is None else mirror
        )
        window = live_devices.DisplayWindow(cv2)
        try:
            command.run(painting, frames or command.play(Path(source)), window, output, size)
        finally:
            window.close()


def _check(method: str | None, color: str | None) -> None:
    """Check what a camera is too fast for, before torch is loaded; raises OptionError."""
    if early_recipes.optimises(method):
        raise OptionError(
            f"{method} takes seconds or minutes for a frame; live takes a method of one pass, such as swift"
        )
    if color in arguments.constant("impasto.images.color", "MATCHING_MODES"):
        raise OptionError(not_live(str(color)))
