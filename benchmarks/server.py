"""The HTTP interface: what a request costs beyond the model's own time, and how it bears a crowd.

    python benchmarks/server.py
    python benchmarks/server.py --side 512 --rounds 30 --clients 32 --seconds 120

Starts `impasto serve --no-page` as a process of its own. First one client, request after request: its wall time less
the seconds that the answer says the model took. Then many clients at once without pause: what they were answered, how
often, and the server's resident memory, sampled throughout. Goals: below 50 ms beyond the model; every request answered
by a picture or by 429; memory flat.
"""

from __future__ import annotations

import argparse
import base64
import collections
import http.client
import json
import re
import socket
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

from measuring import make_picture, show, surroundings

METHOD = "adain"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=20)
    arguments = parser.parse_args()
    order = make_order(arguments.side)
    port = free_port()
    words = [sys.executable, "-m", "impasto", "serve", "--no-page", "--port", str(port)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        server.stdout.readline()  # it listens
        try:
            ask(port, order)
            beyond = [measure_once(port, order) for _ in range(arguments.rounds)]
            statuses, memory = crowd(port, order, server.pid, arguments.clients, arguments.seconds)
        finally:
            server.terminate()
    rows = [
        {
            "side": arguments.side,
            "beyond the model, median ms": 1000 * statistics.median(beyond),
            "slowest ms": 1000 * max(beyond),
            "clients": arguments.clients,
            "pictures": statuses.pop(200, 0),
            "refused with 429": statuses.pop(429, 0),
            "other answers": json.dumps(statuses),
            "memory at first, MB": memory[0],
            "memory at last, MB": memory[-1],
        }
    ]
    show({"benchmark": "server", "surroundings": surroundings(None), "rows": rows, "memory": memory}, rows)


def make_order(side: int) -> bytes:
    """A request's body: a photo as a JPEG, a built-in style."""
    from impasto.images.files import encode_picture

    photo = base64.b64encode(encode_picture(make_picture(side, side), "JPEG")).decode()
    return json.dumps({"content": photo, "styles": ["starry-night"], "method": METHOD, "format": "jpeg"}).encode()


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def ask(port: int, order: bytes) -> tuple[int, float]:
    """The answer's status and the model's seconds."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=300)
    try:
        connection.request("POST", "/v1/stylize", order, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        answer.read()
        return answer.status, float(answer.getheader("X-Impasto-Seconds") or 0)
    finally:
        connection.close()


def measure_once(port: int, order: bytes) -> float:
    """Seconds beyond the model's own."""
    start = time.perf_counter()
    status, seconds = ask(port, order)
    assert status == 200, status
    return time.perf_counter() - start - seconds


def crowd(port: int, order: bytes, pid: int, clients: int, seconds: float) -> tuple[dict[object, int], list[float]]:
    """How often each status was answered, and the server's resident memory in MB once a second."""
    statuses: collections.Counter[object] = collections.Counter()
    end = time.monotonic() + seconds

    def client() -> None:
        while time.monotonic() < end:
            try:
                statuses[ask(port, order)[0]] += 1
            except OSError as error:
                statuses[type(error).__name__] += 1

    threads = [threading.Thread(target=client) for _ in range(clients)]
    for thread in threads:
        thread.start()
    memory = []
    while any(thread.is_alive() for thread in threads):
        memory.append(resident(pid))
        time.sleep(1)
    return dict(statuses), [*memory, resident(pid)]


def resident(pid: int) -> float:
    """Megabytes of memory that a process holds; 0 where the system does not tell."""
    try:
        text = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    except OSError:
        return 0.0
    found = re.search(r"VmRSS:\s+(\d+) kB", text)
    return int(found[1]) / 1000 if found else 0.0


if __name__ == "__main__":
    main()
