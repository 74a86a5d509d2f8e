"""Which folder of a collection is its shard: a file names it, and is replaced in one step."""

from __future__ import annotations

import shutil
from pathlib import Path

from embedder.index.durable import replace_file


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
