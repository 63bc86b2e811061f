"""Contact sheets over one or two options."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch

from cli_support import QUICK, Outcome, Shell, make_backbone, open_shell, use_one_thread
from impasto.commands import sweep as command
from impasto.images.contact_sheet import contact_sheet
from impasto.images.files import read_image, read_metadata
from impasto.progress import OnStep

one_thread = pytest.fixture(autouse=True, scope="module")(use_one_thread)


@pytest.fixture(scope="session")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_backbone(tmp_path_factory.mktemp("weights") / "slim.safetensors")


@pytest.fixture
def shell(tmp_path: Path, backbone: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Shell:
    monkeypatch.chdir(tmp_path)
    return open_shell(tmp_path, backbone, capsys)


def sweep(shell: Shell, *words: str) -> Outcome:
    files = ("photo.png", "sea.png", "--backbone-weights", "slim.safetensors", "--cell", "64")
    return shell.run("sweep", *files, *QUICK, *words)


def test_one_option(shell: Shell) -> None:
    done = sweep(shell, "--vary", "style-weight=1,100", "--start", "noise").good()
    assert done.out == "photo-sea-sweep.png\n"
    assert "1/2 style-weight=1: painting 48x36 with gatys" in done.err
    cells = []
    for weight in ("1", "100"):
        words = ("--style-weight", weight, "--start", "noise", "-o", f"{weight}.png")
        shell.stylize("photo.png", "sea.png", *words).good()
        cells.append(read_image(f"{weight}.png"))
    both = contact_sheet([[read_image("photo.png")], [read_image("sea.png")]], cell=64)
    labels = ["photo, painting", "style-weight=1", "style-weight=100"]
    expected = contact_sheet([[both, *cells]], column_labels=labels, cell=64)
    assert (read_image("photo-sea-sweep.png") - expected).abs().max() < 0.02


def test_two_options_one_of_them_a_list(shell: Shell) -> None:
    words = ("--vary", "strength=0,0.5,1", "--vary", "content-layers=relu2_1;relu2_1,relu3_1", "--start", "noise")
    done = sweep(shell, *words, "-o", "sheet.png", "--json", "--quiet").good()
    assert done.err == ""
    cells = done.json["cells"]
    assert [cell["strength"] for cell in cells] == ["0", "0.5", "1"] * 2
    assert [cell["content-layers"] for cell in cells] == ["relu2_1"] * 3 + ["relu2_1,relu3_1"] * 3
    assert all(cell["seconds"] >= 0 for cell in cells)
    assert cells[-1]["losses"]["style"] > 0
    sheet = read_image("sheet.png")
    assert sheet.shape[-2] > 2 * 64
    assert sheet.shape[-1] > 4 * 64


@pytest.mark.parametrize(
    "axis",
    ["preset=default", "keep-color=off,lab,histogram", "seed=1,2", "size=24,32x20", "style-size=16,32", "clamp=yes,no"],
)
def test_what_can_vary(shell: Shell, axis: str) -> None:
    done = sweep(shell, "--vary", axis, "--json", "-o", "sheet.png").good()
    assert len(done.json["cells"]) == 1 + axis.count(",")


def test_it_is_repeated_from_its_record(shell: Shell) -> None:
    sweep(shell, "--vary", "style-weight=1,100", "--seed", "4", "-o", "a.png").good()
    record = json.loads(read_metadata("a.png")["impasto"])
    assert record["vary"] == {"style_weight": ["1", "100"]}
    shell.run("sweep", "--recipe", "a.png", "-o", "b.png", "--cell", "64").good()
    assert torch.equal(read_image("a.png"), read_image("b.png"))
    found = shell.run("sweep", "--recipe", "a.png", "-o", "c.png", "--vary", "seed=1,2,3", "--json").good().json
    assert [cell["seed"] for cell in found["cells"]] == ["1", "2", "3"]
    assert shell.run("stylize", "--recipe", "a.png", "-o", "d.png").code == 2


def test_dry_run(shell: Shell) -> None:
    before = shell.names()
    done = sweep(shell, "--vary", "style-weight=1,100", "--dry-run").good()
    assert "dry run: 2 times painting 48x36" in done.err
    assert shell.names() == before


@pytest.mark.parametrize(("whole", "code"), [(1, 130), (0, 130)])
def test_ctrl_c_keeps_the_cells_that_are_done(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, whole: int, code: int
) -> None:
    paint, painted = command.PaintJob.paint_floats, []

    def press(job: command.PaintJob, on_step: OnStep) -> torch.Tensor:
        if len(painted) == whole:
            raise KeyboardInterrupt
        painted.append(job)
        return paint(job, on_step)

    monkeypatch.setattr(command.PaintJob, "paint_floats", press)
    done = sweep(shell, "--vary", "style-weight=1,10,100", "--json")
    assert done.code == code
    if whole:
        assert len(done.json["cells"]) == 1
        assert "1 of 3 pictures are on the sheet" in done.err
        assert read_image("photo-sea-sweep.png").shape[-1] > 4 * 64
    else:
        assert "nothing was written" in done.err
        assert "photo-sea-sweep.png" not in shell.names()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "say what to vary"),
        (["--vary", "a=1", "--vary", "b=1", "--vary", "c=1"], "no option 'a'"),
        (["--vary", "seed=1", "--vary", "seed=2"], "two different options"),
        (["--vary", "seed"], "give values"),
        (["--vary", "seed="], "give values"),
        (["--vary", "style-wieght=1,2"], "did you mean .*style-weight"),
        (["--vary", "style-weight=1,-2"], "style-weight must be at least 0"),
        (["--vary", "strength=0,2"], "strength must be at most 1"),
        (["--vary", "keep-color=off,oil"], "--keep-color is one of"),
        (["--vary", "preset=default,oil"], "no preset 'oil'"),
        (["--vary", "content-layers=relu1_1;relu9_9"], "no layer 'relu9_9'"),
        (["--vary", f"seed={','.join(map(str, range(201)))}"], "too many for a sheet"),
        (["--vary", "seed=1,2", "-o", "sea.png"], "exists already"),
    ],
)
def test_mistakes(shell: Shell, words: list[str], message: str) -> None:
    before = shell.names()
    done = sweep(shell, *words)
    assert (done.code, done.out) == (2, "")
    assert re.search(message, done.err.splitlines()[-1]), done.err
    assert shell.names() == before
