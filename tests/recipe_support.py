"""What the tests of recipes and transfer learning share: tiny networks and classifiers with random weights."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
from torch import Tensor

from impasto.images.files import read_image
from impasto.images.tensors import fit, resize
from impasto.networks.backbone import Backbone
from impasto.networks.classifiers import Classifier, Head, attach_head
from impasto.networks.layers import freeze
from tiny import narrow_slim


def random_classifier(classes: int = 3, *, size: int = 32, seed: int = 3) -> Classifier:
    """A narrow network with a random head: every picture is of some class."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = attach_head(narrow_slim(), "relu5_1", Head(32, classes, 2))
    freeze(network)
    return Classifier("random", network, tuple("abcdefgh"[:classes]), size)


def digest_of(network: Backbone) -> str:
    """What changes with any weight or buffer."""
    found = hashlib.sha256()
    for name, value in sorted(network.state_dict().items()):
        found.update(name.encode() + value.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()


def natural(name: str, longer: int = 300) -> Tensor:
    """One of scikit-learn's two photographs, ``china.jpg`` (a pagoda) or ``flower.jpg``, (1, 3, H, W)."""
    folder = Path(pytest.importorskip("sklearn.datasets").__file__).parent / "images"
    image = read_image(folder / name)
    return resize(image, *fit(image.shape[-2], image.shape[-1], longer))
