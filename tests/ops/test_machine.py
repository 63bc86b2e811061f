"""Which cores this process may use: quotas of control groups, affinity, and how threads wait."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from impasto.ops import machine
from impasto.ops.machine import Cores, describe_threads, find_cores, find_quota, is_idle, set_threads


@pytest.fixture
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A system without limits."""
    monkeypatch.setattr(machine, "CGROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(machine, "OWN_GROUPS", tmp_path / "own")
    monkeypatch.setattr(machine, "LOAD", tmp_path / "load")
    return tmp_path


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="ascii")


def test_without_control_groups_there_is_no_quota(groups: Path) -> None:
    assert find_quota() is None
    write(groups / "cgroup/cpu.max", "max 100000\n")
    write(groups / "cgroup/cpu/cpu.cfs_quota_us", "-1\n")
    write(groups / "cgroup/cpu/cpu.cfs_period_us", "100000\n")
    assert find_quota() is None
    write(groups / "cgroup/cpu.max", "nonsense\n")
    assert find_quota() is None


def test_version_2_takes_the_smallest_of_all_levels(groups: Path) -> None:
    write(groups / "own", "0::/user/work\n")
    write(groups / "cgroup/user/work/cpu.max", "400000 100000\n")
    assert find_quota() == 4
    write(groups / "cgroup/user/cpu.max", "150000 100000\n")
    assert find_quota() == 1.5
    write(groups / "cgroup/elsewhere/cpu.max", "10000 100000\n")
    assert find_quota() == 1.5


@pytest.mark.parametrize("root", machine.V1)
def test_version_1(groups: Path, root: str) -> None:
    write(groups / "own", "9:name=systemd:/\n4:memory:/docker/x\n1:cpuacct,cpu:/docker/x\n")
    write(groups / f"cgroup/{root}/docker/x/cpu.cfs_quota_us", "250000\n")
    write(groups / f"cgroup/{root}/docker/x/cpu.cfs_period_us", "100000\n")
    assert find_quota() == 2.5


def test_a_containers_own_group_may_be_the_root(groups: Path) -> None:
    write(groups / "own", "0::/../../outside\n")
    write(groups / "cgroup/cpu.max", "200000 100000\n")
    assert find_quota() == 2


@pytest.mark.parametrize(
    ("cores", "usable"), [((8, 8, None), 8), ((8, 2, None), 2), ((8, 8, 1.5), 1), ((8, 8, 0.2), 1), ((8, 3, 4.0), 3)]
)
def test_quota_and_affinity_decide(cores: tuple[int, int, float | None], usable: int) -> None:
    assert Cores(*cores).usable == usable
    assert Cores(*cores).limited == (usable < 8)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the system has no affinity")
def test_affinity_is_seen() -> None:
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert (find_cores().affinity, find_cores().usable) == (1, 1)
    finally:
        os.sched_setaffinity(0, before)


@pytest.mark.parametrize(
    ("load", "idle"),
    [("0.10 1.50 1.00 1/300 77", True), ("3.10 0 0 1/300 77", False), ("0.10 0.10 0.10 5/300 77", False)],
)
def test_a_busy_machine_is_seen(groups: Path, load: str, idle: bool) -> None:
    write(groups / "load", load)
    assert is_idle(Cores(4, 4, None)) == idle
    assert not is_idle(Cores(4, 2, None))  # others may use the rest


def test_settings_of_the_user_stay(groups: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(groups / "load", "9.0 9.0 9.0 5/300 77")
    write(groups / "cgroup/cpu.max", "100000 100000\n")
    monkeypatch.setattr(os, "cpu_count", lambda: 16)
    found: dict[str, str] = {}
    set_threads(found)
    assert found == {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "KMP_BLOCKTIME": "0"}
    assert "16 logical cores" in describe_threads(found)
    assert "container's quota 1), threads wait passively" in describe_threads(found)
    own = {"OMP_NUM_THREADS": "3", "OMP_WAIT_POLICY": "ACTIVE"}
    set_threads(own)
    assert own == {"OMP_NUM_THREADS": "3", "OMP_WAIT_POLICY": "ACTIVE"}


def test_on_an_idle_machine_nothing_is_set_but_for_a_server(groups: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(groups / "load", "0.0 0.0 0.0 1/300 77")
    monkeypatch.setattr(machine, "find_cores", lambda: Cores(4, 4, None))
    found: dict[str, str] = {}
    set_threads(found)
    assert found == {}
    set_threads(found, shared=True)
    assert found["OMP_WAIT_POLICY"] == "PASSIVE"


def test_the_command_line_sets_threads_before_torch_is_loaded() -> None:
    code = (
        "import os, sys; from impasto.cli.main import main; main(['serve', '--help']); "
        "assert 'torch' not in sys.modules; print(os.environ['OMP_WAIT_POLICY'])"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OMP_")}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "PASSIVE"
