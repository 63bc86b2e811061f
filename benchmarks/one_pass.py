"""Every one-pass method: how long a picture takes, the painting's encoding included.

    python benchmarks/one_pass.py
    python benchmarks/one_pass.py --methods wct adain --sides 512 --rounds 15 --threads 2

Times are in ratio to one forward pass of torchvision's VGG-19 (random weights) to relu4_1, in fp32, at 512x512, in the
same process; photo and painting are squares of the side. Every round times the yardstick and then each method at each
side. Medians, fastest and slowest. Goals at 512: wct 0.20, adain 0.10, sanet 0.25; beyond, time grows as the pixels do.
A method whose weights are not there is told of, not timed. switch_ms: for methods with learned styles, the time from
one style to another. --clock cpu counts the time of the processor alone, for machines on which others work.
"""

from __future__ import annotations

import argparse
import itertools
import math
import time
from collections.abc import Callable
from statistics import median
from typing import Any

from measuring import make_picture, show, summarize, surroundings, time_interleaved, yardstick

YARDSTICK = "yardstick"
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", help="default: all one-pass methods")
    parser.add_argument("--sides", nargs="+", type=int, default=[512, 1024, 2048])
    parser.add_argument("--yardstick-side", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--precision", default="auto", help="auto, fp32 or bf16")
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    arguments = parser.parse_args()
    about = surroundings(arguments.threads)
    models, missing = load_models(arguments.methods, precision=arguments.precision)
    works = {f"{name} {side}": stylizing(model, side) for name, model in models.items() for side in arguments.sides}
    measure = yardstick("relu4_1", arguments.yardstick_side)
    clock = CLOCKS[arguments.clock]
    found = time_interleaved({YARDSTICK: measure, **works}, arguments.rounds, clock=clock)
    rows = [row(label, seconds, found[YARDSTICK]) for label, seconds in found.items() if label != YARDSTICK]
    switches = {name: switching(model) for name, model in models.items() if hasattr(model, "learned")}
    times = time_interleaved(switches, 50, clock=clock) if switches else {}
    rows = [{**own, "switch_ms": 1000 * median(times.get(own["method"], [math.nan]))} for own in rows]
    result = {"benchmark": "one_pass", "surroundings": about, YARDSTICK: summarize(found[YARDSTICK])}
    show({**result, "methods": rows, "missing": missing}, rows)
    for name, reason in missing.items():
        print(f"\nno {name}: {reason}")


def load_models(names: list[str] | None, **options: Any) -> tuple[dict[str, Any], dict[str, str]]:
    """The methods by name, and why some of them can't be had."""
    import impasto
    from impasto.methods import find_method

    models: dict[str, Any] = {}
    missing: dict[str, str] = {}
    for name in names or [name for name in impasto.list_methods() if find_method(name).one_pass]:
        try:
            model = impasto.load(name, **options)
            if getattr(model, "learned", None) == {}:
                raise impasto.ImpastoError("it paints in what `impasto adapt` makes")
            models[name] = model
        except impasto.ImpastoError as error:
            missing[name] = str(error)
    return models, missing


def stylizing(model: Any, side: int) -> Callable[[], object]:
    """A painting to look at, or, where a method knows no others, a style that it has learned."""
    photo = make_picture(side, side)
    style = next(iter(model.learned.values())) if hasattr(model, "learned") else make_picture(side, side, seed=1)
    return lambda: model.stylize(photo, style)


def switching(model: Any) -> Callable[[], object]:
    """The network made ready for the next one of its styles, at a size of 512 px."""
    styles = itertools.cycle(model.learned.values())
    return lambda: model.stages(model.accept_style(next(styles)), 1.0, (512, 512))


def row(label: str, seconds: list[float], yardstick_seconds: list[float]) -> dict[str, Any]:
    """One method at one side; the spread is that of the ratios round by round."""
    name, side = label.split()
    ratios = [own / other for own, other in zip(seconds, yardstick_seconds, strict=True)]
    return {
        "method": name,
        "side": int(side),
        "seconds": summarize(seconds)["median"],
        "ratio": summarize(seconds)["median"] / summarize(yardstick_seconds)["median"],
        "lowest": min(ratios),
        "highest": max(ratios),
    }


if __name__ == "__main__":
    main()
