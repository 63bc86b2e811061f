"""What is freed stays with the process, so that its pages are not asked for again, until it is given back."""

from __future__ import annotations

import subprocess
import sys

import pytest

from impasto.ops.machine import give_back_freed_memory, keep_freed_memory, name_bytes

ROUNDS, MAPS, MEGABYTES = 12, 3, 64
PAGES = ROUNDS * MAPS * (MEGABYTES << 20) // 4096

glibc = pytest.mark.skipif(not keep_freed_memory(), reason="another C library than glibc")


def run(code: str) -> list[int]:
    """What a process of its own prints."""
    start = "import resource, torch\nfrom impasto.ops.machine import give_back_freed_memory, keep_freed_memory\n"
    done = subprocess.run([sys.executable, "-c", start + code], capture_output=True, text=True, check=True)
    return [int(word) for word in done.stdout.split()]


def faults(first: str) -> int:
    """How many pages are asked for by large maps that come and go, with and without settings made first."""
    (found,) = run(f"""
{first}
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range({ROUNDS}):
    maps = [torch.empty({MEGABYTES << 18}).fill_(1.0) for _ in range({MAPS})]
    del maps
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
""")
    return found


@glibc
def test_pages_are_not_asked_for_again() -> None:
    without = faults("")
    if without < PAGES:
        pytest.skip("the system hands out larger pages")
    assert faults("keep_freed_memory()") < 0.6 * without


@glibc
def test_what_is_kept_can_be_given_back() -> None:
    available, kept, left = run(f"""
import mmap
def held():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()
plain = mmap.mmap(-1, {MEGABYTES << 20})
plain.write(bytes({MEGABYTES << 20}))
before = held()
plain.madvise(mmap.MADV_DONTNEED)
print(before - held())
keep_freed_memory()
first = torch.empty({MEGABYTES << 18}).fill_(1.0)
second = torch.empty({MEGABYTES << 18}).fill_(1.0)
before = held()
del first, second
print(before - held())
give_back_freed_memory()
print(before - held())
""")
    if available < (MEGABYTES - 8) << 20:
        pytest.skip("the system does not tell at once what a process holds")
    assert kept < MEGABYTES << 20
    assert left > (2 * MEGABYTES - 16) << 20


def test_other_c_libraries_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    class Other:
        pass

    monkeypatch.setattr("ctypes.CDLL", lambda name: Other())
    keep_freed_memory.cache_clear()
    assert not keep_freed_memory()
    give_back_freed_memory()
    keep_freed_memory.cache_clear()


@pytest.mark.parametrize(
    ("count", "name"), [(0, "0 kB"), (900, "1 kB"), (35_400_000, "35 MB"), (1_500_000_000, "1.5 GB")]
)
def test_bytes_are_named_in_a_unit_that_fits(count: int, name: str) -> None:
    assert name_bytes(count) == name
