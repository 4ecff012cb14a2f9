"""The images of a run: each file is hashed and decoded in one go, and has a row of IMAGES for its content."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...manifests.errors import StageError
from ...manifests.machine import usable_cores
from ..base.ahead import in_threads
from ..base.processes import in_processes
from ..base.tools import Tools
from ..vision.folder import FILES_AT_ONCE, Found, digest_or_fault, image_row, unreadable_row
from ..vision.images import UnusableImage, image_bytes

__all__ = ["Inspected"]

Row = dict[str, Any]

# From so many files on, processes that take a second to start pay: of a small file, most of the time goes
# into Pillow's reading of its header, which holds the interpreter lock.
MANY_FILES = 20_000

# Files that a process reads at a time: handing them over takes two threads of this one.
_IN_A_PART = 256


@dataclass(frozen=True)
class Inspected:
    """The rows of IMAGES by the key of their content. Files of equal content are decoded once.

    known: of a finished run's usable images; rows: of what was read just now.
    """

    known: Mapping[str, Row] = field(default_factory=dict)
    rows: dict[str, Row] = field(default_factory=dict)

    def read(self, paths: Sequence[Path]) -> Iterator[str | OSError]:
        """Read files, and yield the sha256 of each one's bytes, or why it cannot be read.

        Many are read by processes, unless their contents may be known.
        """
        workers = usable_cores()
        if workers < 2 or len(paths) < MANY_FILES or self.known:
            yield from in_threads(self._key, paths, at_once=FILES_AT_ONCE)
            return
        parts = [paths[i : i + _IN_A_PART] for i in range(0, len(paths), _IN_A_PART)]
        with in_processes(workers, "reading images") as each:
            for keys, rows in each(_read_part, parts):
                for key, row in rows.items():
                    self.rows.setdefault(key, row)
                yield from keys

    def _key(self, path: Path) -> str | OSError:
        try:
            data = image_bytes(path)
        except UnusableImage as error:
            found = digest_or_fault(path)
            if isinstance(found, str):
                self.rows.setdefault(found, {**unreadable_row(path, error), "key": found})
            return found
        key = hashlib.sha256(data).hexdigest()
        row: Row = {}
        # The first thread that meets a content claims it.
        if key not in self.known and self.rows.setdefault(key, row) is row:
            row.update(image_row(path, data, key))
        return key

    def table(self, found: Iterable[Found], tools: Tools) -> list[Row]:
        """Return a row of IMAGES for each distinct content, in the order of the key.

        Raises StageError where a file was changed meanwhile.
        """
        paths: dict[str, Path] = {}
        for image in found:
            if image.path is not None and image.key is not None:
                paths[image.key] = min(image.path, paths.get(image.key, image.path))
        new: list[tuple[str, Path]] = []
        rows: list[Row] = []
        for key, path in paths.items():
            if (row := self.rows.get(key) or self.known.get(key)) is None:
                new.append((key, path))
            else:
                rows.append({**row, "path": str(path)})
        bar = tools.bar(len(new), "reading images", "image")
        try:
            for row in in_threads(_row_of_known, new):
                rows.append(row)
                bar.update()
        finally:
            bar.close()
        return sorted(rows, key=lambda row: str(row["key"]))


def _read_part(paths: Sequence[Path]) -> tuple[list[str | OSError], dict[str, Row]]:
    """Return what `Inspected.read` yields of some files, and the rows of their contents."""
    own = Inspected()
    return [own._key(path) for path in paths], own.rows


def _row_of_known(image: tuple[str, Path]) -> Row:
    """Return the row of IMAGES for a file of known digest. Raises StageError where the file has changed."""
    key, path = image
    try:
        row = image_row(path, image_bytes(path))
    except UnusableImage as error:
        return {**unreadable_row(path, error), "key": key}
    if row["key"] != key:
        raise StageError(f"{path} was changed while prepare was reading it; run `hmnet-pipe prepare` again")
    return row
