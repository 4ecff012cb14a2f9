"""Boxes that somebody else's detector found: the rows of a file, each checked, and refused alone if wrong.

JSON lines have a box each, in pixels of the upright image:

    {"image": "<file name or content key>", "box": [x0, y0, x1, y1], "label": "person", "score": 0.97}

A .json file is COCO's results, a list of

    {"image_id": 42, "category_id": 18, "bbox": [x, y, width, height], "score": 0.236}

The ids are those of COCO's annotations, a second file. Without one, an image's id is its file name, with or
without suffix and zeros before it, and a category's is its number in COCO.
"""

import json
from bisect import insort
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from ...manifests.errors import InputError, in_one_line
from ...manifests.files import reason_of
from ...manifests.fingerprint import digest_file
from ...manifests.schemas import DETECTIONS
from ...manifests.tables import table_of
from ..vision.detectors import COCO
from ..vision.known import BadRecord, KnownImages, box_in, score_in, shown, text_in
from ..vision.plan import SIDES
from .settings import DetectSettings

__all__ = ["GivenBoxes", "box_files", "boxes_digest", "read_boxes"]

_UNUSED = frozenset({"__background__", "N/A"})


def box_files(settings: DetectSettings) -> dict[str, Path]:
    """Return the user's files that the stage reads, by the names of their options."""
    given = {"boxes": settings.boxes, "annotations": settings.annotations}
    return {name: Path(value).expanduser() for name, value in given.items() if value}


def boxes_digest(settings: DetectSettings, name: str) -> str:
    """Return the digest of one of these files. Raises InputError where it cannot be read."""
    path = box_files(settings)[name]
    try:
        return digest_file(path)
    except OSError as error:
        raise InputError(f"{path} (--{name}) cannot be read: {reason_of(error)}; check the path") from error


@dataclass(frozen=True)
class GivenBoxes:
    """What a file holds. detections: rows of DETECTIONS, by image and rank. problems: rows of PROBLEMS."""

    detections: pa.Table
    problems: list[dict[str, Any]]


def read_boxes(
    path: Path,
    annotations: Path | None,
    images: KnownImages,
    count: int,
    min_score: float,
    *,
    may_lack: bool = False,
) -> GivenBoxes:
    """Return the `count` boxes of the highest scores of each image, at least `min_score`, best first.

    annotations: COCO's, which say what the ids of its results are. may_lack: whether there may be no box in
    any image. Raises InputError where there is none, or where a file cannot be read at all.
    """
    best: dict[str, list[tuple[float, int, tuple[float, ...], str]]] = {}
    problems: list[dict[str, Any]] = []
    sound = 0
    records = _of_coco(path, annotations, images) if path.suffix == ".json" else _of_lines(path)
    for number, (where, values) in enumerate(records):
        try:
            key, box, label, score = _box_of(values, images)
        except BadRecord as error:
            name = values.get("image") if isinstance(values, dict) else None
            named = {"kind": "box", "sample": name if isinstance(name, str) else "", "where": where}
            problems.append({**named, "reason": str(error)})
            continue
        sound += 1
        if score >= min_score:
            kept = best.setdefault(key, [])
            insort(kept, (-score, number, box, label))  # of equal scores the first is the better one
            del kept[count:]
    if images.sizes and not sound and not may_lack:
        why = f"{problems[0]['where']}: {problems[0]['reason']}" if problems else "it has no row"
        raise InputError(f"{path} has no box in any of the {len(images.sizes)} images ({why})")
    rows = (
        {
            "image_key": key,
            "rank": rank,
            **dict(zip(SIDES, box, strict=True)),
            "label": label,
            "score": -score,
        }
        for key in sorted(best)
        for rank, (score, _, box, label) in enumerate(best[key])
    )
    return GivenBoxes(table_of(DETECTIONS, rows), problems)


def _box_of(values: Any, images: KnownImages) -> tuple[str, tuple[float, ...], str, float]:
    """Return an image's key, and a box in it with its label and score. Raises BadRecord."""
    if isinstance(values, BadRecord):
        raise values
    if not isinstance(values, dict):
        raise BadRecord(f"a JSON object is expected, not {shown(values)}")
    key = images.key(values.get("image"))
    box = box_in(values.get("box"), images.sizes[key], "")
    return key, box, text_in(values.get("label"), "label"), score_in(values.get("score"), "score")


def _of_lines(path: Path) -> Iterator[tuple[str, Any]]:
    """Yield where each line stands, and its values or a BadRecord."""
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                where = f"{path}:{number}"
                try:
                    if line.strip():
                        yield where, json.loads(line)
                except (ValueError, RecursionError) as error:
                    yield where, BadRecord(f"no JSON object ({in_one_line(error)})")
    except OSError as error:
        raise InputError(f"{path} (--boxes) cannot be read: {reason_of(error)}; check the path") from error


def _of_coco(path: Path, annotations: Path | None, images: KnownImages) -> Iterator[tuple[str, Any]]:
    """Yield where each result stands, and its values in the form of a line, or a BadRecord."""
    results = _read(path)
    if not isinstance(results, list):
        raise InputError(f"{path} must hold a list, as COCO's results are; give JSON lines as .jsonl")
    names, labels = (
        (_by_stem(images), dict(enumerate(COCO))) if annotations is None else _annotated(annotations)
    )
    for number, result in enumerate(results, start=1):
        try:
            yield f"{path}, result {number}", _result(result, names, labels)
        except BadRecord as error:
            yield f"{path}, result {number}", error


def _result(result: Any, names: Mapping[Any, str], labels: Mapping[Any, str]) -> dict[str, Any]:
    if not isinstance(result, dict):
        raise BadRecord(f"a JSON object is expected, not {shown(result)}")
    image, category = result.get("image_id"), result.get("category_id")
    name = names.get(image) if type(image) in (int, str) else None
    if name is None:
        raise BadRecord(f"image_id {shown(image)} is no image that is known")
    label = labels.get(category) if type(category) is int else None
    if label is None or label in _UNUSED:
        raise BadRecord(f"category_id {shown(category)} is no category that is known")
    box: Any = result.get("bbox")
    try:
        x, y, width, height = box
        box = [x, y, x + width, y + height]
    except (TypeError, ValueError):
        raise BadRecord(f"bbox must be four numbers x, y, width, height, not {shown(box)}") from None
    return {"image": name, "box": box, "label": label, "score": result.get("score")}


def _by_stem(images: KnownImages) -> dict[Any, str]:
    """Return names of images by themselves, by what stands before their suffix, and by that as a number."""
    found: dict[Any, str] = {key: key for key in images.sizes}
    for name in images.names:
        stem = Path(name).stem
        found[name] = name
        found.setdefault(stem, name)
        if stem.isascii() and stem.isdigit() and len(stem) < 20:
            found.setdefault(int(stem), name)
    return found


def _annotated(path: Path) -> tuple[dict[Any, str], dict[Any, str]]:
    """Return the names of images and of categories by their ids. Raises InputError where it has none."""
    values = _read(path)
    try:
        names = {image["id"]: str(image["file_name"]) for image in values["images"]}
        labels = {category["id"]: str(category["name"]) for category in values["categories"]}
    except (TypeError, KeyError) as error:
        raise InputError(
            f"{path} (--annotations) lacks images with id and file_name, or categories with id and name; "
            "give the COCO file that the detector was given"
        ) from error
    return names, labels


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path} cannot be read: {reason_of(error)}; check the path") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is no JSON ({in_one_line(error)}); copy it again") from error
