"""The pages: the one that paints in the browser at the root, Gradio's at /gradio if it is installed."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from impasto.server.site_files import built_site
from impasto.server.studio import Studio

GRADIO = "/gradio"
POLICY = (
    "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self'; img-src 'self' blob: data:; "
    "media-src 'self' blob:; connect-src 'self' blob:; worker-src 'self'; manifest-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
}
NO_PAGE = (
    "This copy of impasto was built without its page. The interface works: see /openapi.json.\n"
    "For a page, build it in a checkout with scripts/web, or: pip install 'impasto[ui]'\n"
)


class Site(StaticFiles):
    """The built page's files. Browsers cache scripts and styles, whose names change with their contents."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        """Answer with one file."""
        answer = await super().get_response(path, scope)
        for name, value in HEADERS.items():
            answer.headers[name] = value
        lasting = path.replace(os.sep, "/").startswith("assets/") and answer.status_code == 200
        answer.headers["Cache-Control"] = "public, max-age=31536000, immutable" if lasting else "no-cache"
        return answer


def add_pages(app: FastAPI, studio: Studio) -> None:
    """Add the pages to `app`, after all existing routes."""
    classic = importlib.util.find_spec("gradio") is not None
    if classic:
        from impasto.server.page import add_page

        add_page(app, studio, GRADIO)
    site = built_site()
    app.add_api_route("/", _front(site, classic), methods=["GET"], include_in_schema=False)
    if site is not None:
        app.mount("/", Site(directory=site), name="site")


def _front(site: Path | None, classic: bool) -> Any:
    """Return the answer of the root."""
    if site is None:
        return (lambda: RedirectResponse(f"{GRADIO}/", 307)) if classic else (lambda: PlainTextResponse(NO_PAGE))
    text = (site / "index.html").read_text(encoding="utf-8")
    # the page asks for the server's methods only if it comes from a server
    text = text.replace("<html ", f'<html data-server="{"classic" if classic else "plain"}" ', 1)
    return lambda: HTMLResponse(text, headers={**HEADERS, "Cache-Control": "no-cache"})
