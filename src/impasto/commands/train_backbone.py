"""`impasto train backbone`: its options, and its task."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import torch
from pydantic import Field
from torch import nn

from impasto.errors import OptionError
from impasto.networks.backbones import load_backbone
from impasto.networks.normalised_vgg import NormalisedVGG
from impasto.training.backbone_distillation import Distillation
from impasto.training.loop import Recipe, Task, TrainOptions
from impasto.training.pictures import Pictures
from impasto.weights import load_weights

FIRST_CROPS = 8


class BackboneOptions(TrainOptions):
    """What the distillation of vgg19-slim can be told."""

    teacher: str = Field(
        "vgg19", description="a folder with a normalised VGG-19 as safetensors, or torchvision's vgg19"
    )
    teacher_weights: str = Field("", description="local file for --teacher vgg19 instead of a download")
    from_: str = Field("", description="weights file of a trained vgg19-slim to go on from")
    layer_weights: tuple[float, ...] = Field(
        (1.0,) * 5, min_length=5, max_length=5, description="weights of relu1_1 to relu5_1"
    )
    gram_weight: float = Field(0.1, ge=0, description="weight of the agreement of Gram matrices on artworks")


def load_teacher(options: BackboneOptions) -> nn.Module:
    """The frozen network that is imitated; raises ImpastoError."""
    if Path(options.teacher).is_dir():
        if options.teacher_weights:
            raise OptionError("--teacher-weights is for --teacher vgg19; a folder brings its own")
        return NormalisedVGG.from_folder(options.teacher)
    if options.teacher != "vgg19":
        raise OptionError(f"--teacher is a folder or vgg19; there is no folder {options.teacher}")
    return load_backbone("vgg19", weights=options.teacher_weights or None)


def build(options: TrainOptions, contents: Pictures, styles: Pictures) -> Task:
    """The task, its student started at the pictures' own scale; the same for the same seed."""
    options = cast(BackboneOptions, options)
    teacher = load_teacher(options)
    torch.manual_seed(options.seed)
    crops = [
        pictures.batch((options.seed, i), FIRST_CROPS, options.crop) for i, pictures in enumerate((contents, styles))
    ]
    task = Distillation(
        teacher,
        torch.cat(crops),
        options.gram_weight,
        options.layer_weights,
        load_weights(options.from_) if options.from_ else None,
    )
    return task.to(memory_format=torch.channels_last)


RECIPE = Recipe(BackboneOptions, build)
