"""A hypernetwork: maps a style's moments to the kernels of a transformation network (Shen et al. 2018)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from impasto.errors import OptionError
from impasto.feedforward.transformation_network import Form, PictureNetwork, TransformLayer
from impasto.networks.layers import Conv, DoublingConv
from impasto.ops.moments import Moments

PAPER_MOMENTS = 2 * (64 + 128 + 256 + 512)
"""Number of means and deviations of VGG-16's relu1_2, relu2_2, relu3_3 and relu4_3."""
PHASES = torch.tensor([[0.0, 0, 1], [0, 1, 1], [1, 1, 0], [1, 0, 0]])
"""The four weights of a transposed convolution at stride 2 that equal repetition and a kernel of three."""
SMOOTH = (0.25, 0.75, 0.75, 0.25)
"""The weights of a transposed convolution, 4 at stride 2, that interpolates linearly."""
GAIN = 0.1
"""How much kernels differ between styles before training, relative to their common part."""
DAMPING = 1e-3
"""Share of the strongest component's variance that is added to each, so that weak components are not amplified."""


UPS = 11, 13
"""For a layer that goes up: how many layers back its shortcut starts, at the map of the same size on the way down."""


class GeneratedNetwork(PictureNetwork):
    """The transformation network of Meta Networks: 9x9, two down, ten 3x3, two transposed 4x4 up, 9x9.

    width: b; 1 746 144 parameters with the paper's 32, 112 056 with its fast network's 8. All convolutions but the
    first and the last are normalised and generated. residual: the ten are five residual blocks; output: ``linear``
    pictures in [0, 1] or ``sigmoid``; affine: the norms have scales and shifts in addition. doubling: the layers that
    go up repeat pixels and convolve 3x3; shortcuts: these layers add the map of the same size from the way down, times
    gains.

    Departs from the paper: every convolution mirrors the edge of its input, instead of one mirror of 40 px around the
    photo and unpadded convolutions, so that tiles give the same result as the whole picture.
    """

    def __init__(
        self,
        width: int = 32,
        *,
        residual: bool = True,
        output: Literal["linear", "sigmoid"] = "linear",
        affine: bool = False,
        doubling: bool = False,
        shortcuts: bool = False,
    ) -> None:
        shape = {"form": "generated", "width": width, "residual": residual, "output": output, "affine": affine}
        if doubling or shortcuts:
            shape |= {"doubling": doubling, "shortcuts": shortcuts}
        super().__init__(_layers(width, residual, doubling, shortcuts), shape, own_norms=affine)

    @property
    def generated(self) -> list[str]:
        """Names of the kernels that are made for each style."""
        return [f"layers.{number}.conv.weight" for number, layer in enumerate(self.row) if layer.form.norm]


def build_network(shape: Mapping[str, Any]) -> GeneratedNetwork:
    """Return the network of this `shape`, as `GeneratedNetwork.shape` describes it."""
    return GeneratedNetwork(**{key: value for key, value in shape.items() if key != "form"})


def _layers(width: int, residual: bool, doubling: bool, shortcuts: bool) -> list[TransformLayer]:
    layers = [
        TransformLayer(3, width, 9, Form(norm=False), bias=True),
        TransformLayer(width, 2 * width, 3, Form(stride=2), bias=False),
        TransformLayer(2 * width, 4 * width, 3, Form(stride=2), bias=False),
    ]
    for number in range(10):
        second = residual and number % 2 == 1
        form = Form(opens=residual and not second, closes=second, relu=not second)
        layers.append(TransformLayer(4 * width, 4 * width, 3, form, bias=False))
    for inputs, back in zip((4 * width, 2 * width), UPS, strict=True):
        form = Form(up=True, transposed=not doubling, shortcut=back if shortcuts else 0)
        layers.append(TransformLayer(inputs, inputs // 2, 3 if doubling else 4, form, bias=False))
    return [*layers, TransformLayer(width, 3, 9, Form(norm=False, relu=False), bias=False)]


class HyperNetwork(nn.Module):
    """Maps a style's moments to a hidden vector, and each group of it to the kernel of one convolution.

    moments: length of the input; hidden: length of each of the 14 groups. There are 226 684 672 parameters with the
    paper's sizes and width 32, 17 395 072 with its fast network's 8, without the first and the last convolution, which
    all styles share. affine: one more group makes the scales and shifts of the norms, and the gains of shortcuts;
    doubling, shortcuts: see `GeneratedNetwork`. start: initialise the kernels; not needed if a file fills
    them.

    Departs from the paper: the moments are on a logarithmic scale and in units of their spread over paintings.
    """

    unit: Tensor
    middle: Tensor
    spread: Tensor

    def __init__(
        self,
        moments: int = PAPER_MOMENTS,
        hidden: int = 128,
        width: int = 32,
        *,
        residual: bool = True,
        output: Literal["linear", "sigmoid"] = "linear",
        affine: bool = False,
        doubling: bool = False,
        shortcuts: bool = False,
        start: bool = True,
    ) -> None:
        super().__init__()
        if shortcuts and not affine:
            raise OptionError("the gains of shortcuts are made with the scales and shifts of norms: add affine")
        with torch.device("meta"):
            template = GeneratedNetwork(
                width, residual=residual, output=output, affine=affine, doubling=doubling, shortcuts=shortcuts
            )
        self._template = (template,)  # in a tuple, so that its parameters are not registered
        self.moments, self.hidden = moments, hidden
        self.sizes = {name: template.get_parameter(name).shape for name in template.generated}
        groups = len(self.sizes) + affine
        self.read = nn.Linear(moments, groups * hidden)
        self.write = nn.ModuleList([nn.Linear(hidden, size.numel()) for size in self.sizes.values()])
        gains = [gain.numel() for gain in template.gains]
        self.write_norms = nn.ModuleList([nn.Linear(hidden, 2 * sum(template.normed) + sum(gains))] if affine else [])
        self.first, self.last = Conv(3, width, 9), Conv(width, 3, 9)
        self.last.register_parameter("bias", None)
        for name, value in (("unit", 1.0), ("middle", 0.0), ("spread", 1.0)):
            self.register_buffer(name, torch.full((moments,), value))
        if start:
            self.start_kernels()

    @property
    def template(self) -> GeneratedNetwork:
        """The network that is made, without parameters."""
        return self._template[0]

    @property
    def shape(self) -> dict[str, Any]:
        """The constructor's arguments."""
        made = {key: value for key, value in self.template.shape.items() if key != "form"}
        return {"moments": self.moments, "hidden": self.hidden, **made}

    @torch.no_grad()
    def start_kernels(self) -> None:
        """Initialise kernels with a convolution's variance, of which `GAIN` depends on the style."""
        smooth = torch.tensor(SMOOTH)
        for (name, size), layer in zip(self.sizes.items(), self.write, strict=True):
            assert isinstance(layer, nn.Linear)
            own = self.template.get_submodule(name.removesuffix(".weight"))
            if isinstance(own, DoublingConv):  # begins as smooth enlarging, otherwise it would draw a grid
                common = math.sqrt(2 / size[0]) * torch.randn(*size[:2], 1, 1) * torch.outer(smooth, smooth)
                deviation = math.sqrt(2 / (4 * size[0]))
            else:
                deviation = math.sqrt(2 / size[1:].numel())
                common = deviation * torch.randn(size)
            layer.bias.copy_(common.flatten())
            nn.init.normal_(layer.weight, std=GAIN * deviation)
        for layer in self.write_norms:
            assert isinstance(layer, nn.Linear)
            nn.init.normal_(layer.weight, std=0.2 * GAIN)
            nn.init.zeros_(layer.bias)
            start = [0.3 if each.form.closes else 1.0 for each in self.template.row if each.form.norm]
            scales = [torch.full((count,), one) for count, one in zip(self.template.normed, start, strict=True)]
            layer.bias[: sum(self.template.normed)] = torch.cat(scales)

    @torch.no_grad()
    def start_reading(self, paintings: Tensor) -> None:
        """Measure units and spread on the moments of many paintings, (N, moments).

        Hidden vectors begin as their principal components, of length 1 on average, with the weaker ones amplified.
        """
        self.unit.copy_(paintings.mean(0).clamp_min(1e-2))
        seen = (paintings / self.unit).log1p()
        self.middle.copy_(seen.mean(0))
        self.spread.copy_(seen.std(0, correction=0).clamp_min(0.05))
        _, strengths, axes = torch.linalg.svd(self.standardise(paintings), full_matrices=False)
        count = min(self.hidden, len(strengths))
        variances = strengths[:count].square() / len(paintings)
        rows = axes[:count] / (variances + DAMPING * variances[0]).pow(0.25)[:, None]
        self.read.bias.zero_()
        each = self.read.weight.view(-1, self.hidden, self.moments)
        each.zero_()
        each[:, :count] = rows / variances.sqrt().sum().sqrt()

    def standardise(self, vectors: Tensor) -> Tensor:
        """Return (B, moments) standardised, with a length of about 1."""
        return ((vectors / self.unit).log1p() - self.middle) / (self.spread * math.sqrt(self.moments))

    def encode(self, vectors: Tensor) -> Tensor:
        """Map a style's moments, (B, moments), to hidden vectors, (B, groups x hidden)."""
        hidden: Tensor = self.read(self.standardise(vectors))
        return hidden

    def generate(self, hidden: Tensor) -> list[dict[str, Tensor]]:
        """Map hidden vectors, (B, groups x hidden), to all parameters of each style's network, by name."""
        groups = hidden.reshape(len(hidden), -1, self.hidden).unbind(1)
        sized = zip(self.sizes.items(), self.write, groups[: len(self.sizes)], strict=True)
        made = {name: layer(group).reshape(-1, *size) for (name, size), layer, group in sized}
        for layer in self.write_norms:
            counts = self.template.normed
            sizes = {f"scales.{number}": count for number, count in enumerate(counts)}
            sizes |= {f"shifts.{number}": count for number, count in enumerate(counts)}
            sizes |= {f"gains.{number}": gain.numel() for number, gain in enumerate(self.template.gains)}
            made |= dict(zip(sizes, layer(groups[-1]).split(list(sizes.values()), 1), strict=True))
        end = len(self.template.row) - 1
        shared = {f"layers.0.conv.{name}": value for name, value in self.first.named_parameters()}
        shared |= {f"layers.{end}.conv.{name}": value for name, value in self.last.named_parameters()}
        return [{**shared, **{name: value[number] for name, value in made.items()}} for number in range(len(hidden))]

    def forward(self, images: Tensor, vectors: Tensor) -> Tensor:
        """Paint (B, 3, H, W) in [0, 1], each in the style of its moments, (B, moments); not clamped."""
        with torch.autocast(images.device.type, enabled=False):
            networks = self.generate(self.encode(vectors.to(self.unit.dtype)))
        painted = [
            functional_call(self.template, network, (image[None],))
            for network, image in zip(networks, images, strict=True)
        ]
        return torch.cat(painted)


@torch.no_grad()
def start_doubling(network: HyperNetwork, before: HyperNetwork) -> None:
    """Initialise `network`, which doubles and has shortcuts, from `before`, which goes up by transposed convolutions.

    Everything else is copied. Kernels 4x4 at stride 2 are replaced by the nearest 3x3 ones after repetition (least
    squares); what is lost is a grid, the difference between odd and even pixels of a flat map. Gains begin at 0.
    """
    fit = torch.linalg.pinv(PHASES)
    values = dict(before.state_dict())
    sized = zip(before.sizes.items(), before.write, strict=True)
    for number, ((name, size), layer) in enumerate(sized):
        if isinstance(before.template.get_submodule(name.removesuffix(".weight")), DoublingConv):
            for kind, tensor in layer.state_dict().items():
                kernels = tensor.view(*size, -1).permute(1, 0, 4, 2, 3)  # out, in, hidden, 4, 4
                kernels = (fit @ kernels @ fit.T).permute(0, 1, 3, 4, 2)
                values[f"write.{number}.{kind}"] = kernels.reshape(-1, *tensor.shape[1:])
    for kind, tensor in before.write_norms[0].state_dict().items():
        added = len(getattr(network.write_norms[0], kind)) - len(tensor)
        values[f"write_norms.0.{kind}"] = torch.cat([tensor, tensor.new_zeros(added, *tensor.shape[1:])])
    network.load_state_dict(values)


@torch.no_grad()
def condense(network: HyperNetwork, hidden: int, paintings: Tensor) -> HyperNetwork:
    """Return a hypernetwork of the same form with fewer hidden numbers that makes nearly the same networks.

    paintings: moments of many paintings, (N, moments). Of each group's hidden vectors, the components are kept that
    change the generated kernels most over these paintings.
    """
    small = HyperNetwork(**{**network.shape, "hidden": hidden})
    values = dict(network.state_dict())
    vectors = network.encode(paintings).view(len(paintings), -1, network.hidden)
    rows = values["read.weight"].view(-1, network.hidden, network.moments), values["read.bias"].view(-1, network.hidden)
    writers = [(f"write.{number}", layer) for number, layer in enumerate(network.write)]
    writers += [("write_norms.0", layer) for layer in network.write_norms]
    kept: list[tuple[Tensor, Tensor]] = []
    for group, (name, layer) in enumerate(writers):
        weight, middle = layer.state_dict()["weight"], vectors[:, group].mean(0)
        strengths, axes = torch.linalg.eigh(weight.T @ weight)
        strengths = strengths.clamp_min(1e-6 * float(strengths.max())).sqrt()
        root, inverse = axes * strengths @ axes.T, axes / strengths @ axes.T
        _, _, main = torch.linalg.svd((vectors[:, group] - middle) @ root, full_matrices=False)
        inwards, outwards = main[:hidden] @ root, inverse @ main[:hidden].T
        kept.append((inwards @ rows[0][group], inwards @ (rows[1][group] - middle)))
        values[f"{name}.weight"] = weight @ outwards
        values[f"{name}.bias"] = values[f"{name}.bias"] + weight @ middle
    values["read.weight"], values["read.bias"] = (torch.cat(parts) for parts in zip(*kept, strict=True))
    small.load_state_dict(values)
    return small


@torch.no_grad()
def widen(before: HyperNetwork, hidden: int, paintings: Tensor) -> HyperNetwork:
    """Return a hypernetwork of the same form with more hidden numbers that makes exactly the same networks.

    paintings: moments of many paintings, (N, moments); the added numbers begin as their principal components, and the
    weights that read them begin at 0.
    """
    wide = HyperNetwork(**{**before.shape, "hidden": hidden})
    wide.start_reading(paintings)
    values, known = dict(wide.state_dict()), before.state_dict()
    kept = before.hidden
    for kind in ("weight", "bias"):
        rows = values[f"read.{kind}"].view(-1, hidden, *known[f"read.{kind}"].shape[1:])
        rows[:, :kept] = known[f"read.{kind}"].view(len(rows), kept, *rows.shape[2:])
    values |= {name: known[name] for name in ("unit", "middle", "spread")}
    values |= {name: tensor for name, tensor in known.items() if name.startswith(("first.", "last."))}
    for name, tensor in known.items():
        if name.startswith("write"):
            values[name] = tensor if tensor.dim() == 1 else F.pad(tensor, (0, hidden - kept))
    wide.load_state_dict(values)
    return wide


def vector_of(found: Sequence[Moments]) -> Tensor:
    """Join the moments of several layers to vectors, (B, moments): each layer's means, then its deviations."""
    return torch.cat([part for own in found for part in (own.mean, own.deviation())], 1)
