"""The run record: what it holds, where it lies, and that a run can be repeated from it."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

import impasto
from cli_support import QUICK, Shell, make_backbone, make_picture, open_shell, use_one_thread
from impasto.images.files import read_image, read_metadata, write_image
from impasto.networks.backbone import slim_backbone
from impasto.runs.record import KEY, Recipe, read_recipe, sidecar
from impasto.weights import save_weights

one_thread = pytest.fixture(autouse=True, scope="module")(use_one_thread)


@pytest.fixture(scope="session")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_backbone(tmp_path_factory.mktemp("weights") / "slim.safetensors")


@pytest.fixture
def shell(tmp_path: Path, backbone: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Shell:
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return open_shell(folder, backbone, capsys)


def record_of(path: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(read_metadata(path)[KEY])
    return found


# --- what it holds


def test_a_png_says_how_it_was_made(shell: Shell) -> None:
    words = ("--seed", "5", "--strength", "0.75", "--keep-color", "lab", "--style-weights", "2,1", "--style-size", "32")
    words += ("--record-paths",)
    shell.stylize("photo.png", "sea.png", "sky.jpg", "-o", "a.png", *words).good()
    record = record_of("a.png")
    digest = hashlib.sha256(Path("photo.png").read_bytes()).hexdigest()
    assert record["content"] == {"file": "photo.png", "sha256": digest}
    assert [style["file"] for style in record["styles"]] == ["sea.png", "sky.jpg"]
    expected = {"method": "gatys", "preset": "default", "seed": 5, "strength": 0.75, "keep_color": "lab"}
    expected |= {"style_weights": [2.0, 1.0], "style_size": 32, "size": "48", "width": 48, "height": 36}
    assert expected.items() <= record.items()
    assert record["options"]["steps"] == 2
    assert len(record["options"]) > 30
    weights = hashlib.sha256(Path("slim.safetensors").read_bytes()).hexdigest()
    assert record["weights"] == {"vgg19-slim": weights}
    assert (record["device"], record["statistics"]) == ("cpu", "live")
    assert record["versions"] == {"impasto": impasto.__version__, "torch": torch.__version__}


def test_other_formats_have_it_beside_them(shell: Shell) -> None:
    for suffix in ("jpg", "webp", "tif", "bmp"):
        shell.stylize("photo.png", "sea.png", "-o", f"a.{suffix}").good()
        assert json.loads(Path(f"a.{suffix}.json").read_text())["method"] == "gatys"
    assert sidecar(Path("a.PNG")) is None


def test_it_can_be_left_out(shell: Shell) -> None:
    shell.stylize("photo.png", "sea.png", "-o", "a.png", "--no-record").good()
    shell.stylize("photo.png", "sea.png", "-o", "a.jpg", "--no-record").good()
    assert read_metadata("a.png") == {}
    assert "a.jpg.json" not in shell.names()
    message = shell.run("stylize", "--recipe", "a.png", "-o", "b.png")
    assert message.code == 2
    assert "holds no run record" in message.err


def test_it_names_no_folder_above_what_it_needs(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    words = (shell.folder / "photo.png", shell.folder / "sea.png")
    shell.stylize(*words, "-o", tmp_path / "out" / "a.png", "--record-paths").good()
    record = record_of(str(tmp_path / "out" / "a.png"))
    assert record["content"]["file"] == "../here/photo.png"
    shell.stylize(*words, "-o", tmp_path / "out" / "b.png").good()
    record = record_of(str(tmp_path / "out" / "b.png"))
    assert record["content"] == {"file": "photo.png"}
    assert record["styles"] == [{"file": "sea.png"}]
    assert record["options"]["backbone_weights"] == "slim.safetensors"
    assert "here" not in json.dumps(record)
    assert str(tmp_path) not in json.dumps(record)


# --- repeating


def test_the_same_bits_again(shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_image(torch.ones(1, 3, 36, 48), "mask.png")
    words = ("--start", "noise", "--seed", "3", "--strength", "0.5", "--size", "40x24", "--mask", "mask.png")
    shell.stylize("photo.png", "sea.png", "sky.jpg", "--style-weights", "1,3", "-o", "a.png", *words).good()
    shell.stylize("photo.png", "sea.png", "sky.jpg", "--style-weights", "1,3", "-o", "a.jpg", *words).good()
    monkeypatch.chdir(tmp_path)
    Path("slim.safetensors").write_bytes((shell.folder / "slim.safetensors").read_bytes())
    for number, recipe in enumerate(("a.png", "a.jpg", "a.jpg.json")):
        shell.run("stylize", "--recipe", f"here/{recipe}", "-o", f"here/{number}.png").good()
        assert torch.equal(read_image(f"here/{number}.png"), read_image("here/a.png"))
    Path("here/0.png").rename("here/a.png")
    assert record_of("here/a.png") == record_of("here/1.png")


def test_flags_overrule_it(shell: Shell) -> None:
    shell.stylize("photo.png", "sea.png", "-o", "a.png", "--seed", "3", "--strength", "0.5", "--tv-weight", "2").good()
    write_image(make_picture(9, 30, 44), "other.png")
    words = ("--seed", "4", "--tv-weight", "3", "--json")
    found = shell.run("stylize", "other.png", "--recipe", "a.png", *words).good().json
    assert found["output"] == "other-sea.png"
    assert (found["width"], found["height"]) == (44, 30)
    assert (found["seed"], found["strength"]) == (4, 0.5)
    assert (found["options"]["tv_weight"], found["options"]["steps"]) == (3.0, 2)
    found = shell.run("stylize", "photo.png", "sky.jpg", "--recipe", "a.png", "--json", "--dry-run").good().json
    assert [style["file"] for style in found["styles"]] == ["sky.jpg"]


def test_another_preset_starts_from_its_own_options(shell: Shell) -> None:
    shell.stylize("photo.png", "sea.png", "-o", "a.png", "--tv-weight", "2", "--seed", "3").good()
    words = ("--preset", "d2l", "--backbone", "vgg19-slim", "--backbone-weights", "slim.safetensors", "--size", "32")
    words += ("--style-layers", "relu1_1", "--style-layer-weights", "1", "--content-layers", "relu2_1", *QUICK)
    found = shell.run("stylize", "--recipe", "a.png", *words, "--json", "-o", "b.png").good().json
    assert (found["preset"], found["seed"]) == ("d2l", 3)
    assert (found["options"]["tv_weight"], found["options"]["optimizer"]) == (10.0, "adam")


def test_a_recipe_of_ones_own(shell: Shell) -> None:
    options = {"steps": 1, "octaves": 0, "backbone_weights": "slim.safetensors", "style_layers": "relu1_1,relu2_1"}
    Path("mine.json").write_text(
        json.dumps({"method": "gatys", "options": options, "size": 24, "styles": ["sky.jpg"], "note": "mine"})
    )
    found = shell.run("stylize", "photo.png", "--recipe", "mine.json", "--json").good().json
    assert (found["output"], found["width"]) == ("photo-sky.png", 24)
    assert found["options"]["style_layers"] == ["relu1_1", "relu2_1"]


def test_a_file_that_has_changed_or_gone(shell: Shell) -> None:
    shell.stylize("photo.png", "sea.png", "-o", "a.png", "--record-paths").good()
    write_image(make_picture(8, 40, 40), "sea.png")
    done = shell.run("stylize", "--recipe", "a.png", "-o", "b.png", "--quiet").good()
    assert done.err == "warning: sea.png has changed since a.png was made\n"
    Path("sea.png").unlink()
    message = shell.run("stylize", "--recipe", "a.png", "-o", "c.png")
    assert message.code == 2
    assert "sea.png can't be opened" in message.err


def test_other_weights_are_reported(shell: Shell, tmp_path: Path) -> None:
    shell.stylize("photo.png", "sea.png", "-o", "a.png").good()
    save_weights(slim_backbone().state_dict(), "slim.safetensors", {})
    done = shell.run("stylize", "--recipe", "a.png", "-o", "b.png", "--quiet").good()
    assert done.err == "warning: the recorded run used other weights of vgg19-slim: the picture will differ\n"


def test_a_picture_that_was_moved_finds_its_files_here(shell: Shell, tmp_path: Path) -> None:
    shell.stylize("photo.png", "sea.png", "-o", "a.png").good()
    (tmp_path / "far" / "away").mkdir(parents=True)
    Path("a.png").rename(tmp_path / "far" / "away" / "a.png")
    shell.run("stylize", "--recipe", "../far/away/a.png", "-o", "b.png").good()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no JSON"),
        ("[1]", "no JSON object"),
        ("[" * 100_000, "no JSON"),
        ('{"method": 3}', "method: "),
        ('{"method": "oil"}', "no method 'oil'"),
        ('{"method": "gatys", "options": {"oil": 1}}', "no option 'oil'"),
        ('{"method": "gatys", "options": {"steps": 0}}', "steps must be at least 1"),
        ('{"options": 3}', "options: "),
        ('{"strength": 7}', "strength must be at most 1"),
        ('{"strength": NaN}', "strength must be a finite number"),
        ('{"a": 1}', "holds no run record: none of its names is one of a run's settings"),
        ('{"size": "big"}', "size 'big' is not understood"),
        ('{"keep_color": "oil"}', "--keep-color is one of"),
        ('{"content": 3}', "names no file"),
        ('{"content": {"sha256": "3"}}', "names no file"),
        ('{"styles": "sea.png"}', "no list of files"),
        ('{"styles": [{"style": "oil"}]}', "no style 'oil'"),
        ('{"method": "gatys", "vary": {"steps": ["1"]}}', "records a contact sheet: use it with impasto sweep"),
        ("\udcff", "no JSON"),
    ],
)
def test_recipes_that_are_none(shell: Shell, text: str, message: str) -> None:
    Path("bad.json").write_bytes(text.encode(errors="surrogateescape"))
    done = shell.run(
        "stylize", "photo.png", "sea.png", "--recipe", "bad.json", "--backbone-weights", "slim.safetensors"
    )
    if text.startswith('{"content"') or text.startswith('{"styles"'):
        done = shell.run("stylize", "--recipe", "bad.json")
    assert (done.code, done.out) == (2, ""), done.err
    assert re.search(message, done.err), done.err
    assert len(done.err.splitlines()) == 1


def test_a_record_that_is_too_large(shell: Shell) -> None:
    Path("bad.json").write_bytes(b" " * 10_000_002)
    assert "too large" in shell.run("stylize", "--recipe", "bad.json").err


def test_what_is_read_is_what_was_asked(shell: Shell) -> None:
    shell.stylize("photo.png", "sea.png", "-o", "a.png", "--seed", "3").good()
    recipe = read_recipe(Path("a.png"))
    assert isinstance(recipe, Recipe)
    assert (recipe.content, recipe.styles, recipe.seed) == (Path("photo.png"), (Path("sea.png"),), 3)
