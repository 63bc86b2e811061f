"""Keeping the photo's colours: by recolouring the style before it is encoded, or the result afterwards."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from impasto.errors import OptionError, nearest
from impasto.images.tensors import resize
from impasto.ops.moments import moments

COLOR_MODES = ("off", "luminance", "lab", "histogram", "covariance")
KEEPING_MODES = ("luminance", "lab")
MATCHING_MODES = ("histogram", "covariance")

_LUMA = (0.299, 0.587, 0.114)
_XYZ_OF_RGB = ((0.412453, 0.357580, 0.180423), (0.212671, 0.715160, 0.072169), (0.019334, 0.119193, 0.950227))
_WHITE = (0.95047, 1.0, 1.08883)  # D65, 2 degree observer
_DELTA = 6 / 29
_RIDGE = 1e-5


def recolor_style(style: Tensor, content: Tensor, mode: str) -> Tensor:
    """Give the style image the content's colours, before it is encoded, if the mode works that way.

    style: (1 or B, 3, H, W); content: (1 or B, 3, H', W'); mode: one of COLOR_MODES. Modes "histogram" and "covariance"
    return the recoloured style in [0, 1], the others the style itself. Raises OptionError for an unknown mode.
    """
    _check_mode(mode, COLOR_MODES)
    return match_color(style, content, mode) if mode in MATCHING_MODES else style


def restore_color(result: Tensor, content: Tensor, mode: str) -> Tensor:
    """Give the stylized image the content's colours back, if the mode works that way.

    result: (B, 3, H, W); content: (1 or B, 3, H', W'); mode: one of COLOR_MODES. Modes "luminance" and "lab" return the
    recoloured result in [0, 1], the others the result itself. Raises OptionError for an unknown mode.
    """
    _check_mode(mode, COLOR_MODES)
    return keep_color(result, content, mode) if mode in KEEPING_MODES else result


def keep_color(stylized: Tensor, content: Tensor, mode: str) -> Tensor:
    """Take only the lightness from the stylized image, the colour from the content (Gatys et al. 2017, sec. 5.1).

    stylized: (B, 3, H, W); content: (1 or B, 3, H', W'), resized to H, W if necessary; both in [0, 1]. mode:
    "luminance" (Rec. 601 Y with the content's Cb and Cr), "lab" (L* with the content's a* and b*) or "off".
    Returns (B, 3, H, W), clipped to [0, 1]. Raises OptionError for another mode.

    Departs from the paper: the style image's luminance isn't matched to the content's beforehand.
    """
    _check_mode(mode, ("off", *KEEPING_MODES))
    if mode == "off":
        return stylized
    content = resize(content, *stylized.shape[-2:])
    if mode == "luminance":
        return (content + luma(stylized) - luma(content)).clamp(
            0, 1
        )  # the same Cb and Cr: every channel changes equally
    chroma = rgb_to_lab(content)[:, 1:].expand(len(stylized), -1, -1, -1)
    return lab_to_rgb(torch.cat([rgb_to_lab(stylized)[:, :1], chroma], dim=1)).clamp(0, 1)


def match_color(style: Tensor, content: Tensor, mode: str) -> Tensor:
    """Give the style image the content's colours before it is encoded (Gatys et al. 2017, sec. 5.2).

    style: (1 or B, 3, H, W); content: (1 or B, 3, H', W'), both in [0, 1]. mode: "histogram", "covariance" or "off".
    Returns (B, 3, H, W), clipped to [0, 1]. Raises OptionError for another mode.
    """
    _check_mode(mode, ("off", *MATCHING_MODES))
    if mode == "off":
        return style
    matched = match_histogram(style, content) if mode == "histogram" else match_covariance(style, content)
    return matched.clamp(0, 1)


def luma(image: Tensor) -> Tensor:
    """Return the Rec. 601 luma of (B, 3, H, W), (B, 1, H, W)."""
    return _mix(image, image.new_tensor([_LUMA]))


def grey_detail(image: Tensor) -> Tensor:
    """Return `image`, (B, 3, H, W), with the finest detail in lightness only, so that there are no coloured fringes."""
    height, width = image.shape[-2:]
    lightness = luma(image)
    small = max(1, height // 2), max(1, width // 2)
    colors = functional.interpolate(image - lightness, small, mode="bilinear", align_corners=False)
    return lightness + functional.interpolate(colors, (height, width), mode="bilinear", align_corners=False)


def rgb_to_lab(image: Tensor) -> Tensor:
    """Convert sRGB in [0, 1], (B, 3, H, W), to CIE L*a*b* for D65: L* in [0, 100]."""
    linear = torch.where(image > 0.04045, ((image.clamp_min(0.04045) + 0.055) / 1.055) ** 2.4, image / 12.92)
    ratio = _mix(linear, _xyz_of_rgb(image)) / _white(image)
    bent = torch.where(ratio > _DELTA**3, ratio.clamp_min(_DELTA**3) ** (1 / 3), ratio / (3 * _DELTA**2) + 4 / 29)
    x, y, z = bent.unbind(1)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], dim=1)


def lab_to_rgb(lab: Tensor) -> Tensor:
    """Convert CIE L*a*b* for D65, (B, 3, H, W), to sRGB, outside [0, 1] where sRGB lacks the colour."""
    lightness, a, b = lab.unbind(1)
    y = (lightness + 16) / 116
    bent = torch.stack([y + a / 500, y, y - b / 200], dim=1)
    ratio = torch.where(bent > _DELTA, bent**3, 3 * _DELTA**2 * (bent - 4 / 29))
    linear = _mix(ratio * _white(lab), torch.linalg.inv(_xyz_of_rgb(lab)))
    curved = 1.055 * linear.clamp_min(0.0031308) ** (1 / 2.4) - 0.055
    return torch.where(linear > 0.0031308, curved, 12.92 * linear)


def match_covariance(style: Tensor, content: Tensor) -> Tensor:
    """Map the style's colours linearly to the content's mean and covariance (Gatys et al. 2017, sec. 5.2).

    style: (1 or B, 3, H, W); content: (1 or B, 3, H', W'). Returns (B, 3, H, W) like the style, not clipped. Computed
    in float64 on the CPU, with 1e-5 added to each variance for the sake of grey pictures.

    Departs from the paper: of all such maps this is the one that moves the colours least, not the Cholesky or PCA map.
    """
    colors = style.to("cpu", torch.float64)
    source, target = moments(colors), moments(content.to("cpu", torch.float64))
    matrix = monge_map(source.covariance, target.covariance)  # (B, 3, 3)
    offset = target.mean[..., None] - matrix @ source.mean[..., None]
    return (_mix(colors, matrix) + offset[..., None]).to(style)


def monge_map(source: Tensor, target: Tensor) -> Tensor:
    """Return the symmetric A with A source A = target, for covariances (1 or B, C, C), 1e-5 added to each variance."""
    ridge = _RIDGE * torch.eye(source.shape[-1], dtype=source.dtype, device=source.device)
    root, inverse = _power(source + ridge, 0.5), _power(source + ridge, -0.5)
    middle = _power(root @ (target + ridge) @ root, 0.5)
    return torch.matmul(torch.matmul(inverse, middle), inverse)


def match_low_frequencies(image: Tensor, content: Tensor, colors: Tensor) -> Tensor:
    """Give large areas of `image` the content's arrangement of `colors`; detail and lightness stay.

    image, content: (1, 3, H, W); colors: (M, 3), a sample of the colours to take: the content's colours
    get their mean and covariance (Kolkin et al. 2022, sec. 3.4). Returns (1, 3, H, W), clipped to [0, 1].
    """
    height, width = image.shape[-2:]
    small = max(1, height // LARGE_AREA), max(1, width // LARGE_AREA)
    painted, wanted = resize(image, *small), resize(content, *small)
    if wanted[0, 0].numel() > 1:
        wanted = match_covariance(wanted, colors.T.reshape(1, 3, -1, 1)).clamp(0, 1)
    change = wanted - painted
    change = change - luma(change)
    return (image + functional.interpolate(change, (height, width), mode="bilinear", align_corners=False)).clamp(0, 1)


LARGE_AREA = 16
"""Side, in pixels, of the cells over which colours are averaged before they are mapped."""


def match_histogram(style: Tensor, content: Tensor) -> Tensor:
    """Map each channel of the style by an increasing curve so that its histogram becomes the content's.

    style: (1 or B, 3, H, W); content: (1 or B, 3, H', W'). Returns (B, 3, H, W) like the style. Equal values stay
    equal: where n pixels share one, it becomes the mean of the n content values that they would take. So the channel
    means agree exactly, and all quantiles do where no values are shared.
    """
    count = max(len(style), len(content))
    source = style.expand(count, -1, -1, -1).flatten(0, 1).cpu()  # (B * 3, H, W)
    target = content.expand(count, -1, -1, -1).flatten(0, 1).to("cpu", torch.float64)
    matched = [_match_values(values, wanted) for values, wanted in zip(source, target, strict=True)]
    return torch.stack(matched).view(count, *style.shape[1:]).to(style)


def _match_values(values: Tensor, wanted: Tensor) -> Tensor:
    """Match one channel: (H, W) and (H', W') to (H, W) float64."""
    _, index, counts = torch.unique(values, return_inverse=True, return_counts=True)
    quantiles = wanted.flatten().sort().values
    integral = torch.cat([quantiles.new_zeros(1), quantiles.cumsum(0)])
    share = counts.cumsum(0) * quantiles.numel()  # where each value's share of the quantiles ends, in units of 1 / H W
    whole, part = share // values.numel(), (share % values.numel()).double() / values.numel()
    upper = integral[whole] + part * quantiles[whole.clamp_max(quantiles.numel() - 1)]
    width = counts.double() * quantiles.numel() / values.numel()
    means: Tensor = torch.diff(upper, prepend=integral[:1]) / width
    return means[index]


def _check_mode(mode: str, valid: tuple[str, ...]) -> None:
    if mode not in valid:
        near = nearest(mode, valid)
        raise OptionError(f"there is no color mode {mode!r}{near}; choose one of: {', '.join(valid)}")


def _mix(image: Tensor, matrix: Tensor) -> Tensor:
    """Multiply each pixel of (B, C, H, W) by a matrix (D, C) or (B, D, C)."""
    mixed: Tensor = torch.matmul(matrix, image.flatten(2))
    return mixed.view(-1, matrix.shape[-2], *image.shape[2:])


def _xyz_of_rgb(like: Tensor) -> Tensor:
    return like.new_tensor(_XYZ_OF_RGB)


def _white(like: Tensor) -> Tensor:
    return like.new_tensor(_WHITE).view(3, 1, 1)


def _power(matrix: Tensor, exponent: float) -> Tensor:
    """Return a power of a symmetric positive matrix (B, C, C), its eigenvalues kept from 0."""
    values, vectors = torch.linalg.eigh(matrix)
    return torch.matmul(vectors * values.clamp_min(1e-12).pow(exponent).unsqueeze(-2), vectors.mT)
