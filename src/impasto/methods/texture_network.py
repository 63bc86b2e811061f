"""One style in one pass by a pyramid: a photo at several sizes, joined from coarse to fine (Ulyanov et al. 2016, 2017).

Each size of the photo, together with noise, goes through three convolutions and is joined with the coarser sizes. A few
channels see far, because the coarse paths are cheap: the smallest network that paints.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from impasto.errors import WeightsError
from impasto.feedforward.stages import IMAGE, Edge, MomentsOf, Stage, StageInput
from impasto.feedforward.transformation_network import (
    Form,
    LayerRow,
    StagedNetwork,
    TransformLayer,
    as_picture,
    row_stages,
)
from impasto.networks.layers import DOUBLING, Conv, double, fit_edge
from impasto.ops.moments import Moments, adaptive_instance_norm
from impasto.stylizers.fixed_styles import NAMED, PaintingNetworks, PaintingTraining
from impasto.stylizers.one_pass import OnePassOptions
from impasto.stylizers.styles import Style
from impasto.training.loop import Task, Training, TrainOptions
from impasto.training.one_pass import as_task, judge
from impasto.training.paintings import (
    PaintingOptions,
    only_painting,
    tensors_of,
)
from impasto.training.pictures import Pictures
from impasto.weights import Weights, load_weights

NAME = "texture_network"
LEVELS, BRANCH, NOISE = 5, 8, 3
MASK = 0xFFFFFFFF


class TextureNetworkOptions(OnePassOptions):
    """Options of texture_network."""

    weights: str = Field("", description="local file of one or more trained networks instead of the shipped ones")
    noise_seed: int = Field(0, ge=0, lt=1 << 31, description="seed of the noise beside the photo")


class PyramidNetwork(StagedNetwork):
    """The generator of Ulyanov et al. (2016), sec. 3.3, with the photo at every size and instance norms (2017).

    levels: number of sizes, each half of the next; branch: channels of each size's path; noise: channels of noise
    beside the photo, at every size.
    """

    def __init__(self, levels: int = LEVELS, branch: int = BRANCH, noise: int = NOISE) -> None:
        super().__init__()
        self.shape = {"form": "pyramid", "levels": levels, "branch": branch, "noise": noise}
        self.noise, self.seed = noise, 0
        self.ratios = [1 << level for level in reversed(range(levels))]
        self.branches = nn.ModuleList(_block(3 + noise, branch) for _ in self.ratios)
        self.joins = nn.ModuleList(_Join(branch * level, branch) for level in range(1, levels))
        self.last = LayerRow([TransformLayer(branch * levels, 3, 1, Form(norm=False, relu=False), bias=True)])
        for conv in self.modules():
            if isinstance(conv, Conv):
                conv.edge_mode = "replicate"  # the coarsest maps of a small photo are too small to mirror

    @property
    def blocks(self) -> list[tuple[LayerRow, _Join | None]]:
        """Coarse to fine: each size's path, and the join with the coarser ones."""
        return list(zip(cast(Iterable[LayerRow], self.branches), (None, *cast(Any, self.joins)), strict=True))

    def forward(self, images: Tensor, noises: Sequence[Tensor] | None = None) -> Tensor:
        """Map (B, 3, H, W) in [0, 1] to the same size; not clamped.

        noises: coarse to fine, (B, noise, H / ratio, W / ratio) in [0, 1]; default: random.
        """
        x = images[:, :0]
        for number, (ratio, (branch, join)) in enumerate(zip(self.ratios, self.blocks, strict=True)):
            small = shrink(images, ratio)
            size = len(small), self.noise, *small.shape[-2:]
            noise = noises[number] if noises is not None else torch.rand(size, device=small.device)
            own = branch.run(self.see(small, noise), images.shape, ratio)
            x = own if join is None else join.block.run(join(x, own), images.shape, ratio)
        return as_picture(self.last.run(x, images.shape))

    def see(self, small: Tensor, noise: Tensor) -> Tensor:
        """Return a branch's input: the photo at its size, and noise."""
        like = self.last.row[0].conv.weight
        return torch.cat([small.to(like.dtype) - 0.5, noise.to(like.dtype)], 1)

    def stages(self, outcome: str, prefix: str = "") -> tuple[Stage, ...]:
        """Return the network as local stages, with the noise of `seed`; see `StagedNetwork`."""
        rows: list[Stage] = []
        x = ""
        for number, (ratio, (branch, join)) in enumerate(zip(self.ratios, self.blocks, strict=True)):
            names = [f"{prefix}{kind}{number}" for kind in ("seen", "own", "joined", "x")]
            rows += self._branch(number, ratio, branch, (names[0], names[1]), f"{prefix}{number}.")
            if join is not None:
                rows.append(join.stage(x, names[1], names[2], ratio))
                rows += row_stages(join.block.row, join.block.norms, (names[2], names[3]), f"{names[2]}.", side=ratio)
            x = names[1] if join is None else names[3]
            if ratio > 1:
                rows[-1] = replace(rows[-1], measures=(MomentsOf(x, full=False),))
        return *rows, *row_stages(self.last.row, (), (x, outcome), f"{prefix}last.", closing=as_picture)

    def _branch(self, number: int, ratio: int, branch: LayerRow, ends: tuple[str, str], prefix: str) -> Iterable[Stage]:
        """Yield one size's path, from the photo to the input of the join, which is measured."""

        def run(work: StageInput) -> Mapping[str, Tensor]:
            small = shrink(work.maps[IMAGE], ratio)
            corner = work.top // ratio, work.left // ratio
            noise = place_noise(corner, small.shape[-2:], self.noise, (self.seed, number))
            return {ends[0]: self.see(small, noise.to(small.device).expand(len(small), -1, -1, -1))}

        yield Stage((Edge(IMAGE, ends[0], (nn.AvgPool2d(ratio),) if ratio > 1 else ()),), run)
        *rows, end = row_stages(branch.row, branch.norms, ends, prefix, side=ratio)
        yield from rows
        yield replace(end, measures=(MomentsOf(ends[1], full=False),))


def make_pyramid(shape: Mapping[str, Any]) -> PyramidNetwork:
    """Return the network of this `shape`, as `PyramidNetwork.shape` describes it."""
    return PyramidNetwork(**{key: value for key, value in shape.items() if key != "form"})


class _Join(nn.Module):
    """The coarser path, doubled, beside a finer branch, both normalised first; then a block."""

    def __init__(self, coarse: int, fine: int) -> None:
        super().__init__()
        counts = (coarse, fine)
        self.scales = nn.ParameterList([torch.ones(count) for count in counts])
        self.shifts = nn.ParameterList([torch.zeros(count) for count in counts])
        self.block = _block(coarse + fine, coarse + fine)

    def forward(self, x: Tensor, own: Tensor, known: Sequence[Moments | None] = (None, None)) -> Tensor:
        """Join (B, coarse, H / 2, W / 2) and (B, fine, H, W); returns (B, coarse + fine, H, W)."""
        norms = zip((x, own), self.shifts, self.scales, known, strict=True)
        coarse, fine = (adaptive_instance_norm(y, shift[None], scale[None], k) for y, shift, scale, k in norms)
        return torch.cat([fit_edge(double(coarse), own.shape), fine], 1)

    def stage(self, x: str, own: str, outcome: str, ratio: int) -> Stage:
        """Return the join of these maps, without the block."""

        def run(work: StageInput) -> Mapping[str, Tensor]:
            return {outcome: self(work.maps[x], work.maps[own], (work.given[x], work.given[own]))}

        return Stage((Edge(x, outcome, (DOUBLING,)), Edge(own, outcome)), run)


def _block(inputs: int, width: int) -> LayerRow:
    """Return two 3x3 convolutions and a 1x1 one, each normalised and rectified."""
    shapes = ((inputs, width, 3), (width, width, 3), (width, width, 1))
    return LayerRow(TransformLayer(*shape, Form(), bias=False) for shape in shapes)


def shrink(images: Tensor, ratio: int) -> Tensor:
    """Return (B, 3, H, W) averaged down to (B, 3, H / ratio, W / ratio)."""
    return F.avg_pool2d(images, ratio) if ratio > 1 else images


def place_noise(corner: tuple[int, int], size: Sequence[int], channels: int, seeds: Iterable[int]) -> Tensor:
    """Return noise, uniform in [0, 1), that depends only on the position, (1, channels, *size): tiles match the whole.

    corner: row and column of the first value; seeds: numbers that choose the noise.
    """
    axes = [torch.arange(channels)[:, None, None]]
    axes.append(torch.arange(corner[0], corner[0] + size[0])[:, None])
    axes.append(torch.arange(corner[1], corner[1] + size[1]))
    value: Tensor = torch.zeros(1, dtype=torch.int64)
    for number in (*map(torch.tensor, seeds), *axes):  # each is mixed in so that neighbours are unrelated
        value = (value * 0x9E3779B1 + number + 1) & MASK
        for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B), (16, 1)):
            value = ((value ^ (value >> shift)) * factor) & MASK
    return (value >> 8).float()[None] / (1 << 24)


class TextureNetwork(PaintingNetworks):
    """A pyramid network for each style (Ulyanov et al. 2016, "Texture Networks"; 2017, "Improved Texture Networks").

    Departs from the paper: five sizes, not six, so that photos from 16 px have a coarsest one; repeated edges; the loss
    is `PaintingTraining`'s. The noise of a place is the same in every picture. strength mixes the result with the
    photo.
    """

    name = NAME
    Options = TextureNetworkOptions
    options: TextureNetworkOptions

    @staticmethod
    def make_network(shape: Mapping[str, Any]) -> StagedNetwork:
        """Return a pyramid of that shape."""
        return make_pyramid(shape)

    def build_for(self, style: Style) -> StagedNetwork:
        """Return the pyramid whose weights `style` holds, with the noise of this run."""
        network = cast(PyramidNetwork, super().build_for(style))
        network.seed = self.options.noise_seed
        return network


class TextureNetworkTrainOptions(PaintingOptions):
    """Further training options for a pyramid network."""

    levels: int = Field(LEVELS, ge=1, le=5, description="sizes of the photo, each half of the next")
    branch: int = Field(BRANCH, ge=1, le=256, description="channels of each size's own path")
    noise: int = Field(NOISE, ge=0, le=64, description="channels of noise beside the photo")
    from_: str = Field("", description="weights file of the same shape to continue from")


def build_training(options: TrainOptions, contents: Pictures, styles: Pictures) -> Task:
    """Return the pyramid network of one painting, from random weights or from `from_`."""
    options = cast(TextureNetworkTrainOptions, options)
    painting, info = only_painting(styles, NAME)
    torch.manual_seed(options.seed)
    network = start_pyramid(options, info[NAMED])
    learner = PaintingTraining(NAME, network, judge(options), painting, info)
    return as_task(NAME, learner)


def start_pyramid(options: TextureNetworkTrainOptions, name: str) -> PyramidNetwork:
    """Return a pyramid for the style called `name`: random, or the one of that name, or the first one, of `from_`."""
    if not options.from_:
        return PyramidNetwork(options.levels, options.branch, options.noise)
    file = load_weights(options.from_)
    if file.config.get("method") != NAME:
        raise WeightsError(f"{file.path} was not made by `impasto train {NAME}`")
    own = Weights(file.path, tensors_of(file, name), file.config, file.digest)
    return own.build(lambda config: make_pyramid(config["shape"]), NAME)


TRAINING = Training(TextureNetworkTrainOptions, build_training)
