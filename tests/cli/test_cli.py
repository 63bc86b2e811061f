"""The command line: pictures, cards, lists, exit codes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

import impasto
from cli_support import QUICK, Shell, make_backbone, make_picture, open_shell, use_one_thread
from impasto.cli import main
from impasto.commands import first_look, stylize
from impasto.images.files import open_picture, read_image, write_image
from impasto.methods import find_method, list_methods
from impasto.progress import Step
from impasto.runs import painting, record
from impasto.stylizers import styles
from impasto.stylizers.styles import load_style

one_thread = pytest.fixture(autouse=True, scope="module")(use_one_thread)


@pytest.fixture(scope="session")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_backbone(tmp_path_factory.mktemp("weights") / "slim.safetensors")


@pytest.fixture
def shell(tmp_path: Path, backbone: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Shell:
    monkeypatch.chdir(tmp_path)
    return open_shell(tmp_path, backbone, capsys)


def python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**os.environ, **environment},
    )


# --- starting up


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["style"], ["train", "--help"], []])
def test_help_is_instant(words: list[str]) -> None:
    done = python(
        f"import sys; from impasto.cli.main import main; code = main({words}); "
        "print(code, [m for m in ('torch', 'numpy', 'PIL') if m in sys.modules])"
    )
    assert done.stdout.splitlines()[-1] == "0 []", done.stdout + done.stderr


def test_version_and_module(shell: Shell) -> None:
    assert shell.run("--version").good().out == f"impasto {impasto.__version__}\n"
    done = subprocess.run([sys.executable, "-m", "impasto", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"impasto {impasto.__version__}\n"


@pytest.mark.parametrize("words", [[], ["-m", "gatys", "--backbone-weights", "slim.safetensors", *QUICK]])
def test_stylize_needs_no_torchvision(shell: Shell, words: list[str]) -> None:
    words = ["stylize", "photo.png", "sea.png", *words]
    done = python(
        f"import sys; from impasto.cli.main import main; c = main({words}); print(c, 'torchvision' in sys.modules)"
    )
    assert done.stdout.splitlines() == ["photo-sea.png", "0 False"], done.stderr
    assert "Traceback" not in done.stderr


# --- stylize


def test_a_picture_beside_the_photo(shell: Shell) -> None:
    done = shell.stylize("photo.png", "sea.png").good()
    assert done.out == "photo-sea.png\n"
    assert done.err.splitlines()[0] == "painting 48x36 with gatys"
    assert re.fullmatch(r"took [0-9.]+ s, 2 steps, loss [0-9.e+]+", done.err.splitlines()[1])
    assert read_image("photo-sea.png").shape == (1, 3, 36, 48)


@pytest.mark.parametrize(
    ("size", "expected"), [("32", (24, 32)), ("33x21", (21, 33)), ("17x16", (16, 17)), ("16", (12, 16))]
)
def test_sizes(shell: Shell, size: str, expected: tuple[int, int]) -> None:
    found = shell.stylize("photo.png", "sea.png", "--size", size, "--json").good().json
    assert (found["height"], found["width"]) == expected
    assert read_image(found["output"]).shape[-2:] == expected


def test_a_smaller_working_size_is_reported(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(find_method("gatys"), "default_longer_side", 24)
    done = shell.stylize("photo.png", "sea.png", "-o", "a.png").good()
    assert done.err.startswith("working at 24x18 of the photo's 48x36; --size 48 gives more\n")
    assert "working" not in shell.stylize("photo.png", "sea.png", "-o", "b.png", "--size", "24").good().err
    larger = shell.stylize("photo.png", "sea.png", "-o", "c.png", "--size", "96").good()
    assert "--size 96x72 enlarges it" in larger.err
    assert read_image("c.png").shape[-2:] == (36, 48)


def test_same_seed_same_bits(shell: Shell) -> None:
    words = ("photo.png", "sea.png", "--start", "noise", "--force")
    first = shell.stylize(*words, "-o", "a.png", "--seed", "3").good() and Path("a.png").read_bytes()
    again = shell.stylize(*words, "-o", "a.png", "--seed", "3").good() and Path("a.png").read_bytes()
    other = shell.stylize(*words, "-o", "a.png", "--seed", "4").good() and read_image("a.png")
    assert first == again
    Path("b.png").write_bytes(first)
    assert not torch.equal(read_image("b.png"), other)


def test_json_tells_all(shell: Shell) -> None:
    done = shell.stylize("photo.png", "sea.png", "--json", "--strength", "0.5", "--seed", "9").good()
    found = done.json
    expected = {"output": "photo-sea.png", "width": 48, "height": 36, "method": "gatys", "preset": "default", "seed": 9}
    assert expected.items() <= found.items()
    assert found["strength"] == 0.5
    assert found["options"]["steps"] == 2
    assert found["seconds"] > 0
    assert set(found["losses"]) >= {"content", "style"}
    assert len(found["weights"]["vgg19-slim"]) == 64
    assert found["versions"] == {"impasto": impasto.__version__, "torch": torch.__version__}


def test_quiet_and_dry_run(shell: Shell) -> None:
    assert shell.stylize("photo.png", "sea.png", "--quiet").good().err == ""
    before = shell.names()
    done = shell.stylize("photo.png", "sea.png", "-o", "new.jpg", "--dry-run").good()
    assert done.out == "new.jpg\n"
    assert "nothing was written" in done.err
    assert shell.stylize("photo.png", "sea.png", "-o", "new.jpg", "--dry-run", "--json").good().json["dry_run"] is True
    assert shell.names() == before


def test_several_styles_by_weight(shell: Shell) -> None:
    def painted(*words: str) -> Tensor:
        shell.stylize("photo.png", *words, "-o", "a.png", "--force").good()
        return read_image("a.png")

    sea, sky = painted("sea.png"), painted("sky.jpg")
    assert torch.equal(painted("sea.png", "sky.jpg", "--style-weights", "2,0"), sea)
    mixed = painted("sea.png", "sky.jpg", "--style-weights", "1,1")
    assert not torch.equal(mixed, sea)
    assert not torch.equal(mixed, sky)


def test_colours_are_kept(shell: Shell) -> None:
    photo = read_image("photo.png")
    from impasto.images.color import luma

    for mode in ("luminance", "lab", "histogram", "covariance"):
        shell.stylize("photo.png", "sea.png", "-o", f"{mode}.png", "--keep-color", mode, "--start", "noise").good()
    chroma = read_image("luminance.png") - luma(read_image("luminance.png"))
    inside = (read_image("luminance.png") - 0.5).abs().amax(1, keepdim=True) < 0.49
    assert ((chroma - (photo - luma(photo))).abs() * inside).max() < 0.01


def test_a_mask_leaves_the_rest(shell: Shell) -> None:
    mask = torch.zeros(1, 3, 36, 48)
    mask[..., 24:] = 1
    write_image(mask, "mask.png")
    shell.stylize("photo.png", "sea.png", "--mask", "mask.png", "--start", "noise").good()
    photo, result = read_image("photo.png"), read_image("photo-sea.png")
    assert torch.equal(result[..., :24], photo[..., :24])
    assert (result[..., 24:] - photo[..., 24:]).abs().max() > 0.05


def test_alpha_is_put_back(shell: Shell) -> None:
    alpha = torch.linspace(0, 1, 48).expand(1, 1, 36, 48)
    write_image(make_picture(1), "clear.png", alpha=alpha)
    shell.stylize("clear.png", "sea.png", "--size", "24").good()
    found = open_picture("clear-sea.png").alpha
    assert found is not None
    assert found.shape == (1, 1, 18, 24)
    assert (found - torch.nn.functional.avg_pool2d(alpha, 2)).abs().max() < 0.03
    shell.stylize("clear.png", "sea.png", "-o", "clear.jpg").good()
    assert open_picture("clear.jpg").alpha is None


def test_a_preview_while_it_paints(shell: Shell) -> None:
    done = shell.stylize("photo.png", "sea.png", "--preview", "now.png", "--preview-every", "1").good()
    assert done.out == "photo-sea.png\n"
    assert (read_image("now.png") - read_image("photo-sea.png")).abs().max() < 0.01
    again = shell.stylize("photo.png", "sea.png", "-o", "b.png", "--preview", "b.png")
    assert again.code == 2


def test_ctrl_c_writes_the_best_so_far(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    def press(step: Step) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(stylize, "previewer", lambda *words, **more: press)
    done = shell.stylize("photo.png", "sea.png", "--json")
    assert done.code == 130
    assert "interrupted after 1 steps: this is the best picture so far" in done.err
    assert done.json["interrupted"] is True
    assert read_image("photo-sea.png").shape == (1, 3, 36, 48)


def test_ctrl_c_before_the_work_writes_nothing(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    def press(*words: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(painting, "load", press)
    before = shell.names()
    monkeypatch.setattr(stylize, "read_inputs", press)
    done = shell.stylize("photo.png", "sea.png")
    assert (done.code, done.out) == (130, "")
    assert "nothing was written" in done.err
    assert shell.names() == before


@pytest.mark.parametrize("bare", [False, True])
def test_a_bar_where_somebody_looks(shell: Shell, monkeypatch: pytest.MonkeyPatch, bare: bool) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("NO_COLOR", "1") if bare else monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    done = shell.stylize("photo.png", "sea.png").good()
    assert "2/2" in done.err
    assert "loss" in done.err
    assert bool(re.search(r"\x1b\[[0-9;]*3[0-9]", done.err)) is not bare


# --- the method's own options


def test_options_in_every_spelling(shell: Shell) -> None:
    words = ("--clamp", "--no-normalised-pixels", "--style-layers=relu1_1,relu2_1", "--start-shift", "-0.5")
    found = shell.stylize("photo.png", "sea.png", *words, "--optimizer=adam", "--json").good().json["options"]
    assert found["clamp"] is True
    assert found["normalised_pixels"] is False
    assert found["style_layers"] == ["relu1_1", "relu2_1"]
    assert (found["start_shift"], found["optimizer"]) == (-0.5, "adam")


def test_flags_may_stand_first(shell: Shell) -> None:
    done = shell.run(
        "stylize", "--steps", "2", "--octaves=0", "--backbone-weights", "slim.safetensors", "photo.png", "sea.png"
    )
    assert done.good().out == "photo-sea.png\n"


def test_names_after_two_dashes_are_files(shell: Shell) -> None:
    Path("photo.png").rename("--photo.png")
    done = shell.stylize("-o", "a.png", "--", "--photo.png", "sea.png")
    assert done.code == 2  # the options that the shell of these tests adds come after the dashes
    words = ("stylize", "-o", "a.png", *QUICK, "--backbone-weights", "slim.safetensors", "--", "--photo.png", "sea.png")
    assert shell.run(*words).good().out == "a.png\n"


# --- methods


def test_methods_are_listed(shell: Shell) -> None:
    done = shell.run("methods").good()
    listed = shell.run("methods", "--json").good()
    import json

    assert [entry["name"] for entry in json.loads(listed.out)] == list_methods()
    for name in list_methods():
        assert re.search(rf"^{name} +(one-pass|optimisation) +\S", done.out, re.MULTILINE)


@pytest.mark.parametrize("name", list_methods())
def test_every_option_is_described(shell: Shell, name: str) -> None:
    text, found = shell.run("methods", name).good().out, shell.run("methods", name, "--json").good().json
    fields = find_method(name).Options.model_fields
    assert len(found["options"]) == len(fields)
    for option in found["options"]:
        assert option["help"], option
        assert f"  {option['flag']}  " in text
    assert list(found["presets"]) == list(find_method(name).presets)
    for preset in found["presets"]:
        assert f"\n  {preset}: " in text


def test_ranges_and_choices(shell: Shell) -> None:
    options = {o["flag"]: o for o in shell.run("methods", "gatys", "--json").good().json["options"]}
    steps, layers = options["--steps"], options["--style-layers"]
    assert (steps["type"], steps["range"]) == ("whole number", {"ge": 1, "le": 100_000})
    assert (layers["type"], layers["range"]) == ("list of names", {})
    assert options["--pooling"]["choices"] == ["auto", "max", "average"]
    assert options["--clamp"]["type"] == "yes or no"
    assert "  --decay  number, above 0 and at most 1; default 1\n" in shell.run("methods", "gatys").out


# --- style cards


def test_a_card_paints_like_its_painting(shell: Shell) -> None:
    words = ("--backbone-weights", "slim.safetensors", "--title", "Sea", "--artist", "N. N.", "--year", "1900")
    card = shell.run("style", "extract", "sea.png", "-o", "sea.safetensors", *words).good()
    assert card.out == "sea.safetensors\n"
    shell.stylize("photo.png", "sea.png", "-o", "a.png", "--style-size", "512").good()
    shell.stylize("photo.png", "sea.safetensors", "-o", "b.png").good()
    shell.stylize("photo.png", "--style", "sea.safetensors", "-o", "c.png").good()
    assert torch.equal(read_image("a.png"), read_image("b.png"))
    assert torch.equal(read_image("a.png"), read_image("c.png"))
    shell.stylize("photo.png", "sea.safetensors", "sky.jpg", "--style-weights", "2,1", "-o", "d.png").good()
    assert not torch.equal(read_image("d.png"), read_image("a.png"))


def test_a_card_is_small_and_says_what_it_is(shell: Shell) -> None:
    write_image(make_picture(5, 600, 300), "large.jpg")
    words = ("--backbone-weights", "slim.safetensors", "--title", "Sea")
    shell.run("style", "extract", "large.jpg", *words).good()
    assert Path("large.safetensors").stat().st_size < 200_000
    found = shell.run("style", "show", "large.safetensors", "--json").good().json
    assert found["kind"].startswith("moments/vgg19-slim/")
    assert found["layers"] == ["relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1"]
    assert found["info"] == {"title": "Sea", "width": 256, "height": 512}
    text = shell.run("style", "show", "large.safetensors").good().out
    assert "title: Sea" in text
    assert "relu1_1.mean  16" in text


def test_extract_takes_the_methods_options(shell: Shell) -> None:
    words = ("--backbone-weights", "slim.safetensors", "--style-layers", "relu2_1", "--size", "20", "--start", "style")
    found = shell.run("style", "extract", "sky.jpg", *words, "--json").good().json
    assert found["layers"] == ["relu2_1"]
    assert found["info"] == {"width": 20, "height": 12}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["extract"], "name one painting"),
        (["extract", "starry-night"], "is built in as a card"),
        (["extract", "sea.png", "sky.jpg"], "name one painting"),
        (["extract", "sea.png", "-o", "card.png"], r"must end in \.safetensors"),
        (["extract", "sea.png", "-o", "slim.safetensors"], "exists already"),
        (["extract", "sea.png", "--size", "4"], "'--size'"),
        (["extract", "sea.png", "--sizes", "40"], "did you mean --size"),
        (["extract", "none.png"], "can't be opened"),
        (["show", "none.safetensors"], "can't be opened"),
        (["show", "slim.safetensors"], "is no style card"),
        (["show", "sea.png"], "is no style card"),
    ],
)
def test_mistakes_with_cards(shell: Shell, words: list[str], message: str) -> None:
    weights = ["--backbone-weights", "slim.safetensors"] if words[0] == "extract" else []
    done = shell.run("style", *words, *weights)
    assert (done.code, done.out) == (2, "")
    assert re.search(message, done.err), done.err


def test_built_in_styles(shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shell.run("style", "extract", "sea.png", "--backbone-weights", "slim.safetensors").good()
    folder = tmp_path / "styles"
    folder.mkdir()
    Path("sea.safetensors").rename(folder / "wave.safetensors")
    monkeypatch.setattr(styles, "BUILT_IN", folder)
    monkeypatch.setattr(first_look, "CARDS", folder)
    found = shell.stylize("photo.png", "--style", "wave", "--json").good().json
    assert found["output"] == "photo-wave.png"
    assert found["styles"][0]["style"] == "wave"
    assert load_style(record.find_style("wave")).kind.startswith("moments/")
    message = shell.stylize("photo.png", "--style", "waves")
    assert message.code == 2
    assert "the built-in ones are: wave" in message.err


def test_exit_codes_are_the_documented_ones() -> None:
    assert (main.DONE, main.BROKEN, main.MISTAKE, main.INTERRUPTED) == (0, 1, 2, 130)


@pytest.mark.parametrize(
    ("typed", "offered"), [("ba", "batch"), ("stylize -m ga", "gatys"), ("video --max-m", "--max-memory")]
)
def test_the_shell_completes_commands_flags_and_methods(typed: str, offered: str) -> None:
    words = f"impasto {typed}"
    asked = {"_IMPASTO_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1)}
    done = subprocess.run(
        [sys.executable, "-m", "impasto"], env={**os.environ, **asked}, capture_output=True, text=True
    )
    assert done.stdout.split() == [offered]
