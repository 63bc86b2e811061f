"""What a stranger may ask for. Every limit is on by default; no request can raise one, only who starts the server."""

from __future__ import annotations

import math

from pydantic import Field

from impasto.errors import ImpastoError
from impasto.options import Options
from impasto.stylizers.base import Stylizer

USUAL_POSITIONS = 4096


class Limits(Options):
    """How much one request may cost, and all of them together."""

    max_bytes: int = Field(25_000_000, ge=1000, description="bytes of a request")
    max_pixels: int = Field(30_000_000, ge=256, description="pixels of a picture that comes in")
    max_side: int = Field(16_000, ge=16, description="pixels of its longer side")
    max_pictures: int = Field(8, ge=1, le=100, description="paintings, cards and styles of a request, and its masks")
    max_output: int = Field(12_000_000, ge=256, description="pixels of a picture that goes out")
    max_work: int = Field(400_000_000, ge=256, description="pixels times steps of a picture that goes out")
    max_seconds: float = Field(600, gt=0, description="seconds that a job may run; then the best picture so far counts")
    max_waiting: int = Field(8, ge=1, le=10_000, description="jobs that may wait for each device")
    max_waiting_bytes: int = Field(1_000_000_000, ge=1, description="bytes that waiting jobs may hold")
    max_receiving: int = Field(16, ge=1, le=10_000, description="requests that may be received at the same time")
    receive_seconds: float = Field(60, gt=0, description="seconds that sending a request may take")
    keep_seconds: float = Field(600, gt=0, description="seconds that a result waits to be fetched")
    keep_bytes: int = Field(300_000_000, ge=1, description="bytes of results that are kept")
    max_cards: int = Field(64, ge=1, le=10_000, description="style cards that are kept")
    max_card_bytes: int = Field(4_000_000, ge=1000, description="bytes of a style card that comes in")

    def check_work(self, model: Stylizer, size: tuple[int, int]) -> None:
        """Raise TooMuch if painting `size`, (height, width), with `model` is more than allowed."""
        pixels = math.prod(size)
        if pixels > self.max_output:
            raise TooMuch(f"{size[1]}x{size[0]} is more than {self.max_output} pixels; give a smaller size")
        options = model.options
        steps = getattr(options, "steps", 1) + getattr(options, "coarse_steps", 0) / 3
        steps *= max(1, getattr(options, "positions", 1) / USUAL_POSITIONS)
        if pixels * steps > self.max_work:
            most = f"{self.max_work} pixels times steps"
            raise TooMuch(
                f"{size[1]}x{size[0]} with {steps:.0f} steps is more than {most}; give fewer or a smaller size"
            )


class TooMuch(ImpastoError):
    """More than one request may ask for."""


class Busy(ImpastoError):
    """More requests than can be waited for."""


class Missing(ImpastoError):
    """Something that is not there, or no longer."""


class Malformed(ImpastoError):
    """A request that can't be understood."""


class NotReady(ImpastoError):
    """A result that is not there yet."""
