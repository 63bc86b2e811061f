"""`impasto video`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from impasto import cli_flags as flags

VideoWord = Annotated[str | None, typer.Argument(metavar="VIDEO", help="The video.")]
OutputFlag = Annotated[
    Path | None, typer.Option("--output", "-o", metavar="FILE", help="A .mp4, .mov, .mkv or .webm file.")
]
SmoothFlag = Annotated[
    float | None,
    typer.Option(metavar="0...1", help="Memory of the content's moments, for one-pass methods; default: 0.9."),
]
FlowFlag = Annotated[
    float | None,
    typer.Option(
        metavar="0...1", help="Share of the last result moved along the optical flow; default: 0.22 with OpenCV."
    ),
]
StripFlag = Annotated[Path | None, typer.Option(metavar="FILE", help="Also a picture of some frames and results.")]
ReportFlag = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Also measure flicker and style, with and without smoothing: twice the time."),
]
MemoryFlag = Annotated[
    float | None,
    typer.Option(metavar="GB", min=0.1, help="Take no more memory than this; frames are made smaller if need be."),
]
ForceFlag = Annotated[bool, typer.Option("--force", help="Overwrite what is there, and begin anew.")]


def video(
    ctx: typer.Context,
    content: VideoWord = None,
    styles: flags.StyleWords = None,
    output: OutputFlag = None,
    smooth: SmoothFlag = None,
    flow: FlowFlag = None,
    method: flags.MethodFlag = None,
    preset: flags.PresetFlag = None,
    style: flags.StyleFlag = None,
    style_weights: flags.StyleWeightsFlag = None,
    size: flags.SizeFlag = None,
    style_size: flags.StyleSizeFlag = None,
    strength: flags.StrengthFlag = None,
    keep_color: flags.KeepColorFlag = None,
    mask: flags.MaskFlag = None,
    seed: flags.SeedFlag = None,
    device: flags.DeviceFlag = "auto",
    runtime: flags.RuntimeFlag = "torch",
    max_memory: MemoryFlag = None,
    strip: StripFlag = None,
    report: ReportFlag = None,
    force: ForceFlag = False,
    json: flags.JsonFlag = False,
    quiet: flags.QuietFlag = False,
    dry_run: flags.DryRunFlag = False,
    record: flags.RecordFlag = True,
    recipe: flags.RecipeFlag = None,
) -> None:
    """Repaint a video with its sound: [bold]impasto video clip.mp4 painting.jpg -o painted.mp4 -m wct[/bold].

    Finished frames lie in a hidden folder beside the result until it is written, so that the same command goes on after
    an interruption. The method's options are flags, too.
    """
    given = flags.given(method=method, preset=preset, style=style, style_weights=style_weights, size=size, seed=seed)
    given |= flags.given(style_size=style_size, strength=strength, keep_color=keep_color, masks=mask)
    given |= flags.given(smooth=smooth, flow=flow)
    flags.be_quiet(quiet)
    from impasto import cli_video_run

    asked = cli_video_run.make_recipe(ctx, flags.words(content, styles), recipe, given)
    work = cli_video_run.plan(asked, output, strip, report, device, runtime, max_memory, force=force, record=record)
    result = cli_video_run.rehearse(work) if dry_run else cli_video_run.paint_video(work, quiet=quiet)
    flags.print_json(result) if json else typer.echo(result["output"])
