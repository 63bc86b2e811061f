"""`impasto train texture`: its options, and its task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, cast

import torch
from pydantic import Field
from torch import nn

from impasto.commands.train_methods import judging_network
from impasto.errors import ImpastoError
from impasto.networks.backbones import load_backbone
from impasto.networks.vgg19_slim import SLIM
from impasto.optimize.perceptual_loss import STYLE_LAYERS
from impasto.textures.generator import BRANCH, LEVELS, NAME, NOISE, SHIPPED_WIDTHS, PyramidGenerator
from impasto.textures.generator_training import GROUP, TextureTraining
from impasto.training.loop import MethodTask, Recipe, Task, TrainOptions
from impasto.training.pictures import Pictures
from impasto.weights import Weights, load_weights


class TextureTrainOptions(TrainOptions):
    """What the training of a texture generator can be told."""

    crop: int = Field(160, ge=32, le=2048, description="side of the samples, px, rounded up as the network needs it")
    learning_rate: float = Field(4e-3, gt=0, le=1, description="highest learning rate of the one-cycle schedule")
    teacher: str = Field(
        "",
        description="what judges: a folder with a normalised VGG-19, vgg19-slim for its thin features (the quickest), "
        "or nothing for vgg19-slim with its heads",
    )
    from_: str = Field(
        "", description="generator of the same shape to go on from; textures that it lacks begin as the mean of its own"
    )
    layers: tuple[str, ...] = Field(STYLE_LAYERS, min_length=1, description="layers at which textures are compared")
    diversity_weight: float = Field(0.05, ge=0, description="weight of the samples' being different from each other")
    diversity_form: Literal["derangement", "julesz"] = Field(
        "derangement", description="Li's distance of features to another sample's, or Ulyanov's entropy of pixels"
    )
    introduction: float = Field(
        0.3, ge=0, le=1, description="part of the training over which textures come in one after the other"
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


def build_texture(options: TrainOptions, contents: Pictures, styles: Pictures) -> Task:
    """A generator of one texture a picture, from random weights or from `from_`; the same for the same seed."""
    options = cast(TextureTrainOptions, options)
    if options.batch % options.group:
        raise ImpastoError(f"--batch {options.batch} is no multiple of --group {options.group}")
    if options.group == 1 and options.diversity_weight:
        raise ImpastoError("--group 1 leaves nothing to tell apart: it needs --diversity-weight 0")
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
    """Fill `network`, of textures called `names`, from a generator's file; raises WeightsError if it does not fit.

    Each texture takes its own scales, shifts and colours over; one that the file lacks begins with the mean of all.
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


RECIPE = Recipe(TextureTrainOptions, build_texture, contents=False)
