"""Word vectors of a file in GloVe's text format: a word and its numbers on each line, separated by spaces.

Such a file may hold 2 GB: it is read line by line, and only the rows of wanted words are kept.
"""

import gzip
import re
import zlib
from collections.abc import Container, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
import numpy.typing as npt

from ...manifests.errors import InputError
from ...manifests.files import reason_of

__all__ = ["MOST_DIMENSIONS", "Vectors", "read_vectors", "spellings"]

MOST_DIMENSIONS = 4096
"""More numbers than any published vector of a word has."""

_LONGEST_LINE = 2**17
# GloVe cuts a word at 1000 bytes, in the middle of a character too: the one word that need not be UTF-8.
_CUT_WORD = 990
_LARGEST = float(np.finfo(np.float32).max)
_DIGIT = re.compile(r"\d")
_HEADER = re.compile(
    rb"[0-9]+ [0-9]+"
)  # of word2vec's and fastText's files: how many words, how many numbers

Row = npt.NDArray[np.float32]


def spellings(word: str) -> tuple[str, ...]:
    """Return how a word is looked up: as it is, in lower case, and in lower case with its digits as 0."""
    lower = word.lower()
    return word, lower, _DIGIT.sub("0", lower)


@dataclass(frozen=True)
class Vectors:
    """The vectors of the wanted words that a file has. rows: the numbers of each, (dimensions,)."""

    dimensions: int
    rows: dict[str, Row]

    def spelling(self, word: str) -> str | None:
        """Return the first spelling of a word that has a vector, or None."""
        return next((each for each in spellings(word) if each in self.rows), None)

    def of(self, word: str) -> Row | None:
        """Return the vector of a word by its first spelling that has one, or None."""
        found = self.spelling(word)
        return None if found is None else self.rows[found]

    def mean(self, words: Sequence[str]) -> Row | None:
        """Return the mean vector of those of the words that have one, or None where none has."""
        found = [row for word in words if (row := self.of(word)) is not None]
        return np.stack(found).mean(axis=0, dtype=np.float64).astype(np.float32) if found else None


def read_vectors(path: Path, wanted: Container[str]) -> Vectors:
    """Return the vectors of the `wanted` words that the file has; it may be compressed by gzip.

    A word may hold spaces (GloVe 840B has such): its numbers are the last fields of its line. A row that no
    wanted word needs is checked for its length alone. Raises InputError with the line where a row is
    broken, has another number of numbers than the first, repeats a word or is not UTF-8, and where there is
    no such file.
    """
    rows: dict[str, Row] = {}
    dimensions = 0
    for number, line in _lines(path):
        where = f"{path} line {number}"
        if number == 1 and _HEADER.fullmatch(line):
            continue
        dimensions = dimensions or _dimensions(line, where)
        word, numbers = _parted(line, dimensions, where)
        if word in wanted:
            if word in rows:
                raise InputError(f"{where}: {word!r} has a vector on an earlier line; remove one of the two")
            rows[word] = _row(numbers, where)
    if not dimensions:
        raise InputError(f"{path} holds no vectors; give a file in GloVe's text format")
    return Vectors(dimensions, rows)


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield each line of the file with its number, without its end."""
    with _opened(path) as file:
        number = 0
        while line := file.readline(_LONGEST_LINE + 1):
            number += 1
            if len(line) > _LONGEST_LINE:
                raise InputError(
                    f"{path} line {number} is longer than {_LONGEST_LINE >> 10} KB, which no line in GloVe's "
                    "text format is; give the text file and not a binary one"
                )
            yield number, line.rstrip(b" \r\n")


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """Open the file, decompressed; a fault in reading it becomes an InputError that names it."""
    if not path.is_file():
        raise InputError(f"--vectors: {path} is not a file; give one in GloVe's text format")
    try:
        with path.open("rb") as raw:
            start = raw.read(4)
            raw.seek(0)
            if start == b"PK\x03\x04":
                raise InputError(f"{path} is a zip archive; unpack it and give one of its .txt files")
            if start[:2] == b"\x1f\x8b":
                with gzip.open(raw) as file:
                    yield cast(BinaryIO, file)
            else:
                yield raw
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path} cannot be read ({reason_of(error)}); download it again") from error


def _dimensions(line: bytes, where: str) -> int:
    """Return how many numbers follow the word of the first line."""
    fields = line.split(b" ")
    count = 0
    while count + 1 < len(fields) and _is_number(fields[-1 - count]):
        count += 1
    if not 0 < count <= MOST_DIMENSIONS:
        raise InputError(
            f"{where} is not a word and its numbers, separated by single spaces; give a file in GloVe's text "
            "format"
        )
    return count


def _parted(line: bytes, dimensions: int, where: str) -> tuple[str, bytes]:
    """Return the word of a line and its numbers."""
    spaces = line.count(b" ")
    if spaces == dimensions:  # of nearly all lines
        end = line.index(b" ")
    else:
        fields = line.rsplit(b" ", dimensions)
        end = len(fields[0])
        # What stands before the numbers is a word with spaces only if none of its parts is a number.
        if spaces < dimensions or any(map(_is_number, fields[0].split(b" ")[1:])):
            count = sum(map(_is_number, line.split(b" ")[1:]))
            raise InputError(
                f"{where} has {count} numbers, and the first word has {dimensions}; the file is damaged or "
                "cut: download it again"
            )
    try:
        return line[:end].decode(), line[end + 1 :]
    except UnicodeDecodeError as error:
        if end >= _CUT_WORD:
            return line[:end].decode(errors="replace"), line[end + 1 :]
        raise InputError(
            f"{where}: byte 0x{line[error.start]:02x} is not UTF-8; save the file as UTF-8"
        ) from error


def _row(numbers: bytes, where: str) -> Row:
    fields = numbers.split(b" ")
    for field in fields:
        if not _is_number(field):
            raise InputError(
                f"{where}: {field.decode(errors='replace')[:40]!r} is not a finite number; the file is "
                "damaged: download it again"
            )
    return np.array([float(field) for field in fields], np.float32)


def _is_number(field: bytes) -> bool:
    """Return whether a field is a number that fp32 holds."""
    try:
        return abs(float(field)) < _LARGEST
    except ValueError:
        return False
