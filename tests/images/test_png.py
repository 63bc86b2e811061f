"""PNG files: what Pillow reads back, in every shape; how large they are."""

from __future__ import annotations

import io
import sys

import numpy as np
import pytest
from PIL import Image, ImageCms

from impasto.images.decoding import srgb
from impasto.images.files import BAND, encode_png, open_picture
from reference.png import decode_png

PROFILE = srgb().tobytes()


@pytest.fixture(autouse=True, params=["isal", "zlib"])
def compression(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "zlib":
        monkeypatch.setitem(sys.modules, "isal", None)
    else:
        pytest.importorskip("isal", reason="no wheel for this machine")


def noise(*shape: int, dtype: type = np.uint8) -> np.ndarray:
    return np.random.default_rng(1).integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (9, 1), (BAND - 1, 3), (BAND, 3), (2 * BAND + 1, 7)])
@pytest.mark.parametrize("channels", [3, 4])
def test_what_is_written_is_read(size: tuple[int, int], channels: int) -> None:
    pixels = noise(*size, channels)
    with Image.open(io.BytesIO(encode_png(pixels, PROFILE, {}))) as image:
        image.load()
        assert image.mode == {3: "RGB", 4: "RGBA"}[channels]
        np.testing.assert_array_equal(np.asarray(image), pixels)


def test_rows_that_are_no_block_of_memory() -> None:
    pixels = noise(20, 30, 4)[::2, ::-1, :3]
    with Image.open(io.BytesIO(encode_png(pixels, PROFILE, {}))) as image:
        np.testing.assert_array_equal(np.asarray(image), pixels)


@pytest.mark.parametrize("channels", [3, 4])
def test_sixteen_bits(channels: int) -> None:
    pixels = noise(BAND + 2, 5, channels, dtype=np.uint16)
    np.testing.assert_array_equal(decode_png(encode_png(pixels, PROFILE, {})), pixels)


def test_texts_and_the_profile() -> None:
    texts = {"impasto": '{"ünï": "画"}', "other": ""}
    data = encode_png(noise(4, 4, 3), PROFILE, texts)
    with Image.open(io.BytesIO(data)) as image:
        image.load()
        assert image.text == texts
        assert ImageCms.ImageCmsProfile(io.BytesIO(image.info["icc_profile"])).tobytes() == PROFILE
    assert open_picture(io.BytesIO(data)).size == (4, 4)


def test_flat_and_smooth_pictures_are_small() -> None:
    flat = np.full((512, 512, 3), 90, np.uint8)
    assert len(encode_png(flat, b"", {})) < 8_000
    y, x = np.mgrid[:512, :512]
    smooth = np.stack([x // 2, y // 2, (x + y) // 4], 2).astype(np.uint8)
    assert len(encode_png(smooth, b"", {})) < smooth.size / 5
