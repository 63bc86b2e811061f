"""`impasto` and `python -m impasto`: start the command line, and handle Ctrl-C while it loads."""

import sys


def main() -> int:
    """Run the command line; returns its exit code."""
    try:
        from impasto.cli.main import main as run
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        return 130
    return run()


if __name__ == "__main__":
    raise SystemExit(main())
