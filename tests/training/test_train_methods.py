"""Training the one-pass methods from the command line, on a toy: the files paint, resumed runs give the same bits."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import impasto
from cli_support import Outcome, make_picture, use_one_thread
from impasto.cli.main import main
from impasto.commands import train as training_run
from impasto.images.files import write_image
from impasto.training.loop import StepReport
from impasto.weights import load_weights

pytest.importorskip("accelerate")
METHODS = ("wct", "adain", "sanet")
TOY = ("--steps", "3", "--batch", "1", "--crop", "32", "--side", "40", "--preview-every", "2", "--quiet")

one_thread = pytest.fixture(autouse=True, scope="module")(use_one_thread)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two photographs, one of them broken, and an artwork."""
    folder = tmp_path_factory.mktemp("data")
    for name, seed in (("photos", 1), ("art", 2)):
        (folder / name).mkdir()
        write_image(make_picture(seed, 40, 50), folder / name / "a.png")
    (folder / "photos" / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 broken")
    return folder


@pytest.fixture
def train(data: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    def run(name: str, folder: Path, *words: str) -> Outcome:
        capsys.readouterr()
        files = ["--content", str(data / "photos"), "--style", str(data / "art")]
        code = main(["train", name, *files, "-o", str(folder), *TOY, *words])
        return Outcome(code, *capsys.readouterr())

    return run


@pytest.mark.parametrize("name", [*METHODS, "swift", "metanet"])
def test_a_trained_file_paints_and_a_resumed_run_gives_the_same_bits(
    name: str, train: Callable[..., Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train(name, tmp_path / "whole").good()
    assert "warning: 1 unreadable pictures were skipped" in whole.err
    path = tmp_path / "whole" / f"{name}.safetensors"
    assert load_weights(path).config["method"] == name
    assert (tmp_path / "whole" / "preview-000002.png").is_file()
    model = impasto.load(name, weights=str(path))
    assert model.stylize(make_picture(3, 40, 50), make_picture(4, 36, 32)).shape == (1, 3, 40, 50)
    show = training_run._Line.show

    def press(line: object, report: StepReport) -> None:
        show(line, report)  # type: ignore[arg-type]
        if report.step == 2:
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(training_run._Line, "show", press)
        assert train(name, tmp_path / "parts").code == 130
    train(name, tmp_path / "parts", "--resume").good()
    parts = load_weights(tmp_path / "parts" / f"{name}.safetensors").tensors
    assert all(torch.equal(tensor, parts[key]) for key, tensor in load_weights(path).tensors.items())


@pytest.mark.parametrize("name", [*METHODS, "swift", "metanet"])
def test_training_in_half_precision(name: str, train: Callable[..., Outcome], tmp_path: Path) -> None:
    train(name, tmp_path, "--precision", "bf16", "--steps", "1").good()
    assert all(bool(own.isfinite().all()) for own in load_weights(tmp_path / f"{name}.safetensors").tensors.values())


def test_each_goes_on_from_its_own_and_from_the_decoders_that_fit(
    train: Callable[..., Outcome], tmp_path: Path
) -> None:
    files = {name: tmp_path / name / f"{name}.safetensors" for name in (*METHODS, "metanet", "swift")}
    starts = (("wct", None), ("wct", "wct"), ("adain", "wct"), ("adain", "adain"), ("sanet", "adain"), ("sanet", "wct"))
    starts += (("metanet", None), ("swift", "metanet"), ("swift", "swift"))
    for name, start in (*starts, ("sanet", "sanet")):
        words = () if start is None else ("--from", str(files[start]))
        train(name, tmp_path / name, "--steps", "1", "--force", *words).good()
    done = train("adain", tmp_path / "odd", "--from", str(files["sanet"]))
    assert done.code == 2
    assert "does not hold this network" in done.err
