"""Many photos by many styles: what is made, skipped, reported, and what a kill leaves behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import fsspec
import pytest
import torch

from cli_support import QUICK, Outcome, Shell, by_gatys, make_backbone, make_picture, open_shell, use_one_thread
from impasto.batch.plan import short_names
from impasto.commands import batch as cli_batch_run
from impasto.images.files import read_image, read_metadata, write_image
from impasto.runs.painting import PaintJob

one_thread = pytest.fixture(autouse=True, scope="module")(use_one_thread)
SUMMARY = {
    "status": "summary",
    "done": 0,
    "skipped": 0,
    "failed": 0,
    "left_out": {},
    "interrupted": False,
    "seconds": 0,
}
FLAGS = ("--backbone-weights", "slim.safetensors", *QUICK)


@pytest.fixture(scope="session")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_backbone(tmp_path_factory.mktemp("weights") / "slim.safetensors")


@pytest.fixture
def shell(tmp_path: Path, backbone: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Shell:
    """Two photos in photos/, two paintings in paintings/."""
    monkeypatch.chdir(tmp_path)
    shell = open_shell(tmp_path, backbone, capsys)
    for folder, seeds in (("photos", (4, 5)), ("paintings", (6, 7))):
        Path(folder).mkdir()
        for seed in seeds:
            write_image(make_picture(seed), Path(folder) / f"{seed}.png")
    return shell


def batch(shell: Shell, *words: object) -> Outcome:
    return shell.run("batch", *words, *FLAGS)


def lines(done: Outcome) -> list[dict[str, Any]]:
    return [json.loads(line) for line in done.out.splitlines()]


def results() -> list[str]:
    return sorted(path.name for path in Path("out").iterdir())


# --- what is made


def test_every_photo_by_every_style_as_stylize_would_make_it(shell: Shell) -> None:
    done = batch(shell, "photos", "paintings", "-o", "out").good()
    assert results() == ["4-6.png", "4-7.png", "5-6.png", "5-7.png"]
    assert done.out.splitlines() == [str(Path("out", name)) for name in results()]
    assert "4/4 5-7.png" in done.err
    assert "1/4 4-6.png" in done.err
    assert " left" in done.err
    assert "4 done, 0 skipped, 0 failed" in done.err
    shell.stylize("photos/5.png", "paintings/6.png", "-o", "one.png").good()
    assert torch.equal(read_image("one.png"), read_image("out/5-6.png"))
    again, alone = (json.loads(read_metadata(name)["impasto"]) for name in ("out/5-6.png", "one.png"))
    assert again["content"] == {"file": "5.png"}
    assert {k: v for k, v in again.items() if k not in ("content", "styles")} == {
        k: v for k, v in alone.items() if k not in ("content", "styles")
    }


def test_the_model_is_loaded_once_and_each_style_encoded_once(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    from impasto.batch import painter
    from impasto.methods.gatys import Gatys

    loaded, encoded = [], []
    load, encode = painter.load_model, Gatys.encode_style
    monkeypatch.setattr("impasto.stylizers.base.sample_paintings", list)  # with which cards are compared
    monkeypatch.setattr(painter, "load_model", lambda *a: loaded.append(a) or load(*a))
    monkeypatch.setattr(Gatys, "encode_style", lambda self, image: encoded.append(image) or encode(self, image))
    batch(shell, "photos", "paintings", "-o", "out").good()
    assert (len(loaded), len(encoded)) == (1, 2)


def test_pairs(shell: Shell) -> None:
    batch(shell, "photos", "paintings", "-o", "out", "--pairs").good()
    assert results() == ["4-6.png", "5-7.png"]
    done = batch(shell, "photos", "sea.png", "-o", "out", "--pairs")
    assert (done.code, done.out) == (2, "")
    assert "as many styles as photos, not 1 for 2" in done.err


def test_patterns_several_photos_and_styles_by_name(shell: Shell) -> None:
    shell.run("style", "extract", "sea.png", "-o", "sea.safetensors", "--backbone-weights", "slim.safetensors").good()
    words = ("photos/4.*", "photo.png", "--style", "sea.safetensors", "--style", "paintings", "-o", "out")
    batch(shell, *words).good()
    assert results() == [f"{photo}-{style}.png" for photo in ("4", "photo") for style in ("6", "7", "sea")]


def test_a_recorded_run_brings_its_mixture_of_styles(shell: Shell) -> None:
    shell.stylize("photo.png", "sea.png", "sky.jpg", "--style-weights", "3,1", "--seed", "4", "-o", "mix.png").good()
    shell.run("batch", "photos/4.png", "photo.png", "--recipe", "mix.png", "-o", "out").good()
    assert results() == ["4-sea-sky.png", "photo-sea-sky.png"]
    assert torch.equal(read_image("mix.png"), read_image("out/photo-sea-sky.png"))
    shell.run("batch", "photos", "--style", "paintings/6.png", "--recipe", "mix.png", "-o", "out").good()
    assert {"4-6.png", "5-6.png"} < set(results())


def test_colours_are_kept_masks_apply_and_the_format_is_chosen(shell: Shell) -> None:
    write_image(torch.ones(1, 3, 8, 8), "mask.png")
    words = ("--keep-color", "covariance", "--mask", "mask.png")
    batch(shell, "photos", "sea.png", "-o", "out", "--format", "jpg", *words).good()
    assert results() == ["4-sea.jpg", "4-sea.jpg.json", "5-sea.jpg", "5-sea.jpg.json"]
    shell.stylize("photos/4.png", "sea.png", "-o", "one.jpg", *words).good()
    assert torch.equal(read_image("one.jpg"), read_image("out/4-sea.jpg"))
    batch(shell, "photos", "sea.png", "-o", "bare", "--format", "webp", "--no-record").good()
    assert sorted(path.name for path in Path("bare").iterdir()) == ["4-sea.webp", "5-sea.webp"]


def test_names_that_would_clash_get_longer(shell: Shell) -> None:
    paths = [Path(name) for name in ("a/x.jpg", "a/x.png", "b/y.jpg", "c/y.jpg", "z.jpg")]
    assert list(short_names(paths).values()) == ["z", "x_jpg", "x_png", "b-y", "c-y"]
    write_image(make_picture(1), "4.jpg")
    batch(shell, "photos/4.png", "4.jpg", "sea.png", "-o", "out").good()
    assert [name for name in results() if name.endswith(".png")] == ["4_jpg-sea.png", "4_png-sea.png"]
    for name in ("a-b.png", "b-c.png", "c.png", "a.png"):
        write_image(make_picture(1), name)
    done = batch(shell, "a.png", "a-b.png", "--style", "b-c.png", "--style", "c.png", "-o", "new")
    assert done.code == 2
    assert "would both give a-b-c.png" in done.err


def test_dry_run(shell: Shell) -> None:
    before = shell.names()
    done = batch(shell, "photos", "paintings", "-o", "out", "--dry-run", "--json").good()
    assert [line["status"] for line in lines(done)] == ["planned"] * 4
    assert shell.names() == before


def test_photos_styles_and_results_may_lie_elsewhere(shell: Shell) -> None:
    elsewhere = fsspec.filesystem("memory")
    for folder in ("photos", "paintings"):
        elsewhere.put(folder, "/", recursive=True)
    Path("one").mkdir()
    words = ("memory://photos", "memory://paintings/6.png", "--style", "sea.png", "--format", "jpg")
    batch(shell, words[0], "--style", *words[1:], "-o", "one").good()
    done = batch(shell, words[0], "--style", *words[1:], "-o", "memory://out/new", "--json").good()
    names = [f"{photo}-{style}.jpg" for photo in ("4", "5") for style in ("6", "sea")]
    assert [line.get("output") for line in lines(done)] == [*(f"memory://out/new/{name}" for name in names), None]
    assert sorted(path.rsplit("/", 1)[1] for path in elsewhere.ls("/out/new", detail=False)) == sorted(
        name + end for name in names for end in ("", ".json")
    )
    for name in names:
        assert elsewhere.cat(f"/out/new/{name}") == Path("one", name).read_bytes()
    record = json.loads(elsewhere.cat("/out/new/4-sea.jpg.json"))
    assert record["content"] == {"file": "4.png"}
    assert record["styles"] == [{"file": "sea.png"}]
    elsewhere.rm_file("/out/new/4-6.jpg.json")
    elsewhere.pipe_file("/photos/5.png", b"<html>")
    done = batch(shell, words[0], "--style", *words[1:], "-o", "memory://out/new", "--json").good()
    assert lines(done)[-1] | {"seconds": 0} == SUMMARY | {"done": 1, "skipped": 3}
    done = batch(shell, words[0], "sea.png", "-o", "memory://out/other", "--json")
    (failed,) = [line for line in lines(done) if line["status"] == "failed"]
    assert failed["error"].startswith("memory:///photos/5.png is a web page")
    elsewhere.store.clear()


# --- what is there, what fails


def test_what_is_there_is_skipped(shell: Shell) -> None:
    Path("out").mkdir()
    Path("out/4-sea.png").write_bytes(b"mine")
    done = batch(shell, "photos", "sea.png", "-o", "out", "--json").good()
    assert [line["status"] for line in lines(done)] == ["skipped", "done", "summary"]
    assert Path("out/4-sea.png").read_bytes() == b"mine"
    batch(shell, "photos", "sea.png", "-o", "out", "--force").good()
    assert read_image("out/4-sea.png").shape == (1, 3, 36, 48)


def test_a_picture_without_its_record_is_made_again(shell: Shell) -> None:
    batch(shell, "photos", "sea.png", "-o", "out", "--format", "jpg").good()
    Path("out/5-sea.jpg.json").unlink()
    done = batch(shell, "photos", "sea.png", "-o", "out", "--format", "jpg", "--json").good()
    assert lines(done)[-1]["done"] == 1
    assert Path("out/5-sea.jpg.json").is_file()


def test_bad_files_are_reported_and_the_others_made(shell: Shell) -> None:
    Path("photos/0.jpg").write_bytes(b"<html>")
    Path("paintings/8.png").write_bytes(Path("paintings/7.png").read_bytes()[:60])
    done = batch(shell, "photos", "paintings", "-o", "out", "--json")
    assert done.code == 1
    assert results() == ["4-6.png", "4-7.png", "5-6.png", "5-7.png"]
    failed = {line["output"]: line["error"] for line in lines(done) if line["status"] == "failed"}
    assert set(failed) == {str(Path("out", f"{pair}.png")) for pair in ("0-6", "0-7", "0-8", "4-8", "5-8")}
    assert "web page" in failed[str(Path("out/0-6.png"))]
    assert "damaged" in failed[str(Path("out/4-8.png"))]
    assert lines(done)[-1]["failed"] == 5
    assert "warning: 4 done, 0 skipped, 5 failed" in done.err


def test_a_fault_of_ours_and_lacking_memory_stop_nothing(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    paint, errors = PaintJob.paint, [MemoryError(), ValueError("odd\nthing")]

    def fail(job: PaintJob, *rest: Any) -> torch.Tensor:
        if errors:
            raise errors.pop()
        return paint(job, *rest)

    monkeypatch.setattr(PaintJob, "paint", fail)
    done = batch(shell, "photos", "paintings", "-o", "out")
    assert done.code == 1
    assert "this should not have happened: ValueError: odd thing" in done.err
    assert "try a smaller --size" in done.err
    assert results() == ["5-6.png", "5-7.png"]


def test_a_result_that_cant_be_written_is_reported(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("out/4-sea.png").mkdir(parents=True)
    done = batch(shell, "photos", "sea.png", "-o", "out", "--force")
    assert done.code == 1
    assert "4-sea.png is a folder" in done.err
    assert read_image("out/5-sea.png").shape == (1, 3, 36, 48)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "name a folder"),
        (["photos", "sea.png"], "name a folder"),
        (["photos", "-o", "out"], "name photos and styles"),
        (["-o", "out", "--style", "sea.png"], "name photos and styles"),
        (["nowhere", "sea.png", "-o", "out"], "nowhere does not exist"),
        (["photos", "nowhere", "-o", "out"], "there is no style 'nowhere'"),
        (["photos/*.gif", "sea.png", "-o", "out"], "there is no picture in"),
        (["photos", "*.bmp", "-o", "out"], "no painting and no style card in"),
        (["photos", "sea.png", "-o", "photos"], "photos holds the photos"),
        (["photos", "sea.png", "-o", "sea.png"], "sea.png is a file"),
        (["photos", "sea.png", "-o", "sea.png/out"], "can't be made"),
        (["photos", "sea.png", "-o", "out", "--format", "gif"], "--format is one of png"),
        (["photos", "paintings", "-o", "out", "--pairs", "--watch"], "not with --pairs"),
        (["memory://none", "sea.png", "-o", "out"], "memory://none does not exist"),
        (["memory://out", "sea.png", "-o", "memory://out"], "memory://out holds the photos"),
        (["memory://photos", "sea.png", "-o", "out", "--watch"], "not at URLs"),
        (["photos", "sea.png", "-o", "out", "--stepps", "3"], "did you mean --steps"),
        (["photos", "-o", "out", "--recipe", "photo.png"], "holds no run record"),
        (["photos", "slim.safetensors", "-o", "out", "--keep-color", "histogram"], "recolours the painting"),
    ],
)
def test_mistakes(shell: Shell, words: list[str], message: str) -> None:
    before = shell.names()
    done = batch(shell, *words)
    assert (done.code, done.out) == (2, "")
    assert message in done.err.splitlines()[-1]
    assert shell.names() == before


# --- interruptions


def test_ctrl_c_keeps_what_is_done(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    paint, painted = PaintJob.paint, []

    def press(job: PaintJob, *rest: Any) -> torch.Tensor:
        if painted:
            raise KeyboardInterrupt
        painted.append(job)
        return paint(job, *rest)

    monkeypatch.setattr(PaintJob, "paint", press)
    done = batch(shell, "photos", "paintings", "-o", "out", "--json")
    assert done.code == 130
    assert results() == ["4-6.png"]
    assert lines(done)[-1] | {"seconds": 0} == SUMMARY | {"done": 1, "interrupted": True}


def test_after_a_kill_nothing_is_lost_or_half_written(shell: Shell) -> None:
    for seed in range(10, 14):
        write_image(make_picture(seed), f"photos/{seed}.png")
    words = ["batch", "photos", "paintings", "-o", "out", *FLAGS]
    process = subprocess.Popen(
        [sys.executable, "-m", "impasto", *by_gatys(words)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 300
    while not (Path("out").is_dir() and len(results()) >= 3) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait(60) == -signal.SIGKILL
    there = {path: path.stat().st_mtime_ns for path in Path("out").glob("*.png") if not path.name.startswith(".")}
    assert 2 <= len(there) < 12
    for path in there:
        assert read_image(path).shape == (1, 3, 36, 48)
        assert json.loads(read_metadata(path)["impasto"])["method"] == "gatys"
    Path("out/.impasto-0123456789abcdef.tmp").write_bytes(b"half")
    batch(shell, "photos", "paintings", "-o", "out").good()
    assert len(results()) == 12
    assert all(path.stat().st_mtime_ns == time for path, time in there.items())
    shell.stylize("photos/10.png", "paintings/7.png", "-o", "one.png").good()
    assert torch.equal(read_image("one.png"), read_image("out/10-7.png"))


def test_a_folder_that_another_run_holds_is_not_cleared(shell: Shell) -> None:
    fcntl = pytest.importorskip("fcntl")
    Path("out").mkdir()
    half = Path("out/.impasto-0123456789abcdef.tmp")
    half.write_bytes(b"half")
    handle = os.open("out", os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_SH)
    batch(shell, "photos/4.png", "sea.png", "-o", "out").good()
    assert half.exists()
    os.close(handle)
    batch(shell, "photos/4.png", "sea.png", "-o", "out").good()
    assert not half.exists()


def test_a_folder_is_watched(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """A photo that comes later is painted once it is whole; one that fails is tried again when it has changed."""
    write_image(make_picture(9), "late.png")
    whole = Path("late.png").read_bytes()
    script = [lambda: Path("photos/9.png").write_bytes(whole[:100]), None, None, None]
    script += [lambda: Path("photos/9.png").write_bytes(whole), None, None]

    def pause(seconds: float) -> None:
        if not script:
            raise KeyboardInterrupt
        act = script.pop(0)
        if act:
            act()

    monkeypatch.setattr(cli_batch_run.time, "sleep", pause)
    done = batch(shell, "photos", "sea.png", "-o", "out", "--watch", "--json")
    assert threading.active_count() < 20
    assert done.code == 1
    assert results() == ["4-sea.png", "5-sea.png", "9-sea.png"]
    assert [line["status"] for line in lines(done)] == ["done", "done", "failed", "done", "summary"]
    assert not lines(done)[-1]["interrupted"]
