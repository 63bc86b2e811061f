"""The ratios on this processor and on lesser ones: with AVX2 alone, and with torch's default kernels.

    python benchmarks/processors.py --threads 2
    python benchmarks/processors.py --kinds this --optimised 3     (the optimising methods here, and nothing else new)

Every turn starts one process for each kind of processor, one after the other, with the variables that switch the other
kernels off. A process times yardsticks and methods in turns at 512 px: one-pass methods in passes of VGG-19 to relu4_1,
optimising ones in passes to relu5_1 and back. Medians over rounds and turns; quotient: a kind's ratio by this
processor's. Goal: at most 1.3 of it, as the yardstick gets slower, too.
--clock cpu counts the time of the processor alone, for machines on which others work.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from statistics import median
from typing import Any

from measuring import make_picture, show, summarize, surroundings, time_interleaved, yardstick

KINDS = {
    "this": {},
    "avx2": {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"},
    "default": {
        "ATEN_CPU_CAPABILITY": "default",
        "ONEDNN_MAX_CPU_ISA": "SSE41",
        "MKL_ENABLE_INSTRUCTIONS": "SSE4_2",
    },
}
SIDE = 512
ONE_PASS = (
    ("swift", "auto"),
    ("nnst_d", "auto"),
    ("adain", "auto"),
    ("johnson", "auto"),
    ("johnson", "fp32"),
    ("conditional_norm", "fp32"),
)
OPTIMISING = (("gatys", "default"), ("nnst", "default"), ("nnst", "draft"))
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


def main() -> None:
    arguments = parse()
    if arguments.child:
        print(json.dumps(measure(arguments)))
        return
    ratios: dict[str, dict[str, list[float]]] = {}
    for turn in range(arguments.turns):
        for kind in arguments.kinds:
            print(f"turn {turn + 1} of {arguments.turns}: {kind}", file=sys.stderr)
            for name, ratio in run(kind, arguments).items():
                ratios.setdefault(name, {}).setdefault(kind, []).append(ratio)
    rows = [row(name, found, arguments.kinds) for name, found in ratios.items()]
    show({"benchmark": "processors", "surroundings": surroundings(arguments.threads), "ratios": ratios}, rows)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=["this", "avx2"])
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5, help="rounds of the one-pass methods in each process")
    parser.add_argument("--optimised", type=int, default=1, help="rounds of the optimising methods in each process")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def run(kind: str, arguments: argparse.Namespace) -> dict[str, float]:
    """The ratios that a process with this kind's variables finds, by what was measured."""
    words = [sys.executable, __file__, "--child", "--rounds", str(arguments.rounds), "--clock", arguments.clock]
    words += ["--optimised", str(arguments.optimised)]
    words += ["--threads", str(arguments.threads)] if arguments.threads else []
    done = subprocess.run(words, env={**os.environ, **KINDS[kind]}, check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def measure(arguments: argparse.Namespace) -> dict[str, float]:
    """The ratios in this process."""
    surroundings(arguments.threads)
    clock = CLOCKS[arguments.clock]
    found: dict[str, float] = {}
    if arguments.rounds:
        works = {f"{name} {precision}": one_pass(name, precision) for name, precision in ONE_PASS}
        found |= ratios_of(works, yardstick("relu4_1", SIDE), arguments.rounds, clock)
    if arguments.optimised:
        works = {f"{name} {preset}": optimising(name, preset) for name, preset in OPTIMISING}
        found |= ratios_of(works, yardstick("relu5_1", SIDE, backward=True), arguments.optimised, clock)
    return found


def ratios_of(
    works: dict[str, Callable[[], object]], measure: Callable[[], None], rounds: int, clock: Callable[[], float]
) -> dict[str, float]:
    """Each work's median time in units of the yardstick's; it runs before and after each of them."""
    turns: dict[str, Callable[[], object]] = {}
    for name, work in works.items():
        turns |= {f"yardstick {name}": measure, name: work}
    measure()
    found = time_interleaved(turns, rounds, warm_up=1 if rounds > 1 else 0, clock=clock)
    unit = median(seconds for name in works for seconds in found[f"yardstick {name}"])
    return {name: summarize(found[name])["median"] / unit for name in works}


def one_pass(name: str, precision: str) -> Callable[[], object]:
    """A picture by a one-pass method, the painting's encoding included."""
    import impasto

    model: Any = impasto.load(name, precision=precision)
    photo = make_picture(SIDE, SIDE)
    style = next(iter(model.learned.values())) if hasattr(model, "learned") else make_picture(SIDE, SIDE, seed=1)
    return lambda: model.stylize(photo, style)


def optimising(name: str, preset: str) -> Callable[[], object]:
    """A picture by an optimising method, the painting's encoding included."""
    import impasto

    model: Any = impasto.load(name, preset=preset)
    photo, painting = make_picture(SIDE, SIDE), make_picture(SIDE, SIDE, seed=1)
    return lambda: model.stylize(photo, painting)


def row(name: str, found: dict[str, list[float]], kinds: list[str]) -> dict[str, Any]:
    """One line of the table."""
    medians = {kind: median(found[kind]) for kind in kinds}
    first = medians[kinds[0]]
    quotients = {f"{kind} by {kinds[0]}": medians[kind] / first for kind in kinds[1:]}
    return {"method": name, **medians, **quotients}


if __name__ == "__main__":
    main()
