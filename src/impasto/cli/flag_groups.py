"""Groups of flags that several commands have: one parameter of the command, many flags for typer."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from impasto.cli import flags
from impasto.commands import arguments
from impasto.errors import OptionError

BEST = "nnst"


@dataclass(frozen=True)
class StylizationFlags:
    """Stylization options."""

    method: flags.MethodFlag = None
    best: flags.BestFlag = False
    preset: flags.PresetFlag = None
    style: flags.StyleFlag = None
    style_weights: flags.StyleWeightsFlag = None
    size: flags.SizeFlag = None
    style_size: flags.StyleSizeFlag = None
    strength: flags.StrengthFlag = None
    keep_color: flags.KeepColorFlag = None
    mask: flags.MaskFlag = None
    seed: flags.SeedFlag = None

    @property
    def chosen_method(self) -> str | None:
        """The named method, or that of --best; raises OptionError if they differ."""
        if self.best and self.method not in (None, BEST):
            raise OptionError(f"--best is -m {BEST}: leave out -m {self.method}")
        return BEST if self.best else self.method

    def given(self, **others: Any) -> dict[str, Any]:
        """Return the given flags, and those of `others`, by the names of a recipe's fields."""
        values = vars(self) | others | {"method": self.chosen_method}
        values.pop("best")
        return arguments.given(masks=values.pop("mask"), **values)


@dataclass(frozen=True)
class MachineFlags:
    """What runs the networks, and where."""

    device: flags.DeviceFlag = "auto"
    runtime: flags.RuntimeFlag = "torch"


@dataclass(frozen=True)
class ReportingFlags:
    """Output and recording options."""

    json: flags.JsonFlag = False
    quiet: flags.QuietFlag = False
    dry_run: flags.DryRunFlag = False
    record: flags.RecordFlag = True
    record_paths: flags.RecordPathsFlag = False
    recipe: flags.RecipeFlag = None


@dataclass(frozen=True)
class NetworkFlags:
    """Options of the commands that look into a network."""

    device: flags.DeviceFlag = "auto"
    list_options: flags.ListFlag = False
    force: flags.ForceFlag = False
    json: flags.JsonFlag = False
    quiet: flags.QuietFlag = False
    record: flags.RecordFlag = True
    record_paths: flags.RecordPathsFlag = False


def spread(command: Callable[..., None]) -> Callable[..., None]:
    """Return `command` in the form for typer: each parameter that is a group becomes the group's flags.

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
