"""What a process that runs a network must have in its environment when it starts: libraries read it once."""

from __future__ import annotations

PROCESS_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "MALLOC_ARENA_MAX": "2",
    "MALLOC_MMAP_THRESHOLD_": "4294967296",
    "MALLOC_TRIM_THRESHOLD_": "8589934592",
    "MALLOC_TOP_PAD_": "268435456",
}
"""One thread a process, because two workers with the default on two cores are 30 times slower; large
activations stay mapped, because returning them to the kernel after each picture costs a third of the
network's time (docs/performance.md)."""
