"""Every TIFF field that changes what samples mean is honoured, or refused by its name."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms, TiffImagePlugin

from impasto.errors import ImageError
from impasto.images.files import open_picture
from impasto.images.tiff import build

Y, X = np.mgrid[:24, :40]
PHOTO = np.dstack([6 * X, 10 * Y, 255 - 6 * X]).astype(np.uint8)
GREY = PHOTO[..., 0]
W, H, BITS, CODEC, COLOR, FILL, SAMPLES, ROWS, COUNTS = 256, 257, 258, 259, 262, 266, 277, 278, 279


def raw(data, bits, color, order="<", samples=1, codec=1, shape=(24, 40), **more):
    """A TIFF file of one strip with these fields, read. more: `f338=(2,)` is field 338; (value, type) with `t`."""
    fields = {W: (shape[1],), H: (shape[0],), BITS: (bits,) * samples, CODEC: (codec,), COLOR: (color,)}
    fields |= {SAMPLES: (samples,), ROWS: (shape[0],), COUNTS: (len(data),)}
    types = dict.fromkeys([BITS, CODEC, COLOR, SAMPLES], 3)
    for name, values in more.items():
        fields[int(name[1:])], types[int(name[1:])] = values, 5 if isinstance(values[0], tuple) else 3
    return open_picture(io.BytesIO(build(order, fields, types, data, [0])), name="a.tif")


def written(pixels, **options):
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, pixels, **options)
    return open_picture(io.BytesIO(buffer.getvalue()), name="a.tif")


def by_pillow(pixels, **options):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "TIFF", **options)
    return open_picture(io.BytesIO(buffer.getvalue()), name="a.tif")


def levels(picture):
    return picture.color[0].permute(1, 2, 0).double().numpy() * 255


def near(picture, expected, by=0.51):
    expected = np.broadcast_to(np.asarray(expected, float).reshape(*expected.shape[:2], -1), (*expected.shape[:2], 3))
    assert np.abs(levels(picture) - expected).max() <= by


def packed(values, bits):
    """Rows of values, the highest bit first, each row filled to whole bytes."""
    bit = (values[..., None].astype(np.int64) >> np.arange(bits - 1, -1, -1)) & 1
    return np.packbits(bit.reshape(len(values), -1).astype(np.uint8), axis=1).tobytes()


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 12, 14, 16, 20])
@pytest.mark.parametrize("color", [0, 1])
def test_any_depth_and_polarity_of_grey(bits, color):
    most = 2**bits - 1
    values = np.round(GREY / 255 * most).astype(np.int64)
    stored = most - values if color == 0 else values
    data = stored.astype("<u2").tobytes() if bits == 16 else packed(stored, bits)
    near(raw(data, bits, color), values / most * 255)


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("bits", [8, 16, 24, 32])
def test_byte_order_of_colours(order, bits):
    values = PHOTO.astype(np.uint64) * ((2**bits - 1) // 255)
    parts = values[..., None] >> np.arange(0, bits, 8, dtype=np.uint64) & np.uint64(255)
    data = parts.astype(np.uint8)[..., :: 1 if order == "<" else -1].tobytes()
    near(raw(data, bits, 2, order, samples=3), PHOTO, 0.01)


@pytest.mark.parametrize("dtype", ["u1", "u2", "u4", "f2", "f4", "f8"])
@pytest.mark.parametrize("planes", ["contig", "separate"])
@pytest.mark.parametrize("tile", [None, (16, 16)])
def test_planes_types_and_tiles(dtype, planes, tile):
    kind = np.dtype(dtype)
    values = (PHOTO / 255).astype(kind) if kind.kind == "f" else PHOTO.astype(kind) * (np.iinfo(kind).max // 255)
    values = values.transpose(2, 0, 1) if planes == "separate" else values
    options = {"photometric": "rgb", "planarconfig": planes, "tile": tile}
    near(written(values, **options), PHOTO, 0.2 if dtype == "f2" else 0.01)
    near(written(values, **options, compression="zlib", rowsperstrip=None if tile else 5), PHOTO, 0.2)


@pytest.mark.parametrize("codec", ["tiff_lzw", "tiff_adobe_deflate", "packbits", "lzma", "zstd"])
def test_compressions_of_deep_samples(codec):
    values = GREY.astype(np.uint16) * 257
    near(by_pillow(values, compression=codec), GREY, 0.01)


@pytest.mark.parametrize("planes", [1, 2])
@pytest.mark.parametrize("order", "<>")
def test_horizontal_predictor(planes, order):
    values = PHOTO.astype(order + "u2") * 257
    rows = values.transpose(2, 0, 1).reshape(72, 40, 1) if planes == 2 else values
    differences = np.diff(rows.astype(np.uint16), axis=1, prepend=np.uint16(0)).astype(order + "u2")
    if planes == 1:
        near(raw(differences.tobytes(), 16, 2, order, samples=3, f317=(2,)), PHOTO, 0.01)
        return
    data = differences.tobytes()
    fields = {W: (40,), H: (24,), BITS: (16, 16, 16), CODEC: (1,), COLOR: (2,), SAMPLES: (3,), ROWS: (24,)}
    fields |= {COUNTS: (len(data) // 3,) * 3, 284: (2,), 317: (2,)}
    places = [0, len(data) // 3, 2 * len(data) // 3]
    made = build(order, fields, {BITS: 3}, data, places)
    near(open_picture(io.BytesIO(made), name="a.tif"), PHOTO, 0.01)


def test_floating_point_predictor():
    values = (PHOTO / 255).astype(np.float32)
    weights = values.astype(">f4").view(np.uint8).reshape(24, 120, 4).transpose(0, 2, 1).reshape(24, 160, 3)
    data = np.diff(weights, axis=1, prepend=np.uint8(0)).astype(np.uint8).tobytes()
    near(raw(data, 32, 2, samples=3, f317=(3,), f339=(3, 3, 3)), PHOTO, 0.01)


def test_fill_order():
    values = np.array([int(f"{v:08b}"[::-1], 2) for v in range(256)], np.uint8)
    near(raw(values[PHOTO].tobytes(), 8, 2, samples=3, f266=(2,)), PHOTO, 0.01)


@pytest.mark.parametrize(("extra", "premultiplied"), [(1, True), (2, False)])
@pytest.mark.parametrize("dtype", ["u1", "u2"])
def test_alpha_of_both_kinds(extra, premultiplied, dtype):
    scale = np.iinfo(dtype).max // 255
    alpha = np.where(X < 20, 255, 128).astype(np.uint8)
    color = np.round(PHOTO * (alpha[..., None] / 255)) if premultiplied else PHOTO
    data = (np.dstack([color, alpha]).astype(dtype) * scale).tobytes()
    picture = raw(data, 8 * np.dtype(dtype).itemsize, 2, samples=4, f338=(extra,))
    near(picture, PHOTO, 2)
    assert np.abs(picture.alpha[0, 0].numpy() * 255 - alpha).max() < 0.01


def test_grey_with_alpha_and_other_samples():
    alpha = np.where(X < 20, 65535, 0)
    data = np.dstack([GREY.astype(np.uint16) * 257, alpha, X, Y]).astype("<u2").tobytes()
    picture = raw(data, 16, 1, samples=4, f338=(2, 0, 0))
    assert np.abs(levels(picture)[:, :20, 0] - GREY[:, :20]).max() < 0.01
    assert picture.alpha[0, 0, :, 20:].max() == 0


@pytest.mark.parametrize("color", [8, 9])
@pytest.mark.parametrize("bits", [8, 16])
def test_lab_of_both_kinds(color, bits):
    lab = np.stack([np.full((24, 40), 50.0), np.full((24, 40), 40.0), np.full((24, 40), -30.0)], -1)
    white = 255 if bits == 8 else 65535 if color == 8 else 0xFF00
    scale = 2 ** (bits - 8)
    light, chroma = lab[..., :1] / 100 * white, (lab[..., 1:] + (0 if color == 8 else 128)) * scale
    values = np.round(np.concatenate([light, chroma], -1)).astype(np.int64) % 2**bits
    data = values.astype(f"<u{bits // 8}").tobytes()
    srgb = Image.merge("LAB", [Image.new("L", (1, 1), level) for level in (128, 168, 98)])
    srgb = ImageCms.profileToProfile(srgb, ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), 1, "RGB")
    near(raw(data, bits, color, samples=3), np.broadcast_to(srgb.getpixel((0, 0)), (24, 40, 3)), 2.5)


def test_palette_of_sixteen_bits_and_ycbcr():
    table = tuple(int(v) for v in np.concatenate([np.arange(16) * 4369, np.arange(16)[::-1] * 4369, [0] * 16]))
    values = X % 16
    expected = np.dstack([values * 17, 255 - values * 17, 0 * values])
    near(raw(packed(values, 4), 4, 3, f320=table), expected, 0.01)
    grey = np.dstack([GREY, 0 * GREY + 128, 0 * GREY + 128])
    near(raw(grey.tobytes(), 8, 6, samples=3, f530=(1, 1)), GREY)


def test_reference_black_and_white():
    values = np.round(16 + GREY / 255 * 219).astype(np.uint8)
    pairs = ((16, 1), (235, 1))
    near(raw(values.tobytes(), 8, 1, f532=pairs), GREY, 0.6)


def test_orientation_of_deep_samples():
    near(raw((PHOTO.astype("<u2") * 257).tobytes(), 16, 2, samples=3, f274=(6,)), np.rot90(PHOTO, -1), 0.01)


def test_transfer_function_is_honoured():
    linear = (np.arange(256) * 257).tolist()
    light = np.where(GREY / 255 <= 0.0031308, GREY / 255 * 12.92, 1.055 * (GREY / 255) ** (1 / 2.4) - 0.055) * 255
    rgb = np.dstack([GREY] * 3)
    near(raw(rgb.tobytes(), 8, 2, samples=3, f301=tuple(linear)), light, 3)


def test_signed_samples_that_are_not_negative():
    values = np.round(GREY / 255 * 32767).astype("<i2")
    near(raw(values.tobytes(), 16, 1, f339=(2,)), GREY, 0.01)
    near(raw((values.astype("<i2") >> 8).astype("i1").tobytes(), 8, 1, f339=(2,)), GREY, 2.5)


DATA = bytes(24 * 40 * 8)


@pytest.mark.parametrize(
    ("arguments", "more", "words"),
    [
        ((DATA, 8, 32803), {}, "raw samples of a camera"),
        ((DATA, 16, 32845), {}, "LogLuv"),
        ((DATA, 8, 77), {}, "PhotometricInterpretation 77"),
        ((DATA, 32, 1), {"f339": (5,)}, "complex numbers"),
        ((DATA, 8, 1), {"codec": 34712}, "JPEG 2000"),
        ((DATA, 8, 1), {"codec": 999}, "Compression 999"),
        ((DATA, 8, 1), {"f317": (9,)}, "Predictor 9"),
        ((DATA, 8, 5), {"samples": 4, "f332": (2,)}, "InkSet"),
        ((DATA, 8, 5), {"samples": 3}, "SamplesPerPixel"),
        ((DATA, 24, 1), {"f339": (3,)}, "floats of 24 bits"),
        ((DATA, 8, 6), {"samples": 3, "f530": (2, 2)}, "YCbCrSubSampling"),
        ((DATA, 8, 1), {"samples": 60}, "60 samples a pixel"),
        ((struct.pack("<h", -9) * 960, 16, 1), {"f339": (2,)}, "samples below 0"),
        ((np.full(960, 200, "<f4").tobytes(), 32, 1), {"f339": (3,)}, "floats up to 200"),
        ((DATA[:99], 16, 1), {}, "damaged or incomplete"),
        ((DATA, 8, 1), {"f258": (5, 6, 5), "samples": 3}, "different kinds"),
    ],
)
def test_refused_by_name(arguments, more, words):
    with pytest.raises(ImageError, match=words) as message:
        raw(*arguments, **more)
    assert str(message.value).startswith("a.tif")
    assert "\n" not in str(message.value)


def test_only_the_first_page_is_read():
    buffer = io.BytesIO()
    pages = [Image.fromarray(PHOTO), Image.fromarray(255 - PHOTO)]
    pages[0].save(buffer, "TIFF", save_all=True, append_images=pages[1:])
    near(open_picture(io.BytesIO(buffer.getvalue()), name="a.tif"), PHOTO, 0.01)


def test_profile_of_deep_colours_keeps_their_precision():
    from impasto.images.decoding import SRGB_XY, make_profile

    values = np.linspace(0, 1, 4096)[None, :, None] * np.ones(3)
    data = np.round(values * 65535).astype("<u2").tobytes()
    profile = make_profile(SRGB_XY, 1.0)
    fields = {W: (4096,), H: (1,), BITS: (16,) * 3, CODEC: (1,), COLOR: (2,), SAMPLES: (3,), ROWS: (1,)}
    fields |= {COUNTS: (len(data),), 34675: (profile,)}
    picture = open_picture(io.BytesIO(build("<", fields, {BITS: 3, 34675: 7}, data, [0])), name="a.tif")
    expected = np.where(values <= 0.0031308, values * 12.92, 1.055 * values ** (1 / 2.4) - 0.055) * 255
    assert np.abs(levels(picture) - expected).max() < 1.5
    assert len(np.unique(levels(picture)[0, :, 0])) > 2000


def test_pillow_reads_what_is_built():
    data = GREY.tobytes()
    fields = {
        W: (40,),
        H: (24,),
        BITS: (8,),
        CODEC: (1,),
        COLOR: (1,),
        SAMPLES: (1,),
        ROWS: (24,),
        COUNTS: (len(data),),
    }
    with Image.open(io.BytesIO(build(">", fields, {}, data, [0]))) as image:
        assert isinstance(image, TiffImagePlugin.TiffImageFile)
        assert np.array_equal(np.asarray(image), GREY)
