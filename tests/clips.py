"""Tiny clips for the tests of videos: a pan over a picture, shapes that move, with sound, rotation and cuts."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

av = pytest.importorskip("av")


def pan(picture: Tensor, count: int, height: int, width: int, step: int = 2) -> list[Tensor]:
    """Windows of `picture`, (1, 3, H, W), each `step` px further to the right."""
    return [picture[..., :height, i * step : i * step + width] for i in range(count)]


def moving_shapes(count: int, height: int, width: int, step: int = 2) -> list[Tensor]:
    """A disc that moves to the right and a square that moves down, over a still background."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    ground = 0.5 + 0.2 * torch.sin(x / 3.0) * torch.cos(y / 4.0)
    frames = []
    for i in range(count):
        frame = torch.stack([ground, 0.8 * ground, 1 - ground])
        disc = (x - 12 - i * step) ** 2 + (y - height / 2) ** 2 < (height / 5) ** 2
        frame[:, disc] = (torch.stack([x, y, x + y])[:, disc] % 8) / 10
        top = 2 + i * step
        frame[:, top : top + height // 5, -width // 4 : -8] = torch.tensor([0.9, 0.8, 0.1])[:, None, None]
        frames.append(frame[None].clamp(0, 1))
    return frames


def write_clip(
    frames: Sequence[Tensor],
    path: Path,
    *,
    rate: Fraction = Fraction(25),
    sound: bool = False,
    rotation: int = 0,
    starts: Sequence[int] | None = None,
) -> Path:
    """Encode frames nearly without loss; starts: their times in units of 1 / 1000 s, else by the rate."""
    with av.open(str(path), "w") as output:
        video = output.add_stream("libx264", rate=rate, options={"crf": "5", "preset": "ultrafast"})
        video.height, video.width = frames[0].shape[-2:]
        video.pix_fmt = "yuv420p"
        video.codec_context.time_base = Fraction(1, 1000) if starts else 1 / rate
        if rotation:
            video.set_display_rotation(rotation)
        audio = output.add_stream("aac", rate=16000, layout="mono") if sound else None
        for i, image in enumerate(frames):
            pixels = image[0].permute(1, 2, 0).mul(255).round().byte().numpy()
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            frame.pts, frame.time_base = starts[i] if starts else i, video.codec_context.time_base
            output.mux(video.encode(frame))
        output.mux(video.encode(None))
        if audio is not None:
            seconds = len(frames) / rate
            for i in range(int(seconds * 16000) // 1024):
                tone = np.sin((i * 1024 + np.arange(1024)) / 16000 * 2 * np.pi * 440).astype(np.float32)[None]
                frame = av.AudioFrame.from_ndarray(tone, format="fltp", layout="mono")
                frame.sample_rate, frame.pts, frame.time_base = 16000, i * 1024, Fraction(1, 16000)
                output.mux(audio.encode(frame))
            output.mux(audio.encode(None))
    return path


def sound_of(path: Path) -> list[tuple[float, bytes]]:
    """The packets of the sound, with their times."""
    with av.open(str(path)) as container:
        packets = container.demux(container.streams.audio[0])
        return [(float(p.pts * p.time_base), bytes(p)) for p in packets if p.pts is not None]
