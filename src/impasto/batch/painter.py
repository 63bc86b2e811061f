"""One model for many pictures: loaded once, each style encoded once for every size."""

from __future__ import annotations

import copy
import shutil
import tempfile
import weakref
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor

from impasto.errors import ImpastoError
from impasto.files import is_remote, url_of
from impasto.images.color import MATCHING_MODES
from impasto.images.files import Picture
from impasto.runs.painting import (
    Inputs,
    PaintJob,
    load_model,
    note_size,
    note_weights,
    pick_device,
    read_masks,
    read_style,
)
from impasto.runs.painting import working_size as find_working_size
from impasto.runs.record import Recipe, digest, is_bare
from impasto.runs.remote_files import read_remote
from impasto.stylizers.base import Stylizer
from impasto.stylizers.styles import Style

MOST_STYLE_BYTES = 500_000_000


class Painter:
    """A recipe's model with its masks and styles. Raises ImpastoError if weights or masks are not available.

    sent: the bytes of files that may not exist on this machine, by the paths in the recipes.
    """

    def __init__(
        self, recipe: Recipe, device: str, runtime: str = "torch", sent: Mapping[Path, bytes] | None = None
    ) -> None:
        self.recipe = recipe
        self._way = device, runtime
        self.model = self._load()
        self.digests: dict[Path, str] = {}
        """The SHA-256 of the styles and masks that were read."""
        self._sent = sent or {}
        self._copies: Path | None = None
        self.masks = read_masks(recipe.model_copy(update={"masks": tuple(map(self._at_hand, recipe.masks))}))
        self._styles: OrderedDict[tuple[Path, int], Style] = OrderedDict()
        self._noted = False
        note_weights(recipe, self.model)

    def _load(self) -> Stylizer:
        device, runtime = self._way
        return load_model(self.recipe, pick_device(device, runtime), runtime)

    def twin(self) -> Painter:
        """Return a painter for another thread, with its own model and styles; it logs nothing."""
        twin = copy.copy(self)
        twin.model, twin.digests, twin._copies, twin._styles = self._load(), {**self.digests}, None, OrderedDict()
        twin._noted = True
        return twin

    def working_size(self, height: int, width: int) -> tuple[int, int]:
        """Return the working size, (height, width), of a photo of height x width; raises ImageError."""
        return find_working_size(self.model, height, width, self.recipe.size)

    def fit(self, photo: Picture) -> Picture:
        """Return the photo at its working size; logs once if that may surprise."""
        own = photo.size
        size = self.working_size(*own)
        if not self._noted:
            self._noted = True
            note_size(self.recipe, self.model, own, size)
        if size == own:
            return photo  # large ones stay bytes
        return photo.resized(*size)

    def job(self, recipe: Recipe, photo: Picture, styles: Sequence[Path]) -> PaintJob:
        """Return a run over a photo from `fit`; reads and encodes the styles if needed. Raises ImpastoError."""
        longer = recipe.style_size or max(photo.size)
        matching = recipe.keep_color in MATCHING_MODES  # the painting takes on each photo's colours
        found = tuple(self._read(path) if matching else self._encoded(path, longer) for path in styles)
        return PaintJob(recipe, self.model, photo.size, Inputs(photo, found, self.masks))

    def _encoded(self, path: Path, longer: int) -> Style:
        known = self._styles.pop((path, longer), None)
        if known is None:
            style = self._read(path)
            known = self.model.take(style) if isinstance(style, Style) else self._encode(style, longer)
        self._styles[path, longer] = known
        while len(self._styles) > 1 and sum(map(_size, self._styles.values())) > MOST_STYLE_BYTES:
            self._styles.popitem(last=False)
        return known

    def _read(self, path: Path) -> Tensor | Style:
        copy = self._at_hand(path)
        try:
            return read_style(copy)
        except ImpastoError as error:
            raise ImpastoError(str(error).replace(str(copy), url_of(path))) from None

    def _at_hand(self, path: Path) -> Path:
        """Return a local path of a style or a mask, and remember its digest; raises ImpastoError."""
        if is_bare(path):
            return path
        copy = path
        if path in self._sent or is_remote(path):
            data = self._sent[path] if path in self._sent else read_remote(path)
            copy = self._folder() / f"{len(self.digests)}{path.suffix}"
            copy.write_bytes(data)
        self.digests[path] = digest(copy)
        return copy

    def _folder(self) -> Path:
        """Return the folder of copies, which exists as long as this painter."""
        if self._copies is None:
            self._copies = Path(tempfile.mkdtemp(prefix="impasto-"))
            weakref.finalize(self, shutil.rmtree, self._copies, ignore_errors=True)
        return self._copies

    def _encode(self, painting: Tensor, longer: int) -> Style:
        return self.model.encode_style(self.model.fit_style(painting, longer))


def _size(style: Style) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in style.values())
