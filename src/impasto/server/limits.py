"""Limits of requests. All are on by default, and only flags of the server can raise them."""

from __future__ import annotations

import math
from typing import Any

from pydantic import Field

from impasto.errors import ImpastoError
from impasto.options import MAX_PIXELS, Options

OWN_MACHINE: dict[str, Any] = {
    "max_bytes": 400_000_000,
    "max_pixels": MAX_PIXELS,
    "max_side": 100_000,
    "max_output": MAX_PIXELS,
    "max_work": 10**15,
    "max_seconds": 86_400.0,
    "stop_seconds": 30.0,
    "max_waiting": 100,
    "max_client_waiting": 100,
    "max_waiting_bytes": 4_000_000_000,
    "max_receiving_bytes": 2_000_000_000,
    "keep_seconds": 3600.0,
    "keep_bytes": 2_000_000_000,
    "max_cards": 1000,
    "max_card_bytes": 100_000_000,
}
"""Limits of a server that only its own machine can reach."""


class Limits(Options):
    """Limits of each request, and of all together."""

    max_bytes: int = Field(25_000_000, ge=1000, description="bytes of a request")
    max_pixels: int = Field(30_000_000, ge=256, description="pixels of a received picture")
    max_side: int = Field(16_000, ge=16, description="pixels of its longer side")
    max_pictures: int = Field(8, ge=1, le=100, description="paintings, cards and styles of a request, and its masks")
    max_output: int = Field(12_500_000, ge=256, description="pixels of a result")
    max_work: int = Field(400_000_000, ge=256, description="pixels times steps of a result")
    max_seconds: float = Field(
        600, gt=0, description="seconds that a job may run; then the best picture so far is the result"
    )
    stop_seconds: float = Field(3, gt=0, description="seconds for a job to end when it must; then it is killed")
    max_waiting: int = Field(8, ge=1, le=10_000, description="jobs that may wait for each device")
    max_client_waiting: int = Field(4, ge=1, le=10_000, description="jobs of one address that may wait")
    max_waiting_bytes: int = Field(1_000_000_000, ge=1, description="bytes that waiting jobs may hold")
    max_connections: int = Field(512, ge=4, le=100_000, description="open connections; beyond, idle ones are closed")
    max_client_connections: int = Field(128, ge=1, le=100_000, description="open connections of one address")
    max_followers: int = Field(64, ge=1, le=10_000, description="clients that may follow jobs as events")
    header_seconds: float = Field(5, gt=0, description="seconds until a request's header must be there")
    idle_seconds: float = Field(10, gt=0, description="seconds that a connection may wait for its next request")
    stall_seconds: float = Field(5, gt=0, description="seconds without a byte after which a client is dropped")
    max_receiving_bytes: int = Field(
        400_000_000, ge=1000, description="bytes of requests that are being received; beyond, the slowest is dropped"
    )
    receive_seconds: float = Field(60, gt=0, description="seconds that sending a request may take")
    keep_seconds: float = Field(600, gt=0, description="seconds that a result waits to be fetched")
    keep_bytes: int = Field(300_000_000, ge=1, description="bytes of results that are kept")
    max_cards: int = Field(64, ge=1, le=10_000, description="style cards that are kept")
    max_card_bytes: int = Field(4_000_000, ge=1000, description="bytes of a received style card")

    @classmethod
    def choose(cls, values: dict[str, Any], *, own_machine: bool) -> Limits:
        """Return limits with the given values; own_machine: whether only this machine can reach the server."""
        return cls.parse({**OWN_MACHINE, **values} if own_machine else values, "serve")

    def check_work(self, size: tuple[int, int], steps: float) -> None:
        """Raise TooMuch if painting `size`, (height, width), with work like `steps` steps exceeds the limits."""
        pixels = math.prod(size)
        if pixels > self.max_output:
            raise TooMuch(f"{size[1]}x{size[0]} is more than {self.max_output} pixels; give a smaller size")
        if pixels * steps > self.max_work:
            raise TooMuch(
                f"{size[1]}x{size[0]} with work like {steps:.0f} steps is more than {self.max_work} pixels times "
                "steps; give fewer steps or a smaller size"
            )

    def most_pixels(self, steps: float) -> int:
        """Return the most pixels that may be painted with work like `steps` steps."""
        return min(self.max_output, int(self.max_work / max(steps, 1e-9)))


class TooMuch(ImpastoError):
    """A request beyond the limits."""


class Busy(ImpastoError):
    """More requests than the queue holds."""


class Missing(ImpastoError):
    """Something that does not exist, or no longer."""


class Malformed(ImpastoError):
    """A request that can't be understood."""


class NotReady(ImpastoError):
    """A result that is not ready."""


class Closing(ImpastoError):
    """The server is ending, or no worker can be started."""


class WorkerFault(Exception):
    """A fault of impasto in a worker, whose log says more."""


REFUSALS = {kind.__name__: kind for kind in (TooMuch, Busy, Missing, Malformed, NotReady, Closing)}
"""By the name in messages from a worker to the server."""
