"""The nodes: built-in styles and paintings go into a list of styles, and Impasto Stylize paints with it.

ComfyUI's conventions: IMAGE is float32 (B, H, W, C) in [0, 1], MASK is float32 (B, H, W) with 1 where a picture is
selected. A list of styles, IMPASTO_STYLES, is a tuple of (weight, picture or built-in name).
"""

from __future__ import annotations

from typing import Any, ClassVar

import comfy.model_management
import comfy.utils

import impasto
from impasto.images.color import COLOR_MODES

from .painting import METHODS, STYLES, Request, paint, parse_options

CATEGORY = "image/impasto"
WEIGHT = ("FLOAT", {"default": 1.0, "min": 0.0, "max": 10.0, "step": 0.05, "tooltip": "Share of this style."})
MORE_STYLES = ("IMPASTO_STYLES", {"tooltip": "Styles to mix with this one."})
METHOD_HELP = "swift is quick; nnst_d looks more painted, in seconds; nnst is the finest, in minutes."
LARGEST_SEED = 2**63 - 1
LARGEST_SIZE = 16384


def append_style(
    styles: tuple[tuple[float, Any], ...] | None, weight: float, found: Any
) -> tuple[tuple[float, Any], ...]:
    """Return the list of styles with one more."""
    return (*(styles or ()), (weight, found))


class ImpastoStyle:
    """Add a built-in style to the list of styles."""

    CATEGORY = CATEGORY
    DESCRIPTION = "One of the styles that come with impasto. Chain several of these nodes to mix styles."
    RETURN_TYPES = ("IMPASTO_STYLES",)
    RETURN_NAMES = ("styles",)
    FUNCTION = "add"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """Return the widgets and sockets."""
        return {"required": {"name": (list(STYLES),), "weight": WEIGHT}, "optional": {"styles": MORE_STYLES}}

    def add(self, name: str, weight: float, styles: Any = None) -> tuple[Any]:
        """Return the list with the style called `name` at its end."""
        return (append_style(styles, weight, name),)


class ImpastoPainting:
    """Add paintings to the list of styles."""

    CATEGORY = CATEGORY
    DESCRIPTION = "A painting of yours as a style. A batch counts as several paintings, each with this weight."
    RETURN_TYPES = ("IMPASTO_STYLES",)
    RETURN_NAMES = ("styles",)
    FUNCTION = "add"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """Return the widgets and sockets."""
        return {"required": {"image": ("IMAGE",), "weight": WEIGHT}, "optional": {"styles": MORE_STYLES}}

    def add(self, image: Any, weight: float, styles: Any = None) -> tuple[Any]:
        """Return the list with every picture of the batch at its end."""
        for one in image:
            styles = append_style(styles, weight, one[None])
        return (styles,)


class ImpastoStylize:
    """Paint a batch of pictures in the listed styles."""

    CATEGORY = CATEGORY
    DESCRIPTION = "Repaint pictures in one style, or in a mixture of several."
    RETURN_TYPES = ("IMAGE",)
    RETURN_NAMES = ("image",)
    OUTPUT_TOOLTIPS = ("The painted pictures, as many as came in.",)
    FUNCTION = "stylize"
    SEED: ClassVar[dict[str, Any]] = {
        "default": 0,
        "min": 0,
        "max": LARGEST_SEED,
        "control_after_generate": True,
        "tooltip": "The same seed gives the same picture.",
    }

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """Return the widgets and sockets."""
        size = {"default": 0, "min": 0, "max": LARGEST_SIZE, "step": 16}
        return {
            "required": {
                "image": ("IMAGE",),
                "styles": ("IMPASTO_STYLES",),
                "method": (list(METHODS), {"tooltip": METHOD_HELP}),
                "strength": ("FLOAT", {"default": 1.0, "min": 0.0, "max": 1.0, "step": 0.05}),
                "size": ("INT", {**size, "tooltip": "Longer side of the result; 0: as the picture."}),
                "keep_color": (list(COLOR_MODES), {"tooltip": "Keep the picture's own colours."}),
                "seed": ("INT", cls.SEED),
            },
            "optional": {
                "mask": ("MASK", {"tooltip": "Only the selected area is painted."}),
                "options": ("STRING", {"default": "", "tooltip": "The method's options: steps=200, detail=0.6"}),
            },
        }

    @classmethod
    def VALIDATE_INPUTS(cls, method: str, options: str = "") -> bool | str:
        """Return True, or what is wrong with the method's options, before anything runs."""
        try:
            parse_options(method, options)
        except impasto.ImpastoError as error:
            return str(error)
        return True

    def stylize(
        self,
        image: Any,
        styles: Any,
        method: str,
        strength: float,
        size: int,
        keep_color: str,
        seed: int,
        mask: Any = None,
        options: str = "",
    ) -> tuple[Any]:
        """Return the painted batch, (B, H, W, C)."""
        request = Request(method, parse_options(method, options), strength, size or None, keep_color, seed)
        device = comfy.model_management.get_torch_device()
        return (paint(image, styles, mask, request, str(device), Follow(len(image))),)


class Follow:
    """Show how far a batch is, and stop it when the user says so.

    The bar has one unit for each step of each picture. Calling it raises ComfyUI's own exception once the user has
    pressed Cancel.
    """

    def __init__(self, count: int) -> None:
        self.count, self.done = count, 0
        self.bar = comfy.utils.ProgressBar(count)

    def __call__(self, step: Any) -> None:
        """Take note of a step of the current picture."""
        comfy.model_management.throw_exception_if_processing_interrupted()
        total = max(step.total, 1)
        self.bar.update_absolute(self.done * total + min(step.index, total), self.count * total)

    def finish_picture(self) -> None:
        """Take note that the current picture is done."""
        comfy.model_management.throw_exception_if_processing_interrupted()
        self.done += 1
        self.bar.update_absolute(self.done, self.count)


NODE_CLASS_MAPPINGS = {
    "ImpastoStylize": ImpastoStylize,
    "ImpastoStyle": ImpastoStyle,
    "ImpastoPainting": ImpastoPainting,
}
NODE_DISPLAY_NAME_MAPPINGS = {
    "ImpastoStylize": "Impasto Stylize",
    "ImpastoStyle": "Impasto Style",
    "ImpastoPainting": "Impasto Painting",
}
