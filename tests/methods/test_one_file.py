"""A method is added by one file, its weights and its manifest entry: nothing else is edited."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import impasto.methods
from cli_support import Shell, make_backbone, open_shell
from impasto.feedforward.tiled_run import Tiling
from impasto.images.files import read_image
from impasto.methods import find_method, list_methods, load
from impasto.weights import files, save_weights

METHOD = '''
"""Colours by their means and deviations (Reinhard et al. 2001).

A photo's colours are shifted and scaled. Nothing is learned but a gain.
"""

import torch
from pydantic import Field
from torch import nn

from impasto.feedforward.stages import IMAGE, RESULT, Edge, MomentsOf, Stage
from impasto.images.tensors import LEAST_SIDE
from impasto.networks.layers import Conv
from impasto.stylizers.one_pass import ArbitraryStyle, OnePassOptions
from impasto.stylizers.styles import Style
from impasto.training.loop import Task, Training, TrainOptions
from impasto.weights import load_weights, resolve


class TintOptions(OnePassOptions):
    """Options of tint."""

    gain: float = Field(1.0, ge=0, le=2, description="multiplies the deviations")


class Tint(ArbitraryStyle):
    """Colour transfer by means and deviations.

    Departs from the paper: RGB instead of lab.
    """

    name = "tint"
    Options = TintOptions
    style_kind = "tint/rgb"

    def __init__(self, options, *, device="cpu", preset="default"):
        super().__init__(options, device=device, preset=preset)
        file = load_weights(options.weights or resolve(self.name))
        self.network = Conv(3, 3, 1).eval().requires_grad_(False)
        file.fill(self.network)
        self.digest = file.digest

    @property
    def digests(self):
        return {self.name: self.digest}

    def style_stage(self):
        return Stage((Edge(IMAGE, "colours"),), lambda work: {"colours": work.maps[IMAGE]}, (MomentsOf("colours"),))

    def style_of(self, known):
        found = known["colours"]
        return Style({"mean": found.mean[0], "deviation": found.deviation()[0]}, self.style_kind)

    def stages(self, style, strength=1.0, size=(LEAST_SIDE, LEAST_SIDE)):
        def paint(work):
            own, x = work.given["colours"], work.maps["colours"]
            numbers = own.mean[0], own.deviation()[0], style["mean"], style["deviation"]
            mean, deviation, target, spread = (value.view(1, 3, 1, 1).to(x) for value in numbers)
            tinted = self.network((x - mean) / deviation * self.options.gain * spread + target)
            return {RESULT: torch.lerp(x, tinted.to(x), strength)}

        seen = Stage((Edge(IMAGE, "colours"),), lambda work: {"colours": work.maps[IMAGE]}, (MomentsOf("colours"),))
        return seen, Stage((Edge("colours", RESULT, (self.network,)),), paint)


class TintTask(Task):
    name = "tint"

    def __init__(self):
        super().__init__()
        self.gain = Conv(3, 3, 1)
        nn.init.eye_(self.gain.weight.data[:, :, 0, 0])

    def forward(self, contents, styles, progress):
        return {"content": (self.gain(contents) - contents).square().mean()}

    def learned(self):
        return self.gain


TRAINING = Training(TrainOptions, lambda options, contents, styles: TintTask())
'''


@pytest.fixture(scope="module")
def added(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The method ``tint`` in a folder of its own beside the methods, with weights and a manifest entry."""
    methods, weights = tmp_path_factory.mktemp("methods"), tmp_path_factory.mktemp("weights")
    (methods / "tint.py").write_text(METHOD.lstrip())
    save_weights({"weight": torch.eye(3).view(3, 3, 1, 1), "bias": torch.zeros(3)}, weights / "tint.safetensors", {})
    data = (weights / "tint.safetensors").read_bytes()
    facts = {"file": "tint.safetensors", "sha256": hashlib.sha256(data).hexdigest(), "licence": "MIT", "data": "none"}
    facts |= {"trained_on": "nothing", "command": "impasto train tint", "quality": "unmeasured"}
    lines = [f'{key} = "{value}"' for key, value in facts.items()]
    (weights / "manifest.toml").write_text("\n".join(["[tint]", *lines, f"bytes = {len(data)}", ""]))
    with pytest.MonkeyPatch.context() as patch:
        impasto.methods.__path__.append(str(methods))
        patch.setattr(files, "FOLDER", weights)
        files.manifest.cache_clear()
        yield
        impasto.methods.__path__.remove(str(methods))
    files.manifest.cache_clear()


@pytest.fixture
def shell(added: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    monkeypatch.chdir(tmp_path)
    return open_shell(tmp_path, make_backbone(tmp_path / "slim.safetensors"), capsys)


def test_commands_know_it(shell: Shell) -> None:
    assert "tint" in list_methods()
    assert "--gain" in shell.run("methods", "tint").good().out
    assert "tint" in shell.run("methods").good().out
    shell.run("stylize", "photo.png", "sea.png", "-m", "tint", "--gain", "0.5", "-o", "out.png").good()
    shell.run("stylize", "--recipe", "out.png", "-o", "again.png").good()
    assert torch.equal(read_image("out.png"), read_image("again.png"))
    assert "did you mean --gain" in shell.run("stylize", "photo.png", "sea.png", "-m", "tint", "--gian", "1").err
    shell.run("batch", "photo.png", "sky.jpg", "--style", "sea.png", "-m", "tint", "-o", "all").good()
    assert {path.name for path in Path("all").iterdir()} >= {"photo-sea.png", "sky-sea.png"}


def test_tiles_give_the_same_picture(added: None, picture: torch.Tensor) -> None:
    model = load("tint", precision="fp32")
    model.tiling = None  # type: ignore[attr-defined]
    whole = model.stylize(picture, picture.flip(1))
    model.tiling = Tiling(16)  # type: ignore[attr-defined]
    assert (model.stylize(picture, picture.flip(1)) - whole).abs().max() < 1e-5
    assert model.cut == Tiling(16)


def test_it_can_be_trained(shell: Shell) -> None:
    pytest.importorskip("accelerate")
    words = (
        "--content",
        "photo.png",
        "--style",
        "sea.png",
        "-o",
        "run",
        "--steps",
        "2",
        "--crop",
        "32",
        "--batch",
        "1",
    )
    shell.run("train", "tint", *words).good()
    again = ("stylize", "photo.png", "sea.png", "-m", "tint", "--weights", "run/tint.safetensors", "-o", "trained.png")
    shell.run(*again).good()


def test_the_documentation_has_a_page_of_it(added: None) -> None:
    pytest.importorskip("sphinx")
    from generate import method_page, methods_table

    page = method_page("tint", "en")
    assert "Reinhard et al." in page
    assert "--gain" in page
    assert "RGB instead of lab" in page
    assert "tint.safetensors" in page
    assert "[`tint`](methods/tint.md)" in methods_table("en")


def test_the_server_offers_it(added: None, tmp_path: Path) -> None:
    pytest.importorskip("fastapi")
    pytest.importorskip("httpx")
    from fastapi.testclient import TestClient

    from impasto.server import tasks
    from impasto.server.app import create_app
    from impasto.server.limits import Limits
    from impasto.server.studio import Studio
    from server_support import ADDRESS, ThreadWorker, picture_bytes

    def start(device: str, limits: Limits) -> ThreadWorker:
        """A worker that knows tint, as no process of its own would, and does not load the default method first."""
        task = functools.partial(tasks.stylize, tasks.Models(device), tasks.Reader(limits, str(tmp_path)))
        return ThreadWorker(lambda: {"stylize": task})

    studio = Studio(["cpu"], Limits(), tmp_path, start)
    with TestClient(create_app(studio), base_url=ADDRESS) as client:
        assert "tint" in {method["name"] for method in client.get("/v1/methods").json()}
        pictures = [("content", ("a.png", picture_bytes(1))), ("paintings", ("b.png", picture_bytes(2)))]
        answer = client.post("/v1/stylize", files=pictures, data={"method": "tint"})
    assert answer.status_code == 200, answer.text


def test_it_is_gone_afterwards() -> None:
    assert find_method().name != "tint"
