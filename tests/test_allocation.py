"""What is freed stays with the process: hardly a page is asked for twice."""

from __future__ import annotations

import subprocess
import sys

import pytest

from impasto.allocation import keep_freed_memory

ROUNDS, MAPS = 6, 6

COUNTING = f"""
import resource, sys, torch
from impasto.allocation import keep_freed_memory
def work():
    maps = [torch.empty(6 << 20).fill_(1.0) for _ in range({MAPS})]  # 24 MB each
if sys.argv[1] == "yes":
    keep_freed_memory()
at_first = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range({ROUNDS}):
    work()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - at_first)
"""


def faults(keep: str) -> int:
    done = subprocess.run([sys.executable, "-c", COUNTING, keep], capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(not keep_freed_memory(), reason="another C library than glibc")
def test_fewer_pages_are_asked_for() -> None:
    assert faults("yes") < 0.75 * faults("no")


def test_other_c_libraries_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    class Other:
        pass

    monkeypatch.setattr("ctypes.CDLL", lambda name: Other())
    keep_freed_memory.cache_clear()
    assert not keep_freed_memory()
    keep_freed_memory.cache_clear()
