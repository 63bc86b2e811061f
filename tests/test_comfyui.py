"""The ComfyUI node pack, run as ComfyUI runs it: by stand-ins for the parts of its API that the nodes use."""

from __future__ import annotations

import importlib.util
import json
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import impasto
from tiny import painting, tiny

PACK = Path(__file__).parent.parent / "integrations" / "comfyui"
WIDGETS = {"INT": int, "FLOAT": (int, float), "STRING": str}


class Interrupted(Exception):
    """What ComfyUI raises when the user cancels."""


class Comfy:
    """Stands in for the program: a progress bar that is remembered, a cancel button."""

    def __init__(self) -> None:
        self.bars: list[list[tuple[int, int]]] = []
        self.cancel_after: int | None = None
        self.asked = 0

    def modules(self) -> dict[str, types.ModuleType]:
        comfy = self

        class ProgressBar:
            def __init__(self, total: int) -> None:
                self.total, self.seen = total, []
                comfy.bars.append(self.seen)

            def update_absolute(self, value: int, total: int | None = None, preview: Any = None) -> None:
                self.seen.append((value, total or self.total))

        def throw_exception_if_processing_interrupted() -> None:
            comfy.asked += 1
            if comfy.cancel_after is not None and comfy.asked > comfy.cancel_after:
                raise Interrupted

        root, utils, management = (types.ModuleType(n) for n in ("comfy", "comfy.utils", "comfy.model_management"))
        utils.ProgressBar = ProgressBar
        management.throw_exception_if_processing_interrupted = throw_exception_if_processing_interrupted
        management.get_torch_device = lambda: torch.device("cpu")
        root.utils, root.model_management = utils, management
        return {"comfy": root, "comfy.utils": utils, "comfy.model_management": management}


@pytest.fixture
def comfy(monkeypatch: pytest.MonkeyPatch) -> Comfy:
    comfy = Comfy()
    for name, module in comfy.modules().items():
        monkeypatch.setitem(sys.modules, name, module)
    return comfy


@pytest.fixture
def pack(comfy: Comfy, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The pack, imported as ComfyUI imports a folder of custom_nodes."""
    name = "custom_nodes_impasto"
    spec = importlib.util.spec_from_file_location(name, PACK / "__init__.py", submodule_search_locations=[str(PACK)])
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    monkeypatch.setattr(sys.modules[f"{name}.painting"], "_models", {})
    yield module
    for key in [key for key in sys.modules if key.split(".")[0] == name]:
        del sys.modules[key]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Let `impasto.load` give tiny methods; which ones were loaded."""
    loaded = []

    def load(method: str, *, device: str = "cpu", **options: str) -> Any:
        loaded.append(method)
        return tiny(method)

    monkeypatch.setattr(impasto, "load", load, raising=False)
    return loaded


def check_widget(kind: Any, options: dict[str, Any], value: Any) -> None:
    """Hold a value to its widget as ComfyUI's validation does."""
    if isinstance(kind, list):
        assert value in kind
    elif kind in WIDGETS:
        assert isinstance(value, WIDGETS[kind])
        assert options.get("min", value) <= value <= options.get("max", value)


def run_node(pack: Any, node_name: str, /, **inputs: Any) -> Any:
    """Validate and run a node in inference mode, as ComfyUI does; returns its first output."""
    node = pack.NODE_CLASS_MAPPINGS[node_name]
    declared = node.INPUT_TYPES()
    known = {**declared["required"], **declared.get("optional", {})}
    assert set(declared["required"]) <= set(inputs) <= set(known)
    for key, value in inputs.items():
        kind, *options = known[key]
        check_widget(kind, options[0] if options else {}, value)
    if hasattr(node, "VALIDATE_INPUTS"):
        asked = node.VALIDATE_INPUTS.__code__.co_varnames[1 : node.VALIDATE_INPUTS.__code__.co_argcount]
        fine = node.VALIDATE_INPUTS(**{key: inputs[key] for key in asked if key in inputs})
        if fine is not True:
            raise ValueError(fine)
    with torch.inference_mode():
        out = getattr(node(), node.FUNCTION)(**inputs)
    assert isinstance(out, tuple)
    assert len(out) == len(node.RETURN_TYPES)
    return out[0]


def batch(count: int = 2, height: int = 32, width: int = 48, channels: int = 3) -> Tensor:
    with torch.inference_mode():
        return torch.rand(count, height, width, channels, generator=torch.Generator().manual_seed(3))


PLAIN: dict[str, Any] = {"method": "swift", "strength": 1.0, "size": 0, "keep_color": "off", "seed": 0}


def painted_styles(pack: Any) -> Any:
    return run_node(pack, "ImpastoPainting", image=painting().movedim(1, -1), weight=1.0)


def test_every_node_declares_what_comfyui_reads(pack: Any) -> None:
    assert set(pack.NODE_CLASS_MAPPINGS) == set(pack.NODE_DISPLAY_NAME_MAPPINGS)
    for node in pack.NODE_CLASS_MAPPINGS.values():
        assert callable(getattr(node, node.FUNCTION))
        assert node.CATEGORY
        assert len(node.RETURN_TYPES) == len(node.RETURN_NAMES)
        for kind, *options in [*node.INPUT_TYPES()["required"].values(), *node.INPUT_TYPES()["optional"].values()]:
            assert isinstance(kind, str | list)
            if options and "default" in options[0]:
                check_widget(kind, options[0], options[0]["default"])
    seed = pack.NODE_CLASS_MAPPINGS["ImpastoStylize"].INPUT_TYPES()["required"]["seed"][1]
    assert seed["control_after_generate"] is True


def test_a_batch_is_painted_picture_by_picture(pack: Any, small: list[str]) -> None:
    pictures = batch()
    out = run_node(pack, "ImpastoStylize", image=pictures, styles=painted_styles(pack), **PLAIN)
    assert out.shape == pictures.shape
    assert out.dtype == torch.float32
    assert 0 <= float(out.min()) <= float(out.max()) <= 1
    model = tiny("swift")
    for one, result in zip(pictures.clone(), out, strict=True):
        want = model.stylize(one[None].movedim(-1, 1), painting())
        assert torch.allclose(result[None], want.movedim(1, -1), atol=1e-5)
    assert small == ["swift"], "the model is loaded once for the batch"


def test_an_optimisation_runs_in_comfyuis_inference_mode(pack: Any, small: list[str], comfy: Comfy) -> None:
    with torch.inference_mode():
        styles = painted_styles(pack)
    out = run_node(pack, "ImpastoStylize", image=batch(), styles=styles, **{**PLAIN, "method": "gatys"})
    assert out.shape == (2, 32, 48, 3)
    shares = [value / total for value, total in comfy.bars[-1]]
    assert shares == sorted(shares)
    assert shares[-1] == 1
    assert len(shares) > 4, "the bar moves within a picture, too"


def test_a_list_of_styles_is_mixed_by_weight(pack: Any, small: list[str]) -> None:
    styles = painted_styles(pack)
    both = run_node(pack, "ImpastoPainting", image=painting(40, 52, 6).movedim(1, -1), weight=3.0, styles=styles)
    assert [weight for weight, _ in both] == [1.0, 3.0]
    pictures = batch(1)
    out = run_node(pack, "ImpastoStylize", image=pictures, styles=both, **PLAIN)
    content = pictures.clone().movedim(-1, 1)
    want = tiny("swift").stylize(content, painting(), painting(40, 52, 6), weights=[1, 3])
    assert torch.allclose(out, want.movedim(1, -1), atol=1e-5)


def test_masks_of_a_batch_select_each_picture(pack: Any, small: list[str]) -> None:
    pictures, masks = batch(), torch.zeros(2, 32, 48)
    masks[1, :, :24] = 1
    out = run_node(pack, "ImpastoStylize", image=pictures, styles=painted_styles(pack), mask=masks, **PLAIN)
    assert torch.allclose(out[0], pictures[0], atol=1e-6)
    assert torch.allclose(out[1, :, 24:], pictures[1, :, 24:], atol=1e-6)
    assert not torch.allclose(out[1, :, :24], pictures[1, :, :24], atol=1e-2)
    flat = run_node(pack, "ImpastoStylize", image=pictures, styles=painted_styles(pack), mask=masks[1], **PLAIN)
    assert torch.allclose(flat[1], out[1])


def test_alpha_is_kept_and_grey_becomes_colour(pack: Any, small: list[str]) -> None:
    styles = painted_styles(pack)
    clear = batch(1, channels=4)
    out = run_node(pack, "ImpastoStylize", image=clear, styles=styles, **PLAIN)
    assert torch.equal(out[..., 3], clear[..., 3])
    grey = run_node(pack, "ImpastoStylize", image=batch(1, channels=1), styles=styles, **PLAIN)
    assert grey.shape == (1, 32, 48, 3)


def test_the_size_and_the_colours_are_chosen(pack: Any, small: list[str]) -> None:
    styles, pictures = painted_styles(pack), batch(1)
    out = run_node(pack, "ImpastoStylize", image=pictures, styles=styles, **{**PLAIN, "size": 32})
    assert out.shape == (1, 21, 32, 3)
    for mode in ("luminance", "covariance"):
        kept = run_node(pack, "ImpastoStylize", image=pictures, styles=styles, **{**PLAIN, "keep_color": mode})
        assert kept.shape == pictures.shape


def test_cancel_stops_within_a_picture_and_between_pictures(pack: Any, small: list[str], comfy: Comfy) -> None:
    styles = painted_styles(pack)
    comfy.cancel_after = 2
    with pytest.raises(Interrupted):
        run_node(pack, "ImpastoStylize", image=batch(1), styles=styles, **{**PLAIN, "method": "gatys"})
    assert comfy.asked == 3
    comfy.asked, comfy.cancel_after = 0, 0
    with pytest.raises(Interrupted):
        run_node(pack, "ImpastoStylize", image=batch(), styles=styles, **PLAIN)
    assert comfy.asked == 1


def test_options_are_checked_before_anything_runs(pack: Any, small: list[str]) -> None:
    check = pack.NODE_CLASS_MAPPINGS["ImpastoStylize"].VALIDATE_INPUTS
    assert check("gatys", "steps=20, style-weight=3") is True
    assert check("wct", "detail=(0.1, 0.2, 0.3)") is True
    assert "steps" in check("gatys", "steps=many")
    assert "NAME=VALUE" in check("gatys", "steps")
    assert "no option" in check("swift", "steps=3")
    assert small == []


def test_the_example_workflow_runs(pack: Any) -> None:
    """With the real weights: the workflow that ships names what exists."""
    steps = json.loads((PACK / "example_workflows" / "paint_a_photo.json").read_text(encoding="utf-8"))
    outputs: dict[str, Any] = {}
    for key, step in steps.items():
        inputs = {n: outputs[v[0]] if isinstance(v, list) else v for n, v in step["inputs"].items()}
        if step["class_type"] == "LoadImage":
            outputs[key] = batch(1, 64, 64)
        elif step["class_type"] == "SaveImage":
            outputs[key] = inputs["images"]
        else:
            outputs[key] = run_node(pack, step["class_type"], **inputs)
    assert outputs["5"].shape == (1, 64, 64, 3)
