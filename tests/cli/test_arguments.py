"""Options that are read from the source: they are the real ones, and mistakes are answered without torch."""

from __future__ import annotations

import importlib
import subprocess
import sys
from typing import Any

import pytest

from impasto.commands import arguments, early_checks, first_look
from impasto.commands.first_look import method_names
from impasto.commands.train import find_any_training
from impasto.images.color import COLOR_MODES
from impasto.methods import DEFAULT_METHOD, find_method, find_training, load
from impasto.options import Options
from impasto.stylizers.one_pass import OnePass
from impasto.vision import dreams


@pytest.mark.parametrize("name", method_names())
def test_the_source_tells_what_the_options_are(name: str) -> None:
    read, real = arguments.options_of(name), find_method(name).Options
    assert_alike(read, real)


COMMANDS = {
    "impasto.textures.optimized": "TextureOptions",
    "impasto.vision.dreams": "DreamOptions",
    "impasto.vision.inversion": "InversionOptions",
    "impasto.vision.attack": "AttackOptions",
    "impasto.transfer.tasks": "FitOptions",
    "impasto.commands.adapt": "AdaptOptions",
    "impasto.server.limits": "Limits",
}


def assert_alike(read: type[Options] | None, real: type[Options]) -> None:
    """The names, types, limits and defaults that were read from the source are the real ones."""
    assert read is not None
    assert list(read.model_fields) == list(real.model_fields)
    for field, wanted in real.model_fields.items():
        found = read.model_fields[field]
        if found.annotation is Any:  # not a plain value in the source: left to the command itself
            continue
        assert (found.annotation, found.default) == (wanted.annotation, wanted.default)
        assert list(map(str, found.metadata)) == list(map(str, wanted.metadata))


@pytest.mark.parametrize("module", COMMANDS)
def test_the_source_tells_the_options_of_commands(module: str) -> None:
    real = getattr(importlib.import_module(module), COMMANDS[module])
    assert_alike(arguments.read_class(module, COMMANDS[module]), real)


@pytest.mark.parametrize("name", early_checks.training_names())
def test_the_source_tells_the_options_of_trainings(name: str) -> None:
    training = find_any_training(name)
    assert training is not None
    module = early_checks.TRAININGS.get(name, f"impasto.methods.{name}")
    assert_alike(arguments.training_of(module), training.options)


def test_all_trainings_are_known() -> None:
    own = [name for name in method_names() if find_training(name)]
    assert early_checks.training_names() == [*early_checks.TRAININGS, *own]


@pytest.mark.parametrize("name", method_names())
def test_the_source_tells_the_presets(name: str) -> None:
    assert arguments.presets_of(name) == dict(find_method(name).presets)


@pytest.mark.parametrize("name", method_names())
def test_the_source_tells_what_can_be_exported(name: str) -> None:
    own = getattr(find_method(name), "forward_for_export", None)
    assert arguments.has_function(name, "forward_for_export") == (own not in (None, OnePass.forward_for_export))


def test_presets_layers_and_styles_are_known_without_torch() -> None:
    assert arguments.constant("impasto.vision.dreams", "PRESETS") == dreams.PRESETS
    for name in ("johnson", "conditional_norm", "stylebank", "texture_network"):
        assert first_look.learned_styles(name) == list(load(name).style_names)
    assert first_look.learned_styles("swift") == []


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
    "stylize photo.jpg starry-night --size 99999999": "size '99999999' is too large; a result has at most 200 megapix",
    "stylize photo.jpg starry-night --keep-color luminence": "did you mean luminance?",
    "batch . starry-night -o results --detail x": "swift has no option --detail, but wct has",
    "style extract photo.jpg -m wct --transform zcb": "wct: transform is one of",
    "style show starry-nigt": "did you mean starry-night?",
    "export-style starry-nigt": "did you mean starry-night?",
    "adapt starry-nigt": "did you mean starry-night?",
    "export out.onnx -m adian": "did you mean adain?",
    "live -m adain --precision fp8": "adain: precision is one of",
    "stylize photo.jpg starry-night --device gpu": "--device is one of auto, cpu, cuda, mps, not 'gpu'",
    "stylize photo.jpg starry-night --runtime onnx": "--runtime is one of auto, torch, onnxruntime, openvino, not",
    "train johnson --precision fp61": "train johnson: precision is one of no, bf16, fp16, not 'fp61'",
    "stylize photo.jpg starry-night -m gatys --preset thoroug": "did you mean thorough?",
    "stylize photo.jpg starry-night --mask phto.jpg": "did you mean photo.jpg?",
    "stylize photo.jpg starry-night -o out.gif": "out.gif: the name must end in one of .png, .jpg",
    "stylize photo.jpg starry-night -o none/out.png": "the folder none does not exist; make it first",
    "stylize photo.jpg starry-night --seed x": "Invalid value for '--seed': a whole number is needed",
    "stylize photo.jpg udni -m johnson": "did you mean udnie?",
    "stylize photo.jpg photo.jpg -m johnson": "johnson can't look at a painting: name one of the styles",
    "stylize --recipe phto.jpg": "did you mean photo.jpg?",
    "batch phto.jpg starry-night -o out": "did you mean photo.jpg?",
    "batch photo.jpg stary-night -o out": "did you mean starry-night?",
    "batch photo.jpg starry-night": "name a folder for the results",
    "sweep photo.jpg starry-night --vary strenght=0,1": "did you mean strength?",
    "sweep photo.jpg starry-night -m gatys --vary steps=1,x": "steps must be a whole number, not 'x'",
    "sweep photo.jpg starry-night --vary strength=0.5,a": "--vary: strength must be a number, not 'a'",
    "export -m gatys out.onnx": "gatys can't be written as ONNX",
    "train jonson": "did you mean johnson?",
    "train gatys": "gatys has no training; say what to train, one of:",
    "train johnson --stepps 5": "did you mean --steps",
    "train johnson --steps many": "train johnson: steps must be a whole number, not 'many'",
    "train johnson extra": "'extra' is too much: put --content or --style before each folder",
    "train johnson --content photo.jpg --style phto.jpg -o run": "phto.jpg is not there (did you mean photo.jpg?)",
    "train johnson --content photo.jpg --style photo.jpg": "name a folder for the weights: -o RUNDIR",
    "train johnson --content photo.jpg --style photo.jpg -o run --resume": "run holds no checkpoint to resume from",
    "train johnson --content photo.jpg --style photo.jpg -o photo.jpg": "photo.jpg is no folder",
    "texture": "name a texture or a painting",
    "texture brak": "did you mean bark?",
    "texture phto.jpg": "did you mean photo.jpg?",
    "texture starry-night": "starry-night is built in as a style card, which holds no picture",
    "texture photo.jpg --step 5": "did you mean --steps",
    "texture photo.jpg --content-weight 5": "texture has no option --content-weight (did you mean",
    "texture photo.jpg --optimizer lbgfs": "did you mean lbfgs?",
    "texture photo.jpg --layers relu4_9": "vgg19-slim has no layer 'relu4_9'",
    "texture photo.jpg --size big": "size 'big' is not understood",
    "texture photo.jpg --pooling averge": "did you mean average?",
    "dream": "name a target: --class NAME, or --layer NAME --channel N",
    "dream --class giraf": "did you mean giraffe?",
    "dream --class elephant --stepps 5": "did you mean --steps",
    "dream --class elephant --preset beginer": "did you mean beginners?",
    "dream --class elephant --classifier vgg99": "there is no classifier 'vgg99' (did you mean vgg19",
    "dream --layer relu9_9 --channel 3": "vgg19-slim has no layer 'relu9_9'",
    "dream --layer relu4_1 --channel 3 --unit 3": "--unit takes ROW,COLUMN",
    "invert": "name one picture: impasto invert PHOTO --layer NAME",
    "invert photo.jpg --layer relu4_9": "vgg19-slim has no layer 'relu4_9'",
    "invert photo.jpg --backbone vgg19-slm": "did you mean vgg19-slim",
    "invert photo.jpg --painting phto.jpg": "did you mean photo.jpg?",
    "inspect photo.jpg --layer relu4_9": "vgg19-slim has no layer 'relu4_9'",
    "attack photo.jpg": "name the class that the classifier should see: --target CLASS",
    "attack photo.jpg --target giraf": "did you mean giraffe?",
    "attack photo.jpg --target giraffe --epsilom 1": "did you mean --epsilon",
    "attack photo.jpg --target giraffe --also vgg99": "there is no classifier 'vgg99'",
    "transfer fit phtos -o run": "phtos is no folder",
    "transfer fit . --mode lorra -o run": "did you mean lora?",
    "transfer fit . --backbone vgg99 -o run": "there is no backbone 'vgg99' (did you mean vgg19",
    "transfer fit .": "name a folder for the weights: -o RUNDIR",
    "transfer predict": "name pictures: impasto transfer predict photo.jpg",
    "transfer predict phto.jpg": "did you mean photo.jpg?",
    "transfer predict photo.jpg --classifier none.safetensors": "none.safetensors does not exist; name a weights file",
    "adapt photo.jpg --stepps 5": "did you mean --steps",
    "adapt photo.jpg --content phto.jpg": "phto.jpg is not there (did you mean photo.jpg?)",
    "adapt photo.jpg -o card.jpg": "card.jpg: the name must end in .safetensors",
    "evaluate": "name three folders: impasto evaluate CONTENTS STYLES STYLIZED",
    "evaluate phtos . .": "phtos is no folder",
    "evaluate . . --make out -m gattys": "did you mean gatys?",
    "evaluate . . --make out -m gatys --steps many": "gatys: steps must be a whole number, not 'many'",
    "evaluate . . . --skip lipps": "did you mean lpips?",
    "evaluate . . . --loss-network vgg9": "did you mean vgg19?",
    "bench -m gattys": "did you mean gatys?",
    "bench --precisions fp23": "did you mean fp32?",
    "bench --runtimes onnxruntim": "did you mean onnxruntime?",
    "export out.png": "out.png: name a file that ends in .onnx, or a folder",
    "serve --max-pixel 4": "did you mean --max-pixels",
    "serve --max-pixels many": "serve: max-pixels must be a whole number, not 'many'",
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
