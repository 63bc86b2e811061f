"""`impasto live`: the newest frame, the size that governs itself, keys, and what is said if something is missing."""

from __future__ import annotations

import subprocess
import sys
import threading
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cli_support import make_picture
from impasto.cli.main import main
from impasto.commands import live, live_devices
from impasto.errors import ImpastoError, OptionError
from impasto.images.files import read_image, write_image
from impasto.runs.record import Recipe, read_recipe
from impasto.stylizers.base import Stylizer
from tiny import tiny

FRAME = (make_picture(3, 48, 64)[0].permute(1, 2, 0).numpy() * 255).astype(np.uint8)


class FakeWindow:
    """Shows nothing; presses the keys one after the other, then q."""

    def __init__(self, *keys: str) -> None:
        self.keys = [*keys, "q"]
        self.shown: list[np.ndarray] = []
        self.titles: list[str] = []

    def show(self, pixels: np.ndarray, title: str) -> str:
        self.shown.append(pixels)
        self.titles.append(title)
        return self.keys[len(self.shown) - 1]


def forever() -> Iterator[np.ndarray]:
    while True:
        yield FRAME


@pytest.fixture
def painting(tmp_path: Path) -> live.Painting:
    for number in (1, 2):
        write_image(make_picture(number, 40, 40), tmp_path / f"painting{number}.png")
    recipe = Recipe.parse({"method": "adain"}, "live")
    styles = [tmp_path / f"painting{number}.png" for number in (1, 2)]
    return live.Painting(tiny("adain"), recipe, styles, 1.0, mirrored=False)


def test_keys_change_what_is_painted(painting: live.Painting, tmp_path: Path) -> None:
    window = FakeWindow("n", "-", "-", "o", "o", "m", "p", "+")
    assert live.run(painting, forever(), window, tmp_path, longer=32) == 8
    titles = [title.split(",")[0] for title in window.titles]
    assert titles == [
        "painting1 100%",
        "painting2 100%",
        "painting2 90%",
        "painting2 80%",
        "original",
        "painting2 80%",
        "painting2 80%",
        "painting1 80%",
        "painting1 90%",
    ]
    assert all(picture.shape == (48, 64, 3) and picture.dtype == np.uint8 for picture in window.shown)
    assert (window.shown[0] != window.shown[1]).any()
    small = live.as_photo(FRAME, 32)
    assert (window.shown[4] == live.as_pixels(small, 48, 64)).all()
    mirrored = live.as_photo(FRAME[:, ::-1].copy(), 32)
    painting.choose(0)
    painting.strength = 0.8
    assert np.array_equal(window.shown[7], live.as_pixels(painting.frame(mirrored), 48, 64))


def test_moments_are_smoothed_over_frames_and_forgotten_with_the_style(painting: live.Painting) -> None:
    first = make_picture(5, 32, 32)
    second = 0.5 + (first - 0.5) * 0.8  # no cut
    alone = painting.still(second)
    painting.frame(first)
    after = painting.frame(second)
    assert not torch.allclose(after, alone, atol=3 / 255)
    painting.choose(0)
    assert torch.allclose(painting.frame(second), alone, atol=1 / 255)


def test_the_key_s_writes_the_frame_at_its_full_size(
    painting: live.Painting, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    live.run(painting, forever(), FakeWindow("s", "s"), tmp_path, longer=32)
    names = capsys.readouterr().out.split()
    assert [Path(name).name for name in names] == ["live-painting1.png", "live-painting1-2.png"]
    assert read_image(Path(names[0])).shape == (1, 3, 48, 64)
    saved = read_recipe(Path(names[0]))
    assert (saved.method, [path.name for path in saved.styles], saved.strength) == ("adain", ["painting1.png"], 1.0)


def test_the_size_governs_itself() -> None:
    slow, quick = live.Governor(), live.Governor()
    for _ in range(60):
        slow.learn(slow.longer**2 * 4e-6, 1280)
        quick.learn(quick.longer**2 * 1e-7, 1280)
    assert slow.longer**2 * 4e-6 <= 0.1  # at least ten a second
    assert slow.longer < live.FIRST < quick.longer
    assert 1 / 1.2**2 / 1.1 < quick.longer**2 * 1e-7 / live.TARGET < 1.2
    for side in range(96, 400, 7):  # it settles, wherever it must
        governor, sides = live.Governor(), []
        for _ in range(80):
            governor.learn(live.TARGET * (governor.longer / side) ** 2, 1280)
            sides.append(governor.longer)
        assert len(set(sides[40:])) == 1, (side, sides)
        assert live.TARGET * (sides[-1] / side) ** 2 < 0.1 or sides[-1] == live.LEAST
    tiny_machine = live.Governor()
    for _ in range(60):
        tiny_machine.learn(10, 1280)
    assert tiny_machine.longer == live.LEAST
    for _ in range(60):
        tiny_machine.learn(1e-5, 200)
    assert tiny_machine.longer == 200


def test_a_picture_that_can_not_be_saved_ends_nothing(
    painting: live.Painting, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    window = FakeWindow("s", "q")
    with caplog.at_level("WARNING"):
        assert live.run(painting, forever(), window, tmp_path / "gone", longer=32) == 1
    assert "does not exist" in caplog.text


def test_a_run_slows_down_to_smaller_frames(painting: live.Painting, tmp_path: Path) -> None:
    now = iter(range(10_000))
    window = FakeWindow(*[""] * 12)
    live.run(painting, forever(), window, tmp_path, clock=lambda: float(next(now)))
    assert "96x72" in window.titles[-1] or "64x48" in window.titles[-1]  # the frame has no more
    assert window.titles[-1].endswith("a second")


def test_the_latest_frame_wins() -> None:
    read, go_on = threading.Event(), threading.Event()

    def frames() -> Iterator[np.ndarray]:
        for value in range(3):
            yield np.full((2, 2, 3), value, np.uint8)
        read.set()
        go_on.wait(10)

    latest = live_devices.LatestFrame(frames())
    assert read.wait(10)
    found = latest.take()
    assert found is not None
    assert found[0, 0, 0] == 2
    go_on.set()
    assert latest.take() is None
    latest.close()


def test_what_a_camera_meets_is_raised_where_frames_are_taken() -> None:
    def broken() -> Iterator[np.ndarray]:
        raise ImpastoError("unplugged")
        yield FRAME

    with pytest.raises(ImpastoError, match="unplugged"):
        live_devices.LatestFrame(broken()).take()
    stop = threading.Event()
    silent = live_devices.LatestFrame(FRAME for _ in iter(lambda: stop.wait(10), True))
    with pytest.raises(ImpastoError, match="check the camera"):
        silent.take(patience=0.01)
    stop.set()
    silent.close()


def test_a_video_plays_at_its_own_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    now, slept = [100.0], []

    def sleep(seconds: float) -> None:
        slept.append(round(seconds, 6))
        now[0] += seconds + 0.01  # sleeping takes a little longer

    monkeypatch.setattr(live_devices, "time", types.SimpleNamespace(monotonic=lambda: now[0], sleep=sleep))
    assert len(list(live_devices.in_time([(0.0, FRAME), (0.5, FRAME), (0.505, FRAME), (1.0, FRAME)]))) == 4
    assert slept == [0, 0.49, 0, 0.48]


# --- mistakes


class FakeOpenCV:
    """OpenCV as far as `impasto live` uses it."""

    WINDOW_NORMAL, WINDOW_KEEPRATIO, WINDOW_GUI_NORMAL, WND_PROP_VISIBLE = 0, 0, 16, 4
    utils = types.SimpleNamespace(logging=types.SimpleNamespace(LOG_LEVEL_SILENT=0, setLogLevel=lambda level: None))

    def __init__(self, *, there: bool = True, visible: int = 1, key: int = -1) -> None:
        self.there, self.visible, self.key, self.shown = there, visible, key, []
        self.released = False

    def VideoCapture(self, number: int) -> Any:
        def release() -> None:
            self.released = True

        return types.SimpleNamespace(
            isOpened=lambda: self.there, read=lambda: (self.there, FRAME[..., ::-1]), release=release
        )

    def __getattr__(self, name: str) -> Any:
        return lambda *rest: None

    def imshow(self, name: str, pixels: np.ndarray) -> None:
        self.shown.append(pixels)

    def waitKey(self, pause: int) -> int:
        return self.key

    def getWindowProperty(self, *rest: Any) -> int:
        return self.visible


def test_camera_and_window_speak_bgr() -> None:
    cv2 = FakeOpenCV(key=ord("s") | 0x100000)
    with live_devices.opened_camera(cv2, 0) as camera:
        assert camera is not None
        frame = next(iter(camera))
        assert np.array_equal(frame, FRAME)
        cv2.there = False
        with pytest.raises(ImpastoError, match="stopped giving pictures"):
            next(iter(camera))
    assert cv2.released
    window = live_devices.DisplayWindow(cv2)
    assert window.show(frame, "title") == "s"
    assert np.array_equal(cv2.shown[0], FRAME[..., ::-1])
    cv2.key, cv2.visible = -1, 0
    assert window.show(frame, "title") == "q"  # it was closed
    cv2.visible = 1
    assert window.show(frame, "title") == ""


def test_without_a_camera_it_says_what_to_check() -> None:
    cv2 = FakeOpenCV(there=False)
    with pytest.raises(ImpastoError, match="camera 3 gives no pictures"), live_devices.opened_camera(cv2, 3):
        pass
    assert cv2.released


def fake_module(monkeypatch: pytest.MonkeyPatch, framework: str) -> None:
    monkeypatch.setitem(sys.modules, "cv2", types.SimpleNamespace(currentUIFramework=lambda: framework))


def test_without_windows_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    fake_module(monkeypatch, "")
    assert main(["live", "starry-night"]) == 2
    err = capsys.readouterr().err
    assert "uninstall opencv-python-headless" in err
    assert "impasto[live]" in err
    monkeypatch.setitem(sys.modules, "cv2", None)
    assert main(["live"]) == 2
    assert capsys.readouterr().err == "error: impasto live needs OpenCV: pip install 'impasto[live]'\n"


def test_without_a_display_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_module(monkeypatch, "QT6")
    monkeypatch.setattr(live_devices.sys, "platform", "linux")
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ImpastoError, match="there is no display"):
        live_devices.load_opencv()
    monkeypatch.setenv("DISPLAY", ":99")
    ended = subprocess.CompletedProcess([], -6)  # as Qt ends a process
    monkeypatch.setattr(live_devices.subprocess, "run", lambda *rest, **how: ended)
    with pytest.raises(ImpastoError, match="display :99"):
        live_devices.load_opencv()
    ended.returncode = 0
    assert live_devices.load_opencv().currentUIFramework() == "QT6"


def test_mistakes_are_answered_before_the_camera_opens(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(live_devices, "load_opencv", lambda: pytest.fail("it went on"))
    for words, said in (
        (["starry-nigt"], "did you mean starry-night"),
        (["-m", "swfit"], "did you mean swift"),
        (["--source", "gone.mp4"], "gone.mp4 can't be opened"),
        (["-o", "nowhere"], "nowhere can't be written"),
    ):
        assert main(["live", *words]) == 2
        assert said in capsys.readouterr().err


def test_only_what_paints_in_time_is_taken() -> None:
    def make(**values: Any) -> live.Painting:
        return live.make_painting(Recipe.parse(values, "live"), ["starry-night"], "cpu", "torch", mirrored=True)

    with pytest.raises(OptionError, match="live takes one of adain"):
        make(method="gatys")
    with pytest.raises(OptionError, match="luminance or lab"):
        make(method="swift", keep_color="histogram")


def test_without_a_style_all_that_the_method_knows_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    model: Stylizer = tiny("johnson")
    monkeypatch.setattr(live, "load_model", lambda *rest: model)
    recipe = Recipe.parse({"method": "johnson"}, "live")
    made = live.make_painting(recipe, [], "cpu", "torch", mirrored=True)
    assert [path.stem for path in made.styles] == list(model.style_names)
    assert made.name == model.style_names[0]


def test_a_video_is_repeated(tmp_path: Path) -> None:
    clips = pytest.importorskip("clips")
    clip = clips.write_clip([make_picture(seed, 32, 48) for seed in range(3)], tmp_path / "clip.mp4")
    frames = live.play(clip)
    seen = [next(frames) for _ in range(4)]
    assert all(frame.shape == (32, 48, 3) and frame.dtype == np.uint8 for frame in seen)
    assert np.array_equal(seen[0], seen[3])
    assert not np.array_equal(seen[0], seen[1])
