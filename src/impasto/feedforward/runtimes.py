"""Other runtimes than torch for the networks of one-pass methods: ONNX Runtime and OpenVINO.

A chain of layers is written as an ONNX graph for pictures of any size, which takes milliseconds; what lies between the
chains (moments, transforms, attention) stays in torch. So everything works with any runtime: style cards, mixtures,
strength, masks, tiles.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from impasto.errors import ImpastoError, OptionError, nearest
from impasto.networks.backbone import Backbone
from impasto.networks.layers import Conv, StepDecoder
from impasto.networks.receptive_field import factor, leaves

RUNTIMES = ("torch", "onnxruntime", "openvino")
AUTO = "auto"
"""Name of the fastest device, or of the fastest runtime."""

EXTRAS = {"onnxruntime": "onnx", "openvino": "openvino"}
OPSET, FORMAT = 20, 10
UNCHANGED = (nn.Identity, nn.Dropout)

Session = Callable[[Any], Sequence[Any]]
"""Maps one numpy array, (B, C, H, W) float32, to the arrays of the graph's outputs."""

_FULL = ContextVar("impasto_full_precision", default=False)


@contextmanager
def running_in_full(wanted: bool) -> Iterator[None]:
    """Run chains in full precision if `wanted`, even if they were made for bfloat16."""
    token = _FULL.set(wanted)
    try:
        yield
    finally:
        _FULL.reset(token)


def installed(name: str) -> bool:
    """Return whether the runtime called `name` is installed."""
    return name == "torch" or all(find_spec(module) is not None for module in (name, "onnx"))


def check_runtime(name: str, device: torch.device, precision: str) -> None:
    """Raise OptionError unless the runtime called `name` is installed and supports this device and precision."""
    if name not in RUNTIMES:
        near = nearest(name, RUNTIMES)
        raise OptionError(f"there is no runtime {name!r}{near}; there are: {', '.join(RUNTIMES)}")
    if not installed(name):
        raise OptionError(f"--runtime {name} needs it: pip install 'impasto[{EXTRAS[name]}]'")
    if name != "torch" and device.type != "cpu":
        raise OptionError(f"--runtime {name} works on the CPU here, not on {device.type}: add --device cpu")
    if name == "onnxruntime" and precision == "bf16":
        raise OptionError("--runtime onnxruntime works in fp32: leave --precision out, or use openvino")
    if name == "openvino" and precision == "bf16" and not openvino_has_bf16():
        raise OptionError("--runtime openvino can't work in bf16 on this processor: leave --precision out")


class Chain(nn.Module):
    """A chain of layers that another runtime runs; its layers can still be inspected."""

    def __init__(self, chain: nn.Module, runtime: str, *, half: bool) -> None:
        super().__init__()
        self.chain, self.runtime, self.half_precision = chain, runtime, half
        self.sessions: dict[bool, Session] = {}
        self._session(half)

    def forward(self, x: Tensor) -> Tensor:
        """Return what the chain gives, in float32."""
        return run(self._session(self.half_precision and not _FULL.get()), x)[0]

    def _session(self, half: bool) -> Session:
        if half not in self.sessions:
            self.sessions[half] = open_session(write_graph(self.path(), {}), self.runtime, half=half)
        return self.sessions[half]

    def path(self) -> list[nn.Module]:
        """Return the layers in the order in which they run."""
        return list(leaves([self.chain]))


class ChainBackbone(Backbone):
    """A backbone that another runtime runs, with one graph for each requested set of layers."""

    def __init__(self, backbone: Backbone, runtime: str, *, half: bool) -> None:
        super().__init__(
            backbone.name,
            dict(backbone.steps.items()),
            heads=dict(backbone.heads.items()),
            digest=backbone.digest,
            least_side=backbone.least_side,
        )
        self.mean, self.std = backbone.mean, backbone.std
        self.runtime, self.half_precision = runtime, half
        self.sessions: dict[tuple[bool, *tuple[str, ...]], Session] = {}

    def forward(self, image: Tensor, layers: Iterable[str], *, rounded: bool = False) -> dict[str, Tensor]:
        """Return the features as every backbone does, in float32."""
        wanted = set(layers)
        self.check_layers(wanted)
        self.check_size(image)
        found = {"image": image} if "image" in wanted else {}
        names = tuple(name for name in self.steps if name in wanted)
        if names:
            x = (image - self.mean) / self.std
            found |= dict(zip(names, run(self._session(names), x), strict=True))
        return found

    def _session(self, names: tuple[str, ...]) -> Session:
        half = self.half_precision and not _FULL.get()
        if (half, *names) not in self.sessions:
            last = list(self.steps).index(names[-1]) + 1
            chain = list(self.steps.items())[:last]
            taps = {step: [self.heads[name]] if name in self.heads else [] for name, step in chain if name in names}
            graph = write_graph([step for _, step in chain], taps)
            self.sessions[half, *names] = open_session(graph, self.runtime, half=half)
        return self.sessions[half, *names]


def switch(model: object, runtime: str, *, half: bool) -> None:
    """Let `runtime` run the networks among `model`'s attributes: backbones, decoders' steps.

    Raises OptionError if there are none.
    """
    networks = {key: value for key, value in vars(model).items() if isinstance(value, nn.Module)}
    decoders = [part for network in networks.values() for part in network.modules() if isinstance(part, StepDecoder)]
    backbones = {key: value for key, value in networks.items() if isinstance(value, Backbone)}
    if not decoders and not backbones:
        raise OptionError(f"its networks are run by torch alone: leave --runtime {runtime} out")
    for decoder in decoders:
        decoder.steps = nn.ModuleList(Chain(step, runtime, half=half) for step in decoder.steps)
    for key, backbone in backbones.items():
        setattr(model, key, ChainBackbone(backbone, runtime, half=half))


def run(session: Session, x: Tensor) -> list[Tensor]:
    """Return the outputs of `session` for x, (B, C, H, W), in float32; raises MemoryError for any runtime."""
    try:
        return [torch.from_numpy(found) for found in session(x.detach().float().contiguous().numpy())]
    except Exception as error:
        if any(word in str(error).lower() for word in ("alloc", "memory")):
            raise MemoryError(str(error)) from error
        raise


@functools.cache
def openvino_has_bf16() -> bool:
    """Return whether OpenVINO runs bfloat16 here: by trying, because what it reports can be wrong."""
    chain = [Conv(3, 16), nn.ReLU(), nn.MaxPool2d(2), Conv(16, 16)]
    try:
        session = open_session(write_graph(chain, {}), "openvino", half=True)
        return bool(torch.isfinite(run(session, torch.rand(1, 3, 32, 32))[0]).all())
    except RuntimeError:
        return False


def open_session(graph: bytes, runtime: str, *, half: bool) -> Session:
    """Return a session with as many threads as torch has; half: in bfloat16, which only openvino supports."""
    if runtime == "onnxruntime":
        return _open_onnxruntime(graph)
    import openvino

    settings = {
        "INFERENCE_PRECISION_HINT": "bf16" if half else "f32",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "PERFORMANCE_HINT": "LATENCY",
    }
    core = openvino.Core()
    request = core.compile_model(core.read_model(graph), "CPU", settings).create_infer_request()
    return lambda x: list(request.infer([x], share_inputs=True).values())


def _open_onnxruntime(graph: bytes) -> Session:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    options.enable_cpu_mem_arena = options.enable_mem_pattern = False  # they keep the largest picture's memory
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # torch uses the same cores in turn
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    return lambda x: session.run(None, {"x": x})


class GraphWriter:
    """Writes an ONNX graph."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def constant(self, value: Tensor) -> str:
        """Add a constant; returns its name."""
        from onnx import numpy_helper

        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(value.detach().cpu().contiguous().numpy(), name))
        return name

    def node(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Append a node; returns the name of its output."""
        from onnx import helper

        name = f"y{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], **attributes))
        return name

    def layer(self, layer: nn.Module, x: str) -> str:
        """Append `layer` with the input x; returns the name of its output."""
        if isinstance(layer, nn.Conv2d):
            return self._convolution(layer, x)
        if isinstance(layer, nn.ReLU):
            return self.node("Relu", x)
        if isinstance(layer, nn.MaxPool2d | nn.AvgPool2d):
            kind = "MaxPool" if isinstance(layer, nn.MaxPool2d) else "AveragePool"
            pads = _pair(layer.padding) * 2
            return self.node(
                kind,
                x,
                kernel_shape=_pair(layer.kernel_size),
                strides=_pair(layer.stride or layer.kernel_size),
                pads=pads,
            )
        if isinstance(layer, nn.Upsample):
            scales = self.constant(torch.tensor([1.0, 1.0, factor(layer), factor(layer)]))
            how = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
            return self.node("Resize", x, "", scales, **how)
        if isinstance(layer, UNCHANGED):
            return x
        raise ImpastoError(f"{type(layer).__name__} can't be run by another runtime than torch")

    def _convolution(self, layer: nn.Conv2d, x: str) -> str:
        pads = [] if isinstance(layer.padding, str) else _pair(layer.padding) * 2
        if isinstance(layer, Conv) and layer.edge[0]:
            left, right, top, bottom = layer.edge
            edge = self.constant(torch.tensor([0, 0, top, left, 0, 0, bottom, right]))
            x = self.node("Pad", x, edge, mode="reflect" if layer.edge_mode == "reflect" else "edge")
        numbers = [layer.weight] if layer.bias is None else [layer.weight, layer.bias]
        return self.node(
            "Conv",
            x,
            *(self.constant(value.float()) for value in numbers),
            kernel_shape=list(layer.kernel_size),
            strides=list(layer.stride),
            dilations=list(layer.dilation),
            group=layer.groups,
            pads=pads,
        )


def write_graph(path: Iterable[nn.Module], taps: dict[nn.Module, list[nn.Module]]) -> bytes:
    """Return the chain `path` as an ONNX graph with the input ``x``, (B, C, H, W) float32, of any size.

    taps: the outputs, in their order: the module of `path` after which each branches off, and its further layers; none:
    the chain's end. Raises ImpastoError if a layer has no counterpart.
    """
    from onnx import TensorProto, helper

    writer, path = GraphWriter(), list(path)
    first = next(layer for layer in leaves(path) if isinstance(layer, nn.Conv2d))
    x, outputs = "x", []
    for module in path:
        for layer in leaves([module]):
            x = writer.layer(layer, x)
        if module in taps:
            end = x
            for layer in leaves(taps[module]):
                end = writer.layer(layer, end)
            outputs.append(end)
    shapes: dict[str, list[str | int | None]] = {"x": ["batch", first.in_channels, "height", "width"]}
    values = {
        name: helper.make_tensor_value_info(name, TensorProto.FLOAT, shapes.get(name, [None] * 4))
        for name in ("x", *(outputs or [x]))
    }
    graph = helper.make_graph(
        writer.nodes, "chain", [values["x"]], [values[name] for name in outputs or [x]], writer.constants
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=FORMAT)
    return bytes(model.SerializeToString())


def _pair(value: int | tuple[int, ...]) -> list[int]:
    return [value, value] if isinstance(value, int) else list(value)
