"""The files that posts come in, read as streams: no format is held whole.

A post that cannot be read costs one InputError in its place, and the run goes on. docs/predict.md describes
the formats.
"""

import csv
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ...manifests.errors import InputError, in_one_line, unknown_name
from ...manifests.files import is_utf8
from ..text.written import DOCUMENT, cells_of, header_of, is_comment, shorten, unrepeated
from .posts import NoPost, Post
from .streams import MOST, STDIN, Array, Source, check_file, opened

__all__ = ["INPUT_FORMATS", "posts_of"]

INPUT_FORMATS = ("jsonl", "txt", "csv", "tsv", "parquet", "conll")
"""The formats that posts are read in. A file of "jsonl" may also hold one JSON array."""

Posts = Iterator[tuple[int, Post | InputError]]

_AUTO = "auto"
_TEXT, _IMAGE = "text", "image"  # the columns that are looked for unless others are named
_SUFFIXES = {f".{name}": name for name in INPUT_FORMATS} | {".json": "jsonl", ".ndjson": "jsonl"}
_OWN = ("text", "tokens", "image", "id", "head", "tail")


def posts_of(
    path: Path | None, format: str = _AUTO, *, text_column: str = _TEXT, image_column: str = _IMAGE
) -> Posts:
    """Return an iterator of the posts of a file, each with the number of its line, counted from 1.

    path: None for standard input. format: one of INPUT_FORMATS, or "auto", which goes by the file's suffix;
    standard input is "jsonl" then. text_column, image_column: of tables; one without the latter has no images
    unless another name than "image" is given. The number is that of the row in parquet, of the object in an
    array, and of the first line where a post has several. An InputError in the place of a post says what is
    wrong with it.

    Raises InputError, at once, where the file cannot be read or lacks a column, and later where an array of
    JSON is broken off, as what follows cannot be told apart.
    """
    format = _format_of(path, format)
    if format == "parquet":
        return _of_parquet(path, text_column, image_column)
    source = opened(path)
    if format in ("csv", "tsv"):
        return _closed_after(source, _of_table(source, format, text_column, image_column))
    return _closed_after(source, _READERS[format](source))


def _format_of(path: Path | None, format: str) -> str:
    if format == _AUTO:
        if path is None:
            return "jsonl"
        if path.suffix.lower() not in _SUFFIXES and path.is_file():
            raise InputError(
                f"{path} has none of the suffixes {', '.join(_SUFFIXES)}; rename it, or say with "
                f"--input-format which of {', '.join(INPUT_FORMATS)} it is"
            )
        return _SUFFIXES.get(path.suffix.lower(), "jsonl")
    if format not in INPUT_FORMATS:
        raise unknown_name("input format", format, (_AUTO, *INPUT_FORMATS))
    return format


def _closed_after(source: Source, posts: Posts) -> Posts:
    with nullcontext() if source.name == STDIN else source.stream:
        yield from posts


def _of_text(source: Source) -> Posts:
    """Yield a post of each line. An empty line is one too: the n-th result is that of line n."""
    for number, text in source.lines():
        yield number, text if isinstance(text, InputError) else Post(text)


def _of_json(source: Source) -> Posts:
    """Yield the posts of one JSON object a line, or of one array. Blank lines are none."""
    stream = source.stream
    while (begin := stream.peek(1)[:1]).isspace():
        source.number += stream.read(1) == b"\n"
    if begin == b"[":
        yield from _of_array(Array(source))
        return
    for number, text in source.lines():
        if isinstance(text, InputError):
            yield number, text
        elif text.strip():
            yield number, _of_object(source, text, number)


def _of_object(source: Source, text: str, number: int) -> Post | InputError:
    """Return the post of a JSON object whose first line has the number."""
    try:
        record = json.loads(text, object_pairs_hook=unrepeated, parse_float=_finite, parse_constant=_finite)
    except (ValueError, RecursionError) as error:
        return source.error(f"expected one JSON object, found {shorten(text)} ({error})", number)
    if not isinstance(record, dict):
        return source.error(f"expected one JSON object, found {shorten(record)}", number)
    try:
        return _post(record)
    except InputError as error:
        return NoPost(str(source.error(str(error), number)), _id_of(record))


def _finite(written: str) -> float:
    """Return a number that JSON can hold; Python would read NaN and 1e999, and write what no reader takes."""
    if not isfinite(value := float(written)):
        raise ValueError(f"{written} is no number of JSON")
    return value


def _of_array(array: Array) -> Posts:
    """Yield the posts of an array, each with its place, as all of them may be on one line."""
    mark, place = array.mark(), 0
    if array.next_is("]"):
        mark = array.mark()
    while mark != "]":
        place += 1
        number, text = array.next()
        yield place, array.source.fault(text, number) or _of_object(array.source, text, number)
        mark = array.mark()
        if mark not in (",", "]"):
            raise array.error(f'expected "," or "]" after an object, found {shorten(mark)}')
    if rest := array.mark():
        raise array.error(f"expected nothing after the array, found {shorten(rest)}")


def _post(record: Mapping[str, Any]) -> Post:
    """Return the post of the values of its keys; null is absent. Raises InputError without the place."""
    own = {name: record[name] for name in _OWN if record.get(name) is not None}
    more = {name: value for name, value in record.items() if name not in _OWN}
    if "text" not in own and "tokens" not in own:
        raise InputError(f'it has neither "text" nor "tokens", only {shorten(list(record))}')
    if "text" in own and not isinstance(own["text"], str):
        raise InputError(f'"text" must be a string, found {shorten(own["text"])}')
    if "tokens" in own:
        tokens = own["tokens"]
        if not isinstance(tokens, list) or not all(isinstance(token, str) for token in tokens):
            raise InputError(f'"tokens" must be a list of strings, found {shorten(tokens)}')
        if own.pop("text", None) not in (None, " ".join(tokens)):
            raise InputError('it has both "text" and "tokens"; remove "text" to keep the words')
    for name in ("id", "image"):
        if name in own:
            own[name] = _name(name, own[name])
    for name in ("head", "tail"):
        if name in own:
            own[name] = _pair(name, own[name])
    if ("head" in own) != ("tail" in own):
        raise InputError('it has one of "head" and "tail" alone; a relation needs both')
    return Post(**own, more=more)


def _id_of(record: Mapping[str, Any]) -> str | None:
    """Return the id of a record that is no post, or None where that is none either."""
    try:
        found: str | None = _name("id", record["id"])
    except (KeyError, InputError):
        return None
    return found


def _name(name: str, value: Any) -> Any:
    """Return a name as text, or None of an empty one. The bytes of an image, from parquet, stay."""
    if isinstance(value, bytes) and name == "image":
        return value or None
    if type(value) is int and abs(value) < 10**18:
        return str(value)
    if not isinstance(value, str) or not is_utf8(value) or "\0" in value:
        raise InputError(f'"{name}" must be a string of valid Unicode, found {shorten(value)}')
    return value or None


def _pair(name: str, value: Any) -> tuple[int, int]:
    # bool is an int to Python: [false, true] would pass as [0, 1].
    if not isinstance(value, list) or len(value) != 2 or any(type(bound) is not int for bound in value):
        raise InputError(f'"{name}" must be [start, end), two numbers, found {shorten(value)}')
    return value[0], value[1]


def _of_table(source: Source, format: str, text_column: str, image_column: str) -> Posts:
    """Return the posts of a table of text, whose first row names the columns. Reads that row at once."""
    csv.field_size_limit(MOST)
    # strict: a cell with a quote in its midst would lose it silently
    rows = csv.reader(source, "excel" if format == "csv" else "excel-tab", strict=True)
    try:
        names = next(rows, [])
    except csv.Error as error:
        raise source.error(f"expected the names of the columns ({error})") from error
    if fault := source.fault("".join(names)):
        raise fault
    _check_columns(source.name, names, [text_column], image_column)
    if len(set(names)) < len(names):
        raise source.error(f"two columns have one name: {', '.join(names)}; rename one")

    def posts() -> Posts:
        while True:
            number = source.number + 1
            try:
                cells = next(rows)
            except StopIteration:
                return
            except csv.Error as error:
                yield number, source.error(f"it is no row of {format} ({error})", number)
                continue
            except InputError as error:
                yield number, error
                continue
            if not cells:
                continue
            if fault := source.fault("\n".join(cells), number):
                yield number, fault
            elif len(cells) != len(names):
                yield number, source.error(f"it has {len(cells)} cells, and {len(names)} columns", number)
            else:
                named = dict(zip(names, cells, strict=True))
                text = named.pop(text_column)
                image = named.pop(image_column, "") or None
                yield number, Post(text, image=image, id=named.pop("id", "") or None, more=named)

    return posts()


def _check_columns(file: Path | str, names: list[str], texts: list[str], image: str) -> None:
    """Raise InputError where a table has none of the columns for texts, or lacks the one for images."""
    for wanted in [texts] if image == _IMAGE else [texts, [image]]:
        if not set(wanted) & set(names):
            raise InputError(
                f"{file} has no column {' or '.join(map(repr, wanted))}; "
                f"its columns are {', '.join(map(repr, names)) or 'none'}"
            )


def _of_parquet(path: Path | None, text_column: str, image_column: str) -> Posts:
    """Return the posts of a parquet file, each with the number of its row. Reads the columns at once."""
    if path is None:
        raise InputError("parquet cannot be read from standard input; give its file")
    check_file(path)
    try:
        file = pq.ParquetFile(path)
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{path} is no readable parquet file ({in_one_line(error)})") from error
    names = file.schema_arrow.names
    texts = [text_column, "tokens"] if text_column == _TEXT else [text_column]
    _check_columns(path, names, texts, image_column)

    def posts() -> Posts:
        number = 0
        with file:
            # Few rows at a time, as they may hold the bytes of images.
            for batch in file.iter_batches(batch_size=64):
                for place in range(batch.num_rows):
                    number += 1
                    row: dict[str, Any] = {}
                    try:
                        row = batch.slice(place, 1).to_pylist()[0]
                        yield number, _post(_of_row(row, text_column, image_column))
                    except (ValueError, OverflowError, InputError) as error:
                        yield number, NoPost(f"{path.name} row {number}: {in_one_line(error)}", _id_of(row))

    return posts()


def _of_row(row: dict[str, Any], text_column: str, image_column: str) -> dict[str, Any]:
    """Return the keys of a post for the values of a row, with values of JSON for what passes through."""
    own = {"text": row.pop(text_column, None), "image": row.pop(image_column, None)}
    if isinstance(own["image"], dict):  # as Hugging Face's datasets write images
        own["image"] = own["image"].get("bytes") or own["image"].get("path")
    kept = {name: value for name, value in row.items() if not isinstance(value, bytes)}
    return {**json.loads(json.dumps(kept, default=str)), **own}


def _of_words(source: Source) -> Posts:
    """Yield the posts of a file of a word a line, as Twitter-2015 and CoNLL have it, with labels or without.

    Blank lines end a post. `IMGID:7` begins one whose id is 7 and whose image is 7.jpg, and `# image = 7.png`
    one whose image is that. Labels of all its words, in the last column, pass through as "tags".
    """
    draft = _Draft()
    for number, text in source.lines():
        header = header_of(text) if isinstance(text, str) else None
        if header or (isinstance(text, str) and (not text.strip() or text.split()[0] == DOCUMENT)):
            yield from draft.post(source)
            draft = _Draft(number, header, str(text)) if header else _Draft()
        elif not (isinstance(text, str) and is_comment(text)):
            draft.number = draft.number or number
            draft.add(source, text)
    yield from draft.post(source)


@dataclass
class _Draft:
    """A post of which not all lines are read.

    number: of its first line, 0 before that. header: its id and image, where a line, `written`, names them.
    """

    number: int = 0
    header: tuple[str, str] | None = None
    written: str = ""
    size: int = 0
    words: list[str] = field(default_factory=list)
    tags: list[str] = field(default_factory=list)
    error: InputError | None = None

    def add(self, source: Source, text: str | InputError) -> None:
        """Add a line to the post, whose first fault is that of the post."""
        if self.error is not None:
            return
        if isinstance(text, InputError):
            self.error = text
            return
        self.size += len(text)
        cells = cells_of(text)
        if not cells[0]:
            self.error = source.error(f"expected a word, found {shorten(text)}")
        elif self.size > MOST:
            self.error = source.error("its post is too long; a blank line ends a post")
        self.words.append(cells[0])
        self.tags.extend(cells[1:][-1:])

    def post(self, source: Source) -> Posts:
        """Yield the post, or its error; nothing where it has no line."""
        if self.error is None and self.header is not None and not self.words:
            self.error = source.error(f'no word follows "{self.written.strip()}"', self.number)
        if self.error is not None:
            yield self.number, self.error
        elif self.words:
            name, image = self.header or ("", "")
            more = {"tags": self.tags} if len(self.tags) == len(self.words) else {}
            yield self.number, Post(tokens=self.words, image=image or None, id=name or None, more=more)


_READERS: dict[str, Callable[[Source], Posts]] = {"jsonl": _of_json, "txt": _of_text, "conll": _of_words}
