"""What makes the commands pleasant: free names, --best, groups in the help, times, needs checked before the work."""

from __future__ import annotations

import importlib.util
import re
import tomllib
from pathlib import Path
from types import SimpleNamespace

import pytest

from cli_support import Outcome, Shell, make_backbone, open_shell, use_one_thread
from impasto.cli.main import main, make_app
from impasto.commands import doctor
from impasto.commands.arguments import name_target
from impasto.commands.terminal import Line, escape_left
from impasto.errors import ImpastoError
from impasto.images.files import write_image
from impasto.progress import duration
from impasto.runs.record import KEY
from tiny import painting

one_thread = pytest.fixture(autouse=True, scope="module")(use_one_thread)
ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def shell(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Shell:
    monkeypatch.chdir(tmp_path)
    return open_shell(tmp_path, make_backbone(tmp_path / "backbone.safetensors"), capsys)


def run(shell: Shell, *words: str) -> Outcome:
    shell.capsys.readouterr()
    code = main(words)
    return Outcome(code, *shell.capsys.readouterr())


def test_the_same_command_takes_the_next_name(shell: Shell) -> None:
    names = [shell.stylize("photo.png", "sea.png").good().out.strip() for _ in range(3)]
    assert names == ["photo-sea.png", "photo-sea-2.png", "photo-sea-3.png"]
    assert shell.stylize("photo.png", "sea.png", "--force").good().out == "photo-sea.png\n"
    refused = shell.stylize("photo.png", "sea.png", "-o", "photo-sea.png")
    assert (refused.code, "exists already" in refused.err) == (2, True)


def test_what_lies_beside_a_name_counts(tmp_path: Path) -> None:
    def beside(path: Path) -> Path:
        return path.with_name(f"{path.name}.json")

    (tmp_path / "a.jpg.json").touch()
    assert name_target(None, tmp_path / "a.jpg", force=False, beside=beside) == tmp_path / "a-2.jpg"
    assert name_target(None, tmp_path / "a.jpg", force=False) == tmp_path / "a.jpg"
    with pytest.raises(ImpastoError, match="exists already"):
        name_target(tmp_path / "a.jpg", tmp_path / "b.jpg", force=False, beside=beside)


def test_a_run_that_goes_on_replaces_the_picture_that_it_left(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    write_image(painting(24, 24), Path("photo-sea.png"))
    write_image(painting(24, 24), Path("photo-sea-2.png"), metadata={KEY: '{"interrupted": 3}'})
    Path("run.safetensors").touch()
    from impasto.commands import stylize
    from impasto.runs.record import Recipe

    recipe = Recipe(content=Path("photo.png"), styles=(Path("sea.png"),))
    assert stylize.choose_target(recipe, None, force=False, record=True, resume=True) == Path("photo-sea-2.png")
    assert stylize.choose_target(recipe, None, force=False, record=True) == Path("photo-sea-3.png")


def test_best_is_a_method(shell: Shell) -> None:
    done = run(shell, "stylize", "photo.png", "sea.png", "--best", "--dry-run", "--json", "--size", "32")
    assert (done.code, done.json["method"]) == (0, "nnst")
    done = run(shell, "stylize", "photo.png", "sea.png", "--best", "-m", "swift")
    assert (done.code, "--best is -m nnst" in done.err) == (2, True)


def test_a_seed_without_effect_is_said(shell: Shell) -> None:
    quick = ("--size", "32", "--dry-run")
    assert "--seed changes nothing" in run(shell, "stylize", "photo.png", "sea.png", "--seed", "3", *quick).err
    assert "--seed changes nothing" not in run(shell, "stylize", "photo.png", "sea.png", *quick).err
    noise = ("-m", "gatys", "--start", "noise", "--seed", "3")
    assert "--seed changes nothing" not in run(shell, "stylize", "photo.png", "sea.png", *noise, *quick).err


@pytest.mark.parametrize("method", ["gatys", "nnst"])
def test_a_dry_run_tells_memory_and_time_of_an_optimisation(shell: Shell, method: str) -> None:
    words = ("stylize", "photo.png", "sea.png", "-m", method, "--dry-run", "--json", "--size")
    small, large = (run(shell, *words, size).good() for size in ("48x36", "192x144"))
    one, other = small.json["forecast"], large.json["forecast"]
    assert one["tile"] is None
    assert one["memory"] < other["memory"]
    assert 0 < one["seconds"] < other["seconds"]
    assert re.search(r"about [\d.]+ [MG]B of .* free, in one piece, about ", large.err)
    assert not list(Path().glob("photo-sea*"))


def test_what_is_left_of_work_without_steps() -> None:
    def left(expected: float | None, elapsed: float) -> str:
        return escape_left(SimpleNamespace(fields={"expected": expected}, elapsed=elapsed))

    assert (left(100, 40), left(100, 101), left(None, 3)) == ("60 s left", "", "")
    assert (duration(40), duration(700), duration(7500)) == ("40 s", "12 min", "2 h 5 min")


@pytest.mark.parametrize("command", ["stylize", "batch", "video", "sweep", "adapt", "serve"])
def test_help_shows_groups_and_no_types_of_switches(shell: Shell, command: str) -> None:
    message = run(shell, command, "--help").out + run(shell, "--help").out
    assert "<bool>" not in message
    if command in ("stylize", "batch", "video", "sweep"):
        assert "Scripts and records" in message
        everyday = message.split("Colours, regions, variants")[0]
        assert "--strength" in everyday
        assert "--runtime" not in everyday


def test_commands_that_paint_share_their_flags() -> None:
    import typer.main

    group = typer.main.get_command(make_app())
    commands = {name: group.commands[name] for name in ("stylize", "batch", "video", "sweep")}  # type: ignore[attr-defined]
    flags = {
        name: {p.name: p.help for p in command.params if p.opts[0].startswith("-")}
        for name, command in commands.items()
    }
    for shared in ("method", "best", "style", "size", "strength", "keep_color", "mask", "seed", "json", "recipe"):
        assert len({flags[name][shared] for name in commands}) == 1, shared


def test_needs_are_checked_before_the_work(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "accelerate" else real(name, *rest)
    )
    for words in (["adapt", "sea.png"], ["transfer", "fit", "."], ["train", "swift", "--content", ".", "--style", "."]):
        done = run(shell, *words)
        assert (done.code, done.out) == (2, "")
        assert re.search(r"needs accelerate: pip install 'impasto\[(train|transfer)\]'", done.err)


def test_the_doctor_names_every_extra() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    wanted = {
        re.match(r"[\w-]+", need)[0].lower()  # type: ignore[index]
        for extra, needs in extras.items()
        if extra not in ("dev", "docs", "test")
        for need in needs
        if not need.startswith("impasto[")
    }
    message = {package.lower() for package, _, _ in doctor.EXTRAS.values()}
    assert wanted == message
    for package, _, extra in doctor.EXTRAS.values():
        names = " ".join(extras[extra]).lower()
        assert package.lower() in names, f"{extra} does not bring {package}"


def test_methods_of_any_length_are_in_columns(shell: Shell) -> None:
    lines = [line for line in run(shell, "methods").out.splitlines() if " pass" in line or "optim" in line]
    starts = {line.index(re.split(r" {1,}", line, maxsplit=1)[1].lstrip()) for line in lines}
    assert len(starts) == 1


def test_the_last_numbers_are_shown_once(capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "impasto")
    line = Line(often=0, seldom=0)
    for step in (1, 2):
        line.show(lambda step=step: f"step {step}/2")  # type: ignore[misc]
    line.end()
    assert capsys.readouterr().err.splitlines() == ["step 1/2", "step 2/2"]
