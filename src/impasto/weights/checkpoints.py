"""Checkpoints of long optimisations: safetensors files from which the same run continues."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from impasto.errors import ImpastoError, WeightsError
from impasto.weights import load_weights, save_weights

PAUSE = 30.0

log = logging.getLogger(__name__)

State = tuple[dict[str, Tensor], dict[str, Any]]
"""Tensors by name, and other values that JSON can hold."""


class Checkpoint:
    """Keeps a run's state, at most every `pause` seconds (None: `PAUSE`).

    identity: the run's settings, as JSON: the state of another run is refused.
    """

    def __init__(self, path: Path, identity: Mapping[str, Any], *, pause: float | None = None) -> None:
        self.path, self.pause = path, PAUSE if pause is None else pause
        self.identity = json.loads(json.dumps(identity, default=str))
        self._last = time.monotonic()

    def offer(self, stage: int, state: Callable[[], State], *, now: bool = False) -> None:
        """Write the result of `state` for this stage of the run, if it is time to, or `now`."""
        if now or time.monotonic() - self._last >= self.pause:
            tensors, values = state()
            config = {"checkpoint": self.identity, "stage": stage, "values": values}
            try:
                save_weights(tensors, self.path, config, half=False)
            except WeightsError as error:  # a full disk is no reason to lose the picture
                log.warning("the run's state could not be kept, and painting goes on: %s", error)
            self._last = time.monotonic()

    def load(self) -> tuple[int, State] | None:
        """Return stage and state, None if there are none; raises ImpastoError if they are another run's."""
        if not self.path.exists():
            return None
        file = load_weights(self.path)
        if "checkpoint" not in file.config:
            raise ImpastoError(f"{self.path} is no checkpoint: name another file")
        if file.config["checkpoint"] != self.identity:
            raise ImpastoError(f"{self.path} is of a run with other options: delete it, or name another file")
        return int(file.config["stage"]), (file.tensors, file.config["values"])

    def finish(self) -> None:
        """Remove the checkpoint of a finished run."""
        self.path.unlink(missing_ok=True)
