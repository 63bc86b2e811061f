"""Count the files of impasto that a command enters, and how often: by all calls, and by each function's first.

python tools/walk.py stylize photo.jpg painting.jpg -o out.png
"""

from __future__ import annotations

import sys
import threading
from collections import Counter
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import impasto
from impasto.cli.main import main

SOURCE = str(Path(impasto.__file__).parent)


class Walk:
    """The files whose functions are called, in their order; what runs at import does not count.

    files: by all calls; first: by the first call of each function. A file follows itself only once.
    """

    def __init__(self) -> None:
        self.files: list[str] = []
        self.first: list[str] = []
        self.known: set[CodeType] = set()

    def see(self, frame: FrameType, event: str, argument: Any) -> None:
        """Note a call into another file than the last one; made for `sys.setprofile`."""
        code = frame.f_code
        if event != "call" or code.co_qualname.startswith("<") or not code.co_filename.startswith(SOURCE):
            return
        if not code.co_flags & 0x2:  # the body of a class has no fast locals
            return
        name = code.co_filename[len(SOURCE) + 1 :]
        if self.files[-1:] != [name]:
            self.files.append(name)
        if code not in self.known:
            self.known.add(code)
            if self.first[-1:] != [name]:
                self.first.append(name)


def walk(words: list[str]) -> Walk:
    """Run a command; return the files that it enters."""
    found = Walk()
    sys.setprofile(found.see)
    threading.setprofile(found.see)
    try:
        main(words)
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    return found


if __name__ == "__main__":
    found = walk(sys.argv[1:])
    once = Counter(found.first)
    print("   all    once")
    for name, count in Counter(found.files).most_common():
        print(f"{count:6}  {once[name]:6}  {name}")
    lines = sum(len((Path(SOURCE) / name).read_text(encoding="utf-8").splitlines()) for name in once)
    print(f"{len(found.files):6}  {len(found.first):6}  in all: {len(once)} files of {lines} lines")
    called = {(code.co_filename, line) for code in found.known for *_, line in code.co_lines() if line}
    print(f"{len(found.known)} functions of {len(called)} lines are called")
