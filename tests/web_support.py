"""What the tests of the page in the browser share: visits, servers, pictures, and what a page may not do."""

from __future__ import annotations

import functools
import http.server
import io
import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from browser_support import needs_chromium
from impasto.server.site_files import SITE

WEB = Path(__file__).parent.parent / "web"
PATIENCE = 120_000
"""Milliseconds: never reached, unless something is broken."""

needs_browser = [
    pytest.mark.browser,
    needs_chromium,
    pytest.mark.skipif(not (SITE / "index.html").is_file(), reason="the page is not built: scripts/web"),
    pytest.mark.filterwarnings("ignore"),
]


class Visit:
    """A page in a context of its own, which fails at the end if anything was asked of another host or refused."""

    def __init__(self, browser: Any, address: str, **options: Any) -> None:
        wanted = {"locale": "en-GB", "viewport": {"width": 1280, "height": 900}, "permissions": ["camera"], **options}
        self.address = address
        self.context = browser.new_context(**wanted)
        self.context.set_default_timeout(PATIENCE)
        self.page = self.context.new_page()
        self.wrong: list[str] = []
        self.page.on("request", self._see)
        self.page.on("pageerror", lambda error: self.wrong.append(f"error: {error}"))
        self.page.on("console", self._hear)

    def _see(self, request: Any) -> None:
        if not request.url.startswith((self.address, "blob:", "data:")):
            self.wrong.append(f"foreign request: {request.url}")

    def _hear(self, message: Any) -> None:
        url = message.location.get("url", "")
        if message.type == "error" and not url.endswith("/preview"):  # which may be asked for before there is one
            self.wrong.append(f"console: {message.text} {url}")

    def open(self, query: str = "") -> Any:
        self.page.goto(f"{self.address}{query}")
        self.page.locator("#wall .tile:not(.add)").first.wait_for()
        return self.page

    def give(self, data: bytes, name: str = "photo.png", kind: str = "image/png", where: str = "photo-file") -> None:
        self.page.set_input_files(f"#{where}", {"name": name, "mimeType": kind, "buffer": data})

    def wait_until_painted(self) -> None:
        """Wait until what is chosen is what is shown."""
        self.page.wait_for_function(
            "() => document.querySelector('#progress').hidden"
            " && !document.querySelector('#frame').classList.contains('stale')"
            " && !document.querySelector('#viewer').hidden"
        )
        assert self.page.inner_text("#error") == ""

    def choose(self, title: str) -> None:
        self.page.locator("#wall .tile", has_text=title).first.click()
        self.wait_until_painted()

    def slide(self, name: str, value: int) -> None:
        self.page.eval_on_selector(
            f"#{name}", f"e => {{ e.value = '{value}'; e.dispatchEvent(new Event('input', {{bubbles: true}})) }}"
        )

    def download(self) -> tuple[str, Image.Image]:
        """The file's name, and the picture."""
        with self.page.expect_download() as found:
            self.page.click("#download")
        name, picture = found.value.suggested_filename, Image.open(found.value.path())
        picture.load()
        return name, picture

    def close(self) -> None:
        self.context.close()
        assert not self.wrong, self.wrong


def photo_bytes(seed: int = 1, height: int = 150, width: int = 200, kind: str = "PNG", **save: Any) -> bytes:
    """A picture of blotches as a file."""
    coarse = np.random.default_rng(seed).integers(0, 256, (height // 12 + 2, width // 12 + 2, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC).save(buffer, kind, **save)
    return buffer.getvalue()


def decibels(found: Image.Image, wanted: Tensor) -> float:
    """Peak signal to noise of a picture against what the command line writes, (1, 3, H, W)."""
    own = torch.from_numpy(np.asarray(found.convert("RGB")).copy()).permute(2, 0, 1)[None] / 255
    assert own.shape == wanted.shape
    error = float((own - wanted.mul(255).round().div(255)).square().mean())
    return -10 * math.log10(max(error, 1e-12))


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *words: Any) -> None:
        pass


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *words: Any) -> None:
        pass  # browsers break connections off


@contextmanager
def plain_host(folder: Path, port: int = 0) -> Iterator[str]:
    """A host that knows nothing of impasto, such as any web space; gone at the end."""
    server = _Server(("127.0.0.1", port), functools.partial(_Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()
    thread.join(20)
