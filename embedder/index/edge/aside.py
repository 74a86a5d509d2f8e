"""Optimising without stopping: a clone is optimised by another process, then takes the shard's place.

In order: flush, clone, start the other process; meanwhile every write is applied to the shard and kept in
a list; when the other process is done, its result is opened, the list is applied to it in small parts
between requests, and when nothing is left, it is flushed and a pointer file names it: from then on it is
the shard. A crash at any moment leaves the pointer on a shard that has everything acknowledged: the old
one until the pointer was replaced, the new one from then on.

The list holds writes, not their results: the table of docs/semantics.md gives the same end again.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence
from os import getpid
from pathlib import Path
from typing import Literal

from embedder.index.durable import replace_file
from embedder.index.edge.clone import clone
from embedder.index.points import Write

Entry = tuple[str, Sequence[Write] | None]
"""A tenant's writes, or None where the tenant was dropped."""


class Aside:
    """One optimisation under way. Not thread-safe."""

    def __init__(self, shard: Path, folder: Path) -> None:
        """Clone `shard`, which was flushed just now, into `folder`, and start the other process. OSError."""
        self.folder = folder
        self.missed: list[Entry] = []
        """What was written since, oldest first."""
        shutil.rmtree(folder, ignore_errors=True)
        clone(shard, folder)
        command = [sys.executable, "-m", "embedder.index.edge.optimiser", str(folder), str(getpid())]
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL)

    def state(self) -> Literal["working", "done", "failed"]:
        """How far the other process is."""
        code = self._process.poll()
        return "working" if code is None else "done" if code == 0 else "failed"

    def give_up(self) -> None:
        """End the other process and remove what it made."""
        self._process.kill()
        self._process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


class Pointer:
    """Which folder under `home` is the shard: `shard`, or what the file `current` names."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._file = home / "current"

    def folder(self) -> Path:
        """The shard's folder, whether it exists or not."""
        return self._home / (self._file.read_text().strip() if self._file.exists() else "shard")

    def following(self) -> Path:
        """A folder for the next one."""
        _, _, number = self.folder().name.partition("-")
        return self._home / f"shard-{int(number or 0) + 1}"

    def move(self, folder: Path) -> None:
        """Let `folder` be the shard; durable on return, and there is no moment without one."""
        replace_file(self._file, folder.name)

    def sweep(self) -> None:
        """Remove shards that are none any more."""
        current = self.folder()
        for folder in self._home.glob("shard*"):
            if folder != current and folder.is_dir():
                shutil.rmtree(folder, ignore_errors=True)
