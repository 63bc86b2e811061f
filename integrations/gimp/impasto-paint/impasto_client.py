"""Talk to a local impasto server with nothing but the standard library: GIMP's own Python has no torch.

Run as a program with --leash it waits for its standard input to close, and then ends what the plug-in left behind: GIMP
kills a plug-in when the user presses Cancel.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

ADDRESS = "http://127.0.0.1:7860"
POLL_SECONDS = 0.25
LIMITS = {
    "max-bytes": 1_000_000_000,
    "max-pixels": 200_000_000,
    "max-side": 100_000,
    "max-output": 200_000_000,
    "max-work": 10**12,
    "max-seconds": 86_400,
    "receive-seconds": 600,
}
"""What a server of our own allows: all that the command line does."""

ENDED = ("done", "failed", "cancelled")

OnProgress = Callable[[float | None], None]
"""Called with the share that is done, or None if it is not known."""


class Problem(Exception):
    """What went wrong, in one line for the user."""


class Server:
    """A server at `address`. token: what it asks for, empty for none."""

    def __init__(self, address: str = ADDRESS, token: str = "") -> None:
        self.address, self.token = address.rstrip("/"), token
        self._open = urllib.request.build_opener(urllib.request.ProxyHandler({})).open

    def answers(self) -> bool:
        """Return whether it can be reached and works."""
        try:
            self.ask("GET", "/ready", seconds=3)
        except Problem:
            return False
        return True

    def style_names(self) -> list[str]:
        """Return the names of the built-in styles."""
        return [style["name"] for style in json.loads(self.ask("GET", "/v1/styles"))]

    def method_names(self) -> list[str]:
        """Return the names of the methods, the default one first."""
        found = json.loads(self.ask("GET", "/v1/methods"))
        return [method["name"] for method in sorted(found, key=lambda method: not method["default"])]

    def paint(
        self,
        picture: bytes,
        *,
        style: str = "",
        painting: bytes | None = None,
        on_progress: OnProgress = lambda share: None,
        leash: Leash | None = None,
        **wishes: Any,
    ) -> bytes:
        """Return `picture`, a PNG, as a painted PNG, in the built-in `style` or in the style of `painting`.

        wishes: further fields of the request, such as method, strength or seed. Raises Problem.
        """
        values = {"format": "png", **wishes} | ({"styles": style} if painting is None else {})
        files = {"content": picture} | ({} if painting is None else {"paintings": painting})
        job = json.loads(self.ask("POST", "/v1/stylize?wait=false", encode_form(values, files)))
        place = f"/v1/jobs/{job['id']}"
        if leash:
            leash.hold_job(self, place)
        try:
            while job["state"] not in ENDED:
                on_progress(job["step"] / job["steps"] if job["steps"] else None)
                time.sleep(POLL_SECONDS)
                job = json.loads(self.ask("GET", place))
            if job["error"]:
                raise Problem(job["error"])
            return self.ask("GET", f"{place}/result")
        finally:
            self.forget(place)

    def forget(self, place: str) -> None:
        """End the job at `place`, if it still runs, and drop its result."""
        with contextlib.suppress(Problem):  # it is gone already, or the server is
            self.ask("DELETE", place, seconds=5)

    def ask(self, method: str, path: str, form: tuple[bytes, str] | None = None, seconds: float = 60) -> bytes:
        """Send one request, with a body and its type, and return the body of the answer; raises Problem."""
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        data = None
        if form is not None:
            data, headers["Content-Type"] = form
        request = urllib.request.Request(self.address + path, data, headers, method=method)
        try:
            with self._open(request, timeout=seconds) as answer:
                return bytes(answer.read())
        except urllib.error.HTTPError as error:
            raise Problem(_reason(error)) from None
        except (OSError, ValueError) as error:
            raise Problem(f"no impasto server answers at {self.address}: {error}") from None


def encode_form(values: dict[str, Any], files: dict[str, bytes]) -> tuple[bytes, str]:
    """Return multipart/form-data and its type: PNG needs a third less than in base64."""
    mark = secrets.token_hex(16)
    parts = [(f'name="{name}"', str(value).encode()) for name, value in values.items()]
    parts += [(f'name="{name}"; filename="{name}.png"', data) for name, data in files.items()]
    lines = [f"--{mark}\r\nContent-Disposition: form-data; {head}\r\n\r\n".encode() + body for head, body in parts]
    return b"\r\n".join([*lines, f"--{mark}--\r\n".encode()]), f"multipart/form-data; boundary={mark}"


def _reason(error: urllib.error.HTTPError) -> str:
    try:
        return str(json.loads(error.read())["error"])
    except (ValueError, KeyError, TypeError):
        return f"the server answered {error.code} {error.reason}"


@contextmanager
def reach(address: str, leash: Leash | None = None) -> Iterator[Server]:
    """Give the server at `address`; if none answers there, start one for as long as it is needed. Raises Problem.

    It is started with the command ``impasto``, or what IMPASTO_COMMAND names; IMPASTO_TOKEN is the token.
    """
    server = Server(address, os.environ.get("IMPASTO_TOKEN", ""))
    if server.answers():
        yield server
        return
    process = _start()
    if leash:
        leash.hold_process(process.pid)
    try:
        yield Server(_address_of(process))
    finally:
        process.terminate()
        process.communicate()


def _start() -> subprocess.Popen[str]:
    """Start a server of our own, on any free port."""
    command = os.environ.get("IMPASTO_COMMAND") or shutil.which("impasto")
    if command is None:
        raise Problem("no impasto server answers and the command impasto is not found: start `impasto serve` first")
    own = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "IMPASTO_TOKEN"))}
    words = [command, "serve", "--no-page", "--port", "0", "--json", "--quiet"]
    words += [f"--{name}={value}" for name, value in LIMITS.items()]
    try:
        return subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, env=own)
    except OSError as error:
        raise Problem(f"{command} can't be started: {error.strerror}") from None


def _address_of(process: subprocess.Popen[str]) -> str:
    """Wait for the line in which the server says where it is."""
    assert process.stdout is not None
    line = process.stdout.readline()
    try:
        return str(json.loads(line)["url"])
    except (ValueError, KeyError):
        raise Problem("impasto serve did not start: run `impasto serve --no-page` in a terminal to see why") from None


class Leash:
    """A small process that ends jobs and servers of ours if this one is killed."""

    def __init__(self) -> None:
        words = [sys.executable, os.path.abspath(__file__), "--leash"]
        self._process = subprocess.Popen(words, stdin=subprocess.PIPE, text=True, start_new_session=True)

    def hold_job(self, server: Server, place: str) -> None:
        """End the job at `place` if this process dies."""
        self._tell("job", server.address, server.token, place)

    def hold_process(self, pid: int) -> None:
        """End the process `pid` if this one dies."""
        self._tell("process", pid)

    def release(self) -> None:
        """Everything ended well: there is nothing left to end."""
        self._tell("release")
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def _tell(self, *words: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(words) + "\n")
        self._process.stdin.flush()


def hold_leash() -> None:
    """Wait until the other end is gone; then end what it held."""
    held: list[list[Any]] = []
    for line in sys.stdin:
        words = json.loads(line)
        held = [] if words[0] == "release" else [*held, words]
    for kind, *rest in held:
        if kind == "job":
            Server(rest[0], rest[1]).forget(rest[2])
        else:
            with contextlib.suppress(OSError):  # it ended by itself
                os.kill(rest[0], signal.SIGTERM)


if __name__ == "__main__" and sys.argv[1:] == ["--leash"]:
    hold_leash()
