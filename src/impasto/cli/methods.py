"""`impasto methods`: the methods, and the options of each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from impasto.cli import flags
from impasto.commands import first_look, terminal
from impasto.commands.methods_table import _show_method, describe_method, summarize

if TYPE_CHECKING:
    pass


def methods(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="One method: its options and presets.")] = None,
    json: flags.JsonFlag = False,
) -> None:
    """List the methods, or one method's options with their types, ranges and defaults."""
    first_look.check_method(name)
    from impasto.methods import find_method, list_methods

    if name is not None:
        found = find_method(name)
        terminal.print_json(describe_method(found)) if json else _show_method(found)
        return
    known = [find_method(method) for method in list_methods()]
    if json:
        terminal.print_json([summarize(method) for method in known])
        return
    width = max(len(method.name) for method in known)
    for method in known:
        about = summarize(method)
        terminal.say(f"{about['name']:<{width}} {about['kind']:<13} {about['summary']}")
        terminal.say(f"{'':<{width}} presets: {', '.join(about['presets'])}")
    terminal.say("\nimpasto methods NAME lists a method's options")
