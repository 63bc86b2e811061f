"""The structure of a network and its view of a picture: layers, feature maps, Gram matrices, correlated channels."""

from __future__ import annotations

import copy
import warnings
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from impasto.errors import ImpastoError, OptionError
from impasto.images.contact_sheet import contact_sheet, heat_map
from impasto.networks.backbone import Backbone
from impasto.ops.moments import moments

WHOLE = -1
"""The receptive field of a layer that sees the whole picture, at any size."""


@dataclass(frozen=True)
class Layer:
    """A row of the layer table: the output's shape, (C, H, W) or (C,), and its cost.

    field: side of the square of pixels that one value sees, or WHOLE; stride: pixels between two neighbours, 0 if there
    are none.
    """

    name: str
    shape: tuple[int, ...]
    parameters: int
    multiply_adds: int
    field: int
    stride: int

    def to_json(self) -> dict[str, Any]:
        """Return the row by names."""
        return {
            "name": self.name,
            "shape": list(self.shape),
            "parameters": self.parameters,
            "multiply_adds": self.multiply_adds,
            "receptive_field": "whole" if self.field == WHOLE else self.field,
            "stride": self.stride or None,
        }


def layer_table(network: Backbone, size: int = 224) -> list[Layer]:
    """Return all layers of `network` for a picture of size x size, by torchinfo, without computing anything.

    Raises ImpastoError without torchinfo.
    """
    try:
        from torchinfo import summary
    except ImportError:
        raise ImpastoError("the layer table needs torchinfo: pip install 'impasto[inspect]'") from None
    twin = copy.deepcopy(network).to("meta")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        image = torch.zeros(1, 3, size, size, device="meta")
        found = summary(twin, input_data=[image], depth=99, verbose=0, device="meta", layers=[network.layers[-1]])
    costs = {info.layer_id: info.macs for info in found.summary_list if info.is_leaf_layer}
    shapes = {id(call.module): call.after for call in _calls(twin, size)}
    fields = _fields(twin)
    table = []
    for name, step in twin.steps.items():
        shape = shapes[id(step)]
        count = sum(parameter.numel() for parameter in step.parameters())
        cost = sum(costs.get(id(module), 0) for module in step.modules())
        table.append(Layer(name, shape, count, cost, *fields[name]))
    return table


@dataclass(frozen=True)
class _Call:
    """One call of a module: the shapes before and after it, without the batch."""

    module: nn.Module
    before: tuple[int, ...]
    after: tuple[int, ...]


def _calls(network: Backbone, size: int) -> list[_Call]:
    """Return all modules of a network on the device meta, in the order in which they end, for size x size pixels."""
    calls: list[_Call] = []

    def note(module: nn.Module, given: tuple[Any, ...], out: Any) -> None:
        if isinstance(out, Tensor) and given and isinstance(given[0], Tensor):
            calls.append(_Call(module, tuple(given[0].shape[1:]), tuple(out.shape[1:])))

    hooks = [module.register_forward_hook(note) for module in network.modules()]
    try:
        network(torch.zeros(1, 3, size, size, device="meta"), [network.layers[-1]])
    finally:
        for hook in hooks:
            hook.remove()
    return calls


def _fields(network: Backbone, size: int = 1 << 13) -> dict[str, tuple[int, int]]:
    """Return each step's receptive field and stride, from the kernels: 1 + the sum of (kernel - 1) x stride so far.

    Of a step's branches the one with the larger kernels is used; the others, all 1x1 here, don't add to it. The picture
    is so large that rounding at its edges does not affect the strides.
    """
    calls, field, found = _calls(network, size), 1, {}
    for name, step in network.steps.items():
        own = {id(module) for module in step.modules()}
        inside = [call for call in calls if id(call.module) in own]
        for call in inside:
            kind = type(call.module)
            if kind is nn.AdaptiveAvgPool2d:
                field = WHOLE
            kernel, dilation = getattr(call.module, "kernel_size", 1), getattr(call.module, "dilation", 1)
            kernel, dilation = (value if isinstance(value, int) else value[0] for value in (kernel, dilation))
            if field != WHOLE and kernel > 1:
                field += (kernel - 1) * dilation * round(size / call.before[-1])
        shape = inside[-1].after
        found[name] = (field, round(size / shape[1]) if len(shape) == 3 else 0)
    return found


@dataclass(frozen=True)
class View:
    """A layer's output for a picture. features: (C, H, W); gram, correlation: (C, C), gram divided by positions."""

    layer: str
    features: Tensor
    gram: Tensor
    correlation: Tensor

    @property
    def strongest(self) -> list[int]:
        """Channels by their mean square, the strongest first."""
        return self.gram.diagonal().argsort(descending=True).tolist()

    def correlated(self, count: int = 10) -> list[tuple[int, int, float]]:
        """Return the most correlated pairs of channels, with their correlation; constant channels are left out."""
        above = self.correlation.triu(1)
        best = above.abs().flatten().topk(min(count, above.numel())).indices.tolist()
        width = len(above)
        pairs = [(i // width, i % width, float(above[i // width, i % width])) for i in best]
        return [pair for pair in pairs if pair[2]]

    def maps(self, count: int = 48, columns: int = 8, cell: int = 128) -> Tensor:
        """Return the strongest channels with their numbers, (1, 3, H, W), each scaled to its own range."""
        chosen = self.strongest[:count]
        columns = min(columns, len(chosen))
        rows = []
        for start in range(0, len(chosen), columns):
            own = chosen[start : start + columns]
            pictures = [heat_map(self.features[channel]) for channel in own]
            missing = [None] * (columns - len(own))
            rows.append(contact_sheet([[*pictures, *missing]], column_labels=[str(i) for i in own], cell=cell))
        return torch.cat(rows, dim=2)

    def matrices(self, cell: int = 512) -> Tensor:
        """Return the Gram matrix, by its roots, and the correlations, side by side, (1, 3, H, W)."""
        roots = self.gram.sign() * self.gram.abs().sqrt()
        pictures = [heat_map(roots), heat_map(self.correlation, least=-1, most=1)]
        labels = [f"{self.layer}: Gram / positions, root", f"{self.layer}: correlation, -1 to 1"]
        return contact_sheet([pictures], column_labels=labels, cell=cell)


@torch.no_grad()
def view(network: Backbone, image: Tensor, layer: str) -> View:
    """Return the output of `layer` for `image`, (1, 3, H, W) in [0, 1]. Raises OptionError without feature maps."""
    features = network(image, {layer})[layer]
    if features.dim() != 4:
        raise OptionError(f"{layer} has no feature maps: name a layer before it")
    found = moments(features)
    deviation = found.deviation(eps=0.0)[0]
    alive = deviation > 1e-6 * deviation.max().clamp_min(1e-12)
    scale = torch.where(alive, 1 / deviation.clamp_min(1e-12), 0.0)
    correlation = (found.covariance[0] * scale[:, None] * scale[None]).clamp(-1, 1)
    return View(layer, features[0].cpu(), found.second[0].cpu(), correlation.cpu())
