"""Files that are no files, take more than their picture deserves, or say what their colours mean."""

from __future__ import annotations

import io
import os
import struct
import sys
import time
import tracemalloc
import zlib

import numpy as np
import pytest
from PIL import Image

from impasto.errors import ImageError
from impasto.files import open_regular
from impasto.images.files import decode_picture, open_picture, read_image

RAMP = np.dstack([np.mgrid[:16, :64][1] * 4] * 3).astype(np.uint8)
posix = pytest.mark.skipif(sys.platform == "win32", reason="names devices and pipes as POSIX does")


def refused(path, words, seconds=3.0, most=200_000_000):
    """The picture is refused with these words, in little processor time and memory."""
    start = time.process_time()
    tracemalloc.start()
    try:
        with pytest.raises(ImageError, match=words) as message:
            read_image(path)
        assert tracemalloc.get_traced_memory()[1] < most
    finally:
        tracemalloc.stop()
    assert time.process_time() - start < seconds
    assert "\n" not in str(message.value)


@posix
def test_a_link_to_a_device(tmp_path):
    (tmp_path / "a.png").symlink_to("/dev/zero")
    refused(tmp_path / "a.png", "it is a device, a pipe or a socket")


@posix
def test_a_pipe_that_nobody_writes_to(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    refused(tmp_path / "a.png", "it is a device, a pipe or a socket")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF", "GIF", "BMP", "AVIF"])
def test_a_sparse_file(tmp_path, kind):
    path = tmp_path / "a.png"
    Image.fromarray(RAMP).save(path, kind)
    whole = read_image(path)
    with path.open("r+b") as file:
        file.truncate(10_000_000_000)
    try:
        assert (read_image(path) == whole).all()  # what lies behind the picture need not be read
    except ImageError:
        refused(path, "far more bytes than its picture needs")


def test_a_sparse_file_that_is_nothing(tmp_path):
    with (tmp_path / "a.png").open("wb") as file:
        file.truncate(10_000_000_000)
    refused(tmp_path / "a.png", "no picture")


@pytest.mark.parametrize(
    "head", [b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x40\0\0\0\x40\x08\x02\0\0\0", b"II*\0\x08\0\0\0"]
)
def test_a_header_and_then_nothing_but_holes(tmp_path, head):
    with (tmp_path / "a.png").open("wb") as file:
        file.write(head)
        file.truncate(10_000_000_000)
    refused(tmp_path / "a.png", "damaged|no picture|far more")


def test_a_tiff_whose_fields_and_strips_are_huge(tmp_path):
    rows = [(256, 4, 1, 64), (257, 4, 1, 64), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), (273, 4, 1, 500)]
    rows += [(277, 3, 1, 1), (278, 4, 1, 64)]
    for last in [(279, 4, 1, 4_000_000_000), (279, 4, 1_000_000_000, 500)]:
        table = b"".join(struct.pack("<HHII", *row) for row in [*rows, last])
        with (tmp_path / "a.tif").open("wb") as file:
            file.write(b"II*\0" + struct.pack("<IH", 8, 9) + table)
            file.truncate(10_000_000_000)
        refused(tmp_path / "a.tif", "damaged|far more")


def test_a_gif_of_comments(tmp_path):
    buffer = io.BytesIO()
    Image.fromarray(RAMP).save(buffer, "GIF")
    data = buffer.getvalue()
    at = 13 + (3 << (data[10] & 7) + 1)
    comments = b"!\xfe" + (b"\xff" + b"x" * 255) * 80_000 + b"\0"
    (tmp_path / "a.gif").write_bytes(data[:at] + comments + data[at:])
    start = time.process_time()
    assert (read_image(tmp_path / "a.gif") == read_image_of(data)).all()
    assert time.process_time() - start < 3
    (tmp_path / "b.gif").write_bytes(data[:at] + comments)
    refused(tmp_path / "b.gif", "damaged or incomplete")


def test_a_gif_of_tiny_blocks(tmp_path):
    head = b"GIF89a" + struct.pack("<HHBBB", 4, 4, 0, 0, 0)
    for where in (b"!\xfe", b"," + struct.pack("<HHHHB", 0, 0, 4, 4, 0) + b"\x02"):
        with (tmp_path / "a.gif").open("wb") as file:
            file.write(head + where)
            for _ in range(4):
                file.write(b"\x01x" * 100_000)
        refused(tmp_path / "a.gif", "damaged or incomplete")


def test_a_png_of_tiny_chunks(tmp_path):
    tiny = struct.pack(">I4sI", 0, b"teST", zlib.crc32(b"teST"))
    (tmp_path / "a.png").write_bytes(png()[:33] + tiny * 50_000 + png()[33:])
    refused(tmp_path / "a.png", "far more bytes than its picture needs")


def tiff(rows, data=b"", *, at=8):
    """A TIFF of a table of fields, whose values are numbers or places in `data`, which begins at 8."""
    table = b"".join(struct.pack("<HHII", *row) for row in sorted(rows))
    return b"II*\0" + struct.pack("<I", at + len(data)) + data + struct.pack("<H", len(rows)) + table + bytes(4)


GREY = [(256, 4, 1, 64), (257, 4, 1, 64), (258, 3, 1, 8), (262, 3, 1, 1), (277, 3, 1, 1)]


def test_a_tiff_of_very_many_strips(tmp_path):
    count = 20_000
    more = [(259, 3, 1, 1), (278, 4, 1, 1), (273, 4, count, 8), (279, 4, count, 8)]
    (tmp_path / "a.tif").write_bytes(tiff([*GREY, *more], bytes(4 * count)))
    refused(tmp_path / "a.tif", "more or larger strips")


@pytest.mark.parametrize("bits", [8, 16])
def test_a_tiff_whose_tiles_are_huge(tmp_path, bits):
    data = zlib.compress(bytes(50_000_000), 9)
    rows = [row for row in GREY if row[0] != 258]
    rows += [(258, 3, 1, bits), (259, 3, 1, 8), (322, 4, 1, 1 << 20), (323, 4, 1, 1 << 20)]
    rows += [(324, 4, 1, 8), (325, 4, 1, len(data))]
    (tmp_path / "a.tif").write_bytes(tiff(rows, data))
    refused(tmp_path / "a.tif", "more or larger strips")


def test_what_decoders_report_of_damage_is_reported_once(tmp_path, capfd):
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)).save(
        buffer, "TIFF", compression="tiff_lzw"
    )
    data = bytearray(buffer.getvalue())
    data[100:200] = bytes(reversed(data[100:200]))
    (tmp_path / "a.tif").write_bytes(data)
    refused(tmp_path / "a.tif", "damaged or incomplete")
    assert capfd.readouterr().err == ""


def read_image_of(data):
    return open_picture(io.BytesIO(data), name="it").color


def test_a_gif_keeps_its_first_frame_and_its_transparency():
    frame = Image.new("P", (4, 4), 1)
    frame.putpalette([255, 0, 0, 0, 255, 0])
    frame.putpixel((0, 0), 0)
    buffer = io.BytesIO()
    frame.save(buffer, "GIF", save_all=True, append_images=[Image.new("P", (4, 4), 0)], transparency=0, comment=b"hi")
    picture = open_picture(io.BytesIO(buffer.getvalue()), name="it")
    assert picture.alpha[0, 0].sum() == 15
    assert picture.stored[1, 1].tolist() == [0, 255, 0]


def png(*chunks):
    """A PNG of RAMP with more chunks before its pixels."""
    buffer = io.BytesIO()
    Image.fromarray(RAMP).save(buffer, "PNG")
    data = buffer.getvalue()
    more = b"".join(struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in chunks)
    return data[:33] + more + data[33:]


def encoded(light):
    return np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)


def test_png_gamma_is_honoured_unless_srgb_says_otherwise():
    linear = (b"gAMA", struct.pack(">I", 100_000))
    found = read_image_of(png(linear))[0, 0].numpy()
    assert np.abs(found - encoded(RAMP[..., 0] / 255)).max() < 2 / 255
    plain = read_image_of(png())
    assert (read_image_of(png((b"sRGB", b"\0"), linear)) == plain).all()
    assert (read_image_of(png((b"gAMA", struct.pack(">I", 45_455)))) == plain).all()


def test_png_primaries_are_honoured():
    wide = struct.pack(">8I", 31270, 32900, 68000, 32000, 26500, 69000, 15000, 6000)
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), (200, 100, 50)).save(buffer, "PNG")
    data = buffer.getvalue()
    chunk = b"cHRM" + wide
    with_chunk = data[:33] + struct.pack(">I", 32) + chunk + struct.pack(">I", zlib.crc32(chunk)) + data[33:]
    found = (read_image_of(with_chunk)[0, :, 0, 0] * 255).tolist()
    assert found[0] > 210  # Display P3's red lies outside of sRGB
    assert abs(found[1] - 95) < 6
    coded = b"cICP" + bytes([12, 13, 0, 1])
    with_chunk = data[:33] + struct.pack(">I", 4) + coded + struct.pack(">I", zlib.crc32(coded)) + data[33:]
    assert (read_image_of(with_chunk)[0, :, 0, 0] * 255).tolist() == pytest.approx(found, abs=1.5)


@pytest.mark.parametrize(("transfer", "name"), [(16, "PQ"), (18, "HLG")])
def test_hdr_is_refused_by_name(transfer, name):
    with pytest.raises(ImageError, match=rf"HDR picture \({name}\)"):
        read_image_of(png((b"cICP", bytes([9, transfer, 0, 1]))))


def test_adobe_rgb_as_cameras_write_it():
    exif = Image.Exif()
    exif[0x8769] = {0xA001: 0xFFFF, 0xA005: {1: "R03"}}
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16), (90, 200, 90)).save(buffer, "JPEG", quality=100, exif=exif)
    red, green, _ = (read_image_of(buffer.getvalue())[0, :, 8, 8] * 255).tolist()
    assert green > 195
    assert red < 40


def test_avif(tmp_path):
    Image.fromarray(RAMP).save(tmp_path / "a.avif", quality=100)
    assert np.abs(read_image(tmp_path / "a.avif")[0, 0].numpy() * 255 - RAMP[..., 0]).max() < 8
    with pytest.raises(ImageError, match="must be one of JPEG, PNG, WEBP"):
        decode_picture((tmp_path / "a.avif").read_bytes(), "it", max_pixels=10_000, max_side=100)


def test_heic_by_an_extra(tmp_path, monkeypatch):
    heif = pytest.importorskip("pillow_heif")
    heif.from_pillow(Image.fromarray(RAMP)).save(tmp_path / "a.heic", quality=100)
    assert np.abs(read_image(tmp_path / "a.heic")[0, 0].numpy() * 255 - RAMP[..., 0]).max() < 8


def test_heic_without_the_extra(tmp_path, monkeypatch):
    monkeypatch.setattr("impasto.images.opening._heif_opener", lambda: None)
    (tmp_path / "a.heic").write_bytes(struct.pack(">I", 24) + b"ftypheic\0\0\0\0mif1heic" + bytes(200))
    with pytest.raises(ImageError, match=r"a\.heic is HEIC: pip install 'impasto\[heif\]'"):
        read_image(tmp_path / "a.heic")


def test_only_regular_files_are_opened(tmp_path):
    with pytest.raises(IsADirectoryError):
        open_regular(tmp_path)
    (tmp_path / "a").write_bytes(b"hello")
    with open_regular(tmp_path / "a") as file:
        assert file.read() == b"hello"
