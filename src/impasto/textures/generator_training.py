"""Training of a texture generator: samples with a painting's moments that differ from each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from impasto.errors import ImpastoError
from impasto.images.tensors import resize
from impasto.networks.backbone import SLIM
from impasto.networks.backbones import load_backbone
from impasto.ops.moments import Moments, moments
from impasto.optimize.losses import CovarianceLoss
from impasto.optimize.perceptual_loss import STYLE_LAYERS, stack_rows
from impasto.textures.diversity import derangement, diversity_loss, julesz_loss
from impasto.textures.generator import BRANCH, LEVELS, NAME, NOISE, SHIPPED_WIDTHS, PyramidGenerator
from impasto.training.loop import MethodTask, Task, Training, TrainOptions
from impasto.training.one_pass import judging_network
from impasto.training.pictures import Pictures
from impasto.weights import Weights, load_weights

DIVERSITY_LAYER = "relu4_1"
GROUP = 2


def introduced(progress: float, count: int, share: float) -> int:
    """Return how many of `count` textures take part at `progress`: one more every `share` / count of the training."""
    if progress >= share:
        return count
    return min(count, 1 + int(progress / share * count))


class TextureTraining(nn.Module):
    """Texture loss and diversity of the network's samples (Li et al. 2017, sec. 3.2 to 3.4; Ulyanov et al. 2017).

    judge: a frozen callable ``(image, layers) -> features``; paintings: (1, 3, H, W) each, one per texture; group:
    samples of a texture in a batch, which the diversity term compares; introduction: the part of the training over
    which the textures are added one by one (Li's incremental training).

    Departs from the papers: means and centred covariances are compared, in units of the painting's own (Li: centred
    Gram matrices / (C N), absolute differences, gradients of norm 1); diversity is measured at relu4_1 in units of the
    painting's variance there, because the judges stop short of relu4_2; a batch holds several textures, drawn at random
    from those introduced, not one, in turn.
    """

    def __init__(
        self,
        network: PyramidGenerator,
        judge: nn.Module,
        paintings: Sequence[Tensor],
        names: Sequence[str],
        *,
        layers: Sequence[str] = STYLE_LAYERS,
        diversity_weight: float = 0.05,
        diversity_form: Literal["derangement", "julesz"] = "derangement",
        introduction: float = 0.3,
        group: int = GROUP,
    ) -> None:
        super().__init__()
        self.network, self.names, self.layers = network, tuple(names), tuple(layers)
        self.diversity_weight, self.diversity_form = diversity_weight, diversity_form
        self.introduction, self.group = introduction, group
        self._frozen = judge, tuple(paintings)  # in a tuple, so that it is not saved
        wanted = {*layers, DIVERSITY_LAYER}
        with torch.no_grad():
            seen = [{layer: moments(f) for layer, f in judge(painting, wanted).items()} for painting in paintings]
        self.targets = [{layer: CovarianceLoss(found[layer]) for layer in layers} for found in seen]
        self.spreads = [float(found[DIVERSITY_LAYER].variance.mean().clamp_min(1e-8)) for found in seen]

    def config(self) -> dict[str, Any]:
        """Return the network's shape and the textures' names, for the file's header."""
        return {"method": "texture", "textures": list(self.names), **self.network.config()}

    def choose(self, batch: int, progress: float) -> list[int]:
        """Return the textures of a batch, `group` samples each, of those introduced so far."""
        there = introduced(progress, len(self.names), self.introduction)
        wanted = max(1, batch // self.group)
        order = torch.cat([torch.randperm(there) for _ in range(-(-wanted // there))])
        return [int(index) for index in order[:wanted]]

    def paint(self, textures: Sequence[int], side: int, group: int, device: torch.device) -> Tensor:
        """Return `group` samples of each texture, (len(textures) * group, 3, side, side)."""
        side = -(-side // self.network.stride) * self.network.stride
        shares = torch.eye(len(self.names), device=device)[list(textures)].repeat_interleave(group, 0)
        noises = self.network.draw(len(shares), side, side)
        noises = [noise.to(device, memory_format=torch.channels_last) for noise in noises]
        samples: Tensor = self.network(noises, shares)
        return samples

    def training_terms(self, contents: Tensor, styles: Tensor, progress: float) -> dict[str, Tensor]:
        """Return the texture loss of the samples and, if weighted, their diversity.

        `contents` is not used; of `styles` only the number and the size are.
        """
        textures = self.choose(len(styles), progress)
        samples = self.paint(textures, styles.shape[-1], self.group, styles.device)
        by_features = self.diversity_weight > 0 and self.diversity_form == "derangement"
        seen = self._frozen[0](samples, {*self.layers, *([DIVERSITY_LAYER] if by_features else [])})
        terms = {"texture": self._texture(seen, textures)}
        if self.diversity_weight:
            terms["diversity"] = self.diversity_weight * self._diversity(samples, seen, textures)
        return terms

    def _texture(self, seen: dict[str, Tensor], textures: Sequence[int]) -> Tensor:
        losses = []
        for layer in self.layers:
            found = moments(seen[layer])
            for number, texture in enumerate(textures):
                own = slice(number * self.group, (number + 1) * self.group)
                part = Moments(found.count, found.total[own], found.products[own])
                losses.append(self.targets[texture][layer].distance(part))
        return torch.stack(losses).mean()

    def _diversity(self, samples: Tensor, seen: dict[str, Tensor], textures: Sequence[int]) -> Tensor:
        losses = []
        for number, texture in enumerate(textures):
            own = slice(number * self.group, (number + 1) * self.group)
            if self.diversity_form == "julesz":
                losses.append(julesz_loss(samples[own].float()))
            else:
                part = seen[DIVERSITY_LAYER][own].float()
                losses.append(diversity_loss(part, derangement(self.group)) / self.spreads[texture])
        return torch.stack(losses).mean()

    @torch.no_grad()
    def preview(self, contents: Tensor, styles: Tensor) -> Tensor:
        """Return paintings, cut to squares, above two samples of each, (1, 3, 3 H, S W)."""
        side = -(-styles.shape[-1] // self.network.stride) * self.network.stride
        paintings = [_square(painting, side).to(styles) for painting in self._frozen[1]]
        samples = self.paint(range(len(self.names)), side, 2, styles.device).clamp(0, 1)
        return stack_rows((torch.cat(paintings), samples[0::2], samples[1::2]))


def _square(image: Tensor, side: int) -> Tensor:
    """Return the middle of `image`, (1, 3, H, W), at its own scale if it is large enough, (1, 3, side, side)."""
    height, width = image.shape[-2:]
    if min(height, width) < side:
        scale = side / min(height, width)
        image = resize(image, max(side, round(height * scale)), max(side, round(width * scale)))
        height, width = image.shape[-2:]
    top, left = (height - side) // 2, (width - side) // 2
    return image[..., top : top + side, left : left + side]


class TextureTrainOptions(TrainOptions):
    """Options of the training of a texture generator."""

    crop: int = Field(160, ge=32, le=2048, description="side of the samples, px, rounded up as the network needs it")
    learning_rate: float = Field(4e-3, gt=0, le=1, description="highest learning rate of the one-cycle schedule")
    teacher: str = Field(
        "",
        description="network of the loss: a folder with a normalised VGG-19, vgg19-slim for its thin features (the "
        "quickest), or nothing for vgg19-slim with its heads",
    )
    from_: str = Field(
        "",
        description="generator of the same shape to continue from; textures that it lacks begin as the mean of its own",
    )
    layers: tuple[str, ...] = Field(STYLE_LAYERS, min_length=1, description="layers at which textures are compared")
    diversity_weight: float = Field(0.05, ge=0, description="weight of the differences between samples")
    diversity_form: Literal["derangement", "julesz"] = Field(
        "derangement", description="Li's distance of features to another sample's, or Ulyanov's entropy of pixels"
    )
    introduction: float = Field(
        0.3, ge=0, le=1, description="part of the training over which textures are added one by one"
    )
    group: int = Field(
        GROUP, ge=1, description="samples of one texture in a batch; --batch is a multiple of it; 1: without diversity"
    )
    levels: int = Field(LEVELS, ge=2, le=8, description="sizes of noise, each twice the next coarser")
    branch: int = Field(BRANCH, ge=1, le=512, description="channels of each size's own path")
    widths: tuple[int, ...] = Field(
        SHIPPED_WIDTHS, description="channels of the joined path, coarse to fine; empty: the paper's"
    )
    noise: int = Field(NOISE, ge=1, le=64, description="channels of noise")


def build_training(options: TrainOptions, contents: Pictures, styles: Pictures) -> Task:
    """Return a generator with one texture per picture, from random weights or from `from_`."""
    options = cast(TextureTrainOptions, options)
    if options.batch % options.group:
        raise ImpastoError(f"--batch {options.batch} is no multiple of --group {options.group}")
    if options.group == 1 and options.diversity_weight:
        raise ImpastoError("the diversity loss compares samples: it needs --group 2 or more, or --diversity-weight 0")
    if len(set(styles.names)) < len(styles.names):
        raise ImpastoError("textures are named after their files: two of them have the same name")
    torch.manual_seed(options.seed)
    shape = {"levels": options.levels, "branch": options.branch, "noise": options.noise}
    network = PyramidGenerator(len(styles.items), widths=options.widths or None, **shape)
    if options.from_:
        go_on_from(network, styles.names, load_weights(options.from_))
    learner = TextureTraining(
        network,
        _judge(options.teacher),
        [item[None].float() / 255 for item in styles.items],
        styles.names,
        layers=options.layers,
        diversity_weight=options.diversity_weight,
        diversity_form=options.diversity_form,
        introduction=options.introduction,
        group=options.group,
    )
    return MethodTask(NAME, learner).to(memory_format=torch.channels_last)


def go_on_from(network: PyramidGenerator, names: Sequence[str], file: Weights) -> None:
    """Fill `network`, with textures called `names`, from a generator's file; raises WeightsError if it does not fit.

    Each texture takes its scales, shifts and colours; one that the file lacks begins with the mean of all.
    """
    known = [str(name) for name in file.config.get("textures", [])]
    tensors = dict(file.tensors)
    for name in network.selected:
        own = file.tensors.get(name)
        if own is not None and len(own) == len(known):
            rows = [own[known.index(n)] if n in known else own.float().mean(0).to(own.dtype) for n in names]
            tensors[name] = torch.stack(rows)
    replace(file, tensors=tensors).fill(network)


def _judge(teacher: str) -> nn.Module:
    if teacher == SLIM:
        return load_backbone(SLIM, pooling="average").to(memory_format=torch.channels_last)
    return judging_network(teacher)


TRAINING = Training(TextureTrainOptions, build_training, contents=False)
