"""Tasks as Label Studio exports them to JSON, and to JSON_MIN.

    [{"id": 1, "data": {"text": "Ada is here", "image": "/data/upload/1/ab12cd34-ada.jpg"},
      "annotations": [{"result": [{"id": "a", "type": "labels",
                                   "value": {"start": 0, "end": 3, "text": "Ada", "labels": ["PER"]}}]}]}]

    [{"id": 1, "text": "Ada is here", "label": [{"start": 0, "end": 3, "text": "Ada", "labels": ["PER"]}]}]

Images are addresses, which stages.vision.addresses finds in a folder. Relations are results of the type
"relation" from one region to another. Regions of images are not read.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...text.written import shorten
from .annotated import Annotated, first_object, json_rows, objects_of, parsed, translated
from .rows import Draft, Line, Reading, Refused, TextFile

__all__ = ["is_label_studio", "read_label_studio"]


# What a task holds beside its text, in "data" or, in JSON_MIN, beside the regions.
_NO_TEXT = ("id", "image", "created_at", "updated_at")


def read_label_studio(file: TextFile, task: str, reading: Reading) -> Iterator[Draft | Refused]:
    """Return the samples of one file, and the tasks that are none."""
    return translated(json_rows(file), parsed(_objects), task, reading)


def is_label_studio(path: Path) -> bool:
    """Return whether the first object of a file is a task of Label Studio."""
    record = first_object(path)
    if isinstance(record.get("data"), dict):
        return "annotations" in record or "predictions" in record
    if "annotation_id" in record and "annotator" in record:  # of JSON_MIN; nothing may be annotated in it
        return True
    regions = record.get("label")
    return isinstance(regions, list) and bool(regions) and all(map(_is_region, regions))


def _is_region(one: Any) -> bool:
    return isinstance(one, dict) and {"start", "end", "labels"} <= one.keys()


def _objects(line: Line, task_record: dict[str, Any], task: str) -> Iterator[dict[str, Any] | str]:
    if "data" not in task_record and {"label", "annotation_id"} & task_record.keys():  # of JSON_MIN
        regions = task_record.get("label", [])
        if not isinstance(regions, list):
            line.fail("label", "a list of objects", regions)
        results = [{"type": "labels", "value": one} for one in regions]
        task_record = {"data": task_record, "annotations": [{"result": results}]}
    data = task_record.get("data")
    if not isinstance(data, dict):
        line.fail("data", "an object", data)
    written = task_record.get("annotations") or []
    if not isinstance(written, list) or not all(isinstance(one, dict) for one in written):
        line.fail("annotations", "a list of objects", written)
    finished = [one for one in written if not one.get("was_cancelled")]
    if not finished:
        raise line.error("it has no finished annotation; predictions count once somebody has accepted them")
    finished.sort(key=lambda one: not one.get("ground_truth"))
    results = finished[0].get("result")
    if not isinstance(results, list) or not all(isinstance(one, dict) for one in results):
        line.fail("result", "a list of objects", results)
    text = _text(line, data)
    spans: dict[Any, tuple[Any, Any, Any]] = {}
    relations: list[tuple[Any, Any, Any]] = []
    for place, one in enumerate(results):
        if one.get("type") == "labels":
            spans[str(one.get("id", f"[{place}]"))] = _span(line, f"result[{place}]", one.get("value"), text)
        elif one.get("type") == "relation":
            head, tail = str(one.get("from_id")), str(one.get("to_id"))
            if one.get("direction") == "left":
                head, tail = tail, head
            relations.append((head, tail, _label(line, f"result[{place}] labels", one.get("labels"))))
    others = [
        f"annotation {number} of its {len(finished)}, as one is read: the ground truth, or the first"
        for number in range(2, len(finished) + 1)
    ]
    yield from objects_of(
        line,
        Annotated(
            text,
            spans,
            relations,
            id=data.get("id", task_record.get("id")),
            image=line.text("image", data["image"]) if data.get("image") is not None else None,
            tokens=data.get("tokens"),
            left_out=others,
        ),
        task,
    )


def _text(line: Line, data: dict[str, Any]) -> str:
    """Return the text of a task: "text", or the only string that is no image, name or address."""
    if "text" in data:
        return line.text("text", data["text"])
    others = [
        name
        for name, value in data.items()
        if isinstance(value, str) and name not in _NO_TEXT and not _is_address(value)
    ]
    if len(others) != 1:
        raise line.error(f'"data" has no "text" among {shorten(sorted(data))}; call the text so')
    return line.text(others[0], data[others[0]])


def _is_address(value: str) -> bool:
    return value.startswith("/data/") or "://" in value.split(" ")[0]


def _span(line: Line, name: str, value: Any, text: str) -> tuple[int, int, str]:
    """Return the range of characters of a region and its type. The text of the region says if it fits."""
    if not isinstance(value, dict) or not all(type(value.get(end)) is int for end in ("start", "end")):
        line.fail(f"{name} value", "an object with the numbers start and end", value)
    start, end = value["start"], value["end"]
    words = value.get("text")
    if isinstance(words, str) and words != text[start:end]:
        fitting = [len(_of_units(text, place)) for place in (start, end)]  # as JavaScript counts
        if text[slice(*fitting)] != words:
            raise line.error(f"{name} has the text {shorten(words)}, found {shorten(text[start:end])} there")
        start, end = fitting
    return start, end, _label(line, f"{name} labels", value.get("labels"))


def _of_units(text: str, count: int) -> str:
    """Return the beginning of a text that has so many units of UTF-16."""
    return text.encode("utf-16-le", "surrogatepass")[: 2 * max(count, 0)].decode("utf-16-le", "replace")


def _label(line: Line, name: str, labels: Any) -> str:
    found = line.texts(name, labels)
    if len(found) != 1:
        line.fail(name, "a list of one label, as a word has one tag", labels)
    return found[0]
