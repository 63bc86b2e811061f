"""The page that paints in the browser, in real Chromium: what it paints is what the command line paints."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

pytest.importorskip("fastapi", reason="the extra serve is not installed")
pytest.importorskip("playwright.sync_api", reason="playwright is not installed")


from browser_support import serving
from impasto import load, load_style, read_image
from impasto.server import tasks
from impasto.server.app import create_app
from impasto.server.site_files import SITE
from impasto.server.site_routes import add_pages
from server_support import load_tiny, open_studio
from web_support import WEB, Visit, decibels, needs_browser, photo_bytes, plain_host

pytestmark = needs_browser
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
SAME = 40
"""Decibels from which on pictures count as the same."""


def load_small(method: str, **how: Any) -> Any:
    """As `impasto.load`, tiny, but for johnson, whose networks know the built-in styles."""
    return load(method, **how) if method == "johnson" else load_tiny(method, **how)


@contextmanager
def open_server(folder: Path, **limits: Any) -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch, open_studio(folder, patch, max_work=10**12, **limits) as studio:
        patch.setattr(tasks, "load", load_small)
        app = create_app(studio)
        patch.setattr("impasto.server.site_routes.importlib.util.find_spec", lambda name: None)  # no Gradio
        add_pages(app, studio)
        with serving(app) as found:
            yield found


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with open_server(tmp_path_factory.mktemp("studio")) as found:
        yield found


@pytest.fixture
def visit(browser: Any, address: str) -> Iterator[Callable[..., Visit]]:
    visits: list[Visit] = []

    def begin(query: str = "", **options: Any) -> Visit:
        visits.append(Visit(browser, address, **options))
        visits[-1].open(query)
        return visits[-1]

    yield begin
    for one in visits:
        one.close()


@pytest.fixture(scope="module")
def swift() -> Any:
    return load("swift", precision="fp32", device="cpu")


def as_file(data: bytes, folder: Path, name: str = "photo.png") -> Any:
    (folder / name).write_bytes(data)
    return read_image(folder / name)


def test_pictures_are_those_of_the_command_line(visit: Callable[..., Visit], swift: Any, tmp_path: Path) -> None:
    data, other = photo_bytes(1), photo_bytes(2, 120, 90)
    photo, painting = as_file(data, tmp_path), as_file(other, tmp_path, "painting.png")
    starry, wave = load_style("starry-night"), load_style("great-wave")
    here = visit()
    here.give(data, "my photo.png")
    here.wait_until_painted()

    name, picture = here.download()
    whole = swift.stylize(photo, starry)
    assert name == "my-photo-starry-night.png"
    assert decibels(picture, whole) > SAME

    here.slide("strength", 40)
    assert decibels(here.download()[1], swift.stylize(photo, starry, strength=0.4)) > SAME
    here.slide("strength", 100)

    here.page.click("#mix-two")
    here.choose("The Great Wave")
    here.slide("mix", 30)
    here.wait_until_painted()
    name, picture = here.download()
    assert name == "my-photo-starry-night-great-wave.png"
    assert decibels(picture, swift.stylize(photo, starry, wave, weights=[0.7, 0.3])) > SAME
    here.page.click("#mix-two")

    here.give(other, "my painting.png", where="painting-file")
    here.wait_until_painted()
    name, picture = here.download()
    assert name == "my-photo-my-painting.png"
    assert decibels(picture, swift.stylize(photo, painting)) > SAME

    here.page.click("#more summary")
    here.page.click("#colours")
    here.wait_until_painted()
    assert decibels(here.download()[1], swift.stylize(photo, painting)) < SAME

    here.page.select_option("#format", "image/jpeg")
    name, picture = here.download()
    assert (name, picture.format) == ("my-photo-my-painting.jpg", "JPEG")


def test_tiles_give_what_one_piece_gives(visit: Callable[..., Visit], swift: Any, tmp_path: Path) -> None:
    data = photo_bytes(3, 147, 203)
    here = visit("?piece=0&tile=48")
    here.give(data)
    here.wait_until_painted()
    wanted = swift.stylize(as_file(data, tmp_path), load_style("starry-night"))
    assert decibels(here.download()[1], wanted) > SAME


def test_beyond_a_size_photos_are_cut_and_can_be_stopped(
    visit: Callable[..., Visit], swift: Any, tmp_path: Path
) -> None:
    small, large = photo_bytes(6, 100, 190), photo_bytes(7, 260, 330)
    here = visit("?piece=20000&tile=20")
    here.page.evaluate(
        """() => {
          const status = document.querySelector('#status');
          window.seen = new Set();
          const watch = new MutationObserver(() => seen.add(status.innerText));
          watch.observe(status, {childList: true, characterData: true, subtree: true});
        }"""
    )
    here.give(small)
    here.wait_until_painted()
    assert not here.page.evaluate("[...seen].some(text => /\\d %/.test(text))")  # in one piece
    assert decibels(here.download()[1], swift.stylize(as_file(small, tmp_path), load_style("starry-night"))) > SAME
    here.give(large)
    here.page.locator("#status", has_text=re.compile(r"\d %")).wait_for()
    here.page.click("#stop")
    here.page.get_by_text("Stopped.").wait_for()
    here.slide("strength", 90)  # whatever is chosen next is painted
    here.slide("strength", 100)
    here.wait_until_painted()
    assert decibels(here.download()[1], swift.stylize(as_file(large, tmp_path), load_style("starry-night"))) > SAME


def test_photos_stand_upright_and_large_ones_are_previewed(visit: Callable[..., Visit], swift: Any) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    here = visit()
    here.give(photo_bytes(4, 96, 160, "JPEG", exif=exif), "IMG_1.JPG", "image/jpeg")
    here.wait_until_painted()
    assert here.download()[1].size == (96, 160)
    here.give(photo_bytes(5, 180, 1600), "panorama.png")
    here.page.get_by_text("Preview at 1024 × 115 px").wait_for()
    here.wait_until_painted()
    name, picture = here.download()
    assert (name, picture.size) == ("panorama-starry-night.png", (1600, 180))


def test_a_reload_loses_nothing(visit: Callable[..., Visit]) -> None:
    here = visit()
    here.give(photo_bytes(1))
    here.wait_until_painted()
    here.choose("The Scream")
    here.slide("strength", 70)
    here.page.locator("#history-strip .tile").first.wait_for(state="attached")
    here.open()
    here.wait_until_painted()
    assert here.page.locator("#wall [aria-pressed=true]").inner_text().startswith("The Scream")
    assert here.page.input_value("#strength") == "70"
    assert here.page.locator("#history-strip .tile").count() == 1


def test_works_have_their_names_in_both_languages(visit: Callable[..., Visit]) -> None:
    here = visit(locale="zh-CN")
    here.give(photo_bytes(2), "my painting.png", where="painting-file")
    tiles = here.page.locator("#wall .tile:not(.add) span")
    here.page.wait_for_function("() => document.querySelectorAll('#wall .tile').length === 19")
    texts = tiles.all_inner_texts()
    assert "星月夜\n文森特·梵高，1889" in texts
    assert [text for text in texts if re.search("[a-z]", text)] == ["my painting"]
    here.page.click("#language")
    assert "The Starry Night\nVincent van Gogh, 1889" in tiles.all_inner_texts()


def test_the_comparison_is_a_slider_for_keyboards(visit: Callable[..., Visit]) -> None:
    here = visit()
    here.give(photo_bytes(1))
    here.wait_until_painted()
    here.page.focus("#compare")
    for _ in range(5):
        here.page.keyboard.press("ArrowRight")
    assert here.page.get_attribute("#compare", "aria-valuetext") == "5 % photo"
    assert here.page.eval_on_selector("#painted-canvas", "e => getComputedStyle(e).clipPath").count("5%") == 1


def test_only_the_brushed_area_is_painted(visit: Callable[..., Visit]) -> None:
    here = visit()
    data = photo_bytes(1)
    here.give(data)
    here.wait_until_painted()
    here.page.click("#more summary")
    here.page.click("#brush")
    box = here.page.locator("#brush-canvas").bounding_box()
    here.page.mouse.move(box["x"] + box["width"] * 0.2, box["y"] + box["height"] * 0.3)
    here.page.mouse.down()
    here.page.mouse.move(box["x"] + box["width"] * 0.2, box["y"] + box["height"] * 0.7, steps=5)
    here.page.mouse.up()
    picture, photo = here.download()[1].convert("RGB"), Image.open(io.BytesIO(data))
    assert picture.getpixel((40, 75)) != photo.getpixel((40, 75))
    assert picture.crop((100, 0, 200, 150)).tobytes() == photo.crop((100, 0, 200, 150)).tobytes()


def test_mistakes_are_reported_in_words(visit: Callable[..., Visit]) -> None:
    here = visit()
    here.give(b"no picture at all", "notes.png")
    here.page.get_by_text("Not readable as a picture: notes.png").wait_for()
    here.give(photo_bytes(1))
    here.wait_until_painted()


def test_of_many_files_those_that_are_no_pictures_are_named(visit: Callable[..., Visit]) -> None:
    here = visit()
    given = {"a.png": photo_bytes(1), "notes.png": b"no picture at all", "b.png": photo_bytes(2), "c.jpg": b""}
    files = [{"name": name, "mimeType": "image/png", "buffer": data} for name, data in given.items()]
    here.page.set_input_files("#photo-file", files)
    here.page.locator("#error", has_text="notes.png, c.jpg").wait_for()
    here.page.wait_for_function("() => !document.querySelector('#frame').classList.contains('stale')")
    assert here.page.locator("#photo-strip li").count() == 2
    assert "notes.png, c.jpg" in here.page.inner_text("#error")
    here.choose("The Scream")  # which clears it


def test_what_the_server_painted_stays_with_its_photo(visit: Callable[..., Visit]) -> None:
    here = visit()
    for seed, name in ((1, "a.png"), (2, "b.png")):
        here.give(photo_bytes(seed), name)
        here.page.locator("#photo-strip li").nth(seed - 1).wait_for()
    here.wait_until_painted()
    here.page.get_by_label("Painted").check()
    here.page.click("#paint")
    here.page.get_by_text("Painted, ").wait_for()
    here.wait_until_painted()
    here.page.locator("#photo-strip .tile").nth(0).click()
    here.page.get_by_text("This is the photo.").wait_for()
    assert here.page.is_visible("#paint")
    here.page.locator("#photo-strip .tile").nth(1).click()
    here.wait_until_painted()
    assert not here.page.is_visible("#paint")
    here.open()
    here.wait_until_painted()
    assert here.page.inner_text("#status").startswith("Painted, ")
    orders: list[str] = []
    here.page.on("request", lambda request: orders.append(request.url) if request.method == "POST" else None)
    names: list[str] = []
    here.page.on("download", lambda download: names.append(download.suggested_filename))
    here.page.click("#download-all")
    here.page.get_by_text("Saved as b-starry-night.png").wait_for()
    assert [order.split("?")[0].rsplit("/", 1)[1] for order in orders] == ["stylize"]  # of the one that is missing
    assert names == ["a-starry-night.png", "b-starry-night.png"]


def test_the_server_paints_what_the_browser_cannot(visit: Callable[..., Visit]) -> None:
    here = visit()
    here.give(photo_bytes(1))
    here.give(photo_bytes(2, 90, 120), "painting.png", where="painting-file")
    here.wait_until_painted()
    here.page.get_by_label("Painted").check()
    here.page.get_by_text("shows the earlier choice").wait_for()
    here.page.click("#paint")
    here.page.get_by_text("Painted, ").wait_for()
    here.wait_until_painted()
    name, picture = here.download()
    assert (name, picture.size) == ("photo-painting.png", (200, 150))


def test_only_what_suits_the_style_is_offered(visit: Callable[..., Visit], tmp_path: Path) -> None:
    here = visit()

    def offered() -> tuple[list[str], list[str]]:
        words = here.page.locator("#qualities label").evaluate_all("all => all.map(one => one.firstChild.value)")
        return words, here.page.locator("#method option").evaluate_all("all => all.map(one => one.value)")

    data = photo_bytes(1)
    here.give(data)
    here.wait_until_painted()
    assert here.page.inner_text("#quality-hint") == "at once, in this browser"
    words, others = offered()
    assert words == ["quick", "painted", "finest"]
    assert {"gatys", "stylebank", "conditional_norm", "texture_network"} <= set(others)
    assert not {"swift", "johnson", "nnst", "metastyle"} & set(others)

    here.page.get_by_label("Finest").check()
    assert "takes minutes" in here.page.inner_text("#quality-hint")
    here.page.get_by_label("Painted").check()
    assert "takes seconds" in here.page.inner_text("#quality-hint")
    here.page.click("#paint")
    here.wait_until_painted()
    assert here.page.locator("#paint").is_hidden()  # there is nothing to paint
    wanted = load("johnson").stylize(as_file(data, tmp_path), load_style("starry-night"))
    assert decibels(here.download()[1], wanted) > SAME

    here.page.locator("#wall .tile", has_text="Plum Blossom").first.click()
    assert "takes seconds" in here.page.inner_text("#quality-hint")  # conditional_norm has learned it
    here.give(photo_bytes(2, 90, 120), "painting.png", where="painting-file")
    here.page.get_by_text("painting").first.wait_for()
    words, others = offered()
    assert words == ["quick", "painted", "finest"]
    assert not {"stylebank", "conditional_norm", "johnson", "texture_network"} & set(others)


def test_what_the_server_says_of_a_picture_is_shown(browser: Any, tmp_path: Path) -> None:
    with open_server(tmp_path, max_output=20_000) as found:
        for language, said in (("en-GB", "of this photo's 200 × 150 px"), ("zh-CN", "照片为 200 × 150 像素")):
            here = Visit(browser, found, locale=language)
            here.open()
            here.give(photo_bytes(1))
            here.wait_until_painted()
            here.page.locator("#qualities input[value=painted]").check()
            here.page.click("#paint")
            here.page.get_by_text(said).wait_for()
            here.close()


def test_the_camera_is_painted_live_and_recorded(visit: Callable[..., Visit]) -> None:
    here = visit()
    here.page.locator(".open-camera").first.click()
    changes = """() => new Promise(done => {
      const canvas = document.querySelector('#painted-canvas'), seen = new Set();
      const look = () => {
        const data = canvas.width ? canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data : [];
        seen.add(data.reduce((sum, value) => (sum * 31 + value) % 1e9, 0));
        seen.size > 3 ? done(canvas.width) : setTimeout(look, 50);
      };
      look();
    })"""
    assert here.page.evaluate(changes) >= 96
    here.page.click("#record")
    here.page.evaluate(changes)
    with here.page.expect_download() as found:
        here.page.click("#record")
    assert found.value.suggested_filename == "impasto-starry-night.webm"
    assert Path(found.value.path()).read_bytes()[:4] == b"\x1a\x45\xdf\xa3"
    here.page.click("#snapshot")
    here.page.locator("#photo-strip li").first.wait_for()
    here.wait_until_painted()
    assert here.page.locator("#photo-strip li").count() == 1


def test_on_a_phone_the_result_stays_in_view(visit: Callable[..., Visit]) -> None:
    here = visit(**PHONE)
    here.give(photo_bytes(1))
    here.wait_until_painted()
    assert here.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    here.page.locator("#wall .tile").last.scroll_into_view_if_needed()
    box = here.page.locator("#painted-canvas").bounding_box()
    assert box["y"] >= 0
    assert box["y"] + box["height"] < 500


def test_on_a_phone_nothing_moves_or_is_wider_than_the_screen(visit: Callable[..., Visit]) -> None:
    here = visit(**PHONE)
    here.give(photo_bytes(1))
    here.wait_until_painted()
    for number, title in enumerate(("The Scream", "Dance", "Udnie", "Water Lilies")):
        here.choose(title)
        here.page.locator("#history-strip .tile").nth(number).wait_for(state="attached")
    assert here.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    tops = "[true, false].map(hidden => { progress.hidden = hidden; return actions.getBoundingClientRect().top })"
    before, while_painting = here.page.evaluate(tops)
    assert before == while_painting


@pytest.mark.parametrize(("language", "scheme"), [("en-GB", "light"), ("zh-CN", "dark")])
def test_everyone_can_use_it(visit: Callable[..., Visit], language: str, scheme: str) -> None:
    axe = WEB / "node_modules" / "axe-core" / "axe.min.js"
    if not axe.is_file():
        pytest.skip("axe is not installed: scripts/web")
    here = visit(locale=language, color_scheme=scheme)
    assert here.page.get_attribute("html", "lang") == ("zh-CN" if language == "zh-CN" else "en")
    check = """async () => (await axe.run()).violations.map(
      found => `${found.id}: ${found.nodes.map(node => node.html).join(' ').slice(0, 300)}`)"""
    here.page.evaluate(axe.read_text(encoding="utf-8"))
    assert here.page.evaluate(check) == []
    here.give(b"no picture at all", "notes.png")
    here.page.wait_for_function("() => document.querySelector('#error').innerText")
    assert here.page.evaluate(check) == []
    here.give(photo_bytes(1))
    here.give(photo_bytes(2), "painting.png", where="painting-file")
    here.wait_until_painted()
    here.page.click("#mix-two")
    here.page.click("#more summary")
    here.page.locator("#history-strip .tile").first.wait_for()
    assert here.page.evaluate(check) == []
    here.page.locator("#qualities input[value=painted]").check()  # stale, with a button to paint
    here.page.click("#brush")
    assert here.page.evaluate(check) == []
    here.page.locator("#photos .open-camera").click()
    here.page.locator("#snapshot").wait_for()
    assert here.page.evaluate(check) == []


def test_it_works_without_a_connection_after_one_visit_to_any_host(browser: Any, tmp_path: Path, swift: Any) -> None:
    with plain_host(SITE) as host:
        here = Visit(browser, host)
        here.open()
        here.page.locator("html[data-offline=ready]").wait_for()
        here.page.wait_for_function("() => navigator.serviceWorker.controller !== null")
    here.open()  # the host is gone
    data, other = photo_bytes(1), photo_bytes(2, 120, 90)
    here.give(data)
    here.wait_until_painted()
    here.give(other, "painting.png", where="painting-file")
    here.wait_until_painted()
    wanted = swift.stylize(as_file(data, tmp_path), as_file(other, tmp_path, "painting.png"))
    assert decibels(here.download()[1], wanted) > SAME
    assert here.page.evaluate("crossOriginIsolated")  # threads, though the host sends no headers for them
    here.close()


def test_it_is_small_enough() -> None:
    sizes = {path.relative_to(SITE).as_posix(): path.stat().st_size for path in SITE.rglob("*") if path.is_file()}
    assert sum(sizes.values()) < 25e6
    later = sum(size for name, size in sizes.items() if name.startswith("ort/webgpu") or name == "models/style.onnx")
    assert sum(sizes.values()) - later < 12e6
