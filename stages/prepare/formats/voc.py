"""Boxes of mentions as GMNER publishes them: a folder with a file of Pascal VOC's XML for each image.

    <annotation>
      <size><width>500</width><height>706</height></size>
      <object>
        <name>Ada Lovelace</name>
        <bndbox><xmin>132</xmin><ymin>22</ymin><xmax>500</xmax><ymax>706</ymax></bndbox>
      </object>
    </annotation>

A file is called as its image is, but for the suffix. An object is one box; its name is the text of a mention,
its words joined by spaces, and a mention may have several. What else tools write there is not read.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from xml.parsers import expat

from ....manifests.errors import InputError
from ....manifests.files import is_utf8, reason_of
from ....manifests.fingerprint import digest_json
from ...vision.known import BadRecord

__all__ = ["Annotation", "Marked", "Unparsed", "VocFolder"]

_SUFFIX = ".xml"
_ROOT = "annotation"
_SIDES = ("xmin", "ymin", "xmax", "ymax")


@dataclass(frozen=True)
class Marked:
    """An object: its name, the numbers of its box as they are written, and the line that it begins in."""

    name: str
    box: list[Any]
    line: int


@dataclass(frozen=True)
class Annotation:
    """What a file holds. size: width and height of the image that was annotated; None: it does not say."""

    size: tuple[Any, Any] | None
    objects: tuple[Marked, ...]


@dataclass(frozen=True)
class VocFolder:
    """The files of a folder and of those in it. contents: their bytes, by their paths without the suffix."""

    path: Path
    contents: Mapping[str, bytes]

    @classmethod
    def read(cls, path: Path) -> "VocFolder":
        """Return the files. Raises InputError where there is none, or one cannot be read."""
        found: dict[str, bytes] = {}
        try:
            for file in sorted(path.rglob(f"*{_SUFFIX}")):
                name = file.relative_to(path).as_posix()
                if not is_utf8(name):
                    raise InputError(f"{path}: the name of {name!r} is not UTF-8; rename the file")
                found[name.removesuffix(_SUFFIX)] = file.read_bytes()
        except OSError as error:
            raise InputError(
                f"{error.filename or path} (--mention-boxes) cannot be read: {reason_of(error)}; check the "
                "path and its permissions"
            ) from error
        if not found:
            raise InputError(
                f"{path} (--mention-boxes) is no folder with {_SUFFIX} files; give the folder that holds "
                "one for each image, such as Twitter10000/xml of GMNER"
            )
        return cls(path, found)

    @property
    def digest(self) -> str:
        """Return a digest of the names and contents of all files."""
        return digest_json(
            [[name, hashlib.sha256(held).hexdigest()] for name, held in sorted(self.contents.items())]
        )

    def of_image(self, name: str) -> str | None:
        """Return which file is that of an image, by its path in the folder of images or its name alone."""
        path = PurePosixPath(name)
        known = (path.with_suffix("").as_posix() if path.name else name, path.stem)
        return next((one for one in known if one in self.contents), None)

    def annotation(self, name: str) -> Annotation:
        """Return what a file holds. Raises Unparsed where it is no such XML."""
        return _parsed(self.contents[name])


class Unparsed(BadRecord):
    """A file is no XML of this form. line: where it ceases to be."""

    def __init__(self, reason: str, line: int) -> None:
        super().__init__(reason)
        self.line = line


def _parsed(content: bytes) -> Annotation:
    parser = expat.ParserCreate()
    parser.buffer_text = True
    path: list[str] = []
    text: list[str] = []
    size: dict[str, Any] = {}
    objects: list[Marked] = []
    one: dict[str, Any] = {}

    def start(tag: str, attributes: Mapping[str, str]) -> None:
        if not path and tag != _ROOT:
            raise Unparsed(f"it holds <{tag}>, where <{_ROOT}> is expected", parser.CurrentLineNumber)
        path.append(tag)
        text.clear()
        if path == [_ROOT, "object"]:
            one.clear()
            one["line"] = parser.CurrentLineNumber

    def end(tag: str) -> None:
        said = " ".join("".join(text).split())
        match path[1:]:
            case ["size", "width" | "height"]:
                size[tag] = _number(said)
            case ["object", "name"]:
                one["name"] = said
            case ["object", "bndbox", _]:
                one[tag] = _number(said)
            case ["object"]:
                objects.append(Marked(one.get("name", ""), [one.get(side) for side in _SIDES], one["line"]))
        path.pop()
        text.clear()

    def refuse(*declared: Any) -> None:
        raise Unparsed("it declares a document type, which no file of boxes needs", parser.CurrentLineNumber)

    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler, parser.StartDoctypeDeclHandler = text.append, refuse
    try:
        parser.Parse(content, True)
    except (expat.ExpatError, ValueError, LookupError) as error:  # the latter two of its encoding
        raise Unparsed(f"it is no XML ({reason_of(error)})", parser.CurrentLineNumber) from error
    told = (size.get("width"), size.get("height"))
    return Annotation(None if not all(told) else told, tuple(objects))


def _number(text: str) -> Any:
    """Return a text as the number that it is, or as it is."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
