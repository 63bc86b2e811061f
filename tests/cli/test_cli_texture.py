"""`impasto texture` and `impasto train texture` from the command line: what they write, repeat and refuse."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from cli_support import Outcome, Shell, make_backbone, make_picture, open_shell, use_one_thread
from impasto.cli.main import main
from impasto.commands import train as cli_training
from impasto.images.files import read_image, read_metadata, write_image
from impasto.textures.generator import PyramidGenerator, TextureGenerator
from impasto.training.loop import StepReport
from impasto.weights import load_weights, save_weights

one_thread = pytest.fixture(autouse=True, scope="module")(use_one_thread)
QUICK = ("--backbone-weights", "slim.safetensors", "--steps", "2", "--coarse-steps", "1", "--quiet")
FILE = ("--weights", "generator.safetensors")


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_backbone(tmp_path_factory.mktemp("weights") / "slim.safetensors")


@pytest.fixture
def shell(backbone: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Shell:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(1)
    network = PyramidGenerator(2, levels=3, branch=4)
    for parameter in network.parameters():
        parameter.data += 0.2 * torch.randn(parameter.shape)
    save_weights(network.state_dict(), FILE[1], {"textures": ["oil", "chalk"], **network.config()})
    return open_shell(tmp_path, backbone, capsys)


# --- of a painting


def test_a_texture_of_a_painting(shell: Shell) -> None:
    done = shell.run("texture", "sea.png", "--size", "48x32", "--tileable", *QUICK).good()
    assert done.out == "sea-texture.png\n"
    assert read_image("sea-texture.png").shape == (1, 3, 32, 48)
    record = json.loads(read_metadata("sea-texture.png")["impasto"])
    assert (record["command"], record["options"]["steps"]) == ("texture", 2)
    assert (record["size"], record["tileable"], record["seed"]) == ("48x32", True, 0)
    assert record["pictures"][0]["file"] == "sea.png"
    again = shell.run("texture", "sea.png", "-o", "b.png", "--size", "48x32", "--tileable", *QUICK).good()
    assert again.out == "b.png\n"
    assert torch.equal(read_image("b.png"), read_image("sea-texture.png"))


def test_several_paintings_and_json(shell: Shell) -> None:
    words = ("texture", "sea.png", "sky.jpg", "--style-weights", "3,1", "--size", "32", "--no-record", "--json")
    found = shell.run(*words, *QUICK).good().json
    assert found["output"] == "sea-sky-texture.png"
    assert found["style_weights"] == [0.75, 0.25]
    assert len(found["pictures"]) == 2
    assert "impasto" not in read_metadata("sea-sky-texture.png")


# --- of a generator


def test_a_texture_of_a_generator(shell: Shell) -> None:
    assert shell.run("texture", "oil", "--size", "40x24", "--tileable", *FILE).good().out == "oil-texture.png\n"
    picture = read_image("oil-texture.png")
    sample = TextureGenerator.load(FILE[1]).sample("oil", 24, 40)
    assert float((picture - sample).abs().max()) <= 0.5 / 255 + 1e-6
    record = json.loads(read_metadata("oil-texture.png")["impasto"])
    assert record["textures"] == ["oil"]
    assert record["weights"] == {"texture": load_weights(FILE[1]).digest}
    shell.run("texture", "oil", "--size", "40x24", "--seed", "1", "-o", "other.png", *FILE).good()
    assert not torch.equal(read_image("other.png"), picture)


def test_textures_are_mixed(shell: Shell) -> None:
    shell.run("texture", "oil", "chalk", "--style-weights", "1,3", "--size", "21", "-o", "mix.jpg", *FILE).good()
    assert read_image("mix.jpg").shape == (1, 3, 21, 21)
    assert json.loads(Path("mix.jpg.json").read_text())["style_weights"] == [0.25, 0.75]


def test_textures_are_listed(shell: Shell) -> None:
    assert shell.run("texture", "--list", *FILE).good().out == "oil\nchalk\n"
    found = json.loads(shell.run("texture", "--list", "--json", *FILE).good().out)
    assert [entry["name"] for entry in found] == ["oil", "chalk"]
    assert "  --coarse-steps  whole number" in shell.run("texture", "--list-options").good().out


def test_a_rehearsal_writes_nothing(shell: Shell) -> None:
    before = shell.names()
    for words, message in (
        (("sea.png", *QUICK), r"dry run: about \d+ s; nothing"),
        (("oil", *FILE), "dry run: nothing"),
    ):
        found = shell.run("texture", *words, "--dry-run", "--json").good()
        assert re.search(message, found.err)
        assert found.json["dry_run"] is True
    assert shell.names() == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "name a texture or a painting"),
        (("wood", *FILE), "wood is neither a picture here nor a texture; there are: oil, chalk"),
        (("nowhere.png",), "nowhere.png"),
        (("sea.png", *FILE), "--weights is a generator's"),
        (("oil", "sea.png", *FILE), "oil is a texture and sea.png a picture"),
        (("oil", "--steps", "3", *FILE), "--steps is for paintings"),
        (("oil", "--size", "42x24", "--tileable", *FILE), "multiples of 4, not 42x24: take --size 40x24"),
        (("sea.png", "--size", "50x32", "--tileable", *QUICK), "multiples of 16, not 50x32: take --size 48x32"),
        (("sea.png", "--style-weights", "1,x"), "--style-weights takes numbers"),
        (("sea.png", "--style-weights", "1,2"), "one style needs one weight"),
        (("sea.png", "--stepps", "1"), "no option --stepps (did you mean --steps"),
        (("oil", "--weights", "sea.png"), "no readable safetensors file"),
        (("oil", "--weights", "slim.safetensors"), "holds no texture generator"),
        (("sea.png", "-o", "photo.png", *QUICK), "photo.png exists already"),
    ],
)
def test_mistakes(shell: Shell, words: tuple[str, ...], message: str) -> None:
    before = shell.names()
    done = shell.run("texture", *words)
    assert (done.code, done.out) == (2, "")
    assert message in done.err
    assert len(done.err.splitlines()) == 1
    assert shell.names() == before


# --- training


TOY = ("--steps", "3", "--batch", "2", "--crop", "32", "--side", "40", "--preview-every", "2", "--quiet")
SHAPE = ("--levels", "3", "--branch", "2", "--widths", "", "--teacher", "vgg19-slim")


@pytest.fixture
def train(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    pytest.importorskip("accelerate")
    (tmp_path / "more").mkdir()
    for number, name in enumerate(("a.png", "more/b.png", "more/c.jpg")):
        write_image(make_picture(number, 40, 50), tmp_path / name)
    (tmp_path / "more" / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 broken")
    places = ("--style", str(tmp_path / "a.png"), "--style", str(tmp_path / "more"))

    def run(folder: Path, *words: str, styles: tuple[str, ...] = places) -> Outcome:
        capsys.readouterr()
        code = main(["train", "texture", *styles, "-o", str(folder), *TOY, *SHAPE, *words])
        return Outcome(code, *capsys.readouterr())

    return run


def test_a_training_of_pictures_gives_a_generator_and_resumed_it_gives_the_same_bits(
    train: Callable[..., Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = train(tmp_path / "whole", "--json").good()
    assert "warning: 1 unreadable pictures were skipped" in found.err
    assert (found.json["contents"], found.json["styles"]) == (0, 3)
    assert set(found.json["losses"]) == {"texture", "diversity"}
    path = tmp_path / "whole" / "texture.safetensors"
    assert TextureGenerator.load(path).names == ("a", "b", "c")
    assert read_image(tmp_path / "whole" / "preview-000002.png").shape == (1, 3, 96, 96)
    show = cli_training._Line.show

    def press(line: object, report: StepReport) -> None:
        show(line, report)  # type: ignore[arg-type]
        if report.step == 2:
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(cli_training._Line, "show", press)
        assert train(tmp_path / "parts").code == 130
    train(tmp_path / "parts", "--resume").good()
    assert (tmp_path / "parts" / "texture.safetensors").read_bytes() == path.read_bytes()
    train(tmp_path / "on", "--from", str(path), "--diversity-form", "julesz").good()


def test_a_generator_is_taught_further_textures(train: Callable[..., Outcome], tmp_path: Path) -> None:
    train(tmp_path / "first").good()
    path = tmp_path / "first" / "texture.safetensors"
    write_image(make_picture(7, 40, 50), tmp_path / "d.png")
    styles = ("--style", str(tmp_path / "d.png"), "--style", str(tmp_path / "a.png"))
    still = ("--learning-rate", "1e-9", "--from", str(path))
    train(tmp_path / "second", *still, "--group", "1", "--diversity-weight", "0", styles=styles).good()
    second = TextureGenerator.load(tmp_path / "second" / "texture.safetensors")
    assert second.names == ("d", "a")
    first, size = TextureGenerator.load(path), (32, 32)
    assert_close(second.sample("a", *size), first.sample("a", *size), rtol=0, atol=0.02)
    assert_close(second.sample("d", *size), first.sample((1, 1, 1), *size), rtol=0, atol=0.02)
    other = train(tmp_path / "third", *still, "--branch", "3", styles=styles)
    assert "does not hold this network" in other.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--batch", "3"), "--batch 3 is no multiple of --group 2"),
        (("--group", "1"), "it needs --group 2 or more"),
        (("--levels", "1"), "levels must be at least 2"),
        (("--widths", "4,4"), "3 levels need as many widths, not 2"),
        (("--layers", "relu9_1"), "has no layer 'relu9_1'"),
        (("--content", "photos"), "and no photographs"),
        (("--style", "nowhere"), "nowhere is not there"),
    ],
)
def test_mistakes_in_training(
    train: Callable[..., Outcome], tmp_path: Path, words: tuple[str, ...], message: str
) -> None:
    done = train(tmp_path / "run", *words)
    assert (done.code, done.out) == (2, "")
    assert message in done.err
    assert not (tmp_path / "run").exists()


def test_textures_need_names_of_their_own(train: Callable[..., Outcome], tmp_path: Path) -> None:
    write_image(make_picture(5, 40, 50), tmp_path / "more" / "a.webp")
    assert "two of them have the same name" in train(tmp_path / "run").err
    assert "name pictures to learn from" in train(tmp_path / "run", styles=()).err
