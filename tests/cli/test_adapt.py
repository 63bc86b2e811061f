"""`impasto adapt` on a toy: a card of a painting that metastyle and johnson paint with."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import impasto
from cli_support import Outcome, make_picture, use_one_thread
from impasto.cli.main import main
from impasto.commands import train
from impasto.commands.adapt import has_converged
from impasto.feedforward.transformation_network import slim_network
from impasto.images.dead_leaves import dead_leaves
from impasto.images.files import read_image, write_image
from impasto.stylizers.styles import network_kind
from impasto.training.loop import StepReport
from impasto.weights import save_weights

pytest.importorskip("accelerate")
TOY = ("--steps", "3", "--batch", "1", "--crop", "32", "--side", "40", "--style-side", "40")

one_thread = pytest.fixture(autouse=True, scope="module")(use_one_thread)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a painting, a photo, initial parameters, and those of a johnson of the same shape."""
    monkeypatch.chdir(tmp_path)
    write_image(make_picture(1, 48, 56), tmp_path / "sea.storm.png")
    write_image(make_picture(2, 48, 40), tmp_path / "photo.png")
    torch.manual_seed(5)
    network = slim_network(4, 1)
    tensors, shape = network.state_dict(), network.shape
    save_weights(tensors, tmp_path / "start.safetensors", {"method": "metastyle", "shape": shape})
    config = {"method": "johnson", "shape": shape, "networks": [{"name": "other"}]}
    save_weights({f"other.{name}": value for name, value in tensors.items()}, tmp_path / "johnson.safetensors", config)
    return tmp_path


@pytest.fixture
def adapt(folder: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    def run(*words: str) -> Outcome:
        capsys.readouterr()
        code = main(["adapt", "sea.storm.png", "--from", "start.safetensors", *TOY, *words])
        return Outcome(code, *capsys.readouterr())

    return run


def test_the_card_paints_with_metastyle_and_johnson(adapt: Callable[..., Outcome], folder: Path) -> None:
    done = adapt("-o", "card.safetensors", "--preview", "seen.png", "--title", "Sea", "--json").good()
    assert done.json["steps"] == 3
    assert done.json["ended"] == "all steps done"
    assert read_image(folder / "seen.png").shape == (1, 3, 64, 128)
    assert {path.name for path in folder.iterdir()} == {
        *("sea.storm.png", "photo.png", "start.safetensors", "johnson.safetensors", "card.safetensors", "seen.png")
    }
    card, photo = impasto.load_style("card.safetensors"), make_picture(3)
    assert card.kind == network_kind(slim_network(4, 1).shape)
    assert card.info["title"] == "Sea"
    assert card.info["steps"] == 3
    mine = impasto.load("metastyle", weights="start.safetensors").stylize(photo, card)
    theirs = impasto.load("johnson", weights="johnson.safetensors").stylize(photo, card)
    assert mine.shape == photo.shape
    assert torch.equal(mine, theirs)


def test_the_default_name_is_the_paintings_and_nothing_is_overwritten(
    adapt: Callable[..., Outcome], folder: Path
) -> None:
    assert adapt("--quiet", "--content", "photo.png").good().out == "sea.storm.safetensors\n"
    first = (folder / "sea.storm.safetensors").read_bytes()
    assert adapt("--quiet", "--seed", "9").good().out == "sea.storm-2.safetensors\n"
    refused = adapt("-o", "sea.storm.safetensors")
    assert (refused.code, "sea.storm.safetensors exists already" in refused.err) == (2, True)
    assert (folder / "sea.storm.safetensors").read_bytes() == first
    assert adapt("--force", "--dry-run").good().out == "sea.storm.safetensors\n"


def test_only_norms_leaves_the_convolutions_as_they_are(adapt: Callable[..., Outcome]) -> None:
    adapt("--quiet", "--only-norms", "-o", "norms.safetensors", "--learning-rate", "0.5").good()
    adapt("--quiet", "-o", "all.safetensors").good()
    start = impasto.load("metastyle", weights="start.safetensors").start.state_dict()
    changed = {}
    for name in ("norms", "all"):
        card = impasto.load_style(f"{name}.safetensors")
        changed[name] = {key for key in start if not torch.allclose(card[key], start[key].half().float(), atol=1e-6)}
    assert changed["norms"]
    assert all(key.startswith(("scales.", "shifts.")) for key in changed["norms"])
    assert any(key.endswith("conv.weight") for key in changed["all"])


def test_ctrl_c_keeps_what_is_there(adapt: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch) -> None:
    show = train._Line.show

    def press(line: train._Line, report: StepReport) -> None:
        show(line, report)
        if report.step == 2:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(train._Line, "show", press)
    done = adapt("-o", "card.safetensors", "--json")
    assert done.code == 130
    assert done.json["ended"] == "interrupted"
    assert impasto.load_style("card.safetensors").info["steps"] == 2


def test_it_stops_when_the_loss_no_longer_falls(adapt: Callable[..., Outcome]) -> None:
    done = adapt(
        "--learning-rate", "1e-12", "--steps", "40", "--patience", "1", "-o", "card.safetensors", "--json"
    ).good()
    assert done.json["ended"] == "the loss no longer falls"
    assert 2 <= done.json["steps"] < 40
    assert impasto.load_style("card.safetensors").info["steps"] == done.json["steps"]


@pytest.mark.parametrize(
    ("losses", "patience", "enough"),
    [
        ([3, 2, 1], 2, False),
        ([3, 2, 2, 1], 2, False),
        ([1, 2, 2, 1], 2, True),
        ([9, 1, 2, 2, 2], 2, True),
        ([1, 1], 0, False),
    ],
)
def test_settled_compares_the_last_losses_with_those_before(losses: list[float], patience: int, enough: bool) -> None:
    assert has_converged(losses, patience) is enough


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--content", "none"), "none is not there"),
        (("--stepps", "3"), "did you mean --steps"),
        (("-o", "card.png"), ".safetensors"),
        (("photo.png",), "name one picture"),
        (("--from", "photo.png"), "photo.png"),
    ],
)
def test_mistakes_are_reported_in_one_line(adapt: Callable[..., Outcome], words: tuple[str, ...], message: str) -> None:
    done = adapt(*words)
    assert done.code == 2
    assert message in done.err
    assert done.err.startswith("error: ")
    assert done.err.count("\n") == 1


def test_metastyle_is_trained_from_the_mean_of_many_styles(folder: Path, adapt: Callable[..., Outcome]) -> None:
    from impasto.methods.conditional_norm import ConditionalNetwork

    torch.manual_seed(6)
    many = ConditionalNetwork(3, 4, 1)
    for values in (*many.scales, *many.shifts):
        torch.nn.init.normal_(values)
    config = {"method": "conditional_norm", "width": 4, "residuals": 1, "styles": [{"name": n} for n in "abc"]}
    save_weights(many.state_dict(), folder / "many.safetensors", config)
    words = [
        "--content",
        "photo.png",
        "--style",
        "sea.storm.png",
        "--batch",
        "2",
        "--steps",
        "2",
        "--crop",
        "32",
        "--side",
        "40",
    ]
    still = ["--learning-rate", "1e-12", "--from", "many.safetensors", "--preview-every", "1", "-o", "run", "--quiet"]
    assert main(["train", "metastyle", *words, *still]) == 0
    assert (folder / "run" / "preview-000001.png").is_file()
    model = impasto.load("metastyle", weights=str(folder / "run" / "metastyle.safetensors"))
    torch.testing.assert_close(model.start.scales[0], many.scales[0].mean(0), atol=0, rtol=1e-3)
    adapt("--from", "run/metastyle.safetensors", "-o", "card.safetensors", "--quiet").good()
    assert model.stylize(make_picture(3), impasto.load_style("card.safetensors")).shape == (1, 3, 36, 48)


def test_shapes_to_learn_on_are_pictures_the_same_for_the_same_seed() -> None:
    first = dead_leaves(1, 40, 56)
    assert first.shape == (3, 40, 56)
    assert 0 <= float(first.min()) < 0.2 < 0.8 < float(first.max()) <= 1
    assert torch.equal(first, dead_leaves(1, 40, 56))
    assert not torch.equal(first, dead_leaves(2, 40, 56))


def test_options_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["adapt", "--list-options", "--json"]) == 0
    assert {"--only-norms", "--patience", "--steps"} <= {about["flag"] for about in json.loads(capsys.readouterr().out)}


def test_a_built_in_style_is_learned_from_its_numbers(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def run(*words: str) -> Outcome:
        capsys.readouterr()
        code = main(["adapt", *words, "--from", "start.safetensors", *TOY])
        return Outcome(code, *capsys.readouterr())

    done = run("great-wave", "--json").good()
    assert done.json["output"] == "great-wave.safetensors"
    card = impasto.load_style("great-wave.safetensors")
    assert (card.info["artist"], "name" in card.info) == ("Katsushika Hokusai", True)
    refused = run("great-wave", "--neighbor-weight", "1")
    assert (refused.code, "needs the painting itself" in refused.err) == (2, True)
    refused = run("great-waves")
    assert (refused.code, "did you mean great-wave?" in refused.err) == (2, True)
