"""What the readers of all formats share: rows, lines that word their own errors, BIO tags, and ids.

The ids do not depend on the order of the lines.
"""

import codecs
import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn, Protocol

from ....manifests.errors import InputError
from ...text.words import WORD_RULES
from ...text.written import shorten

__all__ = [
    "IOB1",
    "LABELS",
    "SCHEMES",
    "TYPES",
    "Draft",
    "Line",
    "ProblemRow",
    "Reading",
    "Refused",
    "SampleRow",
    "Source",
    "TextFile",
    "is_tag",
    "number_repeats",
    "open_mentions",
    "readable",
    "scheme_of",
]


# "twitter": those of Twitter-2015 and 2017, with OTHER read as MISC. "written": any, as they are written.
# "auto": "twitter" where no split has others, and otherwise "written".
LABELS = ("auto", "twitter", "written")

# What labels may be beside tags of BIO, BIOES and BILOU. In IOB1, a B- opens only what follows a mention of
# its own type, and an I- every other; types alone have no letter before them.
IOB1, TYPES = "IOB1", "types alone"
SCHEMES = ("", IOB1, TYPES)

# The first letters of tags in BIO, BIOES, BILOU and BMES.
_OPENING, _INSIDE, _CLOSING = "BSU", "IMEL", "SUEL"


@dataclass(frozen=True)
class Reading:
    """What a user may say about how texts are read, beside their format.

    words: the rule by which a raw text becomes words, one of WORD_RULES.
    strict_spans: whether a span that does not fall on the bounds of words is an error instead of a repair.
    column: the column of a file of words that holds the labels, where the word is 1; 0 is the only other one.
    labels: which labels such a file may have, one of LABELS.
    scheme: how the labels of such files are written where that is none of BIO, BIOES and BILOU, one of
    SCHEMES. It is found in all splits together, and nobody says it.
    """

    words: str = "simple"
    strict_spans: bool = False
    column: int = 0
    labels: str = "auto"
    scheme: str = ""

    def __post_init__(self) -> None:
        if self.labels not in LABELS:
            raise InputError(f"labels must be one of {', '.join(LABELS)}, not {self.labels!r}")
        if self.column < 0 or self.column == 1:
            raise InputError(
                f"column must be 2 or more, or 0 for the only one after the word, not {self.column}"
            )
        if self.words not in WORD_RULES:
            raise InputError(f"words must be one of {', '.join(WORD_RULES)}, not {self.words!r}")


@dataclass(frozen=True)
class SampleRow:
    """A row of the table manifests.schemas.SAMPLES."""

    id: str
    split: str
    task: str
    tokens: list[str]
    tags: list[str] | None = None
    head: list[int] | None = None
    tail: list[int] | None = None
    relation: str | None = None
    groups: list[str] | None = None
    image: str | None = None
    image_key: str | None = None
    text: str | None = None
    offsets: list[list[int]] | None = None


@dataclass(frozen=True)
class ProblemRow:
    """A row of the table manifests.schemas.PROBLEMS."""

    kind: str
    sample: str
    where: str
    reason: str


class Source(Protocol):
    """What one split is read from: a file or a folder, read whole, with a digest of its content."""

    @property
    def path(self) -> Path: ...

    @property
    def digest(self) -> str: ...


@dataclass(frozen=True)
class TextFile:
    """One split's text file, or a part of it: line `first` of the file is `lines[0]`, without its line break.

    digest: the sha256 of the bytes. headed: whether any line of the whole file names an image; None: only
    this part tells.
    """

    path: Path
    lines: list[str]
    digest: str = ""
    first: int = 1
    headed: bool | None = None

    @classmethod
    def read(cls, path: Path) -> "TextFile":
        """Read a whole file; see `of`. Raises InputError where it cannot be read, too."""
        with readable(path):
            return cls.of(path, path.read_bytes())

    @classmethod
    def of(cls, path: Path, content: bytes, first: int = 1, headed: bool | None = None) -> "TextFile":
        r"""Return the part of a file that holds `content`. Lines end at \n or \r\n alone; a BOM is dropped.

        Tweets contain U+2028 and \x85, at which str.splitlines would split. Raises InputError where it is not
        UTF-8, and where the file is empty.
        """
        data = content.removeprefix(codecs.BOM_UTF8) if first == 1 else content
        try:
            text = data.decode("utf-8")
        except UnicodeDecodeError as error:
            line = data.count(b"\n", 0, error.start) + first
            raise InputError(
                f"{path} line {line}: byte 0x{data[error.start]:02x} is not UTF-8; save the file as UTF-8"
            ) from error
        if first == 1 and not text.strip():
            raise InputError(f"{path} is empty; fill it or remove it")
        if first == 1 and "\n" not in text and "\r" in text.strip():
            raise InputError(
                f"{path}: its lines end at carriage returns alone; save it with line feeds, "
                r"for example with: tr '\r' '\n'"
            )
        lines = [line.removesuffix("\r") for line in text.split("\n")]
        return cls(path, lines, hashlib.sha256(content).hexdigest(), first, headed)

    @property
    def numbered(self) -> Iterator[tuple[int, str]]:
        """Yield each line with its number in the file."""
        return enumerate(self.lines, start=self.first)


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Raise InputError where a text file cannot be read."""
    try:
        yield
    except OSError as error:
        raise InputError(
            f"{path} cannot be read ({error.strerror}); check the file and its permissions"
        ) from error


@dataclass(frozen=True)
class Line:
    """A place in a text file. Checks the values found there and words the errors, with file and line.

    object: the number of an object of a JSON array that does not begin the line; 0: of another or none.
    """

    file: Source
    number: int
    object: int = 0

    def __str__(self) -> str:
        return f"{self.file.path} line {self.number}{self._object}"

    @property
    def _object(self) -> str:
        return f", object {self.object}" * (self.object > 0)

    @property
    def where(self) -> str:
        """Return the place for a table: without the folder, which differs between machines."""
        return f"{self.file.path.name}:{self.number}{self._object}"

    def error(self, message: str) -> InputError:
        return InputError(f"{self}: {message}")

    def fail(self, name: str, expected: str, found: Any) -> NoReturn:
        raise self.error(f'"{name}" must be {expected}, found {shorten(found)}')

    def text(self, name: str, value: Any) -> str:
        """Return `value` if it is a string of at least one character that a UTF-8 file can hold."""
        if not _is_text(value):
            self.fail(name, "a non-empty string of valid Unicode", value)
        return str(value)

    def name(self, name: str, value: Any) -> str:
        """Return `value` as text if it is such a string or an integer, as some write ids and image names."""
        return str(value) if type(value) is int and abs(value) < 10**18 else self.text(name, value)

    def texts(self, name: str, value: Any) -> list[str]:
        """Return `value` if it is a list of such strings, possibly empty."""
        if not isinstance(value, list | tuple):
            self.fail(name, "a list of strings", value)
        for number, part in enumerate(value):
            self.text(f"{name}[{number}]", part)
        return list(value)

    def tokens(self, name: str, value: Any) -> list[str]:
        """Return `value` if it is a list of at least one such string."""
        if not (tokens := self.texts(name, value)):
            self.fail(name, "a list of at least one word", value)
        return tokens

    def span(self, name: str, value: Any, length: int, unit: str) -> list[int]:
        """Return `value` if it is a non-empty half-open range [start, end) within 0 and `length`.

        unit: what `length` counts.
        """
        expected = f"[start, end) with 0 <= start < end <= {length}, the number of {unit}"
        # bool is an int to Python: [false, true] would pass as [0, 1].
        if (
            not isinstance(value, list | tuple)
            or len(value) != 2
            or any(type(bound) is not int for bound in value)
        ):
            self.fail(name, expected, value)
        start, end = value
        if not 0 <= start < end <= length:
            self.fail(name, expected, value)
        return [start, end]


@dataclass(frozen=True)
class Draft:
    """A sample as a file gives it.

    name: its id once repeats are numbered, unless `given`, when it must be unique as it is.
    alone: its name instead where no other sample of its file has this one; "": none.
    digest: over the content as written.
    repairs: the (line, reason) of each label that was read as another.
    moved: the (line, reason) of each span of characters that was moved to whole words, or dropped.
    converted: how its tags were written, where that was not BIO.
    boxes: those of each mention in the order of the text, None of one that nobody looked for in the image.
    """

    line: Line
    name: str
    digest: str
    tokens: list[str]
    tags: list[str] | None = None
    head: list[int] | None = None
    tail: list[int] | None = None
    relation: str | None = None
    groups: list[str] | None = None
    image: str | None = None
    text: str | None = None
    offsets: list[list[int]] | None = None
    boxes: list[list[list[float]] | None] | None = None
    given: bool = False
    alone: str = ""
    repairs: list[tuple[Line, str]] = field(default_factory=list)
    moved: list[tuple[Line, str]] = field(default_factory=list)
    converted: str = ""


@dataclass(frozen=True)
class Refused:
    """A row of a file that is no sample, and why: it is left out, and the run goes on."""

    line: Line
    reason: str


def _is_text(value: Any) -> bool:
    try:
        return isinstance(value, str) and bool(value.encode("utf-8"))
    except UnicodeEncodeError:  # half of a surrogate pair, which "\ud83d" in JSON or a literal can produce
        return False


def open_mentions(tags: Sequence[str]) -> tuple[list[str], dict[int, str]]:
    """Return `tags` as strict IOB2, and the reason for each orphan that opens a mention, by the tag's index.

    seqeval's default reading opens a mention at an I- tag that follows O, the start, or another type. Writing
    B- there leaves its mentions as they are. The tags of BIOES, BILOU and BMES become B- and I-.
    """
    opened, reasons, before = list(tags), {}, ""
    for index, tag in enumerate(tags):
        kind = tag[2:]
        if kind:
            continues = tag[0] in _INSIDE and kind == before
            opened[index] = f"{'I' if continues else 'B'}-{kind}"
            if tag[0] in _INSIDE and not continues:
                reasons[index] = f"word {index}: {tag} continues no mention, read as B-{kind}"
        before = "" if tag[0] in _CLOSING else kind
    return opened, reasons


def is_tag(tag: str) -> bool:
    """Return whether `tag` is O, or a type after a letter of BIO, BIOES, BILOU or BMES and a hyphen."""
    return tag == "O" or (len(tag) > 2 and tag[0] in _OPENING + _INSIDE and tag[1] == "-")


def scheme_of(tags: Sequence[str]) -> str:
    """Return how tags are written of which some are none of BIO, and otherwise nothing."""
    return "BIOES or BILOU" if any(tag[0] not in "BIO" for tag in tags) else ""


def number_repeats(names: Sequence[str], digests: Sequence[str]) -> list[str]:
    """Return `names` with "-2", "-3", ... added to repeats, which are numbered in the order of `digests`.

    Samples with equal names and equal digests are the same, so that the order of the lines changes no row.
    """
    numbered, uses = list(names), Counter[str]()
    for index in sorted(range(len(names)), key=lambda index: (names[index], digests[index])):
        uses[names[index]] += 1
        if (repeat := uses[names[index]]) > 1:
            numbered[index] = f"{names[index]}-{repeat}"
    return numbered
