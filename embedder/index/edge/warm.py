"""A shard's files in the page cache before anybody asks, as far as memory allows.

The engine drops its files from the page cache when it closes a shard. Whoever asks next waits for the disk, 4 KiB at
a time, until most of what a tenant has was read once (docs/index.md has the figures). Read in one go it is a second
or two for each gigabyte. Pages of files are the kernel's to take back, also where a process that maps them is counted
as larger.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from embedder.index.edge.clone import extents

SHARE = 0.5
"""Of the memory that is free: more would push out what others have read, and in the end what was read here first."""
_PART_BYTES = 1 << 20
_IN_THE_PROCESS = "quantized.data"
"""The codes of a segment with a graph: the process that opens the shard has them in memory of its own."""
_CGROUP = Path("/sys/fs/cgroup")
_MEMINFO = Path("/proc/meminfo")


def warm(folder: Path, *, free: Callable[[], int] | None = None) -> int:
    """Read the files of the shard in `folder`, small ones first; how many bytes that were.

    Ends where half of the memory that is `free` is used up. Blocks for as long as the disk takes, and other threads
    go on meanwhile. A file that is removed meanwhile is left out.

    Raises:
        OSError: the disk cannot be read.
    """
    left = int((free or free_memory)() * SHARE)
    buffer = memoryview(bytearray(_PART_BYTES))
    n_bytes = 0
    for size, path in sorted(_sizes(folder / "segments")):
        if n_bytes >= left:
            break
        n_bytes += _read(path, min(size, left - n_bytes), buffer)
    return n_bytes


def _sizes(folder: Path) -> Iterator[tuple[int, Path]]:
    for inside, _, names in os.walk(folder):
        for name in names:
            if name == _IN_THE_PROCESS:
                continue
            path = Path(inside) / name
            with suppress(FileNotFoundError):
                found = path.stat()
                yield min(found.st_size, found.st_blocks * 512), path  # an empty page is 32 MB of nothing


def _read(path: Path, at_most: int, buffer: memoryview) -> int:
    """Read what the file has, without its holes."""
    n_bytes = 0
    try:
        with path.open("rb", buffering=0) as file:
            for start, end in extents(file.fileno()):
                file.seek(start)
                left = min(end - start, at_most - n_bytes)
                while left and (n := file.readinto(buffer[:left])):
                    n_bytes += n
                    left -= n
    except FileNotFoundError:
        return 0
    return n_bytes


def free_memory(*, meminfo: Path = _MEMINFO, cgroup: Path = _CGROUP) -> int:
    """Bytes that can be had without taking them from another process: the machine's, or what a container is left.

    0 where that cannot be told.

    https://docs.kernel.org/admin-guide/cgroup-v2.html: what a container's `memory.current` counts includes pages of
    files, of which the inactive ones can be taken back.
    """
    try:
        free = _numbers(meminfo)["MemAvailable:"] * 1024
        limit = cgroup / "memory.max"  # not there in the root group, nor under version 1
        if limit.exists() and (most := limit.read_text().strip()) != "max":
            used = int((cgroup / "memory.current").read_text()) - _numbers(cgroup / "memory.stat")["inactive_file"]
            free = min(free, int(most) - used)
    except (OSError, KeyError, ValueError):
        return 0
    return max(0, free)


def _numbers(file: Path) -> dict[str, int]:
    lines = (line.split() for line in file.read_text().splitlines())
    return {words[0]: int(words[1]) for words in lines if len(words) >= 2}
