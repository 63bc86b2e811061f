"""File names with colons, any bytes, any length; they are shown escaped."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest
import torch

from impasto.commands.arguments import check_target
from impasto.errors import ImpastoError, WeightsError, one_line, printable, to_json
from impasto.files import is_remote, replace_file, write_atomically
from impasto.images.files import WRITABLE, read_image, write_image
from impasto.runs.record import LONGEST_STEM, file_stem, read_recipe, write_recorded
from impasto.runs.remote_files import to_path

BYTES = os.fsdecode(b"caf\xe9")
posix = pytest.mark.skipif(sys.platform != "linux", reason="names are any bytes on Linux only")


def test_long_names_are_cut_by_bytes_and_stay_apart():
    photo, painting = "写" * 44, "画" * 44
    stem = file_stem(photo, painting)
    assert stem.startswith(photo)
    assert len(os.fsencode(stem)) <= LONGEST_STEM
    others = {file_stem(photo, painting + end) for end in "abc"} | {stem}
    assert len(others) == 4
    assert file_stem("a", "b") == "a-b"
    for count in range(60, 200):
        os.fsencode(file_stem("é" * count)).decode()


@posix
def test_a_name_that_is_no_text(tmp_path):
    path = tmp_path / f"{BYTES}.png"
    record = {"method": "gatys", "content": {"file": f"{BYTES}.png"}, "styles": [{"file": "a.png"}]}
    write_recorded(torch.rand(3, 8, 8), path, record)
    assert read_image(path).shape == (1, 3, 8, 8)
    assert read_recipe(path).content == path
    beside = tmp_path / f"{BYTES}.jpg"
    write_recorded(torch.rand(3, 8, 8), beside, record)
    json.loads(beside.with_name(f"{BYTES}.jpg.json").read_bytes())
    assert os.fsencode(file_stem(BYTES)) == b"caf\xe9"


@posix
@pytest.mark.parametrize("folder", ["12:30", "s3:", "a b\n"])
def test_names_with_colons_are_files(tmp_path, monkeypatch, folder):
    monkeypatch.chdir(tmp_path)
    (tmp_path / folder).mkdir()
    path = to_path(f"{folder}/12:30:00.png")
    assert not is_remote(path)
    write_image(torch.rand(3, 8, 8), path)
    assert read_image(path).shape == (1, 3, 8, 8)
    assert is_remote(to_path("s3://bucket/a.png"))


@pytest.mark.parametrize("suffix", WRITABLE)
@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1), (256, 256)])
def test_every_picture_writes_in_every_format(tmp_path, suffix, size):
    noise = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(1))
    for quality in (1, 95, 100):
        write_image(noise, tmp_path / f"a{suffix}", quality=quality)
        assert read_image(tmp_path / f"a{suffix}").shape == noise.shape


def test_targets_are_proven_before_the_work(tmp_path):
    assert check_target(tmp_path / "a.png", False) == tmp_path / "a.png"
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ImpastoError, match="can't be written: File name too long; write it elsewhere with -o"):
        check_target(tmp_path / ("a" * 300 + ".png"), False)
    with pytest.raises(ImpastoError, match="does not exist; make it first"):
        check_target(tmp_path / "b" / "a.png", False)
    if sys.platform != "win32":
        with pytest.raises(ImpastoError, match="device"):
            check_target(Path("/dev/null"), True)


def test_writing_is_whole_and_follows_links(tmp_path):
    longest = tmp_path / ("a" * 255)
    write_atomically(longest, b"1")
    write_atomically(longest, b"2")
    assert longest.read_bytes() == b"2"
    (tmp_path / "link").symlink_to(longest)
    replace_file(tmp_path / "link", b"3")
    assert longest.read_bytes() == b"3"
    assert (tmp_path / "link").is_symlink()
    with pytest.raises(FileExistsError):
        replace_file(longest, b"4", overwrite=False)
    with pytest.raises(WeightsError, match="No such file"):
        write_atomically(tmp_path / "none" / "a", b"")
    assert len(list(tmp_path.iterdir())) == 2


def test_files_have_the_rights_that_the_system_gives_new_ones(tmp_path):
    write_atomically(tmp_path / "a", b"")
    (tmp_path / "b").write_bytes(b"")
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "b").stat().st_mode


def test_what_is_shown_is_safe():
    assert printable("\x1b]0;title\x07 \x9b31m") == "\\x1b]0;title\\x07 \\x9b31m"
    assert printable("a\u202eb\u2028") == "a\\u202eb\\u2028"
    assert printable(BYTES) == "caf\\xe9"
    assert printable("写 é\n", keep="\n") == "写 é\n"
    assert one_line("a\n b\x1b") == "a b\\x1b"
    shown = to_json({"a": "\x1b\x9b\u202e é", "b": BYTES}, indent=2)
    assert printable(shown, keep="\n") == shown
    assert json.loads(shown) == {"a": "\x1b\x9b\u202e é", "b": BYTES}
