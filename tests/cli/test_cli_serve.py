"""`impasto serve` on the command line: limits, tokens, what is missing; the README's examples against a real server."""

from __future__ import annotations

import base64
import contextlib
import functools
import http.client
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="the extra serve is not installed")

from cli_support import Shell, make_backbone, open_shell
from impasto.cli import serve
from impasto.errors import ImpastoError
from impasto.images.files import open_picture, read_image
from impasto.server.app import create_app
from impasto.server.limits import Limits
from impasto.server.listen import Place, bind, own_address
from impasto.server.studio import Studio
from server_support import picture_bytes, start_thread, wait_until

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")


@pytest.fixture
def shell(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Shell:
    monkeypatch.chdir(tmp_path)
    return open_shell(tmp_path, make_backbone(tmp_path / "backbone.safetensors"), capsys)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What would be served."""
    found: dict[str, Any] = {}

    def run(*values: Any) -> None:
        found.update(zip(("devices", "limits", "folder", "place", "page", "json", "opens"), values, strict=True))
        assert found["folder"].is_dir()

    monkeypatch.setattr(serve, "_run", run)
    return found


def test_it_serves_this_machine_only_by_default(shell: Shell, asked: dict[str, Any]) -> None:
    shell.run("serve", "--no-page", "--port", "0").good()
    assert (asked["place"].host, asked["place"].token) == ("127.0.0.1", "")
    assert asked["place"].listener.fileno() == -1
    assert not asked["folder"].exists()


def test_its_own_machine_alone_is_served_without_limits_for_strangers(shell: Shell, asked: dict[str, Any]) -> None:
    shell.run("serve", "--no-page", "--port", "0").good()
    assert asked["limits"] == Limits.choose({}, own_machine=True)
    assert asked["limits"].max_output > 100_000_000
    shell.run("serve", "--no-page", "--port", "0", "--proxy", "127.0.0.1").good()
    assert (asked["limits"], asked["place"].proxies) == (Limits(), ("127.0.0.1",))
    shell.run("serve", "--no-page", "--port", "0", "--max-output", "1000").good()
    assert asked["limits"].max_output == 1000


def test_other_machines_need_a_token(shell: Shell, asked: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    shell.run("serve", "--no-page", "--port", "0", "--host", "0.0.0.0").good()
    assert len(asked["place"].token) >= 24
    assert asked["limits"] == Limits()
    monkeypatch.setenv("IMPASTO_TOKEN", "my-own-token")
    shell.run("serve", "--no-page", "--port", "0", "--host", "0.0.0.0").good()
    assert asked["place"].token == "my-own-token"
    assert "IMPASTO_TOKEN" not in os.environ
    (shell.folder / "token").write_text("from-a-file\n")
    (shell.folder / "token").chmod(0o640)
    done = shell.run("serve", "--no-page", "--port", "0", "--token-file", "token").good()
    assert asked["place"].token == "from-a-file"
    assert "chmod 600 token" in done.err
    (shell.folder / "token").chmod(0o600)
    assert "chmod" not in shell.run("serve", "--no-page", "--port", "0", "--token-file", "token").good().err


def test_the_printed_address_is_one_that_others_can_open() -> None:
    with bind("0.0.0.0", 0) as listener:
        port = listener.getsockname()[1]
        assert Place(listener, "0.0.0.0", "abc").url == f"http://{own_address()}:{port}/?token=abc"
        assert own_address() != "0.0.0.0"
        assert Place(listener, "::1", "").url == f"http://[::1]:{port}/"


def test_a_token_on_the_command_line_is_refused(shell: Shell, asked: dict[str, Any]) -> None:
    done = shell.run("serve", "--no-page", "--token", "secret-token")
    assert (done.code, asked) == (2, {})
    assert "give --token-file or IMPASTO_TOKEN" in done.err
    assert "secret-token" not in done.err


def test_a_port_that_is_taken_costs_one_line(shell: Shell, asked: dict[str, Any]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = shell.run("serve", "--no-page", "--port", str(port))
    assert (done.code, done.out, asked) == (2, "", {})
    assert f"port {port} is taken" in done.err
    assert len(done.err.strip().splitlines()) == 1


def test_folders_of_killed_servers_are_removed(tmp_path: Path) -> None:
    from impasto.server.listen import own_folder

    with own_folder(tmp_path) as running:
        dead = tmp_path / "impasto-serve-dead"
        (dead / "page").mkdir(parents=True)
        (dead / "lock").touch()
        (tmp_path / "impasto-serve-mine").mkdir()
        with own_folder(tmp_path) as folder:
            left = {path.name for path in tmp_path.iterdir()}
            assert left == {running.name, folder.name, "impasto-serve-mine"}
            assert folder.stat().st_mode & 0o077 == 0
    assert [path.name for path in tmp_path.iterdir()] == ["impasto-serve-mine"]


def test_the_browser_opens_only_where_somebody_sits(
    shell: Shell, asked: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serve, "_has_screen", lambda: True)
    shell.run("serve", "--port", "0").good()
    assert asked["opens"]
    for words in (["--no-browser"], ["--no-page"], ["--json"]):
        shell.run("serve", "--port", "0", *words).good()
        assert not asked["opens"]
    monkeypatch.setattr(serve, "_has_screen", lambda: False)
    shell.run("serve", "--port", "0").good()
    assert not asked["opens"]


def test_limits_are_flags(shell: Shell, asked: dict[str, Any]) -> None:
    shell.run("serve", "--no-page", "--port", "0", "--max-pixels", "1000000", "--max-waiting=3").good()
    assert (asked["limits"].max_pixels, asked["limits"].max_waiting) == (1_000_000, 3)
    message = shell.run("serve", "--limits").good().out
    assert all(f"--{name.replace('_', '-')}" in message for name in Limits.model_fields)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--max-pixel", "9"], r"no option --max-pixel \(did you mean --max-pixels"),
        (["--max-pixels", "none"], "max-pixels must be a whole number"),
        (["photo.png"], "takes no files: photo.png"),
        (["--token-file", "none"], "--token-file none can't be read: No such file"),
        (["--token-file", "photo.png"], "at least 8 characters of ASCII"),
        (["--device", "abacus", "--port", "0"], "--device is one of auto, cpu, cuda, mps"),
        (["--host", "not an address"], "no address of this machine"),
        (["--host", "192.0.2.1"], "192.0.2.1 port 7860 can't be listened at"),
        (["--access-log", "nowhere/x", "--port", "0"], "--access-log nowhere/x can't be written: No such file"),
    ],
)
def test_mistakes(shell: Shell, asked: dict[str, Any], words: list[str], message: str) -> None:
    done = shell.run("serve", "--no-page", *words)
    assert (done.code, done.out, asked) == (2, "", {})
    assert re.search(message, done.err), done.err


def test_what_is_missing_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    serve._check_extras()
    monkeypatch.setattr(serve.importlib.util, "find_spec", lambda name: None if name == "uvicorn" else object())
    with pytest.raises(ImpastoError, match=r"needs uvicorn: pip install 'impasto\[serve\]'"):
        serve._check_extras()


# --- a process of its own


def start(folder: Path, *words: str) -> subprocess.Popen[str]:
    folder.mkdir()
    line = [sys.executable, "-m", "impasto", "serve", "--no-page", "--port", "0", *words]
    surroundings = {**os.environ, "TMPDIR": str(folder), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(line, stdout=subprocess.PIPE, text=True, env=surroundings, start_new_session=True)


def ask(address: str, path: str, order: dict[str, Any] | None = None) -> tuple[int, bytes]:
    """The answer's status and body."""
    with contextlib.closing(http.client.HTTPConnection(address, timeout=120)) as connection:
        body = None if order is None else json.dumps(order)
        connection.request("GET" if body is None else "POST", path, body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        return answer.status, answer.read()


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGTERM")
def test_a_process_serves_and_ends_well(tmp_path: Path) -> None:
    log = tmp_path / "access"
    with start(tmp_path / "own", "--json", "--access-log", str(log)) as process:
        try:
            assert process.stdout is not None
            address = json.loads(process.stdout.readline())["url"].removeprefix("http://").rstrip("/")
            assert list((tmp_path / "own").glob("impasto-serve-*"))
            assert ask(address, "/health")[0] == 200
            photo = base64.b64encode(picture_bytes()).decode()
            status, picture = ask(address, "/v1/stylize", {"content": photo, "styles": ["udnie"], "method": "adain"})
            assert status == 200
            assert open_picture(io.BytesIO(picture)).size == (36, 48)
            assert end_while_painting(address, photo, process) == (503, "the server is shutting down")
            assert process.wait(60) == 0
        finally:
            process.kill()
    assert list((tmp_path / "own").iterdir()) == []
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [(one["route"], one["status"]) for one in lines if one["route"] != "/metrics"] == [
        ("/health", 200),
        ("/v1/stylize", 200),
        ("/v1/stylize", 503),
    ]


def end_while_painting(address: str, photo: str, process: subprocess.Popen[str]) -> tuple[int, str]:
    """Status and error of a request during which the server is asked to end."""
    found: list[tuple[int, bytes]] = []
    settings = {"content": photo, "styles": ["udnie"], "method": "gatys", "options": {"steps": 100_000}}
    waiting = threading.Thread(target=lambda: found.append(ask(address, "/v1/stylize", settings)))
    waiting.start()
    wait_until(lambda: b'impasto_jobs_running{device="cpu"} 1' in ask(address, "/metrics")[1], 60)
    os.killpg(process.pid, signal.SIGTERM)  # as systemd does: to all processes of a service
    waiting.join(60)
    ((status, body),) = found
    return status, json.loads(body)["error"].split(":")[0]


# --- the README


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    import uvicorn

    folder = tmp_path / "server"
    folder.mkdir()
    studio = Studio(["cpu"], Limits(), folder, functools.partial(start_thread, folder))
    server = uvicorn.Server(uvicorn.Config(create_app(studio), "127.0.0.1", 0, log_level="warning"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    wait_until(lambda: server.started)
    yield f"127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join(20)


@pytest.mark.slow
def test_the_readmes_examples_work(shell: Shell, address: str) -> None:
    (shell.folder / "photo.png").rename(shell.folder / "photo.jpg")
    curl = re.search(r"^curl .*$", README, re.MULTILINE)
    python = re.search(r"```python\n(import base64.*?)```", README, re.DOTALL)
    assert curl
    assert python
    for command in (["sh", "-c", curl[0]], [sys.executable, "-c", python[1]]):
        command[-1] = command[-1].replace("127.0.0.1:7860", address)
        subprocess.run(command, check=True, timeout=120, cwd=shell.folder)
        (picture,) = shell.folder.glob("out.*")
        assert read_image(picture).shape == (1, 3, 36, 48)
        picture.unlink()
