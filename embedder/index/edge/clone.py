"""A copy of an open shard, made while nobody writes to it: large files that never change are linked, not copied.

Which files those are is not documented; it was measured for 0.9.0 (writes to a clone left all of them as
they were) and is held by a test. Everything else is copied without its holes: an empty page is 32 MB of
nothing. The log is copied too: operations are numbered by it, and those of a new log would be taken for
older ones that are in the segments already, and dropped at the next start.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

UNCHANGING = ("matrix.dat", "quantized.data", "links*.bin", "graph.bin", "id_tracker.mappings", "*points*.bin")
"""Of segments with a graph; segments that still grow have other files."""
_PART = 1 << 20


def clone(shard: Path, copy: Path) -> None:
    """Copy the files of `shard`, which was flushed, to `copy`, which does not exist. OSError: it was not done."""
    for folder, _, files in os.walk(shard):
        into = copy / Path(folder).relative_to(shard)
        into.mkdir(parents=True)
        for name in files:
            if any(fnmatch(name, pattern) for pattern in UNCHANGING):
                os.link(Path(folder) / name, into / name)
            else:
                _copy_sparsely(Path(folder) / name, into / name)


def _copy_sparsely(source: Path, copy: Path) -> None:
    with source.open("rb") as reading, copy.open("xb") as writing:
        os.ftruncate(writing.fileno(), os.fstat(reading.fileno()).st_size)
        for start, end in extents(reading.fileno()):
            _copy_part(reading.fileno(), writing.fileno(), start, end)


def extents(file: int) -> Iterator[tuple[int, int]]:
    """Where an open file has data: first byte, and the one behind the last, of each part between its holes."""
    size, at = os.fstat(file).st_size, 0
    while at < size:
        try:
            start = os.lseek(file, at, os.SEEK_DATA)
        except OSError as exc:
            if exc.errno == errno.ENXIO:  # a hole to the end
                return
            raise
        at = os.lseek(file, start, os.SEEK_HOLE)
        yield start, at


def _copy_part(reading: int, writing: int, start: int, end: int) -> None:
    while start < end:
        data = os.pread(reading, min(_PART, end - start), start)
        if not data:
            return
        os.pwrite(writing, data, start)
        start += len(data)
