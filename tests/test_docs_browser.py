"""The documentation in a browser: search in both languages, copy buttons, nothing that runs off its box."""

from __future__ import annotations

import functools
import http.server
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("sphinx", reason="the extra docs is not installed")
pytest.importorskip("furo", reason="the extra docs is not installed")
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
generate = pytest.importorskip("generate")

SITE = Path(__file__).parent.parent / "docs" / "site"
TEXT = {
    "en": "# Styles\n\nThe painting's brushwork covers the photograph.\n",
    "zh_CN": "# 风格\n\n风格迁移把油画的笔触画到照片上，由服务器绘制。swift 是默认方法。\n",
}
COMMAND = "impasto stylize photo.jpg painting.jpg --keep-color luminance --style-size 256 --strength 0.5 -o out.png"
BLOCK = f"\n```sh\n{COMMAND}\n```\n\nIndented:\n\n    {COMMAND}\n"
TABLE = "\n| option | meaning |\n| --- | --- |\n| `--a-very-long-option-that-nobody-breaks` | " + "word " * 30 + "|\n"
WORDS = {"en": ("brushwork", "Copy", "Copied"), "zh_CN": ("笔触", "复制", "已复制")}
RUNNING_OFF = """() => {
  const wide = document.documentElement.scrollWidth > document.documentElement.clientWidth + 1;
  const boxes = [...document.querySelectorAll("article pre, article table, article p, article img, article figure")];
  const off = boxes.filter((box) => {
    const holder = box.closest(".table-wrapper, pre, article");
    return box.getBoundingClientRect().right > holder.getBoundingClientRect().right + 1
      && !["auto", "scroll"].includes(getComputedStyle(holder).overflowX);
  });
  const commands = [...document.querySelectorAll(".highlight-sh pre, .highlight-none pre")];
  off.push(...commands.filter((box) => box.scrollWidth > box.clientWidth + 1)); // the end of a command is seen, too
  return { wide, off: off.map((box) => box.outerHTML.slice(0, 200)) };
}"""


@pytest.fixture(scope="module", params=TEXT)
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """A small site built as the documentation is; its language and address."""
    from sphinx.application import Sphinx

    language, folder = request.param, tmp_path_factory.mktemp("site")
    source = folder / "source"
    source.mkdir()
    more = "\n## More\n\n```{toctree}\nother\n```\n"
    (source / "index.md").write_text(TEXT[language] + BLOCK + TABLE + more, encoding="utf-8")
    (source / "other.md").write_text("# Other\n\n服务器\n", encoding="utf-8")
    built = str(folder / "built")
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        patch.setattr(generate, "write_method_pages", lambda folder, language: None)
        app = Sphinx(
            str(source),
            str(SITE),
            built,
            str(folder / "trees"),
            "html",
            {"language": language},
            status=None,
            warning=None,
        )
        app.build()
    handler = functools.partial(Quiet, directory=built)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield language, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves files and says nothing."""

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    """A page on a narrow screen, on which an error of a script fails the test."""
    context = browser.new_context(
        viewport={"width": 390, "height": 844}, permissions=["clipboard-read", "clipboard-write"]
    )
    page = context.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    yield page
    context.close()
    assert errors == []


def test_search_finds_what_a_page_says(page: Any, site: tuple[str, str]) -> None:
    language, address = site
    page.goto(f"{address}/search.html?q={WORDS[language][0]}")
    page.wait_for_selector("#search-results ul.search li a", timeout=10_000)
    assert page.locator("#search-results ul.search li").count() == 1
    if language == "zh_CN":  # the same method by its Latin name
        page.goto(f"{address}/search.html?q=swift")
        page.wait_for_selector("#search-results ul.search li a", timeout=10_000)
        page.goto(f"{address}/search.html?q=服务器")  # on one page alone, on the other within a sentence
        page.wait_for_function("document.querySelectorAll('#search-results ul.search li').length === 2", timeout=10_000)


def test_a_block_is_copied_by_its_button(page: Any, site: tuple[str, str]) -> None:
    language, address = site
    page.goto(f"{address}/index.html")
    button = page.locator("article div.highlight button.copy").first
    assert button.inner_text() == WORDS[language][1]
    button.focus()
    page.keyboard.press("Enter")
    page.wait_for_function("word => document.querySelector('button.copy').textContent === word", arg=WORDS[language][2])
    assert page.evaluate("navigator.clipboard.readText()") == COMMAND


def test_the_theme_speaks_the_language_of_the_pages(page: Any, site: tuple[str, str]) -> None:
    language, address = site
    page.goto(f"{address}/index.html")
    words = {"en": ("Next", "On this page"), "zh_CN": ("下一页", "本页内容")}[language]
    assert page.locator(".next-page .context").inner_text() == words[0]
    assert page.locator(".toc-title").text_content().strip() == words[1]


@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_runs_off_its_box(page: Any, site: tuple[str, str], width: int) -> None:
    page.set_viewport_size({"width": width, "height": 844})
    page.goto(f"{site[1]}/index.html")
    assert page.evaluate("document.querySelectorAll('.highlight-sh pre').length")
    assert page.evaluate(RUNNING_OFF) == {"wide": False, "off": []}
