"""`impasto export-style`: the network made for a painting, as a file that paints like the painting."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from cli_support import Shell, make_picture, use_one_thread
from impasto.images.files import read_image, write_image
from impasto.methods.metanet import slim_network
from impasto.stylizers.generated_network import load_network
from impasto.stylizers.styles import load_style
from impasto.weights import save_weights

WEIGHTS = ("--weights", "hyper.safetensors")
EXACT = (*WEIGHTS, "--precision", "fp32")

one_thread = pytest.fixture(autouse=True, scope="module")(use_one_thread)


@pytest.fixture
def shell(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Shell:
    """A folder with a photo, a painting, and a hyper network that never learned anything."""
    monkeypatch.chdir(tmp_path)
    write_image(make_picture(1), "photo.png")
    write_image(make_picture(2, 40, 40), "sea.png")
    torch.manual_seed(1)
    network = slim_network(2)
    save_weights(network.state_dict(), Path("hyper.safetensors"), {"method": "metanet", "shape": network.shape})
    return Shell(tmp_path, capsys)


def test_the_file_paints_like_the_painting_and_without_the_hyper_network(shell: Shell) -> None:
    made = shell.run("export-style", "sea.png", "-m", "metanet", "-o", "sea.safetensors", *EXACT).good()
    assert made.out == "sea.safetensors\n"
    assert 448_224 < Path("sea.safetensors").stat().st_size < 457_000
    for name in ("sea.png", "sea.safetensors"):
        words = ("stylize", "photo.png", name, "-m", "metanet", "-o", f"by-{name[4:]}.png")
        shell.run(*words, *EXACT).good()
    painted = read_image("by-png.png")
    assert torch.equal(painted, read_image("by-safetensors.png"))
    with torch.no_grad():
        alone = load_network(load_style("sea.safetensors"))(read_image("photo.png"))
    assert (alone.clamp(0, 1) - painted).abs().max() < 1.01 / 255


def test_built_in_styles_have_networks_too(shell: Shell) -> None:
    about = shell.run("export-style", "--style", "great-wave", "--json", *WEIGHTS).good().json
    assert about["output"] == "great-wave.network.safetensors"
    assert about["kind"].startswith("network/generated-8-")
    assert about["info"]["artist"] == "Katsushika Hokusai"
    assert about["info"]["network"]["width"] == 8


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "name one painting"),
        (["sea.png", "--style", "great-wave"], "name one painting"),
        (["sea.png", "-m", "adain"], "adain makes no networks: use -m metanet"),
        (["sea.png", "-o", "sea.png"], r"must end in \.safetensors"),
        (["nothing.png"], "nothing.png"),
        (["sea.png", "--hat", "red"], "--hat"),
    ],
)
def test_mistakes(shell: Shell, words: list[str], message: str) -> None:
    before = shell.names()
    options = [] if "adain" in words else WEIGHTS
    found = shell.run("export-style", *words, *options)
    assert found.code == 2
    assert message.replace("\\", "") in found.err
    assert len(found.err.strip().splitlines()) == 1
    assert shell.names() == before
