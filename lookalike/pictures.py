"""Which files a command means by its paths, and what each picture is called. Nothing here opens a file."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

_NAMESPACE = uuid.UUID("0d8e4c8a-3f43-5c52-9a5e-6b8f0e9b7a25")
"""Fixed for ever: publishing the same file again must name the same image."""

MAX_EXTENSION = 10


@dataclass(frozen=True, slots=True)
class Skipped:
    """A path that is no picture to publish, and why."""

    path: Path
    why: str


@dataclass(frozen=True, slots=True)
class Picture:
    """A file on its way into the bucket: under `key`, as `image_id`."""

    path: Path
    image_id: str
    key: str


def find_files(paths: Iterable[Path]) -> Iterator[Path | Skipped]:
    """The files behind `paths`, in a stable order, each once: a folder stands for all files below it.

    Hidden entries of a folder and links to folders are left out. What is neither file nor folder
    (a pipe, a device, a link to nothing) comes as Skipped: to open it could block for ever.
    """
    seen: set[Path] = set()
    for path in paths:
        for found in _walk(path) if path.is_dir() else _file(path):
            known = found.path if isinstance(found, Skipped) else found
            if known.resolve() not in seen:
                seen.add(known.resolve())
                yield found


def _walk(folder: Path) -> Iterator[Path | Skipped]:
    troubles: list[OSError] = []
    for parent, folders, files in os.walk(folder, onerror=troubles.append):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if not name.startswith("."):
                yield from _file(Path(parent, name))
    for trouble in troubles:
        yield Skipped(Path(trouble.filename or folder), trouble.strerror or "cannot be read")


def _file(path: Path) -> Iterator[Path | Skipped]:
    yield path if path.is_file() else Skipped(path, "is no file")


def name_picture(tenant_id: str, path: Path, *, image_id: str | None = None) -> Picture:
    """The same file of the same tenant always gets the same name, however its path was spelt."""
    named = image_id or str(uuid.uuid5(_NAMESPACE, f"{tenant_id}/{path.resolve()}"))
    return Picture(path, named, key_of(tenant_id, named, path))


def key_of(tenant_id: str, image_id: str, path: Path) -> str:
    """Where the picture lies in the bucket: in the tenant's own folder, with the file's extension where it is sane."""
    extension = path.suffix.lower()
    sane = len(extension) <= MAX_EXTENSION and extension[1:].isascii() and extension[1:].isalnum()
    return f"{tenant_id}/{image_id}{extension if sane else ''}"
