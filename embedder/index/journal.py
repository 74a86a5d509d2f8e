"""An append-only file of writes: what makes the exact index survive its process.

A frame is the length and the CRC-32 of its body, four bytes each, little endian, then the body
(:func:`~embedder.index.codec.encode_writes`). A torn last frame, as kill -9 leaves it, is cut off at
open: it was never acknowledged.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import structlog

from embedder.index.codec import decode_writes, encode_writes
from embedder.index.points import Write
from streams.errors import ConfigError

log = structlog.get_logger(__name__)
_HEAD = struct.Struct("<II")


class Journal:
    """Not thread-safe: its index serialises the calls."""

    def __init__(self, path: Path, *, replay: Callable[[str, Write], object]) -> None:
        """Open `path`, giving every write in it to `replay`, in order.

        Raises:
            ConfigError: the file cannot be written, or is damaged before its end.
        """
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("a+b")
        except OSError as exc:
            raise ConfigError(f"{path} cannot be written: {exc.strerror or exc}") from exc
        self._path = path
        self._dirty = False
        self._replay(replay)

    def append(self, tenant_id: str, writes: Sequence[Write]) -> None:
        body = encode_writes(tenant_id, writes)
        self._file.write(_HEAD.pack(len(body), zlib.crc32(body)) + body)
        self._dirty = True

    def flush(self) -> None:
        """Return when everything appended is on the disk."""
        if self._dirty:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._dirty = False

    def close(self) -> None:
        self.flush()
        self._file.close()

    def _replay(self, replay: Callable[[str, Write], object]) -> None:
        self._file.seek(0)
        good = 0
        while (frame := self._next_frame()) is not None:
            tenant_id, writes = decode_writes(frame)
            for write in writes:
                replay(tenant_id, write)
            good = self._file.tell()
        size = self._file.seek(0, os.SEEK_END)
        if good < size:
            log.warning("journal cut", path=str(self._path), kept_bytes=good, cut_bytes=size - good)
            self._file.truncate(good)

    def _next_frame(self) -> bytes | None:
        head = self._file.read(_HEAD.size)
        if len(head) < _HEAD.size:
            return None
        length, checksum = _HEAD.unpack(head)
        body = self._file.read(length)
        return body if len(body) == length and zlib.crc32(body) == checksum else None
