"""JSON lines as doccano exports them, for sequence labelling and for relations.

    {"id": 1, "text": "Ada is here", "label": [[0, 3, "PER"]], "image": "ada.jpg"}
    {"id": 1, "text": "Ada of London", "relations": [{"id": 2, "from_id": 7, "to_id": 8, "type": "lives"}],
     "entities": [{"id": 7, "label": "PER", "start_offset": 0, "end_offset": 3},
                  {"id": 8, "label": "LOC", "start_offset": 7, "end_offset": 13}]}

The image is a column of the imported data, which doccano keeps beside the text or under "meta".
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .annotated import Annotated, first_object, json_rows, objects_of, parsed, translated
from .rows import Draft, Line, Reading, Refused, TextFile

__all__ = ["is_doccano", "read_doccano"]

_LABELS = ("label", "labels")
_ENTITY = {"id", "label", "start_offset", "end_offset"}
_RELATION = {"from_id", "to_id", "type"}


def read_doccano(file: TextFile, task: str, reading: Reading) -> Iterator[Draft | Refused]:
    """Return the samples of one file, and the rows that are none."""
    return translated(json_rows(file), parsed(_objects), task, reading)


def is_doccano(path: Path) -> bool:
    """Return whether the first object of a file is a row of doccano."""
    record = first_object(path)
    labels = next((record[name] for name in _LABELS if isinstance(record.get(name), list)), None)
    if "tokens" in record and not isinstance(record.get("text"), str):
        return False
    if isinstance(record.get("entities"), list):
        return "text" in record and all(
            isinstance(one, dict) and "start_offset" in one for one in record["entities"]
        )
    return "text" in record and labels is not None and all(map(_is_triple, labels))


def _objects(line: Line, record: dict[str, Any], task: str) -> Iterator[dict[str, Any] | str]:
    text = line.text("text", record.get("text"))
    spans: dict[Any, tuple[Any, Any, Any]] = {}
    labels: Any = next((record[name] for name in _LABELS if record.get(name) is not None), [])
    if not isinstance(labels, list):
        line.fail("label", "a list of [start, end, type]", labels)
    for place, label in enumerate(labels):
        if not _is_triple(label):
            line.fail(f"label[{place}]", "[start, end, type]", label)
        spans["label", place] = tuple(label)
    for place, one in enumerate(_dicts(line, record, "entities", _ENTITY)):
        name = _id(line, f"entities[{place}] id", one["id"])
        spans[name] = one["start_offset"], one["end_offset"], one["label"]
    relations = [
        (one["from_id"], one["to_id"], one["type"]) for one in _dicts(line, record, "relations", _RELATION)
    ]
    meta = record["meta"] if isinstance(record.get("meta"), dict) else {}
    yield from objects_of(
        line,
        Annotated(
            text,
            spans,
            relations,
            id=record.get("id"),
            image=record.get("image", meta.get("image")),
            tokens=record.get("tokens", meta.get("tokens")),
        ),
        task,
    )


def _is_triple(label: Any) -> bool:
    return isinstance(label, list) and len(label) == 3 and isinstance(label[2], str)


def _dicts(line: Line, record: dict[str, Any], name: str, keys: set[str]) -> list[dict[str, Any]]:
    found = record.get(name) or []
    if not isinstance(found, list):
        line.fail(name, "a list of objects", found)
    for place, one in enumerate(found):
        if not isinstance(one, dict) or not keys <= one.keys():
            line.fail(f"{name}[{place}]", f"an object with the keys {', '.join(sorted(keys))}", one)
    return found


def _id(line: Line, name: str, value: Any) -> Any:
    return value if type(value) is int else line.text(name, value)
