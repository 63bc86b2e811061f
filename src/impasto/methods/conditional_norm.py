"""Many styles in one network by conditional instance normalisation (Dumoulin et al. 2017).

All styles share the convolutions; a style is only the scales and shifts of the norms, 0.2 % of the network. So any
weighted mixture of styles is one pass, and a new style is learned by these few numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from impasto.errors import ImpastoError
from impasto.feedforward.stages import Stage
from impasto.feedforward.transformation_network import Norms, TransformationNetwork, blend_stage, network_stages
from impasto.images.tensors import LEAST_SIDE
from impasto.optimize.perceptual_loss import PaintingMoments, PerceptualLoss, pick_targets, stack_rows, stack_targets
from impasto.stylizers.fixed_styles import SharedNetworkStyles
from impasto.stylizers.one_pass import OnePassOptions
from impasto.stylizers.styles import Style
from impasto.training.loop import Task, Training, TrainOptions
from impasto.training.one_pass import as_task, judge
from impasto.training.paintings import (
    NO_FROM,
    ManyStylesOptions,
    begin,
    fill_styles,
    shape_of,
)
from impasto.training.pictures import Pictures
from impasto.weights import load_weights


class ConditionalNormOptions(OnePassOptions):
    """Options of conditional_norm."""


class ConditionalNetwork(nn.Module):
    """A transformation network for many styles; with width 32, 1 674 432 shared weights and 3 206 per style.

    All convolutions, including the last one, are normalised; the output goes through a sigmoid.
    """

    def __init__(self, styles: int, width: int = 32, residuals: int = 5) -> None:
        super().__init__()
        self.shared = TransformationNetwork(
            width, residuals, output="sigmoid", norm_last=True, bias=False, own_norms=False
        )
        self.scales = nn.ParameterList([torch.ones(styles, count) for count in self.shared.normed])
        self.shifts = nn.ParameterList([torch.zeros(styles, count) for count in self.shared.normed])

    def norms_of(self, numbers: Tensor) -> Norms:
        """Return scales and shifts of the styles with these numbers, (B,)."""
        return [(scale[numbers], shift[numbers]) for scale, shift in zip(self.scales, self.shifts, strict=True)]

    def forward(self, images: Tensor, numbers: Tensor) -> Tensor:
        """Map (B, 3, H, W) in [0, 1] to the same size, each sample in the style of its number, (B,)."""
        painted: Tensor = self.shared(images, self.norms_of(numbers))
        return painted

    def grow(self, more: int) -> None:
        """Add new styles, which begin as the mean of the known ones."""
        for values in (self.scales, self.shifts):
            for number, known in enumerate(values):
                new = known.mean(0, keepdim=True).repeat(more, 1)
                values[number] = nn.Parameter(torch.cat([known.detach(), new.detach()]))


class ConditionalNorm(SharedNetworkStyles[ConditionalNetwork]):
    """One network, many styles, each the scales and shifts of its norms (Dumoulin et al. 2017).

    Departs from the paper: the shipped network has half the width and was trained as `ConditionalNormTraining` says.
    strength mixes the result with the photo.
    """

    name = "conditional_norm"
    Options = ConditionalNormOptions
    options: ConditionalNormOptions

    @staticmethod
    def read_network(config: Mapping[str, Any]) -> ConditionalNetwork:
        """Return the network that a file's header describes."""
        return ConditionalNetwork(len(config["styles"]), config["width"], config["residuals"])

    def shared(self) -> tuple[nn.Module, ...]:
        """Return the convolutions."""
        return (self.network.shared,)

    def own(self, number: int) -> dict[str, Tensor]:
        """Return scales and shifts."""
        norms = self.network.norms_of(torch.tensor([number], device=self.device))
        values = {f"{layer}.scale": scale[0] for layer, (scale, _) in enumerate(norms)}
        return values | {f"{layer}.shift": shift[0] for layer, (_, shift) in enumerate(norms)}

    def stages(
        self, style: Style, strength: float = 1.0, size: tuple[int, int] = (LEAST_SIDE, LEAST_SIDE)
    ) -> tuple[Stage, ...]:
        """Return the network with the style's norms, then the mixture with the photo."""
        count = len(self.network.shared.normed)
        norms = [(style[f"{number}.scale"][None], style[f"{number}.shift"][None]) for number in range(count)]
        return *network_stages(self.network.shared, norms, "painted"), blend_stage({"painted": 1.0}, strength)


class ConditionalNormTraining(nn.Module):
    """Training of the network, with a random style for every photo.

    paintings: (1, 3, H, W) each; infos: of the paintings, ``name`` at least; fixed: only styles from this number on are
    learned; everything else is frozen. Departs from the paper: the loss is `PerceptualLoss`: normalised content, Gram
    matrices, means and deviations, over VGG-19.
    """

    def __init__(
        self,
        network: ConditionalNetwork,
        loss: PerceptualLoss,
        paintings: Sequence[Tensor],
        infos: Sequence[Mapping[str, Any]],
        *,
        fixed: int = 0,
    ) -> None:
        super().__init__()
        self.network = network
        self.infos = [dict(info) for info in infos]
        self.fixed = fixed
        self._frozen = loss, tuple(paintings)
        self._targets: PaintingMoments | None = None
        if fixed:
            network.shared.requires_grad_(False)
            for values in (*network.scales, *network.shifts):
                values.register_hook(self._only_new)

    def _only_new(self, gradient: Tensor) -> Tensor:
        return torch.cat([torch.zeros_like(gradient[: self.fixed]), gradient[self.fixed :]])

    def config(self) -> dict[str, Any]:
        """Return the network's shape and its styles, for the file's header."""
        width, residuals = (self.network.shared.shape[key] for key in ("width", "residuals"))
        return {"method": "conditional_norm", "width": width, "residuals": residuals, "styles": self.infos}

    def training_terms(self, contents: Tensor, styles: Tensor, progress: float) -> dict[str, Tensor]:
        """Return content, style and smoothness terms of photos in random styles; `styles` are not used."""
        loss, paintings = self._frozen
        if self._targets is None:
            self._targets = stack_targets([loss.targets(painting.to(contents.device)) for painting in paintings])
        numbers = torch.randint(len(paintings), (len(contents),)).to(contents.device)
        painted = self.network(contents, numbers + self.fixed)
        return loss.terms(painted, contents, pick_targets(self._targets, numbers))

    @torch.no_grad()
    def preview(self, contents: Tensor, styles: Tensor) -> Tensor:
        """Return photographs, and one of them after the other in every style that learns, (1, 3, rows x H, B W)."""
        count, size = len(self._frozen[1]), len(contents)
        rows = [contents]
        for first in range(0, count, size):
            numbers = torch.arange(first, first + size, device=contents.device) % count + self.fixed
            rows.append(self.network(contents, numbers).clamp(0, 1))
        return stack_rows(rows)


def build_training(options: TrainOptions, contents: Pictures, styles: Pictures) -> Task:
    """Return the training of one network for all paintings, or of new styles for the network of `from_`."""
    options = cast(ManyStylesOptions, options)
    first = begin(options, styles, start_styles)
    learner = ConditionalNormTraining(first.network, judge(options), first.paintings, first.infos, fixed=first.fixed)
    return as_task("conditional_norm", learner)


def start_styles(options: ManyStylesOptions, count: int) -> tuple[ConditionalNetwork, list[dict[str, Any]]]:
    """Return the initial network, with room for `count` styles, and the infos of its styles."""
    if not options.from_:
        if options.add:
            raise ImpastoError(NO_FROM)
        return ConditionalNetwork(count, options.width, options.residuals), []
    file = load_weights(options.from_)
    before = list(file.config.get("styles", []))
    shape = shape_of(file)
    network = ConditionalNetwork(len(before), shape["width"], shape["residuals"])
    fill_styles(network, file, options, len(before), count)
    return network, before


TRAINING = Training(ManyStylesOptions, build_training)
