"""`impasto bench` and `impasto doctor`."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch

from cli_support import Shell, make_backbone, open_shell, use_one_thread
from impasto.evaluation import bench
from impasto.evaluation.timing import summarize, time_interleaved, to_markdown
from impasto.networks.layers import StepDecoder
from impasto.runs import runtime_choice
from impasto.weights import save_weights

one_thread = pytest.fixture(autouse=True, scope="module")(use_one_thread)
WIDTHS = [8, 8, 8, 128]
CONFIG = {"widths": WIDTHS, "levels": [4]}


@pytest.fixture
def shell(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Shell:
    monkeypatch.chdir(tmp_path)
    save_weights(StepDecoder(WIDTHS).state_dict(), tmp_path / "adain.safetensors", CONFIG)
    monkeypatch.setattr(bench, "yardstick", lambda *_, **__: lambda: sum(range(100_000)))
    return open_shell(tmp_path, make_backbone(tmp_path / "backbone.safetensors"), capsys)


def test_bench_is_a_table_of_ratios(shell: Shell) -> None:
    words = ("--methods", "adain", "--weights", "adain.safetensors", "--sizes", "32,48", "--rounds", "2")
    done = shell.run("bench", *words, "--precisions", "fp32", "--markdown", "table.md", "--json").good()
    rows = json.loads(done.out)["rows"]
    assert [(row["method"], row["side"], row["precision"], row["runtime"]) for row in rows] == [
        ("adain", 32, "fp32", "torch"),
        ("adain", 48, "fp32", "torch"),
    ]
    for row in rows:
        assert 0 < row["lowest"] <= row["ratio"] * 1.5
        assert row["megapixels a second"] == pytest.approx(row["side"] ** 2 / 1e6 / row["seconds"])
    assert len((shell.folder / "table.md").read_text().splitlines()) == 4


def test_what_can_not_be_timed_is_reported(shell: Shell) -> None:
    assert shell.run("bench", "--methods", "adain", "--weights", "nothing.safetensors").code == 2
    (shell.folder / "nothing.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    done = shell.run("bench", "--methods", "adain", "--weights", "nothing.safetensors", "--sizes", "32").good()
    assert done.err.startswith("no adain: ")
    assert done.out == "nothing to time\n"
    assert shell.run("bench", "--runtimes", "magic").code == 2
    assert shell.run("bench", "--methods", "magic").code == 2
    assert shell.run("bench", "--sizes", "huge").code == 2


def test_doctor_names_what_is_missing_and_how_to_get_it(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime_choice, "PROBE", 32)
    monkeypatch.setattr(runtime_choice, "installed", lambda name: name == "torch")
    monkeypatch.setenv("XDG_CACHE_HOME", str(shell.folder / "cache"))
    done = shell.run("doctor").good()
    assert "at 32x32, in ratio to the quickest: torch" in done.out
    assert {name.split()[0] for name in runtime_choice.recall()} == {"torch"}
    for word in ("software", "processor", "bfloat16", "GPU", "memory", "method gatys", "onnxruntime", "openvino"):
        assert word in done.out
    findings = shell.run("doctor", "--json").good().json
    assert all(isinstance(finding["well"], bool) and finding["found"] for finding in findings)


def test_rounds_take_turns() -> None:
    seen: list[str] = []
    found = time_interleaved({"a": lambda: seen.append("a"), "b": lambda: seen.append("b")}, 2)
    assert seen == ["a", "b"] * 3
    assert summarize([3.0, 1.0, 2.0]) == {"median": 2.0, "fastest": 1.0, "slowest": 3.0}
    assert len(found["a"]) == 2
    assert to_markdown([{"x": 1, "y": None}]) == "| x | y |\n| --- | --- |\n| 1 |  |"


def test_peak_memory_is_that_of_the_work() -> None:
    small = bench.peak_memory(lambda: None, torch.device("cpu"))
    large = bench.peak_memory(lambda: torch.ones(64 << 20), torch.device("cpu"))
    if small is not None:  # else the kernel does not count anew, and an earlier test's peak hides this one
        assert large is not None
        assert large - small > 200 << 20


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="peaks are counted anew on Linux alone")
@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ((100, 100), (100, 400), 400),
        ((100, 900), (100, 900), None),
        ((100, 900), (100, 950), 950),
        ((0, 0), (0, 0), None),
    ],
)
def test_an_earlier_peak_is_not_taken_for_this_one(
    before: tuple[int, int], after: tuple[int, int], expected: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kernels that take the request to count anew and do nothing leave the mark where an earlier peak put it."""
    marks = iter([tuple(value << 20 for value in before), tuple(value << 20 for value in after)])
    monkeypatch.setattr(bench, "_resident_memory", lambda: next(marks))
    assert bench.peak_memory(lambda: None, torch.device("cpu")) == (expected << 20 if expected else None)
