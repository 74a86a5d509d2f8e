"""Run a command that the kernel kills when the process that started it dies: ``tether.py PARENT_PID COMMAND…``.

A script of its own, because the request has to be made by the child before it becomes the command, and
Python code between fork and exec is not safe in a process with threads. It imports little: 20 ms a start.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_EXIT_CONFIG = 3


def main(parent: int, command: list[str]) -> None:
    """Become `command`; the death signal outlives exec. Exit 3 where it cannot be run."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the line above: nobody would ever be told
        os._exit(_EXIT_CONFIG)
    try:
        os.execvp(command[0], command)  # noqa: S606 - no shell is wanted
    except OSError as exc:
        sys.stderr.write(f"{command[0]} cannot be run: {exc.strerror}\n")
        sys.exit(_EXIT_CONFIG)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
