"""What the tests of the command line share: tiny pictures, a random backbone, a run in this process."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from impasto.cli.main import main
from impasto.images.files import write_image
from impasto.networks.backbone import slim_backbone
from impasto.weights import save_weights

QUICK = ("--steps", "2", "--octaves", "0")


def make_picture(seed: int, height: int = 36, width: int = 48) -> Tensor:
    """A smooth random picture, (1, 3, height, width) in [0, 1]."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, 5, 6, generator=generator)
    return torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear")


def make_backbone(path: Path) -> Path:
    """A backbone with random weights, which the tests use instead of the one that ships."""
    torch.manual_seed(7)
    save_weights(slim_backbone().state_dict(), path, {})
    return path


def by_gatys(argv: Sequence[object]) -> list[str]:
    """The words of a command that paints, which name gatys as the method unless they name a method or a recipe."""
    words = [str(word) for word in argv]
    named = {"-m", "--method", "--recipe"} & set(words)
    verbs = 2 if words[:2] == ["style", "extract"] else 1
    paints = words[:1] in (["stylize"], ["sweep"], ["batch"]) or verbs == 2
    return [*words[:verbs], "-m", "gatys", *words[verbs:]] if paints and not named else words


@dataclass(frozen=True)
class Outcome:
    """How a command ended and what it printed."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """The one JSON object on stdout."""
        found: dict[str, Any] = json.loads(self.out)
        return found

    def good(self) -> Outcome:
        """Itself, if all went well."""
        assert self.code == 0, self.err
        return self


@dataclass(frozen=True)
class Shell:
    """A folder with a photo, paintings and a backbone, in which commands run."""

    folder: Path
    capsys: pytest.CaptureFixture[str]

    def run(self, *argv: object) -> Outcome:
        """Run `impasto ARGV...` here, by gatys if it paints and no other method is named."""
        self.capsys.readouterr()
        code = main(by_gatys(argv))
        out, err = self.capsys.readouterr()
        return Outcome(code, out, err)

    def stylize(self, *argv: object) -> Outcome:
        """Run `impasto stylize ARGV...` with the tests' backbone and two steps."""
        return self.run("stylize", *argv, "--backbone-weights", "slim.safetensors", *QUICK)

    def names(self) -> set[str]:
        """The files here."""
        return {path.name for path in self.folder.iterdir()}


def open_shell(folder: Path, backbone: Path, capsys: pytest.CaptureFixture[str]) -> Shell:
    """Fill `folder`, which is the current one, with a photo, two paintings, and the backbone."""
    write_image(make_picture(1), folder / "photo.png")
    write_image(make_picture(2, 40, 40), folder / "sea.png")
    write_image(make_picture(3, 30, 50), folder / "sky.jpg")
    (folder / "slim.safetensors").write_bytes(backbone.read_bytes())
    return Shell(folder, capsys)


def use_one_thread() -> Iterator[None]:
    """Work on one thread for a while: tiny tensors gain nothing from two, and lose much where a core is busy."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
