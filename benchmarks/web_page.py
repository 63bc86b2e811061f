"""The page that paints in the browser: how long people wait, how fluent the camera is, how much is downloaded.

    python benchmarks/web_page.py
    python benchmarks/web_page.py --side 512 --rounds 5 --seconds 10

Needs the built page (scripts/web), Chromium and playwright (the extra dev). The page comes from a server on loopback
that knows nothing of impasto. Each cold load is a browser context of its own, without a cache; the time ends with the
picture on the canvas. Chromium's fake device is the camera. Goals on two cores: first picture at 512 px within 3 s, a
change of strength or style within 1 s, ten camera pictures a second, first load below 12 MB, all files below 25 MB.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from measuring import show, surroundings

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from browser_support import open_browser
from impasto.server.site_files import built_site
from web_support import Visit, photo_bytes, plain_host

GOALS = {
    "first picture, ms": 3000,
    "change of strength, ms": 1000,
    "change of style, ms": 1000,
    "first load, MB": 12,
    "all files, MB": 25,
}
LEAST_RATE = 10
CHANGED = """before => new Promise(done => {
  const canvas = document.querySelector('#painted-canvas');
  const look = () => {
    const data = canvas.width ? canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data : [];
    let sum = 0;
    for (let i = 0; i < data.length; i += 97) sum = (sum * 31 + data[i]) % 1e9;
    sum && sum !== before ? done(sum) : requestAnimationFrame(look);
  };
  look();
})"""
"""Wait until the canvas shows something else; returns what tells pictures apart."""

STRENGTH = """before => new Promise(done => {
  const canvas = document.querySelector('#painted-canvas');
  const end = () => done(before);
  const look = () => requestAnimationFrame(canvas.style.opacity === '0.5' ? end : look);
  look();
})"""
"""Wait until half of the photo shows through, and that is on the screen."""

RATE = """seconds => new Promise(done => {
  const canvas = document.querySelector('#painted-canvas'), begin = performance.now();
  let [count, before] = [0, -1];
  const look = () => {
    const data = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
    let sum = 0;
    for (let i = 0; i < data.length; i += 97) sum = (sum * 31 + data[i]) % 1e9;
    if (sum !== before) [count, before] = [count + 1, sum];
    if (performance.now() - begin < 1000 * seconds) requestAnimationFrame(look);
    else done([count, canvas.width, canvas.height]);
  };
  look();
})"""
"""Count the different pictures on the canvas."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument(
        "--large", action="store_true", help="also paint and download 4000x3000 px, which takes minutes"
    )
    arguments = parser.parse_args()
    site = built_site()
    if site is None:
        sys.exit("the page is not built: scripts/web")
    photo = photo_bytes(1, arguments.side * 3 // 4, arguments.side, "JPEG", quality=90)
    with plain_host(site) as host, open_browser() as browser:
        visits = [measure_visit(browser, host, photo) for _ in range(arguments.rounds)]
        camera = measure_camera(browser, host, arguments.seconds)
        large = measure_large(browser, host) if arguments.large else None
        version = browser.version
    found = {name: statistics.median(visit[name] for visit in visits) for name in visits[0]}
    found["all files, MB"] = sum(path.stat().st_size for path in site.rglob("*") if path.is_file()) / 1e6
    rows = [{"what": name, "median": round(value, 1), "goal": GOALS.get(name, "")} for name, value in found.items()]
    rows.append({"what": "camera, pictures a second", "median": round(camera["rate"], 1), "goal": LEAST_RATE})
    about = {"side": arguments.side, "chromium": version, "surroundings": surroundings(), "visits": visits}
    if large is not None:
        rows.append({"what": "12 megapixels, download, ms", "median": round(large), "goal": "no crash"})
    show({**about, "medians": found, "camera": camera, "12 megapixels, ms": large}, rows)


def measure_visit(browser: Any, host: str, photo: bytes) -> dict[str, float]:
    """One visit with an empty cache: to the first picture, then a change of strength, then one of style."""
    here = Visit(browser, host, service_workers="block")
    loaded: list[Any] = []
    here.page.on("requestfinished", lambda request: loaded.append(request))
    shown = 0

    def timed(act: Callable[[], object], until: str = CHANGED) -> float:
        nonlocal shown
        begin = time.perf_counter()
        act()
        shown = here.page.evaluate(until, shown)
        return 1000 * (time.perf_counter() - begin)

    def begin() -> None:
        here.open()
        here.give(photo, "photo.jpg", "image/jpeg")

    found = {"first picture, ms": timed(begin)}
    here.wait_until_painted()
    found["first load, MB"] = sum(request.sizes()["responseBodySize"] for request in loaded) / 1e6
    found["change of strength, ms"] = timed(lambda: here.slide("strength", 50), STRENGTH)
    here.wait_until_painted()
    found["change of style, ms"] = timed(lambda: here.page.locator("#wall .tile", has_text="The Scream").click())
    here.close()
    return found


def measure_camera(browser: Any, host: str, seconds: float) -> dict[str, float]:
    """Different pictures a second, after the size had that time to settle."""
    here = Visit(browser, host)
    here.open()
    here.page.locator(".open-camera").first.click()
    here.page.evaluate(CHANGED, 0)
    here.page.evaluate(RATE, seconds)
    count, width, height = here.page.evaluate(RATE, seconds)
    here.close()
    return {"rate": count / seconds, "width": width, "height": height}


def measure_large(browser: Any, host: str) -> float:
    """Milliseconds from the click on Download to the file of a picture of 12 megapixels."""
    here = Visit(browser, host)
    here.context.set_default_timeout(3_600_000)
    here.open()
    here.give(photo_bytes(2, 3000, 4000, "JPEG", quality=85), "large.jpg", "image/jpeg")
    here.wait_until_painted()
    begin = time.perf_counter()
    _, picture = here.download()
    spent = 1000 * (time.perf_counter() - begin)
    assert picture.size == (4000, 3000), picture.size
    here.close()
    return spent


if __name__ == "__main__":
    main()
