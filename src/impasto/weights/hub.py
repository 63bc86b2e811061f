"""Folders of models on the Hugging Face Hub, by the extra ``hub``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from impasto.errors import WeightsError

FILES = ["config.json", "*.safetensors"]


def download_folder(repository: str, revision: str | None = None) -> Path:
    """The folder of ``owner/name``, from the local cache or the Hub; nothing but its FILES. Raises WeightsError."""
    hub = _hub()
    try:
        return Path(hub.snapshot_download(repository, revision=revision, allow_patterns=FILES))
    except Exception as error:  # what the client raises has no common base
        raise WeightsError(f"{repository} can't be had from the hub: {_first_line(error)}") from None


def upload_folder(folder: Path, repository: str, *, private: bool = False) -> str:
    """Put all files of `folder` into the repository ``owner/name``, made if need be; returns where they are."""
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
