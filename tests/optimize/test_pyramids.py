"""Laplacian pyramids: synthesis is the inverse of analysis, and what is optimised stands for the picture."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from impasto.images.color import luma
from impasto.optimize.pyramids import GreyDetail, LaplacianPyramid, analyse, enlarge, shrink, synthesise, without_detail
from tiny import painting


@pytest.mark.parametrize("size", [(64, 96), (37, 131), (16, 16), (5, 7)])
def test_synthesis_of_the_analysis_is_the_picture(size: tuple[int, int]) -> None:
    image = torch.rand(1, 3, *size)
    bands = analyse(image)
    assert all(min(band.shape[-2:]) >= 4 for band in bands)
    assert_close(synthesise(bands), image, atol=1e-6, rtol=0)


def test_bands_are_what_is_lost_by_shrinking() -> None:
    image = torch.rand(1, 3, 32, 48)
    bands = analyse(image, 3)
    assert [band.shape[-2:] for band in bands] == [(32, 48), (16, 24), (8, 12)]
    assert_close(bands[0], image - enlarge(shrink(image), 32, 48))


def test_without_detail_keeps_the_large_shapes() -> None:
    image = torch.rand(1, 3, 64, 64)
    assert_close(without_detail(image, 2), enlarge(enlarge(shrink(shrink(image)), 32, 32), 64, 64))
    assert_close(without_detail(image, 2, 1.0), image, atol=1e-6, rtol=0)
    assert without_detail(torch.rand(1, 3, 5, 5), 3).shape == (1, 3, 5, 5)


@pytest.mark.parametrize("grey", [True, False])
def test_a_pyramid_stands_for_its_picture(grey: bool) -> None:
    image = painting(40, 56)
    pyramid = LaplacianPyramid(image, grey=grey)
    assert_close(pyramid(), image, atol=1e-6, rtol=0)
    again = LaplacianPyramid(painting(40, 56, seed=9), grey=grey)
    again.load_state_dict(pyramid.state_dict())
    assert torch.equal(again(), pyramid())


def test_grey_detail_changes_in_lightness_only() -> None:
    pyramid = LaplacianPyramid(painting(32, 32))
    before = pyramid().detach()
    finest = 32 * 32
    pyramid.values.data[:finest] += torch.randn(finest)
    change = (pyramid() - before).detach()
    assert change.abs().max() > 0.1
    assert_close(change, luma(change).expand(-1, 3, -1, -1), atol=1e-5, rtol=0)


def test_pixels_with_grey_detail() -> None:
    """Lightness is the pixels' own, colours are those at half the size; the gradient goes the same way back."""
    pixels = torch.rand(1, 3, 30, 42)
    parameter = GreyDetail(pixels)
    found = parameter()
    assert_close(luma(found), luma(pixels), atol=1e-6, rtol=0)
    colors = pixels - luma(pixels)
    assert_close(found - luma(found), enlarge(shrink(colors), 30, 42), atol=1e-6, rtol=0)
    weights = torch.randn(1, 3, 30, 42)
    (weights * found).sum().backward()
    moved = torch.randn(1, 3, 30, 42)
    assert_close((weights * GreyDetail(moved)()).sum(), (parameter.values.grad * moved).sum(), rtol=1e-4, atol=1e-4)


def test_grey_detail_of_one_pixel() -> None:
    assert GreyDetail(torch.rand(1, 3, 1, 1))().shape == (1, 3, 1, 1)
