"""The training loop's data: pictures or frozen features, and their labels.

The loop draws from two sources with seeds that differ only in their last number. Both drop it here, so that the second
source gives the labels of the first one's batch.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor

from impasto.errors import ImageError, ImpastoError, WeightsError
from impasto.files import write_atomically
from impasto.images.files import read_image
from impasto.networks.backbone import Backbone
from impasto.networks.classifiers import square
from impasto.progress import OnPart
from impasto.training.pictures import Pictures
from impasto.transfer.class_folders import Sample
from impasto.weights import load_weights
from impasto.weights.files import HEADER_KEY

FEATURES = "features.safetensors"
SAVE_EVERY = 200


@dataclass
class Examples(Pictures):
    """Pictures of one size, uint8 (3, S, S), and their labels; every class is drawn equally often."""

    labels: tuple[int, ...] = ()

    def batch(self, seed: tuple[int, ...], size: int, crop: int) -> Tensor:
        """Return `size` random crops, (size, 3, crop, crop) in [0, 1], randomly mirrored, fixed by the seed."""
        rng = np.random.default_rng(seed[:-1])
        return torch.stack([self._cut(index, rng, crop) for index in draw(self.labels, rng, size)]).float() / 255

    def _cut(self, index: int, rng: np.random.Generator, crop: int) -> Tensor:
        item = self.items[index]
        top, left = (int(rng.integers(side - crop + 1)) for side in item.shape[1:])
        cut = item[:, top : top + crop, left : left + crop]
        return cut.flip(2) if rng.integers(2) else cut


@dataclass
class FeatureExamples(Examples):
    """Frozen features, (2, C, g, g) each: of a picture and of its mirror image."""

    def batch(self, seed: tuple[int, ...], size: int, crop: int) -> Tensor:
        """Return features, (size, C, g, g), of pictures or their mirror images; the same for the same seed."""
        rng = np.random.default_rng(seed[:-1])
        chosen = draw(self.labels, rng, size)
        return torch.stack([self.items[index][int(rng.integers(2))] for index in chosen])


@dataclass
class Labels(Pictures):
    """The labels of the batches of `Examples`."""

    labels: tuple[int, ...] = ()

    def batch(self, seed: tuple[int, ...], size: int, crop: int) -> Tensor:
        """Return class numbers, as floats, (size, 1, 1, 1)."""
        chosen = draw(self.labels, np.random.default_rng(seed[:-1]), size)
        return torch.tensor([float(self.labels[index]) for index in chosen]).view(-1, 1, 1, 1)


def draw(labels: Sequence[int], rng: np.random.Generator, size: int) -> list[int]:
    """Return `size` indices: first a class, with equal chances, then one of its examples."""
    numbers = np.asarray(labels)
    own = [np.flatnonzero(numbers == label) for label in np.unique(numbers)]
    classes = rng.integers(len(own), size=size)
    return [
        int(own[label][int(share * len(own[label]))]) for label, share in zip(classes, rng.random(size), strict=True)
    ]


def read_examples(samples: Sequence[Sample], side: int, on_item: OnPart) -> Examples:
    """Decode `samples` as squares of `side`, skipping unreadable ones. Raises ImpastoError if a class has none left."""
    found = Examples([])
    labels = []
    for done, sample in enumerate(samples, start=1):
        try:
            image = square(read_image(sample.path), side)
        except ImageError as error:
            found.skipped.append(str(error))
        else:
            found.items.append((image[0] * 255).round().to(torch.uint8))
            labels.append(sample.label)
        on_item(done, len(samples))
    return _complete(found, labels, samples)


def _complete(found: Examples, labels: list[int], samples: Sequence[Sample]) -> Examples:
    lost = {sample.label for sample in samples} - set(labels)
    if lost:
        where = next(sample.path for sample in samples if sample.label in lost).parent
        raise ImpastoError(f"no picture in {where} can be read: {found.skipped[0]}")
    found.labels = tuple(labels)
    return found


class FeatureStore:
    """Frozen features by the digest of their picture, kept in a file so that they are computed once.

    body: ends at the layer of the features; grid: cells a side into which they are averaged; size: of the pictures. A
    file for another network, layer, grid or size is overwritten.
    """

    def __init__(self, body: Backbone, layer: str, grid: int, size: int, path: Path) -> None:
        self.body, self.layer, self.size, self.path = body, layer, size, path
        self.pool = torch.nn.AdaptiveAvgPool2d(grid)
        self.key = {"backbone": body.name, "digest": body.digest, "layer": layer, "grid": grid, "size": size}
        self.known = self._read()

    def _read(self) -> dict[str, Tensor]:
        if not self.path.is_file() or self.body.digest == "random":
            return {}
        try:
            file = load_weights(self.path)
        except WeightsError:
            return {}
        return dict(file.tensors) if file.config == self.key else {}

    def _write(self) -> None:
        write_atomically(self.path, save(self.known, {HEADER_KEY: json.dumps(self.key)}))

    def compute(self, samples: Sequence[Sample], on_item: OnPart) -> FeatureExamples:
        """Return the features of `samples`; new ones are computed and kept, also after Ctrl-C. Raises ImpastoError."""
        found, labels, new = FeatureExamples([]), [], 0
        try:
            for done, sample in enumerate(samples, start=1):
                if sample.digest not in self.known:
                    try:
                        self.known[sample.digest] = self._look(sample)
                        new += 1
                    except ImageError as error:
                        found.skipped.append(str(error))
                        continue
                    if new % SAVE_EVERY == 0:
                        self._write()
                found.items.append(self.known[sample.digest])
                labels.append(sample.label)
                on_item(done, len(samples))
        finally:
            if new:
                self._write()
        complete = _complete(found, labels, samples)
        assert isinstance(complete, FeatureExamples)
        return complete

    @torch.no_grad()
    def _look(self, sample: Sample) -> Tensor:
        image = square(read_image(sample.path), self.size).to(self.body.mean.device)
        features: Tensor = self.pool(self.body(torch.cat([image, image.flip(3)]), {self.layer})[self.layer])
        return features.float().cpu()
