"""Which method paints if none is named: the networks trained for single styles where there are some."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import impasto
from cli_support import make_picture
from impasto.cli.main import main
from impasto.images.files import write_image
from impasto.methods import DEFAULT_METHOD, TRAINED_METHOD, method_for
from impasto.weights import load_weights, manifest, resolve


def test_the_manifest_names_the_styles_that_the_file_holds() -> None:
    held = [info["name"] for info in load_weights(resolve(TRAINED_METHOD)).config["networks"]]
    assert manifest()[TRAINED_METHOD]["styles"] == held


def test_styles_with_a_network_of_their_own_are_painted_by_it() -> None:
    known = manifest()[TRAINED_METHOD]["styles"]
    assert method_for(known) == TRAINED_METHOD
    assert method_for([known[0]]) == TRAINED_METHOD
    for styles in ([], [None], [known[0], None], ["water-lilies"], [known[0], "water-lilies"]):
        assert method_for(styles) == DEFAULT_METHOD


@pytest.mark.parametrize(
    ("words", "method"),
    [
        (("--style", "udnie"), TRAINED_METHOD),
        (("udnie",), TRAINED_METHOD),
        (("--style", "udnie", "-m", DEFAULT_METHOD), DEFAULT_METHOD),
        (("--style", "water-lilies"), DEFAULT_METHOD),
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


def test_one_call_chooses_it_too() -> None:
    photo = make_picture(2, 40, 50)
    chosen = impasto.stylize(photo, "udnie", device="cpu")
    named = impasto.load(TRAINED_METHOD).stylize(photo, "udnie")
    assert bool((chosen == named).all())
