"""The built page: how it is served and copied, and what happens without it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="the extra serve is not installed")

from fastapi.testclient import TestClient

from impasto.cli.main import main
from impasto.server import site_files, site_routes
from impasto.server.app import create_app
from server_support import ADDRESS, open_studio


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "site"
    (folder / "assets").mkdir(parents=True)
    (folder / "index.html").write_text('<html lang="en"><p>page</p></html>')
    (folder / "assets" / "one-1a2b.js").write_text("1")
    (folder / "sw.js").write_text("2")
    monkeypatch.setattr(site_files, "SITE", folder)
    return folder


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setattr(site_routes.importlib.util, "find_spec", lambda name: None)
    with open_studio(tmp_path, monkeypatch) as studio:
        app = create_app(studio)
        site_routes.add_pages(app, studio)
        yield TestClient(app, base_url=ADDRESS, follow_redirects=False)


def test_the_page_is_served_with_strict_headers_beside_the_interface(site: Path, client: Any) -> None:
    page = client.get("/")
    assert (page.status_code, "page" in page.text) == (200, True)
    assert '<html data-server="plain"' in page.text
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert "unsafe-inline" not in page.headers["content-security-policy"]
    assert page.headers["cross-origin-embedder-policy"] == "require-corp"
    script = client.get("/assets/one-1a2b.js")
    assert "immutable" in script.headers["cache-control"]
    assert "javascript" in script.headers["content-type"]
    assert client.get("/sw.js").headers["cache-control"] == "no-cache"
    assert client.get("/nothing").status_code == 404
    assert client.get("/v1/methods").json()


def test_the_service_worker_leaves_the_interface_alone(site: Path, client: Any) -> None:
    source = (Path(__file__).parents[2] / "web" / "src" / "sw.ts").read_text(encoding="utf-8")
    found = re.search(r"const SERVER = /(.*)/;", source)
    assert found is not None
    assert not re.search(found[1], "/assets/one-1a2b.js")
    paths = [getattr(route, "path", "") for route in client.app.routes]
    ours = {path for path in paths if path not in ("", "/")}
    assert len(ours) > 10
    for path in ours:
        assert re.search(found[1], path), f"the service worker would keep {path}"


def test_without_a_built_page_it_says_how_to_build_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    monkeypatch.setattr(site_files, "SITE", tmp_path / "nothing")
    answer = request.getfixturevalue("client").get("/")
    assert answer.status_code == 200
    assert "scripts/web" in answer.text


def test_without_a_built_page_gradios_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    page = pytest.importorskip("impasto.server.page")
    monkeypatch.setattr(site_files, "SITE", tmp_path / "nothing")
    added = []
    monkeypatch.setattr(page, "add_page", lambda app, studio, path: added.append(path))
    with open_studio(tmp_path, monkeypatch) as studio:
        app = create_app(studio)
        site_routes.add_pages(app, studio)
        answer = TestClient(app, base_url=ADDRESS, follow_redirects=False).get("/")
    assert added == ["/gradio"]
    assert (answer.status_code, answer.headers["location"]) == (307, "/gradio/")


def test_the_page_is_copied_into_a_new_folder(site: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "host"
    assert main(["web", str(target)]) == 0
    assert (target / "assets" / "one-1a2b.js").read_text() == "1"
    assert main(["web", str(target)]) == 2
    assert "exists already; name a new folder" in capsys.readouterr().err
    assert main(["web", str(tmp_path / "no" / "such")]) == 2
    assert "does not exist; make it first" in capsys.readouterr().err


def test_a_copy_without_the_page_says_how_to_build_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(site_files, "SITE", tmp_path / "nothing")
    assert main(["web", str(tmp_path / "host")]) == 2
    assert "in a checkout run scripts/web" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
