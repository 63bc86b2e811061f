"""A network for any painting after a minute of training, from meta-learned parameters (Zhang, Zhu & Zhu 2019).

MetaStyle learns where to begin: parameters from which a few steps on any painting make a transformation network for it.
Its training looks ahead, through steps of the norms' scales and shifts, at how good the network will be after them. A
style here is a whole network, as in johnson; `impasto adapt PAINTING` makes it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from impasto.errors import ImpastoError, OptionError
from impasto.feedforward.transformation_network import Norms, TransformationNetwork
from impasto.ops.moments import precise
from impasto.optimize.perceptual_loss import PaintingMoments, PerceptualLoss, pick_targets, stack_rows
from impasto.stylizers.fixed_styles import NetworkStyles, network_style
from impasto.stylizers.one_pass import OnePassOptions
from impasto.stylizers.styles import Style
from impasto.training.loop import Task, Training, TrainOptions
from impasto.training.one_pass import as_task, judge
from impasto.training.paintings import (
    StylesOptions,
    start_network,
)
from impasto.training.pictures import Pictures
from impasto.weights import load_weights, resolve


class MetaStyleOptions(OnePassOptions):
    """Options of metastyle."""

    weights: str = Field("", description="local file of initial parameters instead of the shipped one")


def paper_network() -> TransformationNetwork:
    """Return the paper's network, 1 679 235 parameters, 3 200 of them the norms'; the shipped one is `slim_network`."""
    return TransformationNetwork(output="sigmoid")


class MetaStyle(NetworkStyles):
    """A network for any painting, by a few steps from common initial parameters (Zhang, Zhu & Zhu 2019).

    A painting is learned by `impasto adapt`, which takes a minute and makes a style card; `encode_style` refuses.

    Departs from the paper: the shipped network has half the width, ends in a norm and was trained as
    `MetaStyleTraining` says. strength mixes the result with the photo.
    """

    name = "metastyle"
    Options = MetaStyleOptions
    options: MetaStyleOptions

    def __init__(
        self,
        options: MetaStyleOptions,
        *,
        device: str | torch.device = "cpu",
        preset: str = "default",
        network: TransformationNetwork | None = None,
    ) -> None:
        super().__init__(options, device=device, preset=preset)
        if network is None:
            path = options.weights or resolve(self.name)
            network, self.network_digest = load_start(path), load_weights(path).digest
        self.shape = network.shape
        self.start = network
        self.cards: dict[str, Style] = {}

    @property
    def learned(self) -> Mapping[str, Style]:
        """Styles by name: those in `cards`. None is shipped, because every painting has a card."""
        return self.cards

    @property
    def digests(self) -> dict[str, str]:
        """The initial parameters."""
        return {self.name: self.network_digest}

    @property
    def examples(self) -> tuple[Style, ...]:
        """A network from the initial parameters."""
        return (network_style(self.start, {}),)

    @property
    def advice(self) -> str:
        """How to make a card of the painting."""
        return (
            "impasto adapt PAINTING -o CARD.safetensors makes a network for it in a minute; "
            f"impasto stylize PHOTO CARD.safetensors -m {self.name} paints with it"
        )


def load_start(path: Any) -> TransformationNetwork:
    """Return the initial parameters in the file at `path`; raises WeightsError if it holds none."""
    return load_weights(path).build(lambda config: TransformationNetwork(**config["shape"]), MetaStyle.name)


class MetaStyleTraining(nn.Module):
    """Training of the initial parameters: they are good if a few steps on a painting make them good (sec. 3.2).

    For each of a few paintings, `inner_steps` steps of gradient descent at `inner_rate` move the norms' scales and
    shifts on `shots` photos; training minimises the loss on as many other photos, with these norms, over all
    parameters, through the steps. inner_clip: the largest norm of a style's gradient in these steps, because an almost
    flat painting can have a huge one. first_order: ignore that the steps' gradients depend on the parameters, which
    saves half of the work.

    Departs from the paper: the loss is `PerceptualLoss`: normalised content, Gram matrices, means and
    deviations, over VGG-19.
    """

    def __init__(
        self,
        network: TransformationNetwork,
        loss: PerceptualLoss,
        *,
        inner_steps: int = 1,
        inner_rate: float = 0.03,
        inner_clip: float = math.inf,
        shots: int = 1,
        first_order: bool = False,
    ) -> None:
        super().__init__()
        self.network = network
        self._frozen = (loss,)
        self.inner_steps, self.inner_rate, self.inner_clip = inner_steps, inner_rate, inner_clip
        self.shots = shots
        self.first_order = first_order

    def config(self) -> dict[str, Any]:
        """Return the network's shape, for the file's header."""
        return {"method": "metastyle", "shape": self.network.shape}

    def training_terms(self, contents: Tensor, styles: Tensor, progress: float) -> dict[str, Tensor]:
        """Return the loss' terms after the inner steps, averaged over as many of the `styles` as there are photos for.

        Raises OptionError if the photos, (B, 3, H, W), are fewer than 2 x shots.
        """
        count = len(contents) // (2 * self.shots)
        if not count:
            raise OptionError(
                f"{self.shots} photos for the inner steps and as many others need --batch {2 * self.shots}"
            )
        (loss,) = self._frozen
        support, query = contents[: 2 * count * self.shots].chunk(2)
        numbers = torch.arange(count, device=contents.device).repeat_interleave(self.shots)
        targets = pick_targets(loss.targets(styles[:count]), numbers)
        norms = self.move(self.spread(count), support, targets, numbers)
        return loss.terms(self.network(query, pick_norms(norms, numbers)), query, targets)

    def spread(self, count: int) -> list[Tensor]:
        """Return copies of the network's scales and shifts, in turns, for `count` styles, (count, C)."""
        return [value.expand(count, -1) for norm in self.network.norms for value in norm]

    def move(self, norms: list[Tensor], support: Tensor, targets: PaintingMoments, numbers: Tensor) -> list[Tensor]:
        """Return `norms` after the inner steps, each style's on the photos in `support` with its number, (B,)."""
        (loss,) = self._frozen
        for _ in range(self.inner_steps):
            terms = loss.terms(self.network(support, pick_norms(norms, numbers)), support, targets)
            total = len(norms[0]) * torch.stack([precise(term) for term in terms.values()]).sum()  # sum
            gradients = clip_each(torch.autograd.grad(total, norms, create_graph=not self.first_order), self.inner_clip)
            norms = [value - self.inner_rate * slope for value, slope in zip(norms, gradients, strict=True)]
        return norms

    @torch.no_grad()
    def preview(self, contents: Tensor, styles: Tensor) -> Tensor:
        """Return photographs, artworks, and results before and after the inner steps, (1, 3, 4 H, B W)."""
        numbers = torch.arange(len(contents), device=contents.device)
        with torch.enable_grad():
            norms = self.move(self.spread(len(contents)), contents, self._frozen[0].targets(styles), numbers)
        painted = self.network(contents, pick_norms([value.detach() for value in norms], numbers))
        return stack_rows((contents, styles, self.network(contents).clamp(0, 1), painted.clamp(0, 1)))


def clip_each(gradients: Sequence[Tensor], longest: float) -> Sequence[Tensor]:
    """Return `gradients` of several styles, (styles, C) each, clipped to a norm of `longest` for each style."""
    if math.isinf(longest):
        return gradients
    whole = torch.cat(list(gradients), 1)
    share = longest / whole.square().sum(1, keepdim=True).clamp_min(longest**2).sqrt()
    return [slope * share for slope in gradients]


def pick_norms(values: list[Tensor], numbers: Tensor) -> Norms:
    """Return scales and shifts of the styles with these numbers, (B,), from `values`, which holds them in turns."""
    return [(scale[numbers], shift[numbers]) for scale, shift in zip(values[::2], values[1::2], strict=True)]


class MetaStyleTrainOptions(StylesOptions):
    """Further training options for the initial parameters."""

    gram_weight: float = Field(
        0.0, ge=0, description="weight of Gram matrices beside means and deviations; flat artworks have huge ones"
    )
    style_side: int = Field(288, ge=32, le=4096, description="shorter side to which artworks are shrunk when read, px")
    from_: str = Field("", description="weights file to continue from: its own, conditional_norm's or johnson's")
    inner_steps: int = Field(1, ge=0, le=5, description="steps of the norms that training looks ahead")
    inner_rate: float = Field(0.03, ge=0, le=100, description="learning rate of these steps")
    inner_clip: float = Field(10.0, gt=0, description="largest norm of a style's gradient in these steps")
    shots: int = Field(1, ge=1, le=256, description="photos a style for the inner steps, and as many others after them")
    first_order: bool = Field(False, description="do not differentiate through the inner steps: half of the work")


def build_training(options: TrainOptions, contents: Pictures, styles: Pictures) -> Task:
    """Return the training of the initial parameters, from random weights or from what `from_` holds."""
    options = cast(MetaStyleTrainOptions, options)
    if options.batch < 2 * options.shots:
        raise ImpastoError(f"--shots {options.shots} and as many photos after the steps: --batch {2 * options.shots}")
    torch.manual_seed(options.seed)
    learner = MetaStyleTraining(
        start_network(options, None, (options.width, options.residuals)),
        judge(options),
        inner_steps=options.inner_steps,
        inner_rate=options.inner_rate,
        inner_clip=options.inner_clip,
        shots=options.shots,
        first_order=options.first_order,
    )
    return as_task("metastyle", learner)


TRAINING = Training(MetaStyleTrainOptions, build_training)
