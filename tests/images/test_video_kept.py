"""What a video is besides its frames: kept in a result, converted rightly, or refused by name."""

from __future__ import annotations

import itertools
import os
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from clips import moving_shapes, pan, write_clip
from impasto.errors import ImageError, ImpastoError
from impasto.images.video import check_target, default_ending, read_frames, survey_video, write_video
from impasto.images.video_color import Colors, to_srgb
from impasto.images.video_source import square, turn
from impasto.images.video_tracks import ASS_HEADER
from tiny import painting

av = pytest.importorskip("av")
BLOCKS = torch.tensor([[[0.9, 0.1], [0.1, 0.9]], [[0.1, 0.9], [0.1, 0.9]], [[0.1, 0.1], [0.8, 0.9]]])
CORNERS = BLOCKS.repeat_interleave(32, 1).repeat_interleave(48, 2)[None]
"""(1, 3, 64, 96): red, green, blue and white from left to right, from above."""


def encode(
    path: Path,
    images: Sequence[Any],
    codec: str = "libx264",
    pixels: str = "yuv420p",
    *,
    matrix: int = 5,
    tag: Callable[[Any], None] = lambda stream: None,
    options: dict[str, str] | None = None,
    first: int = 0,
) -> Path:
    """Encode (H, W, 3 or 4) arrays at 10 frames a second; tag: what is done to the stream; matrix: of the samples."""
    with av.open(str(path), "w") as output:
        stream = output.add_stream(codec, rate=10, options=options or {})
        stream.height, stream.width = images[0].shape[:2]
        stream.pix_fmt = pixels
        tag(stream)
        for i, image in enumerate(images):
            kind = {("u1", 3): "rgb24", ("u1", 4): "rgba", ("u2", 3): "rgb48le"}[image.dtype.str[1:], image.shape[2]]
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format=kind)
            frame = frame.reformat(format=pixels, dst_colorspace=matrix)
            frame.colorspace, frame.color_range = stream.codec_context.colorspace, stream.codec_context.color_range
            frame.color_trc, frame.color_primaries = (
                stream.codec_context.color_trc,
                stream.codec_context.color_primaries,
            )
            frame.pts, frame.time_base = first + i, Fraction(1, 10)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return path


def array(image: Tensor) -> Any:
    return image[0].permute(1, 2, 0).mul(255).round().byte().numpy()


def flat(red: int, green: int, blue: int, height: int = 32, width: int = 48) -> Any:
    return np.broadcast_to(np.array([red, green, blue], "u1"), (height, width, 3))


def color_of(image: Tensor) -> list[int]:
    return [round(float(value) * 255) for value in image[0, :, 8, 8]]


def through(source: Path, target: Path) -> Path:
    """Write the frames of `source` as they are."""
    survey = survey_video(source)
    check_target(source, target, survey)
    frames = list(read_frames(source, survey))
    whole = [frame.image if frame.alpha is None else torch.cat([frame.image, frame.alpha], 1) for frame in frames]
    write_video(whole, frames, source, target, survey.colors)
    return target


# --- geometry


def test_pixels_become_square(tmp_path: Path) -> None:
    def wide(stream: Any) -> None:
        stream.codec_context.sample_aspect_ratio = Fraction(32, 27)

    path = encode(tmp_path / "a.mp4", [array(CORNERS)] * 2, tag=wide)
    frame = next(read_frames(path))
    assert frame.image.shape[-2:] == survey_video(path).size == (64, 114)  # 96 * 32 / 27 = 113.8
    with av.open(str(through(path, tmp_path / "b.mp4"))) as made:
        stream = made.streams.video[0]
        shown = Fraction(stream.width, stream.height) * (stream.sample_aspect_ratio or 1)
    assert abs(shown / (Fraction(96, 64) * Fraction(32, 27)) - 1) < 0.01
    assert (square(480, 720, Fraction(8, 9)), square(576, 720, Fraction(16, 11))) == ((540, 720), (576, 1048))


@pytest.mark.parametrize(
    "matrix", [(a, b, c, d) for a, b, c, d in itertools.product((-1, 0, 1), repeat=4) if a * d - b * c]
)
def test_a_display_matrix_turns_and_mirrors(matrix: tuple[int, ...]) -> None:
    a, b, c, d = matrix
    if (a or d) and (b or c):
        return  # oblique
    image = torch.arange(6.0).view(1, 1, 2, 3)
    made = turn(image, matrix)
    for y, x in itertools.product(range(2), range(3)):
        across, down = a * x + c * y, b * x + d * y
        places = [(a * i + c * j, b * i + d * j) for j, i in itertools.product(range(2), range(3))]
        column, row = across - min(p[0] for p in places), down - min(p[1] for p in places)
        assert made[0, 0, row, column] == image[0, 0, y, x]


@pytest.mark.parametrize(("rotation", "flip"), [(0, True), (90, True), (180, False), (270, False)])
def test_frames_are_as_players_show_them(tmp_path: Path, rotation: int, flip: bool) -> None:
    path = encode(tmp_path / "a.mp4", [array(CORNERS)] * 2, tag=lambda s: s.set_display_rotation(rotation, hflip=flip))
    upright = next(read_frames(path)).image
    base = CORNERS.flip(3) if flip else CORNERS
    expected = [torch.rot90(base, k, (2, 3)) for k in (rotation // 90, -(rotation // 90))]
    assert min(float((upright - e).abs().mean()) for e in expected if e.shape == upright.shape) < 0.05
    again = next(read_frames(through(path, tmp_path / "b.mp4"))).image
    assert (again - upright).abs().mean() < 0.05


# --- colours


@pytest.mark.parametrize(("height", "width", "matrix"), [(720, 1280, 1), (64, 96, 5)])
def test_untagged_videos_are_read_and_written_as_players_read_them(
    tmp_path: Path, height: int, width: int, matrix: int
) -> None:
    path = encode(tmp_path / "a.mkv", [flat(0, 186, 0, height, width)], "ffv1", matrix=matrix)
    for file in (path, through(path, tmp_path / "b.mp4")):
        found = color_of(next(read_frames(file)).image)
        assert max(abs(a - b) for a, b in zip(found, (0, 186, 0), strict=True)) <= 3, found
    with av.open(str(tmp_path / "b.mp4")) as made:
        tag = made.streams.video[0].codec_context.colorspace
    assert tag in ({1: (1,), 5: (5, 6)}[matrix])


def tagged(matrix: int, primaries: int, transfer: int) -> Callable[[Any], None]:
    def tag(stream: Any) -> None:
        context = stream.codec_context
        context.colorspace, context.color_primaries, context.color_trc, context.color_range = (
            matrix,
            primaries,
            transfer,
            1,
        )

    return tag


def pq(nits: float) -> float:
    y = (nits / 10000) ** 0.1593017578125
    return float(((0.8359375 + 18.8515625 * y) / (1 + 18.6875 * y)) ** 78.84375)


def test_high_dynamic_range_becomes_standard_range_and_says_so(tmp_path: Path) -> None:
    steps = [round(65535 * pq(nits)) for nits in (0, 10, 36.5, 203, 1000)]
    image = np.repeat(np.repeat(np.array(steps, "u2")[None, :, None], 32, 0), 16, 1).repeat(3, 2)
    path = encode(tmp_path / "a.mkv", [image], "ffv1", "yuv420p10le", matrix=9, tag=tagged(9, 9, 16))
    survey = survey_video(path)
    assert any("HDR (PQ)" in note for note in survey.notes)
    made = next(read_frames(through(path, tmp_path / "b.mp4"))).image[0, :, 16, 8::16]
    assert torch.allclose(made, made.mean(0, keepdim=True).expand_as(made), atol=0.03)  # greys stay grey
    black, dark, middle, white, bright = made.mean(0).tolist()
    assert black < 0.02
    assert 0.2 < dark < 0.3
    assert 0.42 < middle < 0.5  # 18 % of white
    assert 0.85 < white < bright <= 1
    with av.open(str(tmp_path / "b.mp4")) as result:
        context = result.streams.video[0].codec_context
        assert (context.colorspace, context.color_primaries, context.color_trc) == (1, 1, 1)


def test_a_wide_gamut_is_converted_and_ordinary_tags_are_kept(tmp_path: Path) -> None:
    red = to_srgb(torch.tensor([0.8126, 0.2915, 0.1362]).view(1, 3, 1, 1), Colors(9, 9, 1))[0, :, 0, 0]
    assert torch.allclose(red, torch.tensor([1.0, 0.0, 0.0]), atol=0.02)  # sRGB's red in BT.2020
    white = to_srgb(torch.ones(1, 3, 1, 1), Colors(2, 11, 1))
    assert torch.allclose(white, torch.ones(1, 3, 1, 1), atol=1e-3)
    path = encode(tmp_path / "a.mp4", [flat(200, 90, 40)] * 2, matrix=5, tag=tagged(6, 6, 6))
    with av.open(str(through(path, tmp_path / "b.mp4"))) as made:
        context = made.streams.video[0].codec_context
        assert (context.colorspace, context.color_primaries, context.color_trc) == (6, 6, 6)


@pytest.mark.parametrize("codes", [(14, 9, 16), (10, 9, 14), (1, 1, 9)])
def test_colours_that_cannot_be_read_are_refused(tmp_path: Path, codes: tuple[int, int, int]) -> None:
    path = encode(tmp_path / "a.mkv", [flat(9, 9, 9)], "ffv1", tag=tagged(*codes))
    with pytest.raises(ImageError, match=r"convert it to BT\.709"):
        survey_video(path)


def test_full_range_is_honoured(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.avi", [flat(255, 255, 255)], "mjpeg", "yuvj420p")
    assert min(color_of(next(read_frames(path)).image)) >= 253


# --- transparency


def cutout() -> Any:
    image = np.zeros((32, 48, 4), "u1")
    image[..., 1] = 255  # hidden
    image[8:24, 8:32] = 220, 30, 30, 255
    image[8:24, 32:40] = 20, 30, 220, 128
    return image


@pytest.mark.parametrize("ending", [".mov", ".webm", ".mkv"])
def test_transparency_is_kept(tmp_path: Path, ending: str) -> None:
    path = encode(tmp_path / "a.mov", [cutout()] * 3, "qtrle", "argb")
    survey = survey_video(path)
    assert survey.alpha
    assert default_ending(path, survey) == ".mov"
    with pytest.raises(ImpastoError, match=r"transparency, which \.mp4 can't hold: write a \.mov"):
        check_target(path, tmp_path / "b.mp4", survey)
    frame = next(read_frames(through(path, tmp_path / f"b{ending}")))
    assert frame.alpha is not None
    found = [round(float(frame.alpha[0, 0, y, x]) * 255) for y, x in ((1, 1), (15, 20), (15, 36))]
    assert all(abs(a - b) < 12 for a, b in zip(found, (0, 255, 128), strict=True)), found


def test_opaque_videos_with_an_alpha_channel_are_opaque(tmp_path: Path) -> None:
    image = cutout()
    image[..., 3] = 255
    path = encode(tmp_path / "a.mov", [image] * 2, "qtrle", "argb")
    survey = survey_video(path)
    assert not survey.alpha
    assert next(read_frames(path, survey)).alpha is None
    check_target(path, tmp_path / "b.mp4", survey)


# --- tracks and titles


def film(path: Path) -> Path:
    """A clip with a title, a date, a place, chapters, sound in two languages and subtitles."""
    with av.open(str(path), "w") as output:
        video = output.add_stream("libx264", rate=10, options={"preset": "ultrafast"})
        video.height, video.width, video.pix_fmt = 32, 48, "yuv420p"
        sounds = [output.add_stream("aac", rate=16000, layout="mono") for _ in range(2)]
        for sound, language in zip(sounds, ("eng", "deu"), strict=True):
            sound.metadata["language"] = language
        text = output.add_stream("subrip")
        text.metadata["language"] = "fra"
        text.codec_context.subtitle_header = ASS_HEADER
        output.metadata.update({"title": "A film", "date": "2020-02-03", "location": "+48.1+011.5/", "comment": "ours"})
        output.set_chapters(
            [
                {"id": 1, "start": 0, "end": 500, "time_base": Fraction(1, 1000), "metadata": {"title": "One"}},
                {"id": 2, "start": 500, "end": 1000, "time_base": Fraction(1, 1000), "metadata": {"title": "Two"}},
            ]
        )
        for i in range(10):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(flat(20 * i, 90, 40)), format="rgb24")
            frame.pts, frame.time_base = i, Fraction(1, 10)
            output.mux(video.encode(frame))
        output.mux(video.encode(None))
        for sound in sounds:
            for i in range(12):
                frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), "f4"), format="fltp", layout="mono")
                frame.sample_rate, frame.pts, frame.time_base = 16000, 1024 * i, Fraction(1, 16000)
                output.mux(sound.encode(frame))
            output.mux(sound.encode(None))
        for start, words in ((100, b"Hello"), (600, "Größe".encode())):
            packet = av.Packet(words)
            packet.stream, packet.time_base, packet.is_keyframe = text, Fraction(1, 1000), True
            packet.pts = packet.dts = start
            packet.duration = 300
            output.mux(packet)
    return path


@pytest.mark.parametrize("ending", [".mkv", ".mp4", ".mov"])
def test_titles_chapters_languages_and_subtitles_are_kept(tmp_path: Path, ending: str) -> None:
    source = film(tmp_path / "a.mkv")
    target = tmp_path / f"b{ending}"
    assert check_target(source, target, survey_video(source)) == []
    with av.open(str(through(source, target))) as made:
        about = {key.lower(): value for key, value in made.metadata.items()}
        assert (about["title"], about["date"], about["comment"]) == ("A film", "2020-02-03", "ours")
        assert not [key for key in about if "location" in key]
        chapters = [(float(c["start"] * c["time_base"]), c["metadata"]["title"]) for c in made.chapters()]
        assert chapters == [(0, "One"), (0.5, "Two")]
        languages = [stream.metadata["language"] for stream in made.streams.audio]
        assert languages in (["eng", "deu"], ["eng", "ger"])
        (text,) = made.streams.subtitles
        assert text.metadata["language"] == "fra"
        found = [(float(p.pts * p.time_base), bytes(p)) for p in made.demux(text) if p.size > 2]
        first = next(iter(made.streams.video)).start_time or 0
        lag = float(first * made.streams.video[0].time_base)
    assert [time - lag for time, _ in found] == pytest.approx([0.1, 0.6], abs=0.002)
    assert b"Hello" in found[0][1]
    assert "Größe".encode() in found[1][1]


def test_what_a_format_cannot_hold_is_said(tmp_path: Path) -> None:
    source = film(tmp_path / "a.mkv")
    with pytest.raises(ImpastoError, match=r"\.webm can't hold sound in aac"):
        check_target(source, tmp_path / "b.webm", survey_video(source))
    plain = write_clip(pan(painting(32, 64), 3, 32, 48), tmp_path / "c.mp4")
    with av.open(str(plain)) as read, av.open(str(tmp_path / "d.mkv"), "w") as output:
        copies = [output.add_stream_from_template(read.streams.video[0], opaque=True) for _ in range(2)]
        for packet in list(read.demux(read.streams.video[0])):
            if packet.size:
                packet.stream = copies[0]
                output.mux(packet)
    assert check_target(tmp_path / "d.mkv", tmp_path / "e.mp4", survey_video(tmp_path / "d.mkv")) == [
        "a second video (h264) can't be kept in .mp4"
    ]


# --- time


def test_a_video_begins_at_0(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.ts", [array(CORNERS)] * 5, first=360_000)
    with av.open(str(path)) as source:
        assert source.start_time > 3.5e10
    with av.open(str(through(path, tmp_path / "b.mp4"))) as made:
        assert (made.start_time, made.duration) == (0, 500_000)


def test_recordings_that_jump_in_time_and_size_are_one_piece(tmp_path: Path) -> None:
    first = encode(tmp_path / "a.ts", [array(CORNERS)] * 5, "mpeg2video", first=100)
    second = encode(tmp_path / "b.ts", [array(CORNERS)[:48, :64]] * 5, "mpeg2video", first=90_000)
    (tmp_path / "c.ts").write_bytes(first.read_bytes() + second.read_bytes())
    survey = survey_video(tmp_path / "c.ts")
    assert any("times jump at" in note for note in survey.notes)
    frames = list(read_frames(tmp_path / "c.ts", survey))
    assert {tuple(frame.image.shape[-2:]) for frame in frames} == {survey.size}
    times = [float(frame.start * frame.time_base) for frame in frames]
    assert max(b - a for a, b in itertools.pairwise(times)) < 0.3
    assert min(b - a for a, b in itertools.pairwise(times)) > 0.05


def test_interlaced_frames_are_made_whole(tmp_path: Path) -> None:
    def combed(stream: Any) -> None:
        stream.codec_context.flags |= 1 << 18 | 1 << 29  # interlaced DCT and motion estimation

    frames = [array(frame) for frame in moving_shapes(8, 64, 96, step=6)]
    woven = [frames[i].copy() for i in range(0, 8, 2)]
    for i, frame in enumerate(woven):
        frame[1::2] = frames[2 * i + 1][1::2]
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as output:
        stream = output.add_stream("libx264", rate=10, options={"x264-params": "tff=1", "crf": "5"})
        stream.height, stream.width, stream.pix_fmt = 64, 96, "yuv420p"
        combed(stream)
        for i, image in enumerate(woven):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = i, Fraction(1, 10)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    survey = survey_video(path)
    if not survey.interlaced:
        pytest.skip("this encoder does not mark interlaced frames")
    assert any("interlaced" in note for note in survey.notes)
    found = [frame.image for frame in read_frames(path, survey)]
    assert len(found) == survey.frames == 4

    def combing(image: Tensor) -> float:
        return float((image[..., 1:-1, :] - (image[..., :-2, :] + image[..., 2:, :]) / 2).abs().mean())

    as_it_is = [frame.image for frame in read_frames(path, replace(survey, interlaced=False))]
    assert combing(found[1]) < 0.8 * combing(as_it_is[1])


# --- damage


def damaged(path: Path, kind: str) -> Path:
    data = bytearray(path.read_bytes())
    if kind == "cut":
        data = data[: len(data) * 6 // 10]
    else:
        generator = random.Random(1)
        for _ in range(20):
            data[generator.randrange(len(data) // 3, len(data) * 9 // 10)] ^= 1 << generator.randrange(8)
    made = path.with_stem(f"{path.stem}-{kind}")
    made.write_bytes(data)
    return made


@pytest.mark.parametrize("ending", [".mkv", ".avi"])
def test_a_file_that_is_cut_off_is_refused_unless_what_is_left_is_wanted(tmp_path: Path, ending: str) -> None:
    images = [array(frame) for frame in pan(painting(64, 200), 40, 64, 96)]
    options = {"g": "5", "crf": "20"} if ending != ".avi" else {"g": "5", "b": "3000000"}
    path = encode(tmp_path / f"a{ending}", images, "mpeg4" if ending == ".avi" else "libx264", options=options)
    assert (survey_video(path).frames, survey_video(path).notes) == (40, ())
    cut = damaged(path, "cut")
    with pytest.raises(ImageError, match=r"is (cut off|damaged).*--salvage"):
        survey_video(cut)
    survey = survey_video(cut, salvage=True)
    assert 5 < survey.frames < 40
    assert "what can be read is painted" in survey.notes[0]
    assert len(list(read_frames(cut, survey))) == survey.frames


def test_flipped_bits_are_one_line(tmp_path: Path) -> None:
    images = [array(frame) for frame in pan(painting(64, 200), 40, 64, 96)]
    path = damaged(encode(tmp_path / "a.mkv", images, options={"g": "5"}), "flip")
    with pytest.raises(ImageError) as caught:
        survey_video(path)
    assert "\n" not in str(caught.value)


def test_an_index_that_is_missing_is_named(tmp_path: Path) -> None:
    path = damaged(write_clip(pan(painting(32, 64), 8, 32, 48), tmp_path / "a.mp4"), "cut")
    with pytest.raises(ImageError, match=r"is cut off: \d+ bytes are missing"):
        survey_video(path)


# --- names and bytes


def test_names_are_files(tmp_path: Path) -> None:
    (tmp_path / "a:b").mkdir()
    source = write_clip(pan(painting(32, 64), 3, 32, 48), tmp_path / "plain.mp4")
    for name in ("12:30:00.mp4", "http:x.mp4", "frame%03d.mp4", "a:b/concat:x|y.mp4"):
        path = source.rename(tmp_path / name)
        source = through(path, tmp_path / f"{name}.out.mp4")
        assert len(list(read_frames(source))) == 3
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.mp4"))
    try:
        source.rename(odd)
    except OSError:
        return  # a file system of UTF-8 names
    assert survey_video(odd).frames == 3


def test_a_playlist_is_no_video(tmp_path: Path) -> None:
    path = tmp_path / "list.m3u8"
    path.write_text("#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n")
    with pytest.raises(ImageError, match="damaged or no video"):
        survey_video(path)
    with pytest.raises(ImageError, match="is no file"):
        survey_video(tmp_path)


@pytest.mark.parametrize("ending", [".mp4", ".mkv", ".webm"])
def test_the_same_frames_make_the_same_bytes(tmp_path: Path, ending: str) -> None:
    generator = torch.Generator().manual_seed(0)
    images = [(f + 0.1 * torch.randn(f.shape, generator=generator)).clamp(0, 1) for f in moving_shapes(24, 128, 192)]
    source = write_clip(images, tmp_path / "a.mp4")
    times = list(read_frames(source))
    made = set()
    for _ in range(3):
        write_video(images, times, source, tmp_path / f"b{ending}")
        made.add((tmp_path / f"b{ending}").read_bytes())
    assert len(made) == 1
