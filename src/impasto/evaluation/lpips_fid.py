"""Measures whose weights are not shipped, and why one of them is not available."""

from __future__ import annotations

import importlib
import importlib.util
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from impasto.errors import WeightsError
from impasto.evaluation.metrics import STRUCTURE_LAYER, LossNetwork, structure_distance
from impasto.evaluation.painted import PaintedScore
from impasto.networks.backbones import load_backbone
from impasto.networks.layers import freeze
from impasto.ops.moments import moments
from impasto.weights import Weights
from impasto.weights.torchvision_files import read_state_dict

MEASURES = ("painted", "lpips", "cfsd", "artfid_like", "artfid")
VGG16, VGG19, ALEXNET, LINEAR, INCEPTION = (
    "vgg16-397923af.pth",
    "vgg19-dcbb9e9d.pth",
    "alexnet-owt-7be5be79.pth",
    "alex.pth",
    "weights-inception-2015-12-05-6726825d.pth",
)
"""File names as torchvision, LPIPS' authors and torch-fidelity gave them."""

NO_ARTFID = (
    "it needs an Inception trained on paintings, which impasto can't read: artfid_like, with ImageNet's, stands in"
)


class LPIPS(nn.Module):
    """Learned perceptual distance (Zhang et al. 2018), version 0.1 over AlexNet, with random weights at first."""

    shift: Tensor
    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        shapes = ((3, 64, 11, 4, 2), (64, 192, 5, 1, 2), (192, 384, 3, 1, 1), (384, 256, 3, 1, 1), (256, 256, 3, 1, 1))
        self.convs = nn.ModuleList(nn.Conv2d(i, o, k, stride, padding) for i, o, k, stride, padding in shapes)
        self.linear = nn.ModuleList(nn.Conv2d(shape[1], 1, 1, bias=False) for shape in shapes)
        self.register_buffer("shift", torch.tensor([-0.030, -0.088, -0.188]).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("scale", torch.tensor([0.458, 0.448, 0.450]).view(1, 3, 1, 1), persistent=False)

    @classmethod
    def from_files(cls, alexnet: Path, linear: Path) -> LPIPS:
        """Return LPIPS with torchvision's AlexNet and the authors' linear layers; raises WeightsError."""
        part = cls()
        given = read_state_dict(alexnet).tensors
        tensors = {
            f"convs.{i}.{kind}": given.get(f"features.{number}.{kind}", torch.empty(0))
            for i, number in enumerate((0, 3, 6, 8, 10))
            for kind in ("weight", "bias")
        }
        lines = read_state_dict(linear)
        tensors |= {f"linear.{i}.weight": lines.tensors.get(f"lin{i}.model.1.weight", torch.empty(0)) for i in range(5)}
        Weights(alexnet, tensors, {}, lines.digest).fill(part)
        freeze(part)
        return part

    def forward(self, found: Tensor, wanted: Tensor) -> Tensor:
        """Return the distance of two pictures, (1, 3, H, W) in [0, 1] each, a scalar."""
        total = found.new_zeros(())
        for x, y, linear in zip(self._features(found), self._features(wanted), self.linear, strict=True):
            gap = F.normalize(x, dim=1, eps=1e-10) - F.normalize(y, dim=1, eps=1e-10)
            total = total + moments(linear(gap.square()), full=False).mean.squeeze()
        return total

    def _features(self, image: Tensor) -> list[Tensor]:
        """Return the five convolutions' outputs after their ReLUs."""
        x, found = (2 * image - 1 - self.shift) / self.scale, []
        for i, conv in enumerate(self.convs):
            x = F.relu(conv(F.max_pool2d(x, 3, 2) if i in (1, 2) else x))
            found.append(x)
        return found


class Frechet(Protocol):
    """torchmetrics' Frechet Inception distance, as far as it is used."""

    def update(self, images: Tensor, real: bool) -> None:
        """Add pictures, (B, 3, H, W) in [0, 1]."""

    def compute(self) -> Tensor:
        """Return the distance of all pictures from all real ones."""

    def reset(self) -> None:
        """Forget all pictures."""


class Extras:
    """The measures whose weights are available, and for each of the others why it is missing.

    folder: of weights files, or None; network: the loss network, also used for CFSD if it is torchvision's VGG-19;
    skip: measures to leave out; vgg16: a file with VGG-16, for `PaintedScore`, instead of torchvision's in `folder`.
    """

    def __init__(
        self,
        folder: str | Path | None = None,
        network: LossNetwork | None = None,
        *,
        skip: Sequence[str] = (),
        vgg16: Path | None = None,
        device: str | torch.device = "cpu",
    ) -> None:
        self.folder = None if folder is None else Path(folder)
        self.device = device
        self.missing = dict.fromkeys(skip, "not asked for")
        self.painted: PaintedScore | None = (
            PaintedScore(load_backbone("vgg16", weights=vgg16).to(device))
            if vgg16 is not None and "painted" not in skip
            else self._have("painted", self._load_painted)
        )
        self.lpips: LPIPS | None = self._have("lpips", self._load_lpips)
        self.structure: LossNetwork | None = self._have("cfsd", lambda: self._load_structure(network))
        self.frechet: Frechet | None = self._have("artfid_like", self._load_frechet)
        if self.lpips is None and self.frechet is not None:
            self.missing["artfid_like"] = "it needs LPIPS"
            self.frechet = None
        self.missing.setdefault("artfid", NO_ARTFID)

    def _have(self, measure: str, load: Callable[[], Any]) -> Any:
        """Return the result of `load`, or None and note the reason."""
        if measure in self.missing:
            return None
        try:
            return load()
        except WeightsError as error:
            self.missing[measure] = str(error)
            return None

    def _find(self, name: str) -> Path:
        if self.folder is None:
            raise WeightsError(f"no folder was given in which {name} could be")
        path = self.folder / name
        if not path.is_file():
            raise WeightsError(f"{name} is not in {self.folder}")
        return path

    def _load_painted(self) -> PaintedScore:
        return PaintedScore(load_backbone("vgg16", weights=self._find(VGG16)).to(self.device))

    def _load_lpips(self) -> LPIPS:
        alexnet = self._find(ALEXNET)
        try:
            linear = self._find(LINEAR)
        except WeightsError:
            linear = self._linear_of_torchmetrics()
        return LPIPS.from_files(alexnet, linear).to(self.device)

    def _linear_of_torchmetrics(self) -> Path:
        package = importlib.util.find_spec("torchmetrics")
        for place in (package and package.submodule_search_locations) or ():
            path = Path(place) / "functional" / "image" / "lpips_models" / LINEAR
            if path.is_file():
                return path
        raise WeightsError(f"{LINEAR} is not in {self.folder}, and torchmetrics, which has it, is not installed")

    def _load_structure(self, network: LossNetwork | None) -> LossNetwork:
        if network is not None and network.name == "vgg19":
            return network
        return load_backbone("vgg19", weights=self._find(VGG19)).to(self.device)

    def _load_frechet(self) -> Frechet:
        path = self._find(INCEPTION)
        for package in ("torchmetrics", "torch_fidelity"):
            if importlib.util.find_spec(package) is None:
                raise WeightsError(f"{package.replace('_', '-')} is not installed; pip install torchmetrics[image]")
        if not read_state_dict(path).digest.startswith("6726825d"):
            raise WeightsError(f"{path} is damaged; get it again")
        module: Any = importlib.import_module("torchmetrics.image.fid")
        frechet: Frechet = module.FrechetInceptionDistance(
            feature=2048, normalize=True, feature_extractor_weights_path=str(path)
        ).to(self.device)
        return frechet

    def begin(self) -> None:
        """Forget earlier pictures."""
        if self.frechet is not None:
            self.frechet.reset()

    def collect(self, found: Tensor, style: Tensor) -> None:
        """Add a stylized picture and its painting to the Frechet distance."""
        if self.frechet is not None:
            self.frechet.update(style, real=True)
            self.frechet.update(found, real=False)

    def compare(self, found: Tensor, content: Tensor) -> tuple[float | None, float | None]:
        """Return LPIPS and CFSD of a stylized picture and its photo, (1, 3, H, W) each; None if missing."""
        lpips = None if self.lpips is None else float(self.lpips(found, content))
        if self.structure is None:
            return lpips, None
        x, y = (self.structure(image, {STRUCTURE_LAYER})[STRUCTURE_LAYER] for image in (found, content))
        return lpips, structure_distance(x, y)

    def sum_up(self, lpips: Sequence[float | None]) -> tuple[float | None, float | None]:
        """Return FID, and (1 + LPIPS) (1 + FID), over the collected pictures; None if missing."""
        known = [value for value in lpips if value is not None]
        if self.frechet is None or not known:
            return None, None
        if len(known) < 2:
            self.missing["artfid_like"] = "it needs at least two pictures"
            return None, None
        fid = float(self.frechet.compute())
        return fid, (1 + statistics.fmean(known)) * (1 + fid)
