"""Streams of bytes as lines, or as the objects of a JSON array, that know where in the file they stand."""

import codecs
import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from io import BufferedReader, RawIOBase
from pathlib import Path
from typing import cast

from ...manifests.errors import InputError
from ...manifests.files import check_regular, reason_of
from ..text.written import shorten

__all__ = ["MOST", "STDIN", "Array", "Source", "check_file", "opened"]

MOST = 10_000_000
"""The bytes of the longest line, and the characters of the longest post: no honest one comes near."""

STDIN = "standard input"

_CHUNK = 2**18
_UNUSABLE = re.compile("[\0\udc80-\udcff]")
_SPACE = re.compile(r"\s*")
# What begins a file whose lines would all be errors.
_KINDS = {b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16", b"\x1f\x8b": "compressed", b"PK\3\4": "compressed"}


@dataclass
class Source:
    """The lines of a stream, as text with their ends. number: that of the last line that was read.

    Bytes that are not UTF-8 are halves of surrogate pairs in it, so that `fault` can name them.
    """

    stream: BufferedReader
    name: str
    number: int = 0

    def __iter__(self) -> "Source":
        return self

    def __next__(self) -> str:
        """Return the next line. Raises InputError for one that is too long, after which comes the next."""
        line = self.stream.readline(MOST + 1)
        if not line:
            raise StopIteration
        self.number += 1
        if len(line) > MOST:
            while line and not line.endswith(b"\n"):
                line = self.stream.readline(_CHUNK)
            raise self.error(f"it is longer than {MOST:,} bytes; a post is one line, or a few")
        return line.decode("utf-8", "surrogateescape")

    def lines(self) -> Iterator[tuple[int, str | InputError]]:
        r"""Yield the number and the text of each line, without its end, which is \n or \r\n alone."""
        while True:
            try:
                text = next(self).removesuffix("\n").removesuffix("\r")
            except StopIteration:
                return
            except InputError as error:
                yield self.number, error
            else:
                yield self.number, self.fault(text) or text

    def error(self, message: str, number: int | None = None) -> InputError:
        return InputError(f"{self.name} line {number or self.number}: {message}")

    def fault(self, text: str, number: int | None = None) -> InputError | None:
        """Return the error for a text with a character that no post may have. number: of its first line."""
        if (found := _UNUSABLE.search(text)) is None:
            return None
        number = (number or self.number) + text.count("\n", 0, found.start())
        if found[0] == "\0":
            return self.error("it holds a NUL character; remove it", number)
        byte = ord(found[0]) - 0xDC00
        return self.error(f"byte 0x{byte:02x} is not UTF-8; save the file as UTF-8", number)


def opened(path: Path | None) -> Source:
    """Return the lines of a file, or of standard input, behind a byte order mark."""
    if path is None:
        if sys.stdin is None:
            raise InputError("standard input is closed; pipe the posts into it, or give their file")
        buffer, name = sys.stdin.buffer, STDIN
        stream = buffer if isinstance(buffer, BufferedReader) else BufferedReader(cast(RawIOBase, buffer))
    else:
        check_file(path)
        stream, name = path.open("rb"), path.name
    begin = stream.peek(4)[:4]
    for mark, kind in _KINDS.items():
        if begin.startswith(mark):
            raise InputError(f"{path or name} is {kind}; give it as UTF-8 text")
    if begin.startswith(b"\xef\xbb\xbf"):
        stream.read(3)
    return Source(stream, name)


def check_file(path: Path) -> None:
    """Raise InputError where `path` is no regular file that can be read."""
    try:
        check_regular(path)
        path.open("rb").close()
    except (OSError, ValueError) as error:
        remedy = "check the name and its permissions"
        if path.is_fifo():
            remedy = "pipe into standard input, and give - for the file"
        elif path.is_dir():
            remedy = "give one of its files"
        raise InputError(f"{path} cannot be read ({reason_of(error)}); {remedy}") from error


@dataclass
class Array:
    """A JSON array that is read piece by piece. text: what is held of it, used up to `place`."""

    source: Source
    text: str = ""
    place: int = 0
    ended: bool = False

    def __post_init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
        # Finds the end of an object alone; `_of_object` reads it.
        self._json = json.JSONDecoder(parse_int=len, parse_float=len, parse_constant=len)
        self.number = self.source.number + 1

    def mark(self) -> str:
        """Return the next character that is not white space, "" at the end, and go behind it."""
        self._skip()
        found = self.text[self.place : self.place + 1]
        self.place += len(found)
        return found

    def next_is(self, mark: str) -> bool:
        self._skip()
        return self.text.startswith(mark, self.place)

    def next(self) -> tuple[int, str]:
        """Return the line and the text of the next object. Raises InputError where the array is broken."""
        self._skip()
        number = self.number
        while True:
            try:
                end = self._json.raw_decode(self.text, self.place)[1]
                break
            except (ValueError, RecursionError) as error:
                held = len(self.text) - self.place
                if self.ended or held > MOST:
                    found = shorten(self.text[self.place : self.place + 100])
                    raise self.error(f"expected one JSON object, found {found} ({error})") from error
                self._read(held + 1)
        object = self.text[self.place : end]
        self.number += object.count("\n")
        self.place = end
        return number, object

    def error(self, message: str) -> InputError:
        return self.source.error(f"{message}; what follows in the array cannot be read", self.number)

    def _skip(self) -> None:
        while True:
            space = _SPACE.match(self.text, self.place)
            assert space is not None
            self.number += space[0].count("\n")
            self.place = space.end()
            if self.place < len(self.text) or self.ended:
                return
            self._read(1)

    def _read(self, least: int) -> None:
        """Read at least so many characters more, so that an object is looked at few times as it grows."""
        pieces = [self.text[self.place :]]
        while least > 0 and not self.ended:
            data = self.source.stream.read1(_CHUNK)
            self.ended = not data
            pieces.append(self._decoder.decode(data, final=self.ended))
            least -= len(pieces[-1])
        self.text, self.place = "".join(pieces), 0
