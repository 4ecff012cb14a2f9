"""JSON lines as OpenNRE has them: a sentence with a pair and its relation, by words or by characters.

    {"token": ["Ada", "of", "London"], "h": {"pos": [0, 1]}, "t": {"pos": [2, 3]}, "relation": "lives_in"}
    {"text": "Ada of London", "h": {"pos": [0, 3]}, "t": {"pos": [7, 13]}, "relation": "lives_in"}

An image may be named by "image" or "img_id".
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .annotated import first_object, json_rows, parsed, translated
from .rows import Draft, Line, Reading, Refused, TextFile

__all__ = ["is_opennre", "read_opennre"]

_KEYS = {"h", "t", "relation"}


def read_opennre(file: TextFile, task: str, reading: Reading) -> Iterator[Draft | Refused]:
    """Return the pairs of one file, and the rows that are none."""
    return translated(json_rows(file), parsed(_objects), task, reading)


def is_opennre(path: Path) -> bool:
    """Return whether the first object of a file is a row of OpenNRE."""
    record = first_object(path)
    return record.keys() >= _KEYS and bool({"token", "text"} & record.keys())


def _objects(line: Line, record: dict[str, Any], task: str) -> Iterator[dict[str, Any] | str]:
    if missing := sorted(_KEYS - record.keys()):
        raise line.error(f'"{missing[0]}" is missing; a row of OpenNRE has h, t, relation, and token or text')
    positions = {}
    for name, key in (("head", "h"), ("tail", "t")):
        if not isinstance(record[key], dict) or "pos" not in record[key]:
            line.fail(key, 'an object with the key "pos"', record[key])
        positions[name] = record[key]["pos"]
    text = {"tokens": record["token"]} if "token" in record else {"text": record.get("text")}
    image = record.get("image", record.get("img_id"))
    yield {**text, **positions, "relation": record["relation"], "id": record.get("id"), "image": image}
