"""Writing files so that each exists whole or not at all."""

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
    errno.ENOSPC: "the disk that holds {} is full; make room and run the same command again: "
    "finished work is kept",
    errno.EDQUOT: "the disk quota of {} is used up; make room and run the same command again: "
    "finished work is kept",
    errno.EROFS: "{} is on a read-only file system; choose a run folder that can be written",
    errno.EACCES: "{} cannot be written (permission denied); choose a run folder that belongs to you",
}


@contextmanager
def atomic_path(path: Path, *, durable: bool = True) -> Iterator[Path]:
    """Yield a temporary name beside `path`; fsync and rename it to `path` on success, remove it on failure.

    A reader, or a process started after a kill, therefore sees the old file or the new one, never a part of
    one. The name holds the process id, so that two processes (Dask may run a task twice) never write to one
    temporary file. With `durable=False` the call does not wait for the disk: a power cut may then lose the
    file.
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
    """Return the error of a full, read-only or forbidden disk behind `error`, or None for any other fault.

    A library that cannot close a file it could not write may raise an error of its own over the one with the
    reason.
    """
    link: BaseException | None = error
    while link is not None:
        if isinstance(link, OSError) and link.errno in _REMEDIES:
            return link
        link = link.__cause__ or link.__context__
    return None


def disk_remedy(error: OSError, path: Path) -> str:
    """Return a sentence that says what a `disk_error` means for `path`, and what to do."""
    return _REMEDIES[error.errno or 0].format(path)


def remove_temporaries(folder: Path, name: str = "*") -> None:
    """Remove the temporary files that a killed process left in `folder` for `name` (a glob pattern).

    Only the holder of the stage's lock may call this: it alone writes these files.
    """
    for path in folder.glob(f"{TEMPORARY_PREFIX}[0-9]*-{name}"):
        path.unlink(missing_ok=True)
