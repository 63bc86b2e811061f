"""`impasto serve`."""

from __future__ import annotations

import atexit
import importlib.util
import logging
import logging.handlers
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from impasto.cli import flags
from impasto.commands import arguments, early_checks, early_devices, terminal
from impasto.errors import ImpastoError, OptionError

if TYPE_CHECKING:
    from impasto.server.limits import Limits
    from impasto.server.listen import Place

LOOPBACK = ("127.0.0.1", "localhost", "::1")
LONGEST_TOKEN = 1000
ENDED: list[bool] = []
"""Whether a server has ended properly."""


log = logging.getLogger(__name__)

HostFlag = Annotated[str, typer.Option(metavar="ADDRESS", help="Address to listen at; 0.0.0.0: all, with a token.")]
PortFlag = Annotated[int, typer.Option(metavar="N", min=0, max=65535, help="Port to listen at; 0: any that is free.")]
TokenFlag = Annotated[str | None, typer.Option("--token", hidden=True)]
TokenFileFlag = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", help="File with the token for clients; default: IMPASTO_TOKEN, or a random one if needed."
    ),
]
AccessFlag = Annotated[
    Path | None, typer.Option("--access-log", metavar="FILE", help="Write a line of JSON per request; -: to stderr.")
]
ProxyFlag = Annotated[
    list[str] | None,
    typer.Option("--proxy", metavar="ADDRESS", help="A trusted proxy, whose X-Forwarded-For is used; repeatable."),
]
DevicesFlag = Annotated[
    list[str] | None,
    typer.Option(
        "--device",
        metavar="NAME",
        parser=early_checks.check_device,
        callback=early_devices.check_devices,
        help="auto, cpu, cuda, mps; repeatable: one worker each.",
    ),
]
BrowserFlag = Annotated[
    bool | None,
    typer.Option("--browser/--no-browser", help="Open the page in the browser; default: if there is a screen."),
]
PageFlag = Annotated[bool, typer.Option("--page/--no-page", help="The page for people beside the interface.")]


def serve(
    ctx: typer.Context,
    host: HostFlag = "127.0.0.1",
    port: PortFlag = 7860,
    token: TokenFlag = None,
    token_file: TokenFileFlag = None,
    device: DevicesFlag = None,
    page: PageFlag = True,
    browser: BrowserFlag = None,
    access_log: AccessFlag = None,
    proxy: ProxyFlag = None,
    json: flags.JsonFlag = False,
    quiet: flags.QuietFlag = False,
) -> None:
    """Serve a page in the browser and an HTTP interface: [bold]impasto serve[/bold], then open what it prints.

    Its limits are flags, such as --max-pixels 10000000: [bold]impasto serve --limits[/bold] lists them.
    """
    terminal.be_quiet(quiet)
    words = list(ctx.args)
    if "--limits" in words and words != ["--limits"]:
        raise OptionError("--limits lists the limits and takes nothing else: impasto serve --limits")
    if words != ["--limits"]:
        extra, _ = early_checks.check_words(
            ctx, words, "impasto.server.limits", "Limits", "serve", listing="impasto serve --limits"
        )
        if extra:
            raise ImpastoError(f"impasto serve takes no files: {extra[0]}")
    _check_extras()
    _check_proxies(proxy or [])
    atexit.register(_leave)  # before multiprocessing's own handler, so that it runs after it
    from impasto.server.wire import process_context

    if words == ["--limits"]:
        from impasto.server.limits import Limits

        _list_limits(Limits, json)
        return
    secret = _choose_token(host, token, token_file)
    _log_access(access_log)
    process_context()
    from impasto.server.limits import Limits
    from impasto.server.listen import Place, bind, own_folder

    listener = bind(host, port)

    _, values = arguments.take_flags(ctx, words, Limits, "serve", "impasto serve --limits")
    limits = Limits.choose(values, own_machine=host in LOOPBACK and not secret and not proxy)
    with _ending_well(), listener, own_folder(Path(tempfile.gettempdir())) as folder:
        from impasto.runs.painting import pick_device

        devices = list(dict.fromkeys(pick_device(name) for name in device or ["auto"]))
        place = Place(listener, host, secret, tuple(proxy or ()))
        opens = page and (_has_screen() and host in LOOPBACK and not json if browser is None else browser)
        _run(devices, limits, folder, place, page, json, opens)


@contextmanager
def _ending_well() -> Iterator[None]:
    """Let SIGTERM end the program like Ctrl-C, so that no files of users stay on disk."""
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _log_faults() -> None:
    """Log the server's faults to stderr with their traceback, as its answers promise."""
    from impasto.server.worker import SafeFormatter

    handler = logging.StreamHandler()
    handler.setFormatter(SafeFormatter("%(levelname)s: %(message)s"))
    logger = logging.getLogger("impasto.server")
    logger.handlers, logger.propagate = [handler], False


def _log_access(path: Path | None) -> None:
    """Write the access log to a file, reopened if it is renamed, or to stderr; raises ImpastoError."""
    if path is None:
        return
    try:
        handler = logging.StreamHandler() if str(path) == "-" else logging.handlers.WatchedFileHandler(path)
    except OSError as error:
        raise ImpastoError(f"--access-log {path} can't be written: {error.strerror}") from None
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger = logging.getLogger("impasto-access")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logger.addHandler(handler)


def _check_extras() -> None:
    for module in ("fastapi", "uvicorn", "python_multipart"):
        if importlib.util.find_spec(module) is None:
            raise ImpastoError(f"impasto serve needs {module}: pip install 'impasto[serve]'")


def _check_proxies(addresses: list[str]) -> None:
    """Raise OptionError for the address of a proxy that is none."""
    import ipaddress

    for address in addresses:
        try:
            ipaddress.ip_network(address, strict=False)
        except ValueError:
            raise OptionError(
                f"--proxy takes the address of a proxy, such as 10.0.0.2 or 10.0.0.0/8, not {address!r}"
            ) from None


def _list_limits(limits: type[Limits], json: bool) -> None:
    from impasto.commands.methods_table import describe_options, show_options

    terminal.print_json(describe_options(limits)) if json else show_options(limits)


def _choose_token(host: str, word: str | None, file: Path | None) -> str:
    """Return the token for clients, empty for none; raises ImpastoError if it is too short."""
    import secrets

    if word is not None:
        raise ImpastoError("a token on the command line can be read by everybody: give --token-file or IMPASTO_TOKEN")
    token = os.environ.pop("IMPASTO_TOKEN", None)  # workers must not inherit it
    if file is not None:
        try:
            with file.open("rb") as opened:
                token = opened.read(LONGEST_TOKEN + 1).decode("ascii", "replace").strip()
                if os.name == "posix" and os.fstat(opened.fileno()).st_mode & 0o077:
                    log.warning("other users can read %s: chmod 600 %s", file, file)
        except OSError as error:
            raise ImpastoError(f"--token-file {file} can't be read: {error.strerror}") from None
    if token is not None and (len(token) < 8 or not token.isascii() or not token.isprintable() or " " in token):
        raise ImpastoError("a token has at least 8 characters of ASCII and no spaces")
    if token is not None and len(token) > LONGEST_TOKEN:
        raise ImpastoError(f"a token has at most {LONGEST_TOKEN} characters")
    return token or ("" if host in LOOPBACK else secrets.token_urlsafe(24))


def _has_screen() -> bool:
    """Return whether this machine has a desktop with a user."""
    shown = sys.platform in ("darwin", "win32") or any(map(os.environ.get, ("DISPLAY", "WAYLAND_DISPLAY")))
    return shown and sys.stdout.isatty()


def _run(
    devices: list[str], limits: Limits, folder: Path, place: Place, page: bool, json: bool, opens: bool = False
) -> None:
    """Serve until Ctrl-C or SIGTERM."""
    _log_faults()
    own = folder / "page"
    own.mkdir()
    os.environ |= {"GRADIO_TEMP_DIR": str(own), "GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_OFFLINE": "1"}
    os.environ["GRADIO_QUEUE_SESSION_RESUME_TTL"] = "30"
    from impasto.server.app import create_app
    from impasto.server.connections import Connections
    from impasto.server.listen import make_server
    from impasto.server.studio import Studio

    def announce() -> None:
        terminal.print_json({"url": place.url, "devices": devices}, line=True) if json else terminal.say(place.url)
        if opens:
            import webbrowser

            threading.Thread(target=webbrowser.open, args=(place.url,), daemon=True).start()

    studio = Studio(devices, limits, folder)
    try:
        connections = Connections(limits, frozenset(place.proxies))
        app: Any = create_app(studio, token=place.token, connections=connections)
        if page:
            from impasto.server.site_routes import add_pages

            add_pages(app, studio)
        studio.warm_up()
        log.info("serving on %s; Ctrl-C ends it", ", ".join(devices))
        server = make_server(app, studio, connections, announce, place.proxies)
        try:
            server.run([place.listener])
        except (KeyboardInterrupt, SystemExit):  # how a server ends
            if not server.started:
                raise
        ENDED.append(True)
    finally:
        studio.close()


def _leave() -> None:
    """End the process at once after serving: Python would need seconds to unload torch on a busy machine."""
    if ENDED:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)
