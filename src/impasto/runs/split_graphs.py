"""Methods that generate a network, as two ONNX graphs: painting to style numbers, photo and numbers to picture.

The style numbers are the hidden vector of the hypernetwork: some hundred floats, in which styles mix linearly. The page
in the browser uses smaller graphs: one writes the kernels of a style, one paints with them. All graphs work for every
size from 16 px a side.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from impasto.errors import ImpastoError
from impasto.feedforward.hypernetwork import GeneratedNetwork, HyperNetwork
from impasto.feedforward.runtimes import FORMAT, OPSET, GraphWriter
from impasto.feedforward.transformation_network import TransformLayer, shortcut_starts, side_after
from impasto.networks.layers import Conv
from impasto.stylizers.generated_network import LAYERS, GeneratedNetworks

EPS = 1e-5
"""The epsilon of `Moments.deviation`."""
FEW = 64
PHOTO, PAINTING, NUMBERS, PICTURE = "photo", "painting", "numbers", "picture"
EARLIER, SHARE, MEASURED = "earlier", "share", "measured"

Shapes = Mapping[str, tuple[str | int, ...]]


def style_graph(model: GeneratedNetworks) -> bytes:
    """Return the graph from ``painting``, (1, 3, h, w) in [0, 1], to ``numbers``, (1, N)."""
    writer = Writer()
    backbone = model.backbone
    x = writer.node("Sub", PAINTING, writer.constant(backbone.mean.float()))
    x = writer.node("Div", x, writer.constant(backbone.std.float()))
    found: dict[str, str] = {}
    for name, step in backbone.steps.items():
        x = writer.layer(step, x)
        if name in LAYERS:
            found[name] = x
        if len(found) == len(LAYERS):
            break
    vector = writer.node("Concat", *(part for name in LAYERS for part in writer.statistics(found[name])), axis=1)
    network = model.network
    x = writer.node("Log", writer.node("Add", writer.node("Div", vector, writer.constant(network.unit)), writer.one()))
    spread = network.spread * network.moments**0.5
    x = writer.node("Div", writer.node("Sub", x, writer.constant(network.middle)), writer.constant(spread))
    writer.name(NUMBERS, writer.linear(network.read, x))
    return writer.finish({PAINTING: (1, 3, "h", "w")}, {NUMBERS: (1, network.read.out_features)})


def kernels_graph(model: GeneratedNetworks) -> bytes:
    """Return the graph from ``numbers``, (1, N), to all weights of the generated network, by name."""
    writer = Writer()
    made = write_kernels(writer, model.network)
    sizes = kernel_sizes(model.network)
    for name, value in made.items():
        writer.name(name, value)
    return writer.finish({NUMBERS: (1, model.network.read.out_features)}, sizes)


def network_graph(model: GeneratedNetworks) -> bytes:
    """Return the graph that paints with given weights: ``photo``, (1, 3, H, W), and the outputs of `kernels_graph`.

    Every norm uses ``share`` of the moments in ``earlier`` and the rest of its own: share 0 is the plain picture. The
    output ``measured`` holds the used moments, for the next frame of a video. Both are (2, C): means and mean squares
    of all normed channels, one layer after the other.
    """
    writer, template = Writer(), model.network.template
    sizes = kernel_sizes(model.network)
    count = sum(template.normed)
    smoothing = Smoothing(writer, template.normed)
    writer.name(PICTURE, write_network(writer, template, {name: name for name in sizes}, smoothing))
    writer.name(MEASURED, writer.node("Concat", *smoothing.used, axis=1))
    inputs: Shapes = {PHOTO: (1, 3, "H", "W"), **sizes, EARLIER: (2, count), SHARE: (1,)}
    return writer.finish(inputs, {PICTURE: (1, 3, "H", "W"), MEASURED: (2, count)})


def painting_graph(model: GeneratedNetworks) -> bytes:
    """Return the graph from ``photo``, (1, 3, H, W) in [0, 1], and ``numbers``, (1, N), to ``picture``."""
    writer = Writer()
    made = write_kernels(writer, model.network)
    writer.name(PICTURE, write_network(writer, model.network.template, made))
    inputs: Shapes = {PHOTO: (1, 3, "H", "W"), NUMBERS: (1, model.network.read.out_features)}
    return writer.finish(inputs, {PICTURE: (1, 3, "H", "W")})


def convolution_graph(stride: int) -> bytes:
    """Return one convolution without padding, with weights and bias as inputs: ``x``, ``w``, ``b`` to ``y``."""
    writer = Writer()
    writer.name("y", writer.node("Conv", "x", "w", "b", strides=[stride, stride]))
    inputs: Shapes = {"x": (1, "inputs", "H", "W"), "w": ("outputs", "inputs", "k", "k"), "b": ("outputs",)}
    return writer.finish(inputs, {"y": (1, "outputs", "h", "w")})


def describe_network(model: GeneratedNetworks) -> dict[str, Any]:
    """Return what a program needs to run the network layer by layer: the layers' forms, the names of weights."""
    template, norms, joined = model.network.template, 0, 0
    layers: list[dict[str, Any]] = []
    for number, layer in enumerate(template.row):
        conv, form = layer.conv, layer.form
        known: dict[str, Any] = {"weight": f"layers.{number}.conv.weight", "kernel": conv.kernel_size[0]}
        known |= {"inputs": conv.in_channels, "outputs": conv.out_channels, "stride": form.stride, "up": form.up}
        known |= {"relu": form.relu, "opens": form.opens, "closes": form.closes, "shortcut": form.shortcut}
        if conv.bias is not None:
            known["bias"] = f"layers.{number}.conv.bias"
        if form.norm:
            known |= {"scale": f"scales.{norms}", "shift": f"shifts.{norms}"}
            norms += 1
        if form.shortcut:
            known["gain"] = f"gains.{joined}"
            joined += 1
        layers.append(known)
    return {
        "method": model.name,
        "weights": model.digests,
        "output": template.shape["output"],
        "numbers": model.network.read.out_features,
        "normed": sum(template.normed),
        "layers": layers,
    }


def check_needs(model: object) -> GeneratedNetworks:
    """Return `model` if it can be split and onnx is installed; raise ImpastoError if not."""
    if not isinstance(model, GeneratedNetworks):
        name = getattr(model, "name", "this method")
        raise ImpastoError(f"{name} has no style numbers to split at: export swift or metanet, or name a file .onnx")
    if find_spec("onnx") is None:
        raise ImpastoError("export needs onnx: pip install 'impasto[onnx]'")
    if not all(isinstance(layer.conv, Conv) for layer in model.network.template.row):
        raise ImpastoError(f"{model.name} has transposed convolutions, which can't be split: export swift")
    if not model.network.write_norms:
        raise ImpastoError(f"{model.name} has no norms, so it can't be split: export swift")
    return model


def kernel_sizes(network: HyperNetwork) -> dict[str, tuple[str | int, ...]]:
    """Return the names and sizes of all weights of the generated network, in the order of its layers."""
    return {name: tuple(value.shape) for name, value in network.template.named_parameters()}


class Writer(GraphWriter):
    """Writes a graph, with operations that several graphs here share."""

    def name(self, name: str, value: str) -> None:
        """Give `value` a second name."""
        from onnx import helper

        self.nodes.append(helper.make_node("Identity", [value], [name]))

    def one(self) -> str:
        """Return the constant 1."""
        return self.constant(torch.ones(1))

    def axes(self, *axes: int) -> str:
        """Return a constant list of axes or of sizes."""
        return self.constant(torch.tensor(axes))

    def constant(self, value: Tensor) -> str:
        """Return a constant, stored in fp16 if it is large and exact in fp16, as weights files store it."""
        value = value.detach()
        small = value.half() if value.numel() > FEW and value.is_floating_point() else value
        if small is value or not torch.equal(small.to(value.dtype), value):
            return super().constant(value.float() if value.is_floating_point() else value)
        return self.node("Cast", super().constant(small), to=1)

    def linear(self, layer: torch.nn.Linear, x: str) -> str:
        """Append a linear layer."""
        return self.node("Gemm", x, self.constant(layer.weight), self.constant(layer.bias), transB=1)

    def mean(self, x: str) -> str:
        """Return the mean over height and width, (1, C): rows first, for more parallel work on a GPU."""
        rows = self.node("ReduceMean", x, self.axes(3), keepdims=0)
        return self.node("ReduceMean", rows, self.axes(2), keepdims=0)

    def statistics(self, x: str) -> tuple[str, str]:
        """Return means and deviations, (1, C) each."""
        mean, variance = self.mean(x), self.variance(x)
        return mean, self.node("Sqrt", self.node("Add", variance, self.constant(torch.tensor([EPS]))))

    def variance(self, x: str) -> str:
        """Return the biased variance over height and width, (1, C), from centred values."""
        centred = self.node("Sub", x, self.spread(self.mean(x)))
        return self.mean(self.node("Mul", centred, centred))

    def spread(self, vector: str) -> str:
        """Reshape (1, C) to (1, C, 1, 1)."""
        return self.node("Unsqueeze", vector, self.axes(2, 3))

    def convolution(self, x: str, weight: str, bias: str | None, form: tuple[int, int]) -> str:
        """Append a convolution with mirrored edges whose weights are values of the graph; form: kernel and stride."""
        kernel, stride = form
        if edge := kernel // 2:
            x = self.node("Pad", x, self.axes(0, 0, edge, edge, 0, 0, edge, edge), mode="reflect")
        strides, shape = [stride, stride], [kernel, kernel]
        return self.node("Conv", x, weight, *([bias] if bias else []), strides=strides, kernel_shape=shape)

    def double(self, x: str) -> str:
        """Repeat every pixel."""
        how = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
        return self.node("Resize", x, "", self.constant(torch.tensor([1.0, 1.0, 2.0, 2.0])), **how)

    def finish(self, inputs: Shapes, outputs: Shapes) -> bytes:
        """Return the model file."""
        from onnx import TensorProto, helper

        given, made = (
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape)) for name, shape in values.items()]
            for values in (inputs, outputs)
        )
        graph = helper.make_graph(self.nodes, "impasto", given, made, self.constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=FORMAT)
        return bytes(model.SerializeToString())


def write_kernels(writer: Writer, network: HyperNetwork) -> dict[str, str]:
    """Append the work of `HyperNetwork.generate` on ``numbers``; returns the values' names by the weights' names."""
    groups = len(network.sizes) + len(network.write_norms)
    hidden = [
        writer.node(
            "Slice", NUMBERS, *(writer.axes(end * network.hidden) for end in (group, group + 1)), writer.axes(1)
        )
        for group in range(groups)
    ]
    made: dict[str, str] = {}
    for (name, size), layer, group in zip(network.sizes.items(), network.write, hidden, strict=False):
        assert isinstance(layer, torch.nn.Linear)
        made[name] = writer.node("Reshape", writer.linear(layer, group), writer.axes(*size))
    norms = network.write_norms[0]
    assert isinstance(norms, torch.nn.Linear)
    rest = writer.node("Reshape", writer.linear(norms, hidden[-1]), writer.axes(-1))
    start, template = 0, network.template
    for kind, counts in (
        ("scales", template.normed),
        ("shifts", template.normed),
        ("gains", [gain.numel() for gain in template.gains]),
    ):
        for number, count in enumerate(counts):
            made[f"{kind}.{number}"] = writer.node("Slice", rest, writer.axes(start), writer.axes(start + count))
            start += count
    for number, conv in ((0, network.first), (len(template.row) - 1, network.last)):
        for name, value in conv.named_parameters():
            made[f"layers.{number}.conv.{name}"] = writer.constant(value)
    return {name: made[name] for name in kernel_sizes(network)}


class Smoothing:
    """The moments of a frame, mixed with those of earlier frames.

    used: the moments that each norm used, (2, C) each.
    """

    def __init__(self, writer: Writer, counts: list[int]) -> None:
        self.writer, self.used = writer, list[str]()
        ends = [sum(counts[:number]) for number in range(len(counts) + 1)]
        pairs = itertools.pairwise(ends)
        axis = writer.axes(1)
        self.before = [
            writer.node("Slice", EARLIER, writer.axes(start), writer.axes(end), axis) for start, end in pairs
        ]

    def statistics(self, x: str) -> tuple[str, str]:
        """Return the means and deviations for `x`, (1, C) each."""
        writer = self.writer
        mean = writer.mean(x)
        square = writer.node("Add", writer.variance(x), writer.node("Mul", mean, mean))
        own = writer.node("Concat", mean, square, axis=0)
        change = writer.node("Sub", self.before[len(self.used)], own)
        used = writer.node("Add", own, writer.node("Mul", change, SHARE))
        self.used.append(used)
        mean, square = (
            writer.node("Slice", used, writer.axes(row), writer.axes(row + 1), writer.axes(0)) for row in (0, 1)
        )
        variance = writer.node("Relu", writer.node("Sub", square, writer.node("Mul", mean, mean)))
        return mean, writer.node("Sqrt", writer.node("Add", variance, writer.constant(torch.tensor([EPS]))))


class Sizes:
    """The sizes of maps in a photo of unknown size: height and width at each stride, rounded down."""

    def __init__(self, writer: Writer) -> None:
        self.writer = writer
        sides = writer.node("Slice", writer.node("Shape", PHOTO), writer.axes(2), writer.axes(4))
        self.known = {1: sides}

    def at(self, side: int) -> str:
        """Return (2,), height and width of maps with stride `side`."""
        if side not in self.known:
            self.known[side] = self.writer.node("Div", self.known[1], self.writer.axes(side, side))
        return self.known[side]

    def cut(self, x: str, side: int) -> str:
        """Cut `x` to the size of maps with stride `side`."""
        writer = self.writer
        return writer.node("Slice", x, writer.axes(0, 0), self.at(side), writer.axes(2, 3))

    def extend(self, x: str, side: int) -> str:
        """Repeat the last row and column of `x` if maps with stride `side` have one more."""
        writer = self.writer
        there = writer.node("Slice", writer.node("Shape", x), writer.axes(2), writer.axes(4))
        missing = writer.node("Sub", self.at(side), there)
        return writer.node("Pad", x, writer.node("Concat", writer.axes(*[0] * 6), missing, axis=0), mode="edge")


def write_network(
    writer: Writer, template: GeneratedNetwork, weights: Mapping[str, str], smoothing: Smoothing | None = None
) -> str:
    """Append the network, as in `LayerRow.run`, from ``photo`` to a picture in [0, 1]; returns its name."""
    x = writer.node("Sub", PHOTO, writer.constant(torch.tensor([0.5])))
    sizes, kept, starts, side, norms, joined = Sizes(writer), x, shortcut_starts(template.row), 1, 0, 0
    inputs: dict[int, str] = {}
    for number, layer in enumerate(template.row):
        form = layer.form
        kept = x if form.opens else kept
        inputs |= {number: x} if number in starts else {}
        x = _write_layer(writer, layer, x, number, weights)
        side = side_after(side, form)
        x = sizes.cut(x, side) if form.stride > 1 else sizes.extend(x, side) if form.up else x
        if form.norm:
            mean, deviation = smoothing.statistics(x) if smoothing else writer.statistics(x)
            scale = writer.node("Div", weights[f"scales.{norms}"], deviation)
            shift = writer.node("Sub", weights[f"shifts.{norms}"], writer.node("Mul", mean, scale))
            x = writer.node("Add", writer.node("Mul", x, writer.spread(scale)), writer.spread(shift))
            norms += 1
        x = writer.node("Relu", x) if form.relu else x
        x = writer.node("Add", x, kept) if form.closes else x
        if form.shortcut:
            gain = writer.node("Reshape", weights[f"gains.{joined}"], writer.axes(1, -1, 1, 1))
            x = writer.node("Add", x, writer.node("Mul", inputs[number - form.shortcut], gain))
            joined += 1
    if template.shape["output"] == "sigmoid":
        return writer.node("Sigmoid", x)
    x = writer.node("Add", x, writer.constant(torch.tensor([0.5])))
    return writer.node("Clip", x, writer.constant(torch.tensor(0.0)), writer.constant(torch.tensor(1.0)))


def _write_layer(writer: Writer, layer: TransformLayer, x: str, number: int, weights: Mapping[str, str]) -> str:
    bias = weights.get(f"layers.{number}.conv.bias") if layer.conv.bias is not None else None
    x = writer.double(x) if layer.form.up else x
    form = layer.conv.kernel_size[0], layer.form.stride
    return writer.convolution(x, weights[f"layers.{number}.conv.weight"], bias, form)
