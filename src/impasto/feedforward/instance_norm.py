"""Adaptive instance normalisation throughout a decoder, at once and as stages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from impasto.feedforward.stages import RESULT, Edge, MomentsOf, Stage, StageInput
from impasto.networks.layers import StepDecoder, size_below
from impasto.ops.moments import adaptive_instance_norm

LevelTargets = Mapping[int, tuple[Tensor, Tensor]]
"""Means and deviations, each (1 or B, C), by level."""


def decode_normalised(decoder: StepDecoder, x: Tensor, targets: LevelTargets, shape: Sequence[int]) -> Tensor:
    """Decode relu4_1's features `x` to a picture of `shape`, normalised at each level of `targets`."""
    for level in range(len(decoder.steps), 0, -1):
        if level in targets:
            x = adaptive_instance_norm(x, *targets[level])
        x = decoder.step(level, x, size_below(level, shape))
    return x


def decoding_stages(
    decoder: StepDecoder, targets: LevelTargets, strength: float = 1.0, own: Mapping[int, str] | None = None
) -> tuple[Stage, ...]:
    """Return `decode_normalised` as stages, from the map ``x4``, which must be measured already, to the result.

    strength: from 0, the photo's means and deviations, to 1, those of `targets`; own: by level, the map that shows the
    photo there, measured already; needed below strength 1, because a decoder that learned with normalised maps can't
    use others.
    """
    own = {} if own is None else own
    return tuple(_step_down(decoder, level, targets, strength, own) for level in range(len(decoder.steps), 0, -1))


def measure_photo(maps: Mapping[int, str]) -> tuple[MomentsOf, ...]:
    """Return the measures of the photo's maps, by level."""
    return tuple(MomentsOf(name, full=False, layer=f"photo.relu{level}_1") for level, name in maps.items())


def measure_level(level: int, targets: LevelTargets) -> tuple[MomentsOf, ...]:
    """Return the measure of the map ``x1``, ``x2`` ..., needed before it is normalised."""
    return (MomentsOf(f"x{level}", full=False, layer=f"relu{level}_1"),) if level in targets else ()


def _step_down(
    decoder: StepDecoder, level: int, targets: LevelTargets, strength: float, own: Mapping[int, str]
) -> Stage:
    above, below = f"x{level}", f"x{level - 1}" if level > 1 else RESULT

    def run(work: StageInput) -> dict[str, Tensor]:
        x = work.maps[above]
        if level in targets:
            mean, deviation = targets[level]
            if strength < 1:
                photo = work.given[own[level]]
                mean = torch.lerp(photo.mean.to(mean), mean, strength)
                deviation = torch.lerp(photo.deviation().to(deviation), deviation, strength)
            x = adaptive_instance_norm(x, mean, deviation, work.given[above])
        return {below: decoder.step(level, x, size_below(level, (work.height, work.width)))}

    return Stage((Edge(above, below, (decoder.steps[level - 1],)),), run, measure_level(level - 1, targets))
