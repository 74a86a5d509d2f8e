"""``python -m lookalike`` and the console script."""

from __future__ import annotations

import sys

from lookalike.cli import run


def main() -> int:
    """The command line's exit code: 0 done, 1 the work failed, 2 usage, 3 configuration, 70 watchdog."""
    return run(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
