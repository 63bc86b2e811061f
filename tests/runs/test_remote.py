"""Files elsewhere, in fsspec's file system in memory: URLs as paths, listing, reading, writing whole or not at all."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

from impasto.errors import ImpastoError
from impasto.runs import remote_files
from impasto.runs.remote_files import (
    clear_remote,
    find_remote,
    has_pattern,
    is_remote,
    make_folder,
    names_in,
    put_remote,
    read_remote,
    to_path,
    url_of,
)


@pytest.fixture
def system() -> Iterator[Any]:
    system = fsspec.filesystem("memory")
    for name in ("b.png", "a.jpg", "c.txt", ".d.png", "deep/e.png"):
        system.pipe_file(f"/photos/{name}", name.encode())
    yield system
    system.store.clear()
    system.pseudo_dirs[:] = [""]


@pytest.mark.parametrize(
    "url", ["s3://bucket/a/b.png", "hdfs:///a/b.png", "https://host:8000/a/b.png", "gs://bucket", "memory://a/*.png"]
)
def test_a_path_carries_a_url(url: str) -> None:
    assert is_remote(to_path(url))
    assert url_of(to_path(url)) == url
    assert url_of(to_path(url) / "c.png") == f"{url}/c.png"
    assert to_path(url).name == url.rsplit("/", 1)[-1]


def test_what_is_no_url_is_a_path() -> None:
    for word in ("a/b.png", "/a/b.png", "C:/a.png", "a:b.png"):
        assert to_path(word) == Path(word)
        assert not is_remote(Path(word))
        assert url_of(Path(word)) == str(Path(word))
    for local in ("file:///a/b%20c.png", "file://localhost/a/b%20c.png", "local:///a/b c.png"):
        assert to_path(local) == Path("/a/b c.png")
    with pytest.raises(ImpastoError, match="a file of the machine nas"):
        to_path("file://nas/a.png")
    with pytest.raises(ImpastoError, match="unpack it first"):
        to_path("zip://a.png::s3://bucket/a.zip")


def test_what_a_url_stands_for(system: Any) -> None:
    def find(url: str) -> list[str]:
        return [url_of(path) for path in find_remote(to_path(url), (".png", ".jpg"))]

    assert find("memory://photos") == ["memory:///photos/a.jpg", "memory:///photos/b.png"]
    assert find("memory://photos/**/*.png") == ["memory:///photos/b.png", "memory:///photos/deep/e.png"]
    assert find("memory://photos/c.txt") == ["memory://photos/c.txt"]
    for wrong, message in (("memory://nowhere", "does not exist"), ("abc://a/b.png", "can't be read: .*abc")):
        with pytest.raises(ImpastoError, match=message):
            find(wrong)
    assert has_pattern("s3://a/?.png")
    assert not has_pattern("https://a/b.png?c=1")


def test_files_are_read_and_written(system: Any, tmp_path: Path) -> None:
    assert read_remote(to_path("memory://photos/a.jpg")) == b"a.jpg"
    with pytest.raises(ImpastoError, match=r"memory://photos/z\.jpg can't be read"):
        read_remote(to_path("memory://photos/z.jpg"))
    out = to_path("memory://out/new")
    assert names_in(out) == names_in(tmp_path / "out") == set()
    for folder in (out, tmp_path / "out"):
        make_folder(folder)
        make_folder(folder)
    put_remote(b"first", out / "x.png", "0" * 8)
    put_remote(b"second", out / "x.png", "0" * 8)
    assert read_remote(out / "x.png") == b"second"
    assert names_in(out) == {"x.png"}
    assert names_in(tmp_path) == {"out"}
    (tmp_path / "file").touch()
    with pytest.raises(ImpastoError, match="can't be made"):
        make_folder(tmp_path / "file" / "out")


def test_no_more_is_read_than_a_picture_needs(system: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    small = png_head(4, 4)
    monkeypatch.setattr(remote_files, "SLACK", 1000)
    monkeypatch.setattr(remote_files, "MOST_BYTES", 100_000)
    for name, data, whole in (
        ("a.png", small + bytes(1000), True),
        ("b.png", small + bytes(2000), False),
        ("c.png", png_head(9999, 9999) + bytes(90_000), True),
        ("d.png", png_head(9999, 9999) + bytes(100_000), False),
        ("e.bin", bytes(100_000), True),
        ("f.bin", bytes(100_001), False),
    ):
        system.pipe_file(f"/photos/{name}", data)
        path = to_path(f"memory://photos/{name}")
        if whole:
            assert read_remote(path) == data
        else:
            with pytest.raises(ImpastoError, match=f"{name} has more than .* bytes"):
                read_remote(path)


def png_head(width: int, height: int) -> bytes:
    return b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + width.to_bytes(4, "big") + height.to_bytes(4, "big")


class Web(http.server.BaseHTTPRequestHandler):
    """Files, redirects, a file that never ends, a page that lists files."""

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        goal = {"/r.png": "/a.png", "/f.png": "file:///etc/passwd", "/loop.png": "/loop.png"}.get(self.path)
        there = self.path in ("/a.png", "/endless.png", "/list")
        self.send_response(302 if goal else 200 if there else 404)
        if goal:
            self.send_header("Location", goal)
        self.send_header("Content-Type", "text/html" if self.path == "/list" else "image/png")
        self.end_headers()
        if self.path == "/a.png":
            self.wfile.write(png_head(4, 4))
        elif self.path == "/list":
            self.wfile.write(b'<a href="x.png"></a><a href="y.txt"></a>')
        while self.path == "/endless.png":
            try:
                self.wfile.write(png_head(4, 4) + bytes(100_000))
            except OSError:
                return

    do_HEAD = do_GET


@pytest.fixture
def address() -> Iterator[str]:
    pytest.importorskip("aiohttp", reason="aiohttp is not installed, by which fsspec reads web addresses")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Web)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.mark.filterwarnings("ignore")
def test_web_servers_are_read_within_bounds(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_files, "SLACK", 1_000_000)
    for name in ("a.png", "r.png"):
        assert read_remote(to_path(f"{address}/{name}")) == png_head(4, 4)
    for name, words in (
        ("f.png", "leads to file:///etc/passwd, which is no web address"),
        ("loop.png", "without end"),
        ("none.png", "it is not there"),
        ("endless.png", "has more than 1000640 bytes"),
    ):
        with pytest.raises(ImpastoError, match=words) as message:
            read_remote(to_path(f"{address}/{name}"))
        assert "\n" not in str(message.value)
    assert find_remote(to_path(f"{address}/endless.png"), (".png",)) == [to_path(f"{address}/endless.png")]
    assert [path.name for path in find_remote(to_path(f"{address}/list"), (".png",))] == ["x.png"]


def test_nothing_is_half_written(system: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    out = to_path("memory://out")
    put_remote(b"first", out / "x.png", "0" * 8)

    def fail(*_: Any) -> None:
        raise OSError("no\nspace")

    with monkeypatch.context() as patch:
        patch.setattr(type(system), "mv", fail)
        with pytest.raises(ImpastoError, match=r"memory://out/x\.png can't be written: no space"):
            put_remote(b"second", out / "x.png", "0" * 8)
    assert read_remote(out / "x.png") == b"first"
    assert names_in(out) == {"x.png"}
    for run in "0" * 8, "1" * 8:  # of runs that were killed
        system.pipe_file(f"/out/.impasto-{run}89abcdef.tmp", b"half")
    clear_remote(out, "0" * 8)
    assert names_in(out) == {"x.png", ".impasto-1111111189abcdef.tmp"}
