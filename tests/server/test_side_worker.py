"""The worker for small things: what the page shows of uploads is decoded there, and it is killed if it hangs."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

pytest.importorskip("fastapi", reason="the extra serve is not installed")

from impasto.errors import ImpastoError
from impasto.server import side_worker
from impasto.server.limits import Closing, Limits, TooMuch
from impasto.server.side_worker import SideWorker
from impasto.server.studio import Studio
from impasto.server.worker import ProcessWorker, run_process
from server_support import open_studio, picture_bytes
from stubborn_worker import make_stubborn


@pytest.fixture
def studio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Studio]:
    with open_studio(tmp_path, monkeypatch, max_pixels=100_000, max_side=1000) as studio:
        yield studio


def size_of(data: bytes) -> tuple[int, int]:
    return Image.open(io.BytesIO(data)).size


def test_a_photo_is_shrunk(studio: Studio) -> None:
    photo = picture_bytes(1, 120, 160)
    assert size_of(studio.shrink(photo, 80)) == (80, 60)
    assert size_of(studio.shrink(photo, 80, (30, 50))) == (50, 30)
    assert size_of(studio.shrink(photo, 768)) == (160, 120)


def test_what_was_brushed(studio: Studio) -> None:
    layer = Image.new("RGBA", (40, 30), (255, 0, 0, 0))
    found = {}
    for name in ("empty", "brushed"):
        buffer = io.BytesIO()
        layer.save(buffer, "PNG")
        found[name] = studio.brushed(buffer.getvalue())
        layer.putpixel((7, 9), (255, 0, 0, 255))
    assert found["empty"] is None
    mask = Image.open(io.BytesIO(found["brushed"] or b"")).convert("L")
    assert (mask.size, mask.getpixel((7, 9)), mask.getpixel((8, 9))) == ((40, 30), 255, 0)
    assert studio.brushed(picture_bytes()) is None


def test_what_is_no_picture_or_too_large_is_refused(studio: Studio) -> None:
    for data, words in (
        (b"<html>", "no picture|web page"),
        (picture_bytes(1, 400, 400), "limit of 100000 pixels"),
        (picture_bytes()[:-40], "damaged"),
    ):
        with pytest.raises(ImpastoError, match=words):
            studio.shrink(data, 80)
        with pytest.raises(ImpastoError, match=words):
            studio.brushed(data)
    assert size_of(studio.shrink(picture_bytes(), 48)) == (48, 36)


def test_a_task_that_hangs_is_killed_and_the_next_one_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(side_worker, "MOST_SECONDS", 0.3)
    worker = SideWorker(Limits(stop_seconds=0.2), lambda device, limits: ProcessWorker(run_process, make_stubborn))
    try:
        with pytest.raises(TooMuch, match=r"more than 0\.3 s"):
            worker.do({"type": "hang"})
        monkeypatch.setattr(side_worker, "MOST_SECONDS", 60.0)
        assert worker.do({"type": "say", "text": "x"}, (b"a", b"b")) == b"ab"
    finally:
        worker.close()
    with pytest.raises(Closing):
        worker.do({"type": "say", "text": "x"})
