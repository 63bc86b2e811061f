"""`impasto` and `python -m impasto`: start the command line, and handle Ctrl-C while it loads."""

import atexit
import sys


def main() -> int:
    """Run the command line, and return its exit code; as soon as the program ends, so does the process."""
    try:
        from impasto.cli.quick_start import QuickEnd

        end = QuickEnd()
        atexit.register(end)
        from impasto.cli.main import main as run
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        return 130
    end.code = run()
    return end.code


if __name__ == "__main__":
    raise SystemExit(main())
