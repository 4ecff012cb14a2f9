"""What happens to memory that a process has freed: glibc's rules suit neither a command nor a worker."""

import ctypes
import os
import platform

__all__ = ["keep_freed_memory", "release_freed_memory"]

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of mallopt(3)
# Bytes. The second is the largest block size that mallopt accepts.
_LARGE, _LARGEST, _MUCH = 2**20, 2**25, 2**30


def release_freed_memory() -> None:
    """Return large blocks to the system as soon as they are freed, from now on.

    For commands that read large tables and compute nothing. glibc on its own keeps freed blocks up to the
    size of the largest one ever freed, and pyarrow's allocator keeps what it had: 150 MB more for a million
    images (benchmarks/planning.py). Other C libraries are left alone. Call this before pyarrow is imported.
    """
    if _set(_M_MMAP_THRESHOLD, _LARGE):
        os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")


def keep_freed_memory() -> None:
    """Keep freed blocks for the next image or batch, in this process from now on.

    A network asks again and again for maps, and a training for gradients, of the same sizes. Without this
    they come as pages that the system must first fill with zeros, since Dask makes its workers return
    whatever is freed: a sixth of a ResNet-50's time in a worker (benchmarks/extract_speed.py).
    """
    _set(_M_MMAP_THRESHOLD, _LARGEST)
    _set(_M_TRIM_THRESHOLD, _MUCH)


def _set(option: int, value: int) -> bool:
    return platform.libc_ver()[0] == "glibc" and bool(ctypes.CDLL(None).mallopt(option, value))
