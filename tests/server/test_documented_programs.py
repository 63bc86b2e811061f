"""The programs of README and the documentation that talk to a server, and Gradio's client."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

pytest.importorskip("gradio", reason="the extra ui is not installed")

from browser_support import serving
from docs_support import PAGES, ROOT, blocks, put_picture
from impasto import load
from impasto.server import tasks
from impasto.server.app import create_app
from impasto.server.site_routes import add_pages
from server_support import load_tiny, open_studio

HERE = "http://127.0.0.1:7860/"
PROGRAMS = [
    (page, program)
    for page in PAGES
    for program in blocks(page.read_text(encoding="utf-8"), "python")
    if HERE in program
]
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(autouse=True)
def collected() -> Iterator[None]:
    """What Gradio's clients leave open is collected here, where its warnings are ignored, not in a later test."""
    yield
    gc.collect()


def load_small(method: str, **how: Any) -> Any:
    """As `impasto.load`, tiny, but for johnson, which knows built-in styles."""
    return (load if method == "johnson" else load_tiny)(method, **how)


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("studio")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(folder / "page"))
        patch.setenv("GRADIO_ANALYTICS_ENABLED", "False")
        with open_studio(folder, patch) as studio:
            patch.setattr(tasks, "load", load_small)
            app = create_app(studio)
            add_pages(app, studio)
            with serving(app) as found:
                yield found
        assert not list(folder.glob("*/*.png")), "pictures of users are left"


def test_there_are_programs_in_both_languages() -> None:
    places = [str(page.relative_to(ROOT)) for page, program in PROGRAMS if "gradio_client" in program]
    assert places == ["docs/en/how-to/server.md", "docs/zh/how-to/server.md"]
    assert "README.md" in [str(page.relative_to(ROOT)) for page, _ in PROGRAMS]


@pytest.mark.parametrize(("page", "program"), PROGRAMS, ids=[str(page.relative_to(ROOT)) for page, _ in PROGRAMS])
def test_programs_run(page: Path, program: str, address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    put_picture(Path("photo.jpg"), 1)
    put_picture(Path("painting.jpg"), 2)
    names: dict[str, object] = {}
    exec(compile(program.replace(HERE, address), str(page), "exec"), names)
    made = Path(str(names["picture"])) if "picture" in names else Path("out.jpg")
    assert Image.open(made).size == (48, 48)


def test_gradios_client_paints_in_paintings_and_hears_of_mistakes(address: str, tmp_path: Path) -> None:
    from gradio_client import Client, exceptions, handle_file

    photo, other = tmp_path / "photo.jpg", tmp_path / "painting.jpg"
    put_picture(photo, 1)
    put_picture(other, 2)
    client = Client(f"{address}gradio", verbose=False, download_files=str(tmp_path / "made"))
    assert list(client.view_api(return_format="dict")["named_endpoints"]) == ["/stylize"]
    order = {"photo": handle_file(str(photo)), "api_name": "/stylize"}
    made = client.predict(painting=handle_file(str(other)), method="adain", size="32", **order)
    assert Image.open(made).size == (32, 32)
    with pytest.raises(exceptions.AppError, match="did you mean starry-night"):
        client.predict(style="starry-nigt", **order)


def test_files_of_the_server_are_not_read(address: str, tmp_path: Path) -> None:
    secret = tmp_path / "secret.jpg"
    put_picture(secret, 3)
    for path in (
        str(secret),
        f"{tmp_path}/../{tmp_path.name}/secret.jpg",
        "/etc/hostname",
        "secret.jpg",
        "http://x/y.png",
    ):
        file = {"path": path, "meta": {"_type": "gradio.FileData"}}
        data = [file, "starry-night", 1, "", "", None]
        answer = httpx.post(f"{address}gradio/gradio_api/call/stylize", json={"data": data}, timeout=60)
        assert (answer.status_code, answer.json()["error"]) == (400, "files are uploaded; addresses are not fetched")
