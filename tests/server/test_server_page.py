"""The page in a real browser: upload, paint, preview, stop, slider, mask, downloads, mistakes, phone, Chinese."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

pytest.importorskip("gradio", reason="the extra ui is not installed")
pytest.importorskip("playwright.sync_api", reason="playwright is not installed")


from browser_support import needs_chromium, serving
from impasto.server import tasks
from impasto.server.app import create_app
from impasto.server.page import add_page
from impasto.server.studio import Studio
from impasto.server.translations import CHINESE, ENGLISH
from server_support import load_tiny, open_studio, picture_bytes, wait_until
from tiny import painting

PHONE = {"width": 390, "height": 844}
pytestmark = [
    needs_chromium,
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("page")


@pytest.fixture(scope="module")
def studio(folder: Path) -> Iterator[Studio]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(folder / "page"))
        style = load_tiny("swift").encode_style(painting())  # the built-in cards are none of a tiny network's
        patch.setattr(tasks, "built_in", lambda name: style)
        with open_studio(folder, patch, max_work=10**12) as studio:
            yield studio


@pytest.fixture(scope="module")
def address(studio: Studio) -> Iterator[str]:
    app = create_app(studio)
    add_page(app, studio)
    with serving(app) as found:
        yield found


@pytest.fixture
def open_page(browser: Any, address: str) -> Iterator[Callable[..., Any]]:
    contexts = []

    def open_one(**options: Any) -> Any:
        context = browser.new_context(**{"locale": "en-GB", "viewport": {"width": 1200, "height": 1000}, **options})
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(60_000)
        page.goto(address)
        page.locator("#paint").wait_for()
        return page

    yield open_one
    for context in contexts:
        context.close()


def upload(page: Any, where: str, data: bytes, name: str = "photo.png") -> None:
    page.locator(f"#{where} input[type=file]").set_input_files({"name": name, "mimeType": "image/png", "buffer": data})
    page.locator(f"#{where} img").first.wait_for()


def choose(page: Any, where: str, name: str) -> None:
    page.locator(f"#{where} input").click()
    page.get_by_role("option", name=name, exact=True).click()


def prepare(page: Any, method: str = "adain") -> None:
    """A photo, a painting and a method whose tiny network takes both."""
    upload(page, "photo", picture_bytes(1, 120, 160))
    page.get_by_role("tab", name=ENGLISH["painting"]).click()
    upload(page, "painting", picture_bytes(2, 80, 80))
    choose(page, "method", method)


def download(page: Any, name: str) -> bytes:
    with page.expect_download() as found:
        page.locator(f"#get_{name}").click()
    return Path(found.value.path()).read_bytes()


def wait_for_end(page: Any) -> None:
    page.locator("#status", has_text="160 x 120").wait_for()


def test_a_photo_is_painted_compared_and_downloaded(open_page: Callable[..., Any], folder: Path) -> None:
    page = open_page()
    prepare(page)
    page.locator("#paint").click()
    wait_for_end(page)
    page.locator("#result img").nth(1).wait_for()
    assert page.locator("#result img").count() == 2
    assert Image.open(io.BytesIO(download(page, "picture"))).size == (160, 120)
    record = json.loads(download(page, "record"))
    assert (record["method"], record["styles"][0]["file"]) == ("adain", "painting-1")
    assert b"adain/moments" in download(page, "card")
    page.screenshot(path=folder / "painted.png", full_page=True)


def test_the_slider_moves(open_page: Callable[..., Any]) -> None:
    page = open_page()
    prepare(page)
    page.locator("#paint").click()
    wait_for_end(page)
    page.locator("#result img").nth(1).wait_for()
    box = page.locator("#result img").first.bounding_box()
    before = page.locator("#result").screenshot()
    middle = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + box["width"] / 2, middle)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.9, middle, steps=5)
    page.mouse.up()
    time.sleep(0.3)
    assert page.locator("#result").screenshot() != before


def test_an_optimisation_shows_previews_and_stops_with_its_best(open_page: Callable[..., Any], studio: Studio) -> None:
    page = open_page()
    prepare(page, "gatys")
    page.locator("#options > button, #options .label-wrap").first.click()
    page.locator("#gatys-steps input").fill("50000")
    page.locator("#gatys-octaves input").fill("0")
    page.locator("#paint").click()
    page.locator("#status", has_text="of 50000").wait_for()
    page.locator("#result img").nth(1).wait_for()
    page.locator("#stop").click()
    page.locator("#status", has_text="the best picture so far").wait_for()
    assert Image.open(io.BytesIO(download(page, "picture"))).size == (160, 120)
    assert json.loads(download(page, "record"))["interrupted"] > 0
    wait_until(lambda: not studio.queue._jobs)


def test_only_what_was_brushed_is_painted(open_page: Callable[..., Any]) -> None:
    page = open_page()
    prepare(page)
    page.locator("#mask > button, #mask .label-wrap").first.click()
    canvas = page.locator("#brush canvas").first
    canvas.wait_for()
    canvas.scroll_into_view_if_needed()
    time.sleep(1.0)
    box = canvas.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x - 20, y)
    page.mouse.down()
    page.mouse.move(x + 20, y, steps=8)
    page.mouse.up()
    time.sleep(1.0)
    page.locator("#paint").click()
    wait_for_end(page)
    painted = Image.open(io.BytesIO(download(page, "picture"))).convert("RGB")
    photo = Image.open(io.BytesIO(picture_bytes(1, 120, 160)))
    assert painted.getpixel((2, 2)) == photo.getpixel((2, 2))
    assert painted.getpixel((80, 60)) != photo.getpixel((80, 60))


def test_mistakes_are_reported(open_page: Callable[..., Any]) -> None:
    page = open_page()
    page.locator("#paint").click()
    page.get_by_text(ENGLISH["no_photo"]).wait_for()
    prepare(page)
    page.locator("#photo input[type=file]").evaluate_all("inputs => inputs.length")
    page.locator("#photo").get_by_role("button").first.click()
    bad = {"name": "photo.png", "mimeType": "image/png", "buffer": b"<html>no picture</html>"}
    page.locator("#photo input[type=file]").set_input_files(bad)
    time.sleep(1.0)
    page.locator("#paint").click()
    page.get_by_text("is a web page or drawing").wait_for()


def test_the_gallery_chooses_a_style(open_page: Callable[..., Any]) -> None:
    page = open_page()
    tile = page.locator("#gallery [data-style=great-wave]")
    tile.scroll_into_view_if_needed()
    tile.click()
    wait_until(lambda: page.locator("#built_in input").input_value() == "great-wave")
    wait_until(lambda: tile.locator("img").evaluate("image => image.naturalWidth") == 224, 60)


def test_a_phone_has_room_and_china_its_words(open_page: Callable[..., Any], folder: Path) -> None:
    page = open_page(locale="zh-CN", viewport=PHONE, is_mobile=True, has_touch=True)
    page.get_by_role("button", name=CHINESE["paint"]).wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    page.get_by_role("button", name=CHINESE["paint"]).click()
    page.get_by_text(CHINESE["no_photo"]).wait_for()
    page.screenshot(path=folder / "phone.png", full_page=True)


def test_addresses_are_not_fetched(open_page: Callable[..., Any]) -> None:
    page = open_page()
    answer = page.request.post(
        f"{page.url}gradio_api/queue/join",
        data={"data": [{"path": "http://127.0.0.1:9/x.png", "meta": {"_type": "gradio.FileData"}}], "fn_index": 0},
    )
    assert (answer.status, answer.json()["error"]) == (400, "files are uploaded; addresses are not fetched")
    for path in ("/etc/passwd", "../../../etc/passwd"):
        assert page.request.get(f"{page.url}gradio_api/file={path}").status in (403, 404)


def test_nothing_is_left_of_the_jobs(open_page: Callable[..., Any], studio: Studio, folder: Path) -> None:
    wait_until(lambda: not studio.queue._jobs)
    wait_until(lambda: {path.name for path in folder.iterdir()} <= {"page", "painted.png", "phone.png"})
