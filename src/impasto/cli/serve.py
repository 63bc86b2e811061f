"""`impasto serve`."""

from __future__ import annotations

import importlib.util
import logging
import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from impasto.cli import flags
from impasto.commands import arguments, terminal

if TYPE_CHECKING:
    from impasto.server.limits import Limits

LOOPBACK = ("127.0.0.1", "localhost", "::1")
KEEP_ALIVE = 10
MOST_CONNECTIONS = 256

log = logging.getLogger(__name__)

HostFlag = Annotated[str, typer.Option(metavar="ADDRESS", help="Address to listen at; 0.0.0.0: all, with a token.")]
PortFlag = Annotated[int, typer.Option(metavar="N", min=0, max=65535, help="Port to listen at; 0: any that is free.")]
TokenFlag = Annotated[
    str | None,
    typer.Option(metavar="TEXT", envvar="IMPASTO_TOKEN", help="What clients must know; made up if one is needed."),
]
DevicesFlag = Annotated[
    list[str] | None,
    typer.Option("--device", metavar="NAME", help="auto, cpu, cuda, mps; repeatable: a worker each."),
]
PageFlag = Annotated[bool, typer.Option("--page/--no-page", help="The page for people beside the interface.")]


def serve(
    ctx: typer.Context,
    host: HostFlag = "127.0.0.1",
    port: PortFlag = 7860,
    token: TokenFlag = None,
    device: DevicesFlag = None,
    page: PageFlag = True,
    json: flags.JsonFlag = False,
    quiet: flags.QuietFlag = False,
) -> None:
    """Serve a page in the browser and an HTTP interface: [bold]impasto serve[/bold], then open what it prints.

    Its limits are flags, such as --max-pixels 10000000: [bold]impasto serve --limits[/bold] lists them.
    """
    terminal.be_quiet(quiet)
    words = list(ctx.args)
    _check_extras(page)
    from impasto.server.limits import Limits

    if words == ["--limits"]:
        _list_limits(Limits, json)
        return
    from impasto.errors import ImpastoError
    from impasto.runs.painting import pick_device

    extra, values = arguments.take_flags(ctx, words, Limits, "serve", "impasto serve --limits")
    if extra:
        raise ImpastoError(f"impasto serve takes no files: {extra[0]}")
    limits = Limits.parse(values, "serve")
    secret = _choose_token(host, token)
    devices = list(dict.fromkeys(pick_device(name) for name in device or ["auto"]))
    with _ending_well(), tempfile.TemporaryDirectory(prefix="impasto-serve-") as folder:
        _run(devices, limits, Path(folder), host, port, secret, page, json)


@contextmanager
def _ending_well() -> Iterator[None]:
    """SIGTERM ends the program as Ctrl-C does: nothing of users stays on disk."""
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _check_extras(page: bool) -> None:
    from impasto.errors import ImpastoError

    for module, extra in (("fastapi", "serve"), ("uvicorn", "serve"), ("python_multipart", "serve"), ("gradio", "ui")):
        if importlib.util.find_spec(module) is None and (page or extra == "serve"):
            other = " (or add --no-page)" if extra == "ui" else ""
            raise ImpastoError(f"impasto serve needs {module}: pip install 'impasto[{'ui' if page else extra}]'{other}")


def _list_limits(limits: type[Limits], json: bool) -> None:
    from impasto.commands.methods_table import describe_options, show_options

    terminal.print_json(describe_options(limits)) if json else show_options(limits)


def _choose_token(host: str, token: str | None) -> str:
    """The token that clients need; raises ImpastoError if it is too short to be one."""
    import secrets

    from impasto.errors import ImpastoError

    if token is not None and (len(token) < 8 or not token.isascii() or not token.isprintable() or " " in token):
        raise ImpastoError("a token has at least 8 characters of ASCII and no spaces")
    return token or ("" if host in LOOPBACK else secrets.token_urlsafe(24))


def _run(
    devices: list[str], limits: Limits, folder: Path, host: str, port: int, token: str, page: bool, json: bool
) -> None:
    """Serve until Ctrl-C."""
    own = folder / "page"
    own.mkdir()
    os.environ |= {"GRADIO_TEMP_DIR": str(own), "GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_OFFLINE": "1"}
    os.environ["GRADIO_QUEUE_SESSION_RESUME_TTL"] = "30"
    import uvicorn

    from impasto.server.app import create_app
    from impasto.server.studio import Studio

    studio = Studio(devices, limits, folder)
    app: Any = create_app(studio, token=token)
    if page:
        from impasto.server.page import add_page

        add_page(app, studio)
    studio.warm_up()
    place, secret = f"[{host}]" if ":" in host else host, f"?token={token}" if token else ""

    class Server(uvicorn.Server):
        """Tells where it is once it listens."""

        async def startup(self, sockets: Any = None) -> None:
            await super().startup(sockets)
            if self.started:
                shown = f"http://{place}:{self.servers[0].sockets[0].getsockname()[1]}/{secret}"
                terminal.print_json({"url": shown, "devices": devices}, line=True) if json else terminal.say(shown)

    config = uvicorn.Config(
        app,
        host,
        port,
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=5,
        limit_concurrency=MOST_CONNECTIONS,
    )
    log.info("serving on %s; Ctrl-C ends it", ", ".join(devices))
    try:
        Server(config).run()
    finally:
        studio.close()
