"""An objective whose value and gradient are computed tile by tile, for pictures of any size.

A first pass without gradients sums the moments of all tiles; the style losses and their derivatives with respect to the
moments follow from these. A second pass runs each tile backwards with those fixed derivatives (Galerne et al. 2023,
"Scaling painting style transfer"). Value and gradient are those of the whole picture.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from impasto.feedforward.limits import free, too_large
from impasto.feedforward.tiled_run import Tiling
from impasto.images.tensors import Window, windows
from impasto.networks.backbone import Backbone
from impasto.networks.receptive_field import leaves, reach, stride_after, strides
from impasto.ops.moments import Moments, fit_mask, moments
from impasto.optimize.losses import ChangingLoss, Objective, PlaceLoss, StatisticLoss, Term

SMALLEST_TILE = 192
BYTES_HELD = 240
"""Bytes per pixel besides the tiles: picture, gradient, the optimiser's memory."""

log = logging.getLogger(__name__)


class Tiles:
    """How a picture of height x width is cut for a backbone's `layers`, and each layer's part of a tile."""

    def __init__(self, backbone: Backbone, layers: Collection[str], size: tuple[int, int], tile: int) -> None:
        self.backbone, self.layers, self.size = backbone, layers, size
        ways = {layer: backbone.path(layer) for layer in layers}
        self.strides = {layer: stride_after(way) for layer, way in ways.items()}
        self.align = max(stride for way in ways.values() for stride in _strides_inside(way))
        self.halo = max(reach(way) for way in ways.values())
        self.windows = list(windows(*size, tile, self.align))

    def see(self, image: Tensor) -> Iterator[tuple[Window, Tensor, dict[str, Tensor]]]:
        """Yield every tile: the window with its halo, that part of `image` as a leaf, each layer's own part."""
        for tile in self.windows:
            outer = tile.grown(self.halo, self.align, *self.size)
            part = image[..., outer.top : outer.bottom, outer.left : outer.right].detach()
            part.requires_grad_(torch.is_grad_enabled())
            found = self.backbone(part, self.layers)
            yield outer, part, {layer: self._own(layer, value, tile, outer) for layer, value in found.items()}

    def _own(self, layer: str, value: Tensor, tile: Window, outer: Window) -> Tensor:
        stride = self.strides[layer]
        rows, columns = self.place(layer, tile)
        top, left = outer.top // stride, outer.left // stride
        return value[..., rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]

    def place(self, layer: str, tile: Window) -> tuple[slice, slice]:
        """Return where a tile's own part lies in the layer's features of the whole picture."""
        return tile.at(self.strides[layer], *self.size)

    def masks(self, mask: Tensor | None, layer: str) -> Tensor | None:
        """Return `mask` at the layer's size."""
        height, width = (side // self.strides[layer] for side in self.size)
        return fit_mask(mask, torch.empty(1, 0, height, width))


def _strides_inside(way: list[nn.Module]) -> list[int]:
    """Return the stride behind each layer of `way`: a map in between may be coarser than the last one."""
    return [1, *(stride for _, stride in strides(leaves(way))), stride_after(way)]


@torch.no_grad()
def look(
    backbone: Backbone,
    image: Tensor,
    kept: Collection[str],
    measured: Collection[str],
    mask: Tensor | None = None,
    tile: int | None = None,
) -> tuple[dict[str, Tensor], dict[str, Moments]]:
    """Return the features of `image` at the layers `kept`, and its moments at those `measured`, in the region `mask`.

    tile: the side of the tiles; None: in one piece.
    """
    size = image.shape[-2], image.shape[-1]
    tiles = Tiles(backbone, {*kept, *measured}, size, tile or max(size))
    found: dict[str, Tensor] = {}
    sums: dict[str, Moments] = {}
    masks = {layer: tiles.masks(mask, layer) for layer in measured}
    for window, (_, _, parts) in zip(tiles.windows, tiles.see(image), strict=True):
        for layer, part in parts.items():
            rows, columns = tiles.place(layer, window)
            if layer in kept:
                if layer not in found:
                    height, width = (side // tiles.strides[layer] for side in size)
                    found[layer] = part.new_empty(*part.shape[:2], height, width)
                found[layer][..., rows, columns] = part
            if layer in masks:
                own = masks[layer]
                seen = moments(part, mask=None if own is None else own[..., rows, columns])
                sums[layer] = sums[layer] + seen if layer in sums else seen
    return found, sums


def looking(backbone: Backbone, room: int) -> Callable[[Tensor, Collection[str]], Mapping[str, Moments]]:
    """Return a function that measures pictures: in tiles if a forward and backward pass take more than `room`."""

    def find(image: Tensor, layers: Collection[str]) -> Mapping[str, Moments]:
        tile = choose_tile(backbone, layers, (image.shape[-2], image.shape[-1]), room)
        return look(backbone, image, (), layers, tile=tile)[1]

    return find


@dataclass
class _StyleTerm:
    """One style term in progress: its mask by tiles, the sum so far, the derivative by total and products."""

    term: Term
    loss: StatisticLoss
    mask: Tensor | None
    found: Moments | None = None
    slopes: tuple[Tensor, ...] = ()

    def seen(self, part: Tensor, place: tuple[slice, slice]) -> Moments:
        return moments(part, full=self.loss.full, mask=None if self.mask is None else self.mask[(..., *place)])

    def finish(self) -> Tensor:
        """Return the term's value and fix its derivative."""
        assert self.found is not None
        total, products = self.found.total.detach(), self.found.products.detach()
        with torch.enable_grad():
            total.requires_grad_()
            products.requires_grad_()
            value = self.term.weight * self.loss.distance(Moments(self.found.count, total, products))
            self.slopes = torch.autograd.grad(value, (total, products), allow_unused=True, materialize_grads=True)
        return value.detach()


class TiledObjective:
    """`objective`, evaluated tile by tile, with the same values and the same gradient."""

    def __init__(self, objective: Objective, backbone: Backbone, size: tuple[int, int], tile: int) -> None:
        self.terms = objective.terms
        self.tiles = Tiles(backbone, {*objective.layers} - {"image"}, size, tile)
        self.style_terms = [
            _StyleTerm(term, term.loss, self.tiles.masks(term.loss.mask, term.layer))
            for term in self.terms
            if isinstance(term.loss, StatisticLoss)
        ]

    def __call__(self, image: Tensor) -> dict[str, Tensor]:
        """Return each name's weighted loss for `image`, (1, 3, H, W); their sum has the whole's gradient."""
        self._measure(image)
        found: dict[str, Tensor] = {}
        for one in self.style_terms:
            value = one.finish()
            found[one.term.name] = found.get(one.term.name, 0) + value
        gradient = torch.zeros_like(image)
        for tile, (outer, part, parts) in zip(self.tiles.windows, self.tiles.see(image), strict=True):
            slope = torch.zeros((), device=image.device)
            for one in self.style_terms:
                layer = one.term.layer
                seen = one.seen(parts[layer], self.tiles.place(layer, tile))
                slope = slope + (seen.total * one.slopes[0]).sum() + (seen.products * one.slopes[1]).sum()
            for name, value in self._content(parts, tile):
                found[name] = found.get(name, 0) + value.detach()
                slope = slope + value
            if slope.requires_grad:
                (own,) = torch.autograd.grad(slope, part)
                gradient[..., outer.top : outer.bottom, outer.left : outer.right] += own
        if found:
            first = next(iter(found))
            found[first] = _KnownGradient.apply(image, found[first], gradient)
        return self._with_pixels(found, image)

    @torch.no_grad()
    def _measure(self, image: Tensor) -> None:
        for one in self.style_terms:
            one.found = None
        if not self.style_terms:
            return
        for tile, (_, _, parts) in zip(self.tiles.windows, self.tiles.see(image), strict=True):
            for one in self.style_terms:
                seen = one.seen(parts[one.term.layer], self.tiles.place(one.term.layer, tile))
                one.found = seen if one.found is None else one.found + seen

    def _content(self, parts: dict[str, Tensor], tile: Window) -> Iterator[tuple[str, Tensor]]:
        for term in self.terms:
            if isinstance(term.loss, PlaceLoss):
                rows, columns = self.tiles.place(term.layer, tile)
                yield term.name, term.weight * term.loss.part(parts[term.layer], rows, columns)

    def _with_pixels(self, found: dict[str, Tensor], image: Tensor) -> dict[str, Tensor]:
        for term in self.terms:
            if term.layer == "image":
                value = term.weight * term.loss(image)
                found[term.name] = found[term.name] + value if term.name in found else value
        return found


class _KnownGradient(torch.autograd.Function):
    """A value of the image whose gradient is already known."""

    @staticmethod
    def forward(ctx: Any, image: Tensor, value: Tensor, gradient: Tensor) -> Tensor:
        ctx.save_for_backward(gradient)
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *by_value: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        return by_value[0] * gradient, None, None


class FittingObjective:
    """`objective`, tile by tile if `tile` is set, and in smaller tiles if memory runs out."""

    def __init__(self, objective: Objective, backbone: Backbone, size: tuple[int, int], tile: int | None) -> None:
        self.objective, self.backbone, self.size = objective, backbone, size
        self.tile = tile
        self.current: Objective | TiledObjective = objective if tile is None else self._cut(tile)

    def __call__(self, image: Tensor) -> dict[str, Tensor]:
        """Return each name's weighted loss for `image`."""
        return self.current(image)

    def begin(self, step: int) -> None:
        """Prepare losses that change from step to step."""
        for term in self.objective.terms:
            if isinstance(term.loss, ChangingLoss):
                term.loss.begin(step)

    @property
    def cut(self) -> Tiling | None:
        """The tiles, None for one piece."""
        return None if self.tile is None else Tiling(self.tile)

    def shrink(self) -> None:
        """Halve the tiles; raises ImpastoError if they are the smallest ones."""
        device = next(self.backbone.parameters()).device
        self.current = self.objective
        free(device)
        self.tile = halve(self.tile, self.size, device)
        self.current = self._cut(self.tile)
        log.warning("not enough memory: going on in tiles of %d px", self.tile)

    def _cut(self, tile: int) -> TiledObjective:
        return TiledObjective(self.objective, self.backbone, self.size, tile)


def halve(tile: int | None, size: tuple[int, int], device: torch.device) -> int:
    """Return the next smaller tile; raises ImpastoError if there is none."""
    found = (tile or max(size)) // 2 // 16 * 16
    if found < SMALLEST_TILE // 2:
        raise too_large(size, device, BYTES_HELD)
    return found


def choose_tile(backbone: Backbone, layers: Collection[str], size: tuple[int, int], room: int) -> int | None:
    """Return the tile whose forward and backward pass to `layers` take `room` bytes; None if the whole picture fits."""
    each = bytes_backwards(backbone, layers)
    if size[0] * size[1] * each <= room:
        return None
    tile = int((room / each) ** 0.5) - 2 * max(reach(backbone.path(layer)) for layer in layers)
    return max(SMALLEST_TILE, tile // 16 * 16)


def bytes_backwards(backbone: Backbone, layers: Collection[str]) -> float:
    """Return the bytes per pixel of a forward and a backward pass to `layers`: outputs, padded copies, gradients."""
    deepest = max(layers, key=lambda layer: len(backbone.path(layer)))
    held = 0.0
    channels = 3
    for layer, stride in strides(leaves(backbone.path(deepest))):
        channels = layer.out_channels if isinstance(layer, nn.Conv2d) else channels
        held += channels / stride**2
    return 4 * 1.6 * held
