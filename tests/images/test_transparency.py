"""What can't be seen never counts."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image

from impasto.errors import ImageError
from impasto.images.exchange import check_masks, mask_of
from impasto.images.files import Picture, open_picture, read_image, read_painting
from impasto.images.transparency import _nearest, fill_hidden
from impasto.runs.painting import Inputs, PaintJob
from impasto.runs.record import Recipe
from tiny import tiny

Y, X = np.mgrid[:48, :64]
INSIDE = (X - 32) ** 2 + (Y - 24) ** 2 < 20**2
PHOTO = np.dstack([4 * X, 5 * Y, 255 - 4 * X]).astype(np.uint8)


def cutout(hidden, inside=INSIDE, photo=PHOTO):
    """A photo with `hidden` as the colour of all that is transparent."""
    pixels = np.dstack([photo, inside * 255]).astype(np.uint8)
    pixels[~inside, :3] = hidden
    return Image.fromarray(pixels)


def opened(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return open_picture(io.BytesIO(buffer.getvalue()))


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_hidden_colours_do_not_count(kind):
    options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    black, white = (opened(cutout(hidden), kind, **options) for hidden in (0, 255))
    assert torch.equal(black.stored, white.stored)
    assert np.array_equal(black.stored[INSIDE].numpy(), PHOTO[INSIDE])


def test_hidden_colours_are_those_of_what_is_visible_beside_them():
    left = X < 30
    filled = fill_hidden(np.where(left[..., None], PHOTO, 0), left.astype(np.float32))
    assert np.array_equal(filled[:, 30:58], PHOTO[:, 28:0:-1])


def test_all_transparent_is_grey_and_no_painting(tmp_path):
    cutout(9, inside=X < 0).save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png").unique().tolist() == pytest.approx([128 / 255])
    with pytest.raises(ImageError, match="all transparent"):
        read_painting(tmp_path / "a.png")


def test_painting_is_its_visible_part(tmp_path):
    for hidden in (0, 255):
        cutout(hidden).save(tmp_path / f"{hidden}.png")
    black, white = (read_painting(tmp_path / f"{hidden}.png") for hidden in (0, 255))
    assert torch.equal(black, white)
    assert black.shape == (1, 3, 39, 39)


def test_large_pictures_are_filled_by_cells():
    y, x = np.mgrid[:600, :900]
    inside = x < 450
    photo = np.dstack([x % 251, y % 241, x % 13]).astype(np.uint8)
    photo[~inside] = 77
    filled = fill_hidden(photo, inside.astype(np.float32))
    assert np.array_equal(filled[inside], photo[inside])
    assert (filled[~inside] == 77).all(1).mean() < 0.01
    assert np.abs(filled[:, 450:].astype(float).mean((0, 1)) - photo[:, :450].astype(float).mean((0, 1))).max() < 8


def test_nearest_is_the_nearest():
    solid = np.random.default_rng(1).random((23, 31)) < 0.05
    rows, columns = _nearest(solid)
    y, x = np.indices(solid.shape)
    ys, xs = np.nonzero(solid)
    least = ((y[..., None] - ys) ** 2 + (x[..., None] - xs) ** 2).min(-1)
    found = (y - rows) ** 2 + (x - columns) ** 2
    assert solid[rows, columns].all()
    assert (found >= least).all()
    assert (found == least).mean() > 0.95


@pytest.mark.parametrize("size", [(16, 21), (31, 40), (96, 128)])
def test_resizing_does_not_mix_in_what_is_hidden(size):
    pixels = np.zeros((48, 64, 4), np.uint8)
    pixels[..., 1] = 255
    pixels[INSIDE] = 220, 30, 30, 255
    small = opened(Image.fromarray(pixels)).resized(*size)
    assert small.alpha.shape == (1, 1, *size)
    assert small.color[:, 1].max() <= 30.1 / 255


def test_faint_colours_count_little_when_resized():
    pixels = np.full((32, 32, 4), 255, np.uint8)
    pixels[:, ::2] = 0, 255, 0, 3
    small = opened(Image.fromarray(pixels)).resized(8, 8)
    assert (small.color[:, 0, 2:6, 2:6] > 0.95).all()


@pytest.mark.parametrize("name", ["swift", "gatys"])
def test_a_job_paints_the_same_whatever_is_hidden(name):
    model, found = tiny(name), []
    for hidden in (0, 255):
        photo = opened(cutout(hidden))
        inputs = Inputs(photo, (torch.rand(1, 3, 24, 24, generator=torch.Generator().manual_seed(3)),), ())
        job = PaintJob(Recipe.parse({"method": name}, "test"), model, (24, 32), inputs)
        found.append(job.paint())
        assert job.alpha.shape == (1, 1, 24, 32)
    assert torch.equal(*found)


def test_selection_in_alpha():
    pixels = np.full((16, 16, 4), 255, np.uint8)
    pixels[:, 8:, 3] = 0
    for level in (255, 0):
        pixels[..., :3] = level
        mask = mask_of(opened(Image.fromarray(pixels)))
        assert mask.shape == (1, 1, 16, 16)
        assert mask[..., :8].min() == 1
        assert mask[..., 8:].max() == 0


def test_a_mask_that_selects_nothing_says_so(caplog):
    labels, white = torch.full((1, 1, 4, 4), 1 / 255), torch.ones(1, 1, 4, 4)
    with pytest.raises(ImageError, match=r"labels\.png selects nothing: its brightest value is 1 of 255"):
        check_masks((labels,), ("labels.png",))
    check_masks((), ())
    check_masks((white, 0 * labels), ("white.png", "black.png"))
    assert "black.png selects nothing" in caplog.text
    assert "white.png" not in caplog.text


def test_opaque_pictures_are_untouched():
    picture = opened(Image.fromarray(PHOTO))
    assert picture.alpha is None
    assert picture.resized(48, 64) is picture
    assert isinstance(picture.resized(24, 32), Picture)
