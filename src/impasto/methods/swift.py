"""Any style in one quick pass: impasto's own network.

As in `metanet`, a hyper network reads the moments of a painting over vgg19-slim and writes the kernels, scales and
shifts of a small network, which then paints. Here that network goes up by repeating pixels, so that it leaves no grid,
takes shortcuts from its way down, by as much as the hyper network says, so that it keeps what a photo shows, and
learns from the photo's structural similarity, too.

What was tried instead, on 24 of the protocol's pairs (style loss, content loss, SSIM): an encoder and a decoder of
their own around optimal transports of correlations at four scales, as in `wct` but learning through them: 0.250, 0.721,
0.592 after 35 minutes on one core, at 1.4 times the time; `metanet`'s own form after 50 minutes: 0.139, 0.713, 0.475 at
full strength and 0.174, 0.657, 0.530 at 0.9, with a weave of two pixels over flat parts.

What the loss's weights are worth, on all 120 pairs: structure 1 for 57 minutes gives 0.201, 0.617, 0.634; 0.3 for
eleven more, with 1.15 for the content, 0.184, 0.640, 0.608; the mean of both networks 0.190, 0.627, 0.621; 92 minutes
from there with structure 0.2 and content 1.4: 0.164, 0.592, 0.604.
"""

from __future__ import annotations

from impasto.feedforward.hypernetwork import HyperNetwork
from impasto.stylizers.generated_network import SLIM_MOMENTS, GeneratedNetworks, GeneratedOptions


class SwiftOptions(GeneratedOptions):
    """What can be chosen without training anew."""


def swift_network(hidden: int = 15, width: int = 8) -> HyperNetwork:
    """The shipped size."""
    return HyperNetwork(SLIM_MOMENTS, hidden, width, output="sigmoid", affine=True, doubling=True, shortcuts=True)


class Swift(GeneratedNetworks):
    """impasto's own network: small, generated for each style, with shortcuts.

    Departs from the paper: it has none of its own; it departs from Meta Networks (Shen, Yan & Zeng 2018) as `metanet`
    does, and in how it goes up, by repetition and convolutions 3x3, in its shortcuts, and in its loss.
    """

    name = "swift"
    Options = SwiftOptions
