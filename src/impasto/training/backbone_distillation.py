"""Training of vgg19-slim: a thin network learns to imitate VGG-19.

Wang et al. 2020 ("Collaborative Distillation", sec. 3.1) train a thin encoder so that linear maps of its features embed
the large one's. Here the maps end in VGG-19's own ReLU and are kept as heads, every layer's error is divided by that
layer's variance, and a further term compares Gram matrices with VGG-19's on artworks.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from impasto.errors import OptionError
from impasto.networks.backbone import SLIM, VGG19_BLOCKS, VGG19_WIDTHS, Backbone, slim_backbone
from impasto.networks.backbones import load_backbone
from impasto.networks.layers import Conv
from impasto.networks.normalised_vgg import NormalisedVGG
from impasto.ops.moments import channel_stats, moments
from impasto.training.loop import Task, Training, TrainOptions
from impasto.training.pictures import Pictures
from impasto.weights import Weights, load_weights

LAYERS = tuple(f"relu{block}_1" for block in range(1, len(VGG19_BLOCKS) + 1))


class Scaffold(nn.Module):
    """A convolution during training: its weight is a matrix, which Muon updates, followed by batch normalisation.

    Folding the normalisation into the convolution gives the plain convolution that ships. unit: scale the matrix to the
    size of Muon's steps; the normalisation undoes it. keep: initialise the normalisation so that, in evaluation, the
    output is that of `conv`, to continue from a trained network.
    """

    def __init__(self, conv: Conv, *, unit: bool = True, keep: bool = False) -> None:
        super().__init__()
        self.shape, self.edge, self.edge_mode = conv.weight.shape, conv.edge, conv.edge_mode
        matrix = conv.weight.detach().flatten(1).clone()
        size = float(matrix.norm()) / min(matrix.shape) ** 0.5 if unit else 1.0
        self.matrix = nn.Parameter(matrix / size)
        self.norm = nn.BatchNorm2d(conv.out_channels, momentum=0.05)
        if keep and conv.bias is not None:
            nn.init.constant_(self.norm.weight, size)
            self.norm.bias.data.copy_(conv.bias.detach())

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, inputs, H, W) to (B, outputs, H, W)."""
        padded = F.pad(x, self.edge, mode=self.edge_mode)
        normed: Tensor = self.norm(F.conv2d(padded, self.matrix.view(self.shape)))
        return normed

    @torch.no_grad()
    def fold(self, conv: Conv) -> None:
        """Give `conv` the parameters with which it computes what this does in evaluation."""
        norm = self.norm
        assert norm.running_mean is not None
        assert norm.running_var is not None
        assert conv.bias is not None
        gain = norm.weight / (norm.running_var + norm.eps).sqrt()
        conv.weight.copy_((self.matrix * gain[:, None]).view(self.shape))
        conv.bias.copy_(norm.bias - norm.running_mean * gain)


class Distillation(Task):
    """Trains vgg19-slim with its heads against a teacher that gives VGG-19's relu1_1 ... relu5_1.

    teacher: a frozen module ``(image, layers) -> features`` in the normalisation of mean activation 1; image: a few
    crops, (B, 3, H, W), for the student's initialisation; start: a trained student to continue from, with its
    normalisations frozen throughout.

    Departs from the paper: a fifth of the pictures are blends of a photograph and an artwork, and some have noise, so
    that the features also hold for pictures by optimisations and decoders; there is no decoder; the convolutions are
    batch-normalised while they learn, by Muon (Jordan et al. 2024), with the statistics frozen for the last fifth.
    """

    name = SLIM

    def __init__(
        self,
        teacher: nn.Module,
        image: Tensor,
        gram_weight: float = 0.1,
        layer_weights: Sequence[float] = (1.0,) * len(LAYERS),
        start: Weights | None = None,
    ) -> None:
        super().__init__()
        self.student = slim_backbone(heads=True)
        self.gram_weight = gram_weight
        self.layer_weights = dict(zip(LAYERS, layer_weights, strict=True))
        self._teacher = [teacher]  # in a list, so that it is neither trained nor saved
        self.frozen_norms = start is not None
        if start is None:
            initialize(self.student, teacher, image)
        else:
            start.fill(self.student)
        for name, step in self.student.steps.items():
            if isinstance(step, Conv):
                self.student.steps[name] = Scaffold(step, unit=name != "conv1_1", keep=self.frozen_norms)

    def optimizers(self, learning_rate: float) -> list[torch.optim.Optimizer]:
        """Return Muon for all convolutions but the first, and Adam for that one, the heads and the normalisations."""
        _first, *others = [step for step in self.student.steps.values() if isinstance(step, Scaffold)]
        matrices = [step.matrix for step in others]
        known = {id(matrix) for matrix in matrices}
        rest = [parameter for parameter in self.student.parameters() if id(parameter) not in known]
        return [
            torch.optim.Muon(matrices, lr=10 * learning_rate, weight_decay=0.0),
            torch.optim.Adam(rest, lr=learning_rate, betas=(0.9, 0.99)),
        ]

    def train(self, mode: bool = True) -> Distillation:
        """Switch the normalisations, which a frozen backbone would keep in evaluation mode."""
        super().train(mode)
        for module in self.student.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.train(mode)
        return self

    def learned(self) -> nn.Module:
        """Return the student in its training form."""
        return self.student

    def folded(self) -> Backbone:
        """Return the student in its shipped form: plain convolutions."""
        plain = slim_backbone(heads=True)
        for name, step in self.student.steps.items():
            conv = plain.steps[name]
            if isinstance(step, Scaffold) and isinstance(conv, Conv):
                step.fold(conv)
        plain.heads.load_state_dict(self.student.heads.state_dict())
        return plain.eval()

    def shippable(self) -> dict[str, Tensor]:
        """Return the tensors of the plain student."""
        return dict(self.folded().state_dict())

    def config(self) -> dict[str, Any]:
        """Return the kind of network, for the file's header."""
        return {"backbone": SLIM, "heads": list(VGG19_WIDTHS)}

    def teach(self, image: Tensor) -> dict[str, Tensor]:
        """Return the teacher's features, computed in bfloat16."""
        teacher = self._teacher[0].to(image.device)
        with torch.no_grad(), torch.autocast(image.device.type, dtype=torch.bfloat16):
            return {layer: f.float() for layer, f in teacher(image, LAYERS).items()}

    def forward(self, contents: Tensor, styles: Tensor, progress: float) -> dict[str, Tensor]:
        """Return the embedding error of each layer and the Gram error, each relative to the teacher's size."""
        self.train(progress < 0.8 and not self.frozen_norms)
        image = torch.cat([disturb(contents, styles), styles])
        target, found = self.teach(image), self.student(image, LAYERS)
        terms = {
            layer: weight * F.mse_loss(found[layer], target[layer]) / target[layer].var()
            for layer, weight in self.layer_weights.items()
        }
        artworks = slice(len(contents), None)
        terms["gram"] = (
            self.gram_weight
            * torch.stack([gram_error(found[layer][artworks], target[layer][artworks]) for layer in LAYERS]).sum()
        )
        return terms


@torch.no_grad()
def initialize(student: Backbone, teacher: nn.Module, image: Tensor) -> None:
    """Initialise the student at the data's own scale, which saves thousands of steps.

    image: (B, 3, H, W), a few crops. The first filters are random directions in whitened patches, because the
    differences between neighbours that VGG-19's first layer amplifies have a hundredth of the variance of brightness;
    the others are scaled to unit variance (Mishkin & Matas 2016); each head is the least-squares map to the teacher's
    layer.
    """
    target = teacher(image, LAYERS)
    x = (image - student.mean) / student.std
    for name, step in student.steps.items():
        if isinstance(step, Conv):
            if name == "conv1_1":
                _whiten(step, x)
            else:
                nn.init.orthogonal_(step.weight)
            _standardize(step, x)
        x = step(x)
        if name in student.heads:
            _regress(student.heads[name], x, target[name])


def _whiten(conv: Conv, x: Tensor) -> None:
    patches = F.unfold(F.pad(x, conv.edge, mode=conv.edge_mode), conv.kernel_size).transpose(1, 2).flatten(0, 1)
    values, vectors = torch.linalg.eigh(torch.cov(patches.T.double()))
    root = vectors / (values + 1e-4 * values.max()).sqrt() @ vectors.T
    filters = torch.linalg.qr(torch.randn(patches.shape[1], conv.out_channels, dtype=torch.float64))[0].T @ root
    conv.weight.copy_(filters.view_as(conv.weight))


def _standardize(conv: Conv, x: Tensor) -> None:
    assert conv.bias is not None
    conv.bias.zero_()
    mean, deviation = channel_stats(conv(x).transpose(0, 1).flatten(1)[None, :, None])
    conv.weight.div_(deviation.view(-1, 1, 1, 1))
    conv.bias.copy_(-(mean / deviation).flatten())


def _regress(head: nn.Module, x: Tensor, target: Tensor) -> None:
    assert isinstance(head, nn.Sequential)
    conv = head[0]
    assert isinstance(conv, nn.Conv2d)
    assert conv.bias is not None
    rows = F.pad(x.transpose(0, 1).flatten(1).T, (0, 1), value=1.0)  # (B H W, C + 1)
    wanted = target.transpose(0, 1).flatten(1).T
    gram = rows.T @ rows
    solution = torch.linalg.solve(gram + 1e-3 * torch.diag(gram).mean() * torch.eye(len(gram)), rows.T @ wanted)
    conv.weight.copy_(solution[:-1].T.view_as(conv.weight))
    conv.bias.copy_(solution[-1])


def gram_error(features: Tensor, target: Tensor) -> Tensor:
    """Return the squared distance of Gram matrices relative to the target's squared norm, averaged over the batch."""
    found, wanted = moments(features).second, moments(target).second
    return ((found - wanted).square().sum((1, 2)) / wanted.square().sum((1, 2))).mean()


def disturb(contents: Tensor, styles: Tensor) -> Tensor:
    """Blend every fifth photograph with an artwork and give every third some noise, (B, 3, H, W) in [0, 1]."""
    batch = len(contents)
    chance = torch.rand(3, batch, 1, 1, 1, device=contents.device)
    share = torch.where(chance[0] < 0.2, chance[1], torch.zeros_like(chance[1]))
    blended = contents + share * (styles[:batch] - contents)
    noise = torch.randn_like(blended) * torch.where(chance[2] < 0.3, 0.3 * chance[2], torch.zeros_like(chance[2]))
    return (blended + noise).clamp(0, 1)


def correlations(student: nn.Module, teacher: nn.Module, images: list[Tensor]) -> dict[str, float]:
    """Return the Pearson correlation of all features of each layer over `images`, each (1, 3, H, W)."""
    sums = {layer: torch.zeros(6, dtype=torch.float64) for layer in LAYERS}
    for image in images:
        with torch.no_grad():
            pair = student(image, LAYERS), teacher(image, LAYERS)
        for layer in LAYERS:
            a, b = (features[layer].flatten().double() for features in pair)
            sums[layer] += torch.stack([torch.tensor(float(a.numel())), a.sum(), b.sum(), a @ a, b @ b, a @ b])
    found = {}
    for layer, (n, a, b, aa, bb, ab) in sums.items():
        found[layer] = float((n * ab - a * b) / ((n * aa - a * a) * (n * bb - b * b)).sqrt())
    return found


FIRST_CROPS = 8


class BackboneOptions(TrainOptions):
    """Options of the distillation of vgg19-slim."""

    teacher: str = Field(
        "vgg19", description="a folder with a normalised VGG-19 as safetensors, or torchvision's vgg19"
    )
    teacher_weights: str = Field("", description="local file for --teacher vgg19 instead of a download")
    from_: str = Field("", description="weights file of a trained vgg19-slim to continue from")
    layer_weights: tuple[float, ...] = Field(
        (1.0,) * 5, min_length=5, max_length=5, description="weights of relu1_1 to relu5_1"
    )
    gram_weight: float = Field(0.1, ge=0, description="weight of the agreement of Gram matrices on artworks")


def load_teacher(options: BackboneOptions) -> nn.Module:
    """Return the frozen network to imitate; raises ImpastoError."""
    if Path(options.teacher).is_dir():
        if options.teacher_weights:
            raise OptionError("--teacher-weights is for --teacher vgg19; a folder brings its own")
        return NormalisedVGG.from_folder(options.teacher)
    if options.teacher != "vgg19":
        raise OptionError(f"--teacher is a folder or vgg19; there is no folder {options.teacher}")
    return load_backbone("vgg19", weights=options.teacher_weights or None)


def build_training(options: TrainOptions, contents: Pictures, styles: Pictures) -> Task:
    """Return the task, its student initialised at the pictures' own scale; the same for the same seed."""
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


TRAINING = Training(BackboneOptions, build_training)
