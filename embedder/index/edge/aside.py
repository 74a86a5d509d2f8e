"""A copy of a shard that another process makes and optimises (:mod:`embedder.index.edge.optimiser`)."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Literal


class Aside:
    """One optimisation under way. Not thread-safe."""

    def __init__(self, shard: Path, folder: Path) -> None:
        """Start the process that copies `shard`, which was flushed just now, to `folder` and optimises it there.

        Nothing may be written to `shard` until :attr:`copied`.
        """
        self.folder = folder
        self.copied = False
        """Whether the copy is made; :meth:`state` finds out."""
        command = [sys.executable, "-m", "embedder.index.edge.optimiser", str(shard), str(folder), str(os.getpid())]
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        self._told = self._process.stdout
        os.set_blocking(self._told.fileno(), False)

    @property
    def pid(self) -> int:
        return self._process.pid

    def state(self) -> Literal["working", "done", "failed"]:
        """How far it is."""
        code = self._process.poll()
        self.copied = self.copied or code is not None or self._told.read(1) == b"."
        if code is None:
            return "working"
        self._told.close()
        return "done" if code == 0 else "failed"

    def give_up(self) -> None:
        """End the process and remove what it made."""
        self._process.kill()
        self._process.wait()
        self._told.close()
        shutil.rmtree(self.folder, ignore_errors=True)
