"""An object store in memory: product code, for tests and benches. Faults are data: see `faults`."""

from __future__ import annotations

import hashlib
import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from embedder.objects.protocol import Object, ObjectInfo, ObjectMissingError
from streams.errors import EventError, Reason
from streams.event import Location


@dataclass
class MemoryObjects:
    """Objects by (bucket, key). The ETag is a hash of the bytes.

    `faults` holds, per (bucket, key), exceptions to raise on the next reads of that object, in order.
    What is written into `objects` directly is an object that somebody else put: not announced, without a time.
    """

    objects: dict[tuple[str, str], bytes] = field(default_factory=dict)
    put_at_us: dict[tuple[str, str], int] = field(default_factory=dict)
    faults: dict[tuple[str, str], deque[Exception]] = field(default_factory=dict)
    reads: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def head(self, location: Location) -> ObjectInfo:
        return self._read(location).info

    def get(self, location: Location, *, max_bytes: int) -> Object:
        found = self._read(location)
        if found.info.size_bytes > max_bytes:
            raise EventError(Reason.IMAGE_TOO_LARGE, f"{found.info.size_bytes} bytes, {max_bytes} are allowed")
        return found

    def put(self, bucket: str, key: str, data: bytes, *, content_type: str | None = None) -> ObjectInfo:
        with self._lock:
            self.objects[bucket, key] = data
            at_us = self.put_at_us[bucket, key] = time.time_ns() // 1000
        return _info(data, content_type, at_us)

    def delete(self, bucket: str, key: str) -> None:
        with self._lock:
            self.objects.pop((bucket, key), None)
            self.put_at_us.pop((bucket, key), None)

    def keys(self, bucket: str, folder: str) -> Iterator[str]:
        with self._lock:
            found = [key for (at, key) in self.objects if at == bucket and key.startswith(folder)]
        yield from found

    def check(self, bucket: str) -> None:
        """Memory always answers, and any bucket is there."""

    def _read(self, location: Location) -> Object:
        place = (location.bucket, location.key)
        with self._lock:
            self.reads += 1
            fault = self.faults[place].popleft() if self.faults.get(place) else None
            data = self.objects.get(place)
            at_us = self.put_at_us.get(place)
        if fault is not None:
            raise fault
        if data is None:
            raise ObjectMissingError(f"{location.bucket}/{location.key} is not there")
        return Object(_info(data, None, at_us), data)


def _info(data: bytes, content_type: str | None, at_us: int | None) -> ObjectInfo:
    etag = hashlib.md5(data, usedforsecurity=False).hexdigest()
    return ObjectInfo(etag, len(data), content_type, at_us, announced=at_us is not None)
