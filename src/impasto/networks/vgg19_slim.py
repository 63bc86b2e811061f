"""vgg19-slim, the backbone inside the package: VGG-19 with a quarter of its widths."""

from __future__ import annotations

from torch import nn

from impasto.networks.backbone import Backbone, pool
from impasto.networks.layers import Conv

SLIM = "vgg19-slim"
HEADS = "+heads"
VGG19_BLOCKS = (2, 2, 4, 4, 1)
SLIM_WIDTHS = (16, 32, 64, 128, 128)
VGG19_WIDTHS = (64, 128, 256, 512, 512)
SLIM_LAYERS = (("relu4_1",), tuple(f"relu{block}_1" for block in range(1, 6)))


def vgg_steps(blocks: tuple[int, ...], widths: tuple[int, ...], pooling: str = "max") -> dict[str, nn.Module]:
    """Return the named steps of a VGG body with repeated edges: conv1_1, relu1_1, ..., pool1, conv2_1, ..."""
    steps: dict[str, nn.Module] = {}
    inputs = 3
    for block, (count, width) in enumerate(zip(blocks, widths, strict=True), start=1):
        for i in range(1, count + 1):
            steps[f"conv{block}_{i}"] = Conv(inputs, width)
            steps[f"relu{block}_{i}"] = nn.ReLU()
            inputs = width
        if block < len(blocks):
            steps[f"pool{block}"] = pool(pooling)
    return steps


def slim_backbone(*, heads: bool = False, pooling: str = "max", digest: str = "random") -> Backbone:
    """Return vgg19-slim with random weights: VGG-19 (Simonyan & Zisserman 2015) at a quarter of its widths.

    heads: map the five layers relu1_1 ... relu5_1 through 1x1 convolutions to VGG-19's own widths, in the normalisation
    of mean activation 1 (Gatys et al. 2016). Wang et al. 2020 ("Collaborative Distillation") train such an encoder
    together with its heads.

    Departs from the papers: edges are repeated, not zero; the heads end in a ReLU, like the layers that they imitate.
    """
    sides = {
        f"relu{block}_1": nn.Sequential(nn.Conv2d(inputs, outputs, 1), nn.ReLU())
        for block, (inputs, outputs) in enumerate(zip(SLIM_WIDTHS, VGG19_WIDTHS, strict=True), start=1)
    }
    return Backbone(
        SLIM + HEADS if heads else SLIM,
        vgg_steps(VGG19_BLOCKS, SLIM_WIDTHS, pooling),
        heads=sides if heads else None,
        digest=digest,
        least_side=16,
    )
