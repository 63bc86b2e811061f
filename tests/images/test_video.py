"""Videos on disk: what is read, and that results keep times, sound and orientation."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest
import torch
from torch import Tensor

from clips import moving_shapes, pan, sound_of, write_clip
from impasto.errors import ImageError, ImpastoError
from impasto.images.video import check_target, probe_video, read_frames, survey_video, write_video
from tiny import painting


def frames_of(count: int = 6, height: int = 48, width: int = 64) -> list[Tensor]:
    return pan(painting(height, 2 * width), count, height, width)


def test_frames_are_read_with_their_times(tmp_path: Path) -> None:
    frames = frames_of()
    path = write_clip(frames, tmp_path / "a.mp4", rate=Fraction(30000, 1001))
    info = probe_video(path)
    assert (info.frames, info.rate, info.sound) == (6, Fraction(30000, 1001), False)
    found = list(read_frames(path))
    assert [float(f.start * f.time_base) for f in found] == pytest.approx([i * 1.001 / 30 for i in range(6)], abs=1e-3)
    for one, other in zip(found, frames, strict=True):
        assert one.image.shape == other.shape
        assert (one.image - other).abs().mean() < 0.06  # colour is stored at half the size


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv", ".webm"])
def test_times_survive(tmp_path: Path, suffix: str) -> None:
    starts = [0, 40, 80, 200, 210, 400]
    path = write_clip(frames_of(), tmp_path / "a.mkv", starts=starts)
    source = list(read_frames(path))
    write_video([1 - f.image for f in source], source, path, tmp_path / f"b{suffix}")
    found = list(read_frames(tmp_path / f"b{suffix}"))
    assert [round(1000 * f.start * f.time_base) for f in found] == starts
    for one, other in zip(found, source, strict=True):
        assert (one.image - (1 - other.image)).abs().mean() < 0.06  # two generations of colour at half the size


def test_sound_is_copied_bit_by_bit(tmp_path: Path) -> None:
    path = write_clip(frames_of(12), tmp_path / "a.mp4", sound=True)
    assert probe_video(path).sound
    source = list(read_frames(path))
    for name in ("b.mp4", "b.mkv"):
        check_target(path, tmp_path / name, survey_video(path))
        write_video([f.image for f in source], source, path, tmp_path / name)
        before, after = sound_of(path), sound_of(tmp_path / name)
        assert [data for _, data in after] == [data for _, data in before]
        first = next(read_frames(tmp_path / name))
        starts = 0.0, float(first.start * first.time_base)  # in .mkv, which knows no time before 0, all is later
        assert [time - starts[1] for time, _ in after] == pytest.approx([t - starts[0] for t, _ in before], abs=2e-3)
    with pytest.raises(ImpastoError, match=r"\.webm can't hold sound in aac; write a \.mkv"):
        check_target(path, tmp_path / "b.webm", survey_video(path))


@pytest.mark.parametrize("rotation", [90, -90, 180])
def test_frames_are_upright(tmp_path: Path, rotation: int) -> None:
    frames = frames_of(2)
    path = write_clip(frames, tmp_path / "a.mp4", rotation=rotation)
    (first, _) = read_frames(path)
    expected = torch.rot90(frames[0], rotation // 90, (2, 3))
    assert first.image.shape == expected.shape
    assert (first.image - expected).abs().mean() < 0.06
    source = list(read_frames(path))
    write_video([f.image for f in source], source, path, tmp_path / "b.mp4")
    again = next(iter(read_frames(tmp_path / "b.mp4")))
    assert (again.image - expected).abs().mean() < 0.07


def test_colours_and_odd_sizes_survive(tmp_path: Path) -> None:
    path = write_clip(moving_shapes(3, 48, 64), tmp_path / "a.mp4")
    source = list(read_frames(path))
    for size in ((45, 61), (720, 64)):
        color = torch.tensor([0.8, 0.3, 0.1]).view(1, 3, 1, 1).expand(1, 3, *size)
        write_video([color] * 3, source, path, tmp_path / "b.mp4")
        found = next(iter(read_frames(tmp_path / "b.mp4"))).image
        assert found.shape[-2:] == (size[0] + size[0] % 2, size[1] + size[1] % 2)
        assert (found - color[..., :1, :1]).abs().max() < 0.02


def test_what_is_no_video_is_refused(tmp_path: Path) -> None:
    odd = tmp_path / "odd.mp4"
    odd.write_bytes(b"<html>" * 100)
    with pytest.raises(ImageError, match="is damaged or no video"):
        probe_video(odd)
    with pytest.raises(ImageError, match="can't be opened: No such file"):
        list(read_frames(tmp_path / "none.mp4"))
    path = write_clip(frames_of(), tmp_path / "a.mp4")
    with pytest.raises(ImpastoError, match="the name must end in one of"):
        check_target(path, tmp_path / "b.avi", survey_video(path))


def test_a_failure_leaves_nothing_behind(tmp_path: Path) -> None:
    path = write_clip(frames_of(), tmp_path / "a.mp4")
    source = list(read_frames(path))

    def broken() -> object:
        yield source[0].image
        raise ImageError("no more")

    with pytest.raises(ImageError, match="no more"):
        write_video(broken(), source, path, tmp_path / "b.mp4")
    with pytest.raises(ImageError, match="can't be written: No such file"):
        write_video([f.image for f in source], source, path, tmp_path / "none" / "b.mp4")
    assert [p.name for p in tmp_path.iterdir()] == ["a.mp4"]
