"""`impasto batch` with two painters side by side: the same files as by one, an end at Ctrl-C, large photos in turn."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from cli_support import Outcome, Shell, make_backbone, make_picture, open_shell, use_one_thread
from impasto.batch import local_engine
from impasto.images.files import read_image, write_image
from impasto.runs import painting
from impasto.runs.painting import PaintJob

one_thread = pytest.fixture(autouse=True, scope="module")(use_one_thread)
COUNT = 6


@pytest.fixture
def shell(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Shell]:
    """Six photos in photos/, and two threads."""
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    for seed in range(COUNT):
        write_image(make_picture(seed), Path("photos") / f"{seed}.png")
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield open_shell(tmp_path, make_backbone(tmp_path / "backbone.safetensors"), capsys)
    torch.set_num_threads(before)


def batch(shell: Shell, *words: object) -> Outcome:
    return shell.run("batch", *words, "-m", "adain", "--style", "udnie", "--json", "--no-record")


def pixels(folder: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


class Watched:
    """Sees who paints; before: what is done first, each time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, before: Any = lambda: None) -> None:
        self.models: set[int] = set()
        self.threads: set[int] = set()
        self.most = self.now = self.count = 0
        self.lock = threading.Lock()
        monkeypatch.setattr(PaintJob, "paint", self.watched(PaintJob.paint, before))

    def watched(self, paint: Any, before: Any) -> Any:
        """`paint`, seen."""

        def watch(job: PaintJob, *rest: Any) -> torch.Tensor:
            with self.lock:
                self.models.add(id(job.model))
                self.threads.add(torch.get_num_threads())
                self.now += 1
                self.count += 1
                self.most = max(self.most, self.now)
            before()
            time.sleep(0.05)
            try:
                return paint(job, *rest)
            finally:
                with self.lock:
                    self.now -= 1

        return watch


def test_two_painters_make_what_one_makes(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    both = Watched(monkeypatch)
    done = batch(shell, "photos", "-o", "both").good()
    assert (len(both.models), both.threads, both.most) == (2, {1}, 2)
    assert torch.get_num_threads() == 2
    monkeypatch.undo()
    monkeypatch.chdir(shell.folder)
    monkeypatch.setattr(local_engine, "SIDE_BY_SIDE", 1)
    torch.set_num_threads(1)
    single = Watched(monkeypatch)
    batch(shell, "photos", "-o", "single").good()
    assert (len(single.models), single.most) == (1, 1)
    assert pixels("both") == pixels("single")
    message = [json.loads(line) for line in done.out.splitlines()]
    assert sorted(Path(line["output"]).name for line in message[:-1]) == sorted(pixels("both"))
    assert (message[-1]["done"], message[-1]["failed"]) == (COUNT, 0)


def test_a_single_photo_is_painted_as_among_others(shell: Shell) -> None:
    batch(shell, "photos", "-o", "all").good()
    batch(shell, "photos/3.png", "-o", "alone").good()
    assert pixels("alone").items() <= pixels("all").items()


def test_a_bad_photo_fails_alone(shell: Shell) -> None:
    Path("photos/2.png").write_bytes(b"<html>")
    done = batch(shell, "photos", "-o", "out")
    assert done.code == 1
    assert sorted(pixels("out")) == [f"{seed}-udnie.png" for seed in (0, 1, 3, 4, 5)]


def test_ctrl_c_ends_both(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    pressed: list[bool] = []

    def press() -> None:
        if not pressed:
            pressed.append(True)
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    seen = Watched(monkeypatch, press)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell's background jobs lack
    try:
        done = batch(shell, "photos", "-o", "out")
    finally:
        signal.signal(signal.SIGINT, before)
    assert done.code == 130
    assert seen.count < COUNT
    assert len(pixels("out")) == json.loads(done.out.splitlines()[-1])["done"] == seen.count
    assert all(read_image(path).shape == (1, 3, 36, 48) for path in Path("out").iterdir())


def test_large_photos_take_turns_with_all_threads(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(painting, "MOST_FLOATS", 1000)
    seen = Watched(monkeypatch)
    batch(shell, "photos", "-o", "out").good()
    assert (seen.most, seen.threads, seen.count) == (1, {2}, COUNT)
