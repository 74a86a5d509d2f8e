"""Whether a file is in memory, and how to have it forgotten."""

from __future__ import annotations

import ctypes
import mmap
import os
from pathlib import Path

_LIBC = ctypes.CDLL(None, use_errno=True)


def in_memory(path: Path, *, at: int = 0) -> bool:
    """Whether every page of the file from `at` on is there; asking brings none in (a read that does not wait would)."""
    with path.open("rb+") as file, mmap.mmap(file.fileno(), 0) as mapped:
        there = (ctypes.c_ubyte * -(-len(mapped) // mmap.PAGESIZE))()
        first = ctypes.c_char.from_buffer(mapped)
        failed = _LIBC.mincore(ctypes.c_void_p(ctypes.addressof(first)), ctypes.c_size_t(len(mapped)), there)
        del first  # else the map cannot be closed
        if failed:
            raise OSError(ctypes.get_errno(), "mincore failed")
    return all(page & 1 for page in there[at // mmap.PAGESIZE :])


def forgets(path: Path) -> bool:
    """Have a file's pages dropped; whether that was done (a file system in memory keeps them)."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return not in_memory(path)
