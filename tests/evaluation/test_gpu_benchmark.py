"""The script that measures all rows for a GPU, on a CPU at tiny sizes: each row is there, and kept as soon as it is."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("gpu")


def run(script: ModuleType, monkeypatch: pytest.MonkeyPatch, output: Path, *words: str) -> list[dict[str, object]]:
    command = ["gpu.py", "--device", "cpu", "--small", "--rounds", "1", "-o", str(output), *words]
    monkeypatch.setattr(sys, "argv", command)
    script.main()
    rows: list[dict[str, object]] = json.loads(output.read_text())["rows"]
    return rows


@pytest.mark.parametrize("row", ["batch", "adapt", "switch", "gatys", "nnst", "video"])
def test_row(script: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, row: str) -> None:
    found = run(script, monkeypatch, tmp_path / "rows.json", "--rows", row)
    assert {entry["row"] for entry in found} == {row}
    measured = [entry for entry in found if "missing" not in entry]
    assert measured
    numbers = [value for entry in measured for value in entry.values() if isinstance(value, float)]
    assert numbers
    assert min(numbers) > 0


def test_what_fails_and_what_comes_too_late(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    output, seen = tmp_path / "rows.json", []

    def fail(bench: object) -> None:
        raise RuntimeError("out of luck")

    def look(bench: object) -> None:
        seen.extend(json.loads(output.read_text())["rows"])
        monkeypatch.setattr(bench, "until", 0.0)

    monkeypatch.setattr(script, "ROWS", {"batch": fail, "switch": look})
    found = run(script, monkeypatch, output, "--rows", "batch", "switch")
    assert [entry["missing"] for entry in found] == ["RuntimeError: out of luck"]
    assert seen == found  # it was written before the next row began
    late = run(script, monkeypatch, output, "--rows", "batch", "--minutes", "0")
    assert [entry["missing"] for entry in late] == ["no time left"]


def test_no_such_device(script: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--device", "nowhere"])
    with pytest.raises(SystemExit, match="nowhere is not there"):
        script.main()
