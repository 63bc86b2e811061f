"""The transformation network: down, residual blocks, up, each convolution followed by instance normalisation.

The skeleton of Johnson et al. (2016), sec. 3.1 and supplement, shared by all methods with a trained network: one
network per style, norms that hold many styles, kernels made by another network, a network that adapts.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from impasto.feedforward.stages import IMAGE, RESULT, Edge, MomentsOf, Stage, StageInput
from impasto.networks.layers import DOUBLING, Conv, DoublingConv, fit_edge
from impasto.ops.cpu_kernels import add_scaled
from impasto.ops.moments import Moments, adaptive_instance_norm, precise

Norms = Sequence[tuple[Tensor, Tensor]]
"""Scale and shift of each norm, in the order of the layers, each (1 or B, C)."""


@dataclass(frozen=True)
class Form:
    """The form of a layer, in addition to its convolution.

    transposed: upsampling by the convolution itself; shortcut: how many layers back the layer is whose input is added
    after the norm, every channel times a gain.
    """

    stride: int = 1
    up: bool = False
    transposed: bool = False
    norm: bool = True
    relu: bool = True
    opens: bool = False
    closes: bool = False
    shortcut: int = 0


class TransformLayer(nn.Module):
    """One convolution; upsampling doubles before it. Sizes halve and double exactly."""

    def __init__(self, inputs: int, outputs: int, kernel: int, form: Form, *, bias: bool) -> None:
        super().__init__()
        self.form = form
        self.conv: Conv | DoublingConv = (
            DoublingConv(inputs, outputs)
            if form.transposed
            else Conv(inputs, outputs, kernel, stride=form.stride, mirror=True)
        )
        if not bias:
            self.conv.register_parameter("bias", None)

    def forward(self, x: Tensor, like: Sequence[int]) -> Tensor:
        """Map (B, inputs, H, W) to (B, outputs, *like)."""
        if isinstance(self.conv, DoublingConv):
            y = self.conv(x)
            return fit_edge(y.relu() if self._rectifies else y, like)
        return fit_edge(self.conv(x, relu=self._rectifies, doubled=self._doubles), like)

    @property
    def _rectifies(self) -> bool:
        """Whether its ReLU follows directly, because there is no norm."""
        return self.form.relu and not self.form.norm

    @property
    def _doubles(self) -> bool:
        return self.form.up and not self.form.transposed

    def path(self) -> list[nn.Module]:
        """Return the layers in the order in which they run."""
        return [DOUBLING, self.conv] if self._doubles else [self.conv]


class LayerRow(nn.Module):
    """A sequence of layers, with the scales and shifts of their norms and the gains of shortcuts.

    own_norms: the row holds scales and shifts itself; otherwise they are 1 and 0 unless given. round_up: maps of odd
    sizes keep the half pixel, as convolutions do.
    """

    def __init__(self, layers: Iterable[TransformLayer], *, own_norms: bool = True, round_up: bool = False) -> None:
        super().__init__()
        self.round_up = round_up
        self.layers = nn.ModuleList(layers)
        self.scales = nn.ParameterList([torch.ones(count) for count in self.normed] if own_norms else [])
        self.shifts = nn.ParameterList([torch.zeros(count) for count in self.normed] if own_norms else [])
        joined = (layer.conv.out_channels for layer in self.row if layer.form.shortcut)
        self.gains = nn.ParameterList(torch.zeros(count) for count in joined)

    @property
    def row(self) -> list[TransformLayer]:
        """The layers in their order."""
        return cast(list[TransformLayer], list(self.layers))

    @property
    def normed(self) -> list[int]:
        """Number of channels of every norm."""
        return [layer.conv.out_channels for layer in self.row if layer.form.norm]

    @property
    def norms(self) -> Norms:
        """The row's own scales and shifts."""
        if not self.scales:
            like = self.row[0].conv.weight
            return [(like.new_ones(1, count), like.new_zeros(1, count)) for count in self.normed]
        return [(scale[None], shift[None]) for scale, shift in zip(self.scales, self.shifts, strict=True)]

    def enter(self, images: Tensor) -> Tensor:
        """Prepare pictures in [0, 1] for the first layer."""
        return images.to(self.row[0].conv.weight.dtype) - 0.5

    def run(self, x: Tensor, size: Sequence[int], side: int = 1, norms: Norms | None = None) -> Tensor:
        """Run a map of stride `side`, in a picture of `size`, through all layers. norms: instead of the row's own."""
        given, gains = iter(self.norms if norms is None else norms), iter(self.gains)
        kept, wanted, inputs = x, shortcut_starts(self.row), dict[int, Tensor]()
        for number, layer in enumerate(self.row):
            form = layer.form
            kept = x if form.opens else kept
            if number in wanted:
                inputs[number] = x
            side = side_after(side, form)
            like = [-(-extent // side) if self.round_up else extent // side for extent in size[-2:]]
            x = finish_layer(layer(x, like), form, next(given) if form.norm else None, None, kept)
            if form.shortcut:
                x = add_scaled(x, inputs[number - form.shortcut], next(gains)[None])
        return x


class StagedNetwork(nn.Module, ABC):
    """A network from picture to picture that also runs as stages; shape: the arguments that rebuild it."""

    shape: dict[str, Any]

    @abstractmethod
    def stages(self, outcome: str, prefix: str = "") -> tuple[Stage, ...]:
        """Return the network, with its own norms, as local stages from the map ``image`` to the map `outcome`.

        prefix: of the names of the maps in between, so that several networks can run one after the other.
        """


class PictureNetwork(LayerRow, StagedNetwork):
    """Layers from picture to picture: the base of all transformation networks.

    shape: the arguments that rebuild it, ``output`` at least: ``linear`` pictures in [0, 1], or ``sigmoid``.
    """

    def __init__(self, layers: Iterable[TransformLayer], shape: Mapping[str, Any], *, own_norms: bool = True) -> None:
        super().__init__(layers, own_norms=own_norms)
        self.shape: dict[str, Any] = dict(shape)

    def forward(self, images: Tensor, norms: Norms | None = None) -> Tensor:
        """Map (B, 3, H, W) in [0, 1] to the same size; not clamped. norms: instead of the network's own."""
        return self.leave(self.run(self.enter(images), images.shape, norms=norms))

    def stages(self, outcome: str, prefix: str = "") -> tuple[Stage, ...]:
        """See `StagedNetwork`."""
        return network_stages(self, self.norms, outcome, prefix)

    def leave(self, x: Tensor) -> Tensor:
        """Return the last layer's output as a picture, in float32 at least."""
        return as_picture(x, self.shape["output"])


class TransformationNetwork(PictureNetwork):
    """Johnson's ``c9s1-b, d2b, d4b, R4b x n, u2b, ub, c9s1-3``, without the ReLU after a residual sum.

    width: b, 32 in the papers; residuals: n, 5; output: ``linear`` pictures in [0, 1], or ``sigmoid``; norm_last: also
    normalise the last convolution (Dumoulin et al. 2017); bias: of the normalised convolutions. Edges are mirrored;
    upsampling is repetition and a convolution. own_norms: the network holds its scales and shifts itself.

    Departs from the papers: linear output is in [0, 1], not 0 to 255, and the input is centred by subtracting 1/2.
    """

    def __init__(
        self,
        width: int = 32,
        residuals: int = 5,
        *,
        output: Literal["linear", "sigmoid"] = "linear",
        norm_last: bool = False,
        bias: bool = True,
        own_norms: bool = True,
    ) -> None:
        shape = {"width": width, "residuals": residuals, "output": output, "norm_last": norm_last, "bias": bias}
        super().__init__(_layers(width, residuals, norm_last, bias), shape, own_norms=own_norms)


def _layers(width: int, residuals: int, norm_last: bool, bias: bool) -> Iterable[TransformLayer]:
    def layer(inputs: int, outputs: int, form: Form, kernel: int = 3) -> TransformLayer:
        return TransformLayer(inputs, outputs, kernel, form, bias=bias or not form.norm)

    yield layer(3, width, Form(), 9)
    yield layer(width, 2 * width, Form(stride=2))
    yield layer(2 * width, 4 * width, Form(stride=2))
    for _ in range(residuals):
        yield layer(4 * width, 4 * width, Form(opens=True))
        yield layer(4 * width, 4 * width, Form(relu=False, closes=True))
    yield layer(4 * width, 2 * width, Form(up=True))
    yield layer(2 * width, width, Form(up=True))
    yield layer(width, 3, Form(norm=norm_last, relu=False), 9)


def slim_network(width: int = 16, residuals: int = 5) -> TransformationNetwork:
    """The shipped size, in the form of Dumoulin et al. (2017), so that it can start from a network of many styles."""
    return TransformationNetwork(width, residuals, output="sigmoid", norm_last=True, bias=False)


def as_picture(x: Tensor, output: str = "linear") -> Tensor:
    """Return a last layer's output as a picture, in float32 at least; output: ``linear`` or ``sigmoid``."""
    x = precise(x)
    return x.sigmoid() if output == "sigmoid" else x + 0.5


def leave_as_is(x: Tensor) -> Tensor:
    """Return `x` unchanged."""
    return x


def side_after(side: int, form: Form) -> int:
    """Return the stride, in the picture's pixels, of a layer's output if it reads a map of stride `side`."""
    return side // 2 if form.up else side * form.stride


def finish_layer(
    y: Tensor, form: Form, norm: tuple[Tensor, Tensor] | None, own: Moments | None, kept: Tensor | None
) -> Tensor:
    """Apply the layer's norm, with the `own` moments or those of `y`, its ReLU, and the block's input."""
    if norm is None:
        return y + kept if form.closes and kept is not None else y
    scale, shift = norm
    return adaptive_instance_norm(y, shift, scale, own, relu=form.relu, plus=kept if form.closes else None)


def shortcut_starts(layers: Sequence[TransformLayer]) -> set[int]:
    """Return the numbers of the layers whose input is added later."""
    return {number - layer.form.shortcut for number, layer in enumerate(layers) if layer.form.shortcut}


def network_stages(network: PictureNetwork, norms: Norms, outcome: str, prefix: str = "") -> tuple[Stage, ...]:
    """Return the network as local stages, from the map ``image`` to the map `outcome`, with a barrier at every norm.

    prefix: see `StagedNetwork.stages`.
    """
    ends = (IMAGE, outcome)
    return row_stages(
        network.row, norms, ends, prefix, opening=network.enter, closing=network.leave, gains=list(network.gains)
    )


def row_stages(
    layers: Sequence[TransformLayer],
    norms: Norms,
    ends: tuple[str, str],
    prefix: str = "",
    *,
    side: int = 1,
    opening: Callable[[Tensor], Tensor] = leave_as_is,
    closing: Callable[[Tensor], Tensor] = leave_as_is,
    mask: Tensor | None = None,
    gains: Sequence[Tensor] = (),
) -> tuple[Stage, ...]:
    """Return layers as local stages, with a barrier at every norm.

    ends: names of the input map, of stride `side`, and of the output map; opening, closing: functions applied pixel by
    pixel before the first layer and after the last one; prefix: see `network_stages`; mask: the region that the norms
    measure, see `MomentsOf`; gains: one per shortcut.
    """
    return tuple(_Row(tuple(layers), norms, ends, prefix, side, opening, closing, mask, gains).stages())


@dataclass(frozen=True)
class _Row:
    layers: tuple[TransformLayer, ...]
    norms: Norms
    ends: tuple[str, str]
    prefix: str
    side: int
    opening: Callable[[Tensor], Tensor]
    closing: Callable[[Tensor], Tensor]
    mask: Tensor | None
    gains: Sequence[Tensor]

    def stages(self) -> Iterable[Stage]:
        side = self.side
        for number, layer in enumerate(self.layers):
            if self._is_named(number):
                yield self._input_stage(number)
            side = side_after(side, layer.form)
            yield self._stage(number, layer, side)
        last, outcome = len(self.layers), self.ends[1]
        yield Stage(
            tuple(Edge(source, outcome) for source in self._sources(last)),
            lambda work: {outcome: self.closing(self._finished_input(last, work))},
        )

    def _name(self, number: int) -> str:
        """Return the name of layer `number`'s output, before its norm."""
        return f"{self.prefix}y{number}"

    def _input(self, number: int) -> str:
        """Return the name of layer `number`'s input, if it `_is_named`."""
        return f"{self.prefix}x{number}"

    def _is_named(self, number: int) -> bool:
        """Return whether layer `number`'s input is a separate map: used again later, or made of several maps."""
        again = self.layers[number].form.opens or number in shortcut_starts(self.layers)
        return again or len(self._sources(number)) > 1

    def _sources(self, number: int) -> list[str]:
        """Return the maps that layer `number`'s input is made of."""
        if not number:
            return [self.ends[0]]
        before = self.layers[number - 1].form
        kept = [self._input(number - 2)] if before.closes else []
        return [self._name(number - 1), *kept, *([self._start(number)] if before.shortcut else [])]

    def _start(self, number: int) -> str:
        """Return the map from which the shortcut to layer `number`'s input comes."""
        return self._input(number - 1 - self.layers[number - 1].form.shortcut)

    def _finished_input(self, number: int, work: StageInput) -> Tensor:
        """Return layer `number`'s input."""
        if not number:
            return self.opening(work.maps[self.ends[0]])
        form, own = self.layers[number - 1].form, None
        norm = None
        if form.norm:
            norm = self.norms[sum(layer.form.norm for layer in self.layers[: number - 1])]
            own = work.given[self._name(number - 1)]
        kept = work.maps[self._input(number - 2)] if form.closes else None
        x = finish_layer(work.maps[self._name(number - 1)], form, norm, own, kept)
        if not form.shortcut:
            return x
        gain = self.gains[sum(layer.form.shortcut > 0 for layer in self.layers[: number - 1])]
        return add_scaled(x, work.maps[self._start(number)], gain[None])

    def _input_stage(self, number: int) -> Stage:
        name = self._input(number)
        edges = tuple(Edge(source, name) for source in self._sources(number))
        return Stage(edges, lambda work: {name: self._finished_input(number, work)})

    def _stage(self, number: int, layer: TransformLayer, side: int) -> Stage:
        name, named = self._name(number), self._is_named(number)
        sources = [self._input(number)] if named else self._sources(number)

        def run(work: StageInput) -> Mapping[str, Tensor]:
            x = work.maps[sources[0]] if named else self._finished_input(number, work)
            return {name: layer(x, (work.height // side, work.width // side))}

        measures = (MomentsOf(name, full=False, mask=self.mask),) if layer.form.norm else ()
        path = tuple(layer.path())
        return Stage(tuple(Edge(source, name, path) for source in sources), run, measures)


def blend_stage(painted: Mapping[str, float], strength: float, *, rest: str = IMAGE, outcome: str = RESULT) -> Stage:
    """Return the last stage: mix pictures by their shares; below strength 1, blend the mixture with the photo.

    rest, outcome: other maps instead of photo and result.
    """
    sources = [*painted, *([rest] if strength < 1 else [])]

    def run(work: StageInput) -> Mapping[str, Tensor]:
        parts = [work.maps[name] * share for name, share in painted.items()]
        whole = torch.stack(parts).sum(0) if len(parts) > 1 else parts[0]
        return {outcome: whole if strength == 1 else torch.lerp(work.maps[rest].to(whole), whole, strength)}

    return Stage(tuple(Edge(source, outcome) for source in sources), run)
