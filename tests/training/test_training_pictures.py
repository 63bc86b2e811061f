"""Picture folders as training reads them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from impasto.errors import ImpastoError
from impasto.images.files import write_image
from impasto.training.pictures import Pictures


def write(path: Path, height: int, width: int, value: float | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = torch.rand(1, 3, height, width) if value is None else torch.full((1, 3, height, width), value)
    write_image(image, path)
    return path


def test_folders_are_read_through_and_damaged_files_counted(tmp_path: Path) -> None:
    write(tmp_path / "a" / "1.png", 60, 80)
    write(tmp_path / "a" / "deep" / "er" / "2.JPG", 60, 80)
    write(tmp_path / "b" / "3.webp", 60, 80)
    whole = write(tmp_path / "b" / "4.png", 60, 80)
    whole.write_bytes(whole.read_bytes()[:200])
    (tmp_path / "b" / "5.jpg").write_bytes(b"no picture at all")
    (tmp_path / "b" / "notes.txt").write_text("no picture, and does not say so")
    found = Pictures.load([tmp_path / "a", tmp_path / "b"], side=48, least=32)
    assert len(found.items) == 3
    assert len(found.skipped) == 2
    assert "4.png" in found.skipped[0]
    assert "5.jpg" in found.skipped[1]
    assert all(item.dtype == torch.uint8 for item in found.items)


def test_pictures_are_shrunk_to_the_side_in_their_proportions(tmp_path: Path) -> None:
    write(tmp_path / "1-wide.png", 100, 150)
    write(tmp_path / "2-tall.png", 201, 67)
    found = Pictures.load([tmp_path], side=50, least=32)
    assert [tuple(item.shape) for item in found.items] == [(3, 50, 75), (3, 150, 50)]


def test_a_picture_of_fitting_size_is_kept_to_the_bit(tmp_path: Path) -> None:
    image = torch.randint(0, 256, (1, 3, 40, 45))
    write_image(image / 255, tmp_path / "1.png")
    assert torch.equal(Pictures.load([tmp_path], side=50, least=32).items[0], image[0].byte())


@pytest.mark.parametrize("size", [(7, 5), (1, 1), (20, 33), (33, 20), (31, 200), (200, 3)])
def test_small_and_odd_pictures_are_enlarged_to_the_least(tmp_path: Path, size: tuple[int, int]) -> None:
    write(tmp_path / "1.png", *size, value=0.5)
    item = Pictures.load([tmp_path], side=50, least=32).items[0]
    height, width = item.shape[1:]
    assert min(height, width) == 32
    assert height / width == pytest.approx(size[0] / size[1], rel=0.05)
    assert set(item.unique().tolist()) <= {127, 128}
    assert Pictures([item]).batch((0,), 2, 32).shape == (2, 3, 32, 32)


def test_the_most_there_may_be(tmp_path: Path) -> None:
    for i in range(4):
        write(tmp_path / f"{i}.png", 32, 32, value=i / 10)
    found = Pictures.load([tmp_path], side=32, least=32, most=2)
    assert [round(float(item.float().mean()) / 25.5) for item in found.items] == [0, 1]


def test_the_order_is_that_of_the_names(tmp_path: Path) -> None:
    for name in ("c", "a", "b"):
        write(tmp_path / f"{name}.png", 32, 32, value={"a": 0.1, "b": 0.2, "c": 0.3}[name])
    found = Pictures.load([tmp_path], side=32, least=32)
    assert [round(float(item.float().mean()) / 25.5) for item in found.items] == [1, 2, 3]


@pytest.mark.parametrize("content", ["nothing", "text", "damaged", "no folder"])
def test_no_readable_picture_is_reported_with_where(tmp_path: Path, content: str) -> None:
    folder = tmp_path / "photos"
    if content != "no folder":
        folder.mkdir()
    if content in ("text", "damaged"):
        (folder / ("1.txt" if content == "text" else "1.png")).write_text("not a picture")
    with pytest.raises(ImpastoError, match=r"no readable picture in .*photos"):
        Pictures.load([folder], side=32, least=32)
