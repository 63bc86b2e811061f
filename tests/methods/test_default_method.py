"""Which method paints if none is named: the networks trained for single styles where there are some."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import impasto
from cli_support import make_picture
from impasto.cli.main import main
from impasto.errors import ImpastoError
from impasto.images.files import write_image
from impasto.methods import DEFAULT_METHOD, STILL_METHOD, TRAINED_METHODS, method_for
from impasto.server.schema import PictureRequest, make_request
from impasto.weights import load_weights, manifest, resolve

SINGLE, SHARED = TRAINED_METHODS


def test_the_manifest_names_styles_that_the_files_hold() -> None:
    for method, held in ((SINGLE, "networks"), (SHARED, "styles")):
        names = {info["name"] for info in load_weights(resolve(method)).config[held]}
        assert set(manifest()[method]["styles"]) <= names
    assert set(manifest()[SINGLE]["styles"]) <= set(manifest()[SHARED]["styles"])


def test_built_in_styles_are_painted_by_the_first_method_that_has_learned_them() -> None:
    known = manifest()[SINGLE]["styles"]
    assert method_for(known) == SINGLE
    assert method_for([known[0]]) == SINGLE
    assert method_for(["tableau-no-2"]) == SHARED
    assert method_for([known[0], "tableau-no-2"]) == SHARED
    for styles in ([None], [known[0], None], ["plum-blossom"], ["udnie", "plum-blossom"]):
        assert method_for(styles) == STILL_METHOD
        assert method_for(styles, still=False) == DEFAULT_METHOD
        assert method_for(styles, runtime="onnxruntime") == DEFAULT_METHOD
    for styles in ([], ["card.safetensors"], [None, "card.safetensors"]):
        assert method_for(styles) == DEFAULT_METHOD


@pytest.mark.parametrize(
    ("words", "method"),
    [
        (("--style", "udnie"), SINGLE),
        (("udnie",), SINGLE),
        (("--style", "udnie", "-m", DEFAULT_METHOD), DEFAULT_METHOD),
        (("--style", "tableau-no-2"), SHARED),
        (("--style", "plum-blossom"), STILL_METHOD),
        (("photo.png",), STILL_METHOD),  # a painting, for once
        (("--style", "udnie", "--precision", "fp32"), DEFAULT_METHOD),  # an option was meant for the default method
    ],
)
def test_the_command_line_chooses_it(
    words: tuple[str, ...], method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_image(make_picture(1, 40, 50), Path("photo.png"))
    main(["stylize", "photo.png", *words, "-o", "out.jpg", "--quiet"])
    assert json.loads(Path("out.jpg.json").read_text())["method"] == method


class Stop(ImpastoError):
    """Ends a command once its recipe is known."""


def method_of(words: list[str], monkeypatch: pytest.MonkeyPatch) -> str:
    """The method that a command would paint with."""
    methods: list[str] = []

    def stop(recipe: Any, *_: Any, **__: Any) -> None:
        methods.append(getattr(recipe, "base", recipe).method)
        raise Stop("stopped")

    for place in ("batch.run", "sweep.plan_sheet", "video.plan"):
        monkeypatch.setattr(f"impasto.commands.{place}", stop)
    main(words)
    return methods[0]


@pytest.mark.parametrize(
    ("words", "method"),
    [
        ("batch photo.png --style udnie -o out", SINGLE),
        ("batch photo.png --style udnie --style great-wave -o out", SINGLE),
        ("batch photo.png --style udnie --style tableau-no-2 -o out", SHARED),  # one model paints them all
        ("batch photo.png --style udnie -o out --runtime onnxruntime", DEFAULT_METHOD),
        ("batch photo.png --style udnie -o out -m wct", "wct"),
        ("sweep photo.png udnie --vary strength=0.5,1", SINGLE),
        ("sweep photo.png tableau-no-2 --vary strength=0.5,1", SHARED),
        ("sweep photo.png udnie --vary precision=fp32,bf16", DEFAULT_METHOD),  # the default method's option
        ("batch photo.png --style udnie --style plum-blossom -o out", STILL_METHOD),
        ("sweep photo.png plum-blossom --vary strength=0.5,1", STILL_METHOD),
        ("video clip.mp4 plum-blossom", DEFAULT_METHOD),
        ("video clip.mp4 udnie", SINGLE),
        ("video clip.mp4 water-lilies", SHARED),  # in photos STILL_METHOD was preferred
        ("sweep photo.png water-lilies --vary strength=0.5,1", STILL_METHOD),
        ("video clip.mp4 tableau-no-2", SHARED),
        ("video clip.mp4 udnie --runtime openvino", DEFAULT_METHOD),
    ],
)
def test_all_commands_choose_alike(words: str, method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_image(make_picture(1, 40, 50), Path("photo.png"))
    Path("clip.mp4").write_bytes(b"\0\0\0\x18ftypisom" + bytes(100))
    assert method_of(words.split(), monkeypatch) == method


@pytest.mark.parametrize(
    ("values", "files", "method"),
    [
        ({"styles": ["udnie"]}, {}, SINGLE),
        ({"styles": ["udnie"], "method": DEFAULT_METHOD}, {}, DEFAULT_METHOD),
        ({"styles": ["udnie", "tableau-no-2"]}, {}, SHARED),
        ({"styles": ["udnie"]}, {"paintings": (b"",)}, STILL_METHOD),
        ({"styles": ["udnie"]}, {"cards": (b"",)}, DEFAULT_METHOD),
        ({"styles": ["0123456789abcdef"]}, {}, DEFAULT_METHOD),
        ({"styles": ["udnie"], "options": {"precision": "fp32"}}, {}, DEFAULT_METHOD),
        ({}, {"paintings": (b"",)}, STILL_METHOD),
    ],
)
def test_the_server_chooses_alike(values: dict[str, Any], files: dict[str, tuple[bytes, ...]], method: str) -> None:
    assert make_request(PictureRequest, values, {"content": (b"",), **files}).settings.method == method


def test_one_call_chooses_it_too() -> None:
    photo = make_picture(2, 40, 50)
    chosen = impasto.stylize(photo, "udnie", device="cpu")
    named = impasto.load(SINGLE).stylize(photo, "udnie")
    assert bool((chosen == named).all())
