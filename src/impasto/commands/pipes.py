"""Pictures through pipes: `-` is standard input for a photo or a painting, and standard output for the result."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from impasto.errors import ImpastoError

PIPE = "-"
MOST_BYTES = 1 << 30


@dataclass(frozen=True)
class Piped:
    """A command's words and output, with files in place of its pipes.

    to_stdout: the result goes to standard output, and its name is not printed.
    """

    words: list[str]
    output: Path | None
    to_stdout: bool

    def deliver(self, tell: Callable[[], None]) -> None:
        """Send the result through the pipe, or call `tell`."""
        if not self.to_stdout:
            tell()
        elif self.output is not None and self.output.exists():  # a dry run writes nothing
            _send(self.output)


@contextmanager
def piped(words: Sequence[str], output: Path | None, *, json: bool = False, dry_run: bool = False) -> Iterator[Piped]:
    """Put temporary files in the place of `-`. A piped photo's result goes to standard output, too.

    Raises ImpastoError if pipes are combined in an impossible way.
    """
    plain = list(words)
    wanted = plain.count(PIPE)
    to_stdout = output == Path(PIPE) or (output is None and plain[:1] == [PIPE])
    if not wanted and not to_stdout:
        yield Piped(plain, output, False)
        return
    if wanted > 1:
        raise ImpastoError("standard input holds one picture: - can be the photo or a painting, not both")
    if to_stdout and json:
        raise ImpastoError("--json and the picture can't both go to standard output: name a file with -o")
    if to_stdout and not dry_run and sys.stdout.isatty():
        raise ImpastoError("the picture would go to a terminal: name a file with -o, or redirect it with > FILE")
    with tempfile.TemporaryDirectory(prefix="impasto-") as folder:
        if wanted:
            plain[plain.index(PIPE)] = str(_receive(Path(folder)))
        yield Piped(plain, Path(folder, "stdout.png") if to_stdout else output, to_stdout)


def _receive(folder: Path) -> Path:
    """Store standard input as a file in `folder`."""
    if sys.stdin is None or sys.stdin.isatty():
        raise ImpastoError("- is a picture on standard input, and nothing is piped into it: < FILE, or name the file")
    path = folder / "stdin"
    left = MOST_BYTES
    with path.open("wb") as file:
        while data := sys.stdin.buffer.read(min(left, 1 << 20)):
            file.write(data)
            left -= len(data)
            if not left:
                raise ImpastoError(f"standard input has more than {MOST_BYTES} bytes; name a file instead")
    if left == MOST_BYTES:
        raise ImpastoError("standard input is empty; pipe a picture into it, or name a file")
    return path


def _send(path: Path) -> None:
    sys.stdout.flush()
    try:
        with path.open("rb") as file:
            shutil.copyfileobj(file, sys.stdout.buffer)
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise ImpastoError(f"standard output can't be written: {error.strerror or error}") from None
