"""torchvision's own ImageNet weights: the only place that opens a connection, and the only one that reads a pickle.

Files are in torch's own cache (``TORCH_HOME``), where other programs may have put them already.
"""

from __future__ import annotations

import hashlib
import logging
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import URLError

import torch
from torch import Tensor

from impasto.errors import ImpastoError, WeightsError
from impasto.weights.files import Weights, check_finite

OFFICIAL = {
    "vgg16": "IMAGENET1K_V1",
    "vgg19": "IMAGENET1K_V1",
    "vgg16_bn": "IMAGENET1K_V1",
    "vgg19_bn": "IMAGENET1K_V1",
    "resnet50": "IMAGENET1K_V2",
    "mobilenet_v3_large": "IMAGENET1K_V2",
    "squeezenet1_1": "IMAGENET1K_V1",
}
"""torchvision's weights for each backbone."""

RAFT = {"raft_large": "C_T_SKHT_V2", "raft_small": "C_T_V2"}
"""torchvision's weights for optical flow, best first."""

log = logging.getLogger(__name__)


def official(name: str) -> Path:
    """Return the file of torchvision's weights for the backbone `name`; downloaded once, checked, atomically.

    Raises WeightsError if `name` has none or if they can't be downloaded.
    """
    url = _url(name)
    path = Path(torch.hub.get_dir()) / "checkpoints" / url.rsplit("/", 1)[1]
    if not path.is_file():
        _download(name, url, path)
    return path


def load_official(name: str) -> Weights:
    """Return torchvision's weights for the backbone `name`; raises WeightsError if unavailable or damaged."""
    return _checked(official(name))


def _checked(path: Path) -> Weights:
    weights = read_state_dict(path)
    if not weights.digest.startswith(_hash_prefix(path.name)):
        raise WeightsError(f"{path} is damaged: its checksum is {weights.digest[:8]}...; delete it and try again")
    return weights


def load_torchvision() -> Any:
    """Return torchvision's models; raises ImpastoError if it is not installed or does not fit this torch."""
    try:
        from torchvision import models
    except ImportError:
        raise ImpastoError("torchvision's networks need torchvision: pip install 'impasto[backbones]'") from None
    except RuntimeError:  # its compiled part was made for another torch
        raise ImpastoError(
            f"torchvision does not fit torch {torch.__version__}: install matching versions from one place"
        ) from None
    return models


def load_raft() -> Weights:
    """Return torchvision's weights for RAFT from torch's cache, without a download. Raises WeightsError."""
    models = load_torchvision()
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    names = [str(models.get_model_weights(name)[kind].url).rsplit("/", 1)[1] for name, kind in RAFT.items()]
    for path in (folder / name for name in names):
        if path.is_file():
            return _checked(path)
    raise WeightsError(f"RAFT's weights are not at hand: put {names[-1]} into {folder}, or name a file of them")


def read_state_dict(path: str | Path) -> Weights:
    """Read a PyTorch state dict, tensors only, never running code from it; raises WeightsError in one line."""
    path = Path(path)
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        raise WeightsError(f"{path} does not exist") from None
    except OSError as error:
        raise WeightsError(f"{path} can't be read: {error.strerror}") from None
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # a damaged or hostile pickle may raise anything
        raise WeightsError(f"{path} is no readable state dict: damaged, or holding more than tensors") from None
    tensors = _tensors(content, path)
    check_finite(tensors, path)
    return Weights(path, tensors, {}, digest)


def _tensors(content: object, path: Path) -> dict[str, Tensor]:
    """Return the content of a file as plain tensors by name; raises WeightsError if it is anything else."""
    if not isinstance(content, dict) or not content:
        raise WeightsError(f"{path} is no state dict: it holds no tensors by name")
    found: dict[str, Tensor] = {}
    for name, value in content.items():
        plain = isinstance(value, Tensor) and value.layout == torch.strided and value.device.type == "cpu"
        if not isinstance(name, str) or not plain or value.is_quantized:
            raise WeightsError(f"{path} is no state dict: {name!r} is no plain tensor")
        found[name] = value.detach()
    return found


def _url(name: str) -> str:
    """Return torchvision's URL of the weights for `name`."""
    if name not in OFFICIAL:
        raise WeightsError(f"there are no official weights for {name!r}; there are for: {', '.join(OFFICIAL)}")
    models = load_torchvision()
    return str(models.get_model_weights(name)[OFFICIAL[name]].url)


def _hash_prefix(file_name: str) -> str:
    """Return the start of the SHA-256 in torchvision's file names: ``vgg16-397923af.pth``."""
    return file_name.rsplit(".", 1)[0].rsplit("-", 1)[1]


def _download(name: str, url: str, path: Path) -> None:
    """Fetch `url` to `path` and check it; raises WeightsError in one line and leaves nothing behind."""
    log.info("downloading %s to %s", url, path)
    by_hand = (
        f"or fetch {url} elsewhere and give it with --backbone-weights FILE, or take the embedded --backbone vgg19-slim"
    )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(path), hash_prefix=_hash_prefix(path.name), progress=False)
    except (URLError, ConnectionError, TimeoutError, HTTPException) as error:
        reason = str(getattr(error, "reason", "") or error) or type(error).__name__
        raise WeightsError(f"no connection to download the weights of {name} ({reason}): go online {by_hand}") from None
    except OSError as error:
        raise WeightsError(f"{path} can't be written: {error.strerror or error}") from None
    except RuntimeError:
        raise WeightsError(f"the weights of {name} came damaged (wrong checksum): try again {by_hand}") from None
