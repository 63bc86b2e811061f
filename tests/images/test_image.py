import io
import struct
import threading
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
import skimage
import torch
from PIL import Image, ImageCms

from impasto.errors import ImageError
from impasto.images.files import open_picture, read_image, read_metadata

BUNDLED = Path(skimage.__file__).parent / "data"
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def levels(tensor):
    """(1, C, H, W) in [0, 1] to (H, W, C) of whole levels."""
    scaled = tensor[0].permute(1, 2, 0).double().numpy() * 255
    assert np.abs(scaled - scaled.round()).max() < 1e-4
    return scaled.round().astype(int)


def noise(height=23, width=31, channels=3, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)


def icc(space, pcs, tags):
    """A small ICC profile, version 2."""
    body, table = b"", b""
    for name, data in tags.items():
        table += struct.pack(">4sII", name, 132 + 12 * len(tags) + len(body), len(data))
        body += data + b"\0" * (-len(data) % 4)
    head = struct.pack(">I4sI4s4s4s12x4s", 132 + len(table) + len(body), b"", 0x02100000, b"prtr", space, pcs, b"acsp")
    head += struct.pack(">28x3I", 0xF6D6, 0x10000, 0xD32D)
    return head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body


WHITE_POINT = struct.pack(">4s4x3I", b"XYZ ", 0xF6D6, 0x10000, 0xD32D)
LINEAR_GREY = icc(b"GRAY", b"XYZ ", {b"wtpt": WHITE_POINT, b"kTRC": struct.pack(">4s4xIH", b"curv", 1, 0x100)})


def cyan_only_profile():
    """A CMYK profile in which only cyan darkens."""
    identity = struct.pack(">9i", *(0x10000 if i % 4 == 0 else 0 for i in range(9)))
    ramp = bytes(range(256))
    grid = b"".join(bytes([255 if cyan == 0 else 0, 128, 128]) for cyan in (0, 1) for _ in range(8))
    table = struct.pack(">4s4x4B", b"mft1", 4, 3, 2, 0) + identity + ramp * 4 + grid + ramp * 3
    return icc(b"CMYK", b"Lab ", {b"wtpt": WHITE_POINT, b"A2B0": table})


def bomb(width, height):
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(b"")),
        (b"IEND", b""),
    ]
    packed = [struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


@pytest.mark.parametrize("name", ["astronaut.png", "chelsea.png", "coffee.png", "retina.jpg"])
def test_read_bundled(name):
    image = read_image(BUNDLED / name)
    with Image.open(BUNDLED / name) as file:
        expected = np.asarray(file.convert("RGB"))
    assert image.dtype == torch.float32
    assert image.is_contiguous()
    assert image.shape == (1, 3, *expected.shape[:2])
    assert np.abs(levels(image) - expected).max() == 0


def test_read_grey_has_three_channels(tmp_path):
    image = read_image(str(BUNDLED / "camera.png"))
    assert image.shape == (1, 3, 512, 512)
    assert torch.equal(image[:, 0], image[:, 2])


@pytest.mark.parametrize("suffix", ["png", "tif", "jpg", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation(tmp_path, orientation, suffix):
    """Corners of the upright picture: red, green / blue, white."""
    upright = np.zeros((16, 32, 3), np.uint8)
    upright[:8, :16], upright[:8, 16:], upright[8:, :16], upright[8:, 16:] = [255, 0, 0], [0, 255, 0], [0, 0, 255], 255
    undo = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),
        7: np.rot90(upright.transpose(1, 0, 2), 2),
        8: np.rot90(upright, -1),
    }
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(np.ascontiguousarray(undo[orientation]))
    stored.save(tmp_path / f"a.{suffix}", exif=exif, **({"lossless": True} if suffix == "webp" else {}))
    image = read_image(tmp_path / f"a.{suffix}")
    assert image.shape == (1, 3, 16, 32)
    found = (image[0, :, [4, 4, 12, 12], [8, 24, 8, 24]].T > 0.5).int().tolist()
    assert found == [[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1]]


def test_bundled_photo_with_a_wide_gamut_profile():
    with Image.open(BUNDLED / "rocket.jpg") as file:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(file.info["icc_profile"]))
        expected = ImageCms.profileToProfile(file, profile, ImageCms.createProfile("sRGB"), outputMode="RGB")
    assert np.abs(levels(read_image(BUNDLED / "rocket.jpg")) - np.asarray(expected)).max() <= 2


def test_broken_exif_is_ignored(tmp_path):
    Image.fromarray(noise()).save(tmp_path / "a.png", exif=b"Exif\0\0II*\0\xff\xff\xff\xff nonsense")
    assert np.array_equal(levels(read_image(tmp_path / "a.png")), noise())


def test_icc_profile_with_swapped_primaries(tmp_path):
    swapped = SRGB.replace(b"rXYZ", b"????").replace(b"gXYZ", b"rXYZ").replace(b"????", b"gXYZ")
    Image.new("RGB", (4, 4), (255, 0, 0)).save(tmp_path / "a.png", icc_profile=swapped)
    assert np.abs(levels(read_image(tmp_path / "a.png")) - [0, 255, 0]).max() <= 1


@pytest.mark.parametrize("profile", [SRGB, b"not a profile", SRGB[:200], LINEAR_GREY])
def test_icc_profile_that_changes_nothing_or_is_broken(tmp_path, profile):
    Image.fromarray(noise()).save(tmp_path / "a.png", icc_profile=profile)
    assert np.array_equal(levels(read_image(tmp_path / "a.png")), noise())


@pytest.mark.parametrize("mode", ["L", "LA", "I;16"])
def test_icc_profile_of_linear_grey(tmp_path, mode):
    grey = (
        Image.fromarray(np.full((5, 7), 128 * 257, np.uint16))
        if mode == "I;16"
        else Image.new(mode, (7, 5), 128 if mode == "L" else (128, 255))
    )
    grey.save(tmp_path / "a.png", icc_profile=LINEAR_GREY)
    expected = 1.055 * (128 / 255) ** (1 / 2.4) - 0.055
    assert float((read_image(tmp_path / "a.png") - expected).abs().max()) < 1.5 / 255


def test_grey_with_rgb_profile(tmp_path):
    Image.new("L", (3, 2), 77).save(tmp_path / "a.png", icc_profile=SRGB)
    assert (levels(read_image(tmp_path / "a.png")) == 77).all()


def test_cmyk(tmp_path):
    ink = Image.new("CMYK", (8, 8), (255, 0, 0, 0))
    ink.save(tmp_path / "plain.tif")
    ink.save(tmp_path / "plain.jpg", quality=100)
    ink.save(tmp_path / "profile.tif", icc_profile=cyan_only_profile())
    Image.new("CMYK", (8, 8), (0, 255, 0, 0)).save(tmp_path / "magenta.tif", icc_profile=cyan_only_profile())
    assert (levels(read_image(tmp_path / "plain.tif")) == [0, 255, 255]).all()
    assert np.abs(levels(read_image(tmp_path / "plain.jpg")) - [0, 255, 255]).max() <= 2
    assert levels(read_image(tmp_path / "profile.tif")).max() <= 2
    assert levels(read_image(tmp_path / "magenta.tif")).min() >= 253


def test_lab_tiff(tmp_path):
    grey = np.repeat(np.arange(0, 256, 5, dtype=np.uint8)[None, :, None], 3, axis=2)
    lab = ImageCms.profileToProfile(
        Image.fromarray(grey), ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
    )
    lab.save(tmp_path / "a.tif")
    assert np.abs(levels(read_image(tmp_path / "a.tif")) - grey).max() <= 3


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bit_grey_keeps_its_precision(tmp_path, suffix):
    values = np.arange(0, 65536, 17, dtype=np.uint16).reshape(16, 241)
    Image.fromarray(values).save(tmp_path / f"a.{suffix}")
    image = read_image(tmp_path / f"a.{suffix}")
    assert np.abs(image[0, 1].double().numpy() - values / 65535).max() < 1e-6


def test_sixteen_bit_grey_with_a_transparent_value(tmp_path):
    Image.fromarray(np.array([[0, 1000, 65535]], np.uint16)).save(tmp_path / "a.png", transparency=1000)
    picture = open_picture(tmp_path / "a.png")
    assert picture.alpha.flatten().tolist() == [1, 0, 1]
    assert picture.color[0, 0, 0, ::2].tolist() == [0, 1]


@pytest.mark.parametrize(("dtype", "scale"), [(np.float32, 1), (np.int32, 65535), (np.int32, 2**31 - 1)])
def test_thirty_two_bit_grey(tmp_path, dtype, scale):
    values = np.linspace(0, 1, 12).reshape(3, 4)
    Image.fromarray((values * scale).astype(dtype)).save(tmp_path / "a.tif")
    assert np.abs(read_image(tmp_path / "a.tif")[0, 0].numpy() - values).max() < 1e-4


def test_float_tiff_is_clipped_and_finite(tmp_path):
    Image.fromarray(np.array([[-1, 0.25, 7, np.nan, np.inf]], np.float32)).save(tmp_path / "a.tif")
    assert read_image(tmp_path / "a.tif")[0, 0, 0].tolist() == pytest.approx([0, 0.25, 1, 0, 1])


@pytest.mark.parametrize("suffix", ["png", "gif"])
def test_palette_with_transparency(tmp_path, suffix):
    image = Image.new("P", (3, 1))
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    image.putdata([0, 1, 2])
    image.save(tmp_path / f"a.{suffix}", transparency=1)
    picture = open_picture(tmp_path / f"a.{suffix}")
    assert picture.alpha.flatten().tolist() == [1, 0, 1]
    assert levels(picture.color)[0, ::2].tolist() == [[255, 0, 0], [0, 0, 255]]


def test_one_bit(tmp_path):
    Image.fromarray(np.eye(4, dtype=bool)).save(tmp_path / "a.png")
    picture = open_picture(tmp_path / "a.png")
    assert picture.alpha is None
    assert torch.equal(picture.color[0, 0], torch.eye(4))


def test_animation_gives_its_first_frame(tmp_path):
    frames = [Image.new("RGB", (5, 4), color) for color in ("red", "lime", "blue")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    frames[0].save(tmp_path / "a.webp", save_all=True, append_images=frames[1:], lossless=True)
    for name in ("a.gif", "a.webp"):
        assert (levels(read_image(tmp_path / name)) == [255, 0, 0]).all()


def test_jpeg_with_several_pictures(tmp_path):
    first, second = Image.new("RGB", (16, 8), "white"), Image.new("RGB", (16, 8), "black")
    first.save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=[second])
    assert (levels(read_image(tmp_path / "a.jpg")) == 255).all()


def test_bomb_is_refused_by_its_header(tmp_path):
    (tmp_path / "a.png").write_bytes(bomb(60000, 60000))
    with pytest.raises(ImageError, match=r"a\.png: .*3600000000 .* 200000000 "):
        read_image(tmp_path / "a.png")


def test_limit_is_exact_and_silent_and_leaves_pillow_as_it_was(tmp_path):
    before = Image.MAX_IMAGE_PIXELS
    Image.fromarray(noise(9, 11)).save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png", max_pixels=99).shape == (1, 3, 9, 11)
    for limit in (98, 97, 10, 1):
        with pytest.raises(ImageError, match=rf"99 pixels\) exceeds the limit of {limit} "):
            read_image(tmp_path / "a.png", max_pixels=limit)
    assert before == Image.MAX_IMAGE_PIXELS


def test_a_limit_above_that_of_pillow(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20)
    Image.fromarray(noise(9, 11)).save(tmp_path / "a.tif")
    assert read_image(tmp_path / "a.tif").shape == (1, 3, 9, 11)
    assert Image.MAX_IMAGE_PIXELS == 20


def test_many_threads_restore_the_limit(tmp_path):
    before, filters = Image.MAX_IMAGE_PIXELS, list(warnings.filters)
    Image.fromarray(noise()).save(tmp_path / "a.png")
    limits = [1, 1000, 2000] * 8
    results = []

    def read(limit):
        try:
            results.append(read_image(tmp_path / "a.png", max_pixels=limit).shape[2] if limit > 1 else 0)
        except ImageError:
            results.append(-1)

    threads = [threading.Thread(target=read, args=(limit,)) for limit in limits]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == sorted([0] * 8 + [23] * 16)
    assert before == Image.MAX_IMAGE_PIXELS
    assert warnings.filters == filters


def damaged(folder):
    buffer = io.BytesIO()
    Image.fromarray(noise(200, 200)).save(buffer, "JPEG")
    files = {
        "cut.jpg": buffer.getvalue()[:4000],
        "page.png": b"<!DOCTYPE html><html></html>",
        "drawing.png": b"\xef\xbb\xbf\n<svg xmlns='http://www.w3.org/2000/svg'/>",
        "empty.png": b"",
        "text.jpg": b"hello, this is not a picture",
        "other.png": b"P6 1 1 255 abc",
        "postscript.jpg": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
    }
    for name, data in files.items():
        (folder / name).write_bytes(data)
    (folder / "folder.png").mkdir()


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("cut.jpg", "damaged or incomplete"),
        ("page.png", "web page"),
        ("drawing.png", "SVG"),
        ("empty.png", "is empty"),
        ("text.jpg", "must be one of JPEG, PNG"),
        ("other.png", "must be one of JPEG, PNG"),
        ("postscript.jpg", "must be one of JPEG, PNG"),
        ("folder.png", "is a folder"),
        ("missing.png", "No such file"),
    ],
)
@pytest.mark.parametrize("reader", [open_picture, read_image, read_metadata])
def test_what_is_no_picture(tmp_path, reader, name, reason):
    damaged(tmp_path)
    if reader is read_metadata and name == "cut.jpg":
        pytest.skip("a JPEG's metadata is read without its pixels")
    with pytest.raises(ImageError) as caught:
        reader(tmp_path / name)
    assert reason in str(caught.value)
    assert str(tmp_path / name) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_permission(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("impasto.images.opening.open_regular", refuse)
    with pytest.raises(ImageError, match=r"a\.png can't be opened: Permission denied; check its name and permissions"):
        read_image(tmp_path / "a.png")
