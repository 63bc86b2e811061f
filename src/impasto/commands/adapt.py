"""The work of `impasto adapt`: Johnson's training of one painting's network, from MetaStyle's initial parameters."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
import typer
from pydantic import Field
from torch import Tensor

from impasto.commands import terminal, train
from impasto.commands.arguments import check_target, name_target, one_picture
from impasto.commands.network_command import read_options
from impasto.errors import ImpastoError
from impasto.feedforward.transformation_network import TransformationNetwork
from impasto.images.dead_leaves import dead_leaves
from impasto.images.files import WRITABLE, write_image
from impasto.networks.backbone import SLIM
from impasto.networks.backbones import load_backbone
from impasto.optimize.perceptual_loss import PaintingMoments, PerceptualLoss
from impasto.runs.record import find_painting
from impasto.stylizers.fixed_styles import NAMED, PaintingTraining, network_style
from impasto.stylizers.styles import CARD, Style, load_style, moments_kind, recall, save_style
from impasto.training.loop import Enough, MethodTask, StepReport, Task, Training, TrainOptions
from impasto.training.one_pass import judge
from impasto.training.paintings import PaintingOptions, paintings_of, start_network
from impasto.training.pictures import Pictures
from impasto.weights import resolve

INTERRUPTED, CONVERGED, DONE = "interrupted", "the loss no longer falls", "all steps done"
MADE_UP = 32

log = logging.getLogger(__name__)


class AdaptOptions(PaintingOptions):
    """Options of the adaptation to a painting."""

    steps: int = Field(200, ge=1, description="optimiser steps")
    batch: int = Field(2, ge=1, le=1024, description="pictures a step")
    crop: int = Field(192, ge=32, le=2048, description="side of the square crops, px")
    learning_rate: float = Field(3e-3, gt=0, le=1, description="highest learning rate of the one-cycle schedule")
    preview_every: int = Field(25, ge=1, description="steps between previews")
    content_layers: tuple[str, ...] = Field(
        ("relu4_1",), min_length=1, description="layers at which the content is compared"
    )
    from_: str = Field("", description="initial parameters instead of the shipped ones, or any network of styles")
    norm_rate: float = Field(20.0, gt=0, le=1000, description="learning rate of the norms, relative to the others")
    only_norms: bool = Field(False, description="learn only the norms' scales and shifts, 0.4 % of the network")
    patience: int = Field(50, ge=0, description="stop if the loss of this many steps is no lower than before; 0: never")


@dataclass(frozen=True)
class AdaptPlan:
    """A checked adaptation, ready to start."""

    options: AdaptOptions
    contents: Pictures
    painting: Pictures
    about: Mapping[str, Any]
    card: Path
    preview: Path | None
    task: Task

    @property
    def facts(self) -> dict[str, Any]:
        """Facts for --json."""
        return {
            "output": str(self.card),
            "options": self.options.model_dump(mode="json"),
            "contents": len(self.contents.items),
            "skipped": self.contents.skipped,
        }


def plan(
    ctx: typer.Context,
    words: list[str],
    content: list[Path],
    about: Mapping[str, Any],
    output: Path | None,
    preview: Path | None,
    *,
    force: bool,
) -> AdaptPlan:
    """Read the pictures and the initial parameters; raises ImpastoError before anything is written."""
    left, options = read_options(ctx, words, AdaptOptions, "adapt")
    path = find_painting(one_picture(left, "impasto adapt PAINTING -o CARD.safetensors"))
    card = name_target(output, Path(f"{path.stem}.safetensors"), force=force, suffixes=(".safetensors",))
    if preview is not None:
        check_target(preview, True, WRITABLE)
    for place in (path, *content):
        if not place.exists():
            raise ImpastoError(f"{place} is not there")
    contents = Pictures.load(content, options.side, options.crop) if content else make_up(options)
    if path.suffix.lower() == CARD:
        style = load_style(path)
        known: dict[str, Any] = {
            key: style.info[key] for key in ("title", "artist", "years", "year") if key in style.info
        }
        task = learn_card(options, path.stem, style)
        return AdaptPlan(options, contents, Pictures([], names=[path.stem]), {**known, **about}, card, preview, task)
    painting = Pictures.load([path], options.style_side, options.crop)
    return AdaptPlan(options, contents, painting, about, card, preview, build(options, contents, painting))


def learn_card(options: AdaptOptions, name: str, style: Style) -> Task:
    """Return the training from a style card's moments over vgg19-slim; raises ImpastoError if it holds none."""
    lacking = [weight for weight in ("teacher", "neighbor_weight") if getattr(options, weight)]
    if lacking:
        raise ImpastoError(f"--{lacking[0].replace('_', '-')} needs the painting itself, not its card")
    network = load_backbone(SLIM)
    found = style.kinds.get(moments_kind(network))
    if found is None:
        raise ImpastoError(f"{name} is a card without moments over {SLIM}: name the painting itself")
    loss = judge(options, network.to(memory_format=torch.channels_last))
    targets = PaintingMoments({layer: recall(found, layer) for layer in loss.style_layers})
    return _learn(options, loss, targets, name)


def make_up(options: AdaptOptions) -> Pictures:
    """Return pictures of overlapping shapes to learn on."""
    side = max(options.side, options.crop)
    shapes = [dead_leaves(options.seed + number, side, side) for number in range(MADE_UP)]
    return Pictures([(shape * 255).round().to(torch.uint8) for shape in shapes])


def build(options: TrainOptions, contents: Pictures, styles: Pictures) -> Task:
    """Return the training of the painting's network."""
    options = cast(AdaptOptions, options)
    painting, info = paintings_of(styles)[0]
    return _learn(options, judge(options), painting, info[NAMED])


def _learn(options: AdaptOptions, loss: PerceptualLoss, painting: Tensor | PaintingMoments, name: str) -> Task:
    torch.manual_seed(options.seed)
    start = options if options.from_ else options.model_copy(update={"from_": str(resolve("metastyle"))})
    network = start_network(start, None)
    for layer in network.row:
        layer.requires_grad_(not options.only_norms)
    learner = PaintingTraining("johnson", network, loss, painting, {NAMED: name})
    return _Adaptation(learner, options.norm_rate).to(memory_format=torch.channels_last)


class _Adaptation(MethodTask):
    """The training of one painting's network; its norms, which hold most of a style, have a higher rate."""

    def __init__(self, learner: PaintingTraining, norm_rate: float) -> None:
        super().__init__("johnson", learner)
        self.norm_rate = norm_rate

    def groups(self, learning_rate: float) -> list[dict[str, Any]]:
        """Return the norms and, unless only they learn, everything else."""
        network = cast(TransformationNetwork, cast(PaintingTraining, self.learner).painter)
        norms = [*network.scales, *network.shifts]
        others = [parameter for parameter in network.layers.parameters() if parameter.requires_grad]
        groups = [{"params": norms, "lr": learning_rate * self.norm_rate}, {"params": others, "lr": learning_rate}]
        return [group for group in groups if group["params"]]


def dry_run(plan: AdaptPlan) -> dict[str, Any]:
    """Report a checked run, for --dry-run; returns what --json prints."""
    terminal.say(f"dry run: {plan.options.steps} steps; nothing was written", err=True)
    return {**plan.facts, "dry_run": True}


def run(plan: AdaptPlan) -> dict[str, Any]:
    """Adapt and write the card, also after Ctrl-C; returns what --json prints. Raises ImpastoError."""
    watch, options = _Watch(plan), plan.options
    unseen = {"preview_every": options.steps + 1, "checkpoint_every": options.steps + 1}  # no previews, no checkpoints
    with tempfile.TemporaryDirectory() as folder:
        try:
            loop = options.model_copy(update=unseen)
            train.learn(plan.task, (plan.contents, plan.painting), loop, Path(folder), also=watch.see)
        except KeyboardInterrupt:
            watch.ended = INTERRUPTED
    if watch.last is None:
        terminal.say("interrupted: nothing was written", err=True)
        raise typer.Exit(130)
    _write(plan, watch)
    if watch.ended != DONE:
        log.info("%s: stopped after %d steps", watch.ended, watch.last.step)
    return {**plan.facts, **watch.facts(), "ended": watch.ended}


def _write(plan: AdaptPlan, watch: _Watch) -> None:
    learner = cast(PaintingTraining, cast(MethodTask, plan.task).learner)
    shapes = [item.shape[-2:] for item in plan.painting.items]
    sizes = {"width": shapes[0][1], "height": shapes[0][0]} if shapes else {}
    name = {NAMED: plan.painting.names[0]}
    save_style(network_style(learner.painter, {**name, **plan.about, **sizes, **watch.facts()}), plan.card, half=True)
    watch.show()


@dataclass
class _Watch:
    """Follows the adaptation: keeps the losses, writes previews, and ends it when the loss no longer falls."""

    plan: AdaptPlan
    losses: list[float] = field(default_factory=list)
    last: StepReport | None = None
    ended: str = DONE

    def see(self, report: StepReport) -> None:
        """Note a step; raises Enough if the loss no longer falls."""
        self.last = report
        self.losses.append(sum(report.terms.values()))
        if report.step % self.plan.options.preview_every == 0:
            self.show()
        if has_converged(self.losses, self.plan.options.patience):
            self.ended = CONVERGED
            raise Enough

    def show(self) -> None:
        """Write the preview, if there is a file for it."""
        if self.plan.preview is not None:
            options, task = self.plan.options, self.plan.task
            photos = self.plan.contents.batch((options.seed, 0), 4, options.crop)
            photos = photos.to(next(task.parameters()).device)
            write_image(task.preview(photos, photos).float().cpu(), self.plan.preview)

    def facts(self) -> dict[str, Any]:
        """Return the last step."""
        assert self.last is not None
        return {"steps": self.last.step, "losses": self.last.terms, "seconds": round(self.last.seconds, 1)}


def has_converged(losses: list[float], patience: int) -> bool:
    """Return whether the mean of the last `patience` losses is no lower than that of as many before."""
    if not patience or len(losses) < 2 * patience:
        return False
    return sum(losses[-patience:]) >= sum(losses[-2 * patience : -patience])


TRAINING = Training(AdaptOptions, build)
