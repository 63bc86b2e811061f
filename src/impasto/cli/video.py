"""`impasto video`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from impasto.cli import flags
from impasto.cli.flags import MachineFlags, ReportingFlags, StylizationFlags, spread
from impasto.commands import arguments, early_checks, early_recipes, first_look, terminal
from impasto.errors import OptionError, flickers

CALM = "Against flicker"
VideoWord = Annotated[str | None, typer.Argument(metavar="VIDEO", help="The video.")]
OutputFlag = Annotated[
    Path | None, typer.Option("--output", "-o", metavar="FILE", help="A .mp4, .mov, .mkv or .webm file.")
]
SmoothFlag = Annotated[
    float | None,
    typer.Option(
        metavar="0...1",
        parser=flags.read_share,
        rich_help_panel=CALM,
        help="Memory of the content's moments, for one-pass methods; default: 0.9.",
    ),
]
FlowFlag = Annotated[
    float | None,
    typer.Option(
        metavar="0...1",
        parser=flags.read_share,
        rich_help_panel=CALM,
        help="Share of the last result, warped along the optical flow; default: 0.22 with OpenCV.",
    ),
]
FlowByFlag = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        rich_help_panel=CALM,
        help="dis, by OpenCV, or raft, by torchvision: slower, more accurate.",
    ),
]
FlowWeightsFlag = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        rich_help_panel=CALM,
        help="RAFT's weights; default: torchvision's, if they are in torch's cache.",
    ),
]
TemporalWeightFlag = Annotated[
    float | None,
    typer.Option(
        metavar="W",
        rich_help_panel=CALM,
        help="Weight of the difference from the warped last result, for gatys; default: 40, but 0 in its "
        "other presets and without flow.",
    ),
]
StripFlag = Annotated[
    Path | None,
    typer.Option(metavar="FILE", rich_help_panel=flags.SCRIPT, help="Also a picture of some frames and results."),
]
ReportFlag = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        rich_help_panel=flags.SCRIPT,
        help="Also measure flicker and style, with and without smoothing: twice the time.",
    ),
]
MemoryFlag = Annotated[
    float | None,
    typer.Option(
        metavar="GB",
        min=0.1,
        rich_help_panel=flags.SPEED,
        help="Use no more memory than this; frames are made smaller if necessary.",
    ),
]
SalvageFlag = Annotated[bool, typer.Option("--salvage", help="Paint what can be read of a damaged video.")]
ForceFlag = Annotated[
    bool, typer.Option("--force", rich_help_panel=flags.SCRIPT, help="Overwrite existing files and start over.")
]


@spread
def video(
    ctx: typer.Context,
    *,
    content: VideoWord = None,
    styles: flags.StyleWords = None,
    output: OutputFlag = None,
    smooth: SmoothFlag = None,
    flow: FlowFlag = None,
    flow_by: FlowByFlag = None,
    flow_weights: FlowWeightsFlag = None,
    temporal_weight: TemporalWeightFlag = None,
    stylization: StylizationFlags,
    machine: MachineFlags,
    max_memory: MemoryFlag = None,
    strip: StripFlag = None,
    report: ReportFlag = None,
    salvage: SalvageFlag = False,
    force: ForceFlag = False,
    reporting: ReportingFlags,
) -> None:
    """Repaint a video with its sound: [bold]impasto video clip.mp4 painting.jpg -o painted.mp4 -m wct[/bold].

    Finished frames are kept in a hidden folder beside the result until it is written, so that the same command
    continues after an interruption. The method's options are flags, too.
    """
    terminal.be_quiet(reporting.quiet)
    first_look.look_at(content, styles, stylization.style, stylization.chosen_method, video=True)
    words = arguments.words(content, styles)
    stylization.check(ctx, words, reporting.recipe)
    _check(stylization.keep_color, output, force)
    early_recipes.check_values({"flow_by": flow_by, "temporal_weight": temporal_weight}, "video")
    early_recipes.check_optimising(stylization.chosen_method, "--temporal-weight", temporal_weight, reporting.recipe)
    early_checks.check_target_name(strip, force=force)
    from impasto.commands import video as command
    from impasto.commands.stylize import make_recipe

    by = "raft" if flow_weights and not flow_by else flow_by
    given = stylization.given(smooth=smooth, flow=flow, flow_by=by, temporal_weight=temporal_weight)
    made = make_recipe(ctx, words, reporting.recipe, given, runtime=machine.runtime, still=False)
    recipe = command.fill_defaults(made)
    places = command.VideoFiles(output, strip, report, flow_weights, salvage)
    work = command.plan(
        recipe,
        places,
        machine.device,
        machine.runtime,
        max_memory,
        force=force,
        record=reporting.record,
        quiet=reporting.quiet,
    )
    result = command.dry_run(work) if reporting.dry_run else command.paint_video(work, quiet=reporting.quiet)
    terminal.print_json(result) if reporting.json else terminal.say_path(result["output"])


def _check(color: str | None, output: Path | None, force: bool) -> None:
    """Check what videos don't share with pictures, before torch is loaded; raises ImpastoError."""
    if color in arguments.constant("impasto.images.color", "MATCHING_MODES"):
        raise OptionError(flickers(str(color)))
    early_checks.check_target_name(output, tuple(arguments.constant("impasto.images.video", "ENCODERS")), force=force)
