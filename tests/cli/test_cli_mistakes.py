"""Mistakes on the command line: one line, exit code 2, nothing written."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from cli_support import QUICK, Shell, make_backbone, open_shell, use_one_thread
from impasto.commands import stylize
from impasto.images.files import read_image
from impasto.methods import find_method
from impasto.weights import save_weights

one_thread = pytest.fixture(autouse=True, scope="module")(use_one_thread)


@pytest.fixture(scope="session")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_backbone(tmp_path_factory.mktemp("weights") / "slim.safetensors")


@pytest.fixture
def shell(tmp_path: Path, backbone: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Shell:
    monkeypatch.chdir(tmp_path)
    return open_shell(tmp_path, backbone, capsys)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "name a photo and a painting"),
        (["photo.png"], "name a painting"),
        (["none.png", "sea.png"], r"none\.png can't be opened: No such file"),
        (["photo.png", "none.png"], r"none\.png can't be opened: No such file"),
        ([".", "sea.png"], "is a folder"),
        (["text.png", "sea.png"], "damaged or no picture"),
        (["cut.png", "sea.png"], "damaged or incomplete"),
        (["photo.png", "sea.png", "--style-wieght", "3"], "no option --style-wieght.*did you mean --style-weight"),
        (["photo.png", "sea.png", "--quite"], "did you mean --quiet"),
        (["photo.png", "sea.png", "--zzzzz"], "no option --zzzzz; see `impasto methods gatys`"),
        (["photo.png", "sea.png", "-x"], "no option -x"),
        (["photo.png", "sea.png", "-m", "adain", "--content-weight", "2"], "but gatys.* ha(s|ve): add -m gatys"),
        (["photo.png", "sea.png", "--no-clamp=yes"], "--no-clamp takes no value"),
        (["photo.png", "sea.png", "--tv-weight"], "--tv-weight needs a value"),
        (["photo.png", "sea.png", "--tv-weight", "--clamp"], "--tv-weight needs a value"),
        (["photo.png", "sea.png", "--tv-weight", "much"], "tv-weight must be a number, not 'much'"),
        (["photo.png", "sea.png", "--tv-weight", "-1"], "tv-weight must be at least 0"),
        (["photo.png", "sea.png", "--tv-weight", "nan"], "tv-weight must be a finite number"),
        (["photo.png", "sea.png", "--content-layers", "relu9_9"], "no layer 'relu9_9'.*; it has: .*relu4_1"),
        (["photo.png", "sea.png", "-m", "oil"], "no method 'oil'; there are: .*gatys"),
        (["photo.png", "sea.png", "--preset", "oil"], "no preset 'oil'; it has: default"),
        (["photo.png", "--style", "oil"], "no style 'oil'"),
        (["photo.png", "sea.png", "--keep-color", "oil"], "off, luminance, lab, histogram, covariance, not 'oil'"),
        (["photo.png", "sea.png", "--strength", "1.5"], "'1.5' is not from 0 to 1"),
        (["photo.png", "sea.png", "--strength", "nan"], "'nan' is not from 0 to 1"),
        (["photo.png", "sea.png", "--strength", "much"], "Invalid value for '--strength'"),
        (["photo.png", "sea.png", "--seed", "-1"], "seed must be at least 0"),
        (["photo.png", "sea.png", "--style-size", "3"], "style-size must be at least 16"),
        (["photo.png", "sea.png", "--size", "huge"], "size 'huge' is not understood"),
        (["photo.png", "sea.png", "--size", "8"], "too small"),
        (["photo.png", "sea.png", "--size", "20000x20000"], "more than 200 megapixels"),
        (["photo.png", "sea.png", "--device", "abacus"], "--device is one of auto, cpu, cuda, mps, not 'abacus'"),
        (["photo.png", "sea.png", "--style-weights", "1,2"], "one style needs one weight, not 2"),
        (["photo.png", "sea.png", "--style-weights", "a"], "--style-weights takes numbers, such as 2,1"),
        (["photo.png", "sea.png", "--style-weights", "0"], "not all 0"),
        (["photo.png", "sea.png", *["--mask", "sea.png"] * 2], "one style needs one mask, not 2"),
        (["photo.png", "sea.png", "--mask", "none.png"], r"none\.png can't be opened"),
        (["photo.png", "sea.png", "-o", "out.gif"], r"out\.gif: the name must end in one of \.png"),
        (["photo.png", "sea.png", "-o", "."], "the name must end|is a folder"),
        (["photo.png", "sea.png", "-o", "taken.png"], r"taken\.png exists already; use --force"),
        (["photo.png", "sea.png", "-o", "new.jpg"], r"new\.jpg\.json exists already"),
        (["photo.png", "sea.png", "-o", "none/out.png"], "the folder none does not exist"),
        (["photo.png", "sea.png", "--preview", "sea.png"], r"sea\.png exists already"),
        (["photo.png", "foreign.safetensors"], "holds moments/other, but gatys needs moments/vgg19-slim"),
        (["photo.png", "cut.safetensors"], r"cut\.safetensors is no readable safetensors file"),
        (["photo.png", "slim.safetensors"], "is no style card"),
        (["photo.png", "foreign.safetensors", "--keep-color", "histogram"], "use luminance or lab"),
        (["photo.png", "sea.png", "--backbone-weights", "nan.safetensors"], "holds NaN or infinity"),
        (["photo.png", "sea.png", "--backbone-weights", "cut.safetensors"], "no readable safetensors file"),
        (["photo.png", "sea.png", "--backbone-weights", "foreign.safetensors"], "does not hold this network"),
        (["photo.png", "sea.png", "--backbone-weights", "none.safetensors"], "does not exist"),
        (["photo.png", "sea.png", "--recipe", "none.json"], r"none\.json can't be opened"),
    ],
)
def test_mistakes(shell: Shell, words: list[str], message: str) -> None:
    Path("text.png").write_text("this is no picture")
    Path("cut.png").write_bytes(Path("photo.png").read_bytes()[:2000])
    Path("taken.png").write_bytes(b"mine")
    Path("new.jpg.json").write_bytes(b"mine")
    Path("cut.safetensors").write_bytes(Path("slim.safetensors").read_bytes()[:5000])
    Path("nan.safetensors").write_bytes(_nan_file())
    save_weights({"relu1_1.mean": torch.zeros(3)}, "foreign.safetensors", {"style": "moments/other"})
    before = shell.names()
    weights = [] if "--backbone-weights" in words else ["--backbone-weights", "slim.safetensors"]
    done = shell.run("stylize", *QUICK, *weights, *words)
    assert (done.code, done.out) == (2, ""), done.err
    assert len(done.err.splitlines()) == 1
    assert done.err.startswith("error: ")
    assert re.search(message, done.err), done.err
    assert shell.names() == before
    assert Path("taken.png").read_bytes() == b"mine"


def _nan_file() -> bytes:
    from safetensors.torch import save

    return save({"steps.conv1_1.weight": torch.full((16, 3, 3, 3), torch.nan)})


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a folder in which not even root can write")
def test_an_unwritable_folder_is_reported_before_the_work(shell: Shell) -> None:
    done = shell.stylize("photo.png", "sea.png", "-o", "/proc/out.png")
    assert done.code == 2
    assert re.fullmatch(r"error: /proc/out\.png can't be written: .*; write it elsewhere with -o\n", done.err)


def test_force_overwrites(shell: Shell) -> None:
    Path("photo-sea.png").write_bytes(b"old")
    assert shell.stylize("photo.png", "sea.png", "-o", "photo-sea.png").code == 2
    assert shell.stylize("photo.png", "sea.png", "--force").good().out == "photo-sea.png\n"
    assert read_image("photo-sea.png").shape == (1, 3, 36, 48)


def test_not_finite_is_never_written(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: object, content: Tensor, *styles: object, **more: object) -> Tensor:
        return content * torch.nan

    monkeypatch.setattr(find_method("gatys"), "paint_tensor", fail)
    done = shell.stylize("photo.png", "sea.png")
    assert done.code == 2
    assert "not finite" in done.err
    assert "photo-sea.png" not in shell.names()


@pytest.mark.parametrize("debug", [False, True])
def test_a_fault_of_ours(shell: Shell, monkeypatch: pytest.MonkeyPatch, debug: bool) -> None:
    def fail(*words: object) -> None:
        raise ZeroDivisionError("two\nlines")

    monkeypatch.setattr(stylize, "read_inputs", fail)
    monkeypatch.setenv("IMPASTO_DEBUG", "1" if debug else "")
    done = shell.stylize("photo.png", "sea.png")
    assert (done.code, done.out) == (1, "")
    assert "error: this should not have happened: ZeroDivisionError: two lines\n" in done.err
    assert "Please report it" in done.err
    assert ("Traceback" in done.err) is debug


def test_too_little_memory(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*words: object) -> None:
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")

    monkeypatch.setattr(stylize, "read_inputs", fail)
    done = shell.stylize("photo.png", "sea.png")
    assert (done.code, done.err) == (2, "error: not enough memory for this: try a smaller --size\n")


@pytest.mark.parametrize("words", [["stylise"], ["style", "extrakt"], ["--nothing"], ["methods", "oil"]])
def test_mistaken_commands(shell: Shell, words: list[str]) -> None:
    done = shell.run(*words)
    assert done.code == 2
    assert "Traceback" not in done.err


def test_urls_are_for_batch_and_pipes(shell: Shell) -> None:
    done = shell.run("stylize", "https://example.org/a.png", "sea.png")
    assert (done.code, done.out) == (2, "")
    assert "https://example.org/a.png is a URL; fetch it first, as in curl -L" in done.err


def test_batch_says_why_there_is_nothing_to_paint(shell: Shell) -> None:
    done = shell.run("batch", "photo.png", "sea.png", "-o", ".")
    assert done.code == 2
    assert "photo.png lies in ., where results go and are not painted again" in done.err
    Path("texts").mkdir()
    Path("texts/a.txt").touch()
    Path("texts/.b.png").touch()
    done = shell.run("batch", "texts", "sea.png", "-o", "out")
    assert done.code == 2
    assert "there is no picture in texts (1 .txt, 1 hidden)" in done.err or "(1 hidden, 1 .txt)" in done.err


def test_a_title_cannot_command_the_terminal(shell: Shell) -> None:
    info = {"title": "\x1b]0;mine\x07", "artist": "\u202egnp"}
    save_weights({"relu1_1.mean": torch.zeros(3)}, "odd.safetensors", {"style": "moments/\x1b[31m", "info": info})
    for words in (("style", "show", "odd.safetensors"), ("stylize", "photo.png", "odd.safetensors", "-m", "gatys")):
        done = shell.run(*words)
        assert not any(character in done.out + done.err for character in "\x1b\x07\u202e")
        assert "\\x1b" in done.out + done.err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has a device that is always full")
def test_a_full_standard_output(shell: Shell) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with open("/dev/full", "wb") as full:
        words = [sys.executable, "-m", "impasto", "methods"]
        done = subprocess.run(words, stdout=full, stderr=subprocess.PIPE, env=environment, text=True, check=False)
    assert done.returncode == 2
    assert "standard output can't be written (No space left on device)" in done.stderr
    assert len(done.stderr.splitlines()) == 1


class _Pipe(io.BytesIO):
    """Standard input or output as a pipe."""

    @property
    def buffer(self) -> io.BytesIO:
        return self

    def write(self, data: Any) -> int:
        return super().write(data if isinstance(data, bytes | bytearray | memoryview) else data.encode())


def test_pictures_through_pipes(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    shell.stylize("photo.png", "sea.png", "-o", "a.png", "--no-record").good()
    names = shell.names()
    sent = _Pipe()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdin", _Pipe(Path("photo.png").read_bytes()))
        patch.setattr(sys, "stdout", sent)
        shell.stylize("-", "sea.png", "--no-record").good()
    assert sent.getvalue() == Path("a.png").read_bytes()
    assert shell.names() == names
    for data, message in ((b"", "standard input is empty"), (b"hello", "damaged or no picture")):
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdin", _Pipe(data))
            done = shell.stylize("-", "sea.png", "-o", "b.png")
        assert (done.code, done.out) == (2, "")
        assert message in done.err
    done = shell.stylize("-", "-", "-o", "b.png")
    assert "holds one picture" in done.err


def test_a_system_that_refuses_is_reported_in_a_line(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device", "work/state")

    monkeypatch.setattr(stylize, "paint_file", refuse)
    done = shell.stylize("photo.png", "sea.png")
    assert (done.code, done.out) == (2, "")
    assert done.err == "error: work/state can't be read or written: No space left on device; " + (
        "check the disk and its permissions\n"
    )


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="Linux has a folder in which nobody can write")
def test_folders_are_proven_before_the_work(shell: Shell) -> None:
    Path("photos").mkdir()
    Path("photo.png").rename("photos/photo.png")
    words = ("--content", "photos", "--style", "sea.png", "--steps", "1", "--crop", "32")
    done = shell.run("train", "johnson", *words, "-o", "/proc/none/x")
    assert (done.code, done.out) == (2, "")
    assert "error: /proc can't be written: " in done.err.splitlines()[-1]
    assert "Please report" not in done.err


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
def test_links_in_a_circle(shell: Shell) -> None:
    Path("circle").symlink_to("circle")
    for words in (["batch", "circle", "--style", "sea.png", "-o", "out"], ["stylize", "circle", "sea.png"]):
        failed = shell.run(*words)
        assert (failed.code, failed.err.count("\n")) == (2, 1)
        assert "circle" in failed.err


@pytest.mark.skipif(sys.platform == "win32", reason="a folder in use can't be removed there")
def test_a_folder_that_is_gone(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("gone").mkdir()
    with monkeypatch.context() as patch:
        patch.chdir("gone")
        (shell.folder / "gone").rmdir()
        failed = shell.run("batch", "photos", "--style", "udnie", "-o", "out")
    assert (failed.code, failed.err) == (2, "error: the current folder is gone; change to another one\n")


@pytest.mark.parametrize("words", [["", "sea.png"], ["photo.png", ""]])
def test_an_empty_name(shell: Shell, words: list[str]) -> None:
    failed = shell.run("stylize", *words)
    assert (failed.code, failed.err.count("\n")) == (2, 1)
    assert "a name is empty" in failed.err
