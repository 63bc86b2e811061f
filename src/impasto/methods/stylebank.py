"""Many styles, each a bank of filters between one encoder and one decoder (Chen et al. 2017).

The encoder takes a photo apart, a style's bank repaints its features, the decoder puts a picture together. Without a
bank, these two give the photo back, so a style lies entirely in its bank; and a new style is a new bank, with
everything else unchanged, bit for bit.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from impasto.errors import ImpastoError, OptionError, WeightsError
from impasto.feedforward.filter_banks import SIDE, StyleBankNetwork, slim_network
from impasto.feedforward.stages import IMAGE, RESULT, Edge, Known, Stage, StageInput, photo_share
from impasto.feedforward.transformation_network import (
    LayerRow,
    as_picture,
    blend_stage,
    row_stages,
)
from impasto.images.tensors import LEAST_SIDE
from impasto.ops.moments import fit_mask
from impasto.optimize.perceptual_loss import PaintingMoments, PerceptualLoss, pick_targets, stack_rows, stack_targets
from impasto.progress import OnStep
from impasto.stylizers.fixed_styles import SharedNetworkStyles
from impasto.stylizers.one_pass import OnePassOptions
from impasto.stylizers.styles import NETWORK, Style, parts
from impasto.training.loop import MethodTask, Task, Training, TrainOptions
from impasto.training.one_pass import judge
from impasto.training.paintings import (
    NO_FROM,
    ManyStylesOptions,
    begin,
    fill_styles,
    shape_of,
)
from impasto.training.pictures import Pictures
from impasto.weights import load_weights


class StyleBankOptions(OnePassOptions):
    """Options of stylebank."""


@dataclass(frozen=True)
class Region:
    """The region of a style's banks: `mask`, whose features the norms measure, and the `share` of it that they get.

    Both (1, 1, H, W) in [0, 1], at the photo's size; None: everywhere.
    """

    style: Style
    mask: Tensor | None = None
    share: Tensor | None = None


class StyleBank(SharedNetworkStyles[StyleBankNetwork]):
    """An encoder, a bank of filters for each style, a decoder (Chen et al. 2017).

    A mixture of styles is the weighted sum of their banks' outputs; strength mixes features, too: 0 is the photo as
    encoder and decoder rebuild it.

    Departs from the paper: encoder and decoder have no norms, the banks' have scale and shift; residual blocks in the
    decoder; upsampling by repetition and a convolution instead of transposed convolutions; mirrored edges; a fraction
    of the width. Trained as `StyleBankTraining` says. A bank's output, not its input, is cut to its region, so that it
    sees no edge there; its norms measure the region alone.
    """

    name = "stylebank"
    rebuilds = True
    Options = StyleBankOptions
    options: StyleBankOptions
    prefix = NETWORK

    @staticmethod
    def read_network(config: Mapping[str, Any]) -> StyleBankNetwork:
        """Return the network that a file's header describes."""
        return slim_network(len(config["styles"]), **config["shape"])

    def shared(self) -> tuple[nn.Module, ...]:
        """Return encoder and decoder."""
        return self.network.encoder, self.network.decoder

    def own(self, number: int) -> dict[str, Tensor]:
        """Return the bank."""
        return dict(self.network.bank(number).state_dict())

    def stages(
        self, style: Style, strength: float = 1.0, size: tuple[int, int] = (LEAST_SIDE, LEAST_SIDE)
    ) -> tuple[Stage, ...]:
        """Return encoder, every bank of the style, the mixture of their outputs and of the features, decoder."""
        return self._stages((Region(style),), strength, RESULT)

    def _by_region(
        self,
        content: Tensor,
        styles: Sequence[Style],
        masks: Sequence[Tensor],
        strength: float,
        seed: int,
        on_step: OnStep,
    ) -> Tensor:
        """Paint each style's bank in its region, all in one pass; the content where no mask is white."""
        self.interrupted = False
        total = torch.stack(list(masks)).sum(0)
        covered = total.clamp_min(1)
        pairs = [(style, mask) for style, mask in zip(styles, masks, strict=True) if float(mask.max()) > 0]
        regions = tuple(Region(style, mask, mask / covered) for style, mask in pairs)
        if not regions:
            return content.clamp(0, 1)
        painted = total.clamp(0, 1) * (1 - photo_share(strength))
        plan = partial(self._stages, regions, strength, "painted", (_keep_rest(painted),))
        return self._run_stages(content, plan, None, on_step, [mask for _, mask in pairs])

    def _stages(
        self, regions: Sequence[Region], strength: float, outcome: str, after: tuple[Stage, ...] = ()
    ) -> tuple[Stage, ...]:
        """Return encoder, the banks of all regions, the mixture, the decoder that makes `outcome`, then `after`."""
        encoder = self.network.encoder
        rows = [*row_stages(encoder.row, (), (IMAGE, "encoded"), "encoder.", opening=encoder.enter)]
        banked: dict[str, tuple[float, Region]] = {}
        for region in regions if strength else ():
            for share, part in parts(region.style):
                bank, prefix = self._build(part), f"{len(banked)}."
                ends = "encoded", prefix + "banked"
                rows += row_stages(bank.row, bank.norms, ends, prefix, side=SIDE, mask=region.mask)
                banked[ends[1]] = share, region
        features = "encoded"
        if banked:
            features = "mixed"
            shares = {name: share for name, (share, _) in banked.items()}
            where = {name: region.share for name, (_, region) in banked.items() if region.share is not None}
            whole = blend_stage(shares, strength, rest="encoded", outcome=features)
            rows.append(_mix_regions(shares, where, strength, features) if where else whole)
        decoder = self.network.decoder.row
        rows += row_stages(decoder, (), (features, outcome), "decoder.", side=SIDE, closing=as_picture)
        return *rows, *after

    def _build(self, style: Style) -> LayerRow:
        """Return the bank whose weights `style` holds; raises OptionError if they don't fit."""
        bank = copy.deepcopy(self.network.bank(0))
        try:
            bank.load_state_dict(dict(style))
        except RuntimeError:
            raise OptionError(f"this style card is no bank for {self.name}: {self.advice}") from None
        return bank


def _mix_regions(shares: Mapping[str, float], where: Mapping[str, Tensor], strength: float, outcome: str) -> Stage:
    """Return the stage that puts each bank's output, by its share, into the features of its region.

    where: regions of the banks' maps, (1, 1, H, W) at the picture's size; together at most 1.
    """

    def run(work: StageInput) -> Mapping[str, Tensor]:
        encoded = work.maps["encoded"]
        mixed = encoded
        for name, share in shares.items():
            weights = strength * share * work.here(work.given[name], SIDE)
            mixed = mixed + weights.to(encoded) * (work.maps[name] - encoded)
        return {outcome: mixed}

    def fit_once(known: Known) -> dict[str, Tensor]:
        return {name: _fit(region) for name, region in where.items()}

    return Stage(tuple(Edge(name, outcome) for name in ("encoded", *shares)), run, prepare=fit_once)


def _fit(region: Tensor) -> Tensor:
    """Return `region`, (1, 1, H, W), averaged down to the size of the encoder's maps."""
    fitted = fit_mask(region, region.new_empty(1, 0, region.shape[-2] // SIDE, region.shape[-1] // SIDE))
    assert fitted is not None
    return fitted


def _keep_rest(covered: Tensor) -> Stage:
    """Return the last stage for regions: the photo where `covered`, (1, 1, H, W), is 0, the result where it is 1."""

    def run(work: StageInput) -> Mapping[str, Tensor]:
        painted = work.maps["painted"].clamp(0, 1)
        return {RESULT: torch.lerp(work.maps[IMAGE].to(painted), painted, work.here(covered).to(painted))}

    return Stage((Edge("painted", RESULT), Edge(IMAGE, RESULT)), run)


class StyleBankTraining(nn.Module):
    """Training of the banks: `cycle` steps of painting, which change everything, then one of rebuilding photos.

    The latter changes encoder and decoder alone. Its gradient is scaled to `balance` times the length of the gradient
    in the last step of painting (Chen et al. 2017, sec. 3.3). paintings: (1, 3, H, W) each; infos: their infos,
    ``name`` at least; fixed: only styles from this number on are learned, by painting alone; everything else is frozen.

    Departs from the paper: the loss of painting is `PerceptualLoss`: normalised content, Gram matrices, means and
    deviations, over VGG-19.
    """

    turn: Tensor
    pull: Tensor

    def __init__(
        self,
        network: StyleBankNetwork,
        loss: PerceptualLoss,
        paintings: Sequence[Tensor],
        infos: Sequence[Mapping[str, Any]],
        *,
        fixed: int = 0,
        cycle: int = 2,
        balance: float = 1.0,
    ) -> None:
        super().__init__()
        self.network = network
        self.infos = [dict(info) for info in infos]
        self.fixed, self.cycle, self.balance = fixed, cycle, balance
        self._frozen = loss, tuple(paintings)
        self._targets: PaintingMoments | None = None
        self.register_buffer("turn", torch.zeros((), dtype=torch.int64))
        self.register_buffer("pull", torch.zeros(()))
        if fixed:
            network.encoder.requires_grad_(False)
            network.decoder.requires_grad_(False)
            network.banks[:fixed].requires_grad_(False)

    def config(self) -> dict[str, Any]:
        """Return the network's shape and its styles, for the file's header."""
        return {"method": "stylebank", "shape": self.network.shape, "styles": self.infos}

    def training_terms(self, contents: Tensor, styles: Tensor, progress: float) -> dict[str, Tensor]:
        """Return, in turns, content, style and smoothness terms of photos in random styles, or the rebuilding error.

        `styles` are not used.
        """
        turn = int(self.turn)
        self.turn.fill_((turn + 1) % (self.cycle + 1))
        if self.fixed:
            terms = self._paint(contents)
        elif turn < self.cycle:
            terms = self._paint(contents, measured=turn == self.cycle - 1)
        else:
            terms = self._rebuild(contents)
        if torch.distributed.is_available() and torch.distributed.is_initialized():  # processes wait for all gradients
            unused = torch.stack([own.sum() for own in self.network.parameters() if own.requires_grad]).sum()
            terms = {name: term + 0 * unused for name, term in terms.items()}
        return terms

    def _paint(self, contents: Tensor, measured: bool = False) -> dict[str, Tensor]:
        loss, paintings = self._frozen
        if self._targets is None:
            self._targets = stack_targets([loss.targets(painting.to(contents.device)) for painting in paintings])
        numbers = torch.randint(len(paintings), (len(contents),))
        painted = self.network(contents, (numbers + self.fixed).tolist())
        targets = pick_targets(self._targets, numbers.to(contents.device))
        if not measured:
            return loss.terms(painted, contents, targets)
        seen = painted.detach().requires_grad_()
        terms = loss.terms(seen, contents, targets)
        (upstream,) = torch.autograd.grad(torch.stack(list(terms.values())).sum(), seen)
        self.pull.copy_(self._length((painted * upstream).sum()))
        carried = (painted * upstream).sum()  # the terms' gradient without a second backward pass
        terms = {name: term.detach() for name, term in terms.items()}
        return {**terms, "style": terms["style"] + carried - carried.detach()}

    def _rebuild(self, contents: Tensor) -> dict[str, Tensor]:
        error = F.mse_loss(self.network.rebuild(contents), contents)
        weight: Tensor = self.balance * self.pull / self._length(error).clamp_min(1e-12)
        return {"rebuilt": weight * error}

    def _length(self, value: Tensor) -> Tensor:
        """Return the norm of the gradient of `value` for encoder and decoder."""
        slopes = torch.autograd.grad(value, self.network.shared, retain_graph=True)
        length: Tensor = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(slope) for slope in slopes]))
        return length

    @torch.no_grad()
    def preview(self, contents: Tensor, styles: Tensor) -> Tensor:
        """Return photographs, rebuilt photographs, and one in every style that learns, (1, 3, rows x H, B W)."""
        count, size = len(self._frozen[1]), len(contents)
        rows = [contents, self.network.rebuild(contents)]
        for first in range(0, count, size):
            rows.append(self.network(contents, [number % count + self.fixed for number in range(first, first + size)]))
        return stack_rows([row.clamp(0, 1) for row in rows])


class StyleBankTrainOptions(ManyStylesOptions):
    """Further training options for the banks."""

    cycle: int = Field(2, ge=1, le=100, description="steps of painting before each one of rebuilding photos")
    rebuild_balance: float = Field(
        1.0, gt=0, description="length of rebuilding's gradient, in units of painting's, before --clip cuts both"
    )


class BanksTask(MethodTask):
    """The training of banks, whose checkpoint also holds whose turn it is."""

    def learned(self) -> nn.Module:
        """Return network and turn."""
        return self.learner

    def shippable(self) -> dict[str, Tensor]:
        """Return the network alone."""
        return dict(cast(StyleBankTraining, self.learner).network.state_dict())


def build_training(options: TrainOptions, contents: Pictures, styles: Pictures) -> Task:
    """Return the training of all with a bank for every painting, or of new banks for the network of `from_`."""
    options = cast(StyleBankTrainOptions, options)
    first = begin(options, styles, start_banks)
    learner = StyleBankTraining(
        first.network,
        judge(options),
        first.paintings,
        first.infos,
        fixed=first.fixed,
        cycle=options.cycle,
        balance=options.rebuild_balance,
    )
    return BanksTask("stylebank", learner).to(memory_format=torch.channels_last)


def start_banks(options: StyleBankTrainOptions, count: int) -> tuple[StyleBankNetwork, list[dict[str, Any]]]:
    """Return the initial network, with room for `count` styles, and the infos of its styles."""
    if not options.from_:
        if options.add:
            raise ImpastoError(NO_FROM)
        return slim_network(count, options.width, options.residuals), []
    file = load_weights(options.from_)
    if file.config.get("method") != "stylebank":
        raise WeightsError(f"{file.path} was not made by `impasto train stylebank`")
    before = list(file.config.get("styles", []))
    network = slim_network(len(before), **shape_of(file))
    fill_styles(network, file, options, len(before), count)
    return network, before


TRAINING = Training(StyleBankTrainOptions, build_training)
