"""The training loop of all methods: folders of pictures in, one weights file out.

A `Task` brings what differs: the module that learns, the loss terms of a batch, a preview picture, the tensors to ship.
The loop brings the rest: devices, mixed precision and several processes by accelerate, a learning rate that anneals by
steps or by the wall clock, checkpoints, exact resume, previews, a stop at NaN.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, cast

import torch
from pydantic import Field
from safetensors.torch import save
from torch import Tensor, nn

from impasto.errors import ImpastoError
from impasto.files import write_atomically
from impasto.images.files import write_image
from impasto.options import Options
from impasto.training.pictures import Pictures
from impasto.weights import load_weights, save_weights
from impasto.weights.files import HEADER_KEY

if TYPE_CHECKING:
    from accelerate import Accelerator

CHECKPOINT = "checkpoint.safetensors"


class TrainOptions(Options):
    """Options of every training."""

    steps: int = Field(20_000, ge=1, description="optimiser steps; with --minutes the largest number")
    minutes: float | None = Field(None, gt=0, description="wall-clock limit; the learning rate anneals to its end")
    batch: int = Field(4, ge=1, le=1024, description="pictures of each kind a step and process")
    crop: int = Field(144, ge=32, le=2048, description="side of the square crops, px")
    side: int = Field(288, ge=32, le=4096, description="shorter side to which pictures are shrunk when read, px")
    learning_rate: float = Field(1.5e-3, gt=0, le=1, description="highest learning rate of the one-cycle schedule")
    clip: float = Field(1.0, gt=0, description="largest norm of the gradient")
    seed: int = Field(0, ge=0, description="fixes the initial weights and every crop")
    precision: Literal["no", "bf16", "fp16"] = Field("no", description="accelerate's mixed precision: no, bf16, fp16")
    checkpoint_every: int = Field(500, ge=1, description="steps between checkpoints")
    preview_every: int = Field(1000, ge=1, description="steps between preview sheets")

    @property
    def art_side(self) -> int:
        """Shorter side to which artworks are shrunk when read, px."""
        return self.side

    @property
    def steps_an_artwork(self) -> int:
        """Number of steps for which the crops of artworks stay the same; photographs change at every step."""
        return 1


class Enough(Exception):
    """Raised by `on_step` to end a training as if all steps were done."""


class Task(nn.Module):
    """A training task. Its parameters that require gradients learn; a call returns the terms of the loss."""

    name: str = "task"

    def forward(self, contents: Tensor, styles: Tensor, progress: float) -> dict[str, Tensor]:
        """Return the weighted terms of the loss, whose sum is minimised.

        contents, styles: (B, 3, H, W) in [0, 1], photographs and artworks; progress: 0 at the start, 1 at the end.
        """
        raise NotImplementedError(f"{type(self).__name__} defines no loss")

    def learned(self) -> nn.Module:
        """Return the module whose weights are checkpointed."""
        return self

    def preview(self, contents: Tensor, styles: Tensor) -> Tensor:
        """Return a picture, (1, 3, H, W), that shows the progress of the training."""
        return contents[:1]

    def optimizers(self, learning_rate: float) -> list[torch.optim.Optimizer]:
        """Return the optimisers; each group's rate is the highest of its one-cycle schedule."""
        return [torch.optim.Adam(self.groups(learning_rate), betas=(0.9, 0.99))]

    def groups(self, learning_rate: float) -> list[dict[str, Any]]:
        """Return the parameters that learn, with the rate of each group."""
        return [{"params": [one for one in self.parameters() if one.requires_grad], "lr": learning_rate}]

    def shippable(self) -> dict[str, Tensor]:
        """Return the tensors to ship."""
        return dict(self.learned().state_dict())

    def config(self) -> dict[str, Any]:
        """Return the shipped file's header, from which the model can be built."""
        return {}


class Learner(Protocol):
    """A method's part of its training: the network that ships and the terms of its loss."""

    network: nn.Module

    def training_terms(self, contents: Tensor, styles: Tensor, progress: float) -> dict[str, Tensor]:
        """Return the weighted terms of the loss for photographs and artworks, each (B, 3, H, W)."""

    def preview(self, contents: Tensor, styles: Tensor) -> Tensor:
        """Return a picture, (1, 3, H, W), that shows the progress of the training."""

    def config(self) -> dict[str, Any]:
        """Return the file's header."""


class MethodTask(Task):
    """The training of a method, from the learner that its file defines."""

    def __init__(self, name: str, learner: nn.Module) -> None:
        super().__init__()
        self.name = name
        self.learner = learner

    def forward(self, contents: Tensor, styles: Tensor, progress: float) -> dict[str, Tensor]:
        """Return the learner's terms."""
        terms: dict[str, Tensor] = cast(Learner, self.learner).training_terms(contents, styles, progress)
        return terms

    def learned(self) -> nn.Module:
        """Return the network that ships."""
        return cast(Learner, self.learner).network

    def preview(self, contents: Tensor, styles: Tensor) -> Tensor:
        """Return the learner's sheet."""
        return cast(Learner, self.learner).preview(contents, styles)

    def config(self) -> dict[str, Any]:
        """Return the learner's header."""
        return cast(Learner, self.learner).config()


@dataclass(frozen=True)
class StepReport:
    """Report after a training step: number, progress from 0 to 1, terms of the loss, rate, seconds."""

    step: int
    progress: float
    terms: dict[str, float]
    learning_rate: float
    seconds: float


def one_cycle(progress: float, highest: float, warm: float = 0.1) -> float:
    """Return the one-cycle learning rate (Smith & Topin 2019) at `progress` from 0 to 1: 1/25, 1, 1e-4 of `highest`."""
    low, end = highest / 25, highest * 1e-4
    if progress < warm:
        return low + (highest - low) * 0.5 * (1 - math.cos(math.pi * progress / warm))
    rest = min(1.0, (progress - warm) / (1 - warm))
    return end + (highest - end) * 0.5 * (1 + math.cos(math.pi * rest))


def train(
    task: Task,
    contents: Pictures,
    styles: Pictures,
    options: TrainOptions,
    folder: Path,
    *,
    resume: bool = False,
    log: bool = False,
    on_step: Callable[[StepReport], None] = lambda report: None,
) -> Path:
    """Train `task` and write ``NAME.safetensors`` into `folder`; returns its path.

    A checkpoint lies beside it; `resume` continues from there and gives the same bits as an uninterrupted run. Raises
    ImpastoError if the loss is not finite, and keeps the last good checkpoint. KeyboardInterrupt writes a checkpoint
    first; `Enough`, from `on_step`, ends the training.
    """
    folder.mkdir(parents=True, exist_ok=True)
    run = _Run.begin(task, options, folder, log)
    if resume:
        run.load()
    try:
        for report in run.steps(contents, styles):
            on_step(report)
    except Enough:
        pass
    except KeyboardInterrupt:
        run.save()
        raise
    run.save()
    run.accelerator.end_training()
    path = folder / f"{task.name}.safetensors"
    if run.accelerator.is_main_process:
        save_weights(task.shippable(), path, {**task.config(), "steps": run.step})
    return path


@dataclass
class _Run:
    """One training in progress."""

    task: Task
    options: TrainOptions
    folder: Path
    accelerator: Accelerator
    model: nn.Module
    optimizers: list[Any]
    peaks: list[list[float]]
    step: int = 0
    before: float = 0.0
    started: float = field(default_factory=time.monotonic)

    @classmethod
    def begin(cls, task: Task, options: TrainOptions, folder: Path, log: bool) -> _Run:
        try:
            from accelerate import Accelerator
            from accelerate.state import AcceleratorState
        except ImportError:
            raise ImpastoError("training needs accelerate: pip install 'impasto[train]'") from None
        AcceleratorState._reset_state()  # a process may train several times, each with its own precision
        accelerator = Accelerator(
            mixed_precision=options.precision,
            log_with="tensorboard" if log else None,
            project_dir=folder,
            cpu=not torch.cuda.is_available(),
        )
        if log:
            accelerator.init_trackers(task.name)
        optimizers = task.optimizers(options.learning_rate)
        peaks = [[float(group["lr"]) for group in optimizer.param_groups] for optimizer in optimizers]
        model, *prepared = accelerator.prepare(task, *optimizers)
        return cls(task, options, folder, accelerator, model, prepared, peaks)

    @property
    def seconds(self) -> float:
        return self.before + time.monotonic() - self.started

    @property
    def progress(self) -> float:
        by_steps = self.step / self.options.steps
        if self.options.minutes is None:
            return min(1.0, by_steps)
        return min(1.0, max(by_steps, self.seconds / (60 * self.options.minutes)))

    def steps(self, contents: Pictures, styles: Pictures) -> Iterator[StepReport]:
        while self.progress < 1:
            yield self._one(contents, styles)
            if self.step % self.options.preview_every == 0:
                self._preview(contents, styles)
            if self.step % self.options.checkpoint_every == 0:
                self.save()

    def _one(self, contents: Pictures, styles: Pictures) -> StepReport:
        options, progress = self.options, self.progress
        rate = self._set_rates(progress)
        torch.manual_seed(options.seed * 1_000_003 + self.step)
        terms = self.model(*self._batches(contents, styles), progress)
        loss = torch.stack([term.float() for term in terms.values()]).sum()
        if not bool(torch.isfinite(loss)):
            raise ImpastoError(f"the loss is not finite at step {self.step}: lower --learning-rate and use --resume")
        self.model.zero_grad()
        self.accelerator.backward(loss)
        norm = self.accelerator.clip_grad_norm_(self.model.parameters(), options.clip)
        if options.precision != "fp16" and norm is not None and not math.isfinite(norm):  # fp16 skips such steps itself
            raise ImpastoError(f"the gradient is not finite at step {self.step}: lower --learning-rate, use --resume")
        for optimizer in self.optimizers:
            optimizer.step()
        self.step += 1
        values = {name: float(term.detach()) for name, term in terms.items()}
        if self.accelerator.trackers:
            self.accelerator.log({**values, "learning_rate": rate}, step=self.step)
        return StepReport(self.step, self.progress, values, rate, self.seconds)

    def _set_rates(self, progress: float) -> float:
        for optimizer, peaks in zip(self.optimizers, self.peaks, strict=True):
            for group, peak in zip(optimizer.param_groups, peaks, strict=True):
                group["lr"] = one_cycle(progress, peak)
        return one_cycle(progress, self.options.learning_rate)

    def _batches(self, contents: Pictures, styles: Pictures) -> tuple[Tensor, Tensor]:
        options, rank = self.options, self.accelerator.process_index
        steps = self.step, self.step // options.steps_an_artwork
        pair = (
            pictures.batch((options.seed, step, rank, i), options.batch, options.crop)
            for i, (step, pictures) in enumerate(zip(steps, (contents, styles), strict=True))
        )
        first, second = (batch.to(self.accelerator.device, memory_format=torch.channels_last) for batch in pair)
        return first, second

    def _preview(self, contents: Pictures, styles: Pictures) -> None:
        if not self.accelerator.is_main_process:
            return
        seed, side = self.options.seed, self.options.crop
        first, second = (p.batch((seed, 0, 0, 2 + i), 4, side) for i, p in enumerate((contents, styles)))
        self.task.eval()
        with torch.no_grad():
            device = self.accelerator.device
            sheet = self.task.preview(first.to(device), second.to(device))
        self.task.train()
        write_image(sheet.float().cpu(), self.folder / f"preview-{self.step:06d}.png")

    def save(self) -> None:
        """Write the checkpoint: weights, optimiser state, position and time, in one safetensors file."""
        if not self.accelerator.is_main_process:
            return
        tensors = {f"model.{k}": v.detach().cpu().contiguous() for k, v in self.task.learned().state_dict().items()}
        for i, optimizer in enumerate(self.optimizers):
            for index, state in optimizer.state_dict()["state"].items():
                name = f"optimizer.{i}.{index}"
                tensors |= {f"{name}.{k}": torch.as_tensor(v).cpu().contiguous() for k, v in state.items()}
        config = {"task": self.task.name, "step": self.step, "seconds": self.seconds}
        write_atomically(self.folder / CHECKPOINT, save(tensors, {HEADER_KEY: json.dumps(config)}))

    def load(self) -> None:
        """Continue from the checkpoint; raises WeightsError if it is missing, damaged or another task's."""
        file = load_weights(self.folder / CHECKPOINT)
        if file.config.get("task") != self.task.name:
            raise ImpastoError(f"{file.path} is a checkpoint of {file.config.get('task')!r}, not of {self.task.name!r}")
        weights = {k.removeprefix("model."): v for k, v in file.tensors.items() if k.startswith("model.")}
        try:
            self.task.learned().load_state_dict(weights)
        except RuntimeError:
            raise ImpastoError(f"{file.path} is a checkpoint of another network: start in another folder") from None
        for i, optimizer in enumerate(self.optimizers):
            state: dict[int, dict[str, Tensor]] = {}
            for name, tensor in file.tensors.items():
                if name.startswith(f"optimizer.{i}."):
                    index, key = name.split(".", 3)[2:]
                    state.setdefault(int(index), {})[key] = tensor
            optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
        self.step, self.before = int(file.config["step"]), float(file.config["seconds"])


@dataclass(frozen=True)
class Training:
    """A training: its options, and the function that builds its task from them, photographs and artworks.

    contents: whether it needs photographs, given by --content.
    """

    options: type[TrainOptions]
    build: Callable[[TrainOptions, Pictures, Pictures], Task]
    contents: bool = True
