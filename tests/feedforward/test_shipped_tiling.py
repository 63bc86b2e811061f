"""The shipped weights in tiles: the picture of one piece, no halo to spare, no seams."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor

from impasto.feedforward import tiled_run
from impasto.feedforward.limits import CPU_KEEP
from impasto.feedforward.tiled_run import Tiling, plan_pass
from impasto.images.tensors import windows
from impasto.methods import load
from impasto.stylizers.one_pass import OnePass
from tiny import painting

SHIPPED = ["swift", "metanet", "wct", "adain", "sanet"]
MOST = 1e-4
SEAM = 1.02
ALIGN = 16


def pictures(name: str, height: int, width: int, cut: Tiling) -> tuple[OnePass, Tensor, Tensor, Any]:
    """The method, its picture in one piece and in tiles, and how the latter is made."""
    model = load(name, precision="fp32")
    assert isinstance(model, OnePass)
    photo, style = painting(height, width, seed=3), model.encode_style(painting(90, 120))
    model.tiling = None
    whole = model.transfer(photo, style)

    def paint() -> Tensor:
        model.tiling = cut
        return model.transfer(photo, style)

    return model, whole, paint(), paint


def border_gradient(image: Tensor, tile: int) -> float:
    """The mean step across the tiles' borders, in ratio to that elsewhere.

    Elsewhere: at the other multiples of the tiles' alignment, as a decoder that doubles makes some steps larger anyway.
    """
    height, width = image.shape[-2:]
    across, elsewhere = [], []
    for axis, steps in ((-1, image.diff(dim=-1)), (-2, image.diff(dim=-2))):
        found = steps.abs().transpose(axis, 0).flatten(1).mean(1)
        edges = {(w.left if axis == -1 else w.top) - 1 for w in windows(height, width, tile, ALIGN)} - {-1}
        own = torch.tensor([place in edges for place in range(len(found))])
        across.append(found[own])
        elsewhere.append(found[~own & (torch.arange(len(found)) % ALIGN == ALIGN - 1)])
    return float(torch.cat(across).mean() / torch.cat(elsewhere).mean())


def one_pixel_less(*args: Any) -> Any:
    return dataclasses.replace(plan := plan_pass(*args), halo=plan.halo - 1)


@pytest.mark.parametrize("keep", [0, CPU_KEEP], ids=["recompute", "lockstep"])
@pytest.mark.parametrize("name", SHIPPED)
def test_small_pictures_in_tiles(name: str, keep: int) -> None:
    model, whole, found, _ = pictures(name, 176, 208, Tiling(96, keep))
    assert model.cut == Tiling(96, keep)
    assert (found - whole).abs().max() <= MOST


@pytest.mark.parametrize("name", SHIPPED)
def test_one_pixel_less_halo_is_wrong(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _, whole, _, paint = pictures(name, 176, 208, Tiling(96, CPU_KEEP))
    monkeypatch.setattr(tiled_run, "plan_pass", one_pixel_less)
    assert (paint() - whole).abs().max() > MOST


@pytest.mark.slow
@pytest.mark.parametrize("name", SHIPPED)
def test_at_1536x1100_in_tiles_of_512(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, whole, found, paint = pictures(name, 1100, 1536, Tiling(512, CPU_KEEP))
    assert (found - whole).abs().max() <= MOST
    assert border_gradient(found, 512) <= SEAM
    assert border_gradient(found, 512) == pytest.approx(border_gradient(whole, 512), abs=1e-3)
    model.tiling = None
    monkeypatch.setattr(tiled_run, "plan_pass", one_pixel_less)
    assert (paint() - whole).abs().max() > MOST
    monkeypatch.undo()
    _, _, recomputed, _ = pictures(name, 1100, 1536, Tiling(512, 0))
    assert (recomputed - whole).abs().max() <= MOST
