"""Results of an evaluation: rows, means and medians, as JSON and as Markdown."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

PAINTED = ("coverage3", "precision3", "coverage4", "precision4", "moments", "gram", "similarity_gap")
MEASURED = ("style_loss", "photo_style_loss", *PAINTED, "content_loss", "ssim", "lpips", "cfsd")
TITLES = {
    "style_loss": "style loss",
    "photo_style_loss": "the photo's own",
    "content_loss": "content loss",
    "ssim": "SSIM",
    "similarity_gap": "self-similarity",
    "painted": "coverage, precision",
    "lpips": "LPIPS",
    "cfsd": "CFSD",
    "artfid_like": "ArtFID-like",
    "artfid": "ArtFID",
}


@dataclass(frozen=True)
class Row:
    """One picture: the names of its photo and painting, and its measures.

    photo_style_loss: the unstylized photo's style loss for the same painting; coverage3 to similarity_gap: see
    `PaintedScore`. None: the weights are not available.
    """

    content: str
    style: str
    style_loss: float
    photo_style_loss: float
    content_loss: float
    ssim: float
    lpips: float | None = None
    cfsd: float | None = None
    coverage3: float | None = None
    precision3: float | None = None
    coverage4: float | None = None
    precision4: float | None = None
    moments: float | None = None
    gram: float | None = None
    similarity_gap: float | None = None


@dataclass(frozen=True)
class Evaluation:
    """The measures of many pictures, and how they were measured.

    resized: number of pictures that were scaled to `size`; missing: why a measure is None; painted_by: the digest of
    the VGG-16 for coverage and the like.
    """

    loss_network: str
    loss_network_digest: str
    size: str
    rows: tuple[Row, ...]
    resized: int = 0
    fid: float | None = None
    artfid_like: float | None = None
    missing: dict[str, str] = field(default_factory=dict)
    painted_by: str = ""

    @property
    def means(self) -> dict[str, float | None]:
        """The mean of each measure."""
        return self._each(statistics.fmean)

    @property
    def medians(self) -> dict[str, float | None]:
        """The median of each measure."""
        return self._each(statistics.median)

    @property
    def style_share(self) -> float:
        """The share of the photos' own style loss that is left: the ratio of the means."""
        found, photo = (statistics.fmean(getattr(row, name) for row in self.rows) for name in MEASURED[:2])
        return found / photo if photo else 0.0

    def _each(self, reduce: Callable[[Sequence[float]], float]) -> dict[str, float | None]:
        found: dict[str, float | None] = {}
        for name in MEASURED:
            values = [getattr(row, name) for row in self.rows]
            found[name] = None if None in values else reduce(values)
        return found

    def to_json(self) -> dict[str, Any]:
        """Return everything, ready for JSON."""
        return {
            "loss_network": {"name": self.loss_network, "sha256": self.loss_network_digest},
            "size": self.size,
            "pairs": len(self.rows),
            "resized": self.resized,
            "mean": self.means,
            "median": self.medians,
            "style_share": self.style_share,
            "fid": self.fid,
            "artfid_like": self.artfid_like,
            "artfid": None,
            "missing": self.missing,
            "painted_by": self.painted_by,
            "rows": [asdict(row) for row in self.rows],
        }

    def to_markdown(self, *, rows: bool = True) -> str:
        """Return a table of means and medians and, if `rows`, of every picture; below it notes on networks and gaps."""
        names = [name for name in MEASURED if self.means[name] is not None]
        lines = [["photo", "painting", *(TITLES.get(name, name) for name in names)]]
        lines.append(["---", "---", *("---:" for _ in names)])
        lines += [[label, "", *_shown(values, names)] for label, values in self._summaries().items()]
        if rows:
            lines += [[_escaped(row.content), _escaped(row.style), *_shown(asdict(row), names)] for row in self.rows]
        table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        return f"{table}\n\n" + "\n".join(f"- {note}" for note in self._notes()) + "\n"

    def _summaries(self) -> dict[str, dict[str, float | None]]:
        return {"**mean**": self.means, "**median**": self.medians}

    def _notes(self) -> list[str]:
        notes = [
            f"{len(self.rows)} pictures at {self.size}; loss network {self.loss_network}, "
            f"sha256 {self.loss_network_digest[:12]}",
            f"the style loss is {self.style_share:.1%} of the photos' own",
        ]
        if self.resized:
            notes.append(f"{self.resized} pictures had another size and were scaled")
        if self.painted_by:
            notes.append(f"coverage and precision by VGG-16, sha256 {self.painted_by[:12]}; less is better")
        if self.artfid_like is not None:
            notes.append(
                f"ArtFID-like {self.artfid_like:.3f}, FID {self.fid:.2f}; compare only equal numbers of pictures"
            )
        return notes + [f"no {TITLES[name]}: {reason}" for name, reason in self.missing.items()]


def _shown(values: dict[str, Any], names: Sequence[str]) -> list[str]:
    return [f"{values[name]:.4f}" for name in names]


def _escaped(text: str) -> str:
    """Return a name escaped for the table."""
    return text.replace("\\", "\\\\").replace("|", "\\|")
