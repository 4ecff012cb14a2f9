"""The output of KaihuaTang/Scene-Graph-Benchmark.pytorch as records of scene graphs.

custom_prediction.json holds, by the number of an image, its boxes and relations, whose labels and predicates
are numbers; custom_data_info.json beside it holds what they stand for. The boxes are in the frame to which
the tool resized the image: a shorter side of 600 pixels, or a longer one of 1000 where that would be larger.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...manifests.errors import InputError, in_one_line
from ..vision.known import BadRecord, KnownImages

__all__ = ["INFO", "SCHEMA", "benchmark_records", "resized_frame"]

SCHEMA = "scene-graph/1"
"""What a record of scene graphs says it is."""

INFO = "custom_data_info.json"
_SHORTER, _LONGER = 600, 1000
_BACKGROUND = "__background__"
_COLUMNS = ("bbox", "bbox_labels", "bbox_scores", "rel_pairs", "rel_labels", "rel_scores")


def resized_frame(width: int, height: int) -> tuple[int, int]:
    """Return the size to which the tool resizes an image of this size."""
    shorter, longer = float(min(width, height)), float(max(width, height))
    size = _SHORTER
    if longer / shorter * size > _LONGER:
        size = round(_LONGER * shorter / longer)
    if min(width, height) == size:
        return width, height
    return (size, int(size * height / width)) if width < height else (int(size * width / height), size)


def benchmark_records(path: Path, images: KnownImages) -> Iterator[tuple[str, Any]]:
    """Yield where each record stands, and its values in the form of scene_graphs.jsonl, or a BadRecord.

    Raises InputError where one of the two files is not the tool's.
    """
    info = _read(path.with_name(INFO))
    files, labels, predicates = (
        info.get(name) for name in ("idx_to_files", "ind_to_classes", "ind_to_predicates")
    )
    if not (isinstance(files, list) and isinstance(labels, list) and isinstance(predicates, list)):
        raise InputError(
            f"{path.with_name(INFO)} lacks idx_to_files, ind_to_classes or ind_to_predicates; "
            "give the one that the tool wrote with these predictions"
        )
    for number, found in _read(path).items():
        where = f"{path}, image {number}"
        try:
            name = _at(files, int(number))
            yield where, _record(name, images.sizes[images.key(name)], found, labels, predicates)
        except BadRecord as error:
            yield where, error
        except (ValueError, IndexError, TypeError, KeyError, OverflowError) as error:
            wrong = f"{type(error).__name__}: {in_one_line(error)}"
            yield where, BadRecord(f"it is no prediction of Scene-Graph-Benchmark ({wrong})")


def _at(names: list[Any], number: Any) -> Any:
    """Return the name of a number; a negative one is no name, as it would be to Python."""
    if number < 0:
        raise IndexError(f"{number} is negative")
    return names[number]


def _record(
    name: str, size: tuple[int, int], found: Any, labels: list[str], predicates: list[str]
) -> dict[str, Any]:
    boxes, kinds, scores, pairs, names, strengths = (found[column] for column in _COLUMNS)
    frame = resized_frame(*size)
    scale = [size[0] / frame[0], size[1] / frame[1]] * 2
    things = [i for i, kind in enumerate(kinds) if _at(labels, kind) != _BACKGROUND]
    place = {old: new for new, old in enumerate(things)}
    return {
        "schema": SCHEMA,
        "image": name,
        "width": size[0],
        "height": size[1],
        "objects": [
            {
                "box": [side * by for side, by in zip(boxes[i], scale, strict=True)],
                "label": _at(labels, kinds[i]),
                "score": scores[i],
            }
            for i in things
        ],
        "relations": [
            {
                "subject": place[pair[0]],
                "predicate": _at(predicates, kind),
                "object": place[pair[1]],
                # The scores of all predicates, of which the relation's own is one, or that alone.
                "score": strength[kind] if isinstance(strength, list) else strength,
            }
            for pair, kind, strength in zip(pairs, names, strengths, strict=True)
            if _at(predicates, kind) != _BACKGROUND and pair[0] in place and pair[1] in place
        ],
    }


def _read(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise InputError(
            f"{path} is missing; Scene-Graph-Benchmark writes {INFO} beside custom_prediction.json: copy both"
        ) from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is no JSON ({in_one_line(error)}); copy it again") from error
    if not isinstance(values, dict):
        raise InputError(f"{path} must hold one JSON object, as Scene-Graph-Benchmark writes it")
    return values
