"""One-pass methods as ONNX files: photo and painting, of any size, to picture."""

from __future__ import annotations

import json
import warnings
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn

from impasto.errors import ImpastoError
from impasto.files import write_atomically
from impasto.stylizers.one_pass import OnePass

OPSET = 20
LEAST, TRACED = 16, (96, 112)


class _Graph(nn.Module):
    """The exported module: two pictures to one."""

    def __init__(self, model: OnePass) -> None:
        super().__init__()
        self.model = model
        self.parts = nn.ModuleList(part for part in vars(model).values() if isinstance(part, nn.Module))

    def forward(self, content: Tensor, style: Tensor) -> Tensor:
        """Map (1, 3, H, W) and (1, 3, h, w) to (1, 3, H, W), sRGB in [0, 1]."""
        return self.model.forward_for_export(content, style)


def export_onnx(model: OnePass, path: Path) -> None:
    """Write `model` with its weights to `path`, whole or not at all.

    Inputs ``content`` (1, 3, H, W) and ``style`` (1, 3, h, w), output ``picture`` (1, 3, H, W), all float32, sRGB in
    [0, 1], every side from 16 px. Raises ImpastoError if the method can't be exported or onnxscript is missing.
    """
    missing = [name for name in ("onnx", "onnxscript") if find_spec(name) is None]
    if missing:
        raise ImpastoError(f"export needs {' and '.join(missing)}: pip install 'impasto[onnx]'")
    content, style = torch.rand(1, 3, *TRACED), torch.rand(1, 3, TRACED[1], TRACED[0])
    graph = _Graph(model).eval().cpu()
    with torch.no_grad():
        model.forward_for_export(content, style)  # a method that can't be exported says so here
    program = _translate(graph, content, style)
    program.model.metadata_props["impasto"] = json.dumps({"method": model.name, "weights": model.digests})
    write_atomically(path, program.model_proto.SerializeToString())


def _translate(graph: nn.Module, content: Tensor, style: Tensor) -> torch.onnx.ONNXProgram:
    shapes = {
        name: {2: torch.export.Dim(f"{name}_height", min=LEAST), 3: torch.export.Dim(f"{name}_width", min=LEAST)}
        for name in ("content", "style")
    }
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            graph,
            (content, style),
            input_names=["content", "style"],
            output_names=["picture"],
            dynamic_shapes=shapes,
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    if program is None:
        raise ImpastoError("torch gave no ONNX program; another version of torch may")
    return program
