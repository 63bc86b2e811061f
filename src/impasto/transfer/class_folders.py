"""Pictures in class folders, ``FOLDER/CLASS/...``, split into train and test by their contents."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from impasto.errors import ImpastoError, few_classes
from impasto.files import PICTURE_SUFFIXES


@dataclass(frozen=True)
class Sample:
    """One picture: its path, the number of its class, the SHA-256 of its file."""

    path: Path
    label: int
    digest: str


@dataclass(frozen=True)
class ClassFolders:
    """The classes' names and their pictures, each content once."""

    classes: tuple[str, ...]
    samples: tuple[Sample, ...]

    @classmethod
    def find(cls, folder: Path) -> ClassFolders:
        """Find the pictures under `folder`: each folder in it is a class.

        Duplicates count once. Raises ImpastoError if there are fewer than two classes, a class of fewer than two
        pictures, or a picture in two classes.
        """
        if not folder.is_dir():
            raise ImpastoError(f"{folder} is no folder; name one that holds a folder of pictures for every class")
        paths = {
            child.name: sorted(path for path in child.rglob("*") if path.suffix.lower() in PICTURE_SUFFIXES)
            for child in sorted(folder.iterdir())
            if child.is_dir() and not child.name.startswith(".")
        }
        paths = {name: found for name, found in paths.items() if found}
        if len(paths) < 2:
            raise ImpastoError(few_classes(folder, len(paths)))
        known: dict[str, Sample] = {}
        for label, found in enumerate(paths.values()):
            for path in found:
                sample = Sample(path, label, _digest(path))
                twin = known.setdefault(sample.digest, sample)
                if twin.label != label:
                    raise ImpastoError(f"{twin.path} and {path} are the same picture in two classes: remove one")
        for label, name in enumerate(paths):
            if sum(sample.label == label for sample in known.values()) < 2:
                raise ImpastoError(f"class {name!r} needs at least two different pictures, to learn from and to test")
        return cls(tuple(paths), tuple(known.values()))

    def split(self, share: float, seed: int) -> tuple[tuple[Sample, ...], tuple[Sample, ...]]:
        """Return train and test samples; `share` of each class, at least one and never all, are for the test.

        The split depends only on the files' digests and `seed`: a renamed picture stays on its side.
        """
        train: list[Sample] = []
        test: list[Sample] = []
        for label in range(len(self.classes)):
            own = sorted((s for s in self.samples if s.label == label), key=lambda sample: _rank(sample, seed))
            count = min(max(1, round(share * len(own))), len(own) - 1)
            test += own[:count]
            train += own[count:]
        return tuple(train), tuple(test)


def count_by_class(samples: Sequence[Sample], classes: Sequence[str]) -> dict[str, int]:
    """Return how many of `samples` each class has."""
    return {name: sum(sample.label == label for sample in samples) for label, name in enumerate(classes)}


def _digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ImpastoError(f"{path} can't be read: {error.strerror}") from None


def _rank(sample: Sample, seed: int) -> str:
    return hashlib.sha256(f"{seed}:{sample.digest}".encode()).hexdigest()
