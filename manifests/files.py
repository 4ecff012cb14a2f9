"""Writing files so that each exists whole or not at all."""

import errno
import os
import shutil
import stat
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import StageError

__all__ = [
    "TEMPORARY_PREFIX",
    "atomic_path",
    "check_file",
    "check_folder",
    "check_regular",
    "disk_error",
    "disk_remedy",
    "is_utf8",
    "make_folder",
    "read_text",
    "reason_of",
    "remove_file",
    "remove_scratch",
    "remove_temporaries",
    "scratch_folder",
    "sync_folder",
    "write_text",
]

TEMPORARY_PREFIX = ".tmp-"

_SCRATCH: set[Path] = set()
_MAKING = threading.RLock()

MOST_TEXT = 2**26
"""The bytes of the largest settings, record or table of scores that is read: no honest one comes near."""

_REMEDIES = {
    errno.ENOSPC: "the disk that holds {} is full; make room and run the same command again: "
    "finished work is kept",
    errno.EDQUOT: "the disk quota of {} is used up; make room and run the same command again: "
    "finished work is kept",
    errno.EFBIG: "{} may not hold a file as large as this (see `ulimit -f`); allow it, and run the same "
    "command again: finished work is kept",
    errno.EROFS: "{} is on a read-only file system; choose a run folder that can be written",
    errno.EACCES: "{} cannot be written (permission denied); choose a run folder that belongs to you",
}
_UNREADABLE = "{} cannot be read (permission denied); let its owner make it readable, or choose another"


def check_folder(path: Path) -> None:
    """Raise StageError where something else has the name of a folder that is to be made, or of one above."""
    for place in (path, *path.parents):
        if os.path.lexists(place) and not place.is_dir():
            raise StageError(
                f"{place} is not a folder, and a folder of this name is needed; move it away or remove it"
            )


def check_file(path: Path) -> None:
    """Raise StageError where a folder has the name of a file that is to be written."""
    if path.is_dir() and not path.is_symlink():
        raise StageError(
            f"{path} is a folder, and a file of this name is to be written; move it away or remove it"
        )


def remove_file(path: Path) -> None:
    """Remove a file, if it is there. A folder of its name stays: no stage has made it."""
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)


def make_folder(path: Path) -> None:
    """Make a folder and those above it.

    Raises StageError as `check_folder` does, and where no folder can be made there. The errors of a disk
    (`disk_error`) are raised as they are.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        check_folder(path)
        if disk_error(error) is not None:
            raise
        raise StageError(
            f"{path} cannot be made ({reason_of(error)}); choose a folder where files can be written"
        ) from error


@contextmanager
def atomic_path(path: Path, *, durable: bool = True) -> Iterator[Path]:
    """Yield a temporary name beside `path`; fsync and rename it to `path` on success, remove it on failure.

    A reader, or a process started after a kill, therefore sees the old file or the new one, never a part of
    one. The name holds the process id, so that two processes (Dask may run a task twice) never write to one
    temporary file. With `durable=False` the call does not wait for the disk: a power cut may then lose the
    file. Raises StageError where a folder has the name of the file, or a file that of its folder.
    """
    make_folder(path.parent)
    check_file(path)
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


def read_text(path: Path, most: int = MOST_TEXT) -> str:
    """Return the text of a small regular file, as UTF-8.

    A pipe or a device would be waited for or read for ever. Raises OSError where the file is not there,
    not regular, larger than `most` bytes or not to be read, and UnicodeDecodeError where it is not UTF-8.
    """
    # Without O_NONBLOCK a pipe is waited for before it can be seen to be one.
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    try:
        _check_mode(os.fstat(descriptor), path)
        with open(descriptor, "rb", closefd=False) as file:
            content = file.read(most + 1)
    finally:
        os.close(descriptor)
    if len(content) > most:
        raise OSError(errno.EFBIG, f"it is larger than {most >> 20} MB", str(path))
    return content.decode("utf-8")


def check_regular(path: Path) -> None:
    """Raise OSError where `path` is not a regular file: a library would wait for a pipe, or read for ever."""
    _check_mode(path.stat(), path)


def _check_mode(status: os.stat_result, path: Path) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, "it is a folder", str(path))
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "it is not a regular file", str(path))


def is_utf8(name: str) -> bool:
    """Return whether a path or name is UTF-8: a byte that is not becomes half a surrogate pair in Python."""
    return not any("\ud800" <= letter <= "\udfff" for letter in name)


def reason_of(error: BaseException) -> str:
    """Return why a file could not be read, in one line and without the file's name."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    text = f"it lacks {error}" if isinstance(error, KeyError) else text
    return " ".join((text or type(error).__name__).split())[:300]


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


def disk_remedy(error: OSError, folder: Path | None = None) -> str:
    """Return a sentence that says what a `disk_error` means, and what to do.

    It names the file that is forbidden. A full disk it names by the `folder` that is written to, where that
    is known.
    """
    file = Path(str(error.filename)) if error.filename else None
    if file is not None and file.name.startswith(TEMPORARY_PREFIX):
        file = file.with_name(file.name.removeprefix(TEMPORARY_PREFIX).partition("-")[2])
    if error.errno in (errno.EROFS, errno.EACCES):
        forbidden = error.errno == errno.EACCES and file is not None and not _may_be_read(file)
        remedy = _UNREADABLE if forbidden else _REMEDIES[error.errno]
        return remedy.format(file or folder or "a file")
    return _REMEDIES[error.errno or 0].format(folder or (file and file.parent) or "what this command writes")


def _may_be_read(file: Path) -> bool:
    """Return whether the file is not there or may be read; False for one in a folder that may not."""
    try:
        return not file.exists() or os.access(file, os.R_OK)
    except PermissionError:
        return False


@contextmanager
def scratch_folder(parent: Path, purpose: str) -> Iterator[Path]:
    """Yield an empty folder in `parent`, which is removed at the end, or by `remove_scratch`."""
    folder = parent / f"{TEMPORARY_PREFIX}{purpose}-{uuid.uuid4().hex}"
    try:
        with _MAKING:
            _SCRATCH.add(folder)  # before it is there: a signal comes at any moment
            folder.mkdir(mode=0o700)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        _SCRATCH.discard(folder)


def remove_scratch() -> None:
    """Remove every `scratch_folder` of a process that ends early, and let no thread begin another."""
    _MAKING.acquire()  # for ever; a signal may have come where this thread holds it
    for _ in range(100):  # another thread goes on, and may fill one meanwhile
        left = [folder for folder in list(_SCRATCH) if folder.exists()]
        if not left:
            return
        for folder in left:
            shutil.rmtree(folder, ignore_errors=True)


def remove_temporaries(folder: Path, name: str = "*") -> None:
    """Remove the temporary files that a killed process left in `folder` for `name` (a glob pattern).

    Only the holder of the stage's lock may call this: it alone writes these files.
    """
    for path in folder.glob(f"{TEMPORARY_PREFIX}[0-9]*-{name}"):
        remove_file(path)
