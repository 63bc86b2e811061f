"""The files of the page that paints in the browser: graphs, built-in styles as numbers and pictures, a photo."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from impasto import __version__
from impasto.errors import ImpastoError
from impasto.files import folder_beside
from impasto.images.files import encode_picture
from impasto.images.landscape import landscape
from impasto.runs.split_graphs import (
    convolution_graph,
    describe_network,
    kernels_graph,
    network_graph,
    painting_graph,
    style_graph,
)
from impasto.stylizers.generated_network import HIDDEN, GeneratedNetworks
from impasto.stylizers.styles import built_in_styles, load_style

EXAMPLE_SIZE, THUMB_SIZE = (720, 960), (384, 512)
GRAPHS = {
    "style.onnx": style_graph,
    "kernels.onnx": kernels_graph,
    "network.onnx": network_graph,
}


def write_pair(model: GeneratedNetworks, folder: Path) -> list[str]:
    """Write ``style.onnx``, ``paint.onnx`` and ``styles.json`` into `folder`, all or nothing; returns the names."""
    files = {"style.onnx": style_graph(model), "paint.onnx": painting_graph(model)}
    about = {**describe_network(model), "styles": list_styles(model)}
    del about["layers"]
    return _place(folder, {**files, "styles.json": _as_json(about)})


def write_browser_files(model: GeneratedNetworks, folder: Path) -> list[str]:
    """Write all that the page in the browser fetches to paint into `folder`, all or nothing; returns the names."""
    files = {name: make(model) for name, make in GRAPHS.items()}
    files |= {f"convolve{stride}.onnx": convolution_graph(stride) for stride in (1, 2)}
    files["example.jpg"] = encode_picture(landscape(*EXAMPLE_SIZE), "JPEG", quality=88)
    styles = list_styles(model)
    scene = landscape(*THUMB_SIZE)
    for about in styles:
        painted = functional.interpolate(paint(model, scene, about["name"]), scale_factor=0.5, mode="area")
        files[f"styles/{about['name']}.jpg"] = encode_picture(painted, "JPEG", quality=82)
        about["picture"] = f"styles/{about['name']}.jpg"
    known = {"version": __version__, "network": describe_network(model), "styles": styles}
    return _place(folder, {**files, "models.json": _as_json(known)})


def list_styles(model: GeneratedNetworks) -> list[dict[str, Any]]:
    """Return the built-in styles: name, title, artist, year, and the numbers that `model` paints by."""
    found = []
    for name, path in built_in_styles().items():
        style = load_style(path)
        info = {key: style.info[key] for key in ("title", "artist", "year") if style.info.get(key)}
        numbers = [float(f"{value:.6g}") for value in model.accept_style(style)[HIDDEN].tolist()]
        found.append({"name": name, **info, "numbers": numbers})
    return found


def paint(model: GeneratedNetworks, photo: Tensor, style: str) -> Tensor:
    """Return `photo`, (1, 3, H, W), painted in the built-in style of that name."""
    with torch.no_grad():
        return model.transfer(photo, load_style(style))


def _as_json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def _place(folder: Path, files: dict[str, bytes]) -> list[str]:
    """Write `files` beside `folder`, then move each to its place in it; other files there stay."""
    try:
        with folder_beside(folder) as beside:
            for name, data in files.items():
                (beside / name).parent.mkdir(exist_ok=True)
                (beside / name).write_bytes(data)
            for name in files:
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (beside / name).replace(folder / name)
    except OSError as error:
        raise ImpastoError(f"{folder} can't be written: {error.strerror}; name another folder") from None
    return sorted(files)
