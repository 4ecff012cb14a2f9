"""What a process may use of its machine, which on a cluster or in a container is often a part of it."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil

__all__ = ["usable_cores", "usable_memory"]

_GROUPS = Path("/sys/fs/cgroup")


def usable_cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def usable_memory(process: Path = Path("/proc/self/cgroup"), groups: Path = _GROUPS) -> int:
    """Return how many bytes of memory this process may use: the machine's, or less in its control groups.

    process: says which these are, on Linux. groups: where they are.
    """
    return min([int(psutil.virtual_memory().total), *_limits(process, groups), *_own_limit()])


def _own_limit() -> Iterator[int]:
    """Yield what `ulimit -m` says, which Linux does not enforce and Dask goes by."""
    with suppress(ImportError):  # not on Windows
        import resource

        if (soft := resource.getrlimit(resource.RLIMIT_RSS)[0]) != resource.RLIM_INFINITY:
            yield soft


def _limits(process: Path, groups: Path) -> Iterator[int]:
    """Yield the limits of the control groups of a process, and of those that they are in."""
    if not process.is_file():
        return
    for line in process.read_text().splitlines():
        _, kinds, path = line.split(":", 2)  # "0::/a/b", or in version 1 "7:memory:/a/b"
        if kinds and "memory" not in kinds.split(","):
            continue
        root, name = (groups / "memory", "memory.limit_in_bytes") if kinds else (groups, "memory.max")
        own = root / path.lstrip("/")
        for group in (own, *own.parents):
            if group.is_relative_to(root) and (group / name).is_file():
                limit = (group / name).read_text().strip()
                if limit.isdecimal():  # otherwise "max"
                    yield int(limit)
