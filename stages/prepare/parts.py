"""Text files in parts of a few MB, which all cores read at once.

A file of 1,000,000 samples is never held whole, neither as lines nor as objects.
"""

import codecs
import hashlib
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, TypeVar

from ...manifests.errors import StageError
from ...manifests.machine import usable_cores
from ..base.processes import Each, in_processes, one_by_one
from ..base.tools import Tools
from ..text.written import header_of
from .formats.rows import Source, TextFile, readable

__all__ = ["Part", "Whole", "cut", "over_parts"]

Result = TypeVar("Result")


# As objects, the samples of a part take some 50 MB, and reading it takes a second.
PART_BYTES = 2**22

# From here on further processes pay, each of which takes a second to start.
MANY_BYTES = 2**24

# What may be a line that names an image, as header_of knows them.
_HEADER = re.compile(rb"^(?:\xef\xbb\xbf)?((?:IMGID:|#)[^\n]*)$", re.MULTILINE)


@dataclass(frozen=True)
class Part:
    """Bytes `start` to `end` of a text file, which are whole lines; the first has the number `first`.

    headed: as TextFile has it. content: the bytes, where they are held already.
    """

    path: Path
    start: int
    end: int
    first: int = 1
    headed: bool | None = None
    content: bytes | None = None

    def read(self) -> TextFile:
        """Return the lines of the part. Raises InputError where it cannot be read or is not UTF-8."""
        content = self.content
        if content is None:
            with readable(self.path), self.path.open("rb") as file:
                file.seek(self.start)
                content = file.read(self.end - self.start)
        return TextFile.of(self.path, content, self.first, self.headed)


@dataclass(frozen=True)
class Whole:
    """A text file: the sha256 of its bytes, its parts in their order, and its state when they were found."""

    path: Path
    digest: str
    parts: tuple[Part, ...]
    state: tuple[int, ...]

    def check(self) -> None:
        """Raise StageError where parts are still to be read from a file that is another one by now."""
        if any(part.content is None for part in self.parts) and self.state != _state(self.path.stat()):
            raise StageError(
                f"{self.path} was changed while prepare was reading it; run `hmnet-pipe prepare` again"
            )


def cut(path: Path, ends: Sequence[bytes], part_bytes: int = PART_BYTES) -> Whole:
    """Return a text file in parts of about `part_bytes`; a smaller file is held as one part.

    A part ends at the last of `ends` in it; a JSON array is one part. Raises InputError where the file cannot
    be read.
    """
    with readable(path), path.open("rb") as file:
        state = _state(os.fstat(file.fileno()))
        content = file.read(part_bytes + 1)
        if len(content) <= part_bytes:
            digest = hashlib.sha256(content).hexdigest()
            return Whole(path, digest, (Part(path, 0, len(content), content=content),), state)
        file.seek(0)
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        file.seek(0)
        if next(filter(bytes.strip, file), b"").removeprefix(codecs.BOM_UTF8).lstrip().startswith(b"["):
            return Whole(path, digest, (Part(path, 0, state[0]),), state)
        file.seek(0)
        return Whole(path, digest, tuple(_parts(path, file, ends, part_bytes)), state)


def _parts(path: Path, file: IO[bytes], ends: Sequence[bytes], part_bytes: int) -> list[Part]:
    """Return the parts of a file that is open at its start."""
    parts: list[Part] = []
    start, first, rest, headed = 0, 1, b"", False
    while block := file.read(part_bytes):
        rest += block
        # The first part is never blank: that would be an empty file.
        end = max(rest.rfind(mark) + len(mark) if mark in rest else 0 for mark in ends)
        if end and (parts or rest[:end].strip()):
            headed = headed or _has_header(rest[:end])
            parts.append(Part(path, start, start + end, first))
            start, first, rest = start + end, first + rest.count(b"\n", 0, end), rest[end:]
    if rest:
        headed = headed or _has_header(rest)
        parts.append(Part(path, start, start + len(rest), first))
    return [replace(part, headed=headed) for part in parts]


def _has_header(content: bytes) -> bool:
    lines = (match[1].decode("utf-8", "replace").removesuffix("\r") for match in _HEADER.finditer(content))
    return any(header_of(line) is not None for line in lines)


def _state(status: os.stat_result) -> tuple[int, ...]:
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino


@contextmanager
def over_parts(parts: Sequence[Part | Source], tools: Tools) -> Iterator[Each]:
    """Give what applies a function to parts of files, on all cores where the parts hold much.

    The first part that fails raises its error, as it would if they were read one after the other.
    """
    workers = min(usable_cores(), len(parts))
    if workers < 2 or sum(part.end - part.start for part in parts if isinstance(part, Part)) < MANY_BYTES:
        yield one_by_one
        return
    with in_processes(workers, "reading texts") as elsewhere:

        def each(function: Callable[[Any], Result], items: Sequence[Any]) -> Iterator[Result]:
            bar = tools.bar(len(items), "reading texts", "part")
            try:
                for result in elsewhere(function, items):
                    bar.update()
                    yield result
            finally:
                bar.close()

        yield each
