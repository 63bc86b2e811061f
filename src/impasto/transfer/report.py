"""Quality of a classifier on unseen pictures: accuracy, confusion matrix, the errors themselves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from impasto.errors import ImageError, ImpastoError
from impasto.images.contact_sheet import contact_sheet
from impasto.images.files import read_image
from impasto.networks.classifiers import Classifier
from impasto.progress import OnPart, ignore_part
from impasto.transfer.class_folders import Sample

MOST_ROWS, MOST_COLUMNS = 24, 8


@dataclass(frozen=True)
class Verdict:
    """The classifier's answer for one picture: the class, and its probability."""

    sample: Sample
    said: int
    probability: float


@dataclass(frozen=True)
class FitReport:
    """All verdicts on a test set. confusion: counts by (true, predicted)."""

    classes: tuple[str, ...]
    verdicts: tuple[Verdict, ...]

    @property
    def confusion(self) -> Tensor:
        """Counts, (classes, classes): rows are the truth, columns the predictions."""
        table = torch.zeros(len(self.classes), len(self.classes), dtype=torch.long)
        for verdict in self.verdicts:
            table[verdict.sample.label, verdict.said] += 1
        return table

    @property
    def accuracy(self) -> float:
        """The share of correct predictions."""
        return float(self.confusion.trace()) / len(self.verdicts)

    @property
    def recalls(self) -> dict[str, float]:
        """Each class' accuracy."""
        table = self.confusion
        shares = table.diagonal() / table.sum(1).clamp_min(1)
        return dict(zip(self.classes, shares.tolist(), strict=True))

    @property
    def balanced_accuracy(self) -> float:
        """The mean of the classes' accuracies."""
        return sum(self.recalls.values()) / len(self.classes)

    @property
    def errors(self) -> list[Verdict]:
        """The wrong predictions, the surest first."""
        wrong = [verdict for verdict in self.verdicts if verdict.said != verdict.sample.label]
        return sorted(wrong, key=lambda verdict: -verdict.probability)

    def to_json(self) -> dict[str, Any]:
        """Return all numbers, and the errors by file."""
        return {
            "accuracy": self.accuracy,
            "balanced_accuracy": self.balanced_accuracy,
            "tested": len(self.verdicts),
            "class_accuracy": self.recalls,
            "classes": list(self.classes),
            "confusion": self.confusion.tolist(),
            "errors": [
                {
                    "file": str(verdict.sample.path),
                    "class": self.classes[verdict.sample.label],
                    "said": self.classes[verdict.said],
                    "probability": verdict.probability,
                }
                for verdict in self.errors
            ],
        }

    def to_markdown(self) -> str:
        """Return the accuracy and the confusion matrix."""
        lines = [
            f"Accuracy {self.accuracy:.1%} on {len(self.verdicts)} pictures ({self.balanced_accuracy:.1%} as the mean "
            "of the classes). Rows are the truth, columns what was said.",
            "",
            f"| | {' | '.join(self.classes)} | right |",
            f"|---|{'---:|' * (len(self.classes) + 1)}",
        ]
        for name, counts in zip(self.classes, self.confusion.tolist(), strict=True):
            lines.append(f"| {name} | {' | '.join(map(str, counts))} | {self.recalls[name]:.0%} |")
        return "\n".join(lines) + "\n"

    def error_sheet(self, classifier: Classifier, cell: int = 128) -> Tensor | None:
        """Return the errors as a picture, (1, 3, H, W), one row per confused pair of classes; None without errors."""
        pairs: dict[str, list[Verdict]] = {}
        for verdict in self.errors:
            pairs.setdefault(f"{self.classes[verdict.sample.label]} as {self.classes[verdict.said]}", []).append(
                verdict
            )
        shown = sorted(pairs.items(), key=lambda item: -len(item[1]))[:MOST_ROWS]
        if not shown:
            return None
        rows = [[classifier.square(read_image(v.sample.path)) for v in found[:MOST_COLUMNS]] for _, found in shown]
        labels = [f"{name}: {len(found)}" for name, found in shown]
        return contact_sheet(rows, row_labels=labels, cell=cell)


def judge(classifier: Classifier, samples: Sequence[Sample], on_item: OnPart = ignore_part) -> FitReport:
    """Let `classifier` judge `samples`, without unreadable ones. Raises ImpastoError if none can be read."""
    verdicts = []
    for done, sample in enumerate(samples, start=1):
        try:
            image = classifier.square(read_image(sample.path))
        except ImageError:
            continue
        chances = classifier.probabilities(image.to(classifier.backbone.mean.device))[0]
        verdicts.append(Verdict(sample, int(chances.argmax()), float(chances.max())))
        on_item(done, len(samples))
    if not verdicts:
        raise ImpastoError("none of the test's pictures can be read")
    return FitReport(classifier.classes, tuple(verdicts))
