"""What is made once on a machine and kept: exported networks, verdicts of the gate, fetched weights."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import structlog

log = structlog.get_logger(__name__)


def default_folder() -> Path:
    """``$XDG_CACHE_HOME/lookalike``, by default ``~/.cache/lookalike``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lookalike"


class ModelCache:
    """A folder that may be shared by processes, and may be removed at any time while none starts.

    One that cannot be written costs seconds at every start and is logged; it is never an error.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or default_folder()

    def read(self, name: str) -> dict[str, Any] | None:
        """The object kept under `name`; None where there is none, or none that can be read."""
        try:
            found = json.loads((self.folder / name).read_text())
        except (OSError, ValueError):
            return None
        return found if isinstance(found, dict) else None

    def keep(self, name: str, value: Mapping[str, Any]) -> None:
        """Replace the object under `name` at once."""
        self.keep_bytes(name, (json.dumps(value, indent=1) + "\n").encode())

    def keep_bytes(self, name: str, data: bytes) -> Path | None:
        """Replace the file under `name` at once; None where it cannot be written."""
        path = self.folder / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".new-", delete=False) as file:
                file.write(data)
            Path(file.name).replace(path)
        except OSError as exc:
            self._not_kept(path, exc)
            return None
        return path

    def new_folder(self, name: str) -> Path | None:
        """An empty folder to fill and rename to `name`; None where none can be made."""
        try:
            (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
            return Path(tempfile.mkdtemp(dir=(self.folder / name).parent, prefix=".new-"))
        except OSError as exc:
            self._not_kept(self.folder / name, exc)
            return None

    def _not_kept(self, path: Path, error: OSError) -> None:
        log.warning(
            "the model cache cannot be written: every start repeats seconds of work; set LOOKALIKE_MODEL_CACHE",
            path=str(path),
            error=error.strerror or str(error),
        )
