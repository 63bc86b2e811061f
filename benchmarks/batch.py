"""`impasto batch`: what a picture costs beyond the model's own time, here and by a pool of Ray's workers.

    python benchmarks/batch.py
    python benchmarks/batch.py --side 1024 --photos 12 --rounds 5 --threads 2 --format jpg
    python benchmarks/batch.py --workers 1 2

In one process, in turns: the model's calls alone, photos and style being tensors already; and the whole work of
`impasto batch` over the same photos as JPEG files: reading, decoding, painting, encoding and writing with the run
record. Both are wall time and processor time (of all threads) a picture. Goal: wall time within 15 % of the model's.

With --workers, the same photos by `impasto batch --engine ray` as a process of its own, with so many workers: seconds
until the first picture is told of, and until the end, beside what `start + pictures * time of one / workers` gives, the
start and the time of one being those of the first number of workers.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from measuring import make_picture, show, summarize, surroundings


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--method", default="wct")
    parser.add_argument("--style", default="udnie")
    parser.add_argument("--side", type=int, default=1024)
    parser.add_argument("--photos", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--format", default="png")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--workers", type=int, nargs="*", default=[], help="measure --engine ray, too")
    arguments = parser.parse_args()
    about = surroundings(arguments.threads)
    with tempfile.TemporaryDirectory() as folder:
        photos = write_photos(Path(folder, "photos"), arguments.photos, arguments.side)
        rows = [measure_here(arguments, photos, Path(folder, "out"))]
        pools = measure_pools(arguments, photos, Path(folder, "pools"))
    show({"benchmark": "batch", "surroundings": about, "rows": rows, "pools": pools}, rows)
    if pools:
        show({}, pools)


def write_photos(folder: Path, count: int, side: int) -> Path:
    """JPEG files of `side` by three quarters of it."""
    from impasto.images.files import write_image

    folder.mkdir()
    for number in range(count):
        write_image(make_picture(side * 3 // 4, side, number), folder / f"{number}.jpg")
    return folder


def measure_here(arguments: argparse.Namespace, photos: Path, out: Path) -> dict[str, Any]:
    """Milliseconds a picture: the model's alone, and with all that `impasto batch` does."""
    from impasto.batch.local_engine import LocalEngine
    from impasto.batch.plan import make_plan
    from impasto.images.files import read_image
    from impasto.runs.record import Recipe
    from impasto.stylizers.styles import load_style

    base = Recipe.parse({"method": arguments.method}, "batch")
    plan = make_plan(base, [str(photos)], [arguments.style], out, suffix=f".{arguments.format}", force=True)
    out.mkdir()
    engine, items = LocalEngine(plan, "auto", "torch"), plan.items()
    model = engine.painters[0].model
    tensors = [read_image(item.content) for item in items]
    style = model.accept_style(load_style(arguments.style))
    taken = alternate(
        {
            "model": lambda: [model.transfer(tensor, style).cpu() for tensor in tensors],
            "batch": lambda: engine.paint(items, Silent()),
        },
        arguments.rounds,
    )
    found = {
        name: [1000 * summarize(clock)["median"] / len(items) for clock in clocks] for name, clocks in taken.items()
    }
    return {
        "method": arguments.method,
        "side": arguments.side,
        "format": arguments.format,
        "model, ms": found["model"][0],
        "batch, ms": found["batch"][0],
        "batch / model": found["batch"][0] / found["model"][0],
        "model, processor ms": found["model"][1],
        "batch, processor ms": found["batch"][1],
    }


def alternate(works: dict[str, Callable[[], Any]], rounds: int) -> dict[str, tuple[list[float], list[float]]]:
    """Wall and processor seconds of `works`, which take turns; a first round warms up."""
    taken: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in works}
    for number in range(rounds + 1):
        for name, work in works.items():
            wall, processor = time.perf_counter(), time.process_time()
            work()
            if number:
                taken[name][0].append(time.perf_counter() - wall)
                taken[name][1].append(time.process_time() - processor)
    return taken


class Silent:
    """Whom pictures are told to; one that failed is no measurement."""

    def succeed(self, item: Any, report: dict[str, Any]) -> None:
        pass

    def fail(self, item: Any, told: str) -> None:
        raise RuntimeError(told)

    def within(self, step: Any) -> None:
        pass


def measure_pools(arguments: argparse.Namespace, photos: Path, out: Path) -> list[dict[str, Any]]:
    """A row for each number of workers."""
    from impasto.batch.ray_engine import MOST_PHOTOS, ROUNDS

    if not arguments.workers:
        return []
    found = [(workers, *time_pool(arguments, photos, out / str(workers), workers)) for workers in arguments.workers]
    rows = []
    base, begun, end = found[0]
    told = max(1, min(MOST_PHOTOS, arguments.photos // (base * ROUNDS)))  # those of the first task, together
    one = (end - begun) * base / (arguments.photos - told)
    for workers, first, last in found:
        foretold = begun - told * one + arguments.photos * one / workers
        rows.append({"workers": workers, "first pictures, s": first, "all, s": last, "foretold, s": foretold})
    return rows


def time_pool(arguments: argparse.Namespace, photos: Path, out: Path, workers: int) -> tuple[float, float]:
    """Seconds until the first picture is told of, and until all are there."""
    words = [
        sys.executable,
        "-m",
        "impasto",
        "batch",
        str(photos),
        "--style",
        arguments.style,
        "-o",
        str(out),
        "--quiet",
    ]
    words += ["-m", arguments.method, "--engine", "ray", "--workers", str(workers), "--format", arguments.format]
    began = time.perf_counter()
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        first = time.perf_counter() - began
        process.stdout.read()
    assert process.returncode == 0
    return first, time.perf_counter() - began


if __name__ == "__main__":
    main()
