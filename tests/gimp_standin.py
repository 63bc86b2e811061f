"""Stands in for what the GIMP plug-in uses of GIMP 3: layers of RGBA bytes, pixbufs, a procedure's arguments."""

from __future__ import annotations

import io
import sys
import types
from enum import Enum
from typing import Any

import numpy as np
import pytest
from PIL import Image


class Status(Enum):
    SUCCESS, CANCEL, CALLING_ERROR, EXECUTION_ERROR = range(4)


class Rectangle:
    @staticmethod
    def new(x: int, y: int, width: int, height: int) -> tuple[slice, slice]:
        return slice(y, y + height), slice(x, x + width)


class Buffer:
    def __init__(self, pixels: Any) -> None:
        self.pixels, self.flushed = pixels, False

    def get(self, area: Any, scale: float, form: str, policy: Any) -> bytes:
        assert (scale, form) == (1.0, "R'G'B'A u8")
        return bytes(self.pixels[area].tobytes())

    def set(self, area: Any, form: str, data: bytes) -> None:
        assert form == "R'G'B'A u8"
        self.pixels[area] = np.frombuffer(data, np.uint8).reshape(self.pixels[area].shape)

    def flush(self) -> None:
        self.flushed = True


class Layer:
    def __init__(self, pixels: Any, name: str = "photo", selection: Any = None) -> None:
        self.pixels, self.name, self.selection = pixels.copy(), name, selection
        self.shadow = Buffer(pixels.copy())
        self.mask: Any = None

    def get_name(self) -> str:
        return self.name

    def set_name(self, name: str) -> None:
        self.name = name

    def get_width(self) -> int:
        return int(self.pixels.shape[1])

    def get_height(self) -> int:
        return int(self.pixels.shape[0])

    def get_buffer(self) -> Buffer:
        return Buffer(self.pixels)

    def get_shadow_buffer(self) -> Buffer:
        return self.shadow

    def merge_shadow(self, undo: bool) -> None:
        assert undo
        assert self.shadow.flushed, "an unflushed buffer may never arrive"
        chosen = np.ones(self.pixels.shape[:2], bool) if self.selection is None else self.selection
        self.pixels[chosen] = self.shadow.pixels[chosen]

    def mask_intersect(self) -> tuple[bool, int, int, int, int]:
        return True, 0, 0, self.get_width(), self.get_height()

    def update(self, *area: int) -> None:
        pass

    def copy(self) -> Layer:
        return Layer(self.pixels, self.name, self.selection)

    def get_parent(self) -> None:
        return None

    def has_alpha(self) -> bool:
        return True

    def get_mask(self) -> Any:
        return self.mask

    def create_mask(self, kind: str) -> Any:
        assert kind == "selection"
        return self.selection

    def add_mask(self, mask: Any) -> None:
        self.mask = mask


class Picture:
    """An image with layers, the topmost first."""

    def __init__(self, layer: Layer) -> None:
        self.layers, self.groups = [layer], 0

    def undo_group_start(self) -> None:
        self.groups += 1

    def undo_group_end(self) -> None:
        self.groups -= 1

    def get_item_position(self, layer: Layer) -> int:
        return self.layers.index(layer)

    def insert_layer(self, layer: Layer, parent: None, position: int) -> None:
        self.layers.insert(position, layer)


class Pixbuf:
    def __init__(self, image: Image.Image) -> None:
        self.image = image

    @staticmethod
    def new_from_bytes(data: bytes, space: Any, alpha: bool, bits: int, width: int, height: int, row: int) -> Pixbuf:
        assert (alpha, bits, row) == (True, 8, 4 * width)
        return Pixbuf(Image.frombytes("RGBA", (width, height), data))

    @staticmethod
    def new_from_file(path: str) -> Pixbuf:
        try:
            return Pixbuf(Image.open(path).convert("RGB"))
        except OSError as error:
            raise GError(str(error)) from None

    def apply_embedded_orientation(self) -> Pixbuf:
        return self

    def save_to_bufferv(self, kind: str, keys: list[str], values: list[str]) -> tuple[bool, bytes]:
        buffer = io.BytesIO()
        self.image.save(buffer, kind)
        return True, buffer.getvalue()

    def get_width(self) -> int:
        return self.image.width

    def get_height(self) -> int:
        return self.image.height

    def get_has_alpha(self) -> bool:
        return self.image.mode == "RGBA"

    def add_alpha(self, substitute: bool, r: int, g: int, b: int) -> Pixbuf:
        return Pixbuf(self.image.convert("RGBA"))

    def scale_simple(self, width: int, height: int, how: Any) -> Pixbuf:
        return Pixbuf(self.image.resize((width, height)))

    def read_pixel_bytes(self) -> Any:
        return types.SimpleNamespace(get_data=self.image.tobytes)


class PixbufLoader:
    @staticmethod
    def new_with_type(kind: str) -> PixbufLoader:
        assert kind == "png"
        return PixbufLoader()

    def write_bytes(self, data: bytes) -> None:
        self.data = data

    def close(self) -> None:
        image = Image.open(io.BytesIO(self.data))
        self.pixbuf = Pixbuf(image.convert("RGBA" if "A" in image.mode else "RGB"))

    def get_pixbuf(self) -> Pixbuf:
        return self.pixbuf


class GError(Exception):
    @property
    def message(self) -> str:
        return str(self)

    @staticmethod
    def new_literal(domain: Any, text: str, code: int) -> GError:
        return GError(text)


class Choice:
    def __init__(self) -> None:
        self.names: list[str] = []

    def add(self, name: str, number: int, label: str, help_text: str) -> None:
        self.names.append(name)


class Procedure:
    """Notes its arguments: name, default."""

    def __init__(self, plug_in: Any, name: str, kind: Any, run: Any, data: Any) -> None:
        self.run, self.arguments, self.menu = run, dict[str, Any](), ""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("add_") and name.endswith("_argument"):
            return lambda key, nick, blurb, *rest: self.arguments.update({key: rest[-2]})
        if name.startswith("set_"):
            return lambda *values: None
        raise AttributeError(name)

    def add_menu_path(self, path: str) -> None:
        self.menu = path

    def new_return_values(self, status: Status, error: Any) -> tuple[Status, str]:
        return status, str(error)


class Config:
    def __init__(self, values: dict[str, Any]) -> None:
        self.values = values

    def get_property(self, name: str) -> Any:
        return self.values[name]


class Anything:
    """A namespace of constants that nothing looks into."""

    def __getattr__(self, name: str) -> str:
        return name.lower()


def install(monkeypatch: pytest.MonkeyPatch) -> list[float | None]:
    """Put the stand-ins in place of GObject's bindings; returns the shares that the progress bar shows."""
    shares: list[float | None] = []
    plug_in = type("PlugIn", (), {"error_quark": staticmethod(lambda: 0)})
    gimp = types.SimpleNamespace(
        PlugIn=plug_in,
        ImageProcedure=types.SimpleNamespace(new=Procedure),
        Choice=types.SimpleNamespace(new=Choice),
        Layer=Layer,
        PDBStatusType=Status,
        Selection=types.SimpleNamespace(is_empty=lambda image: image.layers[-1].selection is None),
        progress_init=lambda text: None,
        progress_update=shares.append,
        progress_pulse=lambda: shares.append(None),
        progress_end=lambda: None,
        displays_flush=lambda: None,
        **{n: Anything() for n in ("PDBProcType", "ProcedureSensitivityMask", "FileChooserAction", "RunMode")},
        **{n: Anything() for n in ("AddMaskType", "MaskApplyMode")},
    )
    gegl = types.SimpleNamespace(Rectangle=Rectangle, AbyssPolicy=Anything(), init=lambda argv: None)
    names = {"Colorspace": Anything(), "InterpType": Anything(), "Pixbuf": Pixbuf, "PixbufLoader": PixbufLoader}
    glib = types.SimpleNamespace(Bytes=types.SimpleNamespace(new=bytes), Error=GError)
    repository = types.ModuleType("gi.repository")
    repository.__dict__.update(
        Gimp=gimp,
        Gegl=gegl,
        GdkPixbuf=types.SimpleNamespace(**names),
        GLib=glib,
        GObject=types.SimpleNamespace(ParamFlags=Anything(), BindingFlags=Anything()),
    )
    gi = types.ModuleType("gi")
    gi.__dict__.update(require_version=lambda name, version: None, repository=repository)
    monkeypatch.setitem(sys.modules, "gi", gi)
    monkeypatch.setitem(sys.modules, "gi.repository", repository)
    return shares
