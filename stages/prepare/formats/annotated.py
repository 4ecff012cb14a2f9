"""What annotation tools export, in one shape: a text with spans of characters, and relations between them.

Rows of other formats are translated into objects of the project's own and read as those are. A row that
cannot be read is left out with its reason, as an export of a thousand tasks has a few that nobody finished.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from ....manifests.errors import InputError
from ...text.written import unrepeated
from .jsonl import SpanError, array_of, draft_of, is_array, object_of
from .rows import Draft, Line, Reading, Refused, TextFile

__all__ = ["Annotated", "first_object", "json_rows", "objects_of", "parsed", "translated"]

Row = TypeVar("Row")

# The first object of a file is looked for in so many bytes.
_HEAD = 1 << 20


@dataclass(frozen=True)
class Annotated:
    """One annotated text.

    spans: the half-open range of characters and the type of each mention, by the name that relations have
    for it. relations: the names of head and tail, and the relation. tokens: the words that joined by single
    spaces are the text, where the text was made of words. left_out: what was not read, and why.
    """

    text: Any
    spans: Mapping[Any, tuple[Any, Any, Any]]
    relations: list[tuple[Any, Any, Any]] = field(default_factory=list)
    id: Any = None
    image: Any = None
    tokens: Any = None
    left_out: list[str] = field(default_factory=list)


def objects_of(line: Line, one: Annotated, task: str) -> Iterator[dict[str, Any] | str]:
    """Yield objects as `draft_of` takes them: one of the task "ner", one a relation of the task "re".

    What is left out is a string that says why.
    """
    words = line.tokens("tokens", one.tokens) if one.tokens is not None else None
    common = {"text": one.text, "id": one.id, "image": one.image}
    if words is not None and " ".join(words) == one.text:
        common["words"] = words
    yield from one.left_out
    if task == "ner":
        spans = [{"start": start, "end": end, "type": kind} for start, end, kind in one.spans.values()]
        yield {**common, "spans": spans}
        return
    if not one.relations:
        yield "it has no relation, and so makes no sample of the task re"
    for head, tail, relation in one.relations:
        ends: dict[str, Any] = {}
        for name, end in (("head", head), ("tail", tail)):
            if end not in one.spans:
                raise line.error(f"a relation is of {end!r}, which is no span of it; export it again")
            ends[name] = list(one.spans[end][:2])
        yield {**common, **ends, "relation": relation}


def translated(
    rows: Iterable[tuple[Line, Row]],
    translate: Callable[[Line, Row, str], Iterable[dict[str, Any] | str]],
    task: str,
    reading: Reading,
) -> Iterator[Draft | Refused]:
    """Yield the samples of each row, or the reason why it has none.

    translate: from a row, with its line and the task, to objects as `draft_of` takes them, or to reasons. The
    ids that a row gives need not be unique, as those of several exports are not. Raises InputError for a span
    that `reading.strict_spans` refuses, since the user asked for that.
    """
    for line, row in rows:
        found: list[Draft | Refused] = []
        try:
            for record in translate(line, row, task):
                if isinstance(record, str):
                    found.append(Refused(line, record))
                else:
                    words = record.pop("words", None)
                    found.append(replace(draft_of(line, record, task, reading, words), given=False))
        except SpanError:
            raise
        except InputError as error:
            found = [Refused(line, str(error).removeprefix(f"{line}: "))]
        yield from found


def json_rows(file: TextFile) -> Iterator[tuple[Line, str | dict[str, Any]]]:
    """Yield the rows of a file of JSON: the objects of its array, or its lines, which are not parsed yet.

    Raises InputError where an array is not one: nothing after the fault could be read.
    """
    if is_array(file):
        yield from array_of(file)
    else:
        for number, text in file.numbered:
            if text.strip():
                yield Line(file, number), text


def parsed(
    translate: Callable[[Line, dict[str, Any], str], Iterable[dict[str, Any] | str]],
) -> Callable[[Line, str | dict[str, Any], str], Iterable[dict[str, Any] | str]]:
    """Return `translate` for rows of `json_rows`, of which those that are no JSON raise InputError."""
    return lambda line, row, task: translate(
        line, object_of(line, row) if isinstance(row, str) else row, task
    )


def first_object(path: Path) -> dict[str, Any]:
    """Return the first JSON object of a file, or of the array that it holds; empty where there is none."""
    with path.open("rb") as file:
        head = file.read(_HEAD).decode("utf-8-sig", "replace").lstrip()
    try:
        record, _ = json.JSONDecoder(object_pairs_hook=unrepeated).raw_decode(head.lstrip("[ \t\r\n"))
    except (ValueError, RecursionError):
        return {}
    return record if isinstance(record, dict) else {}
