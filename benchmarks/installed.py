"""How large impasto is when installed, and what each extra adds, in MB, in the environment in which this runs.

    python benchmarks/installed.py
    python benchmarks/installed.py --extras video serve

Counts the files of the distributions that each extra needs, and that impasto without extras does not, without compiled
modules. torch is counted apart: its build for CPUs is a fraction of the one for CUDA. An extra with something missing
here is shown with a note; install `impasto[dev]` for all.
"""

from __future__ import annotations

import argparse
import importlib.metadata as metadata
import re
from pathlib import Path
from typing import Any

from measuring import show
from packaging.requirements import Requirement

NAME = "impasto"
NOT_FOR_USERS = ("docs", "test", "dev")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--extras", nargs="+", help="default: all that users install")
    arguments = parser.parse_args()
    known = metadata.metadata(NAME).get_all("Provides-Extra") or []
    extras = arguments.extras or [extra for extra in known if extra not in NOT_FOR_USERS]
    torch, base = closure("torch", ""), closure(NAME, "")
    rows = [row(f"torch {metadata.version('torch')}", torch, set()), row("impasto", base, torch, Path(NAME))]
    rows += [row(f"impasto[{extra}]", closure(NAME, extra), base) for extra in extras]
    show({"benchmark": "installed", "rows": rows}, rows)


def closure(name: str, extra: str) -> set[str]:
    """The distributions that `name` with this extra needs here, itself included; those missing begin with "no "."""
    found: set[str] = set()
    waiting = [(name, extra)]
    seen = set()
    while waiting:
        one = waiting.pop()
        if one in seen:
            continue
        seen.add(one)
        name, extra = one
        try:
            needed = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            found.add(f"no {name}")
            continue
        found.add(canonical(name))
        for requirement in map(Requirement, needed):
            if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
                own = canonical(requirement.name)
                waiting += [(own, other) for other in (*requirement.extras, "")]
    return found


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def row(what: str, needed: set[str], without: set[str], package: Path | None = None) -> dict[str, Any]:
    """One line of the table: megabytes, the three largest distributions, what is missing."""
    sizes = {name: size_of(name, package) for name in needed - without if not name.startswith("no ")}
    largest = sorted(sizes, key=lambda name: -sizes[name])[:3]
    return {
        "what": what,
        "MB": round(sum(sizes.values()), 1),
        "largest": ", ".join(f"{name} {sizes[name]:.0f}" for name in largest if sizes[name] >= 1),
        "missing here": ", ".join(sorted(name[3:] for name in needed if name.startswith("no "))),
    }


def size_of(name: str, package: Path | None) -> float:
    """Megabytes (10^6 bytes) of a distribution's files; of impasto, its package's folder, as it may be editable."""
    if name == NAME and package is not None:
        import impasto

        files = [path for path in Path(impasto.__file__).parent.rglob("*") if path.is_file()]
    else:
        files = [Path(str(path.locate())) for path in metadata.files(name) or []]
    return sum(path.stat().st_size for path in files if path.suffix != ".pyc" and path.exists()) / 1e6


if __name__ == "__main__":
    main()
