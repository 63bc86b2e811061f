"""Ctrl-C while the command line is being loaded."""

from __future__ import annotations

import subprocess
import sys

CODE = """
import sys
class Press:
    def find_spec(self, name, path=None, target=None):
        if name == "impasto.cli.main":
            raise KeyboardInterrupt
sys.meta_path.insert(0, Press())
from impasto.__main__ import main
sys.exit(main())
"""


def test_ctrl_c_at_the_start_is_one_line() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "interrupted\n")
