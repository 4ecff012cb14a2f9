"""The user's scene graphs: the records of a file, each checked, and refused alone where it is wrong.

`scene_graphs.jsonl`, or parquet with the same nested columns, has one record for each image:

    {"schema": "scene-graph/1", "image": "<file name or content key>", "width": 800, "height": 533,
     "objects": [{"box": [x0, y0, x1, y1], "label": "man", "score": 0.93, "feature": 0}],
     "relations": [{"subject": 0, "predicate": "holding", "object": 1, "score": 0.71}],
     "tool": "<name and version>"}

Boxes are in pixels of the original image. `feature` is optional: a row of the features file. `tool` is what
made objects and features, and optional.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ...manifests.errors import InputError, in_one_line
from ...manifests.files import reason_of
from ...manifests.schemas import SCENE_GRAPH
from ..vision.known import BadRecord, KnownImages, box_in, score_in, shown, text_in
from .benchmark import SCHEMA, benchmark_records
from .features import ObjectFeatures
from .scene import Relation, Scene, Thing

__all__ = ["Record", "read_records", "scene_of"]


@dataclass(frozen=True)
class Record:
    """One record as it was read.

    where: its file and line. values: what it holds, or a BadRecord where it cannot be read.
    """

    where: str
    values: Any

    @property
    def image(self) -> str:
        """Return the image that it names, for the failure table."""
        name = self.values.get("image") if isinstance(self.values, dict) else None
        return name if isinstance(name, str) else ""

    @property
    def tool(self) -> str:
        """Return the tool that made it, or "" where it does not say."""
        return str(self.values.get("tool") or "")


def read_records(path: Path, images: KnownImages) -> Iterator[Record]:
    """Yield the records of a file: .parquet, .json of Scene-Graph-Benchmark, or a JSON object a line.

    Raises InputError where the file cannot be read at all.
    """
    try:
        if path.suffix == ".parquet":
            yield from _of_parquet(path)
        elif path.suffix == ".json":
            yield from (Record(where, values) for where, values in benchmark_records(path, images))
        else:
            yield from _of_lines(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise InputError(
            f"{path} cannot be read ({reason_of(error)}); give --graphs a file of scene graphs, "
            ".jsonl, .parquet or custom_prediction.json"
        ) from error


def _of_lines(path: Path) -> Iterator[Record]:
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            where = f"{path}:{number}"
            try:
                yield Record(where, json.loads(line))
            except (ValueError, RecursionError) as error:
                yield Record(where, BadRecord(f"no JSON object ({in_one_line(error)})"))


def _of_parquet(path: Path) -> Iterator[Record]:
    number = 0
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(1024):
            for values in batch.to_pylist():
                number += 1
                # A column that other rows fill is null in a row without it.
                yield Record(f"{path}, row {number}", {k: v for k, v in values.items() if v is not None})


def scene_of(
    record: Record, images: KnownImages, features: ObjectFeatures | None, most: int
) -> tuple[str, Scene]:
    """Return the key of a record's image and its scene of at most `most` objects.

    features: what `feature` counts rows of; None: no object has any. Raises BadRecord.
    """
    values = record.values
    if isinstance(values, BadRecord):
        raise values
    if not isinstance(values, dict):
        raise BadRecord(f"a JSON object is expected, not {shown(values)}")
    if values.get("schema") != SCHEMA:
        raise BadRecord(f"schema must be {SCHEMA!r}, not {shown(values.get('schema'))}")
    if not isinstance(values.get("tool", ""), str):
        raise BadRecord(f"tool must be a text, not {shown(values['tool'])}")
    key = images.key(values.get("image"))
    size = images.sizes[key]
    told = (values.get("width"), values.get("height"))
    if told != size:
        raise BadRecord(
            f"width and height are {shown(told[0])} and {shown(told[1])}, and those of the image "
            f"{size[0]} and {size[1]}; boxes must be in pixels of the original image"
        )
    things = [_thing(one, i, size, features) for i, one in enumerate(_list(values, "objects"))]
    relations = [_relation(one, i, len(things)) for i, one in enumerate(_list(values, "relations"))]
    return key, Scene.of(SCENE_GRAPH, things, relations, most)


def _list(values: Mapping[str, Any], name: str) -> list[Any]:
    found = values.get(name, [])
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise BadRecord(f"{name} must be a list of JSON objects, not {shown(found)}")
    return found


def _thing(values: dict[str, Any], i: int, size: tuple[int, int], features: ObjectFeatures | None) -> Thing:
    width, height = size
    x0, y0, x1, y1 = box_in(values.get("box"), size, f" of object {i}")
    row = values.get("feature")
    if features is not None and (wrong := features.wrong(row)):
        raise BadRecord(f"the feature of object {i} {wrong}")
    return Thing(
        (x0 / width, y0 / height, x1 / width, y1 / height),
        text_in(values.get("label"), f"the label of object {i}"),
        score_in(values.get("score"), f"the score of object {i}"),
        row if features is not None else None,
    )


def _relation(values: dict[str, Any], i: int, objects: int) -> Relation:
    ends: list[int] = []
    for name in ("subject", "object"):
        end = values.get(name)
        if type(end) is not int or not 0 <= end < objects:
            raise BadRecord(f"the {name} of relation {i} must be one of {objects} objects, not {shown(end)}")
        ends.append(end)
    if ends[0] == ends[1]:
        raise BadRecord(f"relation {i} relates object {ends[0]} to itself")
    return Relation(
        ends[0],
        text_in(values.get("predicate"), f"the predicate of relation {i}"),
        ends[1],
        score_in(values.get("score"), f"the score of relation {i}"),
    )
