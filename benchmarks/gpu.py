"""Every row for a GPU in one go of at most five minutes: batch, 4K, adapt, style switch, gatys, nnst, video.

    python benchmarks/gpu.py
    python benchmarks/gpu.py --rows batch video -o rows.json
    python benchmarks/gpu.py --device cpu --small

Each row is printed and written to -o as soon as it is there, so that a time limit loses nothing. A row that can't be
measured says why, and so do rows that --minutes leaves no time for. Medians of up to --rounds calls after one that
warms up; each waits for the device. --compile also measures the one-pass rows by torch.compile, in CUDA graphs.
--small takes pictures of an eighth of the sides and few steps, so that the script can be tried anywhere; its times
mean nothing.

batch: `swift` at 512x512, style known, from a photo in memory to a picture in memory, one after the other, and the
model's call alone, on CUDA also with pinned memory; uhd: the same at 3840x2160; adapt: `impasto adapt` as a whole;
switch: `conditional_norm` made ready for the next of its styles; gatys and nnst: 512 px, the painting's encoding
included; video: frames of 1280x720 by `swift` with smoothed moments and flow, without decoding and encoding.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from measuring import make_picture, surroundings, to_markdown

if TYPE_CHECKING:
    from torch import Tensor

GOALS = {
    "batch": "1 ms",
    "uhd": "50 ms",
    "adapt": "3 s",
    "switch": "1 ms",
    "gatys": "2 s",
    "nnst": "3 s",
    "video": "60 a second",
}
MOST_SECONDS = 20.0
"""Of one row, the call that warms up not counted."""


@dataclass
class Bench:
    """What all rows share: the device, how large pictures are, until when there is time, what was found."""

    device: str
    small: bool
    rounds: int
    compiled: bool
    until: float
    output: Path | None
    about: dict[str, Any]
    rows: list[dict[str, Any]] = field(default_factory=list)

    def side(self, full: int) -> int:
        """A side of a picture, px."""
        return max(32, full // 8) if self.small else full

    def load(self, method: str, **options: Any) -> Any:
        """The method on the device."""
        import impasto

        return impasto.load(method, device=self.device, **options)

    def median(self, work: Callable[[], object]) -> float:
        """Seconds of a call of `work`, waited for."""
        from statistics import median

        self.timed(work)
        begun, found = time.perf_counter(), []
        while len(found) < self.rounds and (not found or time.perf_counter() < min(begun + MOST_SECONDS, self.until)):
            found.append(self.timed(work))
        return median(found)

    def timed(self, work: Callable[[], object]) -> float:
        """Seconds of one call."""
        import torch

        from impasto.evaluation.bench import wait

        begun = time.perf_counter()
        work()
        wait(torch.device(self.device))
        return time.perf_counter() - begun

    def tell(self, row: str, what: str, **found: Any) -> None:
        """Print the row and write all that there are."""
        self.rows.append({"row": row, "what": what, "goal": GOALS[row], **found})
        print(json.dumps(self.rows[-1]), flush=True)
        if self.output is not None:
            from impasto.files import write_atomically

            text = json.dumps({"benchmark": "gpu", "surroundings": self.about, "rows": self.rows}, indent=2)
            write_atomically(self.output, f"{text}\n".encode())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--rows", nargs="+", choices=GOALS, default=list(GOALS))
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("-o", "--output", type=Path)
    asked = parser.parse_args()
    begun = time.perf_counter()
    about = describe(asked.device)
    until = begun + 60 * asked.minutes
    bench = Bench(asked.device, asked.small, asked.rounds, asked.compile, until, asked.output, about)
    print(json.dumps(about), flush=True)
    for name in asked.rows:
        if time.perf_counter() >= until:
            bench.tell(name, "", missing="no time left")
            continue
        try:
            ROWS[name](bench)
        except Exception as error:  # the other rows are measured
            bench.tell(name, "", missing=" ".join(f"{type(error).__name__}: {error}".split())[:300])
    names = dict.fromkeys(key for row in bench.rows for key in row)
    print(f"\n{to_markdown([{key: row.get(key) for key in names} for row in bench.rows])}")


def describe(device: str) -> dict[str, Any]:
    """The machine; ends the script if the device is not there."""
    import torch

    from impasto import ImpastoError
    from impasto.runs.painting import pick_device

    try:
        pick_device(device)
    except ImpastoError as error:
        sys.exit(f"error: {error}")
    name = torch.cuda.get_device_name() if device == "cuda" else device
    return {**surroundings(), "device": name}


def batch(bench: Bench) -> None:
    measure_pictures(bench, "batch", bench.side(512), bench.side(512))


def uhd(bench: Bench) -> None:
    measure_pictures(bench, "uhd", bench.side(2160), bench.side(3840))


def measure_pictures(bench: Bench, row: str, height: int, width: int) -> None:
    """Milliseconds from a picture in this machine's memory to another, and of the model's call alone."""
    model = bench.load("swift")
    style = model.encode_style(make_picture(bench.side(512), bench.side(512), seed=1))
    photo = make_picture(height, width)
    there = photo.to(bench.device)
    whole = bench.median(lambda: model.stylize(photo, style).cpu())
    alone = bench.median(lambda: model.transfer(there, style))
    bench.tell(row, f"swift, {width}x{height}", ms=1000 * whole, model_ms=1000 * alone)
    if bench.device.startswith("cuda"):
        fixed, result = photo.pin_memory(), photo.clone().pin_memory()
        pinned = bench.median(lambda: result.copy_(model.stylize(fixed, style), non_blocking=True))
        bench.tell(row, f"swift, {width}x{height}, pinned memory", ms=1000 * pinned)
    if bench.compiled:
        import torch

        run = torch.compile(lambda image: model.transfer(image, style), mode="reduce-overhead")
        bench.tell(row, f"swift, {width}x{height}, compiled", model_ms=1000 * bench.median(lambda: run(there)))


def adapt(bench: Bench) -> None:
    """Seconds of `impasto adapt`'s work: made-up photos, training, the card; the first one's and another one's."""
    from impasto.commands import adapt as command
    from impasto.images.files import write_image
    from impasto.training.pictures import Pictures

    few = {"steps": 2, "batch": 1, "crop": 32, "side": 48, "style_side": 64}
    options = command.AdaptOptions(**(few if bench.small else {}))
    with tempfile.TemporaryDirectory() as folder:
        painting = Path(folder, "painting.png")
        write_image(make_picture(bench.side(512), bench.side(512), seed=1), painting)

        def learn() -> None:
            shapes = command.make_up(options)
            pictures = Pictures.load([painting], options.style_side, options.crop)
            task = command.build(options, shapes, pictures)
            card = Path(folder, "card.safetensors")
            command.run(command.AdaptPlan(options, shapes, pictures, {}, card, None, task))

        first = bench.timed(learn)
        bench.tell("adapt", f"{options.steps} steps", s=bench.timed(learn), first_s=first)


def switch(bench: Bench) -> None:
    """Milliseconds until the next style can paint."""
    model = bench.load("conditional_norm")
    styles = itertools.cycle(model.learned.values())
    size = bench.side(512), bench.side(512)
    seconds = bench.median(lambda: model.stages(model.accept_style(next(styles)), 1.0, size))
    bench.tell("switch", "conditional_norm", ms=1000 * seconds)


def gatys(bench: Bench) -> None:
    measure_optimisation(bench, "gatys", {"steps": 2, "coarse_steps": 2})


def nnst(bench: Bench) -> None:
    measure_optimisation(bench, "nnst", {"steps": 2, "coarse_steps": 2, "last_steps": 2})


def measure_optimisation(bench: Bench, name: str, few: dict[str, int]) -> None:
    """Seconds of a picture by the method's defaults."""
    model = bench.load(name, **(few if bench.small else {}))
    photo, painting = (make_picture(bench.side(512), bench.side(512), seed=seed) for seed in (0, 1))
    bench.tell(name, f"{photo.shape[-1]} px", s=bench.median(lambda: model.stylize(photo, painting)))


def video(bench: Bench) -> None:
    """Frames a second, by OpenCV's flow, and without flow."""
    from impasto.images.flow import has_flow

    measure_video(bench, "no flow", 0.0)
    if has_flow():
        measure_video(bench, "flow by OpenCV", 0.22)
    else:
        bench.tell("video", "flow by OpenCV", missing="pip install 'impasto[flow]'")


def measure_video(bench: Bench, what: str, carried: float) -> None:
    from impasto.stylizers.video_coherence import Coherence

    model = bench.load("swift")
    style = model.encode_style(make_picture(bench.side(512), bench.side(512), seed=1))
    coherence = Coherence(model, carried=carried)
    frames = pan(bench.side(720), bench.side(1280))

    def paint() -> None:
        frame = next(frames)
        coherence.paint(frame, lambda: model.stylize(frame, style).cpu())

    bench.tell("video", f"1280x720, {what}" if not bench.small else what, a_second=1 / bench.median(paint))


def pan(height: int, width: int) -> Iterator[Tensor]:
    """A camera that moves to the right by 3 px a frame, and again from the left."""
    wide = make_picture(height, width + 96)
    for left in itertools.cycle(range(0, 96, 3)):
        yield wide[..., left : left + width]


ROWS: dict[str, Callable[[Bench], None]] = {
    "batch": batch,
    "uhd": uhd,
    "adapt": adapt,
    "switch": switch,
    "gatys": gatys,
    "nnst": nnst,
    "video": video,
}

if __name__ == "__main__":
    main()
