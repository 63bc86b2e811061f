"""Models as folders: options, weights and a model card, on disk or on the Hugging Face Hub."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from impasto.errors import WeightsError
from impasto.files import write_atomically
from impasto.methods import load
from impasto.stylizers.base import Stylizer
from impasto.weights import resolve
from impasto.weights.files import manifest
from impasto.weights.hub import download_folder, upload_folder

CONFIG, CARD = "config.json", "README.md"
WEIGHTS_OPTIONS = ("weights", "backbone_weights")


def save_pretrained(model: Stylizer, folder: str | Path) -> Path:
    """Write `model` into `folder`: config.json, its weights files, a model card. Returns the folder.

    The embedded backbone is not copied. Raises WeightsError if weights came from no file or can't be written.
    """
    folder = Path(folder)
    if "random" in model.digests.values():
        raise WeightsError(f"this {model.name} has weights from no file: name a file by its option, or train some")
    options = model.options.model_dump(mode="json")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name in WEIGHTS_OPTIONS:
            source = _file_of(model, name, options)
            if source is not None:
                options[name] = f"{name}.safetensors"
                write_atomically(folder / options[name], source.read_bytes())
    except OSError as error:
        raise WeightsError(f"{folder} can't be written: {error.strerror}") from None
    config = {"method": model.name, "preset": model.preset, "options": options, "digests": model.digests}
    write_atomically(folder / CONFIG, (json.dumps(config, ensure_ascii=False, indent=2) + "\n").encode())
    write_atomically(folder / CARD, model_card(model).encode())
    return folder


def from_pretrained(
    source: str | Path, *, revision: str | None = None, device: str | torch.device = "cpu", **options: Any
) -> Stylizer:
    """Return the model in a folder that `save_pretrained` wrote, or in the Hub's repository ``owner/name``.

    options: of the method, over the saved ones. Raises ImpastoError if there is none, or if its weights have changed.
    """
    folder = Path(source) if Path(source).is_dir() else download_folder(str(source), revision)
    config = _read_config(folder)
    known = dict(config["options"])
    for name in WEIGHTS_OPTIONS:
        if known.get(name):
            known[name] = str(folder / Path(str(known[name])).name)
    model = load(config["method"], preset=config["preset"], device=device, **{**known, **options})
    replaced = any(name in options for name in (*WEIGHTS_OPTIONS, "backbone"))
    if not replaced and model.digests != config["digests"]:
        raise WeightsError(f"{folder} holds other weights than its {CONFIG} says: get it again")
    return model


def push_to_hub(model: Stylizer, repository: str, *, private: bool = False) -> str:
    """Save `model` and upload it to the Hub's repository ``owner/name``; returns where it is. Raises WeightsError."""
    with tempfile.TemporaryDirectory() as folder:
        return upload_folder(save_pretrained(model, folder), repository, private=private)


def model_card(model: Stylizer) -> str:
    """Return a model card, from the method's docstring and the manifest's entries for its weights."""
    shipped = [(name, entry) for name, entry in manifest().items() if entry["sha256"] in model.digests.values()]
    licences = sorted({str(entry["licence"]) for _, entry in shipped}) if len(shipped) == len(model.digests) else []
    head = ["---", "library_name: impasto", "pipeline_tag: image-to-image", "tags: [style-transfer, image-stylization]"]
    head += [f"license: {licences[0].lower()}"] if len(licences) == 1 else []
    lines = [*head, "---", "", f"# {model.name}", "", " ".join((type(model).__doc__ or "").split()), ""]
    lines += ["```python", "from impasto import from_pretrained, read_image, write_image", ""]
    lines += ['model = from_pretrained("this repository, or its folder")']
    lines += ['picture = model.stylize(read_image("photo.jpg"), read_image("painting.jpg"))']
    lines += ['write_image(picture, "out.png")', "```", "", "## Weights", ""]
    lines += [f"- `{name}`: SHA-256 `{digest}`" for name, digest in model.digests.items()]
    for name, entry in shipped:
        facts = [f"- {key}: {entry[key]}" for key in ("licence", "data", "quality") if key in entry]
        lines += ["", f"### {name}", "", *facts]
    return "\n".join([*lines, ""])


def _file_of(model: Stylizer, option: str, options: Mapping[str, Any]) -> Path | None:
    """Return the weights file of an option; None if there is no such option, or if the package holds the file."""
    if options.get(option):
        return Path(options[option])
    return resolve(model.name) if option == "weights" and option in options else None


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        fits = isinstance(config["options"], dict) and isinstance(config["digests"], dict)
        fits = fits and isinstance(config["method"], str) and isinstance(config["preset"], str)
    except OSError as error:
        raise WeightsError(f"{path} can't be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, RecursionError):
        fits = False
    if not fits:
        raise WeightsError(f"{path} is no model that impasto saved")
    return dict(config)
