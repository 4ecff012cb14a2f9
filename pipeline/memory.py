"""How this process keeps memory that it has freed: not at all, so that its peak is what it needs."""

import ctypes
import os
import platform

__all__ = ["release_freed_memory"]

_M_MMAP_THRESHOLD, _LARGE_BLOCK = -3, 2**20  # of mallopt(3), and bytes


def release_freed_memory() -> None:
    """Have large blocks go back to the system as soon as they are freed, in this process from now on.

    To be called before pyarrow is imported.

    glibc on its own takes the largest block that was ever freed as the size up to which it keeps them, and pyarrow's allocator keeps what
    it had: the holes raise the peak of a training by a sixth (benchmarks/train_speed.py), and of planning a million images by as much
    (benchmarks/planning.py). Other C libraries are left alone.
    """
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _LARGE_BLOCK)
        os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
