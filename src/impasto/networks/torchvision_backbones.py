"""torchvision's networks as backbones; imported only if one of them is used.

torchvision builds the network; it is filled with a state dict under torchvision's own names and taken apart into named
steps, the last of which is ``logits``. Nothing works in place, so a returned layer is never overwritten by the next.
MobileNet's blocks average over the whole picture (squeeze and excitation), as do all logits, so a tile does not have
the features that the whole picture has there.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from impasto.errors import OptionError
from impasto.networks.backbone import Backbone, pool
from impasto.weights import Weights, load_weights
from impasto.weights.torchvision_files import OFFICIAL, load_official, load_torchvision, read_state_dict

load_torchvision()
from torchvision import models  # noqa: E402

VGG_LAYERS = ("relu4_2", ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1"))
DEFAULT_LAYERS: dict[str, tuple[str, tuple[str, ...]]] = {
    "vgg16": VGG_LAYERS,
    "vgg19": VGG_LAYERS,
    "vgg16_bn": VGG_LAYERS,
    "vgg19_bn": VGG_LAYERS,
    "resnet50": ("layer2_3", ("relu1", "layer1_0", "layer1_2", "layer2_0", "layer3_0")),
    "mobilenet_v3_large": ("block6", ("block0", "block2", "block4", "block7", "block11")),
    "squeezenet1_1": ("fire2", ("relu1", "fire3", "fire4", "fire5", "fire7")),
}
"""The default content layer and five default style layers.

For the VGGs: Gatys et al. 2016, after the ReLU. For SqueezeNet: those of Stanford's course CS231n, and a deeper one.
For ResNet and MobileNet: by stride, the nearest to the VGGs' 1, 2, 4, 8, 16 and, for content, 8.
"""

LEAST_SIDE = {"squeezenet1_1": 17}  # the others halve the picture five times
TRACKED = "num_batches_tracked"


def build(name: str, *, pooling: str = "max", weights: str | Path | None = None, pretrained: bool = True) -> Backbone:
    """Return torchvision's network `name` as a backbone in ImageNet's scaling; `load_backbone` freezes it.

    pooling: ``average`` replaces every max pooling; weights: a local file, safetensors or torchvision's own state dict,
    instead of the official one (for a VGG, its convolutions alone are enough: it then has no logits); pretrained False:
    random weights. The digest is the file's SHA-256, or ``random``. Raises OptionError for a pooling that the network
    can't have, WeightsError if the weights are not available.
    """
    pool(pooling)  # refuses an unknown kind before anything is built or downloaded
    if pooling == "average" and name == "mobilenet_v3_large":
        raise OptionError(f"{name} has no max pooling that could become average: use pooling max")
    if not pretrained:
        model, digest = models.get_model(name, weights=None), "random"
    else:
        file = load_official(name) if weights is None else _read(Path(weights))
        model, digest = _filled(name, file), file.digest
    steps = take_apart(model, pooling)
    return Backbone(name, steps, digest=digest, least_side=LEAST_SIDE.get(name, 32))


def imagenet_classes(name: str) -> tuple[str, ...]:
    """Return the names of ImageNet's 1000 classes, in the order of `name`'s logits; needs no connection."""
    return tuple(models.get_model_weights(name)[OFFICIAL[name]].meta["categories"])


def take_apart(model: nn.Module, pooling: str = "max") -> dict[str, nn.Module]:
    """Return the named steps of a torchvision network, shallow to deep, with its weights; none works in place."""
    for module in model.modules():
        if isinstance(module, nn.ReLU | nn.Hardswish | nn.Hardsigmoid | nn.Dropout):
            module.inplace = False
    if isinstance(model, models.VGG):
        return _vgg(model, pooling)
    if isinstance(model, models.ResNet):
        return _resnet(model, pooling)
    if isinstance(model, models.SqueezeNet):
        return _squeezenet(model, pooling)
    if isinstance(model, models.MobileNetV3):
        return _mobilenet(model)
    raise OptionError(f"there are no layer names for a {type(model).__name__}")


def _read(path: Path) -> Weights:
    return load_weights(path) if path.suffix == ".safetensors" else read_state_dict(path)


def _filled(name: str, file: Weights) -> nn.Module:
    """Return the network with the file's weights, without initialising random ones first."""
    with torch.device("meta"):
        model: nn.Module = models.get_model(name, weights=None)
    if isinstance(model, models.VGG) and not any(name.startswith("classifier.") for name in file.tensors):
        model.classifier = nn.Sequential()  # its features are enough except for logits, and a tenth of the file
    model.to_empty(device="cpu")
    # Batch counts do not matter in evaluation, and state dicts from before PyTorch 0.4.1 have none.
    counts = {k: torch.zeros_like(v) for k, v in model.state_dict().items() if k.endswith(TRACKED)}
    Weights(file.path, counts | file.tensors, file.config, file.digest).fill(model)
    return model


def _vgg(model: models.VGG, pooling: str) -> dict[str, nn.Module]:
    """conv1_1, (bn1_1,) relu1_1, ..., pool5, logits."""
    kinds = {nn.Conv2d: "conv", nn.BatchNorm2d: "bn", nn.ReLU: "relu"}
    steps: dict[str, nn.Module] = {}
    block, number = 1, 0
    for layer in model.features:
        if isinstance(layer, nn.MaxPool2d):
            steps[f"pool{block}"] = _pooling(layer, pooling)
            block, number = block + 1, 0
        else:
            number += isinstance(layer, nn.Conv2d)
            steps[f"{kinds[type(layer)]}{block}_{number}"] = layer
    if len(model.classifier):
        steps["logits"] = nn.Sequential(model.avgpool, nn.Flatten(), model.classifier)
    return steps


def _resnet(model: models.ResNet, pooling: str) -> dict[str, nn.Module]:
    """conv1, bn1, relu1, maxpool, layer1_0, ..., layer4_2, logits; the layers are whole residual blocks."""
    steps: dict[str, nn.Module] = {"conv1": model.conv1, "bn1": model.bn1, "relu1": model.relu}
    steps["maxpool"] = _pooling(model.maxpool, pooling)
    for stage, blocks in enumerate((model.layer1, model.layer2, model.layer3, model.layer4), start=1):
        steps |= {f"layer{stage}_{i}": block for i, block in enumerate(blocks)}
    steps["logits"] = nn.Sequential(model.avgpool, nn.Flatten(), model.fc)
    return steps


def _squeezenet(model: models.SqueezeNet, pooling: str) -> dict[str, nn.Module]:
    """conv1, relu1, pool1, fire2, fire3, pool3, ..., fire9, logits; a pooling has the number of the layer before."""
    steps: dict[str, nn.Module] = {}
    number = 1
    for layer in model.features:
        if isinstance(layer, nn.Conv2d | nn.ReLU):
            steps["conv1" if isinstance(layer, nn.Conv2d) else "relu1"] = layer
        elif isinstance(layer, nn.MaxPool2d):
            steps[f"pool{number}"] = _pooling(layer, pooling)
        else:
            number += 1
            steps[f"fire{number}"] = layer
    steps["logits"] = nn.Sequential(model.classifier, nn.Flatten())
    return steps


def _mobilenet(model: models.MobileNetV3) -> dict[str, nn.Module]:
    """block0, the first convolution, ..., block16, the last one, logits."""
    steps: dict[str, nn.Module] = {f"block{i}": block for i, block in enumerate(model.features)}
    steps["logits"] = nn.Sequential(model.avgpool, nn.Flatten(), model.classifier)
    return steps


def _pooling(layer: nn.MaxPool2d, kind: str) -> nn.Module:
    """Return `layer`, or an average over the same windows, of the pixels within the picture."""
    if kind == "max":
        return layer
    return nn.AvgPool2d(
        layer.kernel_size, layer.stride, layer.padding, ceil_mode=layer.ceil_mode, count_include_pad=False
    )
