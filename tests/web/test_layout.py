"""Nothing on the page moves when photos are given: their row has its place before."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

from impasto.server.site_files import SITE
from web_support import Visit, needs_browser, photo_bytes, plain_host

pytestmark = needs_browser
DESKTOP = {"viewport": {"width": 1280, "height": 900}}
LAPTOP = {"viewport": {"width": 1000, "height": 800}}
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
WATCH = """() => {
    window.moved = 0;
    new PerformanceObserver((list) => { for (const one of list.getEntries()) window.moved += one.value; })
        .observe({ type: "layout-shift" });
}"""
TOP = "() => document.querySelector('#wall').getBoundingClientRect().top + scrollY"
LEAST = 0.01
"""Layout shift below which nobody sees anything move: a tenth of what counts as good."""


@pytest.mark.parametrize("screen", [DESKTOP, PHONE], ids=["desktop", "phone"])
@pytest.mark.parametrize("locale", ["en-GB", "zh-CN"])
def test_nothing_moves_while_the_page_loads(browser: Any, screen: dict[str, Any], locale: str) -> None:
    with plain_host(SITE) as address:
        here = Visit(browser, address, locale=locale, **screen)
        here.page.add_init_script(f"({WATCH})()")
        here.open()
        here.page.wait_for_function("() => document.querySelector('#status').textContent !== ''")
        assert here.page.is_visible("#invite")
        assert here.page.evaluate("() => window.moved") < LEAST
        here.close()


@pytest.mark.parametrize("screen", [DESKTOP, LAPTOP, PHONE], ids=["desktop", "laptop", "phone"])
@pytest.mark.parametrize("locale", ["en-GB", "zh-CN"])
def test_photos_push_nothing_down(browser: Any, screen: dict[str, Any], locale: str) -> None:
    with plain_host(SITE) as address:
        here = Visit(browser, address, locale=locale, **screen)
        here.open()
        here.page.wait_for_function("() => document.querySelector('#status').textContent !== ''")
        here.page.evaluate(WATCH)
        top = here.page.evaluate(TOP)
        for seed in (1, 2):
            here.give(photo_bytes(seed))
            here.page.locator("#photo-strip li").nth(seed - 1).wait_for()
            here.wait_until_painted()
            assert here.page.evaluate(TOP) == top
        assert here.page.is_visible("#download-all")
        assert here.page.evaluate("() => document.documentElement.scrollWidth <= innerWidth")
        assert here.page.evaluate("() => window.moved") < LEAST
        here.close()
