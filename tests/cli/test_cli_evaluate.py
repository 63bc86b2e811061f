"""`impasto evaluate`: folders in, JSON and Markdown out."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from cli_support import QUICK, Outcome, Shell, make_backbone, make_picture, open_shell
from impasto.images.files import read_image, write_image
from impasto.networks.backbone import VGG19_BLOCKS
from impasto.weights import save_weights

FOLDERS = ("contents", "styles")
COMMON = ("--loss-network", "network", "--size", "48x40", "--metric-weights", "network")


def make_network(folder: Path) -> None:
    """A folder with a tiny random normalised VGG-19."""
    folder.mkdir()
    tensors: dict[str, Tensor] = {"conv0.weight": torch.eye(3).view(3, 3, 1, 1), "conv0.bias": torch.zeros(3)}
    inputs = 3
    for block, count in enumerate(VGG19_BLOCKS, start=1):
        for i in range(1, count + 1):
            tensors[f"conv{block}_{i}.weight"] = torch.randn(4, inputs, 3, 3) / 3
            tensors[f"conv{block}_{i}.bias"] = torch.zeros(4)
            inputs = 4
    save_weights(tensors, folder / "tiny.safetensors", {})


@pytest.fixture(scope="session")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_backbone(tmp_path_factory.mktemp("weights") / "slim.safetensors")


@pytest.fixture
def shell(tmp_path: Path, backbone: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Shell:
    """Three photos, two paintings, two stylized pictures, a loss network, a backbone."""
    monkeypatch.chdir(tmp_path)
    shell = open_shell(tmp_path, backbone, capsys)
    for folder in (*FOLDERS, "stylized"):
        (tmp_path / folder).mkdir()
    for i, name in enumerate(("boat", "cat", "dune")):
        write_image(make_picture(i, 40, 48), Path("contents", f"{name}.png"))
    for i, name in enumerate(("sea", "sky")):
        write_image(make_picture(9 + i), Path("styles", f"{name}.png"))
    shutil.copy("contents/boat.png", "stylized/boat__sea.png")
    write_image(make_picture(20, 40, 48), Path("stylized/cat-sky.png"))
    make_network(tmp_path / "network")
    return shell


def measure(shell: Shell, *argv: object) -> Outcome:
    return shell.run("evaluate", *FOLDERS, *argv, *COMMON)


def make(shell: Shell, *argv: object) -> Outcome:
    return measure(shell, "--make", "made", "-m", "gatys", "--backbone-weights", "slim.safetensors", *QUICK, *argv)


def test_json(shell: Shell) -> None:
    message = measure(shell, "stylized", "--json", "--skip", "cfsd").good().json
    assert [(row["content"], row["style"]) for row in message["rows"]] == [("boat", "sea"), ("cat", "sky")]
    first = message["rows"][0]
    assert (first["content_loss"], first["ssim"]) == (0, 1)
    assert first["style_loss"] == first["photo_style_loss"]
    assert message["loss_network"]["name"] == "vgg19-normalised"
    assert len(message["loss_network"]["sha256"]) == 64
    assert (message["size"], message["pairs"], message["resized"]) == ("48x40", 2, 0)
    assert message["mean"]["lpips"] is None
    assert "alexnet" in message["missing"]["lpips"]
    assert message["missing"]["cfsd"] == "not asked for"


def test_markdown(shell: Shell) -> None:
    done = measure(shell, "stylized", "--markdown", "table.md").good()
    assert "boat" not in done.out
    assert "**mean**" in done.out
    assert "- no LPIPS: " in done.out
    assert "2/2 pictures" in done.err
    table = Path("table.md").read_text()
    assert "| boat | sea |" in table
    again = measure(shell, "stylized", "--markdown", "table.md")
    assert (again.code, again.out) == (2, "")
    assert "--force" in again.err
    assert measure(shell, "stylized", "--markdown", "table.md", "--force", "-q").good().err == ""


def test_make(shell: Shell) -> None:
    message = make(shell, "--pairs", 4, "--json").good().json
    made = ["boat__sea", "boat__sky", "cat__sky", "dune__sea"]
    assert [f"{row['content']}__{row['style']}" for row in message["rows"]] == made
    assert sorted(path.stem for path in Path("made").iterdir()) == made
    assert read_image("made/boat__sea.png").shape == (1, 3, 40, 48)
    assert make(shell, "--pairs", 4, "--json").good().json == message
    assert measure(shell, "made", "--json").good().json == message
    fewer = make(shell, "--pairs", 1, "--offsets", "1", "--json").good().json
    assert [(row["content"], row["style"]) for row in fewer["rows"]] == [("boat", "sky")]
    other = make(shell, "--seed", 1)
    assert other.code == 2
    assert "was made with another seed" in other.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["contents", "styles"], "name three folders"),
        (["contents", "styles", "nowhere"], "nowhere is no folder"),
        (["styles", "contents", "stylized"], "there is no photo called boat"),
        (["contents", "styles", "stylized", "--steps", "3"], "has no option --steps"),
        (["contents", "styles", "stylized", "-m", "gatys"], "need --make DIR"),
        (["contents", "styles", "stylized", "--make", "made"], "with --make name two folders"),
        (["contents", "styles", "stylized", "--loss-network", "vgg11"], "vgg19-slim+heads, vgg19 or a folder"),
        (["contents", "styles", "stylized", "--size", "big"], "size 'big' is not understood"),
        (["contents", "styles", "stylized", "--skip", "fid"], "--skip takes painted, lpips, cfsd, artfid"),
        (["contents", "styles", "stylized", "--metric-weights", "nowhere"], "nowhere is no folder"),
        (["contents", "styles", "stylized", "--markdown", "table.txt"], "must end in .md"),
        (["contents", "styles", "--make", "made", "--offsets", "a"], "--offsets takes whole numbers"),
        (["contents", "styles", "--make", "made", "--pairs", "99"], "there are 6 pairs"),
        (["contents", "styles", "--make", "made", "-m", "nothing"], "there is no method 'nothing'"),
    ],
)
def test_mistakes(shell: Shell, words: list[str], message: str) -> None:
    done = shell.run("evaluate", *COMMON, *words)
    assert (done.code, done.out) == (2, "")
    assert message in done.err
    assert done.err.count("\n") == 1
    assert not Path("made").exists()


def test_a_missing_painting_is_named(shell: Shell) -> None:
    Path("styles/sky.png").unlink()
    done = measure(shell, "stylized")
    assert done.code == 2
    assert "cat-sky.png: there is no painting called sky" in done.err


def test_weights_are_looked_for_in_torchs_cache(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", "cache")
    message = shell.run("evaluate", *FOLDERS, "stylized", *COMMON[:4], "--json").good().json
    assert message["missing"]["lpips"].endswith(str(Path("cache", "hub", "checkpoints")))


def test_help_loads_no_torch() -> None:
    code = "import sys; from impasto.cli.main import main; main(['evaluate', '--help']); print('torch' in sys.modules)"
    environment = {**os.environ, "NO_COLOR": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False, env=environment
    )
    assert done.stdout.splitlines()[-1] == "False", done.stderr
