"""Folders of models on the Hugging Face Hub, by the extra ``hub``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from impasto.errors import WeightsError

FILES = ["config.json", "*.safetensors"]


def download_folder(repository: str, revision: str | None = None) -> Path:
    """Return the folder of ``owner/name``, from the local cache or the Hub, with FILES alone. Raises WeightsError."""
    hub = _hub()
    try:
        return Path(hub.snapshot_download(repository, revision=revision, allow_patterns=FILES))
    except Exception as error:  # its exceptions have no common base
        raise WeightsError(f"{repository} can't be had from the hub: {_first_line(error)}") from None


def upload_folder(folder: Path, repository: str, *, private: bool = False) -> str:
    """Upload all files of `folder` to the repository ``owner/name``, which is created if needed; returns its URL."""
    hub = _hub()
    try:
        api = hub.HfApi()
        api.create_repo(repository, private=private, exist_ok=True)
        return str(api.upload_folder(repo_id=repository, folder_path=folder))
    except Exception as error:
        raise WeightsError(f"{repository} can't be written on the hub: {_first_line(error)}") from None


def _hub() -> Any:
    try:
        import huggingface_hub
    except ImportError:
        raise WeightsError("the hub needs its client: pip install 'impasto[hub]'") from None
    return huggingface_hub


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
