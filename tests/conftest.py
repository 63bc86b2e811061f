"""What all tests share: the same seed, one thread, one small picture."""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from browser_support import find_chromium, open_browser

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(autouse=True, scope="module")
def _no_loop_is_left() -> Iterator[None]:
    """Close the event loops that Gradio leaves open, for which a later test would be blamed."""
    yield
    if "gradio" in sys.modules:
        for loop in [found for found in gc.get_objects() if issubclass(type(found), asyncio.BaseEventLoop)]:
            if not (loop.is_running() or loop.is_closed()):
                loop.close()


@pytest.fixture
def picture() -> Tensor:
    """A colourful picture with smooth and with fine parts, (1, 3, 48, 64) in [0, 1]."""
    y, x = torch.linspace(0, 1, 48).view(-1, 1), torch.linspace(0, 1, 64).view(1, -1)
    waves = 0.5 + 0.5 * torch.sin(40 * x * y + 9 * x)
    checks = ((8 * x).floor() + (6 * y).floor()) % 2
    return torch.stack([(x + y) / 2, waves, 0.8 * checks + 0.2 * y])[None]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Headless Chromium with a fake camera; the test is skipped if it is not there or does not start."""
    if not find_chromium():
        pytest.skip("no Chromium is installed")
    with open_browser() as found:
        yield found
