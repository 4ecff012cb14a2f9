"""Where a model looks for a mention: the view with the most attention, against the boxes that people drew.

The attention of a mention's words to each view is added up over words and layers. The view with the most is
right where its box and one of the mention's have an IoU of 0.5 or more. The whole image is a view like any
other, with the image as its box: its pixels are what was looked at, and boxes of portraits fill most of
theirs. So a mention that is not in the image has no right view, and is only counted; how often the whole
image comes first for it, and for the others, is said beside.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ...cache.spec import ALL, IMAGE, SCENE, FeatureSpec
from ...manifests.advice import typed
from ...manifests.errors import InputError
from ...manifests.run import RunFolder
from ...manifests.schemas import IMAGES, MENTION_BOXES
from ...manifests.tables import read_table
from ..systems.batch import ModelConfig
from ..vision.plan import SIDES, Box, iou, planned_images, scene_images

__all__ = ["IOU", "check_boxes", "grounding_of"]

IOU = 0.5
"""From which IoU on two boxes are of one thing."""


@dataclass(frozen=True)
class _Mention:
    """A mention of the gold. words: half-open. boxes: none where it is not in the image."""

    type: str
    words: tuple[int, int]
    boxes: tuple[Box, ...]


@dataclass(frozen=True)
class _Looked:
    """What a model looked at for a mention.

    right: of each view that there is, whether it is one of the mention's. objects: which of them are detected
    objects. first: the one with the most attention; None: nothing is looked at.
    """

    type: str
    right: tuple[bool, ...]
    objects: tuple[bool, ...]
    first: int | None


def check_boxes(config: ModelConfig, data: RunFolder) -> None:
    """Raise InputError where there are no boxes of mentions that a model's attention could be compared with.

    Whether a model has attention to views shows when it is explained.
    """
    if config.task != "ner":
        raise InputError("relations have no boxes of mentions: only entities can be grounded")
    if not data.mention_boxes.is_file():
        make = typed("prepare", data.path, "--mention-boxes", "FOLDER")
        raise InputError(f"{data.path} has no boxes of mentions; run `{make}` with the folder of their files")


def grounding_of(config: ModelConfig, explained: pa.Table, data: RunFolder) -> dict[str, Any]:
    """Return how often a model looks at the right view of mentions, over all and by type.

    explained: what it looked at in a split (schema EXPLANATIONS). Of mentions with boxes: "mentions", how
    many there are; "accuracy", the share of those whose most attended view is right; "ceiling", of those for
    which any view is, and "detected", any detected object alone; "chance", the mean share of views that are
    right. "not_in_image" counts the mentions that are not in the image, and "whole_image" is the share of
    both kinds for which the whole image comes first, None where it is no view of the model's.

    Raises InputError for a model whose attention is not to views with boxes, and where no mention of the
    split has a box.
    """
    rows = explained.to_pylist()
    over = rows[0]["over"]
    if over == "cells":
        raise InputError(
            f"{config.system} attends to cells of the whole image, and to no view that has a box"
        )
    mentions = _mentions(data) if data.mention_boxes.is_file() else {}
    if not any(mention.boxes for row in rows for mention in mentions.get(row["id"], ())):
        raise InputError(
            f"no mention of the {rows[0]['split']} split of {data.path} has a box; see its problems.parquet"
        )
    spec = FeatureSpec.from_json(config.features) if config.features else None
    has_image = over == "views" and (spec is None or spec.regions in (ALL, IMAGE))
    boxes = _boxes(config, spec, data, {row["image_key"] for row in rows})
    looked: dict[bool, list[_Looked]] = {True: [], False: []}
    for row in rows:
        for mention in mentions.get(row["id"], ()):
            views = boxes[row["image_key"]][0 if has_image else 1 :]
            looked[bool(mention.boxes)].append(_looked(row, mention, views, has_image))
    return {
        "over": over,
        "iou": IOU,
        **_scores(looked[True]),
        "per_type": {name: _scores(some) for name, some in sorted(_by_type(looked[True]).items())},
        "not_in_image": len(looked[False]),
        "whole_image": {
            name: _share([one.first == 0 for one in looked[there]]) if has_image else None
            for name, there in (("in_image", True), ("not_in_image", False))
        },
    }


def _mentions(data: RunFolder) -> dict[str, list[_Mention]]:
    """Return the mentions that somebody looked for in the image, by the ids of their samples."""
    found: dict[str, dict[tuple[int, int], _Mention]] = defaultdict(dict)
    for row in read_table(data.mention_boxes, MENTION_BOXES, "prepare").to_pylist():
        words = (row["words"][0], row["words"][1])
        there = found[row["id"]].get(words)
        box = tuple(row[side] for side in SIDES) if row["x0"] is not None else None
        boxes = (*(there.boxes if there else ()), *([box] if box else []))
        found[row["id"]][words] = _Mention(row["type"], words, boxes)
    return {name: list(mentions.values()) for name, mentions in found.items()}


def _boxes(
    config: ModelConfig, spec: FeatureSpec | None, data: RunFolder, keys: set[str | None]
) -> dict[str | None, list[Box]]:
    """Return the boxes of the whole image and of its objects, best first, by its key."""
    sizes = read_table(data.images, IMAGES, "prepare", ["key", "width", "height"])
    sizes = sizes.filter(pc.is_in(sizes["key"], pa.array(keys, pa.string())))
    whole = {row["key"]: (0.0, 0.0, float(row["width"]), float(row["height"])) for row in sizes.to_pylist()}
    objects = spec.views if spec is not None else int(config.options["objects"])
    if spec is not None and spec.regions == SCENE:
        units = scene_images(data.images, data.scenes, objects)
    else:
        units = planned_images(data.images, data.detections, objects)
    return {unit.key: [whole[unit.key], *unit.boxes] for unit in units if unit.key in keys}


def _looked(row: Mapping[str, Any], mention: _Mention, views: Sequence[Box], has_image: bool) -> _Looked:
    """Return what a model looked at. row: of EXPLANATIONS. views: the box of each view."""
    there = [view for view, present in enumerate(row["views"]) if present]
    right = tuple(any(iou(views[view], box) >= IOU for box in mention.boxes) for view in there)
    objects = tuple(not (has_image and view == 0) for view in there)
    # Words that the model did not read have no attention. shape: (layers, words, views)
    attention = np.array(row["attention"], np.float64)[:, slice(*mention.words)]
    weights = attention.sum(axis=(0, 1))[there] if attention.size else np.zeros(len(there))
    return _Looked(mention.type, right, objects, int(weights.argmax()) if weights.any() else None)


def _by_type(looked: Iterable[_Looked]) -> dict[str, list[_Looked]]:
    found: dict[str, list[_Looked]] = defaultdict(list)
    for one in looked:
        found[one.type].append(one)
    return found


def _scores(looked: Sequence[_Looked]) -> dict[str, Any]:
    return {
        "mentions": len(looked),
        "accuracy": _share([one.first is not None and one.right[one.first] for one in looked]),
        "ceiling": _share([any(one.right) for one in looked]),
        "detected": _share(
            [any(a and b for a, b in zip(one.right, one.objects, strict=True)) for one in looked]
        ),
        "chance": _share([sum(one.right) / len(one.right) if one.right else 0.0 for one in looked]),
    }


def _share(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None
