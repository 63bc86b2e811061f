"""Common parts of the commands that look into a network: options as flags, the picture, the record, the files."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
import typer
from torch import Tensor

from impasto import __version__
from impasto.commands import terminal
from impasto.commands.arguments import check_target, name_target, take_flags
from impasto.images.files import WRITABLE, read_image
from impasto.images.tensors import fit, resize
from impasto.networks.backbone import Backbone
from impasto.networks.backbones import load_backbone
from impasto.options import Options
from impasto.runs.painting import pick_device
from impasto.runs.record import digest, interrupted_picture, sidecar, write_recorded

T = TypeVar("T", bound=Options)

PILOT = 3
"""Number of steps that are timed to estimate the time of all steps."""


class Network(Protocol):
    """A network with a name and a digest, for the record."""

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def digest(self) -> str:
        """The SHA-256 of its weights file."""


def read_options(
    ctx: typer.Context, words: list[str], options: type[T], owner: str, changes: Mapping[str, Any] | None = None
) -> tuple[list[str], T]:
    """Return the plain words and the recipe's options, over the `changes` of a preset. Raises ImpastoError."""
    found, values = take_flags(ctx, words, options, owner, f"impasto {owner} --list-options")
    return found, options.parse({**(changes or {}), **values}, owner)


def open_backbone(name: str, weights: Path | None, device: str, pooling: str = "max") -> Backbone:
    """Return the backbone called `name` on a device; raises ImpastoError."""
    where = pick_device(device)
    return load_backbone(name, weights=weights, pooling=pooling).to(where)


def expected_seconds(run: Callable[[T], object], options: T) -> float:
    """Return about how many seconds `run` takes with `options`, from a few of their steps."""
    known = options.model_dump()
    total = sum(known.get(name, 0) for name in ("steps", "first_steps"))
    others = {"first_steps": 0} if "first_steps" in known else {}
    run(options.model_copy(update={"steps": 1, **others}))  # the first step prepares what others find ready
    started = time.monotonic()
    run(options.model_copy(update={"steps": PILOT, **others}))
    return (time.monotonic() - started) * float(total) / PILOT


def read_sized(path: str, longer: int, network: Backbone) -> Tensor:
    """Return a picture, (1, 3, H, W), of at most that longer side, on the network's device. Raises ImpastoError."""
    image = read_image(path)
    height, width = fit(image.shape[-2], image.shape[-1], longer)
    least = network.least_side
    return resize(image, max(height, least), max(width, least)).to(network.mean)


@dataclass(frozen=True)
class Output:
    """The file of a command's picture, and whether it has a record."""

    target: Path
    record: bool
    force: bool

    @classmethod
    def choose(
        cls,
        output: Path | None,
        default: str,
        *,
        record: bool,
        force: bool,
        second: str | None = None,
        resume: bool = False,
    ) -> Output:
        """Check that the picture and the files beside it can be written; raises ImpastoError.

        second: the ending of a second picture beside the first. resume: a run continues, and replaces its earlier
        picture.
        """
        if resume:
            output, force = output or interrupted_picture(Path(default)), True

        def beside(path: Path) -> Path | None:
            if second is not None:
                return _second(path, second)
            return sidecar(path) if record else None

        target = name_target(output, Path(default), force=force, suffixes=WRITABLE, beside=beside)
        return cls(target, record, force)

    def beside(self, ending: str) -> Output:
        """Return a second picture, PICTURE-ending.png, beside the first; raises ImpastoError if it can't be written."""
        return Output(check_target(_second(self.target, ending), self.force, WRITABLE), False, self.force)

    def write(self, image: Tensor, facts: Mapping[str, Any]) -> None:
        """Write the picture with its record."""
        write_recorded(image.cpu(), self.target, facts if self.record else None, overwrite=self.force)


def _second(first: Path, ending: str) -> Path:
    return first.with_name(f"{first.stem}-{ending}.png")


def make_record(command: str, options: Options, network: Network, **facts: Any) -> dict[str, Any]:
    """Return a record: command, options, weights, versions, further facts."""
    weights = {network.name: network.digest}
    versions = {"impasto": __version__, "torch": torch.__version__}
    common = {"options": options.model_dump(mode="json"), "weights": weights, "versions": versions}
    return {"command": command, **facts, **common}


def describe(path: str) -> dict[str, str]:
    """Return a file by name and digest, for a record."""
    return {"file": path, "sha256": digest(Path(path))}


def tell_interrupted(interrupted: bool) -> None:
    """If Ctrl-C came before the last step, say so and end with exit code 130."""
    if interrupted:
        terminal.say("interrupted: what was written is the best so far", err=True)
        raise typer.Exit(130)
