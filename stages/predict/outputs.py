"""The formats that results are written in, each result as it comes: none of them but spaCy's is held whole.

docs/predict.md describes the formats.
"""

import csv
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from io import StringIO
from pathlib import Path, PurePosixPath
from typing import Any

from ...manifests.errors import InputError, in_one_line, unknown_name
from ...manifests.files import atomic_path, make_folder
from ..text.limits import Span
from ..text.words import split_words
from ..text.written import DOCUMENT, IMAGE_HEADER
from .results import Entity, Result, as_line

__all__ = ["FILE_NAMES", "FORMATS", "Samples", "encoded", "results_in", "write"]

FORMATS = ("jsonl", "conll", "brat", "label-studio", "spacy", "csv")
"""The names of the formats."""

FILE_NAMES = {
    "jsonl": "predictions.jsonl",
    "conll": "predictions.conll",
    "brat": "brat",
    "label-studio": "label-studio.json",
    "spacy": "predictions.spacy",
    "csv": "predictions.csv",
}
"""How the file of a format is called in the folder of a prediction; that of "brat" is a folder."""

Numbered = Iterable[tuple[int, Result]]

# What ends a line, or a column, for one reader or another.
_BREAKS = re.compile("[\t\n\x0b\x0c\r\x1c-\x1e\x85\u2028\u2029]")
_NO_NAME = re.compile(r"[^\w-]+")


@dataclass(frozen=True)
class Samples:
    """How results are written that are samples of a run, so that `prepare` reads the same samples again.

    gold: whether their labels are the truth, and not predictions. images: whether any has an image.
    """

    gold: bool
    images: bool


@dataclass(frozen=True)
class _Writing:
    """What the formats need beside the results.

    words: the rule for words; model: what made the results; samples: where they are samples of a run.
    """

    words: str
    model: str
    samples: Samples | None = None


def write(
    format: str,
    results: Numbered,
    target: Path,
    *,
    words: str = "simple",
    model: str = "hmnet-pipe",
    samples: Samples | None = None,
) -> None:
    """Write results, each with the number of its post, to a file, or to a folder of "brat".

    The file is there whole, or not at all. words: the rule by which texts become the words of "conll" and
    "spacy", where a post was not given as words. model: what "label-studio" shows as the version of the
    model. samples: how samples of a run are written. Raises InputError for an unknown format, and for "spacy"
    where spaCy is not installed.
    """
    if format == "brat":
        _write_brat(results, target, samples)
        return
    pieces = encoded(format, results, words=words, model=model, samples=samples)
    with atomic_path(target) as temporary, temporary.open("wb") as file:
        file.writelines(pieces)


def encoded(
    format: str,
    results: Numbered,
    *,
    words: str = "simple",
    model: str = "hmnet-pipe",
    samples: Samples | None = None,
) -> Iterator[bytes]:
    """Return an iterator of the bytes that `write` writes, such as for standard output.

    Raises as it does, at once, and InputError for "brat", whose files fit no stream.
    """
    if format == "brat":
        raise InputError("brat is a folder with two files a post; give a folder for the output")
    if format not in _ENCODERS:
        raise unknown_name("format", format, FORMATS)
    if format == "spacy":
        _spacy()
    return _ENCODERS[format](results, _Writing(words, model, samples))


def results_in(path: Path) -> Iterator[tuple[int, Result]]:
    """Yield the results of a file that was written as "jsonl", each with the number of its line."""
    with path.open(encoding="utf-8", newline="\n") as file:
        for number, line in enumerate(file, start=1):
            yield number, Result.from_json(json.loads(line))


def _jsonl(results: Numbered, writing: _Writing) -> Iterator[bytes]:
    for _, result in results:
        yield as_line(result.to_json()).encode()


def _csv(results: Numbered, writing: _Writing) -> Iterator[bytes]:
    """Yield a row for each entity; a post is named by its id, or by its number where it has none."""
    yield _row(("id", "start", "end", "entity_group", "word", "score"))
    for number, result in results:
        name = number if result.id is None else result.id
        for one in result.entities:
            yield _row((name, one.start, one.end, one.entity_group, one.word, round(one.score, 6)))


def _row(cells: Sequence[Any]) -> bytes:
    line = StringIO(newline="")
    csv.writer(line).writerow(cells)
    return line.getvalue().encode()


def _conll(results: Numbered, writing: _Writing) -> Iterator[bytes]:
    """Yield the words of each post that has any, under its id, or under its number where it has none."""
    for number, result in results:
        words, spans = _worded(result, writing.words)
        if not words:
            continue
        labels = ["O"] * len(words)
        for one, (first, last) in spans:
            labels[first:last] = [f"B-{one.entity_group}", *[f"I-{one.entity_group}"] * (last - first - 1)]
        if writing.samples is None:
            lines = [f"{IMAGE_HEADER}{_one_line(str(number if result.id is None else result.id))}"]
        else:
            lines = [_image_line(result.image.name)] if writing.samples.images else []
        lines += [f"{_cell(word)}\t{_one_line(label)}" for word, label in zip(words, labels, strict=True)]
        yield ("\n".join(lines) + "\n\n").encode()


def _image_line(name: str | None) -> str:
    """Return the line that names the image of a sample; where others have one, it says that there is none."""
    if name is not None and name.endswith(".jpg"):
        return f"{IMAGE_HEADER}{_one_line(name.removesuffix('.jpg'))}"
    return f"# image = {_one_line(name or '')}"


def _one_line(text: str) -> str:
    """Return a text of the same length that no reader takes for two lines, or for two columns."""
    return _BREAKS.sub(" ", text)


def _cell(word: str) -> str:
    """Return a word that is none of the marks of a file of words."""
    word = _one_line(word).replace("\0", "\N{REPLACEMENT CHARACTER}")
    return word.replace("-", "\N{HYPHEN}") if word.split()[:1] == [DOCUMENT] else word


def _worded(result: Result, rule: str) -> tuple[list[str], list[tuple[Entity, Span]]]:
    """Return the words of a result, and its entities with their half-open ranges of words.

    The range is the smallest that covers the entity, whatever rule has made it. An entity is left out where a
    word of it is another's, as a word has one label. Where nothing could be looked for, there are no words.
    """
    if result.error and not result.entities:
        return [], []
    if result.tokens is not None:
        words, bounds = list(result.tokens), []
        at = 0
        for word in words:
            bounds.append((at, at + len(word)))
            at += len(word) + 1
    else:
        bounds = split_words(result.text, rule)
        words = [result.text[start:end] for start, end in bounds]
    spans: list[tuple[Entity, Span]] = []
    free = 0
    for one in sorted(result.entities, key=lambda entity: (entity.start, entity.end)):
        covered = [i for i, (start, end) in enumerate(bounds) if start < one.end and one.start < end]
        if covered and covered[0] >= free:
            free = covered[-1] + 1
            spans.append((one, (covered[0], free)))
    return words, spans


def _label_studio(results: Numbered, writing: _Writing) -> Iterator[bytes]:
    """Yield one array of tasks. Label Studio counts characters as Python does."""
    before = b"["
    for number, result in results:
        found = [_region(place, one) for place, one in enumerate(result.entities)]
        gold = writing.samples is not None and writing.samples.gold
        prediction: dict[str, Any] = {"result": found}
        if not gold:
            prediction["model_version"] = writing.model
        if result.entities and not gold:  # the least sure first, when tasks are sorted by it
            prediction["score"] = round(min(one.score for one in result.entities), 6)
        for one in result.relations:
            ends = []
            for name, end in (("head", one.head), ("tail", one.tail)):
                if not isinstance(end, int):  # a pair that was given: it has no entity
                    word = result.text[end[0] : end[1]]
                    found.append(_region(len(found), Entity(name, word, *end, one.score)))
                    end = len(found) - 1
                ends.append(f"e{end}")
            found.append(
                {
                    "type": "relation",
                    "from_id": ends[0],
                    "to_id": ends[1],
                    "direction": "right",
                    "labels": [one.relation],
                    "score": round(one.score, 6),
                }
            )
        data = {**result.more, "id": number if result.id is None else result.id, "text": result.text}
        if result.image.name is not None:
            data["image"] = result.image.name
        if writing.samples is not None and result.tokens is not None:
            data["tokens"] = list(result.tokens)
        place_of = "annotations" if gold else "predictions"
        yield before + as_line({"data": data, place_of: [prediction]}).encode()
        before = b","
    yield b"]\n" if before == b"," else b"[]\n"


def _region(place: int, one: Entity) -> dict[str, Any]:
    return {
        "id": f"e{place}",
        "from_name": "label",
        "to_name": "text",
        "type": "labels",
        "value": {"start": one.start, "end": one.end, "text": one.word, "labels": [one.entity_group]},
        "score": round(one.score, 6),
    }


def _docbin(results: Numbered, writing: _Writing) -> Iterator[bytes]:
    """Yield one DocBin, which spaCy can only write whole. The id of a post is user data of its document."""
    spacy, docs = _spacy(), import_module("spacy.tokens")
    vocab = spacy.blank("xx").vocab
    kept = docs.DocBin(store_user_data=True)
    for number, result in results:
        words, spans = _worded(result, writing.words)
        if not words:
            continue
        texts, spaces = spacy.util.get_words_and_spaces(words, result.text)
        doc = docs.Doc(vocab, words=texts, spaces=spaces)
        doc.ents = [
            doc.char_span(one.start, one.end, label=one.entity_group, alignment_mode="expand")
            for one, _ in spans
        ]
        doc.user_data["id"] = number if result.id is None else result.id
        if writing.samples is not None and result.image.name is not None:
            doc.user_data["image"] = result.image.name
        kept.add(doc)
    yield kept.to_bytes()


def _spacy() -> Any:
    try:
        return import_module("spacy")
    except ImportError as error:
        raise InputError(
            f"spacy cannot be imported ({in_one_line(error)}); run `pip install 'hmnet-pipe[spacy]'`, or "
            "choose another format"
        ) from error


def _write_brat(results: Numbered, folder: Path, samples: Samples | None) -> None:
    """Write 0000001.txt and 0000001.ann for the post with the number 1, and so on.

    Samples are called as their images, and those of one image are in folders of their own. What ends a line
    is a space in both, one for one, so that the characters keep their places.
    """
    make_folder(folder)
    taken: set[Path] = set()
    for number, result in results:
        text = _one_line(result.text)
        lines = [
            _mention(place, one.entity_group, one.start, one.end, text)
            + (f"#{place}\tAnnotatorNotes T{place}\tscore {one.score:.6f}\n" if samples is None else "")
            for place, one in enumerate(result.entities, start=1)
        ]
        given = len(lines)
        for place, relation in enumerate(result.relations, start=1):
            ends = []
            for name, end in (("head", relation.head), ("tail", relation.tail)):
                if not isinstance(end, int):  # a pair that was given: it has no entity
                    given += 1
                    lines.append(_mention(given, name, *end, text))
                    end = given - 1
                ends.append(f"T{end + 1}")
            lines.append(f"R{place}\t{_name(relation.relation)} Arg1:{ends[0]} Arg2:{ends[1]}\n")
        document = folder / f"{number:07}"
        if samples is not None and result.image.name is not None:
            document = folder / (PurePosixPath(result.image.name).stem or document.name)
            if document in taken:
                document = folder / f"{number:07}" / document.name
                make_folder(document.parent)
            taken.add(document)
        for suffix, content in (("txt", text), ("ann", "".join(lines))):
            with atomic_path(document.with_name(f"{document.name}.{suffix}"), durable=False) as temporary:
                temporary.write_bytes(content.encode("utf-8", "replace"))  # half a surrogate pair as "?"


def _mention(place: int, kind: str, start: int, end: int, text: str) -> str:
    return f"T{place}\t{_name(kind)} {start} {end}\t{text[start:end]}\n"


def _name(name: str) -> str:
    """Return the name of a type as BRAT can take it: MNRE's have slashes."""
    return _NO_NAME.sub("_", name).strip("_") or "_"


_ENCODERS: dict[str, Callable[[Numbered, _Writing], Iterator[bytes]]] = {
    "jsonl": _jsonl,
    "conll": _conll,
    "label-studio": _label_studio,
    "spacy": _docbin,
    "csv": _csv,
}
