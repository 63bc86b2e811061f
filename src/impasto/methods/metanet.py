"""Any style in one pass by a network made for it: Meta Networks (Shen, Yan & Zeng 2018).

A hyper network reads the moments of a painting's features and writes the kernels of a small transformation network,
which then paints without it. So a painting is learned in no more time than it takes to look at it, and what was learned
can be kept as a file of half a megabyte.
"""

from __future__ import annotations

from typing import Literal

from impasto.feedforward.hypernetwork import HyperNetwork
from impasto.stylizers.generated_network import SLIM_MOMENTS, GeneratedNetworks, GeneratedOptions


class MetaNetOptions(GeneratedOptions):
    """What can be chosen without training anew."""


def slim_network(
    hidden: int = 30,
    width: int = 8,
    *,
    residual: bool = True,
    output: Literal["linear", "sigmoid"] = "sigmoid",
    affine: bool = True,
) -> HyperNetwork:
    """The shipped size: the fast network's, read from all five layers of vgg19-slim."""
    return HyperNetwork(SLIM_MOMENTS, hidden, width, residual=residual, output=output, affine=affine)


class MetaNet(GeneratedNetworks):
    """A network for any painting, written by a hyper network (Shen, Yan & Zeng 2018, "Meta Networks for NST").

    Departs from the paper: the moments are those of vgg19-slim, on a logarithmic scale in units of their spread; the
    groups of the hidden vector are smaller; the norms' scales and shifts are generated, too, 784 numbers besides the
    112 056 of the fast network, because without them the colours of a painting can't be met; the output is a sigmoid's;
    edges are mirrored at every convolution. The loss is `PerceptualLoss`', normalised content and means and deviations
    besides the Gram matrices, over VGG-19, and every sample of a batch has a style of its own; the paper's batches are
    of one style, which stays for 20 of them. strength mixes what is painted with the photo.
    """

    name = "metanet"
    Options = MetaNetOptions
