"""Options that are read from the source: they are the real ones, and mistakes are answered without torch."""

from __future__ import annotations

import subprocess
import sys

import pytest

from impasto.commands import arguments
from impasto.commands.first_look import method_names
from impasto.images.color import COLOR_MODES
from impasto.methods import DEFAULT_METHOD, find_method


@pytest.mark.parametrize("name", method_names())
def test_the_source_tells_what_the_options_are(name: str) -> None:
    read, real = arguments.options_of(name), find_method(name).Options
    assert read is not None
    assert list(read.model_fields) == list(real.model_fields)
    for field, wanted in real.model_fields.items():
        found = read.model_fields[field]
        assert (found.annotation, found.metadata, found.default) == (wanted.annotation, wanted.metadata, wanted.default)


def test_constants_are_read_too() -> None:
    assert arguments.constant("impasto.methods", "DEFAULT_METHOD") == DEFAULT_METHOD
    assert arguments.constant("impasto.images.color", "COLOR_MODES") == COLOR_MODES
    with pytest.raises(NameError):
        arguments.constant("impasto.methods", "NOTHING")


def test_what_the_source_does_not_tell_is_left_to_the_method(monkeypatch: pytest.MonkeyPatch) -> None:
    source = """
from pydantic import Field
from impasto.options import Options
class Odd(Options):
    many: int = Field(compute(), le=5)
    few: int = Field(1, le=2)
class OddStylizer:
    Options = Odd
"""
    real = arguments._statements
    monkeypatch.setattr(
        arguments,
        "_statements",
        lambda module: arguments.ast.parse(source).body if module == "impasto.methods.odd" else real(module),
    )
    found = arguments.options_of("odd")
    assert found is not None
    assert found.parse({"many": "anything"}, "odd")
    with pytest.raises(Exception, match="few must be at most 2, not 3"):
        found.parse({"few": 3}, "odd")
    assert arguments.options_of("none") is None


MISTAKES = {
    "stylize photo.jpg starry-night -m gatys --steps many": "gatys: steps must be a whole number, not 'many'",
    "stylize photo.jpg starry-night -m gatys --steps -4": "gatys: steps must be at least 1, not '-4'",
    "stylize photo.jpg starry-night --precision fp8": "swift: precision is one of auto, fp32, bf16, not 'fp8'",
    "stylize photo.jpg starry-night --styl x": "swift has no option --styl (did you mean --style",
    "stylize photo.jpg starry-night --steps 5": "swift has no option --steps, but gatys and nnst have: add -m gatys",
    "stylize photo.jpg starry-night --strength 170%": "'170%' is not from 0 to 1; write 0.7 or 70%",
    "stylize photo.jpg starry-night --size big": "size 'big' is not understood",
    "stylize photo.jpg starry-night --keep-color luminence": "did you mean luminance?",
    "batch . starry-night -o results --detail x": "swift has no option --detail, but wct has",
    "style extract photo.jpg -m wct --transform zcb": "wct: transform is one of",
    "style show starry-nigt": "did you mean starry-night?",
    "export-style starry-nigt": "did you mean starry-night?",
    "adapt starry-nigt": "did you mean starry-night?",
    "export out.onnx -m adian": "did you mean adain?",
    "live -m adain --precision fp8": "adain: precision is one of",
}


def test_mistakes_are_answered_without_torch(tmp_path: object) -> None:
    code = f"""
import pathlib, sys
from impasto.cli.main import main
pathlib.Path("photo.jpg").write_bytes(b"\\xff\\xd8\\xff\\xe0" + bytes(100))
for words in {list(MISTAKES)}:
    print(main(words.split()), file=sys.stderr)
    assert "torch" not in sys.modules, words
"""
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, cwd=str(tmp_path))
    assert done.returncode == 0, done.stderr
    lines = done.stderr.splitlines()
    assert lines[1::2] == ["2"] * len(MISTAKES)
    for words, said, line in zip(MISTAKES, MISTAKES.values(), lines[::2], strict=True):
        assert said in line, (words, line)
