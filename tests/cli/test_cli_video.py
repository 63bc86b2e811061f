"""A video painted frame by frame: what is kept, smoothed, resumed and reported."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from cli_support import Outcome, Shell, open_shell, use_one_thread
from clips import moving_shapes, pan, sound_of, write_clip
from impasto.commands import video as cli_video_run
from impasto.feedforward.tiled_run import Tiling
from impasto.images.files import read_image, write_image
from impasto.images.flow import has_flow
from impasto.images.video import Frame, probe_video, read_frames, write_video
from impasto.networks.backbone import SLIM_WIDTHS
from impasto.runs.painting import PaintJob
from impasto.stylizers import one_pass
from impasto.weights import save_weights
from tiny import painting, tiny_adain

one_thread = pytest.fixture(autouse=True, scope="module")(use_one_thread)
FLAGS = ("-m", "adain", "--weights", "adain.safetensors", "--precision", "fp32")


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "adain.safetensors"
    config = {"widths": SLIM_WIDTHS[:4], "levels": [4, 3, 2, 1]}
    torch.manual_seed(11)
    save_weights(tiny_adain().decoder.state_dict(), path, config)
    return path


@pytest.fixture
def shell(tmp_path: Path, weights: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Shell:
    """A clip of eight frames with sound, and a painting."""
    monkeypatch.chdir(tmp_path)
    shell = open_shell(tmp_path, weights, capsys)
    Path("slim.safetensors").rename("adain.safetensors")
    write_clip(pan(painting(48, 96), 8, 48, 64), tmp_path / "clip.mp4", sound=True)
    return shell


def video(shell: Shell, *words: object) -> Outcome:
    return shell.run("video", *words, *FLAGS)


def frames(path: str) -> list[Tensor]:
    return [frame.image for frame in read_frames(Path(path))]


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[Tensor]]:
    """The frames that went into each video, before colour is stored at half the size."""
    given: dict[str, list[Tensor]] = {}

    def write(results: Iterable[Tensor], times: Sequence[Frame], source: Path, target: Path, *rest: Any) -> None:
        given[target.name] = list(results)
        write_video(given[target.name], times, source, target, *rest)

    monkeypatch.setattr(cli_video_run, "write_video", write)
    return given


def are_the_same(first: Sequence[Tensor], second: Sequence[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_a_video_keeps_sound_times_and_size(shell: Shell) -> None:
    done = video(shell, "clip.mp4", "sea.png", "-o", "out.mp4", "--strip", "strip.png").good()
    assert done.out == "out.mp4\n"
    assert "8/8 frames" in done.err
    assert probe_video(Path("out.mp4")) == probe_video(Path("clip.mp4"))
    assert sound_of(Path("out.mp4")) == sound_of(Path("clip.mp4"))
    assert {path.name for path in Path().iterdir() if path.name.startswith(".")} == set()
    record = json.loads(Path("out.mp4.json").read_text())
    assert (record["method"], record["smooth"], record["flow"]) == ("adain", 0.9, 0.22 if has_flow() else 0.0)
    strip = read_image("strip.png")
    assert strip.shape[-1] > 6 * 200
    for before, after in zip(frames("clip.mp4"), frames("out.mp4"), strict=True):
        assert before.shape == after.shape
        assert (before - after).abs().mean() > 0.02


def test_a_runtime_is_named_as_for_photos(shell: Shell) -> None:
    done = video(shell, "clip.mp4", "sea.png", "--runtime", "magic")
    assert (done.code, "not 'magic'" in done.err) == (2, True)
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    words = ("clip.mp4", "sea.png", "-o", "out.mp4", "--flow", "0", "--json")
    assert video(shell, *words, "--runtime", "onnxruntime", "--dry-run").good().json["runtime"] == "onnxruntime"
    assert video(shell, *words, "--runtime", "onnxruntime").good().json["runtime"] == "onnxruntime"


def test_without_smoothing_it_is_stylize_frame_by_frame(shell: Shell) -> None:
    video(shell, "clip.mp4", "sea.png", "-o", "out.mkv", "--smooth", "0", "--flow", "0", "--no-record").good()
    assert not Path("out.mkv.json").exists()
    write_image(frames("clip.mp4")[5], "frame.png")
    shell.run("stylize", "frame.png", "sea.png", "-o", "one.png", *FLAGS).good()
    assert (frames("out.mkv")[5] - read_image("one.png")).abs().mean() < 0.06  # colour is stored at half the size


def test_frames_in_tiles_are_smoothed_as_in_one_piece(
    shell: Shell, encoded: dict[str, list[Tensor]], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("clip.mp4", "sea.png", "--flow", "0", "--smooth")
    video(shell, *words, "0.9", "-o", "whole.mp4").good()
    video(shell, *words, "0", "-o", "single.mp4").good()
    monkeypatch.setattr(one_pass, "choose_tiling", lambda *_, **__: Tiling(32))
    cut, paint = [], PaintJob.paint_floats

    def note(job: PaintJob, *rest: object) -> Tensor:
        image = paint(job, *rest)
        cut.append(job.model.cut)
        return image

    monkeypatch.setattr(PaintJob, "paint_floats", note)
    video(shell, *words, "0.9", "-o", "tiles.mp4").good()
    assert cut == [Tiling(32)] * 8
    for whole, tiles, single in zip(*(encoded[f"{name}.mp4"] for name in ("whole", "tiles", "single")), strict=True):
        assert (tiles - whole).abs().max() <= 2 / 255 + 1e-6
        assert (single - whole).abs().max() > 4 / 255 or whole is encoded["whole.mp4"][0]


def test_a_record_is_replayed(shell: Shell, encoded: dict[str, list[Tensor]]) -> None:
    video(shell, "clip.mp4", "sea.png", "-o", "a.mp4", "--smooth", "0.5", "--strength", "0.6").good()
    done = shell.run("video", "--recipe", "a.mp4.json", "-o", "b.mp4", "--json").good()
    assert (done.json["smooth"], done.json["strength"], done.json["frames"]) == (0.5, 0.6, 8)
    assert are_the_same(encoded["a.mp4"], encoded["b.mp4"])


def test_the_style_is_encoded_once(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    from impasto.methods.adain import AdaIN

    encoded, encode = [], AdaIN.encode_style
    monkeypatch.setattr(AdaIN, "encode_style", lambda self, image: encoded.append(image) or encode(self, image))
    video(shell, "clip.mp4", "sea.png", "-o", "out.mp4").good()
    assert len(encoded) == 1


@pytest.mark.parametrize("flow", [["--flow", "0"], ["--flow", "0.5"]])
def test_an_interrupted_run_goes_on_to_the_same_video(
    shell: Shell, encoded: dict[str, list[Tensor]], monkeypatch: pytest.MonkeyPatch, flow: list[str]
) -> None:
    if flow[1] != "0":
        pytest.importorskip("cv2")
    video(shell, "clip.mp4", "sea.png", "-o", "whole.mp4", *flow).good()
    paint, painted = PaintJob.paint_floats, []

    def press(job: PaintJob, *rest: object) -> Tensor:
        painted.append(job)
        if len(painted) == 6:
            raise KeyboardInterrupt
        return paint(job, *rest)

    monkeypatch.setattr(PaintJob, "paint_floats", press)
    done = video(shell, "clip.mp4", "sea.png", "-o", "out.mp4", *flow)
    assert done.code == 130
    assert not Path("out.mp4").exists()
    assert "goes on" in done.err
    refused = video(shell, "clip.mp4", "sea.png", "-o", "out.mp4", "--strength", "0.5", *flow)
    assert refused.code == 2
    assert "other options" in refused.err
    done = video(shell, "clip.mp4", "sea.png", "-o", "out.mp4", *flow).good()
    assert "5 frames are there already" in done.err
    assert len(painted) == 6 + 3
    assert are_the_same(encoded["whole.mp4"], encoded["out.mp4"])
    assert len(frames("out.mp4")) == 8


def test_after_a_kill_it_goes_on(shell: Shell) -> None:
    write_clip(pan(painting(48, 160), 40, 48, 64), Path("long.mp4"))
    words = [sys.executable, "-m", "impasto", "video", "long.mp4", "sea.png", "-o", "out.mp4", *FLAGS]
    process = subprocess.Popen(words, env={**os.environ, "OMP_NUM_THREADS": "1"}, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 100
    while len(list(Path(".out.mp4.frames").glob("0*.png"))) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait(60) == -signal.SIGKILL
    assert not Path("out.mp4").exists()
    done = video(shell, "long.mp4", "sea.png", "-o", "out.mp4").good()
    assert "frames are there already" in done.err
    assert len(frames("out.mp4")) == 40
    assert not Path(".out.mp4.frames").exists()


def test_a_report(shell: Shell) -> None:
    pytest.importorskip("cv2")
    write_clip(moving_shapes(5, 64, 96), Path("shapes.mp4"))
    words = ("--flow", "0.6", "--report", "report.json", "--json")
    done = video(shell, "shapes.mp4", "sea.png", "-o", "out.mp4", *words).good()
    message = json.loads(Path("report.json").read_text())
    assert message == done.json["report"]
    assert 0 < message["smoothed"]["warping_error"] < message["each frame by itself"]["warping_error"]
    ratio = message["smoothed"]["style_loss"] / message["each frame by itself"]["style_loss"]
    assert message["more_style_loss"] == pytest.approx(ratio - 1, abs=1e-4)
    assert message["less_flicker"] > 0.1


def test_gatys_starts_each_frame_from_the_last(shell: Shell) -> None:
    pytest.importorskip("cv2")
    words = ("-m", "gatys", "--steps", "2", "--octaves", "1", "--least-side", "16", "--coarse-steps", "1")
    write_clip(pan(painting(48, 96), 2, 48, 64), Path("short.mp4"))
    shell.run("video", "short.mp4", "sea.png", "-o", "out.mp4", "--flow", "0.5", *words).good()
    assert len(frames("out.mp4")) == 2


QUICK = ("-m", "gatys", "--steps", "2", "--octaves", "0")


def test_gatys_is_held_near_the_last_result(shell: Shell, encoded: dict[str, list[Tensor]]) -> None:
    pytest.importorskip("cv2")
    write_clip(pan(painting(32, 64), 3, 32, 48), Path("short.mp4"))
    words = ("video", "short.mp4", "sea.png", *QUICK, "--flow", "0", "--temporal-weight")
    for weight in ("0", "1e5"):
        shell.run(*words, weight, "-o", f"{weight}.mp4").good()
    free, held = encoded["0.mp4"], encoded["1e5.mp4"]
    assert torch.equal(free[0], held[0])
    assert not torch.equal(free[1], held[1])
    assert json.loads(Path("1e5.mp4.json").read_text())["temporal_weight"] == 1e5
    shell.run("video", "--recipe", "1e5.mp4.json", "-o", "again.mp4").good()
    assert are_the_same(encoded["again.mp4"], held)
    other = video(shell, "--recipe", "1e5.mp4.json", "-o", "other.mp4", "--json", "--dry-run").good()
    assert "temporal_weight" not in other.json


@pytest.mark.parametrize(
    ("words", "weight"),
    [
        ((), cli_video_run.TEMPORAL),
        (("--flow", "0"), 0),
        (("--flow", "0", "--temporal-weight", "3"), 3),
        (("--preset", "gatys", "--backbone", "vgg19-slim", "--content-layers", "relu4_1"), 0),
    ],
)
def test_the_default_of_the_temporal_weight(shell: Shell, words: tuple[str, ...], weight: float) -> None:
    pytest.importorskip("cv2")
    done = shell.run("video", "clip.mp4", "sea.png", "-o", "out.mp4", *QUICK, *words, "--json", "--dry-run").good()
    assert done.json["temporal_weight"] == weight


def test_without_opencv_there_is_no_flow(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    done = video(shell, "clip.mp4", "sea.png", "-o", "out.mp4", "--json", "--dry-run").good()
    assert done.json["flow"] == 0
    assert "impasto[flow]" in done.err
    done = shell.run("video", "clip.mp4", "sea.png", "-o", "out.mp4", *QUICK, "--json", "--dry-run").good()
    assert (done.json["flow"], done.json["temporal_weight"]) == (0, 0)
    held = (*QUICK, "--temporal-weight", "5")
    for words in ((*FLAGS, "--flow", "0.5"), (*FLAGS, "--report", "r.json"), held):
        done = shell.run("video", "clip.mp4", "sea.png", "-o", "out.mp4", *words)
        assert (done.code, done.out) == (2, "")
        assert "impasto[flow]" in done.err


def test_frames_get_smaller_until_they_fit_into_memory(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    paint = PaintJob.paint_floats

    def lack(job: PaintJob, *rest: object) -> Tensor:
        if max(job.size) > 44:
            raise MemoryError
        return paint(job, *rest)

    monkeypatch.setattr(PaintJob, "paint_floats", lack)
    monkeypatch.setattr(cli_video_run, "limit_memory", lambda *_: None)
    write_clip(pan(painting(48, 96), 2, 48, 64), Path("short.mp4"))
    done = video(shell, "short.mp4", "sea.png", "-o", "out.mp4", "--max-memory", "1", "--json").good()
    assert "64x48 does not fit into memory: working at 40x30" in done.err
    assert (done.json["size"], frames("out.mp4")[0].shape[-2:]) == ("40x30", (30, 40))

    def lack_all(job: PaintJob, *rest: object) -> Tensor:
        raise MemoryError

    monkeypatch.setattr(PaintJob, "paint_floats", lack_all)
    done = video(shell, "clip.mp4", "sea.png", "-o", "new.mp4", "--max-memory", "1")
    assert done.code == 2
    assert "raise --max-memory" in done.err


def test_the_memory_of_a_process_is_bounded() -> None:
    pytest.importorskip("resource")
    code = """
import torch
from impasto.commands.video_memory import limit_memory
from impasto.errors import is_out_of_memory
torch.ones(300_000_000, dtype=torch.uint8)
limit_memory(1.5, torch.device("cpu"))
try:
    torch.ones(2_000_000_000, dtype=torch.uint8)
except Exception as error:
    print(is_out_of_memory(error))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout == "True\n", done.stderr


def test_dry_run(shell: Shell) -> None:
    before = shell.names()
    done = video(shell, "clip.mp4", "sea.png", "-o", "out.mp4", "--dry-run").good()
    assert "dry run: painting 8 frames of 64x48 with adain" in done.err
    assert shell.names() == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["photo.png.mp4", "sea.png"], "can't be opened"),
        (["clip.mp4", "sea.png", "-o", "out.gif"], "must end in one of .mp4"),
        (["clip.mp4", "sea.png", "-o", "clip.mp4"], "exists already"),
        (["clip.mp4", "sea.png", "-o", "clip.mp4", "--force"], "is the video itself"),
        (["clip.mp4", "sea.png", "-o", "out.webm"], "can't hold sound in aac"),
        (["clip.mp4", "sea.png", "--smooth", "1"], "smooth must be less than 1"),
        (["clip.mp4", "sea.png", "--keep-color", "histogram"], "use luminance or lab"),
        (["clip.mp4", "sea.png", "--temporal-weight", "5"], "--temporal-weight is for methods that optimise"),
        (["clip.mp4", "sea.png", "--temporal-weight", "-1"], "temporal-weight must be at least 0"),
        (["clip.mp4", "sea.png", "-o", "out.mp4", "--strip", "sea.png"], "sea.png exists already"),
        (["clip.mp4"], "name a painting"),
    ],
)
def test_mistakes(shell: Shell, words: list[str], message: str) -> None:
    before = shell.names()
    done = video(shell, *words)
    assert (done.code, done.out) == (2, "")
    assert message in done.err.splitlines()[-1]
    assert shell.names() == before


def test_without_room_on_the_disk_nothing_begins(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli_video_run, "MOST_BYTES_A_PIXEL", 1e15)
    done = video(shell, "clip.mp4", "sea.png", "-o", "out.mp4")
    assert done.code == 2
    assert "write elsewhere" in done.err


def test_what_a_video_loses_is_said_before_the_first_frame(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    data = Path("clip.mp4").read_bytes()
    Path("cut.mp4").write_bytes(data[: len(data) // 2])
    before = shell.names()
    done = video(shell, "cut.mp4", "sea.png", "-o", "out.mp4")
    assert (done.code, done.out, shell.names()) == (2, "", before)
    assert "is cut off" in done.err.splitlines()[-1]
    painted: list[PaintJob] = []
    monkeypatch.setattr(PaintJob, "paint_floats", lambda job, *_: painted.append(job))
    Path("a:b").mkdir()
    done = video(shell, "clip.mp4", "sea.png", "-o", "a:b/out.webm")
    assert (done.code, painted) == (2, [])
    assert "can't hold sound in aac" in done.err


def test_the_same_command_writes_the_same_bytes_whatever_the_names(shell: Shell) -> None:
    Path("a:b").mkdir()
    Path("clip.mp4").rename("12:30:00.mp4")
    for name in ("a:b/one.mp4", "two.mp4"):
        video(shell, "12:30:00.mp4", "sea.png", "-o", name).good()
    assert Path("a:b/one.mp4").read_bytes() == Path("two.mp4").read_bytes()


def test_transparency_goes_into_the_result(shell: Shell) -> None:
    import av
    import numpy as np

    with av.open("cut.mov", "w") as output:
        stream = output.add_stream("qtrle", rate=10)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "argb"
        for i in range(3):
            image = np.zeros((48, 64, 4), "u1")
            image[12:36, 8 + i : 40 + i] = 220, 90, 30, 255
            output.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgba").reformat(format="argb")))
        output.mux(stream.encode(None))
    done = video(shell, "cut.mov", "sea.png", "-o", "out.mp4")
    assert (done.code, "transparency, which .mp4 can't hold" in done.err) == (2, True)
    assert video(shell, "cut.mov", "sea.png").good().out == "cut-sea.mov\n"
    (first, *_) = read_frames(Path("cut-sea.mov"))
    assert first.alpha is not None
    assert (float(first.alpha[0, 0, 2, 2]), float(first.alpha[0, 0, 24, 24])) == pytest.approx((0, 1), abs=0.05)
