"""The method gatys with its defaults: time, memory, and how much style loss is left.

    python benchmarks/gatys.py
    python benchmarks/gatys.py --loss-network TEACHER --contents PHOTOS --styles PAINTINGS --pairs 6

time:   wall time of `stylize` at 512x512 in ratio to one forward and backward pass of torchvision's VGG-19 (random
        weights) up to relu5_1, in fp32, at 512x512, in the same process; medians of interleaved rounds.
        Goal: at most 6. --clock cpu counts the time of the processor alone, for machines on which others work.
memory: peak resident memory of a whole process that stylizes at 1024x1024. Goal: below 3 GB.
style:  style loss in percent of the unstylized photo's own, over the first pairs of two folders. Goal: at most 6.

--skip leaves a part out. Options after -- go to the method: ... -- --steps 3 --octaves 0.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from measuring import make_picture, show, summarize, surroundings, time_interleaved, yardstick

PARTS = ("time", "memory", "style")
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


def main() -> None:
    arguments = parse()
    if arguments.child:
        stylize_once(arguments.memory_side, arguments.options)
        return
    result: dict[str, Any] = {"benchmark": "gatys"}
    if "memory" not in arguments.skip:  # first: a child's peak includes its parent's, small without torch
        result["memory"] = measure_memory(arguments)
    result["surroundings"] = surroundings(arguments.threads)
    if "time" not in arguments.skip:
        result["time"] = measure_time(arguments)
    if "style" not in arguments.skip:
        result["style"] = measure_style(arguments)
    show(result, tabulate(result))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=512, help="side of the square picture that is timed")
    parser.add_argument("--memory-side", type=int, default=1024, help="side of the picture whose memory is measured")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    parser.add_argument("--skip", action="append", default=[], choices=PARTS)
    parser.add_argument("--loss-network", help="folder of a normalised VGG-19, or a name as for impasto evaluate")
    parser.add_argument("--contents", type=Path)
    parser.add_argument("--styles", type=Path)
    parser.add_argument("--pairs", type=int, default=6)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("options", nargs="*", help="options of the method, after --")
    found = parser.parse_args()
    if "style" not in found.skip and not (found.loss_network and found.contents and found.styles):
        found.skip.append("style")
        print("no style loss: it needs --loss-network, --contents and --styles", file=sys.stderr)
    return found


def load_gatys(words: list[str]) -> Any:
    """The method with options such as ["--steps", "3"]."""
    import impasto

    names = [word.removeprefix("--").replace("-", "_") for word in words[::2]]
    return impasto.load("gatys", **dict(zip(names, words[1::2], strict=True)))


def stylize_once(side: int, options: list[str]) -> None:
    load_gatys(options).stylize(make_picture(side, side), make_picture(side, side, seed=1))


def measure_memory(arguments: argparse.Namespace) -> dict[str, Any]:
    """Gigabytes (10^9 bytes) that a child held at most."""
    side = str(arguments.memory_side)
    command = [sys.executable, __file__, "--child", "--memory-side", side, "--skip", "style"]
    command += ["--", *arguments.options]
    subprocess.run(command, check=True)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return {"side": arguments.memory_side, "peak_gigabytes": peak / 1e9}


def measure_time(arguments: argparse.Namespace) -> dict[str, Any]:
    """The method's and the yardstick's seconds, and the ratio of their medians."""
    model, side = load_gatys(arguments.options), arguments.side
    photo, painting = make_picture(side, side), make_picture(side, side, seed=1)
    works = {
        "gatys": lambda: model.stylize(photo, painting),
        "yardstick": yardstick("relu5_1", side, backward=True),
    }
    taken = time_interleaved(works, arguments.rounds, clock=CLOCKS[arguments.clock])
    found = {name: summarize(seconds) for name, seconds in taken.items()}
    return {"side": side, **found, "ratio": found["gatys"]["median"] / found["yardstick"]["median"]}


def measure_style(arguments: argparse.Namespace) -> dict[str, Any]:
    """Style losses of a few pairs as the protocol measures them."""
    from impasto.evaluation import evaluate, load_loss_network, pair_up, stylize_pairs

    size = (arguments.side, arguments.side)
    pairs = pair_up(arguments.contents, arguments.styles, count=arguments.pairs)
    network = load_loss_network(arguments.loss_network)
    with tempfile.TemporaryDirectory() as folder:
        made = stylize_pairs(load_gatys(arguments.options), pairs, folder, size)
        found = evaluate(made, network, size=size)
    return {
        "loss_network": found.loss_network,
        "pairs": len(made),
        "percent": 100 * found.style_share,
        "percent_each": [100 * row.style_loss / row.photo_style_loss for row in found.rows],
        "means": found.means,
    }


def tabulate(result: dict[str, Any]) -> list[dict[str, Any]]:
    rows = []
    if "time" in result:
        side, ratio = result["time"]["side"], result["time"]["ratio"]
        rows.append({"what": f"time at {side}x{side}, in passes of VGG-19", "found": ratio, "goal": "at most 6"})
    if "memory" in result:
        side, peak = result["memory"]["side"], result["memory"]["peak_gigabytes"]
        rows.append({"what": f"peak memory at {side}x{side}, GB", "found": peak, "goal": "below 3"})
    if "style" in result:
        percent = result["style"]["percent"]
        rows.append({"what": "style loss, % of the photo's own", "found": percent, "goal": "at most 6"})
    return rows


if __name__ == "__main__":
    main()
