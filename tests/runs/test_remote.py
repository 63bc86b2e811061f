"""Files elsewhere, in fsspec's file system in memory: URLs as paths, listing, reading, writing whole or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

from impasto.errors import ImpastoError
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
    assert to_path("file:///a/b.png") == Path("/a/b.png")
    with pytest.raises(ImpastoError, match="unpack it first"):
        to_path("zip://a.png::s3://bucket/a.zip")


def test_what_a_url_stands_for(system: Any) -> None:
    def find(url: str) -> list[str]:
        return [url_of(path) for path in find_remote(to_path(url), (".png", ".jpg"))]

    assert find("memory://photos") == ["memory:///photos/a.jpg", "memory:///photos/b.png"]
    assert find("memory://photos/**/*.png") == ["memory:///photos/b.png", "memory:///photos/deep/e.png"]
    assert find("memory://photos/c.txt") == ["memory://photos/c.txt"]
    for wrong, told in (("memory://nowhere", "does not exist"), ("abc://a/b.png", "can't be read: .*abc")):
        with pytest.raises(ImpastoError, match=told):
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
