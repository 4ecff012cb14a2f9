"""What becomes of memory that a process has freed: glibc's own rules suit neither the process of a command nor a worker."""

import ctypes
import os
import platform

__all__ = ["keep_freed_memory", "release_freed_memory"]

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of mallopt(3)
_LARGE, _LARGEST, _MUCH = (
    2**20,
    2**25,
    2**30,
)  # bytes; the second is the most that mallopt takes for the size of a block


def release_freed_memory() -> None:
    """Have large blocks go back to the system as soon as they are freed, in this process from now on, so that its peak is what it needs.

    For commands that read large tables and compute nothing: glibc on its own takes the largest block that was ever freed as the size up to
    which it keeps them, and pyarrow's allocator keeps what it had, which a million images make 150 MB more (benchmarks/planning.py). Other
    C libraries are left alone. To be called before pyarrow is imported.
    """
    if _set(_M_MMAP_THRESHOLD, _LARGE):
        os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")


def keep_freed_memory() -> None:
    """Have blocks kept for the next image or batch, in this process from now on.

    Else a network gets its maps, and a training its gradients, of the same sizes again and again, as pages that the system must first fill
    with zeros: a sixth of a ResNet-50's time in a worker (benchmarks/extract_speed.py), since Dask has its workers give back whatever is
    freed.
    """
    _set(_M_MMAP_THRESHOLD, _LARGEST)
    _set(_M_TRIM_THRESHOLD, _MUCH)


def _set(option: int, value: int) -> bool:
    return platform.libc_ver()[0] == "glibc" and bool(ctypes.CDLL(None).mallopt(option, value))
