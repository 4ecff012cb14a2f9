"""Every way in which a file can be spoilt; imports nothing of the project, for benchmarks/hostile.py."""

import os
from pathlib import Path

import pytest

__all__ = ["SPOILERS", "absent", "anothers", "empty", "forbidden", "huge", "link_loop", "pipe"]

# More than any settings, record or table of scores may hold.
_TOO_MUCH = 2**26 + 1


def absent(path: Path) -> None:
    path.unlink()


def empty(path: Path) -> None:
    path.write_bytes(b"")


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def link_loop(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.name)


def truncated(path: Path) -> None:
    content = path.read_bytes()
    # Half of a run.toml may be one: cut it within the head of its last table.
    path.write_bytes(content[: content.rindex(b"\n[") + 3 if path.name == "run.toml" else len(content) // 2])


def junk(path: Path) -> None:
    path.write_bytes(bytes(range(256)) * 8)


def anothers(path: Path) -> None:
    """Put a sound file of another kind there."""
    path.write_text('{"a": [1, 2]}' if path.suffix == ".json" else "[a]\nb = 3\n")


def nested(path: Path) -> None:
    """Nest more brackets than a parser can follow."""
    path.write_text("a = " * (path.suffix != ".json") + "[" * 100_000 + "]" * 100_000)


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def huge(path: Path) -> None:
    os.truncate(path, _TOO_MUCH)


def endless(path: Path) -> None:
    path.unlink()
    path.symlink_to("/dev/zero")


def forbidden(path: Path) -> Path:
    """Put a file there that nobody may read, and return it; skip the test where that cannot be done."""
    path.write_bytes(b"")
    path.chmod(0)
    if os.access(path, os.R_OK):
        path.unlink()
        path.symlink_to("/proc/sys/vm/compact_memory")  # the kernel lets nobody read it
    if os.access(path, os.R_OK) or not path.is_file():
        pytest.skip("this user may read everything here")
    return path


SPOILERS = [empty, folder, link_loop, truncated, junk, anothers, nested, pipe, huge, endless]
