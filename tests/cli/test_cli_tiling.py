"""Large photos on the command line: bytes instead of floats, tiles, output and records."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from cli_support import Shell, make_backbone, make_picture, open_shell, use_one_thread
from impasto.feedforward import limits
from impasto.feedforward.tiled_run import Tiling
from impasto.images.files import read_image, write_image
from impasto.networks.layers import StepDecoder
from impasto.runs import painting
from impasto.runs.record import read_recipe
from impasto.stylizers import one_pass
from impasto.weights import save_weights
from tiny import lively

one_thread = pytest.fixture(autouse=True, scope="module")(use_one_thread)
WIDTHS = [8, 8, 8, 128]
CONFIG = {"widths": WIDTHS, "levels": [4]}
WORDS = ("-m", "adain", "--weights", "adain.safetensors", "--precision", "fp32")


@pytest.fixture
def shell(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Shell:
    monkeypatch.chdir(tmp_path)
    decoder = lively(StepDecoder(WIDTHS))
    save_weights(decoder.state_dict(), tmp_path / "adain.safetensors", CONFIG)
    shell = open_shell(tmp_path, make_backbone(tmp_path / "backbone.safetensors"), capsys)
    write_image(make_picture(1, 70, 90), tmp_path / "photo.png")
    return shell


def cut_into(monkeypatch: pytest.MonkeyPatch, tile: int) -> None:
    def choose(*args: Any, **options: Any) -> Tiling:
        return Tiling(tile)

    monkeypatch.setattr(one_pass, "choose_tiling", choose)


@pytest.mark.parametrize("color", ["off", "luminance", "histogram"])
def test_a_large_photo_gives_the_same_file_by_windows(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, color: str
) -> None:
    words = ("stylize", "photo.png", "sea.png", *WORDS, "--keep-color", color)
    shell.run(*words, "-o", "floats.png").good()
    monkeypatch.setattr(painting, "MOST_FLOATS", 0)
    shell.run(*words, "-o", "bytes.png").good()
    assert torch.equal(read_image("bytes.png"), read_image("floats.png"))
    cut_into(monkeypatch, 32)
    found = shell.run(*words, "-o", "tiles.png", "--json").good().json
    assert (found["statistics"], found["tile"]) == ("exact", 32)
    assert (read_image("tiles.png") - read_image("floats.png")).abs().max() <= 1 / 255 + 1e-6
    assert read_recipe(Path("tiles.png")).method == "adain"


def test_in_one_piece_the_statistics_are_live(shell: Shell) -> None:
    found = shell.run("stylize", "photo.png", "sea.png", *WORDS, "--json").good().json
    assert (found["statistics"], found["tile"]) == ("live", None)


def test_tiles_go_with_masks_and_several_styles(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    mask = torch.zeros(1, 3, 70, 90)
    mask[..., :45] = 1
    write_image(mask, "mask.png")
    words = ("stylize", "photo.png", "sea.png", "sky.jpg", *WORDS, "--mask", "mask.png")
    shell.run(*words, "-o", "whole.png").good()
    monkeypatch.setattr(painting, "MOST_FLOATS", 0)
    cut_into(monkeypatch, 32)
    shell.run(*words, "-o", "tiles.png").good()
    assert (read_image("tiles.png") - read_image("whole.png")).abs().max() <= 1 / 255 + 1e-6


def test_a_dry_run_foretells_memory_and_time(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("stylize", "photo.png", "sea.png", *WORDS, "--dry-run")
    done = shell.run(*words, "--json").good()
    assert "in one piece" in done.err
    assert done.json["forecast"]["memory"] > 4e8
    monkeypatch.setattr(limits, "CPU_WORK", 1 << 20)
    larger = shell.run(*words, "--json", "--size", "900x700").good()
    assert "in tiles of 64 px" in larger.err
    assert larger.json["forecast"]["tile"] == 64
    assert larger.json["forecast"]["seconds"] >= done.json["forecast"]["seconds"]


def test_a_dry_run_says_that_a_smooth_photo_takes_full_precision(shell: Shell) -> None:
    write_image(torch.rand(1, 3, 80, 90), "rough.png")
    write_image(torch.full((1, 3, 80, 90), 0.5), "flat.png")
    found = {}
    for name in ("rough", "flat"):
        words = ("stylize", f"{name}.png", "sea.png", *WORDS, "--precision", "bf16", "--dry-run", "--json")
        found[name] = shell.run(*words).good()
        assert ("too smooth for half precision" in found[name].err) == (name == "flat")
    memory = {name: done.json["forecast"]["memory"] for name, done in found.items()}
    assert memory["flat"] > memory["rough"]
    full = shell.run("stylize", "flat.png", "sea.png", *WORDS, "--precision", "fp32", "--dry-run", "--json").good()
    assert "too smooth" not in full.err
    assert full.json["forecast"]["memory"] == memory["flat"]


def test_sixteen_bits_stay_floats(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import Image

    grey = (make_picture(4, 70, 90)[0, 0] * 65535).numpy().astype("uint16")
    Image.fromarray(grey).save("deep.png")
    monkeypatch.setattr(painting, "MOST_FLOATS", 0)
    shell.run("stylize", "deep.png", "sea.png", *WORDS, "-o", "out.png").good()
    assert read_image("out.png").shape == (1, 3, 70, 90)


def test_batch_keeps_large_photos_bytes_and_cuts_them(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    shell.run("batch", "photo.png", "sea.png", *WORDS, "-o", "whole").good()
    monkeypatch.setattr(painting, "MOST_FLOATS", 0)
    cut_into(monkeypatch, 32)
    monkeypatch.setattr(painting.PaintJob, "paint_floats", lambda *_: pytest.fail("not as floats"))
    done = shell.run("batch", "photo.png", "sea.png", *WORDS, "-o", "tiles", "--json").good()
    assert '"statistics": "exact", "tile": 32' in done.out
    whole, tiles = (read_image(Path(name) / "photo-sea.png") for name in ("whole", "tiles"))
    assert (tiles - whole).abs().max() <= 1 / 255 + 1e-6


def test_another_runtime_is_recorded(shell: Shell) -> None:
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    words = ("photo.png", "sea.png", *WORDS)
    shell.run("stylize", *words, "-o", "torch.png").good()
    found = shell.run("stylize", *words, "-o", "onnx.png", "--runtime", "onnxruntime", "--json").good().json
    assert found["runtime"] == "onnxruntime"
    assert (read_image("onnx.png") - read_image("torch.png")).abs().max() <= 2 / 255
    assert shell.run("stylize", "--recipe", "onnx.png", "-o", "again.png", "--json").good().json["runtime"] == "torch"
    found = shell.run("batch", *words, "-o", "results", "--runtime", "onnxruntime", "--json").good()
    assert '"runtime": "onnxruntime"' in found.out


def test_a_runtime_that_is_not_there_is_refused(shell: Shell) -> None:
    before = shell.names()
    for words in (("stylize",), ("batch", "-o", "results")):
        done = shell.run(*words, "photo.png", "sea.png", *WORDS, "--runtime", "magic")
        assert (done.code, done.out) == (2, "")
        assert "not 'magic'" in done.err
    assert shell.names() == before
