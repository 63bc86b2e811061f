"""What painting costs beside another process that uses every core: the time there over the time alone.

    python benchmarks/busy_machine.py
    python benchmarks/busy_machine.py --side 64 --rounds 3 --busy 2

Each way of waiting (`impasto` as it sets itself, OMP_WAIT_POLICY=ACTIVE, PASSIVE, one thread) paints the same photo in
a process of its own, once alone and once beside as many busy processes as there are cores, in turns. Goal: as impasto
sets itself, twice the time of alone; ten times is a fault. Alone means nothing on a machine that is busy already.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from measuring import make_picture, show, surroundings

from impasto.images.files import write_image

WAYS: dict[str, dict[str, str]] = {
    "as impasto sets itself": {},
    "active": {"OMP_WAIT_POLICY": "ACTIVE"},
    "passive": {"OMP_WAIT_POLICY": "PASSIVE"},
    "one thread": {"OMP_NUM_THREADS": "1"},
}
SETTINGS = ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "KMP_BLOCKTIME")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--busy", type=int, default=os.cpu_count() or 1, help="busy processes beside it")
    arguments = parser.parse_args()
    seconds: dict[tuple[str, bool], list[float]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for seed, name in enumerate(("photo.png", "painting.png")):
            write_image(make_picture(arguments.side, arguments.side, seed), folder / name)
        for _ in range(arguments.rounds):
            for beside in (False, True):
                with busy(arguments.busy if beside else 0):
                    for way, settings in WAYS.items():
                        seconds.setdefault((way, beside), []).append(paint(folder, arguments.side, settings))
    rows = []
    for way in WAYS:
        alone, beside = (statistics.median(seconds[way, kind]) for kind in (False, True))
        rows.append({"threads": way, "alone, s": alone, "beside, s": beside, "ratio": beside / alone})
    show({"surroundings": surroundings(), "busy processes": arguments.busy, "rows": rows}, rows)


@contextlib.contextmanager
def busy(count: int) -> Iterator[None]:
    """So many processes that do nothing but use a core."""
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        time.sleep(1 if others else 0)
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def paint(folder: Path, side: int, settings: dict[str, str]) -> float:
    """Seconds of an optimisation of `side` px in a process of its own."""
    environment = {name: value for name, value in os.environ.items() if name not in SETTINGS}
    words = ["stylize", "photo.png", "painting.png", "-m", "gatys", "--size", str(side), "-o", "out.png", "--force"]
    start = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "impasto", *words, "--quiet"],
        cwd=folder,
        env=environment | settings,
        check=True,
        capture_output=True,
    )
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
