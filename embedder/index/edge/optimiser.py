"""The second process: it optimises a clone while the index goes on answering from the shard.

``python -m embedder.index.edge.optimiser FOLDER``; exit 0: the clone is optimised, flushed and closed.
Nothing but the clone is touched, so it may be killed at any moment.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

from qdrant_edge import EdgeShard

_PR_SET_PDEATHSIG = 1


def main(folder: str, parent: int) -> None:
    """Optimise the shard in `folder`; ends with its parent."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before the line above
        sys.exit(1)
    os.nice(3)  # searches go first; more would starve it beside a busy worker
    shard = EdgeShard.load(folder)
    shard.optimize()
    shard.flush()
    shard.close()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
