"""Make the picture of the server's page in the documentation: `python tools/make_page_picture.py [ADDRESS]`.

Start `impasto serve` before, with the page built (scripts/web). Needs Chromium and the package playwright.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path

import skimage
from playwright.sync_api import Page, sync_playwright

from impasto.images.files import read_image, write_image
from impasto.images.tensors import fit, resize

TARGET = Path(__file__).parent.parent / "docs" / "pictures" / "page.jpg"
PHOTO = Path(skimage.__file__).parent / "data" / "coffee.png"
SIZE = {"width": 1280, "height": 860}
WIDEST, QUALITY = 1000, 78
SECONDS_TO_PAINT = 60


def paint(page: Page, address: str) -> None:
    """Choose a photo, let the page paint it, and wait until nothing changes any more."""
    page.goto(address)
    page.locator("input[type=file]").first.set_input_files(str(PHOTO))
    page.get_by_role("button", name="Great Wave").click()
    before = b""
    for _ in range(SECONDS_TO_PAINT):
        page.wait_for_timeout(1000)
        now = page.screenshot()
        if now == before:
            return
        before = now


def main() -> None:
    """Write docs/pictures/page.jpg."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("address", nargs="?", default="http://127.0.0.1:7860/", help="where the server answers")
    address = parser.parse_args().address
    with sync_playwright() as started, tempfile.TemporaryDirectory() as folder:
        browser = started.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport=SIZE, locale="en")
        paint(page, address)
        page.evaluate("scrollTo(0, 0)")
        page.screenshot(path=f"{folder}/page.png")
        shot = read_image(f"{folder}/page.png")
        write_image(resize(shot, *fit(shot.shape[-2], shot.shape[-1], WIDEST)), TARGET, quality=QUALITY)
        browser.close()
    print(f"{TARGET}  {TARGET.stat().st_size // 1000} kB")


if __name__ == "__main__":
    main()
