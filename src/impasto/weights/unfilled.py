"""Networks whose random initial weights nobody needs, because a file is about to fill them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

RANDOM: frozenset[Callable[..., Any]] = frozenset(
    {
        nn.init.kaiming_uniform_,
        nn.init.uniform_,
        nn.init.normal_,
        nn.init.trunc_normal_,
        nn.init.xavier_uniform_,
        Tensor.uniform_,
        Tensor.normal_,
    }
)


class Unfilled(TorchFunctionMode):
    """While it is entered, random initial weights stay whatever memory holds: a third of the time to load a network."""

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Call `func`, unless it draws numbers into a tensor."""
        given = kwargs or {}
        return given.get("tensor", args[0] if args else None) if func in RANDOM else func(*args, **given)
