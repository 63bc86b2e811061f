"""Training from the command line, on a toy: three steps, tiny pictures, a random teacher."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from cli_support import Outcome, make_picture, use_one_thread
from impasto.cli.main import main
from impasto.commands import train as train_run
from impasto.images.files import write_image
from impasto.networks.backbone import VGG19_BLOCKS, VGG19_WIDTHS
from impasto.networks.backbones import load_backbone
from impasto.training import backbone_distillation
from impasto.training.loop import CHECKPOINT, StepReport, Task
from impasto.weights import load_weights, save_weights

pytest.importorskip("accelerate")
TOY = ("--steps", "3", "--batch", "2", "--crop", "32", "--side", "40", "--quiet")
THIN = (4, 4, 8, 8, 8)


one_thread = pytest.fixture(autouse=True, scope="module")(use_one_thread)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with photographs, of which one is broken, artworks, and a teacher."""
    folder = tmp_path_factory.mktemp("data")
    for name, seed in (("photos", 1), ("art", 2)):
        (folder / name / "deeper").mkdir(parents=True)
        write_image(make_picture(seed, 40, 50), folder / name / "a.png")
        write_image(make_picture(seed + 5, 60, 45), folder / name / "deeper" / "b.jpg")
    (folder / "photos" / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 broken")
    (folder / "teacher").mkdir()
    save_weights(random_teacher(), folder / "teacher" / "thin.safetensors", {})
    return folder


def random_teacher() -> dict[str, Tensor]:
    """A thin normalised VGG-19 with heads that have VGG-19's widths."""
    generator = torch.Generator().manual_seed(3)
    tensors = {"conv0.weight": torch.eye(3).view(3, 3, 1, 1), "conv0.bias": torch.zeros(3)}
    inputs = 3
    for block, (count, width, wide) in enumerate(zip(VGG19_BLOCKS, THIN, VGG19_WIDTHS, strict=True), start=1):
        for i in range(1, count + 1):
            weight = torch.randn(width, inputs, 3, 3, generator=generator)
            tensors |= {
                f"conv{block}_{i}.weight": weight / (3 * inputs**0.5),
                f"conv{block}_{i}.bias": torch.zeros(width),
            }
            inputs = width
        tensors[f"head{block}_1.weight"] = torch.randn(wide, width, 1, 1, generator=generator)
        tensors[f"head{block}_1.bias"] = torch.zeros(wide)
    return tensors


@pytest.fixture
def train(data: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    def run(folder: Path, *words: str) -> Outcome:
        capsys.readouterr()
        files = ["--content", str(data / "photos"), "--style", str(data / "art"), "--teacher", str(data / "teacher")]
        code = main(["train", "backbone", *files, "-o", str(folder), *TOY, *words])
        return Outcome(code, *capsys.readouterr())

    return run


def test_three_steps_give_a_file_that_works(train: Callable[..., Outcome], tmp_path: Path) -> None:
    done = train(tmp_path / "run").good()
    path = tmp_path / "run" / "vgg19-slim.safetensors"
    assert done.out == f"{path}\n"
    assert re.search(r"warning: skipped: .*broken\.jpg is damaged", done.err)
    assert "warning: 1 unreadable pictures were skipped\n" in done.err
    assert load_weights(path).config["steps"] == 3
    features = load_backbone("vgg19-slim+heads", weights=path)(make_picture(1), ["relu4_1"])["relu4_1"]
    assert features.shape == (1, 512, 4, 6)
    assert load_backbone(weights=path).name == "vgg19-slim"


def test_json_and_numbers(train: Callable[..., Outcome], tmp_path: Path, data: Path) -> None:
    found = train(tmp_path / "run", "--json").good().json
    assert (found["steps"], found["contents"], found["styles"]) == (3, 2, 2)
    assert found["options"]["crop"] == 32
    assert set(found["losses"]) == {*(f"relu{block}_1" for block in range(1, 6)), "gram"}
    assert [Path(reason.split()[0]).name for reason in found["skipped"]] == ["broken.jpg"]


def test_the_line_of_numbers(train: Callable[..., Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train_run, "SELDOM", 0.0)
    monkeypatch.setattr("test_cli_train.TOY", [word for word in TOY if word != "--quiet"])
    done = train(tmp_path / "plain").good()
    lines = [line for line in done.err.splitlines() if line.startswith("step ")]
    assert re.fullmatch(r"step 1/3  loss [0-9.]+ \(relu1_1 [0-9.]+ .*gram [0-9.]+\)  rate [0-9.e-]+  .* s", lines[0])
    assert re.search(r"  \d+ s left$", lines[1])
    monkeypatch.setattr(train_run, "OFTEN", 0.0)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert "\r\x1b[Kstep 3/3" in train(tmp_path / "live").good().err


def test_interrupted_and_resumed_is_the_same(
    train: Callable[..., Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(tmp_path / "whole").good()
    show = train_run._Line.show

    def press(line: object, report: StepReport) -> None:
        show(line, report)  # type: ignore[arg-type]
        if report.step == 2:
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(train_run._Line, "show", press)
        done = train(tmp_path / "parts")
    assert (done.code, done.out) == (130, "")
    assert "with --resume goes on" in done.err
    assert load_weights(tmp_path / "parts" / CHECKPOINT).config["step"] == 2
    assert not (tmp_path / "parts" / "vgg19-slim.safetensors").exists()
    refused = train(tmp_path / "parts")
    assert refused.code == 2
    assert "--resume goes on with it, --force starts over" in refused.err
    train(tmp_path / "parts", "--resume").good()
    name = "vgg19-slim.safetensors"
    whole, parts = (load_weights(tmp_path / run / name).tensors for run in ("whole", "parts"))
    assert whole.keys() == parts.keys()
    assert all(torch.equal(whole[key], parts[key]) for key in whole)


def test_starting_over_gives_the_same(train: Callable[..., Outcome], tmp_path: Path) -> None:
    name = "vgg19-slim.safetensors"
    first = train(tmp_path).good() and (tmp_path / name).read_bytes()
    again = train(tmp_path, "--force").good() and (tmp_path / name).read_bytes()
    other = train(tmp_path, "--force", "--seed", "1").good() and (tmp_path / name).read_bytes()
    assert first == again != other


def test_it_stops_where_the_loss_is_not_finite(
    train: Callable[..., Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward = backbone_distillation.Distillation.forward

    def diverge(task: Task, contents: Tensor, styles: Tensor, progress: float) -> dict[str, Tensor]:
        terms = forward(task, contents, styles, progress)  # type: ignore[arg-type]
        return terms if progress < 0.5 else {**terms, "gram": terms["gram"] * torch.nan}

    monkeypatch.setattr(backbone_distillation.Distillation, "forward", diverge)
    done = train(tmp_path, "--checkpoint-every", "1")
    assert (done.code, done.out) == (2, "")
    assert "error: the loss is not finite at step 2: lower --learning-rate and use --resume" in done.err
    assert load_weights(tmp_path / CHECKPOINT).config["step"] == 2


def test_dry_run(train: Callable[..., Outcome], tmp_path: Path) -> None:
    done = train(tmp_path / "run", "--dry-run", "--minutes", "5").good()
    assert "dry run: vgg19-slim, 3 steps, at most 5 minutes; nothing was written" in done.err
    assert not (tmp_path / "run").exists()
    assert train(tmp_path / "run", "--dry-run", "--json").good().json["dry_run"] is True


def test_options_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "backbone", "--list-options"]) == 0
    assert "  --gram-weight  number, at least 0; default 0.1\n" in capsys.readouterr().out
    assert main(["train", "backbone", "--list-options", "--json"]) == 0
    flags = {option["flag"] for option in json.loads(capsys.readouterr().out)}
    assert flags == {
        "--" + name.rstrip("_").replace("_", "-") for name in backbone_distillation.BackboneOptions.model_fields
    }


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--stepps", "3"], r"train backbone has no option --stepps \(did you mean --steps"),
        (["--steps", "0"], "steps must be at least 1"),
        (["--precision", "fp4"], "precision is one of no, bf16, fp16"),
        (["--content", "nowhere"], "nowhere is not there"),
        (["extra"], "'extra' is too much"),
        (["--teacher", "nowhere"], "--teacher is a folder or vgg19; there is no folder nowhere"),
        (["--teacher-weights", "x.safetensors"], "is for --teacher vgg19"),
        (["--teacher", "vgg19", "--teacher-weights", "x.safetensors"], "x.safetensors does not exist"),
        (["--resume"], "holds no checkpoint to resume from"),
    ],
)
def test_mistakes(train: Callable[..., Outcome], tmp_path: Path, words: list[str], message: str) -> None:
    done = train(tmp_path / "run", *words)
    assert (done.code, done.out) == (2, "")
    assert re.search(f"error: .*{message}", done.err), done.err
    assert not (tmp_path / "run").exists()


def test_mistakes_with_folders(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def message(*words: str) -> str:
        assert main(["train", *words]) == 2
        return capsys.readouterr().err

    assert "say what to train, one of: backbone" in message()
    assert "say what to train, one of: backbone" in message("oil")
    assert "name folders of pictures" in message("backbone", "-o", "run")
    photos = ("--content", str(data / "photos"))
    assert "name a folder for the weights" in message("backbone", *photos, "--style", str(data / "art"), "--crop", "32")
    assert "no readable picture in" in message("backbone", *photos, "--style", str(data / "teacher"), "-o", "run")
    (tmp_path / "file").write_text("")
    words = ("--style", str(data / "art"), "--crop", "32", "-o", str(tmp_path / "file" / "run"))
    assert "is no folder" in message("backbone", *photos, *words)
