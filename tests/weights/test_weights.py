"""Weights files: they are read as they were written; damaged, foreign and missing ones are reported in one line."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import sys
from http.client import IncompleteRead
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save
from torch import nn

from impasto.errors import WeightsError
from impasto.files import write_atomically
from impasto.weights import Weights, load_weights, manifest, resolve, save_weights, torchvision_files
from impasto.weights.files import FOLDER, HEADER_KEY

TENSORS = {"a": torch.arange(6.0).view(2, 3), "n": torch.tensor(7)}


def complaint(error: pytest.ExceptionInfo[WeightsError]) -> str:
    """The error's text, which is one line."""
    text = str(error.value)
    assert "\n" not in text
    return text


# --- files of our own


def test_round_trip_with_configuration(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    config = {"method": "adain", "widths": [1, 2], "nested": {"é": None}}
    save_weights(TENSORS, path, config, half=False)
    file = load_weights(path)
    assert file.config == config
    assert file.path == path
    assert file.digest == hashlib.sha256(path.read_bytes()).hexdigest()
    assert all(torch.equal(file.tensors[name], value) for name, value in TENSORS.items())
    assert file.tensors["n"].dtype == torch.int64


def test_tensors_lie_where_torch_would_put_them(tmp_path: Path) -> None:
    odd = {f"{number:02}": torch.rand(size) for number, size in enumerate((1, 3, 7, 2, 5, 9, 33, 1, 4))}
    save_weights(odd, tmp_path / "x.safetensors", {}, half=False)
    for name, tensor in load_weights(tmp_path / "x.safetensors").tensors.items():
        assert tensor.data_ptr() % 64 == 0, name  # elsewhere the last bits of sums differ
        assert torch.equal(tensor, odd[name])


def test_half_precision_is_the_default_and_integers_stay(tmp_path: Path) -> None:
    save_weights(TENSORS, tmp_path / "x", {})
    file = load_weights(str(tmp_path / "x"))
    assert file.tensors["a"].dtype == torch.float16
    assert file.tensors["n"].dtype == torch.int64
    assert file.config == {}


def test_the_same_weights_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        save_weights(TENSORS, tmp_path / name, {"b": 1})
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


@pytest.mark.parametrize("half", [True, False])
def test_tensors_may_share_memory_be_views_and_want_gradients(tmp_path: Path, half: bool) -> None:
    shared = torch.ones(4, requires_grad=True)
    save_weights(
        {"a": shared, "b": shared, "c": shared[::2], "d": torch.ones(1).expand(3)}, tmp_path / "x", {}, half=half
    )
    assert load_weights(tmp_path / "x").tensors["d"].shape == (3,)


@pytest.mark.parametrize(("value", "half"), [(float("nan"), False), (float("inf"), True), (70_000.0, True)])
def test_what_is_not_finite_is_not_written(tmp_path: Path, value: float, half: bool) -> None:
    with pytest.raises(WeightsError, match=r"^a is not finite.*was not written") as error:
        save_weights({"a": torch.tensor([value])}, tmp_path / "x", {}, half=half)
    complaint(error)
    assert list(tmp_path.iterdir()) == []


def test_what_is_not_finite_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(save({"good": torch.ones(2), "bad": torch.tensor([1.0, float("nan")])}))
    with pytest.raises(WeightsError, match=r"x holds NaN or infinity in bad") as error:
        load_weights(path)
    complaint(error)


@pytest.mark.parametrize("cut", [0, 4, 60, -1])
def test_a_truncated_file(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "x"
    save_weights(TENSORS, path, {"a": 1})
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(WeightsError, match=r"x is no readable safetensors file") as error:
        load_weights(path)
    complaint(error)


@pytest.mark.parametrize("blob", [b"<html>not here</html>", b"\x80\x02}q\x00.", b"\xff" * 64])
def test_a_foreign_file(tmp_path: Path, blob: bytes) -> None:
    path = tmp_path / "x"
    path.write_bytes(blob)
    for read in (load_weights, torchvision_files.read_state_dict):
        with pytest.raises(WeightsError, match=r"x is no ") as error:
            read(path)
        complaint(error)


@pytest.mark.parametrize("text", ["{", "[1]", '"adain"'])
def test_a_configuration_that_is_no_table(tmp_path: Path, text: str) -> None:
    (tmp_path / "x").write_bytes(save(TENSORS, {HEADER_KEY: text}))
    with pytest.raises(WeightsError, match=r"x is no readable safetensors file") as error:
        load_weights(tmp_path / "x")
    complaint(error)


def test_a_file_that_is_missing_or_a_folder(tmp_path: Path) -> None:
    for read in (load_weights, torchvision_files.read_state_dict):
        with pytest.raises(WeightsError, match="gone does not exist"):
            read(tmp_path / "gone")
        with pytest.raises(WeightsError) as error:
            read(tmp_path)
        complaint(error)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"old")
    for reason in (OSError(28, "No space left on device"), KeyboardInterrupt()):

        def fail(*args: Any, reason: BaseException = reason) -> None:
            raise reason

        monkeypatch.setattr(os, "fsync", fail)
        with pytest.raises((WeightsError, KeyboardInterrupt)):
            write_atomically(path, b"new")
        assert [file.name for file in tmp_path.iterdir()] == ["x"]
        assert path.read_bytes() == b"old"


def test_where_nothing_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    for path, reason in ((tmp_path / "no" / "x", "No such file"), (tmp_path / "folder", "")):
        with pytest.raises(WeightsError, match=f"can't be written: {reason}") as error:
            save_weights(TENSORS, path, {})
        complaint(error)
    assert [file.name for file in tmp_path.iterdir()] == ["folder"]


@pytest.mark.skipif(os.name != "posix", reason="permission bits are POSIX")
@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_permissions_are_those_of_any_new_file(tmp_path: Path, umask: int, mode: int) -> None:
    before = os.umask(umask)
    try:
        save_weights(TENSORS, tmp_path / "x", {})
        assert os.umask(umask) == umask
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "x").stat().st_mode) == mode


# --- filling a network


def weights_of(module: nn.Module, **changes: torch.Tensor | None) -> Weights:
    tensors = module.state_dict() | {name.replace("__", "."): value for name, value in changes.items()}
    return Weights(Path("x"), {k: v for k, v in tensors.items() if v is not None}, {}, "")


def test_fill_copies_in_the_networks_own_precision() -> None:
    one, other = nn.Linear(2, 3), nn.Linear(2, 3)
    weights_of(one.half()).fill(other)
    assert other.weight.dtype == torch.float32
    assert torch.equal(other.weight, one.weight.float())


@pytest.mark.parametrize(
    ("changes", "name"),
    [({"bias": None}, "bias"), ({"bias": torch.ones(4)}, "bias"), ({"extra": torch.ones(1)}, "extra")],
)
def test_fill_names_what_does_not_fit_and_changes_nothing(changes: dict[str, torch.Tensor | None], name: str) -> None:
    module = nn.Linear(2, 3)
    before = module.weight.clone()
    file = weights_of(module, weight=torch.zeros(3, 2), **changes)
    with pytest.raises(WeightsError, match=rf"x does not hold this network: {name} is (missing|left over|4 instead)"):
        file.fill(module)
    assert torch.equal(module.weight, before)


def test_fill_may_do_without_what_is_ignored() -> None:
    module = nn.Linear(2, 3)
    weights_of(module, heads__a=torch.ones(1)).fill(module, ignore=("heads.",))
    with pytest.raises(WeightsError, match="bias"):
        weights_of(module, bias=None).fill(module, ignore=("bias",))


# --- the files in the package


def shipped() -> list[Path]:
    return sorted(FOLDER.glob("*.safetensors"))


def test_every_shipped_file_has_an_entry_and_the_other_way_round() -> None:
    assert sorted(entry["file"] for entry in manifest().values()) == [path.name for path in shipped()]


@pytest.mark.parametrize("name", sorted(manifest()))
def test_manifest_entry(name: str) -> None:
    entry = manifest()[name]
    missing = {"file", "sha256", "bytes", "licence", "data", "command", "steps", "quality"} - set(entry)
    assert not missing, f"{name} lacks {', '.join(sorted(missing))} in manifest.toml"
    blob = resolve(name).read_bytes()
    assert len(blob) == entry["bytes"]
    assert hashlib.sha256(blob).hexdigest() == entry["sha256"]
    assert load_weights(resolve(name)).digest == entry["sha256"]


def test_resolve_refuses_what_it_has_not(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(WeightsError, match=r"nothing has no shipped weights yet: train some .*shipped: "):
        resolve("nothing")
    module = sys.modules["impasto.weights.files"]  # the package's attribute of that name is the function
    monkeypatch.setattr(module, "manifest", lambda: {"lost": {"file": "lost.safetensors"}})
    with pytest.raises(WeightsError, match=r"lost\.safetensors is missing from the installed package"):
        resolve("lost")


# --- state dicts of others


def test_read_state_dict(tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    for old in (True, False):
        torch.save(nn.Linear(2, 3).state_dict(), path, _use_new_zipfile_serialization=not old)
        file = torchvision_files.read_state_dict(path)
        assert {name: tuple(value.shape) for name, value in file.tensors.items()} == {"weight": (3, 2), "bias": (3,)}
        assert file.config == {}
        assert file.digest == hashlib.sha256(path.read_bytes()).hexdigest()


class Bomb:
    """What must never run."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("exploded",)


def test_a_pickle_runs_no_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for old in (True, False):
        torch.save({"a": Bomb()}, "x.pth", _use_new_zipfile_serialization=not old)
        with pytest.raises(WeightsError, match="more than tensors") as error:
            torchvision_files.read_state_dict("x.pth")
        assert "weights_only" not in complaint(error)
        assert not Path("exploded").exists()


@pytest.mark.parametrize(
    "content",
    [
        [torch.ones(1)],
        {},
        {"state_dict": {"a": torch.ones(1)}},
        {"a": "text"},
        {1: torch.ones(1)},
        {"a": torch.ones(2).to_sparse()},
        {"a": torch.ones(2, device="meta")},
    ],
    ids=["list", "empty", "nested", "text", "number", "sparse", "meta"],
)
def test_a_pickle_that_is_no_state_dict(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "x.pth")
    with pytest.raises(WeightsError, match=r"x\.pth is no (readable )?state dict") as error:
        torchvision_files.read_state_dict(tmp_path / "x.pth")
    complaint(error)


def test_a_state_dict_that_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    torch.save({"a": torch.tensor([float("nan")])}, path)
    with pytest.raises(WeightsError, match="NaN or infinity in a"):
        torchvision_files.read_state_dict(path)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(WeightsError, match="no readable state dict"):
        torchvision_files.read_state_dict(path)


# --- downloads, from a folder in place of the server


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that serves ``file://``; the cache is another one beside it."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    folder = tmp_path / "server"
    folder.mkdir()
    return folder


def cached(server: Path) -> list[Path]:
    return sorted((server.parent / "home").rglob("*.*"))


def offer(server: Path, monkeypatch: pytest.MonkeyPatch, prefix: str | None = None) -> Path:
    """Put a file on the server whose name ends in `prefix`, or rightly in the start of its checksum."""
    torch.save({"a": torch.ones(2)}, server / "plain")
    prefix = prefix or hashlib.sha256((server / "plain").read_bytes()).hexdigest()[:8]
    path = (server / "plain").rename(server / f"vgg16-{prefix}.pth")
    monkeypatch.setattr(torchvision_files, "_url", lambda name: path.as_uri())
    return path


def test_a_download_happens_once(server: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = offer(server, monkeypatch)
    path = torchvision_files.official("vgg16")
    assert path == server.parent / "home" / "hub" / "checkpoints" / source.name
    assert path.read_bytes() == source.read_bytes()
    source.unlink()
    assert torchvision_files.official("vgg16") == path
    assert torchvision_files.load_official("vgg16").digest.startswith(source.stem.split("-")[1])
    assert cached(server) == [path]


def test_a_wrong_checksum_leaves_nothing(server: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    offer(server, monkeypatch, "00000000")
    with pytest.raises(WeightsError, match=r"weights of vgg16 came damaged.*--backbone-weights FILE") as error:
        torchvision_files.official("vgg16")
    complaint(error)
    assert cached(server) == []


def test_a_damaged_file_in_the_cache_is_not_used(server: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    offer(server, monkeypatch)
    path = torchvision_files.official("vgg16")
    torch.save({"a": torch.zeros(2)}, path)
    with pytest.raises(WeightsError, match=r"damaged.*delete it") as error:
        torchvision_files.load_official("vgg16")
    assert str(path) in complaint(error)


@pytest.mark.parametrize(
    "failure", [None, ConnectionResetError(104, "reset"), TimeoutError("timed out"), IncompleteRead(b"")]
)
def test_without_a_connection(server: Path, monkeypatch: pytest.MonkeyPatch, failure: Exception | None) -> None:
    source = offer(server, monkeypatch)
    source.unlink()
    if failure is not None:

        def broken(*args: Any, **kwargs: Any) -> None:
            raise failure

        monkeypatch.setattr(torch.hub, "urlopen", broken)
    with pytest.raises(WeightsError, match=r"no connection .* of vgg16 \(.+\): .*--backbone-weights FILE") as error:
        torchvision_files.official("vgg16")
    assert source.as_uri() in complaint(error)
    assert cached(server) == []


def test_a_cache_that_cannot_be_written(server: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    offer(server, monkeypatch)
    (server.parent / "home").write_text("a file where the folder should be")
    with pytest.raises(WeightsError, match="can't be written: ") as error:
        torchvision_files.official("vgg16")
    complaint(error)


def test_every_official_file_has_an_address_with_a_checksum() -> None:
    pytest.importorskip("torchvision")
    for name in torchvision_files.OFFICIAL:
        url = torchvision_files._url(name)
        prefix = torchvision_files._hash_prefix(url.rsplit("/", 1)[1])
        assert url.startswith("https://")
        assert len(prefix) >= 8
        assert set(prefix) <= set("0123456789abcdef")
    with pytest.raises(WeightsError, match="no official weights for 'vgg11'; there are for: vgg16"):
        torchvision_files.official("vgg11")


def test_the_header_is_json(tmp_path: Path) -> None:
    save_weights(TENSORS, tmp_path / "x", {"k": 1})
    blob = (tmp_path / "x").read_bytes()
    header = json.loads(blob[8 : 8 + int.from_bytes(blob[:8], "little")])
    assert json.loads(header["__metadata__"][HEADER_KEY]) == {"k": 1}
