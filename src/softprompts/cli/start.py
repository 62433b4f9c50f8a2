"""Where the program begins: an interrupt while its modules load is an interrupt like any other."""

from __future__ import annotations

import sys


def start() -> int:
    """Run the command line; return its exit code, 130 after an interrupt."""
    try:
        from softprompts.cli.main import main
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    return main()
