"""`impasto export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from impasto import cli_flags as flags


def export(
    ctx: typer.Context,
    words: Annotated[list[str] | None, typer.Argument(metavar="FILE", help="What to write: out.onnx.")] = None,
    method: flags.MethodFlag = None,
    preset: flags.PresetFlag = None,
    force: flags.ForceFlag = False,
    json: flags.JsonFlag = False,
) -> None:
    """Write a one-pass method as ONNX: inputs content and style, pictures of any size in [0, 1]; output picture.

    Options of the method are flags, too, such as --weights FILE. Needs the extra onnx.
    """
    from impasto.errors import OptionError
    from impasto.export import export_onnx
    from impasto.one_pass import OnePass
    from impasto.stylizer import find_method, load

    found = find_method(method)
    files, options = flags.take_flags(ctx, words or [], found.Options, found.name, f"impasto methods {found.name}")
    if len(files) != 1:
        raise OptionError("name one file to write: impasto export -m adain out.onnx")
    target = flags.check_target(Path(files[0]), force, (".onnx",))
    if not issubclass(found, OnePass):
        raise OptionError(f"{found.name} optimises, which ONNX can't hold; export swift, wct, adain, sanet or metanet")
    model = load(found.name, preset=preset or "default", **options)
    assert isinstance(model, OnePass)
    export_onnx(model, target)
    result = {"output": str(target), "method": found.name, "weights": model.digests}
    flags.print_json(result) if json else typer.echo(result["output"])
