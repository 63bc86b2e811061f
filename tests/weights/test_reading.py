"""Safetensors files of strangers: whatever is in them, one line says what is wrong, in time and memory that fit."""

from __future__ import annotations

import json
import os
import struct
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

from impasto.errors import ImpastoError, OptionError, WeightsError
from impasto.methods import load
from impasto.stylizers.card_check import find_misfit
from impasto.stylizers.styles import Style, load_style, save_style
from impasto.textures.generator import TextureGenerator
from impasto.weights import load_weights, resolve, save_weights
from tiny import tiny


def made(header, data=b"", length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def row(dtype="F32", shape=(1,), offsets=(0, 4)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


def deep(depth):
    return b'{"a":' * depth + b"1" + b"}" * depth


BAD = {
    "empty": b"",
    "short": b"1234567",
    "no header": struct.pack("<Q", 2) + b"[]",
    "huge header": made({}, length=2**40),
    "no JSON": made(b"\xff\xfe{"),
    "nested": made(deep(3000)),
    "nested to the limits of the parser": made(deep(200_000)),
    "many": made({f"a{i}": row(shape=(0,), offsets=(0, 0)) for i in range(20_001)}),
    "no offsets": made({"a": {"dtype": "F32", "shape": [1]}}, bytes(4)),
    "list": made({"a": [1, 2]}, bytes(4)),
    "type": made({"a": row("F8_E4M3", (4,))}, bytes(4)),
    "type that is no text": made({"a": row([], (1,))}, bytes(4)),
    "negative": made({"a": row(shape=(-1,))}, bytes(4)),
    "fraction": made({"a": row(shape=(0.5,))}, bytes(4)),
    "true": made({"a": row(shape=(True,))}, bytes(4)),
    "rank": made({"a": row(shape=(1,) * 500)}, bytes(4)),
    "overflow": made({"a": row(shape=(2**40, 2**40))}, bytes(4)),
    "overlap": made({"a": row(), "b": row()}, bytes(4)),
    "hole": made({"a": row(offsets=(4, 8))}, bytes(8)),
    "cut": made({"a": row()}, bytes(3)),
    "more": made({"a": row()}, bytes(5)),
    "texts": made({"__metadata__": {"impasto": 3}, "a": row()}, bytes(4)),
    "config": made({"__metadata__": {"impasto": "[1]"}, "a": row()}, bytes(4)),
    "nested config": made({"__metadata__": {"impasto": deep(100_000).decode()}, "a": row()}, bytes(4)),
    "long config": made({"__metadata__": {"impasto": json.dumps({"a": [0] * 300_000})}, "a": row()}, bytes(4)),
    "picture": b"\x89PNG\r\n\x1a\n" + bytes(100),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files_take_a_line(tmp_path, name):
    path = tmp_path / "a.safetensors"
    path.write_bytes(BAD[name])
    for reader in (load_weights, load_style):
        with pytest.raises(WeightsError) as message:
            reader(path)
        assert str(path) in str(message.value)
        assert "\n" not in str(message.value)
        assert len(str(message.value)) < 400


def test_good_files_are_read_as_the_library_reads_them(tmp_path):
    tensors = {
        "a": torch.rand(3, 5).half(),
        "b": torch.rand(7).bfloat16(),
        "c": torch.arange(6).view(2, 3),
        "d": torch.tensor([True, False, True]),
        "e": torch.tensor(2.5, dtype=torch.float64),
        "f": torch.zeros(0, 4),
        "g": torch.arange(5, dtype=torch.int8),
    }
    path = tmp_path / "a.safetensors"
    path.write_bytes(save(tensors, {"impasto": '{"x": [1, "é"]}'}))
    found = load_weights(path)
    assert found.config == {"x": [1, "é"]}
    assert found.tensors.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert found.tensors[name].dtype == tensor.dtype
        assert torch.equal(found.tensors[name], tensor)
        assert found.tensors[name].data_ptr() % 64 == 0
    import hashlib

    assert found.digest == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.skipif(sys.platform == "win32", reason="names devices and pipes as POSIX does")
def test_only_regular_files_of_some_size(tmp_path):
    (tmp_path / "zero").symlink_to("/dev/zero")
    os.mkfifo(tmp_path / "pipe")
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(10_000_000_000)
    for name, words in {"zero": "device", "pipe": "pipe", "sparse": "more than", ".": "folder"}.items():
        with pytest.raises(WeightsError, match=words):
            load_weights(tmp_path / name)


CONFIGS = [
    {},
    {"method": "swift"},
    {"shape": 3},
    {"shape": {"width": "16"}},
    {"shape": {"width": -1, "residuals": 5}},
    {"shape": {"width": 2**60, "residuals": 5}},
    {"shape": {"width": 60_000, "residuals": 60_000}},
    {"shape": {"width": 16, "residuals": 10**9}},
    {"shape": {"moments": 60_000, "hidden": 60_000, "width": 60_000}},
    {"widths": [60_000] * 4},
    {"widths": "abcd"},
    {"widths": []},
    {"width": 60_000, "residuals": 60_000},
    {"levels": 65_000, "branch": 8, "widths": None, "noise": 3, "textures": ["a"]},
]


@pytest.mark.parametrize("name", ["swift", "wct", "johnson", "conditional_norm", "stylebank"])
@pytest.mark.parametrize("config", CONFIGS)
def test_configurations_of_strangers_build_nothing(tmp_path, name, config):
    path = tmp_path / "a.safetensors"
    styles = [{"name": "a"}, {"name": "b"}]
    save_weights({"a": torch.zeros(3)}, path, {**config, "styles": styles, "networks": styles})
    with pytest.raises(WeightsError):
        load(name, weights=str(path))


def test_another_methods_file_is_named(tmp_path):
    data = resolve("wct").read_bytes()
    (tmp_path / "a.safetensors").write_bytes(data + b"")
    with pytest.raises(WeightsError, match="made by `impasto train wct`, not adain"):
        load("adain", weights=str(tmp_path / "a.safetensors"))
    with pytest.raises(WeightsError, match="holds no texture generator"):
        TextureGenerator.load(tmp_path / "a.safetensors")


@pytest.mark.parametrize("styles", [None, 3, [], [1], [{"title": "a"}], [{"name": ""}], [{"name": "a"}, {"name": "a"}]])
def test_styles_without_names(tmp_path, styles):
    config = load_weights(resolve("conditional_norm")).config | {"styles": styles}
    save_weights(load_weights(resolve("conditional_norm")).tensors, tmp_path / "a.safetensors", config)
    with pytest.raises(WeightsError):
        load("conditional_norm", weights=str(tmp_path / "a.safetensors"))


def odd_cards(style):
    """Versions of a style that no method can use."""
    first = next(name for name in style if not name.startswith("half."))
    yield {name: value for name, value in style.items() if name != first}
    for value in (torch.zeros(()), torch.zeros(1), torch.zeros(3, 3, 3), torch.zeros(style[first].numel() + 1)):
        yield {**style, first: value}
    yield {**style, first: style[first].long()}


@pytest.mark.parametrize("name", ["swift", "wct", "adain", "sanet", "gatys", "metanet"])
def test_cards_whose_numbers_do_not_fit(tmp_path, name):
    model = tiny(name)
    style = model.encode_style(torch.rand(1, 3, 40, 32))
    assert find_misfit(style, model.examples) is None
    assert torch.equal(model.take(style)[next(iter(style))], style[next(iter(style))])
    for values in odd_cards(style):
        odd = Style(values, style.kind)
        odd.foreign = True
        with pytest.raises(OptionError, match=r"does not fit|knows nothing of"):
            model.take(odd)


def test_a_card_of_too_many_kinds_or_of_damaged_ones(tmp_path):
    path = tmp_path / "a.safetensors"
    for config in (
        {"style": "moments/x", "others": ["a"] * 1000},
        {"style": "m" * 5000},
        {"style": "moments/x", "others": ["a"]},
        {"style": ["moments"]},
    ):
        save_weights({"relu1_1.mean": torch.zeros(3)}, path, config)
        with pytest.raises(WeightsError):
            load_style(path)
    save_weights({"relu1_1.mean": torch.zeros(3, 2), "relu1_1.root": torch.zeros(6)}, path, {"style": "moments/x"})
    with pytest.raises(WeightsError, match="damaged style card"):
        load_style(path)
    save_style(Style({"relu1_1.mean": torch.zeros(3)}, "moments/x"), path)
    assert load_style(path).kind == "moments/x"
    with pytest.raises(ImpastoError):
        tiny("wct").take(load_style(path))


def test_what_a_file_says_comes_escaped_in_errors(tmp_path: Path) -> None:
    header = json.dumps({"\x1b]0;a\nb": {"dtype": "F\n9", "shape": [], "data_offsets": [0, 0]}}).encode()
    path = tmp_path / "a.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header)
    with pytest.raises(WeightsError) as message:
        load_weights(path)
    assert "\\x1b]0;a\\x0ab holds numbers of the type F\\x0a9" in str(message.value)
    assert str(message.value).isprintable()
