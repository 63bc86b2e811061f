"""OnePass: methods whose network paints in one pass, in one piece or in tiles."""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from impasto.errors import OptionError, is_out_of_memory
from impasto.feedforward.limits import choose_tiling, free, has_fine_detail, smaller
from impasto.feedforward.runtimes import check_runtime, openvino_has_bf16, running_in_full, switch
from impasto.feedforward.stages import (
    Known,
    Stage,
    ask_once,
    blend_in_photo,
    measure_whole,
    photo_share,
    run_whole,
)
from impasto.feedforward.tiled_run import Tiling, measure_tiles, paint_tiles
from impasto.feedforward.transformation_network import StagedNetwork, blend_stage
from impasto.images.exchange import AnyPicture
from impasto.images.tensors import LEAST_SIDE, Canvas, Floats, NewFloats, Window
from impasto.networks.layers import in_half, inference
from impasto.options import Options
from impasto.progress import OnStep, as_steps, ignore
from impasto.stylizers.base import Stylizer
from impasto.stylizers.styles import Style, parts
from impasto.weights import Network, Weights, load_weights, resolve

log = logging.getLogger(__name__)


class OnePassOptions(Options):
    """Options of every one-pass method."""

    weights: str = Field("", description="local weights file instead of the shipped one")
    precision: Literal["auto", "fp32", "bf16"] = Field("auto", description="arithmetic of the convolutions")


class OnePass(Stylizer):
    """A method whose network paints in one pass, as a sequence of local stages: any size, in bounded memory.

    tiling: how pictures are cut; ``auto``: by the free memory, None: only if memory runs out.
    """

    options: Any
    rebuilds: ClassVar[bool] = False
    """Whether its stages at strength 0 give the photo as the network rebuilds it, and not the photo itself."""

    def __init__(self, options: Options, *, device: str | torch.device = "cpu", preset: str = "default") -> None:
        super().__init__(options, device=device, preset=preset)
        self.tiling: Tiling | Literal["auto"] | None = "auto"
        self.network_digest = "random"
        """SHA-256 of the file of its network; ``random`` if the network was given."""

    def open_network(
        self, given: Network | None, make: Callable[[dict[str, Any]], Network]
    ) -> tuple[Network, Weights | None]:
        """Return this method's network, frozen, on the device, and the file from which it was read, if any.

        given: instead of the one in the weights file; make: builds the network of a file's configuration. Raises
        WeightsError.
        """
        file = None
        if given is None:
            file = load_weights(self.options.weights or resolve(self.name))
            given, self.network_digest = file.build(make, self.name), file.digest
        return given.eval().requires_grad_(False).to(self.device).to(memory_format=torch.channels_last), file

    @abstractmethod
    def stages(
        self, style: Style, strength: float = 1.0, size: tuple[int, int] = (LEAST_SIDE, LEAST_SIDE)
    ) -> tuple[Stage, ...]:
        """Return the stages that make the map ``result`` of the map ``image``; see `impasto.feedforward.stages`.

        size: (height, width) of the picture.
        """

    def use_runtime(self, name: str) -> None:
        """Run the chains of layers in the networks by another runtime; torch does the rest."""
        check_runtime(name, self.device, self.options.precision)
        if name == self.runtime:
            return
        if self.runtime != "torch":
            raise OptionError(f"this {self.name} is run by {self.runtime} already: load another one")
        half = name == "openvino" and in_half(self.device, self.chosen_precision) and openvino_has_bf16()
        switch(self, name, half=half)
        self.runtime = name

    @property
    def precision(self) -> str:
        """Precision of torch's arithmetic; another runtime takes and gives float32."""
        return self.chosen_precision if self.runtime == "torch" else "fp32"

    @property
    def chosen_precision(self) -> str:
        """Precision of the convolutions, in any runtime."""
        return str(self.options.precision)

    @property
    def chooses_half(self) -> bool:
        """Whether photos with enough detail are painted in half precision."""
        return in_half(self.device, self.chosen_precision)

    @contextmanager
    def _arithmetic(self, content: Canvas, masks: Sequence[Tensor] = ()) -> Iterator[int]:
        """Run in the chosen precision; in full precision if half would amplify rounding errors of `content`.

        Gives the bytes per number.
        """
        half = self.chooses_half and has_fine_detail(content, masks)
        elsewhere = nullcontext() if self.runtime == "torch" else running_in_full(not half)
        with inference(self.device, self.precision if half else "fp32"), elsewhere:
            yield 2 if half and self.runtime == "torch" else 4

    def forward_for_export(self, content: Tensor, painting: Tensor) -> Tensor:
        """Paint from photo and painting, (1, 3, H, W), by tensors alone, for `impasto export`; in float32."""
        raise OptionError(
            f"{self.name} can't be written as ONNX: it has no single network from photo and painting to picture"
        )

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the network's weights."""
        networks = (value for value in vars(self).values() if isinstance(value, nn.Module))
        return next(parameter.dtype for network in networks for parameter in network.parameters())

    @property
    def element(self) -> int:
        """Bytes per number in the network."""
        return 2 if in_half(self.device, self.precision) else 4

    def transfer(
        self,
        content: Tensor,
        style: Style,
        *,
        strength: float = 1.0,
        mask: Tensor | None = None,
        seed: int = 0,
        on_step: OnStep = ignore,
    ) -> Tensor:
        """Paint in one pass, or in tiles with the same result; (1, 3, H, W) to the same size."""
        if strength == 0:
            self.cut = None
            return content.clamp(0, 1)
        return self._run_stages(content, partial(self._plan, style, strength, Floats(content), mask), mask, on_step)

    def stages_for(self, content: Canvas, style: Style, strength: float, mask: Tensor | None) -> tuple[Stage, ...]:
        """Return the stages for `content`; methods that look at the photo before the first stage override this."""
        return self.stages(style, strength, content.size)

    def _plan(self, style: Style, strength: float, content: Canvas, mask: Tensor | None = None) -> tuple[Stage, ...]:
        """Return the stages; if the network rebuilds photos, with a share of the photo itself at a small strength."""
        stages = self.stages_for(content, style, strength, mask)
        return blend_in_photo(stages, photo_share(strength)) if self.rebuilds and strength < 1 else stages

    def _run_stages(
        self,
        content: Tensor,
        plan: Callable[[], Sequence[Stage]],
        mask: Tensor | None,
        on_step: OnStep,
        regions: Sequence[Tensor] = (),
    ) -> Tensor:
        """Paint `content`, (1, 3, H, W), by the stages that `plan` makes, in one piece or in tiles.

        regions: masks that the stages measure separately, instead of `mask`.
        """
        target = NewFloats(content, self.device)
        self._paint(Floats(content), target, plan, mask, on_step, regions)
        return target.image

    def paint(
        self, content: Canvas, target: Canvas, style: Style, *, strength: float = 1.0, on_step: OnStep = ignore
    ) -> None:
        """Paint like `transfer`, from canvas to canvas of the same size; in tiles, no picture is held as floats."""
        if strength == 0 or min(content.size) < self.least_side:
            everything = Window(0, 0, *content.size)
            photo = content.read(everything)
            painted = self.paint_tensor(photo, [style], None, strength, None, (), 0, on_step)
            target.write(everything, painted)
            return
        self._paint(content, target, partial(self._plan, style, strength, content), None, on_step)

    def _paint(
        self,
        content: Canvas,
        target: Canvas,
        plan: Callable[[], Sequence[Stage]],
        mask: Tensor | None,
        on_step: OnStep,
        regions: Sequence[Tensor] = (),
    ) -> None:
        """Paint from canvas to canvas: in one piece if that fits, else in tiles, halved as long as memory runs out."""
        everything = Window(0, 0, *content.size)
        with self._arithmetic(content, regions or ([] if mask is None else [mask])) as element:
            stages, source = plan(), ask_once(self.moments_of)
            cut = self.tiling
            if cut == "auto":
                cut = choose_tiling(stages, content.size, self.device, element)
            while True:
                self.cut = cut
                try:
                    if cut is None:
                        photo = content.read(everything).to(self.device)
                        target.write(everything, run_whole(stages, photo, mask, moments_of=source))
                        return
                    on_tile = as_steps(on_step, lambda: content.read(everything))
                    paint_tiles(
                        stages, content, target, cut, device=self.device, mask=mask, moments_of=source, on_tile=on_tile
                    )
                    return
                except Exception as error:
                    if not is_out_of_memory(error):
                        raise
                free(self.device)
                cut = smaller(cut, stages, content.size, self.device, element)
                log.warning("not enough memory: once more, in tiles of %d px", cut.tile)


class ArbitraryStyle(OnePass):
    """A one-pass method that paints in the style of any painting: a stage measures it, in one piece or in tiles."""

    @abstractmethod
    def style_stage(self) -> Stage:
        """Return the stage that measures the map ``image`` of a painting."""

    @abstractmethod
    def style_of(self, known: Known) -> Style:
        """Return the style of what `style_stage` measured."""

    def encode_style(self, image: AnyPicture) -> Style:
        """Return what the encoder sees of a painting of any size."""
        image = self.open_painting(image)
        with self._arithmetic(Floats(image)) as element:
            stages = (self.style_stage(),)
            cut = choose_tiling(stages, (image.shape[-2], image.shape[-1]), self.device, element)
            if cut is None:
                known = measure_whole(stages, image.to(self.device))
            else:
                known = measure_tiles(stages, Floats(image), cut, device=self.device)
            found = self.style_of(known)
            values = {name: value.to(self.dtype) for name, value in found.items()}
            return Style(values, found.kind, found.info, convert=self.accept_style)


class StyleNetworks(OnePass):
    """A one-pass method with a network for each style; the networks of a mixture run one after the other."""

    _kept: tuple[Style, StagedNetwork] | None = None

    @abstractmethod
    def build_for(self, style: Style) -> StagedNetwork:
        """Return the network that paints in `style`, which is no mixture; raises OptionError if it holds none."""

    def network_for(self, style: Style) -> StagedNetwork:
        """Return the network for `style`, kept until another one is needed; raises OptionError."""
        if self._kept is None or self._kept[0] is not style:
            self._kept = style, self.build_for(style)
        return self._kept[1]

    def stages(
        self, style: Style, strength: float = 1.0, size: tuple[int, int] = (LEAST_SIDE, LEAST_SIDE)
    ) -> tuple[Stage, ...]:
        """Return the network of each style, then the mixture of their results and the photo."""
        rows: list[Stage] = []
        shares: dict[str, float] = {}
        for number, (share, part) in enumerate(parts(style)):
            outcome = f"{number}.painted"
            rows += self.network_for(part).stages(outcome, f"{number}.")
            shares[outcome] = share
        return (*rows, blend_stage(shares, strength))
