"""The meaning of a video's samples by the codes of ITU-T H.273, and conversion to sRGB.

Ordinary transfer curves and primaries near sRGB's are kept, also in the result; wide gamuts and high dynamic range
become BT.709.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from impasto.errors import ImageError

RGB, BT709, UNKNOWN, BT601 = 0, 1, 2, 5
MATRICES = {1: 1, 4: 4, 5: 5, 6: 5, 7: 7, 9: 9}
"""The matrices that can be undone, as swscale numbers them."""
REFUSED_MATRICES = {
    8: "YCgCo",
    10: "BT.2020 with constant luminance",
    11: "SMPTE 2085",
    12: "a matrix derived from its primaries",
    13: "a matrix derived from its primaries, with constant luminance",
    14: "ICtCp",
    15: "IPT-C2",
    16: "YCgCo-Re",
    17: "YCgCo-Ro",
}
LINEAR, PQ, HLG = 8, 16, 18
HDR = {PQ: "PQ", HLG: "HLG"}
REFUSED_TRANSFERS = {9: "a logarithmic transfer", 10: "a logarithmic transfer", 17: "the transfer of digital cinema"}
PLAIN_TRANSFERS = (1, 4, 5, 6, 7, 13)
"""The transfers that are kept by name; 2020's equal BT.709's."""

NEAR_PRIMARIES = (1, 5, 6, 7, 22)
D65, DCI = (0.3127, 0.329), (0.314, 0.351)
WIDE_PRIMARIES = {
    4: ("BT.470 M", ((0.67, 0.33), (0.21, 0.71), (0.14, 0.08)), (0.31, 0.316)),
    8: ("film", ((0.681, 0.319), (0.243, 0.692), (0.145, 0.049)), (0.31, 0.316)),
    9: ("BT.2020", ((0.708, 0.292), (0.17, 0.797), (0.131, 0.046)), D65),
    11: ("DCI-P3", ((0.68, 0.32), (0.265, 0.69), (0.15, 0.06)), DCI),
    12: ("Display P3", ((0.68, 0.32), (0.265, 0.69), (0.15, 0.06)), D65),
}
SRGB_PRIMARIES = ((0.64, 0.33), (0.3, 0.6), (0.15, 0.06))

WHITE, PEAK, KNEE = 203.0, 1000.0, 0.6
"""Nits of diffuse white (ITU-R BT.2408) and of the brightest highlight; the share of white where compression begins."""


@dataclass(frozen=True)
class Colors:
    """Matrix, primaries and transfer of a video, by their codes."""

    matrix: int
    primaries: int
    transfer: int

    @property
    def hdr(self) -> bool:
        """Whether the dynamic range is high."""
        return self.transfer in HDR

    def check(self, name: str) -> list[str]:
        """Return what changes in the conversion to sRGB; raises ImageError if it is impossible."""
        problem = REFUSED_MATRICES.get(self.matrix) or REFUSED_TRANSFERS.get(self.transfer)
        if self.primaries == 10:
            problem = "XYZ samples"
        if problem:
            raise ImageError(f"{name} has colours in {problem}, which can't be read; convert it to BT.709 first")
        if self.hdr:
            return [f"HDR ({HDR[self.transfer]}) becomes standard range: highlights are compressed"]
        if self.primaries in WIDE_PRIMARIES:
            return [f"the wide gamut of {WIDE_PRIMARIES[self.primaries][0]} becomes BT.709"]
        return []

    def read_matrix(self, height: int, width: int) -> int:
        """Return the matrix for reading frames of height x width; for untagged ones, that of players."""
        return MATRICES.get(self.matrix) or guess_matrix(height, width)

    def written(self, height: int, width: int) -> Colors:
        """Return the codes with which a result of height x width is written."""
        if self.hdr or self.primaries in WIDE_PRIMARIES or self.transfer == LINEAR:
            return Colors(BT709, BT709, BT709)
        matrix = self.matrix if self.matrix in (1, 4, 5, 6, 7) else guess_matrix(height, width)
        primaries = self.primaries if self.primaries in NEAR_PRIMARIES else UNKNOWN
        return Colors(matrix, primaries, self.transfer if self.transfer in PLAIN_TRANSFERS else UNKNOWN)


def guess_matrix(height: int, width: int) -> int:
    """Return the matrix of an untagged video: BT.709 for high definition, BT.601 below."""
    return BT709 if width >= 1280 or height > 576 else BT601


def to_srgb(image: Tensor, colors: Colors) -> Tensor:
    """Convert (1, 3, H, W) in [0, 1], with the primaries and transfer of `colors`, to sRGB in [0, 1]."""
    wide = colors.primaries in WIDE_PRIMARIES
    if not (wide or colors.hdr or colors.transfer == LINEAR):
        return image
    linear = _linear(image, colors.transfer)
    if wide:
        _, corners, white = WIDE_PRIMARIES[colors.primaries]
        linear = torch.einsum("ij,bjhw->bihw", _between(corners, white).to(linear.dtype), linear)
    if colors.hdr:
        linear = _compress(linear)
    return _encode(linear)


def _linear(image: Tensor, transfer: int) -> Tensor:
    """Undo a transfer: linear light, in which 1 is diffuse white."""
    if transfer == LINEAR:
        return image
    if transfer == PQ:  # SMPTE ST 2084
        root = image.clamp(0, 1) ** (1 / 78.84375)
        return ((root - 0.8359375).clamp(min=0) / (18.8515625 - 18.6875 * root)) ** (1 / 0.1593017578125) * (
            1e4 / WHITE
        )
    if transfer == HLG:  # ITU-R BT.2100, on a screen of PEAK nits
        a, b, c = 0.17883277, 0.28466892, 0.55991073
        scene = torch.where(image <= 0.5, image**2 / 3, (torch.exp((image - c) / a) + b) / 12)
        light = scene[:, :1] * 0.2627 + scene[:, 1:2] * 0.678 + scene[:, 2:] * 0.0593
        return scene * light.clamp(min=1e-6) ** 0.2 * (PEAK / WHITE)
    return torch.where(image <= 0.04045, image / 12.92, ((image.clamp(min=0) + 0.055) / 1.055) ** 2.4)


def _encode(linear: Tensor) -> Tensor:
    linear = linear.clamp(0, 1)
    return torch.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)


def _compress(linear: Tensor) -> Tensor:
    """Compress highlights by each pixel's largest channel, so that hues stay; values below KNEE are kept."""
    linear = linear.clamp(min=0)
    largest = linear.amax(1, keepdim=True)
    over = (largest - KNEE).clamp(min=0)
    # slope 1 at the knee, 1 at PEAK
    span, most = 1 - KNEE, PEAK / WHITE - KNEE
    rolled = KNEE + over / (1 + over * (1 / span - 1 / most))
    return linear * torch.where(largest > KNEE, rolled / largest.clamp(min=KNEE), torch.ones_like(largest))


def _between(corners: tuple[tuple[float, float], ...], white: tuple[float, float]) -> Tensor:
    """Return the matrix from linear light of these primaries to that of sRGB; white stays white."""
    made: Tensor = torch.linalg.inv(_to_xyz(SRGB_PRIMARIES, D65)) @ _adapt(white) @ _to_xyz(corners, white)
    return made


def _xyz(point: tuple[float, float]) -> Tensor:
    return torch.tensor([point[0] / point[1], 1.0, (1 - point[0] - point[1]) / point[1]], dtype=torch.float64)


def _to_xyz(corners: tuple[tuple[float, float], ...], white: tuple[float, float]) -> Tensor:
    columns = torch.stack([_xyz(corner) for corner in corners], dim=1)
    shares: Tensor = torch.linalg.solve(columns, _xyz(white))
    return columns * shares


def _adapt(white: tuple[float, float]) -> Tensor:
    """Bradford's adaptation from `white` to D65."""
    cone = torch.tensor(
        [[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]], dtype=torch.float64
    )
    made: Tensor = torch.linalg.solve(cone, torch.diag(cone @ _xyz(D65) / (cone @ _xyz(white))) @ cone)
    return made
