"""A process that paints many pictures stays as large as it was."""

from __future__ import annotations

import gc
import os
from pathlib import Path

import pytest

from impasto.feedforward.tiled_run import Tiling
from impasto.methods import load
from tiny import painting

STATM = Path("/proc/self/statm")
MOST = 6 << 20
"""Fifty pictures that were kept, photo and result as floats alone, would be three times that."""


def resident() -> int:
    gc.collect()
    return int(STATM.read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not STATM.exists(), reason="only Linux tells a process how large it is")
@pytest.mark.parametrize("name", ["swift", "wct"])
def test_fifty_pictures_leave_nothing_behind(name: str) -> None:
    model = load(name)
    photos = [painting(*size, seed=3) for size in ((112, 144), (128, 112))]
    before = 0
    for number in range(60):
        model.tiling = Tiling(64, 1 << 20) if number % 3 else "auto"
        model.stylize(photos[number % 2], painting(60, 80, seed=number))
        if number == 9:  # what is allocated once is there by now
            before = resident()
    assert resident() - before <= MOST
