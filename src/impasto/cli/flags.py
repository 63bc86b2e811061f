"""Flags that several commands share, one by one and in groups: one parameter of the command, many flags."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from impasto.commands import arguments, early_checks, early_devices, early_recipes, first_look
from impasto.errors import OptionError

LOOK, SPEED, SCRIPT = "Colours, regions, variants", "Speed", "Scripts and records"
"""Groups of flags in the help; everyday flags are in none."""

ContentWord = Annotated[str | None, typer.Argument(metavar="CONTENT", help="The photo.")]
StyleWords = Annotated[
    list[str] | None, typer.Argument(metavar="STYLE", help="Paintings or style cards (.safetensors).")
]
OutputFlag = Annotated[Path | None, typer.Option("--output", "-o", metavar="FILE", help="What to write.")]


def _complete_method(incomplete: str) -> list[str]:
    """Return the methods with this beginning, for the shell's completion, without loading one."""
    return [name for name in first_look.method_names() if name.startswith(incomplete)]


MethodFlag = Annotated[
    str | None,
    typer.Option("--method", "-m", help="How to paint; see `impasto methods`.", autocompletion=_complete_method),
]
BestFlag = Annotated[
    bool, typer.Option("--best", help="The most painterly method, -m nnst: minutes on a CPU instead of a second.")
]
PresetFlag = Annotated[
    str | None, typer.Option(metavar="NAME", rich_help_panel=LOOK, help="One of the method's recipes.")
]
StyleFlag = Annotated[
    list[str] | None, typer.Option("--style", metavar="NAME|CARD", help="A built-in style or a card; repeatable.")
]
StyleWeightsFlag = Annotated[
    str | None,
    typer.Option(
        metavar="W1,W2,...", rich_help_panel=LOOK, help="Shares of the styles, STYLEs first; default: all equal."
    ),
]


def read_share(text: str) -> float:
    """Read 0.7 or 70% as a number; raises a usage error that says how to write it."""
    percent = text.strip().endswith("%")
    try:
        value = float(text.strip().removesuffix("%")) / (100 if percent else 1)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no number; write 0.7 or 70%") from None
    if not 0 <= value <= 1:
        raise typer.BadParameter(f"{text!r} is not from 0 to 1; write 0.7 or 70%")
    return value


def read_size(text: str) -> str:
    """Return a size unchanged; raises ImageError for a text that is no size."""
    early_recipes.check_size(text)
    return text


def read_color(text: str) -> str:
    """Return the name of a colour mode; raises OptionError for an unknown one."""
    early_recipes.check_color(text)
    return text


SizeFlag = Annotated[
    str | None,
    typer.Option(
        metavar="N|WxH",
        parser=read_size,
        help="Longer side of the result, or exactly WIDTHxHEIGHT. Default: the photo's own size; for optimisation at "
        "most 512 on a CPU and 1024 on a GPU.",
    ),
]
StyleSizeFlag = Annotated[
    int | None,
    typer.Option(
        metavar="N", rich_help_panel=LOOK, help="Longer side to which paintings are shrunk; default: the result's."
    ),
]
StrengthFlag = Annotated[
    float | None, typer.Option(metavar="0...1", parser=read_share, help="How much of the style; default: 1.")
]
KeepColorFlag = Annotated[
    str | None,
    typer.Option(
        metavar="MODE",
        parser=read_color,
        rich_help_panel=LOOK,
        help="Keep the photo's colours: off, luminance, lab, histogram or covariance.",
    ),
]
MaskFlag = Annotated[
    list[Path] | None,
    typer.Option(
        "--mask",
        metavar="FILE",
        rich_help_panel=LOOK,
        help="White is repainted; one for all styles, or one a style; repeatable.",
    ),
]
SeedFlag = Annotated[
    int | None, typer.Option(metavar="N", rich_help_panel=LOOK, help="Same seed, same picture; default: 0.")
]
DeviceFlag = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        parser=early_checks.check_device,
        callback=early_devices.check_devices,
        rich_help_panel=SPEED,
        help="auto, cpu, cuda or mps.",
    ),
]
RuntimeFlag = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        parser=early_checks.check_runtime,
        rich_help_panel=SPEED,
        help="torch, onnxruntime or openvino, or auto: the fastest that `impasto doctor` has measured here.",
    ),
]
ForceFlag = Annotated[bool, typer.Option("--force", rich_help_panel=SCRIPT, help="Overwrite existing files.")]
JsonFlag = Annotated[
    bool, typer.Option("--json", rich_help_panel=SCRIPT, help="Print one JSON object; batch prints one per line.")
]
QuietFlag = Annotated[
    bool, typer.Option("--quiet", "-q", rich_help_panel=SCRIPT, help="No progress and no notes; warnings stay.")
]
DryRunFlag = Annotated[
    bool, typer.Option("--dry-run", rich_help_panel=SCRIPT, help="Check everything and stop before the work.")
]
ListFlag = Annotated[bool, typer.Option("--list-options", help="List the task's options, which are flags, too.")]
RecordFlag = Annotated[
    bool,
    typer.Option(
        "--record/--no-record", rich_help_panel=SCRIPT, help="Record in the picture (or FILE.json) how it was made."
    ),
]


def _keep_paths(wanted: bool) -> bool:
    if wanted or "impasto.runs.record" in sys.modules:
        from impasto.runs import record

        record.keep_paths(wanted)
    return wanted


RecordPathsFlag = Annotated[
    bool,
    typer.Option(
        "--record-paths",
        callback=_keep_paths,
        help="Keep folders and digests of the files in the record, too, not only their names.",
    ),
]
RecipeFlag = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        rich_help_panel=SCRIPT,
        help="Repeat the run that a picture or JSON file records; flags take precedence.",
    ),
]


BEST = "nnst"


@dataclass(frozen=True)
class StylizationFlags:
    """Stylization options."""

    method: MethodFlag = None
    best: BestFlag = False
    preset: PresetFlag = None
    style: StyleFlag = None
    style_weights: StyleWeightsFlag = None
    size: SizeFlag = None
    style_size: StyleSizeFlag = None
    strength: StrengthFlag = None
    keep_color: KeepColorFlag = None
    mask: MaskFlag = None
    seed: SeedFlag = None

    @property
    def chosen_method(self) -> str | None:
        """The named method, or that of --best; raises OptionError if they differ."""
        if self.best and self.method not in (None, BEST):
            raise OptionError(f"--best is -m {BEST}: leave out -m {self.method}")
        return BEST if self.best else self.method

    def check(self, ctx: typer.Context, words: list[str], recipe: Path | None, *, many: bool = False) -> None:
        """Check the method's options, preset, masks, shares of styles, sizes, files and the recipe.

        words: all words that are no declared flags; many: of photos and paintings that are not known yet. Raises
        ImpastoError for the first mistake.
        """
        command = ctx.command.name or "impasto"
        plain, options = arguments.check_options(ctx, words, self.chosen_method, recipe)
        if recipe is None:
            early_recipes.check_preset(self.chosen_method, self.preset)
        else:
            early_recipes.check_recipe(recipe)
        for mask in self.mask or []:
            first_look.check_content(str(mask), video=False)
        early_recipes.read_shares(self.style_weights)
        values = {"style_size": self.style_size, "seed": self.seed, "size": self.size}
        early_recipes.check_values({**values, "style_weights": self.style_weights}, command)
        early_recipes.check_networks(options, self.chosen_method)
        if plain is not None and recipe is None and not many:
            early_recipes.check_styles(command, plain, self.style or [], self.keep_color)
            count = len(plain) - 1 + len(self.style or [])
            early_recipes.check_counts(count, self.style_weights, len(self.mask or []))

    def given(self, **others: Any) -> dict[str, Any]:
        """Return the given flags, and those of `others`, by the names of a recipe's fields."""
        values = vars(self) | others | {"method": self.chosen_method}
        values.pop("best")
        return arguments.given(masks=values.pop("mask"), **values)


@dataclass(frozen=True)
class MachineFlags:
    """What runs the networks, and where."""

    device: DeviceFlag = "auto"
    runtime: RuntimeFlag = "torch"


@dataclass(frozen=True)
class ReportingFlags:
    """Output and recording options."""

    json: JsonFlag = False
    quiet: QuietFlag = False
    dry_run: DryRunFlag = False
    record: RecordFlag = True
    record_paths: RecordPathsFlag = False
    recipe: RecipeFlag = None


@dataclass(frozen=True)
class NetworkFlags:
    """Options of the commands that look into a network."""

    device: DeviceFlag = "auto"
    list_options: ListFlag = False
    force: ForceFlag = False
    json: JsonFlag = False
    quiet: QuietFlag = False
    record: RecordFlag = True
    record_paths: RecordPathsFlag = False


def spread(command: Callable[..., None]) -> Callable[..., None]:
    """Return `command` in the form for typer: each parameter that is a group is replaced by the group's flags.

    Groups come after ``*``, because they have no default.
    """
    signature = inspect.signature(command, eval_str=True)
    groups: dict[str, type[Any]] = {}
    parameters = []
    for name, parameter in signature.parameters.items():
        if not dataclasses.is_dataclass(parameter.annotation):
            parameters.append(parameter)
            continue
        assert isinstance(parameter.annotation, type)
        groups[name] = parameter.annotation
        own = inspect.signature(parameter.annotation, eval_str=True).parameters.values()
        parameters += [flag.replace(kind=inspect.Parameter.KEYWORD_ONLY) for flag in own]

    @functools.wraps(command)
    def run(**values: Any) -> None:
        for name, group in groups.items():
            values[name] = group(**{field.name: values.pop(field.name) for field in dataclasses.fields(group)})
        command(**values)

    run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    return run
