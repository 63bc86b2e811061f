"""Mistakes are answered at once, with the nearest right word; a style's name goes wherever a painting does."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from cli_support import Outcome, Shell, make_backbone, open_shell
from impasto.cli.main import main
from impasto.commands.first_look import built_in_styles, is_video, method_names, style_names
from impasto.errors import nearest
from impasto.methods import list_methods
from impasto.stylizers.styles import built_in_styles as cards
from impasto.stylizers.styles import load_style

VIDEO = b"\0\0\0\x18ftypisom\0\0\2\0isomiso2avc1" + bytes(64)


@pytest.fixture
def shell(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Shell:
    monkeypatch.chdir(tmp_path)
    shell = open_shell(tmp_path, make_backbone(tmp_path / "backbone.safetensors"), capsys)
    (tmp_path / "clip.mp4").write_bytes(VIDEO)
    return shell


def run_as_it_is(shell: Shell, words: list[str]) -> Outcome:
    """Run `impasto WORDS...` here, by the method that is named or the default one."""
    shell.capsys.readouterr()
    code = main(words)
    return Outcome(code, *shell.capsys.readouterr())


@pytest.mark.parametrize(
    ("word", "known", "found"),
    [
        ("gattys", ["gatys", "swift"], " (did you mean gatys?)"),
        ("Starry_Night", ["starry-night", "udnie"], " (did you mean starry-night?)"),
        ("scream", ["the-scream", "great-wave"], " (did you mean the-scream?)"),
        ("stary", ["starry-night", "great-wave"], " (did you mean starry-night?)"),
        ("xyz", ["gatys", "swift"], ""),
    ],
)
def test_the_nearest_word(word: str, known: list[str], found: str) -> None:
    assert nearest(word, known) == found


MISTAKES = [
    ("stylize clip.mp4 starry-night", "clip.mp4 is a video: paint it with impasto video clip.mp4"),
    ("stylize photo.png clip.mp4", "clip.mp4 is a video; name a painting"),
    ("video photo.png starry-night", "photo.png is a picture: paint it with impasto stylize photo.png"),
    ("stylize phot.png starry-night", "phot.png can't be opened: No such file or directory (did you mean photo.png?)"),
    ("stylize photo.png stary-night", "there is no style 'stary-night' (did you mean starry-night?)"),
    ("stylize photo.png --style great-waves", "there is no style 'great-waves' (did you mean great-wave?)"),
    ("sweep photo.png sea.png -m swfit --vary strength=0,1", "there is no method 'swfit' (did you mean swift?)"),
    ("stylize photo.png sea.png --strength half", "'half' is no number; write 0.7 or 70%"),
    ("methods wctt", "there is no method 'wctt' (did you mean wct?)"),
    ("styles -m jonson", "there is no method 'jonson' (did you mean johnson?)"),
]


@pytest.mark.parametrize(("line", "message"), MISTAKES)
def test_mistakes_say_what_would_be_right(shell: Shell, line: str, message: str) -> None:
    before = shell.names()
    done = run_as_it_is(shell, line.split())
    assert (done.code, done.out) == (2, "")
    assert message in done.err
    assert shell.names() == before


def test_mistakes_and_lists_need_no_torch(shell: Shell) -> None:
    lines = [line.split() for line, _ in MISTAKES] + [["styles"], ["styles", "--json"]]
    code = f"""
import sys
from impasto.cli.main import main
codes = [main(words) for words in {lines!r}]
print(codes, [m for m in ("torch",) if m in sys.modules], file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    *said, last = done.stderr.splitlines()
    assert last == f"{[2] * len(MISTAKES) + [0, 0]} []"
    for line, (_, message) in zip(said, MISTAKES, strict=True):
        assert message in line
    assert "Vincent van Gogh" in done.stdout


def test_what_is_listed_without_torch_is_what_there_is() -> None:
    assert method_names() == list_methods()
    assert style_names() == list(cards())
    assert built_in_styles() == [{"name": name, **load_style(card).info} for name, card in cards().items()]


@pytest.mark.parametrize(
    ("head", "found"),
    [
        (VIDEO, True),
        (b"\x1aE\xdf\xa3" + bytes(20), True),
        (b"RIFF\0\0\0\0AVI LIST", True),
        (b"RIFF\0\0\0\0WEBPVP8 ", False),
        (b"\0\0\0\x18ftypavif\0\0\0\0avif", False),
        (b"\x89PNG\r\n\x1a\n", False),
        (b"", False),
    ],
)
def test_videos_are_known_by_their_first_bytes(head: bytes, found: bool) -> None:
    assert is_video(head) is found


def test_a_style_by_name_goes_wherever_a_painting_does(shell: Shell) -> None:
    quick = ("--size", "32", "--json", "--dry-run")
    done = shell.run("stylize", "photo.png", "starry-night", "-m", "swift", *quick).good()
    assert done.json["styles"][0]["style"] == "starry-night"
    both = shell.run("stylize", "photo.png", "starry-night", "great-wave", "-m", "swift", *quick).good()
    assert [style["style"] for style in both.json["styles"]] == ["starry-night", "great-wave"]
    shell.run("sweep", "photo.png", "udnie", "-m", "swift", "--vary", "strength=0,1", *quick).good()
    shell.run("batch", "photo.png", "starry-night", "-o", "out", "-m", "swift", "--dry-run", "--size", "32").good()
    assert (
        shell.run("stylize", "photo.png", "sea.png", "-m", "swift", "--strength", "70%", *quick).json["strength"] == 0.7
    )
