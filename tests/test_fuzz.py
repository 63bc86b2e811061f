"""Files of strangers, damaged and made up: whatever they hold, they are read or refused in one line.

The short form runs with the other tests; ``pytest -m fuzz`` runs the same for minutes.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

import fuzz_pictures
import fuzz_weights
from fuzz import cards, damaged, headers, holds_or_says_why, json_values, named, picture_files
from impasto.errors import ImpastoError
from impasto.images.files import open_picture, read_metadata, read_painting
from impasto.runs.record import read_recipe
from impasto.stylizers.styles import load_style, save_style
from impasto.weights import load_weights
from tiny import tiny

PICTURES = picture_files()
SHORT, LONG = 25, int(os.environ.get("IMPASTO_FUZZ_EXAMPLES", "500"))
SEED = int(os.environ.get("IMPASTO_FUZZ_SEED", "20"))


def often(count: int, test: Callable[..., Any]) -> Callable[..., Any]:
    """`test` with so many examples, the same ones each time."""
    quiet = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large]
    chosen = settings(
        max_examples=count, deadline=None, suppress_health_check=quiet, derandomize=count == SHORT, database=None
    )
    return seed(SEED)(chosen(test)) if count == LONG else chosen(test)


def check_picture(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    picture = holds_or_says_why(lambda where: open_picture(where, max_pixels=1_000_000), path)
    if picture is not None:
        assert min(picture.size) >= 1
        assert bool(torch.isfinite(picture.color).all())
        assert 0 <= float(picture.color.min()) <= float(picture.color.max()) <= 1
        assert picture.alpha is None or 0 <= float(picture.alpha.min()) <= float(picture.alpha.max()) <= 1
        holds_or_says_why(read_painting, path)
    holds_or_says_why(read_metadata, path)


def check_weights(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    file = holds_or_says_why(load_weights, path)
    style = holds_or_says_why(load_style, path)
    if file is not None:
        holds_or_says_why(lambda _: file.build(lambda config: torch.nn.Linear(config["width"], 2), "x"), path)
        holds_or_says_why(lambda _: file.infos("styles"), path)
    if style is not None:
        for model in MODELS:
            style.kind = model.style_kind
            holds_or_says_why(lambda _, model=model: model.take(style), path)


def check_recipe(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value))
    recipe = holds_or_says_why(read_recipe, path)
    assert recipe is None or recipe.method


MODELS = [tiny("wct"), tiny("swift")]
STYLE = MODELS[0].encode_style(torch.rand(1, 3, 32, 32))


def card_bytes(folder: Path) -> bytes:
    save_style(STYLE, folder / "card.safetensors", half=True)
    return (folder / "card.safetensors").read_bytes()


def run(count: int, kind: str, folder: Path) -> None:
    """Try `count` files of a kind."""
    path = folder / f"a{'.json' if kind == 'recipe' else '.safetensors' if kind in CARDS else '.png'}"
    if kind == "recipe":
        often(count, given(named(json_values()))(lambda value: check_recipe(path, value)))()
    elif kind in CARDS:
        files = {"header": headers(), "card": cards(), "damaged card": damaged(card_bytes(folder))}[kind]
        often(count, given(files)(lambda data: check_weights(path, data)))()
    else:
        often(count, given(damaged(PICTURES[kind]))(lambda data: check_picture(path, data)))()


CARDS = ("header", "card", "damaged card")
KINDS = (*PICTURES, *CARDS, "recipe")


@pytest.mark.parametrize("kind", KINDS)
def test_whatever_it_holds_it_is_read_or_refused(kind: str, tmp_path: Path) -> None:
    run(SHORT, kind, tmp_path)


MADE = {
    **{name: (make, check_picture) for name, make in fuzz_pictures.MADE.items()},
    **{name: (make, check_weights) for name, make in fuzz_weights.MADE.items()},
}


def try_made(name: str, seed: int, count: int, folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Try `count` files that were made to do harm; nothing but errors says what is wrong with them."""
    make, check = MADE[name]
    for number in range(count):
        draw = random.Random(f"{seed} {name} {number}")
        data = make(draw)
        data = fuzz_pictures.cut_or_spoiled(draw, data) if check is check_picture else data
        try:
            check(folder / "a.png", data)
        except BaseException:
            (folder / f"{name}-{number}").write_bytes(data)
            raise
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("name", MADE)
def test_what_is_made_to_do_harm(name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    try_made(name, 20, 6, tmp_path, capfd)


@pytest.mark.fuzz
@pytest.mark.parametrize("name", MADE)
def test_what_is_made_to_do_harm_for_minutes(name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    try_made(name, SEED, LONG, tmp_path, capfd)


@pytest.mark.fuzz
@pytest.mark.parametrize("kind", KINDS)
def test_for_minutes(kind: str, tmp_path: Path) -> None:
    run(LONG, kind, tmp_path)


@given(st.binary(max_size=400))
@settings(max_examples=SHORT, deadline=None, derandomize=True, database=None)
def test_any_bytes_are_no_weights(data: bytes) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "a.safetensors")
        path.write_bytes(data)
        with pytest.raises(ImpastoError):
            load_weights(path)
