"""Other ways for an image to be the parameter: Fourier coefficients, and pixels within a ball around a picture."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from impasto.optimize.descent import ImageParameter

COLOURS = ((0.27, 0.08, 0.025), (0.27, 0.0, -0.05), (0.27, -0.08, 0.025))
"""Red, green and blue of three directions in which photographs' pixels vary: grey, red-blue, green-magenta.

The columns' lengths are the deviations: large in brightness, small in hue. Along them the colours are uncorrelated.
"""


class Fourier(ImageParameter):
    """An image by its Fourier coefficients, scaled down with frequency, in uncorrelated colours (Olah et al. 2017).

    A gradient step then changes large shapes as easily as single pixels, and the noise that optimised pixels get stays
    small. A sigmoid keeps the image in [0, 1].

    noise: (B, 3, H, W), standard normal, whose coefficients are the start. spread: deviation of the first image, in the
    sigmoid's argument; decay: coefficients are scaled by frequency to minus this power.
    """

    scale: Tensor
    colours: Tensor

    def __init__(self, noise: Tensor, *, spread: float = 0.2, decay: float = 1.5) -> None:
        super().__init__()
        height, width = noise.shape[-2:]
        rows = torch.fft.fftfreq(height, device=noise.device).view(-1, 1)
        columns = torch.fft.rfftfreq(width, device=noise.device).view(1, -1)
        frequency = (rows.square() + columns.square()).sqrt().clamp_min(1 / max(height, width))
        scale = frequency.pow(-decay)
        self.size = (height, width)
        spectrum = torch.fft.rfft2(noise, norm="ortho")
        first = torch.fft.irfft2(spectrum * scale, s=self.size, norm="ortho")
        self.register_buffer("scale", scale / first.std().clamp_min(1e-8))
        self.register_buffer("colours", torch.tensor(COLOURS, device=noise.device) / COLOURS[0][0])
        self.values = nn.Parameter(torch.view_as_real(spectrum).contiguous() * spread)

    def forward(self) -> Tensor:
        """Return the image, (B, 3, H, W) in (0, 1)."""
        spectrum = torch.view_as_complex(self.values) * self.scale
        planes = torch.fft.irfft2(spectrum, s=self.size, norm="ortho")
        return torch.einsum("dc,bchw->bdhw", self.colours, planes).sigmoid()


class EpsilonBall(ImageParameter):
    """Pixels that differ from a picture by at most `epsilon` and stay in [0, 1].

    center: (B, 3, H, W) in [0, 1]. sign: with plain gradient descent, take the steps of projected gradient descent
    (Madry et al. 2018): each pixel moves by the learning rate, up or down.
    """

    center: Tensor

    def __init__(self, center: Tensor, epsilon: float, *, sign: bool = True) -> None:
        super().__init__()
        self.register_buffer("center", center.detach().clone())
        self.epsilon = epsilon
        self.values = nn.Parameter(self.center.clone())
        if sign:
            self.values.register_hook(torch.sign)  # type: ignore[no-untyped-call]

    def forward(self) -> Tensor:
        """Return the image, (B, 3, H, W)."""
        return self.values

    @torch.no_grad()
    def project(self) -> None:
        """Clamp to the ball and to [0, 1]."""
        low, high = (self.center - self.epsilon).clamp_min(0), (self.center + self.epsilon).clamp_max(1)
        self.values.copy_(torch.minimum(torch.maximum(self.values, low), high))
