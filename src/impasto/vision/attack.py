"""Pictures that look unchanged to people and like another class to a classifier (Szegedy et al. 2014).

The photo's pixels are the parameter, and the loss is the other class's cross entropy. Unconstrained, by plain gradient
descent, or within a ball in which no pixel changes by more than epsilon, by projected gradient descent (Madry et al.
2018).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import Field
from torch import Tensor

from impasto.errors import OptionError
from impasto.networks.classifiers import LOGITS, Classifier
from impasto.optimize.descent import ImageParameter, Pixels, Result, Settings, optimize_image
from impasto.optimize.losses import ClassLoss, Objective, Term
from impasto.optimize.parameterizations import EpsilonBall
from impasto.options import Options
from impasto.progress import OnStep, ignore

LEVELS = 255


class AttackOptions(Options):
    """Options of an attack."""

    epsilon: float = Field(8.0, ge=0, le=255, description="most that a pixel may change, in 255ths; 0: no limit")
    steps: int = Field(60, ge=1, description="steps")
    step_size: float = Field(1.0, gt=0, description="within the ball: how far a pixel moves at a step, in 255ths")
    learning_rate: float = Field(1.0, gt=0, description="without a limit: gradient descent's learning rate")


@dataclass(frozen=True)
class Attack:
    """A picture before and after, (1, 3, S, S), in 8 bits; its class and the wanted one."""

    before: Tensor
    after: Tensor
    source: int
    target: int
    result: Result

    @property
    def difference(self) -> Tensor:
        """After minus before."""
        return self.after - self.before

    @property
    def largest(self) -> float:
        """The largest change of a value: L-infinity."""
        return float(self.difference.abs().max())

    @property
    def length(self) -> float:
        """The Euclidean length of the change: L2."""
        return float(self.difference.norm())

    def amplified(self) -> Tensor:
        """Return the difference as a picture: grey for no change, scaled by its largest value."""
        return (0.5 + 0.5 * self.difference / max(self.largest, 1 / LEVELS)).clamp(0, 1)

    def judge(self, classifier: Classifier, source: str, target: str) -> dict[str, Any]:
        """Return what `classifier`, the attacked one or another, says: both classes' probabilities and its answer."""
        indices = {"source": classifier.find(source), "target": classifier.find(target)}
        found: dict[str, Any] = {"classifier": classifier.name}
        for when, image in (("before", self.before), ("after", self.after)):
            chances = classifier.probabilities(image.to(classifier.backbone.mean))[0]
            found[when] = {name: float(chances[index]) for name, index in indices.items()}
            found[when]["said"] = classifier.classes[int(chances.argmax())]
        return {**found, "fooled": found["after"]["said"] == classifier.classes[indices["target"]]}


def attack(
    classifier: Classifier, image: Tensor, target: int, options: AttackOptions, *, on_step: OnStep = ignore
) -> Attack:
    """Change `image`, (1, 3, S, S) in [0, 1], until `classifier` takes it for class `target`.

    The classifier sees the picture rounded to 8 bits at every step, so that its answer holds for the written file.
    Raises OptionError if the answer is `target` already.

    Departs from the papers: this rounding, through which gradients pass unchanged.
    """
    before = rounded(image.detach())
    source = int(classifier.probabilities(before).argmax())
    if source == target:
        raise OptionError(
            f"{classifier.name} takes this picture for {classifier.classes[target]!r} already: name another"
        )
    parameter: ImageParameter
    if options.epsilon:
        parameter = EpsilonBall(before, options.epsilon / LEVELS)
        settings = Settings(options.steps, "gd", options.step_size / LEVELS)
    else:
        parameter, settings = Pixels(before), Settings(options.steps, "gd", options.learning_rate)
    objective = Objective(classifier.backbone, [Term("class", LOGITS, ClassLoss(target))])
    result = optimize_image(objective, parameter, settings, augment=_seen_as_file, on_step=on_step)
    return Attack(before, rounded(result.image), source, target, result)


def rounded(image: Tensor) -> Tensor:
    """Return `image` as an 8-bit file holds it."""
    return (image.clamp(0, 1) * LEVELS).round() / LEVELS


def _seen_as_file(image: Tensor) -> Tensor:
    return image + (rounded(image) - image).detach()
