"""The process that copies a shard's files and optimises the copy, while searches go on on the shard.

``python -m embedder.index.edge.optimiser SHARD FOLDER PARENT``. A byte on stdout: the copy is made, and the shard may
be written to again. Exit 0: it is optimised, flushed, closed and in memory. Nothing but the copy is touched, so it may
be killed at any moment.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from contextlib import suppress
from pathlib import Path

from qdrant_edge import EdgeShard

from embedder.index.apart.with_parent import end_with
from embedder.index.durable import sync_folder
from embedder.index.edge.clone import clone
from embedder.index.edge.warm import warm


def main(shard: Path, folder: Path, parent: int) -> None:
    """Copy `shard` to `folder` and optimise it there; ends with its parent."""
    if not end_with(parent):
        sys.exit(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group: the index process ends this one
    shutil.rmtree(folder, ignore_errors=True)
    try:
        clone(shard, folder)
    except OSError as exc:  # a full disk
        sys.exit(f"the shard was not copied: {exc}")
    os.write(sys.stdout.fileno(), b".")
    os.nice(3)  # searches go first; more would starve it beside a busy worker
    copy = EdgeShard.load(str(folder))
    copy.optimize()
    copy.flush()
    copy.close()
    sync(folder)
    with suppress(OSError):  # the copy is whole all the same: who asks for those pages would meet it
        warm(folder)  # else the first to ask the copy would wait for the disk


def sync(folder: Path) -> None:
    """Every file to the disk: what was copied is nobody's to flush, and the shard it came from is removed."""
    for inside, _, files in os.walk(folder):
        for name in files:
            with (Path(inside) / name).open("rb") as file:
                os.fsync(file.fileno())
        sync_folder(Path(inside))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
