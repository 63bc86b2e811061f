"""`impasto export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from impasto.cli import flags
from impasto.commands import arguments, early_checks, early_recipes, first_look, terminal
from impasto.errors import OptionError

BrowserFlag = Annotated[bool, typer.Option("--browser", help="Write what the page in the browser uses.")]


def export(
    ctx: typer.Context,
    words: Annotated[
        list[str] | None, typer.Argument(metavar="FILE|FOLDER", help="What to write: out.onnx, or a folder.")
    ] = None,
    method: flags.MethodFlag = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", metavar="FILE|FOLDER", help="The same.")] = None,
    preset: flags.PresetFlag = None,
    browser: BrowserFlag = False,
    force: flags.ForceFlag = False,
    json: flags.JsonFlag = False,
) -> None:
    """Write a one-pass method as ONNX: inputs content and style, pictures of any size in [0, 1]; output picture.

    For a folder, swift is written as two graphs: [bold]style.onnx[/bold], painting to style numbers, and
    [bold]paint.onnx[/bold], photo and numbers to picture, with the built-in styles' numbers in styles.json.
    Options of the method are flags, too, such as --weights FILE. Needs the extra onnx.
    """
    first_look.check_method(method)
    early_checks.check_exportable(method)
    words = [*(words or []), *([] if output is None else [str(output)])]
    named, chosen = arguments.check_options(ctx, words, method)
    early_recipes.check_networks(chosen)
    early_recipes.check_preset(method, preset)
    for word in _one_target(words if named is None else named):
        if Path(word).suffix.lower() not in ("", ".onnx"):
            raise OptionError(f"{word}: name a file that ends in .onnx, or a folder")
        if Path(word).suffix and not browser:
            arguments.check_target(Path(word), force)
        else:
            check_folder(Path(word), force)
    from impasto.methods import find_method, load
    from impasto.runs.onnx_export import export_onnx
    from impasto.stylizers.one_pass import OnePass

    found = find_method(method)
    files, options = arguments.take_flags(ctx, words, found.Options, found.name, f"impasto methods {found.name}")
    _one_target(files)
    whole = bool(Path(files[0]).suffix) and not browser
    target = arguments.check_target(Path(files[0]), force, (".onnx",)) if whole else check_folder(Path(files[0]), force)
    if not issubclass(found, OnePass):
        raise OptionError(f"{found.name} optimises, which ONNX can't hold: name a method that paints in one pass")
    model = load(found.name, preset=preset or "default", **options)
    result = {"output": str(target), "method": found.name, "weights": model.digests}
    if whole:
        assert isinstance(model, OnePass)
        export_onnx(model, target)
    else:
        from impasto.runs.split_graphs import check_needs
        from impasto.server.browser_files import write_browser_files, write_pair

        result["files"] = (write_browser_files if browser else write_pair)(check_needs(model), target)
    terminal.print_json(result) if json else terminal.say_path(result["output"])


def _one_target(words: list[str]) -> list[str]:
    """Return the words, which is one; raises OptionError."""
    if len(words) != 1:
        raise OptionError("name one file to write: impasto export -m adain out.onnx")
    return words


def check_folder(path: Path, force: bool) -> Path:
    """Return `path` if files may be written into that folder; raises ImpastoError otherwise, before any work."""
    from impasto.errors import ImpastoError

    path = path.absolute()
    if path.exists() and not path.is_dir():
        raise ImpastoError(f"{path} is a file; name a folder to write")
    if path.is_dir() and any(path.iterdir()) and not force:
        raise ImpastoError(f"{path} holds files already; use --force to overwrite them, or name another folder")
    if not path.parent.is_dir():
        raise ImpastoError(f"{path}: the folder {path.parent} does not exist; make it first")
    return path
