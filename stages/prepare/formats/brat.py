"""Folders of documents as BRAT writes them: `7.txt` with a text, and `7.ann` with its mentions and relations.

    T1	PER 0 3	Ada
    T2	LOC 7 13	London
    R1	lives_in Arg1:T1 Arg2:T2

A document is one text, whose image is called as it is: `7.jpg`. Events, attributes and notes are not read.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from ....manifests.errors import InputError
from ....manifests.fingerprint import digest_json
from ...text.written import shorten
from .annotated import Annotated, objects_of, translated
from .rows import Draft, Line, Reading, Refused

__all__ = ["BratFolder", "is_brat", "read_brat"]


_MOST = 8 << 20
"""The most bytes of a document."""


@dataclass(frozen=True)
class Document:
    """One document: its .ann file, or its .txt file where there is none, and the bytes of both."""

    path: Path
    digest: str
    name: str
    text: bytes | None
    annotations: bytes | None


@dataclass(frozen=True)
class BratFolder:
    """The folder of a split, read whole. digest: over the names and contents of its documents."""

    path: Path
    digest: str
    documents: list[Document]

    @classmethod
    def read(cls, path: Path) -> "BratFolder":
        """Return the documents below a folder by their names. Raises InputError where it cannot be read."""
        # No pipe or device: reading one may never end.
        files = {file for file in path.rglob("*") if file.suffix in (".ann", ".txt") and file.is_file()}
        documents = []
        for stem in sorted({file.with_suffix("") for file in files}):
            contents: dict[str, bytes | None] = {}
            for suffix in (".txt", ".ann"):
                file = stem.with_name(stem.name + suffix)
                try:
                    small = file in files and file.stat().st_size <= _MOST
                    contents[suffix] = file.read_bytes() if small else None
                except OSError as error:
                    raise InputError(
                        f"{file} cannot be read ({error.strerror}); check its permissions"
                    ) from error
            text, annotations = contents.values()
            name = stem.relative_to(path).as_posix()
            digests = [one if one is None else hashlib.sha256(one).hexdigest() for one in (text, annotations)]
            place = stem.with_name(stem.name + (".txt" if annotations is None else ".ann"))
            documents.append(Document(place, digest_json([name, *digests]), name, text, annotations))
        return cls(path, digest_json([one.digest for one in documents]), documents)


def is_brat(path: Path) -> bool:
    """Return whether a folder holds annotations of BRAT."""
    return next(path.rglob("*.ann"), None) is not None


def read_brat(folder: BratFolder, task: str, reading: Reading) -> Iterator[Draft | Refused]:
    """Return the samples of a folder, and the documents that are none."""
    rows = ((Line(one, 1), one) for one in folder.documents)
    return translated(rows, _objects, task, reading)


def _objects(line: Line, document: Document, task: str) -> Iterator[dict[str, Any] | str]:
    if document.text is None or document.annotations is None:
        suffix = ".txt" if document.text is None else ".ann"
        raise line.error(f"there is no {suffix} file of this name of at most {_MOST >> 20} MB")
    try:
        text, annotations = document.text.decode("utf-8-sig"), document.annotations.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise line.error("it or its text is not UTF-8; save both as UTF-8") from error
    spans: dict[Any, tuple[Any, Any, Any]] = {}
    relations: list[tuple[Any, Any, Any]] = []
    for written in annotations.split("\n"):
        name, _, rest = written.removesuffix("\r").partition("\t")
        if name in spans:
            raise line.error(f"{name} is there twice; give one of them another number")
        if name.startswith("T"):
            spans[name] = _span(line, name, rest, text)
        elif name.startswith("R"):
            parts = rest.split()
            ends = dict(part.split(":", 1) for part in parts[1:] if ":" in part)
            if len(parts) != 3 or ends.keys() != {"Arg1", "Arg2"}:
                raise line.error(f"expected RELATION Arg1:T1 Arg2:T2 behind {name}, found {shorten(rest)}")
            relations.append((ends["Arg1"], ends["Arg2"], parts[0]))
    image = f"{PurePosixPath(document.name).name}.jpg"
    yield from objects_of(line, Annotated(text.rstrip("\r\n"), spans, relations, document.name, image), task)


def _span(line: Line, name: str, rest: str, text: str) -> tuple[int, int, str]:
    """Return the range of characters of a mention and its type."""
    place, _, words = rest.partition("\t")
    kind, *bounds = place.split(" ")
    if len(bounds) > 2:
        raise line.error(f"{name} is of several pieces ({shorten(place)}); a mention must be of one")
    if len(bounds) != 2 or not all(bound.isdecimal() for bound in bounds):
        raise line.error(f"expected TYPE START END behind {name}, found {shorten(place)}")
    start, end = map(int, bounds)
    if words != (there := " ".join(text[start:end].split("\n"))) and words.split() != there.split():
        raise line.error(f"{name} has the text {shorten(words)}, found {shorten(there)} there")
    return start, end, kind
