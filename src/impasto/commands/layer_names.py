"""Names of the layers of all backbones, as the networks themselves have them, without building one."""

from __future__ import annotations

from collections.abc import Iterator

from impasto.commands.arguments import constant

VGG_BLOCKS = {"vgg16": (2, 2, 3, 3, 3), "vgg19": (2, 2, 4, 4, 4)}
RESNET_BLOCKS = (3, 4, 6, 3)
SQUEEZED = ("conv1", "relu1", "pool1", "fire2", "fire3", "pool3", "fire4", "fire5", "pool5")
LAST_FIRES = ("fire6", "fire7", "fire8", "fire9")
MOBILE_BLOCKS = 17


def layers_of(backbone: str) -> list[str]:
    """Return the names of the layers of a backbone, shallow to deep."""
    if backbone.startswith(str(constant("impasto.networks.backbone", "SLIM"))):
        blocks = constant("impasto.networks.backbone", "VGG19_BLOCKS")
        return ["image", *_vgg(blocks, last_pool=False)]
    if backbone.startswith("vgg"):
        name, _, normalised = backbone.partition("_")
        return ["image", *_vgg(VGG_BLOCKS[name], normalised=bool(normalised)), "logits"]
    if backbone.startswith("resnet"):
        own = [f"layer{stage}_{i}" for stage, count in enumerate(RESNET_BLOCKS, start=1) for i in range(count)]
        return ["image", "conv1", "bn1", "relu1", "maxpool", *own, "logits"]
    if backbone.startswith("squeezenet"):
        return ["image", *SQUEEZED, *LAST_FIRES, "logits"]
    return ["image", *(f"block{i}" for i in range(MOBILE_BLOCKS)), "logits"]


def _vgg(blocks: tuple[int, ...], *, normalised: bool = False, last_pool: bool = True) -> Iterator[str]:
    kinds = ("conv", "bn", "relu") if normalised else ("conv", "relu")
    for block, count in enumerate(blocks, start=1):
        yield from (f"{kind}{block}_{i}" for i in range(1, count + 1) for kind in kinds)
        if last_pool or block < len(blocks):
            yield f"pool{block}"
