from pathlib import Path

import numpy as np
import pytest
import skimage
import skimage.color
import torch

from impasto.errors import OptionError
from impasto.images.color import (
    COLOR_MODES,
    keep_color,
    lab_to_rgb,
    luma,
    match_color,
    match_covariance,
    match_histogram,
    monge_map,
    recolor_style,
    restore_color,
    rgb_to_lab,
)
from impasto.images.files import read_image
from impasto.images.tensors import resize

BUNDLED = Path(skimage.__file__).parent / "data"
AFTER = ("luminance", "lab")
BEFORE = ("histogram", "covariance")


@pytest.fixture(scope="module")
def astronaut():
    return resize(read_image(BUNDLED / "astronaut.png"), 97, 131)


@pytest.fixture(scope="module")
def coffee():
    return resize(read_image(BUNDLED / "coffee.png"), 80, 61)


def pixels(image):
    """(1, 3, H, W) to (H * W, 3) float64."""
    return image[0].flatten(1).T.double().numpy()


def root(matrix):
    values, vectors = np.linalg.eigh(matrix)
    return vectors @ np.diag(np.sqrt(values)) @ vectors.T


def match_covariance_naively(style, content):
    """Gatys et al. 2017, the symmetric solution, in float64 numpy: (N, 3) and (M, 3) to (N, 3)."""
    cov_style = np.cov(style.T, bias=True) + 1e-5 * np.eye(3)
    cov_content = np.cov(content.T, bias=True) + 1e-5 * np.eye(3)
    inverse = np.linalg.inv(root(cov_style))
    matrix = inverse @ root(root(cov_style) @ cov_content @ root(cov_style)) @ inverse
    return (style - style.mean(0)) @ matrix.T + content.mean(0)


def test_the_modes():
    assert COLOR_MODES == ("off", "luminance", "lab", "histogram", "covariance")


@pytest.mark.parametrize("mode", COLOR_MODES)
def test_each_mode_acts_before_or_after(astronaut, coffee, mode):
    style, result = recolor_style(coffee, astronaut, mode), restore_color(astronaut, coffee, mode)
    assert (style is coffee) == (mode not in BEFORE)
    assert (result is astronaut) == (mode not in AFTER)
    for image, like in ((style, coffee), (result, astronaut)):
        assert image.shape == like.shape
        assert image.dtype == torch.float32
        assert image.min() >= 0
        assert image.max() <= 1


@pytest.mark.parametrize("function", [recolor_style, restore_color, keep_color, match_color])
def test_an_unknown_mode_names_the_valid_ones(astronaut, function):
    with pytest.raises(OptionError, match=r"'sepia'; choose one of: off, "):
        function(astronaut, astronaut, "sepia")


@pytest.mark.parametrize(("function", "mode"), [(keep_color, "histogram"), (match_color, "lab")])
def test_a_mode_of_the_other_kind_is_refused(astronaut, function, mode):
    with pytest.raises(OptionError, match="choose one of: off"):
        function(astronaut, astronaut, mode)


@pytest.mark.parametrize("function", [keep_color, match_color])
def test_off_changes_nothing(astronaut, coffee, function):
    assert function(coffee, astronaut, "off") is coffee


@pytest.mark.parametrize("mode", COLOR_MODES)
def test_an_image_keeps_its_own_colors(astronaut, mode):
    for function in (recolor_style, restore_color):
        assert float((function(astronaut, astronaut, mode) - astronaut).abs().max()) < 1e-3


@pytest.mark.parametrize("mode", COLOR_MODES)
def test_a_batch_equals_its_items(astronaut, mode):
    style = torch.rand(3, 3, 20, 24, generator=torch.Generator().manual_seed(0))
    content = torch.cat([astronaut, astronaut.flip(1), 1 - astronaut])
    for function in (recolor_style, restore_color):
        together = function(style, content, mode)
        apart = torch.cat([function(s[None], c[None], mode) for s, c in zip(style, content, strict=True)])
        assert torch.allclose(together, apart, atol=1e-6)
        shared = function(style, content[:1], mode)
        assert torch.allclose(shared[1:2], function(style[1:2], content[:1], mode), atol=1e-6)


def test_luminance_keeps_the_chroma(astronaut, coffee):
    dark = 0.3 + 0.4 * astronaut
    grey = resize(0.4 + 0.2 * coffee, 97, 131)
    kept = skimage.color.rgb2ycbcr(keep_color(grey, dark, "luminance")[0].double().permute(1, 2, 0).numpy())
    wanted = skimage.color.rgb2ycbcr(dark[0].double().permute(1, 2, 0).numpy())
    luminance = skimage.color.rgb2ycbcr(grey[0].double().permute(1, 2, 0).numpy())
    assert np.abs(kept[..., 1:] - wanted[..., 1:]).max() < 0.01  # of 224
    assert np.abs(kept[..., 0] - luminance[..., 0]).max() < 0.01


def test_luma_by_hand():
    primaries = torch.eye(3).view(3, 3, 1, 1)
    assert luma(primaries).flatten().tolist() == pytest.approx([0.299, 0.587, 0.114])
    assert luma(torch.ones(2, 3, 4, 5)).shape == (2, 1, 4, 5)


@pytest.mark.parametrize(("scale", "tolerance"), [(0.9, 1e-6), (0.05, 2e-4)])
def test_lab_agrees_with_skimage(scale, tolerance):
    """In the dark, skimage rounds the constants of the straight part to four digits."""
    noise = torch.rand(1, 3, 64, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    image = 1 - scale * noise if scale > 0.5 else scale * noise
    image[..., 0, 0], image[..., 0, 1] = 0, 1
    expected = skimage.color.rgb2lab(image[0].permute(1, 2, 0).numpy())
    lab = rgb_to_lab(image)
    assert np.abs(lab[0].permute(1, 2, 0).numpy() - expected).max() < tolerance
    assert float((rgb_to_lab(image.float()) - lab).abs().max()) < 1e-3
    back = skimage.color.lab2rgb(expected)
    assert np.abs(lab_to_rgb(lab)[0].permute(1, 2, 0).numpy() - back).max() < 1e-4
    assert float((lab_to_rgb(lab) - image).abs().max()) < 1e-4
    assert float((lab_to_rgb(lab.float()) - image).abs().max()) < 1e-4


def test_lab_by_hand():
    lab = rgb_to_lab(torch.tensor([[0.0, 0, 0], [1, 1, 1], [1, 0, 0]]).view(3, 3, 1, 1)).view(3, 3)
    assert lab[0].tolist() == pytest.approx([0, 0, 0], abs=1e-3)
    assert lab[1].tolist() == pytest.approx([100, 0, 0], abs=1e-2)
    assert lab[2].tolist() == pytest.approx([53.24, 80.09, 67.20], abs=0.02)


def test_lab_keeps_lightness_and_color(astronaut, coffee):
    muted = 0.35 + 0.25 * astronaut
    grey = resize(0.4 + 0.2 * coffee, 97, 131)
    lab = rgb_to_lab(keep_color(grey, muted, "lab"))
    assert float((lab[:, :1] - rgb_to_lab(grey)[:, :1]).abs().max()) < 1e-2
    assert float((lab[:, 1:] - rgb_to_lab(muted)[:, 1:]).abs().max()) < 1e-2


def test_lab_of_other_colors_than_srgb_is_finite():
    lab = torch.tensor([[50.0, 200, -200], [0, -120, 90], [100, 60, 60]]).view(3, 3, 1, 1)
    assert lab_to_rgb(lab).isfinite().all()


def test_a_content_of_another_size_is_resized(astronaut, coffee):
    for mode in AFTER:
        assert torch.equal(keep_color(coffee, astronaut, mode), keep_color(coffee, resize(astronaut, 80, 61), mode))


def test_covariance_gives_the_content_its_statistics(astronaut, coffee):
    matched, wanted = pixels(match_covariance(coffee, astronaut)), pixels(astronaut)
    assert np.abs(matched.mean(0) - wanted.mean(0)).max() < 1e-5
    assert np.abs(np.cov(matched.T, bias=True) - np.cov(wanted.T, bias=True)).max() < 1e-3


def test_covariance_agrees_with_its_twin(astronaut, coffee):
    matched = pixels(match_covariance(coffee, astronaut))
    assert np.abs(matched - match_covariance_naively(pixels(coffee), pixels(astronaut))).max() < 1e-5
    exact = pixels(match_covariance(coffee.double(), astronaut.double()))
    assert np.abs(exact - match_covariance_naively(pixels(coffee), pixels(astronaut))).max() < 1e-9


def test_monge_map_is_symmetric_positive_and_by_hand():
    source, target = torch.diag(torch.tensor([1.0, 4, 9])).double(), torch.diag(torch.tensor([4.0, 4, 1])).double()
    matrix = monge_map(source, target)
    assert torch.allclose(matrix, torch.diag(torch.tensor([2.0, 1, 1 / 3])).double(), atol=1e-4)
    parts = torch.rand(2, 5, 3, 7, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    source, target = parts @ parts.mT
    matrix = monge_map(source, target)
    assert torch.allclose(matrix, matrix.mT, atol=1e-9)
    assert bool((torch.linalg.eigvalsh(matrix) > 0).all())
    assert torch.allclose(matrix @ source @ matrix, target, atol=1e-3)


@pytest.mark.parametrize("mode", COLOR_MODES)
@pytest.mark.parametrize("kind", ["grey", "flat", "black", "two colors", "one pixel"])
def test_degenerate_pictures_stay_finite(astronaut, mode, kind):
    grey = luma(astronaut).expand(-1, 3, -1, -1)
    two = torch.where(
        grey > 0.5, torch.tensor([1.0, 0, 0]).view(1, 3, 1, 1), torch.tensor([0.0, 0, 1]).view(1, 3, 1, 1)
    )
    image = {
        "grey": grey,
        "flat": torch.full_like(grey, 0.3),
        "black": torch.zeros_like(grey),
        "two colors": two,
        "one pixel": astronaut[:, :, :1, :1],
    }[kind]
    for first, second in ((image, astronaut), (astronaut, image), (image, image)):
        for function in (recolor_style, restore_color):
            result = function(first, second, mode)
            assert result.isfinite().all()
            assert result.shape == first.shape


@pytest.mark.parametrize("mode", AFTER)
def test_a_grey_content_gives_a_grey_result(astronaut, coffee, mode):
    grey = luma(astronaut).expand(-1, 3, -1, -1)
    result = restore_color(resize(coffee, 97, 131), grey, mode)
    assert float((result - result.mean(1, keepdim=True)).abs().max()) < 1e-3


def test_histogram_of_the_same_size_is_exact():
    generator = torch.Generator().manual_seed(3)
    style = torch.rand(2, 3, 13, 17, generator=generator)
    content = torch.rand(2, 3, 17, 13, generator=generator) ** 2
    matched = match_histogram(style, content)
    assert torch.allclose(matched.flatten(2).sort().values, content.flatten(2).sort().values, atol=1e-6)
    assert torch.equal(matched.flatten(2).argsort(), style.flatten(2).argsort())


@pytest.mark.parametrize(("first", "second"), [((13, 17), (101, 97)), ((101, 97), (13, 17)), ((1, 1), (5, 5))])
def test_histogram_of_another_size_has_the_quantiles(first, second):
    generator = torch.Generator().manual_seed(4)
    style, content = torch.rand(1, 3, *first, generator=generator), torch.rand(1, 3, *second, generator=generator) ** 3
    matched = match_histogram(style, content)
    assert torch.allclose(matched.mean((2, 3)), content.mean((2, 3)), atol=1e-6)
    if matched.numel() > 3:
        at = torch.linspace(0.05, 0.95, 19)
        got, wanted = matched.flatten(2).quantile(at, dim=2), content.flatten(2).quantile(at, dim=2)
        assert float((got - wanted).abs().max()) < 0.02


def test_histogram_is_a_curve_even_where_values_are_shared(astronaut, coffee):
    style = (coffee * 15).round() / 15
    matched = match_histogram(style, astronaut)
    assert torch.allclose(matched.mean((2, 3)), astronaut.mean((2, 3)), atol=1e-6)
    for values, mapped in zip(style[0].flatten(1), matched[0].flatten(1), strict=True):
        table = {}
        for value, result in zip(values.tolist(), mapped.tolist(), strict=True):
            assert table.setdefault(value, result) == result
        curve = [table[value] for value in sorted(table)]
        assert curve == sorted(curve)
        assert len(curve) <= 16


def test_histogram_by_hand():
    style = torch.tensor([[0.5, 0.1, 0.1, 0.9]]).expand(1, 3, 1, 4)
    content = torch.tensor([[0.0, 0.2, 0.6, 1.0]]).expand(1, 3, 1, 4)
    assert match_histogram(style, content)[0, 1, 0].tolist() == pytest.approx([0.6, 0.1, 0.1, 1.0])
    half = torch.tensor([[0.8, 0.4]]).expand(1, 3, 1, 2)
    assert match_histogram(style, half)[0, 0, 0].tolist() == pytest.approx([0.8, 0.4, 0.4, 0.8])
    assert match_histogram(half, content)[0, 0, 0].tolist() == pytest.approx([0.8, 0.1])
