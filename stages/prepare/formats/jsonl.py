"""The project's own format for users' data: one JSON object per line, or one JSON array of objects.

Entities (task "ner"), with words and BIO tags, or with a text and half-open character ranges:

    {"tokens": ["Ada", "is", "here"], "tags": ["B-PER", "O", "O"]}
    {"text": "Ada is here", "spans": [{"start": 0, "end": 3, "type": "PER"}]}

Relations (task "re"), with half-open ranges of words or, with a text, of characters:

    {"tokens": ["Ada", "of", "London"], "head": [0, 1], "tail": [2, 3],
     "relation": "/per/loc/place_of_residence"}
    {"text": "Ada of London", "head": [0, 3], "tail": [7, 13], "relation": "/per/loc/place_of_residence"}

Words come from the text alone, by the rule `words` of [prepare]; a span that does not fall on the bounds of
words is moved to the smallest words that cover it.

Each may have "id" (unique over all splits), "image" (a name in the image folder) and "groups". "groups" is a
list of names for which scores are reported separately: one for each mention in the order of the text, or of
"spans"; one for a relation. Null means absent. Entities may have "boxes" too, a list for each mention as in
"groups": its boxes [x0, y0, x1, y1] in pixels of the image, [] for a mention that the image does not show, or
null for one that nobody looked for there.
"""

import json
import re
from collections.abc import Iterator
from itertools import accumulate, pairwise
from typing import Any

from ....manifests.errors import InputError
from ....manifests.fingerprint import digest_json
from ...text.words import split_words
from ...text.written import shorten, unrepeated
from ...vision.known import is_number
from .rows import Draft, Line, Reading, TextFile, is_tag, open_mentions, scheme_of

__all__ = ["SpanError", "array_of", "draft_of", "is_array", "object_of", "read_jsonl"]

_OPTIONAL = {"ner": {"id", "image", "groups", "boxes"}, "re": {"id", "image", "groups"}}
_NEEDED = {
    ("ner", "tokens"): {"tokens", "tags"},
    ("ner", "text"): {"text", "spans"},
    ("re", "tokens"): {"tokens", "head", "tail", "relation"},
    ("re", "text"): {"text", "head", "tail", "relation"},
}
_SPACE = re.compile(r"\s*")
_SPAN_KEYS = {"start", "end", "type"}


class SpanError(InputError):
    """A span is not whole words, and the user wants that refused."""


def read_jsonl(file: TextFile, task: str, reading: Reading) -> list[Draft]:
    """Return the samples of one file, skipping blank lines.

    Without an "id" the id is 12 digits of the content's digest. Raises InputError that names the line.
    """
    objects = array_of(file) if is_array(file) else _of_lines(file)
    return [draft_of(line, record, task, reading) for line, record in objects]


def is_array(file: TextFile) -> bool:
    """Return whether a file of JSON holds one array, and not an object a line; of its first part."""
    first = next((text for text in file.lines if text.strip()), "")
    return file.first == 1 and first.lstrip().startswith("[")


def _of_lines(file: TextFile) -> Iterator[tuple[Line, dict[str, Any]]]:
    """Yield the object of each line."""
    for number, text in file.numbered:
        if text.strip():
            line = Line(file, number)
            yield line, object_of(line, text)


def object_of(line: Line, text: str) -> dict[str, Any]:
    """Return the JSON object of one line. Raises InputError that names the line."""
    try:
        record = json.loads(text, object_pairs_hook=unrepeated)
    except (ValueError, RecursionError) as error:
        raise line.error(f"expected one JSON object, found {shorten(text)} ({error})") from error
    return _object(line, record)


def array_of(file: TextFile) -> Iterator[tuple[Line, dict[str, Any]]]:
    """Yield each object of the array that the file holds, with the line that it begins in.

    Tools write all objects in one line: each that begins none is named by its number too.
    """
    text = "\n".join(file.lines)
    decoder = json.JSONDecoder(object_pairs_hook=unrepeated)
    place, number, mark = text.index("["), 1 + text.count("\n", 0, text.index("[")), "["
    before, objects = 0, 0
    while mark != "]":
        place, number = _skip(text, place + 1, number)
        objects += 1
        line = Line(file, number, objects if number == before else 0)
        before = number
        if mark == "[" and text[place : place + 1] == "]":
            raise line.error("the array is empty; fill it or remove the file")
        try:
            record, end = decoder.raw_decode(text, place)
        except (ValueError, RecursionError) as error:
            found = shorten(text[place : place + 100])
            raise line.error(f"expected one JSON object, found {found} ({error})") from error
        yield line, _object(line, record)
        place, number = _skip(text, end, number + text.count("\n", place, end))
        mark = text[place : place + 1]
        if mark not in (",", "]"):
            raise Line(file, number).error(f'expected "," or "]" after an object, found {shorten(mark)}')
    if rest := text[place + 1 :].strip():
        raise Line(file, number).error(f"expected nothing after the array, found {shorten(rest)}")


def _skip(text: str, place: int, number: int) -> tuple[int, int]:
    """Return the next place that is not white space, and the number of its line."""
    space = _SPACE.match(text, place)
    assert space is not None
    return space.end(), number + space[0].count("\n")


def draft_of(
    line: Line, record: dict[str, Any], task: str, reading: Reading, words: list[str] | None = None
) -> Draft:
    """Return the sample of one object, which other formats translate their rows into.

    words: those that the text was made of, joined by single spaces, where they are known. Raises InputError
    that names the line.
    """
    record = {key: value for key, value in record.items() if value is not None}
    if hint := _other_format(record):
        raise line.error(hint)
    if ("tokens" in record) == ("text" in record):
        both = '; it has both, remove "text" to keep the words' if "text" in record else ""
        raise line.error(f'expected either "tokens" or "text"{both}')
    needed = _NEEDED[task, "text" if "text" in record else "tokens"]
    known = ", ".join(sorted(needed | _OPTIONAL[task]))
    if unknown := sorted(record.keys() - needed - _OPTIONAL[task]):
        raise line.error(
            f"unknown key {shorten(unknown[0])}; such a sample of the task {task} may have {known}"
        )
    if missing := sorted(needed - record.keys()):
        raise line.error(f'"{missing[0]}" is missing; such a sample of the task {task} may have {known}')
    content = (_entities if task == "ner" else _relation)(line, record, reading, words)
    given = line.name("id", record["id"]) if "id" in record else None
    image = line.name("image", record["image"]) if "image" in record else None
    digest = digest_json({key: value for key, value in record.items() if key != "id"})
    return Draft(
        line=line, name=given or digest[:12], digest=digest, image=image, given=given is not None, **content
    )


def _object(line: Line, record: Any) -> dict[str, Any]:
    if not isinstance(record, dict):
        raise line.error(f"expected one JSON object, found {shorten(json.dumps(record))}")
    return record


def _other_format(record: dict[str, Any]) -> str | None:
    """Return the message for a row of a format of elsewhere, which says how to write it here."""
    keys = record.keys()
    if "ner_tags" in keys:
        return (
            'looks like a row of Hugging Face datasets; rename "ner_tags" to "tags" and write names such as '
            '"B-PER" for its numbers'
        )
    labels = next((key for key in ("label", "labels", "entities") if isinstance(record.get(key), list)), None)
    if "tokens" in keys and labels == "label":
        return (
            'looks like a row of RiTUAL\'s multimodal_NER; rename "label" to "tags" and "image_id" to '
            '"image", and remove "text"'
        )
    if "text" in keys and labels is not None:
        return (
            "looks like an export of doccano; give --format doccano, or write each [start, end, type] of "
            f'"{labels}" into "spans" as {{"start": start, "end": end, "type": type}}'
        )
    if "token" in keys and {"h", "t", "relation"} <= keys:
        return (
            "looks like a row of OpenNRE; give --format opennre (MNRE's own rows, which are no JSON: "
            "name the file train.txt and give --format mnre)"
        )
    return None


def _entities(
    line: Line, record: dict[str, Any], reading: Reading, given: list[str] | None
) -> dict[str, Any]:
    if "text" in record:
        return _from_spans(line, record, reading, given)
    tokens = line.tokens("tokens", record["tokens"])
    written = line.texts("tags", record["tags"])
    if len(written) != len(tokens):
        raise line.error(f"expected a tag for each of the {len(tokens)} tokens, found {len(written)} tags")
    for index, tag in enumerate(written):
        if not is_tag(tag):
            line.fail(f"tags[{index}]", "O, or B- or I- with a type", tag)
    tags, reasons = open_mentions(written)
    mentions = sum(tag.startswith("B-") for tag in tags)
    return {
        "tokens": tokens,
        "tags": tags,
        "groups": _groups(line, record, mentions, "mention"),
        "boxes": _boxes(line, record, mentions, "mention"),
        "repairs": [(line, reason) for reason in reasons.values()],
        "converted": scheme_of(written),
    }


def _from_spans(
    line: Line, record: dict[str, Any], reading: Reading, given: list[str] | None
) -> dict[str, Any]:
    text = line.text("text", record["text"])
    if not isinstance(record["spans"], list):
        line.fail("spans", "a list", record["spans"])
    spans = [_span(line, f"spans[{index}]", span, len(text)) for index, span in enumerate(record["spans"])]
    groups = _groups(line, record, len(spans), "span")
    boxes = _boxes(line, record, len(spans), "span")
    order = sorted(range(len(spans)), key=lambda index: spans[index][0])
    for one, other in pairwise(order):
        if spans[one][0][1] > spans[other][0][0]:
            raise line.error(f"spans[{one}] and spans[{other}] overlap; keep one of them")
    words = _Words(line, text, reading, given)
    tags = ["O"] * len(words.tokens)
    kept, free = [], 0
    for index in order:
        span, kind = spans[index]
        first, last = words.covering(f"spans[{index}]", span, free)
        if first < last:
            tags[first:last] = [f"B-{kind}", *[f"I-{kind}"] * (last - first - 1)]
            kept.append(index)
            free = last
    return {
        **words.columns,
        "tags": tags,
        "groups": groups and [groups[index] for index in kept],
        "boxes": boxes and [boxes[index] for index in kept],
        "moved": words.moved,
    }


def _span(line: Line, name: str, span: Any, length: int) -> tuple[list[int], str]:
    if not isinstance(span, dict) or span.keys() != _SPAN_KEYS:
        line.fail(name, f"an object with the keys {', '.join(sorted(_SPAN_KEYS))}", span)
    return line.span(name, [span["start"], span["end"]], length, "characters"), line.text(
        f"{name} type", span["type"]
    )


def _relation(
    line: Line, record: dict[str, Any], reading: Reading, given: list[str] | None
) -> dict[str, Any]:
    moved: list[tuple[Line, str]] = []
    if "text" in record:
        text = line.text("text", record["text"])
        head, tail = (line.span(name, record[name], len(text), "characters") for name in ("head", "tail"))
        words = _Words(line, text, reading, given)
        content, moved = words.columns, words.moved
        head, tail = words.covering("head", head), words.covering("tail", tail)
    else:
        tokens = line.tokens("tokens", record["tokens"])
        head, tail = (line.span(name, record[name], len(tokens), "words") for name in ("head", "tail"))
        content = {"tokens": tokens}
    return {
        **content,
        "head": head,
        "tail": tail,
        "relation": line.text("relation", record["relation"]),
        "groups": _groups(line, record, 1, "relation"),
        "moved": moved,
    }


def _groups(line: Line, record: dict[str, Any], count: int, unit: str) -> list[str] | None:
    if "groups" not in record:
        return None
    groups = line.texts("groups", record["groups"])
    if len(groups) != count:
        raise line.error(f'expected {count} "groups", one for each {unit}, found {len(groups)}')
    return groups


def _boxes(line: Line, record: dict[str, Any], count: int, unit: str) -> list[Any] | None:
    """Return the boxes of each mention or None; whether they lie in the image is not known here."""
    if (boxes := record.get("boxes")) is None:
        return None
    if "image" not in record:
        raise line.error('"boxes" are in pixels of an image, and there is no "image"; name it')
    if not isinstance(boxes, list) or len(boxes) != count:
        line.fail("boxes", f"a list of {count}, one for each {unit}", boxes)
    for number, each in enumerate(boxes):
        for box in [] if each is None else each if isinstance(each, list) else [each]:
            if not (isinstance(box, list) and len(box) == 4 and all(map(is_number, box))):
                line.fail(f"boxes[{number}]", "null or a list of boxes, each of four numbers", each)
    return boxes


def _bounds(words: list[str]) -> list[tuple[int, int]]:
    """Return where words stand in the text that they are when joined by single spaces."""
    ends = list(accumulate(len(word) + 1 for word in words))
    return [(end - len(word) - 1, end - 1) for word, end in zip(words, ends, strict=True)]


class _Words:
    """The words of a text, which no span shapes, and the words that cover a span.

    given: the words that the text was made of, where they are known. moved: the (line, reason) of each span
    that did not fall on the bounds of words.
    """

    def __init__(self, line: Line, text: str, reading: Reading, given: list[str] | None) -> None:
        self._line, self._text, self._reading, self._given = line, text, reading, given is not None
        self._bounds = split_words(text, reading.words) if given is None else _bounds(given)
        self.tokens = [text[start:end] for start, end in self._bounds]
        self.moved: list[tuple[Line, str]] = []
        if not self.tokens:
            line.fail("text", "more than white space", text)

    @property
    def columns(self) -> dict[str, Any]:
        """Return what a sample keeps of the text: itself, its words, and where they stand in it."""
        if self._given:
            return {"tokens": self.tokens}
        return {"tokens": self.tokens, "text": self._text, "offsets": [list(word) for word in self._bounds]}

    def covering(self, name: str, span: list[int], free: int = 0) -> list[int]:
        """Return the smallest half-open range of words that covers a span of characters.

        free: the first word that no earlier span has. The range is empty where it would start before it, as a
        word has one tag.
        """
        start, end = span
        covered = [index for index, (first, last) in enumerate(self._bounds) if first < end and start < last]
        if not covered:
            raise self._line.error(f'"{name}" covers white space only; give it a word')
        whole = [self._bounds[covered[0]][0], self._bounds[covered[-1]][1]]
        if whole != span:
            taken = covered[0] < free
            remedy = "dropped, as another span has that word" if taken else f"moved to {self._quote(whole)}"
            self._note(f"{name} {self._quote(span)} is not whole words", remedy)
            if taken:
                return [covered[0], covered[0]]
        return [covered[0], covered[-1] + 1]

    def _quote(self, span: list[int]) -> str:
        return f"{span} {shorten(self._text[slice(*span)])}"

    def _note(self, fault: str, remedy: str) -> None:
        """Note the fault of a span, or raise InputError where spans are strict."""
        if self._reading.strict_spans:
            wish = "correct it, or prepare with --no-strict-spans to have it moved"
            raise SpanError(f"{self._line}: {fault}; {wish}")
        self.moved.append((self._line, f"{fault}; {remedy}"))
