"""An append-only file of writes and dropped tenants: what makes the exact index survive its process.

A frame is the length and the CRC-32 of its body, four bytes each, little endian, then the body
(:mod:`embedder.index.codec`). What a crash leaves half written is at the end and was
never acknowledged: it is cut off at open. A bad frame with a good one behind it is damage, and refused.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import structlog

from embedder.index.codec import decode_entry, encode_drop, encode_writes
from embedder.index.points import Write
from streams.errors import ConfigError, DependencyError

log = structlog.get_logger(__name__)
_HEAD = struct.Struct("<II")
_FIRST_BYTE = b"\x92"
"""MessagePack's list of two, with which every body begins."""


class Journal:
    """Not thread-safe: its index serialises the calls."""

    def __init__(self, path: Path, *, replay: Callable[[str, Sequence[Write] | None], object]) -> None:
        """Open `path`, giving every line of it to `replay`, in order; None stands for a dropped tenant.

        Raises:
            ConfigError: the file cannot be written, or is damaged before its end.
        """
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("ab", buffering=0)
        except OSError as exc:
            raise ConfigError(f"{path} cannot be written: {exc.strerror or exc}") from exc
        self._path = path
        self._dirty = False
        try:
            self._end = self._replay(replay)
        except BaseException:
            self._file.close()
            raise

    def append(self, tenant_id: str, writes: Sequence[Write]) -> None:
        """Add a frame: it survives the process at once, a power cut after :meth:`flush`.

        Raises:
            DependencyError: it could not be written whole; the file is as it was.
        """
        self._append(encode_writes(tenant_id, writes))

    def append_drop(self, tenant_id: str) -> None:
        """Add that the tenant was dropped; as :meth:`append`."""
        self._append(encode_drop(tenant_id))

    def _append(self, body: bytes) -> None:
        frame = _HEAD.pack(len(body), zlib.crc32(body)) + body
        try:
            written = self._file.write(frame)
        except OSError as exc:
            self._cut()
            raise DependencyError("index", f"{self._path} cannot be written: {exc.strerror or exc}") from exc
        if written != len(frame):  # a full disk takes what fits
            self._cut()
            raise DependencyError("index", f"{self._path} cannot be written: no room for {len(frame)} bytes")
        self._end += len(frame)
        self._dirty = True

    def flush(self) -> None:
        """Return when everything appended is on the disk.

        Raises:
            DependencyError: it is not, and whether it ever will be is not known: reopen.
        """
        if not self._dirty:
            return
        try:
            os.fsync(self._file.fileno())
        except OSError as exc:
            raise DependencyError("index", f"{self._path} cannot be flushed: {exc.strerror or exc}") from exc
        self._dirty = False

    def close(self) -> None:
        try:
            self.flush()
        finally:
            self._file.close()

    def _cut(self) -> None:
        """Half a frame would hide from the next opening whatever is appended behind it."""
        self._file.truncate(self._end)

    def _replay(self, replay: Callable[[str, Sequence[Write] | None], object]) -> int:
        """The size of the file after every whole frame was replayed and the rest cut off."""
        good = 0
        with self._path.open("rb") as file:
            for body in _frames(file):
                try:
                    tenant_id, writes = decode_entry(body)
                except ValueError as exc:
                    raise ConfigError(f"{self._path} is of another version: {exc}") from exc
                replay(tenant_id, writes)
                good = file.tell()
            file.seek(good)
            rest = file.read()
        if not rest:
            return good
        if _holds_a_frame(rest):
            raise ConfigError(
                f"{self._path} is damaged at byte {good}, with good writes behind it: "
                "put a copy back, or move the collection away and index again"
            )
        log.warning("journal cut", path=str(self._path), kept_bytes=good, cut_bytes=len(rest))
        self._file.truncate(good)
        return good


def _frames(file: BinaryIO) -> Iterator[bytes]:
    """The bodies up to the first that is not whole; no body is empty, so zeros are no frames."""
    while len(head := file.read(_HEAD.size)) == _HEAD.size:
        length, checksum = _HEAD.unpack(head)
        body = file.read(length)
        if not body or len(body) != length or zlib.crc32(body) != checksum:
            return
        yield body


def _holds_a_frame(rest: bytes) -> bool:
    """Whether a whole frame begins anywhere in `rest`."""
    view = memoryview(rest)
    at = rest.find(_FIRST_BYTE, _HEAD.size)
    while at >= 0:
        length, checksum = _HEAD.unpack_from(rest, at - _HEAD.size)
        if 0 < length <= len(rest) - at and zlib.crc32(view[at : at + length]) == checksum:
            return True
        at = rest.find(_FIRST_BYTE, at + 1)
    return False
