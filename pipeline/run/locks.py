"""The locks of a run: one process at a time runs a stage, or writes run.toml."""

import errno
import os
import re
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout

from ...manifests.errors import StageError
from ...manifests.files import disk_error, make_folder, read_text, reason_of, write_text

__all__ = ["Held", "hold"]

# What flock answers on a file system that has no locks, such as Lustre without them or NFS without its lock
# daemon.
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP}
# A marker of a process that is gone is found at the first try and taken at the second.
_MARKER_SECONDS = 0.3
_OWNER = re.compile(r"process [0-9]+ on [\w.-]+", re.ASCII)
# The folders of which it was said that they have no locks.
_said: set[Path] = set()


class Held(StageError):
    """Another process holds a lock."""


@contextmanager
def hold(
    path: Path, doing: str, *, patience: float = 0.0, say: Callable[[str], None] = lambda line: None
) -> Iterator[None]:
    """Hold the lock at `path`; its folder is made where there is none.

    The operating system frees the lock of a process that dies, so no lock is left behind. A file system
    without locks is said so once, and a marker file beside `path` takes their place. The marker of a process
    of this machine that is gone is taken over.

    doing: what its holder does, as in "detect of runs/x is being run". patience: the seconds to wait for it.

    Raises Held where another process holds it, and StageError where it cannot be taken. The errors of a disk
    (`disk_error`) are raised as they are.
    """
    make_folder(path.parent)
    owner = path.with_suffix(".owner")
    lock = _taken(path, owner, doing, patience, say)
    try:
        # For the message of another process. Whatever is wrong with this file does no harm.
        with suppress(OSError, StageError):
            write_text(owner, f"process {os.getpid()} on {socket.gethostname()}\n")
        yield
    finally:
        with suppress(OSError):
            owner.unlink(missing_ok=True)
        lock.release()


def _taken(path: Path, owner: Path, doing: str, patience: float, say: Callable[[str], None]) -> BaseFileLock:
    """Return the lock of the operating system, or a marker file where the file system has no locks."""
    marker = path.with_suffix(".held")
    remedy = "wait for it, or stop it first"
    # A marker is another file than the lock, which stays where it is and would pass for a marker.
    lock: BaseFileLock = FileLock(path, fallback_to_soft=False)
    try:
        try:
            lock.acquire(patience)
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            remedy += f"; where no such process runs any more, remove {marker}"
            lock = SoftFileLock(marker)
            lock.acquire(max(patience, _MARKER_SECONDS))
            if path.parent not in _said:
                _said.add(path.parent)
                say(
                    f"note: the file system of {path.parent} has no locks ({reason_of(error)}); "
                    f"marker files ({path.parent.name}/*{marker.suffix}) are used in their place"
                )
    except Timeout as error:
        raise Held(f"{doing} by {_owner(owner)}; {remedy}") from error
    except OSError as error:
        if disk_error(error) is not None:
            raise
        raise StageError(
            f"{lock.lock_file} cannot be locked ({reason_of(error)}); remove what is there under this name, "
            "or put the run on another file system"
        ) from error
    return lock


def _owner(note: Path) -> str:
    """Return what a holder left about itself."""
    with suppress(OSError, ValueError):
        if _OWNER.fullmatch(text := read_text(note, 1000).strip()):
            return text
    return "another process"
