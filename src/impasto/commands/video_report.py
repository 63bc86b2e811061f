"""Reports of `impasto video`: a strip of sample frames; flicker and style loss, with and without smoothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from torch import Tensor

from impasto.batch.painter import Painter
from impasto.commands.terminal import PAUSE, count
from impasto.evaluation.metrics import LossNetwork
from impasto.evaluation.video_score import VideoScore
from impasto.images.contact_sheet import contact_sheet
from impasto.images.files import Picture, read_image
from impasto.images.video import Survey, read_frames
from impasto.networks.backbone import SLIM
from impasto.networks.backbones import load_backbone
from impasto.runs.painting import read_style
from impasto.runs.record import Recipe

COLUMNS, CELL = 6, 256


def paint_strip(source: Path, survey: Survey, result: Callable[[int], Path]) -> Tensor:
    """Return a sheet, (1, 3, H, W): evenly spaced frames in the first row, their results in the second."""
    total = survey.frames
    number = min(COLUMNS, total)
    wanted = [round(i * (total - 1) / max(number - 1, 1)) for i in range(number)]
    before = [frame.image for index, frame in enumerate(read_frames(source, survey)) if index in wanted]
    after = [read_image(result(index)) for index in wanted]
    return contact_sheet([before, after], column_labels=[f"frame {index}" for index in wanted], cell=CELL)


def measure(
    painter: Painter, recipe: Recipe, source: Path, survey: Survey, results: Iterable[Tensor], quiet: bool
) -> dict[str, Any]:
    """Return warping error and style loss of `results`, and of the same frames painted without smoothing.

    The style loss is that of vgg19-slim, relative to the first style that is a painting.
    """
    device = painter.model.device
    network = load_backbone(SLIM).to(device)
    paintings = [style for style in map(read_style, recipe.styles) if isinstance(style, Tensor)]
    scores: dict[str, VideoScore] | None = None
    total = survey.frames
    with count(f"measuring {total} frames", total, quiet, pause=PAUSE) as shown:
        for frame, result in zip(read_frames(source, survey), results, strict=True):
            photo = painter.fit(Picture(frame.image, frame.alpha))
            if scores is None:
                scores = _start(network, paintings, recipe, painter, photo)
            alone = painter.job(recipe, photo, recipe.styles).paint_floats(shown.within)
            scores["smoothed"].add(photo.color.to(device), result[:, :3])
            scores["each frame by itself"].add(photo.color.to(device), alone)
            shown.advance("frames")
    assert scores is not None
    report: dict[str, Any] = {name: score.result() for name, score in scores.items()}
    report["measured with"] = {"network": network.name, "digest": network.digest, "flow": "OpenCV DIS, medium"}
    return report | _compare(*report.values())


def _start(
    network: LossNetwork, paintings: list[Tensor], recipe: Recipe, painter: Painter, photo: Picture
) -> dict[str, VideoScore]:
    longer = recipe.style_size or max(photo.color.shape[-2:])
    model = painter.model
    fitted = model.open_painting(model.fit_style(paintings[0], longer)) if paintings else None
    return {name: VideoScore(network, fitted) for name in ("smoothed", "each frame by itself")}


def _compare(smoothed: dict[str, Any], alone: dict[str, Any], *_: Any) -> dict[str, float]:
    """Return how much smoothing reduced flicker and raised style loss."""
    ratios = {}
    if smoothed["warping_error"] is not None and alone["warping_error"]:
        ratios["less_flicker"] = 1 - smoothed["warping_error"] / alone["warping_error"]
    if smoothed["style_loss"] is not None and alone["style_loss"]:
        ratios["more_style_loss"] = smoothed["style_loss"] / alone["style_loss"] - 1
    return {name: round(value, 4) for name, value in ratios.items()}
