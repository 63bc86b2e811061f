"""What the commands share: common flags, and the options of methods, which are flags that no command declares."""

from __future__ import annotations

import difflib
import json
import logging
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from impasto.errors import ImpastoError, OptionError

if TYPE_CHECKING:
    from impasto.options import Options

PLAIN = "impasto.plain"
"""Where a context keeps how many words stand after `--`: those are never flags."""

ContentWord = Annotated[str | None, typer.Argument(metavar="CONTENT", help="The photo.")]
StyleWords = Annotated[
    list[str] | None, typer.Argument(metavar="STYLE", help="Paintings or style cards (.safetensors).")
]
OutputFlag = Annotated[Path | None, typer.Option("--output", "-o", metavar="FILE", help="What to write.")]


def _complete_method(incomplete: str) -> list[str]:
    """The methods that begin so, for the shell; found without loading one."""
    folder = Path(__file__).parent / "methods"
    return sorted(path.stem for path in folder.glob(f"{incomplete}*.py") if not path.stem.startswith("_"))


MethodFlag = Annotated[
    str | None,
    typer.Option("--method", "-m", help="How to paint; see `impasto methods`.", autocompletion=_complete_method),
]
PresetFlag = Annotated[str | None, typer.Option(metavar="NAME", help="One of the method's recipes.")]
StyleFlag = Annotated[
    list[str] | None, typer.Option("--style", metavar="NAME|CARD", help="A built-in style or a card; repeatable.")
]
StyleWeightsFlag = Annotated[
    str | None, typer.Option(metavar="W1,W2,...", help="Shares of the styles, STYLEs first; default: all equal.")
]
SizeFlag = Annotated[
    str | None,
    typer.Option(
        metavar="N|WxH",
        help="Longer side of the result, or exactly WIDTHxHEIGHT. Default: the photo's own size; for optimisation at "
        "most 512 on a CPU and 1024 on a GPU.",
    ),
]
StyleSizeFlag = Annotated[
    int | None, typer.Option(metavar="N", help="Longer side at which paintings are looked at; default: the result's.")
]
StrengthFlag = Annotated[float | None, typer.Option(metavar="0...1", help="How much of the style; default: 1.")]
KeepColorFlag = Annotated[
    str | None,
    typer.Option(metavar="MODE", help="Keep the photo's colours: off, luminance, lab, histogram or covariance."),
]
MaskFlag = Annotated[
    list[Path] | None,
    typer.Option("--mask", metavar="FILE", help="White is repainted; one for all styles, or one a style; repeatable."),
]
SeedFlag = Annotated[int | None, typer.Option(metavar="N", help="Same seed, same picture; default: 0.")]
DeviceFlag = Annotated[str, typer.Option(metavar="NAME", help="auto, cpu, cuda or mps.")]
RuntimeFlag = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="torch, onnxruntime or openvino, or auto: the quickest that `impasto doctor` has measured here.",
    ),
]
ForceFlag = Annotated[bool, typer.Option("--force", help="Overwrite what is there.")]
JsonFlag = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
QuietFlag = Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no notes; warnings stay.")]
DryRunFlag = Annotated[bool, typer.Option("--dry-run", help="Check everything and stop before the work.")]
ListFlag = Annotated[bool, typer.Option("--list-options", help="List the task's options, which are flags, too.")]
RecordFlag = Annotated[
    bool, typer.Option("--record/--no-record", help="Keep in the picture (or FILE.json) how it was made.")
]
RecipeFlag = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Repeat the run that a picture or JSON file records; flags overrule it."),
]


class OpenCommand(TyperCommand):
    """A command that leaves flags which it does not declare to `take_flags`, and tells of Ctrl-C."""

    allow_extra_args = True
    ignore_unknown_options = True

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the declared flags, and remember what stands after `--`."""
        if "--" in args:
            ctx.meta[PLAIN] = len(args) - args.index("--") - 1
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Run the command; Ctrl-C that it does not handle itself ends it with exit code 130."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            typer.echo("interrupted: nothing was written", err=True)
            raise typer.Exit(130) from None


def take_flags(
    ctx: typer.Context, words: list[str], options: type[Options], owner: str, listing: str
) -> tuple[list[str], dict[str, Any]]:
    """Part `words` into plain ones and values of `options`, given as --name VALUE, --name=VALUE, --flag or --no-flag.

    owner: whose options they are; listing: the command that lists them. Raises OptionError for a flag that is none.
    """
    plain = words[len(words) - ctx.meta.get(PLAIN, 0) :]
    left = deque(words[: len(words) - len(plain)])
    found: list[str] = []
    values: dict[str, Any] = {}
    while left:
        word = left.popleft()
        if not word.startswith("-") or word == "-":
            found.append(word)
            continue
        flag, equals, value = word.partition("=")
        name, switch = _find_field(flag, options)
        if name is None:
            raise OptionError(_unknown(ctx, flag, options, owner, listing))
        if switch is False and equals:
            raise OptionError(f"{flag} takes no value")
        if switch is not None and not equals:
            values[name] = switch
        elif equals:
            values[name] = value
        elif not left or left[0].startswith("--"):
            raise OptionError(f"{flag} needs a value; see `{listing}`")
        else:
            values[name] = left.popleft()
    return found + plain, values


def flag_of(name: str) -> str:
    """The flag of the option `name`: style_weight, --style-weight; from_, --from."""
    return "--" + name.removesuffix("_").replace("_", "-")


def _find_field(flag: str, options: type[Options]) -> tuple[str | None, bool | None]:
    """The option that `flag` stands for, and for a yes-or-no option what the bare flag says."""
    name = flag.removeprefix("--").replace("-", "_")
    fields = options.model_fields
    name = f"{name}_" if f"{name}_" in fields else name  # a field can't be called from
    if flag.startswith("--") and name in fields:
        return name, True if fields[name].annotation is bool else None
    name = name.removeprefix("no_")
    if flag.startswith("--no-") and name in fields and fields[name].annotation is bool:
        return name, False
    return None, None


def _unknown(ctx: typer.Context, flag: str, options: type[Options], owner: str, listing: str) -> str:
    own = [name for parameter in ctx.command.params for name in parameter.opts if name.startswith("--")]
    near = difflib.get_close_matches(flag, [*own, *map(flag_of, options.model_fields)], n=3)
    hint = f"; did you mean {' or '.join(near)}?" if near else ";"
    theirs = [] if owner.startswith("train ") else _methods_with(flag)
    if theirs:
        hint = f", but {' and '.join(theirs)} has: add -m {theirs[0]};"
    return f"{owner} has no option {flag}{hint} see `{listing}`"


def _methods_with(flag: str) -> list[str]:
    """The methods that have the option `flag`."""
    from impasto.stylizer import find_method, list_methods

    return [name for name in list_methods() if _find_field(flag, find_method(name).Options)[0]]


def words(first: str | None, others: list[str] | None) -> list[str]:
    """All words of a command line in their order."""
    return ([] if first is None else [first]) + (others or [])


def given(**values: Any) -> dict[str, Any]:
    """The flags that were given: those that are neither None nor an empty list."""
    return {name: value for name, value in values.items() if value is not None and value != []}


def be_quiet(quiet: bool) -> None:
    """Silence notes, not warnings."""
    if quiet:
        logging.getLogger("impasto").setLevel(logging.WARNING)


def print_json(value: Any, *, line: bool = False) -> None:
    """Print one JSON object to stdout; line: on a single line."""
    typer.echo(json.dumps(value, ensure_ascii=False, indent=None if line else 2, default=str))


def check_target(path: Path, force: bool, suffixes: tuple[str, ...] = ()) -> Path:
    """`path` if a file may and can be written there; raises ImpastoError otherwise, before any work is done."""
    import tempfile

    if suffixes and path.suffix.lower() not in suffixes:
        raise ImpastoError(f"{path}: the name must end in one of {', '.join(suffixes)}")
    if path.is_dir():
        raise ImpastoError(f"{path} is a folder; name a file in it")
    if path.exists() and not force:
        raise ImpastoError(f"{path} exists already; use --force to overwrite it, or -o to write elsewhere")
    if not path.parent.is_dir():
        raise ImpastoError(f"{path}: the folder {path.parent} does not exist; make it first")
    try:
        with tempfile.TemporaryFile(dir=path.parent):
            return path
    except OSError as error:
        raise ImpastoError(f"{path} can't be written: {error.strerror}; write it elsewhere with -o") from None
