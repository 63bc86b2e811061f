"""The whole process, from shell to written file, against a bare `import torch`.

    python benchmarks/cold_start.py
    python benchmarks/cold_start.py --methods wct --photo PHOTO --painting PAINTING --rounds 7

Each method's `impasto stylize PHOTO PAINTING --size 512` and `python -c "import torch"`, one after the other, round by
round; medians. `above torch` is what a process takes longer than the import; goal for one-pass methods: at most 1.5 s.
`around the work` is what it takes longer than the work itself, as --json reports it; goal for gatys: at most 4 s.
Without --photo and --painting, they are made. Options after -- go to the methods: ... -- --steps 3.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from measuring import make_picture, show, summarize, time_interleaved

TORCH = "import torch"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", help="default: all methods")
    parser.add_argument("--photo", type=Path)
    parser.add_argument("--painting", type=Path)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int)
    parser.add_argument("options", nargs="*", help="options of the methods, after --")
    arguments = parser.parse_args()
    if arguments.threads is not None:
        os.environ["OMP_NUM_THREADS"] = str(arguments.threads)
    with tempfile.TemporaryDirectory() as folder:
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed package is compiled: the first round does it
        os.environ["PYTHONPYCACHEPREFIX"] = folder
        show(*measure(arguments, Path(folder)))


def measure(arguments: argparse.Namespace, folder: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What to show: everything, and a row a method."""
    import impasto

    photo, painting = arguments.photo or draw(folder, 0), arguments.painting or draw(folder, 1)
    words = [photo, painting, "--size", arguments.size, *arguments.options]
    runs = {name: Run(name, words, folder) for name in arguments.methods or impasto.list_methods()}
    missing = {name: run.error for name, run in runs.items() if not run.works()}
    runs = {name: run for name, run in runs.items() if name not in missing}
    found = time_interleaved({TORCH: import_torch, **{name: run.once for name, run in runs.items()}}, arguments.rounds)
    bare = summarize(found[TORCH])["median"]
    rows = [run.row(found[name], bare) for name, run in runs.items()]
    return {"benchmark": "cold_start", TORCH: summarize(found[TORCH]), "methods": rows, "missing": missing}, rows


def draw(folder: Path, seed: int) -> Path:
    """A picture of a camera's proportions."""
    import impasto

    path = folder / f"picture{seed}.jpg"
    impasto.write_image(make_picture(768, 1024, seed), path)
    return path


def import_torch() -> None:
    subprocess.run([sys.executable, "-c", TORCH], check=True)


class Run:
    """One method's command, and the seconds of work that it has reported."""

    def __init__(self, name: str, words: list[Any], folder: Path) -> None:
        own = ["-m", name, "-o", folder / f"{name}.png", "--force", "--json", "--quiet"]
        self.name = name
        self.command = [sys.executable, "-m", "impasto", "stylize", *map(str, [*words, *own])]
        self.work: list[float] = []
        self.error = ""

    def works(self) -> bool:
        """Whether the command succeeds; `error` says why not."""
        done = subprocess.run(self.command, capture_output=True, text=True, check=False)
        self.error = done.stderr.strip()
        return done.returncode == 0

    def once(self) -> None:
        done = subprocess.run(self.command, capture_output=True, text=True, check=True)
        self.work.append(json.loads(done.stdout)["seconds"])

    def row(self, seconds: list[float], bare: float) -> dict[str, Any]:
        """The medians; the work's of the same rounds as the process's."""
        whole = summarize(seconds)
        work = summarize(self.work[-len(seconds) :])["median"]
        return {
            "method": self.name,
            "whole process": whole["median"],
            "fastest": whole["fastest"],
            "slowest": whole["slowest"],
            "above torch": whole["median"] - bare,
            "around the work": whole["median"] - work,
        }


if __name__ == "__main__":
    main()
