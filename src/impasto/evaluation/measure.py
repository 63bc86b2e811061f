"""Measures folders of stylized pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from impasto.errors import ImpastoError, OptionError
from impasto.evaluation.lanczos import resize_lanczos
from impasto.evaluation.lpips_fid import Extras
from impasto.evaluation.metrics import (
    CONTENT_LAYER,
    STYLE_LAYERS,
    LossNetwork,
    Statistics,
    content_loss,
    describe_style,
    ssim,
    style_loss,
)
from impasto.evaluation.pairs import Pair, Size, read_sized, show_size
from impasto.evaluation.report import Evaluation, Row
from impasto.images.files import read_image
from impasto.networks.backbone import HEADS, SLIM
from impasto.networks.backbones import load_backbone
from impasto.networks.normalised_vgg import NormalisedVGG
from impasto.progress import OnPart, ignore_part

DEFAULT_NETWORK = SLIM + HEADS
NETWORKS = (DEFAULT_NETWORK, "vgg19")
DEFAULT_SIZE = (512, 512)


def load_loss_network(name: str = DEFAULT_NETWORK, device: str | torch.device = "cpu") -> LossNetwork:
    """Return a loss network: ``vgg19-slim+heads``, torchvision's ``vgg19``, or a folder of a normalised VGG-19.

    Numbers of different networks are not comparable. Raises OptionError for another name, WeightsError.
    """
    if name in NETWORKS:
        return load_backbone(name).to(device)
    if not Path(name).is_dir():
        raise OptionError(f"--loss-network is {', '.join(NETWORKS)} or a folder of safetensors files, not {name!r}")
    return NormalisedVGG.from_folder(name).to(device)


class _Gauge:
    """The state of a run: the current photo, and the style of every painting seen so far."""

    def __init__(self, network: LossNetwork, extras: Extras, size: Size, device: torch.device) -> None:
        self.network, self.extras, self.size, self.device = network, extras, size, device
        self.styles: dict[Path, Statistics] = {}
        self.photo: Path | None = None
        self.resized = 0

    def measure(self, pair: Pair) -> Row:
        """Return the measures of one pair; fastest if pairs of the same photo follow each other."""
        self._look_at(pair.content)
        image = read_image(pair.stylized)
        if image.shape != self.content.shape:
            self.resized += 1
        image = resize_lanczos(image, *self.content.shape[-2:]).to(self.device)
        features = self.network(image, STYLE_LAYERS)
        style = self._style(pair.style)
        if self.extras.frechet is not None:
            self.extras.collect(image, self._painting(pair))
        lpips, cfsd = self.extras.compare(image, self.content)
        painted = self.extras.painted
        return Row(
            content=pair.content.stem,
            style=pair.style.stem,
            style_loss=style_loss(describe_style(features), style),
            photo_style_loss=style_loss(self.own_style, style),
            content_loss=content_loss(features[CONTENT_LAYER], self.seen),
            ssim=ssim(image, self.content),
            lpips=lpips,
            cfsd=cfsd,
            **(painted.compare(image, self._painting(pair), self.content, str(pair.style)) if painted else {}),
        )

    def _painting(self, pair: Pair) -> Tensor:
        return read_sized(pair.style, self.size).to(self.device)

    def _look_at(self, photo: Path) -> None:
        if photo == self.photo:
            return
        self.content: Tensor = read_sized(photo, self.size).to(self.device)
        features = self.network(self.content, STYLE_LAYERS)
        self.own_style, self.seen = describe_style(features), features[CONTENT_LAYER]
        self.photo = photo

    def _style(self, painting: Path) -> Statistics:
        if painting not in self.styles:
            image = read_sized(painting, self.size).to(self.device)
            self.styles[painting] = describe_style(self.network(image, STYLE_LAYERS))
        return self.styles[painting]


@torch.no_grad()
def evaluate(
    pairs: Sequence[Pair],
    network: LossNetwork | None = None,
    *,
    size: Size = DEFAULT_SIZE,
    extras: Extras | None = None,
    device: str | torch.device = "cpu",
    on_pair: OnPart = ignore_part,
) -> Evaluation:
    """Measure the stylized pictures of `pairs` against their photos and paintings, all read at `size`.

    network: None for `load_loss_network()`; extras: LPIPS and the like, None for none. Photos and paintings are scaled
    to (height, width) without regard to proportions, or in proportion to a longer side; stylized pictures to the
    photo's size. The order of `pairs` does not matter. Raises ImpastoError.
    """
    if not pairs:
        raise ImpastoError("there is no picture to measure")
    network = load_loss_network(device=device) if network is None else network
    extras = Extras() if extras is None else extras
    extras.begin()
    gauge = _Gauge(network, extras, size, torch.device(device))
    rows = []
    for number, pair in enumerate(sorted(pairs, key=lambda pair: (pair.content, pair.style)), start=1):
        rows.append(gauge.measure(pair))
        on_pair(number, len(pairs))
    name = "torchvision's vgg19" if network.name == "vgg19" else network.name
    fid, artfid_like = extras.sum_up([row.lpips for row in rows])
    return Evaluation(
        loss_network=name,
        loss_network_digest=network.digest,
        size=show_size(size),
        rows=tuple(rows),
        resized=gauge.resized,
        fid=fid,
        artfid_like=artfid_like,
        missing=dict(extras.missing),
        painted_by=extras.painted.network.digest if extras.painted else "",
    )
