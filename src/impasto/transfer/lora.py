"""Low-rank adapters on a backbone's convolutions (Hu et al. 2021), by peft.

W' = W + alpha / r B A, where A is a convolution of the same kernel to r channels and B a 1x1 convolution that starts at
zero: at the start, the adapted network equals the base network, bit for bit.

Departs from the paper: convolutions are adapted instead of attention's matrices; those with groups are not.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from impasto.errors import ImpastoError
from impasto.networks.backbone import Backbone
from impasto.networks.classifiers import ADAPTERS, HEAD
from impasto.networks.layers import Conv

NAME = "default"


def adapt(network: Backbone, rank: int, alpha: int) -> dict[str, nn.Module]:
    """Add an adapter that learns to each convolution of `network`, in place; everything but the head is frozen.

    Returns the adapted layers by the names that they had. Raises ImpastoError without peft.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError:
        raise ImpastoError("LoRA needs peft: pip install 'impasto[transfer]'") from None
    names = {
        name: name
        for name, module in network.named_modules()
        if isinstance(module, nn.Conv2d) and module.groups == 1 and not name.startswith(HEAD)
    }
    for name in list(names):
        layer = network.get_submodule(name)
        if isinstance(layer, Conv) and layer.edge[0]:
            _replace(network, name, _padded(layer))
            names[name] = f"{name}.1"
    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=list(names.values()))
    inject_adapter_in_model(config, network)
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(name.startswith(HEAD) or "lora_" in name)
    return {name: network.get_submodule(inner) for name, inner in names.items()}


def adapters(layers: dict[str, nn.Module]) -> dict[str, Tensor]:
    """Return the adapters' weights as in a classifier's file: ``adapters.NAME.down`` and ``.up``."""
    found: dict[str, Tensor] = {}
    for name, layer in layers.items():
        for part, key in (("lora_A", "down"), ("lora_B", "up")):
            found[f"{ADAPTERS}{name}.{key}"] = layer.get_submodule(f"{part}.{NAME}").weight  # type: ignore[assignment]
    return found


def _padded(layer: Conv) -> nn.Sequential:
    """Return `layer` as padding and a plain convolution, which peft can adapt; the weights are shared."""
    edge = nn.ReflectionPad2d(layer.edge) if layer.edge_mode == "reflect" else nn.ReplicationPad2d(layer.edge)
    inputs, outputs, bias = layer.in_channels, layer.out_channels, layer.bias is not None
    with torch.device("meta"):
        plain = nn.Conv2d(inputs, outputs, layer.kernel_size[0], layer.stride[0], bias=bias)
    plain.weight, plain.bias = layer.weight, layer.bias
    return nn.Sequential(edge, plain)


def _replace(network: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, last = name.rpartition(".")
    setattr(network.get_submodule(parent), last, module)
