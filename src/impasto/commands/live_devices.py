"""Camera and window of `impasto live`, by OpenCV; no torch."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from impasto.errors import ImpastoError

Pixels = NDArray[np.uint8]
"""A frame, (H, W, 3), RGB."""

INSTALL = "pip install 'impasto[live]'"
PATIENCE = 15.0
"""Seconds without a frame after which a camera counts as lost."""
PROBE = "import cv2; cv2.namedWindow('impasto'); cv2.waitKey(1)"
VIEW = 960


def load_opencv() -> Any:
    """Return the module cv2; raises ImpastoError if it is missing or can't open windows here."""
    try:
        import cv2
    except ImportError:
        raise ImpastoError(f"impasto live needs OpenCV: {INSTALL}") from None
    if not cv2.currentUIFramework():
        raise ImpastoError(
            "this OpenCV has no windows (opencv-python-headless): pip uninstall opencv-python-headless, "
            f"then {INSTALL}, which does all that the other did"
        )
    _check_display()
    return cv2


def _check_display() -> None:
    """Raise ImpastoError if no window can be opened. Tried in another process, which some toolkits end."""
    if not sys.platform.startswith("linux"):
        return
    if not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        raise ImpastoError(
            "there is no display to open a window on: run impasto live in a desktop session, or with ssh -X; "
            "impasto serve shows its camera page in a browser instead"
        )
    command = [sys.executable, "-c", PROBE]
    try:
        done = subprocess.run(command, capture_output=True, timeout=30, check=False).returncode == 0
    except subprocess.TimeoutExpired:
        done = False
    if not done:
        shown = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
        raise ImpastoError(f"no window can be opened on the display {shown}: check DISPLAY, or the -X of ssh")


class Camera:
    """The camera of that number; raises ImpastoError if it gives no pictures."""

    def __init__(self, cv2: Any, number: int) -> None:
        log = cv2.utils.logging
        log.setLogLevel(log.LOG_LEVEL_SILENT)
        self._capture = cv2.VideoCapture(number)
        self.number = number
        if not self._capture.isOpened() or not self._capture.read()[0]:
            self.close()
            raise ImpastoError(
                f"camera {number} gives no pictures: check that it is connected, that no other program uses it, and "
                "that this terminal may use cameras; --source 1 takes the second camera, --source clip.mp4 a video"
            )

    def __iter__(self) -> Iterator[Pixels]:
        """Yield frames; raises ImpastoError when the camera is lost."""
        while True:
            there, pixels = self._capture.read()
            if not there:
                raise ImpastoError(f"camera {self.number} stopped giving pictures: check that it is connected")
            yield np.ascontiguousarray(pixels[..., ::-1])

    def close(self) -> None:
        """Release the camera."""
        self._capture.release()


@contextlib.contextmanager
def opened_camera(cv2: Any, number: int | None) -> Iterator[Camera | None]:
    """Open a camera until the end of the block; None: no camera. Raises ImpastoError."""
    camera = None if number is None else Camera(cv2, number)
    try:
        yield camera
    finally:
        if camera is not None:
            camera.close()


class LatestFrame:
    """The newest of `frames`, which another thread reads; older frames are dropped."""

    def __init__(self, frames: Iterable[Pixels]) -> None:
        self._frames = frames
        self._newest: Pixels | None = None
        self._error: BaseException | None = None
        self._ended = False
        self._news = threading.Condition()
        self._thread = threading.Thread(target=self._read, name="frames", daemon=True)
        self._thread.start()

    def take(self, patience: float = PATIENCE) -> Pixels | None:
        """Wait for a new frame; None at the end. Raises the reading thread's exceptions."""
        with self._news:
            if not self._news.wait_for(lambda: self._newest is not None or self._ended, patience):
                raise ImpastoError(f"no frame came for {patience:g} seconds: check the camera")
            if self._error is not None:
                raise self._error
            found, self._newest = self._newest, None
            return found

    def close(self) -> None:
        """End the thread with its next frame."""
        with self._news:
            self._ended = True
        self._thread.join(PATIENCE)

    def _read(self) -> None:
        try:
            for frame in self._frames:
                with self._news:
                    if self._ended:
                        return
                    self._newest = frame
                    self._news.notify()
        except BaseException as error:
            self._error = error
        finally:
            with self._news:
                self._ended = True
                self._news.notify()


def in_time(frames: Iterable[tuple[float, Pixels]]) -> Iterator[Pixels]:
    """Yield frames at their times, in seconds: a video at its own speed."""
    begin: float | None = None
    for due, pixels in frames:
        begin = time.monotonic() - due if begin is None else begin
        time.sleep(max(0.0, begin + due - time.monotonic()))
        yield pixels


class DisplayWindow:
    """A window that shows pictures and returns pressed keys."""

    NAME = "impasto live"

    def __init__(self, cv2: Any) -> None:
        self._cv2, self._title, self._opened = cv2, "", False

    def show(self, pixels: Pixels, title: str) -> str:
        """Show a picture; returns the key, "" for none, "q" if the window was closed."""
        cv2 = self._cv2
        if not self._opened:
            self._open(*pixels.shape[:2])
        if title != self._title:
            cv2.setWindowTitle(self.NAME, title)
            self._title = title
        cv2.imshow(self.NAME, np.ascontiguousarray(pixels[..., ::-1]))
        key = cv2.waitKey(1)
        if cv2.getWindowProperty(self.NAME, cv2.WND_PROP_VISIBLE) < 1:
            return "q"
        return "" if key < 0 else chr(key & 0xFF)

    def _open(self, height: int, width: int) -> None:
        cv2, share = self._cv2, VIEW / max(height, width)
        cv2.namedWindow(self.NAME, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO | cv2.WINDOW_GUI_NORMAL)
        cv2.resizeWindow(self.NAME, round(width * share), round(height * share))
        self._opened = True

    def close(self) -> None:
        """Close the window."""
        self._cv2.destroyAllWindows()
