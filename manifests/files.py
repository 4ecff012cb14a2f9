"""Files that exist whole or not at all."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = [
    "TEMPORARY_PREFIX",
    "atomic_path",
    "disk_error",
    "disk_remedy",
    "remove_temporaries",
    "sync_folder",
    "write_text",
]

TEMPORARY_PREFIX = ".tmp-"

_REMEDIES = {
    errno.ENOSPC: "the disk that holds {} is full; make room and run the same command again: finished work is kept",
    errno.EDQUOT: "the disk quota of {} is used up; make room and run the same command again: finished work is kept",
    errno.EROFS: "{} is on a read-only file system; choose a run folder that can be written",
    errno.EACCES: "{} cannot be written (permission denied); choose a run folder that belongs to you",
}


@contextmanager
def atomic_path(path: Path, *, durable: bool = True) -> Iterator[Path]:
    """A temporary name beside `path` to write to; on success it is fsynced and renamed to `path`, on failure removed.

    A reader, or a process started after a kill, therefore sees the old file or the new one, never a part of one. The name holds
    the process id, so that two processes (Dask may run a task twice) never write to one temporary file. Without `durable` the
    disk is not waited for: enough for what nothing depends on, and what a power cut may take.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{TEMPORARY_PREFIX}{os.getpid()}-{path.name}")
    try:
        yield temporary
        if durable:
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
        temporary.replace(path)
        if durable:
            sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Make a rename in `folder` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` atomically, as UTF-8."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def disk_error(error: BaseException) -> OSError | None:
    """The error of a full, read-only or forbidden disk that `error` is or was raised over; None where it is another fault.

    A library that cannot close what it could not write may raise an error of its own over the one that knows the reason.
    """
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno in _REMEDIES:
            return seen
        seen = seen.__cause__ or seen.__context__
    return None


def disk_remedy(error: OSError, path: Path) -> str:
    """What a `disk_error` means for `path`, and what to do."""
    return _REMEDIES[error.errno or 0].format(path)


def remove_temporaries(folder: Path, name: str = "*") -> None:
    """Remove what a killed process left in `folder` under temporary names of `name` (a glob pattern). Only for who alone writes these, the
    holder of the stage's lock."""
    for path in folder.glob(f"{TEMPORARY_PREFIX}[0-9]*-{name}"):
        path.unlink(missing_ok=True)
