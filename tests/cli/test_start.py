"""How the process starts and ends: Ctrl-C while it loads, the collector, one command alone, a quick end."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import pytest
import typer

import impasto
from impasto.cli.main import COMMANDS, GROUPS, make_app

CODE = """
import sys
class Press:
    def find_spec(self, name, path=None, target=None):
        if name == "impasto.cli.main":
            raise KeyboardInterrupt
sys.meta_path.insert(0, Press())
from impasto.__main__ import main
sys.exit(main())
"""


def test_ctrl_c_at_the_start_is_one_line() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "interrupted\n")


# --- loading and ending quickly

LOADING = """
import gc, sys, types
from impasto.cli.quick_start import collect_nothing_while_loading
sys.path.insert(0, {folder!r})
before = gc.get_freeze_count()
collect_nothing_while_loading("slow_module")
assert gc.get_freeze_count() == before
import slow_module
print(slow_module.COLLECTS, gc.isenabled(), gc.get_freeze_count() > before, len(sys.meta_path))
print("exec_module" in vars(slow_module.__spec__.loader), slow_module.__loader__ is slow_module.__spec__.loader)
"""

ENDING = """
import atexit, sys, threading, time
class Late:
    def __del__(self):
        print("unloaded")
late = Late()
import impasto.cli.main as line
from impasto.__main__ import main
own = line.main
def run():
    threading.Thread(target=lambda: time.sleep(0.5) or print("thread")).start()
    atexit.register(print, "registered")
    return own()
line.main = run
sys.argv = {words!r}
sys.exit(main())
"""


def run(code: str, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code]
    return subprocess.run(command, text=True, timeout=120, check=False, stderr=subprocess.PIPE, **options)


@pytest.mark.parametrize("fails", [False, True])
def test_nothing_is_collected_while_a_module_is_loaded(tmp_path: Path, fails: bool) -> None:
    broken = "raise ImportError('as if broken')\n" if fails else ""
    (tmp_path / "slow_module.py").write_text("import gc\nCOLLECTS = gc.isenabled()\n" + broken, encoding="utf-8")
    code = LOADING.format(folder=str(tmp_path))
    if fails:
        tried = "try: import slow_module\nexcept ImportError: sys.exit(str(gc.isenabled()))"
        assert run(code.replace("import slow_module", tried, 1)).stderr == "True\n"
        return
    lines = run(code, stdout=subprocess.PIPE).stdout.splitlines()
    assert lines[0].startswith("False True True ")
    assert lines[1] == "False True"


def test_a_module_that_is_missing_is_missing() -> None:
    done = run("from impasto.cli.quick_start import *; collect_nothing_while_loading('no_such'); import no_such")
    assert "ModuleNotFoundError: No module named 'no_such'" in done.stderr


def test_the_end_waits_for_threads_and_for_what_was_registered() -> None:
    done = run(ENDING.format(words=["impasto", "--version"]), stdout=subprocess.PIPE)
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(done.stdout.splitlines()[:-1]) == [f"impasto {impasto.__version__}", "thread"]
    assert done.stdout.splitlines()[-1] == "registered"
    assert "unloaded" not in done.stdout
    wrong = run(ENDING.format(words=["impasto", "stylise"]), stdout=subprocess.PIPE)
    assert wrong.returncode == 2
    assert "unloaded" not in wrong.stdout


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no such device")
def test_a_full_disk_is_reported_as_python_does() -> None:
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        done = run(ENDING.format(words=["impasto", "--version"]), stdout=full)
    assert done.returncode != 0
    assert "No space left on device" in done.stderr


# --- one command alone


@pytest.mark.parametrize("name", [*COMMANDS, *GROUPS])
def test_a_command_alone_is_as_among_all(name: str) -> None:
    whole = cast(Any, typer.main.get_command(make_app())).commands
    alone = cast(Any, typer.main.get_command(make_app([name, "photo.jpg"]))).commands
    assert list(alone) == [name]
    assert set(whole) == {*COMMANDS, *GROUPS}
    context = typer.Context(cast(Any, whole[name]), info_name=name)
    assert alone[name].get_help(context) == whole[name].get_help(context)
    assert [p.opts for p in alone[name].params] == [p.opts for p in whole[name].params]


@pytest.mark.parametrize("words", [[], ["--help"], ["--version", "stylize"], ["stilize"]])
def test_other_first_words_need_all_commands(words: list[str]) -> None:
    assert set(cast(Any, typer.main.get_command(make_app(words))).commands) == {*COMMANDS, *GROUPS}
