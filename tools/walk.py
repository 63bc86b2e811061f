"""Count the files of impasto that a command enters, and how often it enters each.

python tools/walk.py stylize photo.jpg painting.jpg -o out.png
"""

from __future__ import annotations

import sys
import threading
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Any

import impasto
from impasto.cli.main import main

SOURCE = str(Path(impasto.__file__).parent)


class Walk:
    """The files whose functions are called, in their order; bodies of modules and classes do not count."""

    def __init__(self) -> None:
        self.files: list[str] = []

    def see(self, frame: FrameType, event: str, argument: Any) -> None:
        """Note a call into another file than the last one; made for `sys.setprofile`."""
        code = frame.f_code
        if event != "call" or code.co_name.startswith("<module") or not code.co_filename.startswith(SOURCE):
            return
        if not code.co_flags & 0x2:  # the body of a class has no fast locals
            return
        name = code.co_filename[len(SOURCE) + 1 :]
        if not self.files or self.files[-1] != name:
            self.files.append(name)


def walk(words: list[str]) -> Counter[str]:
    """Run a command; return how often it enters each file."""
    found = Walk()
    sys.setprofile(found.see)
    threading.setprofile(found.see)
    try:
        main(words)
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    return Counter(found.files)


if __name__ == "__main__":
    entered = walk(sys.argv[1:])
    for name, count in entered.most_common():
        print(f"{count:6}  {name}")
    print(f"{sum(entered.values()):6}  in all, {len(entered)} files")
