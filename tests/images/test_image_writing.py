import io
import os
import stat
import sys
from pathlib import Path

import numpy as np
import pytest
import skimage
import torch
from PIL import Image, ImageCms, PngImagePlugin

from impasto.errors import ImageError
from impasto.images import files as module
from impasto.images.decoding import srgb
from impasto.images.files import open_picture, read_image, read_metadata, write_image
from impasto.images.tensors import fit, resize
from impasto.options import parse_size
from reference.png import decode_png

BUNDLED = Path(skimage.__file__).parent / "data"


def levels(tensor):
    """(1, C, H, W) in [0, 1] to (H, W, C) of whole levels."""
    return (tensor[0].permute(1, 2, 0).double().numpy() * 255).round().astype(int)


def noise(height=23, width=31, channels=3, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)


def tensor_of(pixels):
    return torch.from_numpy(np.array(pixels)).permute(2, 0, 1)[None].float() / 255


@pytest.mark.parametrize("suffix", ["png", "tif", "tiff", "bmp", "webp"])
def test_every_level_survives_a_round_trip(tmp_path, suffix):
    ramp = np.arange(256, dtype=np.uint8).reshape(16, 16, 1) + np.array([0, 85, 170], np.uint8)
    write_image(tensor_of(ramp), tmp_path / f"a.{suffix}", quality=100)
    assert np.array_equal(levels(read_image(tmp_path / f"a.{suffix}")), ramp)


def test_values_are_rounded_and_clipped(tmp_path):
    values = torch.tensor([-3.0, 0.4 / 255, 0.6 / 255, 99.6 / 255, 254.6 / 255, 7.0])
    write_image(values.expand(3, 1, 6), tmp_path / "a.png")
    assert levels(read_image(tmp_path / "a.png"))[0, :, 0].tolist() == [0, 0, 1, 100, 255, 255]


@pytest.mark.parametrize(("suffix", "worst"), [("jpg", 40), ("jpeg", 40), ("webp", 90)])
def test_lossy_formats_stay_near(tmp_path, suffix, worst):
    image = resize(read_image(BUNDLED / "astronaut.png"), 97, 131)
    write_image(image, tmp_path / f"a.{suffix}")
    difference = (read_image(tmp_path / f"a.{suffix}") - image).abs() * 255
    assert difference.mean() < 4
    assert difference.max() < worst


def test_jpeg_is_written_without_subsampling_and_with_a_profile(tmp_path):
    write_image(tensor_of(noise()), tmp_path / "a.jpg")
    with Image.open(tmp_path / "a.jpg") as file:
        assert [layer[1:3] for layer in file.layer] == [(1, 1)] * 3
        assert "sRGB" in ImageCms.getProfileDescription(io.BytesIO(file.info["icc_profile"]))


@pytest.mark.parametrize("suffix", ["png", "webp", "tif"])
@pytest.mark.parametrize("shape", [(23, 31), (1, 23, 31), (1, 1, 23, 31)])
def test_alpha_round_trip(tmp_path, suffix, shape):
    pixels = noise(channels=4)
    pixels[:5, :, 3], pixels[5:9, :, 3] = 0, 255
    color, alpha = tensor_of(pixels[..., :3]), tensor_of(pixels[..., 3:]).view(shape)
    write_image(color, tmp_path / f"a.{suffix}", alpha=alpha, quality=100)
    picture = open_picture(tmp_path / f"a.{suffix}")
    assert np.array_equal(levels(picture.alpha), pixels[..., 3:])
    seen = pixels[..., 3] > 0
    assert np.array_equal(levels(picture.color)[seen], pixels[..., :3][seen])


@pytest.mark.parametrize("suffix", ["jpg", "bmp"])
def test_alpha_is_laid_on_white(tmp_path, suffix):
    write_image(torch.zeros(3, 16, 16), tmp_path / f"a.{suffix}", alpha=torch.full((16, 16), 0.25))
    picture = open_picture(tmp_path / f"a.{suffix}")
    assert picture.alpha is None
    assert np.abs(levels(picture.color) - 191).max() <= 1


@pytest.mark.parametrize("channels", [3, 4])
def test_sixteen_bit_png(tmp_path, channels):
    values = np.random.default_rng(1).integers(0, 65536, (channels, 7, 11))
    tensor = torch.from_numpy(values / 65535).float()
    alpha = tensor[3] if channels == 4 else None
    write_image(tensor[:3], tmp_path / "a.png", alpha=alpha, bits=16, metadata={"key": "ünï"})
    with PngImagePlugin.PngImageFile(tmp_path / "a.png") as file:
        file.load()
        assert "icc_profile" in file.info
    stored = decode_png((tmp_path / "a.png").read_bytes())
    assert np.array_equal(stored.transpose(2, 0, 1), values)
    assert (np.abs(levels(read_image(tmp_path / "a.png")) - values[:3].transpose(1, 2, 0) / 257) <= 1).all()
    assert read_metadata(tmp_path / "a.png") == {"key": "ünï"}


def test_metadata(tmp_path):
    text = {"impasto": '{"method": "adain",\n "name": "Größe 画"}', "Software": "impasto"}
    for suffix, expected in {"png": text, "jpg": {}, "webp": {}, "tif": {}, "bmp": {}}.items():
        write_image(torch.rand(3, 4, 5), tmp_path / f"a.{suffix}", metadata=text)
        assert read_metadata(tmp_path / f"a.{suffix}") == expected


def test_the_same_picture_gives_the_same_bytes(tmp_path):
    write_image(tensor_of(noise()), tmp_path / "a.png")
    srgb.cache_clear()
    write_image(tensor_of(noise()), tmp_path / "b.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_permissions_follow_the_umask(tmp_path):
    before = os.umask(0o027)
    try:
        write_image(torch.rand(3, 4, 5), tmp_path / "a.png")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.png").stat().st_mode) == 0o640


def test_a_link_is_followed(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link.png").symlink_to(tmp_path / "real" / "a.png")
    write_image(torch.rand(3, 4, 5), tmp_path / "link.png")
    assert (tmp_path / "link.png").is_symlink()
    assert read_image(tmp_path / "real" / "a.png").shape == (1, 3, 4, 5)


def test_overwrite(tmp_path):
    write_image(torch.zeros(3, 4, 5), tmp_path / "a.png")
    write_image(torch.ones(3, 4, 5), tmp_path / "a.png")
    assert read_image(tmp_path / "a.png").min() == 1
    with pytest.raises(ImageError, match="--force"):
        write_image(torch.zeros(3, 4, 5), tmp_path / "a.png", overwrite=False)
    assert read_image(tmp_path / "a.png").min() == 1
    write_image(torch.ones(3, 4, 5), tmp_path / "b.png", overwrite=False)
    assert sorted(os.listdir(tmp_path)) == ["a.png", "b.png"]


@pytest.mark.parametrize("links", [True, False])
@pytest.mark.parametrize("raced", [True, False])
def test_no_overwrite_when_the_file_appears_meanwhile(tmp_path, monkeypatch, links, raced):
    def refuse(source, target):
        raise PermissionError(1, "no hard links here")

    if not links:
        monkeypatch.setattr(os, "link", refuse)
    monkeypatch.setattr(module, "_check_target", lambda *_: None)
    if raced:
        (tmp_path / "a.png").write_bytes(b"theirs")
        with pytest.raises(ImageError, match="exists already"):
            write_image(torch.rand(3, 4, 5), tmp_path / "a.png", overwrite=False)
        assert (tmp_path / "a.png").read_bytes() == b"theirs"
    else:
        write_image(torch.rand(3, 4, 5), tmp_path / "a.png", overwrite=False)
        assert read_image(tmp_path / "a.png").shape == (1, 3, 4, 5)
    assert os.listdir(tmp_path) == ["a.png"]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_failure_leaves_the_old_file_and_no_other(tmp_path, monkeypatch, call):
    write_image(torch.zeros(3, 4, 5), tmp_path / "a.png")

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(*((os, "fsync", fail) if call == "fsync" else (Path, "replace", fail)))
    with pytest.raises(ImageError, match=r"a\.png can't be written: No space left on device"):
        write_image(torch.ones(3, 4, 5), tmp_path / "a.png")
    assert os.listdir(tmp_path) == ["a.png"]
    assert read_image(tmp_path / "a.png").max() == 0


@pytest.mark.parametrize(
    ("image", "name", "options", "reason"),
    [
        (torch.full((3, 4, 5), torch.nan), "a.png", {}, "not finite"),
        (torch.full((3, 4, 5), torch.inf), "a.jpg", {}, "not finite"),
        (torch.rand(3, 4, 5), "a.jpeg2", {}, r"\.png, \.jpg, \.jpeg, \.webp, \.tif, \.tiff, \.bmp"),
        (torch.rand(3, 4, 5), "a", {}, r"must end in one of \.png"),
        (torch.rand(3, 4, 5), "none/a.png", {}, "folder does not exist"),
        (torch.rand(3, 4, 5), "folder.png", {}, "is a folder"),
        (torch.rand(2, 3, 4, 5), "a.png", {}, "1x3xHxW.* 2x3x4x5"),
        (torch.rand(1, 4, 5), "a.png", {}, "1x3xHxW"),
        (torch.rand(3, 0, 5), "a.png", {}, "1x3xHxW"),
        (torch.zeros(3, 4, 5, dtype=torch.uint8), "a.png", {}, "floats"),
        (torch.rand(3, 4, 5), "a.png", {"alpha": torch.rand(5, 5)}, "differ in size"),
        (torch.rand(3, 4, 5), "a.png", {"alpha": torch.full((4, 5), torch.nan)}, "alpha channel .* not finite"),
        (torch.rand(3, 4, 5), "a.png", {"bits": 12}, "use 8, or 16"),
        (torch.rand(3, 4, 5), "a.tif", {"bits": 16}, "use 8, or 16"),
        (torch.rand(3, 4, 5), "a.jpg", {"quality": 0}, "from 1 to 100"),
        (torch.rand(3, 4, 5), "a.png", {"metadata": {"ключ": "x"}}, "can't be written"),
        (torch.rand(3, 1, 65501), "a.jpg", {}, "at most 65500"),
        (torch.rand(3, 16384, 1), "a.webp", {}, "at most 16383"),
    ],
)
def test_what_is_not_written(tmp_path, image, name, options, reason):
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(ImageError, match=reason) as caught:
        write_image(image, tmp_path / name, **options)
    assert "\n" not in str(caught.value)
    assert os.listdir(tmp_path) == ["folder.png"]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_floats_with_gradients_are_written(tmp_path, dtype):
    write_image(torch.rand(3, 4, 5, dtype=dtype, requires_grad=True), tmp_path / "A.PNG")
    assert read_image(tmp_path / "A.PNG").shape == (1, 3, 4, 5)


@pytest.mark.skipif(sys.platform == "win32", reason="names are not case-sensitive there")
def test_a_temporary_name_fits_where_the_name_does(tmp_path):
    name = "n" * 251 + ".png"
    write_image(torch.rand(3, 4, 5), tmp_path / name)
    assert os.listdir(tmp_path) == [name]


def test_resize_to_the_same_size_is_the_identity():
    image = torch.rand(2, 3, 17, 19) * 3 - 1
    assert resize(image, 17, 19) is image


@pytest.mark.parametrize(("height", "width"), [(64, 64), (97, 131), (31, 500), (1, 1), (1000, 7)])
def test_resize_keeps_the_mean_and_the_range(height, width):
    image = read_image(BUNDLED / "coffee.png")
    resized = resize(image, height, width)
    assert resized.shape == (1, 3, height, width)
    assert resized.min() >= 0
    assert resized.max() <= 1
    assert float((resized.mean((2, 3)) - image.mean((2, 3))).abs().max()) < 8e-3


def test_resize_is_antialiased_and_batched():
    stripes = (torch.arange(256) % 2).float().expand(1, 1, 256, 256)
    assert float((resize(stripes, 50, 50) - 0.5).abs().max()) < 0.1
    batch = torch.rand(2, 3, 40, 50)
    assert torch.equal(resize(batch, 9, 12)[1:], resize(batch[1:], 9, 12))


def test_resize_agrees_with_pillow():
    image = read_image(BUNDLED / "chelsea.png")
    with Image.open(BUNDLED / "chelsea.png") as file:
        expected = np.asarray(file.resize((131, 97), Image.Resampling.BICUBIC))
    assert np.abs(levels(resize(image, 97, 131)) - expected).max() <= 1


def test_resize_refuses_an_empty_size():
    with pytest.raises(ImageError, match="0x5"):
        resize(torch.rand(1, 3, 4, 4), 5, 0)


@pytest.mark.parametrize(
    ("size", "longer", "enlarge", "expected"),
    [
        ((400, 600), 300, False, (200, 300)),
        ((600, 400), 300, False, (300, 200)),
        ((100, 50), 300, False, (100, 50)),
        ((100, 50), 300, True, (300, 150)),
        ((1, 5000), 100, False, (1, 100)),
        ((427, 640), 512, False, (342, 512)),
        ((7, 7), 7, True, (7, 7)),
    ],
)
def test_fit(size, longer, enlarge, expected):
    assert fit(*size, longer, enlarge=enlarge) == expected


def test_fit_refuses_nothing():
    with pytest.raises(ImageError):
        fit(3, 4, 0)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("512", 512), (" 16 ", 16), ("512x384", (384, 512)), ("20X30", (30, 20)), ("20×30", (30, 20))],
)
def test_parse_size_gives_height_first(text, expected):
    assert parse_size(text) == expected


@pytest.mark.parametrize(
    "text", ["", "15", "0", "512x8", "-512", "1e3", "12.5", "512x", "x512", "1x2x3", "٥١٢", "9" * 20]
)
def test_parse_size_refuses(text):
    with pytest.raises(ImageError, match="size"):
        parse_size(text)
